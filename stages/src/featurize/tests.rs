use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::featurize::split::Split;
use crate::testing::{self, Ran};

/// Bars with two regimes, dated by the day from 2000-01-01 in years of twelve months of 28 days.
pub fn simulated(rows: usize, seed: u64) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    let mut close = 100.0;
    (0..rows)
        .map(|row| {
            let sigma = if row / 90 % 2 == 0 { 0.006 } else { 0.02 };
            let open = close * (0.2 * sigma * normal()).exp();
            close = open * (sigma * normal()).exp();
            let high = open.max(close) * (0.5 * sigma * normal().abs()).exp();
            let low = open.min(close) * (-0.5 * sigma * normal().abs()).exp();
            let volume = (1e6 * (0.3 * normal()).exp()).round();
            format!("{},{open},{high},{low},{close},{volume}", day(row))
        })
        .collect()
}

pub fn day(row: usize) -> String {
    format!("{}-{:02}-{:02}", 2000 + row / 336, row / 28 % 12 + 1, row % 28 + 1)
}

pub fn bars_file(dir: &Path, rows: &[String]) -> PathBuf {
    let path = dir.join("bars.csv");
    let mut text = String::from("Date,Open,High,Low,Close,Volume\n");
    rows.iter().for_each(|row| writeln!(text, "{row}").unwrap());
    fs_err::write(&path, text).unwrap();
    path
}

pub fn params() -> Value {
    json!({ "splits": { "train_end": day(599), "embargo_bars": 7, "horizon_bars": 4 } })
}

fn run(params: Value, bars: &Path) -> Result<Ran> {
    testing::run::<Featurize>(params, &[("bars", bars)])
}

/// A column of the features, as text.
fn column(ran: &Ran, name: &str) -> Vec<String> {
    let text = ran.text("features");
    let at = text.lines().next().unwrap().split(',').position(|own| own == name).unwrap();
    text.lines().skip(1).map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
}

#[test]
fn splits_are_purged_and_embargoed() {
    let dir = tempfile::tempdir().unwrap();
    let ran = testing::run::<Featurize>(
        params(),
        &[("bars", &bars_file(dir.path(), &simulated(700, 3)))],
    )
    .unwrap();
    let rows = table::read(&ran.outputs["features"]).unwrap();
    let splits: Vec<Split> = rows.iter().map(|row| row.split).collect();
    let count = |split| splits.iter().filter(|s| **s == split).count();
    assert_eq!(splits.iter().position(|s| *s == Split::Train), Some(252));
    // Rows 0 to 599 are the span: labels of 596 and later end after it. 600 to 606 are embargoed.
    assert_eq!(splits[595..597], [Split::Train, Split::Gap]);
    assert_eq!(splits[606..608], [Split::Gap, Split::Test]);
    assert_eq!((count(Split::Gap), count(Split::Test)), (11, 93));
    assert!(splits.is_sorted());
    assert_eq!(ran.metrics["rows_train"], count(Split::Train) as f64);
    let fit: Fit = serde_json::from_str(&ran.text("fit")).unwrap();
    assert_eq!(fit.train, (day(0), day(595)));
    // What was fitted is used as it reads back.
    assert_eq!(serde_json::to_string_pretty(&fit).unwrap() + "\n", ran.text("fit"));
    // The scaler is of the training rows alone.
    let rsi: Vec<f64> =
        rows.iter().filter(|row| row.split == Split::Train).map(|row| row.features[13]).collect();
    let mean = rsi.iter().sum::<f64>() / rsi.len() as f64;
    assert!((fit.scalers["rsi_14"].mean - mean).abs() < 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Whatever follows a row of the test span, be it nothing or nonsense, the rows up to it and
    /// the fit stay as they are, byte for byte.
    #[test]
    fn what_follows_changes_nothing(cut in 610usize..690, seed in 0u64..3) {
        let dir = tempfile::tempdir().unwrap();
        let rows = simulated(700, seed);
        let run = |rows: &[String]| run(params(), &bars_file(dir.path(), rows)).unwrap();
        let whole = run(&rows);
        let short = run(&rows[..cut]);
        let mut other = rows[..cut].to_vec();
        other.extend((cut..cut + 5).map(|row| format!("{},9,9.5,8,9,1", day(row))));
        let other = run(&other);
        let head = |text: String| -> Vec<String> {
            text.lines().take(cut + 1).map(str::to_owned).collect()
        };
        let expected = head(whole.text("features"));
        prop_assert_eq!(&head(short.text("features")), &expected);
        prop_assert_eq!(&head(other.text("features")), &expected);
        prop_assert_eq!(short.text("fit"), whole.text("fit"));
        prop_assert_eq!(other.text("fit"), whole.text("fit"));
    }
}

#[test]
fn the_check_of_causality_passes_and_catches_what_was_fitted_on_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = bars_file(dir.path(), &simulated(700, 4));
    let mut with = params();
    with["check"] = json!("causality");
    let ran = run(with, &path).unwrap();
    assert_eq!(ran.metrics["causality_cuts"], 3.0);
    assert_eq!(ran.text("features"), run(params(), &path).unwrap().text("features"));

    // A feature that is told the highest close of all, as a careless scale would be.
    struct Share(f64);
    impl feature::Feature for Share {
        fn push(&mut self, sample: &crate::market::Sample) -> Option<f64> {
            Some(sample.close / self.0)
        }
    }
    let said = testing::with(&[("bars", &path)], |ctx| {
        let params: Params = serde_json::from_value(params()).unwrap();
        let scan = scan::scan(&params, ctx).unwrap();
        let mut planted = |scan: &scan::Scan| {
            let mut file = crate::market::spool::Unspool::open(&scan.spool)?;
            let (mut sample, mut highest) = (crate::market::Sample::default(), 0f64);
            while crate::market::Samples::next(&mut file, &mut sample)? {
                highest = highest.max(sample.close);
            }
            Ok(write::Rack(vec![Box::new(Share(highest))]))
        };
        let cut = ctx.scratch().join("cut");
        proof::try_at(&scan, 650, &["share"], &cut, &mut planted).unwrap_err().to_string()
    });
    assert!(said.starts_with("`share` at 2000-01-01 depends on what comes after it"), "{said}");
}

#[test]
fn features_are_those_that_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = bars_file(dir.path(), &simulated(700, 4));
    let mut with = params();
    with["features"] = json!(["rsi_14", { "momentum": { "bars": 10, "as": "fast" } }]);
    let ran = run(with, &path).unwrap();
    let head = ran.text("features").lines().next().unwrap().to_owned();
    assert_eq!(head, "date,open,high,low,close,volume,split,rsi_14,fast");
    let plain = run(params(), &path).unwrap();
    assert_eq!(column(&ran, "rsi_14"), column(&plain, "rsi_14"));
    let fit: Fit = serde_json::from_str(&ran.text("fit")).unwrap();
    assert_eq!(fit.scalers.keys().collect::<Vec<_>>(), ["fast", "rsi_14"]);
    assert!(fit.fits.is_empty());
}

#[test]
fn a_fit_is_used_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = bars_file(dir.path(), &simulated(700, 4));
    let learnt = run(params(), &path).unwrap();
    let later = dir.path().join("later");
    fs_err::create_dir(&later).unwrap();
    let other = bars_file(&later, &simulated(700, 5));
    let fit = learnt.outputs["fit"].as_path();
    let ran = testing::run::<Featurize>(params(), &[("bars", &other), ("fit", fit)]).unwrap();
    assert_eq!(ran.text("fit"), learnt.text("fit"));
    assert_ne!(column(&ran, "p_high_vol"), column(&run(params(), &other).unwrap(), "p_high_vol"));

    let mut with = params();
    with["features"] = json!([{ "p_high_vol": { "as": "storm" } }]);
    let error = testing::run::<Featurize>(with, &[("bars", &other), ("fit", fit)]).err().unwrap();
    assert!(error.to_string().ends_with("it holds nothing for column `storm`"), "{error}");
}

#[test]
fn labels_purge_the_training_span_and_fold_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = bars_file(dir.path(), &simulated(700, 4));
    let with = json!({
        "label": { "triple_barrier": { "horizon": { "bars": 20 }, "take": 2, "stop": 2 } },
        "splits": {
            "train_end": day(599), "horizon_bars": 0, "embargo_bars": 3, "holdout_start": day(680),
            "folds": { "combinatorial": { "groups": 4, "test": 2 } }
        }
    });
    let ran = run(with, &path).unwrap();
    let (dates, splits) = (column(&ran, "date"), column(&ran, "split"));
    let (t1, class) = (column(&ran, "t1"), column(&ran, "label"));
    let place = |date: &str| dates.iter().position(|own| own == date);
    let mut purged = 0;
    for row in 253..600 {
        let known = place(&t1[row]).unwrap();
        assert!(known > row && known <= row + 20);
        assert_eq!(splits[row], if known < 600 { "train" } else { "gap" }, "row {row}");
        purged += usize::from(known >= 600);
    }
    assert!(purged > 0);
    assert!(splits[600..603].iter().all(|split| split == "gap"));
    assert!(splits[603..680].iter().all(|split| split == "test"));
    assert!(splits[680..].iter().all(|split| split == "holdout"));
    let count = |value: &str, upto: usize| {
        (0..upto).filter(|&row| splits[row] == "train" && class[row] == value).count() as f64
    };
    let fit: Fit = serde_json::from_str(&ran.text("fit")).unwrap();
    let weighted: f64 = fit.class_weights.iter().map(|(c, w)| w * count(&c.to_string(), 700)).sum();
    assert!((weighted - ran.metrics["rows_train"]).abs() < 1e-6);

    let folds: Value = serde_json::from_str(&ran.text("folds")).unwrap();
    assert_eq!((folds["folds"].as_array().unwrap().len(), &folds["paths"]), (6, &json!(3)));
    let rows = |ranges: &Value| -> Vec<usize> {
        let one = |r: &Value| r[0].as_u64().unwrap() as usize..r[1].as_u64().unwrap() as usize;
        ranges.as_array().unwrap().iter().flat_map(one).collect()
    };
    for fold in folds["folds"].as_array().unwrap() {
        let (train, test) = (rows(&fold["train"]), rows(&fold["test"]));
        assert!(!train.is_empty() && !test.is_empty());
        for &i in &train {
            let until = place(&t1[i]).unwrap();
            assert!(i < 680 && splits[i] != "warmup");
            let apart = |&j: &usize| until < j || i > place(&t1[j]).unwrap();
            assert!(test.iter().all(apart));
        }
    }
    // The last rows have no label, and say so.
    assert_eq!((t1[699].as_str(), class[699].as_str()), ("", ""));
    assert!(ran.metrics["rows_without_label"] >= 1.0);
}

#[test]
fn an_index_stands_beside_the_bars() {
    let dir = tempfile::tempdir().unwrap();
    let rows = simulated(700, 5);
    let path = bars_file(dir.path(), &rows);
    let index = dir.path().join("index.csv");
    let mut text = String::from("close,date\n");
    // Every other day: the days between take the last close.
    for row in (0..700).step_by(2) {
        let close = rows[row].split(',').nth(4).unwrap();
        writeln!(text, "{close},{}", day(row)).unwrap();
    }
    fs_err::write(&index, text).unwrap();
    let mut with = params();
    with["features"] = json!(["rsi_14", "corr_60"]);
    let both = testing::run::<Featurize>(with.clone(), &[("bars", &path), ("index", &index)]);
    let both = both.unwrap();
    for (row, close) in column(&both, "index_close").iter().enumerate() {
        assert_eq!(close, rows[row / 2 * 2].split(',').nth(4).unwrap(), "row {row}");
    }
    assert_eq!(column(&both, "corr_60").iter().filter(|cell| cell.is_empty()).count(), 60);
    let error = run(with, &path).err().unwrap();
    assert!(error.to_string().contains("needs index, and the source has none"), "{error}");
}

#[test]
fn parameters_out_of_range_are_refused() {
    let resolve = crate::Kind::of::<Featurize>().resolve;
    let wrong = [
        (json!({ "features": ["rsi_14", "spred_bps"] }), "features[1]"),
        (json!({ "features": [] }), "features"),
        (
            json!({ "features": [{ "vwap_dev_bps": { "window": 0 } }] }),
            "features[0].vwap_dev_bps.window",
        ),
        (json!({ "periods_per_year": 0 }), "periods_per_year"),
        (json!({ "splits": { "train_end": "01/02/2020" } }), "splits.train_end"),
        (
            json!({ "splits": { "train_end": "2020-01-02", "test_start": "2020-01-02" } }),
            "splits.test_start",
        ),
        (
            json!({ "splits": { "train_end": "2020-01-02", "holdout_start": "2020-01-02" } }),
            "splits.holdout_start",
        ),
        (json!({ "splits": { "train_fraction": 1.0 } }), "splits.train_fraction"),
        (
            json!({ "splits": { "folds": { "purged_k_fold": { "folds": 1 } } } }),
            "splits.folds.purged_k_fold.folds",
        ),
        (
            json!({ "label": { "forward_return": { "horizon": { "bars": 0 } } } }),
            "label.forward_return.horizon.bars",
        ),
    ];
    for (params, path) in wrong {
        assert_eq!(resolve(&params).unwrap_err().path, path);
    }
    assert!(resolve(&json!({})).is_ok());
}

/// Where these numbers move, the bytes of a user's files do: raise `Featurize::VERSION`, and put
/// the new numbers here.
#[test]
fn golden() {
    let dir = tempfile::tempdir().unwrap();
    let path = bars_file(dir.path(), &simulated(700, 3));
    let ran = testing::run::<Featurize>(params(), &[("bars", &path)]).unwrap();
    let rows = table::read(&ran.outputs["features"]).unwrap();
    let names = table::Rows::open(&ran.outputs["features"]).unwrap().names().to_vec();
    assert_eq!(names.len(), 15);
    let expected = [
        109.73753392246931,
        -0.7822167356149871,
        22.755954951244966,
        -1.2324440238247354,
        -0.7024768268687187,
        -0.6921828376827363,
        0.3814033120926419,
        36.98719385657442,
        -0.00834961322817783,
        -472.59721427544423,
        -1.7493028708846143,
        957.9947460778201,
        0.4335841420310013,
        41.958633389787664,
        0.9999995815488333,
    ];
    for ((name, ours), expected) in names.iter().zip(&rows[690].features).zip(expected) {
        let apart = (ours - expected).abs() / expected.abs();
        assert!(apart < 1e-9, "{name}: {ours}, not {expected}; {:?}", rows[690].features);
    }
    assert_eq!(Featurize::VERSION, 2);
}

#[test]
fn a_file_without_test_rows_is_warned_of_and_one_without_training_rows_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = bars_file(dir.path(), &simulated(500, 3));
    let run = |end: usize| {
        let with = json!({ "splits": { "train_end": day(end) } });
        super::tests::run(with, &path)
    };
    let warnings = run(900).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("no row is left to test on"), "{}", warnings[0]);
    let error = run(200).err().unwrap().to_string();
    assert!(error.ends_with("every row of the training span (196 rows) is warm-up"), "{error}");
}

#[test]
fn meta_labels_judge_the_side_of_a_feature_and_of_answers() {
    let dir = tempfile::tempdir().unwrap();
    let bars = bars_file(dir.path(), &simulated(700, 5));
    let mut with = params();
    with["features"] = json!(["rsi_14", { "momentum": { "bars": 20, "as": "trend" } }]);
    with["label"] = json!({ "triple_barrier": { "horizon": { "bars": 4 }, "touch": "close" } });
    let plain = run(with.clone(), &bars).unwrap();
    with["meta"] = json!({ "side": "trend", "above": 0.5 });
    let meta = run(with.clone(), &bars).unwrap();
    let of = |ran: &Ran, name: &str| column(ran, name);
    let (trend, sides) = (of(&meta, "trend"), of(&meta, "label_side"));
    let (labels, returns) = (of(&meta, "label"), of(&meta, "label_return"));
    let mut judged = 0;
    for (row, trend) in trend.iter().enumerate().filter(|(row, _)| *row < 690) {
        let trend: f64 = trend.parse().unwrap_or(0.0);
        let side = if trend > 0.5 {
            "1"
        } else if trend < -0.5 {
            "-1"
        } else {
            ""
        };
        assert_eq!(sides[row], side, "{row}");
        assert_eq!(labels[row].is_empty(), side.is_empty());
        if side.is_empty() {
            continue;
        }
        judged += 1;
        let own: f64 = returns[row].parse().unwrap();
        assert_eq!(labels[row], if own > 0.0 { "1" } else { "0" });
        // The barriers are alike on both sides, and so the market's own label ends when the side's does.
        assert_eq!(of(&plain, "t1")[row], of(&meta, "t1")[row]);
        let market: f64 = of(&plain, "label_return")[row].parse().unwrap();
        assert!((own - side.parse::<f64>().unwrap() * market).abs() < 1e-12);
    }
    assert!(judged > 200);
    let fit: Fit = serde_json::from_str(&meta.text("fit")).unwrap();
    assert_eq!(fit.class_weights.keys().copied().collect::<Vec<_>>(), [0, 1]);
    // It is no feature to those who read the table.
    assert_eq!(table::Rows::open(&meta.outputs["features"]).unwrap().names(), ["rsi_14", "trend"]);

    // The same sides from a file.
    let answers = dir.path().join("answers.csv");
    let mut text = String::from("date,action\n");
    for (row, side) in sides.iter().enumerate() {
        let action = match &**side {
            "1" => "buy market",
            "-1" => "sell limit 10",
            _ => "flat",
        };
        writeln!(text, "{},{action}", day(row)).unwrap();
    }
    fs_err::write(&answers, text).unwrap();
    with["meta"] = json!({ "answers": "action" });
    let inputs: &[(&str, &Path)] = &[("bars", &bars), ("answers", &answers)];
    let from_file = testing::run::<Featurize>(with.clone(), inputs).unwrap();
    assert_eq!(from_file.text("features"), meta.text("features"));
    // Refusals.
    for (meta, label, path) in [
        (json!({ "side": "rsi" }), true, "meta.side"),
        (json!({}), true, "meta"),
        (json!({ "side": "trend" }), false, "meta"),
        (json!({ "side": "trend", "above": -1 }), true, "meta.above"),
    ] {
        let mut with = with.clone();
        with["meta"] = meta;
        if !label {
            with["label"] = Value::Null;
        }
        let params: Params = serde_json::from_value(with).unwrap();
        assert_eq!(Featurize::check(&params).unwrap_err().path, path);
    }
}
