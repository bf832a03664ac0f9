//! Makes a run again from nothing and compares every artifact with what it was.
//!
//! The run happens in a folder and with a store of its own, in a process of its own: it can use nothing
//! of the workspace but what [`super::restore`] put there. The first stage in topological order whose
//! outputs differ is where it diverged; what lies behind it differs because its inputs do.

use std::path::{Path, PathBuf};
use std::process::Command;

use quantmill_cache::{Artifact, Store};
use quantmill_stages::Kind;
use serde::Serialize;

use super::account::Account;
use super::compare::{self, Difference};
use super::restore::{self, Found, Gone, Laid, Origin};
use crate::exit::Failure;
use crate::graph::{Graph, Node};
use crate::lock::{self, Lockfile, Record};
use crate::state::State;

/// How many differing files of an output are told.
const TOLD: usize = 8;

/// A folder in which the run can happen again.
pub struct Ready {
    /// The pipeline in it.
    pub laid: Laid,
    /// Where its inputs were found.
    pub found: Found,
    /// What is nowhere any more.
    pub gone: Vec<Gone>,
    /// Whether the other files of the folder are those of the commit.
    pub tracked: bool,
    /// The state folder of the new run.
    home: PathBuf,
}

/// Lays out everything below `into`.
pub fn prepare(
    run: &Account,
    store: &Store,
    lock: &Lockfile,
    into: &Path,
    kinds: &[Kind],
) -> Result<Ready, Failure> {
    let origin = Origin { store, run };
    let laid = restore::lay(run, lock, into, kinds)?;
    let (found, mut gone) = origin.inputs(&laid)?;
    let tracked = origin.tracked(&laid)?;
    let home = std::path::absolute(into)?.join(crate::state::FOLDER);
    let state = State::open(home.clone())?;
    for wanted in &laid.wanted {
        if let Artifact::Tree(digest) = wanted.artifact
            && let Ok(tree) = store.tree(&digest)
        {
            state.store.put_tree(&tree)?;
        }
    }
    if gone.is_empty() {
        let wrong = restore::prune(&laid, &state)?;
        let lost = |wanted: restore::Wanted| Gone {
            path: wanted.pattern,
            digest: wanted.artifact.digest(),
        };
        gone.extend(wrong.into_iter().map(lost));
    }
    Ok(Ready { laid, found, gone, tracked, home })
}

impl Ready {
    /// Runs everything, with the environment of the run. Returns what the stages are now; those that
    /// failed are missing.
    pub fn run(&self, run: &Account, jobs: Option<u16>) -> Result<Lockfile, Failure> {
        let setting = &run.setting;
        let mut command = Command::new(std::env::current_exe()?);
        let file = std::path::absolute(&self.laid.file)?;
        command.arg("run").arg(&file).args(&setting.targets);
        command.args(["--device", &setting.device, "--keep-going"]);
        for stage in &setting.downstream_of {
            command.args(["--downstream-of", stage]);
        }
        for (name, value) in &setting.set {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        for node in self.laid.graph.nodes.iter().filter(|node| node.frozen) {
            command.arg("--set").arg(format!("stages.{}.frozen=false", node.base));
        }
        if let Some(jobs) = jobs {
            command.args(["-j", &jobs.to_string()]);
        }
        for name in self.laid.graph.nodes.iter().flat_map(|node| &node.env) {
            match setting.env.get(name) {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("QUANTMILL_HOME", &self.home).current_dir(&self.laid.graph.dir);
        let status = command.status()?;
        match status.code() {
            Some(0 | 1) => Ok(lock::read(&lock::path(&file))),
            Some(130) => Err(Failure::Interrupted),
            _ => Err(std::io::Error::other(format!("the run ended with {status}")).into()),
        }
    }

    /// The store of the new run.
    pub fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.home)?)
    }
}

/// How a stage came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same bytes.
    Same,
    /// Numbers differ by no more than the tolerance.
    Within,
    /// Other outputs of the same inputs.
    Differs,
    /// Other outputs, of inputs that differ already.
    Follows,
    /// It is another version of the stage, or other parameters.
    Changed,
    /// It failed, or did not run.
    Missing,
}

/// A stage, then and now.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The stage.
    pub stage: String,
    /// How it came out.
    pub verdict: Verdict,
    /// How many files its outputs had.
    pub files: usize,
    /// The first few that differ.
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub more: usize,
}

/// Compares every stage of the record with what it is now, in topological order.
pub fn compare(
    graph: &Graph,
    (then, old): (&Lockfile, &Store),
    (now, new): (&Lockfile, &Store),
    tolerance: f64,
) -> Result<Vec<Compared>, Failure> {
    let mut all = Vec::new();
    for node in &graph.nodes {
        let Some(then) = then.get(&node.name) else { continue };
        let stage = node.name.clone();
        let Some(now) = now.get(&node.name) else {
            let verdict = Verdict::Missing;
            all.push(Compared { stage, verdict, files: 0, differences: Vec::new(), more: 0 });
            continue;
        };
        let mut differences = Vec::new();
        let mut files = 0;
        for (port, was) in &then.outputs {
            let is = now.outputs.get(port).copied();
            files += artifact(node, port, (*was, old), (is, new), &mut differences)?;
        }
        let largest = differences.iter().map(|d| d.distance.unwrap_or(f64::INFINITY));
        let verdict = if differences.is_empty() {
            Verdict::Same
        } else if largest.fold(0.0, f64::max) <= tolerance {
            Verdict::Within
        } else {
            blame(&then, &now)
        };
        let more = differences.len().saturating_sub(TOLD);
        differences.truncate(TOLD);
        all.push(Compared { stage, verdict, files, differences, more });
    }
    Ok(all)
}

/// Why outputs differ.
fn blame(then: &Record, now: &Record) -> Verdict {
    let (was, is) = (
        (&then.kind, then.version, &then.params, then.seed),
        (&now.kind, now.version, &now.params, now.seed),
    );
    if was != is || then.device != now.device {
        Verdict::Changed
    } else if then.inputs != now.inputs {
        Verdict::Follows
    } else {
        Verdict::Differs
    }
}

/// Compares an output; returns how many files it had.
fn artifact(
    node: &Node,
    port: &str,
    (was, old): (Artifact, &Store),
    (is, new): (Option<Artifact>, &Store),
    differences: &mut Vec<Difference>,
) -> Result<usize, Failure> {
    let place = node.outputs.iter().find(|out| out.port.name == port).map(|out| out.dest.clone());
    let place = place.unwrap_or_else(|| port.into()).display().to_string();
    let plain = |how: String| Difference { file: place.clone(), how, distance: None };
    match (was, is) {
        (Artifact::File(_), Some(is)) if was == is => Ok(1),
        (Artifact::File(was), Some(Artifact::File(is))) => {
            differences.push(one(&place, (was, old), (is, new)));
            Ok(1)
        }
        (Artifact::Tree(was), Some(Artifact::Tree(is))) => {
            let now = new.tree(&is)?.entries;
            let Ok(then) = old.tree(&was) else {
                if was != is {
                    let how = "the list of its files then is gone from the store";
                    differences.push(plain(how.into()));
                }
                return Ok(now.len());
            };
            for (name, entry) in &then.entries {
                let file = format!("{place}/{name}");
                match now.get(name) {
                    Some(is) if is.digest == entry.digest && is.executable == entry.executable => {}
                    Some(is) if is.digest == entry.digest => {
                        let how = "another executable bit".to_owned();
                        differences.push(Difference { file, how, distance: None });
                    }
                    Some(is) => differences.push(one(&file, (entry.digest, old), (is.digest, new))),
                    None => {
                        let how = format!("{} bytes -> not there", entry.size);
                        differences.push(Difference { file, how, distance: None });
                    }
                }
            }
            for (name, entry) in now.iter().filter(|(name, _)| !then.entries.contains_key(*name)) {
                let (file, how) =
                    (format!("{place}/{name}"), format!("not there -> {} bytes", entry.size));
                differences.push(Difference { file, how, distance: None });
            }
            Ok(then.entries.len())
        }
        (_, None) => {
            differences.push(plain("not there".into()));
            Ok(1)
        }
        _ => {
            differences.push(plain("a file on one side and a folder on the other".into()));
            Ok(1)
        }
    }
}

fn one(
    file: &str,
    (was, old): (quantmill_cache::Digest, &Store),
    (is, new): (quantmill_cache::Digest, &Store),
) -> Difference {
    let gone = |which: &str| {
        let how = format!("{} -> {} ({which} is gone from the store)", was.short(), is.short());
        Difference { file: file.to_owned(), how, distance: None }
    };
    let Ok(then) = old.read(&was) else { return gone("what it was") };
    let Ok(now) = new.read(&is) else { return gone("what it is") };
    // Digests differ, so bytes do, unless the store is damaged.
    compare::bytes(file, &then, &now).unwrap_or_else(|| gone("one of them"))
}
