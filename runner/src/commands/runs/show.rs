//! `quantmill runs show`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use quantmill_cache::{Artifact, Digest, Store};
use serde::Serialize;
use serde_json::Value;

use super::{clock, home, print, print_json};
use crate::event::{Outcome, Setting, Summary, Survey};
use crate::exit::Failure;
use crate::experiment::account::{Account, Status, Told};
use crate::experiment::history;
use crate::lock::Lockfile;
use crate::report::table::{Side, Table, number};
use crate::report::text::{Paint, colour_out, columns, count, duration, paint};

/// Arguments of `runs show`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  quantmill runs show latest
  quantmill runs show 20261121-0813 --json
  quantmill runs show latest --pipeline      the pipeline file as it was")]
pub struct Show {
    /// The run
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,
    /// Print the pipeline file, and what it includes, as they were
    #[arg(long, conflicts_with_all = ["lock", "json"])]
    pipeline: bool,
    /// Print the lock as it was after the run
    #[arg(long, conflicts_with = "json")]
    lock: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Whole<'a> {
    id: &'a str,
    at: i64,
    status: Status,
    note: Option<&'a str>,
    setting: &'a Setting,
    survey: &'a Survey,
    summary: Option<Summary>,
    stages: BTreeMap<String, Stage>,
    sources: Vec<Source>,
}

#[derive(Default, Serialize)]
struct Stage {
    #[serde(flatten)]
    told: Told,
    uses: Option<String>,
    key: Option<Digest>,
    seed: Option<u64>,
    params: Option<Value>,
    inputs: Option<BTreeMap<String, Artifact>>,
    outputs: Option<BTreeMap<String, Artifact>>,
}

/// What a stage read that no stage made.
#[derive(Serialize)]
struct Source {
    artifact: Artifact,
    read_by: Vec<String>,
    kept: bool,
}

/// Shows the run.
pub fn show(arguments: &Show) -> Result<(), Failure> {
    let home = home()?;
    let run = history::find(&home, &arguments.run)?;
    if arguments.pipeline {
        for (path, place) in run.texts() {
            print(&format!("# {path}\n{}", fs_err::read_to_string(place)?))?;
        }
        return Ok(());
    }
    let lock = run.lock();
    if arguments.lock {
        return print(&lock.text());
    }
    let sources = sources(&Store::open(&home)?, &lock);
    if arguments.json {
        return print_json(&whole(&run, &lock, sources));
    }
    print(&text(&run, &lock, &sources))
}

/// Inputs of stages that are no stage's output, and whether the store has them.
fn sources(store: &Store, lock: &Lockfile) -> Vec<Source> {
    let made: BTreeSet<Artifact> =
        lock.iter().flat_map(|(_, record)| record.outputs.into_values()).collect();
    let mut read: BTreeMap<Artifact, Vec<String>> = BTreeMap::new();
    for (stage, record) in lock.iter() {
        for (port, artifact) in record.inputs.iter().filter(|(_, from)| !made.contains(from)) {
            read.entry(*artifact).or_default().push(format!("{stage}.{port}"));
        }
    }
    let source = |(artifact, read_by)| Source { artifact, read_by, kept: store.holds(&artifact) };
    read.into_iter().map(source).collect()
}

fn whole<'a>(run: &'a Account, lock: &Lockfile, sources: Vec<Source>) -> Whole<'a> {
    let stage = |name: &String| {
        let told = told(run, name);
        let stage = match lock.get(name) {
            Some(record) => Stage {
                told,
                uses: Some(format!("{}@{}", record.kind, record.version)),
                key: Some(record.key),
                seed: record.seed,
                params: Some(record.params),
                inputs: Some(record.inputs),
                outputs: Some(record.outputs),
            },
            None => Stage { told, ..Stage::default() },
        };
        (name.clone(), stage)
    };
    Whole {
        id: &run.id,
        at: run.at,
        status: run.status(),
        note: run.note.as_deref(),
        setting: &run.setting,
        survey: &run.survey,
        summary: run.summary,
        stages: names(run, lock).iter().map(stage).collect(),
        sources,
    }
}

/// Every stage that the lock or the events name.
fn names(run: &Account, lock: &Lockfile) -> BTreeSet<String> {
    lock.iter().map(|(name, _)| name.to_owned()).chain(run.told.keys().cloned()).collect()
}

/// A stage of which the record says nothing was a hit.
fn told(run: &Account, stage: &str) -> Told {
    let hit = || Told { outcome: Some(Outcome::Hit), ..Told::default() };
    run.told.get(stage).cloned().unwrap_or_else(hit)
}

fn text(run: &Account, lock: &Lockfile, sources: &[Source]) -> String {
    let (on, width) = (colour_out(), columns(&std::io::stdout(), 200));
    let setting = &run.setting;
    let mut out = format!("{} {}\n", paint(on, Paint::Bold, "run"), run.id);
    let mut line = |name: &str, text: String| {
        if !text.is_empty() {
            out.push_str(&format!("{name:<11} {text}\n"));
        }
    };
    line("status", status(run));
    line("began", clock(run.at));
    line("pipeline", setting.pipeline.clone());
    line("note", run.note.clone().unwrap_or_default());
    line("sweep", setting.sweep.clone().unwrap_or_default());
    line("targets", setting.targets.join(" "));
    let set = setting.set.iter().map(|(name, value)| format!("{name}={value}"));
    line("set", set.collect::<Vec<_>>().join("  "));
    line(
        "environment",
        setting.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("  "),
    );
    line("commit", commit(run));
    let cpu = run.survey.cpu.as_deref().unwrap_or("");
    let machine = format!("{} ({}, {} x {cpu})", setting.host, setting.platform, setting.cpus);
    line("machine", machine.replace(" x )", " processors)"));
    let how = format!("{} at a time on {}", setting.jobs, setting.device);
    line("quantmill", format!("{}, {how}", setting.version));
    let head = [("stage", Side::Left), ("", Side::Left), ("time", Side::Right), ("", Side::Left)];
    let mut table = Table::new(head);
    for name in names(run, lock) {
        let told = told(run, &name);
        let (word, time) = match told.outcome {
            Some(Outcome::Ran) => ("ran", duration(told.millis)),
            Some(Outcome::Restored) => ("restored", String::new()),
            Some(Outcome::Hit) => ("cached", String::new()),
            None => ("failed", String::new()),
        };
        let metrics = told.metrics.iter().map(|(name, value)| format!("{name} {}", number(*value)));
        let first = told.failed.as_deref().and_then(|text| text.lines().next());
        let about = first.map(str::to_owned).into_iter().chain(metrics);
        let about = about.collect::<Vec<_>>().join("  ");
        table.row([name.clone(), word.to_owned(), time, about]);
    }
    append(&mut out, &table, width, on);
    let mut table = Table::new([("input", Side::Left), ("read by", Side::Left), ("", Side::Left)]);
    for source in sources {
        let kept = if source.kept { "kept" } else { "by digest only" };
        let by = source.read_by.join(" ");
        table.row([source.artifact.digest().short(), by, kept.to_owned()]);
    }
    append(&mut out, &table, width, on);
    out
}

fn status(run: &Account) -> String {
    let word = run.status().word();
    let Some(summary) = run.summary else {
        return format!("{word} (it was killed, or still runs)");
    };
    let mut parts = vec![format!("{} ran", summary.ran), format!("{} cached", summary.hits)];
    parts.extend((summary.failed > 0).then(|| format!("{} failed", summary.failed)));
    parts.extend((summary.skipped > 0).then(|| format!("{} skipped", summary.skipped)));
    let stages = count(run.setting.stages, "stage");
    format!("{word}: {stages}, {} in {}", parts.join(", "), duration(summary.millis))
}

fn commit(run: &Account) -> String {
    let Some(commit) = &run.setting.commit else { return String::new() };
    let branch = run.setting.branch.as_ref().map(|branch| format!(" on {branch}"));
    let dirty = match run.survey.dirty {
        Some(true) => ", with changes that are not committed",
        _ => "",
    };
    format!("{}{}{dirty}", &commit[..12.min(commit.len())], branch.unwrap_or_default())
}

/// Adds a table, if it has a row, below an empty line.
fn append(out: &mut String, table: &Table, width: usize, on: bool) {
    if !table.is_empty() {
        out.push('\n');
        let bold = |head: &str| paint(on, Paint::Bold, head);
        out.push_str(&table.draw(width, bold, |_, line| line.into()));
    }
}
