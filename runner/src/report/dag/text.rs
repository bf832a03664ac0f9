//! A graph drawn with characters, for a terminal.
//!
//! Layers from top to bottom, stages in boxes, sources without. Between two layers each source has a
//! row of its own to run sideways; where lines cross without meeting, the upright one is drawn. A
//! drawing that is wider than the terminal becomes a list.

use std::collections::BTreeMap;

use super::layout::{Layout, layout};
use super::{Item, View, picture};
use crate::report::text::{Paint, paint};

const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

/// Draws it, within a width in characters; with the terminal's colours if `colour`.
pub fn text(view: &View, width: usize, colour: bool) -> String {
    let picture = picture(view);
    // Where it does not fit, the kinds of stages are left out before the lines are.
    for kinds in [true, false] {
        if picture.items.len() > 200 {
            break;
        }
        let labels: Vec<String> = picture.items.iter().map(|item| label(item, kinds)).collect();
        let widths = picture.items.iter().zip(&labels);
        let widths: Vec<f64> =
            widths.map(|(item, label)| (label.chars().count() + frame(item)) as f64).collect();
        let layout = layout(&picture, &widths, 3.0);
        let right = layout.points.iter().map(|p| p.x + p.width / 2.0).fold(0.0, f64::max);
        if right as usize + 2 <= width {
            let mut sheet = Sheet::default();
            draw(&layout, &picture.items, &labels, &mut sheet);
            return sheet.print(colour);
        }
    }
    list(view, colour)
}

/// A line a stage: what it is, and what feeds it.
fn list(view: &View, colour: bool) -> String {
    let picture = picture(view);
    let mut fed: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (from, to, _) in &picture.edges {
        fed.entry(*to).or_default().push(picture.items[*from].name());
    }
    let mut out = String::new();
    for (i, item) in picture.items.iter().enumerate() {
        if let Item::Stage { .. } = item {
            let from = fed.get(&i).map(|from| format!(" <- {}", from.join(", ")));
            let label = match hue(item) {
                Some(hue) => paint(colour, hue, &label(item, true)),
                None => label(item, true),
            };
            out.push_str(&format!("{label}{}\n", from.unwrap_or_default()));
        }
    }
    out
}

fn label(item: &Item, kinds: bool) -> String {
    let kind = match item {
        Item::Stage { name, kind, .. } if kinds && name != kind => format!(" ({kind})"),
        _ => String::new(),
    };
    let status = item.status().map(|status| format!(": {}", status.said()));
    format!("{}{kind}{}", item.name(), status.unwrap_or_default())
}

fn hue(item: &Item) -> Option<Paint> {
    Some(match item.status()?.word() {
        "run" => Paint::Yellow,
        "unknown" => Paint::Blue,
        _ => Paint::Green,
    })
}

fn frame(item: &Item) -> usize {
    match item {
        Item::Stage { .. } => 4,
        Item::Source { .. } => 2,
    }
}

/// Characters, and lines that join where they belong to one source.
#[derive(Default)]
struct Sheet {
    text: BTreeMap<(usize, usize), char>,
    /// The colour of the label that begins at a place, and its length.
    hues: BTreeMap<(usize, usize), (Paint, usize)>,
    /// The arms of a line at a place, and the source it comes from.
    lines: BTreeMap<(usize, usize), (u8, usize)>,
}

impl Sheet {
    fn write(&mut self, row: usize, column: usize, text: &str) {
        for (i, c) in text.chars().enumerate() {
            self.text.insert((row, column + i), c);
        }
    }

    fn arm(&mut self, row: usize, column: usize, arms: u8, source: usize) {
        let cell = self.lines.entry((row, column)).or_insert((0, source));
        let upright = |arms: u8| arms & (UP | DOWN) == UP | DOWN;
        match cell.1 == source {
            true => cell.0 |= arms,
            false if upright(arms) => *cell = (arms, source),
            false if upright(cell.0) => {}
            false => cell.0 |= arms,
        }
    }

    fn upright(&mut self, column: usize, rows: std::ops::Range<usize>, source: usize) {
        for row in rows {
            self.arm(row, column, UP | DOWN, source);
        }
    }

    fn print(mut self, colour: bool) -> String {
        for (place, (arms, _)) in &self.lines {
            self.text.entry(*place).or_insert(match *arms {
                a if a == UP | DOWN | LEFT | RIGHT => '┼',
                a if a == UP | DOWN | LEFT => '┤',
                a if a == UP | DOWN | RIGHT => '├',
                a if a == UP | LEFT | RIGHT => '┴',
                a if a == DOWN | LEFT | RIGHT => '┬',
                a if a == UP | LEFT => '╯',
                a if a == UP | RIGHT => '╰',
                a if a == DOWN | LEFT => '╮',
                a if a == DOWN | RIGHT => '╭',
                a if a & (LEFT | RIGHT) == 0 => '│',
                _ => '─',
            });
        }
        let mut out = String::new();
        let (mut row, mut column) = (0, 0);
        let mut painted: Option<(Paint, usize, String)> = None;
        for ((r, c), ch) in self.text {
            while row < r {
                out.push('\n');
                (row, column) = (row + 1, 0);
            }
            out.extend(std::iter::repeat_n(' ', c - column));
            column = c + 1;
            let begins = self.hues.get(&(r, c)).filter(|_| colour);
            if let Some((hue, length)) = begins {
                painted = Some((*hue, c + length, String::new()));
            }
            match &mut painted {
                None => out.push(ch),
                Some((hue, end, label)) => {
                    label.push(ch);
                    if column == *end {
                        out.push_str(&paint(true, *hue, label));
                        painted = None;
                    }
                }
            }
        }
        out.push('\n');
        out
    }
}

/// The lines of one source from a layer to the next: where it comes down, and where to.
struct Net {
    source: usize,
    from: usize,
    to: Vec<(usize, bool)>,
    row: usize,
}

impl Net {
    fn span(&self) -> (usize, usize) {
        let ends = self.to.iter().map(|to| to.0).chain([self.from]);
        (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(0))
    }
    fn straight(&self) -> bool {
        self.to.iter().all(|to| to.0 == self.from)
    }
}

fn draw(layout: &Layout, items: &[Item], labels: &[String], sheet: &mut Sheet) {
    let mut columns: Vec<usize> = layout.points.iter().map(|p| p.x.round() as usize).collect();
    let mut top = 0;
    for (depth, layer) in layout.layers.iter().enumerate() {
        for &point in layer {
            let column = columns[point];
            let Some(item) = items.get(point) else {
                sheet.upright(column, top..top + 3, layout.points[point].source);
                continue;
            };
            let label = &labels[point];
            let width = label.chars().count() + frame(item);
            let left = column.saturating_sub(width / 2);
            match item {
                Item::Source { .. } => sheet.write(top + 1, left + 1, label),
                Item::Stage { .. } => {
                    let bar = "─".repeat(width - 2);
                    sheet.write(top, left, &format!("╭{bar}╮"));
                    sheet.write(top + 1, left, &format!("│ {label} │"));
                    if let Some(hue) = hue(item) {
                        let place = (top + 1, left + 2);
                        sheet.hues.insert(place, (hue, label.chars().count()));
                    }
                    sheet.write(top + 2, left, &format!("╰{bar}╯"));
                }
            }
            if layout.segments.iter().any(|(a, _)| *a == point) {
                let foot = if matches!(item, Item::Stage { .. }) { "┬" } else { "│" };
                sheet.write(top + 2, column, foot);
            }
        }
        let mut nets = nets(layout, depth, &mut columns, items, labels);
        let rows = rows(&mut nets);
        let (first, arrows) = (top + 3, top + 3 + rows);
        for net in &nets {
            let row = first + net.row;
            if net.straight() {
                sheet.upright(net.from, first..arrows, net.source);
            } else {
                sheet.upright(net.from, first..row, net.source);
                let (left, right) = net.span();
                for column in left..=right {
                    let sides = if column > left { LEFT } else { 0 }
                        | if column < right { RIGHT } else { 0 };
                    let up = if column == net.from { UP } else { 0 };
                    let down = if net.to.iter().any(|to| to.0 == column) { DOWN } else { 0 };
                    sheet.arm(row, column, sides | up | down, net.source);
                }
                for (column, _) in &net.to {
                    sheet.upright(*column, row + 1..arrows, net.source);
                }
            }
            for &(column, arrow) in &net.to {
                match arrow {
                    true => sheet.write(arrows, column, "▼"),
                    false => sheet.upright(column, arrows..arrows + 1, net.source),
                }
            }
        }
        top = arrows + 1;
    }
}

/// The lines that leave a layer. Settles where they enter the next one: straight down where that
/// hits the target, so that a line does not jog by a column.
fn nets(
    layout: &Layout,
    depth: usize,
    columns: &mut [usize],
    items: &[Item],
    labels: &[String],
) -> Vec<Net> {
    let mut nets: Vec<Net> = Vec::new();
    let mut entered: Vec<usize> = Vec::new();
    let mut layer: Vec<usize> = layout.layers[depth].clone();
    layer.sort_by_key(|&point| columns[point]);
    for point in layer {
        let from = columns[point];
        let mut to = Vec::new();
        for &(_, target) in layout.segments.iter().filter(|(a, _)| *a == point) {
            let Some(item) = items.get(target) else {
                let next = &layout.layers[depth + 1];
                let place = next.iter().position(|&p| p == target).unwrap_or(0);
                let edge = |point: usize, right: bool| {
                    let half = match items.get(point) {
                        Some(item) => (labels[point].chars().count() + frame(item)) / 2 + 1,
                        None => 1,
                    };
                    if right { columns[point] + half } else { columns[point].saturating_sub(half) }
                };
                let low = place.checked_sub(1).map_or(0, |p| edge(next[p], true) + 1);
                let high = next.get(place + 1).map_or(usize::MAX, |&p| edge(p, false));
                if (low..high).contains(&from) {
                    columns[target] = from;
                }
                to.push((columns[target], false));
                continue;
            };
            let half = (labels[target].chars().count() + frame(item)) / 2;
            let (low, high) =
                (columns[target].saturating_sub(half - 1), columns[target] + half - 2);
            let wish = from.clamp(low, high.max(low));
            let column = match (low..=high).contains(&from) && !entered.contains(&from) {
                true => from,
                false => free(wish, columns[target], low, high, &entered),
            };
            entered.push(column);
            to.push((column, true));
        }
        if !to.is_empty() {
            nets.push(Net { source: layout.points[point].source, from, to, row: 0 });
        }
    }
    nets
}

/// A column of a box where nothing enters yet: the middle, else near the side it comes from.
fn free(wish: usize, middle: usize, low: usize, high: usize, entered: &[usize]) -> usize {
    let mut columns: Vec<usize> = (low..=high.max(low)).collect();
    columns.sort_by_key(|c| (c.abs_diff(middle) + c.abs_diff(wish) / 2, *c));
    let spare = |c: &&usize| entered.iter().all(|e| e.abs_diff(**c) > 1);
    *columns.iter().find(spare).unwrap_or(&middle)
}

/// Gives each net a row such that none runs over another; returns how many rows there are.
fn rows(nets: &mut [Net]) -> usize {
    // One that starts where another ends must turn off above it.
    let above = |a: &Net, b: &Net| {
        !a.straight() && b.to.iter().any(|to| to.0 == a.from) && a.from != b.from
    };
    let mut rows = 0;
    let mut done: Vec<usize> = Vec::new();
    let mut open: Vec<usize> = (0..nets.len()).filter(|&i| !nets[i].straight()).collect();
    while !open.is_empty() {
        let ready =
            open.iter().position(|&i| open.iter().all(|&j| j == i || !above(&nets[j], &nets[i])));
        let i = open.remove(ready.unwrap_or(0));
        let least = done.iter().filter(|&&j| above(&nets[j], &nets[i])).map(|&j| nets[j].row + 1);
        let mut row = least.max().unwrap_or(0);
        let (left, right) = nets[i].span();
        while done.iter().any(|&j| {
            let (l, r) = nets[j].span();
            nets[j].row == row && left <= r + 1 && l <= right + 1
        }) {
            row += 1;
        }
        nets[i].row = row;
        rows = rows.max(row + 1);
        done.push(i);
    }
    rows
}
