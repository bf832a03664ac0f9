//! The table of features, and what a feature is.
//!
//! A [`Feature`] takes [`Sample`]s one by one and answers at once, so that no row can depend on a
//! later one; it keeps windows and nothing else. [`FEATURES`] is the list of all there are: a row
//! ([`Entry`]) holds the name, the formula, the unit, where it is from, what the source of samples
//! must have, its parameters, how it is made and, where something about it has to be learnt from
//! the training span, how that is learnt ([`Learner`]). To add a feature, write its row in the file
//! of its family and name it here.
//!
//! Some features have two forms, one on quotes or trades and one on bars: [`Making::source`] says
//! which is taken. [`parse`] reads the `features:` list of a pipeline. [`causal()`] checks what the
//! shape of the trait promises.
//!
//! It does not read files, write columns, or scale.

pub mod calendar;
pub mod causal;
pub mod eigen;
pub mod flow;
pub mod garch;
pub mod gjr;
pub mod liquidity;
pub mod momentum;
pub mod parts;
pub mod regime;
pub mod relative;
pub mod series;
pub mod spec;
pub mod stationarity;
pub mod technical;
pub mod trading;
pub mod volatility;
pub mod vpin;

#[cfg(test)]
mod tests;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use causal::causal;
pub use spec::{Column, FeatureSpec, Fits, parse};

use crate::market::Sample;
use crate::{Invalid, Result};

/// A feature of the market state, from the samples so far.
pub trait Feature: Send {
    /// Takes the next sample; the value that is known at its time, or `None` until there is one.
    fn push(&mut self, sample: &Sample) -> Option<f64>;
}

/// Learns from the training span, sample by sample, what a feature needs to be told.
pub trait Learner: Send {
    /// Takes the next sample of the span.
    fn push(&mut self, sample: &Sample);
    /// What was learnt. `tick` hears of steps done, of how many.
    ///
    /// # Errors
    /// The span does not hold what there is to learn, or `tick` says to stop.
    fn finish(self: Box<Self>, tick: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Value>;
}

/// What a source of samples can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// The close of each interval. Every source has it.
    Bars,
    /// Open, high and low of each interval.
    Ranges,
    /// Volume of each interval: bars, or trades.
    Volume,
    /// Best quotes.
    Quotes,
    /// Trades one by one.
    Trades,
    /// The notional near the mid.
    Depth,
    /// Closes of an index.
    Index,
    /// Closes of peers.
    Peers,
}

impl Need {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Need::Bars => "bars",
            Need::Ranges => "open, high and low",
            Need::Volume => "volume",
            Need::Quotes => "quotes",
            Need::Trades => "trades",
            Need::Depth => "depth",
            Need::Index => "index",
            Need::Peers => "peers",
        }
    }
}

/// What a source of samples has beside a close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `Sample::open`, `high` and `low`: they are the close otherwise.
    pub ranges: bool,
    /// `Sample::volume`.
    pub volume: bool,
    /// `Sample::quote`, `flow` and `touch`.
    pub quotes: bool,
    /// `Sample::trades`; implies `volume`.
    pub trades: bool,
    /// `Sample::depth`.
    pub depth: bool,
    /// `Sample::index`.
    pub index: bool,
    /// `Sample::peers`.
    pub peers: bool,
}

impl Source {
    /// Bars with volume, no index and no peers.
    pub const BARS: Source = Source {
        ranges: true,
        volume: true,
        quotes: false,
        trades: false,
        depth: false,
        index: false,
        peers: false,
    };
    /// Quotes, trades and depth, no index and no peers.
    pub const BOOK: Source = Source { quotes: true, trades: true, depth: true, ..Source::BARS };

    /// Whether it has what is needed.
    pub fn has(&self, need: Need) -> bool {
        match need {
            Need::Bars => true,
            Need::Ranges => self.ranges,
            Need::Volume => self.volume || self.trades,
            Need::Quotes => self.quotes,
            Need::Trades => self.trades,
            Need::Depth => self.depth,
            Need::Index => self.index,
            Need::Peers => self.peers,
        }
    }
}

/// What a feature is made with, beside its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// Samples in a year.
    pub periods_per_year: f64,
    /// What the samples hold.
    pub source: Source,
    /// What its [`Learner`] learnt.
    pub fit: Option<&'a Value>,
}

impl Making<'_> {
    /// What was learnt, as `T`.
    ///
    /// # Errors
    /// Nothing was, or something else.
    pub fn fitted<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        let fit = self.fit.ok_or_else(|| Invalid::new("", "was not fitted"))?;
        T::deserialize(fit).map_err(|e| Invalid::new("", format!("its fit is damaged: {e}")))
    }
}

/// Parameters of a feature.
pub trait Settings: Serialize + DeserializeOwned + JsonSchema + Default {
    /// What the types cannot say: ranges, and what excludes what.
    ///
    /// # Errors
    /// A parameter out of its range, by name.
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// The type of a feature's parameters, as functions.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Their JSON Schema, in place.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Reads them, fills in the defaults and checks.
    pub settle: fn(&Value) -> Result<Value, Invalid>,
}

impl Shape {
    /// That of a type.
    pub const fn of<S: Settings>() -> Shape {
        Shape {
            schema: |generator| S::json_schema(generator),
            settle: |given| {
                let settings = read::<S>(given)?;
                settings.check()?;
                serde_json::to_value(&settings).map_err(|e| Invalid::new("", e.to_string()))
            },
        }
    }
}

/// Reads parameters; null is none.
///
/// # Errors
/// One has the wrong type, or is not known; `path` is its name.
pub fn read<S: Settings>(given: &Value) -> Result<S, Invalid> {
    if given.is_null() {
        return Ok(S::default());
    }
    serde_path_to_error::deserialize(given).map_err(|e| {
        let path = e.path().to_string();
        Invalid::new(if path == "." { String::new() } else { path }, e.inner().to_string())
    })
}

/// How a feature is made from settled parameters.
pub type Make = fn(&Value, &Making) -> Result<Box<dyn Feature>, Invalid>;

/// How its learner is made from the same.
pub type Fit = fn(&Value, &Making) -> Result<Box<dyn Learner>, Invalid>;

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The name, and that of its column.
    pub name: &'static str,
    /// Other names that people give it.
    pub aliases: &'static [&'static str],
    /// The parameter that a number after the name stands for: `rsi_14` is `rsi` with `bars: 14`.
    pub suffix: Option<&'static str>,
    /// What is computed, in plain text. P close, r log return, sigma its rolling standard
    /// deviation, V volume, w the window, b and a best bid and ask, m their mean.
    pub formula: &'static str,
    /// Of the value.
    pub unit: &'static str,
    /// Who it is from.
    pub source: &'static str,
    /// What the samples must have.
    pub needs: &'static [Need],
    /// What makes it take its other form, where the samples have all of it.
    pub prefers: &'static [Need],
    /// Its parameters.
    pub params: Shape,
    /// Makes it.
    pub make: Make,
    /// Makes its learner, where something is learnt.
    pub fit: Option<Fit>,
}

impl Entry {
    /// The parameters where none are given.
    pub fn defaults(&self) -> Value {
        (self.params.settle)(&Value::Null).unwrap_or_default()
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({})", self.name)
    }
}

/// Every feature.
pub const FEATURES: &[Entry] = &[
    // The market state.
    liquidity::SPREAD,
    liquidity::IMBALANCE,
    liquidity::DEPTH,
    liquidity::MICROPRICE,
    momentum::MOMENTUM,
    momentum::MOMENTUM_12_1,
    volatility::REALISED,
    flow::ORDER_FLOW,
    flow::VWAP_DEVIATION,
    flow::INTENSITY,
    flow::KYLE,
    vpin::VPIN,
    technical::RSI,
    regime::HIGH_VOL,
    // What completes the inputs of the forecast models.
    technical::ATR_PCT,
    series::BOLLINGER_Z,
    technical::MACD_HIST_ATR,
    relative::CORRELATION,
    relative::ABSORPTION,
    // Spread, liquidity and flow.
    liquidity::CORWIN_SCHULTZ,
    liquidity::ROLL,
    liquidity::AMIHUD,
    flow::VWAP,
    flow::TRADE_RATE,
    trading::EFFECTIVE_SPREAD,
    trading::MARKOUT,
    // Volatility.
    volatility::ROLLING_STD,
    volatility::EWMA,
    volatility::BIPOWER,
    volatility::PARKINSON,
    volatility::GARMAN_KLASS,
    volatility::ROGERS_SATCHELL,
    volatility::YANG_ZHANG,
    garch::GARCH,
    gjr::GJR,
    // Technical indicators.
    technical::SMA,
    technical::EMA,
    technical::ROC,
    technical::ATR,
    technical::NATR,
    technical::ADX,
    technical::OBV,
    technical::MFI,
    technical::CCI,
    technical::WILLR,
    technical::MACD,
    technical::MACD_SIGNAL,
    technical::MACD_HIST,
    technical::BB_UPPER,
    technical::BB_MIDDLE,
    technical::BB_LOWER,
    technical::STOCH_K,
    technical::STOCH_D,
    // The series on its own.
    series::LOG_RETURN,
    series::FRACDIFF,
    series::CUSUM,
    series::AUTOCORRELATION,
    stationarity::VARIANCE_RATIO,
    stationarity::ADF,
    // Beside an index and peers.
    relative::BETA,
    relative::S_SCORE,
    relative::RANK,
    relative::PEER_Z,
    // The calendar.
    calendar::HOUR_SIN,
    calendar::HOUR_COS,
    calendar::DAY_OF_WEEK,
    calendar::MONTH_END,
];

/// The market state: fifteen features on bars, and on quotes and trades; fewer where a source has
/// less. On quotes `microprice_dev_bps` takes the place of `momentum_12_1`.
pub fn default_features(source: &Source) -> Vec<FeatureSpec> {
    let own = if source.quotes { "microprice_dev_bps" } else { "momentum_12_1" };
    let mut names = vec!["spread_bps", "imbalance", "depth", "momentum_1", "momentum_5"];
    names.extend(["momentum_30", own, "realised_vol", "order_flow_imbalance", "vwap_dev_bps"]);
    names.extend(["trade_intensity", "kyle_lambda", "vpin", "rsi_14", "p_high_vol"]);
    let known = |name: &&str| {
        spec::find(name).is_some_and(|(entry, _)| spec::lacks(entry, source).is_none())
    };
    let mut list: Vec<FeatureSpec> =
        names.into_iter().filter(known).map(FeatureSpec::new).collect();
    // From one tick to the next most mids do not move.
    if let (true, Some(regime)) = (source.quotes, list.last_mut()) {
        regime.given.insert("every".into(), 10.into());
    }
    list
}

/// A row of the table, to be printed.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// `Entry::name`.
    pub name: &'static str,
    /// `Entry::aliases`.
    pub aliases: &'static [&'static str],
    /// `Entry::formula`.
    pub formula: &'static str,
    /// `Entry::unit`.
    pub unit: &'static str,
    /// `Entry::source`.
    pub source: &'static str,
    /// `Entry::needs`.
    pub needs: &'static [Need],
    /// `Entry::prefers`.
    pub prefers: &'static [Need],
    /// Whether something is learnt from the training span.
    pub fitted: bool,
    /// The parameters and their defaults.
    pub params: Value,
}

/// The table, to be printed.
pub fn listing() -> Vec<Listed> {
    let row = |entry: &'static Entry| Listed {
        name: entry.name,
        aliases: entry.aliases,
        formula: entry.formula,
        unit: entry.unit,
        source: entry.source,
        needs: entry.needs,
        prefers: entry.prefers,
        fitted: entry.fit.is_some(),
        params: entry.defaults(),
    };
    FEATURES.iter().map(row).collect()
}
