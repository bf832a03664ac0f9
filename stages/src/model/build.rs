//! Modules from the tensors of a file, and the tables of rotary angles.
//!
//! Which tensors there are says [`super::layout`]; where they lie, [`super::weights`].

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::{DType, TensorData};

use super::config::Config;
use super::ffn::{Experts, Ffn, Mlp};
use super::lora::{Linear, Nf4};
use super::weights::Source;
use crate::Result;

/// Cosines and sines of the rotary angles, `[positions, size / 2]` each.
pub(super) fn angles<B: Backend>(
    config: &Config,
    device: &B::Device,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let (len, half) = (config.context(), config.head_size() / 2);
    let factors = config.rope_factors();
    let angle = |i: usize| {
        let (position, j) = (i / half, i % half);
        // HF computes the frequencies and the products in f32.
        let frequency = (1.0 / config.rope_theta.powf(j as f64 / half as f64)) as f32;
        f64::from(position as f32 * (frequency / factors[j]))
    };
    let table = |f: fn(f64) -> f64| {
        let values: Vec<f32> = (0..len * half).map(|i| f(angle(i)) as f32).collect();
        Tensor::from_data(TensorData::new(values, [len, half]), device)
    };
    (table(f64::cos), table(f64::sin))
}

pub(super) type Vector<B> = Param<Tensor<B, 1>>;

/// How weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Those of the blocks' linear layers in 4 bits.
    pub packed: bool,
    /// Other matrices in bf16, which the model then computes in.
    pub half: bool,
}

/// Makes modules of the tensors of a source.
pub(super) struct Build<'a, B: Backend> {
    pub source: &'a mut dyn Source,
    pub device: &'a B::Device,
    pub held: Held,
}

impl<B: Backend> Build<'_, B> {
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vector<B>> {
        let values = self.source.read(name, &[len])?;
        Ok(Param::from_data(TensorData::new(values, [len]), self.device))
    }
    pub fn maybe(&mut self, wanted: bool, name: &str, len: usize) -> Result<Option<Vector<B>>> {
        if wanted { self.vector(name, len).map(Some) } else { Ok(None) }
    }
    pub fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Param<Tensor<B, 2>>> {
        let values = self.source.read(name, &shape)?;
        Ok(self.held(TensorData::new(values, shape)))
    }
    fn held(&self, values: TensorData) -> Param<Tensor<B, 2>> {
        match self.held.half {
            true => {
                let values = values.convert_dtype(DType::BF16);
                Param::from_tensor(Tensor::from_data(values, (self.device, DType::BF16)))
            }
            false => Param::from_data(values, self.device),
        }
    }
    pub fn linear(&mut self, name: &str, from: usize, to: usize, bias: bool) -> Result<Linear<B>> {
        let values = self.source.read(&format!("{name}.weight"), &[to, from])?;
        let packed = if self.held.packed { Nf4::of(&values, [to, from]) } else { None };
        if let Some(packed) = packed {
            let bias = if bias { Some(self.vector(&format!("{name}.bias"), to)?) } else { None };
            let zero = Param::from_data([[0.0f32]], self.device).no_grad();
            return Ok(Linear { weight: zero, bias, adapter: None, packed: Some(packed) });
        }
        let values = TensorData::new(super::weights::transpose(&values, to, from), [from, to]);
        let bias = match bias {
            true => Some(self.vector(&format!("{name}.bias"), to)?),
            false => None,
        };
        let weight = self.held(values);
        Ok(Linear { weight, bias, adapter: None, packed: None })
    }

    /// The feed-forward layer at `name`.
    pub fn ffn(&mut self, name: &str, config: &Config) -> Result<Ffn<B>> {
        let (d, bias) = (config.hidden_size, config.mlp_bias);
        let Some((count, width)) = config.num_experts.zip(config.moe_intermediate_size) else {
            return Ok(Ffn::Dense(self.mlp(name, d, config.intermediate_size, bias)?));
        };
        // In full: it is small, and a token that goes elsewhere is another model.
        let packed = std::mem::take(&mut self.held.packed);
        let router = self.linear(&format!("{name}.gate"), d, count, false)?;
        self.held.packed = packed;
        let mut experts = Vec::new();
        for i in 0..count {
            experts.push(self.mlp(&format!("{name}.experts.{i}"), d, width, bias)?);
        }
        let used = config.num_experts_per_tok.unwrap_or(count);
        Ok(Ffn::Experts(Experts { router, experts, used, normed: config.norm_topk_prob }))
    }
    fn mlp(&mut self, name: &str, d: usize, width: usize, bias: bool) -> Result<Mlp<B>> {
        Ok(Mlp {
            gate: self.linear(&format!("{name}.gate_proj"), d, width, bias)?,
            up: self.linear(&format!("{name}.up_proj"), d, width, bias)?,
            down: self.linear(&format!("{name}.down_proj"), width, d, bias)?,
        })
    }
}
