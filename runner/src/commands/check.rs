//! `quantmill check`: whether a pipeline is right, without running anything.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use quantmill_stages::Kind;

use super::File;
use crate::diagnostic::{Problem, Problems, Span};
use crate::exit::Failure;
use crate::graph::{self, From, Graph};
use crate::report::text::{colour, columns, count};
use crate::source::{self, SourceError};
use crate::spec::{self, Spec};

/// Arguments of `check`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill check                            ./pipeline.yaml
  quantmill check pipelines/quickstart
  quantmill check --set chunks.max_tokens=9  whether this would do
  quantmill check --json                     for an editor: file, line, column, code, help")]
pub struct Check {
    #[command(flatten)]
    file: File,
    /// Print the problems as a JSON list
    #[arg(long)]
    json: bool,
}

/// Prints one line where all is well; every problem of the file otherwise. Warnings are printed and
/// do not count.
pub fn check(arguments: &Check, kinds: &[Kind]) -> Result<(), Failure> {
    super::one_each(&arguments.file.set)?;
    let path = crate::find(arguments.file.pipeline.as_deref())?;
    let text = crate::text(&path)?;
    let (graph, problems) = judge(&path, &text, &arguments.file.set, kinds)?;
    if arguments.json {
        print!("{}", problems.json());
        return match problems.any_error() {
            true => Err(Failure::Listed),
            false => Ok(()),
        };
    }
    let Some(graph) = graph else { return Err(problems.into()) };
    if problems.iter().next().is_some() {
        let width = columns(&std::io::stderr(), 100).clamp(60, 120);
        eprint!("{}", problems.render(colour(), width));
    }
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

/// All that is wrong with a pipeline, source files that are not there among it; the graph, where
/// nothing but warnings was found.
pub fn judge(
    path: &Path,
    text: &str,
    set: &[(String, String)],
    kinds: &[Kind],
) -> Result<(Option<Graph>, Problems), Failure> {
    let spec = match spec::parse(path, text, set, kinds) {
        Ok(spec) => spec,
        Err(problems) => return Ok((None, problems)),
    };
    let (dir, mut reads) = (spec.dir.clone(), reads(&spec));
    match graph::build(spec, kinds) {
        Ok(graph) => {
            // What only left-out stages read need not be there.
            let read = graph_reads(&graph);
            reads.retain(|(path, _)| read.contains(path.as_str()));
            let mut problems = missing(&dir, &reads)?;
            let wrong = !problems.is_empty();
            problems.extend(graph.warnings.iter().cloned());
            let problems = Problems::new(graph.sources.clone(), problems);
            Ok((Some(graph).filter(|_| !wrong), problems))
        }
        Err(problems) => {
            let more = missing(&dir, &reads)?;
            Ok((None, problems.with(more)))
        }
    }
}

/// What a file that is wrong reads: its inputs and paths.
fn reads(spec: &Spec) -> Vec<(String, Span)> {
    let inputs = spec.inputs.iter().map(|input| (input.pattern.clone(), input.span));
    let from = spec.stages.iter().flat_map(|stage| stage.from.iter().map(|(_, text)| text));
    let mapped = spec.stages.iter().filter_map(|stage| stage.map.as_ref());
    let path = |text: &spec::Text| Some((text.text.strip_prefix("./")?.to_owned(), text.span));
    let plain = |(path, _): &(String, Span)| !path.trim().is_empty() && !path.contains("..");
    inputs.chain(from.chain(mapped).filter_map(path)).filter(plain).collect()
}

/// What a graph reads.
fn graph_reads(graph: &Graph) -> BTreeSet<&str> {
    let inputs = graph.inputs.values().map(|input| input.pattern.as_str());
    let from = graph.nodes.iter().flat_map(|node| node.inputs.iter().map(|(_, from)| from));
    let paths = from.filter_map(|from| match from {
        From::Path(path) => path.strip_prefix("./"),
        _ => None,
    });
    inputs.chain(paths).collect()
}

/// Source files that are not there, all of them.
fn missing(dir: &Path, reads: &[(String, Span)]) -> Result<Vec<Problem>, Failure> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (pattern, span) in reads {
        let span = *span;
        if !seen.insert(pattern) {
            continue;
        }
        match source::exists(dir, pattern) {
            Ok(()) => {}
            Err(SourceError::Nothing { message, help }) => {
                let problem = Problem::new("input::missing", span, message);
                problems.push(problem.label("nothing is here").maybe_help(help));
            }
            Err(SourceError::Index(error)) => return Err(error.into()),
        }
    }
    Ok(problems)
}
