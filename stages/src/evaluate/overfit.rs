//! The probability that the best of several trials is the best by overfitting.
//!
//! Combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de Prado and Zhu 2017): the
//! bars are cut into blocks; of every half of the blocks the trial with the best Sharpe ratio is
//! taken, and its rank among all trials on the other half is looked up. Where it falls to the lower
//! half of the ranks, picking it was overfitting.

use rayon::prelude::*;
use serde::Serialize;

/// Blocks that the bars are cut into: 10 give 252 splits.
pub const BLOCKS: usize = 10;

/// What cross-validation says of picking the best trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overfit {
    /// Trials.
    pub trials: usize,
    /// Splits into halves.
    pub splits: usize,
    /// Share of them in which the best of one half is at most the median of the other.
    pub probability: f64,
}

/// Of the returns of trials over the same bars. `None` with fewer than two trials or two bars a block,
/// or with series of different lengths.
pub fn overfit(trials: &[Vec<f64>], blocks: usize) -> Option<Overfit> {
    let bars = trials.first()?.len();
    let uneven = trials.iter().any(|t| t.len() != bars);
    if trials.len() < 2 || uneven || bars < 2 * blocks || !(2..=24).contains(&blocks) {
        return None;
    }
    // Counts, sums and sums of squares of every block, so that a split costs additions alone.
    let (size, longer) = (bars / blocks, bars % blocks);
    let begin = |b: usize| b * size + b.min(longer);
    let sums: Vec<Vec<[f64; 3]>> = trials
        .iter()
        .map(|t| {
            let block = |b: usize| {
                let part = &t[begin(b)..begin(b + 1)];
                [part.len() as f64, part.iter().sum(), part.iter().map(|r| r * r).sum()]
            };
            (0..blocks).map(block).collect()
        })
        .collect();
    let sharpe = |sums: &[[f64; 3]], half: u32| {
        let mut all = [0.0; 3];
        for (b, part) in sums.iter().enumerate().filter(|(b, _)| half >> b & 1 == 1) {
            debug_assert!(b < blocks);
            (0..3).for_each(|i| all[i] += part[i]);
        }
        let (n, mean) = (all[0], all[1] / all[0]);
        let variance = (all[2] - n * mean * mean) / (n - 1.0);
        if variance > 1e-24 * (all[2] / n) && variance > 0.0 { mean / variance.sqrt() } else { 0.0 }
    };
    let every = (1u32 << blocks) - 1;
    let halves: Vec<u32> =
        (0..=every).filter(|half| half.count_ones() as usize == blocks / 2).collect();
    let overfitted = |half: &u32| {
        let inside: Vec<f64> = sums.iter().map(|s| sharpe(s, *half)).collect();
        let outside: Vec<f64> = sums.iter().map(|s| sharpe(s, every & !half)).collect();
        let best = (0..inside.len()).reduce(|a, b| if inside[b] > inside[a] { b } else { a });
        let mine = best.map_or(f64::NEG_INFINITY, |best| outside[best]);
        // The logit of rank / (trials + 1) is at most 0.
        let rank = 1 + outside.iter().filter(|o| **o < mine).count();
        2 * rank <= inside.len() + 1
    };
    let count = halves.par_iter().filter(|half| overfitted(half)).count();
    Some(Overfit {
        trials: trials.len(),
        splits: halves.len(),
        probability: count as f64 / halves.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testdata::{close, noise};
    use super::*;

    #[test]
    fn agrees_with_the_libraries() {
        let found = overfit(&noise(), BLOCKS).unwrap();
        assert_eq!((found.trials, found.splits), (20, 252));
        close(found.probability, 0.4642857142857143, 1e-12);
    }

    #[test]
    fn skill_is_no_overfitting_and_opposites_are() {
        let mut trials = noise();
        trials[3].iter_mut().for_each(|r| *r += 0.01);
        assert_eq!(overfit(&trials, BLOCKS).unwrap().probability, 0.0);
        // What wins one half loses the other.
        let wave = |sign: f64| (0..1000).map(move |i| sign * f64::from(i % 200 < 100) - sign * 0.5);
        let pair: Vec<Vec<f64>> = [1.0, -1.0].map(|s| wave(s).collect()).into();
        assert!(overfit(&pair, BLOCKS).unwrap().probability > 0.4);
        assert_eq!(overfit(&trials[..1], BLOCKS), None);
        assert_eq!(overfit(&[vec![0.0; 5], vec![0.0; 5]], BLOCKS), None);
    }
}
