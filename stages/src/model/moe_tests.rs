//! A mixture of experts against transformers on the tiny Qwen3-MoE of `tests/data`: logits, loss and the
//! gradient of every weight.

use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use serde_json::Value;

use super::lora::{self, Linear, Spec};
use super::tests::{far, floats, folder, labelled, logits, tokens};
use super::weights::{Named, Source, Tensors, expert_of, write};
use super::*;
use crate::device::{Back, Train, cpu};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen3-moe")
}

fn reference() -> Value {
    serde_json::from_str(&fs_err::read_to_string(data().join("reference.json")).unwrap()).unwrap()
}

/// The model, its experts' weights made to sum to 1 or not.
fn base<B: Backend<Device = crate::device::Place>>(normed: bool) -> Llama<B> {
    let mut model = folder::<B>(&data(), &cpu());
    for block in &mut model.blocks {
        let Ffn::Experts(layer) = &mut block.ffn else { panic!("no experts") };
        layer.normed = normed;
    }
    model
}

#[test]
fn logits_are_those_of_transformers() {
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    for (name, normed) in [("normed", true), ("plain", false)] {
        let expected = floats(&reference[name]["logits"]);
        let off = far(&logits(&base::<Back>(normed), &input, 2), &expected);
        assert!(off < 1e-5, "{name}: {off}");
    }
    // Through a cache, and packed: a token goes its way whatever stands beside it.
    let model = base::<Back>(true);
    let expected = floats(&reference["normed"]["logits"]);
    let first = Prompt::read(&model, &input[..4], 6).unwrap();
    let all = first.then(&model, &input[4..10]).unwrap();
    assert!(far(all.logits(), &expected[9 * 97..10 * 97]) < 1e-5);
}

/// The gradient of every weight by its HF name, in HF's layout.
fn gradients(
    model: &Llama<Train>,
    grads: &<Train as AutodiffBackend>::Gradients,
) -> Vec<(String, Vec<f32>)> {
    let vector = |p: &Param<Tensor<Train, 1>>| p.val().grad(grads).unwrap().into_data();
    let mut out = vec![
        ("model.norm.weight".to_owned(), vector(&model.norm)),
        ("model.embed_tokens.weight".into(), model.embed.val().grad(grads).unwrap().into_data()),
    ];
    for (i, block) in model.blocks.iter().enumerate() {
        let norms = [
            ("input_layernorm", &block.input_norm),
            ("post_attention_layernorm", &block.post_norm),
            ("self_attn.q_norm", block.q_norm.as_ref().unwrap()),
            ("self_attn.k_norm", block.k_norm.as_ref().unwrap()),
        ];
        for (name, norm) in norms {
            out.push((format!("model.layers.{i}.{name}.weight"), vector(norm)));
        }
    }
    let head = model.head.iter().map(|head| ("lm_head".to_owned(), head));
    for (name, layer) in model.linears().chain(head) {
        let grad = layer.weight.val().grad(grads).expect(&name).transpose();
        out.push((format!("{name}.weight"), grad.into_data()));
    }
    out.into_iter().map(|(name, data)| (name, data.into_vec().unwrap())).collect()
}

#[test]
fn the_gradient_of_every_weight_is_that_of_transformers() {
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    let at = labelled(&reference);
    let mut expected = Tensors::open(&data().join("gradients.safetensors")).unwrap();
    for (name, normed, count) in [("normed", true, 51), ("plain", false, 33)] {
        let model = base::<Train>(normed);
        let loss = model.log_probs(&input, 2, &at, 1.0).unwrap().mean().neg();
        let value = f64::from(loss.clone().into_scalar());
        assert!((value - reference[name]["loss"].as_f64().unwrap()).abs() < 1e-5, "{value}");
        let grads = loss.backward();
        let mut compared = 0;
        for (tensor, grad) in gradients(&model, &grads) {
            let key = format!("{name}.{tensor}");
            let Some(shape) = expected.shape(&key).map(<[usize]>::to_vec) else { continue };
            let off = far(&grad, &expected.read(&key, &shape).unwrap());
            assert!(off < 1e-5, "{key}: {off}");
            compared += 1;
        }
        assert_eq!(compared, count, "{name}");
    }
}

/// By the chain rule from the gradients of full weights, which are those of transformers: with
/// `W + s A B` the gradient of A is `s G B'`, that of B `s A' G`.
#[test]
fn adapters_on_experts_and_router_have_the_gradient_of_the_weights_that_they_make() {
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    let at = labelled(&reference);
    let targets = vec!["mlp.*".into(), "q_proj".into()];
    let spec = Spec { r: 2, alpha: 4.0, targets, ..Default::default() };
    let model = base::<Train>(true).with_adapter(&spec, 5).unwrap();
    let moved = |_: &str, mut layer: Linear<Train>| {
        if let Some(adapter) = &mut layer.adapter {
            let [r, to] = adapter.b.dims();
            let values: Vec<f32> = (0..r * to).map(|i| ((i * 7 % 5) as f32 - 2.0) / 40.0).collect();
            let b = Tensor::<Train, 1>::from_data(values.as_slice(), &cpu()).reshape([r, to]);
            adapter.b = Param::from_tensor(b.detach().require_grad());
        }
        Ok::<_, std::convert::Infallible>(layer)
    };
    let model = model.map_linears(moved).unwrap();
    let loss = |model: &Llama<Train>| model.log_probs(&input, 2, &at, 1.0).unwrap().mean().neg();
    let (low, merged) = (loss(&model), model.clone().merge());
    let full = loss(&merged);
    assert!((low.clone().into_scalar() - full.clone().into_scalar()).abs() < 1e-5);
    let (low, full) = (low.backward(), full.backward());
    let mut compared = 0;
    for ((name, layer), (_, whole)) in model.linears().zip(merged.linears()) {
        assert!(layer.weight.val().grad(&low).is_none(), "{name} is frozen");
        let Some(adapter) = &layer.adapter else { continue };
        let g = whole.weight.val().grad(&full).unwrap();
        let (a, b) = (adapter.a.val().inner(), adapter.b.val().inner());
        let values = |t: Tensor<Back, 2>| t.into_data().into_vec::<f32>().unwrap();
        for (part, got, expected) in [
            ("A", adapter.a.val().grad(&low), g.clone().matmul(b.transpose()) * 2.0),
            ("B", adapter.b.val().grad(&low), a.transpose().matmul(g) * 2.0),
        ] {
            let off = far(&values(got.unwrap()), &values(expected));
            assert!(off < 1e-5, "{name}, {part}: {off}");
        }
        compared += 1;
    }
    assert_eq!(compared, 2 * (5 * 3 + 1 + 1));
    // By `all-linear` the router stays as it is.
    let spec = Spec { targets: vec![lora::ALL_LINEAR.into()], ..spec };
    let model = base::<Train>(true).with_adapter(&spec, 5).unwrap();
    let bare = model.linears().filter(|(_, layer)| layer.adapter.is_none()).map(|(name, _)| name);
    assert_eq!(bare.collect::<Vec<_>>(), ["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]);
}

#[test]
fn files_give_back_what_was_written_and_experts_may_lie_in_one_tensor() {
    let to = tempfile::tempdir().unwrap();
    let spec = Spec {
        r: 2,
        alpha: 4.0,
        targets: vec!["experts.*".into(), "mlp.gate".into()],
        ..Default::default()
    };
    let model = base::<Back>(true).with_adapter(&spec, 5).unwrap();
    save::save(&model.without_adapter(), to.path()).unwrap();
    lora::write(&model, &spec, to.path()).unwrap();
    let input = [5, 17, 33, 2];
    let again = folder::<Back>(to.path(), &cpu());
    assert!(again.has_adapter());
    assert_eq!(logits(&again, &input, 1), logits(&model, &input, 1));
    let path = to.path().join("model.safetensors");
    let mut tensors = Tensors::open(&path).unwrap();
    let theirs = Tensors::open(&data().join("model.safetensors")).unwrap();
    assert_eq!(tensors.names(), theirs.names());
    // As transformers 5 has them in memory: gate over up, expert by expert.
    let mut fused: Vec<Named> = Vec::new();
    for name in tensors.names() {
        let shape = tensors.shape(&name).unwrap().to_vec();
        let values = tensors.read(&name, &shape).unwrap();
        match expert_of(&name) {
            None => fused.push(Named { name, shape, values }),
            Some((at, i, layer)) if layer != "up_proj" => {
                let mut values = values;
                let (mut rows, columns) = (shape[0], shape[1]);
                if layer == "gate_proj" {
                    let up = format!("{at}.{i}.up_proj.weight");
                    values.extend(tensors.read(&up, &shape).unwrap());
                    rows *= 2;
                }
                let all = if layer == "gate_proj" { "gate_up_proj" } else { layer };
                let name = format!("{at}.{all}");
                match fused.iter_mut().find(|t| t.name == name) {
                    Some(tensor) => tensor.values.extend(values),
                    None => fused.push(Named { name, shape: vec![5, rows, columns], values }),
                }
            }
            Some(_) => {}
        }
    }
    // Beside it: the first is mapped.
    let path = to.path().join("fused.safetensors");
    write(&path, &fused).unwrap();
    let mut one = Tensors::open(&path).unwrap();
    assert_eq!(one.names().iter().filter(|name| name.contains("experts")).count(), 4);
    for (name, shape) in layout::tensors(&model.config) {
        let expected = tensors.read(&name, &shape).unwrap();
        assert!(one.read(&name, &shape).unwrap() == expected, "{name}");
    }
    let e = one.read("model.layers.0.mlp.experts.5.up_proj.weight", &[8, 16]).unwrap_err();
    assert!(e.to_string().contains("gate_up_proj"), "{e}");
}

/// On a GPU: the loss, the gradients, and weights after one step of AdamW; bf16 where it computes that,
/// and else a word. Called by the opt-in test.
pub(super) fn a_step_on(place: &crate::device::Place) {
    use crate::device::computes_bf16;
    use crate::train::optim::{AdamW, Optimizer};
    use burn::optim::GradientsParams;
    let reference = reference();
    let input = tokens(&reference["input_ids"]);
    let at = labelled(&reference);
    let spec = Spec { r: 2, alpha: 4.0, targets: vec!["mlp.*".into()], ..Default::default() };
    let step = |place: &crate::device::Place, on_cpu: bool, half: bool| {
        let model = folder::<Train>(&data(), place).with_adapter(&spec, 5).unwrap();
        let model = if half { model.in_bf16() } else { model };
        let loss = model.log_probs(&input, 2, &at, 1.0).unwrap().mean().neg();
        let value = f64::from(loss.clone().into_scalar());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let settings =
            AdamW { betas: [0.9, 0.999], epsilon: 1e-3, weight_decay: 0.0, max_norm: 1.0 };
        let (model, norm) = Optimizer::new(settings, on_cpu).step(0.01, model, grads);
        let adapters = model.linears().filter_map(|(_, layer)| layer.adapter.as_ref());
        let values = adapters.flat_map(|a| a.b.val().into_data().into_vec::<f32>().unwrap());
        (value, norm, values.collect::<Vec<f32>>())
    };
    let (loss, norm, weights) = step(&cpu(), true, false);
    assert!((loss - reference["normed"]["loss"].as_f64().unwrap()).abs() < 1e-5);
    let (theirs, their_norm, their_weights) = step(place, false, false);
    assert!((loss - theirs).abs() < 1e-4 && (norm - their_norm).abs() < 1e-4);
    assert!(far(&weights, &their_weights) < 1e-5);
    if !computes_bf16(place) {
        return eprintln!("this device does not compute in bf16");
    }
    let (half, half_norm, half_weights) = step(place, false, true);
    assert!((loss - half).abs() < 0.05 && (norm - half_norm).abs() < 0.1 * norm);
    assert!(far(&weights, &half_weights) < 0.01);
}

#[test]
fn experts_are_held_in_four_bits_and_their_router_in_full() {
    let model = base::<Back>(true).pack();
    for (name, layer) in model.linears() {
        assert_eq!(layer.packed.is_some(), !name.ends_with("mlp.gate"), "{name}");
    }
}
