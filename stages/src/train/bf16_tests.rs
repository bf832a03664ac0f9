//! Training in bf16 on the CPU, which computes it slowly and rounds as other devices do: near f32, with
//! masters in f32.

use std::path::Path;

use burn::module::AutodiffModule;
use burn::prelude::*;
use burn::tensor::DType;
use serde_json::{Value, json};

use super::logps::{backward, numbers};
use super::losses::cross_entropy;
use super::remat;
use super::samples::Window;
use super::sft::Rows;
use super::stage::Train as Stage;
use super::steps::Gradients;
use super::tests::{corpus, logged, pairs, reward};
use crate::device::{Back, Train, cpu};
use crate::model::lora::Spec;
use crate::model::weights::{Source, Tensors};
use crate::model::{Llama, layout, tiny};
use crate::testing::{self, Ran};

fn run(params: &Value, inputs: &[(&str, &Path)]) -> Ran {
    testing::run::<Stage>(params.clone(), inputs).unwrap()
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect()
}

/// Weights of a model folder.
fn weights(folder: &Path, model_type: &str) -> Vec<(String, Vec<f32>)> {
    let mut tensors = Tensors::open(&folder.join("model.safetensors")).unwrap();
    let all = layout::tensors(&tiny::config(model_type)).into_iter();
    all.map(|(name, shape)| (name.clone(), tensors.read(&name, &shape).unwrap())).collect()
}

#[test]
fn sft_in_bf16_learns_as_in_f32_and_its_masters_stay_f32() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path());
    for (model_type, lora) in [("llama", true), ("llama", false), ("qwen3_moe", true)] {
        let config = tiny::config(model_type);
        let base = tiny::folder(&config, &tiny::random(&config));
        let inputs = [("base", base.path()), ("corpus", corpus.as_path())];
        let mut params = json!({
            "method": "sft", "steps": 12, "batch": 4, "seq_len": 48, "learning_rate": 0.003
        });
        if lora {
            params["lora"] = json!({ "r": 4, "dora": true });
            params["learning_rate"] = json!(0.01);
        }
        if model_type == "qwen3_moe" {
            params["gradient_checkpointing"] = json!(true);
            params["router_aux_loss_coef"] = json!(0.01);
        }
        let single = logged(&run(&params, &inputs), "loss");
        params["precision"] = json!("bf16");
        let ran = run(&params, &inputs);
        let half = logged(&ran, "loss");
        assert!(half[11] < 0.8 * half[0], "{half:?}");
        for (a, b) in half.iter().zip(&single) {
            assert!((a - b).abs() < 0.03 * b, "{model_type}, lora {lora}: {a} for {b}");
        }
        assert_ne!(half, single);
        assert!(ran.warnings.iter().any(|warning| warning.contains("bf16")), "{:?}", ran.warnings);
        let before = weights(base.path(), model_type);
        for ((name, after), (_, before)) in
            weights(&ran.outputs["model"], model_type).iter().zip(before)
        {
            let matrix = !name.ends_with("norm.weight");
            match lora {
                // The base as it was held.
                true if matrix => assert!(*after == rounded(&before), "{name}"),
                true => assert!(*after == before, "{name}"),
                // Steps that are smaller than bf16 can tell are not lost.
                false => assert!(*after != rounded(after), "{name}"),
            }
        }
    }
}

#[test]
fn gradients_of_an_adapter_in_bf16_are_f32_and_near() {
    let config = tiny::config("qwen3");
    let folder = tiny::folder(&config, &tiny::random(&config));
    let build = || {
        let path = folder.path().join("model.safetensors");
        let mut source = Tensors::open(&path).unwrap();
        Llama::<Train>::build(&config, &mut source, &cpu()).unwrap()
    };
    let spec = Spec { r: 4, alpha: 8.0, targets: vec!["all-linear".into()], ..Default::default() };
    let single = build().with_adapter(&spec, 3).unwrap();
    let half = single.clone().in_bf16();
    let windows: Vec<Window> =
        [[9, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6]].map(|t| Window::text(&t, Vec::new())).into();
    let (rows, count) = (Rows::of(&windows), 10);
    let grads = |model: &Llama<Train>, again: bool| -> Vec<f32> {
        let mut sum = Gradients::new();
        match again {
            true => drop(remat::backward(model, &rows, count, (1, 0), 0.0, &mut sum).unwrap()),
            false => {
                let logp = rows.log_probs(model).unwrap();
                assert_eq!(logp.dtype(), DType::F32);
                let loss = cross_entropy(&numbers(&logp), count);
                backward(logp, &loss.grad, model, &mut sum);
            }
        }
        let grads = sum.grads();
        let adapters = model.linears().filter_map(|(_, layer)| layer.adapter.as_ref());
        let grad = |adapter: &crate::model::lora::Adapter<Train>| {
            let grad = grads.get::<Back, 2>(adapter.b.id).unwrap();
            assert_eq!(grad.dtype(), DType::F32);
            grad.into_data().into_vec::<f32>().unwrap()
        };
        adapters.flat_map(grad).collect()
    };
    let expected = grads(&single, false);
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    for again in [false, true] {
        let got = grads(&half, again);
        let off: Vec<f32> = got.iter().zip(&expected).map(|(a, b)| a - b).collect();
        assert!(norm(&off) < 0.05 * norm(&expected), "{} of {}", norm(&off), norm(&expected));
    }
    // What is frozen is held in half the memory, and the stream of a cache too.
    assert!(half.linears().all(|(_, layer)| layer.weight.val().dtype() == DType::BF16));
    let model = half.valid();
    let mut cache = model.cache(1, 8);
    let state = model.forward_cached(&[5, 6, 7], &mut cache).unwrap();
    assert_eq!(state.dtype(), DType::BF16);
    let whole: Tensor<Back, 2> = model.hidden(&[5, 6, 7], 1).unwrap();
    let far = (whole.cast(DType::F32) - state.cast(DType::F32)).abs().max().into_scalar();
    assert!(far < 0.1, "{far}");
}

#[test]
fn dpo_and_dapo_run_in_bf16_and_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny::config("qwen2");
    let base = tiny::folder(&config, &tiny::random(&config));
    let (pairs, reward) = (pairs(dir.path()), reward(dir.path()));
    let preferences = [("base", base.path()), ("pairs", pairs.as_path())];
    let inputs = [preferences[0], preferences[1], ("reward", reward.as_path())];
    for more in [
        json!({ "precision": "bf16" }),
        json!({ "precision": "bf16", "lora": { "qlora": true } }),
        json!({ "full": true, "learning_rate": 0.001 }),
        json!({ "full": true, "learning_rate": 0.001, "precision": "bf16" }),
    ] {
        let with = |mut params: Value| {
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            params
        };
        let dpo = json!({ "method": "dpo", "steps": 8, "batch": 4, "learning_rate": 0.01 });
        let ran = run(&with(dpo), &preferences);
        let margin = logged(&ran, "margin");
        assert!(margin[0].abs() < 0.02 && margin[7] > margin[0] + 0.05, "{more}: {margin:?}");
        let adapter = ran.outputs["model"].join("adapter_model.safetensors").exists();
        assert_eq!(adapter, more["full"].is_null(), "{more}");
        let dapo = json!({
            "method": "dapo", "steps": 2, "batch": 2,
            "dapo": { "group": 4, "form": "code", "temperature": 1.5 }
        });
        let ran = run(&with(dapo), &inputs);
        let bound = if more["precision"].is_null() { 1e-3 } else { 0.1 };
        assert!(logged(&ran, "logp_gap").iter().all(|gap| *gap < bound), "{more}");
    }
}
