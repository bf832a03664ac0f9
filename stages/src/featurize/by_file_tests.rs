//! One file at a time: the rows are those of a run over all files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fit::Fit;
use super::split::Split;
use super::table::{self, Row, Rows};
use super::tests::{day, simulated};
use super::*;
use crate::Kind;
use crate::testing::{self, Ran};

/// Writes files `0.csv`, `1.csv`, ... of so many rows each.
fn files(dir: &Path, header: &str, rows: &[String], each: usize) -> Vec<PathBuf> {
    let write = |(at, rows): (usize, &[String])| {
        let path = dir.join(format!("{at}.csv"));
        let mut text = format!("{header}\n");
        rows.iter().for_each(|row| writeln!(text, "{row}").unwrap());
        fs_err::write(&path, text).unwrap();
        path
    };
    rows.chunks(each).enumerate().map(write).collect()
}

/// Runs the last of the files, with the others before it.
fn one(params: &Value, port: &str, files: &[PathBuf], fit: &Path) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        fs_err::copy(file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    testing::run::<Featurize>(params.clone(), &[(port, dir.path()), ("fit", fit)]).unwrap()
}

/// The tables of all files, each with `behind` before it, as one series.
fn by_file(params: &Value, port: &str, files: &[PathBuf], fit: &Path) -> Vec<Row> {
    let behind = params["by_file"]["behind"].as_u64().unwrap() as usize;
    let ran: Vec<Ran> = (0..files.len())
        .map(|at| one(params, port, &files[at.saturating_sub(behind)..=at], fit))
        .collect();
    let tables: Vec<PathBuf> = (ran.iter().enumerate())
        .map(|(at, ran)| ran.outputs["features"].join(format!("{at}.csv")))
        .collect();
    Rows::open_all(&tables).unwrap().collect::<Result<_>>().unwrap()
}

const BARS: &str = "Date,Open,High,Low,Close,Volume";

/// The rows of a run over all files and those of each file by itself.
fn both(each: usize, features: Value) -> (Vec<Row>, Vec<Row>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path(), BARS, &simulated(10 * each, 5), each);
    let mut with = json!({ "features": features, "splits": { "train_end": day(6 * each - 1) } });
    let whole = testing::run::<Featurize>(with.clone(), &[("bars", dir.path())]).unwrap();
    with["by_file"] = json!({ "behind": 2 });
    let own = by_file(&with, "bars", &paths, &whole.outputs["fit"]);
    (table::read(&whole.outputs["features"]).unwrap(), own)
}

fn bits(row: &Row) -> Vec<u64> {
    row.features.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn rows_are_those_of_all_files_where_the_files_before_fill_the_windows() {
    let features = json!([{ "momentum": { "bars": 5 } }, "realised_vol", "vwap_dev_bps", "rsi_14"]);
    // Windows of 20 in files of 60: sums over a window begin at the same rows, and so round alike.
    let (whole, own) = both(60, features.clone());
    let of = |rows: &[Row]| rows.iter().map(|row| row.date.clone()).collect::<Vec<_>>();
    assert_eq!(of(&own), of(&whole));
    for (own, whole) in own.iter().zip(&whole) {
        assert_eq!(bits(own)[..3], bits(whole)[..3], "{}", own.date);
        assert_eq!((own.close, own.volume), (whole.close, whole.volume));
    }
    // In files of 57 they begin elsewhere, and the last digits differ.
    let (whole, own) = both(57, features);
    let mut rsi = 0f64;
    for (own, whole) in own.iter().zip(&whole) {
        // A deviation in basis points is a difference of numbers of 1e4.
        for ((x, y), size) in own.features.iter().zip(&whole.features).zip([1.0, 1.0, 1e4]) {
            let apart = (x - y).abs() / y.abs().max(size);
            assert!(apart < 1e-12 || x.is_nan() && y.is_nan(), "{}: {x}, not {y}", own.date);
        }
        // What has no end begins anew with the first file that is read.
        rsi = rsi.max((own.features[3] - whole.features[3]).abs());
    }
    assert!((1e-9..1.0).contains(&rsi), "{rsi}");
}

#[test]
fn spans_go_by_dates_and_the_ends_of_files_are_a_gap() {
    let (whole, own) = both(60, json!(["realised_vol"]));
    for (row, (own, whole)) in own.iter().zip(&whole).enumerate() {
        let end = row / 60 < 6 && row % 60 >= 55;
        let expected = if end && whole.split == Split::Train { Split::Gap } else { whole.split };
        assert_eq!(own.split, expected, "row {row}");
    }
}

#[test]
fn labels_end_with_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path(), BARS, &simulated(180, 5), 60);
    let with = json!({
        "features": ["realised_vol"],
        "label": { "forward_return": { "horizon": { "bars": 3 } } },
        "splits": { "train_end": day(119) },
    });
    let whole = testing::run::<Featurize>(with.clone(), &[("bars", dir.path())]).unwrap();
    let mut with = with;
    with["by_file"] = json!({});
    let ran = one(&with, "bars", &paths[..2], &whole.outputs["fit"]);
    let text = fs_err::read_to_string(ran.outputs["features"].join("1.csv")).unwrap();
    let tail = |text: &str| -> Vec<String> {
        let cells = |line: &str| line.rsplitn(4, ',').take(3).collect::<Vec<_>>().join(",");
        text.lines().skip(1).map(cells).collect()
    };
    let (own, whole) = (tail(&text), tail(&whole.text("features")));
    assert_eq!(own.len(), 60);
    assert_eq!(own[..57], whole[60..117]);
    assert_eq!(own[57..], [",,", ",,", ",,"]);
    assert_eq!(ran.metrics["rows_train"], 55.0);
    assert_eq!(ran.metrics["rows_gap"], 5.0);
}

#[test]
fn every_tick_of_a_clock_is_of_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let tick = |at: usize| format!("2024-01-02T00:{:02}:{:02}", at / 600, at % 600 / 10);
    // A trade each 0.7 s; the last of the first file is at a whole second, and seconds are empty
    // between the second and the third.
    let rows: Vec<String> = (0..300)
        .map(|row| row * 7 + if row < 200 { 7 } else { 47 })
        .map(|at| format!("{}.{},{},1", tick(at), at % 10, 100 + at % 13))
        .collect();
    let paths = files(dir.path(), "time,price,size", &rows, 100);
    assert!(rows[99].contains(".0,"), "{}", rows[99]);
    let with = json!({
        "source": { "trades": {} },
        "features": [{ "momentum": { "window": 5 } }],
        "splits": { "train_end": tick(1400) },
    });
    let whole = testing::run::<Featurize>(with.clone(), &[("events", dir.path())]).unwrap();
    let whole_rows = table::read(&whole.outputs["features"]).unwrap();
    let mut with = with;
    with["by_file"] = json!({ "behind": 1 });
    let own = by_file(&with, "events", &paths, &whole.outputs["fit"]);
    let of = |rows: &[Row]| -> Vec<(String, f64, f64)> {
        rows.iter().map(|row| (row.date.clone(), row.close, row.volume)).collect()
    };
    assert_eq!(of(&own), of(&whole_rows));
}

#[test]
fn too_few_files_before_are_warned_of_and_tables_keep_folders() {
    let dir = tempfile::tempdir().unwrap();
    let paths = files(dir.path(), BARS, &simulated(40, 5), 10);
    let fit = dir.path().join("fit.json");
    fs_err::write(&fit, serde_json::to_string(&Fit::default()).unwrap()).unwrap();
    let with = json!({
        "features": ["realised_vol"],
        "splits": { "train_end": day(39) },
        "by_file": { "behind": 1 },
    });
    let ran = one(&with, "bars", &paths[..2], &fit);
    assert!(ran.warnings[0].contains("raise `by_file.behind`"), "{:?}", ran.warnings);
    // The first file has none before it: nothing can be done about that.
    assert!(one(&with, "bars", &paths[..1], &fit).warnings.is_empty());
    assert_eq!(ran.outputs.len(), 1);
    for (item, table) in [
        ("btc/2024-01-02.csv.gz", "btc/2024-01-02.csv"),
        ("a.parquet", "a.csv"),
        ("v1.2/day", "v1.2/day.csv"),
        ("x.jsonl.xz", "x.csv"),
    ] {
        assert_eq!(write::table_name(item), table);
    }
}

#[test]
fn what_one_file_does_not_tell_is_refused() {
    let error = |with: Value| {
        let mut with = with;
        with["by_file"] = json!({});
        (Kind::of::<Featurize>().resolve)(&with).unwrap_err().path
    };
    let end = json!({ "train_end": "2024-01-01" });
    assert_eq!(error(json!({})), "splits.train_end");
    assert_eq!(error(json!({ "splits": end, "check": "causality" })), "check");
    let count = json!({ "clock": { "volume": 5.0 } });
    let trades = json!({ "trades": {} });
    assert_eq!(
        error(json!({ "splits": end, "source": trades, "sampling": count })),
        "sampling.clock"
    );
    let folds = json!({ "train_end": "2024-01-01", "folds": { "k_fold": { "folds": 3 } } });
    assert_eq!(error(json!({ "splits": folds })), "splits.folds");
    assert!((Kind::of::<Featurize>().resolve)(&json!({ "by_file": {}, "splits": end })).is_ok());
    // Without it nothing changes in what is keyed.
    let plain = (Kind::of::<Featurize>().resolve)(&json!({})).unwrap();
    assert!(plain.get("by_file").is_none());
}
