//! The hybrid of a Transformer and a state-space model, causal and coupled layer by layer.
//!
//! ```text
//! m = W_e x ;  in each layer n = RMSNorm(m), and
//! memory -> state:  s = Scan(W_c n, W_u u): rates and gates from n; u is m in the first layer and
//!                   the state of the layer below in the others
//! state -> memory:  q, k, v = W_a n ;  k, v += U_a s ;  o = W_o Attention(q, k, v)
//!                   g = sigmoid(W_g n + U_g s) ;  m += g o + (1 - g) U_c s
//!                   m += W_down SwiGLU(W_up ((1 + gamma(s)) RMSNorm(m) + beta(s)))
//! heads:            W_h RMSNorm([m; s]) + b, five numbers a horizon ([`super::loss`])
//! ```
//! The state-space layer is that of [`super::kernels::Scan`]; with `kalman` the log of its variance is
//! added to the heads' scale. Without its state it is a Transformer, and serves as one: pre-norm,
//! ALiBi, SwiGLU.

use burn::prelude::*;

use super::build::{Build, Matrix, Start, Vector, row};
use super::kernels::{Attention, Drop, Film, Fused, Mix, Norm, Residual, Scan, SwiGlu};
use super::loss::HEADS;
use super::settings::{self, Ablation};
use crate::Result;

/// A hybrid.
#[derive(Module, Debug)]
pub struct Hybrid<B: Backend> {
    /// `[inputs, m]`.
    embed: Matrix<B>,
    layers: Vec<Layer<B>>,
    /// `[m + s]`.
    norm: Vector<B>,
    /// `[m + s, 5 horizons]`.
    heads: Matrix<B>,
    /// `[5 horizons]`.
    bias: Vector<B>,
    /// `[s, horizons]`: what the log of the state's variance adds to the scale.
    spread: Option<Matrix<B>>,
    #[module(skip)]
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    state: usize,
    memory: usize,
    heads: usize,
    kalman: bool,
    horizons: usize,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    /// `[m]`, or `[s]` where there is no memory and this is not the first.
    norm: Vector<B>,
    state: Option<State<B>>,
    memory: Option<Memory<B>>,
}

/// The state-space layer.
#[derive(Module, Debug)]
struct State<B: Backend> {
    /// `[m, 2 s]`: rates and gates.
    control: Option<Matrix<B>>,
    /// `[m, s]`, or `[s, s]` above the first.
    input: Matrix<B>,
    /// `[2 s]`: of rates and gates.
    bias: Vector<B>,
    /// `[s]`: A.
    decay: Vector<B>,
}

/// Attention and the feed-forward layer.
#[derive(Module, Debug)]
struct Memory<B: Backend> {
    /// `[m, 3 m]`.
    attend: Matrix<B>,
    /// `[m, m]`.
    output: Matrix<B>,
    /// `[m]`.
    norm: Vector<B>,
    /// `[m, 4 m]`: the gate and what it lets through, `2 m` wide.
    up: Matrix<B>,
    /// `[2 m, m]`.
    down: Matrix<B>,
    coupling: Option<Coupling<B>>,
}

/// What the state adds to the memory.
#[derive(Module, Debug)]
struct Coupling<B: Backend> {
    /// `[s, 2 m]`: to keys and values.
    attend: Matrix<B>,
    /// `[m, m]`: the gate, of the memory.
    gate: Matrix<B>,
    /// `[s, 2 m]`: the gate, of the state, and what it lets through.
    mix: Matrix<B>,
    /// `[s, 2 m]`: gamma and beta.
    film: Matrix<B>,
}

impl<B: Backend> Hybrid<B> {
    /// A net of `inputs` columns and `horizons` horizons.
    pub fn build(
        net: &settings::Hybrid,
        inputs: usize,
        horizons: usize,
        build: &mut Build<'_, B>,
    ) -> Result<Hybrid<B>> {
        let (m, s) = (net.memory, net.state);
        let (with_state, with_memory) =
            (net.ablation != Ablation::MemoryOnly, net.ablation != Ablation::StateOnly);
        let embed = build.matrix("embed", [inputs, m], Start::Normal(1.0))?;
        let mut layers = Vec::new();
        for i in 0..net.layers {
            let width = if with_memory || i == 0 { m } else { s };
            let norm = build.vector(&format!("layers.{i}.norm"), width, Start::All(1.0))?;
            let from = [width, if i == 0 { m } else { s }];
            let state = match with_state {
                true => Some(State::build(net, i, from, build)?),
                false => None,
            };
            let memory = match with_memory {
                true => Some(Memory::build(net, i, build)?),
                false => None,
            };
            layers.push(Layer { norm, state, memory });
        }
        let width = if with_memory { m } else { 0 } + if with_state { s } else { 0 };
        let spread = match net.kalman && with_state {
            true => Some(build.matrix("spread", [s, horizons], Start::All(0.0))?),
            false => None,
        };
        Ok(Hybrid {
            embed,
            layers,
            norm: build.vector("norm", width, Start::All(1.0))?,
            heads: build.matrix("heads", [width, HEADS * horizons], Start::Normal(0.3))?,
            bias: build.vector("bias", HEADS * horizons, Start::All(0.0))?,
            spread,
            shape: Shape { state: s, memory: m, heads: net.heads, kalman: net.kalman, horizons },
        })
    }
}

impl<B: Backend> State<B> {
    fn build(
        net: &settings::Hybrid,
        layer: usize,
        [control, input]: [usize; 2],
        build: &mut Build<'_, B>,
    ) -> Result<State<B>> {
        let s = net.state;
        let name = |part: &str| format!("layers.{layer}.state.{part}");
        // A rate of 1 before A scales it: softplus(0.5413) = 1. Time constants from a row to a window.
        let bias = (0..2 * s).map(|i| if i < s { 0.541_324_85 } else { 0.0 }).collect();
        let span = (net.training.window as f32).ln();
        let decay = (0..s).map(|i| -span * i as f32 / (s.max(2) - 1) as f32).collect();
        Ok(State {
            control: match net.ablation {
                Ablation::NoMemoryToState => None,
                _ => Some(build.matrix(&name("control"), [control, 2 * s], Start::Normal(1.0))?),
            },
            input: build.matrix(&name("input"), [input, s], Start::Normal(1.0))?,
            bias: build.vector(&name("bias"), 2 * s, Start::Values(bias))?,
            decay: build.vector(&name("decay"), s, Start::Values(decay))?,
        })
    }
}

impl<B: Backend> Memory<B> {
    fn build(net: &settings::Hybrid, layer: usize, build: &mut Build<'_, B>) -> Result<Memory<B>> {
        let (m, s) = (net.memory, net.state);
        let name = |part: &str| format!("layers.{layer}.memory.{part}");
        // So that the stream keeps its variance whatever the number of layers (GPT-2).
        let last = 1.0 / (2.0 * net.layers as f32).sqrt();
        let coupled = !matches!(net.ablation, Ablation::NoStateToMemory | Ablation::MemoryOnly);
        let coupling = match coupled {
            true => Some(Coupling {
                attend: build.matrix(&name("coupling.attend"), [s, 2 * m], Start::Normal(1.0))?,
                gate: build.matrix(&name("coupling.gate"), [m, m], Start::Normal(1.0))?,
                mix: build.matrix(&name("coupling.mix"), [s, 2 * m], Start::Normal(last))?,
                film: build.matrix(&name("coupling.film"), [s, 2 * m], Start::Normal(0.1))?,
            }),
            false => None,
        };
        Ok(Memory {
            attend: build.matrix(&name("attend"), [m, 3 * m], Start::Normal(1.0))?,
            output: build.matrix(&name("output"), [m, m], Start::Normal(last))?,
            norm: build.vector(&name("norm"), m, Start::All(1.0))?,
            up: build.matrix(&name("up"), [m, 4 * m], Start::Normal(1.0))?,
            down: build.matrix(&name("down"), [2 * m, m], Start::Normal(last))?,
            coupling,
        })
    }
}

impl<B: Fused> Hybrid<B> {
    /// Raw heads: `x` `[n, inputs]` and `dt` `[n, 1]`, of windows of `len` rows, to `[n, 5 horizons]`.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        dt: Tensor<B, 2>,
        len: usize,
        drop: &mut dyn FnMut() -> Drop,
    ) -> Tensor<B, 2> {
        let mut memory = x.matmul(self.embed.val());
        let mut state: Option<Tensor<B, 2>> = None;
        let mut spread = None;
        for layer in &self.layers {
            // Without a memory the state is the stream.
            let stream = match (&layer.memory, &state) {
                (None, Some(state)) => state.clone(),
                _ => memory.clone(),
            };
            let n = B::apply(Norm, [stream, row(&layer.norm)]);
            if let Some(layer) = &layer.state {
                let below = state.take().unwrap_or_else(|| memory.clone());
                let (s, p) = layer.forward(&self.shape, n.clone(), below, dt.clone(), len);
                (state, spread) = (Some(s), p);
            }
            if let Some(layer) = &layer.memory {
                memory = layer.forward(&self.shape, memory, n, state.as_ref(), len, drop);
            }
        }
        let last = match (self.layers.last().is_some_and(|l| l.memory.is_some()), state) {
            (true, Some(state)) => Tensor::cat(vec![memory, state], 1),
            (false, Some(state)) => state,
            (_, None) => memory,
        };
        let heads = B::apply(Norm, [last, row(&self.norm)]).matmul(self.heads.val());
        let heads = heads + row(&self.bias);
        let (Some(weight), Some(spread)) = (&self.spread, spread) else { return heads };
        let scale = 4 * self.shape.horizons;
        let added =
            heads.clone().narrow(1, scale, self.shape.horizons) + spread.log().matmul(weight.val());
        Tensor::cat(vec![heads.narrow(1, 0, scale), added], 1)
    }
}

impl<B: Fused> State<B> {
    /// The state, and its variance where it is filtered.
    fn forward(
        &self,
        shape: &Shape,
        n: Tensor<B, 2>,
        below: Tensor<B, 2>,
        dt: Tensor<B, 2>,
        len: usize,
    ) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
        let Shape { state, kalman, .. } = *shape;
        let control = match &self.control {
            Some(weight) => n.matmul(weight.val()),
            None => Tensor::zeros([n.dims()[0], 2 * state], &n.device()),
        };
        let input = below.matmul(self.input.val());
        let scan = Scan { len, state, kalman };
        let out = B::apply(scan, [control, input, row(&self.bias), row(&self.decay), dt]);
        match kalman {
            true => {
                let spread = out.clone().narrow(1, state, state);
                (out.narrow(1, 0, state), Some(spread))
            }
            false => (out, None),
        }
    }
}

impl<B: Fused> Memory<B> {
    fn forward(
        &self,
        shape: &Shape,
        m: Tensor<B, 2>,
        n: Tensor<B, 2>,
        state: Option<&Tensor<B, 2>>,
        len: usize,
        drop: &mut dyn FnMut() -> Drop,
    ) -> Tensor<B, 2> {
        let width = shape.memory;
        let attention = Attention { len, heads: shape.heads, width };
        let qkv = n.clone().matmul(self.attend.val());
        let (m, y) = match (&self.coupling, state) {
            (Some(coupling), Some(s)) => {
                let of_state = |weight: &Matrix<B>| s.clone().matmul(weight.val());
                let o = B::apply(attention, [qkv, of_state(&coupling.attend)]);
                let o = o.matmul(self.output.val());
                let gate = n.matmul(coupling.gate.val());
                let mix = Mix { drop: drop(), width };
                let m = B::apply(mix, [m, o, gate, of_state(&coupling.mix)]);
                let film = [m.clone(), row(&self.norm), of_state(&coupling.film)];
                (m, B::apply(Film, film))
            }
            _ => {
                let o = B::apply(attention, [qkv]).matmul(self.output.val());
                let m = B::apply(Residual { drop: drop(), width }, [m, o]);
                (m.clone(), B::apply(Norm, [m, row(&self.norm)]))
            }
        };
        let y = B::apply(SwiGlu { width: 2 * width }, [y.matmul(self.up.val())]);
        B::apply(Residual { drop: drop(), width }, [m, y.matmul(self.down.val())])
    }
}
