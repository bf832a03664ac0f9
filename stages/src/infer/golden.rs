//! A real model beside other programs, opt-in: `QUANTMILL_TEST_SMOLLM2` names a folder with the GGUF
//! file of SmolLM2-135M-Instruct, or with the same in f32 as HF's files, or with both, the latter in
//! `f32/` (`tests/data/smollm2/README.md` says where they come from).

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("QUANTMILL_TEST_SMOLLM2").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: set QUANTMILL_TEST_SMOLLM2 to the folder of the model");
    }
    folder
}

/// The GGUF file; none where the folder has only the other.
fn packed(folder: &Path) -> Option<PathBuf> {
    let mut files = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|end| end == "gguf"))
}

/// HF's files; none where the folder has only the other.
fn whole(folder: &Path) -> Option<PathBuf> {
    let folders = [folder.join("f32"), folder.to_owned()];
    folders.into_iter().find(|folder| folder.join("model.safetensors").exists())
}

fn cases(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/smollm2").join(name);
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Pairs of a token and a number.
fn pairs(value: &Value) -> Vec<(usize, f64)> {
    let pair = |pair: &Value| (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
    value.as_array().unwrap().iter().map(pair).collect()
}

fn largest(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[test]
fn smollm2_in_f32_has_the_logits_of_transformers() {
    let Some(path) = folder().as_deref().and_then(whole) else { return };
    let engine = Engine::open(&path, Options::default()).unwrap();
    let vocab = engine.config().vocab_size;
    let mut worst = 0.0f64;
    for case in cases("transformers.json") {
        let tokens = ids(&case["tokens"]);
        assert_eq!(engine.tokenizer().encode(case["prompt"].as_str().unwrap()).unwrap(), tokens);
        let mut session = engine.session(128);
        let all = session.read_all(&engine, &tokens).unwrap();
        let top = case["top"].as_array().unwrap();
        assert_eq!(top.len(), tokens.len());
        for (logits, top) in all.chunks_exact(vocab).zip(top) {
            let top = pairs(top);
            let eighth = logits.iter().filter(|x| f64::from(**x) > top[7].1 + 1e-3).count();
            assert!(eighth <= 7, "{case}: others are larger");
            for (token, theirs) in top {
                worst = worst.max((f64::from(logits[token]) - theirs).abs());
            }
        }
        assert!(worst < 1e-3, "{}: {worst}", case["prompt"]);
        for token in ids(&case["greedy"]) {
            let logits = session.logits();
            let off = largest(logits) - logits[token as usize];
            assert!(off < 1e-3, "{}: {token} is {off} below the most likely", case["prompt"]);
            session.read(&engine, &[token]).unwrap();
        }
    }
    eprintln!("logits are off by {worst:.1e} at the most");
}

/// The tolerance is what eight-bit inputs do to this model ([`no_further_from_the_truth_than_llama_cpp`]);
/// llama.cpp differs from itself by 0.2 in these numbers when its flash attention is switched off.
#[test]
fn smollm2_agrees_with_llama_cpp() {
    let Some(path) = folder().as_deref().and_then(packed) else { return };
    let engine = Engine::open(&path, Options::default()).unwrap();
    let (mut sum, mut count, mut steps, mut same) = (0.0, 0, 0, 0);
    for case in cases("llama_cpp.json") {
        let tokens = engine.tokenizer().encode(case["prompt"].as_str().unwrap()).unwrap();
        assert_eq!(tokens.len() as u64, case["prompt_tokens"].as_u64().unwrap());
        let mut session = engine.session(64);
        let logits = session.read(&engine, &tokens).unwrap();
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        for (i, (token, theirs)) in pairs(&case["top"]).into_iter().enumerate() {
            if i == 0 {
                assert!(logits.iter().all(|x| *x <= logits[token]), "{case}");
            }
            let off = (f64::from(logits[token]) - total.ln() - theirs).abs();
            assert!(off < 0.35, "{case}: {off} at {token}");
            sum += off;
            count += 1;
        }
        // Along their text each of their tokens is ours, or nearly.
        for token in ids(&case["greedy"]) {
            let logits = session.logits();
            let off = largest(logits) - logits[token as usize];
            assert!(off < 0.7, "{}: {token} is {off} below the most likely", case["prompt"]);
            (steps, same) = (steps + 1, same + usize::from(off == 0.0));
            session.read(&engine, &[token]).unwrap();
        }
    }
    eprintln!("mean {:.3}; {same} of {steps} greedy tokens are the same", sum / f64::from(count));
    assert!(sum / f64::from(count) < 0.12);
    assert!(same * 20 >= steps * 19, "{same} of {steps}");
}

/// The truth is f32 arithmetic on the unpacked weights, which the first test above ties to transformers.
#[test]
fn no_further_from_the_truth_than_llama_cpp() {
    let Some(folder) = folder() else { return };
    let (Some(packed), Some(whole)) = (packed(&folder), whole(&folder)) else { return };
    let open = |path: &Path| Engine::open(path, Options::default()).unwrap();
    let (engine, truth) = (open(&packed), open(&whole));
    let logps = |engine: &Engine, tokens: &[u32]| {
        let mut session = engine.session(128);
        let logits = session.read(engine, tokens).unwrap().to_vec();
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        move |token: usize| f64::from(logits[token]) - total.ln()
    };
    let (mut ours_off, mut theirs_off, mut count) = (0.0, 0.0, 0.0);
    for case in cases("llama_cpp_more.json") {
        let tokens = engine.tokenizer().encode(case["prompt"].as_str().unwrap()).unwrap();
        let (ours, exact) = (logps(&engine, &tokens), logps(&truth, &tokens));
        for (token, theirs) in pairs(&case["top"]) {
            ours_off += (ours(token) - exact(token)).abs();
            theirs_off += (theirs - exact(token)).abs();
            count += 1.0;
        }
    }
    let (ours, theirs) = (ours_off / count, theirs_off / count);
    eprintln!("mean distance from f32: {ours:.3}, llama.cpp {theirs:.3}");
    assert!(ours < 1.2 * theirs, "{ours} against {theirs}");
}
