//! `quantmill cache gc`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use quantmill_cache::{Inventory, gc};
use serde::Serialize;

use super::{began, kept};
use crate::commands::runs::print_json;
use crate::commands::runs::rm::span;
use crate::exit::Failure;
use crate::report::text::{bytes, count};
use crate::state::{RESUME, State};

/// Arguments of `cache gc`.
#[derive(Args, Clone, Debug)]
pub struct Gc {
    /// Only show what would be freed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Let only the newest runs count; the records of the others stay
    #[arg(long, value_name = "N", conflicts_with = "older_than")]
    keep_runs: Option<usize>,
    /// Let runs that began longer ago than this not count, such as 12h or 30d; their records stay
    #[arg(long, value_name = "TIME", value_parser = span)]
    older_than: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Told {
    dry_run: bool,
    blobs: usize,
    bytes: u64,
    records: usize,
    scratch: usize,
    stages: Vec<Stage>,
}

#[derive(Serialize)]
struct Stage {
    kind: Option<String>,
    blobs: usize,
    bytes: u64,
}

/// Frees, or shows, what nothing names.
pub fn gc(arguments: &Gc, home: PathBuf) -> Result<(), Failure> {
    let (state, alone) = match arguments.dry_run {
        true => (State::open(home.clone())?, true),
        false => State::alone(home.clone())?,
    };
    let since = arguments
        .older_than
        .map(|span| chrono::Utc::now().timestamp_millis().saturating_sub(span.as_millis() as i64));
    let counts = |age: usize, run: &str| {
        arguments.keep_runs.is_none_or(|keep| age < keep)
            && since.is_none_or(|since| began(&home, run) >= since)
    };
    let (roots, locks, runs) = kept(&home, counts)?;
    let inventory = Inventory::read(&state.store)?;
    let total = inventory.bytes();
    let garbage = gc::find(&state.store, &inventory, &roots, alone);
    let freed = match arguments.dry_run {
        true => garbage.freed().clone(),
        false => {
            if !state.store.writable() {
                return Err(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem).into());
            }
            garbage.free(&state.store, &state.index)?
        }
    };
    let unfinished = match alone && !arguments.dry_run {
        true => drop_checkpoints(&home)?,
        false => 0,
    };
    let mut stages: Vec<Stage> = Vec::new();
    for (kind, (blobs, bytes)) in freed.stages {
        stages.push(Stage { kind: (!kind.is_empty()).then_some(kind), blobs, bytes });
    }
    stages.sort_by_key(|stage| std::cmp::Reverse(stage.bytes));
    if arguments.json {
        let gc::Freed { blobs, bytes, records, scratch, .. } = freed;
        let dry_run = arguments.dry_run;
        return print_json(&Told { dry_run, blobs, bytes, records, scratch, stages });
    }
    for stage in &stages {
        let kind = stage.kind.as_deref().unwrap_or("(no action)");
        println!("{kind:<12} {:>16}  {}", count(stage.blobs, "blob"), bytes(stage.bytes));
    }
    if !alone {
        eprintln!("a run is on: what it may need is left for the next time");
    }
    let word = if arguments.dry_run { "would free" } else { "freed" };
    eprintln!(
        "{word} {} of {} in {} and {}",
        bytes(freed.bytes),
        bytes(total),
        count(freed.blobs, "blob"),
        count(freed.records, "record"),
    );
    eprintln!("kept what {} and {} name", count(locks, "lock file"), count(runs, "recorded run"));
    if freed.scratch > 0 {
        eprintln!("cleared up after {}", count(freed.scratch, "run that was killed"));
    }
    if unfinished > 0 {
        eprintln!("dropped what {} had to go on from", count(unfinished, "unfinished action"));
    }
    Ok(())
}

/// Removes what actions keep to go on from: nobody is at work, and one that is begun again may
/// begin at the start. Returns how many there were.
fn drop_checkpoints(home: &std::path::Path) -> std::io::Result<usize> {
    let folder = home.join(RESUME);
    if !folder.is_dir() {
        return Ok(0);
    }
    let found = fs_err::read_dir(&folder)?.count();
    fs_err::remove_dir_all(folder)?;
    Ok(found)
}
