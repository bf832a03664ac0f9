//! The engine: a pipeline file becomes a [`spec::Spec`], a [`graph::Graph`], a [`plan::Plan`], a run,
//! and a lock file. One function an arrow, one file a noun.
//!
//! It knows stages only as the table of kinds that `main` passes to it.

#[macro_use]
mod say;

pub mod cli;
pub mod commands;
pub mod diagnostic;
pub mod estimate;
pub mod event;
pub mod executor;
pub mod exit;
pub mod experiment;
pub mod fetch;
pub mod graph;
pub mod hub;
pub mod interrupt;
pub mod lock;
pub mod params;
pub mod past;
pub mod plan;
pub mod record;
pub mod report;
pub mod roots;
pub mod run;
pub mod schema;
pub mod set;
pub mod source;
pub mod spec;
pub mod state;
pub mod uptodate;
pub mod vars;
pub mod why;
pub mod yaml;

use std::path::{Path, PathBuf};

use quantmill_stages::Kind;

use crate::exit::Failure;
use crate::graph::Graph;

/// The name of a pipeline file in its folder.
pub const PIPELINE: &str = "pipeline.yaml";

/// The pipeline file that a path means: itself, or the one in a folder.
pub fn find(path: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = path.unwrap_or(Path::new("."));
    let file = if path.is_dir() { path.join(PIPELINE) } else { path.to_owned() };
    if file.is_file() {
        return Ok(file);
    }
    let help = "name a pipeline file or a folder with one, or begin with `quantmill init`";
    Err(Failure::usage(format!("no pipeline at {}", file.display()), Some(help.into())))
}

/// Reads, parses and checks a pipeline: text -> Spec -> Graph.
pub fn load(path: &Path, set: &[(String, String)], kinds: &[Kind]) -> Result<Graph, Failure> {
    let spec = spec::parse(path, &text(path)?, set, kinds)?;
    Ok(graph::build(spec, kinds)?)
}

/// The text of a pipeline file.
pub fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(fs_err::read(path)?).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        let help = "save it as UTF-8".to_owned();
        Failure::usage(format!("{}:{line}: this is not UTF-8", path.display()), Some(help))
    })
}
