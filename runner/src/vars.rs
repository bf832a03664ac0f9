//! `${name}` in the texts of a pipeline file.
//!
//! A scalar that is one variable takes its value and its type; within a longer text a variable is
//! spelt out. `$${` is a literal `${`. Variables may use one another. In a cell of a stage
//! `${matrix.axis}`, `${item}` and `${key}` are the cell's values. Nothing here reads the
//! environment: a pipeline means the same on every machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Problem, Sources, Span, suggest};
use crate::spec::cells::{Bound, Cell, ITEM};
use crate::yaml::{self, Key, Value, Yaml};

/// What a variable cannot be called, because it means something in a cell.
const RESERVED: [&str; 3] = ["matrix", "item", "key"];

/// The variables of a pipeline, and the problems met while filling them in.
pub struct Vars<'a> {
    raw: Vec<(Key, Yaml)>,
    done: BTreeMap<String, Yaml>,
    /// Variables being filled in: one that comes up again is a circle.
    open: Vec<String>,
    /// How much variables may still bring in: a bomb of variables stops here.
    left: usize,
    /// Variables that something uses.
    used: BTreeSet<String>,
    /// Axes that some text has used since [`Vars::forget_axes`].
    axes: BTreeSet<String>,
    sources: &'a Sources,
    /// What is wrong.
    pub problems: &'a mut Vec<Problem>,
}

/// How much variables may bring in, in characters; each node of a list or a map counts as some.
const MOST: usize = 32_000_000;
const NODE: usize = 100;

impl<'a> Vars<'a> {
    /// The variables of `vars:`.
    pub fn new(
        vars: Option<Yaml>,
        sources: &'a Sources,
        problems: &'a mut Vec<Problem>,
    ) -> Vars<'a> {
        let raw = match vars.map(|vars| (vars.span, vars.noun(), vars.value)) {
            None | Some((_, _, Value::Null)) => Vec::new(),
            Some((_, _, Value::Map(entries))) => entries,
            Some((span, noun, _)) => {
                let problem = Problem::new("spec::type", span, "`vars` is a map");
                problems.push(problem.label(noun).help("write `name: value` below it"));
                Vec::new()
            }
        };
        for (key, _) in raw.iter().filter(|(key, _)| RESERVED.contains(&key.name.as_str())) {
            let message = format!("a variable cannot be called `{}`", key.name);
            let problem = Problem::new("vars::name", key.span, message);
            let help = "`matrix`, `item` and `key` are the values of a stage with a matrix";
            problems.push(problem.help(help));
        }
        Vars {
            raw,
            done: BTreeMap::new(),
            open: Vec::new(),
            left: MOST,
            used: BTreeSet::new(),
            axes: BTreeSet::new(),
            sources,
            problems,
        }
    }

    /// Fills in every text of a tree.
    pub fn expand(&mut self, yaml: &mut Yaml, cell: &Cell) {
        match &mut yaml.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| self.expand(item, cell)),
            Value::Map(entries) => {
                entries.iter_mut().for_each(|(_, value)| self.expand(value, cell));
            }
            Value::String(text) if text.as_bytes().contains(&b'$') && text.contains("${") => {
                if let Some(value) = self.fill(&text.clone(), yaml.span, cell) {
                    yaml.value = value;
                }
            }
            _ => {}
        }
    }

    /// The text filled in, where it can be and is text then. What is wrong is not told: that is for
    /// [`Vars::expand`], which comes to the same text later.
    pub fn peek(&mut self, text: &Yaml, cell: &Cell) -> Option<String> {
        let told = self.problems.len();
        let mut text = text.clone();
        self.expand(&mut text, cell);
        let well = self.problems.len() == told;
        self.problems.truncate(told);
        match text.value {
            Value::String(text) if well => Some(text),
            _ => None,
        }
    }

    /// What stands at a place.
    pub fn written(&self, span: Span) -> String {
        self.sources.text(span).to_owned()
    }

    /// The names of all variables.
    pub fn names(&self) -> Vec<&str> {
        self.raw.iter().map(|(key, _)| key.name.as_str()).collect()
    }

    /// The axes that texts have used since this was last called.
    pub fn forget_axes(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.axes)
    }

    /// Notes that an axis is used.
    pub fn use_axis(&mut self, axis: &str) {
        if !self.axes.contains(axis) {
            self.axes.insert(axis.to_owned());
        }
    }

    /// Fills in the variables that nothing uses, so that their mistakes are reported too, and warns
    /// of them. Those of an included file may be meant for others.
    pub fn finish(mut self) {
        let keys: Vec<Key> = self.raw.iter().map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.var(&key.name, key.span);
        }
        let unused = (keys.iter())
            .filter(|key| !self.used.contains(&key.name) && self.sources.is_own(key.span));
        let warnings = unused.map(|key| {
            let message = format!("nothing uses the variable `{}`", key.name);
            let problem = Problem::warning("vars::unused", key.span, message);
            problem.help(format!("use it as `${{{}}}`, or leave it out", key.name))
        });
        self.problems.extend(warnings);
    }

    fn fill(&mut self, text: &str, span: Span, cell: &Cell) -> Option<Value> {
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
            let value = self.lookup(name.trim(), place, cell);
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

    /// `name`, `name.member` or `name[other].member`, with every span at the place of use. What
    /// stands in brackets is a variable, whose value is the member's name.
    pub fn lookup(&mut self, path: &str, at: Span, cell: &Cell) -> Option<Yaml> {
        if let Some((before, (index, after))) =
            path.split_once('[').and_then(|(before, rest)| Some((before, rest.split_once(']')?)))
            && !index.contains('[')
        {
            let member = self.lookup(index.trim(), at, cell)?;
            let Some(member) = spell(&member) else {
                let message = format!("`{index}` is {}, not the name of a member", member.noun());
                self.problems.push(Problem::new("vars::type", at, message));
                return None;
            };
            return self.lookup(&format!("{before}.{member}{after}"), at, cell);
        }
        let legal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if path.is_empty() || !path.chars().all(legal) {
            let message = format!("`${{{path}}}` is not a variable");
            let problem = Problem::new("vars::syntax", at, message);
            self.problems.push(problem.help("write `$${` where a shell is to see `${`"));
            return None;
        }
        let (first, mut rest) = path.split_once('.').unwrap_or((path, ""));
        let mut value = match first {
            "matrix" | "item" | "key" => {
                let (value, below) = self.bound(first, rest, at, cell)?;
                rest = below;
                value
            }
            name => {
                if !self.used.contains(name) {
                    self.used.insert(name.to_owned());
                }
                self.var(name, at)?
            }
        };
        for part in rest.split('.').filter(|_| !rest.is_empty()) {
            let Some(member) = value.get(part) else {
                let message = format!("`{path}` does not exist");
                let keys: Vec<&str> =
                    value.map().unwrap_or_default().iter().map(|(k, _)| k.name.as_str()).collect();
                let help = suggest(part, "its keys", keys);
                self.problems.push(Problem::new("vars::unknown", at, message).maybe_help(help));
                return None;
            };
            value = member.clone();
        }
        let size = NODE * (yaml::size(&value) - 1) + value.text().map_or(0, str::len);
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

    /// The value of an axis, and the path below it.
    fn bound<'p>(
        &mut self,
        first: &str,
        rest: &'p str,
        at: Span,
        cell: &Cell,
    ) -> Option<(Yaml, &'p str)> {
        let below = |axis: &str| match rest.strip_prefix(axis)? {
            "" => Some(""),
            rest => rest.strip_prefix('.'),
        };
        let found = cell.iter().find_map(|bound| match first {
            "matrix" if bound.axis != ITEM => Some((bound, below(&bound.axis)?)),
            "matrix" => None,
            _ => (bound.axis == ITEM).then_some((bound, rest)),
        });
        if let Some((bound, below)) = found {
            self.use_axis(&bound.axis);
            let name = || Yaml { value: Value::String(bound.name.clone()), span: at };
            return Some((if first == "key" { name() } else { bound.value.clone() }, below));
        }
        let axes: Vec<&str> = cell.iter().map(Bound::axis).filter(|axis| *axis != ITEM).collect();
        let (what, help) = match (first, axes.as_slice()) {
            ("matrix", []) => (
                format!("`{first}.{rest}` is unknown: this stage has no matrix"),
                "add `matrix: { axis: [value, value] }`, or read from a stage that has one".into(),
            ),
            ("matrix", _) => {
                (format!("no axis `{rest}`"), suggest(rest, "axes here", axes).unwrap_or_default())
            }
            _ => (
                format!("`{first}` is unknown: this stage has no `foreach`"),
                "add `foreach: [name, name]`, or read from a stage that has one".into(),
            ),
        };
        self.problems.push(Problem::new("vars::unknown", at, what).help(help));
        None
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
            let mut help =
                suggest(name, "variables", self.names()).unwrap_or("`vars` declares none".into());
            if !help.ends_with('?') {
                help.push_str("; write `$${` for the characters themselves");
            }
            let message = format!("unknown variable `{name}`");
            self.problems.push(Problem::new("vars::unknown", at, message).help(help));
            return None;
        };
        let mut value = raw.clone();
        self.open.push(name.to_owned());
        self.expand(&mut value, &Cell::new());
        self.open.pop();
        self.done.insert(name.to_owned(), value.clone());
        Some(value)
    }
}

/// How a value is written within a text.
pub fn spell(value: &Yaml) -> Option<String> {
    match &value.value {
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) => Some(s.clone()),
        Value::Null | Value::Seq(_) | Value::Map(_) => None,
    }
}

/// Puts all of a value at one place.
pub fn move_to(yaml: &mut Yaml, span: Span) {
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
