//! Linear layers, and the low-rank adapters on them.
//!
//! | adapter | `y` | source |
//! |---|---|---|
//! | LoRA | `x W + c + s (x A) B`, `s = alpha / r` | Hu et al., arXiv 2106.09685 |
//! | rsLoRA | the same with `s = alpha / sqrt r` | Kalajdzievski, arXiv 2312.03732 |
//! | DoRA | `m / norm(W + s A B) * (x W + s (x A) B) + c` | Liu et al., arXiv 2402.09353 |
//!
//! `c` is the bias; `norm` is that of each output's weights, a constant in the backward pass (DoRA,
//! section 4.3). The sum `W + s A B` is formed only by [`Linear::merge`]: forming it in training
//! would cost a gradient of the shape of `W`. Weights lie `[in, out]`, as Burn's do; HF and PEFT
//! store the transpose. For QLoRA a weight is held in 4 bits ([`Nf4`]). Files are the business of
//! [`read`] and [`write()`].

mod nf4;
mod noise;
mod peft;
#[cfg(test)]
mod peft_tests;
mod targets;
#[cfg(test)]
mod tests;

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::kernels::Kernels;
use super::llama::Llama;
use super::weights::uniform;
use crate::{Result, StageError};
pub use nf4::Nf4;
pub use noise::Noise;
pub use peft::{read, write};
pub use targets::ALL_LINEAR;

/// `x W + c`, perhaps with an adapter.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[in, out]`; a single zero where the weight is packed.
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// The adapter.
    pub adapter: Option<Adapter<B>>,
    /// The weight in 4 bits, frozen.
    #[module(skip)]
    pub packed: Option<Nf4>,
}

/// `s (x A) B`, and what DoRA has beside it.
#[derive(Module, Debug)]
pub struct Adapter<B: Backend> {
    /// `[in, r]`.
    pub a: Param<Tensor<B, 2>>,
    /// `[r, out]`.
    pub b: Param<Tensor<B, 2>>,
    /// `[out]`: DoRA's `m`.
    pub magnitude: Option<Param<Tensor<B, 1>>>,
    /// `[out]`: the squared norms of the columns of `W`, where there is a magnitude.
    squares: Option<Tensor<B, 1>>,
    /// `s`.
    pub scale: f64,
    /// Dropout of what goes into `A` in training.
    #[module(skip)]
    pub noise: Option<Noise>,
}

impl<B: Backend> Adapter<B> {
    /// An adapter of a layer of weight `W`, without dropout.
    fn new(
        weight: &Tensor<B, 2>,
        a: TensorData,
        b: TensorData,
        magnitude: Option<TensorData>,
        scale: f64,
    ) -> Adapter<B> {
        let place = weight.device();
        let squares = || column_squares(weight.clone().detach().cast(DType::F32));
        let squares = magnitude.is_some().then(squares);
        Adapter {
            a: Param::from_data(a, &place),
            b: Param::from_data(b, &place),
            magnitude: magnitude.map(|m| Param::from_data(m, &place)),
            squares,
            scale,
            noise: None,
        }
    }

    /// Norms of the columns of `W + s A B` (`[out]`), out of the backward pass, by
    /// `|w + s A b|^2 = |w|^2 + 2 s (W'A) b + s^2 b'(A'A) b`: no matrix of the size of `W`.
    fn norms(&self, weight: Tensor<B, 2>, squares: Tensor<B, 1>) -> Tensor<B, 1> {
        let (a, b) = (self.a.val().detach(), self.b.val().detach());
        let cross = a.clone().transpose().matmul(weight.detach().cast(DType::F32));
        let gram = a.clone().transpose().matmul(a).matmul(b.clone());
        let low = b * (cross * (2.0 * self.scale) + gram * (self.scale * self.scale));
        let [_, out] = low.dims();
        (squares + low.sum_dim(0).reshape([out])).clamp_min(1e-30).sqrt()
    }
}

/// Sums of the squares of the columns of `[in, out]`: `[out]`.
fn column_squares<B: Backend>(weight: Tensor<B, 2>) -> Tensor<B, 1> {
    let [_, out] = weight.dims();
    weight.square().sum_dim(0).reshape([out])
}

impl<B: Kernels> Linear<B> {
    /// `[n, in]` to `[n, out]`, in the type of `x`: weights in f32 are narrowed to it, and their
    /// gradients widened.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let kind = x.dtype();
        let mut y = match &self.packed {
            Some(packed) => B::packed_matmul(x.clone(), packed),
            None => x.clone().matmul(self.weight.val().cast(kind)),
        };
        if let Some(adapter) = &self.adapter {
            let x = match &adapter.noise {
                Some(noise) if B::ad_enabled(&x.device()) => noise.drop(x),
                _ => x,
            };
            let low = x.matmul(adapter.a.val().cast(kind)) * adapter.scale;
            let b = adapter.b.val().cast(kind);
            if let (Some(m), Some(squares)) = (&adapter.magnitude, &adapter.squares) {
                let norms = adapter.norms(self.dense(), squares.clone());
                y = (y + low.matmul(b)) * (m.val() / norms).cast(kind).unsqueeze();
                return self.biased(y);
            }
            return self.biased(y) + low.matmul(b);
        }
        self.biased(y)
    }
}

impl<B: Backend> Linear<B> {
    /// Inputs and outputs.
    pub fn dims(&self) -> [usize; 2] {
        match &self.packed {
            Some(packed) => {
                let [to, from] = packed.shape();
                [from, to]
            }
            None => self.weight.dims(),
        }
    }

    /// The weight, `[in, out]`, whether packed or not.
    pub fn dense(&self) -> Tensor<B, 2> {
        match &self.packed {
            Some(packed) => {
                let values = TensorData::new(packed.values(), packed.shape());
                Tensor::from_data(values, &self.weight.device()).transpose()
            }
            None => self.weight.val(),
        }
    }

    /// The same layer with its weight in 4 bits, where its size allows.
    pub fn pack(mut self) -> Linear<B> {
        let [from, to] = self.dims();
        let values = self.dense().cast(DType::F32).transpose().into_data();
        let values = values.into_vec::<f32>().unwrap_or_default();
        if let Some(packed) = Nf4::of(&values, [to, from]) {
            self.hold(packed);
        }
        self
    }

    /// Takes a packed weight in place of its own.
    pub(crate) fn hold(&mut self, packed: Nf4) {
        let zero = Tensor::zeros([1, 1], &self.weight.device());
        self.weight = Param::from_tensor(zero).no_grad();
        self.packed = Some(packed);
    }

    fn biased(&self, y: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.bias {
            Some(bias) => {
                let bias = bias.val().cast(y.dtype());
                y + bias.unsqueeze()
            }
            None => y,
        }
    }

    /// The same layer with its adapter worked into the weight.
    pub fn merge(mut self) -> Linear<B> {
        if let Some(adapter) = self.adapter.take() {
            let product = (adapter.a.val() * adapter.scale).matmul(adapter.b.val());
            if self.packed.is_some() {
                self.weight = Param::from_tensor(self.dense());
                self.packed = None;
            }
            self.weight = self.weight.map(|weight| {
                let sum = (weight.cast(DType::F32) + product).detach();
                match adapter.magnitude {
                    Some(m) => {
                        let norms = column_squares(sum.clone()).clamp_min(1e-30).sqrt();
                        (sum * (m.val().detach() / norms).unsqueeze()).detach()
                    }
                    None => sum,
                }
            });
        }
        self
    }
}

/// Which layers get an adapter, and of what kind and size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// The rank.
    pub r: usize,
    /// Scales the product; `alpha / r` of it is added.
    pub alpha: f64,
    /// Patterns of names of linear layers: a name such as `q_proj`, the end of one such as
    /// `self_attn.q_proj`, a glob such as `*.layers.0.*`, or [`ALL_LINEAR`].
    pub targets: Vec<String>,
    /// Scale by `alpha / sqrt r` instead.
    pub rslora: bool,
    /// Split the weight into direction and magnitude (DoRA).
    pub dora: bool,
    /// The share of what goes into `A` that is left out in training.
    pub dropout: f64,
}

impl Spec {
    /// `s`.
    pub fn scale(&self) -> f64 {
        super::adapter::scale(self.alpha, self.r, self.rslora)
    }

    /// Says what does not hold, in lower case.
    pub fn check(&self) -> std::result::Result<(), String> {
        if self.r == 0 || self.r > 4096 {
            return Err(format!("the rank is {}, not in 1..=4096", self.r));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(format!("alpha is {}, not a positive number", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("the dropout is {}, not in 0..1", self.dropout));
        }
        if self.targets.is_empty() {
            return Err("no layer is named".into());
        }
        Ok(())
    }
}

impl<B: Backend> Llama<B> {
    /// Freezes the model and adds adapters that change nothing yet: A uniform in ±1/sqrt(in)
    /// (kaiming with a = sqrt 5, as PEFT has it), B zero, a magnitude that of the weight.
    ///
    /// # Errors
    /// A pattern that no layer's name matches; the message says what there is.
    pub fn with_adapter(self, spec: &Spec, seed: u64) -> Result<Llama<B>> {
        spec.check().map_err(StageError::failed)?;
        let names: Vec<String> = self.linears().map(|(name, _)| name).collect();
        targets::check(&spec.targets, &names)?;
        let noise = (spec.dropout > 0.0).then(|| Noise::new(spec.dropout, seed));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.no_grad().map_linears(|name, mut layer| {
            let [from, to] = layer.dims();
            if targets::covers(&spec.targets, name) {
                let bound = 1.0 / (from as f64).sqrt();
                let a =
                    (0..from * spec.r).map(|_| ((2.0 * uniform(&mut rng) - 1.0) * bound) as f32);
                let a = TensorData::new(a.collect::<Vec<_>>(), [from, spec.r]);
                let b = TensorData::new(vec![0.0f32; spec.r * to], [spec.r, to]);
                let weight = layer.dense();
                let norms = || column_squares(weight.clone().cast(DType::F32)).sqrt();
                let m = spec.dora.then(|| norms().into_data());
                let mut adapter = Adapter::new(&weight, a, b, m, spec.scale());
                adapter.noise = noise.as_ref().map(|noise| noise.of(name));
                layer.adapter = Some(adapter);
            }
            Ok(layer)
        })
    }

    /// The same model with the adapter off: the reference of DPO. Shares the weights.
    pub fn without_adapter(&self) -> Llama<B> {
        self.clone().map_layers(|layer| Linear { adapter: None, ..layer })
    }

    /// The same model with the adapter worked into the weights, which can all be trained again.
    pub fn merge(self) -> Llama<B> {
        match self.has_adapter() {
            true => self.map_layers(Linear::merge).map(&mut Thaw),
            false => self,
        }
    }

    /// The same model with the weights of its blocks' linear layers in 4 bits, frozen: the base of a
    /// QLoRA. Routers of experts stay as they are.
    pub fn pack(self) -> Llama<B> {
        let pack = |name: &str, layer: Linear<B>| match targets::router(name) {
            true => layer,
            false => layer.pack(),
        };
        match self.map_linears(|name, layer| Ok::<_, std::convert::Infallible>(pack(name, layer))) {
            Ok(model) => model,
            Err(never) => match never {},
        }
    }

    /// The same model computing in bf16: what is frozen is held in it, but for vectors; what is trained
    /// stays f32 and is narrowed for each product.
    pub fn in_bf16(mut self) -> Llama<B> {
        self.half = true;
        self.map(&mut Narrow)
    }

    /// True where a layer has an adapter.
    pub fn has_adapter(&self) -> bool {
        self.linears().any(|(_, layer)| layer.adapter.is_some())
    }

    /// Begins forward pass `pass` of training step `step`: its dropout masks depend on the seed and
    /// these two alone, so that a pass that is computed again has the same.
    pub fn begin(&self, step: usize, pass: usize) {
        let adapters = self.linears().filter_map(|(_, layer)| layer.adapter.as_ref());
        adapters
            .filter_map(|adapter| adapter.noise.as_ref())
            .for_each(|noise| noise.begin(step, pass));
    }

    fn map_layers(self, f: impl Fn(Linear<B>) -> Linear<B>) -> Llama<B> {
        match self.map_linears(|_, layer| Ok::<_, std::convert::Infallible>(f(layer))) {
            Ok(model) => model,
            Err(never) => match never {},
        }
    }
}

/// Holds frozen matrices in bf16.
struct Narrow;

impl<B: Backend> ModuleMapper<B> for Narrow {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match param.is_require_grad() || D < 2 {
            true => param,
            false => param.map(|tensor| tensor.detach().cast(DType::BF16)),
        }
    }
}

/// Makes every parameter a leaf that wants a gradient.
struct Thaw;

impl<B: Backend> ModuleMapper<B> for Thaw {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| tensor.detach().require_grad())
    }
}
