//! What is learnt from the training span, and from nothing else: `fit.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::regime::Fitted;
use super::state::FEATURES;

/// Parameters fitted on the training span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Date of the first row of the span, and of the last whose label lies within it.
    pub train: (String, String),
    /// Rows from the one to the other, those of the warm-up among them.
    pub train_rows: usize,
    /// Bars in a year, for whoever scales a statistic of this file.
    pub periods_per_year: f64,
    /// The volatility regimes.
    pub regime: Fitted,
    /// Units of volume in a bucket of VPIN: a multiple of the span's mean volume a bar.
    pub vpin_bucket: f64,
    /// Mean and deviation of each feature over the training rows. The columns are not scaled.
    pub scalers: BTreeMap<String, Scaler>,
}

/// Mean and standard deviation (one degree of freedom gone) of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
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
    mean: [f64; 15],
    squares: [f64; 15],
}

impl Scalers {
    /// Takes a training row.
    pub fn push(&mut self, row: &[f64; 15]) {
        self.rows += 1.0;
        for ((x, mean), squares) in row.iter().zip(&mut self.mean).zip(&mut self.squares) {
            let away = x - *mean;
            *mean += away / self.rows;
            *squares += away * (x - *mean);
        }
    }
    /// The scalers by feature.
    pub fn finish(&self) -> BTreeMap<String, Scaler> {
        let stats = self.mean.iter().zip(&self.squares);
        let scalers = stats.map(|(&mean, squares)| Scaler {
            mean: short(mean),
            std: short((squares / (self.rows - 1.0).max(1.0)).sqrt()),
        });
        FEATURES.iter().map(|name| name.to_string()).zip(scalers).collect()
    }
}
