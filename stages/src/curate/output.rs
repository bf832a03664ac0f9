//! What `curate` writes and tells.

use std::io::Write;

use serde::Serialize;

use super::contamination::Forbidden;
use super::corpus::Corpus;
use super::fate::{Fates, Reason, Removal};
use super::split::Split;
use super::{Params, card, parquet};
use crate::chunk::Place;
use crate::{Context, Result, StageError};

/// A line of the chunks.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
}

/// A line of the index: a chunk that was kept.
#[derive(Serialize)]
pub struct Kept<'a> {
    /// Its side.
    pub split: Split,
    /// Its line there, from 0.
    pub line: u64,
    /// Its line in the chunks that came in.
    pub chunk: usize,
    /// The language of its document, where it is certain.
    pub language: Option<&'static str>,
    /// The first document of those that repeat each other.
    pub group: &'a str,
    /// Where it comes from.
    #[serde(flatten)]
    pub place: &'a Place,
    /// Its text, which has files of its own.
    #[serde(skip)]
    pub text: &'a str,
}

/// A line of what was left out.
#[derive(Serialize)]
struct Removed<'a> {
    chunk: usize,
    reason: Reason,
    detail: &'a str,
    document: &'a str,
    pages: Option<[u32; 2]>,
    tokens: u32,
}

/// Writes all outputs, and keeps the numbers.
pub fn write(
    params: &Params,
    corpus: &Corpus,
    fates: &Fates,
    sides: &[Split],
    forbidden: &Forbidden,
    ctx: &Context,
) -> Result<()> {
    let kept = kept(corpus, fates, sides);
    if kept.is_empty() {
        return Err(StageError::failed(format!(
            "all {} chunks were left out",
            fates.removed.len()
        ))
        .hint("`quality: null` turns the rules off; the metrics of a run tell what each took"));
    }
    let folder = ctx.output("dataset")?;
    for split in [Split::Train, Split::Validation] {
        let own: Vec<&Kept> = kept.iter().filter(|chunk| chunk.split == split).collect();
        let lines = own.iter().map(|chunk| Line { text: chunk.text });
        write_lines(ctx.output(split.name())?, lines)?;
        if !own.is_empty() {
            parquet::write(&folder.join(split.name()).with_extension("parquet"), &own)?;
        }
    }
    write_lines(&folder.join("index.jsonl"), kept.iter())?;
    let removed = fates.removed.iter().enumerate().filter_map(|(chunk, removed)| {
        let (removed, place) = (removed.as_ref()?, &corpus.chunks[chunk].place);
        let (reason, detail) = (removed.reason, removed.detail.as_str());
        let (document, pages, tokens) = (place.document.as_str(), place.pages, place.tokens);
        Some(Removed { chunk, reason, detail, document, pages, tokens })
    });
    write_lines(&folder.join("removed.jsonl"), removed)?;
    let card = card::card(params, corpus, fates, &kept, forbidden);
    fs_err::write(folder.join("README.md"), card)?;
    tell(corpus, fates, &kept, params, ctx);
    Ok(())
}

/// The chunks that are kept, those to learn from first.
fn kept<'a>(corpus: &'a Corpus, fates: &'a Fates, sides: &[Split]) -> Vec<Kept<'a>> {
    let mut kept = Vec::new();
    for split in [Split::Train, Split::Validation] {
        let mut line = 0;
        for (i, chunk) in corpus.chunks.iter().enumerate() {
            if fates.removed[i].is_none() && sides[chunk.document] == split {
                kept.push(Kept {
                    split,
                    line,
                    chunk: i,
                    language: fates.languages[chunk.document].map(|found| found.code()),
                    group: &corpus.documents[fates.groups[chunk.document]],
                    place: &chunk.place,
                    text: &chunk.text,
                });
                line += 1;
            }
        }
    }
    kept
}

fn write_lines(path: &std::path::Path, lines: impl Iterator<Item = impl Serialize>) -> Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 16, fs_err::File::create(path)?);
    for line in lines {
        serde_json::to_writer(&mut file, &line).map_err(std::io::Error::from)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

fn tell(corpus: &Corpus, fates: &Fates, kept: &[Kept], params: &Params, ctx: &Context) {
    ctx.metric("chunks_in", corpus.chunks.len() as f64);
    for reason in Reason::ALL {
        let of = |removed: &&Option<Removal>| matches!(removed, Some(own) if own.reason == reason);
        let count = fates.removed.iter().filter(of).count();
        ctx.metric(&format!("removed_{}", reason.name()), count as f64);
    }
    for split in [Split::Train, Split::Validation] {
        let own = || kept.iter().filter(|chunk| chunk.split == split);
        ctx.metric(&format!("{}_chunks", split.name()), own().count() as f64);
        let tokens: u64 = own().map(|chunk| u64::from(chunk.place.tokens)).sum();
        ctx.metric(&format!("{}_tokens", split.name()), tokens as f64);
    }
    if params.validation > 0.0 && kept.iter().all(|chunk| chunk.split == Split::Train) {
        ctx.warn("nothing is held out to validate: all documents are of one group");
    }
}
