//! `evaluate`: what a model decides on the test span, and whether that was worth anything.
//!
//! ```text
//! prompts -> decide -> answers -> assess ------.
//! forecasts -> policy -> weights -> positions -+-> contest -> Assessment -> report, metrics, returns
//! ```
//!
//! There are two ways in. A language model decodes each test prompt, and so does the base model where
//! there is one; the answer is kept to the character and read by the one grammar of
//! [`crate::pairs::action`]; what is no action counts as flat. A numerical model's forecasts become
//! target weights of one instrument or many. From there all is one: strategies are replayed on the
//! same bars under the same rules, resampled by the same draws, tested for look-ahead, and judged. The
//! replay, its metrics, the baselines and the report need no model and no tensor library: only
//! `decide` runs models, by the engine of [`crate::infer`] (feature `lm`) and, on a GPU, by Burn
//! (feature `models`).
//!
//! It tunes nothing, picks nothing, and reads no row of the training span but to look back over
//! the bars before a decision and to test features for what they cannot know.

pub mod anonymise;
mod answer_charts;
pub mod answers;
pub mod assess;
pub mod assessment;
pub mod backtest;
#[cfg(test)]
mod backtest_tests;
pub mod baselines;
pub mod causality;
pub mod charts;
pub mod contest;
pub mod control;
#[cfg(feature = "lm")]
pub mod decide;
pub mod document;
pub mod facts;
pub mod forecasts;
#[cfg(feature = "lm")]
mod head;
pub mod importance;
pub mod inference;
pub mod input;
pub mod leaks;
pub mod metrics;
pub mod numbers;
pub mod numerical;
#[cfg(test)]
mod numerical_tests;
pub mod overfit;
pub mod panel;
pub mod params;
pub mod plan;
mod plots;
pub mod policy;
pub mod portfolio;
#[cfg(test)]
mod portfolio_tests;
pub mod positions;
pub mod quality;
pub mod queues;
pub mod report;
mod sections;
pub mod selection;
pub mod sensitivity;
pub mod significance;
#[cfg(feature = "lm")]
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
pub use assessment::Assessment;
pub use params::Params;
#[cfg(feature = "lm")]
pub use stage::Evaluate;

/// Where the outputs go.
pub struct Places<'a> {
    /// The page.
    pub report: &'a Path,
    /// The same in Markdown.
    pub markdown: &'a Path,
    /// Every number, as JSON.
    pub metrics: &'a Path,
    /// What was decided.
    pub decisions: &'a Path,
    /// Net returns of every strategy.
    pub returns: &'a Path,
}

/// Writes the outputs.
///
/// # Errors
/// A file cannot be written, or a figure cannot be drawn.
pub fn write(found: &Assessment, places: &Places) -> Result<()> {
    let report = report::render(found)?;
    fs_err::write(places.report, report.html)?;
    fs_err::write(places.markdown, report.markdown)?;
    let mut json = serde_json::to_string_pretty(found)
        .map_err(|e| StageError::failed(format!("cannot write the metrics: {e}")))?;
    json.push('\n');
    fs_err::write(places.metrics, json)?;
    let failed = |e: csv::Error| StageError::failed(format!("cannot write the decisions: {e}"));
    let mut writer = csv::Writer::from_writer(fs_err::File::create(places.decisions)?);
    for decision in &found.decisions {
        writer.serialize(decision).map_err(failed)?;
    }
    writer.flush()?;
    returns(found, places.returns)
}

/// Net return of each bar for every strategy, the judged model first; dated by the close it ends at.
fn returns(found: &Assessment, path: &Path) -> Result<()> {
    let failed = |e: csv::Error| StageError::failed(format!("cannot write the returns: {e}"));
    let mut writer = csv::Writer::from_writer(fs_err::File::create(path)?);
    let names = found.strategies.iter().map(|s| s.name.as_str());
    writer.write_record(std::iter::once("date").chain(names)).map_err(failed)?;
    let series: Vec<Vec<f64>> = found.strategies.iter().map(|s| s.path.returns()).collect();
    for (i, date) in found.dates.iter().skip(1).enumerate() {
        let cells = series.iter().map(|s| s.get(i).copied().unwrap_or(0.0).to_string());
        writer.write_record(std::iter::once(date.clone()).chain(cells)).map_err(failed)?;
    }
    Ok(writer.flush()?)
}
