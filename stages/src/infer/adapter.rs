//! A PEFT adapter beside the weights: `y = W x + s B (A x)`, never added into packed weights.

use super::engine::{Block, Ffn};
use super::matrix::{Adapter, Matrix};
use crate::model::adapter::Settings;
use crate::model::gguf::reorder;
use crate::model::weights::{Source, Tensors};
use crate::model::{Config, Folder};
use crate::{Result, StageError};

/// Puts the adapter of a folder on the matrices, if it has one. `interleaved`: the rows of q and k
/// lie in GGUF's order.
pub(super) fn apply(
    folder: &Folder,
    config: &Config,
    interleaved: bool,
    blocks: &mut [Block],
) -> Result<()> {
    let Some(path) = folder.get("adapter_config.json") else { return Ok(()) };
    let peft = Settings::read(path)?;
    if peft.use_dora {
        return Err(StageError::bad(path, "`use_dora` cannot be run as a low-rank product")
            .hint("merge the adapter where it was trained, or by `quantize`"));
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
            let scale = peft.scale(r);
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
