//! Adapters from and to files, in PEFT's layout: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! [`crate::model::adapter`] says what is read; here it gets to tensors and back.

use std::path::Path;

use burn::prelude::*;
use burn::tensor::TensorData;

use super::{Adapter, Spec, targets};
use crate::model::adapter::{LORA_A, LORA_B, MAGNITUDE, Peft, Settings, key};
use crate::model::llama::Llama;
use crate::model::weights::{self, Folder, Named, transpose};
use crate::{Result, StageError};

/// Puts the adapter of a PEFT folder on a model.
pub fn read<B: Backend>(model: Llama<B>, folder: &Folder) -> Result<Llama<B>> {
    let Some(mut peft) = Peft::open(folder)? else {
        folder.need("adapter_config.json")?;
        return Ok(model);
    };
    let mut layers = Vec::new();
    let model = model.no_grad().map_linears(|name, mut layer| {
        let [from, to] = layer.dims();
        layers.push(name.to_owned());
        if let Some(factors) = peft.factors(name, from, to)? {
            let r = factors.rank;
            let (a, b) = (transpose(&factors.a, r, from), transpose(&factors.b, to, r));
            let (a, b) = (TensorData::new(a, [from, r]), TensorData::new(b, [r, to]));
            let m = factors.magnitude.map(|m| TensorData::new(m, [to]));
            let scale = peft.settings.scale(r);
            layer.adapter = Some(Adapter::new(&layer.dense(), a, b, m, scale));
        }
        Ok::<_, StageError>(layer)
    })?;
    peft.covers(layers.iter().map(String::as_str))?;
    Ok(model)
}

/// Writes the adapter of a model in PEFT's layout. An error where it has none.
pub fn write<B: Backend>(model: &Llama<B>, spec: &Spec, folder: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    let (mut names, mut covered) = (Vec::new(), Vec::new());
    for (name, layer) in model.linears() {
        if let Some(adapter) = &layer.adapter {
            for (part, matrix) in [(LORA_A, &adapter.a), (LORA_B, &adapter.b)] {
                tensors.push(Named::of(key(&name, part), matrix.val().transpose())?);
            }
            if let Some(m) = &adapter.magnitude {
                tensors.push(Named::of(key(&name, MAGNITUDE), m.val())?);
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
    let peft = Settings {
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
