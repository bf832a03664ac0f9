//! A PEFT adapter added into the weights of its model, as they are read.
//!
//! LoRA (`W + s B A`), rsLoRA, and DoRA (Liu et al. 2024, arXiv 2402.09353, eq. 5: the rows of that
//! sum at the norms that were learned). Nothing here trains; matrices lie as HF and PEFT store them,
//! `[out, in]`, A `[r, in]`, B `[out, r]`.

use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;

use super::weights::{Folder, Source, Tensors};
use crate::{Result, StageError};

/// A source of weights with the adapter of its folder, if there is one, added in.
pub struct Merged<S> {
    base: S,
    adapter: Option<Adapter>,
}

struct Adapter {
    tensors: Tensors,
    settings: Settings,
}

/// What of `adapter_config.json` decides the weights, by PEFT's names.
#[derive(Deserialize)]
pub(crate) struct Settings {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    pub use_dora: bool,
    #[serde(default)]
    alpha_pattern: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    modules_to_save: Option<serde_json::Value>,
}

impl Settings {
    /// Reads it, and refuses what is not known here.
    pub fn read(path: &Path) -> Result<Settings> {
        let settings: Settings = serde_json::from_str(&fs_err::read_to_string(path)?)
            .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))?;
        match settings.unsupported() {
            Some(message) => {
                Err(StageError::bad(path, message).hint("merge the adapter where it was trained"))
            }
            None => Ok(settings),
        }
    }

    /// What `B A` of a rank is multiplied by.
    pub fn scale(&self, rank: usize) -> f64 {
        let r = rank as f64;
        self.lora_alpha / if self.use_rslora { r.sqrt() } else { r }
    }

    /// What of it would change the weights in a way that is not known here.
    fn unsupported(&self) -> Option<&'static str> {
        let bias = self.bias.as_deref().is_some_and(|bias| bias != "none");
        let saved = self.modules_to_save.as_ref().is_some_and(|saved| !saved.is_null());
        [
            (self.peft_type != "LORA", "`peft_type` is not LORA"),
            (self.r == 0, "`r` is 0"),
            (self.fan_in_fan_out, "`fan_in_fan_out` is not supported"),
            (bias, "trained biases are not supported"),
            (saved, "`modules_to_save` is not supported"),
            (!self.alpha_pattern.is_empty(), "`alpha_pattern` is not supported"),
            (!self.lora_alpha.is_finite(), "`lora_alpha` is not a number"),
        ]
        .into_iter()
        .find_map(|(wrong, message)| wrong.then_some(message))
    }
}

impl<S: Source> Merged<S> {
    /// `base` with the adapter that lies in `folder`. `layers` are the weights that the model has.
    pub fn open(base: S, folder: &Folder, layers: &[String]) -> Result<Merged<S>> {
        let Some(path) = folder.get("adapter_config.json") else {
            return Ok(Merged { base, adapter: None });
        };
        let settings = Settings::read(path)?;
        let weights = folder.need("adapter_model.safetensors")?;
        let tensors = Tensors::open(weights)?;
        let parts = if settings.use_dora { 3 } else { 2 };
        let adapted = layers.iter().filter(|name| tensors.shape(&key(name, A)).is_some()).count();
        if adapted * parts != tensors.names().len() || adapted == 0 {
            return Err(StageError::bad(weights, "it adapts layers that this model does not have")
                .hint("an adapter belongs to the model that it was trained on"));
        }
        Ok(Merged { base, adapter: Some(Adapter { tensors, settings }) })
    }
}

const A: &str = "lora_A.weight";

/// PEFT's key of a part of the adapter of `model.layers.0.self_attn.q_proj.weight`.
fn key(weight: &str, part: &str) -> String {
    let layer = weight.strip_suffix(".weight").unwrap_or(weight);
    format!("base_model.model.{layer}.{part}")
}

impl<S: Source> Source for Merged<S> {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = self.base.read(name, shape)?;
        if let (Some(adapter), &[rows, columns]) = (&mut self.adapter, shape) {
            adapter.add(name, &mut values, rows, columns)?;
        }
        Ok(values)
    }
}

impl Adapter {
    fn add(&mut self, name: &str, w: &mut [f32], rows: usize, columns: usize) -> Result<()> {
        let Some(&[rank, _]) = self.tensors.shape(&key(name, A)) else { return Ok(()) };
        let a = self.tensors.read(&key(name, A), &[rank, columns])?;
        let b = self.tensors.read(&key(name, "lora_B.weight"), &[rows, rank])?;
        let scale = self.settings.scale(rank);
        w.par_chunks_mut(columns).zip(b.par_chunks(rank.max(1))).for_each(|(row, b)| {
            for (a, &b) in a.chunks_exact(columns).zip(b) {
                let weight = (f64::from(b) * scale) as f32;
                row.iter_mut().zip(a).for_each(|(w, a)| *w += weight * a);
            }
        });
        if self.settings.use_dora {
            let norms = self.tensors.read(&key(name, "lora_magnitude_vector"), &[rows])?;
            w.par_chunks_mut(columns).zip(&norms).for_each(|(row, &norm)| {
                let own = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
                let by = (f64::from(norm) / own.max(f64::MIN_POSITIVE)) as f32;
                row.iter_mut().for_each(|w| *w *= by);
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, layout};

    /// The weights as PEFT merged them itself.
    #[test]
    fn merged_weights_are_those_of_peft() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2");
        let config = Config::read(&data.join("base/config.json")).unwrap();
        let tensors = layout::tensors(&config);
        let names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
        let base = Tensors::open(&data.join("base/model.safetensors")).unwrap();
        let folder = Folder::of_dir(&data.join("lora")).unwrap();
        let mut ours = Merged::open(base, &folder, &names).unwrap();
        let mut theirs = Tensors::open(&data.join("merged/model.safetensors")).unwrap();
        let mut moved = 0.0f32;
        let mut base = Tensors::open(&data.join("base/model.safetensors")).unwrap();
        for (name, shape) in &tensors {
            let (a, b) = (ours.read(name, shape).unwrap(), theirs.read(name, shape).unwrap());
            let before = base.read(name, shape).unwrap();
            for ((a, b), before) in a.iter().zip(&b).zip(before) {
                assert!((a - b).abs() <= 1e-6, "{name}: {a} for {b}");
                moved = moved.max((a - before).abs());
            }
        }
        assert!(moved > 0.01, "the adapter does something: {moved}");
    }

    #[test]
    fn an_adapter_of_another_model_is_refused() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen2");
        let base = Tensors::open(&data.join("base/model.safetensors")).unwrap();
        let folder = Folder::of_dir(&data.join("lora")).unwrap();
        let error = Merged::open(base, &folder, &["model.norm.weight".into()]).err().unwrap();
        assert!(error.to_string().contains("does not have"), "{error}");
    }
}
