//! Where two texts differ, and how to show it in little room.

use std::fs;
use std::path::Path;

use super::Line;

/// How many characters of a value are shown.
const SHOWN: usize = 40;
/// How many characters are shown before and after a difference within a long value.
const AROUND: usize = 16;
/// A longer file is not looked into.
const SMALL: u64 = 1 << 20;

/// The first line that differs between two small text files; `None` where either is not there, not
/// small or not text.
pub fn first_line(old: &Path, new: &Path) -> Option<Line> {
    let read = |path: &Path| {
        fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() <= SMALL)?;
        fs::read_to_string(path).ok().filter(|text| !text.contains('\0'))
    };
    let (old, new) = (read(old)?, read(new)?);
    let (mut a, mut b) = (old.lines(), new.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (a.next(), b.next()) {
            // Only the ends of lines differ.
            (None, None) => return None,
            (old, new) if old == new => {}
            (old, new) => {
                let [old, new] = [old, new].map(|line| line.map(str::to_owned));
                return Some(Line { number, old, new });
            }
        }
    }
}

/// Two values as they are shown beside each other: whole where they are short, else the words that
/// differ and a little around them.
pub fn apart(old: Option<&str>, new: Option<&str>) -> (String, String) {
    let plain = |value: Option<&str>| match value {
        None => "none".to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(value) => value.chars().map(|c| if c.is_control() { '·' } else { c }).collect(),
    };
    let (old, new) = (plain(old), plain(new));
    let (a, b): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    if a.len() <= SHOWN && b.len() <= SHOWN {
        return (old, new);
    }
    let shorter = a.len().min(b.len());
    let before = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let ends = a.iter().rev().zip(b.iter().rev());
    let after = ends.take_while(|(a, b)| a == b).count().min(shorter - before);
    (piece(&a, before, after), piece(&b, before, after))
}

/// What lies between the common beginning and the common end, with whole words around it.
fn piece(text: &[char], before: usize, after: usize) -> String {
    let near = before.saturating_sub(AROUND);
    let start = match text[near..before].iter().position(|c| c.is_whitespace()) {
        Some(space) if near > 0 => near + space + 1,
        _ => near,
    };
    let end = text.len() - after;
    let far = (end + AROUND).min(text.len());
    let end = match text[end..far].iter().rposition(|c| c.is_whitespace()) {
        Some(space) if far < text.len() => end + space,
        _ => far,
    };
    let cut = end.min(start + 2 * SHOWN);
    let shown: String = text[start..cut].iter().collect();
    let [left, right] = [start > 0, cut < text.len()].map(|more| if more { "…" } else { "" });
    format!("{left}{shown}{right}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_show_the_words_that_differ() {
        let shown = |a: &str, b: &str| {
            let (a, b) = apart(Some(a), Some(b));
            format!("{a} -> {b}")
        };
        let command =
            |rate: &str| format!("python model.py --rate {rate} --input data/prices.csv > out");
        assert_eq!(
            shown(&command("0.01"), &command("0.02")),
            "…--rate 0.01 --input… -> …--rate 0.02 --input…"
        );
        assert_eq!(
            shown(&command("0.01"), &command("0.01 -v")),
            "…--rate 0.01 --input… -> …--rate 0.01 -v --input…"
        );
        assert_eq!(
            shown(&command("0.01"), "x"),
            "python model.py --rate 0.01 --input data/prices.csv > out -> x"
        );
        assert_eq!(shown("a\nb", ""), "a·b -> \"\"");
    }
}
