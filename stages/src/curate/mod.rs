//! `curate`: chunks to a data set that can be trained on and handed on.
//!
//! ```text
//! chunks, index -> corpus  (read, words)
//!               -> fate    languages, quality, duplicates, contamination
//!               -> split   (by document, those that repeat each other together)
//!               -> output  (JSONL, index, removed), parquet, card
//! ```
//!
//! What is left out is written to `removed.jsonl` with the reason, and counted by reason in the card
//! and the metrics. A chunk is kept whole or left out: no text is changed. The corpus is held in
//! memory, so some gigabytes are its limit. It does not look for personal data, licences or offence.

mod card;
mod contamination;
mod corpus;
mod fate;
mod near;
mod output;
mod parquet;
mod quality;
mod split;
#[cfg(test)]
mod tests;
mod words;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
pub use near::Near;
pub use quality::Quality;

/// Makes a data set of chunks.
pub struct Curate;

/// The parameters of [`Curate`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The name of the data set, for its card.
    pub title: String,
    /// Its licence, for its card: an identifier such as `cc-by-4.0`. Nothing checks it.
    pub license: Option<String>,
    /// Whether of chunks with the same text (but for case and white space) only the first is kept.
    pub exact_duplicates: bool,
    /// The languages to keep, as ISO 639-3 codes such as `eng`. None named: all are kept. It is the
    /// document that has a language; one whose language is uncertain is kept.
    pub languages: Vec<String>,
    /// Rules of thumb on form; `null` for none.
    pub quality: Option<Quality>,
    /// When documents and chunks repeat others nearly; `null`: they are not looked for.
    pub near_duplicates: Option<Near>,
    /// A chunk that has this many words in a row in common with the port `evaluation` is left out.
    pub ngram: u32,
    /// The share of the documents that is held out to validate.
    pub validation: f64,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            title: "Data set".into(),
            license: None,
            exact_duplicates: true,
            languages: Vec::new(),
            quality: Some(Quality::default()),
            near_duplicates: Some(Near::default()),
            ngram: 13,
            validation: 0.05,
        }
    }
}

impl Stage for Curate {
    const NAME: &'static str = "curate";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "chunks to a data set: duplicates, quality, language, split, card";
    const SEEDED: bool = true;
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![
            Port::input("chunks", Format::Chunks),
            Port::input("index", Format::Any),
            Port::optional("evaluation", Format::Any),
        ]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("train", Format::Chunks, "train.jsonl"),
            Port::file("validation", Format::Chunks, "validation.jsonl"),
            Port::tree("dataset", Format::Any, "dataset"),
        ]
    }

    fn check(params: &Params) -> std::result::Result<(), Invalid> {
        let wrong = |path: &str, why: &str| Err(Invalid::new(path, why));
        if !(0.0..1.0).contains(&params.validation) {
            return wrong("validation", "must be at least 0 and less than 1");
        }
        if !(2..=1000).contains(&params.ngram) {
            return wrong("ngram", "must lie between 2 and 1000");
        }
        if let Some(near) = &params.near_duplicates {
            if !(near.threshold > 0.0 && near.threshold <= 1.0) {
                return wrong("near_duplicates.threshold", "must be more than 0 and at most 1");
            }
            if !(1..=100).contains(&near.shingle) {
                return wrong("near_duplicates.shingle", "must lie between 1 and 100");
            }
            if !(1..=4096).contains(&near.permutations) {
                return wrong("near_duplicates.permutations", "must lie between 1 and 4096");
            }
        }
        let known = |code: &String| whatlang::Lang::from_code(code).is_some();
        match params.languages.iter().position(|code| !known(code)) {
            None => Ok(()),
            Some(at) => Err(Invalid::new(
                format!("languages[{at}]"),
                format!("no language `{}` is known", params.languages[at]),
            )
            .help("codes are those of ISO 639-3, such as `eng`, `deu` or `fra`")),
        }
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let corpus = corpus::Corpus::read(ctx)?;
        let forbidden = forbidden(params, ctx)?;
        let fates = fate::decide(params, &corpus, &forbidden, ctx)?;
        let sides = fates.sides(&corpus, params.validation, ctx.seed());
        output::write(params, &corpus, &fates, &sides, &forbidden, ctx)
    }
}

/// The runs of words of the evaluation, where one is given.
fn forbidden(params: &Params, ctx: &Context) -> Result<contamination::Forbidden> {
    let mut forbidden = contamination::Forbidden::new(params.ngram);
    for (name, path) in ctx.files("evaluation") {
        forbidden.add(name, path)?;
    }
    if ctx.has("evaluation") && forbidden.texts == forbidden.short {
        let n = params.ngram;
        return Err(StageError::failed(format!("no text of the evaluation has {n} words"))
            .hint("lower `ngram`, or leave the port `evaluation` unfed"));
    }
    if forbidden.short > 0 {
        ctx.warn(format!(
            "{} of {} texts of the evaluation have fewer than {} words and are not looked for",
            forbidden.short, forbidden.texts, params.ngram
        ));
    }
    Ok(forbidden)
}
