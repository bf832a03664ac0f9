//! Intervals and paired differences of Sharpe ratios, from draws that all series share.
//!
//! One draw takes the same rows of every series, which keeps what they have in common: two models
//! that hold the same position most days differ by little, and the difference says so although both
//! intervals are wide.

use rayon::prelude::*;
use serde::Serialize;

use crate::Result;
use crate::evaluate::inference::{Interval, draw};
use crate::evaluate::metrics::sharpe;
use crate::evaluate::significance::holm;

/// Draws between two looks at whether to stop.
const BATCH: usize = 250;

/// Sharpe ratios a year of every draw: one a series; `None` where a drawn series does not vary.
pub struct Draws(Vec<Vec<Option<f64>>>);

/// Resamples the rows of `series` (equal lengths) together. The draws follow from the seed and their
/// own number alone. `told` hears how far it is and may stop it.
///
/// # Errors
/// Those of `told`.
pub fn draws(
    series: &[&[f64]],
    per_year: f64,
    block: f64,
    count: usize,
    seed: u64,
    told: &(dyn Fn(usize, usize) -> Result<()> + Sync),
) -> Result<Draws> {
    let n = series.first().map_or(0, |s| s.len());
    let one = |number: usize| -> Vec<Option<f64>> {
        let rows = draw(n, block, seed, number as u64);
        let mut drawn = vec![0.0; n];
        let mut of = |x: &&[f64]| {
            drawn.iter_mut().zip(&rows).for_each(|(to, row)| *to = x[*row]);
            sharpe(&drawn, per_year)
        };
        series.iter().map(&mut of).collect()
    };
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        told(all.len(), count)?;
        let end = (all.len() + BATCH).min(count);
        let batch: Vec<_> = (all.len()..end).into_par_iter().map(one).collect();
        all.extend(batch);
    }
    Ok(Draws(all))
}

/// How one Sharpe ratio differs from another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The difference a year.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Interval,
    /// Two-sided p-value of no difference.
    pub p: f64,
    /// The same, after Holm, among all differences to the same reference.
    pub p_holm: f64,
}

impl Draws {
    /// 95 % interval of a series' Sharpe ratio.
    pub fn interval(&self, at: usize) -> Option<Interval> {
        Interval::of(self.0.iter().filter_map(|d| d[at]).collect())
    }

    /// Sharpe ratio of `at` less that of `other`, whose difference in the data is `value`.
    ///
    /// The p-value is the share of draws whose difference lies as far from `value` as `value` lies
    /// from 0: the draws are centred at what was seen, and under no difference they would be at 0. One
    /// is added above and below, so that it is never 0 (Davison and Hinkley 1997, eq. 4.11).
    pub fn difference(&self, at: usize, other: usize, value: f64) -> Option<Difference> {
        let of = |d: &Vec<Option<f64>>| Some(d[at]? - d[other]?);
        let drawn: Vec<f64> = self.0.iter().filter_map(of).collect();
        let beyond = drawn.iter().filter(|d| (**d - value).abs() >= value.abs()).count();
        let p = (1 + beyond) as f64 / (1 + drawn.len()) as f64;
        Some(Difference { value, interval: Interval::of(drawn)?, p, p_holm: p })
    }
}

/// Adjusts p-values for being several (Holm 1979), in place.
pub fn adjust(differences: &mut [&mut Difference]) {
    let p: Vec<f64> = differences.iter().map(|d| d.p).collect();
    for (difference, adjusted) in differences.iter_mut().zip(holm(&p)) {
        difference.p_holm = adjusted;
    }
}
