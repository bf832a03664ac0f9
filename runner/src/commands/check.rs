//! `quantmill check`: whether a pipeline is right, without running anything.

use clap::Args;
use quantmill_stages::Kind;

use super::File;
use crate::diagnostic::{Problem, Problems};
use crate::exit::Failure;
use crate::graph::{From, Graph};
use crate::report::text::count;
use crate::source::{self, SourceError};

/// Arguments of `check`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill check                            ./pipeline.yaml
  quantmill check pipelines/quickstart
  quantmill check --set chunks.max_tokens=9  whether this would do")]
pub struct Check {
    #[command(flatten)]
    file: File,
}

/// Prints one line where all is well; every problem of the file otherwise.
pub fn check(arguments: &Check, kinds: &[Kind]) -> Result<(), Failure> {
    let graph = arguments.file.load(kinds)?;
    missing(&graph)?;
    let outputs: usize = graph.nodes.iter().map(|node| node.outputs.len()).sum();
    println!(
        "ok: {} ({}, {}, {})",
        graph.sources.name(),
        count(graph.inputs.len(), "input"),
        count(graph.nodes.len(), "stage"),
        count(outputs, "output"),
    );
    Ok(())
}

/// Source files that are not there, all of them.
fn missing(graph: &Graph) -> Result<(), Failure> {
    let named = graph.inputs.values().map(|input| (input.pattern.as_str(), input.span));
    let paths = graph.nodes.iter().flat_map(|node| {
        node.inputs.values().filter_map(|from| match from {
            From::Path(path) => Some((path.trim_start_matches("./"), node.span)),
            _ => None,
        })
    });
    let mut problems = Vec::new();
    for (pattern, span) in named.chain(paths) {
        match source::exists(&graph.dir, pattern) {
            Ok(()) => {}
            Err(SourceError::Nothing { message, help }) => {
                let problem = Problem::new("input::missing", span, message);
                problems.push(problem.label("nothing is here").maybe_help(help));
            }
            Err(SourceError::Index(error)) => return Err(error.into()),
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Problems::new(graph.sources.clone(), problems).into()),
    }
}
