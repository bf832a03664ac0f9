//! After a syntax error: the rest of the file, read without what is wrong, so that further mistakes
//! are told in the same go.
//!
//! Values or lines around the place are blanked, whichever lets the reader come furthest. What is
//! only a consequence of that is left out by `Problems::new`.

use super::{Yaml, general};
use crate::diagnostic::Problem;

/// How many syntax errors are told at the most.
const MOST: usize = 12;
/// How many bytes are read again at the most, in all.
const EFFORT: usize = 8_000_000;

/// Reads one document, as `super::read` does.
pub fn read(text: &str, source: usize, problems: &mut Vec<Problem>) -> Option<Yaml> {
    let first = match attempt(text, source) {
        Ok((tree, found)) => {
            problems.extend(found);
            return Some(tree);
        }
        Err(error) => error,
    };
    let mut at = first.span.start;
    let whole = first.message.contains("more than one document");
    problems.push(first);
    if whole {
        return None;
    }
    let mut text = text.to_owned();
    let mut effort = 0;
    for _ in 1..MOST {
        let mut best: Option<(String, Problem)> = None;
        for blanked in candidates(&text, at) {
            effort += text.len();
            if effort > EFFORT {
                return None;
            }
            match attempt(&blanked, source) {
                Ok((tree, found)) => {
                    problems.extend(found);
                    return Some(tree);
                }
                Err(error) => {
                    let furthest = best.as_ref().map_or(at, |(_, other)| other.span.start);
                    if error.span.start > furthest {
                        best = Some((blanked, error));
                    }
                }
            }
        }
        let (blanked, error) = best?;
        at = error.span.start;
        // An error at the end of the text, or in a line of which one was told, follows from that.
        let line = |at: usize| blanked.get(..at).map_or(0, |before| before.matches('\n').count());
        let told =
            problems.iter().any(|p| p.span.source == source && line(p.span.start) == line(at));
        if !told && at < blanked.trim_end().len() {
            problems.push(error);
        }
        text = blanked;
    }
    None
}

fn attempt(text: &str, source: usize) -> Result<(Yaml, Vec<Problem>), Problem> {
    let mut problems = Vec::new();
    match general::read(text, source, &mut problems) {
        Some(tree) => Ok((tree, problems)),
        None => Err(problems.swap_remove(0)),
    }
}

/// The text without the value on the line of a place, without that line, and the same for the line
/// before it that is not blank.
fn candidates(text: &str, at: usize) -> Vec<String> {
    let at = at.min(text.len());
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |n| n + 1);
    let line = text.get(start..).and_then(|rest| rest.split('\n').next()).unwrap_or_default();
    let before = text.get(..start).unwrap_or_default().trim_end();
    let above = before.rfind('\n').map_or(0, |n| n + 1);
    let mut made = Vec::new();
    for (start, line) in [(start, line), (above, before.get(above..).unwrap_or_default())] {
        let value = line.find(": ").filter(|at| !line[..*at].contains(['{', '[', '"', '\'']));
        for from in value.map(|at| at + 1).into_iter().chain([0]) {
            if !line.get(from..).unwrap_or_default().trim().is_empty() {
                let mut bytes = text.as_bytes().to_vec();
                bytes[start + from..start + line.len()].fill(b' ');
                made.extend(String::from_utf8(bytes));
            }
        }
    }
    made
}
