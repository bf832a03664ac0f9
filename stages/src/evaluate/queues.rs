//! When limit orders fill that wait in the book's queues: every order that a decision can send, at every
//! bar, followed through the events of the market.
//!
//! A decision of the close of bar t is sent `latency - 1` bars later and is at the exchange `delay` after
//! that. There its price, rounded to the tick away from the market, meets the book: behind the touch it
//! joins the queue at its price ([`crate::pairs::exchange`]); at or beyond the other side it takes that
//! side's best price. It rests to the close of the last of its `rest` bars. Where events are missing
//! nothing is known of the queues, and an order that rested then does not fill.
//!
//! What an order does does not depend on what is held, so that one pass over the events serves every
//! replay: the model's, the baselines', decisions in another order. The size of an order counts nothing,
//! it fills whole and moves nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::backtest::Rules;
use super::panel::Panel;
use crate::market::Source;
use crate::market::event::Event;
use crate::market::quality::{Quality, Tally};
use crate::market::time::{self, Span};
use crate::pairs::action::Side;
use crate::pairs::exchange::{self, Exchange};
use crate::pairs::queue::{Queue, key};
use crate::{Context, Invalid, Result, StageError};

/// The book that limit orders wait in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Book {
    /// What the files of the port `events` hold: `binance` or `orders`, as in `featurize`.
    pub source: Source,
    /// How many faults of `events` are put up with, as in `featurize`.
    pub quality: Quality,
    /// Which of the units that are cancelled were ahead of an order: none (`trades`), or by `log` or
    /// `power`.
    pub queue: Queue,
    /// Time from the close at which an order is sent to the exchange, such as `50ms`; a cancel takes as
    /// long. Left out, none passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
}

impl Book {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A parameter, by its path.
    pub fn check(&self) -> Result<(), Invalid> {
        let within = |e: Invalid| Invalid { path: format!("book.{}", e.path), ..e };
        self.source.check().map_err(within)?;
        if !matches!(self.source, Source::Binance(_) | Source::Orders(_)) {
            return Err(Invalid::new("book.source", "tells of no trades, or of no book")
                .help("`binance` and `orders` do; a source is spelled as in `featurize`"));
        }
        match self.queue {
            Queue::Power(n) if !(n > 0.0 && n.is_finite()) => {
                Err(Invalid::new("book.queue", "the power must be above 0"))
            }
            _ => Ok(()),
        }
    }

    /// The queue models that are compared: the one asked for, and of the cautious and the likely one the
    /// other.
    fn models(&self) -> [Queue; 2] {
        match self.queue {
            Queue::Trades => [Queue::Trades, Queue::Log],
            other => [other, Queue::Trades],
        }
    }
}

/// A fill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The bar in which it comes.
    pub bar: usize,
    /// The price.
    pub price: f64,
    /// The order took from the other side as it came.
    pub taker: bool,
    /// It comes before a cancel that is sent at the close before that bar is there.
    pub early: bool,
    /// When it comes, nanoseconds.
    pub time: i64,
}

/// What becomes of every order under one queue model.
#[derive(Clone, Debug, PartialEq)]
pub struct Fills {
    /// The model.
    pub queue: Queue,
    /// By bars from the decision to the arrival, then by decision, offset and side.
    latencies: Vec<(usize, Vec<Option<Hit>>)>,
    offsets: Vec<u32>,
    /// Orders that had no book to go to, or were in it when it was lost.
    pub unknown: usize,
}

impl Fills {
    /// The model in words, as a row of the costs.
    pub fn name(&self) -> String {
        match self.queue {
            Queue::Trades => "limits fill in the queue, by trades alone".into(),
            Queue::Log => "limits fill in the queue, cancels by ln(1 + x)".into(),
            Queue::Power(n) => format!("limits fill in the queue, cancels by x^{n}"),
        }
    }

    /// The fill of an order that was decided on at a bar, if it fills while it rests.
    pub fn get(&self, latency: usize, decided: usize, side: Side, offset: u32) -> Option<Hit> {
        let (_, hits) = self.latencies.iter().find(|(bars, _)| *bars == latency)?;
        let offset = self.offsets.binary_search(&offset).ok()?;
        *hits.get(place(self.offsets.len(), decided, offset, side))?
    }
}

fn place(offsets: usize, decided: usize, offset: usize, side: Side) -> usize {
    (decided * offsets + offset) * 2 + usize::from(side == Side::Sell)
}

/// An order that is followed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sent {
    /// Its place among the latencies.
    latency: usize,
    /// Its place among the orders of one latency.
    place: usize,
    side: Side,
    /// The price, times 1e9.
    price: i64,
    /// The first bar in which it can fill.
    first: usize,
    /// The close to which it rests.
    until: i64,
}

/// Follows the orders of all `offsets` (ascending) under the queue models of `book`, first the one asked
/// for. The panel is of one instrument, its dates are the times of the closes.
///
/// # Errors
/// The files cannot be read or are not those of the features; dates are no times.
pub fn follow(
    panel: &Panel,
    rules: &Rules,
    book: &Book,
    offsets: &[u32],
    ctx: &Context,
) -> Result<Vec<Fills>> {
    let mut files: Vec<(String, PathBuf)> =
        ctx.files("events").map(|(name, path)| (name.to_owned(), path.to_owned())).collect();
    files.sort();
    let paths: Vec<PathBuf> = files.into_iter().map(|(_, path)| path).collect();
    if paths.is_empty() {
        return Err(StageError::failed("input `events` has no file"));
    }
    let one = |queue: Queue| {
        let delay = book.delay.map_or(0, |delay| delay.0);
        let mut follow = Follow::new(panel, rules, (queue, delay), offsets)?;
        let mut events = exchange::open(&book.source, paths.clone())?;
        let mut tally = Tally::new(&book.quality, paths.clone());
        let mut seen = 0u64;
        while events.advance(&mut tally)? && follow.take(&events.event(), &mut tally)? {
            seen += 1;
            if seen.is_multiple_of(1 << 14) {
                ctx.progress(seen, 0, "events", "following orders through their queues")?;
            }
        }
        follow.ended()
    };
    book.models().into_iter().map(one).collect()
}

/// All orders on their way through one pass over the events.
struct Follow<'a> {
    panel: &'a Panel,
    times: Vec<i64>,
    rest: usize,
    delay: i64,
    market: Exchange<Sent>,
    /// What is still to be sent, the last first: time at the exchange, place among the latencies, bar of
    /// the decision.
    due: Vec<(i64, usize, usize)>,
    /// Orders in the market by the end of their rest.
    resting: BTreeMap<(i64, usize, usize), Sent>,
    /// Bars whose close was compared with the book.
    checked: usize,
    quoted: bool,
    filled: Vec<Sent>,
    found: Fills,
}

impl<'a> Follow<'a> {
    fn new(
        panel: &'a Panel,
        rules: &Rules,
        (queue, delay): (Queue, i64),
        offsets: &[u32],
    ) -> Result<Follow<'a>> {
        let times = times(panel)?;
        let bars = panel.len();
        let latencies = [rules.latency, rules.latency + 1];
        let mut due = Vec::new();
        for (at, latency) in latencies.into_iter().enumerate() {
            let sent = times.iter().skip(latency - 1).take(bars.saturating_sub(latency));
            due.extend(sent.enumerate().map(|(decided, time)| (time + delay, at, decided)));
        }
        due.sort_unstable_by(|a, b| b.cmp(a));
        let none = vec![None; bars * offsets.len() * 2];
        Ok(Follow {
            panel,
            times,
            rest: rules.rest.max(1),
            delay,
            market: Exchange::new(queue),
            due,
            resting: BTreeMap::new(),
            checked: 0,
            quoted: false,
            filled: Vec::new(),
            found: Fills {
                queue,
                latencies: latencies.map(|latency| (latency, none.clone())).into(),
                offsets: offsets.to_vec(),
                unknown: 0,
            },
        })
    }

    /// Takes an event; false where nothing is left to follow.
    fn take(&mut self, event: &Event, tally: &mut Tally) -> Result<bool> {
        // The book is still that of the closes before this event.
        self.check(event.time - 1, event, tally)?;
        // Orders are there before an event that comes later, and see none of their own time.
        while let Some(due) = self.due.pop_if(|due| due.0 < event.time) {
            self.expire(due.0);
            self.send(due);
        }
        self.expire(event.time - 1);
        if self.due.is_empty() && self.resting.is_empty() {
            return Ok(false);
        }
        let known = self.market.take(event, tally, &mut self.filled)?;
        for sent in std::mem::take(&mut self.filled) {
            self.resting.remove(&(sent.until, sent.latency, sent.place));
            self.hit(&sent, event.time, sent.price as f64 / 1e9, false);
        }
        if !known {
            self.found.unknown += self.resting.len();
            self.expire(i64::MAX);
        }
        Ok(true)
    }

    /// Compares the book with the closes up to a time: the features must be of these events.
    fn check(&mut self, now: i64, event: &Event, tally: &Tally) -> Result<()> {
        while self.times.get(self.checked).is_some_and(|close| *close <= now) {
            let (at, quote) = (self.checked, self.market.quote());
            self.checked += 1;
            let Some(quote) = quote else { continue };
            self.quoted = true;
            let close = self.panel.bars[at].close;
            if (quote.mid() / close - 1.0).abs() > 1e-6 {
                let message = format!(
                    "the mid at {} is {}; the features have {close}",
                    self.panel.dates[at],
                    quote.mid()
                );
                return Err(tally.bad(event.place, message).hint(
                    "feed the files that `featurize` read to `events`, with the same `source`; the features must be of a clock",
                ));
            }
        }
        Ok(())
    }

    /// The orders of a decision reach the exchange.
    fn send(&mut self, (time, latency, decided): (i64, usize, usize)) {
        let offsets = std::mem::take(&mut self.found.offsets);
        let first = decided + self.found.latencies[latency].0;
        let until = self.times[(first - 1 + self.rest).min(self.times.len() - 1)];
        match self.market.quote() {
            None => self.found.unknown += 2 * offsets.len(),
            Some(_) if until <= time => {}
            Some(quote) => {
                for (offset, bps) in offsets.iter().enumerate() {
                    for side in [Side::Buy, Side::Sell] {
                        let away = 1.0 - side.sign() * f64::from(*bps) / 1e4;
                        let close = self.panel.bars[decided].close;
                        let price = self.market.price(side, close * away);
                        let place = place(offsets.len(), decided, offset, side);
                        let sent = Sent { latency, place, side, price, first, until };
                        let (other, reaches) = match side {
                            Side::Buy => (quote.ask, price >= key(quote.ask)),
                            Side::Sell => (quote.bid, price <= key(quote.bid)),
                        };
                        if price <= 0 {
                            continue;
                        }
                        if reaches {
                            self.hit(&sent, time, other, true);
                            continue;
                        }
                        self.market.join(side, price, sent, &quote);
                        self.resting.insert((until, latency, place), sent);
                    }
                }
            }
        }
        self.found.offsets = offsets;
    }

    fn hit(&mut self, sent: &Sent, time: i64, price: f64, taker: bool) {
        // A fill at the very close belongs to its bar; one as it is sent to the bar that follows.
        let bar = self.times.partition_point(|close| *close < time).max(sent.first);
        let early = time <= self.times[bar - 1] + self.delay;
        let hit = Hit { bar, price, taker, early, time };
        self.found.latencies[sent.latency].1[sent.place] = Some(hit);
    }

    /// Takes back the orders whose rest is over at a time.
    fn expire(&mut self, now: i64) {
        while let Some(first) = self.resting.first_entry().filter(|first| first.key().0 <= now) {
            let sent = first.remove();
            self.market.side(sent.side).leave(sent.price, sent);
        }
    }

    fn ended(self) -> Result<Fills> {
        match self.market.traded && self.quoted {
            true => Ok(self.found),
            false => Err(StageError::failed(
                "`events` holds no trades, or no quotes, at the bars that are judged",
            )
            .hint("the queue of a book takes the trades and the book of the features' own time")),
        }
    }
}

/// The times of the closes.
fn times(panel: &Panel) -> Result<Vec<i64>> {
    let of = |date: &String| {
        let wrong = || StageError::failed(format!("`{date}` is no time")).hint(time::HINT);
        time::parse(date).map(|stamp| stamp.time).ok_or_else(wrong)
    };
    panel.dates.iter().map(of).collect()
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
