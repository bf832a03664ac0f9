//! What trades paid, and what became of the price after them.
//!
//! The mid that a trade is measured against is that of the sample before it. Samples of single events
//! give the mid right before a trade; those of a clock the mid at its last tick, so that an interval
//! should be short beside how long a price stands.
//!
//! Of a market with few trades the means reach far back: the window counts samples in which there were
//! trades.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flow::Signs;
use super::parts::{at_least, priced, ratio};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::featurize::window::{Rolling, Sum};
use crate::market::Sample;

/// Parameters of `effective_spread_bps`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Paid {
    /// Samples with trades in the mean.
    pub window: usize,
}

impl Default for Paid {
    fn default() -> Paid {
        Paid { window: 20 }
    }
}

impl Settings for Paid {
    fn check(&self) -> Result<(), Invalid> {
        at_least("window", self.window, 1)
    }
}

/// What takers paid for both sides.
pub const EFFECTIVE_SPREAD: Entry = Entry {
    name: "effective_spread_bps",
    aliases: &["effective_spread"],
    suffix: None,
    formula: "1e4 2 s (p - m) / m, m the mid of the sample before the trade, weighted by size over the \
              last w samples with trades",
    unit: "bps",
    source: "Huang and Stoll 1996",
    needs: &[Need::Quotes, Need::Trades],
    prefers: &[],
    params: Shape::of::<Paid>(),
    make: |params, _| {
        let p: Paid = read(params)?;
        Ok(Box::new(Trades::new(p.window, 0, |sign, price, mid, _| {
            2e4 * sign * (price - mid) / mid
        })))
    },
    fit: None,
};

/// Parameters of `markout_bps`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Markout {
    /// Samples after that of the trade whose mid judges it.
    pub bars: usize,
    /// Samples with trades in the mean.
    pub window: usize,
}

impl Default for Markout {
    fn default() -> Markout {
        Markout { bars: 10, window: 20 }
    }
}

impl Settings for Markout {
    fn check(&self) -> Result<(), Invalid> {
        at_least("bars", self.bars, 1)?;
        at_least("window", self.window, 1)
    }
}

/// How the price went on after takers.
pub const MARKOUT: Entry = Entry {
    name: "markout_bps",
    aliases: &["markout", "price_impact_bps"],
    suffix: Some("bars"),
    formula: "1e4 s (m_(j+h) - m_(j-1)) / m_(j-1) of the trades of sample j, weighted by size over the \
              last w samples with trades that are h samples old",
    unit: "bps",
    source: "Huang and Stoll 1996",
    needs: &[Need::Quotes, Need::Trades],
    prefers: &[],
    params: Shape::of::<Markout>(),
    make: |params, _| {
        let p: Markout = read(params)?;
        Ok(Box::new(Trades::new(p.window, p.bars, |sign, _, before, after| {
            1e4 * sign * (after - before) / before
        })))
    },
    fit: None,
};

/// What a trade is worth: of its sign, its price, the mid before and the mid after.
type Worth = fn(f64, f64, f64, f64) -> f64;

/// The mean over trades of something that is known some samples after them.
struct Trades {
    after: usize,
    worth: Worth,
    signs: Signs,
    mid: Option<f64>,
    /// The trades of the last samples: sign, price, mid before, size.
    waiting: VecDeque<Vec<[f64; 4]>>,
    sum: Rolling<Sum>,
    size: Rolling<Sum>,
}

impl Trades {
    fn new(window: usize, after: usize, worth: Worth) -> Trades {
        Trades {
            after,
            worth,
            signs: Signs::default(),
            mid: None,
            waiting: VecDeque::new(),
            sum: Rolling::new(window),
            size: Rolling::new(window),
        }
    }
}

impl Feature for Trades {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let now = sample.quote.map(|quote| quote.mid()).filter(|mid| priced(*mid));
        if let Some(now) = now {
            let before = self.mid.replace(now);
            let told = sample.trades.iter().map(|trade| {
                // Every trade is looked at, so that the tick rule knows the last price.
                let sign = self.signs.of(trade);
                [sign, trade.price, before.unwrap_or(f64::NAN), trade.size]
            });
            self.waiting.push_back(told.filter(|t| t.iter().all(|x| x.is_finite())).collect());
            if self.waiting.len() > self.after {
                let due = self.waiting.pop_front().unwrap_or_default();
                let size: f64 = due.iter().map(|trade| trade[3]).sum();
                if size > 0.0 {
                    let of = |[sign, price, mid, size]: &[f64; 4]| {
                        size * (self.worth)(*sign, *price, *mid, now)
                    };
                    self.sum.push(due.iter().map(of).sum());
                    self.size.push(size);
                }
            }
        }
        Some(ratio(self.sum.get()?.0, self.size.get()?.0))
    }
}
