//! The engine on a GPU beside the naive model, transformers' numbers, and itself in other pieces.
//!
//! Opt-in: `QUANTMILL_TEST_GPU=wgpu`, or `cuda`.

use super::super::reference;
use super::super::tests::{data, far, floats, text, tiny, tokens, unpacked};
use super::super::{Engine, Options, read_batch};
use super::weights::{Layout, put_tile};
use crate::Device;
use crate::infer::matrix::{Floats, Matrix, Weights};
use crate::model::config::Scaling;
use crate::model::gguf::{Entry, Packing, write};
use crate::model::tiny::{config, folder, packed, random, tokenizer};

/// Models on the device; none where nobody asked for it.
fn device() -> Option<Options> {
    let device = match std::env::var("QUANTMILL_TEST_GPU").as_deref() {
        Ok("wgpu") => Device::Wgpu,
        Ok("cuda") => Device::Cuda,
        _ => {
            eprintln!("skipped: set QUANTMILL_TEST_GPU to wgpu or cuda");
            return None;
        }
    };
    Some(Options { threads: Some(2), device, ..Options::default() })
}

/// The largest difference, as a share of the largest number.
fn off(logits: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(logits.len(), expected.len());
    let size = expected.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
    let far = logits.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    far.fold(0.0, f64::max) / size
}

#[test]
fn logits_are_those_of_transformers_and_peft() {
    let Some(options) = device() else { return };
    let reference = super::super::tests::reference();
    let input = tokens(&reference["input_ids"]);
    assert!(data("lora").exists());
    for (adapter, expected) in [
        (None, &reference["base_logits"]),
        (Some("lora"), &reference["lora"]["logits"]),
        (Some("rslora"), &reference["rslora"]["logits"]),
    ] {
        let engine = tiny(adapter, options);
        let logits: Vec<f32> = input
            .chunks(input.len() / 2)
            .flat_map(|text| engine.session(text.len()).read_all(&engine, text).unwrap())
            .collect();
        let off = far(&logits, &floats(expected));
        assert!(off < 1e-5, "{adapter:?}: {off}");
    }
}

#[test]
fn every_layout_and_packing_computes_what_the_naive_model_does() {
    let Some(options) = device() else { return };
    use Packing::*;
    for (model_type, packing) in [
        ("llama", F32),
        ("qwen2", F16),
        ("qwen3", Bf16),
        ("llama", Q4_0),
        ("qwen2", Q4_1),
        ("qwen3", Q8_0),
        ("llama", Q4K),
        ("qwen2", Q5K),
        ("qwen3", Q6K),
    ] {
        let mut config = config(model_type);
        config.head_dim = Some(32);
        if packing.block() == 256 {
            (config.hidden_size, config.intermediate_size) = (256, 512);
            (config.num_attention_heads, config.num_key_value_heads) = (8, Some(2));
        }
        let folder = packed(&config, packing);
        let (config, weights) = unpacked(folder.path());
        let engine = Engine::open(folder.path(), options).unwrap();
        assert_eq!(engine.about().packing, packing);
        assert!(engine.about().gpu.as_ref().is_some_and(|name| !name.is_empty()));
        let text = text(30);
        let logits = engine.session(30).read_all(&engine, &text).unwrap();
        let off = off(&logits, &reference::logits(&config, &weights, &text));
        assert!(off < 1e-4, "{model_type} {packing:?}: {off}");
        eprintln!("{model_type} {packing:?}: {off:.1e}");
    }
}

#[test]
fn angles_of_llama_3_and_heads_of_any_size_too() {
    let Some(options) = device() else { return };
    let llama3 = Scaling {
        rope_type: "llama3".into(),
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    };
    for (scaling, size) in [(Some(llama3), 16), (None, 24), (None, 96), (None, 256)] {
        let mut config = config("llama");
        (config.rope_scaling, config.head_dim) = (scaling, Some(size));
        let tensors = random(&config);
        let folder = folder(&config, &tensors);
        let engine = Engine::open(folder.path(), options).unwrap();
        let weights = tensors.into_iter().map(|t| (t.name, t.values)).collect();
        let text = text(40);
        let logits = engine.session(40).read_all(&engine, &text).unwrap();
        let off = off(&logits, &reference::logits(&config, &weights, &text));
        assert!(off < 1e-4, "heads of {size}: {off}");
    }
}

/// As files of `q4_k_m` have it: q and k of one packing and v of another.
#[test]
fn matrices_of_one_product_may_be_packed_differently() {
    let Some(options) = device() else { return };
    let config = config("llama");
    let tensors = random(&config);
    let entry = |t: &crate::model::weights::Named| Entry {
        name: t.name.clone(),
        shape: t.shape.clone(),
        packing: match t.name.as_str() {
            name if t.shape.len() < 2 || name.contains("embed") => Packing::F32,
            name if name.contains("v_proj") || name.contains("up_proj") => Packing::Q8_0,
            _ => Packing::Q4_0,
        },
    };
    let folder = tempfile::tempdir().unwrap();
    let entries: Vec<Entry> = tensors.iter().map(entry).collect();
    let mut values = tensors.iter();
    let path = folder.path().join("model.gguf");
    write(&path, &config, &tokenizer(), None, &entries, |entry| {
        Ok(entry.packing.pack(&values.next().unwrap().values, None))
    })
    .unwrap();
    let (config, weights) = unpacked(folder.path());
    let engine = Engine::open(folder.path(), options).unwrap();
    let text = text(20);
    let logits = engine.session(20).read_all(&engine, &text).unwrap();
    let off = off(&logits, &reference::logits(&config, &weights, &text));
    assert!(off < 1e-4, "{off}");
}

#[test]
fn chunks_batches_and_forks_compute_the_same() {
    let Some(options) = device() else { return };
    let folder = packed(&config("llama"), Packing::Q4_0);
    let engine = Engine::open(folder.path(), options).unwrap();
    let text = text(380);
    let mut session = engine.session(400);
    let whole = session.read(&engine, &text).unwrap().to_vec();
    let size = whole.iter().fold(0.0, |size: f32, x| size.max(x.abs()));
    // Sums of a row do not depend on the rows beside it.
    let same = |logits: &[f32], what: &str| {
        assert!(logits.iter().all(|x| x.is_finite()));
        let off = far(logits, &whole) / size;
        assert!(off < 1e-5, "{what}: {off}");
    };
    let (config, weights) = unpacked(folder.path());
    let expected = reference::logits(&config, &weights, &text);
    let off = off(&whole, &expected[expected.len() - whole.len()..]);
    assert!(off < 1e-4, "380 tokens: {off}");
    let mut parts = engine.session(380);
    for part in text.chunks(37) {
        parts.read(&engine, part).unwrap();
    }
    same(parts.logits(), "parts");
    parts.truncate(370);
    let mut fork = parts.fork();
    for token in &text[370..] {
        parts.read(&engine, &[*token]).unwrap();
    }
    same(parts.logits(), "one by one");
    same(fork.read(&engine, &text[370..]).unwrap(), "a fork");
    fork.truncate(379);
    let mut short = engine.session(4);
    short.read(&engine, &text[..3]).unwrap();
    let alone = short.fork().read(&engine, &[9]).unwrap().to_vec();
    let batch = read_batch(&engine, &mut [&mut short, &mut fork], &[9, text[379]]).unwrap();
    same(&batch[1], "a batch");
    assert!(far(&batch[0], &alone) / size < 1e-5);
    // From a thread of its own, as the server reads.
    fork.truncate(378);
    let (engine, rest) = (&engine, &text[378..]);
    let far_away = std::thread::scope(|scope| {
        scope.spawn(move || fork.fork().read(engine, rest).unwrap().to_vec()).join().unwrap()
    });
    same(&far_away, "a thread");
    let mut hidden = engine.session(380);
    let state = hidden.read_hidden(engine, &text).unwrap();
    let head = &weights["model.embed_tokens.weight"];
    let logits: Vec<f32> = head
        .chunks_exact(state.len())
        .map(|row| row.iter().zip(&state).map(|(w, x)| w * x).sum())
        .collect();
    same(&logits, "the state");
}

#[test]
fn greedy_texts_are_those_of_the_cpu() {
    let Some(options) = device() else { return };
    let folder = packed(&config("qwen2"), Packing::F32);
    let text = |options: Options| -> Vec<u32> {
        let engine = Engine::open(folder.path(), options).unwrap();
        let mut session = engine.session(80);
        session.read(&engine, &[5, 9, 2]).unwrap();
        let greedy = |logits: &[f32]| {
            let all = 0..logits.len() as u32;
            all.max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize])).unwrap()
        };
        (0..64)
            .map(|_| {
                let token = greedy(session.logits());
                session.read(&engine, &[token]).unwrap();
                token
            })
            .collect()
    };
    let own = text(options);
    assert_eq!(own, text(Options { device: Device::Cpu, ..options }));
    assert!(own.iter().collect::<std::collections::BTreeSet<_>>().len() > 8, "{own:?}");
}

#[test]
fn what_only_the_cpu_does_is_an_error_with_a_hint() {
    let Some(options) = device() else { return };
    let config = config("qwen3_moe");
    let folder = folder(&config, &random(&config));
    let error = Engine::open(folder.path(), options).err().unwrap();
    assert!(error.to_string().contains("mixture of experts"), "{error}");
    assert!(error.help().unwrap().contains("--device cpu"));
    let there = Engine::open(packed(&self::config("llama"), Packing::F32).path(), options);
    assert!(there.unwrap().read_watched(&[1, 2], 2, |_| Ok(())).is_err());
    // A session of the CPU is none of the GPU's, and the other way about.
    let folder = packed(&self::config("llama"), Packing::Q4_0);
    let there = Engine::open(folder.path(), options).unwrap();
    let here = Engine::open(folder.path(), Options { device: Device::Cpu, ..options }).unwrap();
    for (engine, mut session) in [(&there, here.session(4)), (&here, there.session(4))] {
        let error = session.read(engine, &[1]).unwrap_err().to_string();
        assert!(error.contains("another model"), "{error}");
    }
}

/// No device is needed to see that packed weights stay so.
#[test]
fn weights_take_hardly_more_bits_than_in_the_file() {
    use Packing::*;
    for packing in [F32, F16, Bf16, Q4_0, Q4_1, Q8_0, Q4K, Q5K, Q6K] {
        let layout = Layout::of(packing, 4096);
        let bits = layout.bytes() as f64 * 8.0 / (32.0 * 4096.0);
        let filed = packing.bytes() as f64 * 8.0 / packing.block() as f64;
        assert!(bits >= filed && bits <= filed + 0.1251, "{packing:?}: {bits} for {filed}");
    }
}

/// Two tiles, the second not full: every word of a row lies where its own lane is.
#[test]
fn rows_do_not_touch_those_beside_them() {
    for packing in [Packing::Q4_1, Packing::Q6K, Packing::F16] {
        let values: Vec<f32> = (0..40 * 256).map(|i| (i as f32 * 0.37).sin()).collect();
        let bytes = packing.pack(&values, None);
        let tile = |bytes: &[u8], at: usize| {
            let layout = Layout::of(packing, 256);
            let weights = Weights::Floats(packing, Floats::Own(bytes.to_vec()));
            let matrix = Matrix { weights, ..Matrix::of_floats(&[], 40, 256) };
            let (mut words, mut scales) = (vec![0; layout.words()], vec![0; layout.scales()]);
            put_tile(&matrix, bytes, at, &mut words, &mut scales);
            (words, scales)
        };
        let mut other = bytes.clone();
        let row = bytes.len() / 40;
        other[35 * row..36 * row].iter_mut().for_each(|byte| *byte ^= 255);
        assert_eq!(tile(&bytes, 0), tile(&other, 0));
        let ((a, c), (b, d)) = (tile(&bytes, 1), tile(&other, 1));
        assert!(
            a.chunks_exact(4)
                .zip(b.chunks_exact(4))
                .enumerate()
                .all(|(i, (a, b))| { (i % 32 == 3) == (a != b) })
        );
        assert!(c.iter().zip(&d).enumerate().all(|(i, (a, b))| i % 32 == 3 || a == b));
        assert!(a.chunks_exact(4).enumerate().all(|(i, a)| i % 32 < 8 || a == [0; 4]));
    }
}
