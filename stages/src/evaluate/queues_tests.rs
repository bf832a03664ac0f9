//! Orders in queues: by hand, and beside hftbacktest.

use std::fmt::Write as _;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Book as Settings;
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
    let told =
        [book(), (1050, Book(gone, asks, false)), (1060, Sold(98.9, 1.0)), (5500, Sold(98.9, 1.0))];
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
    let orders = ["buy limit 20", "sell market", "flat"].map(Decision::read);
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
    let error = followed(&panel([100.0; 5]), &RULES, 100, Queue::Trades, &[book()]).unwrap_err();
    assert!(error.to_string().contains("no trades"), "{error}");
    let wrong = Settings { source: Source::Bars(Default::default()), ..Settings::default() };
    assert_eq!(wrong.check().unwrap_err().path, "book.source");
    let wrong =
        Settings { source: Source::Binance(Default::default()), queue: Queue::Power(0.0), ..wrong };
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
            writeln!(orders, "{},{at},{},{side},{price:.1}", order.place + 1, order.until).unwrap();
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
        eprintln!("{name}: {} orders, {} filled, {} there", sent.len(), ours.len(), theirs.len());
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
