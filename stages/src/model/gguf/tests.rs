use super::*;
use crate::model::layout;
use crate::model::tiny::{config, random, tokenizer, write_gguf};
use crate::model::weights::Named;

#[test]
fn a_file_in_f32_gives_back_the_model_and_its_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for model_type in ["llama", "qwen2", "qwen3_moe"] {
        let (config, tokenizer) = (config(model_type), tokenizer());
        let tensors = random(&config);
        write_gguf(&path, &config, &tensors, Packing::F32).unwrap();
        let file = Gguf::open(&path).unwrap();
        let again = file.config().unwrap();
        assert_eq!(again.parameters(), config.parameters());
        let mut source = file.source(&again);
        for Named { name, shape, values } in &tensors {
            assert_eq!(&source.read(name, shape).unwrap(), values, "{name}");
        }
        let template = file.get("tokenizer.chat_template");
        assert_eq!(template, Some(&Value::Text("{{ messages }}".into())));
        let read = file.tokenizer(&again).unwrap();
        let text = "a small text: naïve 12";
        assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert_eq!(read.decode(&read.encode(text).unwrap()).unwrap(), text);
        assert_eq!(read.eos(), tokenizer.eos());
    }
}

#[test]
fn llama_3_keeps_its_angles_as_a_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut config = config("llama");
    let tensors = random(&config);
    write_gguf(&path, &config, &tensors, Packing::F16).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().rope_factors(&config).unwrap(), None);
    assert_eq!(Gguf::open(&path).unwrap().config().unwrap().rope_scaling, None);
    let scaling = |original: usize| {
        let scaling = serde_json::json!({ "rope_type": "llama3", "factor": 8.0,
            "original_max_position_embeddings": original });
        serde_json::from_value(scaling).unwrap()
    };
    config.rope_scaling = Some(scaling(8192));
    write_gguf(&path, &config, &tensors, Packing::F16).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.rope_factors(&config).unwrap(), Some(config.rope_factors()));
    // The parameters are found again, so that a model made from it has the same angles.
    let found = file.config().unwrap();
    assert_eq!(found.rope_scaling, config.rope_scaling);
    assert!(file.check_angles(&found).is_ok());
    config.rope_scaling = Some(scaling(1000));
    write_gguf(&path, &config, &tensors, Packing::F16).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert!(file.check_angles(&config).is_ok());
    let found = file.config().unwrap();
    assert_eq!(found.rope_scaling, None);
    let error = file.check_angles(&found).unwrap_err();
    assert!(error.to_string().contains("rotary angles are scaled"), "{error}");
}

#[test]
fn rows_of_q_lie_interleaved_as_llama_cpp_wants_them() {
    let rows: Vec<u8> = (0..8).collect();
    assert_eq!(write::interleave(&rows, 2, 1), [0, 2, 1, 3, 4, 6, 5, 7]);
    let mixed: Vec<f32> = write::interleave(&rows, 2, 1).into_iter().map(f32::from).collect();
    let plain: Vec<f32> = (0..8).map(|i| i as f32).collect();
    assert_eq!(reorder(&mixed, 2, 8, true), plain);
    assert_eq!(reorder(&plain, 2, 8, false), mixed);
}

#[test]
fn a_damaged_file_is_an_error_wherever_it_is_cut_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let config = config("llama");
    let tensors = random(&config);
    let error = write_gguf(&path, &config, &tensors, Packing::Q4K).unwrap_err();
    assert!(error.to_string().contains("cannot be Q4K"), "{error}");
    write_gguf(&path, &config, &tensors, Packing::Q8_0).unwrap();
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
            let mut source = file.source(&config);
            for (name, shape) in layout::tensors(&config) {
                let _ = source.read(&name, &shape);
            }
        }
    }
}
