//! Neural forecasters: a hybrid of a Transformer and a state-space model, an LSTM, a Transformer.
//!
//! All see windows of rows ([`windows`]) as features, the log of the elapsed time and a constant, and
//! answer at each row, for each horizon, with probabilities of down, flat and up, and with a mean and a
//! scale of Student's t ([`loss`]). [`fit`] trains one, [`load`] reads one back. What is slow in many
//! small operations is in `kernels`.
//!
//! On the CPU, which tensors lie in this process's memory, the nets run on Burn's CPU backend itself
//! and not through its dispatch, so that kernels read tensors without copying them.
//!
//! Not here: files of features, splits, calibration, and which rows a model may learn from.

#[cfg(feature = "models")]
mod build;
#[cfg(feature = "models")]
mod fit;
#[cfg(feature = "models")]
mod fitted;
#[cfg(feature = "models")]
mod hybrid;
#[cfg(feature = "models")]
mod kernels;
#[cfg(feature = "models")]
mod loss;
#[cfg(feature = "models")]
mod lstm;
#[cfg(feature = "models")]
mod model;
mod settings;
#[cfg(test)]
#[cfg(feature = "models")]
mod tests;
#[cfg(feature = "models")]
mod windows;

#[cfg(feature = "models")]
pub use fit::{Data, Step, fit};
#[cfg(feature = "models")]
pub use fitted::load;
pub use settings::{Ablation, Hybrid, Lstm, Net, Training, Transformer};
