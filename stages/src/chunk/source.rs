//! A document and what is known of where its text comes from.
//!
//! The sidecar `<stem>.json` that `extract` writes beside `<stem>.txt` is read for its pages and
//! sections; everything else in it is left alone, and a document needs none.

use std::collections::BTreeSet;

use serde::Deserialize;

/// The fields of a sidecar that are read. Offsets count characters of the text, from 0.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sidecar {
    /// The file whose text it is.
    pub source: Option<String>,
    /// The version of what read it.
    pub extractor: Option<u64>,
    /// Where pages begin, in order.
    #[serde(default)]
    pub pages: Vec<Page>,
    /// Headings, in order.
    #[serde(default)]
    pub sections: Vec<Section>,
}

/// A page of a document.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    /// Its number, from 1.
    #[serde(alias = "page")]
    pub number: u32,
    /// Its first character.
    pub offset: usize,
}

/// A section of a document.
#[derive(Clone, Debug, Deserialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Its level, 1 for the highest.
    #[serde(default)]
    pub level: u32,
    /// The first character of its heading.
    pub offset: usize,
}

/// Turns byte offsets of a text into character offsets. Asked in ascending order it is linear.
pub struct Characters<'a> {
    text: &'a str,
    byte: usize,
    count: usize,
}

impl<'a> Characters<'a> {
    /// Of a text.
    pub fn of(text: &'a str) -> Characters<'a> {
        Characters { text, byte: 0, count: 0 }
    }

    /// The characters before byte `at`.
    pub fn before(&mut self, at: usize) -> usize {
        if at < self.byte {
            let back = self.text.get(at..self.byte).unwrap_or_default();
            self.count -= back.chars().count();
        } else {
            let on = self.text.get(self.byte..at).unwrap_or_default();
            self.count += on.chars().count();
        }
        self.byte = at;
        self.count
    }
}

impl Sidecar {
    /// Of a text without one: lines that begin with `#` behind a blank line are headings.
    pub fn of_marked(text: &str) -> Sidecar {
        let mut sections = Vec::new();
        let mut characters = Characters::of(text);
        let mut at = 0;
        let mut apart = true;
        for line in text.split_inclusive('\n') {
            let words = line.trim();
            let title = words.trim_start_matches('#');
            let level = words.len() - title.len();
            if apart && (1..=6).contains(&level) && title.starts_with(' ') {
                let offset = characters.before(at);
                sections.push(Section { title: title.trim().into(), level: level as u32, offset });
            }
            at += line.len();
            apart = words.is_empty();
        }
        Sidecar { sections, ..Sidecar::default() }
    }

    /// Byte offsets of the sections' headings.
    pub fn headings(&self, text: &str) -> BTreeSet<usize> {
        let mut bytes = text.char_indices().map(|(byte, _)| byte).enumerate();
        let mut wanted: Vec<usize> = self.sections.iter().map(|section| section.offset).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let found = wanted.into_iter().map_while(|at| bytes.by_ref().find(|(i, _)| *i == at));
        found.map(|(_, byte)| byte).collect()
    }

    /// The first and the last page of the characters `start..end`.
    pub fn pages(&self, start: usize, end: usize) -> Option<[u32; 2]> {
        let at = |offset: usize| {
            let pages = self.pages.partition_point(|page| page.offset <= offset);
            self.pages.get(pages.checked_sub(1)?).map(|page| page.number)
        };
        Some([at(start)?, at(end.saturating_sub(1).max(start))?])
    }

    /// The titles of the sections around a character, the outermost first.
    pub fn section(&self, at: usize) -> Vec<String> {
        let before = self.sections.partition_point(|section| section.offset <= at);
        let mut titles = Vec::new();
        let mut level = u32::MAX;
        for section in self.sections[..before].iter().rev() {
            if section.level < level {
                level = section.level;
                titles.push(section.title.clone());
            }
            if level <= 1 {
                break;
            }
        }
        titles.reverse();
        titles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_sections_are_found_by_character() {
        let text = "# Éins\nabc\n\n## Zwei\ndef\n\n# Drei\n# no\n";
        let pages = vec![Page { number: 1, offset: 0 }, Page { number: 2, offset: 9 }];
        let sidecar = Sidecar { pages, ..Sidecar::of_marked(text) };
        let offsets: Vec<usize> = sidecar.sections.iter().map(|s| s.offset).collect();
        assert_eq!(offsets, [0, 12, 25]);
        assert_eq!(sidecar.section(13), ["Éins", "Zwei"]);
        assert_eq!(sidecar.section(25), ["Drei"]);
        assert_eq!(sidecar.pages(0, 9), Some([1, 1]));
        assert_eq!(sidecar.pages(8, 10), Some([1, 2]));
        assert_eq!(sidecar.headings(text), BTreeSet::from([0, 13, 26]));
        assert_eq!(Sidecar::default().pages(0, 1), None);
        assert!(Sidecar::default().section(0).is_empty());
    }

    #[test]
    fn what_a_sidecar_says_beside_is_left_alone() {
        let text =
            r#"{"pages":[{"number":3,"offset":0,"glyphs":1}],"fonts":["CMR10"],"warnings":[]}"#;
        let sidecar: Sidecar = serde_json::from_str(text).unwrap();
        assert_eq!(sidecar.pages(0, 5), Some([3, 3]));
    }
}
