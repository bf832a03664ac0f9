//! What is wrong with a pipeline file, and where: every problem has a code, a place and a hint.
//!
//! Checks collect [`Problem`]s and go on, so that a person sees all of them in one go. A [`Span`]
//! names its text, because a value may also come from `--set`. This module knows nothing of YAML.

use std::fmt;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

/// How many problems are drawn in full; more are counted.
const DRAWN: usize = 60;

/// A text that problems point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name as the user gave it, or `--set`.
    pub name: String,
    /// All of it.
    pub text: Arc<str>,
}

/// The texts of a pipeline: the file first, then each `--set`. Cheap to clone.
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
    /// The text below a span; empty where the span lies outside.
    pub fn text(&self, span: Span) -> &str {
        let text = self.0.get(span.source).map_or("", |source| source.text.as_ref());
        text.get(span.start..span.end).unwrap_or("")
    }
    /// The line of a span's start, from 1.
    pub fn line(&self, span: Span) -> usize {
        let text = self.0.get(span.source).map_or("", |source| source.text.as_ref());
        let before = text.get(..span.start.min(text.len())).unwrap_or("");
        1 + before.bytes().filter(|&b| b == b'\n').count()
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

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
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
    /// A problem at a place.
    pub fn new(code: &'static str, span: Span, message: impl Into<Box<str>>) -> Problem {
        let message = message.into();
        Problem { code, message, span, label: Box::default(), help: None, also: Vec::new() }
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

/// Everything that is wrong, with the texts that it points into. Never empty.
#[derive(Clone, Debug)]
pub struct Problems {
    sources: Sources,
    located: Vec<Located>,
}

impl Problems {
    /// Sorts the problems as they come in the file and drops what was found twice.
    pub fn new(sources: Sources, mut problems: Vec<Problem>) -> Problems {
        problems.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
        problems.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
        let located = problems
            .into_iter()
            .map(|problem| {
                let source = sources.0.get(problem.span.source);
                let (name, text) = match source {
                    Some(source) => (source.name.as_str(), Arc::clone(&source.text)),
                    None => ("", Arc::from("")),
                };
                Located { source: NamedSource::new(name, text), problem }
            })
            .collect();
        Problems { sources, located }
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.located.iter().map(|located| &located.problem)
    }

    /// `3 problems in pipeline.yaml`.
    pub fn summary(&self) -> String {
        let n = self.located.len();
        format!("{n} problem{} in {}", if n == 1 { "" } else { "s" }, self.sources.name())
    }

    /// Draws each problem with its lines, and a last line that counts them. `colour` is for a
    /// terminal without `NO_COLOR`; `width` is in columns.
    pub fn render(&self, colour: bool, width: usize) -> String {
        let theme =
            if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler =
            GraphicalReportHandler::new_themed(theme).with_width(width).with_links(colour);
        let mut out = String::new();
        for located in self.located.iter().take(DRAWN) {
            if handler.render_report(&mut out, located).is_err() {
                out.push_str(&format!("{located}\n"));
            }
            out.push('\n');
        }
        if self.located.len() > DRAWN {
            out.push_str(&format!("  … and {} more\n\n", self.located.len() - DRAWN));
        }
        out.push_str(&self.summary());
        out.push('\n');
        out
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.located.as_slice() {
            [one] => {
                let line = self.sources.line(one.problem.span);
                write!(f, "{}:{line}: {one}", one.source.name())
            }
            _ => f.write_str(&self.summary()),
        }
    }
}

impl std::error::Error for Problems {}

impl Diagnostic for Problems {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.located.iter().map(|located| located as &dyn Diagnostic)))
    }
}

/// A problem with its source: what miette draws.
#[derive(Clone, Debug)]
struct Located {
    source: NamedSource<Arc<str>>,
    problem: Problem,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Located {}

impl Diagnostic for Located {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.code))
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.problem.help.as_deref()?))
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = |span: Span| (span.start, span.end - span.start);
        let label = Some(self.problem.label.to_string()).filter(|label| !label.is_empty());
        let main = LabeledSpan::new_primary_with_span(label, place(self.problem.span));
        // A label of another text cannot be drawn into this one.
        let also = self.problem.also.iter().filter(|(s, _)| s.source == self.problem.span.source);
        let also = also.map(move |(s, l)| LabeledSpan::new_with_span(Some(l.clone()), place(*s)));
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}

/// The best of `candidates` for a misspelt `given`, if one is near.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let scored = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&given, c), c));
    let (distance, best) = scored.min()?;
    let near = distance <= (given.chars().count() / 3).max(1) && distance < given.chars().count();
    let part = given.len() >= 3 && (best.starts_with(&given) || given.starts_with(best));
    (near || part).then_some(best)
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
    let all: Vec<String> = candidates.into_iter().map(|c| format!("`{c}`")).collect();
    match all.len() {
        0 => None,
        n if n > 24 => Some(format!("there are {n} {what}, none of a like name")),
        _ => Some(format!("{what}: {}", all.join(", "))),
    }
}
