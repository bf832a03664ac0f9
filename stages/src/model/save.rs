//! A model of tensors as named values, and as a folder.

use std::path::Path;

use burn::prelude::*;

use super::gguf::Packing;
use super::llama::Llama;
use super::weights::{Lazy, Named, write_lazy};
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

/// Every weight of a model by its HF name and in HF's layout, made when it is asked for. An adapter is
/// not among them.
fn tensors<B: Backend>(model: &Llama<B>) -> Vec<Lazy<'_>> {
    let mut out = vec![
        lazy("model.embed_tokens.weight".into(), model.embed.dims(), || model.embed.val()),
        lazy("model.norm.weight".into(), model.norm.dims(), || model.norm.val()),
    ];
    for (i, block) in model.blocks.iter().enumerate() {
        let norms = [
            ("input_layernorm", Some(&block.input_norm)),
            ("post_attention_layernorm", Some(&block.post_norm)),
            ("self_attn.q_norm", block.q_norm.as_ref()),
            ("self_attn.k_norm", block.k_norm.as_ref()),
        ];
        for (name, norm) in norms {
            let Some(norm) = norm else { continue };
            let name = format!("model.layers.{i}.{name}.weight");
            out.push(lazy(name, norm.dims(), || norm.val()));
        }
    }
    let head = model.head.iter().map(|head| ("lm_head".to_owned(), head));
    for (name, layer) in model.linears().chain(head) {
        let [from, to] = layer.dims();
        out.push(lazy(format!("{name}.weight"), [to, from], || layer.dense().transpose()));
        if let Some(bias) = &layer.bias {
            out.push(lazy(format!("{name}.bias"), bias.dims(), || bias.val()));
        }
    }
    out
}

fn lazy<'a, B: Backend, const D: usize>(
    name: String,
    shape: [usize; D],
    tensor: impl Fn() -> Tensor<B, D> + 'a,
) -> Lazy<'a> {
    // What is converted to f32 is f32.
    let values = move || tensor().into_data().convert::<f32>().into_vec().unwrap_or_default();
    Lazy { name, shape: shape.to_vec(), values: Box::new(values) }
}

/// Writes `config.json` and `model.safetensors` into a folder. An adapter is left out: merge it
/// first, or write it beside with `lora::write`.
pub fn save<B: Backend>(model: &Llama<B>, folder: &Path) -> Result<()> {
    model.config.write(folder)?;
    write_lazy(&folder.join("model.safetensors"), &tensors(model), Packing::F32)
}
