use super::*;
use crate::model::layout;
use crate::model::weights::Normal;

/// The shape of a small model of either layout, and a tokenizer for it.
fn small(model_type: &str) -> (Config, Tokenizer) {
    let tokenizer =
        Tokenizer::train(["a small text, and another small text"].into_iter(), 270).unwrap();
    let mut config = Config::llama(0, 64, 2, 4, 2, 96, 32);
    tokenizer.describe(&mut config);
    config.model_type = model_type.into();
    config.tie_word_embeddings = model_type == "llama";
    (config, tokenizer)
}

/// Writes random weights, matrices packed as `kind` and vectors as they are.
fn save(path: &Path, config: &Config, tokenizer: &Tokenizer, kind: Packing) -> Result<()> {
    let entry = |(name, shape): (String, Vec<usize>)| {
        let packing = if shape.len() == 1 { Packing::F32 } else { kind };
        Entry { name, shape, packing }
    };
    let entries: Vec<Entry> = layout::tensors(config).into_iter().map(entry).collect();
    let mut source = Normal::new(5);
    write(path, config, tokenizer, Some("{{ messages }}"), &entries, |entry| {
        Ok(entry.packing.pack(&source.read(&entry.name, &entry.shape)?, None))
    })
}

#[test]
fn a_file_in_f32_gives_back_the_model_and_its_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for model_type in ["llama", "qwen2"] {
        let (config, tokenizer) = small(model_type);
        save(&path, &config, &tokenizer, Packing::F32).unwrap();
        let file = Gguf::open(&path).unwrap();
        let again = file.config().unwrap();
        assert_eq!(again.parameters(), config.parameters());
        let mut normal = Normal::new(5);
        let mut source = file.source(&again);
        for (name, shape) in layout::tensors(&config) {
            let expected = normal.read(&name, &shape).unwrap();
            assert_eq!(source.read(&name, &shape).unwrap(), expected, "{name}");
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
    let (mut config, tokenizer) = small("llama");
    save(&path, &config, &tokenizer, Packing::F16).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().rope_factors(), None);
    let scaling = serde_json::json!({ "rope_type": "llama3", "factor": 8.0 });
    config.rope_scaling = Some(serde_json::from_value(scaling).unwrap());
    save(&path, &config, &tokenizer, Packing::F16).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().rope_factors(), Some(config.rope_factors()));
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
    let (config, tokenizer) = small("llama");
    let error = save(&path, &config, &tokenizer, Packing::Q4K).unwrap_err();
    assert!(error.to_string().contains("cannot be Q4K"), "{error}");
    save(&path, &config, &tokenizer, Packing::Q8_0).unwrap();
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
