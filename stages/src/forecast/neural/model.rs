//! Any of the nets as one module.

use burn::prelude::*;

use super::build::Build;
use super::fitted::Config;
use super::hybrid::Hybrid;
use super::kernels::{Drop, Fused};
use super::lstm::Lstm;
use super::settings::{self, Ablation, Net};
use super::windows::MORE;
use crate::Result;

/// A net of tensors.
// There is one of it, and Burn's derive knows no box.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Model<B: Backend> {
    /// The hybrid, and the Transformer that it is without its state.
    Hybrid(Hybrid<B>),
    /// The LSTM.
    Lstm(Lstm<B>),
}

impl<B: Backend> Model<B> {
    /// A net with the parameters that `build` gives.
    pub fn build(config: &Config, build: &mut Build<'_, B>) -> Result<Model<B>> {
        let (inputs, horizons) = (config.features + MORE, config.horizons);
        Ok(match &config.net {
            Net::Hybrid(net) => Model::Hybrid(Hybrid::build(net, inputs, horizons, build)?),
            Net::Lstm(net) => Model::Lstm(Lstm::build(net, inputs, horizons, build)?),
            Net::Transformer(net) => {
                let net = settings::Hybrid {
                    layers: net.layers,
                    memory: net.hidden,
                    heads: net.heads,
                    ablation: Ablation::MemoryOnly,
                    training: net.training.clone(),
                    ..settings::Hybrid::default()
                };
                Model::Hybrid(Hybrid::build(&net, inputs, horizons, build)?)
            }
        })
    }
}

impl<B: Fused> Model<B> {
    /// Raw heads `[n, 5 horizons]` of windows of `len` rows.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        dt: Tensor<B, 2>,
        len: usize,
        drop: &mut dyn FnMut() -> Drop,
    ) -> Tensor<B, 2> {
        match self {
            Model::Hybrid(net) => net.forward(x, dt, len, drop),
            Model::Lstm(net) => net.forward(x, len, drop),
        }
    }
}
