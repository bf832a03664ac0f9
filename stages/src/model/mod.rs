//! Language models: the Llama and Qwen2 layouts, their files, adapters, tokenizer and generation.
//!
//! A model is one struct, [`Llama`], generic over the backend; the stages use it with
//! [`crate::device::Back`] and [`crate::device::Train`]. This module knows no stage and trains
//! nothing.

pub mod config;
pub mod generate;
pub mod kernels;
pub mod llama;
pub mod lora;
pub mod tokenizer;
pub mod weights;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use generate::{Prompt, Sample, Sampling, generate, sample};
pub use kernels::{Kernels, Span};
pub use llama::{Cache, Llama};
pub use tokenizer::Tokenizer;
pub use weights::{Folder, Normal, Source};

use burn::prelude::*;

use crate::{Context, Result};

/// A model folder, read.
pub struct Loaded<B: Backend> {
    /// The model, with its adapter if the folder has one.
    pub model: Llama<B>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Reads the model folder that feeds a port: `config.json`, `tokenizer.json`, the weights, and the
/// adapter if there is one. An adapter leaves only itself trainable.
pub fn load<B: Backend>(ctx: &Context, port: &str, device: &B::Device) -> Result<Loaded<B>> {
    load_folder(&Folder::of_port(ctx, port), device)
}

/// [`load`] from the files of a folder.
pub fn load_folder<B: Backend>(folder: &Folder, device: &B::Device) -> Result<Loaded<B>> {
    let config = Config::read(folder.need("config.json")?)?;
    let tokenizer = tokenizer::read(folder, &config)?;
    Ok(Loaded { model: load_model(folder, config, device)?, tokenizer })
}

/// The model of a folder without its tokenizer.
pub fn load_model<B: Backend>(
    folder: &Folder,
    config: Config,
    device: &B::Device,
) -> Result<Llama<B>> {
    let mut source = weights::Tensors::open_model(folder)?;
    let model = Llama::build(&config, &mut source, device)?;
    match folder.get("adapter_config.json") {
        Some(_) => lora::read(model, folder),
        None => Ok(model),
    }
}
