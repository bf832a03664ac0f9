//! The scaling of rotary angles: GGUF holds what each pair's angle is divided by, HF's `config.json`
//! the parameters that these numbers come from (Llama 3.1, section 3.1).
//!
//! The engine divides by the numbers, whatever they are. Who makes a model anew from the file (to train
//! it, to pack it otherwise) needs the parameters, for they go into the new one's `config.json`; they
//! are found again where they are Llama 3's, and nothing is guessed where they are not.

use super::Gguf;
use crate::model::config::{Config, Scaling};
use crate::{Result, StageError};

/// Numbers that differ by less are the same: they went through f32.
const NEAR: f32 = 1e-4;

impl Gguf {
    /// What the angles of each pair of a head are divided by, where the file says so. An error where
    /// they are not numbers above 0, one a pair.
    pub fn rope_factors(&self, config: &Config) -> Result<Option<Vec<f32>>> {
        let Some(raw) = self.tensor("rope_freqs.weight") else { return Ok(None) };
        let factors = match raw.shape == [config.head_size() / 2] {
            true => raw.packing.unpack(&raw.bytes),
            false => vec![],
        };
        if factors.is_empty() || factors.iter().any(|f| !(f.is_finite() && *f > 0.0)) {
            let message = "`rope_freqs.weight` is not usable";
            return Err(StageError::bad(&self.path, message)
                .hint("it holds what the rotary angles are divided by, one number a pair"));
        }
        Ok(Some(factors))
    }

    /// An error unless `config` gives the angles that the file has.
    pub fn check_angles(&self, config: &Config) -> Result<()> {
        match self.rope_factors(config)? {
            Some(factors) if !same(&factors, &config.rope_factors()) => {
                let message =
                    "its rotary angles are scaled, and not as the shape of the model says";
                Err(StageError::bad(&self.path, message)
                    .hint("put the model's config.json, with its `rope_scaling`, beside it"))
            }
            _ => Ok(()),
        }
    }

    /// Llama 3's scaling, where it gives the angles that the file has.
    pub(super) fn scaling(&self, config: &Config) -> Result<Option<Scaling>> {
        let Some(factors) = self.rope_factors(config)? else { return Ok(None) };
        // The slowest angles are slowed by the whole factor; the rest is the same in all of Llama 3.
        let factor = factors.iter().copied().fold(0.0, f32::max);
        let scaling = Scaling {
            rope_type: "llama3".into(),
            factor: f64::from(factor),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let scaled = Config { rope_scaling: Some(scaling.clone()), ..config.clone() };
        Ok((factor > 1.0 && same(&factors, &scaled.rope_factors())).then_some(scaling))
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= NEAR * b)
}
