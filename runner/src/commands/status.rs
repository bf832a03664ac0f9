//! `quantmill status`: which stages are up to date, and whether their outputs are in place.

use clap::Args;
use quantmill_cache::Artifact;
use quantmill_stages::Kind;

use super::{Opened, Which, name_width, open};
use crate::exit::Failure;
use crate::graph::Node;
use crate::plan::Verdict;
use crate::report::text::{Paint, colour_out, duration, pad, paint};
use crate::why;

/// Arguments of `status`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill status pipelines/quickstart
  quantmill status . report")]
pub struct Status {
    #[command(flatten)]
    which: Which,
}

/// Prints a line a stage.
pub fn status(arguments: &Status, kinds: &[Kind]) -> Result<(), Failure> {
    let opened = open(&arguments.which, kinds)?;
    let plan = opened.plan(&arguments.which)?;
    let (on, width) = (colour_out(), name_width(&opened.graph));
    for (node, step) in opened.graph.nodes.iter().zip(&plan.steps) {
        let Some(step) = step else { continue };
        let (mark, said) = match &step.verdict {
            Verdict::Hit(result) => {
                let took = if result.millis > 0 {
                    format!("took {}", duration(result.millis))
                } else {
                    String::new()
                };
                match misplaced(&opened, node, &result.outputs)?.as_deref() {
                    None => (paint(on, Paint::Green, "fresh  "), took),
                    Some(path) => {
                        let said = format!("{path} is missing or edited: `run` puts it back");
                        (paint(on, Paint::Yellow, "edited "), said)
                    }
                }
            }
            Verdict::Stale(reasons) => (paint(on, Paint::Yellow, "stale  "), why::line(reasons)),
            Verdict::Unknown(_) => {
                (paint(on, Paint::Dim, "unknown"), "something before it is stale".into())
            }
        };
        let line = format!("{mark} {} {} {said}", pad(&node.name, width), pad(node.kind.name, 9));
        println!("{}", line.trim_end());
    }
    Ok(())
}

/// The first output that is not in its place as it should be.
fn misplaced(
    opened: &Opened,
    node: &Node,
    outputs: &std::collections::BTreeMap<String, Artifact>,
) -> Result<Option<String>, Failure> {
    for out in &node.outputs {
        let Some(artifact) = outputs.get(out.port.name.as_ref()) else { continue };
        let place = opened.graph.dir.join(&out.dest);
        if !opened.state.index.stands(artifact, &place)? {
            return Ok(Some(out.dest.display().to_string()));
        }
    }
    Ok(None)
}
