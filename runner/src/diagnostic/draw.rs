//! Problems as people and editors see them: with file, line, column and the lines around.
//!
//! The lines of a text are counted once for all of its problems, because a text may be long.

use std::fmt;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};
use serde_json::json;

use super::{Problem, Severity, Sources, Span};

/// How many problems are drawn in full; more are counted.
const DRAWN: usize = 60;

/// Places of one problem that lie closer than this, in lines, are drawn in one piece.
const NEAR: usize = 4;

/// A text and where its lines begin.
#[derive(Debug)]
struct Lines {
    name: String,
    text: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    /// The line from 0 in which a byte lies.
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }
    /// Line and column from 1; columns in characters.
    fn place(&self, at: usize) -> (usize, usize) {
        let line = self.line(at);
        let start = self.starts.get(line).copied().unwrap_or_default();
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or_default();
        (line + 1, before.chars().count() + 1)
    }
}

/// A problem with its text: what miette draws.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub problem: Problem,
    lines: Arc<Lines>,
    /// The hint, and places in other texts, which cannot be drawn into this one.
    help: Option<String>,
}

/// Joins problems with their texts.
pub(super) fn locate(sources: &Sources, problems: Vec<Problem>) -> Vec<Located> {
    let mut known: Vec<Option<Arc<Lines>>> = vec![None; sources.0.len() + 1];
    let mut lines = |source: usize| {
        let place = known.get_mut(source.min(sources.0.len()))?;
        let found = place.get_or_insert_with(|| {
            let source = sources.0.get(source);
            let text = source.map_or_else(|| Arc::from(""), |source| Arc::clone(&source.text));
            let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
            let name = source.map(|source| source.name.clone()).unwrap_or_default();
            Arc::new(Lines { name, text, starts })
        });
        Some(Arc::clone(found))
    };
    let mut located = Vec::with_capacity(problems.len());
    for problem in problems {
        let mut help: Vec<String> = problem.help.iter().cloned().collect();
        for (span, label) in problem.also.iter().filter(|(s, _)| s.source != problem.span.source) {
            if let Some(other) = lines(span.source) {
                let (line, column) = other.place(span.start);
                help.push(format!("{label}: {}:{line}:{column}", other.name));
            }
        }
        let help = (!help.is_empty()).then(|| help.join("\n"));
        let Some(lines) = lines(problem.span.source) else { continue };
        located.push(Located { problem, lines, help });
    }
    located
}

/// Draws the problems, the first of them in full.
pub(super) fn render(located: &[Located], colour: bool, width: usize) -> String {
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(colour);
    let mut out = String::new();
    for located in located.iter().take(DRAWN) {
        if handler.render_report(&mut out, located).is_err() {
            out.push_str(&format!("{}: {located}\n", located.place()));
        }
        out.push('\n');
    }
    if located.len() > DRAWN {
        out.push_str(&format!("  … and {} more\n\n", located.len() - DRAWN));
    }
    out
}

impl Located {
    /// `pipeline.yaml:3`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.lines.name, self.lines.line(self.problem.span.start) + 1)
    }

    /// What an editor wants to know.
    pub fn json(&self) -> serde_json::Value {
        let problem = &self.problem;
        let (line, column) = self.lines.place(problem.span.start);
        let (end_line, end_column) = self.lines.place(problem.span.end);
        json!({
            "file": self.lines.name,
            "line": line,
            "column": column,
            "end_line": end_line,
            "end_column": end_column,
            "code": problem.code,
            "severity": problem.severity,
            "message": problem.message,
            "help": self.help,
        })
    }
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
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.help.as_deref()?))
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = |span: Span| (span.start, span.end - span.start);
        let label = Some(self.problem.label.to_string()).filter(|label| !label.is_empty());
        let main = LabeledSpan::new_primary_with_span(label, place(self.problem.span));
        let also = self.problem.also.iter().filter(|(s, _)| s.source == self.problem.span.source);
        let also = also.map(move |(s, l)| LabeledSpan::new_with_span(Some(l.clone()), place(*s)));
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}

/// The lines around a span. miette's own search goes through all the text, for every label.
impl SourceCode for Located {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let Lines { name, text, starts } = &*self.lines;
        let end = span.offset() + span.len();
        if end > text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let first = self.lines.line(span.offset()).saturating_sub(before);
        let last = self.lines.line(end.saturating_sub(usize::from(!span.is_empty()))) + after;
        let start = starts.get(first).copied().unwrap_or_default();
        // Without lines around, miette wants the span and its column.
        let (from, column) = match before {
            0 => (span.offset(), self.lines.place(span.offset()).1 - 1),
            _ => (start, 0),
        };
        // The break after the last line is not part of it.
        let to = starts.get(last + 1).map_or(text.len(), |next| next - 1).max(end);
        let data = text.as_bytes().get(from..to).ok_or(MietteError::OutOfBounds)?;
        let around = SourceSpan::new(from.into(), to - from);
        let lines = last.min(starts.len() - 1) - first + 1 + NEAR;
        Ok(Box::new(MietteSpanContents::new_named(
            name.clone(),
            data,
            around,
            first,
            column,
            lines,
        )))
    }
}
