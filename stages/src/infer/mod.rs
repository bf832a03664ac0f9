//! Local inference: language models on the CPU or a GPU, in the bits that they are packed in.
//!
//! An [`Engine`] is a model: its files are mapped, its matrices laid out for the processor, its
//! threads started. A [`Session`] is a text that it reads: [`Session::read`] appends tokens and
//! gives the logits of the next, [`read_batch`] does so for several sessions in one pass over the
//! weights. `forward.rs` is the whole model, top to bottom; `kernels/` is what takes its time.
//!
//! On the CPU weights stay packed; inputs of a product are rounded to eight bits in groups of 32, as in ggml,
//! where the weights are quantised, and stay f32 where they are floats. The same tokens give the
//! same bits whatever the number of threads, of tokens read at once and of sessions in a batch, on
//! one type of processor. With another [`Options::device`] weights, memory and the whole of a pass
//! are on a GPU (`gpu/`, feature `gpu`), in f32. It knows no Burn, draws no tokens and trains nothing.

mod adapter;
mod engine;
mod experts;
mod files;
mod forward;
#[cfg(test)]
mod golden;
#[cfg(feature = "gpu")]
mod gpu;
mod importance;
mod kernels;
mod matrix;
mod perplexity;
mod pool;
mod reader;
#[cfg(test)]
mod reference;
mod session;
pub(crate) mod simd;
#[cfg(test)]
mod tests;

pub use engine::{About, Engine, Options};
pub use perplexity::{Loss, perplexity};
pub use reader::Reader;
pub use session::{Session, read_batch};
