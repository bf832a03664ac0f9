//! Streams of an exchange that we made up: a book that wanders, told as Binance tells of its own.

use std::collections::BTreeMap;
use std::fmt::Write;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What sets the two kinds of market apart.
struct Market {
    symbol: &'static str,
    stream: &'static str,
    depth: &'static str,
    /// Ticks in a unit of price, and digits after the point of a price and of a size.
    ticks: i64,
    digits: (usize, usize),
    /// A size is so many times a whole number.
    lot: f64,
    coin: bool,
    /// Lines between changes of the book that are told.
    every: usize,
}

/// 600 lines of a spot market.
pub fn spot() -> Vec<u8> {
    let (symbol, stream, depth) = ("BTCUSDT", "btcusdt", "depth@100ms");
    let digits = (8, 8);
    lines(
        &Market { symbol, stream, depth, ticks: 100, digits, lot: 1e-5, coin: false, every: 12 },
        600,
    )
}

/// 400 lines of a market of coin-margined perpetuals.
pub fn coin() -> Vec<u8> {
    let (symbol, stream, depth) = ("BTCUSD_PERP", "btcusd_perp", "depth@0ms");
    let digits = (1, 0);
    lines(&Market { symbol, stream, depth, ticks: 10, digits, lot: 1.0, coin: true, every: 3 }, 400)
}

struct Maker<'a> {
    market: &'a Market,
    rng: ChaCha8Rng,
    /// Sizes by price in ticks: bids and asks.
    sides: [BTreeMap<i64, i64>; 2],
    /// What changed since the book was told of.
    changed: [BTreeMap<i64, i64>; 2],
    id: u64,
}

impl Maker<'_> {
    fn best(&self, side: usize) -> (i64, i64) {
        let best = match side {
            0 => self.sides[0].last_key_value(),
            _ => self.sides[1].first_key_value(),
        };
        let (&price, &size) = best.unwrap();
        (price, size)
    }

    fn set(&mut self, side: usize, price: i64, size: i64) {
        self.id += 1;
        self.changed[side].insert(price, size);
        match size {
            0 => drop(self.sides[side].remove(&price)),
            _ => drop(self.sides[side].insert(price, size)),
        }
    }

    /// Somebody places or takes away near the touch, and does not cross it.
    fn stir(&mut self) {
        let side = self.rng.random_range(0..2usize);
        let out = if side == 0 { -1 } else { 1 };
        let gap = self.best(1).0 - self.best(0).0;
        let away = self.rng.random_range(0..20) - (gap - 1).min(2);
        let price = self.best(side).0 + out * away;
        let gone = self.rng.random_range(0..3) == 0 && self.sides[side].len() > 10;
        let size = if gone { 0 } else { self.rng.random_range(1..400_000) };
        self.set(side, price, if self.market.coin { (size + 999) / 1000 } else { size });
    }

    fn price(&self, ticks: i64) -> String {
        format!("{:.*}", self.market.digits.0, ticks as f64 / self.market.ticks as f64)
    }

    fn size(&self, lots: i64) -> String {
        format!("{:.*}", self.market.digits.1, lots as f64 * self.market.lot)
    }

    fn levels<'b>(&self, levels: impl Iterator<Item = (&'b i64, &'b i64)>) -> String {
        let level =
            |(p, s): (&i64, &i64)| format!("[\"{}\",\"{}\"]", self.price(*p), self.size(*s));
        levels.map(level).collect::<Vec<_>>().join(",")
    }
}

fn lines(market: &Market, count: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let middle = 61_800 * market.ticks;
    let mut side = |sign: i64| -> BTreeMap<i64, i64> {
        let most = if market.coin { 400 } else { 400_000 };
        (1..60).map(|away| (middle + sign * away, rng.random_range(1..most))).collect()
    };
    let sides = [side(-1), side(1)];
    let rng = ChaCha8Rng::seed_from_u64(8);
    let mut made = Maker { market, rng, sides, changed: Default::default(), id: 1_000_000 };
    let mut out = String::new();
    let (mut time, mut told, mut trade) = (1_723_161_253_937_085_768_i64, made.id, 500);
    let Market { symbol, stream, depth, coin, .. } = *market;
    let pair = if coin { ",\"ps\":\"BTCUSD\"" } else { "" };
    for at in 0..count {
        time += made.rng.random_range(2_000_000..16_000_000);
        let at_exchange = time / 1_000_000;
        (0..made.rng.random_range(1..4)).for_each(|_| made.stir());
        write!(out, "{time} ").unwrap();
        if at == 20 {
            let (bids, asks) =
                (made.levels(made.sides[0].iter().rev()), made.levels(made.sides[1].iter()));
            let name = if coin { format!(",\"symbol\":\"{symbol}\"") } else { String::new() };
            let id = made.id;
            writeln!(out, "{{\"lastUpdateId\":{id}{name},\"bids\":[{bids}],\"asks\":[{asks}]}}")
                .unwrap();
        } else if at % market.every == 0 {
            let [bids, asks] = std::mem::take(&mut made.changed);
            let (bids, asks) = (made.levels(bids.iter()), made.levels(asks.iter()));
            let (first, last) = (told + 1, made.id);
            let before = if coin { format!(",\"pu\":{told}") } else { String::new() };
            writeln!(out, "{{\"stream\":\"{stream}@{depth}\",\"data\":{{\"e\":\"depthUpdate\",\"E\":{at_exchange},\"s\":\"{symbol}\"{pair},\"U\":{first},\"u\":{last}{before},\"b\":[{bids}],\"a\":[{asks}]}}}}").unwrap();
            told = last;
        } else if made.rng.random_range(0..4) == 0 {
            let taken = made.rng.random_range(0..2usize);
            let (price, there) = made.best(taken);
            let size = made.rng.random_range(1..=there);
            if there > size || made.sides[taken].len() > 10 {
                made.set(taken, price, there - size);
            }
            trade += 1;
            let (p, q) = (made.price(price), made.size(size));
            writeln!(out, "{{\"stream\":\"{stream}@trade\",\"data\":{{\"e\":\"trade\",\"E\":{at_exchange},\"s\":\"{symbol}\",\"t\":{trade},\"p\":\"{p}\",\"q\":\"{q}\",\"T\":{at_exchange},\"m\":{}}}}}", taken == 0).unwrap();
        } else {
            let ((b, bs), (a, az)) = (made.best(0), made.best(1));
            let id = made.id;
            writeln!(out, "{{\"stream\":\"{stream}@bookTicker\",\"data\":{{\"u\":{id},\"s\":\"{symbol}\"{pair},\"b\":\"{}\",\"B\":\"{}\",\"a\":\"{}\",\"A\":\"{}\"}}}}", made.price(b), made.size(bs), made.price(a), made.size(az)).unwrap();
        }
    }
    out.into_bytes()
}
