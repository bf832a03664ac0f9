//! What a stage is, and every stage there is.
//!
//! A stage is one folder here: its `mod.rs` holds the documentation, the parameters and
//! `impl Stage`. Adding one is that folder and two lines in this file: a `mod` line and a row of
//! [`ALL`]. The runner reads the table; it knows no stage by name.

pub mod chunk;
pub mod command;
pub mod compare;
mod context;
pub mod curate;
#[cfg(feature = "lm")]
pub mod decode;
#[cfg(feature = "models")]
pub mod device;
pub mod encode;
pub mod evaluate;
pub mod extract;
pub mod featurize;
pub mod forecast;
mod format;
#[cfg(feature = "lm")]
pub mod infer;
mod input;
pub mod market;
#[cfg(feature = "lm")]
pub mod model;
pub mod pairs;
#[cfg(feature = "gpu")]
mod probe;
#[cfg(feature = "lm")]
pub mod quantize;
pub mod softmax;
mod stage;
#[cfg(test)]
mod testing;
#[cfg_attr(not(feature = "models"), allow(dead_code))]
pub mod train;
mod trial;

pub use context::{Cancel, Context, Device, Job, Progress, Sandbox, Sink};
pub use format::Format;
pub use input::{Files, Input};
pub use stage::{Invalid, Items, Kind, Named, Port, Result, Settled, Stage, StageError};
pub use trial::{CONFIGURATIONS, Judged, Tried};

/// Every built-in kind of stage, in the order in which people meet them.
pub const ALL: &[Kind] = &[
    Kind::of::<extract::Extract>(),
    Kind::of::<chunk::Chunking>(),
    Kind::of::<curate::Curate>(),
    Kind::of::<featurize::Featurize>(),
    Kind::of::<forecast::Forecasting>(),
    Kind::of::<encode::Encode>(),
    Kind::of::<pairs::Pairs>(),
    #[cfg(feature = "models")]
    Kind::of::<train::Train>(),
    #[cfg(feature = "lm")]
    Kind::of::<quantize::Quantize>(),
    #[cfg(feature = "lm")]
    Kind::of::<evaluate::Evaluate>(),
    Kind::of::<compare::Compare>(),
    Kind::of::<command::Command>(),
];
