//! The operations of a transformer that Burn would compose from many: one pass over memory each.
//!
//! [`Kernels`] extends a backend by them. On the CPU they are plain Rust over slices, spread over
//! rayon in chunks whose bounds do not depend on the number of threads, so that every thread count
//! gives the same bits ([`cpu`]); elsewhere they are composed of Burn's operations ([`composed`]).
//! [`grad`] gives both a hand-written backward pass. Matrix products stay Burn's.
//!
//! A stream in bf16 is widened to f32 inside each of them and narrowed again: norms, softmax, angles and
//! losses are computed in f32 whatever the products are.

mod composed;
pub(crate) mod cpu;
mod grad;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::Dispatch;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};

use super::lora::Nf4;
use crate::device::{self, is_cpu};

/// Where a row of queries stands: `batch` sequences of `len` tokens, the first at position `start`.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub len: usize,
    /// Position of the first, from 0; what came before lies in a cache.
    pub start: usize,
}

/// A backend with the fused operations of a Llama block. Rows are tokens: `[batch * len, width]`.
pub trait Kernels: Backend {
    /// `silu(gate) * up`, elementwise, `[n, f]` (Shazeer 2020, arXiv 2002.05202).
    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2>;
    /// `x / sqrt(mean(x^2) + eps) * weight` over each row of `[n, d]` (arXiv 1910.07467).
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f32) -> Tensor<Self, 2>;
    /// Splits rows into heads and turns each by its position, with the halves of a head as the two
    /// coordinates (arXiv 2104.09864, the layout of HF): `[b * t, h * d]` to `[b, h, t, d]`.
    /// `cos` and `sin` are `[t, d / 2]`, of the positions of `span`, or `[b * t, d / 2]` where every
    /// token has a position of its own.
    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        span: Span,
    ) -> Tensor<Self, 4>;
    /// Softmax of `scale * scores` over what each query may see. `[b, g, r * t, s]`: row `i` is the
    /// query at position `start + i % t` and sees the keys up to there.
    fn causal_softmax(scores: Tensor<Self, 4>, scale: f32, span: Span) -> Tensor<Self, 4>;
    /// [`Kernels::causal_softmax`] where several sequences lie in one: the query at `t` of sequence
    /// `b` sees the keys from `starts[b * len + t]` on, and none before.
    fn packed_softmax(
        scores: Tensor<Self, 4>,
        scale: f32,
        span: Span,
        starts: &Arc<[u32]>,
    ) -> Tensor<Self, 4>;
    /// `x W` with a frozen weight in 4 bits: `[n, in]` to `[n, out]`, in the type of `x`.
    fn packed_matmul(x: Tensor<Self, 2>, weight: &Nf4) -> Tensor<Self, 2>;
    /// `log softmax(logits / temperature)[target]` of each row of `[n, v]`. Every target is below
    /// `v`, and there are `n` of them. In f32.
    fn log_probs(logits: Tensor<Self, 2>, targets: &[u32], temperature: f32) -> Tensor<Self, 1>;
}

impl Kernels for Dispatch {
    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let kind = gate.dtype();
        let (gate, up) = (wide(gate), wide(up));
        if !is_cpu(&gate.device()) {
            return composed::swiglu(gate, up).cast(kind);
        }
        let (gate, up) = (data(gate), data(up));
        let out = cpu::swiglu(floats(&gate), floats(&up));
        tensor(out, gate.shape.dims::<2>()).cast(kind)
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f32) -> Tensor<Self, 2> {
        let kind = x.dtype();
        let (x, weight) = (wide(x), wide(weight));
        if !is_cpu(&x.device()) {
            return composed::rms_norm(x, weight, eps).cast(kind);
        }
        let (x, weight) = (data(x), data(weight));
        let out = cpu::rms_norm(floats(&x), floats(&weight), eps);
        tensor(out, x.shape.dims::<2>()).cast(kind)
    }

    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        span: Span,
    ) -> Tensor<Self, 4> {
        let kind = x.dtype();
        let x = wide(x);
        if !is_cpu(&x.device()) {
            return composed::rope(x, cos, sin, span).cast(kind);
        }
        let half = cos.dims()[1];
        let (x, cos, sin) = (data(x), data(cos), data(sin));
        let heads = x.shape.dims::<2>()[1] / (2 * half);
        let tables = [floats(&cos), floats(&sin)];
        let out = cpu::rope(floats(&x), tables, half, heads, span.len);
        tensor(out, [span.batch, heads, span.len, 2 * half]).cast(kind)
    }

    fn causal_softmax(scores: Tensor<Self, 4>, scale: f32, span: Span) -> Tensor<Self, 4> {
        softmax(scores, scale, span, None)
    }

    fn packed_softmax(
        scores: Tensor<Self, 4>,
        scale: f32,
        span: Span,
        starts: &Arc<[u32]>,
    ) -> Tensor<Self, 4> {
        softmax(scores, scale, span, Some(starts))
    }

    fn packed_matmul(x: Tensor<Self, 2>, weight: &Nf4) -> Tensor<Self, 2> {
        let weight = weight.tensor(&x.device()).cast(x.dtype());
        x.matmul(weight.transpose())
    }

    fn log_probs(logits: Tensor<Self, 2>, targets: &[u32], temperature: f32) -> Tensor<Self, 1> {
        let logits = wide(logits);
        if !is_cpu(&logits.device()) {
            return composed::log_probs(logits, targets, temperature);
        }
        let width = logits.dims()[1];
        let logits = data(logits);
        let (out, _) = cpu::log_probs(floats(&logits), width, targets, temperature);
        let rows = out.len();
        tensor(out, [rows])
    }
}

fn softmax(
    scores: Tensor<Dispatch, 4>,
    scale: f32,
    span: Span,
    starts: Option<&[u32]>,
) -> Tensor<Dispatch, 4> {
    let kind = scores.dtype();
    let scores = wide(scores);
    if !is_cpu(&scores.device()) {
        return composed::causal_softmax(scores, scale, span, starts).cast(kind);
    }
    let keys = scores.dims()[3];
    let mut scores = data(scores);
    cpu::causal_softmax(floats_mut(&mut scores), keys, scale, span, starts);
    let probs: Tensor<Dispatch, 4> = Tensor::from_data(scores, &device::cpu());
    probs.cast(kind)
}

/// In f32; as it is where it is that already.
fn wide<const D: usize>(tensor: Tensor<Dispatch, D>) -> Tensor<Dispatch, D> {
    tensor.cast(DType::F32)
}

/// The values of a CPU tensor; free where nobody else holds them.
fn data<const D: usize>(tensor: Tensor<Dispatch, D>) -> TensorData {
    tensor.into_data()
}

fn floats(data: &TensorData) -> &[f32] {
    data.as_slice().expect("kernels compute in f32")
}

fn floats_mut(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice().expect("kernels compute in f32")
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<Dispatch, D> {
    Tensor::from_data(TensorData::new(values, shape), &device::cpu())
}
