//! Linear models: multinomial logistic regression, and ridge regression.
//!
//! Both minimise a mean over rows plus l2/2 times the squared coefficients, without the intercepts, so
//! that `l2` means the same whatever the number of rows. Both are solved exactly: ridge by its normal
//! equations, logit as in [`crate::softmax`].

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::expect::Expected;
use super::fit::{Data, known, write};
use super::series::{Forecast, Forecaster, Series, Target};
use super::student;
use crate::softmax::{self, Minimum, Table, solve};
use crate::{Invalid, Result, StageError};

/// Multinomial logistic regression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logit {
    /// Penalty on squared coefficients of scaled features, against the mean log loss. scikit-learn's C is
    /// 1 / (rows l2).
    pub l2: f64,
}

/// Ridge regression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ridge {
    /// Penalty on squared coefficients of scaled features, against the mean squared error.
    /// scikit-learn's alpha is rows l2.
    pub l2: f64,
}

impl Default for Logit {
    fn default() -> Logit {
        Logit { l2: 0.01 }
    }
}

impl Default for Ridge {
    fn default() -> Ridge {
        Ridge { l2: 0.1 }
    }
}

impl Logit {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A penalty that is none.
    pub fn check(&self) -> Result<(), Invalid> {
        penalty(self.l2)
    }
}

impl Ridge {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A penalty that is none.
    pub fn check(&self) -> Result<(), Invalid> {
        penalty(self.l2)
    }
}

/// Says whether a penalty is one.
pub fn penalty(l2: f64) -> Result<(), Invalid> {
    match l2 > 0.0 && l2.is_finite() {
        true => Ok(()),
        false => Err(Invalid::new("l2", "must be above 0").help(
            "a small one, such as 1e-6, hardly binds; without any, coefficients may not exist",
        )),
    }
}

/// The likely classes from features.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Logistic {
    /// By horizon: `[classes, features + 1]`, the intercept last.
    weights: Vec<Vec<f64>>,
    expected: Vec<Expected>,
}

/// The expected value from features.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// By horizon: `[features + 1]`, the intercept last.
    weights: Vec<Vec<f64>>,
    /// By horizon: the scale of what is left.
    scale: Vec<f64>,
    /// Values within it are flat.
    flat: f64,
}

/// Rows with a one after their features.
struct Rows {
    x: Vec<f64>,
    width: usize,
    targets: Vec<Target>,
}

impl Rows {
    fn of(data: &Data, horizon: usize) -> Rows {
        let (mut x, mut targets) = (Vec::new(), Vec::new());
        for (cells, target) in known(data.train, horizon) {
            x.extend(cells.iter().map(|x| f64::from(*x)));
            x.push(1.0);
            targets.push(target);
        }
        Rows { width: x.len() / targets.len().max(1), x, targets }
    }

    fn iter(&self) -> impl Iterator<Item = (&[f64], &Target)> {
        self.x.chunks_exact(self.width.max(1)).zip(&self.targets)
    }
}

/// Fits a multinomial logit, a horizon at a time.
///
/// # Errors
/// No minimum is found.
pub fn logit(
    params: &Logit,
    data: &Data,
    log: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Logistic> {
    let one = |(horizon, weights): (usize, &[f32; 3])| {
        let counts = weights.map(f64::from);
        let (mut x, mut labels, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (cells, target) in known(data.train, horizon) {
            x.extend(cells.iter().map(|x| f64::from(*x)));
            labels.push(usize::from(target.class));
            targets.push(target);
        }
        let width = x.len() / targets.len().max(1);
        let table = Table { inputs: &x, width, labels: &labels, counts: &counts };
        let Minimum { weights, steps, loss } = softmax::fit(&table, params.l2)?;
        let p = targets
            .iter()
            .enumerate()
            .map(|(row, target)| (chances(&weights, &x[row * width..(row + 1) * width]), *target));
        let expected = Expected::of(p, &counts);
        Ok((weights, expected, steps, loss))
    };
    let found: Vec<Result<_>> = data.class_weights.par_iter().enumerate().map(one).collect();
    let mut fitted = Logistic { weights: Vec::new(), expected: Vec::new() };
    for (horizon, found) in found.into_iter().enumerate() {
        let (weights, expected, steps, loss) = found?;
        log(json!({ "horizon": horizon, "steps": steps, "loss": loss }))?;
        fitted.weights.push(weights);
        fitted.expected.push(expected);
    }
    Ok(fitted)
}

/// The probabilities of a row.
fn chances(weights: &[f64], x: &[f64]) -> [f64; 3] {
    let p = softmax::probabilities(weights, x);
    std::array::from_fn(|class| p[class])
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Fits a ridge regression of the value, a horizon at a time.
///
/// # Errors
/// The features are no numbers.
pub fn ridge(
    params: &Ridge,
    data: &Data,
    log: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Line> {
    let mut line = Line { weights: Vec::new(), scale: Vec::new(), flat: data.flat };
    for horizon in 0..data.class_weights.len() {
        let rows = Rows::of(data, horizon);
        let size = rows.width;
        let (mut normal, mut right) = (vec![0.0; size * size], vec![0.0; size]);
        for (x, target) in rows.iter() {
            let y = f64::from(target.value);
            for (i, xi) in x.iter().enumerate() {
                right[i] += xi * y;
                let cells = &mut normal[i * size..][..=i];
                cells.iter_mut().zip(x).for_each(|(cell, xj)| *cell += xi * xj);
            }
        }
        let n = rows.targets.len() as f64;
        for i in 0..size.saturating_sub(1) {
            normal[i * size + i] += n * params.l2;
        }
        let weights = solve(&mut normal, &right)
            .ok_or_else(|| StageError::failed("the ridge regression has no solution"))?;
        let left: Vec<f64> =
            rows.iter().map(|(x, target)| f64::from(target.value) - dot(&weights, x)).collect();
        let squares = left.iter().map(|r| r * r).sum::<f64>() / n;
        log(json!({ "horizon": horizon, "rows": rows.targets.len(), "squared_error": squares }))?;
        line.scale.push(student::scale(&left).unwrap_or(1.0));
        line.weights.push(weights);
    }
    Ok(line)
}

fn with_one(series: &Series, row: usize) -> Vec<f64> {
    let cells = &series.x[row * series.features..(row + 1) * series.features];
    cells.iter().map(|x| f64::from(*x)).chain([1.0]).collect()
}

impl Forecaster for Logistic {
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>> {
        let of = |row: usize| {
            let mut x = with_one(series, row);
            x.pop();
            let pairs = self.weights.iter().zip(&self.expected);
            pairs.map(move |(weights, expected)| expected.forecast(chances(weights, &x)))
        };
        Ok(rows.flat_map(of).collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write(folder, self)
    }
}

impl Forecaster for Line {
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>> {
        let of = |row: usize| {
            let x = with_one(series, row);
            self.weights.iter().zip(&self.scale).map(move |(weights, scale)| {
                let mean = dot(weights, &x);
                let down = student::cdf((-self.flat - mean) / scale);
                let up = student::cdf((mean - self.flat) / scale);
                let p = [down as f32, (1.0 - down - up).max(0.0) as f32, up as f32];
                Forecast { p, mean: mean as f32, scale: Some(*scale as f32) }
            })
        };
        Ok(rows.flat_map(of).collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write(folder, self)
    }
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
