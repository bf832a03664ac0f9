//! Language models as forecasters: what they say of a prompt, as probabilities of down, flat and up.
//!
//! | form | what is taken of the model | what training rows add |
//! | --- | --- | --- |
//! | `grammar` | the exact log-probability of each answer that is allowed, summed by direction and renormalised | one temperature a horizon |
//! | `head` | the last hidden state | a multinomial logit on it |
//! | `free` | its greedy text: the first word that says a direction | how often such a word held |
//!
//! The model itself is asked once a prompt and never trained here. Its answers take the place of the
//! features, so that folds, purging and spans are those of every other model; rows without a prompt are
//! neither learnt from nor forecast. What classes are worth, the mean and the scale, comes from the
//! training rows of a fit, as of every classifier ([`super::expect`]).
//!
//! What a pretrained model remembers of the days that it is asked about is not seen here: the prompts
//! should name neither dates nor tickers, and its training should end before the rows begin.

#[cfg(feature = "lm")]
mod ask;
#[cfg(test)]
#[cfg(feature = "lm")]
mod tests;

use std::ops::Range;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::expect::Expected;
use super::fit::{Data, known, write};
use super::linear::{self, Logit};
use super::rules::named;
use super::series::{Forecast, Forecaster, Series, Target};
use crate::{Invalid, Result, StageError};

#[cfg(feature = "lm")]
pub use ask::read;

/// A language model, and how it is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Language {
    /// What is taken of the model.
    pub form: Form,
    /// What it may answer, with `grammar`.
    pub answers: Answers,
    /// Offsets of the limit orders among decisions, basis points: those of `pairs`, where it was tuned on
    /// such. Without them, market orders alone.
    pub offsets_bps: Vec<u32>,
    /// A text after each prompt, such as ` The next move is`. Prompts of `encode` end with `Decision:`.
    pub question: String,
    /// What makes probabilities of `grammar` those that come true.
    pub calibrate: Calibrate,
    /// Penalty of `head` on squared coefficients of scaled states, against the mean log loss.
    pub l2: f64,
    /// Tokens of an answer at most, with `free`.
    pub max_new_tokens: usize,
}

/// What is taken of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Exact probabilities of the answers that are allowed.
    #[default]
    Grammar,
    /// A classifier of its last hidden state.
    Head,
    /// The first word of its greedy text that says a direction. Where none does, each class is as
    /// probable as the others; metric `parse_failures` counts these.
    Free,
}

/// What it may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// ` down`, ` flat`, ` up`.
    #[default]
    Directions,
    /// Decisions of one unit in words, as `pairs` writes them: what buys is up, what sells is down. Each
    /// counts with the end of the text after it.
    Words,
    /// The same as JSON.
    Json,
    /// The same as codes.
    Code,
}

/// What makes probabilities those that come true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Calibrate {
    /// Nothing: they are the model's own.
    None,
    /// One temperature a horizon, the likeliest on the training rows of a fit (Guo et al. 2017).
    #[default]
    Temperature,
}

impl Default for Language {
    fn default() -> Language {
        Language {
            form: Form::default(),
            answers: Answers::default(),
            offsets_bps: Vec::new(),
            question: String::new(),
            calibrate: Calibrate::default(),
            l2: 1.0,
            max_new_tokens: 16,
        }
    }
}

impl Language {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn check(&self) -> std::result::Result<(), Invalid> {
        if !(1..=1024).contains(&self.max_new_tokens) {
            return Err(Invalid::new("max_new_tokens", "must lie between 1 and 1024"));
        }
        if self.answers == Answers::Directions && !self.offsets_bps.is_empty() {
            return Err(Invalid::new("offsets_bps", "are of decisions")
                .help("with `answers: words`, `json` or `code`"));
        }
        if self.offsets_bps.len() > 50 || self.offsets_bps.iter().any(|n| !(1..=500).contains(n)) {
            return Err(Invalid::new("offsets_bps", "must be at most 50 numbers of 1 to 500"));
        }
        linear::penalty(self.l2)
    }

    /// Whether columns of what is taken are scaled and learnt from.
    pub fn learns(&self) -> bool {
        self.form == Form::Head
    }
}

/// Without language models there is none to ask.
///
/// # Errors
/// Always.
#[cfg(not(feature = "lm"))]
pub fn read(
    _: &Language,
    _: &mut super::panel::Panel,
    _: crate::evaluate::params::Judging,
    _: &crate::Context,
) -> Result<()> {
    Err(StageError::failed("this build has no language models")
        .hint("build with the feature `lm`, which is on unless it is left out"))
}

/// Fits what training rows add.
///
/// # Errors
/// No training row has a prompt.
pub fn fit(
    params: &Language,
    data: &Data,
    log: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Box<dyn Forecaster>> {
    let horizons = data.class_weights.len();
    if (0..horizons).any(|horizon| known(data.train, horizon).next().is_none()) {
        return Err(StageError::failed("a fit has no row with a prompt to learn from")
            .hint("raise `max_train_rows` of `encode`, or take fewer `folds`"));
    }
    Ok(match params.form {
        Form::Head => Box::new(linear::logit(&Logit { l2: params.l2 }, data, log)?),
        Form::Grammar => {
            let of = |horizon| tempered(params.calibrate, data, horizon);
            let fitted = Tempered { horizons: (0..horizons).map(of).collect() };
            for (horizon, own) in fitted.horizons.iter().enumerate() {
                log(json!({ "horizon": horizon, "inverse_temperature": own.inverse }))?;
            }
            Box::new(fitted)
        }
        Form::Free => {
            log(json!({}))?;
            Box::new(Said { horizons: (0..horizons).map(|horizon| said(data, horizon)).collect() })
        }
    })
}

/// Probabilities of a model, raised to a power.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Tempered {
    horizons: Vec<Own>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Own {
    /// One over the temperature; at 0 all classes are as probable.
    inverse: f64,
    expected: Expected,
}

fn tempered(calibrate: Calibrate, data: &Data, horizon: usize) -> Own {
    let rows: Vec<([f64; 3], Target)> =
        known(data.train, horizon).map(|(x, target)| (logs(x), target)).collect();
    let (inverse, counts) = match calibrate {
        Calibrate::None => (1.0, [1.0; 3]),
        Calibrate::Temperature => {
            let counts = data.class_weights[horizon].map(f64::from);
            (inverse(&rows, &counts), counts)
        }
    };
    let p = rows.iter().map(|(logs, target)| (power(logs, inverse), *target));
    Own { inverse, expected: Expected::of(p, &counts) }
}

fn logs(x: &[f32]) -> [f64; 3] {
    std::array::from_fn(|class| x.get(class).copied().unwrap_or_default().into())
}

/// The softmax of logs times a number.
fn power(logs: &[f64; 3], by: f64) -> [f64; 3] {
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let grown = logs.map(|l| (by * (l - top)).exp());
    let sum: f64 = grown.iter().sum();
    grown.map(|g| g / sum)
}

/// The power in 0 to 100 with the least weighted log loss, which is convex in it: where its slope
/// changes sign.
fn inverse(rows: &[([f64; 3], Target)], counts: &[f64; 3]) -> f64 {
    let slope = |by: f64| -> f64 {
        let of = |(logs, target): &([f64; 3], Target)| {
            let class = usize::from(target.class);
            let mean: f64 = power(logs, by).iter().zip(logs).map(|(p, l)| p * l).sum();
            counts[class] * (mean - logs[class])
        };
        rows.iter().map(of).sum()
    };
    let (mut low, mut high) = (0.0, 100.0);
    if slope(low) >= 0.0 {
        return low;
    }
    if slope(high) <= 0.0 {
        return high;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if slope(middle) < 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

impl Forecaster for Tempered {
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>> {
        let of = |row: usize| {
            let logs = logs(&series.x[row * series.features..(row + 1) * series.features]);
            self.horizons.iter().map(move |own| own.expected.forecast(power(&logs, own.inverse)))
        };
        Ok(rows.flat_map(of).collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write(folder, self)
    }
}

/// What words were worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Said {
    horizons: Vec<Worth>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Worth {
    /// By what was said, down, flat, up or nothing: probabilities of the classes.
    p: [[f64; 3]; 4],
    expected: Expected,
}

/// What is said at a row: 0 down, 1 flat, 2 up, 3 nothing.
fn word(x: &[f32]) -> usize {
    (x.first().copied().unwrap_or(3.0) as usize).min(3)
}

fn said(data: &Data, horizon: usize) -> Worth {
    // Laplace's rule of succession: no class is impossible.
    let mut came = [[1.0f64; 3]; 3];
    for (x, target) in known(data.train, horizon) {
        if let Some(came) = came.get_mut(word(x)) {
            came[usize::from(target.class)] += 1.0;
        }
    }
    let mut p = [[1.0 / 3.0; 3]; 4];
    for (said, came) in came.iter().enumerate() {
        p[said] = named(came, said);
    }
    let rows = known(data.train, horizon).map(|(x, target)| (p[word(x)], target));
    Worth { p, expected: Expected::of(rows, &[1.0; 3]) }
}

impl Forecaster for Said {
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>> {
        let of = |row: usize| {
            let word = word(&series.x[row * series.features..(row + 1) * series.features]);
            self.horizons.iter().map(move |own| own.expected.forecast(own.p[word]))
        };
        Ok(rows.flat_map(of).collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write(folder, self)
    }
}
