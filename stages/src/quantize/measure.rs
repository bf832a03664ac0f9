//! What packing cost in loss.

use serde::Deserialize;

use crate::device::{Back, cpu};
use crate::model::{Folder, Llama, Loaded, Tokenizer, load_folder};
use crate::{Context, Result, StageError};

/// The mean loss a token over the first chunks of `text`, of the model before and after.
pub fn loss(ctx: &Context, before: &Folder, after: &Folder, chunks: usize) -> Result<()> {
    let Loaded { model, tokenizer } = load_folder::<Back>(before, &cpu())?;
    let packed = load_folder::<Back>(after, &cpu())?.model;
    report_loss(ctx, &tokenizer, &model, &packed, chunks)
}

#[derive(Deserialize)]
struct Chunk {
    text: String,
}

/// The mean loss a token over the first chunks, before and after.
fn report_loss(
    ctx: &Context,
    tokenizer: &Tokenizer,
    before: &Llama<Back>,
    after: &Llama<Back>,
    chunks: usize,
) -> Result<()> {
    let path = ctx.file("text")?;
    let limit = before.config.context().min(512);
    let (mut losses, mut count) = ([0.0f64; 2], 0usize);
    for (i, line) in fs_err::read_to_string(path)?.lines().take(chunks).enumerate() {
        let chunk: Chunk = serde_json::from_str(line)
            .map_err(|e| StageError::bad(path, e.to_string()).at(i as u64 + 1))?;
        let mut tokens = tokenizer.encode(&chunk.text)?;
        tokens.truncate(limit);
        if tokens.len() < 2 {
            continue;
        }
        let at: Vec<usize> = (0..tokens.len() - 1).collect();
        for (loss, model) in losses.iter_mut().zip([before, after]) {
            let sum: f32 = model.log_probs(&tokens, 1, &at, 1.0)?.sum().into_scalar();
            *loss -= f64::from(sum);
        }
        count += at.len();
        ctx.progress(i as u64 + 1, chunks as u64, "chunks", "measure")?;
    }
    if count == 0 {
        ctx.warn("`text` holds no chunk of two tokens: the loss is not measured");
        return Ok(());
    }
    ctx.metric("loss_before", losses[0] / count as f64);
    ctx.metric("loss_after", losses[1] / count as f64);
    Ok(())
}
