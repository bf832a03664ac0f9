use super::*;
use crate::device::{Back, cpu};
use crate::model::save::tensors;
use crate::model::weights::Normal;
use crate::model::{Llama, Tokenizer};

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
