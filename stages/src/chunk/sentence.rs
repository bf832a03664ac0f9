//! Where sentences end, in English academic and financial prose.
//!
//! A rule of thumb with word lists, made for text with "Fig. 3", "e.g.", "et al.", initials, decimals,
//! numbered headings and citations after the full stop. It is shy: where a full stop may belong to an
//! abbreviation, it is not the end of a sentence, because a boundary that is missed costs a chunker
//! little and a false one cuts a sentence. It does not parse, and other languages get what follows
//! from punctuation alone.

/// Abbreviations after which a sentence does not end.
const NEVER: &[&str] = &[
    "a.k.a", "approx", "ca", "capt", "cf", "chap", "col", "dr", "e.g", "ed", "eds", "eg", "eq",
    "eqn", "eqns", "eqs", "fig", "figs", "gen", "gov", "hon", "i.e", "ie", "lem", "lt", "mr",
    "mrs", "ms", "pp", "prof", "refs", "resp", "rev", "s.t", "sect", "sects", "secs", "sen", "st",
    "thm", "thms", "viz", "vol", "vols", "vs", "w.r.t",
];

/// Abbreviations that are words too: a sentence goes on where a number follows.
const BEFORE_NUMBER: &[&str] = &[
    "app", "art", "ch", "cor", "def", "ex", "no", "nos", "p", "par", "prop", "ref", "rem", "sec",
    "tab",
];

/// Abbreviations with which a sentence may end: it does where a word that begins sentences follows.
const MAY_END: &[&str] = &[
    "a.m", "a.s", "al", "apr", "assoc", "aug", "b.sc", "bros", "co", "corp", "d.c", "dec", "dept",
    "est", "etc", "feb", "i.i.d", "ibid", "inc", "jan", "jr", "jul", "jun", "ltd", "m.sc", "nov",
    "oct", "p.a", "p.m", "ph.d", "plc", "sep", "sept", "sr", "u.k", "u.s", "u.s.a", "univ",
];

/// Words with which sentences begin, and names seldom.
const STARTERS: &[&str] = &[
    "a",
    "after",
    "all",
    "also",
    "although",
    "an",
    "and",
    "another",
    "as",
    "assume",
    "at",
    "because",
    "before",
    "both",
    "but",
    "by",
    "consider",
    "each",
    "finally",
    "first",
    "for",
    "from",
    "further",
    "furthermore",
    "given",
    "he",
    "hence",
    "her",
    "here",
    "his",
    "how",
    "however",
    "i",
    "if",
    "in",
    "indeed",
    "instead",
    "it",
    "its",
    "let",
    "many",
    "more",
    "moreover",
    "most",
    "next",
    "no",
    "not",
    "note",
    "now",
    "on",
    "one",
    "or",
    "our",
    "recall",
    "second",
    "see",
    "she",
    "similarly",
    "since",
    "so",
    "some",
    "such",
    "suppose",
    "that",
    "the",
    "their",
    "then",
    "there",
    "therefore",
    "these",
    "they",
    "this",
    "those",
    "thus",
    "to",
    "two",
    "under",
    "we",
    "what",
    "when",
    "where",
    "whereas",
    "which",
    "while",
    "why",
    "with",
    "you",
];

/// The end of a sentence and the start of what follows, as byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Behind the last character of the sentence, closing quotes and citations included.
    pub end: usize,
    /// The first character of the next one.
    pub start: usize,
}

/// The boundaries between the sentences of a text, in order. Neither its start nor its end is one.
pub fn boundaries(text: &str) -> Vec<Boundary> {
    let mut found = Vec::new();
    let mut skip = 0;
    for (at, byte) in text.bytes().enumerate() {
        // The terminators beyond ASCII begin with these bytes.
        if at < skip || !matches!(byte, b'.' | b'!' | b'?' | 0xE2 | 0xE3 | 0xEF) {
            continue;
        }
        let Some(mark) = text.get(at..).and_then(|rest| rest.chars().next()).filter(|c| is_end(*c))
        else {
            continue;
        };
        // Of "?!" or "..." the last one counts.
        let run = text[at..].trim_start_matches(is_end);
        let end = text.len() - run.len();
        skip = end;
        let close = behind_closers(text, end);
        let start = text.len() - text[close..].trim_start().len();
        // These need no space behind them, and no capital.
        let wide = matches!(mark, '。' | '！' | '？');
        if start == text.len() || (start == close && !wide) {
            continue;
        }
        if wide || !goes_on(text, at, end, start) {
            found.push(Boundary { end: close, start });
            skip = start;
        }
    }
    found
}

/// Whether a text ends as a sentence does: with a terminator, and closers behind it.
pub fn ends(text: &str) -> bool {
    let mut rest = text.trim_end();
    loop {
        let before = rest.len();
        rest = rest.trim_end_matches(is_closer);
        for (open, close) in MARKS {
            if let Some(inside) = rest.strip_suffix(close) {
                rest = inside.trim_end_matches(cites).strip_suffix(open).unwrap_or(rest);
            }
        }
        if rest.len() == before {
            return rest.ends_with(is_end);
        }
    }
}

/// What may stand behind a full stop around the numbers of citations and footnotes.
const MARKS: [(&str, &str); 2] = [("[", "]"), ("^{", "}")];

fn cites(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, ',' | ' ' | '-' | '–' | '∗' | '†')
}

fn is_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？')
}

fn is_closer(c: char) -> bool {
    matches!(c, ')' | '"' | '\'' | '”' | '’' | '»' | '*' | '_' | '」' | '』' | '）' | '\u{a0}')
        || matches!(c, '¹' | '²' | '³' | '⁰' | '⁴'..='⁹' | '†' | '‡')
}

/// Skips closing quotes and brackets, footnote marks, and citations such as `[12, 13]`.
fn behind_closers(text: &str, at: usize) -> usize {
    let mut rest = text[at..].trim_start_matches(is_closer);
    for (open, close) in MARKS {
        let inside = rest.strip_prefix(open).map(|inside| inside.trim_start_matches(cites));
        if let Some(behind) = inside.and_then(|behind| behind.strip_prefix(close)) {
            rest = behind.trim_start_matches(is_closer);
        }
    }
    text.len() - rest.len()
}

/// Whether the sentence goes on behind a terminator at `at..end`.
fn goes_on(text: &str, at: usize, end: usize, start: usize) -> bool {
    let next = text[start..].trim_start_matches(|c: char| "([{\"'“‘«*_$\\".contains(c));
    let first = next.chars().next().unwrap_or(' ');
    if first.is_lowercase() {
        return true;
    }
    if &text[at..end] != "." {
        return false;
    }
    let before = &text[..at];
    let word = before.rsplit(|c: char| c.is_whitespace() || "([{\"'“‘«/—–".contains(c)).next();
    let word = word.unwrap_or_default();
    if word.is_empty() {
        return true;
    }
    let line = before[..before.len() - word.len()].trim_end_matches(['(', ' ', '\t']);
    if (line.is_empty() || line.ends_with('\n')) && is_numeral(word) {
        return true;
    }
    // Longer than any abbreviation.
    if word.len() > 8 {
        return false;
    }
    let lower = word.to_lowercase();
    if NEVER.contains(&lower.as_str()) {
        return true;
    }
    let number = first.is_ascii_digit() || first == '#';
    if BEFORE_NUMBER.contains(&lower.as_str()) && number {
        return true;
    }
    let mut letters = word.chars();
    let initial = letters.next().is_some_and(char::is_uppercase)
        && matches!(letters.next(), None | Some('.' | '-'));
    (initial || MAY_END.contains(&lower.as_str())) && !starts(next)
}

/// `12`, `3.1`, `IV` or `a`: what stands before a heading or an item.
fn is_numeral(word: &str) -> bool {
    let digits = word.len() <= 6 && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let roman = word.len() <= 5 && word.chars().all(|c| "IVXivx".contains(c));
    digits || roman || (word.len() == 1 && word.chars().all(|c| c.is_ascii_alphabetic()))
}

fn starts(next: &str) -> bool {
    let word = next.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    // A single capital may be a name's initial; "A" and "I" with a dot behind are.
    let initial = word.len() == 1 && next[1..].starts_with('.');
    word.len() < 16 && !initial && STARTERS.contains(&word.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        let mut parts = Vec::new();
        let mut from = 0;
        for boundary in boundaries(text) {
            parts.push(&text[from..boundary.end]);
            from = boundary.start;
        }
        parts.push(text[from..].trim_end());
        parts
    }

    #[test]
    fn sentences_end_at_their_marks() {
        assert_eq!(split("One. Two! Three? Four."), ["One.", "Two!", "Three?", "Four."]);
        assert_eq!(split("It ends\nhere. It\ngoes on."), ["It ends\nhere.", "It\ngoes on."]);
        assert_eq!(split("He said \"no.\" We left."), ["He said \"no.\"", "We left."]);
        assert_eq!(split("(It is so.) Then not."), ["(It is so.)", "Then not."]);
        assert_eq!(
            split("Shown before.[12, 13] We go on."),
            ["Shown before.[12, 13]", "We go on."]
        );
        assert_eq!(split("A note.¹ Next one."), ["A note.¹", "Next one."]);
        assert_eq!(split("A note.^{2} Next one."), ["A note.^{2}", "Next one."]);
        assert_eq!(split("Well... So it is."), ["Well...", "So it is."]);
        assert_eq!(split("In 2008. The crisis."), ["In 2008.", "The crisis."]);
        assert_eq!(split("这是一。这是二！"), ["这是一。", "这是二！"]);
        assert_eq!(split(""), [""]);
        assert_eq!(split("no mark at all"), ["no mark at all"]);
    }

    #[test]
    fn abbreviations_initials_and_numbers_do_not_end_one() {
        for whole in [
            "See Fig. 3 and Eq. (4), cf. Sec. 2.1, e.g. for the S&P 500, i.e. The Index.",
            "Engle et al. (2002) and Hansen et al. Econometrica agree vs. Bollerslev here.",
            "J. P. Morgan, R. F. Engle and D. B. Nelson wrote it in vol. 3, no. 4, pp. 1-2.",
            "The value is 3.14 and .5 of approx. 2.0 at p. 7 on Jan. 5 of that year.",
            "Returns are i.i.d. Gaussian w.r.t. P, a.s. Lebesgue, in the U.S. Treasury market.",
            "1. Introduction to it",
            "IV. Results of it",
            "Acme Inc. Holdings rose... and fell again? or so",
            "J.-P. Bouchaud was here",
        ] {
            assert_eq!(split(whole), [whole]);
        }
    }

    #[test]
    fn an_abbreviation_may_end_one() {
        assert_eq!(split("By Smith et al. The rest."), ["By Smith et al.", "The rest."]);
        assert_eq!(split("Stocks, bonds, etc. We hold."), ["Stocks, bonds, etc.", "We hold."]);
        assert_eq!(split("They are i.i.d. However, no."), ["They are i.i.d.", "However, no."]);
        assert_eq!(split("The answer is no. Prices fell."), ["The answer is no.", "Prices fell."]);
        assert_eq!(split("Under measure Q. This is it."), ["Under measure Q.", "This is it."]);
    }

    #[test]
    fn a_text_ends_as_a_sentence_or_not() {
        for yes in ["So.", "So?\" ", "(So.)", "So.[3]", "So.^{2}", "So…", "所以。", "So. "] {
            assert!(ends(yes), "{yes}");
        }
        for no in ["So", "so:", "x = 1,", "see [3]", "x^{2}", "", "a]", "}"] {
            assert!(!ends(no), "{no}");
        }
    }

    proptest::proptest! {
        #[test]
        fn boundaries_lie_in_order_on_characters(text in "([A-Za-z]{1,5}|[.!?…。]{1,3}|[ \n]{1,2}|[\\]\\[()“”é文]){0,60}") {
            let mut last = 0;
            for found in boundaries(&text) {
                assert!(last < found.end && found.end <= found.start && found.start < text.len());
                assert!(text[found.end..found.start].trim().is_empty());
                assert!(!text[found.start..].starts_with(char::is_whitespace));
                last = found.start;
            }
        }
    }
}
