//! `quantmill cache verify`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quantmill_cache::{Damage, Inventory};
use quantmill_stages::Kind;

use crate::exit::Failure;
use crate::graph::Graph;
use crate::report::text::{Paint, bytes, colour_out, count, paint};
use crate::roots;
use crate::state::State;

/// Arguments of `cache verify`.
#[derive(Args, Clone, Debug)]
pub struct Verify {}

/// Reads every blob; fails where one is damaged, even if it could be put back.
pub fn verify(home: PathBuf, kinds: &[Kind]) -> Result<(), Failure> {
    let state = State::open(home.clone())?;
    let inventory = Inventory::read(&state.store)?;
    let bar = bar(inventory.bytes());
    let damage = quantmill_cache::verify(&state.store, &inventory, &|read| bar.set_position(read))?;
    bar.finish_and_clear();
    let all = format!("{}, {}", count(inventory.blobs.len(), "blob"), bytes(inventory.bytes()));
    if damage.is_empty() {
        eprintln!("read {all}: all whole");
        return Ok(());
    }
    // A note that nothing needs to run does not look at the store.
    let notes = home.join("uptodate");
    if notes.is_dir() {
        fs_err::remove_dir_all(notes)?;
    }
    let locks = roots::locks(&home)?;
    let owners = roots::owners(&locks);
    let mut graphs: BTreeMap<PathBuf, Option<Graph>> = BTreeMap::new();
    for Damage { digest, made } in &damage {
        let word = paint(colour_out(), Paint::Red, "damaged");
        let owned = made.iter().filter_map(|made| Some((made, owners.get(&made.key)?)));
        let owned: Vec<_> = owned.collect();
        println!("{word} {digest}");
        for (made, (lock, stage)) in &owned {
            let Some(pipeline) = roots::pipeline(lock) else { continue };
            let graph = graphs
                .entry(pipeline.clone())
                .or_insert_with(|| crate::load(&pipeline, &[], kinds).ok());
            let file = made.file.as_ref().map(|file| format!(", file {file}")).unwrap_or_default();
            println!("  {}: stage {stage}, output {}{file}", shown(&pipeline), made.output);
            let place = graph.as_ref().and_then(|graph| place(graph, stage, &made.output));
            let back = match &place {
                Some(place) => state.store.recover(&made.artifact, place)?,
                None => false,
            };
            match place.filter(|_| back) {
                Some(place) => println!("  put back from {}", shown(&place)),
                None => {
                    eprintln!("  hint: `quantmill run {} {stage}` makes it again", shown(&pipeline))
                }
            }
        }
        if owned.is_empty() {
            match made.first() {
                Some(made) => {
                    let item = made.item.as_deref().map(|item| format!(" for {item}"));
                    let item = item.unwrap_or_default();
                    println!(
                        "  an output {} of `{}`{item}, in no lock file",
                        made.output, made.stage
                    );
                }
                None => {
                    println!("  made by no action that is recorded: an input, or a list of files")
                }
            }
        }
    }
    eprintln!("read {all}: {} damaged, moved aside", count(damage.len(), "blob"));
    Err(Failure::Told)
}

fn place(graph: &Graph, stage: &str, output: &str) -> Option<PathBuf> {
    let node = graph.nodes.iter().find(|node| node.name == stage)?;
    let out = node.outputs.iter().find(|out| out.port.name == output)?;
    Some(graph.dir.join(&out.dest))
}

/// A path as it is seen from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

fn bar(bytes: u64) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = "  {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(bytes), target).with_style(style)
}
