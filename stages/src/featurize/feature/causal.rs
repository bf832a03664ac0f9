//! Checks that a column knows nothing of the future.
//!
//! The series is cut, and the column computed on what is left: the rows up to the cut must be the
//! same to the bit as those of the whole series, and the same again where what follows the cut is
//! something else. It finds what a feature was told of the future when it was made (a scale, a fit
//! or a price that was read ahead); a [`Feature`] that is only pushed cannot know more.

use super::Feature;
use crate::market::{Quote, Sample};

/// The first row before `cut` that depends on what comes at `cut` or later, or `None`.
///
/// `make` is given the series that the feature will run over, as a stage is given its file.
pub fn causal(
    mut make: impl FnMut(&[Sample]) -> Box<dyn Feature>,
    samples: &[Sample],
    cut: usize,
) -> Option<usize> {
    let cut = cut.min(samples.len());
    let mut run = |series: &[Sample]| -> Vec<Option<u64>> {
        let mut feature = make(series);
        series[..cut].iter().map(|sample| feature.push(sample).map(f64::to_bits)).collect()
    };
    let whole = run(samples);
    let short = run(&samples[..cut]);
    let mut other = samples.to_vec();
    other[cut..].iter_mut().for_each(disturb);
    let other = run(&other);
    (0..cut).find(|&row| whole[row] != short[row] || whole[row] != other[row])
}

/// Makes another market of a sample.
pub fn disturb(sample: &mut Sample) {
    for price in [&mut sample.open, &mut sample.high, &mut sample.low, &mut sample.close] {
        *price *= 3.0;
    }
    sample.volume = sample.volume * 7.0 + 1.0;
    sample.turnover = sample.turnover * 21.0 + 1.0;
    sample.bought = sample.bought.map(|_| 0.0);
    for trade in &mut sample.trades {
        trade.price *= 3.0;
    }
    sample.quote = sample.quote.map(|q| Quote {
        bid: 2.0 * q.bid,
        bid_size: q.ask_size + 1.0,
        ask: 3.0 * q.ask,
        ask_size: 2.0 * q.bid_size,
    });
    sample.depth = sample.depth.map(|d| 5.0 * d);
    sample.flow = sample.flow.map(|f| 1.0 - f);
    sample.touch = sample.touch.map(|t| t + 1.0);
    sample.index = sample.index.map(|i| i / 2.0);
    for peer in &mut sample.peers {
        *peer *= 0.5;
    }
}
