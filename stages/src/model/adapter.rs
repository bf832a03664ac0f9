//! A PEFT adapter: its settings, its matrices, and the weights of its model with it added in.
//!
//! LoRA (`W + s B A`), rsLoRA, and DoRA (Liu et al. 2024, arXiv 2402.09353, eq. 5: the rows of that
//! sum at the norms that were learned). Nothing here trains; matrices lie as HF and PEFT store them,
//! `[out, in]`, A `[r, in]`, B `[out, r]`. What a file asks for and is not implemented is an error: to
//! leave it out would be another model.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::weights::{Folder, Source, Tensors};
use crate::{Result, StageError};

/// What `adapter_config.json` says, by PEFT's names and in the order in which it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub peft_type: String,
    #[serde(default)]
    pub task_type: Option<String>,
    pub r: usize,
    pub lora_alpha: f64,
    #[serde(default)]
    pub lora_dropout: f64,
    #[serde(default)]
    pub target_modules: serde_json::Value,
    #[serde(default)]
    pub bias: Option<String>,
    #[serde(default)]
    pub fan_in_fan_out: bool,
    #[serde(default)]
    pub use_rslora: bool,
    #[serde(default)]
    pub use_dora: bool,
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    #[serde(default)]
    pub alpha_pattern: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub modules_to_save: Option<serde_json::Value>,
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
        scale(self.lora_alpha, rank, self.use_rslora)
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

/// `alpha / r`, or `alpha / sqrt r` of rsLoRA.
pub(crate) fn scale(alpha: f64, rank: usize, rslora: bool) -> f64 {
    let r = rank as f64;
    alpha / if rslora { r.sqrt() } else { r }
}

/// PEFT's key of a part (`lora_A.weight`, `lora_B.weight`, `lora_magnitude_vector`) of the adapter of
/// a layer, such as `model.layers.0.self_attn.q_proj`.
pub(crate) fn key(layer: &str, part: &str) -> String {
    format!("base_model.model.{layer}.{part}")
}

/// The first matrix.
pub(crate) const LORA_A: &str = "lora_A.weight";
/// The second matrix.
pub(crate) const LORA_B: &str = "lora_B.weight";
/// The norms of DoRA.
pub(crate) const MAGNITUDE: &str = "lora_magnitude_vector";

/// The adapter of one layer.
pub(crate) struct Factors {
    /// In 1..=4096.
    pub rank: usize,
    /// `[rank, in]`
    pub a: Vec<f32>,
    /// `[out, rank]`
    pub b: Vec<f32>,
    /// `[out]`, of DoRA.
    pub magnitude: Option<Vec<f32>>,
}

/// The files of an adapter.
pub(crate) struct Peft {
    pub settings: Settings,
    path: PathBuf,
    tensors: Tensors,
}

impl Peft {
    /// That of a folder, if it has one.
    pub fn open(folder: &Folder) -> Result<Option<Peft>> {
        let Some(path) = folder.get("adapter_config.json") else { return Ok(None) };
        let settings = Settings::read(path)?;
        let path = folder.need("adapter_model.safetensors")?.to_owned();
        let tensors = Tensors::open(&path)?;
        Ok(Some(Peft { settings, path, tensors }))
    }

    /// What it has for a layer of so many inputs and outputs; none where it leaves it alone.
    pub fn factors(&mut self, layer: &str, from: usize, to: usize) -> Result<Option<Factors>> {
        let rank = match self.tensors.shape(&key(layer, LORA_A)) {
            None => return Ok(None),
            Some(&[rank, _]) if (1..=4096).contains(&rank) => rank,
            Some(shape) => {
                let message = format!("a matrix A of shape {shape:?} for `{layer}`");
                return Err(StageError::bad(&self.path, message)
                    .hint("it is [rank, inputs], of a rank in 1..=4096"));
            }
        };
        let mut read = |part: &str, shape: &[usize]| self.tensors.read(&key(layer, part), shape);
        let (a, b) = (read(LORA_A, &[rank, from])?, read(LORA_B, &[to, rank])?);
        let magnitude = match self.settings.use_dora {
            true => Some(read(MAGNITUDE, &[to])?),
            false => None,
        };
        Ok(Some(Factors { rank, a, b, magnitude }))
    }

    /// An error unless every tensor belongs to one of these layers.
    pub fn covers<'a>(&self, layers: impl Iterator<Item = &'a str>) -> Result<()> {
        let parts = if self.settings.use_dora { 3 } else { 2 };
        let adapted =
            layers.filter(|layer| self.tensors.shape(&key(layer, LORA_A)).is_some()).count();
        if adapted == 0 || adapted * parts != self.tensors.names().len() {
            return Err(StageError::bad(
                &self.path,
                "it adapts layers that this model does not have",
            )
            .hint("an adapter belongs to the model that it was trained on"));
        }
        Ok(())
    }
}

/// A source of weights with the adapter of its folder, if there is one, added in.
pub struct Merged<S> {
    base: S,
    adapter: Option<Peft>,
}

impl<S: Source> Merged<S> {
    /// `base` with the adapter that lies in `folder`. `weights` are the names of those of the model.
    pub fn open(base: S, folder: &Folder, weights: &[String]) -> Result<Merged<S>> {
        let adapter = Peft::open(folder)?;
        if let Some(adapter) = &adapter {
            adapter.covers(weights.iter().filter_map(|name| name.strip_suffix(".weight")))?;
        }
        Ok(Merged { base, adapter })
    }
}

impl<S: Source> Source for Merged<S> {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = self.base.read(name, shape)?;
        if let (Some(adapter), &[rows, columns]) = (&mut self.adapter, shape)
            && let Some(layer) = name.strip_suffix(".weight")
            && let Some(factors) = adapter.factors(layer, columns, rows)?
        {
            let scale = adapter.settings.scale(factors.rank);
            add(&mut values, columns, &factors, scale);
        }
        Ok(values)
    }
}

/// Adds an adapter to rows of that many columns.
fn add(w: &mut [f32], columns: usize, factors: &Factors, scale: f64) {
    w.par_chunks_mut(columns).zip(factors.b.par_chunks(factors.rank)).for_each(|(row, b)| {
        for (a, &b) in factors.a.chunks_exact(columns).zip(b) {
            let weight = (f64::from(b) * scale) as f32;
            row.iter_mut().zip(a).for_each(|(w, a)| *w += weight * a);
        }
    });
    let Some(norms) = &factors.magnitude else { return };
    w.par_chunks_mut(columns).zip(norms).for_each(|(row, &norm)| {
        let own = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
        let by = (f64::from(norm) / own.max(f64::MIN_POSITIVE)) as f32;
        row.iter_mut().for_each(|w| *w *= by);
    });
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
