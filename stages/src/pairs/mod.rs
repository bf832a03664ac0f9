//! Actions, how they are scored, and preference pairs made of the two.
//!
//! [`action`] is the grammar of a decision, [`reward`] its score against what followed, [`fill`]
//! the model of resting orders that the score needs.

pub mod action;
pub mod fill;
pub mod reward;
