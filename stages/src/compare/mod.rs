//! `compare`: several evaluated models on the same bars, side by side, and what choosing among them
//! is worth.
//!
//! ```text
//! metrics.json + returns.csv of each run -> runs -> found -> report.html, report.md, compare.json, figures/
//! ```
//!
//! Everything that follows from returns is computed here from the returns, on the same dates for
//! all: Sharpe ratios and their intervals, paired differences, the deflated Sharpe ratio, the
//! probability of overfitting. What does not (trades, turnover, forecast quality) is taken from the
//! metrics that came with them.
//!
//! It trains nothing, replays nothing, and counts only the tries that it is given: those of other
//! runs are in the ledger of trials.

pub mod charts;
pub mod found;
pub mod input;
pub mod markdown;
pub mod params;
pub mod record;
pub mod report;
pub mod resample;
pub mod seeds;
#[cfg(test)]
mod tests;
pub mod words;

pub use found::Comparison;
pub use params::Params;

use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};

/// The stage `compare`.
pub struct Compare;

impl Stage for Compare {
    const NAME: &'static str = "compare";
    const VERSION: u32 = 2;
    const ABOUT: &'static str =
        "put several evaluations side by side, and say what choosing among them is worth";
    const SEEDED: bool = true;
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::any()]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("report", Format::Report, "report.html"),
            Port::file("markdown", Format::Any, "report.md"),
            Port::file("metrics", Format::Metrics, "compare.json"),
            Port::tree("figures", Format::Any, "figures"),
        ]
    }

    fn check(params: &Params) -> std::result::Result<(), Invalid> {
        params.check()
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let runs = input::runs(ctx)?;
        let runs = input::align(runs, params.align)?;
        let found = found::compare(params, runs, ctx.seed(), &|done, total| {
            ctx.progress(done as u64, total as u64, "draws", "")
        })?;
        for warning in &found.warnings {
            ctx.warn(warning);
        }
        say(&found, ctx);
        let figures = charts::figures(&found)
            .map_err(|e| StageError::failed(format!("cannot draw a figure: {e}")))?;
        fs_err::write(ctx.output("report")?, report::render(&found, &figures)?)?;
        fs_err::write(ctx.output("markdown")?, markdown::report(&found, &figures))?;
        let mut json = serde_json::to_string_pretty(&found)
            .map_err(|e| StageError::failed(format!("cannot write the metrics: {e}")))?;
        json.push('\n');
        fs_err::write(ctx.output("metrics")?, json)?;
        let folder = ctx.output("figures")?;
        for figure in &figures {
            fs_err::write(folder.join(format!("{}.svg", figure.name)), &figure.svg)?;
        }
        fs_err::write(folder.join("captions.md"), markdown::captions(&found, &figures))?;
        Ok(())
    }
}

/// Keeps the numbers that a run is compared by.
fn say(found: &Comparison, ctx: &Context) {
    let best = found.best.and_then(|at| found.models.get(at));
    let numbers = [
        ("trials", Some(found.selection.trials as f64)),
        ("sharpe_best", best.and_then(|m| m.sharpe)),
        ("sharpe_by_chance", found.selection.sharpe_by_chance),
        ("deflated_sharpe", found.selection.deflated_sharpe),
        ("pbo", found.selection.overfit.as_ref().map(|o| o.pbo)),
        ("min_track_record", found.selection.min_track_record.map(|n| n as f64)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            ctx.metric(name, value);
        }
    }
}
