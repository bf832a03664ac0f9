//! Trains language models.

mod data;
mod log;
mod losses;
#[cfg(feature = "models")]
mod optim;
mod params;
mod schedule;
