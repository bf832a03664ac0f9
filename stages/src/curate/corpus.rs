//! The chunks with where they come from, and the documents that they are parts of.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::words::{normal, words};
use crate::chunk::{Origin, Place};
use crate::{Context, Result, StageError};

/// A line of the chunks.
#[derive(Deserialize)]
struct Line {
    text: String,
}

/// A chunk as it is judged.
pub struct Chunk {
    /// Its text.
    pub text: String,
    /// Where it comes from.
    pub place: Place,
    /// Its document, by number.
    pub document: usize,
    /// Its text as it is compared.
    pub normal: String,
    /// The words of that, as numbers.
    pub words: Vec<u64>,
}

/// All chunks, in order.
pub struct Corpus {
    /// The chunks, by their line.
    pub chunks: Vec<Chunk>,
    /// The documents' names, in the order in which they come first.
    pub documents: Vec<String>,
}

impl Corpus {
    /// Reads the ports `chunks` and `index`.
    pub fn read(ctx: &Context) -> Result<Corpus> {
        let texts: Vec<Line> = lines(ctx, "chunks", "a line must be `{\"text\": ...}`")?;
        let origins: Vec<Origin> =
            lines(ctx, "index", "feed it the output `index` of the stage `chunk`")?;
        if texts.len() != origins.len() {
            let why = format!("{} chunks, but {} lines of index", texts.len(), origins.len());
            return Err(StageError::failed(why).hint("both must come from one stage `chunk`"));
        }
        if texts.is_empty() {
            return Err(StageError::failed("there are no chunks"));
        }
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut documents = Vec::new();
        let numbered: Vec<(usize, Line, Place)> = texts
            .into_iter()
            .zip(origins)
            .map(|(line, origin)| {
                let name = &origin.place.document;
                let number = *numbers.entry(name.clone()).or_insert_with(|| {
                    documents.push(name.clone());
                    documents.len() - 1
                });
                (number, line, origin.place)
            })
            .collect();
        let judged = |(document, line, place): (usize, Line, Place)| {
            let normal = normal(&line.text);
            let words = words(&normal);
            Chunk { text: line.text, place, document, normal, words }
        };
        Ok(Corpus { chunks: numbered.into_par_iter().map(judged).collect(), documents })
    }
}

fn lines<T: DeserializeOwned>(ctx: &Context, port: &str, hint: &str) -> Result<Vec<T>> {
    let text = fs_err::read_to_string(ctx.file(port)?)?;
    let read = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            StageError::bad(port, format!("this is not what it must be: {e}"))
                .at(i as u64 + 1)
                .hint(hint)
        })
    };
    text.lines().enumerate().map(read).collect()
}
