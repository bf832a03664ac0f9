//! Glyphs to lines: which glyphs stand on one line, where words end, what is raised or lowered.
//!
//! Glyphs are taken in drawing order and a line goes on while the next glyph follows the last one
//! along the same baseline, or is a script, a fraction's part or a big delimiter beside it. Within
//! a line the text is made from gaps and shifts: a space where the gap is wide, `^{}` and `_{}`
//! around scripts. It does not reorder lines and does not know of columns.

use super::interpret::{Glyph, Page};
use super::unicode::{combining, composed, push_clean};

/// A gap of this share of an em separates words. Justified lines go down to 0.18 and kerns up to
/// 0.08.
const WORD_GAP: f32 = 0.13;
/// Glyphs of a numerator in the size of the text.
const LONGEST_NUMERATOR: usize = 48;
/// A gap this wide separates cells or columns.
const CELL_GAP: f32 = 1.5;

/// A line of text.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Normalised text, scripts marked.
    pub text: String,
    /// Left end, in points, turned upright.
    pub left: f32,
    /// Right end.
    pub right: f32,
    /// Baseline, upwards.
    pub y: f32,
    /// Size of most of it.
    pub size: f32,
    /// Quarter turns.
    pub turn: u8,
    /// Glyphs that can be seen.
    pub glyphs: u32,
    /// Share of them in bold type.
    pub bold: f32,
    /// Share of them in fixed-width type.
    pub fixed: f32,
    /// Share of them that are maths.
    pub maths: f32,
    /// Wide gaps: byte offset in `text` after the gap, end of the left part, start of the right.
    pub gaps: Vec<(usize, f32, f32)>,
    /// Dots lead from one part to the other, as in a table of contents.
    pub leader: bool,
    /// A header, footer or watermark, by the file's own marks.
    pub artifact: bool,
}

/// The lines of a page, in drawing order.
pub fn lines(page: &Page) -> Vec<Line> {
    let mut groups: Vec<Open> = Vec::new();
    let mut open = Open::default();
    for &glyph in &page.glyphs {
        if !open.takes(page, &glyph) {
            close(std::mem::take(&mut open), &mut groups);
        }
        open.push(page, glyph);
    }
    close(open, &mut groups);
    let lines = groups.iter().filter_map(|group| write(page, group));
    lines.filter(|line| !line.text.is_empty()).collect()
}

/// Ends a line. If the two before it are a fraction that it follows, the three become one line.
fn close(line: Open, groups: &mut Vec<Open>) {
    if let [.., above, below] = &groups[..]
        && line.follows_fraction(above, below)
        && let (Some(below), Some(above)) = (groups.pop(), groups.pop())
    {
        let mut whole = above;
        whole.glyphs.extend(below.glyphs);
        whole.glyphs.extend(line.glyphs);
        groups.push(Open { anchor: line.anchor, end: line.end, whole: true, ..whole });
        return;
    }
    if !line.glyphs.is_empty() {
        groups.push(line);
    }
}

fn text<'a>(page: &'a Page, glyph: &Glyph) -> &'a str {
    let start = glyph.start as usize;
    page.text.get(start..start + usize::from(glyph.len)).unwrap_or_default()
}

fn extension(page: &Page, glyph: &Glyph) -> bool {
    page.fonts.get(usize::from(glyph.font)).is_some_and(|font| font.style.extension)
}

/// The baseline of a large operator of the extension font. It hangs from its origin so that its
/// middle is on the axis, and comes in two sizes, told apart by width.
fn operator_base(page: &Page, g: &Glyph) -> Option<f32> {
    let sign = text(page, g).chars().next()?;
    let width = (g.end - g.x) / g.size;
    let display = match sign {
        '∫' | '∮' => width > 0.5,
        '∑' | '∏' | '∐' | '⋃' | '⋂' | '∪' | '∩' | '⊕' | '⊗' => width > 1.1,
        _ => return None,
    };
    let down = if display { 0.95 } else { 0.77 };
    extension(page, g).then_some(g.y - down * g.size)
}

/// A line being gathered.
#[derive(Default)]
struct Open {
    glyphs: Vec<Glyph>,
    /// Baseline and size of the line, once a glyph that tells them has come.
    anchor: Option<(f32, f32)>,
    /// End of what stands on the baseline.
    main_end: f32,
    /// End of all.
    end: f32,
    /// Made of a fraction and what follows it: the anchor is its baseline.
    whole: bool,
}

impl Open {
    fn takes(&self, page: &Page, g: &Glyph) -> bool {
        let Some(last) = self.glyphs.last() else { return true };
        if g.turn != last.turn || g.artifact != last.artifact {
            return false;
        }
        let size = self.anchor.map_or(last.size, |(_, size)| size);
        let em = size.max(g.size);
        // A limit wider than its sum begins left of it.
        let sign = |q: &Glyph| operator_base(page, q).is_some();
        let limit = g.size < 0.88 * size && self.glyphs.iter().rev().take(12).any(sign);
        let reach = if limit { 2.6 } else { 1.2 };
        let near = g.x >= self.main_end - reach * em && g.x <= self.end + em;
        let hangs = extension(page, g);
        let Some((y, size)) = self.anchor else {
            return near && (g.y - last.y).abs() <= 3.0 * em;
        };
        let dy = g.y - y;
        if hangs {
            return near && (-size..=3.0 * size).contains(&dy);
        }
        let first_letter = self.glyphs.len() == 1 && size > 1.8 * g.size;
        if first_letter && g.x >= self.end - 0.2 * em && near && dy >= -0.1 * size {
            // A drop capital: the line is that of the small letters beside its top.
            return dy < size;
        }
        if dy.abs() <= 0.22 * em {
            return g.x >= self.end - em || (g.x >= self.main_end - em && g.size < 0.9 * size);
        }
        if g.size < 0.88 * size {
            return near && dy.abs() <= 1.6 * size;
        }
        if g.size > 1.15 * size {
            let all_small = (self.end - self.glyphs[0].x) < 4.0 * em;
            return all_small && near && dy.abs() <= 0.65 * g.size;
        }
        // Below a long text that stands above a label in the margin is that text's next line.
        let raised = |q: &Glyph| q.y - y > 0.3 * em;
        let long = self.glyphs.len() > LONGEST_NUMERATOR;
        if dy < -0.3 * em && long && self.glyphs.iter().rev().take(LONGEST_NUMERATOR).all(raised) {
            return false;
        }
        // A short numerator stands in the middle of its bar.
        let centred = dy > 0.4 * em && g.x > self.end && g.x <= self.end + 4.0 * em;
        (near || centred) && dy.abs() <= 0.95 * em && g.x >= self.main_end - 0.6 * em
    }

    fn push(&mut self, page: &Page, g: Glyph) {
        let first = self.glyphs.is_empty();
        let lone = text(page, &g).chars().next().filter(|c| c.len_utf8() == usize::from(g.len));
        // An accent is drawn before its letter, and higher.
        let floats = self.anchor.is_none() && lone.and_then(combining).is_some();
        let hangs = extension(page, &g);
        let drop = self.glyphs.len() == 1
            && self.anchor.is_some_and(|(y, size)| size > 1.8 * g.size && g.y - y > 0.1 * size);
        // Limits come before the sign that they stand on.
        let limits = self.anchor.is_none_or(|(_, size)| size < 0.85 * g.size);
        match self.anchor {
            _ if hangs => {
                if let Some(base) = operator_base(page, &g).filter(|_| limits) {
                    self.anchor = Some((base, g.size));
                }
            }
            None if floats => {}
            None => self.anchor = Some((g.y, g.size)),
            Some((_, size)) if drop || g.size > 1.15 * size => self.anchor = Some((g.y, g.size)),
            _ => {}
        }
        let on_line = self.anchor.is_some_and(|(y, size)| (g.y - y).abs() <= 0.22 * size);
        if first {
            (self.main_end, self.end) = (g.end, g.end);
        }
        if on_line || hangs {
            self.main_end = self.main_end.max(g.end);
        }
        self.end = self.end.max(g.end);
        self.glyphs.push(g);
    }

    /// Whether `above` and `below` are the parts of a fraction to the left of this line, whose
    /// baseline runs between theirs.
    fn follows_fraction(&self, above: &Open, below: &Open) -> bool {
        let parts = (above.anchor, below.anchor, self.anchor);
        let (Some((up, size)), Some((down, _)), Some((y, em))) = parts else { return false };
        let left = |open: &Open| open.glyphs.iter().fold(f32::MAX, |left, g| left.min(g.x));
        let turn = |open: &Open| open.glyphs.first().map(|g| g.turn);
        let middle = |open: &Open| (left(open) + open.end) / 2.0;
        let step = 0.3 * em..1.15 * em;
        let end = above.end.max(below.end);
        let start = left(self);
        turn(above) == turn(self)
            && turn(below) == turn(self)
            && step.contains(&(up - y))
            && step.contains(&(y - down))
            && size < 1.1 * em
            && (middle(above) - middle(below)).abs() < em
            && (end - 0.3 * em..end + 1.2 * em).contains(&start)
    }
}

/// The baseline and the size that carry most of the line, of glyphs that are not smaller than
/// `least`.
fn main_baseline(page: &Page, glyphs: &[Glyph], least: f32) -> (f32, f32) {
    let mut seen: Vec<(f32, f32, f32)> = Vec::new();
    for g in glyphs.iter().filter(|g| g.size >= least) {
        let weight = (g.end - g.x).max(0.1) * g.size * if extension(page, g) { 0.01 } else { 1.0 };
        let same = |s: &&mut (f32, f32, f32)| (s.0 - g.y).abs() < 0.1 && (s.1 - g.size).abs() < 0.1;
        if let Some(entry) = seen.iter_mut().find(same) {
            entry.2 += weight;
        } else if seen.len() < 64 {
            seen.push((g.y, g.size, weight));
        }
    }
    let best = seen.iter().fold((0.0, 0.0, -1.0), |best, s| if s.2 > best.2 { *s } else { best });
    (best.0, best.1)
}

fn both_fixed(page: &Page, a: &Glyph, b: &Glyph) -> bool {
    let fixed = |g: &Glyph| page.fonts.get(usize::from(g.font)).is_some_and(|f| f.style.fixed);
    fixed(a) && fixed(b)
}

/// Raised, lowered or neither.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Main,
    Up,
    Down,
}

fn level(page: &Page, g: &Glyph, y: f32, size: f32) -> Level {
    let dy = g.y - y;
    if g.size >= 0.86 * size || extension(page, g) {
        Level::Main
    } else if dy > 0.12 * size {
        Level::Up
    } else if dy < -0.06 * size {
        Level::Down
    } else {
        Level::Main
    }
}

/// Letters apart by habit (tracking): the usual gap between neighbours, as a share of the em.
fn tracking(page: &Page, glyphs: &[Glyph]) -> f32 {
    let mut gaps: Vec<f32> = glyphs
        .windows(2)
        .filter(|pair| pair.iter().all(|g| text(page, g) != "."))
        .map(|pair| (pair[1].x - pair[0].end) / pair[1].size.max(pair[0].size))
        .filter(|gap| (-0.1..0.6).contains(gap))
        .collect();
    if gaps.len() < 8 {
        return 0.0;
    }
    gaps.sort_unstable_by(f32::total_cmp);
    let (low, middle) = (gaps[gaps.len() / 4], gaps[gaps.len() / 2]);
    // Only where nearly all are apart: in a line of short words the middle is a word gap.
    if low > 0.04 { middle.min(low * 1.5) } else { 0.0 }
}

fn write(page: &Page, group: &Open) -> Option<Line> {
    let glyphs = &group.glyphs[..];
    let is_space = |g: &Glyph| text(page, g).chars().all(char::is_whitespace) && g.len > 0;
    let first = glyphs.iter().position(|g| !is_space(g))?;
    let last = glyphs.iter().rposition(|g| !is_space(g))?;
    let glyphs = &glyphs[first..=last];
    let (y, size) = match group.anchor {
        Some(anchor) if group.whole => anchor,
        anchor => main_baseline(page, glyphs, anchor.map_or(0.0, |(_, size)| 0.85 * size)),
    };
    let apart = tracking(page, glyphs);
    let mut writer = Writer { out: String::new(), level: Level::Main, accent: None };
    let mut line = Line {
        left: glyphs[0].x,
        right: glyphs[0].end,
        y,
        size,
        turn: glyphs[0].turn,
        artifact: glyphs[0].artifact,
        ..Line::default()
    };
    let (mut bold, mut fixed, mut maths) = (0u32, 0u32, 0u32);
    let (mut end, mut before) = (glyphs[0].x, glyphs[0]);
    let mut blank = false;
    // The baseline that scripts refer to: a numerator has one of its own.
    let mut shelf = y;
    for (at, g) in glyphs.iter().enumerate() {
        let shown = text(page, g);
        if is_space(g) {
            blank = true;
            continue;
        }
        if at > 0
            && (g.x - before.x).abs() < 0.04 * g.size
            && text(page, &before) == shown
            && (g.y - before.y).abs() < 0.04 * g.size
            && g.end > g.x
        {
            // Printed twice to look bold.
            continue;
        }
        let em = g.size.max(before.size);
        let gap = g.x - end;
        let level = level(page, g, shelf, size);
        let hangs = extension(page, g);
        let base = match (level, hangs) {
            (Level::Main, false) => Some(g.y),
            // An estimate: of use only where it is far off.
            (Level::Main, true) => {
                operator_base(page, g).filter(|base| (base - shelf).abs() > 0.4 * size)
            }
            _ => None,
        };
        let step = base.map_or(0.0, |base| base - shelf);
        let jump = step.abs() > 0.45 * size && writer.level == Level::Main;
        if step < -size && gap < 0.0 {
            writer.space_before(Level::Main);
            writer.out.push('/');
        }
        shelf = base.unwrap_or(shelf);
        let drop = at == 1 && before.size > 1.8 * g.size;
        // Slanted letters lean towards their scripts.
        let slack = if level == writer.level { 0.0 } else { 0.12 };
        let wide = gap > (WORD_GAP + apart + slack) * em;
        if at > 0 && !drop && (blank || wide || jump) {
            if gap > CELL_GAP * size && level == Level::Main && !both_fixed(page, &before, g) {
                writer.enter(Level::Main);
                writer.space();
                line.gaps.push((writer.out.len(), end, g.x));
            } else {
                writer.space_before(level);
                if both_fixed(page, &before, g) {
                    // Code is aligned by its spaces.
                    let spaces = (gap / (g.end - g.x).max(0.1)).round().clamp(1.0, 40.0) as usize;
                    writer.out.extend(std::iter::repeat_n(' ', spaces - 1));
                }
            }
        }
        blank = false;
        let next = glyphs.get(at + 1).filter(|_| g.len <= 4);
        writer.glyph(shown, level, g, next, at.checked_sub(1).and_then(|at| glyphs.get(at)));
        let style = page.fonts.get(usize::from(g.font)).map(|font| font.style).unwrap_or_default();
        line.glyphs += 1;
        bold += u32::from(style.bold);
        fixed += u32::from(style.fixed);
        maths += u32::from(style.maths || shown.chars().any(is_operator));
        end = end.max(g.end);
        line.left = line.left.min(g.x);
        before = *g;
    }
    writer.enter(Level::Main);
    line.right = end;
    let share = |count: u32| count as f32 / line.glyphs.max(1) as f32;
    (line.bold, line.fixed, line.maths) = (share(bold), share(fixed), share(maths));
    line.text = composed(writer.out);
    if line.text.contains("L^{A}T") {
        line.text = line.text.replace("L^{A}TEX", "LaTeX").replace("L^{A}T_{E}X", "LaTeX");
    }
    shorten_dots(&mut line);
    let kept = line.text.trim_end().len();
    line.text.truncate(kept);
    let len = line.text.len();
    let on_boundary = |at: usize| at < len && line.text.is_char_boundary(at);
    line.gaps.retain(|gap| on_boundary(gap.0));
    Some(line)
}

/// Writes dots apart (`. . .`) together, and the dots that lead to a page number as ` ... `.
fn shorten_dots(line: &mut Line) {
    let mut from = 0;
    while let Some(start) = line.text[from..].find("..").or(line.text[from..].find(". .")) {
        let start = from + start;
        let run = line.text[start..].bytes().take_while(|b| matches!(b, b'.' | b' ')).count();
        let run = line.text[start..start + run].trim_end().len();
        let dots = line.text[start..start + run].bytes().filter(|b| *b == b'.').count();
        let end = start + run;
        if dots < 3 {
            from = end;
            continue;
        }
        let leader = dots > 4;
        let left = line.text[..start].trim_end().len();
        let (from_dots, short) = if leader { (left, " ... ") } else { (start, "...") };
        let after = line.text[end..].len() - line.text[end..].trim_start().len();
        let end = if leader { end + after } else { end };
        line.text.replace_range(from_dots..end, short);
        line.leader |= leader;
        line.gaps.retain_mut(|gap| {
            if gap.0 >= end {
                gap.0 = gap.0 - end + from_dots + short.len();
            }
            gap.0 <= from_dots || gap.0 >= from_dots + short.len()
        });
        from = from_dots + short.len();
    }
}

/// Signs that prose does not use.
fn is_operator(c: char) -> bool {
    matches!(c, '=' | '<' | '>' | '+' | '±' | '×' | '÷' | '√')
        || matches!(c, '\u{370}'..='\u{3ff}' | '\u{2200}'..='\u{22ff}' | '\u{1d400}'..='\u{1d7ff}')
}

struct Writer {
    out: String,
    level: Level,
    /// An accent that waits for its letter.
    accent: Option<char>,
}

impl Writer {
    fn enter(&mut self, level: Level) {
        if level == self.level {
            return;
        }
        if self.level != Level::Main {
            let spaced = self.out.ends_with(' ');
            self.out.truncate(self.out.trim_end().len());
            // A prime is a superscript by nature.
            match self.out.rfind("^{") {
                Some(at)
                    if at + 2 < self.out.len() && self.out[at + 2..].chars().all(|c| c == '′') =>
                {
                    self.out.replace_range(at..at + 2, "");
                }
                _ => self.out.push('}'),
            }
            if spaced {
                self.out.push(' ');
            }
        }
        match level {
            Level::Main => {}
            Level::Up => self.out.push_str("^{"),
            Level::Down => self.out.push_str("_{"),
        }
        self.level = level;
    }

    fn space(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with([' ', '{']) {
            self.out.push(' ');
        }
    }

    /// A space between the last glyph and one of `level`: outside the scripts.
    fn space_before(&mut self, level: Level) {
        if level != self.level {
            self.enter(Level::Main);
        }
        self.space();
    }

    fn glyph(
        &mut self,
        shown: &str,
        level: Level,
        g: &Glyph,
        next: Option<&Glyph>,
        before: Option<&Glyph>,
    ) {
        let mut chars = shown.chars();
        let lone = chars.next().filter(|_| chars.next().is_none());
        if let Some(mark) = lone.and_then(combining) {
            let over = |other: &Glyph| {
                let shared = g.end.min(other.end) - g.x.max(other.x);
                let narrow = (g.end - g.x).min(other.end - other.x);
                shared > 0.45 * narrow.max(0.1)
                    || (g.end - g.x).abs() < 0.1 && (g.x - other.x).abs() < 0.4 * g.size
            };
            if next.is_some_and(over) {
                self.accent = Some(mark);
                return;
            }
            let base = self.out.chars().next_back();
            if before.is_some_and(over) && base.is_some_and(char::is_alphabetic) {
                self.out.push(mark);
                return;
            }
        }
        self.enter(level);
        match self.accent.take() {
            Some(mark) => {
                let base = match lone {
                    Some('ı') => "i",
                    Some('ȷ') => "j",
                    _ => shown,
                };
                push_clean(base, &mut self.out);
                if self.out.chars().next_back().is_some_and(|c| !c.is_whitespace()) {
                    self.out.push(mark);
                }
            }
            None => push_clean(shown, &mut self.out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_shortened_and_gaps_keep_their_place() {
        let text = "1.2 Model objects . . . . . . . . 7 next".to_owned();
        let gap = text.find("next").expect("next");
        let mut line = Line { text, gaps: vec![(gap, 0.0, 20.0)], ..Line::default() };
        shorten_dots(&mut line);
        assert_eq!(line.text, "1.2 Model objects ... 7 next");
        assert_eq!(&line.text[line.gaps[0].0..], "next");
        assert!(line.leader);
        let mut line =
            Line { text: "x_{1}, . . . , x_{n}. . and e.g. so".into(), ..Line::default() };
        shorten_dots(&mut line);
        assert_eq!(line.text, "x_{1}, ... , x_{n}. . and e.g. so");
        assert!(!line.leader);
    }
}
