//! Whether a model's decisions were worth anything.

pub mod backtest;
pub mod inference;
pub mod metrics;
#[cfg(test)]
mod testdata;
