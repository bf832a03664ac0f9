//! `quantmill runs export` and `quantmill runs import`.

use std::path::{Path, PathBuf};

use clap::Args;
use quantmill_cache::Store;
use quantmill_stages::Kind;

use super::{home, print};
use crate::exit::Failure;
use crate::experiment::{archive, history};
use crate::state::{self, State};

/// Arguments of `runs export`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The archive holds the pipeline, the lock, the inputs by digest, the files that
git tracks in the pipeline's folder, the environment that stages declare, and the
metrics. It never holds secrets.

Examples:
  quantmill runs export latest
  quantmill runs export 20261121-0813 -o thesis-table-3.tar.gz
  quantmill runs reproduce thesis-table-3.tar.gz")]
pub struct Export {
    /// The run
    #[arg(value_name = "RUN", default_value = "latest")]
    run: String,
    /// The file to write [default: run-ID.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Put the outputs in as well, so that a difference can be shown line by line
    #[arg(long)]
    outputs: bool,
}

/// Arguments of `runs import`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  quantmill runs import thesis-table-3.tar.gz
  quantmill runs diff latest 20261121-0813")]
pub struct Import {
    /// What `runs export` wrote
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
}

/// Writes the archive, and its name on stdout.
pub fn export(arguments: &Export, kinds: &[Kind]) -> Result<(), Failure> {
    let home = home()?;
    let run = history::find(&home, &arguments.run)?;
    let to = arguments.output.clone().unwrap_or_else(|| format!("run-{}.tar.gz", run.id).into());
    let packed = archive::pack(&run, &Store::open(&home)?, arguments.outputs, &to, kinds)?;
    if !packed.gone.is_empty() {
        print(&packed.gone.iter().map(|gone| format!("gone: {gone}\n")).collect::<String>())?;
        return Err(Failure::Told);
    }
    for path in &packed.absolute {
        eprintln!(
            "warning: {path} is an absolute path, which no other machine has: it is left out"
        );
    }
    if !packed.tracked {
        eprintln!("warning: without the commit, files that no stage declares are left out");
    }
    print(&format!("{}\n", to.display()))
}

/// Takes a run over as if it had happened here.
pub fn import(arguments: &Import) -> Result<(), Failure> {
    let state = State::open(state::locate(Path::new(".")))?;
    let run = archive::unpack(&arguments.archive, &state.home)?;
    print(&format!("{}\n", run.id))
}
