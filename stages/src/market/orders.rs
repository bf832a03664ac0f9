//! Orders one by one: a book of their sums, trades inferred from their fills, and each order's life.
//!
//! A row says that an order was created, changed or deleted, with what is left of it (Bitstamp's
//! `live_orders` as its collectors write them). Less is left after a fill; an order deleted with nothing
//! left was filled, with something left cancelled. Both sides of a trade are filled, with equal units and
//! at nearly the same time: the first of two such fills is the trade, the second is the same one.
//!
//! An order that is created at or through the other side's best price takes: it is kept out of the book
//! until it no longer crosses, since its fills come as rows of their own. Orders created before the file
//! begins are not known: what is said of them is counted as `other`, as is what is said of one that is gone.
//! One that is created after it was deleted, as rows may be swapped, is left out and counted as `stale`.

use std::collections::VecDeque;
use std::path::PathBuf;

use rustc_hash::{FxHashMap, FxHashSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::{Depth, Event, Events, Level, Place, What};
use super::levels::Levels;
use super::quality::{Counts, Fault, Quality, Tally};
use super::rows::{Columns, Role, Rows, TIME};
use super::time::Span;
use super::{Quote, Trade};
use crate::{Invalid, Result};

/// CSV files of orders, plain or packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Orders {
    /// Names of columns that are not found by themselves, by what they mean: time, id, price, volume,
    /// action, direction.
    pub columns: Columns,
    /// What the volumes are divided by: Bitstamp counts in 1e-8 coins.
    pub lots: f64,
    /// How long after a fill that of the other side may come.
    pub match_within: Span,
}

impl Default for Orders {
    fn default() -> Orders {
        Orders { columns: Columns::new(), lots: 1e8, match_within: Span(5_000_000_000) }
    }
}

impl Orders {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A column that is not read, or a number of lots that is not above 0.
    pub fn check(&self) -> Result<(), Invalid> {
        if !(self.lots > 0.0 && self.lots.is_finite()) {
            return Err(Invalid::new("lots", "must be above 0"));
        }
        super::rows::check(&self.columns, ROLES)
    }
}

const fn role(name: &'static str, aliases: &'static [&'static str]) -> Role {
    Role { name, aliases, required: true }
}

const ROLES: &[Role] = &[
    TIME,
    role("id", &["order_id", "order"]),
    role("price", &["px"]),
    role("volume", &["size", "amount", "qty", "quantity"]),
    role("action", &["event", "type"]),
    role("direction", &["side", "order_type"]),
];

/// How an order's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Nothing was left of it.
    Filled,
    /// It was taken back, or moved to another price, perhaps after fills of a part.
    Cancelled,
    /// It lived on when the data ended.
    Open,
}

/// An order from its placement to its end: what models of fills are fitted to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    /// Its number.
    pub id: u64,
    /// Whether it buys.
    pub bid: bool,
    /// Its limit.
    pub price: f64,
    /// Units at placement.
    pub size: f64,
    /// Units filled.
    pub filled: f64,
    /// When it was placed, nanoseconds since 1970-01-01 UTC.
    pub placed: i64,
    /// When its first fill came.
    pub first_fill: Option<i64>,
    /// When it ended.
    pub ended: i64,
    /// How.
    pub end: End,
    /// The mid just before its placement, where both sides were known.
    pub mid_at_placement: Option<f64>,
    /// The best quotes then.
    pub quote_at_placement: Option<Quote>,
    /// Units that rested at its price before it.
    pub ahead: f64,
    /// It crossed the other side when it was placed.
    pub took: bool,
}

impl Life {
    /// How far behind the mid it was placed, in units of price: negative for one that took.
    pub fn distance(&self) -> Option<f64> {
        let sign = if self.bid { 1.0 } else { -1.0 };
        self.mid_at_placement.map(|mid| sign * (mid - self.price))
    }

    /// How long it could be filled: to its first fill, or to its end. Nanoseconds.
    pub fn exposure(&self) -> i64 {
        self.first_fill.unwrap_or(self.ended) - self.placed
    }
}

struct Order {
    life: Life,
    /// Lots left.
    left: i64,
    /// Lots filled.
    filled: i64,
    /// Kept out of the book because it takes.
    taking: bool,
}

/// A fill whose other side is still to come.
struct Fill {
    time: i64,
    bid: bool,
    lots: i64,
}

/// The events of such files.
pub struct Reader {
    rows: Rows,
    params: Orders,
    orders: FxHashMap<u64, Order>,
    /// Lots by side and price.
    sums: FxHashMap<(bool, u64), i64>,
    book: [Levels; 2],
    taking: Vec<u64>,
    /// Orders that were deleted before they were created: rows of one time may be swapped.
    gone: FxHashSet<u64>,
    fills: VecDeque<Fill>,
    time: i64,
    place: Place,
    trade: Option<Trade>,
    /// Levels that changed: bids, asks.
    changed: [Vec<Level>; 2],
    /// Lives that ended, where they are wanted.
    lives: Option<VecDeque<Life>>,
}

impl Reader {
    /// Opens the first file.
    ///
    /// # Errors
    /// It cannot be read, or lacks a column.
    pub fn open(params: &Orders, paths: Vec<PathBuf>) -> Result<Reader> {
        let mut rows = Rows::new(paths, ROLES, &params.columns);
        rows.begin()?;
        Ok(Reader {
            rows,
            params: params.clone(),
            orders: FxHashMap::default(),
            sums: FxHashMap::default(),
            book: [Levels::bids(), Levels::asks()],
            taking: Vec::new(),
            gone: FxHashSet::default(),
            fills: VecDeque::new(),
            time: i64::MIN,
            place: Place::default(),
            trade: None,
            changed: [Vec::new(), Vec::new()],
            lives: None,
        })
    }

    fn quote(&self) -> Option<Quote> {
        let (bid, ask) = (self.book[0].best()?, self.book[1].best()?);
        Some(Quote { bid: bid.price, bid_size: bid.size, ask: ask.price, ask_size: ask.size })
    }

    /// Whether an order at `price` can be filled at once.
    fn crosses(&self, bid: bool, price: f64) -> bool {
        let best = self.book[usize::from(bid)].best();
        best.is_some_and(|best| if bid { price >= best.price } else { price <= best.price })
    }

    /// Adds lots, which may be negative, to a level.
    fn add(&mut self, bid: bool, price: f64, lots: i64) {
        let sum = self.sums.entry((bid, price.to_bits())).or_default();
        *sum = sum.saturating_add(lots);
        let level = Level { price, size: (*sum).max(0) as f64 / self.params.lots };
        if *sum <= 0 {
            self.sums.remove(&(bid, price.to_bits()));
        }
        let side = usize::from(!bid);
        self.book[side].set(level);
        self.changed[side].push(level);
    }

    fn read(&mut self, tally: &mut Tally) -> Result<()> {
        let Some(stamp) = self.rows.stamp(tally)? else { return Ok(()) };
        self.place = self.rows.place();
        let Some(row) = self.row(tally)? else { return Ok(()) };
        if stamp.time < self.time {
            let message =
                || format!("time {} comes after a later one", self.rows.cell(0).unwrap_or(""));
            tally.fault(Fault::OutOfOrder, self.place, message, "sort the file by time")?;
        }
        self.time = self.time.max(stamp.time);
        match row.action {
            Action::Created => self.created(row, tally)?,
            Action::Changed => self.changed(row, tally),
            Action::Deleted => self.deleted(row, tally),
        }
        self.settle();
        Ok(())
    }

    fn row(&self, tally: &mut Tally) -> Result<Option<Row>> {
        let rows = &self.rows;
        let cell = |role| rows.cell(role).unwrap_or("");
        let mut odd = |what: &str, text: &str, hint| {
            let message = || format!("`{text}` is no {what}");
            tally.fault(Fault::Malformed, self.place, message, hint).map(|()| None)
        };
        let Ok(id) = cell(1).parse() else {
            return odd("number of an order", cell(1), "write a whole number");
        };
        let action = match cell(4).to_ascii_lowercase().as_str() {
            "created" | "create" | "order_created" => Action::Created,
            "changed" | "change" | "order_changed" => Action::Changed,
            "deleted" | "delete" | "order_deleted" => Action::Deleted,
            _ => return odd("action", cell(4), "write created, changed or deleted"),
        };
        let bid = match cell(5).to_ascii_lowercase().as_str() {
            "bid" | "buy" | "0" => true,
            "ask" | "sell" | "1" => false,
            _ => return odd("direction", cell(5), "write bid or ask"),
        };
        let Some(price) = rows.number(2, false, tally)? else { return Ok(None) };
        let zero = action != Action::Created;
        let Some(volume) = rows.number(3, zero, tally)? else { return Ok(None) };
        Ok(Some(Row { id, action, bid, price, lots: volume.round() as i64 }))
    }

    fn created(&mut self, row: Row, tally: &mut Tally) -> Result<()> {
        let Row { id, bid, price, lots, .. } = row;
        if self.orders.contains_key(&id) {
            let message = || format!("order {id} is created again");
            let hint = "remove what was recorded twice";
            return tally.fault(Fault::Duplicate, self.place, message, hint);
        }
        if self.gone.remove(&id) {
            tally.counts.stale += 1;
            return Ok(());
        }
        self.place_order(id, bid, price, lots);
        Ok(())
    }

    fn place_order(&mut self, id: u64, bid: bool, price: f64, lots: i64) {
        let quote = self.quote();
        let took = self.crosses(bid, price);
        let life = Life {
            id,
            bid,
            price,
            size: lots as f64 / self.params.lots,
            filled: 0.0,
            placed: self.time,
            first_fill: None,
            ended: self.time,
            end: End::Open,
            mid_at_placement: quote.map(|quote| quote.mid()),
            quote_at_placement: quote,
            ahead: self.book[usize::from(!bid)].at(price),
            took,
        };
        self.orders.insert(id, Order { life, left: lots, filled: 0, taking: took });
        if took {
            self.taking.push(id);
        } else {
            self.add(bid, price, lots);
        }
    }

    fn changed(&mut self, row: Row, tally: &mut Tally) {
        let Some(mut order) = self.orders.remove(&row.id) else {
            tally.counts.other += 1;
            return;
        };
        let (bid, price) = (order.life.bid, order.life.price);
        if !order.taking {
            self.add(bid, price, -order.left);
        }
        if row.lots < order.left {
            self.fill(&mut order, row.lots);
        }
        if row.price != price {
            // At another price it is another order of the same number.
            self.taking.retain(|id| *id != row.id);
            self.end(order, End::Cancelled);
            return self.place_order(row.id, bid, row.price, row.lots);
        }
        order.left = row.lots;
        if !order.taking {
            self.add(bid, price, order.left);
        }
        self.orders.insert(row.id, order);
    }

    fn deleted(&mut self, row: Row, tally: &mut Tally) {
        let Some(mut order) = self.orders.remove(&row.id) else {
            self.gone.insert(row.id);
            tally.counts.other += 1;
            return;
        };
        if order.taking {
            self.taking.retain(|id| *id != row.id);
        } else {
            self.add(order.life.bid, order.life.price, -order.left);
        }
        if row.lots < order.left {
            self.fill(&mut order, row.lots);
        }
        self.end(order, if row.lots == 0 { End::Filled } else { End::Cancelled });
    }

    /// An order of which less is left; its lots are out of the book already.
    fn fill(&mut self, order: &mut Order, left: i64) {
        let lots = order.left - left;
        let life = &mut order.life;
        order.filled = order.filled.saturating_add(lots);
        life.first_fill.get_or_insert(self.time);
        let since = self.time.saturating_sub(self.params.match_within.0);
        while self.fills.front().is_some_and(|fill| fill.time < since) {
            self.fills.pop_front();
        }
        let other = self.fills.iter().position(|fill| fill.bid != life.bid && fill.lots == lots);
        if let Some(other) = other {
            self.fills.remove(other);
            return;
        }
        self.fills.push_back(Fill { time: self.time, bid: life.bid, lots });
        let best = self.book[usize::from(life.bid)].best().map(|best| best.price);
        // Who was there first made the price.
        let price = match best {
            Some(best) if order.taking && self.crosses(life.bid, life.price) => best,
            _ => life.price,
        };
        let bought = Some(life.bid == order.taking);
        let size = lots as f64 / self.params.lots;
        self.trade = Some(Trade { time: self.time, price, size, bought });
    }

    fn end(&mut self, order: Order, end: End) {
        if let Some(lives) = &mut self.lives {
            let filled = order.filled as f64 / self.params.lots;
            lives.push_back(Life { end, ended: self.time, filled, ..order.life });
        }
    }

    /// Puts orders into the book that no longer cross.
    fn settle(&mut self) {
        for at in (0..self.taking.len()).rev() {
            let id = self.taking[at];
            let Some(order) = self.orders.get(&id) else { continue };
            let (bid, price, left) = (order.life.bid, order.life.price, order.left);
            if self.crosses(bid, price) {
                continue;
            }
            self.taking.swap_remove(at);
            if let Some(order) = self.orders.get_mut(&id) {
                order.taking = false;
            }
            self.add(bid, price, left);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Created,
    Changed,
    Deleted,
}

struct Row {
    id: u64,
    action: Action,
    bid: bool,
    price: f64,
    lots: i64,
}

impl Events for Reader {
    fn advance(&mut self, tally: &mut Tally) -> Result<bool> {
        // A trade, then what it changed.
        if self.trade.take().is_some() && self.changed.iter().any(|side| !side.is_empty()) {
            tally.counts.updates += 1;
            return Ok(true);
        }
        loop {
            self.changed.iter_mut().for_each(Vec::clear);
            if !self.rows.advance(tally)? {
                return Ok(false);
            }
            self.read(tally)?;
            if self.trade.is_some() {
                tally.counts.trades += 1;
                return Ok(true);
            }
            let levels = self.changed.iter().map(Vec::len).sum::<usize>() as u64;
            if levels > 0 {
                tally.counts.updates += 1;
                tally.counts.levels += levels;
                return Ok(true);
            }
        }
    }

    fn event(&self) -> Event<'_> {
        let what = match self.trade {
            Some(trade) => What::Trade(trade),
            None => What::Depth(Depth {
                snapshot: false,
                first: None,
                last: None,
                previous: None,
                bids: &self.changed[0],
                asks: &self.changed[1],
            }),
        };
        Event { time: self.time, place: self.place, what }
    }
}

/// The lives of the orders of files, in the order in which they end; those that are open when the data
/// ends come last, by their number. Ends after the first error.
pub struct Lives {
    reader: Reader,
    tally: Tally,
    done: bool,
}

impl Lives {
    /// Opens the first file.
    ///
    /// # Errors
    /// It cannot be read, or lacks a column.
    pub fn open(params: &Orders, paths: Vec<PathBuf>, quality: &Quality) -> Result<Lives> {
        let tally = Tally::new(quality, paths.clone());
        let mut reader = Reader::open(params, paths)?;
        reader.lives = Some(VecDeque::new());
        Ok(Lives { reader, tally, done: false })
    }

    /// What was read so far, and what was wrong with it.
    pub fn counts(&self) -> &Counts {
        &self.tally.counts
    }
}

impl Iterator for Lives {
    type Item = Result<Life>;

    fn next(&mut self) -> Option<Result<Life>> {
        loop {
            if let Some(life) = self.reader.lives.as_mut().and_then(VecDeque::pop_front) {
                return Some(Ok(life));
            }
            if self.done {
                return None;
            }
            match self.reader.advance(&mut self.tally) {
                Ok(true) => {}
                Ok(false) => {
                    self.done = true;
                    let mut open: Vec<Order> =
                        self.reader.orders.drain().map(|(_, order)| order).collect();
                    open.sort_unstable_by_key(|order| order.life.id);
                    open.into_iter().for_each(|order| self.reader.end(order, End::Open));
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
