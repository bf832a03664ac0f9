//! The stage from model folder to report, with a tiny model of random weights: it answers
//! nonsense, and nonsense is what must be kept.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Evaluate;
use crate::infer::{Engine, Options};
use crate::model::weights::{self, Named, Normal, Source};
use crate::model::{Config, Tokenizer, layout};
use crate::pairs::decision::Decision;
use crate::testing::{self, Ran};

/// A model folder: two layers, byte-level tokens.
fn model(dir: &Path, seed: u64) -> PathBuf {
    let folder = dir.join(format!("model-{seed}"));
    fs_err::create_dir(&folder).unwrap();
    let corpus = "Momentum is high. Volatility is low.\nDecision: buy market flat sell limit 10";
    let tokenizer = Tokenizer::train([corpus].into_iter(), 300).unwrap();
    let mut config = Config::llama(tokenizer.size(), 32, 2, 4, 2, 64, 128);
    tokenizer.describe(&mut config);
    let mut normal = Normal::new(seed);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut values = normal.read(&name, &shape).unwrap();
        // Larger than at the start of a training, so that no two tokens are nearly as likely.
        let scale = if name.ends_with("norm.weight") { 1.0 } else { 10.0 };
        values.iter_mut().for_each(|x| *x *= scale);
        Named { name, shape, values }
    };
    let tensors: Vec<Named> = layout::tensors(&config).into_iter().map(tensor).collect();
    weights::write(&folder.join("model.safetensors"), &tensors).unwrap();
    config.write(&folder).unwrap();
    tokenizer.write(&folder).unwrap();
    folder
}

fn text(i: usize) -> String {
    format!("Momentum is {}. Volatility is {}.\nDecision:", i % 5, i % 4)
}

fn date(i: usize) -> String {
    format!("2020-{:02}-{:02}", 1 + i / 20, 1 + i % 20)
}

/// Forty bars, the last twenty of them the test span.
fn market(dir: &Path) -> (PathBuf, PathBuf) {
    let mut features =
        String::from("date,open,high,low,close,volume,split,momentum_30,p_high_vol\n");
    let mut prompts = String::new();
    for i in 0..40 {
        let date = date(i);
        let split = if i < 20 { "train" } else { "test" };
        let (open, close) = (100.0 + (i % 7) as f64, 100.0 + ((i + 1) % 7) as f64);
        let (high, low) = (open.max(close) + 0.5, open.min(close) - 0.5);
        let momentum = i as i64 % 3 - 1;
        writeln!(features, "{date},{open},{high},{low},{close},1000,{split},{momentum},0.2")
            .unwrap();
        let line = json!({"id": date, "t0": date, "split": split, "prompt": text(i)});
        writeln!(prompts, "{line}").unwrap();
    }
    let paths = (dir.join("features.csv"), dir.join("prompts.jsonl"));
    fs_err::write(&paths.0, features).unwrap();
    fs_err::write(&paths.1, prompts).unwrap();
    paths
}

/// What the model said, in order.
fn said(ran: &Ran, by: &str) -> Vec<String> {
    let text = ran.text("decisions");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.records().map(Result::unwrap);
    rows.filter(|row| &row[1] == by).map(|row| row[2].to_owned()).collect()
}

fn params(more: Value) -> Value {
    let mut params = json!({"max_new_tokens": 6, "draws": 100, "random_portfolios": 20});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

#[test]
fn answers_are_kept_and_every_output_is_written_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let (tuned, base) = (model(dir.path(), 1), model(dir.path(), 2));
    let inputs: &[(&str, &Path)] =
        &[("model", &tuned), ("prompts", &prompts), ("features", &features), ("base", &base)];
    let run = || testing::run::<Evaluate>(params(json!({})), inputs).unwrap();
    let (first, second) = (run(), run());
    for output in ["report", "metrics", "decisions"] {
        assert_eq!(first.text(output), second.text(output), "{output}");
    }
    assert_eq!(said(&first, "base").len(), 20);
    // What the stage reads once for all prompts must not change an answer.
    let engine = Engine::open(&tuned, Options::default()).unwrap();
    let answers = said(&first, "model");
    assert_eq!(answers.len(), 20);
    for (i, answer) in answers.iter().enumerate() {
        let tokenizer = engine.tokenizer();
        let mut session = engine.session(128);
        let mut read = tokenizer.prompt(&text(i + 20)).unwrap();
        let mut written = Vec::new();
        while written.len() < 6 {
            let logits = session.read(&engine, &read).unwrap();
            let best = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
            let token = (0..logits.len()).fold(0, best) as u32;
            written.push(token);
            read = vec![token];
            if tokenizer.eos().contains(&token) {
                break;
            }
        }
        assert_eq!(*answer, tokenizer.decode(&written).unwrap());
    }
    assert_eq!(first.metrics["parse_failure_rate"], 1.0);
    assert!(first.text("report").contains("It never traded."));
}

#[test]
fn under_a_grammar_every_answer_reads_and_the_seed_decides() {
    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let tuned = model(dir.path(), 1);
    let inputs: &[(&str, &Path)] =
        &[("model", &tuned), ("prompts", &prompts), ("features", &features)];
    for form in ["words", "json", "code"] {
        for temperature in [0.0, 3.0] {
            let more = json!({
                "form": form, "temperature": temperature, "offsets_bps": [5, 40], "max_size": 2
            });
            let run = || testing::run::<Evaluate>(params(more.clone()), inputs).unwrap();
            let (first, second) = (run(), run());
            assert_eq!(first.metrics["parse_failure_rate"], 0.0, "{form} {temperature}");
            assert_eq!(first.text("decisions"), second.text("decisions"), "{form} {temperature}");
            for answer in said(&first, "model") {
                match Decision::read(&answer).unwrap() {
                    Decision::Limit(_, offset, size) => {
                        assert!([5, 40].contains(&offset) && size <= 2)
                    }
                    Decision::Market(_, size) => assert!(size <= 2),
                    other => assert_eq!(other, Decision::Flat, "nothing rests between decisions"),
                }
            }
        }
    }
}

#[test]
fn a_head_learns_what_the_state_says() {
    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let tuned = model(dir.path(), 1);
    let pairs = dir.path().join("pairs.jsonl");
    // Best is what the first number of the prompt says; the last two labels saw the test span.
    let best = |i: usize| if i % 5 < 2 { " buy market" } else { " sell limit 10" };
    let line = |i: usize| {
        json!({
            "t0": date(i), "t1": date(i + 2), "prompt": text(i), "chosen": best(i),
            "rejected": " flat"
        })
        .to_string()
            + "\n"
    };
    fs_err::write(&pairs, (0..20).map(line).collect::<String>()).unwrap();
    let inputs: &[(&str, &Path)] =
        &[("model", &tuned), ("prompts", &prompts), ("features", &features), ("pairs", &pairs)];
    let more = json!({ "form": "head", "head_l2": 0.01 });
    let ran = testing::run::<Evaluate>(params(more.clone()), inputs).unwrap();
    assert_eq!(ran.metrics["head_rows_model"], 18.0);
    assert_eq!(ran.metrics["head_classes_model"], 2.0);
    assert_eq!(ran.metrics["parse_failure_rate"], 0.0);
    // The prompts of the test span are, in turn, those of the training span again.
    let answers = said(&ran, "model");
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, best(i + 20), "{i}");
    }
    let again = testing::run::<Evaluate>(params(more), inputs).unwrap();
    assert_eq!(ran.text("decisions"), again.text("decisions"));
}

/// What a training leaves in the model's folder is shown; a port that is fed comes first.
#[test]
fn a_model_brings_the_curve_of_its_training() {
    use crate::train::events::{self, Row};

    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let tuned = model(dir.path(), 1);
    let run = |more: &[(&str, &Path)]| {
        let mut inputs: Vec<(&str, &Path)> =
            vec![("model", &tuned), ("prompts", &prompts), ("features", &features)];
        inputs.extend(more);
        testing::run::<Evaluate>(params(json!({})), &inputs).unwrap()
    };
    let curves = |ran: &Ran| -> Value {
        let metrics: Value = serde_json::from_str(&ran.text("metrics")).unwrap();
        metrics["training"]["curves"].clone()
    };
    let none = run(&[]);
    assert_eq!(curves(&none), json!([]));
    assert!(none.text("markdown").contains("has no record of a training"));
    let row = |step: usize| Row {
        step,
        numbers: vec![
            ("loss".into(), 0.25),
            ("reward_mean".into(), 0.5 + step as f64 / 16.0),
            ("samples".into(), 8.0),
            ("parse_failures".into(), 4.0),
        ],
    };
    let rows: Vec<Row> = (1..=4).map(row).collect();
    let file = tuned.join(events::NAME);
    fs_err::write(&file, events::file(&rows)).unwrap();
    let own = run(&[]);
    assert_eq!(
        curves(&own),
        json!([
            ["reward", [[1.0, 0.5625], [2.0, 0.625], [3.0, 0.6875], [4.0, 0.75]]],
            ["failures", [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5], [4.0, 0.5]]],
        ])
    );
    for output in ["report", "markdown"] {
        let page = own.text(output);
        assert!(page.contains("Reward by training step"), "{output}");
        assert!(!page.contains("no record of a training"), "{output}");
    }
    let log = dir.path().join("log.jsonl");
    fs_err::write(&log, "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n").unwrap();
    assert_eq!(curves(&run(&[("log", &log)])), json!([["loss", [[1.0, 3.0], [2.0, 2.0]]]]));
    fs_err::write(&file, b"nothing of the kind").unwrap();
    let damaged = run(&[]);
    assert_eq!(curves(&damaged), json!([]));
    assert!(damaged.text("markdown").contains("is damaged"));
}

/// Prompts that name a ticker and a date, and a model that reads them to the character.
#[test]
fn names_and_dates_are_taken_out_and_the_model_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let tuned = model(dir.path(), 1);
    let told = |i: usize| format!("ACME on {}: {}", date(i), text(i));
    let line = |i: usize| {
        let split = if i < 20 { "train" } else { "test" };
        json!({"id": date(i), "t0": date(i), "split": split, "prompt": told(i)}).to_string() + "\n"
    };
    let named = dir.path().join("named.jsonl");
    fs_err::write(&named, (0..40).map(line).collect::<String>()).unwrap();
    let run = |prompts: &Path, more: Value| {
        let inputs: &[(&str, &Path)] =
            &[("model", &tuned), ("prompts", prompts), ("features", &features)];
        testing::run::<Evaluate>(params(more), inputs).unwrap()
    };
    // Sampled, so that the random model trades.
    let how = json!({"form": "words", "temperature": 2.0});
    let with = |anonymise: Value| {
        let mut all = how.clone();
        all["anonymise"] = anonymise;
        all
    };
    let ask = with(json!({"names": {"ACME": "STOCK"}, "shift_days": 7}));
    let (first, second) = (run(&named, ask.clone()), run(&named, ask));
    for output in ["report", "markdown", "metrics", "decisions"] {
        assert_eq!(first.text(output), second.text(output), "{output}");
    }
    let metrics: Value = serde_json::from_str(&first.text("metrics")).unwrap();
    let found = &metrics["anonymised"];
    assert_eq!(found["replaced"]["changed"], 20);
    assert_eq!(found["replaced"]["names"], json!([["ACME", "STOCK", 20]]));
    assert_eq!(found["replaced"]["dates"][0], json!(["2020-02-01", "2020-02-08", 1]));
    assert_eq!(found["replaced"]["dates"].as_array().unwrap().len(), 20);
    // The second answers are those to prompts that had no names and dates in the first place.
    let plain = dir.path().join("plain.jsonl");
    let text = fs_err::read_to_string(&named).unwrap();
    let shifted = |i: usize| {
        let [year, month, day] =
            [0, 1, 2].map(|at| date(i).split('-').nth(at).unwrap().parse::<u32>().unwrap());
        let date = chrono::NaiveDate::from_ymd_opt(year as i32, month, day).unwrap();
        (date + chrono::TimeDelta::days(7)).to_string()
    };
    let lines = text.lines().enumerate().map(|(i, line)| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row["prompt"] = told(i).replace("ACME", "STOCK").replace(&date(i), &shifted(i)).into();
        row.to_string() + "\n"
    });
    fs_err::write(&plain, lines.collect::<String>()).unwrap();
    let other = run(&plain, how.clone());
    assert_eq!(said(&first, "anonymised"), said(&other, "model"));
    let (mine, anonymous) = (said(&first, "model"), said(&first, "anonymised"));
    let changed = mine.iter().zip(&anonymous).filter(|(a, b)| a != b).count();
    assert!(changed > 0);
    assert_eq!(found["change"]["decisions"], changed as f64 / 20.0);
    assert_eq!(found["change"]["anonymous"].as_f64(), other.metrics.get("sharpe").copied());
    assert!(found["change"]["difference"]["low"].is_number());
    for output in ["report", "markdown"] {
        let page = first.text(output);
        for want in ["Asked without names and dates", "ACME → STOCK (20 times)", "Reading: "] {
            assert!(page.contains(want), "{output} {want}");
        }
    }
    // Prompts without either: said, and nobody is asked.
    let none = run(&prompts, with(json!({"names": {"ACME": "STOCK"}})));
    assert!(said(&none, "anonymised").is_empty());
    assert!(none.text("report").contains("There was nothing to replace"));
    assert!(none.warnings.iter().any(|w| w.contains("nothing to replace")), "{:?}", none.warnings);
    let metrics: Value = serde_json::from_str(&none.text("metrics")).unwrap();
    assert_eq!(metrics["anonymised"]["change"], Value::Null);
    // Not asked for: the page says how.
    assert!(run(&prompts, how).text("markdown").contains("Set `anonymise`"));
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let tuned = model(dir.path(), 1);
    let inputs: &[(&str, &Path)] =
        &[("model", &tuned), ("prompts", &prompts), ("features", &features)];
    let error = testing::run::<Evaluate>(json!({"max_new_tokens": 120}), inputs).err().unwrap();
    assert!(error.to_string().contains("does not fit the model's context of 128"), "{error}");
    assert!(error.help().is_some());
}

/// Two implementations of one model, at the temperature at which they differ least and most.
#[cfg(feature = "models")]
#[test]
fn the_engine_answers_as_burn_does() {
    use crate::device::{Back, cpu};
    use crate::model::{Folder, Sampling, generate, load_folder};

    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let tuned = model(dir.path(), 1);
    let inputs: &[(&str, &Path)] =
        &[("model", &tuned), ("prompts", &prompts), ("features", &features)];
    let loaded = load_folder::<Back>(&Folder::of_dir(&tuned).unwrap(), &cpu()).unwrap();
    for temperature in [0.0, 1.0] {
        let ran = testing::run::<Evaluate>(params(json!({ "temperature": temperature })), inputs);
        let sampling = Sampling {
            temperature: temperature as f32,
            ..Sampling::greedy(6, loaded.tokenizer.eos())
        };
        for (i, answer) in said(&ran.unwrap(), "model").iter().enumerate() {
            let tokens = loaded.tokenizer.prompt(&text(i + 20)).unwrap();
            let seed = super::decide::seed(0, i);
            let drawn = generate(&loaded.model, &tokens, 1, &sampling, seed).unwrap();
            assert_eq!(*answer, loaded.tokenizer.decode(&drawn[0].tokens).unwrap());
        }
    }
}
