//! `${name}` in the texts of a pipeline file.
//!
//! A scalar that is one variable takes its value and its type; within a longer text a variable is
//! spelt out. `$${` is a literal `${`. Variables may use one another. Nothing here reads the
//! environment: a pipeline means the same on every machine.

use std::collections::BTreeMap;

use crate::diagnostic::{Problem, Sources, Span, suggest};
use crate::yaml::{self, Key, Value, Yaml};

/// The variables of a pipeline, and the problems met while filling them in.
pub struct Vars<'a> {
    raw: Vec<(Key, Yaml)>,
    done: BTreeMap<String, Yaml>,
    /// Variables being filled in: one that comes up again is a circle.
    open: Vec<String>,
    /// How much variables may still bring in: a bomb of variables stops here.
    left: usize,
    sources: &'a Sources,
    problems: &'a mut Vec<Problem>,
}

/// How much variables may bring in, in characters; a node counts as some.
const MOST: usize = 32_000_000;
const NODE: usize = 100;

impl<'a> Vars<'a> {
    /// The variables of `vars:`.
    pub fn new(
        vars: Option<&Yaml>,
        sources: &'a Sources,
        problems: &'a mut Vec<Problem>,
    ) -> Vars<'a> {
        let raw = match vars.map(|vars| (vars, &vars.value)) {
            None | Some((_, Value::Null)) => Vec::new(),
            Some((_, Value::Map(entries))) => entries.clone(),
            Some((vars, _)) => {
                let problem = Problem::new("spec::type", vars.span, "`vars` is a map");
                problems.push(problem.label(vars.noun()).help("write `name: value` below it"));
                Vec::new()
            }
        };
        Vars { raw, done: BTreeMap::new(), open: Vec::new(), left: MOST, sources, problems }
    }

    /// Fills in every text of a tree.
    pub fn expand(&mut self, yaml: &mut Yaml) {
        match &mut yaml.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| self.expand(item)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| self.expand(value)),
            Value::String(text) if text.contains("${") => {
                if let Some(value) = self.fill(&text.clone(), yaml.span) {
                    yaml.value = value;
                }
            }
            _ => {}
        }
    }

    /// Fills in the variables that nothing uses, so that their mistakes are reported too.
    pub fn finish(mut self) {
        for (key, _) in self.raw.clone() {
            self.var(&key.name, key.span);
        }
    }

    fn fill(&mut self, text: &str, span: Span) -> Option<Value> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        let mut complete = true;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                filled.push_str(&rest[..at - 1]);
                filled.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            filled.push_str(&rest[..at]);
            let Some(close) = rest[at..].find('}') else {
                let problem = Problem::new("vars::syntax", span, "`${` without `}`");
                self.problems.push(problem.help("close it, or write `$${` for the characters"));
                return None;
            };
            let name = &rest[at + 2..at + close];
            let place = self.place(span, &rest[at..=at + close]);
            let value = self.lookup(name.trim(), place);
            if rest.len() == text.len() && at == 0 && close + 1 == text.len() {
                return value.map(|value| value.value);
            }
            match value.map(|value| (spell(&value), value)) {
                Some((Some(spelt), _)) => filled.push_str(&spelt),
                Some((None, value)) => {
                    let message = format!("`{name}` is {}, not part of a text", value.noun());
                    let problem = Problem::new("vars::type", place, message);
                    self.problems.push(problem.help(format!("use it alone, as `\"${{{name}}}\"`")));
                    complete = false;
                }
                None => complete = false,
            }
            rest = &rest[at + close + 1..];
        }
        filled.push_str(rest);
        complete.then_some(Value::String(filled))
    }

    /// Where `${name}` stands within a scalar.
    fn place(&self, span: Span, written: &str) -> Span {
        match self.sources.text(span).find(written) {
            Some(at) => {
                Span { start: span.start + at, end: span.start + at + written.len(), ..span }
            }
            None => span,
        }
    }

    /// `name` or `name.member`, with every span at the place of use.
    fn lookup(&mut self, path: &str, at: Span) -> Option<Yaml> {
        let legal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if path.is_empty() || !path.chars().all(legal) {
            let message = format!("`${{{path}}}` is not a variable");
            let problem = Problem::new("vars::syntax", at, message);
            self.problems.push(problem.help("write `$${` where a shell is to see `${`"));
            return None;
        }
        let mut parts = path.split('.');
        let mut value = self.var(parts.next().unwrap_or_default(), at)?;
        for part in parts {
            let Some(member) = value.get(part) else {
                let message = format!("variable `{path}` does not exist");
                let keys: Vec<&str> =
                    value.map().unwrap_or_default().iter().map(|(k, _)| k.name.as_str()).collect();
                let help = suggest(part, "its keys", keys);
                self.problems.push(Problem::new("vars::unknown", at, message).maybe_help(help));
                return None;
            };
            value = member.clone();
        }
        let size = NODE * yaml::size(&value) + value.text().map_or(0, str::len);
        if size > self.left && self.left > 0 {
            let problem = Problem::new("vars::size", at, "variables grow without bound");
            self.problems.push(problem.help("a variable repeats another too often"));
            self.left = 0;
        }
        if self.left == 0 {
            return None;
        }
        self.left -= size;
        move_to(&mut value, at);
        Some(value)
    }

    fn var(&mut self, name: &str, at: Span) -> Option<Yaml> {
        if let Some(value) = self.done.get(name) {
            return Some(value.clone());
        }
        if let Some(first) = self.open.iter().position(|open| open == name) {
            let mut round: Vec<&str> = self.open[first..].iter().map(String::as_str).collect();
            round.push(name);
            let message = format!("variables go round in a circle: {}", round.join(" -> "));
            let problem = Problem::new("vars::cycle", at, message);
            self.problems.push(problem.help("give one of them a value of its own"));
            return None;
        }
        let Some((_, raw)) = self.raw.iter().find(|(key, _)| key.name == name) else {
            let names: Vec<&str> = self.raw.iter().map(|(key, _)| key.name.as_str()).collect();
            let mut help =
                suggest(name, "variables", names).unwrap_or("`vars` declares none".into());
            if !help.ends_with('?') {
                help.push_str("; write `$${` for the characters themselves");
            }
            let message = format!("unknown variable `{name}`");
            self.problems.push(Problem::new("vars::unknown", at, message).help(help));
            return None;
        };
        let mut value = raw.clone();
        self.open.push(name.to_owned());
        self.expand(&mut value);
        self.open.pop();
        self.done.insert(name.to_owned(), value.clone());
        Some(value)
    }
}

fn spell(value: &Yaml) -> Option<String> {
    match &value.value {
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) => Some(s.clone()),
        Value::Null | Value::Seq(_) | Value::Map(_) => None,
    }
}

fn move_to(yaml: &mut Yaml, span: Span) {
    yaml.span = span;
    match &mut yaml.value {
        Value::Seq(items) => items.iter_mut().for_each(|item| move_to(item, span)),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            key.span = span;
            move_to(value, span);
        }),
        _ => {}
    }
}
