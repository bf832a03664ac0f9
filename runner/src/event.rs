//! [`Event`]: everything that happens in a run. The progress display, the run record and the lock
//! file read these and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quantmill_cache::{ActionKey, Artifact, Digest};
use quantmill_stages::Progress;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run began.
    RunStarted(Box<Setting>),
    /// What takes a moment to find out, and is looked up only where something runs.
    Surveyed(Survey),
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
        /// How far a `command` was really kept to what it declares: `off`, or by what means.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<String>,
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
    /// All stages that were hits, in one line: the lock that lies beside the record names what they
    /// gave. The record writes it in place of a `StageFinished` each.
    Hits {
        /// How many.
        stages: usize,
        /// The numbers of those that have any.
        metrics: BTreeMap<String, BTreeMap<String, f64>>,
    },
    /// The run ended.
    RunFinished(Summary),
}

/// What a run was started with, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// The run's id.
    pub run: String,
    /// The pipeline file, as it was named.
    pub pipeline: String,
    /// Its folder, absolute.
    #[serde(default)]
    pub dir: PathBuf,
    /// The pipeline file and all that it includes, relative to the folder. Their texts lie beside
    /// the record in this order.
    #[serde(default)]
    pub texts: Vec<String>,
    /// Values given by `--set`.
    pub set: Vec<(String, String)>,
    /// Stages asked for; empty means all.
    pub targets: Vec<String>,
    /// Only these stages, what depends on them, and what that needs; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downstream_of: Vec<String>,
    /// Stages that were to run even where they were hits; `*` means all.
    #[serde(default)]
    pub force: Vec<String>,
    /// Go on with what does not need a stage that failed.
    #[serde(default)]
    pub keep_going: bool,
    /// The sweep that the run is a trial of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<String>,
    /// What a person said of it at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The environment that stages declare, by name. It is in their keys as well; secrets are in
    /// neither.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Versions of the kinds of stages that the pipeline uses.
    #[serde(default)]
    pub kinds: BTreeMap<String, u32>,
    /// How many stages the run looks at.
    pub stages: usize,
    /// How many of them are known to run.
    pub to_run: usize,
    /// Quantmill's version.
    pub version: String,
    /// The commit of the pipeline's repository, if it is in one.
    pub commit: Option<String>,
    /// The branch of that repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
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

/// What a run finds where it happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The processor's model.
    pub cpu: Option<String>,
    /// Whether files that git tracks in the pipeline's folder differ from the commit.
    pub dirty: Option<bool>,
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
