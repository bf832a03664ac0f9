//! Whether a model's decisions were worth anything.

pub mod answers;
pub mod assess;
pub mod backtest;
pub mod baselines;
pub mod charts;
pub mod inference;
pub mod input;
pub mod metrics;
pub mod numbers;
pub mod params;
#[cfg(test)]
mod testdata;
pub mod verdict;
