//! A way to trade, before it is replayed: orders on one instrument, or weights of several.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backtest::{Path, Rules, replayed};
use super::panel::Panel;
use super::portfolio::{Weights, replay};
use crate::pairs::decision::Decision;

/// What is decided at the closes of a panel's dates.
#[derive(Clone, Debug)]
pub enum Moves {
    /// Orders on the one instrument of the panel, `None` where nothing is decided.
    Orders(Vec<Option<Decision>>),
    /// Target weights.
    Weights(Weights),
}

/// A way to trade.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name in tables.
    pub name: String,
    /// What it does, in a line.
    pub about: String,
    /// What it decides.
    pub moves: Moves,
}

impl Moves {
    /// Replays them.
    pub fn play(&self, panel: &Panel, rules: &Rules) -> Path {
        match self {
            Moves::Orders(decided) => replayed(&panel.bars, decided, rules, panel.queue.as_deref()),
            Moves::Weights(weights) => replay(panel, |t| weights.get(t), rules),
        }
    }

    /// Offsets of the limit orders among them, ascending.
    pub fn offsets(&self) -> BTreeSet<u32> {
        let Moves::Orders(decided) = self else { return BTreeSet::new() };
        let offset = |said: &Decision| match said {
            Decision::Limit(_, offset, _) => Some(*offset),
            _ => None,
        };
        decided.iter().flatten().filter_map(offset).collect()
    }

    /// Whether a limit order is among them.
    pub fn has_limits(&self) -> bool {
        let Moves::Orders(decided) = self else { return false };
        decided.iter().flatten().any(|a| matches!(a, Decision::Limit(..)))
    }

    /// The same `by` dates later, or earlier where it is below 0; what falls off the ends is gone.
    pub fn shifted(&self, by: i64) -> Moves {
        let from = |t: usize| usize::try_from(t as i64 - by).ok();
        self.rearranged(|t| from(t).filter(|from| *from < self.len()))
    }

    /// How many dates there are.
    pub fn len(&self) -> usize {
        match self {
            Moves::Orders(decided) => decided.len(),
            Moves::Weights(weights) => weights.len(),
        }
    }

    /// Whether there is no date.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is decided up to a date.
    pub fn until(&self, dates: usize) -> Moves {
        match self {
            Moves::Orders(decided) => Moves::Orders(decided[..dates.min(decided.len())].to_vec()),
            Moves::Weights(weights) => Moves::Weights(weights.until(dates)),
        }
    }

    /// The same decisions in blocks of dates that stand in another order: each block keeps its inside,
    /// and loses what came after it.
    pub fn shuffled(&self, block: usize, rng: &mut ChaCha8Rng) -> Moves {
        let (all, block) = (self.len(), block.max(1));
        let mut starts: Vec<usize> = (0..all).step_by(block).collect();
        starts.shuffle(rng);
        let order: Vec<usize> = starts.into_iter().flat_map(|s| s..(s + block).min(all)).collect();
        self.rearranged(|t| order.get(t).copied())
    }

    fn rearranged(&self, from: impl Fn(usize) -> Option<usize>) -> Moves {
        match self {
            Moves::Orders(decided) => Moves::Orders(
                (0..decided.len())
                    .map(|t| from(t).and_then(|f| decided.get(f).copied().flatten()))
                    .collect(),
            ),
            Moves::Weights(weights) => {
                let mut other = Weights::none(weights.len(), weights.width());
                for t in 0..weights.len() {
                    if let Some(row) = from(t).and_then(|f| weights.get(f)) {
                        other.set(t, row);
                    }
                }
                Moves::Weights(other)
            }
        }
    }
}

/// Weights that are as large, change as often and as much, and hold instruments together as these do, at other times: begun
/// at a random date, forwards or backwards, with the instruments exchanged for one another.
pub fn turned(weights: &Weights, seed: u64, number: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let decided: Vec<usize> = weights.dates().collect();
    let mut other = Weights::none(weights.len(), weights.width());
    if decided.is_empty() {
        return other;
    }
    let n = decided.len();
    let (shift, back) = (rng.random_range(0..n), rng.random::<bool>());
    let mut places: Vec<usize> = (0..weights.width()).collect();
    places.shuffle(&mut rng);
    let mut row = vec![0.0; weights.width()];
    for (i, at) in decided.iter().enumerate() {
        let i = if back { n - 1 - i } else { i };
        let from = decided[(i + shift) % n];
        if let Some(values) = weights.get(from) {
            places.iter().zip(values).for_each(|(to, w)| row[*to] = *w);
            other.set(*at, &row);
        }
    }
    other
}

#[cfg(test)]
mod tests {
    use super::super::backtest::{Bar, Fill};
    use super::*;

    const RULES: Rules = Rules {
        latency: 1,
        fill: Fill::Penetrate,
        horizon: 0,
        taker_bps: 0.0,
        maker_bps: 0.0,
        half_spread_bps: 0.0,
        unit: 1.0,
        max_size: 1,
        rest: 1,
        slippage_bps: 0.0,
    };

    fn weights(dates: usize) -> Weights {
        let mut weights = Weights::none(dates, 2);
        (0..dates).step_by(3).for_each(|t| weights.set(t, &[(t as f64 * 0.7).sin(), 0.1]));
        weights
    }

    #[test]
    fn shifts_and_blocks_keep_what_they_hold() {
        let weights = weights(9);
        let at = |moves: &Moves, t: usize| match moves {
            Moves::Weights(weights) => weights.get(t).map(<[f64]>::to_vec),
            Moves::Orders(_) => None,
        };
        let moves = Moves::Weights(weights.clone());
        let late = moves.shifted(2);
        assert_eq!((at(&late, 0), at(&late, 2)), (None, at(&moves, 0)));
        assert_eq!(at(&moves.shifted(-3), 0), at(&moves, 3));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let other = moves.shuffled(3, &mut rng);
        // Blocks are whole: each begins with a decision of the original.
        let mut firsts: Vec<String> = [0, 3, 6].map(|t| format!("{:?}", at(&other, t))).into();
        let mut want: Vec<String> = [0, 3, 6].map(|t| format!("{:?}", at(&moves, t))).into();
        firsts.sort();
        want.sort();
        assert_eq!(firsts, want);
    }

    #[test]
    fn turned_weights_trade_as_much_at_other_times() {
        let bar = Bar { open: 1.0, high: 1.0, low: 1.0, close: 1.0 };
        let panel = Panel {
            assets: vec!["a".into(), "b".into()],
            dates: (0..301).map(|t| format!("{t:04}")).collect(),
            bars: vec![bar; 602],
            queue: None,
        };
        let weights = weights(301);
        let traded = |weights: &Weights| -> f64 {
            replay(&panel, |t| weights.get(t), &RULES).traded.iter().sum()
        };
        let mine = traded(&weights);
        let mut different = 0;
        for number in 0..50 {
            let other = turned(&weights, 7, number);
            assert_eq!(other.dates().count(), weights.dates().count());
            // Where the end meets the beginning, and at the first trade, it may differ a little.
            assert!((traded(&other) - mine).abs() < 4.0, "{} {mine}", traded(&other));
            different += usize::from(other.get(0) != weights.get(0));
        }
        assert!(mine > 40.0 && different > 40, "{mine} {different}");
    }
}
