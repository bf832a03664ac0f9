//! Rules that read closes alone: they name a direction, and training says how often such calls hold.
//!
//! A rule stays a rule: whatever training finds, the class that it names is the most probable, and the
//! expected return never points the other way. Where it names none, as before its windows are full, and
//! for `majority` always, the classes are as probable as they were often.

use std::ops::Range;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fit::{Data, known, write};
use super::params::Model;
use super::series::{Forecast, Forecaster, Series, Target};
use super::student;
use crate::featurize::window::{Moments, Rolling};
use crate::{Invalid, Result};

/// Momentum from a month to a year ago, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Momentum {
    /// Bars back to where the return begins.
    pub lookback: usize,
    /// Bars back to where it ends.
    pub skip: usize,
}

impl Default for Momentum {
    fn default() -> Momentum {
        Momentum { lookback: 252, skip: 21 }
    }
}

impl Momentum {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A return over nothing.
    pub fn check(&self) -> Result<(), Invalid> {
        match self.skip < self.lookback && self.lookback <= 100_000 {
            true => Ok(()),
            false => Err(Invalid::new("lookback", "must be above `skip` and at most 100000")),
        }
    }
}

/// Two simple moving averages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MovingAverage {
    /// Bars of the shorter one.
    pub fast: usize,
    /// Bars of the longer one.
    pub slow: usize,
}

impl Default for MovingAverage {
    fn default() -> MovingAverage {
        MovingAverage { fast: 50, slow: 200 }
    }
}

impl MovingAverage {
    /// What the types cannot say.
    ///
    /// # Errors
    /// The fast one is not the shorter.
    pub fn check(&self) -> Result<(), Invalid> {
        match self.fast > 0 && self.fast < self.slow && self.slow <= 100_000 {
            true => Ok(()),
            false => Err(Invalid::new("fast", "must be at least 1 and less than `slow`")),
        }
    }
}

/// The deviation from a mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MeanReversion {
    /// Bars of the mean and of the deviation.
    pub window: usize,
    /// Deviations from which on it names a direction.
    pub entry: f64,
}

impl Default for MeanReversion {
    fn default() -> MeanReversion {
        MeanReversion { window: 20, entry: 1.0 }
    }
}

impl MeanReversion {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A window or a threshold that is none.
    pub fn check(&self) -> Result<(), Invalid> {
        if !(2..=100_000).contains(&self.window) {
            return Err(Invalid::new("window", "must lie between 2 and 100000"));
        }
        match self.entry >= 0.0 && self.entry.is_finite() {
            true => Ok(()),
            false => Err(Invalid::new("entry", "must be 0 or more")),
        }
    }
}

/// The signal of a rule at each close, whose sign is the direction; 0 where it names none. `None` for a
/// model that reads features.
pub fn signal(model: &Model, closes: &[f64]) -> Option<Vec<f32>> {
    let past = |from: usize, to: usize| -> Vec<f32> {
        let one = |row: usize| match row.checked_sub(from) {
            Some(begin) => (closes[row - to] / closes[begin]).ln() as f32,
            None => 0.0,
        };
        (0..closes.len()).map(one).collect()
    };
    Some(match model {
        Model::Majority {} => vec![0.0; closes.len()],
        Model::Persistence {} => past(1, 0),
        Model::Momentum(rule) => past(rule.lookback, rule.skip),
        Model::MovingAverage(rule) => {
            let (mut fast, mut slow) =
                (Rolling::<Moments>::new(rule.fast), Rolling::<Moments>::new(rule.slow));
            let one = |close: &f64| match (fast.push(*close), slow.push(*close)) {
                (Some(fast), Some(slow)) => (fast.mean / slow.mean).ln() as f32,
                _ => 0.0,
            };
            closes.iter().map(one).collect()
        }
        Model::MeanReversion(rule) => {
            let mut window = Rolling::<Moments>::new(rule.window);
            let one = |close: &f64| {
                let Some(moments) = window.push(*close) else { return 0.0 };
                let deviation = moments.deviation(rule.window, 1);
                let z = (close - moments.mean) / deviation;
                // Rounding leaves closes that stand still with a deviation of some 1e-16 of theirs.
                if deviation > 1e-12 * close && z.abs() > rule.entry { -z as f32 } else { 0.0 }
            };
            closes.iter().map(one).collect()
        }
        Model::Logit(_)
        | Model::Ridge(_)
        | Model::Boosting(_)
        | Model::Hybrid(_)
        | Model::Lstm(_)
        | Model::Transformer(_)
        | Model::Language(_)
        | Model::Ensemble {} => return None,
    })
}

/// A rule with what training said of its calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// By horizon: where it says down, nothing, up.
    calls: Vec<[Outcome; 3]>,
}

/// What is expected of a call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Outcome {
    p: [f32; 3],
    mean: f32,
    scale: Option<f32>,
}

/// Counts how the calls of a rule fared.
pub fn fit(data: &Data) -> Rule {
    let horizons = data.class_weights.len();
    Rule { calls: (0..horizons).map(|horizon| outcomes(data, horizon)).collect() }
}

fn outcomes(data: &Data, horizon: usize) -> [Outcome; 3] {
    // Laplace's rule of succession: no class is impossible.
    let (mut of_call, mut all) = ([[1.0f64; 3]; 3], [1.0f64; 3]);
    let (mut gains, mut calls, mut sum) = (0.0, 0.0, 0.0);
    let rows: Vec<(usize, Target)> =
        known(data.train, horizon).map(|(x, target)| (call(x[0]), target)).collect();
    for (call, target) in &rows {
        let value = f64::from(target.value);
        of_call[*call][usize::from(target.class)] += 1.0;
        all[usize::from(target.class)] += 1.0;
        sum += value;
        if *call != 1 {
            gains += value * (*call as f64 - 1.0);
            calls += 1.0;
        }
    }
    let count: f64 = all.iter().sum();
    let gain = if calls > 0.0 { f64::max(gains / calls, 0.0) } else { 0.0 };
    let mean = if rows.is_empty() { 0.0 } else { sum / rows.len() as f64 };
    let means = [-gain, mean, gain];
    let residual = |(call, target): &(usize, Target)| f64::from(target.value) - means[*call];
    let scale = student::scale(&rows.iter().map(residual).collect::<Vec<_>>());
    std::array::from_fn(|call| Outcome {
        p: match call {
            1 => all.map(|n| (n / count) as f32),
            call => named(&of_call[call], call).map(|p| p as f32),
        },
        mean: means[call] as f32,
        scale: scale.map(|scale| scale as f32),
    })
}

/// Probabilities of the classes where one was named, from how often each came then: the one that was
/// named stays the most probable.
pub fn named(came: &[f64; 3], class: usize) -> [f64; 3] {
    let n: f64 = came.iter().sum();
    let hit = (came[class] / n).max(0.5);
    let rest = n - came[class];
    std::array::from_fn(|other| match other == class {
        true => hit,
        false => (1.0 - hit) * came[other] / rest,
    })
}

/// 0 down, 1 nothing, 2 up.
fn call(signal: f32) -> usize {
    match signal {
        s if s > 0.0 => 2,
        s if s < 0.0 => 0,
        _ => 1,
    }
}

impl Forecaster for Rule {
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>> {
        let of = |row: usize| {
            let call = call(series.x[row * series.features]);
            self.calls.iter().map(move |outcomes| {
                let Outcome { p, mean, scale } = outcomes[call];
                Forecast { p, mean, scale }
            })
        };
        Ok(rows.flat_map(of).collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write(folder, self)
    }
}
