//! What a sample holds, on small tables whose numbers can be checked by hand.

use serde_json::{Value, json};

use super::super::clock::flow;
use super::super::{Quote, Sample};
use super::{Ran, run};

const QUOTES: &[u8] = b"time,bid,bid_size,ask,ask_size
2024-08-09T00:00:00.100Z,99,10,101,5
2024-08-09T00:00:00.200Z,99,12,101,5
2024-08-09T00:00:00.900Z,100,3,101,5
2024-08-09T00:00:01Z,100,3,102,8
2024-08-09T00:00:03.500Z,98,3,102,8
2024-08-09T00:02:00Z,98,3,100,8
";

const TRADES: &[u8] = b"time,price,size,side
2024-08-09T00:00:00.1Z,10,1,buy
2024-08-09T00:00:00.2Z,12,2,sell
2024-08-09T00:00:00.2Z,11,3,buy
2024-08-09T00:00:01.5Z,13,4,buy
2024-08-09T00:00:03Z,9,1,
";

fn quotes(sampling: Value) -> Ran {
    run(&json!({ "quotes": {} }), &[("q.csv", QUOTES)], &sampling, &json!({})).unwrap()
}

fn trades(clock: Value) -> Ran {
    let sampling = json!({ "clock": clock });
    run(&json!({ "trades": {} }), &[("t.csv", TRADES)], &sampling, &json!({})).unwrap()
}

fn ohlc(sample: &Sample) -> [f64; 4] {
    [sample.open, sample.high, sample.low, sample.close]
}

/// Seconds after midnight.
fn seconds(ran: &Ran) -> Vec<f64> {
    let begin = 1_723_161_600_000_000_000;
    ran.samples.iter().map(|sample| (sample.time - begin) as f64 / 1e9).collect()
}

#[test]
fn quotes_by_the_second() {
    let ran = quotes(json!({ "clock": { "every": "1s" }, "warm_up": "1ns", "max_idle": "3s" }));
    // What is at the tick is in; two minutes of silence repeat for three seconds.
    assert_eq!(seconds(&ran), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 120.0]);
    assert_eq!(ran.counts.idle, 113);
    let [one, two, _, four, _, six, last] = &ran.samples[..] else { panic!() };
    assert_eq!(ohlc(one), [100.0, 101.0, 100.0, 101.0]);
    // e: +2 for the size; +3 for the better bid, -5 + 5 for the same ask; then +3 - 3 and +5.
    assert_eq!(one.flow, Some(2.0 + 3.0 + 5.0));
    assert_eq!(one.touch, Some((8.5 + 4.0 + 5.5) / 3.0));
    assert_eq!((one.volume, one.bought, one.depth), (0.0, None, None));
    assert_eq!(ohlc(two), [101.0; 4]);
    assert_eq!((two.flow, two.touch), (Some(0.0), Some(5.5)));
    assert_eq!(ohlc(four), [101.0, 101.0, 100.0, 100.0]);
    assert_eq!(four.flow, Some(-3.0));
    assert_eq!(ohlc(six), [100.0; 4]);
    assert_eq!(ohlc(last), [99.0; 4]);
    assert_eq!(last.quote, Some(Quote { bid: 98.0, bid_size: 3.0, ask: 100.0, ask_size: 8.0 }));
}

#[test]
fn no_sample_before_the_warm_up() {
    let text = "time,side,price,size
2024-08-09T00:00:00.5Z,bid,99,1
2024-08-09T00:00:00.5Z,ask,101,1
2024-08-09T00:00:01.5Z,ask,101,2
2024-08-09T00:00:02.5Z,ask,101,3
2024-08-09T00:00:03Z,ask,101,4
";
    let sampling = json!({ "clock": { "every": "1s" }, "warm_up": "2s" });
    let files = [("d.csv", text.as_bytes())];
    let ran = run(&json!({ "depth": {} }), &files, &sampling, &json!({})).unwrap();
    assert_eq!(seconds(&ran), [3.0]);
    assert_eq!(ran.counts.warm_up, 2);
}

#[test]
fn trades_by_the_second() {
    let ran = trades(json!({ "every": "1s" }));
    assert_eq!(seconds(&ran), [1.0, 2.0, 3.0]);
    let [one, two, three] = &ran.samples[..] else { panic!() };
    assert_eq!(ohlc(one), [10.0, 12.0, 10.0, 11.0]);
    assert_eq!((one.volume, one.turnover, one.bought), (6.0, 10.0 + 24.0 + 33.0, Some(4.0)));
    assert_eq!(one.trades.len(), 3);
    assert_eq!((one.quote, one.flow, one.depth), (None, None, None));
    assert_eq!(ohlc(two), [13.0; 4]);
    // A trade that does not say who took.
    assert_eq!((ohlc(three), three.bought), ([9.0; 4], None));
}

#[test]
fn an_interval_without_trades_repeats_the_last() {
    let ran = trades(json!({ "every": "100ms" }));
    let sample = &ran.samples[5];
    assert_eq!((ohlc(sample), sample.volume, sample.bought), ([11.0; 4], 0.0, Some(0.0)));
    assert!(sample.trades.is_empty());
}

#[test]
fn clocks_of_events_volume_and_dollars() {
    // The second trade fills it; that of the same time comes along.
    let ran = trades(json!({ "events": 2 }));
    assert_eq!(seconds(&ran), [0.2, 3.0]);
    assert_eq!(ran.samples[0].volume, 6.0);
    assert_eq!(ran.samples[1].volume, 5.0);
    assert_eq!(ran.counts.left, 0);

    let ran = trades(json!({ "volume": 3.5 }));
    assert_eq!(seconds(&ran), [0.2, 1.5]);
    assert_eq!(ran.counts.left, 1);

    let ran = trades(json!({ "dollars": 119.0 }));
    assert_eq!(seconds(&ran), [1.5]);
    assert_eq!(ran.samples[0].turnover, 67.0 + 52.0);
}

#[test]
fn flow_is_that_of_the_paper() {
    let quote = |bid, bid_size, ask, ask_size| Quote { bid, bid_size, ask, ask_size };
    let old = quote(99.0, 10.0, 101.0, 5.0);
    // A bid that falls takes away what was there; an ask that falls adds what is offered.
    assert_eq!(flow(&old, &quote(98.0, 4.0, 101.0, 5.0)), -10.0);
    assert_eq!(flow(&old, &quote(99.0, 10.0, 100.0, 7.0)), -7.0);
    assert_eq!(flow(&old, &quote(99.0, 10.0, 102.0, 7.0)), 5.0);
    assert_eq!(flow(&old, &quote(99.0, 6.0, 101.0, 9.0)), -8.0);
}

#[test]
fn a_book_without_a_snapshot_warms_up() {
    let whole = super::made::spot();
    let text = std::str::from_utf8(&whole).unwrap();
    let depth: String = text
        .lines()
        .filter(|line| line.contains("depthUpdate"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let sampling = json!({ "clock": { "every": "100ms" }, "warm_up": "1s" });
    let files = [("day", depth.as_bytes())];
    let ran = run(&json!({ "binance": {} }), &files, &sampling, &json!({})).unwrap();
    assert!(ran.counts.warm_up >= 10, "{:?}", ran.counts);
    assert_eq!(ran.counts.snapshots, 0);
    assert!(!ran.samples.is_empty());
    let first: i64 = depth[..19].parse().unwrap();
    assert!(ran.samples[0].time >= first + 1_000_000_000);
    // With the snapshot there is no need to.
    let files = [("day", &whole[..])];
    let ran = run(&json!({ "binance": {} }), &files, &sampling, &json!({})).unwrap();
    assert!(ran.samples[0].time < first + 400_000_000);
}

#[test]
fn contracts_are_counted_in_coins() {
    let whole = super::made::coin();
    let files = [("day", &whole[..])];
    let sampling = json!({ "clock": { "every": "100ms" } });
    let ran = run(&json!({ "binance": {} }), &files, &sampling, &json!({})).unwrap();
    let traded = ran.samples.iter().find(|sample| sample.volume > 0.0).unwrap();
    let trade = traded.trades[0];
    // A contract is 100 USD.
    let contracts = trade.price * trade.size / 100.0;
    assert!((contracts - contracts.round()).abs() < 1e-9, "{trade:?}");
    assert!((traded.turnover / traded.volume / trade.price - 1.0).abs() < 1e-3);
    let source = json!({ "binance": { "contract": 10.0 } });
    let other = run(&source, &files, &sampling, &json!({})).unwrap();
    let same = other.samples.iter().find(|sample| sample.time == traded.time).unwrap();
    assert!((same.turnover * 10.0 / traded.turnover - 1.0).abs() < 1e-12);
}
