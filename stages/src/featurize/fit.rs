//! What is learnt from the training span, and from nothing else: `fit.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::feature::{Column, Fits};
use super::labels::{Label, Meta};
use crate::{Result, StageError};

/// Parameters fitted on the training span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Date of the first row of the span, and of the last whose label lies within it.
    pub train: (String, String),
    /// Rows from the one to the other, those of the warm-up among them.
    pub train_rows: usize,
    /// Samples in a year, for whoever scales a statistic of this file.
    pub periods_per_year: f64,
    /// What the label is, where there is one.
    pub label: Option<Label>,
    /// Whose side the label judges, where it is a meta-label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    /// What was learnt for each feature that needs it, by column.
    pub fits: Fits,
    /// Mean and deviation of each feature over the training rows. The columns are not scaled.
    pub scalers: BTreeMap<String, Scaler>,
    /// Weights that give each class of the label the same sum over the training rows.
    pub class_weights: BTreeMap<i8, f64>,
}

/// Mean and standard deviation (one degree of freedom gone) of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

impl Fit {
    /// A fit that another stage learnt, to be used as it is.
    ///
    /// # Errors
    /// It is none, or lacks what a column needs.
    pub fn read(path: &Path, columns: &[Column]) -> Result<Fit> {
        let fit: Fit = serde_json::from_slice(&fs_err::read(path)?).map_err(|e| {
            StageError::bad(path, format!("not a fit: {e}"))
                .at(e.line() as u64)
                .hint("feed `fit` from output `fit` of a `featurize` stage")
        })?;
        let lacking =
            |column: &&Column| column.entry.fit.is_some() && !fit.fits.contains_key(&column.name);
        match columns.iter().find(lacking) {
            None => Ok(fit),
            Some(column) => {
                let message = format!("it holds nothing for column `{}`", column.name);
                Err(StageError::bad(path, message)
                    .hint("the stage that it comes from must have the same `features`"))
            }
        }
    }
}

/// To twelve significant digits: what is fitted is rounded before it is used, so that a file of it
/// reads back as exactly what was used (not every JSON reader gives all 17 digits back).
pub fn short(x: f64) -> f64 {
    format!("{x:.11e}").parse().unwrap_or(x)
}

/// Gathers the scalers in one pass (Welford).
#[derive(Clone, Debug, Default)]
pub struct Scalers {
    rows: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Scalers {
    /// Takes a training row.
    pub fn push(&mut self, row: &[f64]) {
        self.mean.resize(row.len(), 0.0);
        self.squares.resize(row.len(), 0.0);
        self.rows += 1.0;
        for ((x, mean), squares) in row.iter().zip(&mut self.mean).zip(&mut self.squares) {
            let away = x - *mean;
            *mean += away / self.rows;
            *squares += away * (x - *mean);
        }
    }
    /// The scalers by feature.
    pub fn finish<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeMap<String, Scaler> {
        let stats = self.mean.iter().zip(&self.squares);
        let scalers = stats.map(|(&mean, squares)| Scaler {
            mean: short(mean),
            std: short((squares / (self.rows - 1.0).max(1.0)).sqrt()),
        });
        names.map(str::to_owned).zip(scalers).collect()
    }
}
