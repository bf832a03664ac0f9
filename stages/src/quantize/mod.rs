//! `quantize`: a trained model in fewer bits, ready for llama.cpp and its kin, and for this program.
//!
//! The adapter, if there is one, is merged into the weights first. Matrices are packed by `method`,
//! the embedding by `embeddings`, norms and biases stay f32; the packed bytes are those of ggml, or
//! with `importance` those that keep the errors where the model looks least. The folder holds `model.gguf` with shape,
//! tokenizer, chat template and end tokens in it, and HF's files beside it, so that it is a model to
//! the other stages too. A tensor is read, packed and written at a time, the experts of a layer as one;
//! their router stays f32. It works on the CPU and knows no Burn.

mod measure;
mod params;

use std::collections::BTreeMap;

use crate::model::adapter::Merged;
use crate::model::gguf::{self, Entry, Gguf, Packing};
use crate::model::weights::{self, Named, Raw, Tensors};
use crate::model::{Config, Folder, Source, Tokenizer, layout};
use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};

pub use params::{Container, Method, Params};

#[cfg(test)]
#[cfg(feature = "models")]
mod tests;

/// The stage.
pub struct Quantize;

/// Files of HF's that belong to a model and hold no weights.
const BESIDE: [&str; 5] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "added_tokens.json",
];

const EMBEDDING: &str = "model.embed_tokens.weight";

impl Stage for Quantize {
    const NAME: &'static str = "quantize";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "pack a model's weights in 4 bits, as GGUF";

    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        let text = match params.importance {
            Some(_) => Port::input("text", Format::Chunks),
            None => Port::optional("text", Format::Chunks),
        };
        vec![Port::input("model", Format::Model), text]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![Port::tree("model", Format::Model, "model")]
    }

    fn check(params: &Params) -> std::result::Result<(), Invalid> {
        params.check()
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let folder = Folder::of_port(ctx, "model");
        let given = Given::open(&folder)?;
        let out = ctx.output("model")?;
        if given.tokenizer.eos().is_empty() {
            ctx.warn("the model names no token that ends a text: generation will not stop");
        }
        let tally = match params.format {
            Container::Gguf => {
                let importance = match &params.importance {
                    Some(wanted) => measure::importance(ctx, &folder, params, wanted.tokens)?,
                    None => BTreeMap::new(),
                };
                gguf(params, ctx, &given, &importance)?
            }
            Container::Safetensors => safetensors(params, ctx, &given)?,
        };
        given.config.write(out)?;
        match folder.get("tokenizer.json") {
            Some(path) => fs_err::write(out.join("tokenizer.json"), fs_err::read(path)?)?,
            None => given.tokenizer.write(out)?,
        }
        for name in BESIDE {
            if let Some(path) = folder.get(name) {
                fs_err::write(out.join(name), fs_err::read(path)?)?;
            }
        }
        tally.report(ctx);
        if ctx.has("text") {
            measure::loss(ctx, &folder, &Folder::of_dir(out)?, params.measure_chunks)?;
        }
        Ok(())
    }
}

/// The model that came in.
struct Given<'a> {
    folder: &'a Folder,
    file: Option<Gguf>,
    config: Config,
    tokenizer: Tokenizer,
    chat_template: Option<String>,
}

impl Given<'_> {
    fn open(folder: &Folder) -> Result<Given<'_>> {
        let file = match folder.iter().find(|(name, _)| name.ends_with(".gguf")) {
            Some((_, path)) => Some(Gguf::open(path)?),
            None => None,
        };
        let config = match (&file, folder.get("config.json")) {
            (Some(file), None) => file.config()?,
            _ => Config::read(folder.need("config.json")?)?,
        };
        if let Some(file) = &file {
            file.check_angles(&config)?;
        }
        let tokenizer = match (&file, folder.get("tokenizer.json")) {
            (Some(file), None) => file.tokenizer(&config)?,
            _ => Tokenizer::read(folder.need("tokenizer.json")?, &config)?,
        };
        let chat_template = chat_template(folder, file.as_ref())?;
        Ok(Given { folder, file, config, tokenizer, chat_template })
    }

    /// Its weights, the adapter added in.
    fn weights(&self, names: &[String]) -> Result<Box<dyn Source + '_>> {
        Ok(match &self.file {
            Some(file) => {
                self.check_vocabulary(&file.raw(EMBEDDING)?)?;
                Box::new(Merged::open(file.source(&self.config), self.folder, names)?)
            }
            None => {
                let tensors = Tensors::open_model(self.folder)?;
                self.check_vocabulary(&tensors.raw(EMBEDDING)?)?;
                Box::new(Merged::open(tensors, self.folder, names)?)
            }
        })
    }

    /// The tokens that the shape claims are there: the header of a GGUF file names every one.
    fn check_vocabulary(&self, table: &Raw) -> Result<()> {
        let shape = [self.config.vocab_size, self.config.hidden_size];
        if table.shape != shape {
            let message = format!("the embedding is {:?}, not {shape:?}", table.shape);
            return Err(StageError::failed(message)
                .hint("config.json and the weights must be of the same model"));
        }
        Ok(())
    }
}

/// The chat template, from where HF or GGUF keeps it.
fn chat_template(folder: &Folder, file: Option<&Gguf>) -> Result<Option<String>> {
    if let Some(path) = folder.get("chat_template.jinja") {
        return Ok(Some(fs_err::read_to_string(path)?));
    }
    if let Some(path) = folder.get("tokenizer_config.json") {
        let parsed: serde_json::Value = serde_json::from_slice(&fs_err::read(path)?)
            .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))?;
        if let Some(template) = parsed["chat_template"].as_str() {
            return Ok(Some(template.into()));
        }
    }
    Ok(match file.and_then(|file| file.get("tokenizer.chat_template")) {
        Some(gguf::Value::Text(template)) => Some(template.clone()),
        _ => None,
    })
}

/// What packing cost.
#[derive(Default)]
struct Tally {
    weights: usize,
    bytes: usize,
    /// Sums of the squared errors and of the squared weights.
    error: f64,
    size: f64,
}

impl Tally {
    fn add(&mut self, values: &[f32], packing: Packing, packed: &[u8]) {
        for (&a, &b) in values.iter().zip(&packing.unpack(packed)) {
            let (a, b) = (f64::from(a), f64::from(b));
            self.error += (a - b) * (a - b);
            self.size += a * a;
        }
        self.weights += values.len();
        self.bytes += packed.len();
    }

    fn report(&self, ctx: &Context) {
        ctx.metric("weights", self.weights as f64);
        ctx.metric("bytes_before", 4.0 * self.weights as f64);
        ctx.metric("bytes_after", self.bytes as f64);
        ctx.metric("bits_per_weight", 8.0 * self.bytes as f64 / self.weights.max(1) as f64);
        ctx.metric("weight_error", (self.error / self.size.max(f64::MIN_POSITIVE)).sqrt());
    }
}

/// `model.gguf`. `importance`: what errors count, by column, of the tensors that it names.
fn gguf(
    params: &Params,
    ctx: &Context,
    given: &Given,
    importance: &BTreeMap<String, Vec<f32>>,
) -> Result<Tally> {
    if given.config.num_experts.is_some() && !given.config.norm_topk_prob {
        let message =
            "a GGUF file cannot say that the weights of a token's experts do not sum to 1";
        return Err(StageError::failed(format!("{message} (`norm_topk_prob: false`)"))
            .hint("llama.cpp would compute another model; write `format: safetensors`"));
    }
    let entries = entries(params, &given.config);
    let names: Vec<String> = entries.iter().flat_map(|entry| entry.parts().0).collect();
    let mut source = given.weights(&names)?;
    let (mut tally, mut done) = (Tally::default(), 0);
    let path = ctx.output("model")?.join("model.gguf");
    let template = given.chat_template.as_deref();
    gguf::write(&path, &given.config, &given.tokenizer, template, &entries, |entry| {
        ctx.progress(done, entries.len() as u64, "tensors", entry.name.as_str())?;
        done += 1;
        let (parts, shape) = entry.parts();
        let mut all = Vec::new();
        for name in parts {
            let values = source.read(&name, shape)?;
            let packed = entry.packing.pack(&values, importance.get(&name).map(Vec::as_slice));
            tally.add(&values, entry.packing, &packed);
            all.extend(packed);
        }
        Ok(all)
    })?;
    ctx.progress(done, entries.len() as u64, "tensors", "")?;
    Ok(tally)
}

fn entries(params: &Params, config: &Config) -> Vec<Entry> {
    let entry = |(name, shape): (String, Vec<usize>)| {
        let packing = params.packing(&name, &shape, config);
        Entry { name, shape, packing }
    };
    layout::stacked(config).into_iter().map(entry).collect()
}

/// One file of HF's, in the floats of the method.
fn safetensors(params: &Params, ctx: &Context, given: &Given) -> Result<Tally> {
    let tensors = layout::tensors(&given.config);
    let names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
    let mut source = given.weights(&names)?;
    let packing = params.method.packing(1);
    let mut tally = Tally::default();
    let mut out = Vec::new();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        ctx.progress(i as u64, tensors.len() as u64, "tensors", name.as_str())?;
        let values = source.read(name, shape)?;
        tally.add(&values, packing, &packing.pack(&values, None));
        out.push(Named { name: name.clone(), shape: shape.clone(), values });
    }
    let path = ctx.output("model")?.join("model.safetensors");
    weights::write_as(&path, &out, packing)?;
    ctx.progress(tensors.len() as u64, tensors.len() as u64, "tensors", "")?;
    Ok(tally)
}
