//! `evaluate`: what a language model decides on the test span, and whether that was worth anything.
//!
//! ```text
//! prompts -> decide -> answers -> assess -> report.html, metrics.json, decisions.csv
//! ```
//!
//! Each test prompt is decoded by the model, and by the base model where there is one; the answer
//! is kept to the character and read by the one grammar of [`crate::pairs::action`]. What is no
//! action counts as flat. The replay, its metrics, the baselines and the report need no model and
//! no tensor library: `decide` runs models, by the engine of [`crate::infer`] (feature `lm`) and, on a
//! GPU, by Burn (feature `models`).
//!
//! It tunes nothing, picks nothing, and reads no row of the training span but to look back over
//! the bars before a decision.

pub mod answers;
pub mod assess;
pub mod backtest;
pub mod baselines;
pub mod charts;
#[cfg(feature = "lm")]
pub mod decide;
#[cfg(feature = "lm")]
mod head;
pub mod inference;
pub mod input;
pub mod metrics;
pub mod numbers;
pub mod params;
pub mod report;
pub mod selection;
pub mod sensitivity;
#[cfg(feature = "lm")]
pub mod softmax;
#[cfg(feature = "lm")]
pub mod stage;
#[cfg(test)]
#[cfg(feature = "lm")]
mod stage_tests;
#[cfg(test)]
pub(crate) mod testdata;
pub mod verdict;

use std::path::Path;

use crate::{Result, StageError};
pub use assess::Assessment;
pub use params::Params;
#[cfg(feature = "lm")]
pub use stage::Evaluate;

/// Writes the three outputs.
///
/// # Errors
/// A file cannot be written, or a figure cannot be drawn.
pub fn write(found: &Assessment, page: &Path, metrics: &Path, decisions: &Path) -> Result<()> {
    fs_err::write(page, report::render(found)?)?;
    let mut json = serde_json::to_string_pretty(found)
        .map_err(|e| StageError::failed(format!("cannot write the metrics: {e}")))?;
    json.push('\n');
    fs_err::write(metrics, json)?;
    let failed = |e: csv::Error| StageError::failed(format!("cannot write the decisions: {e}"));
    let mut writer = csv::Writer::from_writer(fs_err::File::create(decisions)?);
    for decision in &found.decisions {
        writer.serialize(decision).map_err(failed)?;
    }
    writer.flush()?;
    Ok(())
}
