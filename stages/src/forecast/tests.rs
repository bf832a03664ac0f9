//! The stage on small markets that are made here: what it writes, what it may know, what it refuses.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::lines::{Line, Span, read};
use super::protocol::protocol;
use super::*;
use crate::testing::{self, Ran};

mod choices;

/// Every model that is fitted on rows.
fn models() -> Vec<Value> {
    vec![
        json!({ "majority": {} }),
        json!({ "persistence": {} }),
        json!({ "momentum": { "lookback": 30, "skip": 5 } }),
        json!({ "moving_average": { "fast": 5, "slow": 20 } }),
        json!({ "mean_reversion": {} }),
        json!({ "logit": {} }),
        json!({ "ridge": {} }),
        json!({ "boosting": { "trees": 20, "min_leaf_weight": 5 } }),
    ]
}

/// Normal numbers from a seed.
fn normals(seed: u64) -> impl FnMut() -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    move || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

/// One market: closes, and two features a row.
#[derive(Clone)]
pub(super) struct Market {
    pub closes: Vec<f64>,
    pub features: Vec<[f64; 2]>,
    pub train: usize,
}

/// Noise: features that tell nothing. The first `train` rows are the training span.
pub(super) fn noise(rows: usize, seed: u64) -> Market {
    let mut normal = normals(seed);
    let mut close = 100.0f64;
    let mut closes = Vec::new();
    for _ in 0..rows {
        close *= (0.01 * normal()).exp();
        closes.push(close);
    }
    let features = (0..rows).map(|_| [normal(), normal()]).collect();
    Market { closes, features, train: rows * 7 / 10 }
}

pub(super) fn day(row: usize) -> String {
    let date = chrono::NaiveDate::from_ymd_opt(2000, 1, 3).unwrap();
    (date + chrono::Days::new(row as u64)).to_string()
}

impl Market {
    /// Writes it as `featurize` does, with a gap of five rows before the test span.
    pub fn write(&self, path: &Path) -> PathBuf {
        let mut text = String::from("date,open,high,low,close,volume,split,one,two\n");
        for (row, (close, [one, two])) in self.closes.iter().zip(&self.features).enumerate() {
            let split = match row {
                r if r < 5 => "warmup",
                r if r < self.train => "train",
                r if r < self.train + 5 => "gap",
                _ => "test",
            };
            let (date, c) = (day(row), close);
            writeln!(text, "{date},{c},{c},{c},{c},1,{split},{one},{two}").unwrap();
        }
        fs_err::write(path, text).unwrap();
        path.to_owned()
    }
}

fn params(model: &Value) -> Value {
    json!({ "model": model, "horizons": [1, 5], "folds": { "walk_forward": { "folds": 3 } } })
}

fn run(market: &Market, params: Value) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let path = market.write(&dir.path().join("features.csv"));
    testing::run::<Forecasting>(params, &[("features", &path)]).unwrap()
}

fn lines(ran: &Ran) -> Vec<Line> {
    read(&ran.outputs["forecasts"]).unwrap()
}

#[test]
fn each_model_forecasts_each_row_once() {
    let market = noise(500, 1);
    for model in models() {
        let ran = run(&market, params(&model));
        let all = lines(&ran);
        let ordered = all.windows(2).all(|p| (&p[0].t0, p[0].horizon) < (&p[1].t0, p[1].horizon));
        assert!(ordered, "{model}");
        let tested: Vec<&Line> = all.iter().filter(|line| line.span == Span::Test).collect();
        assert_eq!(tested.len(), 2 * (500 - 355), "{model}");
        assert!(tested.iter().all(|line| line.t0 >= day(355) && line.fold.is_none()));
        // Of 345 training rows the last label ends before the test span: the five before it are a gap.
        let rows = 345;
        let out = all.iter().filter(|line| line.span == Span::Fold).count();
        assert_eq!(out, 2 * 3 * (rows / 4), "{model}");
        for line in &all {
            assert!((line.p().iter().sum::<f64>() - 1.0).abs() < 1e-6, "{model}: {line:?}");
            let row = (0..500).find(|row| day(*row) == line.t0).unwrap();
            let end = row + line.horizon;
            assert_eq!(line.t1, (end < 500).then(|| day(end)));
            let came = (end < 500).then(|| (market.closes[end] / market.closes[row]).ln() as f32);
            assert_eq!((line.came, line.class.is_some()), (came, came.is_some()));
        }
        for name in ["fold_mcc_1", "test_accuracy_5", "test_log_loss_1"] {
            assert!(ran.metrics.contains_key(name), "{model}: {name}");
        }
        assert_eq!(fs_err::read_dir(&ran.outputs["model"]).unwrap().count(), 2);
        assert!(ran.text("log").lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    }
}

/// Whatever follows a row, its forecast stays what it was, to the bit, where the fit does: what is
/// changed here lies after the training span.
#[test]
fn no_forecast_knows_what_follows() {
    let market = noise(500, 2);
    let cut = 420;
    let mut changed = market.clone();
    for row in cut + 1..500 {
        changed.closes[row] *= 3.0;
        changed.features[row] = [100.0, -100.0];
    }
    for model in models() {
        let told = |market: &Market| -> Vec<Line> {
            let all = lines(&run(market, params(&model))).into_iter();
            all.filter(|line| line.t0 <= day(cut))
                .map(|line| Line { came: None, class: None, ..line })
                .collect()
        };
        let (one, two) = (told(&market), told(&changed));
        assert!(one.iter().any(|line| line.span == Span::Test), "{model}");
        assert_eq!(one, two, "{model}");
    }
}

/// The same bytes with one thread and with several.
#[test]
fn bytes_do_not_depend_on_threads() {
    let market = noise(400, 3);
    for model in [json!({ "logit": {} }), json!({ "boosting": { "trees": 10, "subsample": 0.7 } })]
    {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let ran = pool.install(|| run(&market, params(&model)));
            (ran.text("forecasts"), fs_err::read(ran.outputs["model"].join("model.json")).unwrap())
        };
        assert_eq!(with(1), with(3), "{model}");
    }
}

/// A feature that is the return that comes is found at once, and one that is noise never.
#[test]
fn a_planted_future_shows_and_noise_does_not() {
    let mut market = noise(1_000, 4);
    let honest = run(&market, params(&json!({ "logit": {} })));
    for name in ["fold_mcc_1", "test_mcc_1", "fold_mcc_5", "test_mcc_5"] {
        assert!(honest.metrics[name].abs() < 0.12, "{name}: {}", honest.metrics[name]);
    }
    for row in 0..999 {
        market.features[row][1] = (market.closes[row + 1] / market.closes[row]).ln();
    }
    for model in [
        json!({ "logit": { "l2": 1e-4 } }),
        json!({ "boosting": { "min_leaf_weight": 2 } }),
        json!({ "ridge": {} }),
    ] {
        let leaky = run(&market, params(&model));
        // The classes are bounded by a volatility that the features do not tell, so not quite 1.
        for name in ["fold_mcc_1", "test_mcc_1"] {
            assert!(leaky.metrics[name] > 0.75, "{model} {name}: {}", leaky.metrics[name]);
        }
    }
}

/// A feature that numbers the blocks of rows whose labels overlap lets a model remember what it saw of
/// a neighbour. Without a purge that pays; with it, it is worth nothing.
#[test]
fn overlap_tells_nothing_across_folds() {
    let rows = 2_000;
    let mut market = noise(rows, 5);
    market.train = rows - 60;
    for (row, features) in market.features.iter_mut().enumerate() {
        *features = [row as f64, (row / 5) as f64];
    }
    let model = json!({ "boosting": { "trees": 30, "learning_rate": 0.5, "depth": 7, "min_leaf_weight": 1, "bins": 1024,
        "patience": 30 } });
    let folds = json!({ "purged_k_fold": { "folds": 6 } });
    let params = json!({ "model": model, "horizons": [10], "folds": folds, "embargo_bars": 10,
        "valid_fraction": 0.05 });
    let ran = run(&market, params.clone());
    assert!(ran.metrics["fold_mcc_10"].abs() < 0.2, "{}", ran.metrics["fold_mcc_10"]);
    assert!(ran.metrics["dates_purged"] >= 6.0 * 10.0);
    // The same model asked about rows between those it was fitted on: what a shuffled split would do.
    let dir = tempfile::tempdir().unwrap();
    let path = market.write(&dir.path().join("features.csv"));
    let params: Params = serde_json::from_value(params).unwrap();
    let shuffled = testing::with(&[("features", &path)], |ctx| {
        let panel = panel::read(&params, ctx).unwrap();
        let whole = protocol(&panel, &params, false).unwrap();
        let work = Work::new(&params, &panel, &whole);
        let (train, asked) = (0..whole.times.len()).partition(|at| at % 4 != 0);
        let task = Task { fold: Some(0), train, asked, ..Task::default() };
        let fitted = work.fit(&params.model, &task, ctx, &mut |_| Ok(())).unwrap();
        let mut lines = Vec::new();
        work.answer(&params.model, &task, &fitted, &mut lines).unwrap();
        lines::score(lines.iter().map(|(line, _)| line)).mcc
    });
    assert!(shuffled > 0.4, "{shuffled}");
}

/// Shuffled labels teach nothing: closes that are drawn anew leave features without a meaning.
#[test]
fn shuffled_returns_are_not_forecast() {
    let mut market = noise(1_200, 6);
    // First a market in which the first feature does forecast.
    let mut close = 100.0;
    for row in 1..1_200 {
        close *= (0.01 * (0.8 * market.features[row - 1][0] + 0.6 * market.features[row][1])).exp();
        market.closes[row] = close;
    }
    let real = run(&market, params(&json!({ "logit": {} })));
    assert!(real.metrics["test_mcc_1"] > 0.3, "{}", real.metrics["test_mcc_1"]);
    let mut returns: Vec<f64> = market.closes.windows(2).map(|p| p[1] / p[0]).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for at in (1..returns.len()).rev() {
        returns.swap(at, (rng.random::<f64>() * (at + 1) as f64) as usize);
    }
    for (row, r) in returns.iter().enumerate() {
        market.closes[row + 1] = market.closes[row] * r;
    }
    let ran = run(&market, params(&json!({ "logit": {} })));
    for name in ["fold_mcc_1", "test_mcc_1"] {
        assert!(ran.metrics[name].abs() < 0.1, "{name}: {}", ran.metrics[name]);
    }
}

/// A market whose first feature tells of the next return.
pub(super) fn signal(rows: usize, seed: u64) -> Market {
    let mut market = noise(rows, seed);
    let mut close = 100.0;
    for row in 1..rows {
        close *= (0.01 * (0.7 * market.features[row - 1][0] + 0.7 * market.features[row][1])).exp();
        market.closes[row] = close;
    }
    market
}

/// Purged and embargoed dates are those that the rule of purging names, counted row by row; and no
/// label of a row that is learnt from meets one that is asked about, or stops by.
#[test]
fn purge_counts_are_those_of_the_rule() {
    let market = noise(600, 7);
    let dir = tempfile::tempdir().unwrap();
    let path = market.write(&dir.path().join("features.csv"));
    for (folds, walk) in [
        (json!({ "purged_k_fold": { "folds": 4 } }), false),
        (json!({ "walk_forward": { "folds": 4 } }), true),
    ] {
        let given = json!({ "model": { "boosting": {} }, "horizons": [1, 20], "folds": folds, "embargo_bars": 7 });
        let params: Params = serde_json::from_value(given).unwrap();
        testing::with(&[("features", &path)], |ctx| {
            let panel = panel::read(&params, ctx).unwrap();
            let plain = protocol(&panel, &params, false).unwrap();
            let stopped = protocol(&panel, &params, true).unwrap();
            // Rows 5 to 419 are training rows; the first test row is 425, so that labels of rows from
            // 405 on reach it.
            assert_eq!(plain.times.len(), 400);
            let last = plain.tasks.last().unwrap();
            assert_eq!((last.fold, last.purged, last.train.len()), (None, 15, 400));
            for (task, stopped) in plain.tasks[..4].iter().zip(&stopped.tasks) {
                let (begin, end) = (task.asked[0], *task.asked.last().unwrap());
                let (mut purged, mut embargoed) = (0, 0);
                for at in (0..400).filter(|at| *at < begin || *at > end && !walk) {
                    let overlaps = at + 20 >= begin && at <= end + 20;
                    purged += usize::from(overlaps);
                    embargoed += usize::from(!overlaps && at > end && at <= end + 20 + 7);
                }
                assert_eq!((task.purged, task.embargoed), (purged, embargoed));
                let apart = |a: usize, b: usize| a + 20 < b || a > b + 20;
                assert!(task.train.iter().all(|&a| task.asked.iter().all(|&b| apart(a, b))));
                for &a in &stopped.train {
                    assert!(stopped.valid.iter().all(|&b| a + 20 < b));
                    assert!(task.train.contains(&a));
                }
                assert!(stopped.valid.iter().all(|b| task.train.contains(b)));
            }
        });
    }
}

/// Instruments share the boundaries of folds by date, gaps in one or not.
#[test]
fn folds_of_a_panel_are_by_date() {
    let dir = tempfile::tempdir().unwrap();
    let tables = dir.path().join("tables");
    fs_err::create_dir(&tables).unwrap();
    noise(500, 8).write(&tables.join("AAA.csv"));
    let path = noise(500, 9).write(&tables.join("BBB.csv"));
    let text = fs_err::read_to_string(&path).unwrap();
    // A line in three is not there.
    let kept = text.lines().enumerate().filter(|(at, _)| *at == 0 || at % 3 != 0);
    fs_err::write(&path, kept.map(|(_, line)| format!("{line}\n")).collect::<String>()).unwrap();
    let ran =
        testing::run::<Forecasting>(params(&json!({ "logit": {} })), &[("features", &tables)]);
    let all = lines(&ran.unwrap());
    let mut names: Vec<&str> = all.iter().map(|line| line.asset.as_str()).collect();
    names.dedup();
    assert_eq!(names, ["AAA", "BBB"]);
    for fold in 0..3 {
        let dates = |asset: &str| {
            let own = all.iter().filter(|line| line.asset == asset && line.fold == Some(fold));
            let dates: Vec<&String> = own.map(|line| &line.t0).collect();
            (dates[0].clone(), (*dates.last().unwrap()).clone())
        };
        let (a, b) = (dates("AAA"), dates("BBB"));
        assert!(b.0 >= a.0 && b.1 <= a.1, "{a:?} {b:?}");
        let next = all.iter().filter(|line| line.fold == Some(fold + 1)).map(|line| &line.t0).min();
        assert!(next.is_none_or(|next| *next > a.1));
    }
}

/// However test rows change, the weights do not; and they are the likeliest.
#[test]
fn weights_of_an_ensemble_come_from_rows_out_of_fold_alone() {
    let mut market = noise(900, 10);
    let mut close = 100.0;
    for row in 1..900 {
        close *= (0.01 * (0.6 * market.features[row - 1][0] + 0.8 * market.features[row][1])).exp();
        market.closes[row] = close;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("members");
    fs_err::create_dir(&folder).unwrap();
    for (name, model) in [
        ("logit", json!({ "logit": {} })),
        ("majority", json!({ "majority": {} })),
        ("persistence", json!({ "persistence": {} })),
    ] {
        let ran = run(&market, params(&model));
        fs_err::copy(&ran.outputs["forecasts"], folder.join(format!("{name}.csv"))).unwrap();
    }
    let mix = || {
        let given = json!({ "model": { "ensemble": {} } });
        testing::run::<Forecasting>(given, &[("forecasts", &folder)]).unwrap()
    };
    let weights =
        |ran: &Ran| fs_err::read_to_string(ran.outputs["model"].join("model.json")).unwrap();
    let before = mix();
    let told: Vec<Value> = serde_json::from_str(&weights(&before)).unwrap();
    let of = |name: &str| told[0]["weights"][name].as_f64().unwrap();
    assert!((of("logit") + of("majority") + of("persistence") - 1.0).abs() < 1e-9);
    assert!(of("logit") > 0.8, "{told:?}");
    // No mixture is worse, where the weights come from, than its best member.
    let loss = told[0]["log_loss"].as_f64().unwrap();
    for name in ["logit", "majority", "persistence"] {
        let member = read(&folder.join(format!("{name}.csv"))).unwrap();
        let own = member.iter().filter(|line| line.span == Span::Fold && line.horizon == 1);
        assert!(loss <= lines::score(own).log_loss + 1e-9, "{name}");
    }
    // Test rows, forecasts and what came, are turned around: the weights stay, to the bit.
    for name in ["logit", "majority", "persistence"] {
        let path = folder.join(format!("{name}.csv"));
        let mut changed = read(&path).unwrap();
        for line in changed.iter_mut().filter(|line| line.span == Span::Test) {
            (line.p_down, line.p_up) = (line.p_up, line.p_down);
            line.class = line.class.map(|class| -class);
        }
        super::lines::write(&changed, &path).unwrap();
    }
    let after = mix();
    assert_eq!(weights(&before), weights(&after));
    let folds = |ran: &Ran| -> Vec<Line> {
        lines(ran).into_iter().filter(|line| line.span == Span::Fold).collect()
    };
    assert_eq!(folds(&before), folds(&after));
    assert_ne!(lines(&before), lines(&after));
    // The first fold has nothing behind it: its members weigh the same.
    let first = folds(&before).into_iter().find(|line| line.horizon == 1).unwrap();
    let mean = ["logit", "majority", "persistence"].map(|name| {
        let member = read(&folder.join(format!("{name}.csv"))).unwrap();
        let same = |line: &&Line| line.t0 == first.t0 && line.horizon == 1;
        f64::from(member.iter().find(same).unwrap().p_up)
    });
    assert!((f64::from(first.p_up) - mean.iter().sum::<f64>() / 3.0).abs() < 1e-6);
}

/// A rule keeps its word: what it names is the most probable, however badly it fared.
#[test]
fn a_rule_names_what_it_says() {
    let mut market = noise(600, 11);
    // A market that turns every day: persistence is always wrong.
    for row in 1..600 {
        let step: f64 = if row % 2 == 0 { 0.01 } else { -0.01 };
        market.closes[row] =
            market.closes[row - 1] * (step * (1.0 + 0.1 * market.features[row][0].abs())).exp();
    }
    let all = lines(&run(&market, params(&json!({ "persistence": {} }))));
    let tested = all.iter().filter(|line| line.span == Span::Test && line.horizon == 1);
    for line in tested {
        let row = (0..600).find(|row| day(*row) == line.t0).unwrap();
        let rose = market.closes[row] > market.closes[row - 1];
        assert_eq!(line.p_up > line.p_down, rose);
        assert!(line.p_up.max(line.p_down) >= 0.5 && line.mean == 0.0);
    }
    let back = run(&market, params(&json!({ "mean_reversion": { "window": 3, "entry": 0.2 } })));
    assert!(back.metrics["test_accuracy_1"] > 0.9);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let resolve = crate::Kind::of::<Forecasting>().resolve;
    let with = |key: &str, value: Value| {
        let mut params = params(&json!({ "logit": {} }));
        params[key] = value;
        resolve(&params).unwrap_err().path
    };
    assert_eq!(with("horizons", json!([5, 1])), "horizons");
    assert_eq!(with("threshold", json!(-1)), "threshold");
    assert_eq!(with("inputs", json!([])), "inputs");
    assert_eq!(with("folds", json!({ "combinatorial": {} })), "folds");
    assert_eq!(
        with("folds", json!({ "purged_k_fold": { "folds": 1 } })),
        "folds.purged_k_fold.folds"
    );
    assert_eq!(with("model", json!({ "logit": { "l2": 0 } })), "model.logit.l2");
    assert_eq!(with("model", json!({ "boosting": { "depth": 0 } })), "model.boosting.depth");
    assert_eq!(with("model", json!({ "momentum": { "skip": 300 } })), "model.momentum.lookback");
    for (key, value, path) in [
        ("search", json!({ "grid": {} }), "search.grid"),
        ("search", json!({ "grid": { "l3": [1] } }), "search.grid.l3"),
        ("search", json!({ "grid": { "l2": [-1] } }), "search.grid.l2"),
        ("search", json!({ "grid": { "l2": [1] }, "draws": 0 }), "search.draws"),
        (
            "search",
            json!({ "grid": { "l2": [1] }, "folds": { "combinatorial": {} } }),
            "search.folds",
        ),
        ("importance", json!({ "repeats": 0 }), "importance.repeats"),
        ("importance", json!({ "draws": 1 }), "importance.draws"),
        ("model", json!({ "language": { "max_new_tokens": 0 } }), "model.language.max_new_tokens"),
        ("model", json!({ "language": { "offsets_bps": [5] } }), "model.language.offsets_bps"),
    ] {
        assert_eq!(with(key, value.clone()), path, "{key} {value}");
    }
    let both = |model: Value, key: &str, value: Value| {
        let mut params = params(&model);
        params[key] = value;
        resolve(&params).unwrap_err().path
    };
    assert_eq!(both(json!({ "ensemble": {} }), "labels", "permuted".into()), "labels");
    assert_eq!(both(json!({ "ensemble": {} }), "importance", json!({})), "importance");
    assert_eq!(both(json!({ "language": {} }), "importance", json!({})), "importance");
    let search = json!({ "grid": { "fast": [5, 60], "slow": [50, 100] } });
    assert_eq!(both(json!({ "moving_average": {} }), "search", search), "search.grid");
    let fails = |market: &Market, key: &str, value: Value| {
        let dir = tempfile::tempdir().unwrap();
        let path = market.write(&dir.path().join("features.csv"));
        let mut params = params(&json!({ "logit": {} }));
        params[key] = value;
        let error = testing::run::<Forecasting>(params, &[("features", &path)]).err().unwrap();
        let name = path.display().to_string();
        assert!(error.to_string().starts_with(&name), "{error}");
        (error.to_string()[name.len()..].to_owned(), error.help().unwrap_or_default().to_owned())
    };
    let market = noise(400, 12);
    let (message, hint) = fails(&market, "inputs", json!(["one", "twoo"]));
    assert_eq!(message, ":1: no feature `twoo`");
    assert!(hint.starts_with("is `two` meant?"), "{hint}");
    let (message, _) = fails(&noise(80, 12), "horizons", json!([1, 20]));
    assert!(message.contains("dates to learn from"), "{message}");
    let mut flat = market.clone();
    flat.features.iter_mut().for_each(|features| features[1] = 0.1);
    let (message, _) = fails(&flat, "threshold", json!(0.4));
    assert_eq!(message, ": feature `two` is the same in all training rows");
    let mut broken = market.clone();
    broken.features[50][0] = f64::NAN;
    assert_eq!(fails(&broken, "threshold", json!(0.4)).0, ":52: one is not a number: `NaN`");
    let mut broken = market.clone();
    broken.closes[60] = -1.0;
    assert_eq!(fails(&broken, "threshold", json!(0.4)).0, ":62: close must be above 0: -1");
    // One instrument's test span begins within another's training span.
    let dir = tempfile::tempdir().unwrap();
    let tables = dir.path().join("tables");
    fs_err::create_dir(&tables).unwrap();
    market.write(&tables.join("AAA.csv"));
    Market { train: 200, ..market }.write(&tables.join("BBB.csv"));
    let given = params(&json!({ "logit": {} }));
    let error = testing::run::<Forecasting>(given, &[("features", &tables)]).err().unwrap();
    assert!(error.to_string().contains("training rows of one instrument"), "{error}");
}
