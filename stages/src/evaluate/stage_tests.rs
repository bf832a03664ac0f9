//! The stage from model folder to report, with a tiny model of random weights: it answers
//! nonsense, and nonsense is what must be kept.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Evaluate;
use crate::device::{Back, cpu};
use crate::model::{self, Config, Folder, Llama, Normal, Sampling, Tokenizer, save};
use crate::testing;

/// A model folder: two layers, byte-level tokens.
fn model(dir: &Path, seed: u64) -> PathBuf {
    let folder = dir.join(format!("model-{seed}"));
    fs_err::create_dir(&folder).unwrap();
    let corpus = "Momentum is high. Volatility is low.\nDecision: buy market flat sell limit 10";
    let tokenizer = Tokenizer::train([corpus].into_iter(), 300).unwrap();
    let mut config = Config::llama(tokenizer.size(), 32, 2, 4, 2, 64, 128);
    tokenizer.describe(&mut config);
    let llama = Llama::<Back>::build(&config, &mut Normal::new(seed), &cpu()).unwrap();
    config.write(&folder).unwrap();
    tokenizer.write(&folder).unwrap();
    save::save(&llama, &folder).unwrap();
    folder
}

/// Forty bars, the last twenty of them the test span.
fn market(dir: &Path) -> (PathBuf, PathBuf) {
    let mut features =
        String::from("date,open,high,low,close,volume,split,momentum_30,p_high_vol\n");
    let mut prompts = String::new();
    for i in 0..40 {
        let date = format!("2020-{:02}-{:02}", 1 + i / 20, 1 + i % 20);
        let split = if i < 20 { "train" } else { "test" };
        let (open, close) = (100.0 + f64::from(i % 7), 100.0 + f64::from((i + 1) % 7));
        let (high, low) = (open.max(close) + 0.5, open.min(close) - 0.5);
        writeln!(features, "{date},{open},{high},{low},{close},1000,{split},{},0.2", i % 3 - 1)
            .unwrap();
        let text = format!("Momentum is {}. Volatility is {}.\nDecision:", i % 5, i % 4);
        writeln!(prompts, "{}", json!({"id": date, "t0": date, "split": split, "prompt": text}))
            .unwrap();
    }
    let paths = (dir.join("features.csv"), dir.join("prompts.jsonl"));
    fs_err::write(&paths.0, features).unwrap();
    fs_err::write(&paths.1, prompts).unwrap();
    paths
}

#[test]
fn answers_are_kept_and_every_output_is_written_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (features, prompts) = market(dir.path());
    let (tuned, base) = (model(dir.path(), 1), model(dir.path(), 2));
    let inputs: &[(&str, &Path)] =
        &[("model", &tuned), ("prompts", &prompts), ("features", &features), ("base", &base)];
    let params = json!({"max_new_tokens": 6, "draws": 100, "random_portfolios": 20});
    let run = || testing::run::<Evaluate>(params.clone(), inputs).unwrap();
    let (first, second) = (run(), run());
    for output in ["report", "metrics", "decisions"] {
        assert_eq!(first.text(output), second.text(output), "{output}");
    }
    let text = first.text("decisions");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.iter().filter(|r| &r[1] == "model").count(), 20);
    assert_eq!(rows.iter().filter(|r| &r[1] == "base").count(), 20);
    // What the stage reads once for all prompts must not change an answer.
    let loaded = model::load_folder::<Back>(&Folder::of_dir(&tuned).unwrap(), &cpu()).unwrap();
    let sampling = Sampling::greedy(6, loaded.tokenizer.eos());
    for (i, row) in rows.iter().take(20).enumerate() {
        let text =
            format!("Momentum is {}. Volatility is {}.\nDecision:", (i + 20) % 5, (i + 20) % 4);
        let tokens = loaded.tokenizer.prompt(&text).unwrap();
        let drawn = model::generate(&loaded.model, &tokens, 1, &sampling, 0).unwrap();
        assert_eq!(&row[2], loaded.tokenizer.decode(&drawn[0].tokens).unwrap());
    }
    assert_eq!(first.metrics["parse_failure_rate"], 1.0);
    assert!(first.text("report").contains("It never traded."));
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
