//! What is wrong with a pipeline file, and where: every problem has a code, a place and a hint.
//!
//! Checks collect [`Problem`]s and go on, so that a person sees all of them in one go. A [`Span`]
//! names its text, because a value may also come from an included file or from `--set`. How problems
//! are drawn is in `draw`. This module knows nothing of YAML.

mod draw;

use std::fmt;
use std::sync::Arc;

use draw::Located;
use serde::Serialize;

/// A text that problems point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's path as the user gave it, or `--set`.
    pub name: String,
    /// All of it.
    pub text: Arc<str>,
}

/// The texts of a pipeline: the file first, then each `--set`, then the files that it includes.
/// Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(pub Arc<Vec<Source>>);

impl Sources {
    /// The one file.
    pub fn file(name: impl Into<String>, text: impl Into<Arc<str>>) -> Sources {
        Sources(Arc::new(vec![Source { name: name.into(), text: text.into() }]))
    }
    /// The pipeline file's name.
    pub fn name(&self) -> &str {
        self.0.first().map_or("", |source| source.name.as_str())
    }
    /// Whether a place is in the pipeline file itself or on the command line, not in an included
    /// file.
    pub fn is_own(&self, span: Span) -> bool {
        let set = |source: &Source| source.name == crate::set::NAME;
        span.source == 0 || self.0.get(span.source).is_some_and(set)
    }
    /// The line in which a span begins.
    fn line(&self, span: Span) -> Span {
        let text = self.0.get(span.source).map_or("", |source| source.text.as_ref());
        let at = span.start.min(text.len());
        let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |n| n + 1);
        let end = text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| at + n);
        Span { source: span.source, start, end }
    }
    /// The text below a span; empty where the span lies outside.
    pub fn text(&self, span: Span) -> &str {
        let text = self.0.get(span.source).map_or("", |source| source.text.as_ref());
        text.get(span.start..span.end).unwrap_or("")
    }
}

/// A range of bytes of one of the [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Which text: 0 is the pipeline file.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// It can, though perhaps not as its writer meant it.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name, such as `spec::unknown_key`.
    pub code: &'static str,
    /// What is wrong, in lower case.
    pub message: Box<str>,
    /// Where.
    pub span: Span,
    /// What to write at the caret; may be empty.
    pub label: Box<str>,
    /// What to do.
    pub help: Option<String>,
    /// Other places that belong to it, with what to write there.
    pub also: Vec<(Span, String)>,
}

impl Problem {
    /// An error at a place.
    pub fn new(code: &'static str, span: Span, message: impl Into<Box<str>>) -> Problem {
        Problem {
            severity: Severity::Error,
            code,
            message: message.into(),
            span,
            label: Box::default(),
            help: None,
            also: Vec::new(),
        }
    }
    /// A warning at a place.
    pub fn warning(code: &'static str, span: Span, message: impl Into<Box<str>>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::new(code, span, message) }
    }
    /// Adds what to write at the caret.
    pub fn label(mut self, label: impl Into<Box<str>>) -> Problem {
        self.label = label.into();
        self
    }
    /// Adds what to do.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
    /// Adds what to do, where something is known.
    pub fn maybe_help(mut self, help: Option<String>) -> Problem {
        self.help = help.or(self.help);
        self
    }
    /// Adds another place.
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Problem {
        self.also.push((span, label.into()));
        self
    }
}

/// The code of what is no YAML.
const SYNTAX: &str = "yaml::syntax";

/// Everything that is wrong, with the texts that it points into.
#[derive(Clone, Debug)]
pub struct Problems {
    sources: Sources,
    located: Vec<Located>,
}

impl Problems {
    /// Sorts the problems as they come in the file and drops what was found twice.
    pub fn new(sources: Sources, mut problems: Vec<Problem>) -> Problems {
        let unread = problems.iter().filter(|p| p.code == SYNTAX).map(|p| sources.line(p.span));
        let unread: Vec<Span> = unread.collect();
        if !unread.is_empty() {
            let at = |span: Span| {
                unread.iter().any(|line| {
                    line.source == span.source && (line.start..=line.end).contains(&span.start)
                })
            };
            problems.retain(|p| p.code == SYNTAX || !(follows(p.code) || at(p.span)));
        }
        problems.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
        problems.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        let located = draw::locate(&sources, problems);
        Problems { sources, located }
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.located.iter().map(|located| &located.problem)
    }

    /// The same and more.
    pub fn with(self, more: Vec<Problem>) -> Problems {
        let own = self.located.into_iter().map(|located| located.problem);
        Problems::new(self.sources, own.chain(more).collect())
    }

    /// Whether one of them is an error.
    pub fn any_error(&self) -> bool {
        self.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// `3 problems in pipeline.yaml`, `2 problems and 1 warning in ...`.
    pub fn summary(&self) -> String {
        let warnings = self.iter().filter(|p| p.severity == Severity::Warning).count();
        let errors = self.located.len() - warnings;
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let counted = match (errors, warnings) {
            (errors, 0) => count(errors, "problem"),
            (0, warnings) => count(warnings, "warning"),
            _ => format!("{} and {}", count(errors, "problem"), count(warnings, "warning")),
        };
        format!("{counted} in {}", self.sources.name())
    }

    /// Draws each problem with its lines, and a last line that counts them. `colour` is for a
    /// terminal without `NO_COLOR`; `width` is in columns.
    pub fn render(&self, colour: bool, width: usize) -> String {
        let mut out = draw::render(&self.located, colour, width);
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    /// For editors: a JSON list of objects with `file`, `line`, `column`, `end_line`, `end_column`
    /// (from 1, columns in characters, the end behind the last), `code`, `severity`, `message` and
    /// `help` (or null).
    pub fn json(&self) -> String {
        let list: Vec<serde_json::Value> = self.located.iter().map(Located::json).collect();
        format!("{:#}\n", serde_json::Value::Array(list))
    }
}

/// Whether a problem may only be there because a line that cannot be read was left out.
fn follows(code: &str) -> bool {
    let names = ["graph::unknown_source", "graph::missing_port", "vars::unknown", "graph::cell"];
    names.contains(&code) || code.ends_with("::missing") || code.ends_with("::unused")
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.located.as_slice() {
            [one] => write!(f, "{}: {}", one.place(), one.problem.message),
            _ => f.write_str(&self.summary()),
        }
    }
}

impl std::error::Error for Problems {}

/// The best of `candidates` for a misspelt `given`, if one is near.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let length = given.chars().count();
    let most = (length / 3).max(1);
    // Of many names few are worth a closer look.
    let likely = candidates.into_iter().filter(|candidate| {
        let part = candidate.starts_with(&given) || given.starts_with(candidate);
        part || unlike(&given, candidate) <= most
    });
    let (distance, best) = likely.map(|c| (strsim::damerau_levenshtein(&given, c), c)).min()?;
    let near = distance <= most && distance < length;
    let part = given.len() >= 3 && (best.starts_with(&given) || given.starts_with(best));
    (near || part).then_some(best)
}

/// A quick lower bound of how many letters differ: those that only one of the two has, halved where
/// one may stand for another.
fn unlike(a: &str, b: &str) -> usize {
    let mut counts = [0i32; 256];
    a.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    b.bytes().for_each(|byte| counts[usize::from(byte)] -= 1);
    let more: i32 = counts.iter().filter(|count| **count > 0).sum();
    let less: i32 = -counts.iter().filter(|count| **count < 0).sum::<i32>();
    // A letter may be several bytes.
    more.max(less) as usize / if a.is_ascii() && b.is_ascii() { 1 } else { 4 }
}

/// `did you mean `x`?`, or a list of what there is.
pub fn suggest<'a>(
    given: &str,
    what: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(best) = nearest(given, candidates.clone()) {
        return Some(format!("did you mean `{best}`?"));
    }
    let mut all: Vec<String> = candidates.into_iter().map(|c| format!("`{c}`")).collect();
    all.dedup();
    match all.len() {
        0 => None,
        n if n > 24 => Some(format!("there are {n} {what}, none of a like name")),
        _ => Some(format!("{what}: {}", all.join(", "))),
    }
}
