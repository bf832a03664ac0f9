//! From a model's logits to text: what is drawn, what may be drawn, and when it ends.
//!
//! [`sampling`] draws a token, [`grammar`] says which tokens a grammar allows, [`decoder`] puts both
//! together for one sample, step by step, without a model: whoever has logits can drive it, alone or
//! for many samples in one batch. [`decision`] asks a model for one decision of a market state.
//! Nothing here computes logits.

pub mod decoder;
pub mod grammar;
pub mod sampling;
pub mod vocabulary;

#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Finish, Next, Wanted};
pub use grammar::{Constraint, Grammar, Grammars};
pub use sampling::Sampling;
pub use vocabulary::Vocabulary;
