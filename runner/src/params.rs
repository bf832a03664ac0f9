//! A stage's parameters, resolved, with each mistake at its own place in the file.
//!
//! serde stops at the first mistake. So keys that the JSON Schema does not know are found first, all
//! of them; then a parameter that does not hold is taken out and the rest is tried again.

use std::collections::{BTreeMap, BTreeSet};

use quantmill_stages::{Invalid, Kind, Settled};
use serde_json::Value as Json;

use crate::diagnostic::{Problem, Sources, Span, suggest};
use crate::spec::{STAGE_KEYS, StageSpec, Text};
use crate::yaml::{Value, Yaml};

/// The JSON Schemas of kinds, each made once.
pub struct Schemas<'k> {
    kinds: &'k [Kind],
    made: BTreeMap<&'static str, Json>,
}

impl<'k> Schemas<'k> {
    /// None is made yet.
    pub fn new(kinds: &'k [Kind]) -> Schemas<'k> {
        Schemas { kinds, made: BTreeMap::new() }
    }
    /// The schema of a kind's parameters, where there is such a kind.
    pub fn of(&mut self, name: &str) -> Option<&Json> {
        let kind = self.kinds.iter().find(|kind| kind.name == name)?;
        Some(self.made.entry(kind.name).or_insert_with(|| (kind.schema)().to_value()))
    }
}

/// Whether a schema knows a parameter, by its dotted path.
pub fn has(schema: &Json, path: &str) -> bool {
    let below = |at: &'_ Json, part: &str| -> Option<Json> {
        let object = object(schema, at)?;
        let named = object.get("properties").and_then(|properties| properties.get(part));
        let open = object.get("additionalProperties").filter(|more| more.is_object());
        named.or(open).cloned()
    };
    path.split('.').try_fold(schema.clone(), |at, part| below(&at, part)).is_some()
}

/// Names of the parameters of a kind.
pub fn names(kind: &Kind) -> Vec<String> {
    let schema = (kind.schema)();
    let properties = schema.get("properties").and_then(Json::as_object);
    properties.map(|p| p.keys().cloned().collect()).unwrap_or_default()
}

/// Reads `with` for a kind: defaults filled in, problems added. Where parameters are wrong, the
/// result stands for what the others say; `None` where nothing can be said.
pub fn resolve(
    kind: &Kind,
    schema: &Json,
    stage: &StageSpec,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Option<Settled> {
    let uses = stage.uses.as_ref()?;
    let mut given = stage.with.json();
    let place = Place { kind, uses, with: &stage.with, sources };
    let mut reported = BTreeSet::new();
    let mut check = Keys { place: &place, schema, given: &mut given, reported: &mut reported };
    check.map(schema, &stage.with, "", problems);
    loop {
        let invalid = match (kind.settle)(&given) {
            Ok(settled) => return Some(settled),
            Err(invalid) => invalid,
        };
        for invalid in std::iter::once(&invalid).chain(&invalid.also) {
            let (path, missing) = exact(invalid);
            // What lacks only because it was taken out, and what follows from a default that stepped
            // in, is no mistake of the user's.
            let around = reported.iter().any(|below: &String| below.starts_with(&path));
            let follows = !reported.is_empty() && (around || !is_given(&given, &path));
            if follows {
                continue;
            }
            let problem = place.problem(invalid, &path, missing);
            // What is ambiguous or lacks a variable is told already, at the same place.
            let told = |p: &Problem| {
                let (inner, outer) = (p.span, problem.span);
                inner.source == outer.source && inner.start >= outer.start && inner.end <= outer.end
            };
            if !problems.iter().any(told) {
                problems.push(problem);
            }
        }
        let (path, _) = exact(&invalid);
        if !reported.insert(path.clone()) || !take(&mut given, &path) {
            return None;
        }
    }
}

/// The first pass: keys that the schema does not know, and those that it requires.
struct Keys<'a> {
    place: &'a Place<'a>,
    schema: &'a Json,
    given: &'a mut Json,
    reported: &'a mut BTreeSet<String>,
}

impl Keys<'_> {
    /// Checks a map at a dotted path; unknown keys are taken out.
    fn map(&mut self, schema: &Json, yaml: &Yaml, path: &str, problems: &mut Vec<Problem>) {
        let Some(entries) = yaml.map() else { return };
        let Some(schema) = object(self.schema, schema) else { return };
        let none = serde_json::Map::new();
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&none);
        let closed = schema.get("additionalProperties") == Some(&Json::Bool(false));
        let dotted = |name: &str| match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        for (key, value) in entries {
            if let Some(below) = properties.get(&key.name) {
                if value.map().is_some() {
                    self.map(below, value, &dotted(&key.name), problems);
                }
            } else if closed {
                let dotted = dotted(&key.name);
                let kind = self.place.kind.name;
                let message = format!("unknown parameter `{dotted}` of `{kind}`");
                let problem = Problem::new("param::unknown", key.span, message);
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                let help = match known.is_empty() {
                    _ if path.is_empty() && STAGE_KEYS.contains(&key.name.as_str()) => {
                        let name = &key.name;
                        Some(format!("`{name}` is a key of the stage: write it beside `with`"))
                    }
                    true => Some(format!("`{kind}` takes no parameters")),
                    false => suggest(&key.name, "parameters", known),
                };
                problems.push(problem.label("no such parameter").maybe_help(help));
                take(self.given, &dotted);
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for name in required.filter_map(Json::as_str) {
            if !entries.iter().any(|(key, _)| key.name == name) {
                let invalid = Invalid::new(dotted(name), "");
                problems.push(self.place.problem(&invalid, &invalid.path, true));
                self.reported.insert(invalid.path);
            }
        }
    }
}

struct Place<'a> {
    kind: &'a Kind,
    uses: &'a Text,
    with: &'a Yaml,
    sources: &'a Sources,
}

impl Place<'_> {
    fn problem(&self, invalid: &Invalid, path: &str, missing: bool) -> Problem {
        let (span, value) = self.locate(path);
        let written = value.map(|value| self.sources.text(value.span)).unwrap_or_default();
        let words = words(&invalid.message);
        let name = if path.is_empty() { "`with`".to_owned() } else { format!("`{path}`") };
        if missing {
            let message = format!("`{}` needs the parameter {name}", self.kind.name);
            let problem = Problem::new("param::missing", span, message);
            let (parent, last) = path.rsplit_once('.').unwrap_or(("with", path));
            return problem.help(format!("add `{last}:` below `{parent}`"));
        }
        let problem = Problem::new("param::invalid", span, format!("{name}: {words}"));
        let help = invalid.help.clone().or_else(|| hint(&invalid.message, written, value));
        problem.label(format!("parameter of `{}`", self.kind.name)).maybe_help(help)
    }

    /// The place of a parameter, or of the nearest thing around it.
    fn locate(&self, path: &str) -> (Span, Option<&Yaml>) {
        let mut span = self.uses.span;
        let mut at = Some(self.with);
        for part in parts(path) {
            let Some(yaml) = at else { break };
            at = match &yaml.value {
                Value::Map(entries) => {
                    let entry = entries.iter().find(|(key, _)| key.name == part);
                    if let Some((key, value)) = entry {
                        let container = matches!(value.value, Value::Map(_) | Value::Seq(_));
                        let empty = value.span.start == value.span.end;
                        span = if container || empty { key.span } else { value.span };
                    }
                    entry.map(|(_, value)| value)
                }
                Value::Seq(items) => {
                    let item = part.parse::<usize>().ok().and_then(|i| items.get(i));
                    span = item.map_or(span, |item| item.span);
                    item
                }
                _ => None,
            };
        }
        (span, at)
    }
}

/// The object schema behind references and `Option`.
fn object<'s>(root: &'s Json, schema: &'s Json) -> Option<&'s Json> {
    if let Some(name) = schema.get("$ref").and_then(Json::as_str) {
        return object(root, root.get("$defs")?.get(name.strip_prefix("#/$defs/")?)?);
    }
    if schema.get("type").and_then(Json::as_str) == Some("object") {
        return Some(schema);
    }
    let any = schema.get("anyOf").or_else(|| schema.get("allOf"))?.as_array()?;
    let mut some = any.iter().filter(|s| s.get("type").and_then(Json::as_str) != Some("null"));
    match (some.next(), some.next()) {
        (Some(one), None) => object(root, one),
        _ => None,
    }
}

/// The path of a mistake down to the field, and whether that field is missing.
fn exact(invalid: &Invalid) -> (String, bool) {
    let below = |field: &str| match invalid.path.as_str() {
        "" => field.to_owned(),
        path => format!("{path}.{field}"),
    };
    let quoted = |prefix: &str| {
        let rest = invalid.message.strip_prefix(prefix)?;
        rest.split('`').next()
    };
    if let Some(field) = quoted("missing field `") {
        return (below(field), true);
    }
    if let Some(field) = quoted("unknown field `") {
        let own = parts(&invalid.path).last() == Some(field);
        return (if own { invalid.path.clone() } else { below(field) }, false);
    }
    (invalid.path.clone(), false)
}

/// `lora.r`, `bins[2].low`: their parts.
fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split(['.', '[', ']']).filter(|part| !part.is_empty() && *part != "?")
}

fn is_given(json: &Json, path: &str) -> bool {
    let found = parts(path).try_fold(json, |at, part| match at {
        Json::Object(map) => map.get(part),
        Json::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    });
    !path.is_empty() && found.is_some()
}

/// Takes a parameter out, or the list that it stands in.
fn take(json: &mut Json, path: &str) -> bool {
    let Some((first, rest)) = path.split_once('.').map_or(Some((path, "")), Some) else {
        return false;
    };
    let (name, listed) = match first.split_once('[') {
        Some((name, _)) => (name, true),
        None => (first, false),
    };
    let Json::Object(map) = json else { return false };
    match rest {
        "" => map.remove(name).is_some(),
        _ if listed => map.remove(name).is_some(),
        rest => map.get_mut(name).is_some_and(|below| take(below, rest)),
    }
}

/// serde's words in ours.
fn words(message: &str) -> String {
    for prefix in ["invalid type: ", "invalid value: "] {
        let split = message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected "));
        if let Some((found, expected)) = split {
            return format!("expected {}, found {}", plain(expected), found.replace('`', ""));
        }
    }
    match message.strip_prefix("unknown variant ") {
        Some(rest) => format!("unknown value {}", rest.split(',').next().unwrap_or(rest)),
        None => message.to_owned(),
    }
}

fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "text",
        "a sequence" => "a list",
        other => match other.strip_prefix("struct ") {
            Some(_) => "a map",
            None => other,
        },
    }
}

/// What to do about serde's message.
fn hint(message: &str, written: &str, value: Option<&Yaml>) -> Option<String> {
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let mut names = rest.split('`').step_by(2);
        let given = names.next().unwrap_or_default();
        let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
        return suggest(given, "it may be", known);
    }
    if message.ends_with("expected a string") && written.contains("${") {
        let part = written.trim_matches(['"', '\'']);
        let help = "quote its value where it is defined, or make it part of a text, as";
        return Some(format!("{help} \"x-{part}\""));
    }
    let scalar =
        value.is_some_and(|v| matches!(v.value, Value::Bool(_) | Value::Number(_) | Value::Null));
    if message.ends_with("expected a string") && scalar && !written.is_empty() {
        return Some(format!("put it in quotes: \"{written}\""));
    }
    let text = value.and_then(Yaml::text).unwrap_or_default();
    let number = text.parse::<f64>().is_ok() && !message.ends_with("expected a boolean");
    let boolean = matches!(text, "true" | "false") && message.ends_with("expected a boolean");
    if written.starts_with(['"', '\'']) && (number || boolean) {
        return Some("leave out the quotes".into());
    }
    None
}
