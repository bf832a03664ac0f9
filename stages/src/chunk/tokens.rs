//! Counts tokens, exactly as `tiktoken_rs` does and several times faster.
//!
//! An encoding cuts text into pieces (a word with its space, up to three digits, a run of signs) and
//! then encodes each piece by itself. So the count of a text is the sum over its pieces, and pieces
//! repeat: this module cuts them with a scanner of its own, which needs no regex engine, and asks
//! tiktoken for each piece once. The pieces and the counts are tested to be tiktoken's.
//!
//! A tokenizer of a file may do anything to a text, so it is asked for the tokens of the whole.
//!
//! It knows no token numbers: a chunk is text, and its reader encodes it again.

use std::ops::Range;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tiktoken_rs::CoreBPE;

use super::tokenizer::Tokenizer;

/// The encoding whose tokens are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// GPT-4o and later.
    #[default]
    O200kBase,
    /// gpt-oss: the pieces and ordinary tokens of `o200k_base`.
    O200kHarmony,
    /// GPT-4 and GPT-3.5.
    Cl100kBase,
    /// Codex.
    P50kBase,
    /// Codex's edit models: the pieces and ordinary tokens of `p50k_base`.
    P50kEdit,
    /// GPT-2 and GPT-3.
    R50kBase,
    /// That of the `tokenizer.json` (Hugging Face) that feeds the port `tokenizer`.
    Tokenizer,
}

/// How an encoding cuts pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    O200k,
    Cl100k,
    Gpt2,
}

impl Encoding {
    /// The vocabulary and how it cuts pieces, of one that is built in.
    fn built_in(self) -> Option<(&'static CoreBPE, Cut)> {
        Some(match self {
            Encoding::O200kBase => (tiktoken_rs::o200k_base_singleton(), Cut::O200k),
            Encoding::O200kHarmony => (tiktoken_rs::o200k_harmony_singleton(), Cut::O200k),
            Encoding::Cl100kBase => (tiktoken_rs::cl100k_base_singleton(), Cut::Cl100k),
            Encoding::P50kBase => (tiktoken_rs::p50k_base_singleton(), Cut::Gpt2),
            Encoding::P50kEdit => (tiktoken_rs::p50k_edit_singleton(), Cut::Gpt2),
            Encoding::R50kBase => (tiktoken_rs::r50k_base_singleton(), Cut::Gpt2),
            Encoding::Tokenizer => return None,
        })
    }
}

/// What counts: the first use of a built-in one takes about 0.15 s in a process.
#[derive(Clone)]
pub enum Tokens {
    /// A built-in encoding.
    BuiltIn { bpe: &'static CoreBPE, cut: Cut, classes: &'static [u8] },
    /// A tokenizer of a file.
    Own(Tokenizer),
}

impl Tokens {
    /// A built-in encoding, by name; `None` of [`Encoding::Tokenizer`].
    pub fn built_in(encoding: Encoding) -> Option<Tokens> {
        let (bpe, cut) = encoding.built_in()?;
        Some(Tokens::BuiltIn { bpe, cut, classes: &CLASSES })
    }
}

/// A longer piece is encoded in parts of this many bytes: the regular expressions under tiktoken
/// give up (and panic) on very long ones. Its count is then an upper bound.
const LONGEST: usize = 64 << 10;
/// Longer pieces are not remembered.
const REMEMBERED: usize = 64;
/// So many pieces are remembered.
const MEMORY: usize = 1 << 20;

/// Counts the tokens of texts, and remembers the pieces that it has seen.
pub struct Counter {
    tokens: Tokens,
    /// Counts of short pieces, which are nearly all, by their bytes; and of longer ones.
    short: FxHashMap<(u64, u64), u32>,
    long: FxHashMap<Box<[u8]>, u32>,
    failure: Option<String>,
}

impl Counter {
    /// A counter that has seen nothing.
    pub fn new(tokens: Tokens) -> Counter {
        Counter { tokens, short: FxHashMap::default(), long: FxHashMap::default(), failure: None }
    }

    /// The number of tokens of a text, special tokens read as plain text.
    pub fn count(&mut self, text: &str) -> u32 {
        let mut at = 0;
        let mut sum = 0;
        while at < text.len() {
            let end = self.next(text, at);
            sum += self.piece(&text[at..end]);
            at = end;
        }
        sum
    }

    /// Whether it finds the tokens of a whole text ([`Counter::ends`]) rather than pieces.
    pub fn knows_tokens(&self) -> bool {
        matches!(self.tokens, Tokens::Own(_))
    }

    /// Adds the ends of the tokens of a part of a text, as offsets in the text.
    pub fn ends(&mut self, text: &str, part: Range<usize>, ends: &mut Vec<usize>) {
        if let Tokens::Own(tokenizer) = &self.tokens
            && let Err(why) = tokenizer.ends(text, part, ends)
        {
            self.failure.get_or_insert(why);
        }
    }

    /// Why a tokenizer could not encode a text since it was asked last.
    pub fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// The end of the piece that begins at byte `at`, which must be the end of another or 0. A
    /// tokenizer has but one.
    pub fn next(&self, text: &str, at: usize) -> usize {
        let Tokens::BuiltIn { cut, classes, .. } = self.tokens else { return text.len() };
        let scan = Scan { text, classes };
        match cut {
            Cut::O200k => scan.o200k(at),
            Cut::Cl100k => scan.cl100k(at),
            Cut::Gpt2 => scan.gpt2(at),
        }
    }

    /// The number of tokens of a text that is one piece.
    pub fn piece(&mut self, piece: &str) -> u32 {
        // Every byte is a token of every built-in encoding.
        if piece.len() == 1 && !self.knows_tokens() {
            return 1;
        }
        let key = key(piece.as_bytes());
        let known = match key {
            Some(key) => self.short.get(&key),
            None => self.long.get(piece.as_bytes()),
        };
        if let Some(count) = known {
            return *count;
        }
        let mut sum = 0;
        let mut rest = piece;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.floor_char_boundary(LONGEST));
            sum += match &self.tokens {
                Tokens::BuiltIn { bpe, .. } => bpe.encode_ordinary(part).len() as u32,
                Tokens::Own(tokenizer) => tokenizer.count(part).unwrap_or_else(|why| {
                    self.failure.get_or_insert(why);
                    0
                }),
            };
            rest = after;
        }
        match key {
            Some(key) if self.short.len() < MEMORY => drop(self.short.insert(key, sum)),
            None if piece.len() <= REMEMBERED && self.long.len() < MEMORY => {
                self.long.insert(piece.as_bytes().into(), sum);
            }
            _ => {}
        }
        sum
    }
}

/// The bytes of a piece of at most 15 and their number, as two words.
fn key(piece: &[u8]) -> Option<(u64, u64)> {
    let length = piece.len();
    let four = |at: usize| Some(u64::from(u32::from_le_bytes(*piece.get(at..)?.first_chunk()?)));
    let eight = |at: usize| Some(u64::from_le_bytes(*piece.get(at..)?.first_chunk()?));
    // Reads overlap, so that each has a fixed size.
    let (low, high) = match length {
        2..4 => {
            let byte = |at: usize| Some(u64::from(*piece.get(at)?) << (8 * at));
            (byte(0)? | byte(1)? | byte(length - 1)?, 0)
        }
        4..8 => (four(0)? | (four(length - 4)? << (8 * (length - 4))), 0),
        8 => (eight(0)?, 0),
        9..16 => (eight(0)?, eight(length - 8)? >> (8 * (16 - length))),
        _ => return None,
    };
    Some((low, high | ((length as u64) << 56)))
}

// Classes of characters; a character may be in several.
/// `\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}`
const UPPER: u8 = 1;
/// `\p{Ll}\p{Lm}\p{Lo}\p{M}`
const LOWER: u8 = 2;
/// `\p{L}`
const LETTER: u8 = 4;
/// `\p{N}`
const NUMBER: u8 = 8;
/// `\s`
const SPACE: u8 = 16;
/// `[\r\n]`
const NEWLINE: u8 = 32;

/// The classes of every character, by its number.
static CLASSES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut classes = vec![0; char::MAX as usize + 1];
    let table = [
        (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", UPPER),
        (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", LOWER),
        (r"\p{L}", LETTER),
        (r"\p{N}", NUMBER),
        (r"\s", SPACE),
        (r"[\r\n]", NEWLINE),
    ];
    for (pattern, class) in table {
        let parsed = regex_syntax::parse(pattern).map(|hir| hir.into_kind());
        // The patterns are constants, and the tests see that each gives its class.
        if let Ok(HirKind::Class(Class::Unicode(set))) = parsed {
            for range in set.ranges() {
                let numbers = range.start() as usize..=range.end() as usize;
                classes[numbers].iter_mut().for_each(|of| *of |= class);
            }
        }
    }
    classes
});

/// Cuts pieces as the regular expressions of the encodings do: the first alternative that matches,
/// each as greedy as it is, with its backtracking worked out by hand.
#[derive(Clone, Copy)]
struct Scan<'a> {
    text: &'a str,
    classes: &'static [u8],
}

impl Scan<'_> {
    /// The classes of the character at `at`, and where it ends. At the end of the text: none.
    fn class(self, at: usize) -> (u8, usize) {
        match self.text.as_bytes().get(at) {
            Some(byte) if byte.is_ascii() => (self.classes[*byte as usize], at + 1),
            Some(_) => match self.text[at..].chars().next() {
                Some(c) => (self.classes[c as usize], at + c.len_utf8()),
                None => (0, at),
            },
            None => (0, at),
        }
    }

    /// The end of the run of characters in any of the classes, at most `most` of them.
    fn run(self, mut at: usize, classes: u8, most: usize) -> usize {
        for _ in 0..most {
            let (class, end) = self.class(at);
            if class & classes == 0 {
                break;
            }
            at = end;
        }
        at
    }

    /// The end of a run of what is no space, letter or number.
    fn signs(self, mut at: usize) -> usize {
        loop {
            let (class, end) = self.class(at);
            if end == at || class & (SPACE | LETTER | NUMBER) != 0 {
                return at;
            }
            at = end;
        }
    }

    /// What an optional space before something begins with.
    fn after_space(self, at: usize) -> usize {
        at + usize::from(self.text.as_bytes().get(at) == Some(&b' '))
    }

    /// `[^\r\n\p{L}\p{N}]`: where it ends, if the character at `at` is one.
    fn lead(self, at: usize) -> Option<usize> {
        let (class, end) = self.class(at);
        (end > at && class & (NEWLINE | LETTER | NUMBER) == 0).then_some(end)
    }

    fn o200k(self, at: usize) -> usize {
        let (class, first) = self.class(at);
        if class & NUMBER != 0 {
            return self.run(first, NUMBER, 2);
        }
        let lead = self.lead(at);
        let word = [lead, Some(at)].into_iter().flatten();
        // Words that end in lower case come before words in upper case, with a lead before without.
        if let Some(end) = word.clone().find_map(|start| self.mixed(start)) {
            return self.contraction(end);
        }
        if let Some(end) = word.clone().find_map(|start| self.capitals(start)) {
            return self.contraction(end);
        }
        let signs = self.after_space(at);
        let end = self.signs(signs);
        if end > signs {
            let more = self.text.as_bytes()[end..].iter();
            return end + more.take_while(|byte| b"\r\n/".contains(byte)).count();
        }
        self.spaces(at, false)
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
    fn mixed(self, start: usize) -> Option<usize> {
        let mut at = start;
        // The end of the last character that may stand in either part.
        let mut both = None;
        loop {
            let (class, end) = self.class(at);
            if class & UPPER == 0 {
                break;
            }
            if class & LOWER != 0 {
                both = Some(end);
            }
            at = end;
        }
        let end = self.run(at, LOWER, usize::MAX);
        if end > at { Some(end) } else { both }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
    fn capitals(self, start: usize) -> Option<usize> {
        let end = self.run(start, UPPER, usize::MAX);
        (end > start).then(|| self.run(end, LOWER, usize::MAX))
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)?`, whose `s` is also the long one (U+017F).
    fn contraction(self, at: usize) -> usize {
        let rest = &self.text.as_bytes()[at..];
        if rest.first() != Some(&b'\'') {
            return at;
        }
        if rest[1..].starts_with("ſ".as_bytes()) {
            return at + 1 + "ſ".len();
        }
        let lower = |i: usize| rest.get(i).map(u8::to_ascii_lowercase);
        match (lower(1), lower(2)) {
            (Some(b's' | b't' | b'm' | b'd'), _) => at + 2,
            (Some(b'r' | b'v'), Some(b'e')) | (Some(b'l'), Some(b'l')) => at + 3,
            _ => at,
        }
    }

    fn cl100k(self, at: usize) -> usize {
        let end = self.contraction(at);
        if end > at {
            return end;
        }
        let word = self.lead(at).unwrap_or(at);
        let end = self.run(word, LETTER, usize::MAX);
        if end > word {
            return end;
        }
        let end = self.run(at, NUMBER, 3);
        if end > at {
            return end;
        }
        let signs = self.after_space(at);
        let end = self.signs(signs);
        if end > signs {
            return self.run(end, NEWLINE, usize::MAX);
        }
        self.spaces(at, true)
    }

    fn gpt2(self, at: usize) -> usize {
        let rest = self.text.as_bytes().get(at..at + 3).or(self.text.as_bytes().get(at..at + 2));
        match rest {
            Some([b'\'', b's' | b't' | b'm' | b'd', ..]) => return at + 2,
            Some(b"'re" | b"'ve" | b"'ll") => return at + 3,
            _ => {}
        }
        let word = self.after_space(at);
        for class in [LETTER, NUMBER] {
            let end = self.run(word, class, usize::MAX);
            if end > word {
                return end;
            }
        }
        let end = self.signs(word);
        if end > word {
            return end;
        }
        let end = self.run(at, SPACE, usize::MAX);
        self.before_word(at, end)
    }

    /// White space: up to its last newline, else all of it but what the next word takes. With `whole`
    /// (`\s++$`) all of it at the end of a text.
    fn spaces(self, at: usize, whole: bool) -> usize {
        let end = self.run(at, SPACE, usize::MAX);
        if whole && end == self.text.len() {
            return end;
        }
        match self.text.as_bytes()[at..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(last) => at + last + 1,
            None => self.before_word(at, end),
        }
    }

    /// `\s+(?!\S)|\s+`: a run of white space but for its last character, unless it is the only one or
    /// the text ends.
    fn before_word(self, at: usize, end: usize) -> usize {
        if end == self.text.len() {
            return end;
        }
        match self.text[at..end].char_indices().next_back() {
            Some((last, _)) if last > 0 => at + last,
            _ => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Counter {
        /// Of a built-in encoding.
        pub fn of(encoding: Encoding) -> Counter {
            Counter::new(Tokens::built_in(encoding).unwrap())
        }
    }

    const ALL: [Encoding; 6] = [
        Encoding::O200kBase,
        Encoding::O200kHarmony,
        Encoding::Cl100kBase,
        Encoding::P50kBase,
        Encoding::P50kEdit,
        Encoding::R50kBase,
    ];

    fn agrees(text: &str) {
        for encoding in ALL {
            let ours = Counter::of(encoding).count(text);
            let (bpe, _) = encoding.built_in().unwrap();
            let theirs = bpe.encode_ordinary(text).len() as u32;
            assert_eq!(ours, theirs, "{encoding:?} on {text:?}");
        }
    }

    #[test]
    fn every_class_has_characters() {
        for (c, class) in [
            ('A', UPPER | LETTER),
            ('a', LOWER | LETTER),
            ('文', UPPER | LOWER | LETTER),
            ('\u{301}', UPPER | LOWER),
            ('7', NUMBER),
            ('Ⅷ', NUMBER),
            ('\u{a0}', SPACE),
            ('\n', SPACE | NEWLINE),
            ('∑', 0),
        ] {
            assert_eq!(CLASSES[c as usize], class, "{c}");
        }
    }

    #[test]
    fn counts_are_those_of_tiktoken() {
        for text in [
            "",
            "It's 2,500.75 USD; WE'LL see — naïve façade, O'Neil'S, he'ſ.",
            "x = \\sum_{i=1}^{N} (\\hat{y}_i - y_i)^2 \\\\\n\n  \\label{eq:1}   \r\n\r\n\tend  ",
            "<|endoftext|> stays text <|im_start|>",
            "CamelCaseHTTPServer ABC文字ABCd 文ABC e\u{301}E\u{301}A Ǆ ʰX",
            "   \n  leading and trailing   \n ",
            "a  b   c\u{a0}\u{a0}d\u{3000}\u{3000}e /// \n/// -----\n\n=====/\r\n",
            "'s 't'S'Re'LL're'veX 'x ''s \u{301}'s",
            "100000 1234567 ¾ Ⅷ ٣٤٥٦ x²",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn a_piece_of_any_length_is_counted() {
        let mut counter = Counter::of(Encoding::O200kBase);
        for unit in ["a", " ", "=", "é", "A"] {
            let text = unit.repeat(400_000 / unit.len());
            assert!(counter.count(&text) > 1_000, "{unit:?}");
        }
    }

    #[test]
    fn pieces_of_different_bytes_have_different_keys() {
        let mut keys = std::collections::BTreeMap::new();
        for length in 2..=15 {
            let zeros = vec![0; length];
            assert_eq!(keys.insert(key(&zeros).unwrap(), zeros.clone()), None);
            for at in 0..length {
                for byte in [1, 0xff] {
                    let mut piece = zeros.clone();
                    piece[at] = byte;
                    assert_eq!(keys.insert(key(&piece).unwrap(), piece), None);
                }
            }
        }
        assert_eq!(key(&[0; 16]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 20_000 }))]
        #[test]
        fn counts_of_any_text_are_those_of_tiktoken(
            text in "([a-zA-Z]{1,6}|[ \t\r\n\u{a0}\u{2003}]{1,4}|[0-9²Ⅷ٣]{1,5}|['’](s|S|ſ|ll|LL|Re|t)?|[-=/.,∑{}]{1,4}|[文字ǅʰªé\u{301}ÉſK]{1,3}|\\PC{0,3}){0,24}"
        ) {
            agrees(&text);
        }
    }
}
