//! The model against transformers and PEFT, on the tiny Qwen2 of `tests/data`.

use std::path::{Path, PathBuf};

use burn::prelude::Backend;
use serde_json::Value;

use super::load::adapt;
use super::*;
use crate::device::{Back, Place, Train, cpu};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2").join(name)
}

fn reference() -> Value {
    serde_json::from_str(&fs_err::read_to_string(data("reference.json")).unwrap()).unwrap()
}

/// The numbers of nested arrays.
pub(super) fn floats(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

pub(super) fn tokens(value: &Value) -> Vec<u32> {
    floats(value).into_iter().map(|x| x as u32).collect()
}

fn base<B: Backend<Device = Place>>() -> Llama<B> {
    folder(&data("base"), &cpu())
}

/// A model without a tokenizer, which the tiny one does not have.
pub(super) fn folder<B: Backend<Device = Place>>(path: &Path, place: &Place) -> Llama<B> {
    let folder = Folder::of_dir(path).unwrap();
    let config = Config::read(folder.need("config.json").unwrap()).unwrap();
    let mut source = weights::Tensors::open_model(&folder).unwrap();
    adapt(Llama::build(&config, &mut source, place).unwrap(), &folder).unwrap()
}

fn adapted<B: Backend<Device = Place>>(adapter: &str) -> Llama<B> {
    lora::read(base(), &Folder::of_dir(&data(adapter)).unwrap()).unwrap()
}

pub(super) fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |far, (a, b)| far.max((a - b).abs()))
}

pub(super) fn logits<B: Kernels>(model: &Llama<B>, tokens: &[u32], batch: usize) -> Vec<f32> {
    model.forward(tokens, batch).unwrap().into_data().to_vec().unwrap()
}

#[test]
fn logits_are_those_of_transformers_and_peft() {
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    let off = far(&logits(&base::<Back>(), &input, 2), &floats(&reference["base_logits"]));
    assert!(off < 1e-5, "base: {off}");
    for adapter in ["lora", "rslora", "dora"] {
        let expected = floats(&reference[adapter]["logits"]);
        let model = adapted::<Back>(adapter);
        let off = far(&logits(&model, &input, 2), &expected);
        assert!(off < 1e-5, "{adapter}: {off}");
        let off = far(&logits(&model.clone().merge(), &input, 2), &expected);
        assert!(off < 1e-5, "{adapter}, merged: {off}");
        let off =
            far(&logits(&model.without_adapter(), &input, 2), &floats(&reference["base_logits"]));
        assert!(off < 1e-5, "{adapter}, off: {off}");
    }
}

/// Positions whose next token is a label, as transformers shifts them.
pub(super) fn labelled(reference: &Value) -> Vec<usize> {
    let labels = floats(&reference["labels"]);
    (0..labels.len()).filter(|&i| i % 10 != 9 && labels[i + 1] >= 0.0).collect()
}

#[test]
fn losses_and_gradients_are_those_of_peft() {
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    let at = labelled(&reference);
    for adapter in ["lora", "rslora", "dora"] {
        let expected = &reference[adapter];
        let model = adapted::<Train>(adapter);
        let loss = model.log_probs(&input, 2, &at, 1.0).unwrap().mean().neg();
        let value: f32 = loss.clone().into_scalar();
        let off = (f64::from(value) - expected["loss"].as_f64().unwrap()).abs();
        assert!(off < 1e-5, "{adapter}: loss is off by {off}");
        let grads = loss.backward();
        let (mut square, mut compared) = (0.0, 0);
        let with_magnitude = adapter == "dora";
        for (name, layer) in model.linears() {
            assert!(layer.weight.val().grad(&grads).is_none(), "{name} is frozen");
            let adapter = layer.adapter.as_ref().unwrap();
            for (part, matrix) in [("A", &adapter.a), ("B", &adapter.b)] {
                let grad = matrix.val().grad(&grads).unwrap();
                square += grad.clone().powi_scalar(2).sum().into_scalar();
                let key = format!("base_model.model.{name}.lora_{part}.default.weight");
                if let Some(expected) = expected["grads_layer0_attn"].get(&key) {
                    let grad: Vec<f32> = grad.transpose().into_data().to_vec().unwrap();
                    let off = far(&grad, &floats(expected));
                    assert!(off < 1e-5, "{key} is off by {off}");
                    compared += 1;
                }
            }
            if let Some(magnitude) = &adapter.magnitude {
                let grad = magnitude.val().grad(&grads).unwrap();
                square += grad.clone().powi_scalar(2).sum().into_scalar();
                let key = format!("base_model.model.{name}.lora_magnitude_vector.default.weight");
                if let Some(expected) = expected["grads_layer0_attn"].get(&key) {
                    let grad: Vec<f32> = grad.into_data().to_vec().unwrap();
                    let off = far(&grad, &floats(expected));
                    assert!(off < 1e-5, "{key} is off by {off}");
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, if with_magnitude { 12 } else { 8 });
        let off = (f64::from(square.sqrt()) - expected["grad_norm"].as_f64().unwrap()).abs();
        assert!(off < 1e-4, "{adapter}: the norm of the gradient is off by {off}");
    }
}

/// Opt-in, as a software driver takes minutes to compile the kernels: `QUANTMILL_TEST_GPU=wgpu`, or
/// `cuda`.
#[test]
fn a_gpu_gives_the_logits_loss_and_gradients_of_the_reference() {
    let device = match std::env::var("QUANTMILL_TEST_GPU").as_deref() {
        Ok("wgpu") => crate::Device::Wgpu,
        Ok("cuda") => crate::Device::Cuda,
        _ => return eprintln!("skipped: set QUANTMILL_TEST_GPU to wgpu or cuda"),
    };
    let place = crate::device::open(device).unwrap();
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    let model = folder::<Back>(&data("base"), &place);
    let off = far(&logits(&model, &input, 2), &floats(&reference["base_logits"]));
    assert!(off < 1e-4, "logits: {off}");
    let adapter = Folder::of_dir(&data("lora")).unwrap();
    let model = lora::read(folder::<Train>(&data("base"), &place), &adapter).unwrap();
    let at = labelled(&reference);
    let loss = model.log_probs(&input, 2, &at, 1.0).unwrap().mean().neg();
    let expected = &reference["lora"];
    let value: f32 = loss.clone().into_scalar();
    assert!((f64::from(value) - expected["loss"].as_f64().unwrap()).abs() < 1e-4);
    let grads = loss.backward();
    let mut square = 0.0;
    for (_, layer) in model.linears() {
        let adapter = layer.adapter.as_ref().unwrap();
        for matrix in [&adapter.a, &adapter.b] {
            let grad = matrix.val().grad(&grads).unwrap();
            square += grad.powi_scalar(2).sum().into_scalar();
        }
    }
    let off = (f64::from(square.sqrt()) - expected["grad_norm"].as_f64().unwrap()).abs();
    assert!(off < 1e-3, "the norm of the gradient is off by {off}");
    super::moe_tests::a_step_on(&place);
}

#[test]
fn greedy_decoding_is_that_of_transformers() {
    let expected = tokens(&reference()["greedy_from_first_8_tokens"]);
    let sampling = Sampling::greedy(expected.len() - 8, &[]);
    let samples = generate(&base::<Back>(), &expected[..8], 2, &sampling, 0).unwrap();
    assert_eq!(samples[0].tokens, expected[8..]);
    assert_eq!(samples[0], samples[1]);
}

#[test]
fn a_cached_prompt_in_parts_gives_the_logits_of_one_pass() {
    let model = base::<Back>();
    let input = tokens(&reference()["input_ids"])[..10].to_vec();
    let whole = logits(&model, &input, 1);
    let first = Prompt::read(&model, &input[..4], 6).unwrap();
    for end in [5, 7, 10] {
        let prompt = first.then(&model, &input[4..end]).unwrap();
        let off = far(prompt.logits(), &whole[(end - 1) * 97..end * 97]);
        assert!(off < 1e-5, "{end}: {off}");
    }
}

/// Enough that some samples end early.
const STOPS: [u32; 12] = [44, 3, 11, 19, 27, 35, 43, 51, 59, 67, 75, 83];

#[test]
fn samples_have_their_probabilities_and_do_not_depend_on_each_other() {
    let model = base::<Back>();
    let prompt = [5, 17, 33];
    let sampling =
        Sampling { temperature: 0.7, top_k: 20, top_p: 0.9, ..Sampling::greedy(6, &STOPS) };
    let many = generate(&model, &prompt, 5, &sampling, 7).unwrap();
    assert_eq!(many[..2], generate(&model, &prompt, 2, &sampling, 7).unwrap());
    // Some end while others go on.
    let lengths: Vec<usize> = many.iter().map(|sample| sample.tokens.len()).collect();
    assert!(lengths.iter().any(|len| *len != lengths[0]), "{lengths:?}");
    assert_ne!(many, generate(&model, &prompt, 5, &sampling, 8).unwrap());
    for sample in &many {
        let tokens = [&prompt[..], &sample.tokens].concat();
        let at: Vec<usize> = (2..tokens.len() - 1).collect();
        let again: Vec<f32> =
            model.log_probs(&tokens, 1, &at, 0.7).unwrap().into_data().to_vec().unwrap();
        assert!(far(&again, &sample.log_probs) < 1e-4);
        assert_eq!(sample.stopped, sample.tokens.last().is_some_and(|t| STOPS.contains(t)));
    }
}

#[test]
fn sequences_that_are_kept_in_a_cache_go_on_as_they_would() {
    let model = base::<Back>();
    let prompt = [5, 17, 33, 2, 41, 9];
    let mut all = model.cache(3, 4);
    model.forward_cached(&prompt, &mut all).unwrap();
    let mut two = all.keep(&[0, 2]);
    assert_eq!((two.batch(), two.len(), two.capacity()), (2, 2, 4));
    let next = |cache: &mut Cache<Back>, tokens: &[u32]| -> Vec<f32> {
        let hidden = model.forward_cached(tokens, cache).unwrap();
        model.logits(hidden).into_data().into_vec().unwrap()
    };
    let (whole, part) = (next(&mut all, &[7, 8, 9]), next(&mut two, &[7, 9]));
    assert!(far(&part, &[&whole[..97], &whole[2 * 97..]].concat()) < 1e-6);
}

#[test]
fn files_give_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["lora", "rslora", "dora"] {
        let model = adapted::<Back>(kind);
        save::save(&model.without_adapter(), folder.path()).unwrap();
        let (rslora, dora) = (kind == "rslora", kind == "dora");
        let spec = lora::Spec { r: 4, alpha: 16.0, rslora, dora, ..Default::default() };
        lora::write(&model, &spec, folder.path()).unwrap();
        let again = super::tests::folder::<Back>(folder.path(), &cpu());
        let input = [5, 17, 33, 2];
        assert_eq!(logits(&again, &input, 1), logits(&model, &input, 1));
        // What PEFT wrote is what this writes.
        let peft = weights::Tensors::open(&data(kind).join("adapter_model.safetensors")).unwrap();
        let written = folder.path().join("adapter_model.safetensors");
        assert_eq!(weights::Tensors::open(&written).unwrap().names(), peft.names());
    }
}

#[test]
fn a_fresh_adapter_changes_nothing_and_leaves_only_itself_trainable() {
    let spec = lora::Spec {
        r: 2,
        alpha: 4.0,
        targets: vec!["q_proj".into(), "down_proj".into()],
        ..Default::default()
    };
    let model = base::<Train>().with_adapter(&spec, 3).unwrap();
    let input = [5, 17, 33, 2];
    assert_eq!(logits(&model, &input, 1), logits(&base::<Train>(), &input, 1));
    let grads = model.log_probs(&input, 1, &[0, 1], 1.0).unwrap().sum().backward();
    assert!(model.embed.val().grad(&grads).is_none());
    for (name, layer) in model.linears() {
        assert!(layer.weight.val().grad(&grads).is_none());
        assert_eq!(
            layer.adapter.is_some(),
            name.ends_with("q_proj") || name.ends_with("down_proj")
        );
        if let Some(adapter) = &layer.adapter {
            assert!(adapter.b.val().grad(&grads).is_some());
        }
    }
}

#[test]
fn a_fresh_dora_changes_nothing_and_a_pattern_without_a_layer_is_an_error() {
    let targets = vec!["*.layers.1.mlp.*".into(), "k_proj".into()];
    let spec = lora::Spec { r: 2, alpha: 4.0, targets, dora: true, ..Default::default() };
    let model = base::<Train>().with_adapter(&spec, 3).unwrap();
    let input = [5, 17, 33, 2];
    let off = far(&logits(&model, &input, 1), &logits(&base::<Train>(), &input, 1));
    assert!(off < 1e-5, "{off}");
    assert_eq!(model.linears().filter(|(_, layer)| layer.adapter.is_some()).count(), 3 + 2);
    let spec = lora::Spec { targets: vec!["layers.2.*".into()], ..spec };
    let e = base::<Train>().with_adapter(&spec, 3).unwrap_err();
    assert!(e.help().unwrap().contains("gate_proj"), "{e}");
}

/// Windows of sequences of 3, 5 and 2 tokens, and of 6 and 4.
fn packed() -> (Packed, Vec<Vec<u32>>) {
    let samples: Vec<Vec<u32>> = vec![
        vec![5, 17, 33],
        vec![2, 64, 80, 11, 9],
        vec![3, 3],
        vec![7, 7, 19, 55, 23, 41],
        vec![96, 0, 12, 50],
    ];
    let starts = samples.iter().scan(0u32, |at, sample| {
        let start = *at;
        *at = (*at + sample.len() as u32) % 10;
        Some(vec![start; sample.len()])
    });
    let starts: Vec<u32> = starts.flatten().collect();
    (Packed { tokens: samples.concat(), batch: 2, starts: starts.into() }, samples)
}

#[test]
fn packed_sequences_are_as_if_alone_in_value_and_gradient() {
    let model = adapted::<Train>("lora");
    let (packed, samples) = packed();
    let at: Vec<usize> = vec![0, 1, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 16, 17, 18];
    let together = model.packed_log_probs(&packed, &at).unwrap();
    let alone: Vec<_> = samples
        .iter()
        .map(|tokens| {
            let at: Vec<usize> = (0..tokens.len() - 1).collect();
            model.log_probs(tokens, 1, &at, 1.0).unwrap()
        })
        .collect();
    let alone = burn::Tensor::cat(alone, 0);
    let values = |t: &burn::Tensor<Train, 1>| t.to_data().to_vec::<f32>().unwrap();
    let off = far(&values(&together), &values(&alone));
    assert!(off < 1e-5, "{off}");
    let (together, alone) = (together.sum().backward(), alone.sum().backward());
    for (name, layer) in model.linears() {
        let b = layer.adapter.as_ref().unwrap().b.val();
        let grad = |g| b.grad(g).unwrap().into_data().to_vec::<f32>().unwrap();
        let off = far(&grad(&together), &grad(&alone));
        assert!(off < 1e-4, "{name}: {off}");
    }
    // A border is not crossed by a target, and a sequence may not be longer than the context.
    assert!(model.packed_log_probs(&packed, &[2]).is_err());
    assert!(model.packed_log_probs(&packed, &[9]).is_err());
    let long = Packed { tokens: vec![1; 300], batch: 1, starts: vec![0; 300].into() };
    assert!(model.packed_hidden(&long).is_err());
}

#[test]
fn a_merged_model_is_trainable_in_full() {
    let model = adapted::<Train>("lora").merge();
    let grads = model.log_probs(&[5, 17, 33, 2], 1, &[0, 1], 1.0).unwrap().sum().backward();
    assert!(model.embed.val().grad(&grads).is_some());
    for (name, layer) in model.linears() {
        assert!(layer.weight.val().grad(&grads).is_some(), "{name}");
    }
}

#[test]
fn wrong_tokens_and_damaged_files_are_errors() {
    let model = base::<Back>();
    assert!(model.forward(&[97], 1).unwrap_err().to_string().contains("97"));
    assert!(model.forward(&[1, 2, 3], 2).is_err());
    assert!(model.forward(&vec![1; 257], 1).is_err());
    let bytes = fs_err::read(data("base/model.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend(&bytes[8..]);
    for damaged in [&[][..], &bytes[..7], &bytes[..200], &bytes[..bytes.len() - 1], &huge] {
        fs_err::write(&path, damaged).unwrap();
        let error = weights::Tensors::open(&path).err().expect("an error");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    let mut config = model.config.clone();
    config.vocab_size = 1 << 20;
    let mut tensors = weights::Tensors::open(&data("base/model.safetensors")).unwrap();
    let error = Llama::<Back>::build(&config, &mut tensors, &cpu()).expect_err("an error");
    assert!(error.to_string().contains("embed_tokens"), "{error}");
}
