//! Trains language models: on a corpus (`sft`), on preference pairs (`dpo`), or on the reward of
//! its own answers (`dapo`).
//!
//! | method | reads | changes |
//! |---|---|---|
//! | `sft` | `corpus`, perhaps `base` | all weights of a new model or of the base, or an adapter |
//! | `dpo` | `base`, `pairs` | a low-rank adapter, or all weights (`full`) |
//! | `dapo` | `base`, `pairs`, `reward` | a low-rank adapter, or all weights (`full`) |
//!
//! The output is a model folder: `config.json`, `tokenizer.json` and what else belongs to it (the
//! chat template among it), `model.safetensors`, and the adapter in PEFT's layout beside it. An
//! adapter that the base came with is merged first. With it go `log.jsonl`, a line a step, the same
//! for TensorBoard, and `curve.svg`.
//!
//! Losses, schedule, optimizer settings and data are plain Rust on numbers (`losses`,
//! `schedule`, `data`, `samples`); the loops (`sft`, `dpo`, `dapo`) bring them together with the
//! model. On the CPU the same seed gives the same bytes of every file, whatever the number of
//! threads, and however often the run was killed and went on (`checkpoint`). What a step costs in
//! time is the runner's to measure.
//!
//! Not here: more than one device.

#[cfg(feature = "models")]
mod balance;
#[cfg(test)]
#[cfg(feature = "models")]
mod bf16_tests;
mod check;
#[cfg(feature = "models")]
mod checkpoint;
#[cfg(feature = "models")]
mod curve;
#[cfg(feature = "models")]
mod dapo;
mod data;
#[cfg(feature = "models")]
mod dpo;
pub(crate) mod events;
mod log;
#[cfg(feature = "models")]
mod logps;
mod losses;
#[cfg(feature = "models")]
mod market;
#[cfg(feature = "models")]
mod memory;
#[cfg(test)]
#[cfg(feature = "models")]
mod moe_tests;
#[cfg(feature = "models")]
pub(crate) mod optim;
mod options;
mod params;
#[cfg(feature = "models")]
mod prepare;
mod preset;
#[cfg(feature = "models")]
mod records;
#[cfg(feature = "models")]
mod remat;
mod samples;
pub(crate) mod schedule;
#[cfg(feature = "models")]
mod scorer;
#[cfg(feature = "models")]
mod sft;
#[cfg(test)]
#[cfg(feature = "models")]
mod sft_tests;
#[cfg(feature = "models")]
mod stage;
#[cfg(feature = "models")]
mod steps;
#[cfg(feature = "models")]
mod template;
#[cfg(test)]
#[cfg(feature = "models")]
mod tests;

#[cfg(feature = "lm")]
pub(crate) use data::jsonl;
pub use params::Params;
#[cfg(feature = "models")]
pub use stage::Train;
