//! Damaged and made-up model files, through what `generate`, `decide` and `quantize` do with them: an
//! error or a model, never a panic, and never memory by a number that only a file claims.
//!
//! The bytes are those of `tests/data/tiny-qwen2`, changed by a seeded generator: bits, runs of bytes,
//! numbers in JSON, cuts. It is a binary of its own because its allocator counts what all threads hold.
//! `QUANTMILL_TEST_LONG=1` makes twenty times as many changes. A failure names the file and the
//! number of the change.
#![cfg(feature = "lm")]
// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod change;
mod memory;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use quantmill_stages::decode::{Grammar, Model, Prompt};
use quantmill_stages::infer::Options;
use quantmill_stages::pairs::decision::{Allowed, Form};
use quantmill_stages::{ALL, Cancel, Context, Input, Job, Progress, Sink};
use serde_json::{Value, json};

/// Most that a try may hold, whatever the files say: they have 200 kB, and a model of them some MB.
const MOST: usize = 96 << 20;

struct Silent;

impl Sink for Silent {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

/// Byte-level BPE of the printing characters of ASCII and one merge.
fn tokenizer() -> String {
    let mut vocab = serde_json::Map::new();
    for (id, c) in ["<s>", "</s>"].into_iter().map(str::to_owned).chain(letters()).enumerate() {
        vocab.insert(c, json!(id));
    }
    vocab.insert("\u{120}t".into(), json!(vocab.len()));
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let added = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<s>"), added(1, "</s>")],
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
            "merges": [["\u{120}", "t"]]}
    })
    .to_string()
}

/// 93 characters, the first of which stands for a space.
fn letters() -> impl Iterator<Item = String> {
    ['\u{120}', '\u{10a}'].into_iter().chain('!'..='{').map(String::from)
}

/// Puts the sound files into a folder: safetensors with an adapter.
fn sound(folder: &Path) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2");
    for (from, name) in [
        ("base", "config.json"),
        ("base", "model.safetensors"),
        ("lora", "adapter_config.json"),
        ("lora", "adapter_model.safetensors"),
    ] {
        fs_err::copy(data.join(from).join(name), folder.join(name)).unwrap();
    }
    fs_err::write(folder.join("tokenizer.json"), tokenizer()).unwrap();
    fs_err::write(folder.join("generation_config.json"), r#"{"eos_token_id": [1, 2]}"#).unwrap();
    let template = r#"{"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}"#;
    fs_err::write(folder.join("tokenizer_config.json"), template).unwrap();
}

/// `quantize`, into a folder that is made.
fn quantize(folder: &Path, out: &Path, params: Value) -> Result<(), String> {
    let kind = ALL.iter().find(|kind| kind.name == "quantize").unwrap();
    let mut files = BTreeMap::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        files.insert(entry.file_name().into_string().unwrap(), entry.path());
    }
    let input = Input { files: files.into(), tree: true };
    fs_err::create_dir_all(out).unwrap();
    let job = Job {
        kind: kind.name.into(),
        params: (kind.resolve)(&params).unwrap(),
        inputs: BTreeMap::from([("model".to_owned(), input)]),
        outputs: BTreeMap::from([("model".to_owned(), out.to_owned())]),
        ..Job::default()
    };
    let ran = (kind.run)(&job.params, &Context::new(&job, &Silent, Cancel::default()));
    ran.map_err(|e| e.to_string())
}

/// Opens a model, tokenizes, compiles a grammar, reads three tokens and gives what they became.
fn generate(path: &Path) -> Result<(), String> {
    let options = Options { threads: Some(1), context: Some(64), ..Options::default() };
    let told = |e: quantmill_stages::StageError| e.to_string();
    let model = Model::open(path, options, None).map_err(told)?;
    let tokens = model.tokens(&Prompt::Text("to the (left)".into())).map_err(told)?;
    let allowed = Allowed { offsets_bps: vec![5], max_size: 1, resting: false };
    let grammar = Grammar::decision(&allowed, Form::Code, "");
    let mut constraint = model.constraint(&grammar).map_err(told)?;
    constraint.forced().map_err(told)?;
    let mut session = model.engine().session(64);
    let logits = session.read(model.engine(), &tokens).map_err(told)?;
    let next = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
    session.read(model.engine(), &[next]).map_err(told)?;
    model.engine().tokenizer().decode(&[next]).map_err(told)?;
    model.vocabulary().bytes(next);
    Ok(())
}

/// How a file came out.
#[derive(Debug, Default)]
struct Tally {
    models: usize,
    errors: usize,
}

/// Runs both on a folder. `what` names the try.
fn attempt(folder: &Path, what: &str, tally: &mut Tally) {
    let out = folder.join("out");
    let path: PathBuf = match folder.join("model.gguf") {
        path if path.exists() => path,
        _ => folder.to_owned(),
    };
    memory::begin(what);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        [generate(&path), quantize(folder, &out, json!({ "method": "q4_0" }))]
    }));
    let held = memory::most();
    let _ = fs_err::remove_dir_all(&out);
    let ran = ran.unwrap_or_else(|_| panic!("{what}: a panic"));
    assert!(held < MOST, "{what}: {held} bytes");
    for ran in ran {
        match ran {
            Ok(()) => tally.models += 1,
            Err(message) => {
                assert!(!message.is_empty(), "{what}: an error without words");
                tally.errors += 1;
            }
        }
    }
}

fn rounds() -> u64 {
    if std::env::var_os("QUANTMILL_TEST_LONG").is_some() { 8000 } else { 400 }
}

/// One test, so that nothing else is counted.
#[test]
fn damaged_files_are_errors_or_models_and_take_no_memory() {
    let whole = tempfile::tempdir().unwrap();
    sound(whole.path());
    generate(whole.path()).unwrap();
    let packed = whole.path().join("packed");
    quantize(whole.path(), &packed, json!({ "method": "q8_0" })).unwrap();
    generate(&packed.join("model.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, bytes: &[u8]| {
        // Replaced and not rewritten: a file that is mapped must not be shortened.
        let path = folder.path().join(name);
        let _ = fs_err::remove_file(&path);
        fs_err::write(path, bytes).unwrap();
    };

    sound(folder.path());
    for (name, share) in [
        ("model.safetensors", 1),
        ("adapter_model.safetensors", 1),
        ("adapter_config.json", 2),
        ("config.json", 1),
        ("tokenizer.json", 1),
        ("generation_config.json", 8),
        ("tokenizer_config.json", 8),
    ] {
        let bytes = fs_err::read(folder.path().join(name)).unwrap();
        let mut tally = Tally::default();
        for n in 0..rounds() / share {
            place(name, &change::changed(&bytes, n));
            attempt(folder.path(), &format!("{name}, change {n}"), &mut tally);
        }
        for (n, made) in made_up(name).into_iter().enumerate() {
            place(name, &made);
            let mut made = Tally::default();
            attempt(folder.path(), &format!("{name}, made up {n}"), &mut made);
            // `quantize` hands on what belongs to the generation of text, and reads none of it.
            let most = usize::from(name == "generation_config.json");
            assert!(made.models <= most, "{name}, made up {n}: a model");
        }
        place(name, &bytes);
        println!("{name}: {tally:?}");
        assert!(
            tally.errors > 0 && tally.models > 0,
            "{name}: changes that say nothing: {tally:?}"
        );
    }

    let alone = tempfile::tempdir().unwrap();
    let path = alone.path().join("model.gguf");
    let bytes = fs_err::read(packed.join("model.gguf")).unwrap();
    let mut tally = Tally::default();
    for n in 0..2 * rounds() {
        let _ = fs_err::remove_file(&path);
        fs_err::write(&path, change::changed(&bytes, n)).unwrap();
        attempt(alone.path(), &format!("model.gguf, change {n}"), &mut tally);
    }
    println!("model.gguf: {tally:?}");
    assert!(tally.errors > 0 && tally.models > 0, "{tally:?}");
    for (n, made) in gguf().into_iter().enumerate() {
        let _ = fs_err::remove_file(&path);
        fs_err::write(&path, made).unwrap();
        let mut tally = Tally::default();
        attempt(alone.path(), &format!("model.gguf, made up {n}"), &mut tally);
        assert_eq!(tally.models, 0, "model.gguf, made up {n}: a model");
    }
}

/// A safetensors file of a header and some zeros.
fn tensors(header: &str) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend([0; 64]);
    file
}

/// Files that nobody's tool writes.
fn made_up(name: &str) -> Vec<Vec<u8>> {
    let deep = |open: &str, n: usize| open.repeat(n).into_bytes();
    let pickle =
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.".to_vec();
    let mut all = vec![vec![], pickle, vec![255; 64], deep("[", 100_000), deep("{\"a\":", 100_000)];
    if name.ends_with(".safetensors") {
        let shape = |shape: &str, to: u64| {
            tensors(&format!(
                r#"{{"lm_head.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{to}]}}}}"#
            ))
        };
        all.extend([
            shape("[4294967296,4294967296]", 0),
            shape("[18446744073709551615,2]", 8),
            shape("[3000000000,3000000000]", 36),
            shape("[16]", 1 << 62),
            shape("[0,97]", 0),
            (100_000_000u64).to_le_bytes().to_vec(),
            u64::MAX.to_le_bytes().to_vec(),
        ]);
    }
    if name == "config.json" {
        let config = |key: &str, value: Value| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2/base");
            let text = fs_err::read_to_string(path.join(name)).unwrap();
            let mut config: Value = serde_json::from_str(&text).unwrap();
            config[key] = value;
            config.to_string().into_bytes()
        };
        for key in ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads"] {
            let values =
                [json!(0), json!(u64::MAX), json!(1u64 << 40), json!(1_000_000), json!(-1)];
            all.extend(values.map(|value| config(key, value)));
        }
        all.push(config("head_dim", json!(u64::MAX)));
        all.push(config("num_experts", json!(u64::MAX)));
        all.push(config("rope_theta", json!(-1)));
    }
    all
}

/// The same of GGUF: a header of one pair or one tensor.
fn gguf() -> Vec<Vec<u8>> {
    let head = |tensors: u64, pairs: u64, rest: &[&[u8]]| {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(tensors.to_le_bytes());
        file.extend(pairs.to_le_bytes());
        rest.iter().for_each(|part| file.extend(*part));
        file.extend([0; 256]);
        file
    };
    let (one, many) = (1u64.to_le_bytes(), u64::MAX.to_le_bytes());
    let (list, byte, text) = (9u32.to_le_bytes(), 0u32.to_le_bytes(), 8u32.to_le_bytes());
    let two = 2u32.to_le_bytes();
    let huge = (1u64 << 32).to_le_bytes();
    // A list of eight million bytes: 256 MB as values.
    let bytes = vec![0; 8 << 20];
    let long = (bytes.len() as u64).to_le_bytes();
    vec![
        head(u64::MAX, 0, &[]),
        head(0, u64::MAX, &[]),
        head(0, 1, &[&many, b"k"]),
        head(0, 1, &[&one, b"k", &list, &byte, &many]),
        head(0, 1, &[&one, b"k", &list, &text, &many]),
        head(0, 1, &[&one, b"k", &list, &byte, &long, &bytes]),
        head(1, 0, &[&one, b"t", &two, &huge, &huge, &byte, &byte, &byte]),
        head(1, 0, &[&one, b"t", &two, &many, &one, &byte, &byte, &byte]),
    ]
}
