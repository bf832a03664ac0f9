//! A model folder to a model of tensors.

use burn::module::Module;
use burn::prelude::*;

use super::{Config, Folder, Gguf, Held, Llama, Tokenizer, lora, weights};
use crate::{Context, Result};

/// A model folder, read.
pub struct Loaded<B: Backend> {
    /// The model, with its adapter if the folder has one.
    pub model: Llama<B>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Reads the model folder that feeds a port: the shape, the tokenizer, the weights in safetensors or
/// GGUF, and the adapter if there is one. An adapter leaves only itself trainable.
pub fn load<B: Backend>(ctx: &Context, port: &str, device: &B::Device) -> Result<Loaded<B>> {
    load_folder(&Folder::of_port(ctx, port), device)
}

/// [`load`] from the files of a folder.
pub fn load_folder<B: Backend>(folder: &Folder, device: &B::Device) -> Result<Loaded<B>> {
    load_as(folder, device, Held::default())
}

/// [`load`] of a base that stays frozen, held as told: never all of it in more, but where it has an
/// adapter of its own, which is merged first.
pub fn load_held<B: Backend>(
    ctx: &Context,
    port: &str,
    device: &B::Device,
    held: Held,
) -> Result<Loaded<B>> {
    let folder = Folder::of_port(ctx, port);
    let whole = folder.get("adapter_config.json").is_none();
    if whole {
        return load_as(&folder, device, held);
    }
    let mut loaded = load_as(&folder, device, Held::default())?;
    loaded.model = loaded.model.merge();
    if held.packed {
        loaded.model = loaded.model.pack();
    }
    if held.half {
        loaded.model = loaded.model.no_grad().in_bf16();
    }
    Ok(loaded)
}

fn load_as<B: Backend>(folder: &Folder, device: &B::Device, held: Held) -> Result<Loaded<B>> {
    let gguf = match folder.iter().find(|(name, _)| name.ends_with(".gguf")) {
        Some((_, path)) => Some(Gguf::open(path)?),
        None => None,
    };
    let config = match (&gguf, folder.get("config.json")) {
        (Some(gguf), None) => gguf.config()?,
        _ => Config::read(folder.need("config.json")?)?,
    };
    let tokenizer = match (&gguf, folder.get("tokenizer.json")) {
        (Some(gguf), None) => gguf.tokenizer(&config)?,
        _ => Tokenizer::read(folder.need("tokenizer.json")?, &config)?,
    };
    let model = match &gguf {
        Some(gguf) => {
            gguf.check_angles(&config)?;
            Llama::build_as(&config, &mut gguf.source(&config), device, held)?
        }
        None => {
            let mut tensors = weights::Tensors::open_model(folder)?;
            Llama::build_as(&config, &mut tensors, device, held)?
        }
    };
    Ok(Loaded { model: adapt(model, folder)?, tokenizer })
}

/// Puts a folder's adapter on the model, if it has one.
pub(super) fn adapt<B: Backend>(model: Llama<B>, folder: &Folder) -> Result<Llama<B>> {
    match folder.get("adapter_config.json") {
        Some(_) => lora::read(model, folder),
        None => Ok(model),
    }
}
