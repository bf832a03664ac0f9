//! The exchange as imagined orders see it: the book rebuilt from its events, and on each side the orders
//! that rest in the book's queues ([`super::queue`]).
//!
//! `pairs` asks it how long orders waited ([`super::follow`]), `evaluate` which of a model's orders
//! filled and when. Orders change nothing: nobody reacts to them, and one does not stand behind another.

use std::path::PathBuf;

use super::action::Side;
use super::queue::{Queue, Resting, key};
use crate::Result;
use crate::StageError;
use crate::market::binance::Stream;
use crate::market::book::Book;
use crate::market::event::{Event, Events, Level, What};
use crate::market::orders::Reader;
use crate::market::quality::Tally;
use crate::market::{Quote, Source, Trade};

/// Opens files as events that tell of trades and of the book.
///
/// # Errors
/// The source has no trades, or no book; a file cannot be read.
pub fn open(source: &Source, paths: Vec<PathBuf>) -> Result<Box<dyn Events>> {
    Ok(match source {
        Source::Binance(binance) => Box::new(Stream::new(binance, paths)),
        Source::Orders(orders) => Box::new(Reader::open(orders, paths)?),
        _ => return Err(StageError::failed("`source` tells of no trades, or of no book")),
    })
}

/// The book and the orders that are imagined in it, each by what the caller knows it by.
pub struct Exchange<T> {
    /// The book.
    pub book: Book,
    /// Orders to buy.
    pub bids: Resting<T>,
    /// Orders to sell.
    pub asks: Resting<T>,
    /// The tick, times 1e9: the largest step that all prices so far are multiples of; 0 before the first.
    tick: i64,
    depth: bool,
    /// A trade was told.
    pub traded: bool,
    /// Orders that joined behind others.
    pub queued: u64,
}

impl<T: Copy + PartialEq> Exchange<T> {
    /// No event yet.
    pub fn new(model: Queue) -> Exchange<T> {
        Exchange {
            book: Book::default(),
            bids: Resting::new(Side::Buy, model),
            asks: Resting::new(Side::Sell, model),
            tick: 0,
            depth: false,
            traded: false,
            queued: 0,
        }
    }

    /// The best quotes, once there are prices to round to.
    pub fn quote(&self) -> Option<Quote> {
        self.book.quote().filter(|_| self.tick > 0)
    }

    /// A price as the exchange takes it, times 1e9: rounded to the tick, away from the market. There has
    /// been a price.
    pub fn price(&self, side: Side, wanted: f64) -> i64 {
        passive(side, key(wanted), self.tick.max(1))
    }

    /// Orders of one side.
    pub fn side(&mut self, side: Side) -> &mut Resting<T> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// An order joins the queue at its price.
    pub fn join(&mut self, side: Side, price: i64, order: T, quote: &Quote) {
        let size = self.size(side, price, quote);
        self.queued += u64::from(size > 0.0);
        self.side(side).join(price, size, order);
    }

    /// Units that rest at a price.
    fn size(&self, side: Side, price: i64, quote: &Quote) -> f64 {
        let (best, units, levels) = match side {
            Side::Buy => (quote.bid, quote.bid_size, self.book.bids()),
            Side::Sell => (quote.ask, quote.ask_size, self.book.asks()),
        };
        if key(best) == price { units } else { levels.at(price as f64 / 1e9) }
    }

    /// Takes an event; what it fills goes to `filled`. False where it shows that events were missed:
    /// nothing is known of the queues any more, and the caller takes its orders out.
    ///
    /// # Errors
    /// More faults than `tally` lets pass.
    pub fn take(&mut self, event: &Event, tally: &mut Tally, filled: &mut Vec<T>) -> Result<bool> {
        let time = event.time;
        match event.what {
            What::Depth(depth) => {
                self.depth = true;
                let faults = tally.counts.gaps + tally.counts.crossed;
                self.book.change(time, event.place, &depth, tally)?;
                depth.bids.iter().chain(depth.asks).for_each(|level| self.learn(level.price));
                if faults != tally.counts.gaps + tally.counts.crossed {
                    return Ok(false);
                }
                if depth.snapshot {
                    self.compare(time);
                } else {
                    let told = |level: &Level| (key(level.price), level.size);
                    for (price, size) in depth.bids.iter().map(told) {
                        self.bids.change(time, price, size);
                    }
                    for (price, size) in depth.asks.iter().map(told) {
                        self.asks.change(time, price, size);
                    }
                }
                self.reach(filled);
            }
            What::Quote(quote, id) => {
                self.book.ticker(time, event.place, quote, id, tally)?;
                if !self.depth {
                    self.learn(quote.bid);
                    self.learn(quote.ask);
                    self.bids.change(time, key(quote.bid), quote.bid_size);
                    self.asks.change(time, key(quote.ask), quote.ask_size);
                }
                self.reach(filled);
            }
            What::Trade(Trade { price, size, bought, .. }) => {
                self.traded = true;
                self.learn(price);
                let price = key(price);
                if bought != Some(true) {
                    self.bids.trade(time, price, size, filled);
                }
                if bought != Some(false) {
                    self.asks.trade(time, price, size, filled);
                }
            }
        }
        Ok(true)
    }

    /// The best quotes may have reached orders of the other side.
    fn reach(&mut self, filled: &mut Vec<T>) {
        if self.bids.count() + self.asks.count() == 0 {
            return;
        }
        let Some(quote) = self.book.quote() else { return };
        self.bids.pass(key(quote.ask), true, filled);
        self.asks.pass(key(quote.bid), true, filled);
    }

    /// Every level that is watched, against a whole book.
    fn compare(&mut self, time: i64) {
        for (side, levels) in
            [(&mut self.bids, self.book.bids()), (&mut self.asks, self.book.asks())]
        {
            let prices: Vec<i64> = side.prices().collect();
            prices.into_iter().for_each(|p| side.change(time, p, levels.at(p as f64 / 1e9)));
        }
    }

    /// Takes a price into account for the tick.
    #[inline]
    fn learn(&mut self, price: f64) {
        let key = key(price);
        if self.tick == 0 || key % self.tick != 0 {
            self.tick = divisor(key, self.tick);
        }
    }
}

/// A price rounded to the tick, away from the market.
fn passive(side: Side, price: i64, tick: i64) -> i64 {
    let below = price.div_euclid(tick) * tick;
    match side {
        Side::Sell if below < price => below + tick,
        _ => below,
    }
}

/// The greatest common divisor.
fn divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
