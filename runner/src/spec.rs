//! The pipeline file as its writer meant it: other files included, variables filled in, a stage for
//! each cell of a matrix, keys known, types right.
//!
//! A [`Spec`] is about the file alone. What the names in it refer to, and whether stages fit
//! together, is decided by `graph::build`; problems found here travel in the [`Spec`], so that both
//! halves are reported in one go.

mod amount;
mod axes;
pub mod cells;
mod include;
mod join;
mod read;
pub mod source;
mod value;
mod when;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quantmill_stages::{Kind, Sandbox};

use crate::diagnostic::{Problem, Problems, Source, Sources, Span};
use crate::graph::{InputSpec, Needs};
use crate::set;
use crate::vars::Vars;
use crate::yaml::{self, Key, Value, Yaml};
use cells::Cell;

/// Keys of the file.
pub const TOP_KEYS: [&str; 7] =
    ["version", "vars", "seed", "include", "sandbox", "inputs", "stages"];
/// Keys of a stage.
pub const STAGE_KEYS: [&str; 17] = [
    "uses", "from", "with", "to", "seed", "env", "secrets", "matrix", "foreach", "when", "frozen",
    "always", "retries", "timeout", "needs", "sandbox", "map",
];

/// A pipeline file, read.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The file, each `--set`, and the files that it includes.
    pub sources: Sources,
    /// The file's folder.
    pub dir: PathBuf,
    /// The seed of stages that have none.
    pub seed: u64,
    /// How far stages that do not say are kept to what they declare.
    pub sandbox: Sandbox,
    /// Source files, in the order of the file.
    pub inputs: Vec<InputSpec>,
    /// Stages, in the order of the file; the cells of one follow each other.
    pub stages: Vec<StageSpec>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
}

/// A stage of a pipeline file, or one of its cells.
#[derive(Clone, Debug)]
pub struct StageSpec {
    /// Its name; of a cell `name@axis=value`. The place is that of the name in the file.
    pub name: Key,
    /// Its name in the file.
    pub base: String,
    /// Its values on the axes of its matrix.
    pub cell: Cell,
    /// The `when` that leaves it out.
    pub left_out: Option<Span>,
    /// Something about its axes is wrong, which is reported already: the rest cannot be judged.
    pub unclear: bool,
    /// The kind; `None` where it is missing, which is reported already.
    pub uses: Option<Text>,
    /// Sources by port; a single source has no port.
    pub from: Vec<(Option<Key>, Text)>,
    /// What it maps over.
    pub map: Option<Text>,
    /// An entry of `from` is not text, which is reported already.
    pub broken: bool,
    /// Parameters: a map.
    pub with: Yaml,
    /// Places of outputs by port; a single place has no port.
    pub to: Vec<(Option<Key>, Text)>,
    /// The seed, where it has its own.
    pub seed: Option<u64>,
    /// Names of environment variables.
    pub env: Vec<Text>,
    /// Names of environment variables whose values are secret.
    pub secrets: Vec<Text>,
    /// It keeps what it gave last.
    pub frozen: bool,
    /// It runs in every run.
    pub always: bool,
    /// How often it is tried again.
    pub retries: u32,
    /// How long an action of it may take.
    pub timeout: Option<Duration>,
    /// What it needs of the machine.
    pub needs: Needs,
    /// The most time that it needs.
    pub time: Option<Duration>,
    /// How far it is kept to what it declares, where it says so.
    pub sandbox: Option<Sandbox>,
}

/// Text and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Its place.
    pub span: Span,
}

/// Reads a pipeline file, and those that it includes. `overrides` are the `--set PATH=VALUE` of the
/// command line, in order. Fails only where there is nothing to go on with; other problems travel in
/// the [`Spec`].
pub fn parse(
    path: &Path,
    text: &str,
    overrides: &[(String, String)],
    kinds: &[Kind],
) -> Result<Spec, Problems> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = parent.unwrap_or(Path::new(".")).to_owned();
    let mut sources = vec![Source { name: path.display().to_string(), text: text.into() }];
    for (path, value) in overrides {
        let text = format!("{path}={value}").into();
        sources.push(Source { name: set::NAME.into(), text });
    }
    let mut problems = Vec::new();
    let mut root = yaml::read(text, 0, &mut problems);
    if let Some(root) = &mut root {
        include::merge(root, path, &dir, &mut sources, &mut problems);
    }
    let sources = Sources(Arc::new(sources));
    let Some(mut root) = root else { return Err(Problems::new(sources, problems)) };
    set::apply(&mut root, &sources, overrides, &mut problems);
    let (span, noun) = (root.span, root.noun());
    let Value::Map(mut entries) = root.value else {
        let problem = Problem::new("spec::type", span, "a pipeline file is a map").label(noun);
        problems.push(problem.help("begin with `version: 1` and `stages:`; see `quantmill init`"));
        return Err(Problems::new(sources, problems));
    };
    let at = entries.iter().position(|(key, _)| key.name == "vars");
    let mut vars = Vars::new(at.map(|at| entries.remove(at).1), &sources, &mut problems);
    let read = read::file(entries, kinds, &mut vars);
    vars.finish();
    let read::File { seed, sandbox, inputs, stages } = read;
    Ok(Spec { sources, dir, seed, sandbox, inputs, stages, problems })
}

/// A name that can be part of a path, of `stage.output` and of a shell word.
pub fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    !name.is_empty() && name.bytes().all(fits)
}
