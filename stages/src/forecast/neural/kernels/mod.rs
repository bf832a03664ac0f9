//! The operations of the nets that Burn would compose from many, each with its own backward pass.
//!
//! A net of this size is bound by passes over memory and by the overhead of an operation, so that
//! everything between two matrix products is one [`Kernel`]. On the CPU it runs over slices, in
//! tasks of whole windows or of a fixed number of rows: every number of threads gives the same bits.
//! Elsewhere the same formulas are composed of Burn's operations, and Burn differentiates them.
//! Matrix products stay Burn's. Every tensor is a matrix; a row is a row of a window.

mod attention;
mod math;
mod recurrence;
mod rows;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

use burn::Dispatch;
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::prelude::*;
use burn::tensor::{TensorData, TensorPrimitive};
use burn_flex::FlexTensor;
use rayon::prelude::*;

pub use attention::Attention;
pub use recurrence::Lstm;
pub use rows::{Drop, Film, Mix, Norm, Residual, SwiGlu};
pub use scan::Scan;

use crate::device::Flex;

/// An operation on `N` matrices that gives one.
pub trait Kernel<const N: usize>: Clone + Debug + Send + 'static {
    /// The result of slices, row by row, its width, and what the backward pass needs besides.
    fn forward(&self, inputs: [&[f32]; N]) -> Output;
    /// The gradients of the inputs; none for those that are constant.
    fn backward(
        &self,
        inputs: [&[f32]; N],
        out: &[f32],
        saved: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; N];
    /// The same of Burn's operations.
    fn composed<B: Backend>(&self, inputs: [Tensor<B, 2>; N]) -> Tensor<B, 2>;
}

/// Numbers worth a task of their own: what they take, some tens of microseconds, is more than a fork.
const GRAIN: usize = 1 << 14;

/// Chunks of a result, side by side; those that are little work (`cost`, in numbers) by one thread
/// together. What is a chunk decides bits, who computes it does not.
fn tasks(
    values: &mut [f32],
    size: usize,
    cost: usize,
) -> impl IndexedParallelIterator<Item = &mut [f32]> {
    values.par_chunks_mut(size).with_min_len(GRAIN.div_ceil(cost.max(1)))
}

/// What a forward pass gives.
pub struct Output {
    /// The result, row by row.
    pub values: Vec<f32>,
    /// Its width.
    pub width: usize,
    /// What the backward pass needs besides inputs and result.
    pub saved: Vec<f32>,
}

/// A backend with the kernels.
pub trait Fused: Backend {
    /// Applies one.
    fn apply<const N: usize, K: Kernel<N>>(
        kernel: K,
        inputs: [Tensor<Self, 2>; N],
    ) -> Tensor<Self, 2>;
}

impl Fused for Dispatch {
    fn apply<const N: usize, K: Kernel<N>>(
        kernel: K,
        inputs: [Tensor<Self, 2>; N],
    ) -> Tensor<Self, 2> {
        kernel.composed(inputs)
    }
}

impl Fused for Autodiff<Dispatch> {
    fn apply<const N: usize, K: Kernel<N>>(
        kernel: K,
        inputs: [Tensor<Self, 2>; N],
    ) -> Tensor<Self, 2> {
        kernel.composed(inputs)
    }
}

impl Fused for Flex {
    fn apply<const N: usize, K: Kernel<N>>(
        kernel: K,
        inputs: [Tensor<Self, 2>; N],
    ) -> Tensor<Self, 2> {
        let inputs = inputs.map(|input| input.into_primitive().tensor().to_contiguous());
        plain(matrix(kernel.forward(slices(&inputs))).0)
    }
}

impl Fused for Autodiff<Flex> {
    fn apply<const N: usize, K: Kernel<N>>(
        kernel: K,
        inputs: [Tensor<Self, 2>; N],
    ) -> Tensor<Self, 2> {
        let inputs = inputs.map(|input| input.into_primitive().tensor());
        let nodes = inputs.each_ref().map(|input| input.node.clone());
        let inputs = inputs.map(|input| input.primitive.to_contiguous());
        let (out, saved) = matrix(kernel.forward(slices(&inputs)));
        let prep = Node(kernel).prepare::<NoCheckpointing>(nodes).compute_bound().stateful();
        let out = match prep {
            OpsKind::Tracked(prep) => prep.finish(State { inputs, out: out.clone(), saved }, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        Tensor::from_primitive(TensorPrimitive::Float(out))
    }
}

#[derive(Clone, Debug)]
struct Node<K>(K);

#[derive(Clone, Debug)]
struct State<const N: usize> {
    inputs: [FlexTensor; N],
    out: FlexTensor,
    saved: Vec<f32>,
}

impl<const N: usize, K: Kernel<N>> Backward<Flex, N> for Node<K> {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let State { inputs, out, saved } = ops.state;
        let given = self.0.backward(slices(&inputs), floats(&out), &saved, floats(&grad));
        for ((parent, given), input) in ops.parents.into_iter().zip(given).zip(inputs) {
            if let (Some(parent), Some(given)) = (parent, given) {
                let data = TensorData::new(given, input.layout().shape().clone());
                grads.register::<Flex>(parent.id, FlexTensor::from_data(data));
            }
        }
    }
}

fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous f32")
}

fn slices<const N: usize>(tensors: &[FlexTensor; N]) -> [&[f32]; N] {
    tensors.each_ref().map(floats)
}

fn matrix(out: Output) -> (FlexTensor, Vec<f32>) {
    let rows = out.values.len() / out.width.max(1);
    (FlexTensor::from_data(TensorData::new(out.values, [rows, out.width])), out.saved)
}

fn plain(tensor: FlexTensor) -> Tensor<Flex, 2> {
    Tensor::from_primitive(TensorPrimitive::Float(tensor))
}

/// Values that the backend takes no gradient of, `[rows, width]`.
pub fn constant<B: Backend>(values: Vec<f32>, width: usize, place: &B::Device) -> Tensor<B, 2> {
    let rows = values.len() / width.max(1);
    Tensor::from_data(TensorData::new(values, [rows, width]), place)
}
