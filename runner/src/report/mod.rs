//! What a person sees of a run and of a plan.

pub mod dag;
pub mod progress;
pub mod table;
pub mod text;
