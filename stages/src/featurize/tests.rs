use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::featurize::bars::Bar;
use crate::featurize::regime::{Filter, Hmm, Regime};
use crate::featurize::rolling::Window;
use crate::testing;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/featurize/testdata").join(name)
}

fn reference(name: &str) -> Value {
    serde_json::from_str(&fs_err::read_to_string(testdata(name)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn daily() -> Vec<Bar> {
    Bars::open(&testdata("daily.csv")).unwrap().map(|bar| bar.unwrap()).collect()
}

/// Compares a series with a reference in which null is warm-up. `late` rows may come later.
fn compare(name: &str, ours: &[Option<f64>], theirs: &Value, tolerance: f64, late: usize) {
    let theirs: Vec<Option<f64>> = theirs.as_array().unwrap().iter().map(Value::as_f64).collect();
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let begins = |series: &[Option<f64>]| series.iter().position(Option::is_some).unwrap();
    assert_eq!(begins(ours), begins(&theirs) + late, "{name}: warm-up");
    for (row, pair) in ours.iter().zip(&theirs).enumerate().skip(begins(ours)) {
        let (a, b) = (pair.0.unwrap(), pair.1.unwrap());
        assert!((a - b).abs() <= tolerance * b.abs().max(1e-12), "{name}, row {row}: {a}, not {b}");
    }
}

#[test]
fn volatilities_agree_with_the_reference() {
    let expected = reference("reference.json");
    let bars = daily();
    let run = |estimator, window| -> Vec<Option<f64>> {
        let mut state = volatility::Volatility::new(estimator, window);
        bars.iter().map(|bar| state.push(bar).map(f64::sqrt)).collect()
    };
    use volatility::Estimator::*;
    compare("parkinson", &run(Parkinson, 20), &expected["parkinson20"], 1e-10, 0);
    compare("garman-klass", &run(GarmanKlass, 20), &expected["garman_klass20"], 1e-10, 0);
    compare("rogers-satchell", &run(RogersSatchell, 20), &expected["rogers_satchell20"], 1e-10, 0);
    // 20 candles hold 19 moves between bars; the reference counts candles.
    compare("yang-zhang", &run(YangZhang, 19), &expected["yang_zhang20"], 1e-10, 0);
    // The reference begins with the first return.
    compare("close", &run(Close, 20)[1..], &expected["roll_std20_ddof1"], 1e-10, 0);
}

#[test]
fn spreads_agree_with_the_reference() {
    let expected = reference("reference.json");
    let mut state = spread::Spread::new(spread::SpreadMethod::CorwinSchultz, 19);
    let ours: Vec<_> = daily().iter().map(|bar| state.push(bar)).collect();
    compare("corwin-schultz", &ours, &expected["corwin_schultz20"], 1e-10, 0);

    let prices = numbers(&expected["roll"]["price"]);
    let mut state = spread::Spread::new(spread::SpreadMethod::Roll, prices.len() - 2);
    let last = prices.iter().filter_map(|&p| state.push(&flat_bar(p, 1.0))).last().unwrap();
    let theirs = expected["roll"]["spread"].as_f64().unwrap();
    // The reference takes one mean for both series.
    assert!((last * prices.last().unwrap() - theirs).abs() < 1e-7 * theirs);
}

fn flat_bar(price: f64, volume: f64) -> Bar {
    Bar {
        date: String::new(),
        key: String::new(),
        open: price,
        high: price,
        low: price,
        close: price,
        volume,
    }
}

#[test]
fn columns_agree_with_the_reference() {
    let expected = reference("reference.json");
    let bars = daily();
    let params = Params::default();
    let hmm = Hmm {
        start: [0.5; 2],
        transition: [[0.9, 0.1], [0.1, 0.9]],
        mean: [0.0; 2],
        variance: [0.5, 2.0],
    };
    let regime = regime::Fitted { hmm, log_likelihood: 0.0, returns: 0, accepted: 0, restarts: 0 };
    let fit = Fit {
        train: Default::default(),
        train_rows: 0,
        periods_per_year: 252.0,
        regime,
        vpin_bucket: 4e9,
        scalers: Default::default(),
    };
    let mut state = State::new(&params, &fit);
    let rows: Vec<_> = bars.iter().map(|bar| state.push(bar)).collect();
    let column = |name: &str| -> Vec<Option<f64>> {
        let at = FEATURES.iter().position(|f| *f == name).unwrap();
        rows.iter().map(|row| row[at]).collect()
    };
    compare("rsi", &column("rsi_14"), &expected["rsi14"], 1e-10, 0);
    compare("12-1", &column("momentum_12_1"), &expected["mom_12_1"], 1e-10, 0);
    let amihud: Vec<_> = column("depth")[1..].iter().map(|d| d.map(|d| (-d).exp())).collect();
    compare("amihud", &amihud, &expected["amihud20"], 1e-9, 0);

    let closes = Closes::open(&testdata("index.csv")).unwrap().map(|row| row.unwrap().1);
    let mut follower = state::Follower::new(60);
    let ours: Vec<_> = bars.iter().zip(closes).map(|(b, i)| follower.push(b.close, i)).collect();
    compare("correlation", &ours[1..], &expected["roll_corr60"], 1e-9, 0);
}

#[test]
fn flow_agrees_with_the_reference() {
    let expected = reference("reference.json");
    let kyle = &expected["kyle"];
    let (x, y) = (numbers(&kyle["signed_volume"]), numbers(&kyle["change"]));
    let (mut wx, mut wy) = (Window::new(x.len()), Window::new(y.len()));
    x.iter().for_each(|&x| wx.push(x));
    y.iter().for_each(|&y| wy.push(y));
    let theirs = kyle["lambda"].as_f64().unwrap();
    assert!((rolling::slope(&wx, &wy).unwrap() - theirs).abs() < 1e-12);

    let changes = numbers(&expected["vpin"]["change"]);
    let sigma = expected["vpin"]["sigma"].as_f64().unwrap();
    let mut vpin = flow::Vpin::new(20.0, changes.len());
    let ours = changes.iter().filter_map(|&c| vpin.push(20.0, flow::bought(c, sigma))).last();
    let theirs = expected["vpin"]["value"].as_f64().unwrap();
    // The reference approximates the normal distribution to 1e-7.
    assert!((ours.unwrap() - theirs).abs() < 1e-6, "{ours:?}, not {theirs}");
}

fn regime_reference() -> (Value, Hmm, Vec<f64>) {
    let expected = reference("regime.json");
    let two = |v: &Value| <[f64; 2]>::try_from(numbers(v)).unwrap();
    let hmm = Hmm {
        start: two(&expected["start"]),
        transition: [two(&expected["transition"][0]), two(&expected["transition"][1])],
        mean: two(&expected["mean"]),
        variance: two(&expected["variance"]),
    };
    let closes = numbers(&expected["close"]);
    let returns = closes.windows(2).map(|w| 100.0 * (w[1] / w[0]).ln()).collect();
    (expected, hmm, returns)
}

#[test]
fn filtered_probabilities_agree_with_prefixes_of_the_reference() {
    let (expected, hmm, returns) = regime_reference();
    let mut filter = Filter::new(hmm);
    let ours: Vec<f64> = returns.iter().map(|&r| filter.push(r)).collect();
    for point in expected["filtered"].as_array().unwrap() {
        let (row, theirs) = (point[0].as_u64().unwrap() as usize, point[1].as_f64().unwrap());
        assert!((ours[row] - theirs).abs() < 1e-9, "row {row}: {}, not {theirs}", ours[row]);
    }
}

fn fitted(returns: &[f64], how: &Regime) -> Option<regime::Fitted> {
    regime::fit(returns, how, |_| Ok(())).unwrap()
}

#[test]
fn the_fitted_regimes_agree_with_the_reference() {
    let (expected, theirs, returns) = regime_reference();
    let fitted = fitted(&returns, &Regime { stickiness: 0.0, ..Regime::default() }).unwrap();
    // statsmodels maximises the same likelihood: [stay 0, go 1 -> 0, means, variances].
    let best = &expected["statsmodels"];
    let of = |name: &str| best[name].as_f64().unwrap();
    let close = |what: &str, a: f64, b: f64| assert!((a - b).abs() < 2e-3, "{what}: {a}, not {b}");
    close("stay", fitted.hmm.transition[0][0], of("p[0->0]"));
    close("go", fitted.hmm.transition[1][0], of("p[1->0]"));
    for (i, state) in ["0", "1"].iter().enumerate() {
        close("mean", fitted.hmm.mean[i], of(&format!("const[{state}]")));
        close("variance", fitted.hmm.variance[i], of(&format!("sigma2[{state}]")));
        assert!((fitted.hmm.variance[i] / theirs.variance[i] - 1.0).abs() < 0.02);
    }
    let ll = expected["statsmodels_log_likelihood"].as_f64().unwrap();
    assert!((fitted.log_likelihood - ll).abs() < 0.05, "{} {ll}", fitted.log_likelihood);
    assert_eq!(fitted.accepted, 8);
}

#[test]
fn a_fit_can_be_stopped() {
    let (_, _, returns) = regime_reference();
    let mut steps = 0;
    let stopped = regime::fit(&returns, &Regime::default(), |_| {
        steps += 1;
        if steps == 3 { Err(StageError::Cancelled) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(StageError::Cancelled)));
}

#[test]
fn a_state_of_outliers_is_rejected() {
    // Single large returns in a calm series: the second state would never last.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let returns: Vec<f64> = (0..800)
        .map(|t| (rng.random::<f64>() - 0.5) * if t % 40 == 7 { 40.0 } else { 1.0 })
        .collect();
    let none = Regime { stickiness: 0.0, ..Regime::default() };
    assert_eq!(fitted(&returns, &none), None);
    assert_eq!(fitted(&[0.0; 500], &none), None);
}

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
    assert_eq!(fit.regime.returns, 595);
    // What was fitted is used as it reads back.
    assert_eq!(serde_json::to_string_pretty(&fit).unwrap() + "\n", ran.text("fit"));
    // The scaler is of the training rows alone.
    let rsi: Vec<f64> = rows
        .iter()
        .filter(|row| row.split == Split::Train)
        .map(|row| row.features[FEATURES.iter().position(|name| *name == "rsi_14").unwrap()])
        .collect();
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
        let run = |rows: &[String]| {
            testing::run::<Featurize>(params(), &[("bars", &bars_file(dir.path(), rows))]).unwrap()
        };
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

    /// Within the training span the same holds of the features, given the same fit.
    #[test]
    fn features_are_causal_given_the_fit(cut in 1usize..600) {
        let dir = tempfile::tempdir().unwrap();
        let path = bars_file(dir.path(), &simulated(600, 9));
        let ran = testing::run::<Featurize>(params(), &[("bars", &path)]).unwrap();
        let fit: Fit = serde_json::from_str(&ran.text("fit")).unwrap();
        let bars: Vec<Bar> = Bars::open(&path).unwrap().map(|b| b.unwrap()).collect();
        let run = |bars: &[Bar]| -> Vec<[Option<u64>; 15]> {
            let mut state = State::new(&Params::default(), &fit);
            bars.iter().map(|bar| state.push(bar).map(|x| x.map(f64::to_bits))).collect()
        };
        let mut changed = bars.clone();
        for bar in &mut changed[cut..] {
            (bar.close, bar.high, bar.volume) = (bar.close * 3.0, bar.high * 4.0, 1.0);
        }
        prop_assert_eq!(&run(&bars)[..cut], &run(&changed)[..cut]);
        prop_assert_ne!(run(&bars), run(&changed));
    }
}

fn refused(text: &str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bars.csv");
    fs_err::write(&path, text).unwrap();
    let error = testing::run::<Featurize>(json!({}), &[("bars", &path)]).err().unwrap();
    let help = error.help().unwrap_or("").to_owned();
    let said = error.to_string();
    (said.split_once("bars.csv").expect("the path").1.to_owned(), help)
}

#[test]
fn a_bad_file_is_named_with_its_line() {
    let head = "date,open,high,low,close,volume\n2020-01-02,1,2,1,2,5\n";
    let cases = [
        ("", ": the file is empty", "it needs a header and rows: date,open,high,low,close,volume"),
        ("date,open,high,low,close,volume\n", ": the file has a header and no rows", ""),
        (
            "date,open,hgh,low,close,volume\n",
            ":1: missing column `high`",
            "is `hgh` meant? rename it to `high`; columns found: date, open, hgh, low, close, volume",
        ),
        ("day,o\n", ":1: missing column `date`", "columns found: day, o"),
        (
            &format!("{head}2020-01-02,1,2,1,2,5\n"),
            ":3: date 2020-01-02 is on line 2 already",
            "keep one row for each date",
        ),
        (
            &format!("{head}2020-01-01,1,2,1,2,5\n"),
            ":3: date 2020-01-01 comes after a later one on line 2",
            "sort the file by date",
        ),
        (
            &format!("{head}01/03/2020,1,2,1,2,5\n"),
            ":3: `01/03/2020` is not a date",
            "write dates as YYYY-MM-DD, with a time as YYYY-MM-DD HH:MM:SS",
        ),
        (
            &format!("{head}2020-01-03,1,2,3,2,5\n"),
            ":3: high 2 is below low 3",
            "check that the columns are not swapped; remove the row if it is wrong",
        ),
        (
            &format!("{head}2020-01-03,1,2,1,NaN,5\n"),
            ":3: close is not a number: `NaN`",
            "write numbers as 1234.5, without thousands separators",
        ),
        (
            &format!("{head}2020-01-03,1,,1,2,5\n"),
            ":3: high is empty",
            "fill the cell or remove the row; prices are not guessed",
        ),
        (&format!("{head}2020-01-03,1,2,-1,2,5\n"), ":3: low must be above 0, and is -1", ""),
        (&format!("{head}2020-01-03,1,2,1,2,-5\n"), ":3: volume is negative: -5", ""),
        (
            &format!("{head}2020-01-03,1,2,1,2\n"),
            ":3: 5 cells where the header has 6",
            "fields are separated by commas; quote a field that holds one",
        ),
        (
            head,
            ": the training span holds 0 rows",
            "it needs a year of bars and more; move `splits.train_end` or add rows",
        ),
    ];
    for (text, message, help) in cases {
        assert_eq!(refused(text), (message.to_owned(), help.to_owned()), "{text}");
    }
}

#[test]
fn a_file_without_volume_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<String> = simulated(700, 0)
        .iter()
        .map(|row| format!("{},0", row.rsplit_once(',').unwrap().0))
        .collect();
    let path = bars_file(dir.path(), &rows);
    let error = testing::run::<Featurize>(params(), &[("bars", &path)]).err().unwrap();
    assert!(error.to_string().ends_with("volume is 0 throughout the training span"), "{error}");
}

#[test]
fn gzip_times_and_an_index_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let rows = simulated(700, 5);
    let path = bars_file(dir.path(), &rows);
    let plain = testing::run::<Featurize>(params(), &[("bars", &path)]).unwrap();

    let index = dir.path().join("index.csv");
    let mut text = String::from("close,date\n");
    // Every other day: the days between take the last close.
    for row in (0..700).step_by(2) {
        let close = rows[row].split(',').nth(4).unwrap();
        writeln!(text, "{close},{}", day(row)).unwrap();
    }
    fs_err::write(&index, text).unwrap();
    let zipped = dir.path().join("bars.bin");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &fs_err::read(&path).unwrap()).unwrap();
    fs_err::write(&zipped, gzip.finish().unwrap()).unwrap();
    let both =
        testing::run::<Featurize>(params(), &[("bars", &zipped), ("index", &index)]).unwrap();

    assert_eq!(both.text("fit"), plain.text("fit"));
    let (both, plain) = (both.text("features"), plain.text("features"));
    let (head, tail) = both.lines().next().unwrap().split_at(plain.lines().next().unwrap().len());
    assert_eq!((head, tail), (plain.lines().next().unwrap(), ",index_close,corr_60"));
    for (row, (both, plain)) in both.lines().zip(plain.lines()).enumerate().skip(1) {
        let extra = both.strip_prefix(plain).unwrap();
        let (close, correlation) = extra[1..].split_once(',').unwrap();
        let known = (row - 1) / 2 * 2;
        assert_eq!(close, rows[known].split(',').nth(4).unwrap(), "row {row}");
        assert_eq!(correlation.is_empty(), row <= 60, "row {row}");
    }
}

#[test]
fn parameters_out_of_range_are_refused() {
    let resolve = crate::Kind::of::<Featurize>().resolve;
    let wrong = [
        (json!({ "windows": { "vwap": 1 } }), "windows.vwap"),
        (json!({ "periods_per_year": 0 }), "periods_per_year"),
        (json!({ "splits": { "train_end": "01/02/2020" } }), "splits.train_end"),
        (
            json!({ "splits": { "train_end": "2020-01-02", "test_start": "2020-01-02" } }),
            "splits.test_start",
        ),
        (json!({ "splits": { "train_fraction": 1.0 } }), "splits.train_fraction"),
        (json!({ "regime": { "restarts": 0 } }), "regime.restarts"),
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
    for ((name, ours), expected) in FEATURES.iter().zip(&rows[690].features).zip(expected) {
        let apart = (ours - expected).abs() / expected.abs();
        assert!(apart < 1e-9, "{name}: {ours}, not {expected}; {:?}", rows[690].features);
    }
    assert_eq!(Featurize::VERSION, 1);
}

#[test]
fn a_file_without_test_rows_is_warned_of_and_one_without_training_rows_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = bars_file(dir.path(), &simulated(500, 3));
    let run = |end: usize| {
        let with = json!({ "splits": { "train_end": day(end) } });
        testing::run::<Featurize>(with, &[("bars", &path)])
    };
    let warnings = run(900).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("no row is left to test on"), "{}", warnings[0]);
    let error = run(200).err().unwrap().to_string();
    assert!(error.ends_with("every row of the training span (196 rows) is warm-up"), "{error}");
}
