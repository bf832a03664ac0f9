//! The words of a text as numbers, and runs of them (n-grams), which is how texts are compared.
//!
//! Letter case, punctuation, line breaks and the compatibility forms of Unicode do not tell texts
//! apart. A number stands for a word by a hash of 64 bits: two words that share one are not to be
//! expected in a corpus that fits into memory.

use unicode_normalization::{UnicodeNormalization, is_nfkc_quick};

/// The text with compatibility forms replaced, in lower case, its white space single spaces.
pub fn normal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        match is_nfkc_quick(word.chars()) {
            unicode_normalization::IsNormalized::Yes => lower(word.chars(), &mut out),
            _ => lower(word.nfkc(), &mut out),
        }
    }
    out
}

fn lower(from: impl Iterator<Item = char>, to: &mut String) {
    for c in from {
        match c.is_ascii() {
            true => to.push(c.to_ascii_lowercase()),
            false => to.extend(c.to_lowercase()),
        }
    }
}

/// The words of a [`normal`] text: its runs of letters and digits.
pub fn words(normal: &str) -> Vec<u64> {
    let words = normal.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word.bytes().fold(0xcbf2_9ce4_8422_2325, fnv)).map(mix).collect()
}

/// The runs of `n` words; of fewer words the one run that there is.
pub fn grams(words: &[u64], n: usize) -> impl Iterator<Item = u64> {
    let n = n.min(words.len()).max(1);
    words.windows(n).map(|run| mix(run.iter().fold(0, |sum, word| step(sum, *word))))
}

/// A step of FNV-1a.
fn fnv(sum: u64, byte: u8) -> u64 {
    (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

fn step(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Spreads a number over all its bits (the finalizer of SplitMix64).
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_tell_texts_apart() {
        assert_eq!(normal("  The\tﬁrst\n\nÉTÉ x² "), "the first été x2");
        assert_eq!(words("a-b, c."), words("a b\nc"));
        assert_ne!(words("ab c"), words("a bc"));
        assert!(words(" .,- ").is_empty());
    }

    #[test]
    fn runs_overlap_and_keep_their_order() {
        let words = words("one two three four");
        assert_eq!(grams(&words, 3).count(), 2);
        assert_eq!(grams(&words, 9).count(), 1);
        assert_eq!(grams(&[], 3).count(), 0);
        let turned = [words[1], words[0]];
        assert_ne!(grams(&words[..2], 2).next(), grams(&turned, 2).next());
    }
}
