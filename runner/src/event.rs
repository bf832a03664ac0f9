//! [`Event`]: everything that happens in a run. The progress display, the run record and the lock
//! file read these and nothing else.

use std::collections::BTreeMap;

use quantmill_cache::{ActionKey, Artifact, Digest};
use quantmill_stages::Progress;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run began.
    RunStarted(Box<Setting>),
    /// A stage has actions to run.
    StageStarted {
        /// The stage.
        stage: String,
        /// Its kind.
        kind: String,
        /// Why it is not a hit.
        why: String,
        /// Actions to run.
        actions: usize,
        /// Items that are hits.
        cached: usize,
    },
    /// How far an action is. Not recorded.
    Progress {
        /// The stage.
        stage: String,
        /// The item, where it maps over items.
        item: Option<String>,
        /// How far.
        progress: Progress,
    },
    /// A stage reported a number.
    Metric {
        /// The stage.
        stage: String,
        /// The item.
        item: Option<String>,
        /// The number's name.
        name: String,
        /// The number.
        value: f64,
    },
    /// A stage warned.
    Warning {
        /// The stage.
        stage: String,
        /// The item.
        item: Option<String>,
        /// What it said.
        message: String,
    },
    /// A command printed a line.
    Output {
        /// The stage.
        stage: String,
        /// The line.
        line: String,
    },
    /// An action ended well.
    ActionFinished {
        /// The stage.
        stage: String,
        /// The item.
        item: Option<String>,
        /// Its key.
        key: Digest,
        /// Milliseconds; 0 where another run had done it meanwhile.
        millis: u64,
    },
    /// All of a stage's outputs are in place.
    StageFinished(Box<Finished>),
    /// A stage failed.
    StageFailed {
        /// The stage.
        stage: String,
        /// The item.
        item: Option<String>,
        /// What happened.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// A stage did not run because one before it failed.
    StageSkipped {
        /// The stage.
        stage: String,
        /// The stage that failed.
        because: String,
    },
    /// The run ended.
    RunFinished(Summary),
}

/// What a run was started with, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// The run's id.
    pub run: String,
    /// The pipeline file.
    pub pipeline: String,
    /// Values given by `--set`.
    pub set: Vec<(String, String)>,
    /// Stages asked for; empty means all.
    pub targets: Vec<String>,
    /// How many stages the run looks at.
    pub stages: usize,
    /// How many of them are known to run.
    pub to_run: usize,
    /// Quantmill's version.
    pub version: String,
    /// The commit of the pipeline's repository, if it is in one.
    pub commit: Option<String>,
    /// Whether files that git tracks there differ from the commit.
    pub dirty: Option<bool>,
    /// Host name.
    pub host: String,
    /// Operating system and processor type.
    pub platform: String,
    /// Processors that the run may use.
    pub cpus: usize,
    /// The device of models.
    pub device: String,
    /// Actions at a time.
    pub jobs: usize,
}

/// How a stage ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing to do.
    Hit,
    /// A hit whose outputs had to be put back.
    Restored,
    /// It ran.
    Ran,
}

/// A stage whose outputs are in place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// The stage.
    pub stage: String,
    /// How.
    pub outcome: Outcome,
    /// The stage's key.
    pub key: ActionKey,
    /// Its outputs.
    pub outputs: BTreeMap<String, Artifact>,
    /// Its numbers.
    pub metrics: BTreeMap<String, f64>,
    /// Actions that ran.
    pub ran: usize,
    /// Items that were hits.
    pub cached: usize,
    /// Milliseconds from start to end.
    pub millis: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Stages that ran.
    pub ran: usize,
    /// Stages that were hits.
    pub hits: usize,
    /// Hits among them whose outputs were put back.
    pub restored: usize,
    /// Stages that failed.
    pub failed: usize,
    /// Stages that did not run because another failed.
    pub skipped: usize,
    /// Milliseconds.
    pub millis: u64,
    /// It was interrupted.
    pub interrupted: bool,
}
