//! Quotes, trades and changes of the book from CSV files of any vendor.
//!
//! What a column means is told by its name: those of Tardis, Binance's archive and common data sets are
//! known, others are named in `columns`. Depth comes as changes, a level a row, those at one time (and
//! of one update id) together; or as rows of numbered levels (`bids[0].price`, `bid_price_1`, `bid1`),
//! each a snapshot.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::{Depth, Event, Events, Level, Place, What};
use super::quality::{Fault, Tally};
use super::rows::{Columns, Role, Rows, SYMBOL, TIME, positive};
use super::zone::Local;
use super::{Quote, Trade};
use crate::{Invalid, Result, StageError};

/// CSV files, plain or packed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Table {
    /// Names of columns that are not found by themselves, by what they mean. Quotes: time, bid,
    /// bid_size, ask, ask_size, id. Trades: time, price, size, side, buyer_maker, id. Depth: time, side,
    /// price, size, snapshot, first_id, last_id, previous_id. All: symbol.
    pub columns: Columns,
    /// The symbol that is wanted, where the files hold several.
    pub symbol: Option<String>,
    /// The IANA name of the zone of times that do not say theirs, such as America/New_York. Without it
    /// they are UTC. Dates of `splits` and of the output are UTC all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Best quotes.
    Quotes,
    /// Trades.
    Trades,
    /// The book.
    Depth,
}

const fn role(name: &'static str, aliases: &'static [&'static str], required: bool) -> Role {
    Role { name, aliases, required }
}

const QUOTES: &[Role] = &[
    TIME,
    SYMBOL,
    role("bid", &["bid_price", "best_bid_price", "best_bid", "bidprice", "bid_px", "b"], true),
    role(
        "bid_size",
        &["bid_amount", "bid_qty", "best_bid_qty", "bid_volume", "bidsize", "bid_sz"],
        true,
    ),
    role("ask", &["ask_price", "best_ask_price", "best_ask", "askprice", "ask_px", "a"], true),
    role(
        "ask_size",
        &["ask_amount", "ask_qty", "best_ask_qty", "ask_volume", "asksize", "ask_sz"],
        true,
    ),
    role("id", &["update_id", "u"], false),
];
const TRADES: &[Role] = &[
    TIME,
    SYMBOL,
    role("price", &["px", "p", "trade_price"], true),
    role("size", &["amount", "qty", "quantity", "volume", "q", "trade_size"], true),
    role("side", &["taker_side", "aggressor_side", "aggressor", "direction"], false),
    role("buyer_maker", &["is_buyer_maker", "isbuyermaker", "buyer_is_maker"], false),
    role("id", &["trade_id", "agg_trade_id", "tid"], false),
];
const DEPTH: &[Role] = &[
    TIME,
    SYMBOL,
    role("side", &["direction"], true),
    role("price", &["px", "p"], true),
    role("size", &["amount", "qty", "quantity", "volume", "q"], true),
    role("snapshot", &["is_snapshot", "update_type"], false),
    role("first_id", &["first_update_id"], false),
    role("last_id", &["last_update_id", "final_update_id", "update_id"], false),
    role("previous_id", &["pu", "prev_update_id", "previous_update_id"], false),
];
const WIDE: &[Role] = &[TIME, SYMBOL];

impl Holds {
    fn roles(self) -> &'static [Role] {
        match self {
            Holds::Quotes => QUOTES,
            Holds::Trades => TRADES,
            Holds::Depth => DEPTH,
        }
    }
}

impl Table {
    /// Holds `columns` to what such files have.
    ///
    /// # Errors
    /// A column that is not read.
    pub fn check(&self, holds: Holds) -> Result<(), Invalid> {
        Local::new(self.time_zone.as_deref())?;
        super::rows::check(&self.columns, holds.roles())
    }
}

/// A level of the book as a row has it.
#[derive(Clone, Copy, PartialEq)]
struct Row {
    time: i64,
    place: Place,
    snapshot: bool,
    first: Option<u64>,
    last: Option<u64>,
    previous: Option<u64>,
    bid: bool,
    level: Level,
}

impl Row {
    /// Whether both are of one change.
    fn joins(&self, other: &Row) -> bool {
        (self.time, self.snapshot, self.last, self.place.file)
            == (other.time, other.snapshot, other.last, other.place.file)
    }
}

/// The events of such files.
pub struct Reader {
    rows: Rows,
    holds: Holds,
    params: Table,
    symbol: Option<String>,
    /// Columns of price and size of each numbered bid and ask, where there are such.
    wide: [Vec<(usize, usize)>; 2],
    time: i64,
    place: Place,
    quote: Option<(Quote, Option<u64>)>,
    trade: Option<Trade>,
    id: String,
    change: Option<Row>,
    next: Option<Row>,
    bids: Vec<Level>,
    asks: Vec<Level>,
}

impl Reader {
    /// Opens the first file.
    ///
    /// # Errors
    /// It cannot be read, or lacks a column.
    pub fn open(params: &Table, holds: Holds, paths: Vec<PathBuf>) -> Result<Reader> {
        let local = Local::new(params.time_zone.as_deref());
        let local = local.map_err(|e| StageError::failed(e.message))?;
        let mut rows = Rows::new(paths.clone(), WIDE, &Columns::new()).local(local.clone());
        let mut wide = [Vec::new(), Vec::new()];
        if holds == Holds::Depth && params.columns.is_empty() {
            // Only where it has a time are its other columns looked at.
            if rows.begin().is_ok() {
                wide = numbered(rows.header());
            }
        }
        if wide.iter().any(Vec::is_empty) {
            wide = [Vec::new(), Vec::new()];
            rows = Rows::new(paths, holds.roles(), &params.columns).local(local);
            rows.begin()?;
        }
        Ok(Reader {
            rows,
            holds,
            params: params.clone(),
            symbol: None,
            wide,
            time: i64::MIN,
            place: Place::default(),
            quote: None,
            trade: None,
            id: String::new(),
            change: None,
            next: None,
            bids: Vec::new(),
            asks: Vec::new(),
        })
    }

    /// Moves on to a row of the wanted symbol whose time can be read.
    fn row(&mut self, tally: &mut Tally) -> Result<bool> {
        while self.rows.advance(tally)? {
            if !self.wanted(tally)? {
                tally.counts.other += 1;
                continue;
            }
            let Some(stamp) = self.rows.stamp(tally)? else { continue };
            self.place = self.rows.place();
            if stamp.time < self.time {
                let message = || {
                    let text = self.rows.cell(0).unwrap_or("");
                    format!("time {text} comes after a later one")
                };
                tally.fault(Fault::OutOfOrder, self.place, message, "sort the file by time")?;
            }
            self.time = self.time.max(stamp.time);
            return Ok(true);
        }
        Ok(false)
    }

    fn wanted(&mut self, tally: &Tally) -> Result<bool> {
        let Some(symbol) = self.rows.cell(1) else { return Ok(true) };
        if let Some(wanted) = &self.params.symbol {
            return Ok(symbol.eq_ignore_ascii_case(wanted));
        }
        match &self.symbol {
            None => self.symbol = Some(symbol.to_owned()),
            Some(first) if first == symbol => {}
            Some(first) => {
                return Err(tally
                    .bad(self.rows.place(), format!("`{symbol}` beside `{first}`"))
                    .hint("set `symbol` to the one that is wanted"));
            }
        }
        Ok(true)
    }

    fn read_quote(&mut self, tally: &mut Tally) -> Result<bool> {
        let (rows, mut values) = (&self.rows, [0.0; 4]);
        for (value, role) in values.iter_mut().zip(2..) {
            match rows.number(role, role % 2 == 1, tally)? {
                Some(x) => *value = x,
                None => return Ok(false),
            }
        }
        let [bid, bid_size, ask, ask_size] = values;
        let id = rows.cell(6).and_then(|id| id.parse().ok());
        self.quote = Some((Quote { bid, bid_size, ask, ask_size }, id));
        tally.counts.quotes += 1;
        Ok(true)
    }

    fn read_trade(&mut self, tally: &mut Tally) -> Result<bool> {
        let rows = &self.rows;
        let Some(price) = rows.number(2, false, tally)? else { return Ok(false) };
        let Some(size) = rows.number(3, false, tally)? else { return Ok(false) };
        let bought = match (rows.cell(4), rows.cell(5)) {
            (Some(side), _) => match taker(side) {
                Some(bought) => bought,
                None => {
                    let message = || format!("`{side}` is no side of a trade");
                    let hint = "write buy or sell, and leave it empty where it is not known";
                    tally.fault(Fault::Malformed, self.place, message, hint)?;
                    return Ok(false);
                }
            },
            (None, Some(maker)) => match maker.to_ascii_lowercase().as_str() {
                "true" | "1" | "t" => Some(false),
                "false" | "0" | "f" => Some(true),
                _ => None,
            },
            (None, None) => None,
        };
        if let Some(id) = rows.cell(6) {
            if !id.is_empty() && id == self.id {
                let hint = "remove what was recorded twice";
                let message = || format!("trade {id} is on the row before already");
                tally.fault(Fault::Duplicate, self.place, message, hint)?;
                return Ok(false);
            }
            self.id.clear();
            self.id.push_str(id);
        }
        self.trade = Some(Trade { time: self.time, price, size, bought });
        tally.counts.trades += 1;
        Ok(true)
    }

    fn read_level(&mut self, tally: &mut Tally) -> Result<Option<Row>> {
        let rows = &self.rows;
        let side = rows.cell(2).unwrap_or("");
        let Some(Some(bid)) = taker(side) else {
            let message = || format!("`{side}` is no side of a book");
            tally.fault(Fault::Malformed, self.place, message, "write bid or ask")?;
            return Ok(None);
        };
        let Some(price) = rows.number(3, false, tally)? else { return Ok(None) };
        let Some(size) = rows.number(4, true, tally)? else { return Ok(None) };
        let id = |role| rows.cell(role).and_then(|id| id.parse().ok());
        let snapshot = rows.cell(5).is_some_and(|cell| {
            ["true", "t", "1", "snap", "snapshot"].contains(&cell.to_ascii_lowercase().as_str())
        });
        Ok(Some(Row {
            time: self.time,
            place: self.place,
            snapshot,
            first: id(6),
            last: id(7),
            previous: id(8),
            bid,
            level: Level { price, size },
        }))
    }

    /// Gathers the rows of one change.
    fn read_change(&mut self, tally: &mut Tally) -> Result<bool> {
        self.bids.clear();
        self.asks.clear();
        self.change = self.next.take();
        if let Some(row) = self.change {
            self.push(row);
        }
        while self.row(tally)? {
            let Some(row) = self.read_level(tally)? else { continue };
            match &self.change {
                Some(change) if !change.joins(&row) => {
                    self.next = Some(row);
                    break;
                }
                Some(_) => {}
                None => self.change = Some(row),
            }
            self.push(row);
        }
        let Some(change) = self.change else { return Ok(false) };
        match change.snapshot {
            true => tally.counts.snapshots += 1,
            false => tally.counts.updates += 1,
        }
        Ok(true)
    }

    fn push(&mut self, row: Row) {
        if row.bid { self.bids.push(row.level) } else { self.asks.push(row.level) }
    }

    fn read_wide(&mut self, tally: &mut Tally) -> Result<bool> {
        let (rows, place) = (&self.rows, self.place);
        for (columns, levels) in self.wide.iter().zip([&mut self.bids, &mut self.asks]) {
            levels.clear();
            for (price, size) in columns {
                let (price, size) = (rows.at(*price).unwrap_or(""), rows.at(*size).unwrap_or(""));
                // A thin book has fewer levels.
                if price.is_empty() && size.is_empty() {
                    continue;
                }
                let Some(price) = positive(price, "price", false, place, tally)? else {
                    return Ok(false);
                };
                let Some(size) = positive(size, "size", true, place, tally)? else {
                    return Ok(false);
                };
                levels.push(Level { price, size });
            }
        }
        self.change = Some(Row {
            time: self.time,
            place,
            snapshot: true,
            first: None,
            last: None,
            previous: None,
            bid: true,
            level: Level::default(),
        });
        tally.counts.snapshots += 1;
        Ok(true)
    }
}

/// Whether a side is that of who buys; the inner `None` where it is not said.
fn taker(side: &str) -> Option<Option<bool>> {
    Some(match side.to_ascii_lowercase().as_str() {
        "buy" | "b" | "bid" | "bids" | "1" | "buyer" => Some(true),
        "sell" | "s" | "a" | "ask" | "asks" | "-1" | "seller" => Some(false),
        "" | "unknown" | "n" | "none" | "0" => None,
        _ => return None,
    })
}

/// Columns of numbered levels: bids and asks, each as (price, size), in the order of their numbers.
fn numbered(header: &[String]) -> [Vec<(usize, usize)>; 2] {
    // Of the price, of the size, and who writes so.
    const NAMES: [[&str; 3]; 7] = [
        ["{s}s[{n}].price", "{s}s[{n}].amount", "Tardis"],
        ["{s}_price_{n}", "{s}_size_{n}", "common"],
        ["{s}_price_{n}", "{s}_amount_{n}", "common"],
        ["{s}_price_{n}", "{s}_volume_{n}", "common"],
        ["{s}_{n}_price", "{s}_{n}_size", "common"],
        ["{s}_px_{n}", "{s}_sz_{n}", "Databento, whose numbers have two digits"],
        ["{s}{n}", "{s}size{n}", "Optiver"],
    ];
    let position = |name: &str| header.iter().position(|found| found == name);
    let side = |pattern: &[&str; 3], side: &str| -> Vec<(usize, usize)> {
        let column = |template: &str, n: usize| {
            let plain = template.replace("{s}", side);
            position(&plain.replace("{n}", &n.to_string()))
                .or_else(|| position(&plain.replace("{n}", &format!("{n:02}"))))
        };
        let both = |n| Some((column(pattern[0], n)?, column(pattern[1], n)?));
        let first = if both(0).is_some() { 0 } else { 1 };
        (first..).map_while(both).collect()
    };
    let found = NAMES.iter().map(|pattern| [side(pattern, "bid"), side(pattern, "ask")]);
    found.into_iter().find(|sides| sides.iter().all(|side| !side.is_empty())).unwrap_or_default()
}

impl Events for Reader {
    fn advance(&mut self, tally: &mut Tally) -> Result<bool> {
        if self.holds == Holds::Depth && self.wide[0].is_empty() {
            let found = self.read_change(tally)?;
            tally.counts.levels += (self.bids.len() + self.asks.len()) as u64;
            return Ok(found);
        }
        while self.row(tally)? {
            let found = match self.holds {
                Holds::Quotes => self.read_quote(tally)?,
                Holds::Trades => self.read_trade(tally)?,
                Holds::Depth => self.read_wide(tally)?,
            };
            if found {
                tally.counts.levels += (self.bids.len() + self.asks.len()) as u64;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn event(&self) -> Event<'_> {
        let what = match (self.change, self.quote, self.trade) {
            (Some(row), ..) => What::Depth(Depth {
                snapshot: row.snapshot,
                first: row.first,
                last: row.last,
                previous: row.previous,
                bids: &self.bids,
                asks: &self.asks,
            }),
            (None, Some((quote, id)), _) => What::Quote(quote, id),
            (None, None, trade) => {
                let none = Trade { time: self.time, price: f64::NAN, size: 0.0, bought: None };
                What::Trade(trade.unwrap_or(none))
            }
        };
        let (time, place) = match self.change {
            Some(row) => (row.time, row.place),
            None => (self.time, self.place),
        };
        Event { time, place, what }
    }
}
