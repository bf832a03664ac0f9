//! The page's columns, and the one case where drawing order is not reading order.
//!
//! Typeset papers draw a column before the next one, and cutting pages up by geometry does more
//! harm than good; so lines stay in drawing order unless the page zig-zags: line after line with a
//! wide gap at one and the same place and prose on both sides. Then the halves are read apart.

use super::lines::Line;

/// A column of a page, by its text's edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// Left edge.
    pub left: f32,
    /// Right edge.
    pub right: f32,
}

/// Rows across a gutter that make a zig-zag.
const ROWS: usize = 6;

/// Lines in reading order.
pub fn order(lines: Vec<Line>) -> Vec<Line> {
    match gutter(&lines) {
        Some(gutter) => unzip(lines, gutter),
        None => lines,
    }
}

fn words(text: &str) -> usize {
    text.split_whitespace()
        .filter(|word| word.chars().filter(|c| c.is_alphabetic()).count() > 1)
        .count()
}

/// The two parts of a line around its gap over `x`.
fn parts(line: &Line, x: f32) -> Option<(Line, Line)> {
    let &(at, end, start) = line.gaps.iter().find(|gap| gap.1 <= x && x <= gap.2)?;
    let (left, right) = (line.text.get(..at)?.trim_end(), line.text.get(at..)?);
    let share = left.len() as f32 / line.text.len().max(1) as f32;
    let glyphs = (line.glyphs as f32 * share) as u32;
    Some((
        Line {
            text: left.into(),
            right: end,
            glyphs,
            gaps: line.gaps.iter().copied().filter(|gap| gap.0 < at).collect(),
            ..line.clone()
        },
        Line {
            text: right.into(),
            left: start,
            glyphs: line.glyphs - glyphs.min(line.glyphs),
            gaps: line
                .gaps
                .iter()
                .filter(|gap| gap.0 > at)
                .map(|gap| (gap.0 - at, gap.1, gap.2))
                .collect(),
            ..line.clone()
        },
    ))
}

/// The middle of the gutter that a zig-zag page reads across.
fn gutter(lines: &[Line]) -> Option<f32> {
    // Where the right halves begin: most of them at one place.
    let mut starts: Vec<f32> = lines.iter().flat_map(|l| l.gaps.iter().map(|gap| gap.2)).collect();
    if starts.len() < ROWS {
        return None;
    }
    starts.sort_unstable_by(f32::total_cmp);
    let (mut best, mut from) = ((0, 0.0), 0);
    for to in 0..starts.len() {
        while starts[to] - starts[from] > 2.0 {
            from += 1;
        }
        if to - from + 1 > best.0 {
            best = (to - from + 1, starts[from]);
        }
    }
    let (_, start) = best;
    let rows: Vec<(Line, Line)> = lines.iter().filter_map(|l| parts(l, start - 0.5)).collect();
    let prose = |line: &Line| words(&line.text) >= 3 && line.maths < 0.3;
    let good = rows.iter().filter(|(left, right)| prose(left) && prose(right)).count();
    (best.0 >= ROWS && good >= ROWS && good * 4 >= rows.len() * 3).then_some(start - 0.5)
}

fn unzip(lines: Vec<Line>, gutter: f32) -> Vec<Line> {
    let mut out = Vec::with_capacity(lines.len() * 2);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for line in lines {
        if let Some((a, b)) = parts(&line, gutter) {
            left.push(a);
            right.push(b);
        } else if line.right <= gutter {
            left.push(line);
        } else if line.left >= gutter {
            right.push(line);
        } else {
            out.append(&mut left);
            out.append(&mut right);
            out.push(line);
        }
    }
    out.append(&mut left);
    out.append(&mut right);
    out
}

/// The columns that the page's long lines stand in.
pub fn columns(lines: &[Line]) -> Vec<Column> {
    let mut long: Vec<&Line> = lines.iter().filter(|l| l.glyphs >= 24 && l.turn == 0).collect();
    long.sort_by(|a, b| a.left.total_cmp(&b.left));
    // Lines that begin at one place, and the right edge that most of their glyphs reach.
    let mut found: Vec<(Column, u32)> = Vec::new();
    let mut rest = &long[..];
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|l| l.left - first.left < 4.0).count();
        let (group, after) = rest.split_at(same);
        rest = after;
        let mut rights: Vec<f32> = group.iter().map(|l| l.right).collect();
        rights.sort_unstable_by(f32::total_cmp);
        // Most lines of a paragraph are full.
        let right = rights[rights.len() * 2 / 3];
        let weight = group.iter().map(|l| l.glyphs).sum();
        found.push((Column { left: first.left, right }, weight));
    }
    let all: u32 = found.iter().map(|column| column.1).sum();
    let mut out: Vec<Column> = Vec::new();
    for (column, weight) in found {
        // Indented lines reach the same right edge as the column that they are in.
        let indented =
            out.iter().any(|c| (c.right - column.right).abs() < 12.0 && c.left < column.left);
        if weight * 8 >= all && !indented {
            out.push(column);
        }
    }
    out
}

/// The column that a line stands in, or its own extent.
pub fn column_of(line: &Line, columns: &[Column]) -> Column {
    let middle = (line.left + line.right) / 2.0;
    let holds =
        |c: &&Column| line.left > c.left - 15.0 && line.left < c.right && middle < c.right + 15.0;
    let narrow = |a: &&Column, b: &&Column| (a.right - a.left).total_cmp(&(b.right - b.left));
    let found = columns.iter().filter(holds).min_by(narrow).copied();
    found.unwrap_or(Column { left: line.left, right: line.right })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, left: f32, right: f32, gap: Option<(usize, f32, f32)>) -> Line {
        let glyphs = text.len() as u32;
        Line {
            text: text.into(),
            left,
            right,
            glyphs,
            gaps: gap.into_iter().collect(),
            ..Line::default()
        }
    }

    #[test]
    fn a_zig_zag_is_read_column_by_column() {
        let mut page = vec![line("A title over both of the columns", 50.0, 550.0, None)];
        for row in 0..8 {
            let left = format!("left words of row{row} ");
            let text = format!("{left}right words of row{row}");
            page.push(line(&text, 50.0, 550.0, Some((left.len(), 280.0, 320.0))));
        }
        let texts: Vec<String> = order(page).into_iter().map(|line| line.text).collect();
        assert_eq!(texts[0], "A title over both of the columns");
        assert_eq!(texts[1], "left words of row0");
        assert_eq!(texts[8], "left words of row7");
        assert_eq!(texts[9], "right words of row0");
    }

    #[test]
    fn a_table_stays_in_rows() {
        let rows =
            (0..8).map(|row| line(&format!("name {row} 0.5"), 50.0, 550.0, Some((7, 90.0, 320.0))));
        let page: Vec<Line> = rows.collect();
        let texts: Vec<String> = order(page.clone()).into_iter().map(|line| line.text).collect();
        let want: Vec<String> = page.into_iter().map(|line| line.text).collect();
        assert_eq!(texts, want);
    }

    #[test]
    fn columns_by_their_edges() {
        let long = "a line of text that is long enough";
        let mut page = Vec::new();
        for _ in 0..10 {
            page.push(line(long, 50.0, 290.0, None));
            page.push(line(long, 310.0, 550.0, None));
        }
        page.push(line(long, 65.0, 290.0, None));
        let found = columns(&page);
        assert_eq!(found.iter().map(|c| c.left).collect::<Vec<_>>(), [50.0, 310.0]);
        assert_eq!(column_of(&line("x", 320.0, 330.0, None), &found).left, 310.0);
    }
}
