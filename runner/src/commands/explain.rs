//! `quantmill explain`: why a stage runs, or what made it, from its sources on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use clap::Args;
use quantmill_stages::Kind;
use serde_json::{Value, json};

use super::plan::{verdict, waits_said, word};
use super::{Opened, Which, open};
use crate::exit::Failure;
use crate::graph::{From, Node};
use crate::past::{self, Made};
use crate::plan::{Plan, Step, Verdict};
use crate::report::text::{Paint, clip, colour_out, columns, count, duration, pad, paint};
use crate::why::{self, Change};

/// The chain of more stages than this is cut short.
const DRAWN: usize = 60;
/// Deeper stages are not moved in any further.
const DEEP: usize = 16;

/// Arguments of `explain`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill explain report                   a stage of the pipeline.yaml of this folder
  quantmill explain pipelines/quickstart report
  quantmill explain chunks --set max_tokens=1200
  quantmill explain --key chunks | jq .      what decides its outputs, and nothing else does

The key's digest is that of the very bytes that --key prints (no newline follows them), by any tool
that has BLAKE3 with key derivation:
  quantmill explain --key chunks | b3sum --derive-key \"quantmill 2026 action key v1\"
gives the `key` of the stage in pipeline.lock.")]
pub struct Explain {
    #[command(flatten)]
    which: Which,
    /// Print the canonical JSON of the stage's key, as it is hashed
    #[arg(long, conflicts_with = "json")]
    key: bool,
    /// Draw the whole chain, however long it is
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the verdict, its causes, and the chain of stages from the sources on.
pub fn explain(arguments: &Explain, kinds: &[Kind]) -> Result<(), Failure> {
    let opened = open(&arguments.which, kinds)?;
    let targets = arguments.which.wish().targets;
    if targets.is_empty() {
        let help = "name it, as in `quantmill explain report`";
        return Err(Failure::usage("which stage?", Some(help.into())));
    }
    let plan = opened.plan(&arguments.which)?;
    let nodes = opened.graph.nodes.iter().enumerate();
    let asked = |node: &Node| targets.iter().any(|t| *t == node.name || *t == node.base);
    let asked: Vec<usize> = nodes.filter(|(_, node)| asked(node)).map(|(index, _)| index).collect();
    if arguments.key {
        return key(&opened, &plan, &asked);
    }
    let chains = asked.iter().map(|&index| Chain::new(&opened, &plan, index));
    let asked: Vec<Chain> = chains.collect::<Result<_, _>>()?;
    if arguments.json {
        let all: Vec<Value> = asked.iter().map(Chain::json).collect::<Result<_, _>>()?;
        println!("{:#}", Value::from(all));
        return Ok(());
    }
    for (i, chain) in asked.iter().enumerate() {
        let space = if i > 0 { "\n" } else { "" };
        print!("{space}{}", chain.text(arguments.all)?);
    }
    Ok(())
}

/// Prints a key, to the byte.
fn key(opened: &Opened, plan: &Plan, asked: &[usize]) -> Result<(), Failure> {
    let &[index] = asked else {
        let cells = asked.iter().map(|&index| opened.graph.nodes[index].name.as_str());
        let help = cells.collect::<Vec<_>>().join(", ");
        return Err(Failure::usage("a key is that of one stage", Some(format!("one of {help}"))));
    };
    let name = &opened.graph.nodes[index].name;
    let Some(Step { verdict, .. }) = &plan.steps[index] else { return Ok(()) };
    if let Verdict::Unknown(waits) = verdict {
        let waits = waits_said(opened, waits);
        let message = format!("the key of `{name}` is not known yet: it waits on {waits}");
        return Err(Failure::usage(
            message,
            Some(format!("`quantmill run` makes what `{name}` reads")),
        ));
    }
    let key = plan.key(&opened.graph, &opened.state, index)?;
    std::io::stdout().write_all(key.json().as_bytes())?;
    Ok(())
}

/// A stage and all that is before it.
struct Chain<'a> {
    opened: &'a Opened,
    plan: &'a Plan,
    index: usize,
    /// It and all before it, in the graph's order.
    stages: BTreeSet<usize>,
    /// Why they run, or what of their own has changed.
    changes: BTreeMap<usize, Vec<Change>>,
    /// Which run made the hits among them.
    made: BTreeMap<String, Made>,
}

impl<'a> Chain<'a> {
    fn new(opened: &'a Opened, plan: &'a Plan, index: usize) -> Result<Chain<'a>, Failure> {
        let mut stages = BTreeSet::new();
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            if plan.steps[index].is_some() && stages.insert(index) {
                open.extend(opened.graph.nodes[index].before());
            }
        }
        let mut changes = BTreeMap::new();
        for &index in &stages {
            if let Some(step) = &plan.steps[index] {
                changes.insert(index, opened.changes(plan, index, step)?);
            }
        }
        let mut chain = Chain { opened, plan, index, stages, changes, made: BTreeMap::new() };
        let hits = chain.steps().filter(|(_, step)| matches!(step.verdict, Verdict::Hit(_)));
        let keys = hits
            .filter_map(|(index, step)| Some((opened.graph.nodes[index].name.as_str(), step.key?)));
        chain.made = past::made(&opened.state.home, keys.collect());
        Ok(chain)
    }

    fn steps(&self) -> impl Iterator<Item = (usize, &'a Step)> {
        self.stages.iter().filter_map(|&index| Some((index, self.plan.steps[index].as_ref()?)))
    }

    /// All changes, each with the stage that it concerns.
    fn causes(&self) -> impl Iterator<Item = (&Node, &Change)> {
        self.changes.iter().flat_map(move |(&index, changes)| {
            changes.iter().map(move |change| (&self.opened.graph.nodes[index], change))
        })
    }

    /// Of a hit: what differs from the lock's record, where an edit was taken back.
    fn reverted(&self, index: usize, step: &Step) -> Result<Vec<Change>, Failure> {
        let Opened { graph, state, lock, .. } = self.opened;
        let node = &graph.nodes[index];
        let (Verdict::Hit(_), Some(key), false) = (&step.verdict, step.key, node.frozen) else {
            return Ok(Vec::new());
        };
        match lock.get(&node.name) {
            Some(record) if record.key != key => {
                Ok(why::since(state, &record, &self.plan.ready(graph, state, index)?)?)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn made_said(&self, node: &Node, step: &Step) -> String {
        let Verdict::Hit(result) = &step.verdict else { return String::new() };
        let took = match result.millis {
            0 => String::new(),
            millis => format!(" in {}", duration(millis)),
        };
        match self.made.get(&node.name) {
            Some(made) => format!("made {} by run {}{took}", time(made.at), made.run),
            None => format!("made{took} by a run of which there is no record"),
        }
    }

    fn text(&self, all: bool) -> Result<String, Failure> {
        let on = colour_out();
        let Some(step) = &self.plan.steps[self.index] else { return Ok(String::new()) };
        let node = &self.opened.graph.nodes[self.index];
        let (word, colour) = word(step);
        let name = paint(on, Paint::Bold, &node.name);
        let mut out = format!("{name}: {}", paint(on, colour, word));
        match &step.verdict {
            Verdict::Hit(_) => out.push_str(&self.hit(self.index, step)?),
            Verdict::Stale(_) => out.push_str(", because\n"),
            Verdict::Unknown(waits) => {
                let own = self.changes.get(&self.index).is_some_and(|own| !own.is_empty());
                let kept = if own { "" } else { " (equal output would leave it a hit)" };
                let waits = waits_said(self.opened, waits);
                out.push_str(&format!(", waits on {waits}{kept}, because\n"));
            }
        }
        for (shown, (stage, change)) in self.causes().enumerate() {
            if shown == DRAWN && !all {
                let more = self.causes().count() - shown;
                out.push_str(&format!("  and {} (--all names them)\n", count(more, "more reason")));
                break;
            }
            out.push_str(&format!("  {}\n", paint(on, Paint::Yellow, &cause(stage, change))));
        }
        let reads = node.items.map(|over| over.reads()).filter(|reads| !reads.is_empty());
        if let (Some(reads), false) = (reads, matches!(step.verdict, Verdict::Hit(_))) {
            out.push_str(&format!("  {reads}\n"));
        }
        out.push('\n');
        out.push_str(&self.tree(all)?);
        Ok(out)
    }

    /// When it was made, from what, and where it is.
    fn hit(&self, index: usize, step: &Step) -> Result<String, Failure> {
        let node = &self.opened.graph.nodes[index];
        let mut out = String::from(if node.frozen { ", frozen\n" } else { "\n" });
        let mut line = |title: &str, text: &str| {
            out.push_str(format!("  {} {text}", pad(title, 8)).trim_end());
            out.push('\n');
        };
        line("made", self.made_said(node, step).trim_start_matches("made "));
        let reverted = self.reverted(index, step)?;
        if !reverted.is_empty() {
            let since = why::line(&reverted);
            line("reverted", &format!("since the last run, to what was made before: {since}"));
        }
        let Verdict::Hit(result) = &step.verdict else { return Ok(out) };
        let key = self.plan.key(&self.opened.graph, &self.opened.state, index)?;
        line("key", &key.digest().to_string());
        for (i, (port, artifact)) in key.inputs.iter().enumerate() {
            line(if i == 0 { "inputs" } else { "" }, &format!("{artifact}  {port}"));
        }
        for (i, made) in node.outputs.iter().enumerate() {
            if let Some(artifact) = result.outputs.get(made.port.name.as_ref()) {
                let place = self.opened.graph.dir.join(&made.dest);
                let title = if i == 0 { "outputs" } else { "" };
                line(title, &format!("{artifact}  {}", place.display()));
            }
        }
        Ok(out)
    }

    /// The stage, and below it what feeds it: first what made it run.
    fn tree(&self, all: bool) -> Result<String, Failure> {
        let (on, columns) = (colour_out(), columns(&std::io::stdout(), 120));
        let mut out = String::new();
        let mut seen = BTreeSet::new();
        // What is to be drawn, the next one last: where, by which line, and whether it is the last
        // of its siblings.
        let mut open = vec![(Part::Stage(self.index), String::new(), 0, true)];
        let mut drawn = 0;
        while let Some((part, indent, depth, last)) = open.pop() {
            if drawn == DRAWN && !all && self.stages.len() > DRAWN {
                let more = self.stages.len() - seen.len();
                out.push_str(&format!("… and {} (--all draws them)\n", count(more, "more stage")));
                break;
            }
            drawn += 1;
            let arm = match (depth, last) {
                (0, _) => "",
                (_, true) => "└─ ",
                (_, false) => "├─ ",
            };
            let (name, said, colour) = match &part {
                Part::Source(name, said) => (name.clone(), said.clone(), Paint::Dim),
                Part::Stage(index) => {
                    let node = &self.opened.graph.nodes[*index];
                    let again = !seen.insert(*index);
                    match &self.plan.steps[*index] {
                        Some(_) if again => (node.name.clone(), "(above)".into(), Paint::Dim),
                        Some(step) => (node.name.clone(), self.said(*index, step)?, word(step).1),
                        None => continue,
                    }
                }
            };
            let room = columns.saturating_sub(indent.chars().count() + arm.len().min(3));
            let room = room.saturating_sub(name.chars().count() + 2);
            let said = paint(on, colour, &clip(&said, room.max(24)));
            out.push_str(format!("{indent}{arm}{name}  {said}").trim_end());
            out.push('\n');
            if let (Part::Stage(index), false) = (&part, said.contains("(above)")) {
                let indent = match (depth, last) {
                    (0, _) | (DEEP.., _) => indent,
                    (_, true) => indent + "   ",
                    (_, false) => indent + "│  ",
                };
                let parts = self.parts(*index)?;
                let n = parts.len();
                let parts = parts.into_iter().enumerate().rev();
                open.extend(parts.map(|(i, part)| (part, indent.clone(), depth + 1, i + 1 == n)));
            }
        }
        Ok(out)
    }

    fn said(&self, index: usize, step: &Step) -> Result<String, Failure> {
        let (node, word) = (&self.opened.graph.nodes[index], word(step).0);
        let changes = self.changes.get(&index).map(|changes| why::line(changes));
        let changes = changes.filter(|changes| !changes.is_empty());
        Ok(match &step.verdict {
            Verdict::Hit(_) if self.reverted(index, step)?.is_empty() => {
                format!("{word}: {}", self.made_said(node, step))
            }
            Verdict::Hit(_) => format!("{word}: input reverted; {}", self.made_said(node, step)),
            Verdict::Stale(_) => format!("{word}: {}", changes.unwrap_or_default()),
            Verdict::Unknown(waits) => {
                let changes = changes.map(|changes| format!("; {changes}")).unwrap_or_default();
                format!("{word}: waits on {}{changes}", waits_said(self.opened, waits))
            }
        })
    }

    /// What feeds a stage: those that run, those that wait, hits, sources.
    fn parts(&self, index: usize) -> Result<Vec<Part>, Failure> {
        let Opened { graph, state, .. } = self.opened;
        let node = &graph.nodes[index];
        let ready = self.plan.ready(graph, state, index)?;
        let mut stages = node.before();
        stages.sort_by_key(|&before| match self.plan.steps[before].as_ref().map(|s| &s.verdict) {
            Some(Verdict::Stale(_)) => 0,
            Some(Verdict::Unknown(_)) => 1,
            _ => 2,
        });
        let mut parts: Vec<Part> = stages.into_iter().map(Part::Stage).collect();
        for (port, from) in &node.inputs {
            let (name, pattern) = match from {
                From::Input(name) => {
                    let pattern = graph.inputs.get(name).map(|i| i.pattern.clone());
                    (name.clone(), pattern.unwrap_or_default())
                }
                From::Path(path) => (path.clone(), String::new()),
                From::Output { .. } | From::Cells { .. } => continue,
            };
            let files = ready.given.get(port).filter(|given| given.input.tree);
            let files = files.map(|given| count(given.input.files.len(), "file"));
            let said: Vec<String> =
                [pattern].into_iter().filter(|p| !p.is_empty()).chain(files).collect();
            parts.push(Part::Source(name, said.join(", ")));
        }
        Ok(parts)
    }

    fn json(&self) -> Result<Value, Failure> {
        let mut chain = Vec::new();
        for ((index, step), changes) in self.steps().zip(self.changes.values()) {
            let node = &self.opened.graph.nodes[index];
            let mut value = verdict(self.opened, node, step, changes);
            let reverted = self.reverted(index, step)?;
            let reverted: Vec<String> = reverted.iter().map(Change::to_string).collect();
            value["reverted"] = reverted.into();
            let made = self.made.get(&node.name);
            value["made"] = made.map(|made| json!({ "run": made.run, "at_ms": made.at })).into();
            if let Verdict::Hit(result) = &step.verdict {
                let outputs = node.outputs.iter().filter_map(|out| {
                    let artifact = result.outputs.get(out.port.name.as_ref())?;
                    let place = self.opened.graph.dir.join(&out.dest);
                    let value = json!({ "artifact": artifact, "path": place });
                    Some((out.port.name.to_string(), value))
                });
                value["outputs"] = Value::Object(outputs.collect());
            }
            chain.push(value);
        }
        let causes: Vec<String> = self.causes().map(|(node, change)| cause(node, change)).collect();
        let name = &self.opened.graph.nodes[self.index].name;
        Ok(json!({ "stage": name, "because": causes, "chain": chain }))
    }
}

/// Something that is drawn.
enum Part {
    /// A stage, by its place in the graph.
    Stage(usize),
    /// A source: its name, and what there is of it.
    Source(String, String),
}

/// A change with its stage: `chunks.max_tokens: 2000 -> 1200`.
fn cause(node: &Node, change: &Change) -> String {
    match change {
        Change::Value { .. } => format!("{}.{change}", node.name),
        _ => format!("{}: {change}", node.name),
    }
}

/// The time by this machine's clock and zone.
fn time(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string()
}
