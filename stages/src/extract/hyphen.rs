//! Words cut at the end of a line, put together again by what the document itself writes
//! elsewhere.
//!
//! Most line-end hyphens were put there by the typesetter; some belong to a compound. The
//! document's own words decide; only where they say nothing is the hyphen taken out.

use std::collections::HashMap;

/// How often the document writes each word and each compound, in lower case, away from line ends.
#[derive(Default)]
pub struct Vocabulary(HashMap<String, u32>);

/// Characters that may end a line in the middle of a word.
const HYPHENS: [char; 3] = ['-', '\u{2010}', '\u{2011}'];

impl Vocabulary {
    /// Counts the words of lines, but for those that a line end may have cut.
    pub fn of<'a>(lines: impl Iterator<Item = &'a str>) -> Vocabulary {
        let mut counts: HashMap<String, u32> = HashMap::new();
        let mut cut = false;
        let mut lower = String::new();
        for line in lines {
            let mut words = line.split_whitespace().peekable();
            let mut first = true;
            while let Some(word) = words.next() {
                let broken = words.peek().is_none() && word.ends_with(HYPHENS);
                if !(broken || first && cut) {
                    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
                    lower.clear();
                    lower.extend(word.chars().flat_map(char::to_lowercase));
                    if let Some(count) = counts.get_mut(&lower) {
                        *count += 1;
                    } else if lower.len() > 1 {
                        counts.insert(lower.clone(), 1);
                    }
                }
                first = false;
            }
            cut = line.ends_with(HYPHENS);
        }
        Vocabulary(counts)
    }

    fn count(&self, word: &str) -> u32 {
        self.0.get(word).copied().unwrap_or_default()
    }

    /// Whether `left`, which ends in a hyphen, and `right`, the next line, make one word without
    /// the hyphen. `None` where they do not make one word at all.
    pub fn joins(&self, left: &str, right: &str) -> Option<bool> {
        let stem = left.strip_suffix(HYPHENS)?;
        let from = stem.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let head = stem[from..].trim_start_matches(|c: char| !c.is_alphanumeric());
        let to = right.find(char::is_whitespace).unwrap_or(right.len());
        let tail = right[..to].trim_end_matches(|c: char| !c.is_alphanumeric());
        if !head.ends_with(char::is_alphanumeric) || !tail.starts_with(char::is_alphanumeric) {
            return None;
        }
        if !head.ends_with(char::is_alphabetic) || !tail.starts_with(char::is_lowercase) {
            // `Black-Scholes`, `2010-2015`: one word that has the hyphen.
            return Some(false);
        }
        let (head, tail) = (head.to_lowercase(), tail.to_lowercase());
        let together = self.count(&format!("{head}{tail}"));
        let compound = self.count(&format!("{head}-{tail}"));
        if together != compound {
            return Some(together > compound);
        }
        if head.contains('-') || tail.contains('-') {
            // `out-of-` `sample`: a compound goes on as it began.
            let last = head.rsplit('-').next().unwrap_or(&head);
            let next = tail.split('-').next().unwrap_or(&tail);
            return Some(self.count(last) == 0 || self.count(next) == 0);
        }
        let whole = |part: &str| part.chars().count() >= 4 && self.count(part) >= 2;
        Some(!(whole(&head) && whole(&tail)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_decides() {
        let text = [
            "volatility and a long-term view of estimation,",
            "long run; high risk high risk frequency frequency domain informa-",
            "tion out of sample sample",
        ];
        let words = Vocabulary::of(text.into_iter());
        assert_eq!(words.joins("the vola-", "tility of"), Some(true));
        assert_eq!(words.joins("a long-", "term, view"), Some(false));
        assert_eq!(words.joins("Black-", "Scholes"), Some(false));
        assert_eq!(words.joins("2010-", "2015"), Some(false));
        assert_eq!(words.joins("unseen hyphen-", "ation"), Some(true));
        assert_eq!(words.joins("high-", "frequency"), Some(false));
        assert_eq!(words.joins("out-of-", "sample"), Some(false));
        assert_eq!(words.joins("a -", "b"), None);
        assert_eq!(words.joins("no hyphen", "here"), None);
    }
}
