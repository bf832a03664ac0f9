//! What interrupts a paragraph without being part of it: a footnote at the foot of the page, a figure
//! or table that floats to the top of the next, a note or a line number in the margin.
//!
//! It is moved behind the paragraph, and the two halves are tied together. Only clear cases are: the
//! first half stops in the middle of a sentence at the full width of its column, the second goes on in
//! lower case over the full width, and nothing between them is running text, a heading, a formula or code.

use super::compose::{Body, Join, Kind, Placed, ends_sentence, join};

/// Lines that may stand between two halves of a paragraph.
const MOST_LINES: usize = 160;
/// Lines of a paragraph that are looked through for its end.
const LONGEST: usize = 400;
/// Lone numbers in the margin that make line numbers.
const NUMBERED: usize = 10;

/// Moves what interrupts a paragraph behind it.
pub fn put_aside(placed: &mut Vec<Placed<'_>>, body: Body) {
    drop_line_numbers(placed);
    let mut at = 0;
    while at + 2 < placed.len() {
        if let Some(second) = second_half(placed, at, body) {
            let end = paragraph_end(placed, second, body);
            placed[second].tie = Some(Join::Flow);
            placed[at + 1].tie = Some(Join::Paragraph);
            if let Some(after) = placed.get_mut(end + 1) {
                after.tie.get_or_insert(Join::Paragraph);
            }
            placed[at + 1..=end].rotate_left(second - at - 1);
        }
        at += 1;
    }
}

/// Numbers of lines, in the margin of papers under review.
fn drop_line_numbers(placed: &mut Vec<Placed<'_>>) {
    let number = |p: &Placed<'_>| p.outside && p.line.text.bytes().all(|b| b.is_ascii_digit());
    if placed.iter().filter(|p| number(p)).count() >= NUMBERED {
        placed.retain(|p| !number(p));
    }
}

fn of_body(p: &Placed<'_>, body: Body) -> bool {
    p.kind == Kind::Prose && (p.line.size - body.size).abs() < 0.06 * body.size
}

/// A caption's first line.
fn caption(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let label = words.next().unwrap_or_default().trim_end_matches('.');
    let number = words.next().unwrap_or_default();
    let known = ["Figure", "Fig", "FIG", "FIGURE", "Table", "TABLE", "Tab", "Algorithm", "Listing"];
    let numbered = number.starts_with(|c: char| c.is_ascii_digit() || "IVX".contains(c));
    known.contains(&label)
        && numbered
        && (number.ends_with(['.', ':', '|']) || words.next().is_some())
}

/// Where the paragraph that `placed[at]` breaks off in goes on, past something else.
fn second_half(placed: &[Placed<'_>], at: usize, body: Body) -> Option<usize> {
    let first = &placed[at];
    if placed[at + 1].outside && !first.outside {
        // A note beside the text: what comes next to the line is as if it were not there.
        let rest = &placed[at + 1..];
        let notes = rest.iter().take(8).take_while(|p| p.outside && p.page == first.page).count();
        let next = placed.get(at + 1 + notes).filter(|p| p.page == first.page && !p.outside)?;
        let flows = join(first, next, placed.get(at + 2 + notes), false, body) == Join::Flow;
        return (first.kind == Kind::Prose && next.kind == Kind::Prose && flows)
            .then_some(at + 1 + notes);
    }
    let full = |p: &Placed<'_>| p.line.right > p.column.right - 2.0 * p.line.size;
    let cut = first.line.text.ends_with('-');
    let alone = at == 0
        || first.tie.is_none_or(|tie| tie != Join::Flow)
            && join(&placed[at - 1], first, None, false, body) != Join::Flow;
    if !of_body(first, body) || ends_sentence(&first.line.text) || !(full(first) || cut) || alone {
        return None;
    }
    let (mut captioned, mut in_caption) = (false, false);
    for (step, here) in placed[at + 1..].iter().take(MOST_LINES).enumerate() {
        let index = at + 1 + step;
        if here.page > first.page + 1 {
            return None;
        }
        let before = &placed[index - 1];
        let starts =
            step == 0 || join(before, here, placed.get(index + 1), false, body) != Join::Flow;
        if caption(&here.line.text) {
            (captioned, in_caption) = (true, true);
            continue;
        }
        match here.kind {
            Kind::Heading(_) | Kind::Equation | Kind::Code => return None,
            Kind::Prose if of_body(here, body) && !here.outside => {
                let goes_on = here.line.text.starts_with(char::is_lowercase)
                    && here.line.left < here.column.left + 0.8 * here.line.size
                    && (full(here) || ends_sentence(&here.line.text))
                    && here.line.glyphs > 12;
                let elsewhere = here.page != first.page || here.line.y > first.line.y;
                if goes_on && starts && step > 0 && (captioned || elsewhere) {
                    return Some(index);
                }
                // The rest of a caption in the body's size.
                if starts || !in_caption {
                    return None;
                }
            }
            _ => in_caption &= !starts,
        }
    }
    None
}

/// The last line of the paragraph that `placed[from]` is in.
fn paragraph_end(placed: &[Placed<'_>], from: usize, body: Body) -> usize {
    let rest = placed.windows(2).enumerate().skip(from).take(LONGEST);
    let end = rest.into_iter().find(|(at, pair)| {
        let tied = pair[1]
            .tie
            .unwrap_or_else(|| join(&pair[0], &pair[1], placed.get(at + 2), *at == from, body));
        tied != Join::Flow
    });
    end.map_or(placed.len().min(from + LONGEST) - 1, |(at, _)| at)
}
