//! What packing cost in loss, by the engine that runs packed models.

use serde::Deserialize;

use crate::infer::{Engine, Options, perplexity};
use crate::model::Folder;
use crate::{Context, Result, StageError};

/// Tokens that are read at a time, each window afresh.
const WINDOW: usize = 512;

#[derive(Deserialize)]
struct Chunk {
    text: String,
}

/// The mean loss a token over the first chunks of `text`, of the model before and after.
pub fn loss(ctx: &Context, before: &Folder, after: &Folder, chunks: usize) -> Result<()> {
    let path = ctx.file("text")?;
    let texts = fs_err::read_to_string(path)?;
    let engine = Engine::of_folder(after, Options::default())?;
    let mut tokens = Vec::new();
    for (i, line) in texts.lines().take(chunks).enumerate() {
        let chunk: Chunk = serde_json::from_str(line)
            .map_err(|e| StageError::bad(path, e.to_string()).at(i as u64 + 1))?;
        tokens.extend(engine.tokenizer().encode(&chunk.text)?.into_iter().take(WINDOW));
    }
    if tokens.len() < 2 {
        ctx.warn("`text` holds no chunk of two tokens: the loss is not measured");
        return Ok(());
    }
    ctx.progress(0, 2, "models", "measure after")?;
    ctx.metric("loss_after", perplexity(&engine, &tokens, WINDOW)?.mean);
    drop(engine);
    ctx.progress(1, 2, "models", "measure before")?;
    match Engine::of_folder(before, Options::default()) {
        Ok(engine) => ctx.metric("loss_before", perplexity(&engine, &tokens, WINDOW)?.mean),
        // An adapter that cannot be run beside its base, such as DoRA's.
        Err(error) => ctx.warn(format!("the loss before is not measured: {error}")),
    }
    ctx.progress(2, 2, "models", "")
}
