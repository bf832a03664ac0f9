//! One layer with each kind of adapter against PEFT's formulas in double precision.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use serde_json::Value;

use super::*;
use crate::device::{Train, cpu};

fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn matrix(value: &Value) -> TensorData {
    let rows = rows(value);
    TensorData::new(rows.concat(), [rows.len(), rows[0].len()])
}

fn transposed(value: &Value) -> TensorData {
    let rows = rows(value);
    let column = |j: usize| rows.iter().map(move |row| row[j]);
    let values: Vec<f32> = (0..rows[0].len()).flat_map(|j| column(j).collect::<Vec<_>>()).collect();
    TensorData::new(values, [rows[0].len(), rows.len()])
}

fn close<const D: usize>(got: Tensor<Train, D>, expected: TensorData, what: &str) {
    let got = got.into_data().into_vec::<f32>().unwrap();
    let expected = expected.into_vec::<f32>().unwrap();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (a, b) in got.iter().zip(&expected) {
        assert!((a - b).abs() < 2e-6 * b.abs().max(1.0), "{what}: {a} {b}");
    }
}

#[test]
fn every_kind_of_adapter_agrees_in_value_gradient_and_merged_weight() {
    let all: Value = serde_json::from_str(include_str!("../../train/testdata/dpo.json")).unwrap();
    let given = &all["lora"];
    let place = cpu();
    let bias: Vec<f32> = serde_json::from_value(given["bias"].clone()).unwrap();
    for (name, scale) in
        [("lora_alpha4_r2", 2.0), ("rslora_alpha4_r2", 8f64.sqrt()), ("dora_alpha4_r2", 2.0)]
    {
        let case = &given["cases"][name];
        let weight = Tensor::<Train, 2>::from_data(transposed(&given["W"]), &place);
        let m = case.get("magnitude").map(|m| {
            let m: Vec<f32> = serde_json::from_value(m.clone()).unwrap();
            TensorData::new(m.clone(), [m.len()])
        });
        let (a, b) = (transposed(&given["A"]), transposed(&given["B"]));
        let layer = Linear {
            adapter: Some(Adapter::new(&weight, a, b, m, scale)),
            weight: Param::from_tensor(weight).no_grad(),
            bias: Some(Param::from_data(bias.as_slice(), &place)),
            packed: None,
        };
        let x = Tensor::<Train, 2>::from_data(matrix(&given["X"]), &place);
        let y = layer.forward(x.clone());
        close(y.clone(), matrix(&case["y"]), name);
        let target = Tensor::from_data(matrix(&given["Y"]), &place);
        let loss = (y - target).square().mean();
        let value = f64::from(loss.clone().into_scalar());
        assert!((value - case["loss"].as_f64().unwrap()).abs() < 1e-6, "{name}: {value}");
        let grads = loss.backward();
        let adapter = layer.adapter.as_ref().unwrap();
        let grad = |p: &Param<Tensor<Train, 2>>| Tensor::from_inner(p.val().grad(&grads).unwrap());
        close(grad(&adapter.a), transposed(&case["grad_A"]), "grad_A");
        close(grad(&adapter.b), transposed(&case["grad_B"]), "grad_B");
        assert!(layer.weight.val().grad(&grads).is_none());
        if let Some(m) = &adapter.magnitude {
            let expected: Vec<f32> = serde_json::from_value(case["grad_m"].clone()).unwrap();
            let got = Tensor::from_inner(m.val().grad(&grads).unwrap());
            close(got, TensorData::new(expected.clone(), [expected.len()]), "grad_m");
        }
        let merged = layer.clone().merge();
        if !case["merged_W"].is_null() {
            close(merged.weight.val(), transposed(&case["merged_W"]), "merged");
        }
        close(merged.forward(x), matrix(&case["y"]), "merged y");
    }
}

#[test]
fn dropout_leaves_its_share_out_and_depends_on_step_and_layer_alone() {
    let noise = Noise::new(0.3, 5).of("model.layers.0.mlp.up_proj");
    let x = || Tensor::<Train, 2>::ones([100, 200], &cpu());
    let draw = |noise: &Noise| noise.drop(x()).into_data().into_vec::<f32>().unwrap();
    noise.begin(7, 0);
    let (first, second) = (draw(&noise), draw(&noise));
    assert_ne!(first, second);
    noise.begin(7, 0);
    assert_eq!(draw(&noise), first);
    let zeros = first.iter().filter(|x| **x == 0.0).count() as f64 / 20_000.0;
    assert!((zeros - 0.3).abs() < 0.02, "{zeros}");
    assert!(first.iter().all(|x| *x == 0.0 || (*x - 1.0 / 0.7).abs() < 1e-6));
    assert_ne!(draw(&Noise::new(0.3, 5).of("model.layers.1.mlp.up_proj")), first);
}
