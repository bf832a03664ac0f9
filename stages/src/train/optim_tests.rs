//! AdamW against `torch.optim.AdamW`, and its two forms against each other.

use burn::module::Module;
use serde::Deserialize;

use super::*;
use crate::device::{Train, cpu};

#[derive(Module, Debug)]
struct Two<B: burn::tensor::backend::Backend> {
    matrix: Param<Tensor<B, 2>>,
    vector: Param<Tensor<B, 1>>,
}

fn two(matrix: &[f32], vector: &[f32]) -> Two<Train> {
    let device = cpu();
    let matrix = TensorData::new(matrix.to_vec(), [1, matrix.len()]);
    Two { matrix: Param::from_data(matrix, &device), vector: Param::from_data(vector, &device) }
}

fn grads(module: &Two<Train>, matrix: &[f32], vector: &[f32]) -> GradientsParams {
    let device = cpu();
    let mut grads = GradientsParams::new();
    let matrix = TensorData::new(matrix.to_vec(), [1, matrix.len()]);
    grads.register(module.matrix.id, Tensor::<crate::device::Back, 2>::from_data(matrix, &device));
    grads.register(module.vector.id, Tensor::<crate::device::Back, 1>::from_data(vector, &device));
    grads
}

fn values(module: &Two<Train>) -> (Vec<f32>, Vec<f32>) {
    let matrix = module.matrix.val().into_data().into_vec().unwrap();
    (matrix, module.vector.val().into_data().into_vec().unwrap())
}

const PLAIN: AdamW = AdamW { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.1, max_norm: 1.0 };

#[derive(Deserialize)]
struct Reference {
    logits_level: Start,
    adamw: After,
}

#[derive(Deserialize)]
struct Start {
    logits: Vec<Vec<Vec<f32>>>,
    grad_logits: Vec<Vec<Vec<f32>>>,
}

#[derive(Deserialize)]
struct After {
    lr: f64,
    grad_norm: f64,
    params_after: Vec<Vec<Vec<Vec<f32>>>>,
}

#[test]
fn three_steps_agree_with_pytorch() {
    let reference: Reference = serde_json::from_str(include_str!("testdata/dapo.json")).unwrap();
    let flat = |x: &Vec<Vec<Vec<f32>>>| x.concat().concat();
    let grad = flat(&reference.logits_level.grad_logits);
    for on_cpu in [true, false] {
        let mut module = two(&flat(&reference.logits_level.logits), &[0.0]);
        let mut optimizer = Optimizer::new(PLAIN, on_cpu);
        for expected in &reference.adamw.params_after {
            let grads = grads(&module, &grad, &[0.0]);
            let (moved, norm) = optimizer.step(reference.adamw.lr, module, grads);
            module = moved;
            assert!((norm - reference.adamw.grad_norm).abs() < 1e-7, "{norm}");
            for (got, expected) in values(&module).0.iter().zip(flat(expected)) {
                assert!((got - expected).abs() < 1e-6, "cpu {on_cpu}: {got} != {expected}");
            }
        }
    }
}

#[test]
fn the_norm_is_that_of_all_parameters_and_vectors_do_not_decay() {
    for on_cpu in [true, false] {
        let settings = AdamW { max_norm: 1e-9, ..PLAIN };
        let mut optimizer = Optimizer::new(settings, on_cpu);
        let module = two(&[1.0, 1.0], &[1.0, 1.0]);
        let grads = grads(&module, &[0.0, 3.0], &[4.0, 0.0]);
        let (module, norm) = optimizer.step(0.5, module, grads);
        assert_eq!(norm, 5.0);
        let (matrix, vector) = values(&module);
        // Where the gradient is zero only decay acts: 1 - 0.5 * 0.1 on the matrix.
        assert!((matrix[0] - 0.95).abs() < 1e-6 && vector[1] == 1.0);
        // Clipped to 1e-9, the gradient no longer dwarfs epsilon: 6e-10 / (6e-10 + 1e-8).
        let moved = 0.5 * 6e-10 / (6e-10 + 1e-8);
        assert!((matrix[1] - (0.95 - moved)).abs() < 1e-4, "{} {moved}", matrix[1]);
    }
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    let module = two(&[1.0], &[2.0]);
    let grads = grads(&module, &[f32::NAN], &[0.0]);
    let (module, norm) = Optimizer::new(PLAIN, true).step(0.1, module, grads);
    assert!(norm.is_nan());
    assert_eq!(values(&module), (vec![1.0], vec![2.0]));
}

/// A loss of the tiny Qwen2 with an adapter, over the labels of `tests/data/tiny-qwen2`.
#[test]
fn five_steps_of_every_kind_of_adapter_agree_with_peft_and_pytorch() {
    use crate::model::{Config, Folder, Llama, lora, weights};
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2");
    let text = fs_err::read_to_string(dir.join("reference.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = |name: &str| -> Vec<i64> {
        serde_json::from_value::<Vec<Vec<i64>>>(reference[name].clone()).unwrap().concat()
    };
    let input: Vec<u32> = rows("input_ids").iter().map(|token| *token as u32).collect();
    let labels = rows("labels");
    let at: Vec<usize> = (0..labels.len()).filter(|i| i % 10 != 9 && labels[i + 1] >= 0).collect();
    for kind in ["lora", "rslora", "dora"] {
        let folder = Folder::of_dir(&dir.join("base")).unwrap();
        let config = Config::read(&dir.join("base/config.json")).unwrap();
        let mut source = weights::Tensors::open_model(&folder).unwrap();
        let model = Llama::<Train>::build(&config, &mut source, &cpu()).unwrap();
        let mut model = lora::read(model, &Folder::of_dir(&dir.join(kind)).unwrap()).unwrap();
        let settings = AdamW { weight_decay: 0.0, max_norm: 0.0, ..PLAIN };
        let mut optimizer = Optimizer::new(settings, true);
        let losses: Vec<f64> =
            serde_json::from_value(reference[kind]["adamw_lr1e2_losses"].clone()).unwrap();
        assert_eq!(losses.len(), 6);
        for (step, expected) in losses.iter().enumerate() {
            let loss = model.log_probs(&input, 2, &at, 1.0).unwrap().mean().neg();
            let value = f64::from(loss.clone().into_scalar());
            assert!((value - expected).abs() < 1e-5, "{kind}, step {step}: {value} {expected}");
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(1e-2, model, grads).0;
        }
    }
}
