//! `quantmill graph`: a picture of a pipeline.

use clap::{Args, ValueEnum};
use quantmill_stages::Kind;

use super::File;
use crate::exit::Failure;
use crate::report::dag;
use crate::report::text::columns;

/// Arguments of `graph`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill graph
  quantmill graph pipelines/quickstart --format svg > dag.svg
  quantmill graph --format dot | dot -Tpdf > dag.pdf")]
pub struct GraphArgs {
    #[command(flatten)]
    file: File,
    /// How to draw it
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    format: Format,
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
    let graph = arguments.file.load(kinds)?;
    print!(
        "{}",
        match arguments.format {
            Format::Text => dag::text::text(&graph, columns(&std::io::stdout(), 160)),
            Format::Mermaid => dag::markup::mermaid(&graph),
            Format::Dot => dag::markup::dot(&graph),
            Format::Svg => dag::svg::svg(&graph),
        }
    );
    Ok(())
}
