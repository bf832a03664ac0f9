//! What several features are made of: parameters, lags, returns and their deviation.

use std::borrow::Cow;
use std::collections::VecDeque;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::Invalid;
use crate::featurize::window::{Aggregate, Moments, Rolling};

/// Longest window.
pub const LONGEST: usize = 100_000;

/// Refuses a window or a number of bars below 2 or past [`LONGEST`].
///
/// # Errors
/// It lies outside.
pub fn length(name: &str, bars: usize) -> Result<(), Invalid> {
    at_least(name, bars, 2)
}

/// Refuses one below `least` or past [`LONGEST`].
///
/// # Errors
/// It lies outside.
pub fn at_least(name: &str, bars: usize, least: usize) -> Result<(), Invalid> {
    if (least..=LONGEST).contains(&bars) {
        return Ok(());
    }
    Err(Invalid::new(name, format!("must lie between {least} and {LONGEST}, and is {bars}")))
}

/// Refuses a number that is not above zero.
///
/// # Errors
/// It is not.
pub fn above_zero(name: &str, value: f64) -> Result<(), Invalid> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Invalid::new(name, format!("must be above 0, and is {value}")))
}

/// No parameters.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Nothing {}

impl Settings for Nothing {}

fn constant<const N: usize>() -> usize {
    N
}

/// A window, `N` samples where nothing is said.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window<const N: usize> {
    /// Samples in the window.
    #[serde(default = "constant::<N>")]
    pub window: usize,
}

impl<const N: usize> Default for Window<N> {
    fn default() -> Window<N> {
        Window { window: N }
    }
}

impl<const N: usize> Settings for Window<N> {
    fn check(&self) -> Result<(), Invalid> {
        length("window", self.window)
    }
}

// The derive takes no const generics.
impl<const N: usize> JsonSchema for Window<N> {
    fn schema_name() -> Cow<'static, str> {
        format!("Window{N}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        length_schema("window", "Samples in the window.", N, 2)
    }
}

/// A number of samples, `N` where nothing is said and `LEAST` at least.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bars<const N: usize, const LEAST: usize> {
    /// Samples that it looks back.
    #[serde(default = "constant::<N>")]
    pub bars: usize,
}

impl<const N: usize, const LEAST: usize> Default for Bars<N, LEAST> {
    fn default() -> Bars<N, LEAST> {
        Bars { bars: N }
    }
}

impl<const N: usize, const LEAST: usize> Settings for Bars<N, LEAST> {
    fn check(&self) -> Result<(), Invalid> {
        at_least("bars", self.bars, LEAST)
    }
}

impl<const N: usize, const LEAST: usize> JsonSchema for Bars<N, LEAST> {
    fn schema_name() -> Cow<'static, str> {
        format!("Bars{N}From{LEAST}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        length_schema("bars", "Samples that it looks back.", N, LEAST)
    }
}

/// The schema of a lone length.
fn length_schema(name: &str, about: &str, usual: usize, least: usize) -> Schema {
    json_schema!({
        "type": "object",
        "properties": { (name): {
            "description": about,
            "type": "integer",
            "minimum": least,
            "maximum": LONGEST,
            "default": usual,
        } },
        "additionalProperties": false,
    })
}

/// The last values of a series.
#[derive(Clone, Debug)]
pub struct Lag {
    values: VecDeque<f64>,
    keep: usize,
}

impl Lag {
    /// Looks back up to `back` values from the last.
    pub fn new(back: usize) -> Lag {
        Lag { values: VecDeque::new(), keep: back + 1 }
    }
    /// Takes a value; what is not finite is passed over.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.values.push_back(value);
        if self.values.len() > self.keep {
            self.values.pop_front();
        }
    }
    /// The value `back` before the last.
    pub fn back(&self, back: usize) -> Option<f64> {
        self.values.get(self.values.len().checked_sub(back + 1)?).copied()
    }
    /// The values, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator + '_ {
        self.values.iter().copied()
    }
    /// Whether there are as many as are kept.
    pub fn is_full(&self) -> bool {
        self.values.len() == self.keep
    }
}

/// Whether a price is one.
pub fn priced(price: f64) -> bool {
    price > 0.0 && price.is_finite()
}

/// The price before, where both are prices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Previous(Option<f64>);

impl Previous {
    /// Takes a price; the one before it. What is no price is passed over.
    pub fn push(&mut self, price: f64) -> Option<f64> {
        if priced(price) { self.0.replace(price) } else { None }
    }
    /// Takes a price; the log return to it.
    pub fn log_return(&mut self, price: f64) -> Option<f64> {
        self.push(price).map(|before| (price / before).ln())
    }
    /// Takes a price; the return to it.
    pub fn simple_return(&mut self, price: f64) -> Option<f64> {
        self.push(price).map(|before| price / before - 1.0)
    }
}

/// Log returns and their rolling standard deviation (one degree of freedom gone).
#[derive(Clone, Debug)]
pub struct Sigma {
    previous: Previous,
    window: Rolling<Moments>,
}

impl Sigma {
    /// Over `window` returns.
    pub fn new(window: usize) -> Sigma {
        Sigma { previous: Previous::default(), window: Rolling::new(window) }
    }
    /// Takes a price; the return to it, and the deviation once the window is full.
    pub fn push(&mut self, price: f64) -> (Option<f64>, Option<f64>) {
        let Some(change) = self.previous.log_return(price) else { return (None, None) };
        let moments = self.window.push(change);
        (Some(change), moments.map(|m| m.deviation(self.window.size(), 1)))
    }
}

/// A rolling mean above zero over the samples that have a value. While the mean is zero (the price
/// stood still) the last value is carried on.
#[derive(Clone, Debug)]
pub struct Carried {
    window: Rolling<Moments>,
    last: Option<f64>,
}

impl Carried {
    /// Over `size` values.
    pub fn new(size: usize) -> Carried {
        Carried { window: Rolling::new(size), last: None }
    }
    /// Takes a value, where there is one.
    pub fn push(&mut self, value: Option<f64>) -> Option<f64> {
        if let Some(value) = value {
            self.window.push(value);
        }
        let mean = self.window.get().map(|m| m.mean);
        self.last = mean.filter(|&mean| mean > 0.0).or(self.last);
        self.last
    }
}

/// `part` by `whole` of two full windows; 0 where the whole is.
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Pushes a value where there is one; what the window then holds.
pub fn feed<A: Aggregate>(window: &mut Rolling<A>, item: Option<A::Item>) -> Option<A> {
    if let Some(item) = item {
        window.push(item);
    }
    window.get()
}
