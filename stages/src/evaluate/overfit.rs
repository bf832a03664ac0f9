//! What choosing the best of several does: the probability of backtest overfitting.
//!
//! Bailey, Borwein, Lopez de Prado and Zhu 2017 cut the span into blocks, form every pair of halves
//! from them, choose in one half, and look where the chosen stands in the other. Its logit
//! lambda = ln(w / (1 - w)) of the relative rank w = rank / (N + 1) is 0 at the median; lambda <= 0
//! counts as overfit, so that choosing among equals gives at least one half.
//!
//! It does not purge between blocks: returns of neighbouring blocks share positions that are held
//! over the cut.

use serde::Serialize;

/// Blocks that the span is cut into where nothing else is said: 10 give 252 splits.
pub const BLOCKS: usize = 10;

/// The probability of overfitting and what it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overfit {
    /// Share of the splits with lambda <= 0.
    pub pbo: f64,
    /// Blocks that the span was cut into.
    pub blocks: usize,
    /// Returns of a block.
    pub block: usize,
    /// Returns at the end that fill no block and are left out.
    pub left_out: usize,
    /// lambda of each split, in the order of the combinations of blocks.
    pub logits: Vec<f64>,
    /// Share of the splits in which the chosen has a Sharpe ratio of 0 or less in the other half.
    pub loss: f64,
}

/// Sums over a part of the span. They are not taken about a series' own mean: of two series that are
/// alike in a part the sums must be alike to the bit, or rounding would break the tie.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: f64,
    x: f64,
    xx: f64,
}

impl Sums {
    fn of(part: &[f64]) -> Sums {
        let sums = Sums { n: part.len() as f64, ..Sums::default() };
        part.iter().fold(sums, |sums, r| Sums { x: sums.x + r, xx: sums.xx + r * r, ..sums })
    }

    fn add(self, other: Sums) -> Sums {
        Sums { n: self.n + other.n, x: self.x + other.x, xx: self.xx + other.xx }
    }

    /// Sharpe ratio of a bar; 0 where nothing varies, as of money that is left alone.
    fn sharpe(self) -> f64 {
        let mean = self.x / self.n;
        let squares = self.xx - self.n * mean * mean;
        // Rounding leaves a constant series with squares of some 1e-16 of their size.
        if squares > 1e-13 * self.xx { mean / (squares / (self.n - 1.0)).sqrt() } else { 0.0 }
    }
}

/// The probability of overfitting among `trials` (returns of equal length), by combinatorially
/// symmetric cross-validation over `blocks` equal parts. `None` of fewer than two trials, or where
/// a part has fewer than two returns.
pub fn cscv<T: AsRef<[f64]>>(trials: &[T], blocks: usize) -> Option<Overfit> {
    let n = trials.first().map_or(0, |t| t.as_ref().len());
    let block = n / blocks;
    if trials.len() < 2 || block < 2 || trials.iter().any(|t| t.as_ref().len() != n) {
        return None;
    }
    let sums = |t: &T| t.as_ref().chunks_exact(block).take(blocks).map(Sums::of).collect();
    let parts: Vec<Vec<Sums>> = trials.iter().map(sums).collect();
    let half = |taken: u32, wanted: bool| -> Vec<f64> {
        let of = |parts: &Vec<Sums>| {
            let mine = parts.iter().enumerate().filter(|(i, _)| (taken >> i & 1 == 1) == wanted);
            mine.fold(Sums::default(), |sum, (_, part)| sum.add(*part)).sharpe()
        };
        parts.iter().map(of).collect()
    };
    let (mut logits, mut losses) = (Vec::new(), 0usize);
    for taken in combinations(blocks) {
        let (inside, outside) = (half(taken, true), half(taken, false));
        let chosen = first_best(&inside)?;
        let value = outside[chosen];
        let rank = 1 + outside.iter().filter(|s| **s < value).count();
        let w = rank as f64 / (trials.len() as f64 + 1.0);
        // Ends at 1/2 are exactly 0, whatever a logarithm makes of a rounded quotient.
        logits.push(if 2 * rank == trials.len() + 1 { 0.0 } else { (w / (1.0 - w)).ln() });
        losses += usize::from(value <= 0.0);
    }
    let share = |count: usize| count as f64 / logits.len() as f64;
    Some(Overfit {
        pbo: share(logits.iter().filter(|l| **l <= 0.0).count()),
        blocks,
        block,
        left_out: n - block * blocks,
        loss: share(losses),
        logits,
    })
}

/// Sets of half the blocks as bits, in the order of combinations: (0, 1, ..), (0, 1, .., next).
fn combinations(blocks: usize) -> Vec<u32> {
    let mut all: Vec<u32> =
        (0..1u32 << blocks).filter(|set| set.count_ones() as usize == blocks / 2).collect();
    // The first block weighs most in the order of combinations.
    all.sort_by_key(|set| std::cmp::Reverse(set.reverse_bits()));
    all
}

fn first_best(values: &[f64]) -> Option<usize> {
    let mut best = None;
    for (at, value) in values.iter().enumerate() {
        if best.is_none_or(|b: usize| *value > values[b]) {
            best = Some(at);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::testdata::{close, noise};
    use super::*;

    #[test]
    fn agrees_with_the_libraries() {
        let found = cscv(&noise(), BLOCKS).unwrap();
        assert_eq!((found.blocks, found.logits.len()), (10, 252));
        close(found.pbo, 0.4642857142857143, 1e-12);
    }

    #[test]
    fn skill_is_no_overfitting_and_opposites_are() {
        let mut trials = noise();
        trials[3].iter_mut().for_each(|r| *r += 0.01);
        assert_eq!(cscv(&trials, BLOCKS).unwrap().pbo, 0.0);
        // What wins one half loses the other.
        let wave = |sign: f64| (0..1000).map(move |i| sign * f64::from(i % 200 < 100) - sign * 0.5);
        let pair: Vec<Vec<f64>> = [1.0, -1.0].map(|s| wave(s).collect()).into();
        assert!(cscv(&pair, BLOCKS).unwrap().pbo > 0.4);
        assert_eq!(cscv(&trials[..1], BLOCKS), None);
        assert_eq!(cscv(&[vec![0.0; 5], vec![0.0; 5]], BLOCKS), None);
    }
}
