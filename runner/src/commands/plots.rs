//! `quantmill plots`: a number of runs against another, as SVG.

use std::path::PathBuf;

use clap::Args;

use super::runs::{Of, Picked, print};
use crate::exit::Failure;
use crate::experiment::chart;
use crate::experiment::values::Frame;

/// Arguments of `plots`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill plots --x train.learning_rate --y evaluate.sharpe -o sharpe.svg
  quantmill plots --sweep 20261121-0813 --x seed --y sharpe > seed.svg")]
pub struct Plots {
    #[command(flatten)]
    picked: Picked,
    #[command(flatten)]
    of: Of,
    /// A parameter, an axis, a value of `--set`, or a metric
    #[arg(long, value_name = "NAME")]
    x: String,
    /// A metric, or another number
    #[arg(long, value_name = "NAME")]
    y: String,
    /// The file to write [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Draws the figure.
pub fn plots(arguments: &Plots) -> Result<(), Failure> {
    let frame = Frame::new(&arguments.picked.runs(&arguments.of)?);
    let (x, y) = (frame.name(&arguments.x)?, frame.name(&arguments.y)?);
    let svg =
        chart::svg(&frame, &x, &y).map_err(|error| std::io::Error::other(error.to_string()))?;
    let Some(svg) = svg else {
        return Err(Failure::usage(format!("no run has numbers for both `{x}` and `{y}`"), None));
    };
    match &arguments.output {
        Some(path) => Ok(fs_err::write(path, svg)?),
        None => print(&svg),
    }
}
