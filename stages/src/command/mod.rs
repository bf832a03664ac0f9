//! `command`: any program, as a stage.
//!
//! The stage is what a built-in one is, a function from files to files: it runs in the pipeline's
//! folder with an environment of its own, its inputs are those that `from` names, and its outputs
//! those that it declares. That the program reads nothing else is not a matter of trust alone:
//! `sandbox: trace` tells what it read and does not declare, `sandbox: strict` refuses it. A script
//! that it uses belongs among the inputs, so that an edit of the script runs it again.
//!
//! A line that is a string goes through `sh -e`, so that the first line that fails ends it, as in
//! make and in CI; a list is a program and its arguments, without a shell.
//!
//! With `map` each item is an action of its own; its outputs then hold `{name}` or `{stem}`.

#[cfg(unix)]
pub(crate) mod environment;
#[cfg(unix)]
mod failure;
mod files;
#[cfg(unix)]
mod guard;
mod item;
mod metrics;
#[cfg(unix)]
mod process;
#[cfg(unix)]
mod sandbox;
#[cfg(unix)]
mod strays;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use item::Pattern;
use template::{Malformed, Slot, Template};

/// Runs any command.
pub struct Command;

/// The parameters of [`Command`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What to run: a line for `sh -e`, or a list of a program and its arguments. `{in.NAME}` and
    /// `{out.NAME}` stand for the paths of inputs and outputs, quoted where a shell reads them; with
    /// `map`, `{in.item}` is the item's file, `{item.name}` its name and `{item.stem}` that without
    /// its extension. Other braces are text; `{{in.NAME}}` is the text `{in.NAME}`.
    pub run: Run,
    /// The outputs: the path of each by its name, relative to the pipeline's folder. A path that
    /// ends in `/` is a folder. The command writes to `{out.NAME}`; where it has no such
    /// placeholder, to the path itself (a file only). With `map` the path holds `{name}` or
    /// `{stem}` of the item, as `clean/{stem}.csv`: the output is the folder before it. Of several,
    /// `from: stage` means the first by name.
    pub outputs: BTreeMap<String, String>,
    /// The output whose numbers are metrics of the run: a JSON file such as `{"accuracy": 0.93}`.
    /// Nested ones get dotted names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
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
        distinct(&self.run.templates().unwrap_or_default())
    }
}

fn distinct(templates: &[Template]) -> Vec<Slot> {
    let mut slots = Vec::new();
    for slot in templates.iter().flat_map(Template::slots) {
        if !slots.contains(slot) {
            slots.push(slot.clone());
        }
    }
    slots
}

impl Stage for Command {
    const NAME: &'static str = "command";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "run any program on files";
    const NAMED: bool = true;
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        let mut ports = Vec::with_capacity(2);
        ports.extend(params.slots().into_iter().filter_map(|slot| match slot {
            Slot::In(name) => Some(Port::input(name, Format::Any)),
            Slot::Out(_) | Slot::Name | Slot::Stem => None,
        }));
        ports.push(Port::any());
        ports
    }

    fn outputs(params: &Params) -> Vec<Port> {
        let port = |(name, path): (&String, &String)| {
            let pattern = Pattern::of(path);
            let place = pattern.map_or(path.as_str(), |pattern| pattern.folder);
            let place = format!("./{}", files::relative(place).unwrap_or_default().display());
            match pattern.is_some() || path.ends_with('/') {
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
        metrics::check(params)?;
        let malformed = |e: Malformed| {
            let help = match &e {
                Malformed::Unknown(_, Some(meant)) => format!("did you mean `{meant}`?"),
                _ => known(params),
            };
            Invalid::new("run", e.to_string()).help(help)
        };
        let slots = distinct(&params.run.templates().map_err(malformed)?);
        check_slots(params, &slots)?;
        for (name, path) in &params.outputs {
            let tree = path.ends_with('/') || Pattern::of(path).is_some();
            if tree && !slots.contains(&Slot::Out(name.clone())) {
                // Its own folder may hold files of earlier runs, which nobody could tell apart.
                let at = format!("outputs.{name}");
                return Err(Invalid::new(at, "a folder that the command does not name").help(
                    format!("let it write to `{{out.{name}}}`, which is empty at the start"),
                ));
            }
        }
        Ok(())
    }

    #[cfg(unix)]
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
        environment::look(&params.run, ctx)?;
        let before = files::stamps(params, &slots, ctx)?;
        let outputs = files::in_the_workspace(params, &slots, ctx).map(|(_, path)| path);
        let confined = sandbox::Confined::new(ctx, outputs);
        let ended = start(words, &params.run.label(), &confined, ctx);
        let ended = confined.judge(ctx, ended);
        if ended.is_err() {
            files::clear(params, &slots, &before, ctx);
        }
        ended?;
        files::collect(params, &places, &before, ctx)?;
        metrics::report(params, ctx)
    }

    #[cfg(not(unix))]
    fn run(_: &Params, _: &Context) -> Result<()> {
        Err(StageError::failed("a `command` needs a Unix system"))
    }
}

fn check_outputs(outputs: &BTreeMap<String, String>) -> std::result::Result<(), Invalid> {
    if outputs.is_empty() {
        return Err(Invalid::new("outputs", "no output")
            .help("name what it writes: `outputs: { table: table.csv }`"));
    }
    let mut paths = BTreeSet::new();
    let mapped = outputs.values().any(|path| Pattern::of(path).is_some());
    for (name, path) in outputs {
        let at = || format!("outputs.{name}");
        if !template::is_name(name) {
            return Err(Invalid::new(at(), format!("`{name}` cannot be the name of an output"))
                .help("a letter or `_`, then letters, digits, `_` and `-`"));
        }
        if let Some(wrong) = ["{item", "{in.", "{out."].iter().find(|wrong| path.contains(**wrong))
        {
            return Err(Invalid::new(at(), format!("`{wrong}` has no meaning in a path"))
                .help("with `map` it may hold `{name}`, or `{stem}`, which is without extension"));
        }
        let pattern = Pattern::of(path);
        if mapped && pattern.is_none() {
            return Err(Invalid::new(at(), "every item would write the same file").help(format!(
                "put `{{name}}` or `{{stem}}` of the item into its path, as `{name}/{{name}}`"
            )));
        }
        if pattern.is_some_and(|pattern| files::relative(pattern.folder).is_none()) {
            return Err(Invalid::new(at(), "the items need a folder of their own")
                .help(format!("begin the path with one, as `{name}/{path}`")));
        }
        let place = match pattern {
            Some(pattern) => files::relative(path).and(files::relative(pattern.folder)),
            None => files::relative(path),
        };
        let Some(place) = place else {
            return Err(Invalid::new(
                at(),
                format!("`{path}` is not a path below the pipeline's folder"),
            )
            .help("give a relative path without `..`"));
        };
        if !paths.insert(place) {
            return Err(Invalid::new(
                at(),
                match mapped {
                    true => "the items of two outputs go to the same folder",
                    false => "two outputs have the same path",
                },
            ));
        }
    }
    Ok(())
}

fn check_slots(params: &Params, slots: &[Slot]) -> std::result::Result<(), Invalid> {
    for slot in slots {
        let Slot::Out(name) = slot else { continue };
        if !params.outputs.contains_key(name) {
            let near =
                params.outputs.keys().map(|known| (strsim::jaro_winkler(known, name), known));
            let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(like, _)| *like > 0.8);
            let help = match near {
                Some((_, near)) => format!("did you mean `{{out.{near}}}`?"),
                None => known(params),
            };
            return Err(Invalid::new("run", format!("unknown placeholder `{slot}`")).help(help));
        }
    }
    let mapped = params.outputs.values().any(|path| Pattern::of(path).is_some());
    for (text, meant) in [("{name}", Slot::Name), ("{stem}", Slot::Stem)] {
        if mapped && params.run.parts().iter().any(|part| part.contains(text)) {
            let message = format!("`{text}` is for the paths of outputs");
            return Err(Invalid::new("run", message).help(format!("did you mean `{meant}`?")));
        }
    }
    Ok(())
}

/// The placeholders that a command line may have, for a hint.
fn known(params: &Params) -> String {
    let outputs = params.outputs.keys().map(|name| format!(", `{{out.{name}}}`"));
    let outputs: String = outputs.collect();
    format!(
        "known are `{{in.NAME}}` with a name in `from`{outputs}; `{{{{in.x}}}}` is the text `{{in.x}}`"
    )
}

#[cfg(unix)]
fn start(
    words: Vec<String>,
    label: &str,
    confined: &sandbox::Confined,
    ctx: &Context,
) -> Result<()> {
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    // A path of our own, because with a bare name and a PATH of the child's own the standard library
    // forks, which copies the page tables of a process that may hold a model.
    let dir = std::path::absolute(&ctx.job().dir)?;
    let path = std::env::var_os("PATH");
    let find = |program: &str| process::find(program, &dir, path.as_deref());
    let Some(program) = words.first() else { return Err(StageError::failed("nothing to run")) };
    let found = find(program);
    if let Some(error) = failure::unstartable(program, &found, label) {
        return Err(error);
    }
    let words = confined.words(words);
    let Some((program, arguments)) = words.split_first() else {
        return Err(StageError::failed("nothing to run"));
    };
    let mut command = std::process::Command::new(find(program));
    command.arg0(program).args(arguments).current_dir(&dir);
    environment::give(&mut command, ctx)?;
    let mark = environment::mark(ctx)?;
    let ended = process::run(command, &mark, |command| confined.spawn(command, ctx), ctx);
    let ended = ended.map_err(|e| match e {
        StageError::Io(e) => failure::unstarted(label, &e),
        other => other,
    })?;
    if ended.late {
        return Err(ctx.late());
    }
    match (ended.status.code(), ended.status.signal()) {
        (Some(0), _) => Ok(()),
        (code, signal) => Err(failure::failed(label, code, signal, &ended.tail)),
    }
}
