//! Fits the fill model to what really happened to orders, by the events of the market: orders that are
//! imagined to rest in the book's queues ([`queues`]), or the orders that others placed ([`lives`]).
//!
//! Both need the events that the features were made of, and both look at the training span alone. Time
//! is counted in bars: one is the H-th part of the time from a row to the one H later, so that for a
//! clock of time it is its step, and the model's horizon keeps its meaning.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::Params;
use super::action::Side;
use super::exchange::{self, Exchange};
use super::fill::Waits;
use super::rank::sigma;
use crate::featurize::split::{Split, evenly};
use crate::featurize::table::{self, Around, Extent, Rows};
use crate::market::event::Event;
use crate::market::orders::{Life, Lives};
use crate::market::quality::Tally;
use crate::market::{Source, time};
use crate::{Context, Result, StageError};

/// Rows that determine the two numbers of the fill model well enough.
pub const ROWS: usize = 20_000;

/// A training row whose orders are watched.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Due {
    start: i64,
    /// The time of the row H later.
    end: i64,
    mid: f64,
    /// Volatility over the horizon, basis points.
    sigma: f64,
    /// Length of a bar, nanoseconds.
    bar: f64,
}

/// Some rows of the training span, spread evenly, whose horizon ends within it.
struct Dues {
    rows: Around,
    chosen: std::iter::Peekable<Box<dyn Iterator<Item = usize>>>,
    horizon: usize,
    window: usize,
}

impl Dues {
    fn open(files: &[PathBuf], extent: Extent, params: &Params, most: usize) -> Result<Dues> {
        let (horizon, window) = (params.reward.horizon_bars, params.reward.sigma_window);
        let rows = Around::new(Rows::open_all(files)?, extent.train_end, window, horizon);
        let chosen: Box<dyn Iterator<Item = usize>> = Box::new(evenly(extent.train_end, most));
        Ok(Dues { rows, chosen: chosen.peekable(), horizon, window })
    }

    fn next(&mut self) -> Result<Option<Due>> {
        let rows = &mut self.rows;
        while let Some(number) = rows.step()? {
            if self.chosen.next_if_eq(&number).is_none() {
                continue;
            }
            let (row, Some(last)) = (rows.row(), rows.ahead().get(self.horizon - 1)) else {
                continue;
            };
            let Some(sigma) = sigma(rows.past(), self.horizon, self.window) else { continue };
            if row.split != Split::Train {
                continue;
            }
            let (start, end) = (row.time, last.time);
            let bar = (end - start) as f64 / self.horizon as f64;
            return Ok(Some(Due { start, end, mid: row.close, sigma, bar }));
        }
        Ok(None)
    }
}

/// An order that rests.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Open {
    row: u64,
    /// Its place among the orders of the row.
    at: u32,
    start: i64,
    bar: f64,
    /// In the unit of the fill model.
    distance: f64,
}

/// The orders of a row, by which they are found when their time is up.
struct Placed {
    end: i64,
    bids: Vec<(i64, Open)>,
    asks: Vec<(i64, Open)>,
}

/// Follows imagined orders through the queues of the book: one on each side, at each offset, at up to
/// [`ROWS`] training rows, each for the horizon. Prices are rounded to the tick, away from the market;
/// the tick is the largest step that all prices seen so far are multiples of.
///
/// A wait for each order; those that rested when the book was lost count up to then.
///
/// # Errors
/// The files cannot be read, are not those of the features, or tell of no trades or no book.
pub fn queues(extent: Extent, params: &Params, ctx: &Context) -> Result<Vec<Waits>> {
    let features = table::files(ctx)?;
    let paths = paths(ctx);
    let mut events = exchange::open(&params.source, paths.clone())?;
    let mut tally = Tally::new(&params.quality, paths.clone());
    let mut dues = Dues::open(&features, extent, params, ROWS)?;
    let mut next = dues.next()?;
    let mut follower = Follower::new(params);
    let mut seen = 0u64;
    while events.advance(&mut tally)? {
        let event = events.event();
        while let Some(due) = next.filter(|due| due.start < event.time) {
            follower.expire(due.start);
            follower
                .place(&due, params)
                .map_err(|mid| apart(&paths, table::first(&features), &due, mid))?;
            next = dues.next()?;
        }
        follower.expire(event.time - 1);
        if next.is_none() && follower.placed.is_empty() {
            break;
        }
        follower.take(&event, &mut tally)?;
        seen += 1;
        if seen.is_multiple_of(1 << 14) {
            ctx.progress(seen, 0, "events", "following orders through their queues")?;
        }
    }
    follower.expire(i64::MAX);
    if !(follower.market.traded && follower.quoted) {
        let path = paths.first().map_or(table::first(&features), PathBuf::as_path);
        return Err(StageError::bad(path, "holds no trades, or no quotes, at the training rows")
            .hint("`fills: queue` needs the trades and the book of the features' own time"));
    }
    ctx.metric("fill_rows_unplaced", follower.unplaced as f64);
    ctx.metric("fill_orders_lost", follower.lost as f64);
    ctx.metric("fill_orders_queued", follower.market.queued as f64);
    let reached = follower.market.bids.reached() + follower.market.asks.reached();
    ctx.metric("fill_fills_in_queue", reached as f64);
    Ok(follower.waits)
}

fn paths(ctx: &Context) -> Vec<PathBuf> {
    let mut files: Vec<(String, PathBuf)> =
        ctx.files("events").map(|(name, path)| (name.to_owned(), path.to_owned())).collect();
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

fn apart(paths: &[PathBuf], features: &Path, due: &Due, mid: f64) -> StageError {
    let at = time::Form::Nanos.write(due.start);
    let message = format!("the mid at {at} is {mid}; the features have {}", due.mid);
    StageError::bad(paths.first().map_or(features, PathBuf::as_path), message)
        .hint("feed the files that `featurize` read to `events`, with the same `source`")
}

struct Follower {
    market: Exchange<Open>,
    placed: VecDeque<Placed>,
    waits: Vec<Waits>,
    /// Buffer of what an event fills.
    filled: Vec<Open>,
    quoted: bool,
    rows: u64,
    unplaced: u64,
    lost: u64,
}

impl Follower {
    fn new(params: &Params) -> Follower {
        Follower {
            market: Exchange::new(params.queue),
            placed: VecDeque::new(),
            waits: Vec::new(),
            filled: Vec::new(),
            quoted: false,
            rows: 0,
            unplaced: 0,
            lost: 0,
        }
    }

    /// Rests the orders of a row.
    ///
    /// # Errors
    /// The mid of the book, where it is not that of the row.
    fn place(&mut self, due: &Due, params: &Params) -> Result<(), f64> {
        let Some(quote) = self.market.quote() else {
            self.unplaced += 1;
            return Ok(());
        };
        self.quoted = true;
        if (quote.mid() / due.mid - 1.0).abs() > 1e-6 {
            return Err(quote.mid());
        }
        let row = self.rows;
        self.rows += 1;
        let mut placed = Placed { end: due.end, bids: Vec::new(), asks: Vec::new() };
        for (at, &offset) in params.offsets_bps.iter().enumerate() {
            for side in [Side::Buy, Side::Sell] {
                let wanted = due.mid * (1.0 - side.sign() * f64::from(offset) / 1e4);
                let price = self.market.price(side, wanted);
                if price <= 0 {
                    continue;
                }
                let away = 1e4 * side.sign() * (1.0 - price as f64 / 1e9 / due.mid);
                let distance = params.reward.fill_distance.of(away, due.sigma);
                let order = Open { row, at: at as u32, start: due.start, bar: due.bar, distance };
                self.market.join(side, price, order, &quote);
                match side {
                    Side::Buy => placed.bids.push((price, order)),
                    Side::Sell => placed.asks.push((price, order)),
                }
            }
        }
        self.placed.push_back(placed);
        Ok(())
    }

    /// Takes back the orders whose horizon is over at `now`.
    fn expire(&mut self, now: i64) {
        while self.placed.front().is_some_and(|placed| placed.end <= now) {
            let Some(placed) = self.placed.pop_front() else { return };
            self.leave(&placed, placed.end);
        }
    }

    /// Takes orders back at a time; how many still rested.
    fn leave(&mut self, placed: &Placed, until: i64) -> u64 {
        let mut rested = 0;
        for (side, orders) in [(Side::Buy, &placed.bids), (Side::Sell, &placed.asks)] {
            for &(price, order) in orders {
                if self.market.side(side).leave(price, order) {
                    rested += 1;
                    self.waits.push(wait(&order, until, false));
                }
            }
        }
        rested
    }

    fn take(&mut self, event: &Event, tally: &mut Tally) -> Result<()> {
        let known = self.market.take(event, tally, &mut self.filled)?;
        let time = event.time;
        self.waits.extend(self.filled.drain(..).map(|order| wait(&order, time, true)));
        if !known {
            while let Some(placed) = self.placed.pop_front() {
                self.lost += self.leave(&placed, time.min(placed.end));
            }
        }
        Ok(())
    }
}

fn wait(order: &Open, until: i64, filled: bool) -> Waits {
    let exposure = (until - order.start) as f64 / order.bar;
    Waits { distance: order.distance, fills: f64::from(u8::from(filled)), exposure }
}

/// The waits of the orders that others placed within the training span, behind the mid: each up to its
/// first fill or its end, for the horizon at most; those more than twice as far as the farthest offset
/// say nothing of the offsets and are left out. Who cancels chooses when: that is taken to be
/// independent of how near a fill was.
///
/// # Errors
/// The files cannot be read.
pub fn lives(extent: Extent, params: &Params, ctx: &Context) -> Result<Vec<Waits>> {
    let Source::Orders(source) = &params.source else {
        return Err(StageError::failed("`source` does not tell orders apart"));
    };
    let features = table::files(ctx)?;
    let span = Span::read(&features, extent, params)?;
    let mut waits = Vec::new();
    let mut seen = 0u64;
    for life in Lives::open(source, paths(ctx), &params.quality)? {
        let life = life?;
        waits.extend(span.wait(&life, params));
        seen += 1;
        if seen.is_multiple_of(1 << 14) {
            ctx.progress(seen, 0, "orders", "reading what became of orders")?;
        }
    }
    ctx.metric("fill_lives", seen as f64);
    Ok(waits)
}

/// Volatility over the training span, by which the lives of orders are measured.
struct Span {
    dues: Vec<Due>,
    /// The end of the training span.
    end: i64,
    horizon: f64,
}

impl Span {
    fn read(files: &[PathBuf], extent: Extent, params: &Params) -> Result<Span> {
        let mut all = Dues::open(files, extent, params, ROWS)?;
        let mut dues = Vec::new();
        while let Some(due) = all.next()? {
            dues.push(due);
        }
        let end = dues.last().map_or(i64::MIN, |due| due.end);
        Ok(Span { dues, end, horizon: params.reward.horizon_bars as f64 })
    }

    /// The wait of an order, as the fill model takes it.
    fn wait(&self, life: &Life, params: &Params) -> Option<Waits> {
        let after = self.dues.partition_point(|due| due.start <= life.placed);
        let due = self.dues.get(after.checked_sub(1)?)?;
        let away = 1e4 * life.distance()? / life.mid_at_placement?;
        let far = 2.0 * f64::from(params.offsets_bps.iter().copied().max().unwrap_or_default());
        if life.took || life.placed >= self.end || away <= 0.0 || away > far {
            return None;
        }
        let most = (self.horizon * due.bar).min((self.end - life.placed) as f64);
        let lived = life.exposure() as f64;
        let filled = life.first_fill.is_some() && lived <= most;
        let exposure = lived.min(most) / due.bar;
        let distance = params.reward.fill_distance.of(away, due.sigma);
        // An order of no time that did not fill says nothing.
        let told = filled || exposure > 0.0;
        told.then_some(Waits { distance, fills: f64::from(u8::from(filled)), exposure })
    }
}
