//! From events to samples: the clock that says when, and the state it takes.
//!
//! A sample at `t` has seen the events with times up to `t` and no other; it is given once an event
//! after `t` is read, or at the end of the data where the last event is at `t`. So cutting the data
//! after `t` leaves every sample up to `t` as it is; only empty intervals at the very end are not
//! given, as nothing shows that their time has passed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::event::{Event, Events, What};
use super::quality::{Counts, Tally};
use super::time::{Form, Span};
use super::{Feed, Quote, Sample, Samples, Trade};
use crate::{Invalid, Result};

/// When a sample is taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// At multiples of a length of time, such as `1s`, from 1970-01-01 UTC on.
    Every(Span),
    /// After so many events: changes of the book, quotes and trades.
    Events(u64),
    /// After trades of so many units.
    Volume(f64),
    /// After trades of such an amount (price times units).
    Dollars(f64),
}

/// When samples are taken, and from when on.
///
/// A clock of events, volume or dollars takes a sample at the last event of the time at which its count
/// is full, and begins to count at 0: times ascend strictly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// The clock: `every`, `events`, `volume` or `dollars`.
    pub clock: Clock,
    /// How long an interval without events repeats the state before; a longer pause gives no samples.
    pub max_idle: Span,
    /// How long events are read before the first sample where no snapshot of the book comes sooner, and
    /// again after a gap.
    pub warm_up: Span,
}

impl Default for Sampling {
    fn default() -> Sampling {
        let second = |n| Span(n * super::time::SECOND);
        Sampling { clock: Clock::Every(second(1)), max_idle: second(60), warm_up: second(10) }
    }
}

impl Sampling {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A count that is not above 0.
    pub fn check(&self) -> Result<(), Invalid> {
        let good = match self.clock {
            Clock::Every(_) => true,
            Clock::Events(n) => n > 0,
            Clock::Volume(x) | Clock::Dollars(x) => x > 0.0 && x.is_finite(),
        };
        if good { Ok(()) } else { Err(Invalid::new("clock", "the clock's count must be above 0")) }
    }
}

/// Half the width, as a share of the mid, of the band in which depth is summed.
const BAND: f64 = 0.001;

/// What a source tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Best quotes alone: the first is known at once.
    Quotes,
    /// The book alone.
    Book,
    /// Trades alone: prices are theirs.
    Trades,
    /// The book, or quotes, and trades.
    Both,
}

/// Samples of events.
pub struct Sampler<E> {
    events: E,
    /// The event that `events` is at is still to be taken.
    waiting: bool,
    sampling: Sampling,
    tells: Tells,
    book: Book,
    tally: Tally,
    /// The next time of [`Clock::Every`].
    tick: Option<i64>,
    /// Time of the last event that was taken, and its file.
    now: i64,
    file: u32,
    /// The file that made the last sample known.
    shown: u32,
    quote: Option<Quote>,
    close: Option<f64>,
    depth: bool,
    traded: bool,
    interval: Interval,
}

/// What happened since the last sample.
#[derive(Default)]
struct Interval {
    events: u64,
    range: Option<[f64; 3]>,
    volume: f64,
    turnover: f64,
    bought: f64,
    /// A trade does not say who took.
    silent: bool,
    trades: Vec<Trade>,
    flow: f64,
    touch: f64,
    changes: u64,
}

impl Interval {
    fn clear(&mut self) {
        let mut trades = std::mem::take(&mut self.trades);
        trades.clear();
        *self = Interval { trades, ..Interval::default() };
    }

    fn price(&mut self, price: f64) {
        let [_, high, low] = self.range.get_or_insert([price; 3]);
        *high = high.max(price);
        *low = low.min(price);
    }
}

impl<E: Events> Sampler<E> {
    /// Samples of `events`, with faults counted in `tally`.
    pub fn new(events: E, tells: Tells, sampling: &Sampling, tally: Tally) -> Sampler<E> {
        Sampler {
            events,
            waiting: false,
            sampling: sampling.clone(),
            tells,
            book: Book::default(),
            tally,
            tick: None,
            now: i64::MIN,
            file: 0,
            shown: 0,
            quote: None,
            close: None,
            depth: false,
            traded: tells == Tells::Trades,
            interval: Interval::default(),
        }
    }

    /// The book after the last event taken.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The time of the sample that is to be taken before an event at `next`.
    fn due(&mut self, next: i64) -> Option<i64> {
        let Clock::Every(Span(step)) = self.sampling.clock else {
            return (next > self.now && self.full()).then_some(self.now);
        };
        let tick = *self.tick.get_or_insert_with(|| ceil(next, step));
        if tick >= next {
            return None;
        }
        if !self.ready(tick) {
            self.tally.counts.warm_up += self.interval.events;
            self.begin();
            self.tick = Some(ceil(next, step));
            return None;
        }
        let idle =
            self.interval.events == 0 && tick.saturating_sub(self.now) > self.sampling.max_idle.0;
        if idle {
            let later = ceil(next, step);
            self.tally.counts.idle += (later.saturating_sub(tick) / step) as u64;
            self.interval.clear();
            self.tick = Some(later);
            return None;
        }
        self.tick = Some(tick.saturating_add(step));
        Some(tick)
    }

    /// Whether a clock of events is full.
    fn full(&self) -> bool {
        match self.sampling.clock {
            Clock::Every(_) => false,
            Clock::Events(n) => self.interval.events >= n,
            Clock::Volume(units) => self.interval.volume >= units,
            Clock::Dollars(amount) => self.interval.turnover >= amount,
        }
    }

    fn ready(&self, now: i64) -> bool {
        let known = match self.tells {
            Tells::Trades => true,
            Tells::Quotes => self.quote.is_some(),
            _ => self.quote.is_some() && self.book.ready(now, self.sampling.warm_up.0),
        };
        known && self.close.is_some()
    }

    fn take(&mut self) -> Result<()> {
        let Event { time, place, what } = self.events.event();
        (self.now, self.file) = (time, place.file);
        self.interval.events += 1;
        match what {
            What::Depth(depth) => {
                self.depth = true;
                self.book.change(time, place, &depth, &mut self.tally)?;
                self.moved();
            }
            What::Quote(quote, id) => {
                self.book.ticker(time, place, quote, id, &mut self.tally)?;
                self.moved();
            }
            What::Trade(trade) => self.trade(trade),
        }
        if !matches!(self.sampling.clock, Clock::Every(_)) && !self.ready(time) {
            self.tally.counts.warm_up += self.interval.events;
            self.begin();
        }
        Ok(())
    }

    /// The best quotes may have changed.
    #[inline]
    fn moved(&mut self) {
        let quote = self.book.quote();
        if quote == self.quote {
            return;
        }
        if let (Some(old), Some(new)) = (&self.quote, &quote) {
            let interval = &mut self.interval;
            interval.flow += flow(old, new);
            interval.touch += (new.bid_size + new.ask_size) / 2.0;
            interval.changes += 1;
        }
        self.quote = quote;
        if let Some(quote) = quote {
            let mid = quote.mid();
            self.close = Some(mid);
            self.interval.price(mid);
        }
    }

    fn trade(&mut self, trade: Trade) {
        self.traded = true;
        let interval = &mut self.interval;
        interval.volume += trade.size;
        interval.turnover += trade.price * trade.size;
        match trade.bought {
            Some(true) => interval.bought += trade.size,
            Some(false) => {}
            None => interval.silent = true,
        }
        interval.trades.push(trade);
        if self.tells == Tells::Trades {
            interval.price(trade.price);
            self.close = Some(trade.price);
        }
    }

    fn begin(&mut self) {
        self.interval.clear();
        // A mid lasts until the next: the interval opens at it. A trade is over.
        if let (Some(mid), true) = (self.close, self.tells != Tells::Trades) {
            self.interval.price(mid);
        }
    }

    fn give(&mut self, time: i64, into: &mut Sample) {
        // Where the last event is at the tick, the sample is there at the end of its file too.
        let at_end = match self.sampling.clock {
            Clock::Every(_) => time <= self.now,
            _ => true,
        };
        self.shown = if at_end { self.file } else { self.events.event().place.file };
        self.tally.counts.samples += 1;
        let close = self.close.unwrap_or(f64::NAN);
        let interval = &mut self.interval;
        let [open, high, low] = interval.range.unwrap_or([close; 3]);
        (into.time, into.open, into.high, into.low, into.close) = (time, open, high, low, close);
        into.volume = interval.volume;
        into.turnover = interval.turnover;
        into.bought = (self.traded && !interval.silent).then_some(interval.bought);
        std::mem::swap(&mut into.trades, &mut interval.trades);
        into.quote = self.quote;
        into.depth = if self.depth { self.book.depth(BAND) } else { None };
        into.flow = self.quote.map(|_| interval.flow);
        into.touch = self.quote.map(|quote| match interval.changes {
            0 => (quote.bid_size + quote.ask_size) / 2.0,
            n => interval.touch / n as f64,
        });
        into.index = None;
        into.peers.clear();
        self.begin();
    }
}

/// e_n of Cont, Kukanov and Stoikov (2014): units by which a change of the best quotes raises what is
/// wanted over what is offered.
pub fn flow(old: &Quote, new: &Quote) -> f64 {
    let when = |holds: bool, size: f64| if holds { size } else { 0.0 };
    when(new.bid >= old.bid, new.bid_size)
        - when(new.bid <= old.bid, old.bid_size)
        - when(new.ask <= old.ask, new.ask_size)
        + when(new.ask >= old.ask, old.ask_size)
}

/// The first multiple of `step` at or after `time`.
fn ceil(time: i64, step: i64) -> i64 {
    let rest = time.rem_euclid(step);
    if rest == 0 { time } else { time.saturating_add(step - rest) }
}

impl<E: Events> Samples for Sampler<E> {
    fn next(&mut self, into: &mut Sample) -> Result<bool> {
        loop {
            if !self.waiting && !self.events.advance(&mut self.tally)? {
                let last = match self.sampling.clock {
                    Clock::Every(_) => self.tick.filter(|tick| *tick <= self.now),
                    _ => self.full().then_some(self.now),
                };
                let Some(time) = last.filter(|time| self.ready(*time)) else {
                    self.tally.counts.left += self.interval.events;
                    self.interval.events = 0;
                    return Ok(false);
                };
                self.tick = self.tick.map(|_| i64::MAX);
                self.give(time, into);
                return Ok(true);
            }
            self.waiting = true;
            let next = self.events.event().time;
            if let Some(time) = self.due(next) {
                self.give(time, into);
                return Ok(true);
            }
            self.take()?;
            self.waiting = false;
        }
    }
}

impl<E: Events> Feed for Sampler<E> {
    fn counts(&self) -> Counts {
        self.tally.counts.clone()
    }

    fn form(&self) -> Form {
        match self.sampling.clock {
            Clock::Every(Span(step)) => Form::of_step(step),
            _ => Form::Nanos,
        }
    }

    fn file(&self) -> usize {
        self.shown as usize
    }
}
