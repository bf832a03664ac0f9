//! What becomes of each chunk: kept, or left out for the first reason that holds.

use std::collections::{BTreeMap, HashMap};

use quantmill_cache::Digest;
use rayon::prelude::*;
use serde::Serialize;

use super::contamination::Forbidden;
use super::corpus::{Chunk, Corpus};
use super::split::{Split, groups, sides};
use super::{Params, near};
use crate::{Context, Result};

/// Why a chunk is left out, in the order in which reasons are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is in a language that is not wanted.
    Language,
    /// It breaks a rule of quality.
    Quality,
    /// Its document repeats an earlier one.
    NearDuplicateDocument,
    /// It is an earlier chunk once more.
    ExactDuplicate,
    /// It repeats an earlier chunk.
    NearDuplicate,
    /// It shares a run of words with the evaluation.
    Contamination,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 6] = [
        Reason::Language,
        Reason::Quality,
        Reason::NearDuplicateDocument,
        Reason::ExactDuplicate,
        Reason::NearDuplicate,
        Reason::Contamination,
    ];

    /// As a metric is named.
    pub fn name(self) -> &'static str {
        match self {
            Reason::ExactDuplicate => "exact_duplicate",
            Reason::Language => "language",
            Reason::Quality => "quality",
            Reason::NearDuplicateDocument => "near_duplicate_document",
            Reason::NearDuplicate => "near_duplicate",
            Reason::Contamination => "contamination",
        }
    }
}

/// Why a chunk is left out, and what of it.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The reason.
    pub reason: Reason,
    /// The rule that it breaks, or what it repeats.
    pub detail: String,
}

/// What becomes of the chunks.
pub struct Fates {
    /// Why each chunk is left out, if it is.
    pub removed: Vec<Option<Removal>>,
    /// The language of each document, where it is certain.
    pub languages: Vec<Option<whatlang::Lang>>,
    /// For each document the first one of its group.
    pub groups: Vec<usize>,
}

impl Fates {
    /// The side of each document. One that nothing is left of takes no part.
    pub fn sides(&self, corpus: &Corpus, share: f64, seed: u64) -> Vec<Split> {
        let mut left: Vec<usize> = corpus
            .chunks
            .iter()
            .zip(&self.removed)
            .filter(|(_, removed)| removed.is_none())
            .map(|(chunk, _)| self.groups[chunk.document])
            .collect();
        left.sort_unstable();
        left.dedup();
        let names: Vec<&str> = left.iter().map(|group| corpus.documents[*group].as_str()).collect();
        let sides = sides(&names, share, seed);
        let side = |group: &usize| left.binary_search(group).map_or(Split::Train, |at| sides[at]);
        self.groups.iter().map(side).collect()
    }
}

/// Judges every chunk.
pub fn decide(
    params: &Params,
    corpus: &Corpus,
    forbidden: &Forbidden,
    ctx: &Context,
) -> Result<Fates> {
    let chunks = &corpus.chunks;
    let steps = Reason::ALL.len() as u64;
    let tell = |done: u64, what: &str| ctx.progress(done, steps, "steps", what);
    let mut removed: Vec<Option<Removal>> = vec![None; chunks.len()];
    let mut pairs = Vec::new();

    tell(0, "languages")?;
    let languages = languages(corpus);
    remove(&mut removed, chunks, Reason::Language, |_, chunk| {
        let code = languages[chunk.document]?.code();
        let wanted = params.languages.is_empty() || params.languages.iter().any(|own| own == code);
        (!wanted).then(|| code.into())
    });

    tell(1, "quality")?;
    remove(&mut removed, chunks, Reason::Quality, |_, chunk| {
        let english = languages[chunk.document].is_none_or(|found| found == whatlang::Lang::Eng);
        let quality = params.quality.as_ref()?;
        let (rule, value) = quality.broken(&chunk.text, &chunk.normal, &chunk.words, english)?;
        Some(format!("{rule}: {value:.3}"))
    });

    if let Some(near) = &params.near_duplicates {
        tell(2, "documents alike")?;
        let mut texts = vec![Vec::new(); corpus.documents.len()];
        for (chunk, _) in chunks.iter().zip(&removed).filter(|(_, removed)| removed.is_none()) {
            texts[chunk.document].extend_from_slice(&chunk.words);
        }
        let found = near::repeats(&texts, near);
        let of = |document: usize| found[document].map(|(of, share)| (document, of, share));
        pairs.extend((0..texts.len()).filter_map(of).map(|(document, of, _)| (document, of)));
        remove(&mut removed, chunks, Reason::NearDuplicateDocument, |_, chunk| {
            let (_, of, share) = of(chunk.document)?;
            Some(format!("{} ({share:.3})", corpus.documents[of]))
        });
    }

    if params.exact_duplicates {
        tell(3, "exact duplicates")?;
        let digests: Vec<Digest> =
            chunks.par_iter().map(|chunk| Digest::of(chunk.normal.as_bytes())).collect();
        // The first of those that are still there is kept, or all of them would go.
        let mut first: HashMap<Digest, usize> = HashMap::new();
        for (i, (digest, removed)) in digests.into_iter().zip(&mut removed).enumerate() {
            if removed.is_some() {
                continue;
            }
            let of = *first.entry(digest).or_insert(i);
            if of != i {
                pairs.push((chunks[i].document, chunks[of].document));
                *removed = Some(Removal { reason: Reason::ExactDuplicate, detail: named(of) });
            }
        }
    }

    if let Some(near) = &params.near_duplicates {
        tell(4, "chunks alike")?;
        // What is left out already has no words, and so is like nothing.
        let words = |(chunk, removed): (&Chunk, &Option<Removal>)| match removed {
            Some(_) => Vec::new(),
            None => chunk.words.clone(),
        };
        let texts: Vec<Vec<u64>> = chunks.iter().zip(&removed).map(words).collect();
        let found = near::repeats(&texts, near);
        let of = |i: usize| found[i].map(|(of, share)| (i, of, share));
        pairs.extend(
            (0..chunks.len())
                .filter_map(of)
                .map(|(i, of, _)| (chunks[i].document, chunks[of].document)),
        );
        remove(&mut removed, chunks, Reason::NearDuplicate, |i, _| {
            of(i).map(|(_, of, share)| format!("{} ({share:.3})", named(of)))
        });
    }

    tell(5, "contamination")?;
    remove(&mut removed, chunks, Reason::Contamination, |_, chunk| {
        let shared = forbidden.shared(&chunk.words);
        (shared > 0).then(|| format!("{shared} runs of words"))
    });
    tell(steps, "decided")?;
    let groups = groups(corpus.documents.len(), pairs.into_iter());
    Ok(Fates { removed, languages, groups })
}

/// Leaves out those chunks that are still there and for which there is a detail.
fn remove(
    removed: &mut [Option<Removal>],
    chunks: &[Chunk],
    reason: Reason,
    why: impl Fn(usize, &Chunk) -> Option<String> + Sync,
) {
    removed.par_iter_mut().zip(chunks).enumerate().for_each(|(i, (removed, chunk))| {
        if removed.is_none() {
            *removed = why(i, chunk).map(|detail| Removal { reason, detail });
        }
    });
}

fn named(chunk: usize) -> String {
    format!("chunk {chunk}")
}

/// The language of each document: that of most of its words in chunks whose language is certain.
/// A chunk alone may be all formulas, and those look like any language.
fn languages(corpus: &Corpus) -> Vec<Option<whatlang::Lang>> {
    let certain = |chunk: &Chunk| {
        // Its beginning is enough.
        let text = &chunk.text[..chunk.text.floor_char_boundary(1 << 13)];
        whatlang::detect(text).filter(|found| found.is_reliable()).map(|found| found.lang())
    };
    let found: Vec<Option<whatlang::Lang>> = corpus.chunks.par_iter().map(certain).collect();
    let mut votes: Vec<BTreeMap<&str, usize>> = vec![BTreeMap::new(); corpus.documents.len()];
    for (chunk, found) in corpus.chunks.iter().zip(found) {
        if let Some(found) = found {
            *votes[chunk.document].entry(found.code()).or_default() += chunk.words.len();
        }
    }
    let most = |votes: BTreeMap<&str, usize>| {
        let (code, _) = votes.into_iter().max_by_key(|(_, words)| *words)?;
        whatlang::Lang::from_code(code)
    };
    votes.into_iter().map(most).collect()
}
