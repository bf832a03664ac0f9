//! From a model's logits to text: what is drawn, what may be drawn, and when it ends.
//!
//! [`sampling`] draws a token, [`grammar`] says which tokens a grammar allows, [`decoder`] puts both
//! together for one sample, step by step, without a model: whoever has logits can drive it, alone or
//! for many samples in one batch. [`model`] is what a model brings along (engine, vocabulary, chat
//! template), [`batch`] runs many samples at once, [`decision`] asks for one decision of a market
//! state. Logits are computed by [`crate::infer`].

pub mod batch;
pub mod decision;
pub mod decoder;
pub mod grammar;
pub mod model;
pub mod sampling;
pub mod vocabulary;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Hear, Job, Told};
pub use decision::{Answer, Asked, Asker};
pub use decoder::{Decoder, Finish, Next, Opinion, Token, Wanted};
pub use grammar::{Constraint, Grammar, Grammars};
pub use model::{Model, Prompt};
pub use sampling::Sampling;
pub use vocabulary::Vocabulary;
