//! Running heads, feet and page numbers: text at the edge of the page that comes again and again.
//!
//! A line goes if, with its digits masked, it stands at the same height on three pages or more; or
//! if it is a lone number that counts the pages. Only the outermost lines of a page are looked at,
//! and one only after everything further out has gone.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::Line;

/// Lines looked at from each edge.
const DEEP: usize = 4;
/// Share of the page's height at each edge where furniture may stand.
const BAND: f32 = 0.17;
/// Heights this close, in points, are the same.
const SAME: f32 = 3.0;

/// A page as furniture sees it.
pub struct Sheet<'a> {
    /// Bottom and top.
    pub bounds: (f32, f32),
    /// Its lines.
    pub lines: &'a [Line],
}

/// Digits and roman numbers as `#`, without spaces.
fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let roman = !word.is_empty() && word.chars().all(|c| "ivxlcdm".contains(c));
        for c in if roman { "0" } else { word }.chars() {
            let c = if c.is_ascii_digit() { '#' } else { c };
            if c != '#' || !out.ends_with('#') {
                out.push(c);
            }
        }
    }
    out
}

/// The lines of a sheet that may be furniture, from the edge inwards.
fn edge(sheet: &Sheet<'_>, top: bool) -> Vec<usize> {
    let (bottom, height) = (sheet.bounds.0, sheet.bounds.1 - sheet.bounds.0);
    let inside = |line: &Line| {
        let share = (line.y - bottom) / height.max(1.0);
        line.turn == 0 && if top { share > 1.0 - BAND } else { share < BAND }
    };
    let mut found: Vec<usize> =
        (0..sheet.lines.len()).filter(|&at| inside(&sheet.lines[at])).collect();
    found.sort_by(|&a, &b| {
        let order = sheet.lines[a].y.total_cmp(&sheet.lines[b].y);
        if top { order.reverse() } else { order }
    });
    found.truncate(DEEP);
    found
}

/// For each sheet, which of its lines are furniture.
pub fn find(sheets: &[Sheet<'_>]) -> Vec<BTreeSet<usize>> {
    let mut out: Vec<BTreeSet<usize>> = sheets
        .iter()
        .map(|sheet| (0..sheet.lines.len()).filter(|&at| sheet.lines[at].artifact).collect())
        .collect();
    for top in [true, false] {
        let edges: Vec<Vec<usize>> = sheets.iter().map(|sheet| edge(sheet, top)).collect();
        let repeated = repeated(sheets, &edges, top);
        let numbers = numbers(sheets, &edges);
        for (page, edge) in edges.iter().enumerate() {
            for &line in edge {
                let known = repeated.contains(&(page, line)) || numbers.contains(&(page, line));
                if !known && !out[page].contains(&line) {
                    // What stands beside furniture, at its height, may still be followed by more.
                    break;
                }
                out[page].insert(line);
            }
        }
    }
    out
}

/// Lines (page, line) whose masked text stands at one height on three pages or more.
fn repeated(sheets: &[Sheet<'_>], edges: &[Vec<usize>], top: bool) -> BTreeSet<(usize, usize)> {
    let mut seen: BTreeMap<String, Vec<(f32, usize, usize)>> = BTreeMap::new();
    for (page, edge) in edges.iter().enumerate() {
        for &line in edge {
            let (low, high) = sheets[page].bounds;
            let y = sheets[page].lines[line].y;
            let from_edge = if top { high - y } else { y - low };
            let places = seen.entry(mask(&sheets[page].lines[line].text)).or_default();
            places.push((from_edge, page, line));
        }
    }
    let mut out = BTreeSet::new();
    for mut places in seen.into_values() {
        places.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut from, mut to) = (0, 0);
        for &(y, page, line) in &places {
            while y - places[from].0 > SAME {
                from += 1;
            }
            while to < places.len() && places[to].0 - y <= SAME {
                to += 1;
            }
            let pages: BTreeSet<usize> =
                places[from..to].iter().take(64).map(|place| place.1).collect();
            if pages.len() >= 3 {
                out.insert((page, line));
            }
        }
    }
    out
}

/// Lone numbers that count the pages: value less page is the same on all (two, or one of one).
fn numbers(sheets: &[Sheet<'_>], edges: &[Vec<usize>]) -> BTreeSet<(usize, usize)> {
    let mut by_offset: BTreeMap<i64, Vec<(usize, usize)>> = BTreeMap::new();
    for (page, edge) in edges.iter().enumerate() {
        for &line in edge {
            let text = sheets[page].lines[line].text.trim_matches(['-', '–', '—', ' ']);
            if let Ok(value) = text.parse::<u16>() {
                by_offset.entry(i64::from(value) - page as i64).or_default().push((page, line));
            }
        }
    }
    let counts = |(offset, places): &(i64, Vec<(usize, usize)>)| {
        places.len() >= 2 || sheets.len() == 1 && *offset == 1
    };
    by_offset.into_iter().filter(counts).flat_map(|(_, places)| places).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, y: f32) -> Line {
        Line { text: text.into(), y, ..Line::default() }
    }

    #[test]
    fn heads_and_numbers_go_and_the_body_stays() {
        let pages: Vec<Vec<Line>> = (1..=4)
            .map(|page| {
                vec![
                    line(&format!("Chapter 1 of {page}"), 780.0),
                    line(&format!("body {}", ["one", "two", "three", "four"][page - 1]), 700.0),
                    line("the same sentence", 400.0),
                    line(&page.to_string(), 30.0),
                ]
            })
            .collect();
        let sheets: Vec<Sheet> =
            pages.iter().map(|lines| Sheet { bounds: (0.0, 800.0), lines }).collect();
        for found in find(&sheets) {
            assert_eq!(found.into_iter().collect::<Vec<_>>(), [0, 3]);
        }
    }

    #[test]
    fn two_pages_lose_their_numbers_and_nothing_else() {
        let pages = [
            vec![line("Head", 780.0), line("7", 30.0)],
            vec![line("Head", 780.0), line("8", 30.0)],
        ];
        let sheets: Vec<Sheet> =
            pages.iter().map(|lines| Sheet { bounds: (0.0, 800.0), lines }).collect();
        for found in find(&sheets) {
            assert_eq!(found.into_iter().collect::<Vec<_>>(), [1]);
        }
    }
}
