mod causality;
mod learning;
mod list;
mod micro;
mod vectors;

use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::flow::order_flow;
use super::*;
use crate::market::{Quote, Trade};

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/featurize/testdata").join(name)
}

fn reference(name: &str) -> Value {
    serde_json::from_str(&fs_err::read_to_string(testdata(name)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn maybe(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

/// The rows of a CSV file, without the first column as text.
fn table(name: &str) -> Vec<Vec<f64>> {
    let mut reader = csv::Reader::from_path(testdata(name)).unwrap();
    let rows = reader
        .records()
        .map(|row| row.unwrap().iter().map(|cell| cell.parse().unwrap_or(f64::NAN)).collect());
    rows.collect()
}

/// Every source can do everything.
const ALL: Source = Source { index: true, peers: true, ..Source::BOOK };

/// Bars beside an index and peers.
const BARS: Source = Source { index: true, peers: true, ..Source::BARS };

/// One column of a list in YAML's shape, with no fits.
fn column(spec: Value) -> Column {
    let list: Vec<FeatureSpec> = serde_json::from_value(Value::Array(vec![spec])).unwrap();
    parse(&list).unwrap().remove(0)
}

fn run(spec: Value, source: &Source, samples: &[Sample]) -> Vec<Option<f64>> {
    let mut feature = column(spec).make(1.0, source, &Fits::new()).unwrap();
    samples.iter().map(|sample| feature.push(sample)).collect()
}

fn bar([open, high, low, close, volume]: [f64; 5], row: usize) -> Sample {
    let time = row as i64 * 86_400 * SECOND;
    let turnover = close * volume;
    Sample { time, open, high, low, close, volume, turnover, ..Sample::default() }
}

fn flat(close: f64) -> Sample {
    bar([close, close, close, close, 1.0], 0)
}

/// The daily bars of the vectors.
fn daily() -> Vec<Sample> {
    let index = table("index.csv");
    let rows = table("daily.csv").into_iter().zip(index).enumerate();
    let sample = |(row, (b, i)): (usize, (Vec<f64>, Vec<f64>))| Sample {
        index: Some(i[1]),
        ..bar([b[1], b[2], b[3], b[4], b[5]], row)
    };
    rows.map(sample).collect()
}

/// Longer: closes alone, with the index.
fn closes() -> Vec<Sample> {
    table("closes.csv").iter().map(|row| Sample { index: Some(row[2]), ..flat(row[1]) }).collect()
}

/// Compares a series with a reference in which null is warm-up, row by row.
fn compare(name: &str, ours: &[Option<f64>], theirs: &[Option<f64>], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    assert!(theirs.iter().flatten().count() > 0, "{name}: nothing to compare");
    for (row, (a, b)) in ours.iter().zip(theirs).enumerate() {
        match (a, b) {
            (Some(a), Some(b)) => {
                let away = (a - b).abs();
                assert!(away <= tolerance * b.abs().max(1e-6), "{name}, row {row}: {a}, not {b}");
            }
            (a, b) => assert_eq!(a, b, "{name}, row {row}"),
        }
    }
}

fn close_to(name: &str, a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * b.abs().max(1e-12), "{name}: {a}, not {b}");
}

/// A market with everything, from a seed: two regimes, quotes, trades of which a tenth say no side,
/// depth, an index, three peers, and now and then an interval in which nothing happens.
fn market(rows: usize, seed: u64) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || rng.random::<f64>();
    let (mut close, mut index, mut peers) = (100.0f64, 1000.0f64, [50.0f64, 80.0, 20.0]);
    let mut quote: Option<Quote> = None;
    let mut samples = Vec::with_capacity(rows);
    for row in 0..rows {
        let time = 1_500_000_000 * SECOND + row as i64 * 7_000 * SECOND;
        let sigma = if row / 60 % 2 == 0 { 0.004 } else { 0.02 };
        let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let common = normal();
        index *= (sigma * common).exp();
        for (peer, own) in peers.iter_mut().zip([0.3, 0.6, 0.9]) {
            *peer *= (sigma * (common + own * normal())).exp();
        }
        let quiet = row % 17 == 11;
        let open = close;
        if !quiet {
            close *= (sigma * (0.7 * common + 0.7 * normal())).exp();
        }
        let (up, down) = (0.3 * sigma * normal().abs(), 0.3 * sigma * normal().abs());
        let (high, low) = (open.max(close) * up.exp(), open.min(close) * (-down).exp());
        let mut trades = Vec::new();
        for k in 0..if quiet { 0 } else { (uniform() * 6.0) as usize + 1 } {
            let side = uniform();
            trades.push(Trade {
                time: time - (6 - k as i64) * SECOND,
                price: close * (1.0 + 1e-4 * (side - 0.5)),
                size: 1.0 + (uniform() * 50.0).round(),
                bought: (side > 0.1).then_some(side > 0.55),
            });
        }
        let volume: f64 = trades.iter().map(|t| t.size).sum();
        let signed = trades.iter().all(|t| t.bought.is_some());
        let bought = trades.iter().filter(|t| t.bought == Some(true)).map(|t| t.size).sum();
        let half = close * 1e-4 * (0.5 + uniform());
        let now = Quote {
            bid: close - half,
            bid_size: 1.0 + (uniform() * 9.0).round(),
            ask: close + half,
            ask_size: 1.0 + (uniform() * 9.0).round(),
        };
        samples.push(Sample {
            time,
            open,
            high,
            low,
            close,
            volume,
            turnover: trades.iter().map(|t| t.price * t.size).sum(),
            bought: (signed && row % 3 == 0).then_some(bought),
            trades,
            quote: Some(now),
            depth: Some(1e5 * (0.5 + uniform())),
            flow: Some(quote.map_or(0.0, |before| order_flow(&before, &now))),
            touch: Some((now.bid_size + now.ask_size) / 2.0),
            index: (row > 2).then_some(index),
            peers: peers.to_vec(),
        });
        quote = Some(now);
    }
    samples
}

/// Learns what the columns need from the first `train` samples.
fn fits(columns: &[Column], source: &Source, samples: &[Sample], train: usize) -> Fits {
    let mut fits = Fits::new();
    for column in columns {
        let Some(mut learner) = column.learner(252.0, source).unwrap() else { continue };
        samples[..train].iter().for_each(|sample| learner.push(sample));
        fits.insert(column.name.clone(), learner.finish(&mut |_, _| Ok(())).unwrap());
    }
    fits
}

/// Every feature of the table with its defaults, but for windows that are as long as a year.
fn everything() -> Vec<Column> {
    let list: Vec<FeatureSpec> = FEATURES.iter().map(|e| FeatureSpec::new(e.name)).collect();
    parse(&list).unwrap()
}
