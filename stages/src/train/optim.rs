//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) with PyTorch's defaults, and clipping of the
//! gradient by its norm over all parameters.
//!
//! Burn's own AdamW clips tensor by tensor, decays every parameter alike, defaults to an epsilon a
//! thousand times PyTorch's, and makes a dozen passes over memory. Here the norm is that of the
//! whole gradient; vectors (norm weights, biases) are not decayed; on the CPU a parameter is
//! updated in one pass over slices; and elsewhere the same formula is composed of tensor
//! operations.

use std::collections::BTreeMap;

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::params::Params;

/// Elements of one task: fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 16 * 1024;

/// The settings of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of matrices.
    pub weight_decay: f64,
    /// Largest norm of the gradient over all parameters; 0 is no bound.
    pub max_norm: f64,
}

impl AdamW {
    /// As the parameters say.
    pub fn new(params: &Params) -> AdamW {
        AdamW {
            betas: params.betas,
            epsilon: params.epsilon,
            weight_decay: params.weight_decay,
            max_norm: params.max_grad_norm,
        }
    }
}

/// AdamW with its moments.
pub struct Optimizer<B: AutodiffBackend> {
    settings: AdamW,
    /// Whether tensors lie in this process's memory.
    on_cpu: bool,
    time: i32,
    moments: BTreeMap<ParamId, Moments<B>>,
}

enum Moments<B: AutodiffBackend> {
    Slices(Vec<f32>, Vec<f32>),
    Tensors(Tensor<B::InnerBackend, 1>, Tensor<B::InnerBackend, 1>),
}

impl<B: AutodiffBackend> Optimizer<B> {
    /// An optimizer that has seen nothing.
    pub fn new(settings: AdamW, on_cpu: bool) -> Optimizer<B> {
        Optimizer { settings, on_cpu, time: 0, moments: BTreeMap::new() }
    }

    /// How many steps it has made.
    pub fn time(&self) -> i32 {
        self.time
    }

    /// The moments of a parameter, once it has any.
    pub fn moments(&self, id: ParamId) -> Option<[Vec<f32>; 2]> {
        Some(match self.moments.get(&id)? {
            Moments::Slices(m, v) => [m.clone(), v.clone()],
            Moments::Tensors(m, v) => [m, v].map(|t| owned(t.to_data())),
        })
    }

    /// Puts moments that [`Optimizer::moments`] gave, after `time` steps, back.
    pub fn restore(
        &mut self,
        time: i32,
        moments: Vec<(ParamId, [Vec<f32>; 2])>,
        place: &B::Device,
    ) {
        self.time = time;
        let tensor = |values: &Vec<f32>| Tensor::from_data(values.as_slice(), place);
        for (id, [m, v]) in moments {
            let moments = match self.on_cpu {
                true => Moments::Slices(m, v),
                false => Moments::Tensors(tensor(&m), tensor(&v)),
            };
            self.moments.insert(id, moments);
        }
    }

    /// Moves every parameter that has a gradient. Returns the module and the norm of the gradient
    /// before clipping; a gradient that is not finite moves nothing.
    pub fn step<M: AutodiffModule<B>>(
        &mut self,
        learning_rate: f64,
        module: M,
        grads: GradientsParams,
    ) -> (M, f64) {
        let mut squares = Squares { grads: &grads, on_cpu: self.on_cpu, sum: 0.0 };
        visit(&module, &mut squares);
        let norm = squares.sum.sqrt();
        if !norm.is_finite() {
            return (module, norm);
        }
        let bound = self.settings.max_norm;
        // The 1e-6 is that of `torch.nn.utils.clip_grad_norm_`.
        let scale = if bound > 0.0 { (bound / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.time += 1;
        let update = Update::new(&self.settings, learning_rate, scale, self.time);
        let mut mapper = Step { optimizer: self, update, grads };
        (module.map(&mut mapper), norm)
    }
}

fn visit<B: AutodiffBackend, M: AutodiffModule<B>>(module: &M, squares: &mut Squares) {
    module.visit(squares);
}

/// Sums the squares of all gradients, parameter by parameter.
struct Squares<'a> {
    grads: &'a GradientsParams,
    on_cpu: bool,
    sum: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) else { return };
        if !self.on_cpu {
            self.sum += f64::from(grad.square().sum().into_data().iter::<f32>().sum::<f32>());
            return;
        }
        let data = grad.into_data();
        let parts: Vec<f64> = floats(&data).par_chunks(CHUNK).map(square_sum).collect();
        self.sum += parts.iter().sum::<f64>();
    }
}

/// In eight lanes, so that it vectorises.
fn square_sum(values: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    for chunk in values.chunks(8) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*x) * f64::from(*x);
        }
    }
    lanes.iter().sum()
}

/// The numbers of one step.
#[derive(Clone, Copy)]
struct Update {
    scale: f32,
    beta1: f32,
    beta2: f32,
    /// Learning rate over the first moment's bias correction.
    rate: f32,
    /// One over the root of the second moment's bias correction.
    root: f32,
    epsilon: f32,
    /// What decay leaves of a matrix.
    keep: f32,
}

impl Update {
    fn new(settings: &AdamW, rate: f64, scale: f64, time: i32) -> Update {
        let [beta1, beta2] = settings.betas;
        Update {
            scale: scale as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            rate: (rate / (1.0 - beta1.powi(time))) as f32,
            root: (1.0 / (1.0 - beta2.powi(time)).sqrt()) as f32,
            epsilon: settings.epsilon as f32,
            keep: (1.0 - rate * settings.weight_decay) as f32,
        }
    }

    /// One parameter in one pass.
    fn slices(&self, keep: f32, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let chunks = w
            .par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)));
        chunks.for_each(|((w, g), (m, v))| {
            for ((w, g), (m, v)) in w.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
                let g = g * self.scale;
                *m = self.beta1 * *m + (1.0 - self.beta1) * g;
                *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
                *w = keep * *w - self.rate * *m / (v.sqrt() * self.root + self.epsilon);
            }
        });
    }
}

struct Step<'a, B: AutodiffBackend> {
    optimizer: &'a mut Optimizer<B>,
    update: Update,
    grads: GradientsParams,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Step<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let update = self.update;
        let keep = if D > 1 { update.keep } else { 1.0 };
        let shape = tensor.shape();
        let count = shape.num_elements();
        let device = grad.device();
        let weights = tensor.inner();
        let known = self.optimizer.moments.remove(&id);
        let (weights, moments) = if self.optimizer.on_cpu {
            let (mut m, mut v) = match known {
                Some(Moments::Slices(m, v)) => (m, v),
                _ => (vec![0.0; count], vec![0.0; count]),
            };
            let grad = grad.into_data();
            let mut w = owned(weights.into_data());
            update.slices(keep, &mut w, floats(&grad), &mut m, &mut v);
            let weights = Tensor::from_data(TensorData::new(w, shape), &device);
            (weights, Moments::Slices(m, v))
        } else {
            let (m, v) = match known {
                Some(Moments::Tensors(m, v)) => (m, v),
                _ => (Tensor::zeros([count], &device), Tensor::zeros([count], &device)),
            };
            let g = grad.reshape([count]) * update.scale;
            let m = m * update.beta1 + g.clone() * (1.0 - update.beta1);
            let v = v * update.beta2 + g.square() * (1.0 - update.beta2);
            let below = v.clone().sqrt() * update.root + update.epsilon;
            let moved = weights.reshape([count]) * keep - m.clone() * update.rate / below;
            (moved.reshape(shape), Moments::Tensors(m, v))
        };
        self.optimizer.moments.insert(id, moments);
        Param::from_mapped_value(id, Tensor::from_inner(weights).require_grad(), mapper)
    }
}

/// The numbers of an f32 tensor; none for another type, which no model here holds.
fn floats(data: &TensorData) -> &[f32] {
    data.as_slice().unwrap_or_default()
}

fn owned(data: TensorData) -> Vec<f32> {
    data.into_vec().unwrap_or_default()
}

#[cfg(test)]
#[path = "optim_tests.rs"]
mod tests;
