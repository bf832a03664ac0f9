//! A model of tensors as named values, and as a folder.

use std::path::Path;

use burn::prelude::*;

use super::llama::Llama;
use super::weights::{Named, write};
use crate::{Result, StageError};

impl Named {
    pub(crate) fn of<B: Backend, const D: usize>(
        name: String,
        tensor: Tensor<B, D>,
    ) -> Result<Named> {
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data().convert::<f32>().into_vec();
        let values = values.map_err(|e| StageError::failed(format!("{name}: {e:?}")))?;
        Ok(Named { name, shape, values })
    }
}

/// Every weight of a model by its HF name and in HF's layout. An adapter is not among them.
pub fn tensors<B: Backend>(model: &Llama<B>) -> Result<Vec<Named>> {
    let mut out = vec![
        Named::of("model.embed_tokens.weight".into(), model.embed.val())?,
        Named::of("model.norm.weight".into(), model.norm.val())?,
    ];
    for (i, block) in model.blocks.iter().enumerate() {
        let norms = [("input", &block.input_norm), ("post_attention", &block.post_norm)];
        for (name, norm) in norms {
            out.push(Named::of(format!("model.layers.{i}.{name}_layernorm.weight"), norm.val())?);
        }
        for (name, norm) in [("q", &block.q_norm), ("k", &block.k_norm)] {
            if let Some(norm) = norm {
                let name = format!("model.layers.{i}.self_attn.{name}_norm.weight");
                out.push(Named::of(name, norm.val())?);
            }
        }
    }
    let head = model.head.iter().map(|head| ("lm_head".to_owned(), head));
    for (name, layer) in model.linears().chain(head) {
        out.push(Named::of(format!("{name}.weight"), layer.dense().transpose())?);
        if let Some(bias) = &layer.bias {
            out.push(Named::of(format!("{name}.bias"), bias.val())?);
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// Writes `config.json` and `model.safetensors` into a folder. An adapter is left out: merge it
/// first, or write it beside with `lora::write`.
pub fn save<B: Backend>(model: &Llama<B>, folder: &Path) -> Result<()> {
    model.config.write(folder)?;
    write(&folder.join("model.safetensors"), &tensors(model)?)
}
