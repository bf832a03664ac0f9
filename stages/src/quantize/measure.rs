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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Params, Quantize};
    use super::*;
    use crate::model::weights::{Named, Source};
    use crate::model::{Gguf, tiny};
    use crate::testing;

    /// A model some of whose inputs are much larger than others, and 20 chunks of text.
    fn model() -> (tempfile::TempDir, Vec<Named>) {
        let mut config = tiny::config("qwen2");
        config.intermediate_size = 256;
        let mut tensors = tiny::random(&config);
        for tensor in tensors.iter_mut().filter(|t| t.name.ends_with("norm.weight")) {
            tensor.values.iter_mut().step_by(7).for_each(|x| *x *= 20.0);
        }
        let folder = tiny::folder(&config, &tensors);
        let chunk = |i: usize| format!("{{\"text\": \"a small text, number {i}: {}\"}}\n", i * i);
        let chunks: String = (0..20).map(chunk).collect();
        fs_err::write(folder.path().join("chunks.jsonl"), chunks).unwrap();
        (folder, tensors)
    }

    #[test]
    fn errors_go_where_the_model_looks_least() {
        let (folder, tensors) = model();
        let text = folder.path().join("chunks.jsonl");
        let inputs = [("model", folder.path()), ("text", text.as_path())];
        let mut engine = Engine::open(folder.path(), Options::default()).unwrap();
        engine.watch();
        let held = "a small text, number 17: 289";
        engine.read_watched(&engine.tokenizer().encode(held).unwrap(), 64, |_| Ok(())).unwrap();
        let seen = engine.seen();
        for method in ["q4_0", "q4_1", "q4_k", "q5_k", "q6_k"] {
            // What the errors of the matrices do to their outputs.
            let cost = |params: serde_json::Value| -> BTreeMap<String, f64> {
                let ran = testing::run::<Quantize>(params, &inputs).unwrap();
                let file = Gguf::open(&ran.outputs["model"].join("model.gguf")).unwrap();
                let config = file.config().unwrap();
                let mut source = file.source(&config);
                let mut costs = BTreeMap::new();
                for Named { name, shape, values } in &tensors {
                    let Some(means) = seen.get(name) else { continue };
                    let packed = source.read(name, shape).unwrap();
                    let rows = values.chunks(means.len()).zip(packed.chunks(means.len()));
                    let row = |(a, b): (&[f32], &[f32])| -> f64 {
                        let pairs = a.iter().zip(b).zip(means);
                        pairs.map(|((a, b), mean)| f64::from((a - b).powi(2) * mean)).sum()
                    };
                    costs.insert(name.clone(), rows.map(row).sum());
                }
                costs
            };
            let plain = cost(json!({ "method": method }));
            let fitted = cost(json!({ "method": method, "importance": { "tokens": 100 } }));
            assert_eq!(plain.len(), 14);
            // Rows of 64 in q5_k and q6_k are packed as q8_0, which has nothing to choose.
            let chooses = |name: &str| {
                !method.starts_with("q5_k") && !method.starts_with("q6_k") || name.contains("down")
            };
            for (name, plain) in plain.iter().filter(|(name, _)| chooses(name)) {
                let share = fitted[name] / plain;
                assert!(share < 1.0, "{method} {name}: {share}");
            }
        }
    }

    #[test]
    fn importance_needs_text_that_the_loss_is_not_measured_on() {
        let (folder, _) = model();
        let text = folder.path().join("chunks.jsonl");
        let inputs = [("model", folder.path()), ("text", text.as_path())];
        let run = |params| testing::run::<Quantize>(params, &inputs);
        let ran = run(json!({ "importance": { "tokens": 30 } })).unwrap();
        assert_eq!(ran.metrics["importance_tokens"], 30.0);
        assert!(ran.metrics["loss_after"] > 0.0);
        let error = run(json!({ "importance": true, "measure_chunks": 20 })).err().unwrap();
        assert!(error.to_string().contains("no more than the 20 chunks"), "{error}");
    }

    #[test]
    fn parameters_of_before_are_the_same_and_odd_ones_are_refused() {
        let read = |value| serde_json::from_value::<Params>(value);
        let plain = serde_json::to_value(read(json!({})).unwrap()).unwrap();
        assert!(plain.get("importance").is_none(), "a key would change: {plain}");
        assert_eq!(
            serde_json::to_value(read(json!({ "importance": false })).unwrap()).unwrap(),
            plain
        );
        let whole = serde_json::to_value(read(json!({ "importance": true })).unwrap()).unwrap();
        assert_eq!(whole["importance"], json!({ "tokens": 16_384 }));
        assert_eq!(serde_json::to_value(read(whole.clone()).unwrap()).unwrap(), whole);
        let right = |value| read(value).unwrap().check().is_ok();
        assert!(right(json!({ "importance": true })));
        assert!(!right(json!({ "importance": { "tokens": 0 } })));
        assert!(!right(json!({ "importance": true, "method": "q8_0" })));
        assert!(read(json!({ "importance": { "token": 3 } })).is_err());
    }
}
