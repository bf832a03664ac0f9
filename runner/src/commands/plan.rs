//! `quantmill plan`: what `run` would do, and why, without doing it.

use clap::Args;
use quantmill_stages::{Items, Kind};
use serde_json::{Value, json};

use super::{Opened, Shown, Which, name_width, open};
use crate::estimate::{self, Cost, Range};
use crate::exit::Failure;
use crate::graph::Node;
use crate::past::Past;
use crate::plan::{Plan, Step, Verdict};
use crate::report::text::{Paint, colour_out, columns, count, duration, number, pad, paint};
use crate::run::{items, machine};
use crate::why::Change;

/// Of each verdict so many stages are named; of more only with `--all`.
const NAMED: usize = 40;

/// Arguments of `plan`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill plan pipelines/quickstart
  quantmill plan --set sft.steps=50          what another value would re-run
  quantmill plan --force model               what a forced run would do
  quantmill plan --json | jq '.stages[] | select(.verdict == \"run\").name'

A stage is a `hit` (its outputs are known), will `run`, or is `unknown`: it waits on one that runs,
and remains a hit if that gives the same again.")]
pub struct PlanArgs {
    #[command(flatten)]
    which: Which,
    /// Actions at a time, for the estimate [default: the number of processors]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    shown: Shown,
}

/// A stage of the plan with what is said of it.
struct Row<'a> {
    node: &'a Node,
    step: &'a Step,
    changes: Vec<Change>,
    /// Items to run, and all items, where it maps over items and their number is known.
    items: Option<(usize, usize)>,
    cost: Option<Cost>,
}

/// Prints a line a stage: hit, run with the reasons, or what it waits for.
pub fn plan(arguments: &PlanArgs, kinds: &[Kind]) -> Result<(), Failure> {
    let opened = open(&arguments.which, kinds)?;
    let plan = opened.plan(&arguments.which)?;
    let jobs = arguments.jobs.map_or_else(|| machine::detect().cpu, u32::from);
    let rows = rows(&opened, &plan)?;
    let mut costs = vec![None; opened.graph.nodes.len()];
    for (index, row) in &rows {
        costs[*index] = row.cost;
    }
    let range = estimate::range(&opened.graph, &costs, jobs.into());
    match arguments.shown.json {
        true => println!("{:#}", json(&opened, &rows, range, jobs)),
        false => print!("{}", text(&opened, &rows, range, jobs, arguments.shown.all)),
    }
    Ok(())
}

fn rows<'a>(opened: &'a Opened, plan: &'a Plan) -> Result<Vec<(usize, Row<'a>)>, Failure> {
    let past = Past::read(&opened.state.home, &opened.path);
    let steps = plan.steps.iter().enumerate();
    let mut rows = Vec::new();
    for (index, step) in steps.filter_map(|(index, step)| Some((index, step.as_ref()?))) {
        let node = &opened.graph.nodes[index];
        let items = items(opened, plan, index, step)?;
        let cost = cost(opened, &past, node, step, items)?;
        let changes = opened.changes(plan, index, step)?;
        rows.push((index, Row { node, step, changes, items, cost }));
    }
    Ok(rows)
}

/// Of a stage that maps over items and runs: how many items run, and how many there are.
fn items(
    opened: &Opened,
    plan: &Plan,
    index: usize,
    step: &Step,
) -> Result<Option<(usize, usize)>, Failure> {
    let node = &opened.graph.nodes[index];
    let (Verdict::Stale(_), Some(over)) = (&step.verdict, node.items) else { return Ok(None) };
    let ready = plan.ready(&opened.graph, &opened.state, index)?;
    if !ready.given.contains_key(over.port) {
        return Ok(None);
    }
    let items = items::split(plan, &opened.state, index, node, &ready, over)?;
    Ok(Some((items.todo.len(), items.todo.len() + items.known.len())))
}

/// What it takes, by what it took; `None` for a hit and where that is not known.
fn cost(
    opened: &Opened,
    past: &Past,
    node: &Node,
    step: &Step,
    items: Option<(usize, usize)>,
) -> Result<Option<Cost>, Failure> {
    let sure = match step.verdict {
        Verdict::Hit(_) => return Ok(None),
        Verdict::Stale(_) => true,
        Verdict::Unknown(_) => false,
    };
    let actions = items.map_or(1, |(todo, _)| todo as u64);
    let recorded = past.action(&node.name).filter(|_| node.items.is_none() || items.is_some());
    if let Some(action) = recorded {
        return Ok(Some(Cost { action, actions, sure }));
    }
    // The last result says what all items took together.
    let Some(last) = opened.lock.key(&node.name) else { return Ok(None) };
    let Some(last) = opened.state.index.remembered(&last)? else { return Ok(None) };
    let all = items.map_or(1, |(_, all)| all.max(1) as u64);
    Ok(Some(Cost { action: last.millis / all, actions, sure }))
}

/// The word for a verdict, and its colour.
pub fn word(step: &Step) -> (&'static str, Paint) {
    match step.verdict {
        Verdict::Hit(_) => ("hit", Paint::Dim),
        Verdict::Stale(_) => ("run", Paint::Yellow),
        Verdict::Unknown(_) => ("unknown", Paint::Blue),
    }
}

fn text(opened: &Opened, rows: &[(usize, Row)], range: Range, jobs: u32, all: bool) -> String {
    let (on, columns) = (colour_out(), columns(&std::io::stdout(), 100));
    let many = |word: &str| rows.iter().filter(|(_, row)| self::word(row.step).0 == word).count();
    let [hits, runs, unknown] = ["hit", "run", "unknown"].map(many);
    let names = name_width(&opened.graph).min(columns / 3);
    let kinds =
        opened.graph.nodes.iter().map(|node| node.kind.name.len()).max().unwrap_or(0).max(9);
    let mut out = String::new();
    let mut named = std::collections::BTreeMap::new();
    for (_, row) in rows {
        let (word, colour) = word(row.step);
        let so_far: &mut usize = named.entry(word).or_default();
        *so_far += 1;
        // Of many hits none is worth a line.
        if !all && (*so_far > NAMED || word != "run" && many(word) > NAMED) {
            continue;
        }
        let items = |(todo, of)| items_said(todo, of, row.node.items);
        let mut said: Vec<String> = row.items.into_iter().map(items).collect();
        if let Verdict::Unknown(waits) = &row.step.verdict {
            said.push(format!("waits on {}", waits_said(opened, waits)));
        }
        said.extend(row.changes.iter().map(Change::to_string));
        if let Some(cost) = row.cost {
            said.push(format!("about {}", duration(cost.work())));
        }
        let (name, kind) = (pad(&row.node.name, names), pad(row.node.kind.name, kinds));
        let head = format!("{} {name} {kind} ", paint(on, colour, &pad(word, 7)));
        let indent = 8 + pad(&row.node.name, names).chars().count() + 1 + kinds + 1;
        out.push_str((head + &wrap(&said, indent, columns)).trim_end());
        out.push('\n');
    }
    for (word, n) in [("hit", hits), ("run", runs), ("unknown", unknown)] {
        let hidden = if word == "run" { n.saturating_sub(NAMED) } else { n };
        if !all && n > NAMED {
            let more = if word == "run" { "more " } else { "" };
            let what = count(hidden, "stage").replacen(' ', &format!(" {more}"), 1);
            out.push_str(&format!("{} {what} (--all names them)\n", pad(word, 7)));
        }
    }
    out.push_str(&format!(
        "{}: {} hit, {} to run, {} unknown\n",
        count(rows.len(), "stage"),
        number(hits),
        number(runs),
        number(unknown)
    ));
    out.push_str(&time(rows, range, jobs));
    out
}

fn items_said(todo: usize, of: usize, over: Option<Items>) -> String {
    let said = format!("{} of {}", number(todo), count(of, "item"));
    match over.map(|over| over.reads()).filter(|reads| !reads.is_empty()) {
        Some(reads) => format!("{said} ({reads})"),
        None => said,
    }
}

/// A few of the stages that it waits on.
pub fn waits_said(opened: &Opened, waits: &[usize]) -> String {
    let names: Vec<&str> =
        waits.iter().take(3).map(|i| opened.graph.nodes[*i].name.as_str()).collect();
    match waits.len().saturating_sub(3) {
        0 => names.join(", "),
        more => format!("{} and {} more", names.join(", "), number(more)),
    }
}

/// On one line where they fit, else one below the other.
fn wrap(said: &[String], indent: usize, columns: usize) -> String {
    let line = said.join("; ");
    if indent + line.chars().count() <= columns {
        return line;
    }
    let below = format!("\n{}", " ".repeat(if indent * 2 > columns { 10 } else { indent }));
    match indent * 2 > columns {
        true => said.iter().map(|said| below.clone() + said).collect(),
        false => said.join(&below),
    }
}

/// The estimate, where something runs.
fn time(rows: &[(usize, Row)], range: Range, jobs: u32) -> String {
    let open = rows.iter().filter(|(_, row)| !matches!(row.step.verdict, Verdict::Hit(_)));
    let untimed = open.clone().filter(|(_, row)| row.cost.is_none()).count();
    if open.count() == 0 {
        return String::new();
    }
    let (least, most) = (duration(range.least), duration(range.most));
    let known = match range {
        Range { most: 0, .. } => String::new(),
        _ if least == most => format!("about {most} with -j {jobs}"),
        Range { least: 0, .. } => format!("at most {most} with -j {jobs}"),
        _ => format!("at least {least}, at most {most} with -j {jobs}"),
    };
    let never = (untimed > 0).then(|| match known.is_empty() {
        true => "no estimate: nothing of this has run yet".to_owned(),
        false => format!("without {} that never ran", count(untimed, "stage")),
    });
    let parts: Vec<String> = [known].into_iter().filter(|s| !s.is_empty()).chain(never).collect();
    format!("{}\n", parts.join(", "))
}

fn json(opened: &Opened, rows: &[(usize, Row)], range: Range, jobs: u32) -> Value {
    let stages: Vec<Value> = rows.iter().map(|(_, row)| stage(opened, row)).collect();
    let many = |word: &str| rows.iter().filter(|(_, row)| self::word(row.step).0 == word).count();
    json!({
        "pipeline": opened.path,
        "stages": stages,
        "hit": many("hit"),
        "run": many("run"),
        "unknown": many("unknown"),
        "jobs": jobs,
        "at_least_ms": range.least,
        "at_most_ms": range.most,
    })
}

fn stage(opened: &Opened, row: &Row) -> Value {
    let mut value = verdict(opened, row.node, row.step, &row.changes);
    let behind = row.node.items.map_or(0, |over| over.behind);
    let items = |(todo, of)| json!({ "run": todo, "all": of, "files_before": behind });
    value["items"] = row.items.map(items).into();
    value["estimate_ms"] = row.cost.map(|cost| cost.work()).into();
    value
}

/// A stage with its verdict, its reasons and its key as JSON.
pub fn verdict(opened: &Opened, node: &Node, step: &Step, changes: &[Change]) -> Value {
    let reasons: Vec<Value> = changes.iter().map(change).collect();
    let waits = match &step.verdict {
        Verdict::Unknown(on) => on.as_slice(),
        _ => &[],
    };
    let waits: Vec<&str> = waits.iter().map(|i| opened.graph.nodes[*i].name.as_str()).collect();
    json!({
        "name": node.name,
        "kind": node.kind.name,
        "verdict": word(step).0,
        "key": step.key,
        "because": reasons,
        "waits_on": waits,
    })
}

fn change(change: &Change) -> Value {
    let mut value = serde_json::to_value(change).unwrap_or_default();
    value["says"] = change.to_string().into();
    value
}
