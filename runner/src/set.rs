//! `--set PATH=VALUE`: changes a value of the pipeline file from the command line.
//!
//! A path is `name` or `vars.name` (a variable), `seed`, `inputs.name`, `stages.name.key...`, or in
//! short `stage.param` for `stages.stage.with.param`; a variable wins over a stage of the same name.
//! A parameter that is an axis of the stage's matrix gets this one value in place of the axis' values.
//! Variables, inputs and stages must exist: a misspelt path is an error, not a new value. The value
//! is YAML: `3`, `true`, `[1, 2]`, `{r: 8}`, or text.

use crate::diagnostic::{Problem, Sources, Span, suggest};
use crate::spec::STAGE_KEYS;
use crate::yaml::{self, Key, Value, Yaml};

/// The name of an override as a source.
pub const NAME: &str = "--set";

/// Applies the overrides to the tree of the file, in order. The `n`th has source `n + 1`.
pub fn apply(
    root: &mut Yaml,
    sources: &Sources,
    overrides: &[(String, String)],
    problems: &mut Vec<Problem>,
) {
    for (n, (path, value)) in overrides.iter().enumerate() {
        let source = n + 1;
        let span = Span { source, start: 0, end: path.len() };
        let value = if value.trim().is_empty() {
            let end = sources.0.get(source).map_or(0, |source| source.text.len());
            Yaml { value: Value::String(String::new()), span: Span { source, start: 0, end } }
        } else {
            // Spaces for the path, so that places in the value are places in the argument.
            let text = format!("{}{value}", " ".repeat(path.len() + 1));
            let told = problems.len();
            let read = yaml::read(&text, source, problems);
            problems[told..].iter_mut().for_each(|problem| in_a_shell(problem, path, value));
            match read {
                Some(value) => value,
                None => continue,
            }
        };
        let done = absolute(root, path).and_then(|path| match axis(root, &path) {
            Some((path, lists)) => {
                let many = matches!(value.value, Value::Seq(_)) && !lists;
                let one = |value: Yaml| Yaml { span: value.span, value: Value::Seq(vec![value]) };
                put(root, &path, span, if many { value } else { one(value) })
            }
            None => put(root, &path, span, value),
        });
        if let Err((message, help)) = done {
            problems.push(Problem::new("set::unknown", span, message).maybe_help(help));
        }
    }
}

/// A shell takes quotes away: the hint has those that reach us.
fn in_a_shell(problem: &mut Problem, path: &str, value: &str) {
    let quoted = format!("write \"{value}\" for the text");
    let shell = format!("write `--set '{path}=\"{value}\"'` for the text");
    problem.help = problem.help.take().map(|help| help.replace(&quoted, &shell));
}

/// What is wrong, and what may help.
pub type Refused = (String, Option<String>);

fn keys<'y>(root: &'y Yaml, section: &str) -> Vec<&'y str> {
    let entries = root.get(section).and_then(Yaml::map).unwrap_or_default();
    entries.iter().map(|(key, _)| key.name.as_str()).collect()
}

/// The path from the root of the file.
fn absolute(root: &Yaml, path: &str) -> Result<Vec<String>, Refused> {
    let parts: Vec<&str> = path.split('.').collect();
    let (first, rest) = parts.split_first().unwrap_or((&"", &[]));
    let (vars, stages) = (keys(root, "vars"), keys(root, "stages"));
    let prefix: &[&str] = match *first {
        "inputs" if rest.len() == 1 => &[],
        "vars" | "stages" if !rest.is_empty() => &[],
        name if vars.contains(&name) => &["vars"],
        "seed" | "sandbox" if rest.is_empty() => &[],
        name if stages.contains(&name) && !rest.is_empty() => &["stages"],
        name if stages.contains(&name) => {
            let help = format!("name a parameter of it, as `{name}.param=value`");
            return Err((format!("`{name}` is a stage, not a value"), Some(help)));
        }
        name => {
            let known: Vec<&str> = vars.iter().chain(&stages).copied().collect();
            let help = suggest(name, "variables and stages", known);
            return Err((format!("`--set {path}` names no variable and no stage"), help));
        }
    };
    let mut full: Vec<String> = prefix.iter().map(|part| part.to_string()).collect();
    full.extend(parts.iter().map(|part| part.to_string()));
    if prefix == ["stages"] {
        full.insert(2, "with".into());
    }
    check(root, &full)?;
    Ok(full)
}

/// The path of the axis that a parameter is, and whether its values are lists themselves.
fn axis(root: &Yaml, path: &[String]) -> Option<(Vec<String>, bool)> {
    let [stages, stage, with, rest @ ..] = path else { return None };
    if stages != "stages" || with != "with" {
        return None;
    }
    let matrix = root.get(stages)?.get(stage)?.get("matrix")?;
    let nested =
        rest.iter().try_fold(matrix, |at, part| at.get(part)).map(|at| (rest.to_vec(), at));
    let dotted = || Some((vec![rest.join(".")], matrix.get(&rest.join("."))?));
    let (below, values) = nested.or_else(dotted)?;
    let lists = match &values.value {
        Value::Seq(values) => values.iter().any(|value| matches!(value.value, Value::Seq(_))),
        // A variable.
        Value::String(_) => false,
        _ => return None,
    };
    let path = [stages, stage, "matrix"].map(str::to_owned).into_iter().chain(below).collect();
    Some((path, lists))
}

/// Refuses what must exist and does not.
fn check(root: &Yaml, path: &[String]) -> Result<(), Refused> {
    let [section, name, rest @ ..] = path else { return Ok(()) };
    let names = keys(root, section);
    if !names.contains(&name.as_str()) {
        let what = section.strip_suffix('s').unwrap_or(section);
        let help = suggest(name, section, names);
        return Err((format!("no {what} `{name}` to set"), help));
    }
    if section == "stages" {
        match rest.first() {
            None => {
                let help = Some(format!("name a parameter, as `{name}.param=value`"));
                return Err((format!("`{name}` is a stage, not a value"), help));
            }
            Some(key) if !STAGE_KEYS.contains(&key.as_str()) => {
                let help = suggest(key, "keys of a stage", STAGE_KEYS);
                return Err((format!("a stage has no key `{key}`"), help));
            }
            _ => {}
        }
    }
    if section == "vars" {
        let mut at = root.get("vars").and_then(|vars| vars.get(name));
        for part in rest {
            let (Some(value), Some(names)) = (at, at.and_then(Yaml::map)) else { break };
            at = value.get(part);
            if at.is_none() {
                let names: Vec<&str> = names.iter().map(|(key, _)| key.name.as_str()).collect();
                let help = suggest(part, "its keys", names);
                return Err((format!("variable `{name}` has no key `{part}`"), help));
            }
        }
    }
    Ok(())
}

/// Puts the value there, making maps on the way.
pub fn put(at: &mut Yaml, path: &[String], span: Span, value: Yaml) -> Result<(), Refused> {
    let Some((first, rest)) = path.split_first() else {
        *at = value;
        return Ok(());
    };
    if at.value == Value::Null {
        *at = Yaml { value: Value::Map(Vec::new()), span };
    }
    match &mut at.value {
        Value::Map(entries) => {
            let found = entries.iter().position(|(key, _)| key.name == *first);
            let place = found.unwrap_or_else(|| {
                let empty = Yaml { value: Value::Null, span };
                entries.push((Key { name: first.clone(), span }, empty));
                entries.len() - 1
            });
            let Some((key, below)) = entries.get_mut(place) else { return Ok(()) };
            if rest.is_empty() {
                key.span = span;
            }
            put(below, rest, span, value)
        }
        Value::Seq(items) => {
            let n = items.len();
            match first.parse::<usize>().ok().and_then(|i| items.get_mut(i)) {
                Some(item) => put(item, rest, span, value),
                None => Err((format!("a list of {n} has no place `{first}`"), None)),
            }
        }
        _ => Err((format!("`{first}` would lie below {}", at.noun()), None)),
    }
}
