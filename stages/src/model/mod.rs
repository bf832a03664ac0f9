//! Language models: the Llama, Qwen2, Qwen3 and Qwen3-MoE layouts, their files, adapters, tokenizer and generation.
//!
//! What concerns files (`config`, `tokenizer`, `gguf`, `weights`) knows no Burn. A model in training is one
//! struct, `Llama`, generic over the backend; the stages use it with `device::Back` and
//! `device::Train`. This module knows no stage and trains nothing.

pub mod adapter;
#[cfg(feature = "models")]
mod build;
pub mod chat;
pub mod config;
#[cfg(feature = "models")]
mod constrained;
#[cfg(feature = "models")]
pub mod ffn;
#[cfg(feature = "models")]
pub mod generate;
pub mod gguf;
#[cfg(feature = "models")]
pub mod kernels;
pub mod layout;
#[cfg(feature = "models")]
pub mod llama;
#[cfg(feature = "models")]
mod load;
#[cfg(feature = "models")]
pub mod lora;
pub(crate) mod router;
#[cfg(feature = "models")]
pub mod save;
pub mod tokenizer;
pub mod weights;

#[cfg(test)]
#[cfg(feature = "models")]
mod moe_tests;
#[cfg(test)]
#[cfg(feature = "models")]
mod tests;
#[cfg(test)]
pub(crate) mod tiny;

#[cfg(feature = "models")]
pub use build::Held;
pub use config::Config;
#[cfg(feature = "models")]
pub use constrained::{Choice, Constrained, constrained};
#[cfg(feature = "models")]
pub use ffn::{Ffn, Routed};
#[cfg(feature = "models")]
pub use generate::{Prompt, Sample, Sampling, generate, sample};
pub use gguf::Gguf;
#[cfg(feature = "models")]
pub use kernels::{Kernels, Span};
#[cfg(feature = "models")]
pub use llama::{Cache, Frame, Llama, Packed};
#[cfg(feature = "models")]
pub use load::{Loaded, load, load_folder, load_held};
pub use tokenizer::Tokenizer;
pub use weights::{Folder, Normal, Source};
