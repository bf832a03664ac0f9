//! `quantize`: a trained model as GGUF with small weights, ready for llama.cpp and its kin.
//!
//! The adapter, if there is one, is merged into the weights first. Matrices are packed by `method`,
//! the embedding by `embeddings`, norms and biases stay f32; the packed bytes are those of ggml.
//! `config.json` and `tokenizer.json` come along, so that the folder is a model to the other stages
//! too: they unpack the weights to f32. It rounds to nearest and does not calibrate on data; with a
//! `text` it only measures what the rounding cost. It works on the CPU.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::{Back, cpu};
use crate::model::gguf::{self, Gguf, Packing};
use crate::model::save;
use crate::model::weights::Named;
use crate::model::{Folder, Llama, Loaded, Source, Tokenizer, load_folder};
use crate::{Context, Format, Port, Result, Stage, StageError};

#[cfg(test)]
mod tests;

/// The stage.
pub struct Quantize;

/// How weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// 4.5 bits a weight: 16 levels and one scale for 32 weights.
    #[serde(rename = "q4_0")]
    Q4_0,
    /// 4.5 bits a weight: 16 levels, a scale and a minimum for 32 weights, searched for. About a
    /// sixth less error than q4_0. Rows must be multiples of 256; others are packed as q8_0.
    #[serde(rename = "q4_k")]
    Q4K,
    /// 8.5 bits a weight.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 16 bits a weight.
    #[serde(rename = "f16")]
    F16,
}

impl Method {
    /// What a row of `len` weights is packed as.
    fn packing(self, len: usize) -> Packing {
        let wanted = match self {
            Method::Q4_0 => Packing::Q4_0,
            Method::Q4K => Packing::Q4K,
            Method::Q8_0 => Packing::Q8_0,
            Method::F16 => Packing::F16,
        };
        let fits = |packing: &Packing| len.is_multiple_of(packing.block());
        [wanted, Packing::Q8_0, Packing::F16].into_iter().find(fits).unwrap_or(Packing::F16)
    }
}

/// The parameters of `quantize`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// How matrices are packed.
    pub method: Method,
    /// How the embedding (which is the output matrix too, where they are tied) is packed. It is
    /// read one row a token, so that its bits cost little time, and errors in it reach every logit.
    pub embeddings: Method,
    /// Chunks of `text` to measure the loss on, before and after.
    pub measure_chunks: usize,
}

impl Default for Params {
    fn default() -> Params {
        Params { method: Method::Q4_0, embeddings: Method::Q8_0, measure_chunks: 16 }
    }
}

impl Stage for Quantize {
    const NAME: &'static str = "quantize";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "pack a model's weights in 4 bits, as GGUF";

    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("model", Format::Model), Port::optional("text", Format::Chunks)]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![Port::tree("model", Format::Model, "model")]
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let folder = Folder::of_port(ctx, "model");
        let out = ctx.output("model")?;
        ctx.progress(0, 4, "steps", "read")?;
        let Loaded { model, tokenizer } = load_folder::<Back>(&folder, &cpu())?;
        if tokenizer.eos().is_empty() {
            ctx.warn("the model names no token that ends a text: generation will not stop");
        }
        ctx.progress(1, 4, "steps", "pack")?;
        let model = model.merge();
        let tensors = save::tensors(&model)?;
        let packing = |tensor: &Named| packing(params, tensor);
        let path = out.join("model.gguf");
        gguf::write(&path, &model.config, &tokenizer, &tensors, packing)?;
        model.config.write(out)?;
        match folder.get("tokenizer.json") {
            Some(path) => fs_err::write(out.join("tokenizer.json"), fs_err::read(path)?)?,
            None => tokenizer.write(out)?,
        }
        ctx.progress(2, 4, "steps", "read back")?;
        let file = Gguf::open(&path)?;
        report_size(ctx, &model, &tensors, &file)?;
        ctx.progress(3, 4, "steps", "measure")?;
        if ctx.has("text") {
            let packed = Llama::build(&model.config, &mut file.source(&model.config), &cpu())?;
            report_loss(ctx, &tokenizer, &model, &packed, params.measure_chunks)?;
        }
        ctx.progress(4, 4, "steps", "")
    }
}

fn packing(params: &Params, tensor: &Named) -> Packing {
    let row = tensor.shape.last().copied().unwrap_or(1);
    match tensor.name.as_str() {
        _ if tensor.shape.len() < 2 => Packing::F32,
        "model.embed_tokens.weight" | "lm_head.weight" => params.embeddings.packing(row),
        _ => params.method.packing(row),
    }
}

/// Bytes before and after, and the root mean square error of the weights relative to their size.
fn report_size(ctx: &Context, model: &Llama<Back>, tensors: &[Named], file: &Gguf) -> Result<()> {
    let mut source = file.source(&model.config);
    let (mut error, mut size, mut count) = (0.0, 0.0, 0usize);
    for tensor in tensors {
        let packed = source.read(&tensor.name, &tensor.shape)?;
        for (&a, &b) in tensor.values.iter().zip(&packed) {
            let (a, b) = (f64::from(a), f64::from(b));
            error += (a - b) * (a - b);
            size += a * a;
        }
        count += tensor.values.len();
    }
    let bytes = file.tensor_bytes();
    ctx.metric("weights", count as f64);
    ctx.metric("bytes_before", 4.0 * count as f64);
    ctx.metric("bytes_after", bytes as f64);
    ctx.metric("bits_per_weight", 8.0 * bytes as f64 / count.max(1) as f64);
    ctx.metric("weight_error", (error / f64::max(size, f64::MIN_POSITIVE)).sqrt());
    Ok(())
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
        ctx.progress(3, 4, "steps", format!("measure: chunk {}", i + 1))?;
    }
    if count == 0 {
        ctx.warn("`text` holds no chunk of two tokens: the loss is not measured");
        return Ok(());
    }
    ctx.metric("loss_before", losses[0] / count as f64);
    ctx.metric("loss_after", losses[1] / count as f64);
    Ok(())
}
