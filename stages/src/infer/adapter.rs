//! A PEFT adapter beside the weights: `y = W x + s B (A x)`, never added into packed weights.

use serde::Deserialize;

use super::engine::{Block, Ffn};
use super::matrix::{Adapter, Matrix};
use crate::model::gguf::reorder;
use crate::model::weights::{Source, Tensors};
use crate::model::{Config, Folder};
use crate::{Result, StageError};

/// What `adapter_config.json` says, by PEFT's names.
#[derive(Deserialize)]
struct Peft {
    peft_type: String,
    lora_alpha: f64,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
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
            (self.use_dora, "`use_dora` cannot be run as a low-rank product"),
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

/// Puts the adapter of a folder on the matrices, if it has one. `interleaved`: the rows of q and k
/// lie in GGUF's order.
pub(super) fn apply(
    folder: &Folder,
    config: &Config,
    interleaved: bool,
    blocks: &mut [Block],
) -> Result<()> {
    let Some(path) = folder.get("adapter_config.json") else { return Ok(()) };
    let peft: Peft = serde_json::from_str(&fs_err::read_to_string(path)?)
        .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))?;
    if let Some(message) = peft.unsupported() {
        return Err(StageError::bad(path, message).hint("merge the adapter where it was trained"));
    }
    let weights = folder.need("adapter_model.safetensors")?;
    let mut tensors = Tensors::open(weights)?;
    let mut used = 0;
    for (i, block) in blocks.iter_mut().enumerate() {
        for (name, matrix, heads) in linears(block, config) {
            let key = |part| format!("base_model.model.model.layers.{i}.{name}.lora_{part}.weight");
            let rank = tensors.shape(&key("A")).and_then(|shape| shape.first().copied());
            let Some(r) = rank else { continue };
            if r == 0 || r > 4096 {
                return Err(StageError::bad(weights, format!("a rank of {r}")));
            }
            let a = tensors.read(&key("A"), &[r, matrix.columns])?;
            let mut b = tensors.read(&key("B"), &[matrix.rows, r])?;
            if let (true, Some(heads)) = (interleaved, heads) {
                b = reorder(&b, heads, matrix.rows, false);
            }
            let rank = r as f64;
            let scale = peft.lora_alpha / if peft.use_rslora { rank.sqrt() } else { rank };
            b.iter_mut().for_each(|b| *b *= scale as f32);
            matrix.adapter = Some(Adapter {
                a: Box::new(Matrix::of_floats(&a, r, matrix.columns)),
                b: Box::new(Matrix::of_floats(&b, matrix.rows, r)),
            });
            used += 2;
        }
    }
    if used != tensors.names().len() {
        return Err(StageError::bad(weights, "it adapts layers that this model does not have")
            .hint("an adapter belongs to the model that it was trained on"));
    }
    Ok(())
}

/// The matrices of a block that an adapter may be on, and the heads of q and k.
fn linears<'a>(
    block: &'a mut Block,
    config: &Config,
) -> Vec<(&'static str, &'a mut Matrix, Option<usize>)> {
    let mut all = vec![
        ("self_attn.q_proj", &mut block.q, Some(config.num_attention_heads)),
        ("self_attn.k_proj", &mut block.k, Some(config.kv_heads())),
        ("self_attn.v_proj", &mut block.v, None),
        ("self_attn.o_proj", &mut block.o, None),
    ];
    if let Ffn::Dense { gate, up, down } = &mut block.ffn {
        all.push(("mlp.gate_proj", gate, None));
        all.push(("mlp.up_proj", up, None));
        all.push(("mlp.down_proj", down, None));
    }
    all
}
