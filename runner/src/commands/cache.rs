//! `quantmill cache`: the store's size, whether it is whole, and what nothing needs.

mod gc;
mod stats;
mod verify;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use quantmill_cache::Digest;
use quantmill_stages::Kind;

use crate::exit::Failure;
use crate::experiment::{account, history};
use crate::{roots, state};

/// Arguments of `cache`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  quantmill cache stats                      how much there is, and of what
  quantmill cache verify                     read every byte, find what is damaged
  quantmill cache gc --dry-run               what nothing names any more
  quantmill cache gc --keep-runs 10          keep the locks' and the last ten runs'

The store is that of the current folder; QUANTMILL_HOME names another.")]
pub struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Show how large the store is and what is in it
    Stats(stats::Stats),
    /// Read every blob, move damaged ones aside, and put back what the workspace still has
    Verify(verify::Verify),
    /// Free what no lock file and no recorded run names; safe while a run is on
    Gc(gc::Gc),
}

/// Does what the command line says.
pub fn cache(arguments: &Cache, kinds: &[Kind]) -> Result<(), Failure> {
    let home = state::locate(Path::new("."));
    if !home.join("store").is_dir() {
        let help = "go to the pipeline's folder; `quantmill run` makes the store".to_owned();
        return Err(Failure::usage(format!("there is no store at {}", home.display()), Some(help)));
    }
    match &arguments.verb {
        Verb::Stats(arguments) => stats::stats(arguments, home),
        Verb::Verify(_) => verify::verify(home, kinds),
        Verb::Gc(arguments) => gc::gc(arguments, home),
    }
}

/// Every digest that is to be kept: that of each lock, and of the runs that count. Says how many of
/// both there are.
fn kept(
    home: &Path,
    counts: impl Fn(usize, &str) -> bool,
) -> Result<(HashSet<Digest>, usize, usize), Failure> {
    let mut found = HashSet::new();
    let locks: Vec<PathBuf> = roots::locks(home)?;
    for lock in &locks {
        roots::add(lock, &mut found)?;
    }
    let mut runs = 0;
    for (age, run) in history::ids(home)?.iter().rev().enumerate() {
        if counts(age, run) {
            roots::add_run(&home.join("runs").join(run), &mut found)?;
            runs += 1;
        }
    }
    Ok((found, locks.len(), runs))
}

/// When a run began, in milliseconds since 1970; one whose record cannot be read counts as new.
fn began(home: &Path, run: &str) -> i64 {
    account::read(home, run).map_or(i64::MAX, |account| account.at)
}
