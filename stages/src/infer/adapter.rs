//! A PEFT adapter beside the weights: `y = W x + s B (A x)`, never added into packed weights.

use super::engine::{Block, Ffn};
use super::matrix::{Adapter, Matrix};
use crate::model::adapter::Peft;
use crate::model::gguf::reorder;
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
    let Some(mut peft) = Peft::open(folder)? else { return Ok(()) };
    if peft.settings.use_dora {
        let path = folder.need("adapter_config.json")?;
        return Err(StageError::bad(path, "`use_dora` cannot be run as a low-rank product")
            .hint("merge the adapter where it was trained, or by `quantize`"));
    }
    let mut layers = Vec::new();
    for (i, block) in blocks.iter_mut().enumerate() {
        for (name, matrix, heads) in linears(block, config) {
            let layer = format!("model.layers.{i}.{name}");
            let factors = peft.factors(&layer, matrix.columns, matrix.rows)?;
            layers.push(layer);
            let Some(mut factors) = factors else { continue };
            if let (true, Some(heads)) = (interleaved, heads) {
                factors.b = reorder(&factors.b, heads, matrix.rows, false);
            }
            let (rank, scale) = (factors.rank, peft.settings.scale(factors.rank));
            factors.b.iter_mut().for_each(|b| *b *= scale as f32);
            matrix.adapter = Some(Box::new(Adapter {
                a: Matrix::of_floats(&factors.a, rank, matrix.columns),
                b: Matrix::of_floats(&factors.b, matrix.rows, rank),
            }));
        }
    }
    peft.covers(layers.iter().map(String::as_str))
}

/// The matrices of a block that an adapter may be on, and the heads of q and k.
fn linears<'a>(
    block: &'a mut Block,
    config: &Config,
) -> Vec<(String, &'a mut Matrix, Option<usize>)> {
    let mut all = vec![
        ("self_attn.q_proj".to_owned(), &mut block.q, Some(config.num_attention_heads)),
        ("self_attn.k_proj".into(), &mut block.k, Some(config.kv_heads())),
        ("self_attn.v_proj".into(), &mut block.v, None),
        ("self_attn.o_proj".into(), &mut block.o, None),
    ];
    let mut feed = |at: &str, layers: [&'a mut Matrix; 3]| {
        for (name, matrix) in ["gate", "up", "down"].into_iter().zip(layers) {
            all.push((format!("{at}.{name}_proj"), matrix, None));
        }
    };
    match &mut block.ffn {
        Ffn::Dense { gate, up, down } => feed("mlp", [gate, up, down]),
        Ffn::Experts(layer) => {
            for (i, one) in layer.experts.iter_mut().enumerate() {
                feed(&format!("mlp.experts.{i}"), [&mut one.gate, &mut one.up, &mut one.down]);
            }
            all.push(("mlp.gate".into(), &mut layer.router, None));
        }
    }
    all
}
