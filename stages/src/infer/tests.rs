//! The whole engine: against transformers on the tiny Qwen2 of `tests/data`, against itself in
//! other chunks, batches and threads.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::model::config::Scaling;
use crate::model::gguf::Packing;
use crate::model::tiny::{config, folder, packed, random};
use crate::model::weights::Source;
use crate::model::{Config, Folder, Gguf, Tokenizer, layout};

pub(super) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2").join(name)
}

pub(super) fn reference() -> Value {
    serde_json::from_str(&fs_err::read_to_string(data("reference.json")).unwrap()).unwrap()
}

pub(super) fn floats(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

pub(super) fn tokens(value: &Value) -> Vec<u32> {
    floats(value).into_iter().map(|x| x as u32).collect()
}

fn threads(threads: usize) -> Options {
    Options { threads: Some(threads), ..Options::default() }
}

/// The files of the tiny model, which has no tokenizer, with those of an adapter.
pub(super) fn tiny(adapter: Option<&str>, options: Options) -> Engine {
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

pub(super) fn far(a: &[f32], b: &[f32]) -> f32 {
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

pub(super) fn text(n: u32) -> Vec<u32> {
    (0..n).map(|i| i * 7919 % 251).collect()
}

#[test]
fn the_state_after_a_prompt_is_what_its_logits_are_of() {
    let config = config("llama");
    let tensors = random(&config);
    let folder = folder(&config, &tensors);
    let engine = Engine::open(folder.path(), threads(2)).unwrap();
    // The output matrix is the embedding.
    let head = tensors.iter().find(|t| t.name == "model.embed_tokens.weight").unwrap();
    for len in [1, 7, 300] {
        let text = text(len);
        let state = engine.session(text.len()).read_hidden(&engine, &text).unwrap();
        assert_eq!(state.len(), config.hidden_size);
        let row = |row: &[f32]| row.iter().zip(&state).map(|(w, x)| w * x).sum();
        let expected: Vec<f32> = head.values.chunks(config.hidden_size).map(row).collect();
        let mut session = engine.session(text.len());
        let off = far(session.read(&engine, &text).unwrap(), &expected);
        assert!(off < 1e-5, "{len}: {off}");
        // Read in two parts it is the same.
        let (first, rest) = text.split_at(text.len() / 2);
        let mut session = engine.session(text.len());
        if !first.is_empty() {
            session.read(&engine, first).unwrap();
        }
        assert!(session.read_hidden(&engine, rest).unwrap() == state, "{len}");
    }
}

#[test]
fn every_layout_computes_what_the_naive_model_does() {
    let llama3 = Scaling {
        rope_type: "llama3".into(),
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    };
    for model_type in ["llama", "llama3", "qwen2", "qwen3", "qwen3_moe"] {
        let mut config = config(model_type.trim_end_matches('3'));
        if model_type == "llama3" {
            config.rope_scaling = Some(llama3.clone());
        } else {
            config = self::config(model_type);
        }
        let tensors = random(&config);
        let folder = folder(&config, &tensors);
        let engine = Engine::open(folder.path(), threads(2)).unwrap();
        let weights = tensors.into_iter().map(|t| (t.name, t.values)).collect();
        let text = text(30);
        let logits = engine.session(30).read_all(&engine, &text).unwrap();
        let expected = reference::logits(&config, &weights, &text);
        let size = expected.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
        for (a, b) in logits.iter().zip(&expected) {
            let off = (f64::from(*a) - b).abs() / size;
            assert!(off < 1e-5, "{model_type}: {a} for {b}");
        }
    }
}

/// The weights of a GGUF file as the naive model takes them, and its shape.
pub(super) fn unpacked(folder: &Path) -> (Config, reference::Weights) {
    let file = Gguf::open(&folder.join("model.gguf")).unwrap();
    let config = file.config().unwrap();
    let mut source = file.source(&config);
    let weights = layout::tensors(&config).into_iter().map(|(name, shape)| {
        let values = source.read(&name, &shape).unwrap();
        (name, values)
    });
    let weights = weights.collect();
    drop(source);
    (config, weights)
}

#[test]
fn packed_models_compute_what_their_weights_do_unpacked() {
    for (model_type, packing, limit) in [
        ("llama", Packing::F32, 1e-5),
        ("llama", Packing::F16, 1e-3),
        ("qwen2", Packing::Bf16, 1e-3),
        ("llama", Packing::Q8_0, 0.03),
        ("qwen2", Packing::Q4_0, 0.03),
        ("qwen3", Packing::Q4_1, 0.03),
        ("qwen3_moe", Packing::F32, 1e-5),
        ("qwen3_moe", Packing::Bf16, 1e-3),
    ] {
        let mut config = config(model_type);
        config.head_dim = Some(32);
        let folder = packed(&config, packing);
        let (config, weights) = unpacked(folder.path());
        let engine = Engine::open(folder.path(), threads(2)).unwrap();
        assert_eq!(engine.about().packing, packing);
        let text = text(20);
        let logits = engine.session(20).read_all(&engine, &text).unwrap();
        let expected = reference::logits(&config, &weights, &text);
        let (mut off, mut size) = (0.0, 0.0);
        for (a, b) in logits.iter().zip(&expected) {
            off += (f64::from(*a) - b).powi(2);
            size += b * b;
        }
        // Root mean squares: inputs in eight bits are off by a per cent or so.
        let off = f64::sqrt(off / size);
        assert!(off < limit, "{model_type} {packing:?}: {off}");
    }
}

#[test]
fn chunks_batches_forks_and_threads_change_no_bit() {
    for packing in [Packing::F32, Packing::Q4_0, Packing::Q8_0] {
        let folder = packed(&config("llama"), packing);
        let engine = Engine::open(folder.path(), threads(1)).unwrap();
        let text = text(300);
        let mut session = engine.session(310);
        let whole = session.read(&engine, &text).unwrap().to_vec();
        let same = |logits: &[f32], what: &str| {
            assert!(logits.iter().all(|x| x.is_finite()));
            assert_eq!(logits, &whole[..], "{packing:?}: {what}");
        };
        let other = Engine::open(folder.path(), threads(3)).unwrap();
        same(other.session(300).read(&other, &text).unwrap(), "three threads");
        let mut parts = engine.session(300);
        for part in text.chunks(37) {
            parts.read(&engine, part).unwrap();
        }
        parts.truncate(290);
        let mut fork = parts.fork();
        same(parts.read(&engine, &text[290..]).unwrap(), "parts");
        same(fork.read(&engine, &text[290..]).unwrap(), "a fork");
        fork.truncate(299);
        let mut short = engine.session(4);
        short.read(&engine, &text[..3]).unwrap();
        let alone = short.fork().read(&engine, &[9]).unwrap().to_vec();
        let batch = read_batch(&engine, &mut [&mut short, &mut fork], &[9, text[299]]).unwrap();
        same(&batch[1], "a batch");
        assert_eq!(batch[0], alone);
        let all = engine.session(300).read_all(&engine, &text).unwrap();
        same(&all[all.len() - whole.len()..], "all logits");
    }
}

#[test]
fn what_a_session_cannot_read_is_an_error_and_changes_nothing() {
    let folder = packed(&config("llama"), Packing::Q4_0);
    let engine = Engine::open(folder.path(), threads(1)).unwrap();
    let mut session = engine.session(5);
    session.read(&engine, &[1, 2, 3]).unwrap();
    for (tokens, word) in [(vec![1, 2, 3], "6 tokens"), (vec![270], "270"), (vec![], "no tokens")] {
        let error = session.read(&engine, &tokens).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!(session.len(), 3);
    }
    assert!(read_batch(&engine, &mut [&mut session], &[1, 2]).is_err());
    let mut config = config("llama");
    config.num_hidden_layers = 1;
    let other = Engine::open(packed(&config, Packing::Q4_0).path(), threads(1)).unwrap();
    let error = session.read(&other, &[1]).unwrap_err().to_string();
    assert!(error.contains("another model"), "{error}");
    let options = Options { context: Some(8), ..threads(1) };
    let engine = Engine::open(&folder.path().join("model.gguf"), options).unwrap();
    assert_eq!(engine.session(1000).capacity(), 8);
}

#[test]
fn the_loss_is_that_of_the_logits() {
    let folder = packed(&config("qwen2"), Packing::F32);
    let engine = Engine::open(folder.path(), threads(1)).unwrap();
    let text = text(200);
    let mut expected = 0.0;
    for window in text.chunks(150) {
        let logits = engine.session(150).read_all(&engine, window).unwrap();
        for (logits, &next) in logits.chunks_exact(270).zip(&window[1..]) {
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            expected += sum.ln() - f64::from(logits[next as usize]);
        }
    }
    let loss = perplexity(&engine, &text, 150).unwrap();
    assert_eq!(loss.tokens, 198);
    assert!((loss.mean - expected / 198.0).abs() < 1e-5, "{} {expected}", loss.mean);
    assert!((loss.perplexity().ln() - loss.mean).abs() < 1e-12);
    assert!(perplexity(&engine, &text[..1], 150).is_err());
}

#[test]
fn inputs_are_seen_as_the_naive_model_has_them() {
    for model_type in ["llama", "qwen3_moe"] {
        let config = config(model_type);
        let tensors = random(&config);
        let folder = folder(&config, &tensors);
        let weights = tensors.into_iter().map(|t| (t.name, t.values)).collect();
        let text = text(40);
        reference::mean_squares();
        for window in text.chunks(30) {
            reference::logits(&config, &weights, window);
        }
        let expected = reference::mean_squares();
        let mut seen = Vec::new();
        for n in [1, 3] {
            let mut engine = Engine::open(folder.path(), threads(n)).unwrap();
            engine.watch();
            engine.read_watched(&text, 30, |_| Ok(())).unwrap();
            seen.push(engine.seen());
        }
        assert_eq!(seen[0], seen[1]);
        let mut names: Vec<&String> = expected.keys().collect();
        names.retain(|name| !name.contains("lm_head") && !name.contains("embed_tokens"));
        assert_eq!(seen[0].keys().collect::<Vec<_>>(), names);
        for (name, means) in &seen[0] {
            assert_eq!(means.len(), expected[name].len());
            for (a, b) in means.iter().zip(&expected[name]) {
                assert!((f64::from(*a) - b).abs() <= 1e-3 * b, "{model_type} {name}: {a} for {b}");
            }
        }
    }
}

#[test]
fn a_damaged_file_is_an_error_or_a_model_and_never_a_panic() {
    let folder = packed(&config("qwen3"), Packing::Q4_0);
    let path = folder.path().join("model.gguf");
    let whole = fs_err::read(&path).unwrap();
    let try_it = |bytes: &[u8]| {
        // Replaced and not rewritten: a file that is mapped must not be shortened.
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, bytes).unwrap();
        if let Ok(engine) = Engine::open(&path, threads(1)) {
            let mut session = engine.session(3);
            let _ = session.read(&engine, &[1, 2, 3]);
        }
    };
    for at in (0..whole.len().min(24_000)).step_by(97) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        try_it(&changed);
        changed[at..at + 8].fill(255);
        try_it(&changed);
        try_it(&whole[..at]);
    }
    fs_err::write(&path, b"\x80\x02}q\x00.").unwrap();
    assert!(Engine::open(&path, threads(1)).is_err());
}

#[test]
fn a_chat_template_is_read_from_where_models_keep_it() {
    let config = config("llama");
    let folder = folder(&config, &random(&config));
    let template = || {
        let engine = Engine::open(folder.path(), threads(1)).unwrap();
        engine.chat_template().map(str::to_owned)
    };
    assert_eq!(template(), None);
    let path = folder.path().join("tokenizer_config.json");
    let many = r#"{"chat_template": [{"name": "tool", "template": "t"},
        {"name": "default", "template": "d"}]}"#;
    fs_err::write(&path, many).unwrap();
    assert_eq!(template().as_deref(), Some("d"));
    fs_err::write(&path, r#"{"chat_template": "one"}"#).unwrap();
    assert_eq!(template().as_deref(), Some("one"));
    fs_err::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(template().as_deref(), Some("file"));
}
