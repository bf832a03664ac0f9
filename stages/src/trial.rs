//! What a stage makes of the trials on one data set: whether the best of them means anything.
//!
//! It is a view and no output. Outputs follow from inputs alone and keep their bytes for good; how
//! often the same data were tried before and since depends on when one asks.

use std::collections::BTreeMap;

/// Metric of a stage that tries several configurations by itself, such as a search: how many. Each counts
/// as a trial.
pub const CONFIGURATIONS: &str = "configurations_tried";

/// A configuration that was tried.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tried {
    /// When it last ended, as people read it.
    pub at: String,
    /// The run.
    pub run: String,
    /// The stage.
    pub stage: String,
    /// The configuration, by a short name.
    pub config: String,
    /// What it reported.
    pub metrics: BTreeMap<String, f64>,
}

/// What is to be said of one trial among all on the same data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// In a line.
    pub line: String,
    /// In numbers.
    pub numbers: BTreeMap<String, f64>,
    /// As an HTML page that needs nothing from elsewhere.
    pub page: String,
}
