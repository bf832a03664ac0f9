//! How sure one may be: probabilistic Sharpe ratio and stationary-bootstrap intervals.
//!
//! Draws are a function of the seed and their own number, so that neither the number of threads
//! nor the order of work changes a bit. Statistics of several series are taken from the same
//! draws, which keeps their dependence: a difference of two Sharpe ratios is tested pairwise.
//!
//! Not here: corrections for having tried many models, which are those of `selection`.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

use super::metrics::{mean, sharpe_per_bar};

/// The standard normal distribution function.
pub fn phi(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

/// What the error of a Sharpe ratio depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Sharpe ratio of a bar.
    pub sharpe: f64,
    /// Bars.
    pub bars: usize,
    /// Third standardised moment, with n and not n - 1.
    pub skewness: f64,
    /// Fourth standardised moment, likewise; 3 of a normal distribution.
    pub kurtosis: f64,
}

impl Moments {
    /// Of returns; `None` where they do not vary.
    pub fn of(returns: &[f64]) -> Option<Moments> {
        let (sharpe, m) = (sharpe_per_bar(returns)?, mean(returns)?);
        let moment =
            |p: i32| returns.iter().map(|r| (r - m).powi(p)).sum::<f64>() / returns.len() as f64;
        let m2 = moment(2);
        let (skewness, kurtosis) = (moment(3) / m2.powf(1.5), moment(4) / (m2 * m2));
        Some(Moments { sharpe, bars: returns.len(), skewness, kurtosis })
    }

    /// Probability that the true Sharpe ratio of a bar exceeds `against` (Bailey and Lopez de Prado
    /// 2012, eq. 11).
    pub fn psr(&self, against: f64) -> f64 {
        let (sr, kurtosis) = (self.sharpe, self.kurtosis);
        let spread = (1.0 - self.skewness * sr + (kurtosis - 1.0) / 4.0 * sr * sr).sqrt();
        phi((sr - against) * (self.bars as f64 - 1.0).sqrt() / spread)
    }
}

/// [`Moments::psr`] of returns; `None` where they do not vary.
pub fn psr(returns: &[f64], against: f64) -> Option<f64> {
    Moments::of(returns).map(|m| m.psr(against)).filter(|p| p.is_finite())
}

/// The mean block length of a stationary bootstrap that minimises the error of the mean's variance
/// (Politis and White 2004, with the correction of Patton, Politis and White 2009).
pub fn block_length(x: &[f64]) -> f64 {
    let n = x.len();
    let nf = n as f64;
    let longest = (3.0 * nf.sqrt()).min(nf / 3.0).ceil();
    let m = mean(x).unwrap_or(0.0);
    let dev: Vec<f64> = x.iter().map(|v| v - m).collect();
    if n < 10 || dev.iter().all(|d| *d == 0.0) {
        return 1.0;
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let quiet = 5.max(nf.log10() as usize);
    let most = (nf.sqrt().ceil() as usize + quiet).min(n - 2);
    let bound = 2.0 * (nf.log10() / nf).sqrt();
    let cov: Vec<f64> = (0..=most).map(|k| dot(&dev[k..], &dev[..n - k])).collect();
    // The smallest lag after which `quiet` correlations in a row are insignificant.
    let small = |k: usize| {
        let norm = dot(&dev[k + 1..], &dev[k + 1..]) * dot(&dev[..n - k - 1], &dev[..n - k - 1]);
        cov[k].abs() < bound * norm.sqrt()
    };
    let first = (0..=most.saturating_sub(quiet)).find(|k| (*k..k + quiet).all(small));
    let lags = first.map_or(most, |k| (2 * k.max(1)).min(most));
    let (mut slope, mut long_run) = (0.0, cov[0] / nf);
    for (k, c) in cov.iter().enumerate().take(lags + 1).skip(1) {
        let share = k as f64 / lags as f64;
        let taper = if share <= 0.5 { 1.0 } else { 2.0 * (1.0 - share) };
        slope += 2.0 * taper * k as f64 * c / nf;
        long_run += 2.0 * taper * c / nf;
    }
    let block = (slope * slope / (long_run * long_run)).cbrt() * nf.cbrt();
    if block.is_finite() { block.clamp(1.0, longest.max(1.0)) } else { 1.0 }
}

/// The rows of draw `number`: a row at random, then the next one, and with probability 1/block a
/// new start (Politis and Romano 1994). Wraps around.
pub fn draw(n: usize, block: f64, seed: u64, number: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let mut at = 0;
    let start = 1.0 / block.max(1.0);
    (0..n)
        .map(|i| {
            at = if i == 0 || rng.random::<f64>() < start {
                rng.random_range(0..n)
            } else {
                (at + 1) % n
            };
            at
        })
        .collect()
}

/// The value below which a share `q` of the sorted values lies, linearly between neighbours.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    let (low_value, high_value) = (sorted.get(low)?, sorted.get(high)?);
    Some(low_value + (high_value - low_value) * (at - low as f64))
}

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// Of unsorted values; `None` without any.
    pub fn of(mut values: Vec<f64>) -> Option<Interval> {
        values.sort_by(f64::total_cmp);
        let low = quantile(&values, 0.025)?;
        Some(Interval { low, high: quantile(&values, 0.975)? })
    }
    /// Whether a value lies inside.
    pub fn covers(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// What the draws say of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sampled {
    /// Sharpe ratio a year. `None` where the series never varies.
    pub sharpe: Option<Interval>,
    /// Its difference to the first series, from the same draws.
    pub sharpe_behind_first: Option<Interval>,
    /// 5th percentile of the maximum drawdown: the depth that one draw in twenty exceeds.
    pub drawdown_p95: Option<f64>,
}

/// Resamples the rows of `series` (equal lengths) together, `draws` times.
pub fn bootstrap(
    series: &[&[f64]],
    per_year: f64,
    block: f64,
    draws: usize,
    seed: u64,
) -> Vec<Sampled> {
    let (n, width) = (series.first().map_or(0, |s| s.len()), series.len());
    if n == 0 || series.iter().any(|s| s.len() != n) {
        return vec![Sampled::default(); width];
    }
    // Row by row, so that a drawn row is in one place; about the mean, so that squares lose nothing.
    let means: Vec<f64> = series.iter().map(|s| mean(s).unwrap_or(0.0)).collect();
    let size = |s: &&[f64]| s.iter().fold(0.0f64, |a, r| a.max(r.abs()));
    let sizes: Vec<f64> = series.iter().map(size).collect();
    let rows: Vec<f64> = (0..n).flat_map(|i| series.iter().map(move |s| s[i])).collect();
    let one = |number: usize| -> Vec<(Option<f64>, f64)> {
        let mut sums = vec![[0.0, 0.0, 1.0, 1.0, 0.0]; width];
        for row in draw(n, block, seed, number as u64) {
            let row = &rows[row * width..(row + 1) * width];
            for ((x, mean), sum) in row.iter().zip(&means).zip(&mut sums) {
                let away = x - mean;
                sum[0] += away;
                sum[1] += away * away;
                sum[2] *= 1.0 + x;
                sum[3] = sum[3].max(sum[2]);
                // The depth of a fall is looked at only where it is the deepest so far.
                if sum[2] < sum[3] * (1.0 + sum[4]) {
                    sum[4] = sum[2] / sum[3] - 1.0;
                }
            }
        }
        let nf = n as f64;
        let stat = |(s, sum): (usize, &[f64; 5])| {
            let deviation = ((sum[1] - sum[0] * sum[0] / nf) / (nf - 1.0)).max(0.0).sqrt();
            // Rounding leaves a constant series with a deviation of some 1e-17 of its size.
            let varies = deviation > 1e-12 * sizes[s] && n > 1;
            let sharpe = (means[s] + sum[0] / nf) / deviation * per_year.sqrt();
            (varies.then_some(sharpe), sum[4])
        };
        sums.iter().enumerate().map(stat).collect()
    };
    let all: Vec<Vec<(Option<f64>, f64)>> = (0..draws).into_par_iter().map(one).collect();
    (0..width)
        .map(|s| {
            let behind = |d: &Vec<(Option<f64>, f64)>| Some(d[0].0? - d[s].0?);
            let mut falls: Vec<f64> = all.iter().map(|d| d[s].1).collect();
            falls.sort_by(f64::total_cmp);
            Sampled {
                sharpe: Interval::of(all.iter().filter_map(|d| d[s].0).collect()),
                sharpe_behind_first: Interval::of(all.iter().filter_map(behind).collect()),
                drawdown_p95: quantile(&falls, 0.05),
            }
        })
        .collect()
}

/// Middle 95 % of the value of 1 at the bars of `marks`, of resampled returns: the draws of
/// [`bootstrap`].
pub fn fan(
    returns: &[f64],
    block: f64,
    draws: usize,
    seed: u64,
    marks: &[usize],
) -> Vec<(f64, f64)> {
    if returns.is_empty() {
        return Vec::new();
    }
    let one = |number: usize| -> Vec<f64> {
        let (mut value, mut values) = (1.0, Vec::with_capacity(marks.len()));
        if marks.first() == Some(&0) {
            values.push(value);
        }
        for (row, at) in draw(returns.len(), block, seed, number as u64).into_iter().zip(1..) {
            value *= 1.0 + returns[row];
            if marks.get(values.len()) == Some(&at) {
                values.push(value);
            }
        }
        values
    };
    let curves: Vec<Vec<f64>> = (0..draws).into_par_iter().map(one).collect();
    band(&curves, marks.len(), 0.025)
}

/// Bars at which many curves are kept: all, or 400 at even distances with the last.
pub fn marks(bars: usize) -> Vec<usize> {
    const MOST: usize = 400;
    let last = bars.saturating_sub(1);
    match bars {
        0..=MOST => (0..bars).collect(),
        _ => (0..MOST).map(|i| i * last / (MOST - 1)).collect(),
    }
}

/// The middle of curves at each mark, all but a share `tail` at either end.
pub fn band(curves: &[Vec<f64>], marks: usize, tail: f64) -> Vec<(f64, f64)> {
    let at = |mark: usize| {
        let mut values: Vec<f64> = curves.iter().filter_map(|c| c.get(mark).copied()).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (quantile(&values, tail), quantile(&values, 1.0 - tail));
        (low.unwrap_or(1.0), high.unwrap_or(1.0))
    };
    (0..marks).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testdata::{boot, close};

    #[test]
    fn psr_agrees_with_the_closed_form_and_the_paper() {
        let (returns, _) = boot();
        close(psr(&returns, 0.0), 0.9826303403956227, 1e-9);
        // Bailey and Lopez de Prado 2014: annual Sharpe ratio 2.5, 1,250 days, threshold 0.1132.
        let paper =
            Moments { sharpe: 2.5 / 250f64.sqrt(), bars: 1250, skewness: -3.0, kurtosis: 10.0 };
        close(paper.psr(0.11317200186513214), 0.9003968344493903, 1e-9);
        assert_eq!(psr(&[0.0; 20], 0.0), None);
    }

    #[test]
    fn block_length_agrees_with_arch() {
        let (returns, _) = boot();
        close(block_length(&returns), 2.2002359349717806, 1e-9);
        assert_eq!(block_length(&[0.0; 100]), 1.0);
        assert_eq!(block_length(&[0.1, -0.1, 0.2]), 1.0);
    }

    #[test]
    fn a_given_draw_gives_the_reference_sharpe() {
        let (returns, rows) = boot();
        let drawn: Vec<f64> = rows.iter().map(|r| returns[*r]).collect();
        close(sharpe_per_bar(&drawn), 0.019026721196211106, 1e-12);
    }

    #[test]
    fn draws_have_the_mean_block_asked_for() {
        let rows: Vec<Vec<usize>> = (0..20).map(|i| draw(1000, 10.0, 7, i)).collect();
        let breaks: usize =
            rows.iter().map(|r| r.windows(2).filter(|w| w[1] != (w[0] + 1) % 1000).count()).sum();
        // 19,980 steps, a new start in a tenth of them: 1,998 with a deviation of 42.
        assert!((1850..2150).contains(&breaks), "{breaks}");
        assert!(rows.iter().flatten().all(|r| *r < 1000));
        assert_ne!(rows[0], rows[1]);
    }

    #[test]
    fn intervals_agree_with_arch_and_repeat() {
        let (returns, _) = boot();
        let flipped: Vec<f64> = returns.iter().map(|r| -r).collect();
        let run = || bootstrap(&[&returns, &flipped], 1.0, 10.0, 400, 1);
        let sampled = run();
        let got = sampled[0].sharpe.unwrap();
        // arch 8.0.0: [0.00825, 0.08119]; the error of a percentile from 400 draws is about 0.004.
        close(got.low, 0.00825187447245903, 0.01);
        close(got.high, 0.08118897291253192, 0.01);
        let pair = sampled[1].sharpe_behind_first.unwrap();
        close(pair.low, 2.0 * got.low, 1e-12);
        assert_eq!(sampled[0].sharpe_behind_first, Some(Interval { low: 0.0, high: 0.0 }));
        assert_eq!(sampled, run());
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[1.0], 0.975), Some(1.0));
    }
}
