//! The ledger: `.quantmill/ledger.jsonl`, a line for every action of a stage that tries a model out and
//! that really ran. It is only ever appended to, survives the runs that it names, and answers one
//! question honestly: how many configurations were tried on the same data?
//!
//! What a model was made of is part of the configuration, so that ten models judged on one data set
//! are ten trials. Which kinds of stages count is said by `Stage::TRIAL`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use quantmill_cache::{ActionKey, Artifact, Digest};
use quantmill_stages::{Format, Kind};
use serde::{Deserialize, Serialize};

use crate::event::{Event, Finished, Outcome};

/// The BLAKE3 `derive_key` context of a configuration.
const CONTEXT: &str = "quantmill 2026 trial configuration v1";

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// When it ended, in milliseconds since 1970.
    pub at: i64,
    /// The run.
    pub run: String,
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// The stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The digest of parameters, seed, device and the models that went in.
    pub config: Digest,
    /// The data that went in, by port.
    pub data: BTreeMap<String, Artifact>,
    /// The models that went in, by port.
    pub given: BTreeMap<String, Artifact>,
    /// The models that came out, by port.
    pub made: BTreeMap<String, Artifact>,
    /// What it reported.
    pub metrics: BTreeMap<String, f64>,
}

/// Writes trials down as they happen.
pub struct Ledger {
    place: PathBuf,
    run: String,
    pipeline: PathBuf,
    kinds: Vec<Kind>,
}

/// Where the ledger lies.
pub fn place(home: &Path) -> PathBuf {
    home.join("ledger.jsonl")
}

impl Ledger {
    /// The ledger of a run.
    pub fn new(home: &Path, run: &str, pipeline: &Path, kinds: &[Kind]) -> Ledger {
        let kinds = kinds.iter().filter(|kind| kind.trial).copied().collect();
        Ledger { place: place(home), run: run.into(), pipeline: pipeline.into(), kinds }
    }

    /// Appends a line where the event is a trial. A line is one write, so that runs at the same time
    /// do not mix theirs.
    pub fn note(&self, event: &Event) -> io::Result<()> {
        let Event::StageFinished(done) = event else { return Ok(()) };
        let kind = self.kinds.iter().find(|kind| kind.name == done.key.stage);
        let (Some(kind), Outcome::Ran, 1..) = (kind, done.outcome, done.ran) else { return Ok(()) };
        let mut line = serde_json::to_vec(&self.trial(kind, done))?;
        line.push(b'\n');
        let file = fs_err::OpenOptions::new().create(true).append(true).open(&self.place)?;
        file.into_parts().0.write_all(&line)
    }

    fn trial(&self, kind: &Kind, done: &Finished) -> Trial {
        let key = &done.key;
        let formats = |ports: Vec<quantmill_stages::Port>| -> BTreeMap<String, Format> {
            ports.into_iter().map(|port| (port.name.into_owned(), port.format)).collect()
        };
        let (inputs, outputs) =
            (formats((kind.inputs)(&key.params)), formats((kind.outputs)(&key.params)));
        let pick = |all: &BTreeMap<String, Artifact>, fits: &dyn Fn(&String) -> bool| {
            let fitting = all.iter().filter(|(port, _)| fits(port));
            fitting.map(|(port, artifact)| (port.clone(), *artifact)).collect::<BTreeMap<_, _>>()
        };
        let given = pick(&key.inputs, &|port| inputs.get(port) == Some(&Format::Model));
        let made = pick(&done.outputs, &|port| outputs.get(port) == Some(&Format::Model));
        // A training log goes with its model, and is no data.
        let about = [Some(&Format::Model), Some(&Format::Log)];
        let data = pick(&key.inputs, &|port| !about.contains(&inputs.get(port)));
        let config = ActionKey { inputs: given.clone(), item: None, ..key.clone() };
        Trial {
            at: chrono::Utc::now().timestamp_millis(),
            run: self.run.clone(),
            pipeline: self.pipeline.clone(),
            stage: done.stage.clone(),
            kind: kind.name.into(),
            config: Digest::derive(CONTEXT, config.json().as_bytes()),
            data,
            given,
            made,
            metrics: done.metrics.clone(),
        }
    }
}

/// All trials, in the order in which they ended. A line that a crash cut off is left out.
pub fn read(home: &Path) -> io::Result<Vec<Trial>> {
    let file = match std::fs::File::open(place(home)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = io::BufReader::new(file).lines();
    Ok(lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect())
}

/// The trials on the same data by the same kind of stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// The kind.
    pub kind: String,
    /// The data, by port.
    pub data: BTreeMap<String, Artifact>,
    /// Distinct configurations.
    pub trials: usize,
    /// How often one ran.
    pub ran: usize,
    /// Its stages.
    pub stages: BTreeSet<String>,
}

/// Counts distinct configurations for each data, in the order in which the data first came.
pub fn count(trials: &[Trial]) -> Vec<Group> {
    let mut groups: Vec<(Group, BTreeSet<Digest>)> = Vec::new();
    for trial in trials {
        let fits =
            |(group, _): &&mut (Group, _)| (&group.kind, &group.data) == (&trial.kind, &trial.data);
        let found = groups.iter_mut().find(fits);
        let (group, configs) = match found {
            Some(found) => found,
            None => {
                let (kind, data) = (trial.kind.clone(), trial.data.clone());
                let group = Group { kind, data, trials: 0, ran: 0, stages: BTreeSet::new() };
                groups.push((group, BTreeSet::new()));
                let Some(last) = groups.last_mut() else { continue };
                last
            }
        };
        configs.insert(trial.config);
        group.trials = configs.len();
        group.ran += 1;
        group.stages.insert(trial.stage.clone());
    }
    groups.into_iter().map(|(group, _)| group).collect()
}
