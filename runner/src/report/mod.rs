//! What a person sees of a run and of a plan.

pub mod dag;
pub mod params;
pub mod progress;
pub mod table;
pub mod text;
