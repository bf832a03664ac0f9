//! Reads any YAML, by serde_yaml (serde-saphyr).

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, Spanned};

use super::{Key, Scalars, Value, Yaml};
use crate::diagnostic::{Problem, Span};

/// Reads one document, as `super::read` does.
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
            let mut reader = Reader { text, scalars: Scalars { text, source, problems } };
            Some(reader.node(raw))
        }
        Err(error) => {
            let at = error.location().map_or((0, 0), |location| place(text, location));
            problems.push(syntax(text, source, at, &error));
            None
        }
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
    // The place may be where the value before it ends.
    let near = text.get(at.0..).and_then(|rest| rest.find(|c: char| !c.is_whitespace()));
    let near = at.0 + near.unwrap_or_default();
    let tab =
        message.contains("tab").then(|| tab(text, at.0).or_else(|| tab(text, near))).flatten();
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
    scalars: Scalars<'a>,
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
            let span = self.span(raw.defined);
            self.scalars.trap(span);
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
                    self.scalars.problems.push(problem.label("a list or a map"));
                    continue;
                }
                // As it is written: `1: x` is the key `1`.
                _ => self.text.get(span.start..span.end).unwrap_or_default().trim().to_owned(),
            };
            let told = self.scalars.problems.len();
            let value = self.node(value);
            self.scalars.forgive(&name, &value, told);
            if let Some(&first) = seen.get(&name) {
                self.scalars.problems.push(super::duplicate(&Key { name, span }, first));
                continue;
            }
            seen.insert(name.clone(), span);
            entries.push((Key { name, span }, value));
        }
        entries
    }

    fn span(&self, location: Location) -> Span {
        let (start, end) = place(self.text, location);
        // That of a block goes on to what follows it.
        let end = start + self.text.get(start..end).map_or(0, |text| text.trim_end().len());
        Span { source: self.scalars.source, start, end }
    }
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
