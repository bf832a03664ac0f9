//! `quantmill plan`: what `run` would do, and why, without doing it.

use clap::Args;
use quantmill_stages::Kind;

use super::{Which, name_width, open};
use crate::exit::Failure;
use crate::plan::Verdict;
use crate::report::text::{Paint, colour_out, count, duration, pad, paint};
use crate::why;

/// Arguments of `plan`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill plan pipelines/quickstart
  quantmill plan --set sft.steps=50          what another value would re-run")]
pub struct PlanArgs {
    #[command(flatten)]
    which: Which,
}

/// Prints a line a stage: hit, run with the reasons, or what it waits for.
pub fn plan(arguments: &PlanArgs, kinds: &[Kind]) -> Result<(), Failure> {
    let opened = open(&arguments.which, kinds)?;
    let plan = opened.plan(&arguments.which)?;
    let (on, width) = (colour_out(), name_width(&opened.graph));
    let mut out = String::new();
    let (mut hits, mut runs, mut unknown, mut expected) = (0, 0, 0, 0);
    for (node, step) in opened.graph.nodes.iter().zip(&plan.steps) {
        let Some(step) = step else { continue };
        let (word, why) = match &step.verdict {
            Verdict::Hit(_) => {
                hits += 1;
                (paint(on, Paint::Dim, "hit    "), String::new())
            }
            Verdict::Stale(reasons) => {
                runs += 1;
                (paint(on, Paint::Yellow, "run    "), why::line(reasons))
            }
            Verdict::Unknown(waits) => {
                unknown += 1;
                let names: Vec<&str> =
                    waits.iter().map(|i| opened.graph.nodes[*i].name.as_str()).collect();
                (paint(on, Paint::Dim, "unknown"), format!("waits on {}", names.join(", ")))
            }
        };
        let mut line =
            format!("{word} {} {} {why}", pad(&node.name, width), pad(node.kind.name, 9));
        if let (Some(last), false) = (step.last, matches!(step.verdict, Verdict::Hit(_))) {
            expected += last;
            line.push_str(&format!(" ({} last time)", duration(last)));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push_str(&format!(
        "{}: {hits} hit, {runs} to run, {unknown} unknown",
        count(hits + runs + unknown, "stage")
    ));
    if expected > 0 {
        out.push_str(&format!("; at most about {} by the last run", duration(expected)));
    }
    println!("{out}");
    Ok(())
}
