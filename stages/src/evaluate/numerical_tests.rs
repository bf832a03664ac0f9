//! The way with forecasts, from files to verdict, on markets whose truth is known.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::assessment::Assessment;
use super::causality::Outcome;
use super::params::Params;
use super::policy::{Policy, Sizing};
use super::verdict::Judgement;
use super::{Places, numerical, write};
use crate::testing;

/// A market of some instruments, in files.
struct Market {
    dir: tempfile::TempDir,
    dates: Vec<String>,
    names: Vec<&'static str>,
    /// Log return of each bar, by instrument.
    returns: Vec<Vec<f64>>,
    /// First row of the test span.
    test: usize,
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random::<f64>().max(1e-12), rng.random());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

const GAP: usize = 10;

fn market(names: &[&'static str], rows: usize) -> Market {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let dates: Vec<String> = (0..rows)
        .map(|i| format!("{}-{:02}-{:02}", 2000 + i / 252, i / 21 % 12 + 1, i % 21 + 1))
        .collect();
    let test = rows / 3;
    let mut all = Vec::new();
    let folder = dir.path().join("features");
    fs_err::create_dir(&folder).unwrap();
    for name in names {
        let mut text = String::from(
            "date,open,high,low,close,volume,split,momentum_30,p_high_vol,t1,label,label_return\n",
        );
        let (mut price, mut returns) = (100.0f64, Vec::new());
        for i in 0..rows {
            let r = 0.01 * normal(&mut rng);
            let open = price;
            price *= r.exp();
            returns.push(r);
            let (high, low) = (open.max(price) * 1.001, open.min(price) * 0.999);
            let split = match i {
                i if i < test - GAP => "train",
                i if i < test => "gap",
                _ => "test",
            };
            let t1 = dates.get(i + 5).map_or("", String::as_str);
            let (momentum, storm) = (normal(&mut rng), f64::from(i / 50 % 2 == 0));
            let date = &dates[i];
            writeln!(
                text,
                "{date},{open},{high},{low},{price},1,{split},{momentum},{storm},{t1},1,0.01"
            )
            .unwrap();
        }
        fs_err::write(folder.join(format!("{name}.csv")), text).unwrap();
        all.push(returns);
    }
    Market { dir, dates, names: names.to_vec(), returns: all, test }
}

impl Market {
    /// Forecasts one bar ahead: `lean(asset, row, return that comes, noise)` is the mean in deviations.
    fn forecasts(
        &self,
        file: &str,
        seed: u64,
        lean: impl Fn(usize, usize, f64, f64) -> f64,
    ) -> PathBuf {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut text = String::from(
            "asset,t0,t1,span,fold,horizon,p_down,p_flat,p_up,mean,scale,class,return\n",
        );
        let rows = self.dates.len();
        for (asset, name) in self.names.iter().enumerate() {
            for row in self.test - 60..rows {
                let came = self.returns[asset].get(row + 1).copied();
                let z = lean(asset, row, came.unwrap_or(0.0) / 0.01, normal(&mut rng));
                let up = 0.4 + 0.35 * z.tanh();
                let down = 0.8 - up;
                let t1 = self.dates.get(row + 1).map_or("", String::as_str);
                let (span, fold) = if row < self.test { ("fold", "1") } else { ("test", "") };
                if (self.test - GAP..self.test).contains(&row) {
                    continue;
                }
                let class = came.map(|r| if r > 0.002 { 1 } else { -i32::from(r < -0.002) });
                let (class, came) = (
                    class.map(|c| c.to_string()).unwrap_or_default(),
                    came.map(|r| r.to_string()).unwrap_or_default(),
                );
                let date = &self.dates[row];
                let (flat, mean) = (1.0 - up - down, 0.01 * z);
                writeln!(
                    text,
                    "{name},{date},{t1},{span},{fold},1,{down},{flat},{up},{mean},0.008,{class},{came}"
                )
                .unwrap();
            }
        }
        let path = self.dir.path().join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    fn assess(&self, forecasts: &Path, more: &[(&str, &Path)], policy: Policy) -> Assessment {
        let params = Params {
            draws: 200,
            random_portfolios: 100,
            forecasts: Some(policy.clone()),
            ..Params::default()
        };
        let features = self.dir.path().join("features");
        let mut inputs: Vec<(&str, &Path)> =
            vec![("forecasts", forecasts), ("features", &features)];
        inputs.extend(more);
        testing::with(&inputs, |ctx| numerical::run(&params, &policy, ctx)).unwrap()
    }
}

fn free() -> Policy {
    Policy { rebalance: 1, ..Policy::default() }
}

fn outcome(a: &Assessment, name: &str) -> Outcome {
    let found = a.causality.iter().find(|c| c.name.contains(name));
    found.unwrap_or_else(|| panic!("no check {name}")).outcome
}

#[test]
fn noise_shuffles_and_shifts_have_no_skill_and_the_report_says_so() {
    let market = market(&["a", "b", "c"], 1200);
    let lead =
        |asset: usize, row: usize| market.returns[asset].get(row).copied().unwrap_or(0.0) / 0.01;
    let random = market.forecasts("random.csv", 1, |_, _, _, noise| noise);
    // Labels in another order: what comes at some other time.
    let shuffled = market
        .forecasts("shuffled.csv", 2, |asset, row, _, _| lead(asset, (row * 577 + 13) % 1200));
    // Forecasts of the bar that is over.
    let shifted = market.forecasts("shifted.csv", 3, |asset, row, _, _| lead(asset, row));
    for path in [random, shuffled, shifted] {
        let a = market.assess(&path, &[], free());
        let interval = a.strategies[0].sampled.sharpe.unwrap();
        let (gross, _) = (a.scenarios[0].sharpe.unwrap(), 0);
        assert!(gross.abs() < 1.5, "{gross}");
        assert!(interval.low < 0.0 && interval.low < interval.high, "{interval:?}");
        // Costs may push it below zero; without them it covers zero.
        let params = Params {
            taker_fee_bps: 0.0,
            half_spread_bps: 0.0,
            draws: 200,
            random_portfolios: 50,
            forecasts: Some(free()),
            ..Params::default()
        };
        let features = market.dir.path().join("features");
        let inputs: [(&str, &Path); 2] = [("forecasts", &path), ("features", &features)];
        let a = testing::with(&inputs, |ctx| numerical::run(&params, &free(), ctx)).unwrap();
        let interval = a.strategies[0].sampled.sharpe.unwrap();
        assert!(interval.covers(0.0), "{interval:?}");
        let said = a.verdict.join(" ");
        assert!(said.starts_with("No skill is proven."), "{said}");
        assert!(said.contains("the interval covers zero"), "{said}");
        assert_ne!(a.targets[0].judgement, Judgement::Pass);
        assert!(a.causality.iter().all(|c| c.outcome != Outcome::Caught), "{:?}", a.causality);
    }
}

#[test]
fn skill_is_seen_and_measured_against_a_baseline() {
    let market = market(&["a", "b", "c", "d", "e"], 1200);
    let skilled = market.forecasts("skill.csv", 1, |_, _, came, noise| 0.06 * came + 0.3 * noise);
    let noise = market.forecasts("baselines/boosting.csv", 2, |_, _, _, noise| 0.3 * noise);
    let baselines = noise.parent().unwrap();
    let policy = Policy { sizing: Sizing::Probability, ..free() };
    let a = market.assess(&skilled, &[("baselines", baselines)], policy);
    let names: Vec<&str> = a.strategies.iter().map(|s| s.name.as_str()).collect();
    let want = [
        "model",
        "boosting",
        "buy and hold",
        "always majority",
        "cash",
        "momentum 12-1",
        "mean reversion",
        "template rule",
        "vol-targeted",
    ];
    assert_eq!(names, want);
    let gross = a.scenarios[0].sharpe.unwrap();
    assert!(gross > 2.0, "{gross}");
    assert!(a.random.percentile_sharpe.unwrap() > 0.99);
    let model = &a.quality[0];
    assert!(model.classes.as_ref().unwrap().mcc.unwrap() > 0.05);
    assert!(model.information.dates > 700 && model.information.t.unwrap() > 4.0);
    assert!(model.crps.unwrap() < 0.0085);
    assert!(a.rivals[0].squared.unwrap().difference < 0.0);
    assert_eq!(a.provenance.assets, ["a", "b", "c", "d", "e"]);
    // Two folds are numbered from 0; none of them reaches into the test span.
    assert_eq!(a.splits.out_of_fold, (50 * 5, 2));
    assert_eq!((a.splits.overlap, a.splits.fold_overlap, a.splits.purged), (0, 0, 50));
    // Nobody knows how often it was tried.
    assert_ne!(a.targets[0].judgement, Judgement::Pass);
}

#[test]
fn look_ahead_in_forecasts_and_labels_is_caught_and_named() {
    let market = market(&["a"], 900);
    let told = market.forecasts("told.csv", 1, |_, _, came, noise| came + 0.5 * noise);
    let a = market.assess(&told, &[], free());
    assert_eq!(outcome(&a, "forecasts that know the future"), Outcome::Caught);
    assert!(a.verdict[0].contains("It saw the future."), "{:?}", a.verdict);
    assert!(a.verdict[1].contains("forecasts that know the future"));
    assert_eq!(a.targets[0].judgement, Judgement::NotProven);
    // What the file says came is not what came.
    let text = fs_err::read_to_string(&told).unwrap();
    let first = text.lines().nth(1).unwrap();
    let (rest, came) = first.rsplit_once(',').unwrap();
    let wrong = text.replace(&format!("{rest},{came}"), &format!("{rest},0.5"));
    // A line of the test span.
    let late = wrong.lines().nth(200).unwrap().to_string();
    let (rest, _) = late.rsplit_once(',').unwrap();
    fs_err::write(&told, wrong.replace(&late, &format!("{rest},0.5"))).unwrap();
    let a = market.assess(&told, &[], free());
    assert_eq!(outcome(&a, "returns in the forecasts"), Outcome::Caught);
    // Labels of training that end in the test span.
    let fair = market.forecasts("fair.csv", 1, |_, _, _, noise| noise);
    let features = market.dir.path().join("features/a.csv");
    let text = fs_err::read_to_string(&features).unwrap();
    fs_err::write(&features, text.replace(",gap,", ",train,")).unwrap();
    let a = market.assess(&fair, &[], free());
    assert_eq!(a.splits.overlap, 5);
    assert_eq!(outcome(&a, "labels that reach"), Outcome::Caught);
}

#[test]
fn a_control_that_knows_something_is_a_leak() {
    let market = market(&["a", "b", "c"], 1200);
    let model = market.forecasts("model.csv", 1, |_, _, came, noise| 0.06 * came + 0.3 * noise);
    let free = Policy { sizing: Sizing::Probability, ..free() };
    let a = market.assess(&model, &[], free.clone());
    assert_eq!(outcome(&a, "labels in another order"), Outcome::NotDone);
    assert_eq!(a.control, None);
    // Fitted to nothing it knows nothing, and pays costs.
    let none = market.forecasts("none.csv", 2, |_, _, _, noise| 0.1 * noise);
    let a = market.assess(&model, &[("control", &none)], free.clone());
    let control = a.control.as_ref().unwrap();
    assert_eq!(control.forecasts, a.quality[0].rows);
    assert!(control.hedged_interval.unwrap().low < 0.0, "{control:?}");
    assert!(control.difference.unwrap().high > 0.0, "{control:?}");
    assert_ne!(outcome(&a, "labels in another order"), Outcome::Caught);
    assert!(a.verdict.join(" ").contains("Fitted to labels in another order"));
    // Its classes are those of rows out of fold, and what always saying them loses is known.
    let rows = fs_err::read_to_string(&none).unwrap();
    let mut counts = [0.0; 3];
    let mut judged = [0.0; 3];
    for line in rows.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let Ok(class) = cells[11].parse::<i32>() else { continue };
        let into = if cells[3] == "fold" { &mut counts } else { &mut judged };
        into[(class + 1) as usize] += 1.0;
    }
    let (all, test): (f64, f64) = (counts.iter().sum(), judged.iter().sum());
    let loss: f64 = (0..3).map(|c| -judged[c] / test * f64::ln(counts[c] / all)).sum();
    super::testdata::close(control.majority, loss, 1e-12);
    // Fitted to nothing it knows what comes: the future is among its features.
    let leaks = market.forecasts("leaks.csv", 3, |_, _, came, noise| 0.3 * came + 0.3 * noise);
    let a = market.assess(&model, &[("control", &leaks)], free);
    assert_eq!(outcome(&a, "labels in another order"), Outcome::Caught);
    assert!(a.control.as_ref().unwrap().difference.unwrap().high < 0.0);
    let said = a.verdict.join(" ");
    assert!(said.contains("something leaks."), "{said}");
    assert_ne!(a.targets[0].judgement, Judgement::Pass);
    let report = super::report::render(&a).unwrap();
    for text in [&report.html, &report.markdown] {
        assert!(text.contains("Fit to labels in another order"));
    }
}

#[test]
fn importance_is_told_in_every_report_or_missed() {
    let market = market(&["a"], 500);
    let model = market.forecasts("model.csv", 1, |_, _, came, noise| 0.1 * came + 0.3 * noise);
    let a = market.assess(&model, &[], free());
    let report = super::report::render(&a).unwrap();
    let missed = "Not available: feed the output";
    assert!(report.html.contains(missed) && report.markdown.contains(missed));
    let path = market.dir.path().join("importance.csv");
    let text = "feature,horizon,loss_increase,lo,hi\nmomentum_30,1,0.01234,0.004,0.02\nrsi_14,1,0.0001,-0.003,0.003\n";
    fs_err::write(&path, text).unwrap();
    let a = market.assess(&model, &[("importance", &path)], free());
    let report = super::report::render(&a).unwrap();
    let json = serde_json::to_value(&a).unwrap();
    assert_eq!(json["importance"][0]["feature"], "momentum_30");
    assert_eq!(json["importance"][0]["interval"], serde_json::json!([0.004, 0.02]));
    assert!(report.html.contains("<figure id=\"importance\">"));
    for text in [&report.html, &report.markdown.replace('\\', "")] {
        for want in ["momentum_30", "0.01234", "0.00400 to 0.02000", "not proven"] {
            assert!(text.contains(want), "{want}");
        }
        assert!(!text.contains(missed));
    }
}

#[test]
fn seeds_give_a_median_and_a_spread() {
    let market = market(&["a", "b"], 900);
    for seed in 1..=5 {
        let file = format!("seeds/seed={seed}/forecasts.csv");
        market.forecasts(&file, seed, |_, _, came, noise| 0.1 * came + 0.5 * noise);
    }
    let folder = market.dir.path().join("seeds");
    let a = market.assess(&folder, &[], free());
    let seeds = a.seeds.as_ref().unwrap();
    let names: Vec<&str> = seeds.each.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["seed=1", "seed=2", "seed=3", "seed=4", "seed=5"]);
    let mut sharpes: Vec<f64> = seeds.each.iter().filter_map(|s| s.sharpe).collect();
    sharpes.sort_by(f64::total_cmp);
    assert_eq!(seeds.median, Some(sharpes[2]));
    assert_eq!(seeds.quartiles, Some((sharpes[1], sharpes[3])));
    // Five noisy seeds know more together.
    assert!(a.scenarios[0].sharpe > seeds.median);
}

#[test]
fn trials_deflate_and_may_pass() {
    let market = market(&["a", "b", "c"], 1500);
    let say = |file: &str, seed, skill: f64| {
        market.forecasts(file, seed, move |_, _, came, noise| skill * came + 0.3 * noise)
    };
    let dir = market.dir.path();
    let trials = dir.join("trials");
    fs_err::create_dir(&trials).unwrap();
    for seed in 0..4 {
        let path = say("other.csv", 10 + seed, 0.0);
        let a = market.assess(&path, &[], free());
        let at = |name: &str| dir.join(name);
        let returns = trials.join(format!("{seed}.csv"));
        let (report, markdown, metrics, decisions) =
            (at("r.html"), at("r.md"), at("m.json"), at("d.csv"));
        let places = Places {
            report: &report,
            markdown: &markdown,
            metrics: &metrics,
            decisions: &decisions,
            returns: &returns,
        };
        write(&a, &places).unwrap();
        let text = fs_err::read_to_string(&returns).unwrap();
        assert!(text.starts_with("date,model,buy and hold,"), "{text:.60}");
        assert_eq!(text.lines().count(), a.dates.len());
    }
    let skilled = say("skilled.csv", 1, 0.1);
    let a = market.assess(&skilled, &[("trials", &trials)], free());
    assert_eq!(a.selection.trials, Some(5));
    assert!(a.selection.deflated_sharpe.unwrap() > 0.95);
    assert_eq!(a.selection.overfit.as_ref().unwrap().pbo, 0.0);
    assert_eq!(a.targets[0].judgement, Judgement::Pass, "{}", a.targets[0].why);
    // Without skill the same trials say so.
    let a = market.assess(&say("none.csv", 77, 0.0), &[("trials", &trials)], free());
    assert!(a.selection.deflated_sharpe.unwrap() < 0.95);
    assert!(a.selection.overfit.unwrap().pbo > 0.2);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let market = market(&["a", "b"], 700);
    let path = market.forecasts("f.csv", 1, |_, _, came, noise| 0.1 * came + 0.3 * noise);
    let all = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let a = market.assess(&path, &[], free());
            let report = super::report::render(&a).unwrap();
            (report.html, report.markdown, serde_json::to_string(&a).unwrap())
        })
    };
    let (html, markdown, json) = all(1);
    assert_eq!((html.clone(), markdown.clone(), json), all(3));
    assert!(!html.contains("NaN") && !markdown.contains("NaN"));
    for title in ["Calibration of the probability", "What was guessed", "Rolling Sharpe"] {
        assert!(html.contains(title) && markdown.contains(title), "{title}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let market = market(&["a", "b"], 400);
    let path = market.forecasts("f.csv", 1, |_, _, _, noise| noise);
    fs_err::remove_file(market.dir.path().join("features/b.csv")).unwrap();
    fs_err::copy(
        market.dir.path().join("features/a.csv"),
        market.dir.path().join("features/c.csv"),
    )
    .unwrap();
    let features = market.dir.path().join("features");
    let inputs: [(&str, &Path); 2] = [("forecasts", &path), ("features", &features)];
    let params = Params { forecasts: Some(free()), ..Params::default() };
    let error = testing::with(&inputs, |ctx| numerical::run(&params, &free(), ctx)).unwrap_err();
    assert_eq!(error.to_string(), "no table of `b` among the features");
    assert_eq!(error.help(), Some("the tables are a, c"));
}
