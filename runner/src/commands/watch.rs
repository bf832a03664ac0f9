//! `quantmill watch`: run, and run again whenever a file that counts is saved.
//!
//! What counts are the pipeline file, what it includes, and its sources; never what its stages write.
//! Whether a change changes anything is for the run to find out: a touch runs nothing.

mod scope;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use notify::{EventKind, RecommendedWatcher, Watcher};
use quantmill_stages::Kind;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::run::{self, Run};
use crate::exit::Failure;
use crate::report::text::{Paint, colour, count, paint};
use scope::Scope;

/// An editor saves in several steps: what follows within this time belongs together.
const SETTLED: Duration = Duration::from_millis(100);
/// A stream of changes is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many changed files are named.
const NAMED: usize = 3;

/// Arguments of `watch`.
#[derive(Args, Clone, Debug, Default)]
pub struct Watch {
    #[command(flatten)]
    run: Run,
}

/// The examples of `watch --help`.
pub const EXAMPLES: &str = "\
Examples:
  quantmill watch                            run again on every save of a source or the pipeline
  quantmill watch pipelines/quickstart report
  quantmill watch --keep-going -j 1

What changes during a run is picked up after it. A pipeline that is wrong is told, and waited on.
Ctrl-C ends it, with exit code 130.";

/// Runs and waits, until Ctrl-C.
pub fn watch(arguments: &Watch, kinds: &[Kind]) -> Result<(), Failure> {
    let which = &arguments.run.which;
    let pipeline = std::path::absolute(which.find()?)?;
    let (sender, mut changes) = unbounded_channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        for path in event.ok().filter(counts).into_iter().flat_map(|event| event.paths) {
            // Nobody listens any more only when the process is ending.
            let _ = sender.send(path);
        }
    })
    .map_err(failed)?;
    let mut scope = Scope::new(&pipeline);
    // The second Ctrl-C of a run ends the process; between runs the first one does.
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    loop {
        // Watched before it runs, so that nothing is missed while it runs.
        match crate::load(&pipeline, &which.set, kinds) {
            Ok(graph) => scope.follow(&graph),
            Err(failure) => tracing::debug!("the old scope stays: {failure}"),
        }
        attend(&mut watcher, &mut scope)?;
        match run::run(&arguments.run, kinds) {
            Ok(()) | Err(Failure::Stages(_)) => {}
            Err(failure @ (Failure::Problems(_) | Failure::Usage { .. })) => {
                crate::cli::tell(&failure);
            }
            Err(failure) => return Err(failure),
        }
        let word = paint(colour(), Paint::Dim, "waiting");
        eprintln!("{word} for a change of {}; Ctrl-C ends", count(scope.files(), "source"));
        let changed = waiting.block_on(async {
            tokio::select! {
                changed = next(&mut changes, &scope) => Ok(changed),
                stop = tokio::signal::ctrl_c() => stop.map_or_else(|e| Err(e.into()), |()| Err(Failure::Interrupted)),
            }
        })?;
        eprintln!("\n{} {}", paint(colour(), Paint::Bold, "changed"), said(&changed, &scope));
    }
}

/// Whether something was written. Reads are told too.
fn counts(event: &notify::Event) -> bool {
    matches!(
        event.kind,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
    )
}

fn failed(error: notify::Error) -> Failure {
    let full = matches!(error.kind, notify::ErrorKind::MaxFilesWatch);
    let help = full.then(|| "raise fs.inotify.max_user_watches".to_owned());
    match help {
        Some(_) => Failure::usage("the system watches no more folders", help),
        None => std::io::Error::other(error).into(),
    }
}

/// Begins to watch folders that came in, and leaves those that went.
fn attend(watcher: &mut RecommendedWatcher, scope: &mut Scope) -> Result<(), Failure> {
    let (begin, end) = scope.turn();
    for folder in end {
        // It may be gone.
        let _ = watcher.unwatch(&folder);
    }
    for (folder, mode) in begin {
        watcher.watch(&folder, mode).map_err(failed)?;
    }
    Ok(())
}

/// The files of the next change that counts, once it has settled.
async fn next(changes: &mut UnboundedReceiver<PathBuf>, scope: &Scope) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut until: Option<Instant> = None;
    loop {
        let path = match until {
            None => changes.recv().await,
            Some(until) if Instant::now() >= until => break,
            Some(_) => match timeout(SETTLED, changes.recv()).await {
                Ok(path) => path,
                Err(_) => break,
            },
        };
        let Some(path) = path else { break };
        if scope.holds(&path) {
            until = until.or_else(|| Some(Instant::now() + PATIENCE));
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

fn said(changed: &[PathBuf], scope: &Scope) -> String {
    let name = |path: &Path| path.strip_prefix(scope.dir()).unwrap_or(path).display().to_string();
    let mut names: Vec<String> = changed.iter().take(NAMED).map(|path| name(path)).collect();
    if changed.len() > NAMED {
        names.push(format!("{} more", changed.len() - NAMED));
    }
    names.join(", ")
}
