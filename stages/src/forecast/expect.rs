//! From probable classes to an expected value: what the classes were worth in training.

use serde::Serialize;

use super::series::{Forecast, Target};
use super::student;

/// What a classifier's probabilities are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Expected {
    /// The mean value of each class.
    means: [f64; 3],
    /// What each class counted for: probabilities are divided by it before they weigh the means.
    counts: [f64; 3],
    /// The scale of what is left.
    scale: Option<f64>,
}

impl Expected {
    /// From the probabilities that a fitted model gives its rows, and what happened.
    pub fn of(rows: impl Iterator<Item = ([f64; 3], Target)>, counts: &[f64; 3]) -> Expected {
        let rows: Vec<([f64; 3], Target)> = rows.collect();
        let (mut sums, mut of) = ([0.0; 3], [0.0; 3]);
        for (_, target) in &rows {
            sums[usize::from(target.class)] += f64::from(target.value);
            of[usize::from(target.class)] += 1.0;
        }
        let means = std::array::from_fn(|c| if of[c] > 0.0 { sums[c] / of[c] } else { 0.0 });
        let mut expected = Expected { means, counts: *counts, scale: None };
        let left = |(p, target): &([f64; 3], Target)| f64::from(target.value) - expected.mean(p);
        expected.scale = student::scale(&rows.iter().map(left).collect::<Vec<_>>());
        expected
    }

    fn mean(&self, p: &[f64; 3]) -> f64 {
        let real: [f64; 3] = std::array::from_fn(|class| p[class] / self.counts[class]);
        let sum: f64 = real.iter().sum();
        real.iter().zip(&self.means).map(|(p, mean)| p * mean).sum::<f64>() / sum
    }

    /// The forecast of a row.
    pub fn forecast(&self, p: [f64; 3]) -> Forecast {
        Forecast {
            p: p.map(|p| p as f32),
            mean: self.mean(&p) as f32,
            scale: self.scale.map(|scale| scale as f32),
        }
    }
}
