//! `quantmill runs list`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::{Of, ago, print, print_json};
use crate::exit::Failure;
use crate::experiment::account::{Account, Status};
use crate::experiment::history;
use crate::report::table::{Side, Table, number};
use crate::report::text::{Paint, colour_out, columns, duration, paint};

/// Arguments of `runs list`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill runs list
  quantmill runs list -n 0 --ran             all in which something ran
  quantmill runs list --of pipelines/quickstart --json")]
pub struct List {
    #[command(flatten)]
    of: Of,
    /// How many, the newest first; 0 means all
    #[arg(short, default_value_t = 20)]
    n: usize,
    /// Only runs in which something ran
    #[arg(long)]
    ran: bool,
    /// Only trials of this sweep
    #[arg(long, value_name = "ID")]
    sweep: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A run as JSON.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    at: i64,
    pipeline: std::path::PathBuf,
    status: Status,
    ran: Option<usize>,
    cached: Option<usize>,
    failed: Option<usize>,
    millis: Option<u64>,
    set: &'a [(String, String)],
    sweep: Option<&'a str>,
    commit: Option<&'a str>,
    metrics: BTreeMap<&'a str, &'a BTreeMap<String, f64>>,
    note: Option<&'a str>,
}

/// Prints a line a run.
pub fn list(arguments: &List) -> Result<(), Failure> {
    let (home, pipeline) = arguments.of.home()?;
    let wanted = |run: &Account| {
        pipeline.as_ref().is_none_or(|wanted| run.file() == *wanted)
            && (!arguments.ran || run.summary.is_none_or(|s| s.ran + s.failed > 0))
            && arguments.sweep.as_ref().is_none_or(|sweep| run.is_trial_of(sweep))
    };
    let most = if arguments.n == 0 { usize::MAX } else { arguments.n };
    let runs: Vec<Account> = history::newest(&home)?.filter(wanted).take(most).collect();
    if arguments.json {
        return print_json(&runs.iter().map(row).collect::<Vec<_>>());
    }
    if runs.is_empty() {
        eprintln!(
            "no run is recorded{}",
            if arguments.ran { " in which something ran" } else { "" }
        );
        return Ok(());
    }
    let head = [("run", Side::Left), ("when", Side::Right), ("pipeline", Side::Left)];
    let head = head.into_iter().chain([("", Side::Left), ("ran", Side::Right)]);
    let head = head.chain([("cached", Side::Right), ("time", Side::Right), ("", Side::Left)]);
    let mut table = Table::new(head);
    let short = shorten(&runs);
    for run in &runs {
        let told = run.summary.map(|s| [s.ran.to_string(), s.hits.to_string(), duration(s.millis)]);
        let [ran, cached, time] = told.unwrap_or_default();
        let id = run.id[..short.min(run.id.len())].to_owned();
        let word = run.status().word().to_owned();
        table.row([id, ago(run.at), run.pipeline(), word, ran, cached, time, about(run)]);
    }
    let on = colour_out();
    let line = |n: usize, line: &str| match (runs[n].status(), runs[n].summary) {
        (Status::Failed, _) => paint(on, Paint::Red, line),
        (Status::Interrupted | Status::Unfinished, _) => paint(on, Paint::Yellow, line),
        (Status::Ok, Some(summary)) if summary.ran == 0 => paint(on, Paint::Dim, line),
        _ => line.to_owned(),
    };
    let width = columns(&std::io::stdout(), 200);
    print(&table.draw(width, |head| paint(on, Paint::Bold, head), line))
}

/// The note, what was set, and the first numbers of the last stage that has any.
fn about(run: &Account) -> String {
    let mut parts: Vec<String> = run.note.clone().into_iter().collect();
    let set: Vec<String> = run.setting.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
    parts.extend((!set.is_empty()).then(|| set.join(" ")));
    let told = run.headline.as_ref().and_then(|stage| run.told.get(stage));
    let metrics = told.into_iter().flat_map(|told| &told.metrics).take(2);
    parts.extend(metrics.map(|(name, value)| format!("{name} {}", number(*value))));
    parts.join("; ")
}

/// How much of the ids tells them apart: the seconds, the milliseconds, or all.
fn shorten(runs: &[Account]) -> usize {
    let apart = |n: usize| {
        let mut short: Vec<&str> = runs.iter().map(|run| &run.id[..n.min(run.id.len())]).collect();
        short.dedup();
        short.len() == runs.len()
    };
    [15, 19].into_iter().find(|&n| apart(n)).unwrap_or(usize::MAX)
}

fn row(run: &Account) -> Row<'_> {
    let told = run.told.iter().filter(|(_, told)| !told.metrics.is_empty());
    Row {
        id: &run.id,
        at: run.at,
        pipeline: run.file(),
        status: run.status(),
        ran: run.summary.map(|s| s.ran),
        cached: run.summary.map(|s| s.hits),
        failed: run.summary.map(|s| s.failed),
        millis: run.summary.map(|s| s.millis),
        set: &run.setting.set,
        sweep: run.setting.sweep.as_deref(),
        commit: run.setting.commit.as_deref(),
        metrics: told.map(|(stage, told)| (stage.as_str(), &told.metrics)).collect(),
        note: run.note.as_deref(),
    }
}
