//! `quantmill graph`: a picture of a pipeline.

use clap::{Args, ValueEnum};
use quantmill_stages::Kind;

use super::{File, Which, open};
use crate::exit::Failure;
use crate::report::dag::{self, View};
use crate::report::text::{colour_out, columns};

/// Arguments of `graph`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill graph
  quantmill graph pipelines/quickstart --format svg > dag.svg
  quantmill graph --status                   what is up to date, what will run, what waits
  quantmill graph --format dot | dot -Tpdf > dag.pdf

The cells of a matrix are drawn as one stage, as in `model ×4`, unless --cells is given.")]
pub struct GraphArgs {
    #[command(flatten)]
    file: File,
    /// How to draw it
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Mark each stage with what a run would do, in words and in colour
    #[arg(long)]
    status: bool,
    /// Draw each cell of a matrix by itself
    #[arg(long)]
    cells: bool,
}

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Boxes and lines for a terminal
    #[default]
    Text,
    /// Mermaid, for Markdown
    Mermaid,
    /// Graphviz
    Dot,
    /// One SVG file
    Svg,
}

/// Prints the picture.
pub fn graph(arguments: &GraphArgs, kinds: &[Kind]) -> Result<(), Failure> {
    let (file, cells) = (&arguments.file, arguments.cells);
    if arguments.status {
        let (pipeline, set) = (file.pipeline.clone(), file.set.clone());
        let which = Which { pipeline, set, ..Which::default() };
        let opened = open(&which, kinds)?;
        let plan = opened.plan(&which)?;
        print(arguments.format, &View { graph: &opened.graph, plan: Some(&plan), cells });
    } else {
        print(arguments.format, &View { graph: &file.load(kinds)?, plan: None, cells });
    }
    Ok(())
}

fn print(format: Format, view: &View) {
    print!(
        "{}",
        match format {
            Format::Text => {
                dag::text::text(view, columns(&std::io::stdout(), 160), colour_out())
            }
            Format::Mermaid => dag::markup::mermaid(view),
            Format::Dot => dag::markup::dot(view),
            Format::Svg => dag::svg::svg(view),
        }
    );
}
