//! A stack of LSTM layers, each above the first added to the one below, and the hybrid's heads on the sum.

use burn::prelude::*;

use super::build::{Build, Matrix, Start, Vector, row};
use super::kernels::{self, Drop, Fused, Norm, Residual};
use super::loss::HEADS;
use super::settings;
use crate::Result;

/// An LSTM.
#[derive(Module, Debug)]
pub struct Lstm<B: Backend> {
    layers: Vec<Layer<B>>,
    /// `[h]`.
    norm: Vector<B>,
    /// `[h, 5 horizons]`.
    heads: Matrix<B>,
    /// `[5 horizons]`.
    bias: Vector<B>,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    /// `[inputs, 4 h]`.
    input: Matrix<B>,
    /// `[h, 4 h]`.
    recurrent: Matrix<B>,
    /// `[4 h]`.
    bias: Vector<B>,
}

impl<B: Backend> Lstm<B> {
    /// A net of `inputs` columns and `horizons` horizons.
    pub fn build(
        net: &settings::Lstm,
        inputs: usize,
        horizons: usize,
        build: &mut Build<'_, B>,
    ) -> Result<Lstm<B>> {
        let h = net.hidden;
        let mut layers = Vec::new();
        for i in 0..net.layers {
            let name = |part: &str| format!("layers.{i}.{part}");
            let from = if i == 0 { inputs } else { h };
            // Forget gates begin open (Jozefowicz et al. 2015).
            let bias = (0..4 * h).map(|j| if j / h == 1 { 1.0 } else { 0.0 }).collect();
            layers.push(Layer {
                input: build.matrix(&name("input"), [from, 4 * h], Start::Normal(1.0))?,
                recurrent: build.matrix(&name("recurrent"), [h, 4 * h], Start::Normal(0.6))?,
                bias: build.vector(&name("bias"), 4 * h, Start::Values(bias))?,
            });
        }
        Ok(Lstm {
            layers,
            norm: build.vector("norm", h, Start::All(1.0))?,
            heads: build.matrix("heads", [h, HEADS * horizons], Start::Normal(0.3))?,
            bias: build.vector("bias", HEADS * horizons, Start::All(0.0))?,
        })
    }
}

impl<B: Fused> Lstm<B> {
    /// Raw heads: `x` `[n, inputs]`, of windows of `len` rows, to `[n, 5 horizons]`.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        len: usize,
        drop: &mut dyn FnMut() -> Drop,
    ) -> Tensor<B, 2> {
        let mut out = x;
        for (i, layer) in self.layers.iter().enumerate() {
            let hidden = layer.recurrent.dims()[0];
            let gates = out.clone().matmul(layer.input.val()) + row(&layer.bias);
            let h = B::apply(kernels::Lstm { len, hidden }, [gates, layer.recurrent.val()]);
            // Layers above the first add to the one below.
            out = match i {
                0 => h,
                _ => B::apply(Residual { drop: drop(), width: hidden }, [out, h]),
            };
        }
        B::apply(Norm, [out, row(&self.norm)]).matmul(self.heads.val()) + row(&self.bias)
    }
}
