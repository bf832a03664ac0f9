//! Two real symbols from end to end.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::binance::{Binance, Stream};
use super::super::book::Book;
use super::super::event::{Events, Level, What};
use super::super::file::Lines;
use super::super::message::{Kind, Message, parse};
use super::super::quality::{Counts, Quality, Tally};
use super::super::{Quote, Sample};
use super::mirror;

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

fn levels(value: &Value) -> Vec<Level> {
    let level = |pair: &Value| Level { price: number(&pair[0]), size: number(&pair[1]) };
    value.as_array().unwrap().iter().map(level).collect()
}

/// The message by serde_json.
fn expected(line: &[u8]) -> Message {
    let value: Value = serde_json::from_slice(line).unwrap();
    let data = value.get("data").unwrap_or(&value);
    let mut message = Message {
        first: data["U"].as_u64(),
        last: data["u"].as_u64().or(data["lastUpdateId"].as_u64()),
        previous: data["pu"].as_u64(),
        ..Message::default()
    };
    let symbol = data.get("s").or(data.get("symbol")).and_then(Value::as_str);
    if let Some(symbol) = symbol {
        let text = std::str::from_utf8(line).unwrap();
        let key = if data.get("s").is_some() { "\"s\":\"" } else { "\"symbol\":\"" };
        let at = text.find(key).unwrap() + key.len();
        message.symbol = Some(at..at + symbol.len());
    }
    match data["e"].as_str() {
        Some("depthUpdate") => {
            message.kind = Kind::Depth;
            (message.bids, message.asks) = (levels(&data["b"]), levels(&data["a"]));
        }
        Some("trade") => {
            message.kind = Kind::Trade;
            message.id = data["t"].as_u64();
            (message.price, message.size) = (number(&data["p"]), number(&data["q"]));
            message.maker_bought = data["m"].as_bool();
        }
        None if data.get("bids").is_some() => {
            message.kind = Kind::Snapshot;
            (message.bids, message.asks) = (levels(&data["bids"]), levels(&data["asks"]));
        }
        Some("bookTicker") | None => {
            message.kind = Kind::Ticker;
            (message.price, message.size) = (number(&data["b"]), number(&data["B"]));
            (message.ask, message.ask_size) = (number(&data["a"]), number(&data["A"]));
        }
        other => panic!("{other:?}"),
    }
    message
}

fn read_as_serde_json_does(paths: Vec<PathBuf>) -> u64 {
    let mut lines = Lines::new(paths);
    let (mut message, mut count) = (Message::default(), 0);
    while lines.advance().unwrap() {
        let json = &lines.line()[20..];
        parse(json, 0, &mut message).unwrap();
        assert_eq!(message, expected(json), "{:?}", lines.place());
        count += 1;
    }
    count
}

#[test]
fn every_line_reads_as_serde_json_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, count) in
        [("spot", super::made::spot(), 600), ("coin", super::made::coin(), 400)]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_as_serde_json_does(vec![path]), count);
    }
    if let Some(paths) = mirror::series(mirror::SPOT) {
        assert_eq!(read_as_serde_json_does(paths), 99_574);
    }
    if let Some(paths) = mirror::series(mirror::COIN) {
        assert_eq!(read_as_serde_json_does(paths), 98_386);
    }
}

/// How often the best quotes of the depth book are those of the ticker, wherever the ids say that they
/// must: after update `u` of the book, those of the last ticker with an id of at most `u`.
struct Agreement {
    same: u64,
    other: u64,
    counts: Counts,
}

fn agreement(paths: Vec<PathBuf>) -> Agreement {
    let mut tally = Tally::new(&Quality::default(), paths.clone());
    let mut tickers: Vec<(u64, Quote)> = Vec::new();
    let mut events = Stream::new(&Binance::default(), paths.clone());
    while events.advance(&mut tally).unwrap() {
        if let What::Quote(quote, Some(id)) = events.event().what {
            tickers.push((id, quote));
        }
    }
    let mut tally = Tally::new(&Quality::default(), paths.clone());
    let mut events = Stream::new(&Binance::default(), paths);
    let mut book = Book::default();
    let (mut same, mut other) = (0, 0);
    while events.advance(&mut tally).unwrap() {
        let event = events.event();
        let What::Depth(depth) = event.what else { continue };
        book.change(event.time, event.place, &depth, &mut tally).unwrap();
        if !book.is_whole() {
            continue;
        }
        let last = book.last().unwrap();
        let at = tickers.partition_point(|(id, _)| *id <= last);
        let Some((_, quote)) = at.checked_sub(1).and_then(|at| tickers.get(at)) else { continue };
        if book.best() == Some(*quote) {
            same += 1;
        } else {
            other += 1;
            println!("{} {:?} {quote:?}", event.place.line, book.best());
        }
    }
    Agreement { same, other, counts: tally.counts }
}

/// Where two do not agree the ticker has left out a state: an update ends amid a burst of trades (at
/// 00:01:04.831 and 00:01:05.930) that took the best bid, as the trades that follow say, and the ticker's
/// next id comes after the burst.
#[test]
fn the_spot_book_agrees_with_the_ticker() {
    let Some(paths) = mirror::series(mirror::SPOT) else { return };
    let found = agreement(paths);
    println!("{} same, {} not", found.same, found.other);
    assert_eq!((found.same, found.other), (6_491, 2));
    assert!(found.counts.faults().iter().all(|(_, count)| *count == 0), "{:?}", found.counts);
}

#[test]
fn the_coin_book_agrees_with_the_ticker() {
    let Some(paths) = mirror::series(mirror::COIN) else { return };
    let found = agreement(paths);
    println!("{} same, {} not", found.same, found.other);
    assert_eq!((found.same, found.other), (44_771, 0));
    assert!(found.counts.faults().iter().all(|(_, count)| *count == 0), "{:?}", found.counts);
}

#[test]
fn two_days_are_one_stream_of_samples() {
    let every = json!({ "clock": { "every": "100ms" } });
    for (digests, lines, levels, trades) in
        [(mirror::SPOT, 99_574, 300_111, 19_904), (mirror::COIN, 98_386, 661_671, 5_235)]
    {
        let Some(paths) = mirror::series(digests) else { return };
        let ran = super::run_at(&json!({ "binance": {} }), &paths, &every, &json!({})).unwrap();
        assert_eq!(ran.counts.lines, lines);
        assert_eq!(ran.counts.levels, levels);
        assert_eq!(ran.counts.trades, trades);
        assert!(ran.counts.faults().iter().all(|(_, count)| *count == 0), "{:?}", ran.counts);
        // Midnight, where one file ends and the next begins, is a step like any other.
        assert!(ran.samples.windows(2).all(|two| two[1].time - two[0].time == 100_000_000));
        let given: usize = ran.samples.iter().map(|sample| sample.trades.len()).sum();
        assert!(given as u64 <= trades && given as u64 > trades - 100, "{given}");
        for sample in &ran.samples {
            sane(sample);
        }
    }
}

fn sane(sample: &Sample) {
    let quote = sample.quote.unwrap();
    assert!(quote.bid < quote.ask, "{sample:?}");
    assert_eq!(sample.close, quote.mid());
    assert!(sample.low <= sample.open && sample.open <= sample.high, "{sample:?}");
    assert!(sample.low <= sample.close && sample.close <= sample.high, "{sample:?}");
    assert!(sample.bought.is_none_or(|bought| bought <= sample.volume + 1e-9), "{sample:?}");
    let touch = quote.bid * quote.bid_size + quote.ask * quote.ask_size;
    assert!(sample.depth.unwrap() >= touch, "{sample:?}");
    assert!(sample.trades.iter().all(|trade| trade.time <= sample.time), "{sample:?}");
    let turnover: f64 = sample.trades.iter().map(|trade| trade.price * trade.size).sum();
    assert!((turnover - sample.turnover).abs() <= 1e-9 * turnover, "{sample:?}");
}
