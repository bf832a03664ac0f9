//! What is in an artifact, so that a wrong connection is refused before anything runs.
//!
//! A format is a promise between two stages; it is not sniffed from bytes. Source files carry
//! [`Format::Any`]: what reads them checks them.

use std::fmt;

/// The format of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Anything: source files and the files of a `command`.
    Any,
    /// Papers and notes: PDF, and what else `extract` reads.
    Document,
    /// UTF-8 text, one `.txt` a document, with a `.json` sidecar.
    Text,
    /// JSONL, one `{"text": ...}` a line.
    Chunks,
    /// CSV of OHLCV bars.
    Bars,
    /// CSV: the bars, the market-state features and the split of each row.
    Features,
    /// JSONL: one prompt for each decision time.
    Prompts,
    /// JSONL: prompt, chosen, rejected, rewards.
    Pairs,
    /// A folder: `config.json`, `tokenizer.json`, weights, perhaps an adapter.
    Model,
    /// JSONL, one record a training step.
    Log,
    /// JSON of named numbers.
    Metrics,
    /// One offline HTML file.
    Report,
}

impl Format {
    /// True where an input of format `self` may be fed by an output of format `given`.
    pub fn accepts(self, given: Format) -> bool {
        self == given || self == Format::Any || given == Format::Any
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}").to_lowercase();
        f.write_str(&name)
    }
}
