//! The state of a market at one time.

use crate::Result;

/// The best bid and ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quote {
    /// Best bid price.
    pub bid: f64,
    /// Units wanted there.
    pub bid_size: f64,
    /// Best ask price.
    pub ask: f64,
    /// Units offered there.
    pub ask_size: f64,
}

impl Quote {
    /// (a + b) / 2.
    pub fn mid(&self) -> f64 {
        (self.ask + self.bid) / 2.0
    }
}

/// A trade.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trade {
    /// Nanoseconds since 1970-01-01 UTC.
    pub time: i64,
    /// Price.
    pub price: f64,
    /// Units.
    pub size: f64,
    /// Whether the taker bought; `None` where the source does not say.
    pub bought: Option<bool>,
}

/// The state of a market at one tick of the clock, and what happened since the tick before.
///
/// What a source does not say is `None`: bars know no quote, quotes no volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When it was known: nanoseconds since 1970-01-01 UTC.
    pub time: i64,
    /// First price of the interval: of a trade on bars, the mid on quotes.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Units traded in the interval.
    pub volume: f64,
    /// Sum of price times units of the interval's trades; on bars close times volume.
    pub turnover: f64,
    /// Units of `volume` that takers bought, where every trade of the interval says.
    pub bought: Option<f64>,
    /// The trades of the interval, in order; empty on bars.
    pub trades: Vec<Trade>,
    /// The best quotes at `time`.
    pub quote: Option<Quote>,
    /// Notional, in units of the quote currency, that rests within 10 basis points of the mid on
    /// both sides together.
    pub depth: Option<f64>,
    /// Order flow imbalance of the interval in units: the sum of e_n over the changes of the best
    /// quotes (Cont, Kukanov and Stoikov 2014).
    pub flow: Option<f64>,
    /// Mean of (q_b + q_a) / 2 over the same changes; that of `quote` where there was none.
    pub touch: Option<f64>,
    /// Close of the index at or before `time`, where an index is given.
    pub index: Option<f64>,
    /// Closes of the peers at or before `time`, in the order of their columns.
    pub peers: Vec<f64>,
}

/// Samples in order of time.
pub trait Samples {
    /// Puts the next sample into `into`, whose buffers are used again; false at the end.
    ///
    /// # Errors
    /// The source cannot be read, or holds what it must not.
    fn next(&mut self, into: &mut Sample) -> Result<bool>;
}
