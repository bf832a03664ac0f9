//! Where a chunk comes from: a line of the index that lies beside the chunks.

use quantmill_cache::Digest;
use serde::{Deserialize, Serialize};

use super::structure::Level;
use super::tokens::Encoding;

/// A line of the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The chunk's line in the chunks, from 0.
    pub line: u64,
    /// And everything else.
    #[serde(flatten)]
    pub place: Place,
}

/// A part of a document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The name of the text file, without its extension.
    pub document: String,
    /// The file whose text it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The version of what read that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extractor: Option<u64>,
    /// BLAKE3 of the text file.
    pub digest: Digest,
    /// Its first character in the text.
    pub start: usize,
    /// Behind its last character.
    pub end: usize,
    /// The first and the last page.
    pub pages: Option<[u32; 2]>,
    /// The titles of the sections around its start, the outermost first.
    pub section: Vec<String>,
    /// Its tokens, by a count of its text.
    pub tokens: u32,
    /// The encoding that counted them.
    pub encoding: Encoding,
    /// What it ends at.
    pub ends: Level,
}
