//! What a pipeline says of a forecast: the model, the horizons, what is a flat move, and the folds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::boosting::Boosting;
use super::importance::Importance;
use super::language::Language;
use super::linear::{Logit, Ridge};
use super::neural::{Hybrid, Lstm, Net, Transformer};
use super::rules::{MeanReversion, Momentum, MovingAverage};
use super::search::Search;
use crate::Invalid;
use crate::evaluate::params::Judging;
use crate::featurize::folds::{EmbargoFrom, Scheme};

/// The model that is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Model {
    /// Each class as probable as it was often in training.
    Majority {},
    /// The sign of the last return goes on.
    Persistence {},
    /// The sign of the return from `lookback` bars ago to `skip` bars ago goes on (Jegadeesh and Titman
    /// 1993).
    Momentum(Momentum),
    /// Up where the fast mean of closes lies above the slow one, else down.
    MovingAverage(MovingAverage),
    /// Against the deviation of the close from its mean.
    MeanReversion(MeanReversion),
    /// Multinomial logistic regression on the features.
    Logit(Logit),
    /// Ridge regression of the return in units of volatility on the features.
    Ridge(Ridge),
    /// Gradient boosting of trees on the features, one ensemble a class.
    Boosting(Boosting),
    /// A state-space layer and attention, coupled layer by layer.
    Hybrid(Hybrid),
    /// A long short-term memory (Hochreiter and Schmidhuber 1997).
    Lstm(Lstm),
    /// A Transformer with ALiBi, RMSNorm and SwiGLU.
    Transformer(Transformer),
    /// A language model, from port `language`, that reads `prompts` of the same rows.
    Language(Language),
    /// The mixture of other forecasts, from port `forecasts`, that was likeliest out of fold. Horizons
    /// and folds are theirs; the other parameters do nothing.
    Ensemble {},
}

/// Parameters of `forecast`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The model.
    pub model: Model,
    /// How many bars ahead, ascending.
    #[serde(default = "horizons")]
    pub horizons: Vec<usize>,
    /// A return within so many deviations of its horizon is flat: |r| <= threshold sigma sqrt(h). At
    /// 0.43 the three classes of a normal distribution are equally probable.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Span, in bars, of the exponentially weighted deviation of log returns that is sigma.
    #[serde(default = "span")]
    pub volatility_span: f64,
    /// The features that are read, by name. Without it, all of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<String>>,
    /// How the training span is split for forecasts out of fold: `walk_forward` or `purged_k_fold`, by
    /// dates that all instruments share.
    #[serde(default = "folds")]
    pub folds: Scheme,
    /// Dates after the labels of a fold, and between training and stopping rows, that are not learnt
    /// from.
    #[serde(default = "embargo")]
    pub embargo_bars: usize,
    /// Where the embargo begins to count.
    #[serde(default)]
    pub embargo_from: EmbargoFrom,
    /// Share of the dates of a fit, the last ones, that training is stopped by. Models that are not
    /// trained in steps learn from these, too.
    #[serde(default = "valid_fraction")]
    pub valid_fraction: f64,
    /// What a class counts for while a classifier is fitted.
    #[serde(default)]
    pub class_weights: ClassWeights,
    /// The span beside the training span that is forecast.
    #[serde(default)]
    pub split: Judging,
    /// What a fit learns from: the labels that were observed or, as a control, permuted ones.
    #[serde(default, skip_serializing_if = "Labels::usual")]
    pub labels: Labels,
    /// Permutation importance of the features, out of fold: output `importance`. Without it, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<Importance>,
    /// Search for parameters of the model by nested cross-validation. Without it, they are as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
}

/// What a fit learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// What happened.
    #[default]
    Observed,
    /// A permutation test's null (Ojala and Garriga 2010): labels of the rows that are learnt from, or
    /// stopped by, are permuted in blocks of dates as long as the furthest horizon, all instruments of a
    /// date together. Rows that are judged keep theirs: a model that still has skill has a leak.
    /// `shuffled` is another word for it.
    #[serde(alias = "shuffled")]
    Permuted,
}

impl Labels {
    fn usual(&self) -> bool {
        *self == Labels::default()
    }
}

/// What a class counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All classes weigh the same together, however often they are. Probabilities then are those of a
    /// world with as many of each.
    #[default]
    Balanced,
    /// Each row counts the same.
    Equal,
}

fn horizons() -> Vec<usize> {
    vec![1, 5, 20]
}
fn threshold() -> f64 {
    0.43
}
fn span() -> f64 {
    50.0
}
fn folds() -> Scheme {
    Scheme::WalkForward { folds: 5, test_rows: None }
}
fn embargo() -> usize {
    5
}
fn valid_fraction() -> f64 {
    0.15
}

impl Model {
    /// Its name in the pipeline file.
    pub fn name(&self) -> &'static str {
        match self {
            Model::Majority {} => "majority",
            Model::Persistence {} => "persistence",
            Model::Momentum(_) => "momentum",
            Model::MovingAverage(_) => "moving_average",
            Model::MeanReversion(_) => "mean_reversion",
            Model::Logit(_) => "logit",
            Model::Ridge(_) => "ridge",
            Model::Boosting(_) => "boosting",
            Model::Hybrid(_) => "hybrid",
            Model::Lstm(_) => "lstm",
            Model::Transformer(_) => "transformer",
            Model::Language(_) => "language",
            Model::Ensemble {} => "ensemble",
        }
    }

    /// Whether it is trained in steps, and stopped by rows that it does not learn from.
    pub fn stops(&self) -> bool {
        matches!(self, Model::Boosting(_)) || self.net().is_some()
    }

    /// The net that it is, if it is one.
    pub fn net(&self) -> Option<Net> {
        match self {
            Model::Hybrid(net) => Some(Net::Hybrid(net.clone())),
            Model::Lstm(net) => Some(Net::Lstm(net.clone())),
            Model::Transformer(net) => Some(Net::Transformer(net.clone())),
            _ => None,
        }
    }

    /// What the types cannot say.
    ///
    /// # Errors
    /// A parameter out of its range.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Model::Momentum(rule) => rule.check(),
            Model::MovingAverage(rule) => rule.check(),
            Model::MeanReversion(rule) => rule.check(),
            Model::Logit(logit) => logit.check(),
            Model::Ridge(ridge) => ridge.check(),
            Model::Boosting(boosting) => boosting.check(),
            Model::Language(language) => language.check(),
            Model::Majority {} | Model::Persistence {} | Model::Ensemble {} => Ok(()),
            Model::Hybrid(_) | Model::Lstm(_) | Model::Transformer(_) => {
                self.net().map_or(Ok(()), |net| net.check().map_err(|why| Invalid::new("", why)))
            }
        }
    }
}

impl Params {
    /// The most bars ahead.
    pub fn furthest(&self) -> usize {
        self.horizons.last().copied().unwrap_or_default()
    }

    /// What the types cannot say.
    ///
    /// # Errors
    /// A number out of its range, horizons that do not ascend, folds of which rows have several.
    pub fn check(&self) -> Result<(), Invalid> {
        self.model.check().map_err(|mut e| {
            let path = format!("model.{}.{}", self.model.name(), e.path);
            e.path = path.trim_end_matches('.').into();
            e
        })?;
        let ascend = self.horizons.windows(2).all(|pair| pair[0] < pair[1]);
        if self.horizons.is_empty() || !ascend || self.horizons[0] == 0 || self.furthest() > 10_000
        {
            return Err(Invalid::new(
                "horizons",
                "must be numbers of bars that ascend, 1 to 10000",
            )
            .help("such as [1, 5, 20]"));
        }
        if !(self.threshold >= 0.0 && self.threshold.is_finite()) {
            return Err(Invalid::new("threshold", "must be 0 or more"));
        }
        if !(self.volatility_span > 1.0 && self.volatility_span.is_finite()) {
            return Err(Invalid::new("volatility_span", "must be above 1"));
        }
        if !(self.valid_fraction > 0.0 && self.valid_fraction <= 0.5) {
            return Err(Invalid::new("valid_fraction", "must lie above 0 and at most at 0.5"));
        }
        if self.inputs.as_ref().is_some_and(Vec::is_empty) {
            return Err(Invalid::new("inputs", "names none").help("leave it out for all"));
        }
        if matches!(self.folds, Scheme::Combinatorial { .. }) {
            return Err(Invalid::new("folds", "would forecast a row several times")
                .help("use `walk_forward` or `purged_k_fold`"));
        }
        self.folds.check("folds")?;
        self.check_more()
    }

    /// What excludes what.
    fn check_more(&self) -> Result<(), Invalid> {
        let ensemble = matches!(self.model, Model::Ensemble {});
        let refuse = |path: &str, why: &str| Err(Invalid::new(path, why));
        if ensemble && self.labels != Labels::Observed {
            return refuse("labels", "an ensemble learns from no rows");
        }
        if ensemble && self.search.is_some() {
            return refuse("search", "an ensemble has no parameters");
        }
        if let Some(importance) = &self.importance {
            match self.model {
                Model::Ensemble {} => return refuse("importance", "an ensemble reads no features"),
                Model::Language(_) => {
                    return refuse("importance", "a language model reads prompts, not features");
                }
                _ => importance.check()?,
            }
        }
        match &self.search {
            Some(search) => search.check(&self.model),
            None => Ok(()),
        }
    }
}
