//! `command`: any program, as a stage.
//!
//! The stage is what a built-in one is, a function from files to files: it runs in the pipeline's
//! folder with an environment of its own, its inputs are those that `from` names, and its outputs
//! those that it declares. What it cannot promise is that the program reads nothing else: a script
//! that it uses belongs among the inputs, so that an edit of the script runs it again.
//!
//! A line that is a string goes through `sh -e`, so that the first line that fails ends it, as in
//! make and in CI; a list is a program and its arguments, without a shell.

mod files;
#[cfg(unix)]
mod process;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use template::{Malformed, Slot, Template};

/// Runs any command.
pub struct Command;

/// The parameters of [`Command`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What to run: a line for `sh -e`, or a list of a program and its arguments. `{in.NAME}` and
    /// `{out.NAME}` stand for the paths of inputs and outputs, quoted where a shell reads them; `{{`
    /// and `}}` are braces.
    pub run: Run,
    /// The outputs: the path of each by its name, relative to the pipeline's folder. A path that
    /// ends in `/` is a folder. The command writes to `{out.NAME}`; where it has no such
    /// placeholder, to the path itself (a file only). Of several, `from: stage` means the first by
    /// name.
    pub outputs: BTreeMap<String, String>,
}

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a command line, or a list of a program and its arguments")]
pub enum Run {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments.
    Program(Vec<String>),
}

impl Run {
    fn parts(&self) -> &[String] {
        match self {
            Run::Shell(line) => std::slice::from_ref(line),
            Run::Program(parts) => parts,
        }
    }

    /// A name for messages: the first line, or the program and its first arguments.
    fn label(&self) -> String {
        let text = match self {
            Run::Shell(line) => line.trim().lines().next().unwrap_or_default().to_owned(),
            Run::Program(parts) => parts.join(" "),
        };
        match text.char_indices().nth(60) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    }

    /// The command line or the arguments, taken apart.
    fn templates(&self) -> Result<Vec<Template>, Malformed> {
        self.parts().iter().map(|part| Template::parse(part)).collect()
    }
}

impl Params {
    /// The placeholders, each once, in the order in which they first stand.
    fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for slot in self.run.templates().unwrap_or_default().iter().flat_map(Template::slots) {
            if !slots.contains(slot) {
                slots.push(slot.clone());
            }
        }
        slots
    }
}

impl Stage for Command {
    const NAME: &'static str = "command";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "run any program on files";
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        let named = params.slots().into_iter().filter_map(|slot| match slot {
            Slot::In(name) => Some(Port::input(name, Format::Any)),
            Slot::Out(_) => None,
        });
        named.chain([Port::any()]).collect()
    }

    fn outputs(params: &Params) -> Vec<Port> {
        let port = |(name, path): (&String, &String)| {
            let place = format!("./{}", files::relative(path).unwrap_or_default().display());
            match path.ends_with('/') {
                true => Port::tree(name.clone(), Format::Any, place),
                false => Port::file(name.clone(), Format::Any, place),
            }
        };
        params.outputs.iter().map(port).collect()
    }

    fn check(params: &Params) -> std::result::Result<(), Invalid> {
        if params.run.parts().first().is_none_or(|first| first.trim().is_empty()) {
            return Err(Invalid::new("run", "nothing to run"));
        }
        check_outputs(&params.outputs)?;
        let malformed = |e: Malformed| Invalid::new("run", e.to_string()).help(known(params));
        params.run.templates().map_err(malformed)?;
        let slots = params.slots();
        for slot in &slots {
            if matches!(slot, Slot::Out(name) if !params.outputs.contains_key(name)) {
                return Err(Invalid::new("run", format!("unknown placeholder `{slot}`"))
                    .help(known(params)));
            }
        }
        for (name, path) in &params.outputs {
            if path.ends_with('/') && !slots.contains(&Slot::Out(name.clone())) {
                // Its own folder may hold files of earlier runs, which nobody could tell apart.
                let at = format!("outputs.{name}");
                return Err(Invalid::new(at, "a folder that the command does not name").help(
                    format!("let it write to `{{out.{name}}}`, which is empty at the start"),
                ));
            }
        }
        Ok(())
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let slots = params.slots();
        let places = files::lay_out(params, &slots, ctx)?;
        let templates = params.run.templates().map_err(|e| StageError::failed(e.to_string()))?;
        let path = |slot: &Slot| places.get(slot).cloned().unwrap_or_default();
        let words: Vec<String> = match &params.run {
            Run::Shell(_) => {
                let line = templates.iter().map(|template| template.shell(path)).collect();
                vec!["sh".into(), "-e".into(), "-c".into(), line]
            }
            Run::Program(_) => templates.iter().map(|template| template.plain(path)).collect(),
        };
        let before = files::stamps(params, &slots, ctx);
        start(&words, &params.run.label(), ctx)?;
        files::collect(params, &places, &before, ctx)
    }
}

fn check_outputs(outputs: &BTreeMap<String, String>) -> std::result::Result<(), Invalid> {
    if outputs.is_empty() {
        return Err(Invalid::new("outputs", "no output")
            .help("name what it writes: `outputs: { table: table.csv }`"));
    }
    let mut paths = BTreeSet::new();
    for (name, path) in outputs {
        let at = format!("outputs.{name}");
        if !template::is_name(name) {
            return Err(Invalid::new(at, format!("`{name}` cannot be the name of an output"))
                .help("a letter or `_`, then letters, digits, `_` and `-`"));
        }
        let Some(path) = files::relative(path) else {
            return Err(Invalid::new(
                at,
                format!("`{path}` is not a path below the pipeline's folder"),
            )
            .help("give a relative path without `..`"));
        };
        if !paths.insert(path) {
            return Err(Invalid::new(at, "two outputs have the same path"));
        }
    }
    Ok(())
}

/// The placeholders that a command line may have, for a hint.
fn known(params: &Params) -> String {
    let outputs = params.outputs.keys().map(|name| format!(", `{{out.{name}}}`"));
    let outputs: String = outputs.collect();
    format!(
        "known are `{{in.NAME}}` with a name in `from`{outputs}; write `{{{{` and `}}}}` for braces"
    )
}

/// The last words of a failed command and what may help, as an error.
fn failure(label: &str, what: String, code: Option<i32>, tail: &[String]) -> StageError {
    let mut message = format!("`{label}` {what}");
    if !tail.is_empty() {
        message.push_str("; its last lines:");
        for line in tail {
            message.push_str("\n  ");
            message.push_str(line);
        }
    }
    StageError::failed(message).hint(match code {
        Some(126) => "the file is not executable: `chmod +x` it, or name its interpreter",
        Some(127) => "a program was not found: is it installed, and on PATH?",
        None | Some(137) => "was it ended from outside, or out of memory?",
        _ => {
            "it ran in the pipeline's folder and saw only PATH, HOME, LANG, TMPDIR and what the stage's `env` names"
        }
    })
}

#[cfg(unix)]
fn start(words: &[String], label: &str, ctx: &Context) -> Result<()> {
    use std::io::ErrorKind;
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    let Some((program, arguments)) = words.split_first() else {
        return Err(StageError::failed("nothing to run"));
    };
    // A path of our own, because with a bare name and a PATH of the child's own the standard library
    // forks, which copies the page tables of a process that may hold a model.
    let dir = std::path::absolute(&ctx.job().dir)?;
    let path = std::env::var_os("PATH");
    let found = process::find(program, &dir, path.as_deref());
    let mut command = std::process::Command::new(found);
    command.arg0(program);
    command.args(arguments).current_dir(&dir).env_clear();
    for name in ["PATH", "HOME", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("TMPDIR", std::path::absolute(ctx.scratch())?).envs(&ctx.job().env);
    let ended = process::run(command, ctx).map_err(|e| match e {
        StageError::Io(e) => {
            let code = match e.kind() {
                ErrorKind::NotFound => 127,
                ErrorKind::PermissionDenied => 126,
                _ => 1,
            };
            failure(label, format!("did not start: {e}"), Some(code), &[])
        }
        other => other,
    })?;
    if ended.status.success() {
        return Ok(());
    }
    let what = match (ended.status.code(), ended.status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".into(),
    };
    Err(failure(label, what, ended.status.code(), &ended.tail))
}

#[cfg(not(unix))]
fn start(_: &[String], label: &str, _: &Context) -> Result<()> {
    Err(failure(label, "needs a Unix system".into(), Some(1), &[]))
}
