//! Parameters of a model chosen by nested cross-validation, so that no row that is judged has a say.
//!
//! Each fit of the protocol, that of a fold and the last one, makes its own choice: every candidate is
//! fitted on inner folds of the dates that this fit may see, purged as the outer ones are, and scored by
//! its log loss on the inner rows that it was not fitted on, the mean over horizons. The least wins, of
//! equal ones the first (Stone 1974; Varma and Simon 2006: choosing and judging by the same folds is too
//! good to be true). The ledger of trials counts the candidates among those of `forecast`; what a report
//! deflates by is what was judged on its own span, of which a search sees nothing. What was tried, its scores and the choices are in `log.jsonl`.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lines::{Line, score};
use super::params::Model;
use super::protocol::{Protocol, Task};
use super::work::Work;
use crate::featurize::folds::Scheme;
use crate::{CONFIGURATIONS, Context, Invalid, Result, StageError};

/// Candidates at the most.
const MOST: usize = 1000;

/// A search for parameters of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Values of each parameter of the model to go through, by its name; one within another by its path,
    /// such as `training.learning_rate`. Every combination is a candidate.
    pub grid: BTreeMap<String, Vec<Value>>,
    /// Tries so many combinations, drawn by the seed without repetition. Without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draws: Option<usize>,
    /// The inner folds: `walk_forward` or `purged_k_fold`.
    #[serde(default = "folds")]
    pub folds: Scheme,
}

fn folds() -> Scheme {
    Scheme::WalkForward { folds: 3, test_rows: None }
}

impl Search {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A parameter that the model has not, a value that it refuses, folds of which rows have several.
    pub fn check(&self, model: &Model) -> std::result::Result<(), Invalid> {
        if self.grid.is_empty() {
            return Err(Invalid::new("search.grid", "names no parameter")
                .help("such as `l2: [0.001, 0.01, 0.1]`"));
        }
        for (name, values) in &self.grid {
            let path = format!("search.grid.{name}");
            if values.is_empty() {
                return Err(Invalid::new(path, "has no value"));
            }
            for value in values {
                let set = [(name.as_str(), value)];
                let with = with(model, &set).map_err(|why| Invalid::new(&path, why))?;
                // What holds of one may not of another beside it: the rest is told by the combinations.
                if self.grid.len() == 1 {
                    with.check()
                        .map_err(|e| Invalid::new(&path, format!("{value}: {}", e.message)))?;
                }
            }
        }
        let all = self.grid.values().map(Vec::len).try_fold(1usize, |n, of| n.checked_mul(of));
        match (all, self.draws) {
            (_, Some(0)) => return Err(Invalid::new("search.draws", "must be above 0")),
            (_, Some(draws)) if draws > MOST => {
                return Err(Invalid::new("search.draws", format!("must be at most {MOST}")));
            }
            (None | Some(1_000_001..), _) => {
                return Err(Invalid::new("search.grid", "has more than a million combinations"));
            }
            (Some(all), None) if all > MOST => {
                return Err(Invalid::new("search.grid", format!("has {all} combinations"))
                    .help(format!("{MOST} are the most; try some with `draws`")));
            }
            _ => {}
        }
        if matches!(self.folds, Scheme::Combinatorial { .. }) {
            return Err(Invalid::new("search.folds", "would score a row several times")
                .help("use `walk_forward` or `purged_k_fold`"));
        }
        self.folds.check("search.folds")?;
        for set in self.candidates(0).iter().take(MOST) {
            let named: Vec<(&str, &Value)> = set.iter().map(|(k, v)| (k.as_str(), *v)).collect();
            with(model, &named)
                .and_then(|model| model.check().map_err(|e| e.message))
                .map_err(|why| Invalid::new("search.grid", format!("{}: {why}", spelt(set))))?;
        }
        Ok(())
    }

    /// The candidates, by the names of what they set; the last name, alphabetically, changes fastest.
    fn candidates(&self, seed: u64) -> Vec<BTreeMap<&String, &Value>> {
        let all: usize = self.grid.values().map(Vec::len).product();
        let one = |mut number: usize| {
            let mut set = BTreeMap::new();
            for (name, values) in self.grid.iter().rev() {
                set.insert(name, &values[number % values.len()]);
                number /= values.len();
            }
            set
        };
        let Some(draws) = self.draws.filter(|draws| *draws < all) else {
            return (0..all).map(one).collect();
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(3 << 61);
        let mut numbers: Vec<usize> = (0..all).collect();
        for at in 0..draws {
            let other = rng.random_range(at..all);
            numbers.swap(at, other);
        }
        numbers.truncate(draws);
        numbers.into_iter().map(one).collect()
    }
}

/// `l2 0.1, training.window 32`.
fn spelt(set: &BTreeMap<&String, &Value>) -> String {
    set.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

/// The model with some parameters set.
fn with(model: &Model, set: &[(&str, &Value)]) -> std::result::Result<Model, String> {
    let mut json = serde_json::to_value(model).map_err(|e| e.to_string())?;
    for (name, value) in set {
        let mut place = &mut json[model.name()];
        for part in name.split('.') {
            place = match place.as_object_mut() {
                Some(object) => object.entry(part).or_insert(Value::Null),
                None => return Err(format!("`{}` has no such parameter", model.name())),
            };
        }
        *place = (*value).clone();
    }
    serde_json::from_value(json).map_err(|e| format!("of `{}`: {e}", model.name()))
}

/// Chooses the model of a fit; `log` hears of all candidates.
///
/// # Errors
/// Too few dates for the inner folds; a candidate cannot be fitted.
pub fn choose(
    search: &Search,
    work: &Work,
    protocol: &Protocol,
    task: &Task,
    ctx: &Context,
    log: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Model> {
    let params = work.params;
    let inner = protocol.within(task, search.folds, params, params.model.stops())?;
    let candidates = search.candidates(ctx.seed());
    let (mut best, mut told): (Option<(f64, usize, Model)>, _) = (None, Vec::new());
    for (at, set) in candidates.iter().enumerate() {
        let named: Vec<(&str, &Value)> = set.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let model = with(&params.model, &named).map_err(StageError::failed)?;
        let mut lines: Vec<(Line, i64)> = Vec::new();
        for (fold, task) in inner.iter().enumerate() {
            let note = format!("candidate {}, inner fold {fold}", at + 1);
            ctx.progress(at as u64, candidates.len() as u64, "candidates", note)?;
            let fitted = work.fit(&model, task, ctx, &mut |_| Ok(()))?;
            work.answer(&model, task, &fitted, &mut lines)?;
        }
        let loss = inner_loss(&lines, &params.horizons).ok_or_else(|| {
            StageError::failed("no row of the inner folds has a label").hint("fewer `search.folds`")
        })?;
        told.push(json!({ "set": set, "log_loss": loss }));
        if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
            best = Some((loss, at, model));
        }
    }
    let Some((loss, at, model)) = best else {
        return Err(StageError::failed("a search without a candidate"));
    };
    log(
        json!({ "search": told, "chosen": candidates[at], "log_loss": loss, "inner_folds": inner.len() }),
    )?;
    if task.fold.is_none() {
        ctx.metric(CONFIGURATIONS, candidates.len() as f64);
        ctx.metric("search_log_loss", loss);
        for (name, value) in &candidates[at] {
            if let Some(number) = value.as_f64() {
                ctx.metric(&format!("search_{name}"), number);
            }
        }
    }
    Ok(model)
}

/// The mean over horizons of the mean log loss.
fn inner_loss(lines: &[(Line, i64)], horizons: &[usize]) -> Option<f64> {
    let of = |horizon: &usize| {
        let own = score(lines.iter().map(|(line, _)| line).filter(|line| line.horizon == *horizon));
        (own.count > 0).then_some(own.log_loss)
    };
    let losses: Vec<f64> = horizons.iter().filter_map(of).collect();
    (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
}
