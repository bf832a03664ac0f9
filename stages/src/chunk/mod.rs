//! `chunk`: documents to JSONL, one `{"text": ...}` a line, each within a range of tokens.
//!
//! A document is cut into as many chunks as its length asks for, of nearly equal length, at the best
//! places near the even shares: before sections, between paragraphs, between sentences; never inside
//! a formula, a table or code while that fits (`structure`, `divide`). Tokens are those of a tiktoken
//! encoding, and the count of a chunk is that of its final text. A chunk is a verbatim part of the
//! document, so that nothing is lost or made up between two chunks but white space.
//!
//! The second output, `index`, has a line for each chunk that says where it comes from: `line` (from
//! 0), `document`, `start` and `end` (characters), `pages` (first and last), `section` (titles from
//! the outermost), `tokens`. The chunks themselves stay bare, because that is what trainers load.
//!
//! Chunks with the same words are written once. It does not look for near duplicates, judge quality
//! or guess languages.

mod divide;
mod sentence;
mod source;
mod structure;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use quantmill_cache::Digest;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use divide::{Bounds, Chunk};
use source::{Characters, Sidecar};
use tokens::Counter;
pub use tokens::Encoding;

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
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "cut text into chunks of a range of tokens";
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("text", Format::Text)]
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
            let why = format!("{most} is less than twice `min_tokens` and `overlap`, {need}");
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
        let counters = Counters::new(params.encoding);
        let mut writer = Writer::new(params, ctx)?;
        for batch in batches(&documents) {
            let read: Vec<Result<Cut>> = batch
                .par_iter()
                .map(|document| counters.with(|counter| document.cut(params, counter, ctx)))
                .collect();
            for (document, cut) in batch.iter().zip(read) {
                writer.document(document.stem, &cut?)?;
                writer.totals.bytes += document.bytes;
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
        Ok(Cut { text, sidecar, chunks, warning })
    }
}

/// Counters that remember across documents: one for each thread, since a shared one would wait.
struct Counters {
    encoding: Encoding,
    idle: Mutex<Vec<Counter>>,
}

impl Counters {
    fn new(encoding: Encoding) -> Counters {
        Counters { encoding, idle: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Counter) -> T) -> T {
        // A counter only remembers: one whose thread panicked is as good as any.
        let idle = || self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waiting = idle().pop();
        let mut counter = waiting.unwrap_or_else(|| Counter::new(self.encoding));
        let done = work(&mut counter);
        idle().push(counter);
        done
    }
}

/// A line of the chunks.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
}

/// A line of the index.
#[derive(Serialize)]
struct Origin<'a> {
    line: u64,
    document: &'a str,
    start: usize,
    end: usize,
    pages: Option<[u32; 2]>,
    section: Vec<&'a str>,
    tokens: u32,
}

/// Writes both outputs, in the order of the documents, and keeps count.
struct Writer<'a> {
    params: &'a Params,
    ctx: &'a Context<'a>,
    chunks: std::io::BufWriter<fs_err::File>,
    index: std::io::BufWriter<fs_err::File>,
    seen: HashSet<Digest>,
    words: String,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    documents: u64,
    bytes: u64,
    chunks: u64,
    tokens: u64,
    least: Option<u32>,
    most: Option<u32>,
    /// Chunks that end with a sentence or with their document.
    at_sentence: u64,
    duplicates: u64,
    outside: u64,
    short: Vec<String>,
    empty: Vec<String>,
}

impl<'a> Writer<'a> {
    fn new(params: &'a Params, ctx: &'a Context<'a>) -> Result<Writer<'a>> {
        let create = |output: &str| -> Result<_> {
            let file = fs_err::File::create(ctx.output(output)?)?;
            Ok(std::io::BufWriter::with_capacity(1 << 16, file))
        };
        Ok(Writer {
            params,
            ctx,
            chunks: create("chunks")?,
            index: create("index")?,
            seen: HashSet::new(),
            words: String::new(),
            totals: Totals::default(),
        })
    }

    fn document(&mut self, stem: &str, cut: &Cut) -> Result<()> {
        if let Some(warning) = &cut.warning {
            self.ctx.warn(warning);
        }
        self.totals.documents += 1;
        match cut.chunks.as_slice() {
            [] => self.totals.empty.push(stem.into()),
            [one] if one.tokens < self.params.min_tokens => {
                self.totals.short.push(stem.into());
                if self.params.short == Short::Drop {
                    return Ok(());
                }
            }
            chunks => {
                let bounds = self.params.min_tokens..=self.params.max_tokens;
                let outside = chunks.iter().filter(|chunk| !bounds.contains(&chunk.tokens));
                self.totals.outside += outside.count() as u64;
            }
        }
        let mut characters = Characters::of(&cut.text);
        for chunk in &cut.chunks {
            let last = chunk.range.end == cut.text.trim_end().len();
            let text = &cut.text[chunk.range.clone()];
            if !self.seen.insert(words_of(text, &mut self.words)) {
                self.totals.duplicates += 1;
                continue;
            }
            let start = characters.before(chunk.range.start);
            let end = characters.before(chunk.range.end);
            let origin = Origin {
                line: self.totals.chunks,
                document: stem,
                start,
                end,
                pages: cut.sidecar.pages(start, end),
                section: cut.sidecar.section(start),
                tokens: chunk.tokens,
            };
            line(&mut self.chunks, &Line { text })?;
            line(&mut self.index, &origin)?;
            self.totals.add(chunk.tokens, last || sentence::ends(text));
        }
        Ok(())
    }

    /// How many tokens the rest has is guessed from what was read.
    fn progress(&self, bytes_left: u64, stem: &str) -> Result<()> {
        let rest = self.totals.tokens as f64 / self.totals.bytes.max(1) as f64 * bytes_left as f64;
        let total = self.totals.tokens + rest as u64;
        self.ctx.progress(self.totals.tokens, total, "tokens", stem)
    }

    fn finish(mut self) -> Result<()> {
        let (totals, ctx, params) = (&self.totals, self.ctx, self.params);
        if totals.chunks == 0 {
            let error = StageError::failed(format!("{} documents gave no chunk", totals.documents));
            return Err(match totals.short.len() {
                0 => error.hint("their text is empty: do the PDFs need OCR?"),
                _ => error.hint(format!(
                    "all are shorter than {} tokens: lower `min_tokens`, or set `short: keep`",
                    params.min_tokens
                )),
            });
        }
        self.chunks.flush()?;
        self.index.flush()?;
        let metrics = [
            ("documents", totals.documents),
            ("chunks", totals.chunks),
            ("tokens", totals.tokens),
            ("tokens_min", totals.least.unwrap_or(0).into()),
            ("tokens_max", totals.most.unwrap_or(0).into()),
            ("duplicates", totals.duplicates),
            ("documents_short", totals.short.len() as u64),
            ("documents_empty", totals.empty.len() as u64),
            ("out_of_range", totals.outside),
        ];
        for (name, value) in metrics {
            ctx.metric(name, value as f64);
        }
        ctx.metric("share_at_sentence", totals.at_sentence as f64 / totals.chunks as f64);
        if !totals.short.is_empty() {
            let what = match params.short {
                Short::Keep => "were kept as one chunk each",
                Short::Drop => "were left out",
            };
            let (least, names) = (params.min_tokens, some(&totals.short));
            ctx.warn(format!("documents shorter than {least} tokens {what}: {names}"));
        }
        if !totals.empty.is_empty() {
            ctx.warn(format!("documents without text: {}", some(&totals.empty)));
        }
        if totals.duplicates > 0 {
            ctx.warn(format!("{} chunks repeat another and were left out", totals.duplicates));
        }
        if totals.outside > 0 {
            ctx.warn(format!("{} chunks are out of range: nothing could cut them", totals.outside));
        }
        Ok(())
    }
}

impl Totals {
    fn add(&mut self, tokens: u32, at_sentence: bool) {
        self.chunks += 1;
        self.tokens += u64::from(tokens);
        self.least = Some(self.least.map_or(tokens, |least| least.min(tokens)));
        self.most = Some(self.most.map_or(tokens, |most| most.max(tokens)));
        self.at_sentence += u64::from(at_sentence);
    }
}

/// The digest of a text's words: white space does not tell texts apart.
fn words_of(text: &str, buffer: &mut String) -> Digest {
    buffer.clear();
    for word in text.split_whitespace() {
        buffer.push_str(word);
        buffer.push(' ');
    }
    Digest::of(buffer.as_bytes())
}

/// How many, and the first few by name.
fn some(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = if names.len() > first.len() { ", ..." } else { "" };
    format!("{} ({}{more})", names.len(), first.join(", "))
}

fn line(to: &mut impl Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *to, value).map_err(std::io::Error::from)?;
    Ok(to.write_all(b"\n")?)
}
