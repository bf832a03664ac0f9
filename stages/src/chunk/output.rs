//! What `chunk` writes and tells: chunks, index, numbers and warnings.

use std::io::Write;

use serde::Serialize;

use super::divide::Chunk;
use super::origin::{Origin, Place};
use super::source::Characters;
use super::structure::Level;
use super::{Cut, Document, Params, Short};
use crate::{Context, Result, StageError};

/// A line of the chunks.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
}

/// Writes both outputs, in the order of the documents, and keeps count.
pub struct Writer<'a> {
    params: &'a Params,
    ctx: &'a Context<'a>,
    chunks: std::io::BufWriter<fs_err::File>,
    index: std::io::BufWriter<fs_err::File>,
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
    /// Chunks that end with a sentence, a section or their document.
    well_ended: u64,
    /// Chunks that end within a formula, a table or code, or between a heading and what follows it.
    broken: u64,
    outside: u64,
    short: Vec<String>,
    empty: Vec<String>,
}

impl<'a> Writer<'a> {
    /// Creates both files.
    pub fn new(params: &'a Params, ctx: &'a Context<'a>) -> Result<Writer<'a>> {
        let create = |output: &str| -> Result<_> {
            let file = fs_err::File::create(ctx.output(output)?)?;
            Ok(std::io::BufWriter::with_capacity(1 << 16, file))
        };
        Ok(Writer {
            params,
            ctx,
            chunks: create("chunks")?,
            index: create("index")?,
            totals: Totals::default(),
        })
    }

    /// Writes the chunks of a document.
    pub fn document(&mut self, document: &Document, cut: &Cut) -> Result<()> {
        let stem = document.stem;
        if let Some(warning) = &cut.warning {
            self.ctx.warn(warning);
        }
        self.totals.documents += 1;
        self.totals.bytes += document.bytes;
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
            let start = characters.before(chunk.range.start);
            let end = characters.before(chunk.range.end);
            let place = Place {
                document: stem.into(),
                source: cut.sidecar.source.clone(),
                extractor: cut.sidecar.extractor,
                digest: cut.digest,
                start,
                end,
                pages: cut.sidecar.pages(start, end),
                section: cut.sidecar.section(start),
                tokens: chunk.tokens,
                encoding: self.params.encoding,
                ends: chunk.ends,
            };
            let origin = Origin { line: self.totals.chunks, place };
            line(&mut self.chunks, &Line { text: &cut.text[chunk.range.clone()] })?;
            line(&mut self.index, &origin)?;
            self.totals.add(chunk);
        }
        Ok(())
    }

    /// Says how far it is; how many tokens the rest has is guessed from what was read.
    pub fn progress(&self, bytes_left: u64, stem: &str) -> Result<()> {
        let rest = self.totals.tokens as f64 / self.totals.bytes.max(1) as f64 * bytes_left as f64;
        let total = self.totals.tokens + rest as u64;
        self.ctx.progress(self.totals.tokens, total, "tokens", stem)
    }

    /// Ends both files, and keeps the numbers and warnings.
    pub fn finish(mut self) -> Result<()> {
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
            ("documents_short", totals.short.len() as u64),
            ("documents_empty", totals.empty.len() as u64),
            ("out_of_range", totals.outside),
            ("broken_blocks", totals.broken),
        ];
        for (name, value) in metrics {
            ctx.metric(name, value as f64);
        }
        ctx.metric("share_well_ended", totals.well_ended as f64 / totals.chunks as f64);
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
        if totals.outside > 0 {
            ctx.warn(format!("{} chunks are out of range: nothing could cut them", totals.outside));
        }
        Ok(())
    }
}

impl Totals {
    fn add(&mut self, chunk: &Chunk) {
        let tokens = chunk.tokens;
        self.chunks += 1;
        self.tokens += u64::from(tokens);
        self.least = Some(self.least.map_or(tokens, |least| least.min(tokens)));
        self.most = Some(self.most.map_or(tokens, |most| most.max(tokens)));
        self.well_ended += u64::from(chunk.ends <= Level::Heading);
        self.broken += u64::from(chunk.ends == Level::Block);
    }
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
