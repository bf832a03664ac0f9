//! `quantmill runs`: what was run, how two runs differ, and whether one can be made again.

pub mod diff;
pub mod export;
pub mod ledger;
pub mod list;
pub mod note;
pub mod reproduce;
pub mod rm;
pub mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use quantmill_stages::Kind;

use crate::exit::Failure;
use crate::experiment::account::Account;
use crate::experiment::history;
use crate::state;

/// Arguments of `runs`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  quantmill runs list                        the latest runs
  quantmill runs show latest                 one of them
  quantmill runs diff latest~1 latest        what differs between two
  quantmill runs reproduce latest            the same bytes again?
  quantmill runs note latest \"a lower fee\"   say what it was about

A run is named by its id, by the beginning of one, by `latest`, or by
`latest~2` for the one two before it.")]
pub struct Runs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// List runs, the newest first
    List(list::List),
    /// Show one run: what it ran with, what it gave, and what is kept of it
    Show(show::Show),
    /// Show what differs between two runs
    Diff(diff::Diff),
    /// Make a run again from nothing and compare every artifact
    Reproduce(reproduce::Reproduce),
    /// Write a run to one file from which another machine can make it again
    Export(export::Export),
    /// Take over a run from such a file
    Import(export::Import),
    /// Say what a run was about
    Note(note::Note),
    /// Remove records of runs
    Rm(rm::Rm),
    /// Show every trial of a model, and how many configurations the same data has seen
    Ledger(ledger::LedgerArgs),
}

/// Does what the command line says.
pub fn runs(arguments: &Runs, kinds: &[Kind]) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::List(arguments) => list::list(arguments),
        Verb::Show(arguments) => show::show(arguments),
        Verb::Reproduce(arguments) => reproduce::reproduce(arguments, kinds),
        Verb::Export(arguments) => export::export(arguments, kinds),
        Verb::Import(arguments) => export::import(arguments),
        Verb::Diff(arguments) => diff::diff(arguments),
        Verb::Note(arguments) => note::note(arguments),
        Verb::Rm(arguments) => rm::rm(arguments),
        Verb::Ledger(arguments) => ledger::ledger(arguments, kinds),
    }
}

/// Whose runs.
#[derive(Args, Clone, Debug, Default)]
pub struct Of {
    /// Only runs of this pipeline: a file, or a folder with a pipeline.yaml
    #[arg(long, value_name = "PIPELINE")]
    pub of: Option<PathBuf>,
}

/// Which runs.
#[derive(Args, Clone, Debug, Default)]
pub struct Picked {
    /// The runs [default: the latest in which something ran]
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
    /// Only trials of this sweep
    #[arg(long, value_name = "ID", conflicts_with = "runs")]
    sweep: Option<String>,
    /// How many of the latest runs; 0 means all
    #[arg(short, default_value_t = 20)]
    n: usize,
}

impl Picked {
    /// The runs, the oldest first.
    pub fn runs(&self, of: &Of) -> Result<Vec<Account>, Failure> {
        let (home, pipeline) = of.home()?;
        if !self.runs.is_empty() {
            return self.runs.iter().map(|name| history::find(&home, name)).collect();
        }
        let wanted = |run: &Account| {
            pipeline.as_ref().is_none_or(|wanted| run.file() == *wanted)
                && match &self.sweep {
                    Some(sweep) => run.is_trial_of(sweep),
                    None => run.summary.is_some_and(|summary| summary.ran > 0),
                }
        };
        let most = if self.n == 0 || self.sweep.is_some() { usize::MAX } else { self.n };
        let mut runs: Vec<Account> = history::newest(&home)?.filter(wanted).take(most).collect();
        runs.reverse();
        Ok(runs)
    }
}

impl Of {
    /// The state folder, and the pipeline file where one is named.
    pub fn home(&self) -> Result<(PathBuf, Option<PathBuf>), Failure> {
        let Some(path) = &self.of else { return Ok((home()?, None)) };
        let file = std::path::absolute(crate::find(Some(path))?)?;
        let home = state::locate(file.parent().unwrap_or(Path::new(".")));
        Ok((recorded(home)?, Some(file)))
    }
}

/// The state folder of the current folder.
pub fn home() -> Result<PathBuf, Failure> {
    recorded(state::locate(Path::new(".")))
}

fn recorded(home: PathBuf) -> Result<PathBuf, Failure> {
    if home.join("runs").is_dir() {
        return Ok(home);
    }
    let help = "go to the pipeline's folder, or name it by `--of PIPELINE`".to_owned();
    Err(Failure::usage(format!("no runs are recorded at {}", home.display()), Some(help)))
}

/// `2026-11-21 08:13:41`, in local time.
pub fn clock(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `now`, `5 min ago`, `3 h ago`, `12 days ago`.
pub fn ago(at: i64) -> String {
    let minutes = (chrono::Utc::now().timestamp_millis() - at) / 60_000;
    match minutes {
        ..1 => "now".into(),
        1..120 => format!("{minutes} min ago"),
        120..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1440),
    }
}

/// Prints to stdout. A reader that has seen enough, as `head`, is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints JSON, for machines.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    print(&format!("{text}\n"))
}
