//! A tiny random model asked about a small market: what comes out is what the model says, and what its
//! states tell is learnt.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::forecast::Forecasting;
use crate::forecast::lines::{self, Line, Span};
use crate::forecast::tests::{Market, day, noise, signal};
use crate::infer::{Engine, Options};
use crate::model::tiny;
use crate::pairs::decision::Decision;
use crate::testing::{self, Ran};

/// What a row is told as: the first feature shows, where it is large.
fn text(market: &Market, row: usize) -> String {
    let word = match market.features[row][0] {
        x if x > 0.3 => "another small text",
        x if x < -0.3 => "text text text",
        _ => "a",
    };
    format!("a small text, {word}\nDecision:")
}

fn split(market: &Market, row: usize) -> Option<&'static str> {
    match row {
        r if r < 5 || (market.train..market.train + 5).contains(&r) => None,
        r if r < market.train => Some("train"),
        _ => Some("test"),
    }
}

/// Writes prompts of every `stride`-th row.
fn prompts(market: &Market, stride: usize, path: &Path) {
    let mut out = String::new();
    for row in (0..market.closes.len()).step_by(stride) {
        let Some(split) = split(market, row) else { continue };
        let line = json!({ "id": row.to_string(), "t0": day(row), "split": split, "prompt": text(market, row) });
        writeln!(out, "{line}").unwrap();
    }
    fs_err::write(path, out).unwrap();
}

fn params(language: Value) -> Value {
    json!({ "model": { "language": language }, "horizons": [1, 3],
        "folds": { "walk_forward": { "folds": 2 } } })
}

fn model() -> tempfile::TempDir {
    let config = tiny::config("llama");
    tiny::folder(&config, &tiny::random(&config))
}

fn try_run(market: &Market, stride: usize, model: &Path, given: Value) -> Result<Ran> {
    let dir = tempfile::tempdir().unwrap();
    let table = market.write(&dir.path().join("features.csv"));
    let asked = dir.path().join("prompts.jsonl");
    prompts(market, stride, &asked);
    let ports = [("features", &*table), ("prompts", &*asked), ("language", model)];
    testing::run::<Forecasting>(given, &ports)
}

fn forecasts(ran: &Ran) -> Vec<Line> {
    lines::read(&ran.outputs["forecasts"]).unwrap()
}

/// The log-probability of some tokens after a prompt, in one pass over the whole.
fn log_prob(engine: &Engine, prompt: &[u32], answer: &[u32]) -> f64 {
    let whole = [prompt, answer].concat();
    let logits = engine.session(whole.len()).read_all(engine, &whole).unwrap();
    let width = engine.config().vocab_size;
    answer
        .iter()
        .enumerate()
        .map(|(at, token)| {
            let row = &logits[(prompt.len() + at - 1) * width..][..width];
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            f64::from(row[*token as usize]) - total.ln()
        })
        .sum()
}

/// Probabilities are those of a plain reading of the definition: each answer by itself, in one pass.
#[test]
fn a_grammar_weighs_answers_exactly() {
    let (market, folder) = (noise(300, 31), model());
    let engine = Engine::open(folder.path(), Options::default()).unwrap();
    let tokenizer = engine.tokenizer();
    let end = tokenizer.eos()[0];
    let decisions = [
        "flat",
        "hold",
        "cancel",
        "buy market",
        "sell market",
        "buy limit 1",
        "buy limit 10",
        "sell limit 1",
        "sell limit 10",
    ];
    for (language, answers) in [
        (
            json!({ "calibrate": "none" }),
            vec![(" down".to_owned(), 0), (" flat".into(), 1), (" up".into(), 2)],
        ),
        (
            json!({ "calibrate": "none", "answers": "words", "offsets_bps": [10, 1], "question": " text" }),
            decisions
                .iter()
                .map(|text| {
                    let class = match text.split(' ').next() {
                        Some("buy") => 2,
                        Some("sell") => 0,
                        _ => 1,
                    };
                    assert!(Decision::parse(text).is_some());
                    (format!(" {text}"), class)
                })
                .collect(),
        ),
    ] {
        let ran = try_run(&market, 1, folder.path(), params(language.clone())).unwrap();
        let all = forecasts(&ran);
        assert_eq!(ran.metrics["prompts"], 290.0);
        let question = language["question"].as_str().unwrap_or_default();
        for line in all.iter().filter(|line| line.horizon == 1).step_by(23) {
            let row = (0..300).find(|row| day(*row) == line.t0).unwrap();
            let prompt = tokenizer.prompt(&(text(&market, row) + question)).unwrap();
            let mut masses = [0.0; 3];
            for (text, class) in &answers {
                let mut tokens = tokenizer.encode(text).unwrap();
                if answers.len() > 3 {
                    tokens.push(end);
                }
                masses[*class] += log_prob(&engine, &prompt, &tokens).exp();
            }
            let total: f64 = masses.iter().sum();
            for (mass, p) in masses.iter().zip(line.p()) {
                assert!((mass / total - p).abs() < 1e-5, "{line:?} {masses:?}");
            }
        }
        // Out of fold and on the test span, as of every model.
        assert!(all.iter().any(|line| line.span == Span::Fold));
        assert!(all.iter().any(|line| line.span == Span::Test));
        assert!(all.iter().all(|line| (line.p().iter().sum::<f64>() - 1.0).abs() < 1e-5));
    }
}

/// Prompts that tell of the next return: a head learns it from the states, and a temperature makes the
/// probabilities of the untuned model no worse than the shares of the classes would be by much.
#[test]
fn a_head_learns_and_a_temperature_heals() {
    let (market, folder) = (signal(600, 32), model());
    let run = |language: Value| try_run(&market, 1, folder.path(), params(language)).unwrap();
    let head = run(json!({ "form": "head", "l2": 0.01 }));
    assert!(head.metrics["test_mcc_1"] > 0.2, "{}", head.metrics["test_mcc_1"]);
    assert!(head.metrics["fold_mcc_1"] > 0.2, "{}", head.metrics["fold_mcc_1"]);
    let raw = run(json!({ "calibrate": "none" }));
    let healed = run(json!({}));
    for name in ["fold_log_loss_1", "test_log_loss_1"] {
        let (raw, healed) = (raw.metrics[name], healed.metrics[name]);
        assert!(healed < raw - 0.05 && healed < 1.13, "{raw} {healed}");
        assert!(head.metrics[name] < healed, "{}", head.metrics[name]);
    }
    // Parameters of the head are searched for like those of any other model.
    let mut given = params(json!({ "form": "head" }));
    given["search"] =
        json!({ "grid": { "l2": [0.01, 100.0] }, "folds": { "walk_forward": { "folds": 2 } } });
    let searched = try_run(&market, 1, folder.path(), given).unwrap();
    assert_eq!(searched.metrics["search_l2"], 0.01);
}

/// A random model says nothing that can be read: that is counted, and all classes are as probable.
#[test]
fn what_does_not_read_is_uniform_and_counted() {
    let (market, folder) = (noise(300, 33), model());
    let ran = try_run(&market, 1, folder.path(), params(json!({ "form": "free" }))).unwrap();
    let all = forecasts(&ran);
    let uniform = |line: &&Line| line.p().iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6);
    let share = all.iter().filter(uniform).count() as f64 / all.len() as f64;
    assert!(ran.metrics["parse_failures"] > 0.0);
    assert!((share - ran.metrics["parse_failure_rate"]).abs() < 0.2, "{share} {:?}", ran.metrics);
    for (text, class) in [
        (" Up, I think", Some(2)),
        ("it will go DOWN and then up", Some(0)),
        (" sell market", Some(0)),
        ("hold", Some(1)),
        ("upper", None),
        ("", None),
    ] {
        assert_eq!(ask::direction(text), class, "{text}");
    }
}

/// Rows without a prompt are neither learnt from nor forecast; prompts of other rows are refused.
#[test]
fn rows_without_a_prompt_are_left_out() {
    let (market, folder) = (noise(400, 34), model());
    let ran = try_run(&market, 2, folder.path(), params(json!({}))).unwrap();
    let all = forecasts(&ran);
    let row = |line: &Line| (0..400).find(|row| day(*row) == line.t0).unwrap();
    assert!(!all.is_empty() && all.iter().all(|line| row(line) % 2 == 0));
    let tested = all.iter().filter(|line| line.span == Span::Test && line.horizon == 1).count();
    assert_eq!(tested, (285..400).filter(|row| row % 2 == 0).count());
    let error = try_run(&market, 20, folder.path(), params(json!({}))).err().unwrap();
    assert!(error.to_string().contains("training rows have a prompt"), "{error}");
    let other = Market { train: 200, ..market.clone() };
    let dir = tempfile::tempdir().unwrap();
    let table = other.write(&dir.path().join("features.csv"));
    let asked = dir.path().join("prompts.jsonl");
    prompts(&market, 1, &asked);
    let ports = [("features", &*table), ("prompts", &*asked), ("language", folder.path())];
    let error = testing::run::<Forecasting>(params(json!({})), &ports).err().unwrap();
    assert!(error.to_string().contains("another split than in the features"), "{error}");
}

/// The temperature is where the weighted loss is least.
#[test]
fn the_temperature_is_the_likeliest() {
    let rows: Vec<([f64; 3], Target)> = (0..200)
        .map(|i| {
            let x = f64::from(i);
            let logs = [(1.3 * x).sin() * 3.0, (0.7 * x).cos() * 3.0, (2.1 * x).sin() * 3.0];
            let best = (0..3).max_by(|a, b| logs[*a].total_cmp(&logs[*b])).unwrap();
            let class = if i % 3 == 0 { (i / 3 % 3) as u8 } else { best as u8 };
            (logs, Target { class, value: 0.0 })
        })
        .collect();
    let counts = [0.5, 1.0, 2.0];
    let loss = |by: f64| -> f64 {
        rows.iter()
            .map(|(logs, t)| {
                -counts[usize::from(t.class)] * power(logs, by)[usize::from(t.class)].ln()
            })
            .sum()
    };
    let found = inverse(&rows, &counts);
    assert!(found > 0.1 && found < 10.0, "{found}");
    for off in [0.9, 0.999, 1.001, 1.1] {
        assert!(loss(found) < loss(found * off), "{found} {off}");
    }
    // Where the model is wrong throughout, what it says is not used.
    let wrong: Vec<_> =
        (0..9).map(|c| ([2.0, 0.0, 0.0], Target { class: 1 + c % 2, value: 0.0 })).collect();
    assert_eq!(inverse(&wrong, &counts), 0.0);
}
