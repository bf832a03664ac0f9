//! The stage on files, most of them the trials of `testdata`: 25 moving-average crosses on the
//! S&P 500, whose returns are computed here from the closes by the rule.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::input::Run;
use super::overfit::{cscv, min_track_record};
use super::*;
use crate::evaluate::inference::Moments;
use crate::evaluate::metrics::{sharpe, sharpe_per_bar};
use crate::evaluate::selection::best_by_chance;
use crate::evaluate::testdata::{boot, close};
use crate::testing;

/// Closes of the S&P 500 that `pipelines/quickstart` brings.
const CLOSES: &str = include_str!("../../../pipelines/quickstart/data/sp500.csv");
/// The first and last date of the reference's closes, and closes before its returns begin.
const SPAN: (&str, &str, usize) = ("2010-01-04", "2018-12-31", 200);

/// Dates and returns of the 25 rules: long where the mean of the last `fast` closes lies above that of
/// the last `slow`, from that close to the next; 5 bps of each change of the position, from flat.
fn crosses() -> (Vec<String>, Vec<(String, Vec<f64>)>) {
    let rows = CLOSES.lines().skip(1).map(|l| l.split_once(',').unwrap());
    let rows: Vec<(&str, f64)> = rows
        .filter(|(date, _)| (SPAN.0..=SPAN.1).contains(date))
        .map(|(date, close)| (date, close.parse().unwrap()))
        .collect();
    let mean = |t: usize, w: usize| rows[t + 1 - w..=t].iter().map(|r| r.1).sum::<f64>() / w as f64;
    let mut all = Vec::new();
    for fast in [5, 10, 20, 30, 50] {
        for slow in [60, 80, 100, 150, 200] {
            let mut held = 0.0;
            let mut returns = Vec::new();
            for t in SPAN.2..rows.len() - 1 {
                let position = f64::from(mean(t, fast) > mean(t, slow));
                let change: f64 = position - held;
                held = position;
                returns.push(position * (rows[t + 1].1 / rows[t].1 - 1.0) - 0.0005 * change.abs());
            }
            all.push((format!("fast={fast},slow={slow}"), returns));
        }
    }
    (rows[SPAN.2 + 1..].iter().map(|r| r.0.to_owned()).collect(), all)
}

/// What an `evaluate` leaves of a model and of buy and hold.
fn evaluated(returns: &[f64], hold: &[f64], per_year: f64) -> Value {
    let strategy = |name: &str, x: &[f64]| {
        json!({"name": name, "about": "a test", "metrics": {
            "sharpe": sharpe(x, per_year), "trades": 12, "turnover": 3.5, "costs": 0.01,
            "hits": {"count": 12, "rate": 0.5, "payoff": 1.2, "expectancy": 0.001, "profit_factor": 1.2},
        }})
    };
    json!({
        "provenance": {"seed": 0, "per_year": per_year, "models": ["a rule"], "params":
            {"taker_fee_bps": 4.0, "half_spread_bps": 1.0, "maker_fee_bps": 0.0, "latency": 1, "unit": 1.0}},
        "strategies": [strategy("model", returns), strategy("buy and hold", hold)],
    })
}

fn write(folder: &Path, metrics: &Value, dates: &[String], columns: &[(&str, &[f64])]) {
    fs_err::create_dir_all(folder).unwrap();
    fs_err::write(folder.join("metrics.json"), metrics.to_string()).unwrap();
    let mut csv = String::from("date");
    columns.iter().for_each(|(name, _)| write!(csv, ",{name}").unwrap());
    for (i, date) in dates.iter().enumerate() {
        write!(csv, "\n{date}").unwrap();
        columns.iter().for_each(|(_, x)| write!(csv, ",{}", x[i]).unwrap());
    }
    fs_err::write(folder.join("returns.csv"), csv + "\n").unwrap();
}

/// A folder as a port that gathers the crosses is given it.
fn gathered(dir: &Path) -> PathBuf {
    let (dates, all) = crosses();
    let hold = hold(&dates);
    for (cell, returns) in &all {
        let metrics = evaluated(returns, &hold, 252.0);
        let columns = [("model", returns.as_slice()), ("buy and hold", &hold)];
        write(&dir.join("crosses").join(cell), &metrics, &dates, &columns);
    }
    dir.join("crosses")
}

fn hold(dates: &[String]) -> Vec<f64> {
    let all: Vec<(&str, f64)> = CLOSES
        .lines()
        .skip(1)
        .map(|l| l.split_once(',').unwrap())
        .map(|(d, c)| (d, c.parse().unwrap()))
        .collect();
    let first = all.iter().position(|r| r.0 == dates[0]).unwrap();
    (first..first + dates.len()).map(|t| all[t].1 / all[t - 1].1 - 1.0).collect()
}

#[test]
fn the_crosses_are_those_of_the_reference() {
    let (dates, all) = crosses();
    assert_eq!((all.len(), dates.len()), (25, 2063));
    assert_eq!((dates[0].as_str(), all[10].0.as_str()), ("2010-10-20", "fast=20,slow=60"));
    // `boot.csv` holds the returns of 20 over 60 as NumPy has them, from closes with six decimals.
    let (reference, _) = boot();
    for (a, b) in all[10].1.iter().zip(&reference) {
        close(*a, *b, 2e-7);
    }
}
