//! `quantmill sweep`: many runs of one pipeline with other values each, and which was the best.
//!
//! Each trial is a run of its own in a process of its own. Trials share the store, so that what they
//! have in common is done once; their outputs stay there, and the pipeline's lock stays as it is.
//! [`share`] divides the machine between them.

mod share;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use quantmill_stages::{Device, Kind};
use serde::Serialize;

use super::Which;
use super::runs::{print, rm};
use crate::exit::Failure;
use crate::experiment::account::{self, Account};
use crate::experiment::chart;
use crate::experiment::grid::{self, Axis, Trial, Values};
use crate::experiment::values::{Frame, read};
use crate::record;
use crate::report::table::{Side, Table, number};
use crate::report::text::{Paint, colour_out, columns, count, duration, paint};
use crate::run::machine;
use crate::state;

/// How many metrics are drawn where none is named.
const DRAWN: usize = 4;

/// Arguments of `sweep`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
A value with commas is a list to go through: `--set lr=1e-4,3e-4`. A list as one
value stands in brackets, a text with commas in quotes: `--set 'name=\"a, b\"'`.
A range is drawn from: `--set lr=1e-5..1e-3:log`, `--set layers=1..8`.

The first trial goes alone and makes what all have in common; then trials go side
by side within `-j`, or one by one where a stage needs a GPU or memory.

Examples:
  quantmill sweep --set lr=1e-4,3e-4 --set seed=1,2,3 --metric evaluate.sharpe
  quantmill sweep --random 20 --set lr=1e-5..1e-3:log --metric loss --min
  quantmill sweep . report --set seed=1,2,3 --budget 2h")]
pub struct Sweep {
    #[command(flatten)]
    which: Which,
    /// Draw this many trials at random instead of trying all combinations
    #[arg(long, value_name = "N")]
    random: Option<usize>,
    /// The seed of the draws; that of the pipeline is a value, `--set seed=1,2,3`
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Begin no trial after this time, such as 90m or 2h
    #[arg(long, value_name = "TIME", value_parser = rm::span)]
    budget: Option<Duration>,
    /// Run at most this many trials
    #[arg(long, value_name = "N")]
    max_runs: Option<usize>,
    /// The metric to sort by, as `evaluate.sharpe`; of the cells of a matrix their mean
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// The largest metric is the best, which is the default
    #[arg(long, conflicts_with = "min")]
    max: bool,
    /// The smallest metric is the best
    #[arg(long)]
    min: bool,
    /// Actions at a time, of all trials together [default: the number of processors]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

/// A sweep as it is written down.
#[derive(Serialize)]
struct Written<'a> {
    sweep: &'a str,
    pipeline: &'a Path,
    set: &'a [(String, String)],
    random: Option<usize>,
    seed: u64,
    metric: Option<&'a str>,
    trials: Vec<Done>,
}

/// A trial that ran.
#[derive(Clone, Serialize)]
struct Done {
    run: String,
    values: Trial,
    status: &'static str,
    metric: Option<f64>,
    millis: u64,
}

/// Whether `--set NAME=VALUE` is a list to go through.
pub fn is_list(name: &str, value: &str) -> bool {
    grid::axis(name, value).is_some_and(|axis| matches!(axis.values, Values::List(_)))
}

/// A sweep of all combinations, as `run` asks for one.
pub fn of_run(which: &Which, jobs: Option<u16>, kinds: &[Kind]) -> Result<(), Failure> {
    eprintln!("a value with commas is a list to go through: this is a sweep");
    eprintln!("  hint: a list as one value stands in brackets, a text with commas in quotes");
    sweep(&Sweep { which: which.clone(), jobs, ..Sweep::default() }, kinds)
}

/// Runs the trials, and tells how they compare.
pub fn sweep(arguments: &Sweep, kinds: &[Kind]) -> Result<(), Failure> {
    let which = &arguments.which;
    let mut axes: Vec<Axis> = Vec::new();
    let mut fixed = Vec::new();
    for (name, value) in &which.set {
        match grid::axis(name, value) {
            Some(axis) => axes.push(axis),
            None => fixed.push((name.clone(), value.clone())),
        }
    }
    let mut trials = trials(arguments, &axes)?;
    let planned = trials.len();
    trials.truncate(arguments.max_runs.unwrap_or(planned));
    let file = std::path::absolute(which.find()?)?;
    // A mistake of the file, or a name that does not exist, would fail them all alike.
    let first: Vec<_> = fixed.iter().chain(trials.first().into_iter().flatten()).cloned().collect();
    let graph = crate::load(&file, &first, kinds)?;
    let home = state::locate(&graph.dir);
    let id = record::id();
    let dropped = planned - trials.len();
    let left = if dropped > 0 { format!(" of {planned}") } else { String::new() };
    eprintln!("sweep {id}: {}{left}", count(trials.len(), "trial"));
    let jobs = arguments.jobs.map_or_else(|| machine::detect().cpu, u32::from);
    let device = Device::from(which.device);
    let (at_once, each) = share::shares(&graph, jobs, trials.len(), device);
    let ids: Vec<String> = (0..trials.len()).map(|n| format!("{}-{n}", record::id())).collect();
    let all = trials.iter().zip(&ids).enumerate().map(|(n, (trial, run))| {
        let head = format!("trial {}/{}  {}", n + 1, trials.len(), grid::label(trial));
        let (file, fixed, id) = (&file, &fixed, &id);
        let command = move |jobs| command(arguments, file, fixed, trial, (id, run), jobs);
        share::Trial { head, command: Box::new(command) }
    });
    let all: Vec<share::Trial> = all.collect();
    let done = share::run(&all, (at_once, each), jobs, arguments.budget)?;
    if done.begun < trials.len() && !done.interrupted {
        eprintln!("the budget is spent: {} left out", count(trials.len() - done.begun, "trial"));
    }
    let begun = trials.iter().zip(&ids).take(done.begun);
    let runs: Vec<(Trial, Option<Account>)> =
        begun.map(|(trial, run)| (trial.clone(), account::read(&home, run))).collect();
    let folder = home.join("sweeps").join(&id);
    fs_err::create_dir_all(&folder)?;
    report(arguments, &axes, &fixed, &runs, (&id, &file, &folder))?;
    let failed = runs.iter().filter(|(_, run)| !matches!(run, Some(run) if ok(run))).count();
    match (done.interrupted, failed) {
        (true, _) => Err(Failure::Interrupted),
        (false, 0) => Ok(()),
        (false, _) => Err(Failure::Told),
    }
}

fn ok(run: &Account) -> bool {
    run.status() == account::Status::Ok
}

fn trials(arguments: &Sweep, axes: &[Axis]) -> Result<Vec<Trial>, Failure> {
    if axes.is_empty() {
        let help = "give a value with commas, as `--set lr=1e-4,3e-4`, or a range with `--random`";
        return Err(Failure::usage("nothing to sweep over", Some(help.into())));
    }
    match arguments.random {
        Some(n) => Ok(grid::draw(axes, n, arguments.seed)),
        None => grid::all(axes).ok_or_else(|| {
            let help = "say how many to draw, as `--random 20`, or name the values with commas";
            Failure::usage("a range has no list of values", Some(help.into()))
        }),
    }
}

fn command(
    arguments: &Sweep,
    file: &Path,
    fixed: &[(String, String)],
    trial: &Trial,
    (sweep, run): (&str, &str),
    jobs: u32,
) -> std::io::Result<Command> {
    let wish = arguments.which.wish();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg(file).args(&wish.targets);
    for (name, value) in fixed.iter().chain(trial) {
        command.arg("--set").arg(format!("{name}={value}"));
    }
    for stage in &wish.downstream_of {
        command.args(["--downstream-of", stage]);
    }
    for stage in &arguments.which.force {
        command.arg(format!("--force={stage}"));
    }
    command.args(["-j", &jobs.to_string()]);
    command.args(["--device", Device::from(arguments.which.device).name()]);
    command.args(["--sweep", sweep, "--run-id", run]);
    Ok(command)
}

/// The table, the figures, and how to make the best one current.
fn report(
    arguments: &Sweep,
    axes: &[Axis],
    fixed: &[(String, String)],
    runs: &[(Trial, Option<Account>)],
    (id, file, folder): (&str, &Path, &PathBuf),
) -> Result<(), Failure> {
    let mut frame = Frame::new(runs.iter().filter_map(|(_, run)| run.as_ref()));
    // The names of the sweep count before what they set.
    for row in &mut frame.rows {
        let of = runs.iter().find(|(_, run)| run.as_ref().is_some_and(|run| run.id == row.run));
        for (name, value) in of.into_iter().flat_map(|(trial, _)| trial) {
            row.values.insert(name.clone(), read(value));
        }
    }
    let names = frame.metrics();
    let metric = match &arguments.metric {
        Some(given) => match frame.name(given) {
            Ok(name) => Some(name),
            // What ran is worth more than a misspelt name.
            Err(failure) => {
                eprintln!("warning: {failure}");
                None
            }
        },
        None => names.first().filter(|_| names.len() == 1).cloned(),
    };
    // A run has a row for each cell of its matrices: of a metric that several have, such as that of each
    // seed, the mean counts.
    let value = |run: &Account, name: &str| {
        let rows = frame.rows.iter().filter(|row| row.run == run.id);
        let all: Vec<f64> = rows.filter_map(|row| row.metrics.get(name)).copied().collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    };
    let done = |(trial, run): &(Trial, Option<Account>)| Done {
        run: run.as_ref().map_or(String::new(), |run| run.id.clone()),
        values: trial.clone(),
        status: run.as_ref().map_or("failed", |run| run.status().word()),
        metric: run.as_ref().zip(metric.as_deref()).and_then(|(run, name)| value(run, name)),
        millis: run.as_ref().and_then(|run| run.summary).map_or(0, |summary| summary.millis),
    };
    let mut all: Vec<Done> = runs.iter().map(done).collect();
    let written = Written {
        sweep: id,
        pipeline: file,
        set: &arguments.which.set,
        random: arguments.random,
        seed: arguments.seed,
        metric: metric.as_deref(),
        trials: all.clone(),
    };
    let text = serde_json::to_vec_pretty(&written).map_err(std::io::Error::from)?;
    fs_err::write(folder.join("sweep.json"), text)?;
    if metric.is_some() {
        let key =
            |done: &Done| done.metric.map_or(f64::INFINITY, |m| if arguments.min { m } else { -m });
        all.sort_by(|a, b| key(a).total_cmp(&key(b)));
    }
    print(&table(axes, &all, metric.as_deref(), &names, |run, name| {
        let run = runs.iter().find_map(|(_, of)| of.as_ref().filter(|of| of.id == run))?;
        value(run, name)
    }))?;
    let drawn: Vec<&String> =
        metric.iter().chain(&names).take(if metric.is_some() { 1 } else { DRAWN }).collect();
    for (axis, name) in axes.iter().flat_map(|axis| drawn.iter().map(move |name| (axis, name))) {
        let svg = chart::svg(&frame, &axis.name, name);
        if let Some(svg) = svg.map_err(|error| std::io::Error::other(error.to_string()))? {
            let place = format!("{name}-by-{}.svg", axis.name).replace(['/', '\\'], "_");
            let place = folder.join(place);
            fs_err::write(&place, svg)?;
            eprintln!("figure  {}", place.display());
        }
    }
    match (all.first().filter(|best| best.metric.is_some()), metric) {
        (Some(best), Some(_)) => {
            let set = fixed.iter().chain(&best.values);
            let set =
                set.map(|(name, value)| format!(" --set {}", word(&format!("{name}={value}"))));
            let targets = arguments.which.wish().targets.join(" ");
            let pipeline = arguments.which.pipeline().map(|path| path.display().to_string());
            let place = pipeline.map(|path| format!(" {}", word(&path)));
            let place =
                place.unwrap_or_else(|| if targets.is_empty() { "".into() } else { " .".into() });
            let targets = if targets.is_empty() { targets } else { format!(" {targets}") };
            eprintln!("best    quantmill run{place}{targets}{}", set.collect::<String>());
        }
        _ if names.len() > 1 => {
            let names: Vec<&str> = names.iter().take(4).map(String::as_str).collect();
            eprintln!("  hint: sort by one of the metrics, as `--metric {}`", names[0]);
        }
        _ => {}
    }
    Ok(())
}

fn table(
    axes: &[Axis],
    all: &[Done],
    metric: Option<&str>,
    names: &std::collections::BTreeSet<String>,
    value: impl Fn(&str, &str) -> Option<f64>,
) -> String {
    let (on, width) = (colour_out(), columns(&std::io::stdout(), 200));
    let shown: Vec<&str> = match metric {
        Some(metric) => vec![metric],
        None => names.iter().map(String::as_str).take(3).collect(),
    };
    let head = [("".to_owned(), Side::Left)].into_iter();
    let head = head.chain(axes.iter().map(|axis| (axis.name.clone(), Side::Right)));
    let head = head.chain(shown.iter().map(|name| (name.to_string(), Side::Right)));
    let head = head.chain(["", "time", "run"].map(|name| (name.to_owned(), Side::Left)));
    let mut table = Table::new(head);
    for (n, done) in all.iter().enumerate() {
        let best = n == 0 && done.metric.is_some();
        let mut row = vec![if best { "*" } else { "" }.to_owned()];
        row.extend(done.values.iter().map(|(_, value)| value.clone()));
        let numbers = shown.iter().map(|name| value(&done.run, name).map_or(String::new(), number));
        row.extend(numbers);
        let status = if done.status == "ok" { "" } else { done.status };
        row.extend([status.to_owned(), duration(done.millis), done.run.clone()]);
        table.row(row);
    }
    let line = |n: usize, line: &str| match (all[n].status, n) {
        ("ok", 0) if all[0].metric.is_some() => paint(on, Paint::Green, line),
        ("ok", _) => line.to_owned(),
        _ => paint(on, Paint::Red, line),
    };
    table.draw(width, |head| paint(on, Paint::Bold, head), line)
}

/// A word as a shell reads it.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
