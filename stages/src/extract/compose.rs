//! Lines to a text: paragraphs, headings, equations, code, and where each page begins.
//!
//! A paragraph is written on one line and followed by a blank one; an equation, a row of a table
//! or a line of code keeps its line. What decides is the typesetter's own signs: distance, indent,
//! size, weight, the right margin.

use serde::Serialize;

use super::aside::put_aside;
use super::hyphen::Vocabulary;
use super::layout::{Column, column_of, columns};
use super::lines::Line;

/// A section of the text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// Its level, from 1.
    pub level: usize,
    /// Characters of the text before its heading line.
    pub offset: usize,
}

/// A text and what is where in it.
#[derive(Debug, Default)]
pub struct Composed {
    /// The text.
    pub text: String,
    /// Characters before each page.
    pub pages: Vec<usize>,
    /// Headings in order.
    pub sections: Vec<Section>,
}

/// What most of the document looks like.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Size of the type.
    pub size: f32,
    /// Distance of baselines, in sizes.
    leading: f32,
    /// The largest size in use on the first page, where it is clearly larger than the rest.
    title: f32,
}

/// The value of most weight, in steps of `step`.
fn mode(values: impl Iterator<Item = (f32, u32)>, step: f32) -> Option<f32> {
    let mut counts = std::collections::BTreeMap::<i32, u64>::new();
    for (value, weight) in values {
        *counts.entry((value / step).round() as i32).or_default() += u64::from(weight);
    }
    let best = counts.into_iter().max_by_key(|(value, count)| (*count, -*value));
    best.map(|(value, _)| value as f32 * step)
}

impl Body {
    fn of(pages: &[Vec<Line>]) -> Body {
        let all = || pages.iter().flatten();
        let size = mode(all().map(|line| (line.size, line.glyphs)), 0.25).unwrap_or(10.0).max(0.1);
        let pairs = pages.iter().flat_map(|lines| lines.windows(2));
        let steps = pairs.filter_map(|pair| {
            let [a, b] = pair else { return None };
            let step = (a.y - b.y) / size;
            let alike = (a.size - size).abs() < 0.3 && (b.size - size).abs() < 0.3;
            (alike && (0.9..3.0).contains(&step)).then_some((step, b.glyphs))
        });
        let leading = mode(steps, 0.05).unwrap_or(1.2);
        let first = pages.first().into_iter().flatten().filter(|l| l.turn == 0 && l.glyphs >= 4);
        let largest = first.fold(0.0f32, |most, line| most.max(line.size));
        Body { size, leading, title: if largest > 1.15 * size { largest } else { f32::MAX } }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Of this level.
    Heading(usize),
    /// Displayed.
    Equation,
    /// In fixed-width type.
    Code,
    /// A row of cells.
    Row,
    /// Anything else.
    Prose,
}

/// How deep the number at the start of a heading is: `2.1 Data` is 2. Letters and roman numerals
/// count as one part.
fn numbered(text: &str) -> Option<usize> {
    let (number, title) = text.split_once(' ')?;
    let number = number.strip_suffix('.').unwrap_or(number);
    let parts: Vec<&str> = number.split('.').collect();
    let digits = |part: &str| part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit());
    let roman = |part: &str| part.len() <= 5 && part.bytes().all(|b| b"IVXL".contains(&b));
    let letter = |part: &str| part.len() == 1 && part.bytes().all(|b| b.is_ascii_uppercase());
    let (first, rest) = parts.split_first()?;
    let valid = (digits(first) || roman(first) || letter(first))
        && rest.iter().all(|part| digits(part))
        && parts.iter().all(|part| !part.is_empty());
    let titled = title.trim_start().starts_with(|c: char| c.is_uppercase() || c.is_numeric());
    (valid && titled && parts.len() <= 4).then_some(parts.len())
}

/// Headings that papers leave without a number.
fn customary(text: &str) -> bool {
    let names = ["abstract", "introduction", "references", "bibliography", "conclusion", "data"];
    let more = ["conclusions", "acknowledgements", "acknowledgments", "appendix", "summary"];
    let most = ["keywords", "contents", "results", "discussion", "methods", "methodology"];
    let text = text.trim_end_matches(['.', ':']).to_lowercase();
    names.iter().chain(&more).chain(&most).any(|name| *name == text)
}

/// `front`: the line stands before the first section, where names are large too.
fn kind(line: &Line, column: Column, body: Body, front: bool, first_page: bool) -> Kind {
    let letters = line.text.chars().filter(|c| c.is_alphabetic()).count();
    let length = line.text.chars().count();
    if line.fixed > 0.7 {
        return Kind::Code;
    }
    let plain = letters >= 2
        && letters * 2 > length
        && line.maths < 0.4
        && line.gaps.is_empty()
        && !line.leader;
    if plain && length < 160 {
        let depth = numbered(&line.text);
        if first_page && line.size > 0.97 * body.title {
            return Kind::Heading(1);
        }
        let large = line.size > 1.13 * body.size;
        let bold = line.bold > 0.9 && line.size > 0.85 * body.size;
        let small_capitals = !line.text.chars().any(char::is_lowercase) && letters >= 4;
        if let Some(depth) = depth
            && (large || bold || small_capitals && line.left > column.left + line.size)
        {
            return Kind::Heading(depth + 1);
        }
        if (large || bold || small_capitals) && customary(&line.text) {
            return Kind::Heading(2);
        }
        if large && letters >= 4 && !front {
            return Kind::Heading(if line.size > 1.35 * body.size { 2 } else { 3 });
        }
    }
    let long_words =
        line.text.split(|c: char| !c.is_alphabetic()).filter(|w| w.chars().count() >= 4).count();
    let indented = line.left > column.left + 1.2 * line.size;
    let short = line.right < column.right - 2.0 * line.size;
    let symbols = letters * 2 < length || line.maths > 0.3;
    if line.maths > 0.55 && long_words <= 1
        || line.maths > 0.2 && symbols && indented && long_words <= 2
    {
        return Kind::Equation;
    }
    if line.leader || !line.gaps.is_empty() && (line.gaps.len() > 1 || indented || short) {
        return Kind::Row;
    }
    Kind::Prose
}

/// What stands between two lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Join {
    /// Nothing: the paragraph goes on.
    Flow,
    /// A line end.
    NewLine,
    /// A blank line.
    Paragraph,
}

/// A line in its place.
#[derive(Clone)]
pub struct Placed<'a> {
    /// The line.
    pub line: &'a Line,
    /// The column that it is in.
    pub column: Column,
    /// What it is.
    pub kind: Kind,
    /// Its page, from 0.
    pub page: usize,
    /// It is beside the page's columns: in the margin.
    pub outside: bool,
    /// What stands before it, whatever it looks like.
    pub tie: Option<Join>,
}

/// Whether a sentence may end here.
pub fn ends_sentence(text: &str) -> bool {
    let text = text.trim_end_matches(['”', '’', '"', ')', ']', '}', '\'']);
    text.ends_with(['.', '?', '!', ':'])
}

fn starts_item(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    if matches!(first, "•" | "‣" | "▪" | "■" | "◦" | "∗" | "·" | "–" | "—")
        || first.starts_with('•')
    {
        return true;
    }
    let inner = first.trim_start_matches(['(', '[']).trim_end_matches([')', ']', '.', ':']);
    let marked = inner.len() < first.len() && (1..=4).contains(&inner.len());
    let count = inner.bytes().all(|b| b.is_ascii_digit())
        || inner.bytes().all(|b| b"ivx".contains(&b))
        || inner.len() == 1 && inner.bytes().all(|b| b.is_ascii_alphabetic());
    marked && count && first.len() >= 2
}

/// What stands between `a` and `b`. `first`: `a` opened its paragraph. `next` follows `b`.
pub fn join(
    a: &Placed<'_>,
    b: &Placed<'_>,
    next: Option<&Placed<'_>>,
    first: bool,
    body: Body,
) -> Join {
    use Kind::*;
    let (p, l) = (a.line, b.line);
    let step = p.y - l.y;
    let size = p.size.max(l.size);
    let moved = a.page != b.page || step < -0.5 * size || p.turn != l.turn;
    let leading = body.leading.max(1.0) * size;
    let indent = l.left - b.column.left > 0.8 * l.size;
    match (a.kind, b.kind) {
        (Heading(x), Heading(y)) => {
            let goes_on = x == y
                && !moved
                && step < 1.7 * leading
                && numbered(&l.text).is_none()
                && (p.size - l.size).abs() < 0.05 * size
                && p.bold.round() == l.bold.round();
            return if goes_on { Join::Flow } else { Join::Paragraph };
        }
        (Heading(_), _) | (_, Heading(_)) => return Join::Paragraph,
        (Code, Code) => {
            return if moved || step < 2.2 * leading { Join::NewLine } else { Join::Paragraph };
        }
        (Code, _) | (_, Code) | (Row, Row) => {
            return if step < 1.6 * leading && !moved { Join::NewLine } else { Join::Paragraph };
        }
        (Equation, Prose) => {
            let new = indent && l.text.starts_with(char::is_uppercase);
            return if new { Join::Paragraph } else { Join::NewLine };
        }
        (_, Equation) | (Equation, _) => return Join::NewLine,
        (Row, Prose) | (Prose, Row) => {
            return if step < 1.4 * leading && !moved { Join::NewLine } else { Join::Paragraph };
        }
        (Prose, Prose) => {}
    }
    if (p.size - l.size).abs() > 0.12 * size {
        return Join::Paragraph;
    }
    let ended = ends_sentence(&p.text);
    let short = p.right < a.column.right - 2.5 * p.size;
    if moved {
        let open = !ended || l.text.starts_with(char::is_lowercase);
        return if short || indent && !open { Join::Paragraph } else { Join::Flow };
    }
    if step > 1.35 * leading || starts_item(&l.text) && (ended || short || indent) {
        return Join::Paragraph;
    }
    let inward = l.left - p.left;
    if inward > 0.8 * l.size && indent {
        // A new paragraph, unless the lines below hang as this one does.
        let hangs = next.is_some_and(|n| n.page == b.page && (n.line.left - l.left).abs() < 2.0);
        return if short || ended && !hangs { Join::Paragraph } else { Join::Flow };
    }
    if inward < -0.8 * l.size && !first && (ended || short) {
        return Join::Paragraph;
    }
    if short
        && !p.text.ends_with(['-', ',', ';'])
        && l.text.starts_with(|c: char| !c.is_lowercase())
    {
        // Addresses, lists without marks, the last line before an unindented paragraph.
        return if ended { Join::Paragraph } else { Join::NewLine };
    }
    Join::Flow
}

/// The second line of a heading looks like the first but has no number.
fn lengthen_headings(placed: &mut [Placed<'_>], body: Body) {
    for at in 1..placed.len() {
        let (Kind::Heading(level), Kind::Prose) = (placed[at - 1].kind, placed[at].kind) else {
            continue;
        };
        let (a, b) = (placed[at - 1].line, placed[at].line);
        let size = a.size.max(b.size);
        let below = (0.5 * size..1.5 * body.leading.max(1.0) * size).contains(&(a.y - b.y));
        let marked = a.bold > 0.9 && b.bold > 0.9 || size > 1.13 * body.size;
        if placed[at - 1].page == placed[at].page
            && (a.size - b.size).abs() < 0.05 * size
            && below
            && marked
            && a.bold.round() == b.bold.round()
            && !placed[at - 1].line.text.ends_with(['.', ':'])
            && level > 1
            && numbered(&b.text).is_none()
            && b.text.chars().count() < 120
        {
            placed[at].kind = Kind::Heading(level);
        }
    }
}

struct Writer<'a> {
    out: Composed,
    chars: usize,
    /// Where the text of the last heading begins, in bytes.
    heading: usize,
    words: Option<&'a Vocabulary>,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) {
        self.out.text.push_str(text);
        self.chars += text.chars().count();
    }

    /// Goes on in the same paragraph with `text`.
    fn flow(&mut self, text: &str) {
        let tail = self.out.text.rfind(['\n', ' ']).map_or(0, |at| at + 1);
        let last = &self.out.text[tail..];
        match self.words.and_then(|words| words.joins(last, text)) {
            Some(whole) => {
                if whole && self.out.text.pop().is_some() {
                    self.chars -= 1;
                }
            }
            None => {
                let tight = last.chars().count() > 1
                    && (last.ends_with(['—', '/'])
                        || last.ends_with('–') && !last.starts_with('–'));
                if !tight {
                    self.push(" ");
                }
            }
        }
        self.push(text);
    }
}

/// Writes the document. `pages` are lines in reading order, without furniture; hyphens at line
/// ends are kept where there is no vocabulary.
pub fn compose(pages: &[Vec<Line>], words: Option<&Vocabulary>) -> Composed {
    let body = Body::of(pages);
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for (page, lines) in pages.iter().enumerate() {
        let columns = columns(lines);
        let opens = |line: &Line| {
            let bold = line.bold > 0.9 || line.size > 1.13 * body.size;
            customary(&line.text) || bold && numbered(&line.text).is_some()
        };
        let front = if page == 0 { lines.iter().position(opens).unwrap_or(lines.len()) } else { 0 };
        placed.extend(lines.iter().enumerate().map(|(at, line)| {
            let column = column_of(line, &columns);
            let outside = line.turn == 0
                && columns.iter().all(|c| line.right < c.left || line.left > c.right + 3.0)
                && !columns.is_empty();
            let kind = kind(line, column, body, at < front, page == 0);
            Placed { line, column, kind, page, outside, tie: None }
        }));
    }
    // A brace on a line of its own may come from another font than the code around it.
    for at in 1..placed.len() {
        if placed[at].line.glyphs <= 2
            && placed[at - 1].kind == Kind::Code
            && placed[at - 1].page == placed[at].page
        {
            placed[at].kind = Kind::Code;
        }
    }
    // A block of code begins where its leftmost line does.
    for block in
        placed.chunk_by_mut(|a, b| a.kind == Kind::Code && b.kind == Kind::Code && a.page == b.page)
    {
        let left = block.iter().fold(f32::MAX, |left, placed| left.min(placed.line.left));
        if block.first().is_some_and(|placed| placed.kind == Kind::Code) {
            block.iter_mut().for_each(|placed| placed.column.left = left);
        }
    }
    lengthen_headings(&mut placed, body);
    put_aside(&mut placed, body);
    let mut writer = Writer { out: Composed::default(), chars: 0, heading: 0, words };
    let mut first = true;
    for (at, here) in placed.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| placed.get(at));
        let joint = before.map(|before| {
            here.tie.unwrap_or_else(|| join(before, here, placed.get(at + 1), first, body))
        });
        match joint {
            None | Some(Join::Flow) => {}
            Some(Join::NewLine) => writer.push("\n"),
            Some(Join::Paragraph) => writer.push("\n\n"),
        }
        while writer.out.pages.len() <= here.page {
            writer.out.pages.push(writer.chars);
        }
        first = joint != Some(Join::Flow);
        if joint == Some(Join::Flow) {
            writer.flow(&here.line.text);
            if let (Kind::Heading(_), Some(section)) = (here.kind, writer.out.sections.last_mut()) {
                section.title = writer.out.text[writer.heading..].to_owned();
            }
            continue;
        }
        if let Kind::Heading(level) = here.kind {
            let (title, offset) = (here.line.text.clone(), writer.chars);
            writer.out.sections.push(Section { title, level, offset });
            let marks = format!("{} ", "#".repeat(level));
            writer.push(&marks);
            writer.heading = writer.out.text.len();
        }
        match here.kind {
            Kind::Heading(_) => {}
            // Indented as in Markdown, so that a comment is no heading.
            Kind::Code => {
                let width = here.line.right - here.line.left;
                let width = width / here.line.text.chars().count().max(1) as f32;
                let inward = (here.line.left - here.column.left) / width.max(0.1);
                let spaces = 4 + inward.round().clamp(0.0, 60.0) as usize;
                writer.push(&" ".repeat(spaces));
            }
            _ if here.line.text.starts_with('#') => writer.push("\\"),
            _ => {}
        }
        writer.push(&here.line.text);
    }
    if !writer.out.text.is_empty() {
        writer.push("\n");
    }
    while writer.out.pages.len() < pages.len() {
        writer.out.pages.push(writer.chars);
    }
    writer.out
}
