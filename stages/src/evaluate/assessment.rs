//! What was found: everything that `metrics.json` holds, whichever way it came in.

use serde::Serialize;

use super::anonymise::Anonymised;
use super::answers::Tally;
use super::backtest::Path;
use super::baselines::Random;
use super::causality::Check;
use super::control::Control;
use super::importance::Importance;
use super::inference::{Interval, Sampled};
use super::metrics::Metrics;
use super::overfit::Overfit;
use super::params::Params;
use super::quality::Quality;
use super::sensitivity::{Scenario, Slice};
use super::significance::Comparison;
use super::verdict::Target;

/// Name of the model's strategy.
pub const MODEL: &str = "model";
/// Name of the untuned model's strategy.
pub const BASE: &str = "base model";
/// Name of buy and hold.
pub const HOLD: &str = "buy and hold";

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Assessment {
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// Whether the model can have read what came.
    pub contamination: Contamination,
    /// The model asked without names and dates; `None` where it was not.
    pub anonymised: Option<Anonymised>,
    /// Tests for look-ahead.
    pub causality: Vec<Check>,
    /// The same model, fitted to labels in another order; `None` where its forecasts were not given.
    pub control: Option<Control>,
    /// Rows of each split, and labels that reach from one into another.
    pub splits: Splits,
    /// The model, the base model and the baselines, in the order of the table.
    pub strategies: Vec<Strategy>,
    /// The model among random portfolios.
    pub random: Random,
    /// The model under other costs and fills.
    pub scenarios: Vec<Scenario>,
    /// Cost of each side, in basis points, at which the model's whole return is zero.
    pub break_even_bps: Option<f64>,
    /// The model's decisions carried out so many dates later than they were taken; below 0 earlier.
    pub delays: Vec<Delay>,
    /// By calendar year.
    pub years: Vec<Slice>,
    /// By regime of the bar before.
    pub regimes: Vec<Slice>,
    /// The model with several seeds.
    pub seeds: Option<Seeds>,
    /// What the number of tries does to the result, as far as it is known here.
    pub selection: Selection,
    /// Answers of the model, then of the base model; empty of a numerical model.
    pub answers: Vec<Tally>,
    /// Forecasts as forecasts: the model's, then the baselines'; empty of a language model.
    pub quality: Vec<Quality>,
    /// The model's forecasts against each baseline's.
    pub rivals: Vec<Rival>,
    /// What its features are worth to the model; `None` where nobody said.
    pub importance: Option<Vec<Importance>>,
    /// The model on the index: all days, and those on which it fell.
    pub index: Index,
    /// Claims and what is to be said of them.
    pub targets: Vec<Target>,
    /// The verdict, sentence by sentence.
    pub verdict: Vec<String>,
    /// Date of each bar of the backtest.
    #[serde(skip)]
    pub dates: Vec<String>,
    /// Value of the index at each date, the first at 1.
    #[serde(skip)]
    pub market: Vec<f64>,
    /// Probability of high volatility at each date, where the features have one.
    #[serde(skip)]
    pub storm: Vec<Option<f64>>,
    /// Middle 95 % of resampled equity at the dates of `random.marks`.
    #[serde(skip)]
    pub fan: Vec<(f64, f64)>,
    /// What is known of the training of a language model.
    pub training: Training,
    /// Decisions as rows of `decisions.csv`.
    #[serde(skip)]
    pub decisions: Vec<Decision>,
    /// Prompts shown with their answers.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// Where the numbers come from. No clock, no machine: the run's record has these.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Provenance {
    /// The seed.
    pub seed: u64,
    /// First date of the backtest: the first decision's.
    pub first: String,
    /// Last date of the backtest.
    pub last: String,
    /// Bars of the backtest, on its calendar.
    pub bars: usize,
    /// Bars a year.
    pub per_year: f64,
    /// Instruments, where they have names.
    pub assets: Vec<String>,
    /// First and last date of the training span.
    pub trained: Option<(String, String)>,
    /// Prompts answered, or dates at which positions were set.
    pub decisions: usize,
    /// How many there were.
    pub available: usize,
    /// Bars that a forecast looks ahead; 0 of a language model.
    pub horizon: usize,
    /// Mean block of the bootstrap, in bars.
    pub block: f64,
    /// What the models are.
    pub models: Vec<String>,
    /// Digest of each input's bytes by port.
    pub inputs: Vec<Source>,
    /// Parameters.
    pub params: Params,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    /// The port.
    pub port: String,
    /// Files.
    pub files: usize,
    /// BLAKE3 of the bytes of the file; of several, of the lines `digest  name` in order of the names.
    pub digest: String,
}

/// Whether the model can have read what came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Contamination {
    /// Whether a claim of foresight can be made.
    pub claimable: bool,
    /// Why, in words.
    pub said: String,
}

/// Rows of each split, and labels that reach from one into another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Splits {
    /// Rows of each split, over all instruments.
    pub rows: Vec<(String, usize)>,
    /// Rows between training and the judged span that neither uses: purged, or under the embargo.
    pub purged: usize,
    /// Training rows whose labels reach into the judged span. Must be 0.
    pub overlap: usize,
    /// How it was found: from dates in the tables, or by counting bars.
    pub from: String,
    /// Forecasts out of fold, and folds.
    pub out_of_fold: (usize, usize),
    /// Of the forecasts out of fold those whose horizon reaches into the judged span. Must be 0.
    pub fold_overlap: usize,
}

/// A way to trade, replayed.
#[derive(Clone, Debug, Serialize)]
pub struct Strategy {
    /// Its name.
    pub name: String,
    /// What it does.
    pub about: String,
    /// What it earned after costs.
    pub metrics: Metrics,
    /// How sure that is.
    pub sampled: Sampled,
    /// The probability of so high a Sharpe ratio without skill, and the same corrected by Holm for the
    /// number of strategies.
    pub p: Option<(f64, f64)>,
    /// The replay.
    #[serde(skip)]
    pub path: Path,
}

/// The model's Sharpe ratio where decisions are carried out at another date.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Delay {
    /// Dates later; below 0 earlier, which nobody can.
    pub dates: i64,
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
}

/// The model with one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seed {
    /// Name of its file.
    pub name: String,
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
    /// Compound growth a year.
    pub cagr: Option<f64>,
    /// Deepest fall.
    pub max_drawdown: f64,
    /// Matthews correlation of its guesses.
    pub mcc: Option<f64>,
}

/// The model with several seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seeds {
    /// Each of them.
    pub each: Vec<Seed>,
    /// Median Sharpe ratio.
    pub median: Option<f64>,
    /// First and third quartile of the Sharpe ratio.
    pub quartiles: Option<(f64, f64)>,
}

/// What the number of tries does to the result, as far as it is known here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Selection {
    /// Configurations whose returns are known, this one included. `None` where none was given.
    pub trials: Option<usize>,
    /// Sharpe ratio a year that the best of them would have by chance.
    pub sharpe_by_chance: Option<f64>,
    /// Probability that the Sharpe ratio is above that.
    pub deflated_sharpe: Option<f64>,
    /// The probability of overfitting.
    pub overfit: Option<Overfit>,
}

/// The model's forecasts against a baseline's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rival {
    /// The baseline.
    pub name: String,
    /// By squared error of the expected return.
    pub squared: Option<Comparison>,
    /// By -ln of the probability of what came.
    pub log_loss: Option<Comparison>,
}

/// What is known of the training of the model that is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Training {
    /// Where it is from, or why there is nothing.
    pub said: String,
    /// By name: (step, value) of every step that was logged.
    pub curves: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// The model on the index.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Index {
    /// Days on which the index fell.
    pub down_days: usize,
    /// Slope on those days.
    pub down_beta: Option<f64>,
    /// Correlation on those days.
    pub down_correlation: Option<f64>,
    /// Mean return of the model on those days.
    pub down_mean: Option<f64>,
    /// Newey-West 95 % interval of alpha a year.
    pub alpha: Option<Interval>,
}

/// A row of `decisions.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Date of the close at which it was taken.
    pub date: String,
    /// `model`, `base`, or `anonymised` where the model was asked again; of weights the instrument.
    pub source: String,
    /// Every character of the answer.
    pub answer: String,
    /// The decision in words, or `parse failure`.
    pub action: String,
    /// The position at the close of the bar in which its order could fill, in units; of weights the
    /// target, as a share of equity.
    #[serde(serialize_with = "shortest")]
    pub position: f64,
}

/// Whole numbers without a point.
fn shortest<S: serde::Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
    if x.fract() == 0.0 && x.abs() < 1e9 {
        to.serialize_i64(*x as i64)
    } else {
        to.serialize_f64(*x)
    }
}

/// A prompt and what was answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Date of the decision.
    pub date: String,
    /// The prompt.
    pub prompt: String,
    /// Source, raw answer and reading.
    pub answers: Vec<(String, String, String)>,
    /// Return from this close to the next.
    pub next: Option<f64>,
}

impl Assessment {
    /// A strategy by name.
    pub fn strategy(&self, name: &str) -> Option<&Strategy> {
        self.strategies.iter().find(|s| s.name == name)
    }

    /// Whether a language model decided.
    pub fn of_language(&self) -> bool {
        !self.answers.is_empty()
    }
}
