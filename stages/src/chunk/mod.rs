//! `chunk`: documents to JSONL, one `{"text": ...}` a line, each within a range of tokens.
//!
//! A document is cut into as many chunks as its length asks for, of nearly equal length, at the best
//! places near the even shares: before sections, between paragraphs, between sentences; never inside
//! a formula, a table or code while that fits (`structure`, `divide`). Tokens are those of a tiktoken
//! encoding or of a `tokenizer.json`, and the count of a chunk is that of its final text. A chunk is a verbatim part of the
//! document, so that nothing is lost or made up between two chunks but white space.
//!
//! The second output, `index`, has a line for each chunk that says where it comes from: `line` (from
//! 0), `document`, `source` (the file it was extracted from) and `extractor` (its version) where they
//! are known, `digest` (BLAKE3 of the text file), `start` and `end` (characters), `pages` (first and
//! last), `section` (titles from the outermost), `tokens` and their `encoding`, and what the chunk
//! `ends` at. The chunks themselves stay bare, because that is what trainers load.
//!
//! It leaves nothing out: duplicates, quality and languages are for `curate`.

mod divide;
mod origin;
mod output;
mod sentence;
mod source;
mod structure;
#[cfg(test)]
mod tests;
mod tokenizer;
pub(crate) mod tokens;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use quantmill_cache::Digest;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use divide::{Bounds, Chunk};
pub use origin::{Origin, Place};
use output::Writer;
use source::Sidecar;
pub use structure::Level;
use tokenizer::Tokenizer;
pub use tokens::Encoding;
use tokens::{Counter, Tokens};

/// Cuts documents into chunks.
pub struct Chunking;

/// The parameters of [`Chunking`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The fewest tokens of a chunk.
    pub min_tokens: u32,
    /// The most tokens of a chunk: at least twice `min_tokens`, and `overlap` more.
    pub max_tokens: u32,
    /// The tokens that a chunk should have; by default three quarters of `max_tokens`.
    pub target_tokens: Option<u32>,
    /// The most tokens that a chunk repeats from the end of the one before it, in whole sentences.
    pub overlap: u32,
    /// The encoding whose tokens are counted.
    pub encoding: Encoding,
    /// What becomes of a document that has fewer than `min_tokens`.
    pub short: Short,
}

/// What becomes of a document that is too short for one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Short {
    /// It is one chunk all the same.
    #[default]
    Keep,
    /// It is left out.
    Drop,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            min_tokens: 800,
            max_tokens: 2000,
            target_tokens: None,
            overlap: 0,
            encoding: Encoding::default(),
            short: Short::default(),
        }
    }
}

impl Params {
    fn bounds(&self) -> Bounds {
        let most = u64::from(self.max_tokens);
        let target = self.target_tokens.unwrap_or((most * 3 / 4) as u32).max(self.min_tokens);
        Bounds { min: self.min_tokens, max: self.max_tokens, target, overlap: self.overlap }
    }
}

impl Stage for Chunking {
    const NAME: &'static str = "chunk";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "cut text into chunks of a range of tokens";
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        let text = Port::input("text", Format::Text);
        match params.encoding {
            Encoding::Tokenizer => vec![text, Port::input("tokenizer", Format::Any)],
            _ => vec![text],
        }
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("chunks", Format::Chunks, "chunks.jsonl"),
            Port::file("index", Format::Any, "chunks.index.jsonl"),
        ]
    }

    fn check(params: &Params) -> std::result::Result<(), Invalid> {
        let (least, most) = (u64::from(params.min_tokens), u64::from(params.max_tokens));
        if least == 0 {
            return Err(Invalid::new("min_tokens", "must be at least 1"));
        }
        if most > 1 << 24 {
            return Err(Invalid::new("max_tokens", "must be at most 16777216"));
        }
        let need = 2 * least + u64::from(params.overlap);
        if most < need {
            let why = format!("{most} is less than twice `min_tokens` plus `overlap`, {need}");
            return Err(Invalid::new("max_tokens", why).help(format!(
                "a text of {} tokens could not be divided: raise `max_tokens` to {need} or lower the others",
                most + 1
            )));
        }
        if params.target_tokens.is_some_and(|target| !(least..=most).contains(&target.into())) {
            return Err(Invalid::new(
                "target_tokens",
                "must lie between `min_tokens` and `max_tokens`",
            ));
        }
        Ok(())
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let documents = documents(ctx)?;
        let mut bytes_left: u64 = documents.iter().map(|document| document.bytes).sum();
        let counters = Counters { tokens: tokens(params, ctx)?, idle: Mutex::default() };
        let mut writer = Writer::new(params, ctx)?;
        for batch in batches(&documents) {
            let read: Vec<Result<Cut>> = batch
                .par_iter()
                .map(|document| counters.with(|counter| document.cut(params, counter, ctx)))
                .collect();
            for (document, cut) in batch.iter().zip(read) {
                writer.document(document, &cut?)?;
                bytes_left -= document.bytes;
                writer.progress(bytes_left, document.stem)?;
            }
        }
        writer.finish()
    }
}

/// A document among the inputs.
struct Document<'a> {
    stem: &'a str,
    path: &'a Path,
    bytes: u64,
    sidecar: Option<&'a Path>,
}

/// A document that is read and cut.
struct Cut {
    text: String,
    digest: Digest,
    sidecar: Sidecar,
    chunks: Vec<Chunk>,
    warning: Option<String>,
}

/// The text files of the input, by name.
fn documents<'a>(ctx: &'a Context) -> Result<Vec<Document<'a>>> {
    let files: BTreeMap<&str, &Path> = ctx.files("text").collect();
    let text = |name: &&str| [".txt", ".md"].iter().any(|end| name.ends_with(end));
    let mut documents = Vec::new();
    for name in files.keys().copied().filter(text) {
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let sidecar = files.get(format!("{stem}.json").as_str()).copied();
        let bytes = fs_err::metadata(files[name])?.len();
        documents.push(Document { stem, path: files[name], bytes, sidecar });
    }
    if documents.is_empty() {
        return Err(StageError::failed("there is no text: no file ends in `.txt` or `.md`")
            .hint("feed it what `extract` writes, or a folder of text files"));
    }
    Ok(documents)
}

/// What counts: a built-in encoding, or the tokenizer of a file or of a model's folder.
fn tokens(params: &Params, ctx: &Context) -> Result<Tokens> {
    if let Some(built_in) = Tokens::built_in(params.encoding) {
        return Ok(built_in);
    }
    let name = "tokenizer.json";
    let path = match ctx.member("tokenizer", name) {
        Some(path) => path,
        None => ctx.file("tokenizer")?,
    };
    Tokenizer::read(path, name).map(Tokens::Own)
}

/// Cuts a list into parts that all cores can work on and that fit into memory.
fn batches<'a>(documents: &'a [Document<'a>]) -> impl Iterator<Item = &'a [Document<'a>]> {
    let mut rest = documents;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(64).take_while(|document| {
            bytes += document.bytes;
            bytes <= 64 << 20
        });
        let count = fits.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

impl Document<'_> {
    fn cut(&self, params: &Params, counter: &mut Counter, ctx: &Context) -> Result<Cut> {
        let raw = fs_err::read(self.path)?;
        let digest = Digest::of(&raw);
        let mut text = String::from_utf8(raw).map_err(|e| {
            let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            let name = Path::new(self.stem);
            StageError::bad(name, "the text is not UTF-8").at(line).hint("convert it to UTF-8")
        })?;
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        let known = match self.sidecar {
            Some(path) => Some(serde_json::from_slice::<Sidecar>(&fs_err::read(path)?)),
            None => None,
        };
        let (known, warning) = match known.transpose() {
            Ok(known) => (known, None),
            Err(e) => {
                let name = self.stem;
                (None, Some(format!("{name}.json is not read, so pages stay unknown: {e}")))
            }
        };
        let headings = known.as_ref().map(|sidecar| sidecar.headings(&text));
        let cuts = structure::cuts(&text, headings.as_ref());
        let sidecar = known.unwrap_or_else(|| Sidecar::of_marked(&text));
        let alive = |_| match ctx.cancel().is_cancelled() {
            true => Err(StageError::Cancelled),
            false => Ok(()),
        };
        let chunks = divide::divide(&text, cuts, params.bounds(), counter, alive)?;
        if let Some(why) = counter.failure() {
            let name = Path::new(self.stem);
            return Err(StageError::bad(name, format!("the tokenizer gives no tokens: {why}")));
        }
        Ok(Cut { text, digest, sidecar, chunks, warning })
    }
}

/// Counters that remember across documents: one for each thread, since a shared one would wait.
struct Counters {
    tokens: Tokens,
    idle: Mutex<Vec<Counter>>,
}

impl Counters {
    fn with<T>(&self, work: impl FnOnce(&mut Counter) -> T) -> T {
        // A counter only remembers: one whose thread panicked is as good as any.
        let idle = || self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waiting = idle().pop();
        let mut counter = waiting.unwrap_or_else(|| Counter::new(self.tokens.clone()));
        let done = work(&mut counter);
        idle().push(counter);
        done
    }
}
