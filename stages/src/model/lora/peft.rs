//! Adapters from and to files, in PEFT's layout: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! What a file asks for and is not implemented is an error: to leave it out would be another model.

use std::path::Path;

use burn::prelude::*;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

use super::{Adapter, Spec, targets};
use crate::model::llama::Llama;
use crate::model::weights::{self, Folder, Named, Source, Tensors, transpose};
use crate::{Result, StageError};

/// What `adapter_config.json` says, by PEFT's names.
#[derive(Debug, Serialize, Deserialize)]
struct Peft {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    target_modules: serde_json::Value,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(default)]
    alpha_pattern: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    modules_to_save: Option<serde_json::Value>,
}

impl Peft {
    fn unsupported(&self) -> Option<&'static str> {
        let bias = self.bias.as_deref().is_some_and(|bias| bias != "none");
        let saved = self.modules_to_save.as_ref().is_some_and(|saved| !saved.is_null());
        [
            (self.peft_type != "LORA", "`peft_type` is not LORA"),
            (self.fan_in_fan_out, "`fan_in_fan_out` is not supported"),
            (bias, "trained biases are not supported"),
            (saved, "`modules_to_save` is not supported"),
            (!self.alpha_pattern.is_empty(), "`alpha_pattern` is not supported"),
        ]
        .into_iter()
        .find_map(|(wrong, message)| wrong.then_some(message))
    }
}

fn key(layer: &str, part: &str) -> String {
    format!("base_model.model.{layer}.lora_{part}.weight")
}

fn magnitude_key(layer: &str) -> String {
    format!("base_model.model.{layer}.lora_magnitude_vector")
}

/// Puts the adapter of a PEFT folder on a model.
pub fn read<B: Backend>(model: Llama<B>, folder: &Folder) -> Result<Llama<B>> {
    let path = folder.need("adapter_config.json")?;
    let peft: Peft = serde_json::from_str(&fs_err::read_to_string(path)?)
        .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))?;
    if let Some(message) = peft.unsupported() {
        return Err(StageError::bad(path, message).hint("merge the adapter where it was trained"));
    }
    let weights = folder.need("adapter_model.safetensors")?;
    let mut tensors = Tensors::open(weights)?;
    let mut used = 0;
    let model = model.no_grad().map_linears(|name, mut layer| {
        let [from, to] = layer.dims();
        let rank = tensors.shape(&key(name, "A")).and_then(|shape| shape.first().copied());
        if let Some(r) = rank {
            let a = transpose(&tensors.read(&key(name, "A"), &[r, from])?, r, from);
            let b = transpose(&tensors.read(&key(name, "B"), &[to, r])?, to, r);
            let (a, b) = (TensorData::new(a, [from, r]), TensorData::new(b, [r, to]));
            let m = match peft.use_dora {
                true => Some(TensorData::new(tensors.read(&magnitude_key(name), &[to])?, [to])),
                false => None,
            };
            used += 2 + usize::from(m.is_some());
            let spec =
                Spec { r, alpha: peft.lora_alpha, rslora: peft.use_rslora, ..Spec::default() };
            layer.adapter = Some(Adapter::new(&layer.dense(), a, b, m, spec.scale()));
        }
        Ok::<_, StageError>(layer)
    })?;
    if used != tensors.names().len() {
        return Err(StageError::bad(weights, "it adapts layers that this model does not have")
            .hint("an adapter belongs to the model that it was trained on"));
    }
    Ok(model)
}

/// Writes the adapter of a model in PEFT's layout. An error where it has none.
pub fn write<B: Backend>(model: &Llama<B>, spec: &Spec, folder: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    let (mut names, mut covered) = (Vec::new(), Vec::new());
    for (name, layer) in model.linears() {
        if let Some(adapter) = &layer.adapter {
            for (part, matrix) in [("A", &adapter.a), ("B", &adapter.b)] {
                tensors.push(Named::of(key(&name, part), matrix.val().transpose())?);
            }
            if let Some(m) = &adapter.magnitude {
                tensors.push(Named::of(magnitude_key(&name), m.val())?);
            }
            covered.push(name.clone());
        }
        names.push(name);
    }
    if tensors.is_empty() {
        return Err(StageError::failed("the model has no adapter to write"));
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let [covered, names] = [&covered, &names].map(|n| n.iter().map(String::as_str).collect());
    let covered: Vec<&str> = covered;
    let peft = Peft {
        peft_type: "LORA".into(),
        task_type: Some("CAUSAL_LM".into()),
        r: spec.r,
        lora_alpha: spec.alpha,
        lora_dropout: spec.dropout,
        target_modules: targets::peft(&covered, &names).into(),
        bias: Some("none".into()),
        fan_in_fan_out: false,
        use_rslora: spec.rslora,
        use_dora: spec.dora,
        base_model_name_or_path: Some(String::new()),
        alpha_pattern: Default::default(),
        modules_to_save: None,
    };
    let mut text = serde_json::to_string_pretty(&peft)
        .map_err(|e| StageError::failed(format!("adapter_config.json: {e}")))?;
    text.push('\n');
    fs_err::write(folder.join("adapter_config.json"), text)?;
    weights::write(&folder.join("adapter_model.safetensors"), &tensors)
}
