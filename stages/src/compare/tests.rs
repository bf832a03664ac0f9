//! The stage on files, most of them the trials of `testdata`: 25 moving-average crosses on the
//! S&P 500, whose returns are computed here from the closes by the rule.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::input::Run;
use super::record::min_track_record;
use super::*;
use crate::evaluate::inference::Moments;
use crate::evaluate::metrics::{sharpe, sharpe_per_bar};
use crate::evaluate::overfit::cscv;
use crate::evaluate::selection::best_by_chance;
use crate::evaluate::testdata::{boot, close};
use crate::testing;

/// Closes of the S&P 500 of which the reference's trials were made.
const CLOSES: &str = include_str!("testdata/closes.csv");
/// Closes before the returns begin: as many as the longest mean needs.
const BEFORE: usize = 200;

/// Dates and closes.
fn closes() -> Vec<(&'static str, f64)> {
    let row = |line: &'static str| {
        let (date, close) = line.split_once(',').unwrap();
        (date, close.parse().unwrap())
    };
    CLOSES.lines().skip(1).map(row).collect()
}

/// Dates and returns of the 25 rules: long where the mean of the last `fast` closes lies above that of
/// the last `slow`, from that close to the next; 5 bps of each change of the position, from flat.
fn crosses() -> (Vec<String>, Vec<(String, Vec<f64>)>) {
    let rows = closes();
    let mean = |t: usize, w: usize| rows[t + 1 - w..=t].iter().map(|r| r.1).sum::<f64>() / w as f64;
    let mut all = Vec::new();
    for fast in [5, 10, 20, 30, 50] {
        for slow in [60, 80, 100, 150, 200] {
            let mut held = 0.0;
            let mut returns = Vec::new();
            for t in BEFORE..rows.len() - 1 {
                let position = f64::from(mean(t, fast) > mean(t, slow));
                let change: f64 = position - held;
                held = position;
                returns.push(position * (rows[t + 1].1 / rows[t].1 - 1.0) - 0.0005 * change.abs());
            }
            all.push((format!("fast={fast},slow={slow}"), returns));
        }
    }
    (rows[BEFORE + 1..].iter().map(|r| r.0.to_owned()).collect(), all)
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
    let all = closes();
    let first = all.iter().position(|r| r.0 == dates[0]).unwrap();
    (first..first + dates.len()).map(|t| all[t].1 / all[t - 1].1 - 1.0).collect()
}

#[test]
fn the_crosses_are_those_of_the_reference() {
    let (dates, all) = crosses();
    assert_eq!((all.len(), dates.len()), (25, 2063));
    assert_eq!((dates[0].as_str(), all[10].0.as_str()), ("2010-10-20", "fast=20,slow=60"));
    // `boot.csv` holds the returns of 20 over 60 as NumPy has them.
    let (reference, _) = boot();
    for (a, b) in all[10].1.iter().zip(&reference) {
        close(*a, *b, 1e-15);
    }
}

/// Where the best of one half stands in the other, of all splits, sorted: `a` the last of 25, `m` the
/// median (phacker 0.1.0, 10 blocks).
const RANKS: &str = "\
aaaaaaaaaabbbbbbbcccccccccccdddddddddddddddddeeeeeeeeeeeeeeeeeeeeeeeeeffffffffffffff\
ffffgggggggggggggggggggggggggggghhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhiiiiiiiiiiiiiiiiiiii\
jjjjjjjjjjjjjjjjjjjkkkkkkkkkkkkkkkkkkkkkkkkkllllllllllllllllmmmmmmmmmmnnnnnooppqssuv";

#[test]
fn overfitting_is_that_of_another_program() {
    let (_, all) = crosses();
    let series: Vec<&[f64]> = all.iter().map(|(_, x)| x.as_slice()).collect();
    let found = cscv(&series, 10).unwrap();
    assert_eq!((found.logits.len(), found.block, found.left_out), (252, 206, 3));
    let mut sorted = found.logits.clone();
    sorted.sort_by(f64::total_cmp);
    for (logit, rank) in sorted.iter().zip(RANKS.bytes()) {
        let w = f64::from(rank - b'a' + 1) / 26.0;
        close(*logit, (w / (1.0 - w)).ln(), 1e-12);
    }
    close(found.pbo, 0.9444444444444444, 1e-15);
}

#[test]
fn a_ratio_is_deflated_as_in_the_reference() {
    let (_, all) = crosses();
    let bars: Vec<f64> = all.iter().map(|(_, x)| sharpe_per_bar(x).unwrap()).collect();
    let m = Moments::of(&all[10].1).unwrap();
    let spread = crate::evaluate::metrics::deviation(&bars).unwrap();
    // Closed form in NumPy 2.4.6; deflated-sharpe-metrics 0.1.0 gives 0.9303057401224168.
    close(m.psr(best_by_chance(spread, 25)), 0.9303057401223891, 1e-9);
    close(spread * spread, 5.0287937531759706e-05, 1e-15);
    // purgedcv 0.1.11, whose deviation has n and whose higher moments are corrected.
    let theirs = Moments {
        sharpe: 0.04722775851576741,
        bars: 2063,
        skewness: -0.559691055270607,
        kurtosis: 9.59842504370951,
    };
    assert_eq!(min_track_record(&theirs, 0.0, 0.95), Some(1252));
    // From moments as they are here: 1252.4362251510886 (NumPy).
    assert_eq!(min_track_record(&m, 0.0, 0.95), Some(1253));
    assert_eq!(min_track_record(&m, m.sharpe, 0.95), None);
}

#[test]
fn splits_of_equals_and_of_the_truly_better() {
    let noise = |seed: u64| -> Vec<f64> {
        let mut x = seed;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) as f64 / (1u64 << 31) as f64 - 0.5
        };
        (0..400).map(|_| next()).collect()
    };
    let better: Vec<f64> = noise(1).iter().map(|x| x + 1.0).collect();
    let (a, b) = (noise(2), noise(3));
    let found = cscv(&[&a, &better, &b], 8).unwrap();
    assert_eq!((found.pbo, found.loss, found.logits.len()), (0.0, 0.0, 70));
    // Who never trades has a ratio of 0: better than losing, and chosen then.
    let losing: Vec<f64> = a.iter().map(|x| x - 1.0).collect();
    let still = vec![0.0; 400];
    let found = cscv(&[&losing, &still], 4).unwrap();
    assert_eq!((found.pbo, found.loss), (0.0, 1.0));
    // Equals stand at the bottom of each other.
    assert_eq!(cscv(&[&a, &a], 4).unwrap().pbo, 1.0);
    assert_eq!(cscv(&[&a], 4), None);
    assert_eq!(cscv(&[&a[..7], &b[..7]], 4), None);
}

fn run_of(params: Value, inputs: &[(&str, &Path)]) -> Result<testing::Ran> {
    testing::run::<Compare>(params, inputs)
}

#[test]
fn the_best_of_25_looks_good_and_the_report_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let folder = gathered(dir.path());
    let params =
        json!({"draws": 200, "data": "S&P 500, daily closes", "reference": "buy and hold"});
    let ran = run_of(params.clone(), &[("crosses", &folder)]).unwrap();
    close(ran.metrics["sharpe_best"], 0.04721631 * 252f64.sqrt(), 1e-6);
    close(ran.metrics["deflated_sharpe"], 0.9303057401223891, 1e-9);
    close(ran.metrics["pbo"], 0.9444444444444444, 1e-12);
    let found: Value = serde_json::from_str(&ran.text("metrics")).unwrap();
    let verdict: Vec<&str> =
        found["verdict"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    assert!(verdict[0].contains("“crosses@fast=20,slow=60”") && verdict[0].contains("not shown"));
    assert!(verdict.concat().contains("did not carry over"), "{verdict:?}");
    let judgements: Vec<&str> = found["claims"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["judgement"].as_str().unwrap())
        .collect();
    assert_eq!(judgements[1..], ["NOT PROVEN", "FAIL"]);
    let again = run_of(params, &[("crosses", &folder)]).unwrap();
    for output in ["report", "markdown", "metrics"] {
        assert_eq!(ran.text(output), again.text(output), "{output}");
    }
    let files = |ran: &testing::Ran| {
        let mut names: Vec<String> = fs_err::read_dir(&ran.outputs["figures"])
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let names = files(&ran);
    assert_eq!(
        names,
        ["captions.md", "differences.svg", "equity.svg", "overfit.svg", "sharpe.svg"]
    );
    for name in names {
        let of = |ran: &testing::Ran| fs_err::read(ran.outputs["figures"].join(&name)).unwrap();
        assert_eq!(of(&ran), of(&again), "{name}");
    }
}

/// Models of 40 bars, two of them with seeds.
fn small(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let dates: Vec<String> =
        (0..40).map(|i| format!("2020-{:02}-{:02}", 1 + i / 20, 1 + i % 20)).collect();
    let hold: Vec<f64> = (0..40).map(|i| f64::from(i * 7 % 11 - 5) / 1000.0).collect();
    let wave = |k: i32| -> Vec<f64> {
        (0..40).map(|i| f64::from(i * k % 13 * k % 17 - 6) / 900.0).collect()
    };
    let put = |name: &str, x: &[f64]| {
        write(
            &dir.join(name),
            &evaluated(x, &hold, 252.0),
            &dates,
            &[("model", x), ("buy and hold", &hold)],
        );
    };
    for (seed, k) in [(1, 3), (2, 5), (10, 8)] {
        put(&format!("net/seed={seed}"), &wave(k));
    }
    put("rule", &wave(9));
    put("idle", &[0.0; 40]);
    ["net", "rule", "idle"].map(|name| (name, dir.join(name))).to_vec()
}

fn ports<'a>(all: &'a [(&'static str, PathBuf)]) -> Vec<(&'static str, &'a Path)> {
    all.iter().map(|(name, path)| (*name, path.as_path())).collect()
}

#[test]
fn groups_seeds_and_models_that_never_trade() {
    let dir = tempfile::tempdir().unwrap();
    let all = small(dir.path());
    let params = json!({"draws": 100, "blocks": 4, "groups": {"1 existing": ["idle"], "2 own": ["net", "ru*"]}});
    let ran = run_of(params, &ports(&all)).unwrap();
    let found: Value = serde_json::from_str(&ran.text("metrics")).unwrap();
    assert_eq!(found["groups"], json!([["1 existing", 1], ["2 own", 4]]));
    assert_eq!(found["models"][0]["name"], "idle");
    assert_eq!(found["models"][0]["sharpe"], Value::Null);
    assert_eq!(found["selection"]["trials"], 5);
    assert_eq!(found["selection"]["ranked"], 4);
    let seeds = found["seeds"].as_array().unwrap();
    let net = seeds.iter().find(|s| s["name"] == "net").unwrap();
    assert_eq!(net["seeds"], json!(["1", "2", "10"]));
    assert!(found["warnings"][0].as_str().unwrap().contains("“idle”"));
    assert!(ran.outputs["figures"].join("seeds.svg").exists());
    // What nobody can be compared with is said, not drawn.
    let still = [("a", all[2].1.as_path()), ("b", all[2].1.as_path())];
    let ran = run_of(json!({"draws": 100, "blocks": 4, "baselines": []}), &still).unwrap();
    assert!(ran.text("report").contains("There is nothing to choose"));
}

#[test]
fn the_report_of_a_few_models_is_golden() {
    let dir = tempfile::tempdir().unwrap();
    let all = small(dir.path());
    let params = json!({"draws": 100, "blocks": 4, "data": "a made-up wave", "reference": "rule",
        "groups": {"1 existing": ["idle"], "2 own": ["net", "rule"]}});
    let text = run_of(params, &ports(&all)).unwrap().text("markdown");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/compare/testdata/small.md");
    let wanted = fs_err::read_to_string(&golden).unwrap();
    assert!(text == wanted, "not as in testdata/small.md:\n{text}");
}

#[test]
fn forecasts_have_columns_where_an_evaluation_measured_them() {
    let dir = tempfile::tempdir().unwrap();
    let all = small(dir.path());
    let plain = run_of(json!({"draws": 100, "blocks": 4}), &ports(&all)).unwrap();
    assert!(plain.text("report").contains("no column for their quality"));
    assert!(!plain.text("report").contains("MCC"));
    let path = dir.path().join("rule/metrics.json");
    let mut metrics: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    let test = |difference: f64, p: f64| json!({"count": 9, "difference": difference, "statistic": 0.0, "p": p});
    metrics["quality"] = json!([{"name": "model", "brier": 0.6543, "classes": {"mcc": 0.0321}}]);
    metrics["rivals"] = json!([
        {"name": "majority", "squared": null, "log_loss": test(-0.2, 0.0004)},
        {"name": "boosting", "squared": null, "log_loss": test(-0.1, 0.2)},
    ]);
    metrics["contamination"] = json!({"claimable": false, "said": "unknown"});
    fs_err::write(&path, metrics.to_string()).unwrap();
    let text = run_of(json!({"draws": 100, "blocks": 4}), &ports(&all)).unwrap().text("markdown");
    let row = text.lines().find(|l| l.starts_with("| rule")).unwrap();
    assert!(row.ends_with("| 0.032 | 0.654 | better (than boosting, p 0.20) |"), "{row}");
    let other = text.lines().find(|l| l.starts_with("| idle")).unwrap();
    assert!(other.ends_with("| – | – | – |"), "{other}");
    assert!(text.contains("Memory is not ruled out of “rule”"));
}

#[test]
fn hostile_names_stay_text() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "<img src=x onerror=alert(1)>|`\"]";
    let (dates, all) = crosses();
    let folder = dir.path().join("m");
    for (i, (_, x)) in all.iter().take(3).enumerate() {
        let mut metrics = evaluated(x, &hold(&dates), 252.0);
        metrics["provenance"]["models"] = json!([evil]);
        write(&folder.join(format!("{evil}{i}")), &metrics, &dates, &[("model", x)]);
    }
    let params = json!({"draws": 100, "data": evil, "title": evil, "groups": {evil: ["m"]}});
    let ran = run_of(params, &[("m", &folder)]).unwrap();
    let page = ran.text("report");
    assert!(page.contains("&lt;img src=x"));
    for outside in ["<img", "<script", "href=", "@import", "url(", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let markdown = ran.text("markdown");
    assert!(!markdown.contains("<img") && markdown.contains("&lt;img"));
    let header = markdown.lines().find(|l| l.starts_with("| Model |")).unwrap();
    let row = markdown.lines().find(|l| l.starts_with("| m@")).unwrap();
    assert_eq!(row.replace("\\|", "").matches('|').count(), header.matches('|').count());
    for entry in fs_err::read_dir(&ran.outputs["figures"]).unwrap() {
        let text = fs_err::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("<img"));
    }
}

#[test]
fn two_ports_make_a_model_and_mixed_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let all = small(dir.path());
    let file = |folder: &str, name: &str| dir.path().join(folder).join(name);
    let (a, a_r) = (file("rule", "metrics.json"), file("rule", "returns.csv"));
    let (b, b_r) = (file("net/seed=1", "metrics.json"), file("net/seed=1", "returns.csv"));
    let params = || json!({"draws": 100, "blocks": 4});
    let four: [(&str, &Path); 4] = [("a", &a), ("a_returns", &a_r), ("b", &b), ("b_returns", &b_r)];
    let ran = run_of(params(), &four).unwrap();
    let found: Value = serde_json::from_str(&ran.text("metrics")).unwrap();
    assert_eq!(found["selection"]["trials"], 2);
    let fails = |inputs: &[(&str, &Path)], params: Value, said: &str| {
        let error = run_of(params, inputs).err().unwrap_or_else(|| panic!("not refused: {said}"));
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.help().is_some(), "{error}");
    };
    fails(&four[..3], params(), "`b` has no returns (a .csv file)");
    fails(&four[1..], params(), "`a_returns` has no metrics");
    fails(&four[..2], params(), "there is only one run to compare");
    fails(&[], params(), "there is no run to compare");
    let crossed: [(&str, &Path); 4] =
        [("a", &a), ("a_returns", &b_r), ("b", &b), ("b_returns", &b_r)];
    fails(&crossed, params(), "the returns of `a` have a Sharpe ratio of");
    fails(&ports(&all), json!({"reference": "nobody"}), "is none of the models");
    fails(&ports(&all), json!({"groups": {"x": ["nobody"]}}), "`nobody` of group `x` is no model");
    fails(
        &ports(&all),
        json!({"groups": {"x": ["net"], "y": ["n*"]}}),
        "is in two groups, `x` and `y`",
    );
    fails(&ports(&all), json!({"baselines": ["cash"]}), "no run has a baseline `cash`");
    fails(&[("a", &a_r), ("b", &b)], params(), "`a` has no metrics");
}

/// A model on some of the small market's dates.
fn part(dir: &Path, name: &str, rows: &[usize], per_year: f64, shift: f64) -> PathBuf {
    let dates: Vec<String> =
        rows.iter().map(|i| format!("2020-{:02}-{:02}", 1 + i / 20, 1 + i % 20)).collect();
    let hold: Vec<f64> =
        rows.iter().map(|i| (i * 7 % 11) as f64 / 1000.0 - 0.005 + shift).collect();
    let x: Vec<f64> = rows.iter().map(|i| (i * 5 % 13) as f64 / 900.0 - 0.006).collect();
    let metrics = evaluated(&x, &hold, per_year);
    write(&dir.join(name), &metrics, &dates, &[("model", &x), ("buy and hold", &hold)]);
    dir.join(name)
}

#[test]
fn other_spans_and_other_bars_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let range = |from: usize, to: usize| (from..to).collect::<Vec<_>>();
    let make =
        |name: &str, rows: &[usize], per_year, shift| part(dir.path(), name, rows, per_year, shift);
    let whole = make("whole", &range(0, 40), 252.0, 0.0);
    let late = make("late", &range(10, 40), 252.0, 0.0);
    let with_gap: Vec<usize> = range(0, 40).into_iter().filter(|i| *i != 20).collect();
    let gap = make("gap", &with_gap, 252.0, 0.0);
    let crypto = make("crypto", &range(0, 40), 365.0, 0.0);
    let other = make("other", &range(0, 40), 252.0, 0.001);
    let early = make("early", &range(0, 10), 252.0, 0.0);
    let error = |other: &Path, align: &str| {
        let params = json!({"draws": 100, "blocks": 4, "align": align});
        let error = run_of(params, &[("a", &whole), ("b", other)]).err().expect("refused");
        assert!(error.help().is_some());
        error.to_string()
    };
    assert_eq!(
        error(&late, "exact"),
        "`b` has another span (2020-01-11 to 2020-02-20, 30 returns) than `a` (2020-01-01 to 2020-02-20, 40 returns)"
    );
    for align in ["exact", "intersect"] {
        let gap = error(&gap, align);
        assert_eq!(gap, "`b` has other bars than `a`: 2020-02-02 where that has 2020-02-01");
        assert_eq!(error(&crypto, align), "`b` has other bars than `a`: 365 a year, and not 252");
        assert!(error(&other, align).contains("buy and hold returns"));
    }
    let params = json!({"draws": 100, "blocks": 4, "align": "intersect"});
    let ran = run_of(params.clone(), &[("a", &whole), ("b", &late)]).unwrap();
    let found: Value = serde_json::from_str(&ran.text("metrics")).unwrap();
    assert_eq!(found["provenance"]["returns"], 30);
    assert_eq!(found["provenance"]["first"], "2020-01-11");
    // The same model on the same dates: nothing between them.
    assert_eq!(found["models"][0]["sharpe"], found["models"][1]["sharpe"]);
    assert_eq!(found["models"][1]["difference"]["p_holm"], 1.0);
    let none = run_of(params, &[("a", &late), ("b", &early)]).err().unwrap();
    assert!(none.to_string().contains("no span in common"), "{none}");
}

#[test]
fn seeds_are_told_from_the_names_of_cells() {
    let name = |name: &str| {
        let evaluated = serde_json::from_value(evaluated(&[0.1, 0.2], &[0.1, 0.2], 252.0)).unwrap();
        let run = Run {
            name: name.into(),
            evaluated,
            dates: Vec::new(),
            columns: Vec::new(),
            returns: Vec::new(),
        };
        let (base, seed) = run.seeded();
        (base, seed.unwrap_or_default())
    };
    let of = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(name("lstm@seed=3"), of("lstm", "3"));
    assert_eq!(name("lstm@hidden=64,seed=3"), of("lstm@hidden=64", "3"));
    assert_eq!(name("lstm@hidden=64"), of("lstm@hidden=64", ""));
    assert_eq!(name("lstm"), of("lstm", ""));
}

#[test]
fn holm_takes_the_number_of_tests_into_account() {
    use super::resample::{Difference, adjust};
    use crate::evaluate::inference::Interval;
    let of =
        |p| Difference { value: 0.0, interval: Interval { low: 0.0, high: 0.0 }, p, p_holm: p };
    let mut all = [0.01, 0.04, 0.03, 0.005].map(of);
    adjust(&mut all.iter_mut().collect::<Vec<_>>());
    // p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") of R.
    for (d, wanted) in all.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        close(d.p_holm, wanted, 1e-15);
    }
}

#[test]
fn nonsense_is_refused_before_anything_runs() {
    let path = |params: Value| (crate::Kind::of::<Compare>().resolve)(&params).unwrap_err().path;
    assert_eq!(path(json!({"draws": 10})), "draws");
    assert_eq!(path(json!({"blocks": 5})), "blocks");
    assert_eq!(path(json!({"blocks": 18})), "blocks");
    assert_eq!(path(json!({"groups": {"a": []}})), "groups");
}
