//! Judges chunks by their final text, all chunkers alike.

use std::collections::BTreeSet;
use std::path::Path;

use super::Given;

/// A document: its text, and where its headings begin.
pub struct Document {
    pub name: String,
    pub text: String,
    headings: BTreeSet<usize>,
}

/// The `.txt` files of a folder and all below it, by name, with the headings of their sidecars.
pub fn documents(folder: &Path) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(from) = folders.pop() {
        for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "txt") {
                documents.push(document(folder, &path));
            }
        }
    }
    documents.sort_by(|a, b| a.name.cmp(&b.name));
    documents
}

fn document(folder: &Path, path: &Path) -> Document {
    let text = std::fs::read_to_string(path).unwrap();
    let sidecar = std::fs::read(path.with_extension("json")).unwrap_or_default();
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap_or_default();
    let sections = sidecar["sections"].as_array().into_iter().flatten();
    let wanted: BTreeSet<u64> = sections.filter_map(|own| own["offset"].as_u64()).collect();
    let bytes = text.char_indices().map(|(byte, _)| byte);
    let headings = bytes.enumerate().filter(|(at, _)| wanted.contains(&(*at as u64)));
    let headings = headings.map(|(_, byte)| byte).collect();
    let name = path.with_extension("");
    let name = name.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
    Document { name, text, headings }
}

/// What is found out about the chunks of a chunker.
#[derive(Default)]
pub struct Verdict {
    seconds: f64,
    chunks: usize,
    below: usize,
    above: usize,
    well_ended: usize,
}

impl Verdict {
    pub const HEAD: &str = "| chunker | MB/s | chunks | under 800 | over 2000 | in range | end at a sentence or section |\n\
        | --- | ---: | ---: | ---: | ---: | ---: | ---: |";

    /// Documents of fewer than 800 tokens are left out: none of their chunks can be in range.
    pub(super) fn of(documents: &[Document], given: &Given) -> Verdict {
        let count = |text: &str| tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len();
        let mut verdict = Verdict { seconds: given.seconds, ..Verdict::default() };
        for document in documents.iter().filter(|document| count(document.text.trim()) >= 800) {
            let mut from = 0;
            for (_, text) in given.chunks.iter().filter(|(name, _)| *name == document.name) {
                let tokens = count(text);
                verdict.chunks += 1;
                verdict.below += usize::from(tokens < 800);
                verdict.above += usize::from(tokens > 2000);
                // A chunk is a part of the text; what comes before it was cut already.
                let text = text.trim();
                let at = from + document.text[from..].find(text).expect("a chunk of the text");
                from = document.text.ceil_char_boundary(at + 1);
                verdict.well_ended += usize::from(document.ends_well(at + text.len()));
            }
        }
        verdict
    }

    pub fn row(&self, name: &str, bytes: usize) -> String {
        let speed = bytes as f64 / 1e6 / self.seconds;
        let share = |count: usize| 100.0 * count as f64 / self.chunks.max(1) as f64;
        format!(
            "| {name} | {speed:.1} | {} | {} | {} | {:.2} % | {:.1} % |",
            self.chunks,
            self.below,
            self.above,
            share(self.chunks - self.below - self.above),
            share(self.well_ended)
        )
    }
}

impl Document {
    /// Whether the document, a section or a sentence ends at a byte.
    fn ends_well(&self, at: usize) -> bool {
        let rest = &self.text[at..];
        let next = at + (rest.len() - rest.trim_start().len());
        let heading = self.headings.contains(&next) || rest.trim_start().starts_with("# ");
        rest.trim().is_empty() || heading || ends_sentence(&self.text[..at], rest)
    }
}

/// A full stop, question mark or the like, with closing marks and numbers of notes behind it, that
/// belongs to no abbreviation.
fn ends_sentence(before: &str, rest: &str) -> bool {
    let closing = |c: char| ")\"'”’»]}*_∗†‡^{[ ,–".contains(c) || c.is_ascii_digit();
    let bare = before.trim_end_matches(|c| ")\"'”’»*_".contains(c));
    let noted = before.trim_end_matches(closing);
    let ends = [bare, noted].into_iter().find(|text| text.ends_with(['.', '!', '?', '…', '。']));
    let Some(text) = ends else { return false };
    // Within a line nothing but space may part sentences.
    let apart = rest.is_empty() || rest.starts_with(char::is_whitespace);
    let word = text.trim_end_matches('.').rsplit(|c: char| !(c.is_alphanumeric() || c == '.'));
    let word = word.map(str::to_lowercase).next().unwrap_or_default();
    let short = [
        "fig", "figs", "eq", "eqs", "e.g", "i.e", "cf", "vs", "sec", "vol", "pp", "dr", "mr",
        "prof",
    ];
    apart && !short.contains(&word.as_str())
}
