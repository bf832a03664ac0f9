//! The parameters of `compare`, and what of them is refused.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Name of buy and hold among the strategies of a `metrics.json`.
pub const HOLD: &str = "buy and hold";

/// What is done where the runs do not have the same dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// It is refused.
    #[default]
    Exact,
    /// What lies before the latest beginning or after the earliest end is left out. Runs that differ
    /// between these are refused all the same: they have other bars.
    Intersect,
}

/// `with:` of `compare`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Headings of the table, in the order of their names, and the models under each: a model's
    /// name (`lstm@seed=1`), that of its port (`lstm`, with all its cells), or the beginning of
    /// either and a star (`lstm*`). Without groups, the cells of a port make one.
    pub groups: BTreeMap<String, Vec<String>>,
    /// What the others are compared with: a model, or one of `baselines`. Left out, the model with
    /// the highest Sharpe ratio.
    pub reference: Option<String>,
    /// Strategies that every run replayed beside its model and that are shown too. They are no tries.
    pub baselines: Vec<String>,
    /// What is done where the runs do not have the same dates.
    pub align: Align,
    /// Bootstrap draws behind each interval and each p-value.
    pub draws: usize,
    /// Equal parts that the span is cut into for the probability of overfitting; even, 2 to 16.
    pub blocks: usize,
    /// What the data are, in a few words, for the captions: `S&P 500, daily closes`.
    pub data: Option<String>,
    /// Heading of the report.
    pub title: String,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            groups: BTreeMap::new(),
            reference: None,
            baselines: vec![HOLD.into()],
            align: Align::Exact,
            draws: 5000,
            blocks: 10,
            data: None,
            title: "Comparison of models".into(),
        }
    }
}

impl Params {
    /// What the types cannot say.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.draws < 100 {
            let why = format!("must be at least 100, and is {}", self.draws);
            return Err(Invalid::new("draws", why));
        }
        if !(2..=16).contains(&self.blocks) || self.blocks % 2 == 1 {
            let why = format!("must be even and lie between 2 and 16, and is {}", self.blocks);
            return Err(Invalid::new("blocks", why).help("10 gives 252 ways to halve the span"));
        }
        if let Some((group, _)) = self.groups.iter().find(|(_, names)| names.is_empty()) {
            let why = format!("group `{group}` has no model");
            return Err(Invalid::new("groups", why).help("name its models, or leave it out"));
        }
        Ok(())
    }
}
