//! What forecast models are fitted on and asked about: one instrument's rows, in order of time.
//!
//! Plain numbers in memory, without files, splits or a tensor library: the protocol (`protocol`)
//! says which rows a model may learn from, and each model sees nothing else.

use std::ops::Range;
use std::path::Path;

use crate::Result;

/// The rows of one instrument.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name; empty where there is only one.
    pub name: String,
    /// Features of a row.
    pub features: usize,
    /// `[rows, features]`, scaled; 0 where a feature is not known.
    pub x: Vec<f32>,
    /// `[rows]`: time since the row before, in units of the usual step; the first is 1.
    pub dt: Vec<f32>,
    /// `[rows, horizons]`: what happened.
    pub targets: Vec<Option<Target>>,
    /// Horizons of a row.
    pub horizons: usize,
}

impl Series {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.dt.len()
    }
}

/// What happened from a row over a horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// 0 down, 1 flat, 2 up.
    pub class: u8,
    /// The log return in units of the volatility that was known at the row.
    pub value: f32,
}

/// Rows that may be learnt from, or are held out to stop by.
///
/// A model reads `x` of all rows of `rows`; the loss is over those of them whose `counts` is true and
/// whose target is known.
#[derive(Clone, Debug)]
pub struct Slice<'a> {
    /// The instrument.
    pub series: &'a Series,
    /// Its rows.
    pub rows: Range<usize>,
    /// One a row of `rows`.
    pub counts: Vec<bool>,
}

/// What is expected from a row over a horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Probabilities of down, flat and up.
    pub p: [f32; 3],
    /// The expected value, in the unit of [`Target::value`].
    pub mean: f32,
    /// Its scale, where the model has one: that of a Student t with 5 degrees of freedom.
    pub scale: Option<f32>,
}

/// A fitted model.
pub trait Forecaster {
    /// Forecasts for `rows` of a series, `[rows, horizons]`. Those of a row depend on `x` and `dt` of
    /// the rows up to it, and on nothing else.
    ///
    /// # Errors
    /// The series has other features than the model was fitted on.
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>>;

    /// Writes what it takes to make it again into a folder.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, folder: &Path) -> Result<()>;
}
