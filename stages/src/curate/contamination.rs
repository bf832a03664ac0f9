//! Contamination: what a model is judged on must not be in what it learns from.
//!
//! A chunk that has one run of `n` words (13 by default, as for GPT-3) in common with an evaluation
//! file is contaminated. An evaluation text of fewer words cannot be told from common phrases, so it
//! is not looked for; their number is reported.

use std::path::Path;

use rustc_hash::FxHashSet;
use serde_json::Value;

use super::words::{grams, normal, words};
use crate::{Result, StageError};

/// The runs of words of the evaluation.
#[derive(Default)]
pub struct Forbidden {
    n: usize,
    grams: FxHashSet<u64>,
    /// The texts of the evaluation.
    pub texts: u64,
    /// Those of fewer than `n` words.
    pub short: u64,
}

impl Forbidden {
    /// Of runs of `n` words, and none yet.
    pub fn new(n: u32) -> Forbidden {
        Forbidden { n: n as usize, ..Forbidden::default() }
    }

    /// Adds a file: of `.jsonl` and `.json` every string in it, of others the whole text.
    pub fn add(&mut self, name: &str, path: &Path) -> Result<()> {
        let raw = fs_err::read(path)?;
        let text = String::from_utf8(raw)
            .map_err(|_| StageError::bad(name, "the evaluation is not UTF-8"))?;
        let json = |line: usize, text: &str| {
            serde_json::from_str::<Value>(text).map_err(|e| {
                StageError::bad(name, format!("this is not JSON: {e}")).at(line as u64 + 1)
            })
        };
        if name.ends_with(".jsonl") {
            for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                self.value(&json(i, line)?);
            }
        } else if name.ends_with(".json") {
            self.value(&json(0, &text)?);
        } else {
            self.text(&text);
        }
        Ok(())
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(values) => values.iter().for_each(|value| self.value(value)),
            Value::Object(fields) => fields.values().for_each(|value| self.value(value)),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        let words = words(&normal(text));
        if words.is_empty() {
            return;
        }
        self.texts += 1;
        match words.len() < self.n {
            true => self.short += 1,
            false => self.grams.extend(grams(&words, self.n)),
        }
    }

    /// How many of its runs of words a text has in common with the evaluation.
    pub fn shared(&self, words: &[u64]) -> usize {
        match self.grams.is_empty() || words.len() < self.n {
            true => 0,
            false => grams(words, self.n).filter(|gram| self.grams.contains(gram)).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_thirteen_words_is_contamination() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval.jsonl");
        let long = "one two three four five six seven eight nine ten eleven twelve thirteen";
        let line = serde_json::json!({ "question": [long], "answer": "short", "n": 3 });
        fs_err::write(&path, format!("{line}\n\n")).unwrap();
        let mut forbidden = Forbidden::new(13);
        forbidden.add("eval.jsonl", &path).unwrap();
        assert_eq!((forbidden.texts, forbidden.short), (2, 1));
        let shared = |text: &str| forbidden.shared(&words(&normal(text)));
        assert_eq!(shared(&format!("zero, {}! fourteen", long.to_uppercase())), 1);
        assert_eq!(shared(&long.replace("seven", "7")), 0);
        assert_eq!(shared("short"), 0);
        fs_err::write(&path, "{}\n{").unwrap();
        let error = forbidden.add("eval.jsonl", &path).unwrap_err().to_string();
        assert!(error.starts_with("eval.jsonl:2: this is not JSON"), "{error}");
        forbidden.add("eval.txt", &path).unwrap();
    }
}
