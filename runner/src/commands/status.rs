//! `quantmill status`: what is out of date, and which outputs are not as they were made.

use std::path::Path;

use clap::Args;
use quantmill_cache::Artifact;
use quantmill_stages::Kind;
use serde_json::{Value, json};

use super::{Opened, Shown, Which, open};
use crate::exit::Failure;
use crate::graph::Node;
use crate::plan::{Step, Verdict};
use crate::report::text::{Paint, clip, colour_out, columns, count, number, pad, paint};
use crate::why::{self, Change};

/// Of each group so many are named; of more only with `--all`.
const NAMED: usize = 20;

/// Arguments of `status`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill status pipelines/quickstart
  quantmill status . report
  quantmill status --json | jq -r '.stages[] | select(.status != \"fresh\").name'

A stage is `fresh`, `edited` (up to date, but an output is missing or was edited), `stale` (it would
run), or `unknown` (it waits on one that would).")]
pub struct Status {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shown: Shown,
}

/// A stage and how it is.
struct Row<'a> {
    node: &'a Node,
    step: &'a Step,
    changes: Vec<Change>,
    /// Outputs that are not in place as they were made, and what they are: edited or missing.
    astray: Vec<(String, &'static str)>,
}

impl Row<'_> {
    fn status(&self) -> &'static str {
        match self.step.verdict {
            Verdict::Hit(_) if self.astray.is_empty() => "fresh",
            Verdict::Hit(_) => "edited",
            Verdict::Stale(_) => "stale",
            Verdict::Unknown(_) => "unknown",
        }
    }
}

/// Prints what is not as it should be, and how much is.
pub fn status(arguments: &Status, kinds: &[Kind]) -> Result<(), Failure> {
    let opened = open(&arguments.which, kinds)?;
    let plan = opened.plan(&arguments.which)?;
    let mut rows = Vec::new();
    for (index, node) in opened.graph.nodes.iter().enumerate() {
        if let Some(step) = &plan.steps[index] {
            let changes = opened.changes(&plan, index, step)?;
            rows.push(Row { node, step, changes, astray: astray(&opened, node, step)? });
        }
    }
    match arguments.shown.json {
        true => println!("{:#}", json(&opened, &rows)),
        false => print!("{}", text(&opened, &rows, arguments.shown.all)),
    }
    Ok(())
}

fn text(opened: &Opened, rows: &[Row], all: bool) -> String {
    let (on, columns) = (colour_out(), columns(&std::io::stdout(), 100));
    let of = |status: &str| rows.iter().filter(|row| row.status() == status).collect::<Vec<_>>();
    let (stale, unknown, edited) = (of("stale"), of("unknown"), of("edited"));
    let fresh = rows.len() - stale.len() - unknown.len();
    let mut out = format!(
        "{}: {}, {} up to date\n",
        opened.path.display(),
        count(rows.len(), "stage"),
        match fresh == rows.len() {
            true => "all".to_owned(),
            false => number(fresh),
        }
    );
    let widest = rows.iter().filter(|row| row.status() != "fresh");
    let width = widest.map(|row| row.node.name.chars().count()).max().unwrap_or(0).min(columns / 3);
    let mut group = |title: &str, colour: Paint, lines: Vec<(&str, String, String)>| {
        if lines.is_empty() {
            return;
        }
        out.push_str(&format!("\n{title}:\n"));
        let named = if all { lines.len() } else { NAMED };
        for (status, name, said) in lines.iter().take(named) {
            let room = columns.saturating_sub(2 + 8 + width + 1).max(24);
            let (word, name) = (paint(on, colour, &pad(status, 7)), pad(name, width));
            let line = format!("  {word} {name} {}", clip(said, room));
            out.push_str(line.trim_end());
            out.push('\n');
        }
        if lines.len() > named {
            out.push_str(&format!(
                "  and {} more (--all names them)\n",
                number(lines.len() - named)
            ));
        }
    };
    let said = |rows: &[&Row], status: &'static str| {
        let line = |row: &&Row| (status, row.node.name.clone(), why::line(&row.changes));
        rows.iter().map(line).collect::<Vec<_>>()
    };
    let lost = edited.iter().flat_map(|row| {
        row.astray.iter().map(|(path, what)| (*what, row.node.name.clone(), path.clone()))
    });
    group("`quantmill run` would run", Paint::Yellow, said(&stale, "stale"));
    let title = "and then, unless that gives the same as before";
    group(title, Paint::Blue, said(&unknown, "unknown"));
    group("not as it was made; `quantmill run` puts it back", Paint::Red, lost.collect());
    out
}

fn json(opened: &Opened, rows: &[Row]) -> Value {
    let stages: Vec<Value> = rows
        .iter()
        .map(|row| {
            let astray = row.astray.iter().map(|(path, what)| json!({ "path": path, "is": what }));
            json!({
                "name": row.node.name,
                "kind": row.node.kind.name,
                "status": row.status(),
                "because": row.changes.iter().map(Change::to_string).collect::<Vec<_>>(),
                "outputs": astray.collect::<Vec<_>>(),
            })
        })
        .collect();
    let fresh = rows.iter().filter(|row| row.status() == "fresh").count();
    json!({ "pipeline": opened.path, "fresh": fresh, "stages": stages })
}

/// The outputs of a hit that are not in their places as they were made.
fn astray(
    opened: &Opened,
    node: &Node,
    step: &Step,
) -> Result<Vec<(String, &'static str)>, Failure> {
    let Verdict::Hit(result) = &step.verdict else { return Ok(Vec::new()) };
    let mut astray = Vec::new();
    for out in &node.outputs {
        let Some(artifact) = result.outputs.get(out.port.name.as_ref()) else { continue };
        let place = opened.graph.dir.join(&out.dest);
        let shown = out.dest.display().to_string();
        if place.symlink_metadata().is_err() {
            astray.push((shown, "missing"));
        } else if !opened.state.index.stands(artifact, &place)? {
            match artifact {
                Artifact::Tree(digest) if place.is_dir() => {
                    folder(opened, &place, digest, &shown, &mut astray)?;
                }
                _ => astray.push((shown, "edited")),
            }
        }
    }
    Ok(astray)
}

/// The files of a folder that differ from those that were made.
fn folder(
    opened: &Opened,
    place: &Path,
    digest: &quantmill_cache::Digest,
    shown: &str,
    astray: &mut Vec<(String, &'static str)>,
) -> Result<(), Failure> {
    let Ok(here) = opened.state.index.folder(place) else {
        // A link or the like.
        astray.push((shown.to_owned(), "edited"));
        return Ok(());
    };
    let made = opened.state.store.tree(digest)?;
    for (name, entry) in &made.entries {
        match here.entries.get(name) {
            Some(found) if found == entry => {}
            Some(_) => astray.push((format!("{shown}/{name}"), "edited")),
            None => astray.push((format!("{shown}/{name}"), "missing")),
        }
    }
    let strays = here.entries.keys().filter(|name| !made.entries.contains_key(*name));
    astray.extend(strays.map(|name| (format!("{shown}/{name}"), "stray")));
    Ok(())
}
