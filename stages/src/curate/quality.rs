//! Rules of thumb for text that teaches a model nothing: those of Gopher (Rae et al. 2021, table A1)
//! and C4 (Raffel et al. 2020), with wider limits, because papers are full of formulas, tables and
//! code, which look like noise to rules made for web pages. C4's demand that lines end in punctuation
//! and its ban of braces are left out for the same reason.
//!
//! The rules judge form alone. Text that is wrong, dull or offensive passes.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::grams;

/// The limits. Shares run from 0 to 1.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quality {
    /// The fewest words.
    pub min_words: u32,
    /// The least mean length of words, in characters.
    pub min_word_length: f64,
    /// The greatest mean length of words, in characters.
    pub max_word_length: f64,
    /// The least share of words that have a letter. Gopher: 0.8.
    pub min_alphabetic: f64,
    /// How many of "the", "be", "to", "of", "and", "that", "have", "with" there must be. Of texts
    /// in another language than English nothing is asked.
    pub min_stop_words: u32,
    /// The most `#` and ellipses for each word, a run of `#` as one. Gopher: 0.1.
    pub max_symbols: f64,
    /// The greatest share of lines that begin with a bullet.
    pub max_bullet_lines: f64,
    /// The greatest share of lines that end with an ellipsis or hold leaders, as tables of contents.
    pub max_ellipsis_lines: f64,
    /// The greatest share of characters in lines that were there before. (Lines alone, as Gopher also
    /// counts them, would be the scraps of formulas.)
    pub max_duplicate_lines: f64,
    /// The greatest share of the words that the most frequent run of four covers. Gopher: 0.16.
    pub max_top_gram: f64,
    /// The greatest share of runs of ten words that were there before. Gopher: 0.1.
    pub max_duplicate_grams: f64,
    /// The greatest share of characters that nobody can read: U+FFFD and private use.
    pub max_unknown: f64,
    /// Whether "lorem ipsum" is let pass.
    pub placeholder: bool,
}

impl Default for Quality {
    fn default() -> Quality {
        Quality {
            min_words: 50,
            min_word_length: 2.0,
            max_word_length: 12.0,
            min_alphabetic: 0.5,
            min_stop_words: 2,
            max_symbols: 0.2,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            max_duplicate_lines: 0.2,
            max_top_gram: 0.2,
            max_duplicate_grams: 0.3,
            max_unknown: 0.01,
            placeholder: false,
        }
    }
}

const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];
const BULLETS: [char; 7] = ['•', '◦', '▪', '●', '‣', '-', '*'];

impl Quality {
    /// The first rule that a text breaks, by the name of its limit, and the value that it has.
    /// `normal` and `words` are those of `words`; `english` is false of what surely is not.
    pub fn broken(
        &self,
        text: &str,
        normal: &str,
        words: &[u64],
        english: bool,
    ) -> Option<(&'static str, f64)> {
        let tokens: Vec<&str> = text.split_whitespace().collect();
        let count = tokens.len().max(1) as f64;
        let letters: usize = tokens.iter().map(|word| word.chars().count()).sum();
        let of_tokens = |with: &dyn Fn(&str) -> bool| {
            tokens.iter().filter(|word| with(word)).count() as f64 / count
        };
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let of_lines = |with: &dyn Fn(&str) -> bool| {
            lines.iter().filter(|line| with(line)).count() as f64 / lines.len().max(1) as f64
        };
        let unknown = text.chars().filter(|c| matches!(c, '\u{fffd}' | '\u{e000}'..='\u{f8ff}'));
        let unknown = unknown.count() as f64 / letters.max(1) as f64;
        if unknown > self.max_unknown {
            return Some(("max_unknown", unknown));
        }
        if tokens.len() < self.min_words as usize {
            return Some(("min_words", tokens.len() as f64));
        }
        let mean = letters as f64 / count;
        if mean < self.min_word_length {
            return Some(("min_word_length", mean));
        }
        if mean > self.max_word_length {
            return Some(("max_word_length", mean));
        }
        let alphabetic = of_tokens(&|word| word.chars().any(char::is_alphabetic));
        if alphabetic < self.min_alphabetic {
            return Some(("min_alphabetic", alphabetic));
        }
        let known: HashSet<&str> = normal.split(' ').filter(|w| STOP_WORDS.contains(w)).collect();
        if english && known.len() < self.min_stop_words as usize {
            return Some(("min_stop_words", known.len() as f64));
        }
        let mut last = ' ';
        let hashes = text.chars().filter(|c| {
            let before = std::mem::replace(&mut last, *c);
            *c == '#' && before != '#'
        });
        let symbols = hashes.count() + text.matches('…').count() + text.matches("...").count();
        let symbols = symbols as f64 / count;
        if symbols > self.max_symbols {
            return Some(("max_symbols", symbols));
        }
        let shares = [
            ("max_bullet_lines", self.max_bullet_lines, of_lines(&|l| l.starts_with(BULLETS))),
            ("max_ellipsis_lines", self.max_ellipsis_lines, of_lines(&ellipsis)),
            ("max_duplicate_lines", self.max_duplicate_lines, duplicate_lines(&lines)),
            ("max_top_gram", self.max_top_gram, top_gram(words)),
            ("max_duplicate_grams", self.max_duplicate_grams, duplicate_grams(words)),
        ];
        if let Some((name, _, share)) = shares.into_iter().find(|(_, most, share)| share > most) {
            return Some((name, share));
        }
        (!self.placeholder && normal.contains("lorem ipsum")).then_some(("placeholder", 1.0))
    }
}

/// An ellipsis at the end, or leaders.
fn ellipsis(line: &str) -> bool {
    line.ends_with("...")
        || line.ends_with('…')
        || line.contains("....")
        || line.contains(". . . .")
}

/// The share of the characters that are in lines that were there before.
fn duplicate_lines(lines: &[&str]) -> f64 {
    let mut seen = HashSet::new();
    let (mut all, mut again) = (0, 0);
    for line in lines {
        all += line.len();
        again += if seen.insert(*line) { 0 } else { line.len() };
    }
    again as f64 / all.max(1) as f64
}

/// The share of the words that the most frequent run of four covers, where it comes more than once.
fn top_gram(words: &[u64]) -> f64 {
    let mut counts: HashMap<u64, usize> = HashMap::new();
    for gram in grams(words, 4) {
        *counts.entry(gram).or_default() += 1;
    }
    // Of several the number decides, so that the answer does not hang on the order of the table.
    let top = counts.into_iter().map(|(gram, count)| (count, gram)).max();
    let Some((_, top)) = top.filter(|(count, _)| *count > 1) else { return 0.0 };
    let (mut covered, mut end) = (0, 0);
    for (at, _) in grams(words, 4).enumerate().filter(|(_, gram)| *gram == top) {
        covered += at + 4 - end.max(at);
        end = at + 4;
    }
    covered as f64 / words.len() as f64
}

fn duplicate_grams(words: &[u64]) -> f64 {
    let all: Vec<u64> = grams(words, 10).collect();
    let unlike: HashSet<u64> = all.iter().copied().collect();
    1.0 - unlike.len() as f64 / all.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::prose;
    use super::super::words;
    use super::*;

    fn broken(text: &str) -> Option<&'static str> {
        let normal = words::normal(text);
        let words = words::words(&normal);
        Quality::default().broken(text, &normal, &words, true).map(|(name, _)| name)
    }

    #[test]
    fn every_rule_finds_what_it_is_for() {
        assert_eq!(broken(&prose(1, 20)), None);
        let formulas: String =
            (0..40).map(|i| format!("r_{i} = α_{i} + β x_{i} + ε_{i}\n")).collect();
        assert_eq!(broken(&(prose(1, 12) + &formulas)), None);
        let numbered = |count: usize, with: &dyn Fn(usize) -> String| -> String {
            (0..count).map(with).collect()
        };
        for (text, rule) in [
            ("Too short of the.".to_owned(), "min_words"),
            ("a ".repeat(99), "min_word_length"),
            ("abcdefghijklmnop ".repeat(99), "max_word_length"),
            (numbered(99, &|i| format!("12 of {i}.5 ")), "min_alphabetic"),
            (numbered(99, &|i| format!("word{i} next{i} ")), "min_stop_words"),
            (numbered(99, &|i| format!("the ## of … b{i} ")), "max_symbols"),
            (numbered(99, &|i| format!("• the end of b{i}\n")), "max_bullet_lines"),
            (numbered(99, &|i| format!("the end of some thing b{i} . . . . {i}\n")), "max_ellipsis_lines"),
            (prose(1, 5) + &"\nthe same of it".repeat(30), "max_duplicate_lines"),
            (prose(1, 5) + &" the same of it".repeat(30), "max_top_gram"),
            (prose(1, 8) + &"and so we have it that all of them go on to be, or that they end where all else does. ".repeat(6), "max_duplicate_grams"),
            (prose(1, 20) + &"\u{fffd}\u{e012}".repeat(40), "max_unknown"),
            (prose(1, 20) + "Lorem  Ipsum", "placeholder"),
        ] {
            assert_eq!(broken(&text), Some(rule), "{text}");
        }
    }

    #[test]
    fn runs_that_overlap_are_counted_once() {
        let words = words::words("a b c d e a b c d e f");
        assert_eq!(top_gram(&words), 8.0 / 11.0);
        assert_eq!(top_gram(&[7; 10]), 1.0);
        assert_eq!(top_gram(&words[..5]), 0.0);
        assert_eq!(duplicate_lines(&["abc", "d", "abc", "d"]), 0.5);
    }

    #[test]
    fn stop_words_are_asked_of_english_only() {
        let text: String = (0..60).map(|i| format!("der Ertrag von a{i} ")).collect();
        let normal = words::normal(&text);
        let words = words::words(&normal);
        let broken = |english| Quality::default().broken(&text, &normal, &words, english);
        assert_eq!(broken(true), Some(("min_stop_words", 0.0)));
        assert_eq!(broken(false), None);
    }
}
