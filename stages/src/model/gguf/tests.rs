use serde_json::Value as Json;

use super::*;
use crate::device::{Back, cpu};
use crate::model::save::tensors;
use crate::model::weights::Normal;
use crate::model::{Llama, Tokenizer};

fn vectors() -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quant_vectors.json");
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

fn floats(row: &Json) -> Vec<f32> {
    row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn bytes(hex: &Json) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

const KINDS: [(&str, Packing); 5] = [
    ("q4_0", Packing::Q4_0),
    ("q4_1", Packing::Q4_1),
    ("q8_0", Packing::Q8_0),
    ("q4_K", Packing::Q4K),
    ("q6_K", Packing::Q6K),
];

#[test]
fn packed_bytes_are_those_of_ggml() {
    let vectors = vectors();
    for (name, kind) in KINDS {
        for row in 0..2 {
            let Some(packed) = kind.pack(&floats(&vectors["input"][row])) else { continue };
            assert_eq!(packed, bytes(&vectors[name]["hex"][row]), "{name}, row {row}");
        }
    }
}

#[test]
fn unpacked_values_are_those_of_ggml() {
    let vectors = vectors();
    for (name, kind) in KINDS {
        for row in 0..2 {
            let values = kind.unpack(&bytes(&vectors[name]["hex"][row]));
            for (i, (a, b)) in
                values.iter().zip(floats(&vectors[name]["unpacked"][row])).enumerate()
            {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{name}, row {row}, {i}: {a} for {b}");
            }
        }
    }
}

/// A small model of either layout and a tokenizer for it.
fn small(model_type: &str) -> (Llama<Back>, Tokenizer) {
    let tokenizer =
        Tokenizer::train(["a small text, and another small text"].into_iter(), 270).unwrap();
    let mut config = Config::llama(0, 64, 2, 4, 2, 96, 32);
    tokenizer.describe(&mut config);
    config.model_type = model_type.into();
    config.tie_word_embeddings = model_type == "llama";
    (Llama::build(&config, &mut Normal::new(5), &cpu()).unwrap(), tokenizer)
}

#[test]
fn a_file_in_f32_gives_back_the_model_and_its_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for model_type in ["llama", "qwen2"] {
        let (model, tokenizer) = small(model_type);
        write(&path, &model.config, &tokenizer, &tensors(&model).unwrap(), |_| Packing::F32)
            .unwrap();
        let file = Gguf::open(&path).unwrap();
        let config = file.config().unwrap();
        assert_eq!(config.parameters(), model.config.parameters());
        let again: Llama<Back> = Llama::build(&config, &mut file.source(&config), &cpu()).unwrap();
        for (a, b) in tensors(&model).unwrap().iter().zip(tensors(&again).unwrap()) {
            assert_eq!((&a.name, &a.values), (&b.name, &b.values));
        }
        let read = file.tokenizer(&config).unwrap();
        let text = "a small text: naïve 12";
        assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(read.decode(&read.encode(text).unwrap()).unwrap(), text);
        assert_eq!(read.eos(), tokenizer.eos());
    }
}

#[test]
fn rows_of_q_lie_interleaved_as_llama_cpp_wants_them() {
    let rows: Vec<f32> = (0..8).map(|i| i as f32).collect();
    assert_eq!(reorder(&rows, 2, 8, false), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(reorder(&reorder(&rows, 2, 8, false), 2, 8, true), rows);
}

#[test]
fn a_damaged_file_is_an_error_wherever_it_is_cut_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (model, tokenizer) = small("llama");
    write(&path, &model.config, &tokenizer, &tensors(&model).unwrap(), |_| Packing::Q4K)
        .unwrap_err();
    let packing = |t: &crate::model::weights::Named| match t.shape.len() {
        1 => Packing::F32,
        _ => Packing::Q8_0,
    };
    write(&path, &model.config, &tokenizer, &tensors(&model).unwrap(), packing).unwrap();
    let whole = fs_err::read(&path).unwrap();
    let header = whole.len() - Gguf::open(&path).unwrap().tensor_bytes();
    for cut in (0..header).step_by(61).chain([whole.len() - 1]) {
        fs_err::write(&path, &whole[..cut]).unwrap();
        assert!(Gguf::open(&path).is_err(), "cut at {cut}");
    }
    // Lengths and counts of 2^64 - 1: nothing may be allocated by them.
    for at in (8..2000).step_by(3) {
        let mut changed = whole.clone();
        changed[at..at + 8].fill(255);
        fs_err::write(&path, &changed).unwrap();
        if let Ok(file) = Gguf::open(&path)
            && let Ok(config) = file.config()
        {
            let _ = Llama::<Back>::build(&config, &mut file.source(&config), &cpu());
        }
    }
}
