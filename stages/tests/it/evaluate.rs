//! The whole of `evaluate` but the decoding: decisions made up by a fixed rule, on real bars.
//!
//! The reports stay in `$CARGO_TARGET_TMPDIR/evaluate/` for eyes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quantmill_stages::evaluate::assess::{Given, assess};
use quantmill_stages::evaluate::assessment::Training;
use quantmill_stages::evaluate::forecasts::{Forecast, Run};
use quantmill_stages::evaluate::panel::Panel;
use quantmill_stages::evaluate::policy::{Policy, Sizing};
use quantmill_stages::evaluate::positions;
use quantmill_stages::evaluate::{Assessment, Params, Places, input, write};

const ATTACK: &str = "<script>alert(1)</script><img src=x onerror=alert(1)>\u{202e}";

struct Case {
    dir: PathBuf,
    table: input::Table,
    prompts: Vec<input::Prompt>,
}

/// Features and prompts of the quickstart's bars, the last two years as the test span.
fn case(name: &str) -> Case {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("evaluate").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let bars = std::fs::read_to_string(root.join("pipelines/quickstart/data/nasdaq.csv")).unwrap();
    let lines: Vec<&str> = bars.lines().skip(1).collect();
    let close: Vec<f64> =
        lines.iter().map(|l| l.split(',').nth(4).unwrap().parse().unwrap()).collect();
    let move_of = |i: usize, h: usize| if i < h { 0.0 } else { (close[i] / close[i - h]).ln() };
    let mut features =
        String::from("date,open,high,low,close,volume,split,momentum_30,p_high_vol\n");
    let mut prompts = String::new();
    for (i, line) in lines.iter().enumerate() {
        let date = &line[..10];
        let split = match i {
            0..252 => "warmup",
            252..4500 => "train",
            4500..4528 => "gap",
            _ => "test",
        };
        let square: f64 = (0..20).map(|k| move_of(i.saturating_sub(k), 1).powi(2)).sum::<f64>();
        let stormy = if (square / 20.0).sqrt() > 0.011 { 0.93 } else { 0.04 };
        writeln!(features, "{line},{split},{:.6},{stormy}", move_of(i, 30)).unwrap();
        let prompt = format!(
            "Market state at {date}\nmomentum_30: {:.1}\np_high_vol: {stormy}\nDecision:",
            1e4 * move_of(i, 30)
        );
        let row = serde_json::json!({"id": date, "t0": date, "split": split, "prompt": prompt});
        if i >= 4528 || i == 1000 {
            writeln!(prompts, "{row}").unwrap();
        }
    }
    std::fs::write(dir.join("features.csv"), features).unwrap();
    std::fs::write(dir.join("prompts.jsonl"), prompts).unwrap();
    let table = input::features(&[dir.join("features.csv")]).unwrap();
    let prompts = input::prompts(&dir.join("prompts.jsonl"), &table, "test").unwrap();
    Case { dir, table, prompts }
}

/// A stand-in for a model: its answers depend on the number of the prompt alone.
fn answers(n: usize, spread: usize) -> Vec<String> {
    let say = |i: usize| {
        let i = i * i / 3 + i * spread;
        match i % 17 {
            0..=5 => " buy market",
            6..=8 => " buy limit 20",
            9 | 10 => " flat",
            11..=13 => " sell limit 35",
            14 => " sell market",
            15 => " buy limit 20 bps\nbecause",
            _ => ATTACK,
        }
    };
    (0..n).map(|i| say(i).to_string()).collect()
}

/// A training log with a reward that rises.
fn log(steps: usize) -> Vec<input::Step> {
    let step = |i: usize| {
        let x = i as f64;
        let noise = (x * 12.9898).sin() * 0.04;
        let share = 1.0 - (-x / 30.0).exp();
        [
            ("step", x + 1.0),
            ("reward_mean", 0.41 + 0.11 * share + noise),
            ("samples", 64.0),
            ("parse_failures", (30.0 * (1.0 - share) * (1.0 + noise)).round()),
            ("loss", 0.3 * noise),
        ]
        .map(|(k, v)| (k.to_string(), v))
        .into()
    };
    (0..steps).map(step).collect()
}

fn found(
    case: &Case,
    params: &Params,
    model: Vec<String>,
    base: Option<Vec<String>>,
    steps: usize,
) -> Assessment {
    assess(Given {
        params,
        seed: 7,
        table: &case.table,
        prompts: &case.prompts,
        available: case.prompts.len(),
        model,
        base,
        anonymous: None,
        training: Training::of(&log(steps), "a log"),
        about: vec!["a fixed rule in the place of a model".into()],
        baselines: Vec::new(),
        inputs: Vec::new(),
        trials: Vec::new(),
        queues: None,
    })
    .unwrap()
}

fn page(case: &Case, found: &Assessment) -> String {
    let at = |name: &str| case.dir.join(name);
    let names = ["report.html", "report.md", "metrics.json", "decisions.csv", "returns.csv"];
    let [report, markdown, metrics, decisions, returns] = &names.map(at);
    write(found, &Places { report, markdown, metrics, decisions, returns }).unwrap();
    std::fs::read_to_string(at("report.html")).unwrap()
}

fn quick() -> Params {
    Params { draws: 300, random_portfolios: 100, ..Params::default() }
}

#[test]
fn a_report_is_whole_offline_and_safe() {
    let case = case("mixed");
    let n = case.prompts.len();
    let found = found(&case, &quick(), answers(n, 1), Some(answers(n, 5)), 120);
    let html = page(&case, &found);
    let figures =
        ["equity", "drawdown", "rolling", "regimes", "costs", "actions", "reward", "failures"];
    for figure in figures {
        assert_eq!(html.matches(&format!("<figure id=\"{figure}\">")).count(), 1, "{figure}");
    }
    assert_eq!(html.matches("<svg").count(), figures.len());
    let tags = html.replace("&lt;img src=x", "");
    let tags = tags.replace("href=\"#s", "").replace("href=\"report.trials.html\"", "");
    for outside in ["src=", "href=", "@import", "url(", "<script", "<link", "<img", "<iframe"] {
        assert!(!tags.contains(outside), "{outside}");
    }
    // The model's attack is there as text, its direction override too.
    assert!(html.contains("&lt;script&gt;alert(1)&lt;&#x2f;script&gt;&lt;img src"));
    assert!(!html.contains('\u{202e}') && html.contains("\\u{202e}"));
    let sections = [
        "Provenance",
        "Contamination",
        "Causality",
        "Splits",
        "Baselines",
        "Costs",
        "Uncertainty",
        "Selection",
        "Forecast is not P&amp;L",
        "The index",
        "Verdict on each target",
    ];
    let markdown = std::fs::read_to_string(case.dir.join("report.md")).unwrap();
    for (n, title) in (1..).zip(sections) {
        let heading = format!("<h2 id=\"s{n}\"><span class=\"number\">{n}</span> {title}</h2>");
        assert_eq!(html.matches(&heading).count(), 1, "{heading}");
        let heading = format!("\n## {n}. {}\n", title.replace("&amp;", "\\&"));
        assert_eq!(markdown.matches(&heading).count(), 1, "{heading}");
    }
    // There it is code.
    let attacks = markdown.lines().filter(|line| line.contains("<script"));
    assert!(attacks.clone().count() > 0 && attacks.clone().all(|line| line.starts_with("    ")));
    assert!(!markdown.contains('\u{202e}'));
    assert!(!html.contains("NaN") && !html.contains("inf<"));
    assert!(html.contains("NOT PROVEN") || html.contains("FAIL"));
}

#[test]
fn decisions_keep_every_character() {
    let case = case("decisions");
    let n = case.prompts.len();
    let said = answers(n, 1);
    let found = found(&case, &quick(), said.clone(), None, 0);
    let html = page(&case, &found);
    assert!(!html.contains("<figure id=\"reward\">") && !html.contains("base model</th>"));
    let mut reader = csv::Reader::from_path(case.dir.join("decisions.csv")).unwrap();
    assert_eq!(
        reader.headers().unwrap(),
        ["date", "source", "answer", "action", "position"].as_slice()
    );
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), n);
    let kept: Vec<&str> = rows.iter().map(|r| &r[2]).collect();
    assert_eq!(kept, said);
    for row in &rows {
        let unread = row[2].contains("because") || row[2].contains("script");
        assert_eq!(&row[3] == "parse failure", unread);
        // A parse failure is flat at the next bar.
        assert!(!unread || &row[4] == "0");
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let case = case("twice");
    let n = case.prompts.len();
    let all = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let found = found(&case, &quick(), answers(n, 1), Some(answers(n, 5)), 40);
            let html = page(&case, &found);
            let read = |name: &str| std::fs::read_to_string(case.dir.join(name)).unwrap();
            (html, read("metrics.json"), read("decisions.csv"))
        })
    };
    assert_eq!(all(1), all(3));
}

#[test]
fn a_model_that_always_says_one_thing_is_found_out() {
    let case = case("always");
    let n = case.prompts.len();
    let found = found(&case, &quick(), vec![" buy market".into(); n], None, 0);
    let html = page(&case, &found);
    assert!(html.contains("class=\"alarm\""));
    let said = found.verdict.join(" ");
    assert!(said.contains("“buy market” in 100% of the cases"), "{said}");
    assert!(said.contains("no timing to compare"), "{said}");
    assert!(said.contains("the same as the model"), "{said}");
    // In at the open after the first decision, with one fee and half a spread.
    let rows = &case.table.bars[case.prompts[0].row..];
    let entry = rows[1].open;
    let want = rows[rows.len() - 1].close / entry - 2e-4;
    let got = found.strategy("buy and hold").unwrap().path.equity[rows.len() - 1];
    assert!((got - want).abs() < 1e-12, "{got} is not {want}");
    assert!(found.random.degenerate);
}

#[test]
fn a_model_that_cannot_be_read_holds_nothing() {
    let case = case("unread");
    let n = case.prompts.len();
    let found = found(&case, &quick(), vec!["Well, it depends.".into(); n], None, 0);
    let html = page(&case, &found);
    let model = found.strategy("model").unwrap();
    assert!(model.path.position.iter().all(|p| *p == 0));
    assert_eq!((model.metrics.total_return, model.metrics.sharpe), (0.0, None));
    assert_eq!(found.answers[0].failure_rate, 1.0);
    assert!(found.verdict.join(" ").contains("never held a position"));
    assert!(html.contains("100% of the answers of the model cannot be read"));
    // Nothing is proven by not playing.
    assert_eq!(html.matches("chip NOT PROVEN").count(), 3);
}

#[test]
fn a_prophet_is_told_from_chance() {
    let case = case("prophet");
    // Knows the next bar from open to close: an edge that no honest model has.
    let bars = &case.table.bars;
    let say = |p: &input::Prompt| match bars.get(p.row + 1) {
        Some(b) if b.close > b.open => " buy market".to_string(),
        Some(_) => " sell market".to_string(),
        None => " flat".to_string(),
    };
    let said: Vec<String> = case.prompts.iter().map(say).collect();
    let found = found(&case, &quick(), said, None, 0);
    page(&case, &found);
    // The interval clears the target by far; that nobody knows what was tried beside it leaves it open.
    assert!(found.strategies[0].sampled.sharpe.unwrap().low > 5.0);
    let judged = serde_json::to_value(found.targets[0].judgement).unwrap();
    assert_eq!(judged, "NOT PROVEN");
    assert!(found.targets[0].why.contains("port `trials`"), "{}", found.targets[0].why);
    assert_eq!(found.random.percentile_sharpe, Some(1.0));
    // Randomness of the same holding periods must straddle zero skill.
    let [low, _, high] = found.random.sharpe.unwrap();
    assert!(low < 1.5 && high > -1.5 && low < high);
}

#[test]
fn leaving_prompts_out_ends_the_backtest_with_them() {
    let mut case = case("short");
    let all = case.prompts.len();
    case.prompts.truncate(60);
    let params = quick();
    let found = assess(Given {
        params: &params,
        seed: 7,
        table: &case.table,
        prompts: &case.prompts,
        available: all,
        model: answers(60, 1),
        base: None,
        anonymous: None,
        training: Training::default(),
        about: Vec::new(),
        baselines: Vec::new(),
        inputs: Vec::new(),
        trials: Vec::new(),
        queues: None,
    })
    .unwrap();
    assert_eq!(found.dates.len(), 61);
    assert!(page(&case, &found).contains("442 of the 503 bars of the test span are not in it"));
}

/// A stand-in for a numerical model: it leans with the last month, with noise of its seed.
fn forecasts(case: &Case, panel: &Panel, seed: usize, weight: f64) -> Run {
    let close = |row: usize| case.table.close(row);
    let judged = (4528..case.table.dates.len()).map(|at| {
        let momentum = (close(at).unwrap() / close(at - 21).unwrap()).ln() / 0.05;
        let noise = (((at * 7919 + seed * 104_729) % 1000) as f64 / 500.0 - 1.0) * 0.6;
        let lean = (0.3 * (weight * momentum + noise)).tanh();
        let came = close(at + 5).zip(close(at)).map(|(b, a)| (b / a).ln());
        let class = |r: f64| if r > 0.008 { 2 } else { usize::from(r > -0.008) };
        Forecast {
            at,
            asset: 0,
            until: panel.dates.get(at + 5).cloned(),
            p: [0.34 - 0.3 * lean, 0.32, 0.34 + 0.3 * lean],
            mean: 0.004 * lean,
            scale: Some(0.018),
            class: came.map(class),
            came,
        }
    });
    Run { name: format!("seed={seed}"), horizon: 5, judged: judged.collect(), folds: Vec::new() }
}

#[test]
fn a_report_of_forecasts_is_whole_too() {
    let case = case("forecasts");
    let panel = Panel::single(&case.table);
    let policy = Policy { sizing: Sizing::Probability, max_weight: 1.5, ..Policy::default() };
    let params = Params { forecasts: Some(policy.clone()), ..quick() };
    let boosting = Run { name: "boosting".into(), ..forecasts(&case, &panel, 77, 0.0) };
    let found = positions::assess(positions::Given {
        params: &params,
        policy: &policy,
        seed: 7,
        tables: &[(String::new(), case.table.clone())],
        whole: &panel,
        runs: (1..=5).map(|seed| forecasts(&case, &panel, seed, -0.4)).collect(),
        baselines: vec![boosting],
        control: Vec::new(),
        importance: None,
        inputs: Vec::new(),
        trials: Vec::new(),
    })
    .unwrap();
    let html = page(&case, &found);
    let figures = ["equity", "drawdown", "rolling", "regimes", "costs", "calibration", "confusion"];
    for figure in figures {
        assert_eq!(html.matches(&format!("<figure id=\"{figure}\">")).count(), 1, "{figure}");
    }
    assert_eq!(html.matches("<svg").count(), figures.len());
    assert!(html.contains("5 seeds: median Sharpe ratio"));
    assert!(html.contains("Test of Diebold and Mariano"));
    assert!(!html.contains("NaN") && !html.contains("inf<"));
    // Weights decide at every fifth bar of the test span.
    assert_eq!(found.decisions.len(), case.prompts.len().div_ceil(5));
    let metrics = std::fs::read_to_string(case.dir.join("metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["strategies"][0]["name"], "model");
    assert_eq!(metrics["seeds"]["each"].as_array().unwrap().len(), 5);
}
