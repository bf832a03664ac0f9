//! How many configurations were tried on the same data, and what that makes of each.
//!
//! Trials are on the same data where what they were judged on shares a source file, by path or by
//! content: other prompts made from the same bars, or the same file with a day more, are no fresh
//! data. Where that is uncertain it counts too many rather than too few.
//!
//! A stage that has something to say of it ([`quantmill_stages::Stage::judge`]) has a page beside its
//! first output. The page is no output: nothing reads it, no key covers it, and it changes with the
//! ledger while the outputs keep their bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use quantmill_cache::Artifact;
use quantmill_stages::{CONFIGURATIONS, Judged, Kind, Tried};
use serde::Serialize;

use super::ledger::{self, Trial};
use crate::exit::Failure;
use crate::run::Ran;

/// The trials on the same data by the same kind of stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group<'a> {
    /// The kind.
    pub kind: &'a str,
    /// The data, by port: more than one where they were made from the same sources.
    pub data: BTreeMap<&'a str, BTreeSet<Artifact>>,
    /// Distinct configurations: the last trial of each, in the order in which they first came.
    #[serde(skip)]
    pub configs: Vec<&'a Trial>,
    /// How many of these, with all that a search among them tried.
    pub trials: usize,
    /// How often one ran.
    pub ran: usize,
    /// Its stages.
    pub stages: BTreeSet<&'a str>,
    /// What names its data: paths, and content.
    #[serde(skip)]
    marks: BTreeSet<String>,
}

/// Gathers trials by the data that they have in common, in the order in which the data first came.
pub fn groups(trials: &[Trial]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for trial in trials {
        let (mut group, mut place) = (Group::of(trial), None);
        // It may be what two groups have in common.
        while let Some(at) = groups.iter().position(|other| other.meets(&group)) {
            group = groups.remove(at).join(group);
            place.get_or_insert(at);
        }
        groups.insert(place.unwrap_or(groups.len()), group);
    }
    groups
}

impl<'a> Group<'a> {
    fn of(trial: &'a Trial) -> Group<'a> {
        let content = trial.data.values().chain(trial.sources.values()).map(Artifact::to_string);
        Group {
            kind: &trial.kind,
            data: trial.data.iter().map(|(p, a)| (p.as_str(), BTreeSet::from([*a]))).collect(),
            configs: vec![trial],
            trials: tried(trial),
            ran: 1,
            stages: BTreeSet::from([trial.stage.as_str()]),
            marks: content.chain(trial.sources.keys().cloned()).collect(),
        }
    }

    fn meets(&self, other: &Group) -> bool {
        let same = self.marks == other.marks || !self.marks.is_disjoint(&other.marks);
        self.kind == other.kind && same
    }

    fn join(mut self, other: Group<'a>) -> Group<'a> {
        for (port, data) in other.data {
            self.data.entry(port).or_default().extend(data);
        }
        for trial in other.configs {
            match self.configs.iter_mut().find(|own| same(own, trial)) {
                Some(own) => *own = if own.at > trial.at { own } else { trial },
                None => self.configs.push(trial),
            }
        }
        self.trials = self.configs.iter().map(|trial| tried(trial)).sum();
        self.ran += other.ran;
        self.stages.extend(other.stages);
        self.marks.extend(other.marks);
        self
    }

    /// What the kind makes of the configuration at `own`, or else of the best.
    pub fn judge(&self, kinds: &[Kind], own: Option<usize>) -> Result<Option<Judged>, Failure> {
        let Some(kind) = kinds.iter().find(|kind| kind.name == self.kind) else { return Ok(None) };
        let tried = |trial: &&Trial| Tried {
            at: clock(trial.at),
            run: trial.run.clone(),
            stage: trial.stage.clone(),
            config: trial.config.short(),
            metrics: trial.metrics.clone(),
        };
        let tried: Vec<Tried> = self.configs.iter().map(tried).collect();
        (kind.judge)(&tried, own).map_err(|e| std::io::Error::other(e.to_string()).into())
    }
}

/// Configurations that a trial tried: one, or as many as its own search says.
fn tried(trial: &Trial) -> usize {
    let told = trial.metrics.get(CONFIGURATIONS).copied().unwrap_or(1.0);
    if (1.0..1e9).contains(&told) { told as usize } else { 1 }
}

/// Whether two trials are one configuration on one data set.
fn same(a: &Trial, b: &Trial) -> bool {
    a.config == b.config && a.data == b.data
}

/// `2026-11-21 08:13`, in universal time: a page reads the same wherever it was written.
fn clock(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Brings the pages of a run's trials up to date where outputs are in place; tells what is new of
/// each.
pub fn pages(ran: &Ran, publish: bool) -> Result<Vec<(String, String)>, Failure> {
    let Ran { graph, plan, state, .. } = ran;
    let done = |index: &usize| graph.nodes[*index].kind.trial && plan.outputs(*index).is_some();
    let done: Vec<usize> = (0..graph.nodes.len()).filter(done).collect();
    let mut told = Vec::new();
    if done.is_empty() {
        return Ok(told);
    }
    let trials = ledger::read(&state.home)?;
    let groups = groups(&trials);
    for index in done {
        let node = &graph.nodes[index];
        if node.frozen {
            continue;
        }
        let key = plan.key(graph, state, index)?;
        let (config, _, data) = ledger::identity(&node.kind, &key);
        let find = |group: &Group| {
            let is = |trial: &&Trial| trial.config == config && trial.data == data;
            group.configs.iter().position(is).filter(|_| group.kind == node.kind.name)
        };
        // A ledger that was lost knows nothing of what ran before.
        let Some((group, own)) = groups.iter().find_map(|g| Some((g, find(g)?))) else { continue };
        let Some(judged) = group.judge(&[node.kind], Some(own))? else { continue };
        let Some(place) = node.outputs.first().map(|out| page(&graph.dir.join(&out.dest))) else {
            continue;
        };
        let new = std::fs::read_to_string(&place).ok().as_ref() != Some(&judged.page);
        if publish && new {
            write(&place, &judged.page)?;
        }
        if new || !publish {
            told.push((node.name.clone(), judged.line));
        }
    }
    Ok(told)
}

/// The page that belongs to an output: `out/report/report.trials.html`.
pub fn page(output: &Path) -> PathBuf {
    output.with_extension("trials.html")
}

fn write(place: &Path, text: &str) -> std::io::Result<()> {
    let mut temp = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temp.permissions(std::fs::Permissions::from_mode(0o644));
    }
    let folder = place.parent().unwrap_or(Path::new("."));
    let mut temp = temp.prefix(".quantmill-").tempfile_in(folder)?;
    temp.write_all(text.as_bytes())?;
    temp.persist(place).map_err(|error| error.error)?;
    Ok(())
}
