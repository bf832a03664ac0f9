//! Orders one by one: the book, the trades and the lives.

use std::path::PathBuf;

use serde_json::json;

use super::super::event::{Events, What};
use super::super::orders::{End, Life, Lives, Orders, Reader};
use super::super::quality::{Quality, Tally};
use super::super::{Sample, Trade};
use super::{mirror, run, run_at};

const HEAD: &str = "id,timestamp,exchange.timestamp,price,volume,action,direction\n";

/// Milliseconds after a whole second, and what happened.
fn file(rows: &[(&str, i64, &str)]) -> String {
    let row = |(id, ms, rest): &(&str, i64, &str)| {
        format!("{id},{},1430438404000,{rest}\n", 1_430_438_400_000_i64 + ms)
    };
    std::iter::once(HEAD.to_owned()).chain(rows.iter().map(row)).collect()
}

/// An ask of 3 is hit by a bid of 2 and then by one of 1.5, half of which rests.
fn story() -> String {
    file(&[
        ("1", 0, "100.00,500000000,created,bid"),
        ("2", 10, "102.00,300000000,created,ask"),
        ("3", 20, "103.00,100000000,created,ask"),
        ("4", 30, "102.50,200000000,created,bid"),
        ("2", 40, "102.00,100000000,changed,ask"),
        ("4", 50, "102.50,0,deleted,bid"),
        ("5", 60, "102.00,150000000,created,bid"),
        ("5", 70, "102.00,50000000,changed,bid"),
        ("2", 80, "102.00,0,deleted,ask"),
        ("1", 90, "100.00,500000000,deleted,bid"),
        ("9", 95, "100.00,500000000,deleted,bid"),
    ])
}

fn lives(text: &str) -> Vec<Life> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.csv");
    std::fs::write(&path, text).unwrap();
    let lives = Lives::open(&Orders::default(), vec![path], &Quality::default()).unwrap();
    lives.map(Result::unwrap).collect()
}

#[test]
fn an_order_lives_from_its_placement_to_its_end() {
    let lives = lives(&story());
    let ids: Vec<u64> = lives.iter().map(|life| life.id).collect();
    assert_eq!(ids, [4, 2, 1, 3, 5]);
    let at = |ms: i64| (1_430_438_400_000 + ms) * 1_000_000;
    let taker = lives[0];
    assert!(taker.took && taker.bid);
    assert_eq!((taker.end, taker.filled, taker.size), (End::Filled, 2.0, 2.0));
    assert_eq!(taker.mid_at_placement, Some(101.0));
    assert_eq!(taker.distance(), Some(-1.5));
    let maker = lives[1];
    assert!(!maker.took && !maker.bid);
    assert_eq!((maker.end, maker.filled), (End::Filled, 3.0));
    assert_eq!((maker.placed, maker.first_fill, maker.ended), (at(10), Some(at(40)), at(80)));
    assert_eq!(maker.exposure(), 30_000_000);
    assert_eq!((maker.mid_at_placement, maker.ahead), (None, 0.0));
    let cancelled = lives[2];
    assert_eq!((cancelled.end, cancelled.filled), (End::Cancelled, 0.0));
    assert_eq!(cancelled.exposure(), 90_000_000);
    let open = lives[3];
    assert_eq!(
        (open.end, open.mid_at_placement, open.distance()),
        (End::Open, Some(101.0), Some(2.0))
    );
    // It took one of 1.5, and rests with the other half.
    assert_eq!((lives[4].end, lives[4].filled), (End::Open, 1.0));
}

fn events(text: &str) -> (Vec<Trade>, Vec<(f64, f64, bool)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orders.csv");
    std::fs::write(&path, text).unwrap();
    let mut tally = Tally::new(&Quality::default(), vec![path.clone()]);
    let mut reader = Reader::open(&Orders::default(), vec![path]).unwrap();
    let (mut trades, mut levels) = (Vec::new(), Vec::new());
    while reader.advance(&mut tally).unwrap() {
        match reader.event().what {
            What::Trade(trade) => trades.push(trade),
            What::Depth(depth) => {
                levels.extend(depth.bids.iter().map(|level| (level.price, level.size, true)));
                levels.extend(depth.asks.iter().map(|level| (level.price, level.size, false)));
            }
            What::Quote(..) => panic!(),
        }
    }
    assert_eq!(tally.counts.other, 1);
    (trades, levels)
}

#[test]
fn the_two_sides_of_a_trade_are_one() {
    let (trades, levels) = events(&story());
    let found: Vec<_> = trades.iter().map(|t| (t.price, t.size, t.bought)).collect();
    // At the price of who was there first, bought by who came.
    assert_eq!(found, [(102.0, 2.0, Some(true)), (102.0, 1.0, Some(true))]);
    // The takers are not in the book, but for the half that rests.
    assert!(levels.iter().all(|(price, ..)| *price != 102.5));
    assert!(levels.contains(&(102.0, 0.5, true)), "{levels:?}");
}

#[test]
fn orders_are_sampled_as_a_book_is() {
    let source = json!({ "orders": {} });
    let sampling = json!({ "clock": { "every": "5ms" }, "warm_up": "1ns" });
    let text = story();
    let ran = run(&source, &[("orders.csv", text.as_bytes())], &sampling, &json!({})).unwrap();
    let first = &ran.samples[0];
    assert_eq!(first.close, 101.0);
    let volume: f64 = ran.samples.iter().map(|sample| sample.volume).sum();
    assert_eq!(volume, 3.0);
    let last = ran.samples.last().unwrap().quote.unwrap();
    assert_eq!((last.bid, last.bid_size, last.ask), (102.0, 0.5, 103.0));
    assert_eq!(ran.counts.other, 1);
}

#[test]
fn five_real_hours_of_orders() {
    let Some(path) = mirror::file(mirror::ORDERS) else { return };
    let mut lives =
        Lives::open(&Orders::default(), vec![path.clone()], &Quality::default()).unwrap();
    let all: Vec<Life> = lives.by_ref().map(Result::unwrap).collect();
    assert_eq!(all.len(), 24_889 + 36);
    // 36 are moved to another price.
    // By a count over the file of what was left of each known order when it was deleted.
    let count = |end| all.iter().filter(|life| life.end == end).count();
    assert_eq!(count(End::Filled), 557);
    assert_eq!(count(End::Cancelled), 24_153 + 36);
    assert_eq!(count(End::Open), 179);
    // 191 are of orders created before the file, 22 of orders that are gone already.
    assert_eq!((lives.counts().other, lives.counts().stale), (213, 5));
    assert_eq!(lives.counts().lines, 50_414);
    assert!(lives.counts().faults().iter().all(|(_, count)| *count == 0), "{:?}", lives.counts());
    check(&all, vec![path]);
}

/// What must hold of any lives, and of the samples of the same file.
fn check(lives: &[Life], paths: Vec<PathBuf>) {
    for life in lives {
        assert!(life.ended >= life.placed && life.filled <= life.size + 1e-9, "{life:?}");
        assert!(life.first_fill.is_none_or(|fill| (life.placed..=life.ended).contains(&fill)));
    }
    for life in lives.iter().filter(|life| !life.took) {
        let Some(quote) = life.quote_at_placement else { continue };
        // It may be better than the mid, and does not reach the other side.
        assert!(life.distance().unwrap() > (quote.bid - quote.ask) / 2.0, "{life:?}");
    }
    let took = lives.iter().filter(|life| life.took).count();
    let filled: f64 = lives.iter().map(|life| life.filled).sum();
    let sampling = json!({ "clock": { "every": "1s" }, "warm_up": "5m" });
    let ran = run_at(&json!({ "orders": {} }), &paths, &sampling, &json!({})).unwrap();
    let sum = |f: fn(&Sample) -> f64| ran.samples.iter().map(f).sum::<f64>();
    println!(
        "{took} took; {filled} filled on both sides, {} traded in {} trades; {:?}",
        sum(|sample| sample.volume),
        ran.counts.trades,
        ran.counts
    );
    assert!(sum(|sample| sample.volume) <= filled);
    assert!(ran.samples.iter().all(|sample| sample.quote.is_some_and(|q| q.bid < q.ask)));
}
