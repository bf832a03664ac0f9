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
mod tests {
    use std::fmt::Write as _;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::evaluate::backtest::{Bar, Fill, replayed};
    use crate::market::Trade;
    use crate::market::event::{Depth, Level, Place, What};
    use crate::pairs::decision::Decision;

    const MS: i64 = 1_000_000;
    const RULES: Rules = Rules {
        latency: 1,
        fill: Fill::Queue,
        horizon: 0,
        taker_bps: 10.0,
        maker_bps: 1.0,
        half_spread_bps: 5.0,
        unit: 1.0,
        max_size: 1,
        rest: 1,
        slippage_bps: 0.0,
    };

    /// Five closes, a second apart, at these prices.
    fn panel(closes: [f64; 5]) -> Panel {
        let bar = |close: f64| Bar { open: close, high: close, low: close, close };
        Panel {
            assets: vec![String::new()],
            dates: (1..=5).map(|s| format!("2024-01-01T00:00:0{s}Z")).collect(),
            bars: closes.map(bar).to_vec(),
            queue: None,
        }
    }

    /// What is told at a time, milliseconds after midnight.
    enum Told {
        Book(Vec<(f64, f64)>, Vec<(f64, f64)>, bool),
        Sold(f64, f64),
        Bought(f64, f64),
    }
    use Told::*;

    fn followed(
        panel: &Panel,
        rules: &Rules,
        delay: i64,
        queue: Queue,
        told: &[(i64, Told)],
    ) -> Result<Fills> {
        let midnight = time::parse("2024-01-01T00:00:00Z").unwrap().time;
        let mut tally = Tally::new(&Quality::default(), Vec::new());
        let mut follow = Follow::new(panel, rules, (queue, delay * MS), &[20])?;
        for (number, (at, told)) in told.iter().enumerate() {
            run(&mut follow, midnight + at * MS, number, told, &mut tally)?;
        }
        follow.ended()
    }

    fn run(
        follow: &mut Follow,
        time: i64,
        number: usize,
        told: &Told,
        tally: &mut Tally,
    ) -> Result<bool> {
        let place = Place { file: 0, line: number as u64 + 1 };
        let levels = |side: &[(f64, f64)]| -> Vec<Level> {
            side.iter().map(|(price, size)| Level { price: *price, size: *size }).collect()
        };
        let trade =
            |price, size, bought| What::Trade(Trade { time, price, size, bought: Some(bought) });
        let (bids, asks);
        let what = match told {
            Book(b, a, snapshot) => {
                (bids, asks) = (levels(b), levels(a));
                let (first, last, previous, snapshot) = (None, None, None, *snapshot);
                What::Depth(Depth { snapshot, first, last, previous, bids: &bids, asks: &asks })
            }
            Sold(price, size) => trade(*price, *size, false),
            Bought(price, size) => trade(*price, *size, true),
        };
        follow.take(&Event { time, place, what }, tally)
    }

    fn book() -> (i64, Told) {
        let bids = vec![(99.9, 5.0), (99.8, 4.0), (99.7, 9.0)];
        let asks = vec![(100.1, 5.0), (100.2, 3.0), (100.3, 9.0)];
        (500, Book(bids, asks, true))
    }

    #[test]
    fn an_order_fills_when_more_was_traded_than_stood_before_it() {
        let panel = panel([100.0; 5]);
        // Sent at 1.0 s, there at 1.1 s, behind 4 units at 99.8.
        let told = || {
            vec![
                book(),
                (1050, Sold(99.8, 3.0)),
                (1500, Sold(99.8, 4.0)),
                (1600, Sold(99.8, 1.0)),
                (2200, Bought(100.2, 2.0)),
                (2300, Bought(100.2, 1.5)),
                (5500, Bought(100.1, 0.1)),
            ]
        };
        let fills = followed(&panel, &RULES, 100, Queue::Trades, &told()).unwrap();
        let hit = fills.get(1, 0, Side::Buy, 20).unwrap();
        assert_eq!((hit.bar, hit.price, hit.taker, hit.early), (1, 99.8, false, false));
        assert_eq!(hit.time % (60_000 * MS), 1600 * MS);
        // The sell of the next close waits behind 3 units: 2 and 1.5 are more.
        let hit = fills.get(1, 1, Side::Sell, 20).unwrap();
        assert_eq!((hit.bar, hit.price), (2, 100.2));
        // The book still shows 4 units at 99.8: nothing was traded there in the second bar.
        assert_eq!(fills.get(1, 1, Side::Buy, 20), None);
        // A bar later it is sent, and there when one unit is left to trade.
        assert_eq!(fills.get(2, 0, Side::Sell, 20).map(|hit| hit.bar), Some(2));
        assert_eq!(fills.get(1, 0, Side::Buy, 30), None, "nobody asked for it");
        // Without a delay it is before the first trade: 3 and 4 are more than 4.
        let soon = followed(&panel, &RULES, 0, Queue::Trades, &told()).unwrap();
        assert_eq!(soon.get(1, 0, Side::Buy, 20).unwrap().time % (60_000 * MS), 1500 * MS);
    }

    #[test]
    fn the_market_may_be_past_an_order_when_it_comes() {
        let panel = panel([100.0, 99.0, 99.0, 99.0, 99.0]);
        let gone = vec![(99.9, 0.0), (99.8, 0.0), (99.7, 0.0), (98.9, 6.0)];
        let asks = vec![(99.1, 2.0)];
        let told = [
            book(),
            (1050, Book(gone, asks, false)),
            (1060, Sold(98.9, 1.0)),
            (5500, Sold(98.9, 1.0)),
        ];
        let fills = followed(&panel, &RULES, 100, Queue::Log, &told).unwrap();
        let hit = fills.get(1, 0, Side::Buy, 20).unwrap();
        assert_eq!((hit.bar, hit.price, hit.taker), (1, 99.1, true));
        let buy = Some(Decision::read("buy limit 20").unwrap());
        let path = replayed(&panel.bars, &[buy, None, None, None, None], &RULES, Some(&fills));
        assert_eq!((path.limits_sent, path.limits_filled, path.position[1]), (1, 1, 1));
        assert_eq!(path.trades[0].entry_price, 99.1);
        // It took: the taker's fee, and no half spread, for the price is the ask.
        assert!((path.costs - 10.0 / 1e4).abs() < 1e-12, "{}", path.costs);
        // By the bars there is nothing below the limit within its reach but the open.
        let bars = replayed(
            &panel.bars,
            &[buy, None, None, None, None],
            &Rules { fill: Fill::Touch, ..RULES },
            None,
        );
        assert_eq!(bars.trades[0].entry_price, 99.0);
        // No book, no fill.
        let none = replayed(&panel.bars, &[buy, None, None, None, None], &RULES, None);
        assert_eq!((none.limits_sent, none.limits_filled), (1, 0));
    }

    #[test]
    fn a_fill_before_the_cancel_is_there_counts() {
        let panel = panel([100.0; 5]);
        let rules = Rules { rest: 3, ..RULES };
        let orders = ["buy limit 20", "sell market", "flat"].map(|say| Decision::read(say));
        let decided = [orders[0], orders[1], None, None, orders[2]];
        let filled = |at: i64| {
            let told = [book(), (at, Sold(99.8, 4.5)), (5500, Sold(99.9, 0.1))];
            let fills = followed(&panel, &rules, 100, Queue::Trades, &told).unwrap();
            (
                fills.get(1, 0, Side::Buy, 20).unwrap(),
                replayed(&panel.bars, &decided, &rules, Some(&fills)),
            )
        };
        // The sell of the second close reaches the exchange at 2.1 s.
        let (hit, path) = filled(2050);
        assert!(hit.early && hit.bar == 2);
        assert_eq!((path.limits_filled, path.traded[2], path.position[2]), (1, 3.0, -1));
        let (hit, path) = filled(2150);
        assert!(!hit.early && hit.bar == 2);
        assert_eq!((path.limits_filled, path.traded[2], path.position[2]), (0, 1.0, -1));
        // Without another order it rests to the end of its third bar, and no longer.
        let told = [book(), (4001, Sold(99.8, 4.5)), (5500, Sold(99.9, 0.1))];
        let fills = followed(&panel, &rules, 100, Queue::Trades, &told).unwrap();
        assert_eq!(fills.get(1, 0, Side::Buy, 20), None);
        assert_eq!(fills.get(1, 1, Side::Buy, 20).map(|hit| hit.bar), Some(4));
    }

    #[test]
    fn other_events_are_refused_and_a_lost_book_fills_nothing() {
        let other = panel([100.0, 100.5, 100.0, 100.0, 100.0]);
        let told = [book(), (2500, Sold(99.9, 1.0))];
        let error = followed(&other, &RULES, 100, Queue::Trades, &told).unwrap_err().to_string();
        assert!(
            error.contains("the mid at 2024-01-01T00:00:02Z is 100; the features have 100.5"),
            "{error}"
        );
        let error =
            followed(&panel([100.0; 5]), &RULES, 100, Queue::Trades, &[book()]).unwrap_err();
        assert!(error.to_string().contains("no trades"), "{error}");
        let wrong = Book_ { source: Source::Bars(Default::default()), ..Book_::default() };
        assert_eq!(wrong.check().unwrap_err().path, "book.source");
        let wrong = Book_ {
            source: Source::Binance(Default::default()),
            queue: Queue::Power(0.0),
            ..wrong
        };
        assert_eq!(wrong.check().unwrap_err().path, "book.queue");
    }

    /// A market of ticks of 0.1 that trades, cancels and refills every 50 ms, so that no
    /// trade can be taken for what made a level smaller before it; closes each second.
    fn noisy(seconds: i64) -> (Vec<(i64, Told)>, Vec<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut sides: [BTreeMap<i64, f64>; 2] =
            [(980..1000).map(|p| (p, 4.0)).collect(), (1001..1021).map(|p| (p, 4.0)).collect()];
        let of = |tick: i64| tick as f64 / 10.0;
        let list = |side: &BTreeMap<i64, f64>| side.iter().map(|(p, s)| (of(*p), *s)).collect();
        let mut told = vec![(7, Book(list(&sides[0]), list(&sides[1]), true))];
        let mut closes = Vec::new();
        for step in 1..seconds * 20 {
            let at = 7 + step * 50;
            let side = usize::from(rng.random::<bool>());
            let one = |side: usize, tick: i64, size: f64| match side {
                0 => Book(vec![(of(tick), size)], Vec::new(), false),
                _ => Book(Vec::new(), vec![(of(tick), size)], false),
            };
            let (bid, ask) =
                (*sides[0].last_key_value().unwrap().0, *sides[1].first_key_value().unwrap().0);
            let best = [bid, ask][side];
            let inside = [bid + 1, ask - 1][side];
            let out = if side == 0 { -1 } else { 1 };
            let roll = rng.random_range(0..10);
            match roll {
                // A trade takes from the front, and the level follows at once.
                0..4 => {
                    let size = sides[side][&best];
                    let take = (f64::from(rng.random_range(1..=6)) / 2.0).min(size);
                    let trade = if side == 0 { Sold } else { Bought };
                    told.push((at, trade(of(best), take)));
                    told.push((at + 1, one(side, best, size - take)));
                    match size - take {
                        0.0 => {
                            sides[side].remove(&best);
                            let deep = best + 20 * out;
                            sides[side].insert(deep, 4.0);
                            told.push((at + 2, one(side, deep, 4.0)));
                        }
                        left => drop(sides[side].insert(best, left)),
                    }
                }
                4..7 if inside != [ask, bid][side] => {
                    sides[side].insert(inside, 2.0);
                    told.push((at, one(side, inside, 2.0)));
                }
                // Orders come behind, or are cancelled.
                _ => {
                    let tick = best + out * rng.random_range(0..6);
                    let size = f64::from(rng.random_range(2..=18)) / 2.0;
                    sides[side].insert(tick, size);
                    told.push((at, one(side, tick, size)));
                }
            }
            if (at + 50) / 1000 > at / 1000 {
                let ends = (sides[0].last_key_value(), sides[1].first_key_value());
                closes.push((of(*ends.0.unwrap().0) + of(*ends.1.unwrap().0)) / 2.0);
            }
        }
        (told, closes)
    }

    /// The same orders in hftbacktest: the same fills, at the same times and prices. Opt-in, with the
    /// package: `QUANTMILL_TEST_HFTBACKTEST=python`.
    #[test]
    fn fills_are_those_of_hftbacktest() {
        let Some(python) = std::env::var_os("QUANTMILL_TEST_HFTBACKTEST") else {
            eprintln!("skipped: QUANTMILL_TEST_HFTBACKTEST is not set");
            return;
        };
        let midnight = time::parse("2024-01-01T00:00:00Z").unwrap().time;
        let (told, closes) = noisy(400);
        let bar = |close: &f64| Bar { open: *close, high: *close, low: *close, close: *close };
        let written = |i: usize| time::Form::Nanos.write(midnight + (i as i64 + 1) * 1000 * MS);
        let panel = Panel {
            assets: vec![String::new()],
            dates: (0..closes.len()).map(written).collect(),
            bars: closes.iter().map(bar).collect(),
            queue: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let mut events = String::from("time,kind,side,price,size\n");
        for (at, told) in &told {
            let at = midnight + at * MS;
            match told {
                Book(bids, asks, snapshot) => {
                    let kind = if *snapshot { "snapshot" } else { "depth" };
                    for (side, levels) in [("buy", bids), ("sell", asks)] {
                        for (price, size) in levels {
                            writeln!(events, "{at},{kind},{side},{price},{size}").unwrap();
                        }
                    }
                }
                Sold(price, size) => writeln!(events, "{at},trade,sell,{price},{size}").unwrap(),
                Bought(price, size) => writeln!(events, "{at},trade,buy,{price},{size}").unwrap(),
            }
        }
        fs_err::write(dir.path().join("events.csv"), events).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/evaluate/testdata/hftbacktest.py");
        let offsets = [5, 15, 25, 40];
        // Between two events: an order comes when the book is one that both know.
        let delay = 110;
        let rules = Rules { rest: 4, ..RULES };
        for (name, queue) in
            [("trades", Queue::Trades), ("log", Queue::Log), ("power", Queue::Power(2.0))]
        {
            let mut tally = Tally::new(&Quality::default(), Vec::new());
            let mut follow = Follow::new(&panel, &rules, (queue, delay * MS), &offsets).unwrap();
            let mut sent: Vec<(i64, Sent, f64)> = Vec::new();
            for (number, (at, told)) in told.iter().enumerate() {
                run(&mut follow, midnight + at * MS, number, told, &mut tally).unwrap();
                // Orders that were sent before this event.
                for order in follow.resting.values().filter(|o| o.latency == 0) {
                    if sent.iter().rev().take(200).all(|(_, own, _)| own.place != order.place) {
                        let at = follow.times[order.first - 1] + delay * MS;
                        sent.push((at, *order, order.price as f64 / 1e9));
                    }
                }
            }
            let fills = follow.ended().unwrap();
            let mut orders = String::from("id,time,until,side,price\n");
            for (at, order, price) in &sent {
                let side = if order.side == Side::Buy { "buy" } else { "sell" };
                writeln!(orders, "{},{at},{},{side},{price:.1}", order.place + 1, order.until)
                    .unwrap();
            }
            fs_err::write(dir.path().join("orders.csv"), orders).unwrap();
            let status = std::process::Command::new(&python)
                .arg(script)
                .arg(dir.path())
                .arg(name)
                .status()
                .unwrap();
            assert!(status.success());
            let text = fs_err::read_to_string(dir.path().join("fills.csv")).unwrap();
            let theirs: BTreeMap<usize, (i64, String)> = text
                .lines()
                .skip(1)
                .map(|line| {
                    let cells: Vec<&str> = line.split(',').collect();
                    (cells[0].parse().unwrap(), (cells[1].parse().unwrap(), cells[2].to_owned()))
                })
                .collect();
            let hits = &fills.latencies[0].1;
            let ours: BTreeMap<usize, (i64, String)> = sent
                .iter()
                .filter_map(|(_, order, _)| {
                    let hit = hits[order.place].filter(|hit| !hit.taker)?;
                    Some((order.place + 1, (hit.time, format!("{:.1}", hit.price))))
                })
                .collect();
            eprintln!(
                "{name}: {} orders, {} filled, {} there",
                sent.len(),
                ours.len(),
                theirs.len()
            );
            assert!(sent.len() > 1000 && ours.len() > 200 && ours.len() < sent.len() - 200);
            let apart: Vec<_> = ours
                .iter()
                .filter(|(id, fill)| theirs.get(id) != Some(fill))
                .map(|(id, fill)| (id, fill, theirs.get(id)))
                .collect();
            let missing = theirs.keys().filter(|id| !ours.contains_key(id)).count();
            // Where cancels take all that was ahead, hftbacktest's estimate goes below 0, and its next share
            // of cancels is taken of that; ours stays at 0.
            let most = if queue == Queue::Trades { 0 } else { ours.len() / 200 };
            eprintln!("{name}: {} apart", apart.len() + missing);
            assert!(apart.len() + missing <= most, "{name}: {apart:?}, {missing}");
        }
    }

    use super::Book as Book_;
}
