//! Binance's market streams as collectors write them: a line is the time of receipt and a message.
//!
//! ```text
//! 1723161256172216566 {"stream":"btcusd_perp@depth@0ms","data":{"e":"depthUpdate",...}}
//! ```
//!
//! The time of receipt is the clock, not the exchange's `E` and `T`: those say when something
//! happened, and it was not known here then. Spot, USD-M and COIN-M streams of `depth`, `bookTicker`,
//! `trade` or `aggTrade`, and REST snapshots of the book between them, as hftbacktest's collector
//! writes them. Contracts of COIN-M are counted in coins: see [`Binance::contract`].

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::{Depth, Event, Events, Level, What};
use super::file::Lines;
use super::message::{Kind, Message, Wrong, parse};
use super::quality::{Fault, Tally};
use super::{Quote, Trade};
use crate::Result;

/// Lines of a time of receipt and a message of Binance's market streams.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Binance {
    /// The symbol that is wanted, where the files hold several.
    pub symbol: Option<String>,
    /// USD that a contract of the COIN-M exchange is worth: sizes there are contracts, and become coins
    /// at the price of their level. By default as Binance has them: 100 for BTC, 10 for all others.
    pub contract: Option<f64>,
}

/// The events of such files.
pub struct Stream {
    lines: Lines,
    params: Binance,
    /// The symbol of the first line that has one.
    symbol: Option<Vec<u8>>,
    /// USD a contract, where the symbol is one of COIN-M.
    contract: Option<f64>,
    /// Whether `trade` or `aggTrade` is read: they tell of the same trades.
    trades: Option<Kind>,
    trade: Option<u64>,
    message: Message,
    time: i64,
    kind: Kind,
}

const HINT: &str =
    "each line is a time of receipt, a blank and a message: 1723161256172216566 {...}";

impl Stream {
    /// Reads files one after the other.
    pub fn new(params: &Binance, paths: Vec<PathBuf>) -> Stream {
        Stream {
            lines: Lines::new(paths),
            params: params.clone(),
            symbol: None,
            contract: None,
            trades: None,
            trade: None,
            message: Message::default(),
            time: i64::MIN,
            kind: Kind::Other,
        }
    }

    /// Reads the line that `lines` is at; false where there is no event in it.
    fn read(&mut self, tally: &mut Tally) -> Result<bool> {
        let (line, place) = (self.lines.line(), self.lines.place());
        tally.counts.lines += 1;
        let Some((time, from)) = stamp(line) else {
            let message = || {
                let begin = String::from_utf8_lossy(line.get(..40).unwrap_or(line)).into_owned();
                format!("the line does not begin with a time of receipt: `{begin}`")
            };
            tally.fault(Fault::Malformed, place, message, HINT)?;
            return Ok(false);
        };
        match parse(line, from, &mut self.message).and_then(|()| self.values()) {
            Ok(()) => {}
            Err(Wrong::Value(why)) => {
                let hint = "a price is above 0, a size 0 or more";
                tally.fault(Fault::BadValue, place, || why, hint)?;
                return Ok(false);
            }
            Err(Wrong::Missing(name)) => {
                let message = || format!("the message has no `{name}`");
                tally.fault(
                    Fault::Malformed,
                    place,
                    message,
                    "leave out streams that are not read",
                )?;
                return Ok(false);
            }
            Err(Wrong::Syntax(at, wanted)) => {
                let message = || format!("not JSON: {wanted} is missing at byte {}", at + 1);
                tally.fault(Fault::Malformed, place, message, HINT)?;
                return Ok(false);
            }
        }
        if !self.wanted(tally)? {
            tally.counts.other += 1;
            return Ok(false);
        }
        if time < self.time {
            let (this, last) = (time, self.time);
            let message = || format!("time {this} comes after {last}");
            tally.fault(
                Fault::OutOfOrder,
                place,
                message,
                "sort the lines by their first number",
            )?;
        }
        self.time = self.time.max(time);
        self.coins();
        match self.kind {
            Kind::Depth => tally.counts.updates += 1,
            Kind::Snapshot => tally.counts.snapshots += 1,
            Kind::Ticker => tally.counts.quotes += 1,
            _ => {
                if !self.follows(tally)? {
                    return Ok(false);
                }
                tally.counts.trades += 1;
            }
        }
        tally.counts.levels += (self.message.bids.len() + self.message.asks.len()) as u64;
        Ok(true)
    }

    /// Checks the numbers that are not levels.
    fn values(&self) -> Result<(), Wrong> {
        let message = &self.message;
        let above = |name, x: f64| match x > 0.0 {
            true => Ok(()),
            false => Err(Wrong::Value(format!("{name} {x} is not above 0"))),
        };
        let size = |name, x: f64| match x >= 0.0 {
            true => Ok(()),
            false => Err(Wrong::Value(format!("{name} {x} is below 0"))),
        };
        match message.kind {
            Kind::Ticker => {
                above("bid", message.price)?;
                above("ask", message.ask)?;
                size("bid size", message.size)?;
                size("ask size", message.ask_size)
            }
            // Futures streams say so what the insurance fund took over: no trade, and passed over.
            Kind::Trade if message.price == 0.0 && message.size == 0.0 => Ok(()),
            Kind::Trade | Kind::Aggregate => {
                above("price", message.price)?;
                above("size", message.size)
            }
            _ => Ok(()),
        }
    }

    /// Whether the message is of the symbol that is read, and of a kind that is.
    fn wanted(&mut self, tally: &Tally) -> Result<bool> {
        self.kind = self.message.kind;
        if let Some(symbol) = self.message.symbol.clone() {
            let symbol = &self.lines.line()[symbol];
            match (&self.params.symbol, &self.symbol) {
                (Some(wanted), _) if !symbol.eq_ignore_ascii_case(wanted.as_bytes()) => {
                    return Ok(false);
                }
                (_, Some(first)) if symbol == first => {}
                (None, Some(first)) => {
                    let name = |symbol| String::from_utf8_lossy(symbol).into_owned();
                    let message = format!("`{}` beside `{}`", name(symbol), name(first));
                    return Err(tally
                        .bad(self.lines.place(), message)
                        .hint("set `symbol` to the one that is wanted"));
                }
                _ => self.symbol = Some(symbol.to_vec()),
            }
            if self.contract.is_none() && is_coin(symbol) {
                let usual = if symbol.starts_with(b"BTCUSD_") { 100.0 } else { 10.0 };
                self.contract = Some(self.params.contract.unwrap_or(usual));
            }
        }
        Ok(match self.kind {
            Kind::Other => false,
            Kind::Trade | Kind::Aggregate => {
                self.message.size > 0.0 && *self.trades.get_or_insert(self.kind) == self.kind
            }
            _ => true,
        })
    }

    /// Turns contracts into coins.
    fn coins(&mut self) {
        let Some(value) = self.contract else { return };
        let message = &mut self.message;
        for Level { price, size } in message.bids.iter_mut().chain(&mut message.asks) {
            *size *= value / *price;
        }
        message.size *= value / message.price;
        message.ask_size *= value / message.ask;
    }

    /// Whether a trade follows the one before.
    fn follows(&mut self, tally: &mut Tally) -> Result<bool> {
        let Some(id) = self.message.id else { return Ok(true) };
        let place = self.lines.place();
        if let Some(last) = self.trade {
            if id <= last {
                let message = || format!("trade {id} comes after trade {last}");
                let hint = "remove what was recorded twice";
                tally.fault(Fault::Duplicate, place, message, hint)?;
                return Ok(false);
            }
            if id > last.saturating_add(1) {
                let message =
                    || format!("trade {id} follows trade {last}: {} are missing", id - last - 1);
                let hint = "fetch what is missing, perhaps a file of the series";
                tally.fault(Fault::TradeGap, place, message, hint)?;
            }
        }
        self.trade = Some(id);
        Ok(true)
    }
}

/// Whether a symbol is of the COIN-M exchange: `BTCUSD_PERP`, `BTCUSD_240927`. Those of USD-M are quoted in
/// USDT, USDC or once BUSD.
fn is_coin(symbol: &[u8]) -> bool {
    let pair = symbol.split(|b| *b == b'_').next().unwrap_or(symbol);
    pair.len() < symbol.len() && pair.ends_with(b"USD") && !pair.ends_with(b"BUSD")
}

/// The time of receipt and the byte at which the message begins.
fn stamp(line: &[u8]) -> Option<(i64, usize)> {
    let length = line.iter().position(|b| !b.is_ascii_digit())?;
    if line.get(length) != Some(&b' ') || !(16..=19).contains(&length) {
        return None;
    }
    let count = line[..length]
        .iter()
        .try_fold(0_i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(digit - b'0')))?;
    // Microseconds have 16 digits until the year 2286, nanoseconds 19 from 2001 on.
    let nanos = if length == 16 { count.checked_mul(1_000)? } else { count };
    if length == 16 || length == 19 { Some((nanos, length + 1)) } else { None }
}

impl Events for Stream {
    fn advance(&mut self, tally: &mut Tally) -> Result<bool> {
        while self.lines.advance()? {
            if !self.lines.line().is_empty() && self.read(tally)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn event(&self) -> Event<'_> {
        let message = &self.message;
        let what = match self.kind {
            Kind::Depth | Kind::Snapshot => What::Depth(Depth {
                snapshot: self.kind == Kind::Snapshot,
                first: message.first,
                last: message.last,
                previous: message.previous,
                bids: &message.bids,
                asks: &message.asks,
            }),
            Kind::Ticker => {
                let quote = Quote {
                    bid: message.price,
                    bid_size: message.size,
                    ask: message.ask,
                    ask_size: message.ask_size,
                };
                What::Quote(quote, message.last)
            }
            _ => What::Trade(Trade {
                time: self.time,
                price: message.price,
                size: message.size,
                bought: message.maker_bought.map(|maker| !maker),
            }),
        };
        Event { time: self.time, place: self.lines.place(), what }
    }
}
