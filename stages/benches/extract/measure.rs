//! What is measured of a text, and how. Every engine's text is read in the same way.

use std::collections::{HashMap, HashSet};

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Words of a text: runs of letters in lower case, after NFKD (so that ligatures are letters) and
/// without accents (so that it makes no difference whether an engine puts them on their letters).
///
/// Marks of scripts (`_{`, `^{`, `}`) are taken out, hyphens and apostrophes within a word too,
/// and a hyphen with the line end after it, so that it makes no difference whether an engine joins
/// words at line ends. Digits and all other signs only separate.
pub fn words(text: &str) -> Vec<String> {
    let text = text.replace("_{", "").replace("^{", "").replace('}', "");
    let chars: Vec<char> = without_accents(&text).collect();
    let (mut out, mut word) = (Vec::new(), String::new());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        at += 1;
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
            continue;
        }
        let inside = !word.is_empty();
        match c {
            '\'' | '’' | '\u{ad}' | '\u{2010}' | '\u{2011}' | '-' if inside => {
                let blank = chars[at..].iter().take_while(|c| c.is_whitespace()).count();
                let next = chars.get(at + blank).is_some_and(|c| c.is_alphabetic());
                let line_end = chars[at..at + blank].contains(&'\n');
                if next && (blank == 0 || line_end && !matches!(c, '\'' | '’')) {
                    at += blank;
                    continue;
                }
            }
            _ => {}
        }
        if inside {
            out.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

/// The text in NFKD without marks and spacing accents.
pub fn without_accents(text: &str) -> impl Iterator<Item = char> {
    // A spacing accent decomposes into a space and its mark.
    let accent = |c: &char| matches!(c, '´' | '¨' | '¯' | '¸' | 'ˆ' | 'ˇ' | '\u{2d8}'..='\u{2dd}');
    let bare = text.chars().filter(move |c| !accent(c)).nfkd();
    bare.filter(|c| !is_combining_mark(*c)).map(undotted)
}

fn undotted(c: char) -> char {
    match c {
        'ı' => 'i',
        'ȷ' => 'j',
        c => c,
    }
}

/// How often each item occurs.
pub fn count<T: std::hash::Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, u32> {
    let mut out = HashMap::new();
    for item in items {
        *out.entry(item).or_default() += 1;
    }
    out
}

/// A part of a whole, to be added up over documents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// What was found.
    pub part: f64,
    /// What there is.
    pub whole: f64,
}

impl Share {
    /// Adds another.
    pub fn add(&mut self, other: Share) {
        self.part += other.part;
        self.whole += other.whole;
    }

    /// The ratio; none of nothing.
    pub fn ratio(self) -> Option<f64> {
        (self.whole > 0.0).then(|| self.part / self.whole)
    }
}

/// How many of `want` are among `have`, each as often as it occurs there.
pub fn kept<T: std::hash::Hash + Eq>(want: &HashMap<T, u32>, have: &HashMap<T, u32>) -> Share {
    let part = want.iter().map(|(item, n)| (*n).min(have.get(item).copied().unwrap_or(0)));
    Share { part: part.sum::<u32>().into(), whole: want.values().sum::<u32>().into() }
}

/// S5: recall of the source's word 5-grams. They are taken within runs of prose only.
pub fn five_grams(runs: &[Vec<String>], text: &[String]) -> Share {
    let want = count(runs.iter().flat_map(|run| run.windows(5)));
    kept(&want, &count(text.windows(5)))
}

/// The 5-grams that `text` lacks.
pub fn lost<'a>(runs: &'a [Vec<String>], text: &[String]) -> Vec<&'a [String]> {
    let mut have = count(text.windows(5));
    let all = runs.iter().flat_map(|run| run.windows(5));
    all.filter(|gram| match have.get_mut(*gram) {
        Some(n) if *n > 0 => {
            *n -= 1;
            false
        }
        _ => true,
    })
    .collect()
}

/// F1 of two bags of words.
pub fn f1(a: &HashMap<String, u32>, b: &HashMap<String, u32>) -> f64 {
    let all: u32 = a.values().sum::<u32>() + b.values().sum::<u32>();
    if all == 0 { 1.0 } else { 2.0 * kept(a, b).part / f64::from(all) }
}

/// Words of the source's prose that hold `ff`, `fi` or `fl`, as often as they stand there.
pub fn ligatures(runs: &[Vec<String>], text: &HashMap<String, u32>) -> Share {
    let has = |word: &&String| ["ff", "fi", "fl"].iter().any(|pair| word.contains(pair));
    kept(&count(runs.iter().flatten().filter(has).cloned()), text)
}

/// Glued words: those that are two words which follow one another in the source's prose, and that
/// `known` lacks: the words of the whole source and those that the paper really has, because two of the
/// references have them. Out of all words of the text.
pub fn glued(runs: &[Vec<String>], known: &HashSet<String>, text: &[String]) -> Share {
    Share { part: glued_words(runs, known, text).len() as f64, whole: text.len() as f64 }
}

/// The words that [`glued`] counts.
pub fn glued_words<'a>(
    runs: &[Vec<String>],
    known: &HashSet<String>,
    text: &'a [String],
) -> Vec<&'a String> {
    let pairs = runs.iter().flat_map(|run| run.windows(2));
    let pairs: HashSet<String> = pairs.map(|pair| pair.concat()).collect();
    text.iter().filter(|word| pairs.contains(*word) && !known.contains(*word)).collect()
}

/// Greek letters of a text by kind, after NFKD; look-alikes count as the letter.
pub fn greek(text: &str) -> HashMap<char, u32> {
    count(signs(text).filter(|c| {
        matches!(c, 'α'..='ω' | 'Γ' | 'Δ' | 'Θ' | 'Λ' | 'Ξ' | 'Π' | 'Σ' | 'Φ' | 'Ψ' | 'Ω')
    }))
}

/// Operators and relations of a text by kind (≠ is =, negated), other than Greek letters (∑ is Σ, ∏ is Π, ∆ is Δ).
pub fn operators(text: &str) -> HashMap<char, u32> {
    count(signs(text).filter(|c| {
        matches!(c, '=' | '+' | '<' | '>' | '±' | '×' | '÷' | '¬' | '←'..='⇿' | '∀'..='⋿')
            && !matches!(c, '∗' | '∙' | '⋅' | '⋆' | '∼' | '∣' | '−' | '∘')
    }))
}

fn signs(text: &str) -> impl Iterator<Item = char> {
    text.nfkd().map(|c| match c {
        'ϵ' => 'ε',
        'ϕ' => 'φ',
        'ϑ' => 'θ',
        'ϖ' => 'π',
        'ϱ' => 'ρ',
        'ς' => 'σ',
        '∑' => 'Σ',
        '∏' => 'Π',
        '∆' => 'Δ',
        '⩽' => '≤',
        '⩾' => '≥',
        c => c,
    })
}

/// What at least two of the references have: for each sign the second largest count.
pub fn agreed(references: &[HashMap<char, u32>]) -> HashMap<char, u32> {
    let signs: HashSet<char> =
        references.iter().flat_map(|counts| counts.keys().copied()).collect();
    let second = |sign: &char| {
        let mut counts: Vec<u32> =
            references.iter().map(|counts| counts.get(sign).copied().unwrap_or(0)).collect();
        counts.sort_unstable();
        counts[counts.len().saturating_sub(2)]
    };
    signs.into_iter().map(|sign| (sign, second(&sign))).collect()
}
