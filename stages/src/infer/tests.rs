//! The whole engine: against transformers on the tiny Qwen2 of `tests/data`, against itself in
//! other chunks, batches and threads, and (opt-in) against llama.cpp on SmolLM2.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::model::{Folder, Tokenizer};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2").join(name)
}

fn reference() -> Value {
    serde_json::from_str(&fs_err::read_to_string(data("reference.json")).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

fn tokens(value: &Value) -> Vec<u32> {
    floats(value).into_iter().map(|x| x as u32).collect()
}

fn threads(threads: usize) -> Options {
    Options { threads: Some(threads), context: None }
}

/// The files of the tiny model, which has no tokenizer, with those of an adapter.
fn tiny(adapter: Option<&str>, options: Options) -> Engine {
    let folder = tempfile::tempdir().unwrap();
    for from in ["base"].into_iter().chain(adapter) {
        for entry in fs_err::read_dir(data(from)).unwrap() {
            let entry = entry.unwrap();
            fs_err::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    let tokenizer = Tokenizer::train(["a text"].into_iter(), 257).unwrap();
    Engine::load(&Folder::of_dir(folder.path()).unwrap(), options, Some(tokenizer)).unwrap()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |far, (a, b)| far.max((a - b).abs()))
}

#[test]
fn logits_are_those_of_transformers_and_peft() {
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    for (adapter, expected) in [
        (None, &reference["base_logits"]),
        (Some("lora"), &reference["lora"]["logits"]),
        (Some("rslora"), &reference["rslora"]["logits"]),
    ] {
        let engine = tiny(adapter, threads(2));
        let expected = floats(expected);
        let logits: Vec<f32> = input
            .chunks(input.len() / 2)
            .flat_map(|text| engine.session(text.len()).read_all(&engine, text).unwrap())
            .collect();
        let off = far(&logits, &expected);
        assert!(off < 1e-5, "{adapter:?}: {off}");
    }
}
