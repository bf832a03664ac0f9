//! `quantmill cache stats`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use clap::Args;
use quantmill_cache::{Artifact, Inventory, gc};
use serde::Serialize;

use super::kept;
use crate::commands::runs::{print, print_json};
use crate::exit::Failure;
use crate::report::table::{Side, Table};
use crate::report::text::{bytes, columns, number};
use crate::roots;
use crate::state::State;

/// How many of the largest artifacts are shown.
const LARGEST: usize = 10;

/// Arguments of `cache stats`.
#[derive(Args, Clone, Debug)]
pub struct Stats {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Told {
    home: PathBuf,
    blobs: usize,
    bytes: u64,
    actions: usize,
    runs: usize,
    kinds: BTreeMap<String, Kind>,
    largest: Vec<Large>,
    free: Free,
}

#[derive(Default, Serialize)]
struct Kind {
    actions: usize,
    items: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct Large {
    artifact: Artifact,
    bytes: u64,
    kind: String,
    output: String,
    stage: Option<String>,
}

#[derive(Serialize)]
struct Free {
    blobs: usize,
    bytes: u64,
    records: usize,
}

/// Prints what there is.
pub fn stats(arguments: &Stats, home: PathBuf) -> Result<(), Failure> {
    let state = State::open(home.clone())?;
    let inventory = Inventory::read(&state.store)?;
    let (keep, _, runs) = kept(&home, |_, _| true)?;
    let garbage = gc::find(&state.store, &inventory, &keep, true);
    let gc::Freed { blobs, bytes: free, records, .. } = *garbage.freed();
    let owners = roots::owners(&roots::locks(&home)?);
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    let mut largest: BTreeMap<Artifact, Large> = BTreeMap::new();
    let mut counted = HashSet::new();
    for (key, brief) in &inventory.records {
        let kind = kinds.entry(brief.stage.clone()).or_default();
        kind.actions += 1;
        kind.items += usize::from(brief.item.is_some());
        for (output, artifact) in &brief.outputs {
            let all: HashSet<_> = inventory.blobs_of(&state.store, artifact).into_iter().collect();
            let size = |blob| inventory.blobs.get(blob).map_or(0, |blob| blob.size);
            kind.bytes += all.iter().filter(|blob| counted.insert(**blob)).map(size).sum::<u64>();
            let large = Large {
                artifact: *artifact,
                bytes: all.iter().map(size).sum(),
                kind: brief.stage.clone(),
                output: output.clone(),
                stage: owners.get(key).map(|(_, stage)| stage.clone()),
            };
            match largest.get(artifact) {
                Some(known) if known.stage.is_some() => {}
                _ => drop(largest.insert(*artifact, large)),
            }
        }
    }
    let mut largest: Vec<Large> = largest.into_values().collect();
    largest.sort_by_key(|large| (std::cmp::Reverse(large.bytes), large.artifact));
    largest.truncate(LARGEST);
    let told = Told {
        home,
        blobs: inventory.blobs.len(),
        bytes: inventory.bytes(),
        actions: inventory.records.len(),
        runs,
        kinds,
        largest,
        free: Free { blobs, bytes: free, records },
    };
    if arguments.json { print_json(&told) } else { print(&draw(&told)) }
}

fn draw(told: &Told) -> String {
    let width = columns(&std::io::stdout(), 100);
    let plain = |text: &str| text.to_owned();
    let mut out = format!(
        "{}\n{} in {} blobs, {} actions, {} runs\n",
        told.home.display(),
        bytes(told.bytes),
        number(told.blobs),
        number(told.actions),
        number(told.runs),
    );
    if !told.kinds.is_empty() {
        let head = [("kind", Side::Left), ("actions", Side::Right), ("items", Side::Right)];
        let mut table = Table::new(head.into_iter().chain([("bytes", Side::Right)]));
        for (name, kind) in &told.kinds {
            let items = if kind.items > 0 { number(kind.items) } else { String::new() };
            table.row([name.clone(), number(kind.actions), items, bytes(kind.bytes)]);
        }
        out.push('\n');
        out.push_str(&table.draw(width, plain, |_, line| line.to_owned()));
    }
    if !told.largest.is_empty() {
        let head = [("largest", Side::Right), ("of", Side::Left), ("artifact", Side::Left)];
        let mut table = Table::new(head);
        for large in &told.largest {
            let stage = large.stage.as_ref().unwrap_or(&large.kind);
            let of = format!("{stage}.{}", large.output);
            let kind = if matches!(large.artifact, Artifact::Tree(_)) { "folder" } else { "file" };
            let artifact = format!("{kind} {}", large.artifact.digest().short());
            table.row([bytes(large.bytes), of, artifact]);
        }
        out.push('\n');
        out.push_str(&table.draw(width, plain, |_, line| line.to_owned()));
    }
    let Free { blobs, bytes: free, records } = told.free;
    if blobs + records > 0 {
        out.push_str(&format!(
            "\n`quantmill cache gc` would free {} in {} blobs and {} records\n",
            bytes(free),
            number(blobs),
            number(records),
        ));
    }
    out
}
