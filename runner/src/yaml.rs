//! YAML as a tree in which every key and value knows its place.
//!
//! serde_yaml (serde-saphyr) reads; this keeps what it says as it says it, duplicate keys included,
//! so that checks can go on after the first mistake. It also refuses scalars that YAML 1.1 and 1.2,
//! or a person and YAML, read differently: `NO`, `on`, `True`, `NULL`, `007` without quotes.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, Spanned};

use crate::diagnostic::{Problem, Span};

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Yaml {
    /// What it is.
    pub value: Value,
    /// Where it is: all of a scalar, the start of a list or a map.
    pub span: Span,
}

/// What a YAML node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; integers stay integers.
    Number(Number),
    /// Text.
    String(String),
    /// A list.
    Seq(Vec<Yaml>),
    /// Entries in the order of the file. Keys that are not text keep how they are written.
    Map(Vec<(Key, Yaml)>),
}

/// A key and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it is.
    pub span: Span,
}

impl Yaml {
    /// `a map`, `a list`, `text`, ...
    pub fn noun(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
    /// The entries, where it is a map.
    pub fn map(&self) -> Option<&[(Key, Yaml)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }
    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&Yaml> {
        self.map()?.iter().find(|(k, _)| k.name == key).map(|(_, value)| value)
    }
    /// The same as JSON.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => Json::Number(n.clone()),
            Value::String(s) => Json::String(s.clone()),
            Value::Seq(items) => Json::Array(items.iter().map(Yaml::json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(k, v)| (k.name.clone(), v.json())).collect())
            }
        }
    }
}

/// Reads one document. `source` is what its spans will say. Problems that leave a tree are added to
/// `problems`; `None` where there is no tree.
pub fn read(text: &str, source: usize, problems: &mut Vec<Problem>) -> Option<Yaml> {
    let options = serde_yaml::options! {
        // Large pipelines are welcome; a bomb of aliases is stopped by the limits on aliases.
        budget: serde_yaml::budget! {
            max_events: 100_000_000,
            max_nodes: 50_000_000,
            max_total_scalar_bytes: 1 << 30,
            enforce_alias_anchor_ratio: false,
        },
        emit_comments: false,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => {
            let mut reader = Reader { text, source, problems };
            Some(reader.node(raw))
        }
        Err(error) => {
            let at = error.location().map_or((0, 0), |location| place(text, location));
            problems.push(syntax(text, source, at, &error));
            None
        }
    }
}

/// How many nodes a tree has.
pub fn size(yaml: &Yaml) -> usize {
    1 + match &yaml.value {
        Value::Seq(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, value)| size(value)).sum::<usize>(),
        _ => 0,
    }
}

fn syntax(text: &str, source: usize, at: (usize, usize), error: &serde_yaml::Error) -> Problem {
    if let serde_yaml::Error::MultipleDocuments { .. } = error.without_snippet() {
        let span = Span { source, start: at.0, end: at.1.max(at.0) };
        let problem = Problem::new("yaml::syntax", span, "more than one document");
        return problem.help("a pipeline file is one document: leave out `---`");
    }
    let message = error.without_snippet().to_string();
    // The place is drawn; do not say it twice.
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    let tab = message.contains("tab").then(|| tab(text, at.0)).flatten();
    let start = tab.unwrap_or_else(|| at.0.min(text.trim_end().len()));
    // At the end of the text there is no character to point at.
    let end = text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    let span = Span { source, start, end: start + end };
    let help = match tab {
        Some(_) => "YAML indents with spaces, never with tabs",
        None => "check indentation, brackets and quotes here and on the lines above",
    };
    Problem::new("yaml::syntax", span, message).help(help)
}

/// The last tab at or before a place that indents its line.
fn tab(text: &str, before: usize) -> Option<usize> {
    let mut at = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        if at > before {
            break;
        }
        let indent = line.len() - line.trim_start().len();
        found = line.get(..indent).and_then(|i| i.find('\t')).map(|i| at + i).or(found);
        at += line.len();
    }
    found
}

/// The byte range of a location.
fn place(text: &str, location: Location) -> (usize, usize) {
    let span = location.span();
    let (Some(start), Some(len)) = (span.byte_offset(), span.byte_len()) else {
        // Some errors know line and column only.
        let (line, column) = (location.line() as usize, location.column() as usize);
        let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let rest = text.get(start..).unwrap_or_default();
        let before = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum::<usize>();
        return ((start + before).min(text.len()), (start + before).min(text.len()));
    };
    let (start, len) = (start as usize, len as usize);
    let start = start.min(text.len());
    (start, (start + len).min(text.len()))
}

struct Reader<'a> {
    text: &'a str,
    source: usize,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Yaml {
        let span = self.span(raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(b) => Value::Bool(b),
            Raw::Number(n) => Value::Number(n),
            Raw::String(s) => Value::String(s),
            Raw::Seq(items) => Value::Seq(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Value::Map(self.entries(entries)),
        };
        if !matches!(value, Value::Seq(_) | Value::Map(_)) {
            self.trap(self.span(raw.defined));
        }
        Yaml { value, span }
    }

    fn entries(&mut self, raw: Vec<(Spanned<Raw>, Spanned<Raw>)>) -> Vec<(Key, Yaml)> {
        let mut entries: Vec<(Key, Yaml)> = Vec::with_capacity(raw.len());
        let mut seen = std::collections::BTreeMap::new();
        for (key, value) in raw {
            let span = self.span(key.referenced);
            let name = match key.value {
                Raw::String(name) => name,
                Raw::Seq(_) | Raw::Map(_) => {
                    let problem = Problem::new("yaml::key", span, "a key must be text");
                    self.problems.push(problem.label("a list or a map"));
                    continue;
                }
                // As it is written: `1: x` is the key `1`.
                _ => self.text.get(span.start..span.end).unwrap_or_default().trim().to_owned(),
            };
            let told = self.problems.len();
            let value = self.node(value);
            if name == "sandbox" && value.text() == Some("off") {
                // Here it can mean nothing else.
                self.problems.truncate(told);
            }
            if let Some(&first) = seen.get(&name) {
                let message = format!("`{name}` is given twice");
                let problem = Problem::new("yaml::duplicate_key", span, message);
                let problem = problem.label("again here").also(first, "first here");
                self.problems.push(problem.help("keep one of the two"));
                continue;
            }
            seen.insert(name.clone(), span);
            entries.push((Key { name, span }, value));
        }
        entries
    }

    fn span(&self, location: Location) -> Span {
        let (start, end) = place(self.text, location);
        Span { source: self.source, start, end }
    }

    /// Refuses a plain scalar that is read differently by different readers.
    fn trap(&mut self, span: Span) {
        let Some(written) = self.text.get(span.start..span.end) else { return };
        let Some(why) = trap(written) else { return };
        let message = format!("`{written}` without quotes is ambiguous");
        let problem = Problem::new("yaml::ambiguous", span, message).label(why);
        let quoted = format!("write \"{written}\" for the text");
        self.problems.push(problem.help(match plain_form(written) {
            Some(plain) => format!("{quoted}, or {plain}"),
            None => quoted,
        }));
    }
}

/// Why a plain scalar is a trap.
fn trap(written: &str) -> Option<&'static str> {
    let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
    let zeros = digits.len() > 1 && digits.starts_with('0');
    if zeros && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some("octal, decimal or text, as the reader pleases");
    }
    if written.len() > 5 {
        return None;
    }
    match written.to_ascii_lowercase().as_str() {
        "yes" | "no" | "on" | "off" => Some("a boolean to YAML 1.1, text to YAML 1.2"),
        "true" | "false" if written != "true" && written != "false" => {
            Some("a boolean, though it looks like a name")
        }
        "null" if written != "null" => Some("nothing at all, though it looks like a name"),
        _ => None,
    }
}

/// What the writer of a trap may have meant but for text.
fn plain_form(written: &str) -> Option<String> {
    Some(match written.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => "`true` for the boolean".into(),
        "no" | "off" | "false" => "`false` for the boolean".into(),
        "null" => "`null` for nothing".into(),
        number => format!("`{}` for the number", number.parse::<i64>().ok()?),
    })
}

/// What serde-saphyr says, before it is checked.
enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Seq(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any YAML value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
        Ok(Raw::Number(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Raw, E> {
        Ok(Number::from_f64(v).map_or_else(|| Raw::String(v.to_string()), Raw::Number))
    }
    fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Raw, E> {
        Ok(Raw::String(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::Seq(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Yaml, Vec<Problem>) {
        let mut problems = Vec::new();
        let tree = read(text, 0, &mut problems).expect("a tree");
        (tree, problems)
    }

    #[test]
    fn scalars_keep_their_types_and_places() {
        let text = "é: 3\nb: 3.0\nc: 1e-4\nd: \"5\"\ne: true\nf:\ng: -7\nh: [x, {i: 1}]\n1: z\n";
        let (tree, problems) = tree(text);
        assert_eq!(problems, []);
        let json = serde_json::json!({"é": 3, "b": 3.0, "c": 1e-4, "d": "5", "e": true, "f": null,
            "g": -7, "h": ["x", {"i": 1}], "1": "z"});
        assert_eq!(tree.json(), json);
        let spans: Vec<&str> = (tree.map().expect("a map").iter())
            .flat_map(|(k, v)| [&text[k.span.start..k.span.end], &text[v.span.start..v.span.end]])
            .collect();
        assert_eq!(spans[..8], ["é", "3", "b", "3.0", "c", "1e-4", "d", "\"5\""]);
    }

    #[test]
    fn a_duplicate_is_found_at_any_depth_and_the_rest_is_read() {
        let (tree, problems) = tree("a: {x: 1, x: 2}\nb: 1\na: 3\nb: 4\n");
        let codes: Vec<_> = problems.iter().map(|p| (p.code, &p.message)).collect();
        assert_eq!(codes.len(), 3, "{codes:?}");
        assert_eq!(tree.json(), serde_json::json!({"a": {"x": 1}, "b": 1}));
    }

    #[test]
    fn traps_ask_for_quotes() {
        for trap in ["NO", "yes", "On", "OFF", "True", "NULL", "007", "-01"] {
            assert_eq!(tree(&format!("ticker: {trap}")).1.len(), 1, "{trap}");
            assert_eq!(tree(&format!("ticker: \"{trap}\"")).1, [], "{trap}");
        }
        for fine in ["true", "null", "~", "0", "-0", "0.5", "0x1f", "nope", "2024-01-02"] {
            assert_eq!(tree(&format!("ticker: {fine}")).1, [], "{fine}");
        }
    }

    #[test]
    fn anchors_and_merges_work() {
        let (tree, problems) = tree("base: &b {x: 1}\nc: {<<: *b, y: 2}\nd: *b\n");
        assert_eq!(problems, []);
        assert_eq!(tree.get("c").map(Yaml::json), Some(serde_json::json!({"x": 1, "y": 2})));
        assert_eq!(tree.get("d").map(Yaml::json), Some(serde_json::json!({"x": 1})));
    }

    #[test]
    fn a_syntax_error_has_a_place() {
        let mut problems = Vec::new();
        assert!(read("a: [1, 2\nb: 3\n", 0, &mut problems).is_none());
        assert_eq!(problems.len(), 1);
        assert!(problems[0].span.start > 0);
    }
}
