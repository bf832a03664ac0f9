//! The kernels in training: each is one node of Burn's record, with its own backward pass.
//!
//! A node keeps what its backward pass needs (in bf16 where the stream is that), hands gradients to those parents that want them and
//! nothing else. Checkpointing is not offered: activations stay.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::prelude::*;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, TensorPrimitive};
use burn::{Dispatch, DispatchTensor};

use super::{Kernels, Span, composed, cpu, data, floats, floats_mut, tensor, wide};
use crate::device::{self, Train, is_cpu};
use crate::model::lora::Nf4;

type Plain<const D: usize> = Tensor<Dispatch, D>;

fn node<const D: usize>(tensor: Tensor<Train, D>) -> FloatTensor<Train> {
    tensor.into_primitive().tensor()
}

fn plain<const D: usize>(primitive: DispatchTensor) -> Plain<D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn primitive<const D: usize>(tensor: Plain<D>) -> DispatchTensor {
    tensor.into_primitive().tensor()
}

fn tracked<const D: usize>(node: FloatTensor<Train>) -> Tensor<Train, D> {
    Tensor::from_primitive(TensorPrimitive::Float(node))
}

/// Whether the values can be taken out as they are.
fn slices<const D: usize>(tensor: &Plain<D>) -> bool {
    is_cpu(&tensor.device()) && tensor.dtype() == DType::F32
}

/// Adds a gradient to a parent that wants one.
fn give<const D: usize>(grads: &mut Gradients, parent: Option<NodeId>, grad: Plain<D>) {
    if let Some(id) = parent {
        grads.register::<Dispatch>(id, primitive(grad));
    }
}

/// Ends the preparation of a node: `$state` is made only where a gradient is wanted.
macro_rules! finish {
    ($prep:expr, $state:expr, $out:expr) => {{
        let out = primitive($out);
        tracked(match $prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish($state, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        })
    }};
}

#[derive(Debug)]
struct Swiglu;

impl Backward<Dispatch, 2> for Swiglu {
    type State = (Plain<2>, Plain<2>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad: Plain<2> = plain(grads.consume::<Dispatch>(&ops.node));
        let kind = grad.dtype();
        let (gate, up) = (wide(ops.state.0), wide(ops.state.1));
        let grad = wide(grad);
        let (dgate, dup) = if is_cpu(&grad.device()) {
            let (gate, up, mut grad) = (data(gate), data(up), data(grad));
            let shape = grad.shape.dims::<2>();
            let dup = cpu::swiglu_backward(floats(&gate), floats(&up), floats_mut(&mut grad));
            (Plain::from_data(grad, &device::cpu()), tensor(dup, shape))
        } else {
            composed::swiglu_backward(gate, up, grad)
        };
        let [gate, up] = ops.parents.map(|p| p.map(|p| p.id));
        give(grads, gate, dgate.cast(kind));
        give(grads, up, dup.cast(kind));
    }
}

#[derive(Debug)]
struct RmsNorm;

impl Backward<Dispatch, 2> for RmsNorm {
    type State = (Plain<2>, Plain<1>, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad: Plain<2> = plain(grads.consume::<Dispatch>(&ops.node));
        let (x, weight, eps) = ops.state;
        let kind = grad.dtype();
        let (x, grad) = (wide(x), wide(grad));
        let (dx, dweight) = if is_cpu(&grad.device()) {
            let (x, weight, mut grad) = (data(x), data(weight), data(grad));
            let slices = (floats(&x), floats(&weight));
            let dweight = cpu::rms_norm_backward(slices.0, slices.1, eps, floats_mut(&mut grad));
            let width = dweight.len();
            (Plain::from_data(grad, &device::cpu()), tensor(dweight, [width]))
        } else {
            composed::rms_norm_backward(x, weight, eps, grad)
        };
        let [x, weight] = ops.parents.map(|p| p.map(|p| p.id));
        give(grads, x, dx.cast(kind));
        give(grads, weight, dweight);
    }
}

#[derive(Debug)]
struct Rope;

impl Backward<Dispatch, 1> for Rope {
    type State = (Plain<2>, Plain<2>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad: Plain<4> = plain(grads.consume::<Dispatch>(&ops.node));
        let (cos, sin) = ops.state;
        let kind = grad.dtype();
        let grad = wide(grad);
        let dx = if is_cpu(&grad.device()) {
            let [batch, heads, len, size] = grad.dims();
            let (grad, cos, sin) = (data(grad), data(cos), data(sin));
            let tables = [floats(&cos), floats(&sin)];
            let dx = cpu::rope_backward(floats(&grad), tables, size / 2, heads, len);
            tensor(dx, [batch * len, heads * size])
        } else {
            composed::rope_backward(grad, cos, sin)
        };
        let [x] = ops.parents.map(|p| p.map(|p| p.id));
        give(grads, x, dx.cast(kind));
    }
}

#[derive(Debug)]
struct CausalSoftmax;

impl Backward<Dispatch, 1> for CausalSoftmax {
    /// Probabilities, scale, span, and where segments start.
    type State = (Plain<4>, f32, Span, Option<Arc<[u32]>>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad: Plain<4> = plain(grads.consume::<Dispatch>(&ops.node));
        let (probs, scale, span, starts) = ops.state;
        let kind = grad.dtype();
        let (probs, grad) = (wide(probs), wide(grad));
        let dscores = if is_cpu(&grad.device()) {
            let keys = grad.dims()[3];
            let (probs, mut grad) = (data(probs), data(grad));
            let (starts, dscores) = (starts.as_deref(), floats_mut(&mut grad));
            cpu::causal_softmax_backward(floats(&probs), keys, scale, span, starts, dscores);
            Plain::from_data(grad, &device::cpu())
        } else {
            composed::causal_softmax_backward(probs, scale, grad)
        };
        let [scores] = ops.parents.map(|p| p.map(|p| p.id));
        give(grads, scores, dscores.cast(kind));
    }
}

#[derive(Debug)]
struct PackedMatmul;

impl Backward<Dispatch, 1> for PackedMatmul {
    type State = Nf4;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad: Plain<2> = plain(grads.consume::<Dispatch>(&ops.node));
        let weight = ops.state.tensor(&grad.device()).cast(grad.dtype());
        let [x] = ops.parents.map(|p| p.map(|p| p.id));
        give(grads, x, grad.matmul(weight));
    }
}

#[derive(Debug)]
struct LogProbs;

#[derive(Clone, Debug)]
struct LogProbsState {
    logits: Plain<2>,
    targets: Vec<u32>,
    temperature: f32,
    /// The log of each row's partition sum; empty where the kernels do not apply or the logits are
    /// not f32.
    partition: Vec<f32>,
}

impl Backward<Dispatch, 1> for LogProbs {
    type State = LogProbsState;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad: Plain<1> = plain(grads.consume::<Dispatch>(&ops.node));
        let LogProbsState { logits, targets, temperature, partition } = ops.state;
        let kind = logits.dtype();
        let dlogits = if !partition.is_empty() {
            let width = logits.dims()[1];
            let (mut logits, grad) = (data(logits), data(grad));
            let (values, grad) = (floats_mut(&mut logits), floats(&grad));
            cpu::log_probs_backward(values, width, &targets, temperature, &partition, grad);
            Plain::from_data(logits, &device::cpu())
        } else {
            composed::log_probs_backward(wide(logits), &targets, temperature, grad)
        };
        let [logits] = ops.parents.map(|p| p.map(|p| p.id));
        give(grads, logits, dlogits.cast(kind));
    }
}

impl Kernels for Train {
    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let (gate, up) = (node(gate), node(up));
        let prep = Swiglu.prepare::<NoCheckpointing>([gate.node, up.node]);
        let (gate, up): (Plain<2>, Plain<2>) = (plain(gate.primitive), plain(up.primitive));
        if !slices(&gate) {
            let out = Dispatch::swiglu(gate.clone(), up.clone());
            return finish!(prep, (gate, up), out);
        }
        // Taking the values out and putting them back moves them; a clone would copy them.
        let (gate, up) = (data(gate), data(up));
        let out = tensor(cpu::swiglu(floats(&gate), floats(&up)), gate.shape.dims::<2>());
        let place = device::cpu();
        finish!(prep, (Plain::from_data(gate, &place), Plain::from_data(up, &place)), out)
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f32) -> Tensor<Self, 2> {
        let (x, weight) = (node(x), node(weight));
        let prep = RmsNorm.prepare::<NoCheckpointing>([x.node, weight.node]);
        let (x, weight) = (plain(x.primitive), plain(weight.primitive));
        let out = Dispatch::rms_norm(Plain::clone(&x), Plain::clone(&weight), eps);
        finish!(prep, (x, weight, eps), out)
    }

    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        span: Span,
    ) -> Tensor<Self, 4> {
        let x = node(x);
        let prep = Rope.prepare::<NoCheckpointing>([x.node]);
        let (cos, sin): (Plain<2>, Plain<2>) = (cos.inner(), sin.inner());
        let out = Dispatch::rope(plain(x.primitive), cos.clone(), sin.clone(), span);
        finish!(prep, (cos, sin), out)
    }

    fn causal_softmax(scores: Tensor<Self, 4>, scale: f32, span: Span) -> Tensor<Self, 4> {
        let scores = node(scores);
        let prep = CausalSoftmax.prepare::<NoCheckpointing>([scores.node]);
        let probs = Dispatch::causal_softmax(plain(scores.primitive), scale, span);
        finish!(prep, (probs.clone(), scale, span, None), probs.clone())
    }

    fn packed_softmax(
        scores: Tensor<Self, 4>,
        scale: f32,
        span: Span,
        starts: &Arc<[u32]>,
    ) -> Tensor<Self, 4> {
        let scores = node(scores);
        let prep = CausalSoftmax.prepare::<NoCheckpointing>([scores.node]);
        let probs = Dispatch::packed_softmax(plain(scores.primitive), scale, span, starts);
        finish!(prep, (probs.clone(), scale, span, Some(starts.clone())), probs.clone())
    }

    fn packed_matmul(x: Tensor<Self, 2>, weight: &Nf4) -> Tensor<Self, 2> {
        let x = node(x);
        let prep = PackedMatmul.prepare::<NoCheckpointing>([x.node]);
        let out = Dispatch::packed_matmul(plain(x.primitive), weight);
        finish!(prep, weight.clone(), out)
    }

    fn log_probs(logits: Tensor<Self, 2>, targets: &[u32], temperature: f32) -> Tensor<Self, 1> {
        let logits = node(logits);
        let prep = LogProbs.prepare::<NoCheckpointing>([logits.node]);
        let logits: Plain<2> = plain(logits.primitive);
        let targets = targets.to_vec();
        if !slices(&logits) {
            let out = Dispatch::log_probs(logits.clone(), &targets, temperature);
            let state = LogProbsState { logits, targets, temperature, partition: Vec::new() };
            return finish!(prep, state, out);
        }
        let width = logits.dims()[1];
        let logits = data(logits);
        let (out, partition) = cpu::log_probs(floats(&logits), width, &targets, temperature);
        let rows = out.len();
        let logits = Plain::from_data(logits, &device::cpu());
        let state = LogProbsState { logits, targets, temperature, partition };
        finish!(prep, state, tensor(out, [rows]))
    }
}
