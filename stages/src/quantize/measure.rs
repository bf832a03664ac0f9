//! What a text says of a model: which inputs of its matrices count, and what packing cost in loss,
//! by the engine that runs packed models.
//!
//! The two read different chunks: a loss on the text that the packing was fitted to would flatter it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use serde::Deserialize;

use super::Params;
use crate::infer::{Engine, Options, perplexity};
use crate::model::Folder;
use crate::{Context, Result, StageError};

/// Tokens that are read at a time, each window afresh.
const WINDOW: usize = 512;

#[derive(Deserialize)]
struct Chunk {
    text: String,
}

/// The texts of the port `text`, one after the other.
fn texts(ctx: &Context) -> Result<impl Iterator<Item = Result<String>>> {
    let path = ctx.file("text")?;
    let lines = BufReader::new(fs_err::File::open(path)?).lines();
    Ok(lines.enumerate().map(move |(i, line)| {
        let chunk: Chunk = serde_json::from_str(&line?)
            .map_err(|e| StageError::bad(path, e.to_string()).at(i as u64 + 1))?;
        Ok(chunk.text)
    }))
}

/// Mean squares of the inputs of each matrix, by the name of its tensor, over up to `tokens` tokens
/// of the chunks that [`loss`] leaves. An error where there are none.
pub fn importance(
    ctx: &Context,
    model: &Folder,
    params: &Params,
    tokens: usize,
) -> Result<BTreeMap<String, Vec<f32>>> {
    ctx.progress(0, tokens as u64, "tokens", "importance")?;
    let mut engine = Engine::of_folder(model, Options::default())?;
    let mut read = Vec::new();
    for text in texts(ctx)?.skip(params.measure_chunks) {
        if read.len() >= tokens {
            break;
        }
        read.extend(engine.tokenizer().encode(&text?)?);
    }
    read.truncate(tokens);
    if read.is_empty() {
        let message = format!(
            "`text` has no more than the {} chunks that the loss is measured on",
            params.measure_chunks
        );
        return Err(StageError::bad(ctx.file("text")?, message)
            .hint("`importance` reads others: give more text, or lower `measure_chunks`"));
    }
    engine.watch();
    engine.read_watched(&read, WINDOW, |done| {
        ctx.progress(done as u64, read.len() as u64, "tokens", "importance")
    })?;
    ctx.metric("importance_tokens", read.len() as f64);
    Ok(engine.seen())
}

/// The mean loss a token over the first chunks of `text`, of the model before and after.
pub fn loss(ctx: &Context, before: &Folder, after: &Folder, chunks: usize) -> Result<()> {
    let engine = Engine::of_folder(after, Options::default())?;
    let mut tokens = Vec::new();
    for text in texts(ctx)?.take(chunks) {
        tokens.extend(engine.tokenizer().encode(&text?)?.into_iter().take(WINDOW));
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
