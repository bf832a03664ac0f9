//! The pipeline file as its writer meant it: keys known, types right, variables filled in.
//!
//! A [`Spec`] is about one file alone. What the names in it refer to, and whether stages fit
//! together, is decided by `graph::build`; problems found here travel in the [`Spec`], so that both
//! halves are reported in one go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quantmill_stages::Kind;

use crate::diagnostic::{Problem, Problems, Source, Sources, Span, suggest};
use crate::graph::InputSpec;
use crate::params;
use crate::set;
use crate::vars::Vars;
use crate::yaml::{self, Key, Value, Yaml};

/// Keys of the file.
pub const TOP_KEYS: [&str; 5] = ["version", "vars", "seed", "inputs", "stages"];
/// Keys of a stage.
pub const STAGE_KEYS: [&str; 6] = ["uses", "from", "with", "to", "seed", "env"];

/// A pipeline file, read.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The file, and each `--set`.
    pub sources: Sources,
    /// The file's folder.
    pub dir: PathBuf,
    /// The seed of stages that have none.
    pub seed: u64,
    /// Source files, in the order of the file.
    pub inputs: Vec<InputSpec>,
    /// Stages, in the order of the file.
    pub stages: Vec<StageSpec>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
}

/// A stage of a pipeline file.
#[derive(Clone, Debug)]
pub struct StageSpec {
    /// Its name.
    pub name: Key,
    /// The kind; `None` where it is missing, which is reported already.
    pub uses: Option<Text>,
    /// Sources by port; a single source has no port.
    pub from: Vec<(Option<Key>, Text)>,
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
}

/// Text and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Its place.
    pub span: Span,
}

/// Reads a pipeline file. `overrides` are the `--set PATH=VALUE` of the command line, in order.
/// Fails only where there is nothing to go on with; other problems travel in the [`Spec`].
pub fn parse(
    path: &Path,
    text: &str,
    overrides: &[(String, String)],
    kinds: &[Kind],
) -> Result<Spec, Problems> {
    let mut sources = vec![Source { name: path.display().to_string(), text: text.into() }];
    for (path, value) in overrides {
        let text = format!("{path}={value}").into();
        sources.push(Source { name: "--set".into(), text });
    }
    let sources = Sources(Arc::new(sources));
    let mut problems = Vec::new();
    let Some(mut root) = yaml::read(text, 0, &mut problems) else {
        return Err(Problems::new(sources, problems));
    };
    if root.map().is_none() {
        let problem = Problem::new("spec::type", root.span, "a pipeline file is a map");
        let problem = problem.label(root.noun());
        problems.push(problem.help("begin with `version: 1` and `stages:`; see `quantmill init`"));
        return Err(Problems::new(sources, problems));
    }
    set::apply(&mut root, &sources, overrides, &mut problems);
    let mut vars = Vars::new(root.get("vars"), &sources, &mut problems);
    if let Value::Map(entries) = &mut root.value {
        for (key, value) in entries.iter_mut().filter(|(key, _)| key.name != "vars") {
            if key.name != "version" {
                vars.expand(value);
            }
        }
    }
    vars.finish();
    let mut walk = Walk { kinds, problems };
    let (seed, inputs, stages) = walk.root(&root);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = parent.unwrap_or(Path::new(".")).to_owned();
    Ok(Spec { sources, dir, seed, inputs, stages, problems: walk.problems })
}

/// A name that can be part of a path, of `stage.output` and of a shell word.
pub fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    !name.is_empty() && name.bytes().all(fits)
}

struct Walk<'a> {
    kinds: &'a [Kind],
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn root(&mut self, root: &Yaml) -> (u64, Vec<InputSpec>, Vec<StageSpec>) {
        for (key, _) in root.map().unwrap_or_default() {
            if !TOP_KEYS.contains(&key.name.as_str()) {
                let message = format!("unknown key `{}`", key.name);
                let problem = Problem::new("spec::unknown_key", key.span, message);
                let help = suggest(&key.name, "keys of a pipeline file", TOP_KEYS);
                self.problems.push(problem.label("not a key of a pipeline file").maybe_help(help));
            }
        }
        self.version(root.get("version"));
        let seed = root.get("seed").and_then(|seed| self.seed(seed)).unwrap_or(0);
        let inputs = root.get("inputs").map(|inputs| self.inputs(inputs)).unwrap_or_default();
        let stages = match root.get("stages") {
            Some(stages) => self.stages(stages, &inputs),
            None => {
                let problem = Problem::new("spec::missing", Span::default(), "no `stages`");
                self.problems.push(problem.help("add `stages:` with at least one stage below it"));
                Vec::new()
            }
        };
        (seed, inputs, stages)
    }

    fn version(&mut self, version: Option<&Yaml>) {
        let Some(version) = version else {
            let problem = Problem::new("spec::missing", Span::default(), "no `version`");
            self.problems.push(problem.label("here").help("begin the file with `version: 1`"));
            return;
        };
        if version.value != Value::Number(1.into()) {
            let problem = Problem::new("spec::version", version.span, "unknown version");
            let problem = problem.label("this program reads version 1");
            self.problems.push(problem.help("write `version: 1`, a number without quotes"));
        }
    }

    fn seed(&mut self, seed: &Yaml) -> Option<u64> {
        let number = match &seed.value {
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        if number.is_none() {
            let problem = Problem::new("spec::type", seed.span, "a seed is a whole number");
            self.problems
                .push(problem.label(seed.noun()).help("any number from 0 up, as `seed: 7`"));
        }
        number
    }

    fn inputs(&mut self, inputs: &Yaml) -> Vec<InputSpec> {
        let Some(entries) = self.entries(inputs, "`inputs`", "name: path-or-glob") else {
            return Vec::new();
        };
        let mut read = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            self.name(key, "an input");
            if let Some(pattern) = self.text(value, "an input") {
                if let Some(problem) = pattern_problem(&pattern) {
                    self.problems.push(problem);
                }
                let (name, span) = (key.name.clone(), pattern.span);
                read.push(InputSpec { name, pattern: pattern.text, span });
            }
        }
        read
    }

    fn stages(&mut self, stages: &Yaml, inputs: &[InputSpec]) -> Vec<StageSpec> {
        let Some(entries) = self.entries(stages, "`stages`", "name: { uses: ... }") else {
            return Vec::new();
        };
        if entries.is_empty() {
            let problem = Problem::new("spec::missing", stages.span, "`stages` has no stage");
            self.problems.push(problem.help("add one, as `text: { uses: extract, from: papers }`"));
        }
        for (key, _) in entries {
            self.name(key, "a stage");
            if let Some(input) = inputs.iter().find(|input| input.name == key.name) {
                let message = format!("`{}` names both an input and a stage", key.name);
                let problem = Problem::new("spec::name", key.span, message).label("the stage");
                let problem = problem.also(input.span, "the input");
                self.problems.push(problem.help("rename one: `from` could mean either"));
            }
        }
        entries.iter().filter_map(|(key, value)| self.stage(key, value)).collect()
    }

    fn stage(&mut self, name: &Key, stage: &Yaml) -> Option<StageSpec> {
        if stage.value == Value::Null {
            let message = format!("stage `{}` is empty", name.name);
            let problem = Problem::new("spec::missing", name.span, message);
            self.problems.push(problem.help("say at least what it `uses`"));
            return None;
        }
        let what = format!("stage `{}`", name.name);
        let entries = self.entries(stage, &what, "uses: ..., from: ...")?;
        let uses = stage.get("uses");
        for (key, _) in entries {
            if !STAGE_KEYS.contains(&key.name.as_str()) {
                self.unknown_stage_key(key, uses.and_then(Yaml::text));
            }
        }
        if uses.is_none() {
            let message = format!("{what} does not say what it `uses`");
            let problem = Problem::new("spec::missing", name.span, message);
            let kinds: Vec<String> = self.kinds.iter().map(|k| format!("`{}`", k.name)).collect();
            self.problems.push(problem.help(format!("stage kinds: {}", kinds.join(", "))));
        }
        let uses = uses.and_then(|uses| self.text(uses, "`uses`"));
        let with = match stage.get("with") {
            Some(with) if with.value != Value::Null => {
                self.entries(with, "`with`", "parameter: value").map(|_| with.clone())
            }
            _ => None,
        };
        let with = with.unwrap_or(Yaml { value: Value::Map(Vec::new()), span: name.span });
        let told = self.problems.len();
        let from = stage.get("from").map(|from| self.ports(from, "from", "source"));
        Some(StageSpec {
            broken: self.problems.len() > told,
            name: name.clone(),
            uses,
            from: from.unwrap_or_default(),
            with,
            to: stage.get("to").map(|to| self.ports(to, "to", "path")).unwrap_or_default(),
            seed: stage.get("seed").and_then(|seed| self.seed(seed)),
            env: stage.get("env").map(|env| self.env(env)).unwrap_or_default(),
        })
    }

    fn unknown_stage_key(&mut self, key: &Key, uses: Option<&str>) {
        let message = format!("unknown key `{}` of a stage", key.name);
        let problem = Problem::new("spec::unknown_key", key.span, message);
        let kind = self.kinds.iter().find(|kind| Some(kind.name) == uses);
        let param = kind.is_some_and(|kind| params::names(kind).contains(&key.name));
        let help = if param {
            Some(format!("`{}` is a parameter: put it below `with`", key.name))
        } else {
            suggest(&key.name, "keys of a stage", STAGE_KEYS)
        };
        self.problems.push(problem.label("not a key of a stage").maybe_help(help));
    }

    /// `from` or `to`: text, or a map of text.
    fn ports(&mut self, value: &Yaml, key: &str, what: &str) -> Vec<(Option<Key>, Text)> {
        let mut read = Vec::new();
        match &value.value {
            Value::Map(entries) => {
                for (port, value) in entries {
                    if let Some(text) = self.text(value, &format!("`{key}.{}`", port.name)) {
                        read.push((Some(port.clone()), text));
                    }
                }
            }
            Value::Seq(_) => {
                let message = format!("`{key}` is a {what}, or a map of them");
                let problem = Problem::new("spec::type", value.span, message).label("a list");
                let help = format!("name the port of each: `{key}: {{ port: {what} }}`");
                self.problems.push(problem.help(help));
            }
            _ => {
                if let Some(text) = self.text(value, &format!("`{key}`")) {
                    read.push((None, text));
                }
            }
        }
        read
    }

    fn env(&mut self, env: &Yaml) -> Vec<Text> {
        let Value::Seq(items) = &env.value else {
            let problem = Problem::new("spec::type", env.span, "`env` is a list of names");
            let help = "write `env: [NAME]`; the values are those of the environment of the run";
            self.problems.push(problem.label(env.noun()).help(help));
            return Vec::new();
        };
        let names: Vec<Text> =
            items.iter().filter_map(|item| self.text(item, "a name in `env`")).collect();
        for name in names.iter().filter(|name| name.text.contains(['=', ' ', '\0'])) {
            let message = format!("`{}` is no name of a variable", name.text);
            let problem = Problem::new("spec::env", name.span, message);
            self.problems.push(problem.help("names only: the values come from the environment"));
        }
        names
    }

    fn entries<'y>(
        &mut self,
        value: &'y Yaml,
        what: &str,
        as_in: &str,
    ) -> Option<&'y [(Key, Yaml)]> {
        if value.value == Value::Null {
            return Some(&[]);
        }
        let entries = value.map();
        if entries.is_none() {
            let problem = Problem::new("spec::type", value.span, format!("{what} is a map"));
            self.problems
                .push(problem.label(value.noun()).help(format!("write `{as_in}` below it")));
        }
        entries
    }

    fn text(&mut self, value: &Yaml, what: &str) -> Option<Text> {
        match value.text() {
            Some(text) => Some(Text { text: text.to_owned(), span: value.span }),
            None => {
                let problem = Problem::new("spec::type", value.span, format!("{what} is text"));
                let problem = problem.label(value.noun());
                self.problems.push(match value.value {
                    Value::Seq(_) => {
                        problem.help("one text; a glob such as `{a,b}/*.csv` names many")
                    }
                    Value::Null | Value::Map(_) => problem,
                    _ => problem.help("put it in quotes"),
                });
                None
            }
        }
    }

    fn name(&mut self, key: &Key, what: &str) {
        if !is_name(&key.name) {
            let message = format!("`{}` cannot name {what}", key.name);
            let problem = Problem::new("spec::name", key.span, message);
            let lower: String = key.name.to_lowercase().replace([' ', '.', '/'], "-");
            let help = "a name has lower-case letters, digits, `_` and `-`";
            self.problems.push(problem.help(match is_name(&lower) {
                true => format!("{help}, as `{lower}`"),
                false => help.to_owned(),
            }));
        }
    }
}

fn pattern_problem(pattern: &Text) -> Option<Problem> {
    if pattern.text.trim().is_empty() {
        let problem = Problem::new("spec::path", pattern.span, "an input needs a path");
        return Some(problem.help("give a file, a folder or a glob such as `data/*.csv`"));
    }
    let error = globset::Glob::new(&pattern.text).err()?;
    let message = format!("the glob cannot be read: {}", error.kind());
    Some(
        Problem::new("spec::path", pattern.span, message)
            .help("put `[` before and `]` after a special character to mean itself, as `[*]`"),
    )
}
