//! The kernels composed of Burn's operations, for GPUs, where fusion joins them. The formulas are
//! those of [`super::cpu`].

use burn::prelude::*;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};

use super::Span;

pub fn swiglu<B: Backend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    gate.clone() * sigmoid(gate) * up
}

pub fn swiglu_backward<B: Backend>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    grad: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let s = sigmoid(gate.clone());
    let silu = gate.clone() * s.clone();
    let slope = s.clone() * (gate * (s.neg() + 1.0) + 1.0);
    (grad.clone() * up * slope, grad * silu)
}

fn inverse_rms<B: Backend>(x: Tensor<B, 2>, eps: f32) -> Tensor<B, 2> {
    (x.square().mean_dim(1) + eps).sqrt().recip()
}

pub fn rms_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f32) -> Tensor<B, 2> {
    let inverse = inverse_rms(x.clone(), eps);
    x * inverse * weight.unsqueeze()
}

pub fn rms_norm_backward<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f32,
    grad: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 1>) {
    let inverse = inverse_rms(x.clone(), eps);
    let unit = x * inverse.clone();
    let dweight = (grad.clone() * unit.clone()).sum_dim(0).squeeze_dim(0);
    let grad = grad * weight.unsqueeze();
    let along = (grad.clone() * unit.clone()).mean_dim(1);
    ((grad - unit * along) * inverse, dweight)
}

pub fn rope<B: Backend>(
    x: Tensor<B, 2>,
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    span: Span,
) -> Tensor<B, 4> {
    let half = cos.dims()[1];
    let heads = x.dims()[1] / (2 * half);
    let x = x.reshape([span.batch, span.len, heads, 2 * half]).swap_dims(1, 2);
    turn(x, cos, sin)
}

pub fn rope_backward<B: Backend>(
    grad: Tensor<B, 4>,
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let [batch, heads, len, size] = grad.dims();
    turn(grad, cos, sin.neg()).swap_dims(1, 2).reshape([batch * len, heads * size])
}

fn turn<B: Backend>(x: Tensor<B, 4>, cos: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 4> {
    let half = cos.dims()[1];
    let [rows, _] = cos.dims();
    let len = x.dims()[2];
    let table = |t: Tensor<B, 2>| t.reshape([rows / len, 1, len, half]);
    let (cos, sin) = (table(cos), table(sin));
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let low = a.clone() * cos.clone() - b.clone() * sin.clone();
    Tensor::cat(vec![low, b * cos + a * sin], 3)
}

pub fn causal_softmax<B: Backend>(
    scores: Tensor<B, 4>,
    scale: f32,
    span: Span,
    starts: Option<&[u32]>,
) -> Tensor<B, 4> {
    let [batch, _, rows, keys] = scores.dims();
    let device = scores.device();
    let position: Vec<i32> = (0..rows).map(|i| (span.start + i % span.len) as i32).collect();
    let position = Tensor::<B, 1, Int>::from_data(position.as_slice(), &device);
    let key = Tensor::<B, 1, Int>::arange(0..keys as i64, &device).reshape([1, 1, 1, keys]);
    let mut hidden = key
        .clone()
        .expand([1, 1, rows, keys])
        .greater(position.reshape([1, 1, rows, 1]).expand([1, 1, rows, keys]));
    if let Some(starts) = starts {
        let start = |i: usize| starts[i / rows * span.len + i % rows % span.len] as i32;
        let first: Vec<i32> = (0..batch * rows).map(start).collect();
        let first = Tensor::<B, 1, Int>::from_data(first.as_slice(), &device);
        let shape = [batch, 1, rows, keys];
        let before = key.expand(shape).lower(first.reshape([batch, 1, rows, 1]).expand(shape));
        hidden = hidden.expand(shape).bool_or(before);
    }
    let shape = scores.dims();
    softmax((scores * scale).mask_fill(hidden.expand(shape), f32::NEG_INFINITY), 3)
}

pub fn causal_softmax_backward<B: Backend>(
    probs: Tensor<B, 4>,
    scale: f32,
    grad: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let mean = (grad.clone() * probs.clone()).sum_dim(3);
    (grad - mean) * probs * scale
}

fn indices<B: Backend>(targets: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let targets: Vec<i32> = targets.iter().map(|&t| t as i32).collect();
    Tensor::<B, 1, Int>::from_data(targets.as_slice(), device).reshape([targets.len(), 1])
}

pub fn log_probs<B: Backend>(logits: Tensor<B, 2>, targets: &[u32], heat: f32) -> Tensor<B, 1> {
    let targets = indices(targets, &logits.device());
    log_softmax(logits / heat, 1).gather(1, targets).squeeze_dim(1)
}

pub fn log_probs_backward<B: Backend>(
    logits: Tensor<B, 2>,
    targets: &[u32],
    heat: f32,
    grad: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let targets = indices(targets, &logits.device());
    let grad = grad.unsqueeze_dim::<2>(1) / heat;
    let probs = softmax(logits / heat, 1);
    (probs * grad.clone().neg()).scatter(1, targets, grad, burn::tensor::IndexingUpdateOp::Add)
}
