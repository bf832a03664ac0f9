//! The keys of the file, section by section: known, and of the right type.

use quantmill_stages::{Kind, Sandbox};

use super::cells::{self, Expanded};
use super::value::{Reading, list_of_names};
use super::{STAGE_KEYS, StageSpec, TOP_KEYS, Text, is_name};
use crate::diagnostic::{Problem, Span, suggest};
use crate::graph::{InputSpec, Needs};
use crate::params;
use crate::source::SourceError;
use crate::vars::Vars;
use crate::yaml::{Key, Value, Yaml};

/// What a file says.
#[derive(Default)]
pub struct File {
    pub seed: u64,
    pub sandbox: Sandbox,
    pub inputs: Vec<InputSpec>,
    pub stages: Vec<StageSpec>,
}

/// Reads the entries of a file, but `vars`.
pub fn file(entries: Vec<(Key, Yaml)>, kinds: &[Kind], vars: &mut Vars) -> File {
    let mut file = File::default();
    for required in ["version", "stages"] {
        if !entries.iter().any(|(key, _)| key.name == required) {
            vars.problems.push(missing(required));
        }
    }
    let mut stages = None;
    for (key, mut value) in entries {
        if !matches!(key.name.as_str(), "version" | "stages") {
            vars.expand(&mut value, &cells::Cell::new());
        }
        let mut reading = Reading { problems: vars.problems };
        match key.name.as_str() {
            "version" => reading.problems.extend(version(&value)),
            "seed" => file.seed = reading.seed(&value).unwrap_or(0),
            "sandbox" => file.sandbox = reading.sandbox(&value).unwrap_or_default(),
            "inputs" => file.inputs = inputs(&value, &mut reading),
            "stages" => stages = Some(value),
            _ => {
                let message = format!("unknown key `{}`", key.name);
                let problem = Problem::new("spec::unknown_key", key.span, message);
                let help = suggest(&key.name, "keys of a pipeline file", TOP_KEYS);
                vars.problems.push(problem.label("not a key of a pipeline file").maybe_help(help));
            }
        }
    }
    if let Some(stages) = stages {
        file.stages = self::stages(stages, &file.inputs, kinds, vars);
    }
    file
}

/// What is wrong with a version.
pub fn version(version: &Yaml) -> Option<Problem> {
    if version.value == Value::Number(1.into()) {
        return None;
    }
    let problem = Problem::new("spec::version", version.span, "unknown version");
    let problem = problem.label("this program reads version 1");
    Some(problem.help("write `version: 1`, a number without quotes"))
}

fn missing(key: &str) -> Problem {
    let problem = Problem::new("spec::missing", Span::default(), format!("no `{key}`"));
    match key {
        "version" => problem.label("here").help("begin the file with `version: 1`"),
        _ => problem.help("add `stages:` with at least one stage below it"),
    }
}

fn inputs(inputs: &Yaml, reading: &mut Reading) -> Vec<InputSpec> {
    let Some(entries) = reading.entries(inputs, "`inputs`", "name: path-or-glob") else {
        return Vec::new();
    };
    let mut read = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        name(key, "an input", reading.problems);
        if let Some(pattern) = source(value, reading) {
            reading.problems.extend(pattern_problem(&pattern));
            let (name, span) = (key.name.clone(), pattern.span);
            read.push(InputSpec { name, pattern: pattern.text, span });
        }
    }
    read
}

/// A path, glob or URL; or a model of the hub, as `{ hf: owner/name, revision: main, files: "*" }`.
fn source(value: &Yaml, reading: &mut Reading) -> Option<Text> {
    let Value::Map(entries) = &value.value else { return reading.text(value, "an input") };
    let (mut name, mut revision, mut files) = (None, None, None);
    for (key, value) in entries {
        let place = match key.name.as_str() {
            "hf" => &mut name,
            "revision" => &mut revision,
            "files" => &mut files,
            other => {
                let message = format!("unknown key `{other}` of an input");
                let help = suggest(other, "keys", vec!["hf", "revision", "files"]);
                let problem = Problem::new("spec::unknown_key", key.span, message);
                reading.problems.push(problem.maybe_help(help));
                continue;
            }
        };
        *place = Some(reading.text(value, &format!("`{}`", key.name))?.text);
    }
    let Some(name) = name else {
        let problem =
            Problem::new("spec::missing", value.span, "no `hf` in an input that is a map");
        let help = "write a path or a glob, or `{ hf: owner/name }` for a model of the hub";
        reading.problems.push(problem.help(help));
        return None;
    };
    let revision = revision.map(|revision| format!("@{revision}")).unwrap_or_default();
    let files = files.map(|files| format!("#{files}")).unwrap_or_default();
    Some(Text { text: format!("hf://{name}{revision}{files}"), span: value.span })
}

fn pattern_problem(pattern: &Text) -> Option<Problem> {
    if pattern.text.trim().is_empty() {
        let problem = Problem::new("spec::path", pattern.span, "an input needs a path");
        return Some(problem.help("give a file, a folder or a glob such as `data/*.csv`"));
    }
    match crate::fetch::remotes(&pattern.text) {
        Some(Err(SourceError::Nothing { message, help })) => {
            return Some(Problem::new("spec::path", pattern.span, message).maybe_help(help));
        }
        Some(_) => return None,
        None => {}
    }
    match crate::hub::named(&pattern.text) {
        Some(Err(SourceError::Nothing { message, help })) => {
            return Some(Problem::new("spec::path", pattern.span, message).maybe_help(help));
        }
        Some(_) => return None,
        None => {}
    }
    if !pattern.text.contains(['*', '?', '[', ']', '{', '}']) {
        return None;
    }
    let error = globset::Glob::new(&pattern.text).err()?;
    let message = format!("the glob cannot be read: {}", error.kind());
    Some(
        Problem::new("spec::path", pattern.span, message)
            .help("put `[` before and `]` after a special character to mean itself, as `[*]`"),
    )
}

fn stages(stages: Yaml, inputs: &[InputSpec], kinds: &[Kind], vars: &mut Vars) -> Vec<StageSpec> {
    let mut reading = Reading { problems: vars.problems };
    match reading.entries(&stages, "`stages`", "name: { uses: ... }") {
        None => return Vec::new(),
        Some([]) => {
            let problem = Problem::new("spec::missing", stages.span, "`stages` has no stage");
            let help = "add one, as `text: { uses: extract, from: papers }`";
            vars.problems.push(problem.help(help));
            return Vec::new();
        }
        Some(_) => {}
    }
    let Value::Map(entries) = stages.value else { return Vec::new() };
    let inputs: std::collections::BTreeMap<&str, Span> =
        inputs.iter().map(|input| (input.name.as_str(), input.span)).collect();
    for (key, _) in &entries {
        name(key, "a stage", vars.problems);
        if let Some(&input) = inputs.get(key.name.as_str()) {
            let message = format!("`{}` names both an input and a stage", key.name);
            let problem = Problem::new("spec::name", key.span, message).label("the stage");
            let problem = problem.also(input, "the input");
            vars.problems.push(problem.help("rename one: `from` could mean either"));
        }
    }
    let expanded = cells::expand(entries, kinds, vars);
    let mut reading = Reading { problems: vars.problems };
    let mut read = Vec::with_capacity(expanded.len());
    read.extend(expanded.into_iter().filter_map(|stage| self::stage(stage, kinds, &mut reading)));
    read
}

fn stage(stage: Expanded, kinds: &[Kind], reading: &mut Reading) -> Option<StageSpec> {
    let Expanded { key, cell, yaml, left_out, broken } = stage;
    let base = key.name.clone();
    if yaml.value == Value::Null {
        let problem = Problem::new("spec::missing", key.span, format!("stage `{base}` is empty"));
        reading.problems.push(problem.help("say at least what it `uses`"));
        return None;
    }
    if yaml.map().is_none() {
        reading.entries(&yaml, &format!("stage `{base}`"), "uses: ..., from: ...");
        return None;
    }
    let Value::Map(entries) = yaml.value else { return None };
    let name = match cell.is_empty() {
        true => key,
        false => Key { name: format!("{base}@{}", cells::label(&cell)), span: key.span },
    };
    let with = Yaml { value: Value::Map(Vec::new()), span: name.span };
    let mut spec = StageSpec {
        name,
        base,
        cell,
        left_out,
        unclear: broken,
        uses: None,
        from: Vec::new(),
        map: None,
        broken: false,
        with,
        to: Vec::new(),
        seed: None,
        env: Vec::new(),
        secrets: Vec::new(),
        frozen: false,
        always: false,
        retries: 0,
        timeout: None,
        needs: Needs::default(),
        time: None,
        sandbox: None,
    };
    let mut unknown = Vec::new();
    let mut said = false;
    for (key, value) in entries {
        match key.name.as_str() {
            "uses" => {
                said = true;
                spec.uses = reading.text(&value, "`uses`");
            }
            // Of a stage whose axes are wrong nothing else can be judged.
            name if broken && STAGE_KEYS.contains(&name) => {}
            "from" => {
                let told = reading.problems.len();
                spec.from = reading.ports(value, "from", "source");
                spec.broken = reading.problems.len() > told;
            }
            "map" => spec.map = reading.text(&value, "`map`"),
            "with" => with_of(value, &mut spec, reading),
            "to" => spec.to = reading.ports(value, "to", "path"),
            "seed" => spec.seed = reading.seed(&value),
            "env" => spec.env = list_of_names(&value, "env", reading),
            "secrets" => spec.secrets = list_of_names(&value, "secrets", reading),
            "frozen" => spec.frozen = reading.boolean(&value, "`frozen`"),
            "always" => {
                spec.always = reading.boolean(&value, "`always`");
                if spec.always && spec.frozen {
                    reading.problems.push(contradiction(&spec.base, key.span));
                }
            }
            "retries" => {
                let read = reading.whole(&value, "`retries`", 0..=100, "as `retries: 2`");
                spec.retries = read.unwrap_or(0) as u32;
            }
            "timeout" => spec.timeout = reading.duration(&value, "`timeout`"),
            "needs" => (spec.needs, spec.time) = reading.needs(&value),
            "sandbox" => spec.sandbox = reading.sandbox(&value),
            _ => unknown.push(key),
        }
    }
    for key in unknown {
        reading.problems.push(unknown_key(&key, spec.uses.as_ref(), kinds));
    }
    if !said {
        let message = format!("stage `{}` does not say what it `uses`", spec.base);
        let problem = Problem::new("spec::missing", spec.name.span, message);
        let kinds: Vec<String> = kinds.iter().map(|k| format!("`{}`", k.name)).collect();
        reading.problems.push(problem.help(format!("stage kinds: {}", kinds.join(", "))));
    }
    for name in spec.env.iter().filter(|name| spec.secrets.iter().any(|s| s.text == name.text)) {
        let message = format!("`{}` is in `env` and in `secrets`", name.text);
        let problem = Problem::new("spec::conflict", name.span, message);
        let help = "the value of `env` is kept with the result, that of a secret never: keep one";
        reading.problems.push(problem.help(help));
    }
    Some(spec)
}

fn contradiction(stage: &str, span: Span) -> Problem {
    let message = format!("`{stage}` is frozen, and is to run always");
    let problem = Problem::new("spec::conflict", span, message);
    problem.help("leave out `frozen` or `always`")
}

fn with_of(value: Yaml, spec: &mut StageSpec, reading: &mut Reading) {
    if value.value != Value::Null && reading.entries(&value, "`with`", "parameter: value").is_some()
    {
        spec.with = value;
    }
}

fn unknown_key(key: &Key, uses: Option<&Text>, kinds: &[Kind]) -> Problem {
    let message = format!("unknown key `{}` of a stage", key.name);
    let problem = Problem::new("spec::unknown_key", key.span, message);
    let kind = uses.and_then(|uses| kinds.iter().find(|kind| kind.name == uses.text));
    let param = kind.is_some_and(|kind| params::names(kind).contains(&key.name));
    let help = if param {
        Some(format!("`{}` is a parameter: put it below `with`", key.name))
    } else {
        suggest(&key.name, "keys of a stage", STAGE_KEYS)
    };
    problem.label("not a key of a stage").maybe_help(help)
}

fn name(key: &Key, what: &str, problems: &mut Vec<Problem>) {
    if is_name(&key.name) {
        return;
    }
    let message = format!("`{}` cannot name {what}", key.name);
    let problem = Problem::new("spec::name", key.span, message);
    let lower: String = key.name.to_lowercase().replace([' ', '.', '/'], "-");
    let help = "a name has lower-case letters, digits, `_` and `-`";
    problems.push(problem.help(match is_name(&lower) {
        true => format!("{help}, as `{lower}`"),
        false => help.to_owned(),
    }));
}
