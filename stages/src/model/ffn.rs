//! The feed-forward layer: one that all tokens go through, or a mixture of experts, of which a router
//! gives each token a few.
//!
//! As Qwen3-MoE has it: the router's softmax runs over all experts, the largest are taken, and their
//! weights are made to sum to 1 where the model says so. The tokens of one expert go through it
//! together and through no other; the gradient of the weights reaches the router. The choice itself
//! has no gradient, and is made on the host. There is no bound on how many tokens an expert takes.

use burn::prelude::*;
use burn::tensor::DType;
use burn::tensor::activation::softmax;
use burn::tensor::backend::AutodiffBackend;

use super::kernels::Kernels;
use super::lora::Linear;
use super::router::top;

/// `down(silu(gate x) * up x)`.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// `[d, width]`.
    pub gate: Linear<B>,
    /// `[d, width]`.
    pub up: Linear<B>,
    /// `[width, d]`.
    pub down: Linear<B>,
}

/// A router and its experts.
#[derive(Module, Debug)]
pub struct Experts<B: Backend> {
    /// `[d, experts]`.
    pub router: Linear<B>,
    /// At least one.
    pub experts: Vec<Mlp<B>>,
    /// Experts of a token.
    pub used: usize,
    /// Their weights sum to 1.
    pub normed: bool,
}

/// What follows attention in a block.
#[derive(Module, Debug)]
// One a block: what a box saves in memory is nothing beside the weights.
#[allow(clippy::large_enum_variant)]
pub enum Ffn<B: Backend> {
    /// One layer for all tokens.
    Dense(Mlp<B>),
    /// A few of many for each.
    Experts(Experts<B>),
}

/// Where a router sent tokens.
#[derive(Clone, Debug)]
pub struct Routed<B: Backend> {
    /// The softmax over all experts, `[n, experts]`.
    pub probs: Tensor<B, 2>,
    /// The experts of each token, `[n, used]` row by row.
    pub chosen: Vec<usize>,
}

impl<B: AutodiffBackend> Routed<B> {
    /// The same without how it came to be.
    pub fn detach(self) -> Routed<B> {
        Routed { probs: Tensor::from_inner(self.probs.inner()), chosen: self.chosen }
    }
}

impl<B: Kernels> Ffn<B> {
    /// `[n, d]` to `[n, d]`, and where the router sent tokens, if there is one.
    pub fn forward(&self, x: Tensor<B, 2>) -> (Tensor<B, 2>, Option<Routed<B>>) {
        match self {
            Ffn::Dense(mlp) => (mlp.forward(x), None),
            Ffn::Experts(layer) => {
                let (out, routed) = layer.forward(x);
                (out, Some(routed))
            }
        }
    }
}

impl<B: Kernels> Mlp<B> {
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.down.forward(B::swiglu(self.gate.forward(x.clone()), self.up.forward(x)))
    }
}

impl<B: Kernels> Experts<B> {
    fn forward(&self, x: Tensor<B, 2>) -> (Tensor<B, 2>, Routed<B>) {
        let ([n, d], device) = (x.dims(), x.device());
        let (count, used) = (self.experts.len(), self.used);
        let probs = softmax(self.router.forward(x.clone()).cast(DType::F32), 1);
        let rows: Vec<f32> = probs.to_data().iter::<f32>().collect();
        let chosen: Vec<usize> = rows.chunks_exact(count).flat_map(|row| top(row, used)).collect();
        let ints = |values: Vec<i32>| Tensor::<B, 1, Int>::from_data(values.as_slice(), &device);
        let ids = ints(chosen.iter().map(|&expert| expert as i32).collect());
        let mut weights = probs.clone().gather(1, ids.reshape([n, used]));
        if self.normed {
            weights = weights.clone() / weights.sum_dim(1);
        }
        // Place `i * used + j` is the j-th expert of token i.
        let mut places = vec![Vec::new(); count];
        chosen.iter().enumerate().for_each(|(place, &expert)| places[expert].push(place));
        let (mut parts, mut order, mut done) = (Vec::new(), vec![0; n * used], 0);
        let busy = self.experts.iter().zip(&places).filter(|(_, places)| !places.is_empty());
        for (expert, places) in busy {
            let rows = ints(places.iter().map(|place| (place / used) as i32).collect());
            parts.push(expert.forward(x.clone().select(0, rows)));
            for &place in places {
                order[place] = done;
                done += 1;
            }
        }
        let weights = weights.reshape([n * used, 1]).cast(x.dtype());
        let out = Tensor::cat(parts, 0).select(0, ints(order)) * weights;
        let out = out.reshape([n, used, d]).sum_dim(1).reshape([n, d]);
        (out, Routed { probs, chosen })
    }
}

impl<B: Backend> Ffn<B> {
    /// The linear layers by the ends of their HF names, such as `mlp.experts.3.up_proj`.
    pub fn linears(&self) -> Vec<(String, &Linear<B>)> {
        fn mlp<'a, B: Backend>(at: &str, layer: &'a Mlp<B>) -> [(String, &'a Linear<B>); 3] {
            let Mlp { gate, up, down } = layer;
            [("gate", gate), ("up", up), ("down", down)]
                .map(|(name, layer)| (format!("{at}.{name}_proj"), layer))
        }
        match self {
            Ffn::Dense(layer) => mlp("mlp", layer).into(),
            Ffn::Experts(layer) => {
                let experts = layer.experts.iter().enumerate();
                let experts = experts.flat_map(|(i, one)| mlp(&format!("mlp.experts.{i}"), one));
                std::iter::once(("mlp.gate".to_owned(), &layer.router)).chain(experts).collect()
            }
        }
    }

    /// The same with each of [`Ffn::linears`] passed through `f`.
    pub fn map_linears<E>(
        self,
        f: &mut impl FnMut(&str, Linear<B>) -> Result<Linear<B>, E>,
    ) -> Result<Ffn<B>, E> {
        let mlp = |at: &str, layer: Mlp<B>, f: &mut dyn FnMut(&str, Linear<B>) -> _| {
            let Mlp { gate, up, down } = layer;
            Ok(Mlp {
                gate: f(&format!("{at}.gate_proj"), gate)?,
                up: f(&format!("{at}.up_proj"), up)?,
                down: f(&format!("{at}.down_proj"), down)?,
            })
        };
        Ok(match self {
            Ffn::Dense(layer) => Ffn::Dense(mlp("mlp", layer, f)?),
            Ffn::Experts(mut layer) => {
                layer.router = f("mlp.gate", layer.router)?;
                let experts = std::mem::take(&mut layer.experts).into_iter().enumerate();
                let experts = experts.map(|(i, one)| mlp(&format!("mlp.experts.{i}"), one, f));
                layer.experts = experts.collect::<Result<_, E>>()?;
                Ffn::Experts(layer)
            }
        })
    }
}
