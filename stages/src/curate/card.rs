//! The card of a data set: Markdown that says what is in it, how it came about, and what it is not.
//!
//! The head is what the Hugging Face Hub reads; it names the Parquet files beside the card, so that
//! the folder loads as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::Params;
use super::contamination::Forbidden;
use super::corpus::Corpus;
use super::fate::{Fates, Reason};
use super::output::Kept;
use super::split::Split;

/// More documents than these are counted and not listed.
const LISTED: usize = 300;
/// The widest bar of the histogram.
const WIDTH: usize = 50;
const SPLITS: [Split; 2] = [Split::Train, Split::Validation];

/// Writes the card.
pub fn card(
    params: &Params,
    corpus: &Corpus,
    fates: &Fates,
    kept: &[Kept],
    forbidden: &Forbidden,
) -> String {
    let parts = [
        head(params, kept),
        sizes(kept),
        tokens(kept),
        removals(corpus, fates, forbidden),
        counts("How chunks end", "end", kept, |chunk| Some(lower(&chunk.place.ends))),
        counts("Languages", "language", kept, |chunk| chunk.language.map(str::to_owned)),
        documents(corpus, kept),
        settings(params),
        LIMITS.to_owned(),
    ];
    parts.join("\n")
}

const LIMITS: &str = "## What this card does not say\n\n\
    Whether the licences of the sources allow a use was not checked, nor whether personal data, errors or offence\n\
    are in the text. The rules look at form; the language is a guess from letters; near duplicates are found by\n\
    shared words, so that a translation or a short excerpt passes.\n";

fn head(params: &Params, kept: &[Kept]) -> String {
    let mut head = String::from("---\n");
    let title = serde_json::Value::from(params.title.as_str());
    let _ = writeln!(head, "pretty_name: {title}");
    if let Some(license) = &params.license {
        let _ = writeln!(head, "license: {}", serde_json::Value::from(license.as_str()));
    }
    head += "configs:\n- config_name: default\n  data_files:\n";
    for split in SPLITS.into_iter().filter(|split| of(kept, *split).next().is_some()) {
        let name = split.name();
        let _ = writeln!(head, "  - split: {name}\n    path: {name}.parquet");
    }
    let license = params.license.as_deref().unwrap_or("not stated");
    let _ = write!(head, "---\n\n# {}\n\nLicence: {license}.\n", params.title);
    head
}

fn sizes(kept: &[Kept]) -> String {
    let mut out = String::from(
        "## Size\n\n| split | documents | chunks | tokens | characters |\n| --- | ---: | ---: | ---: | ---: |\n",
    );
    for split in SPLITS {
        let mut names: Vec<&str> = of(kept, split).map(|c| c.place.document.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let tokens: u64 = of(kept, split).map(|chunk| u64::from(chunk.place.tokens)).sum();
        let characters: usize = of(kept, split).map(|chunk| chunk.text.chars().count()).sum();
        let (documents, chunks) = (names.len(), of(kept, split).count());
        let name = split.name();
        let _ = writeln!(out, "| {name} | {documents} | {chunks} | {tokens} | {characters} |");
    }
    out
}

fn tokens(kept: &[Kept]) -> String {
    let mut out = String::from("## Tokens of a chunk\n\n");
    let encodings: BTreeSet<String> =
        kept.iter().map(|chunk| lower(&chunk.place.encoding)).collect();
    let names: Vec<String> = encodings.into_iter().collect();
    let _ = writeln!(out, "Counted by `{}` on the text of each chunk.\n", names.join("`, `"));
    out += "| split | least | 5 % | 25 % | median | mean | 75 % | 95 % | most |\n";
    out += "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    for split in SPLITS {
        let mut counts: Vec<u32> = of(kept, split).map(|chunk| chunk.place.tokens).collect();
        counts.sort_unstable();
        if counts.is_empty() {
            continue;
        }
        let mean = counts.iter().map(|x| f64::from(*x)).sum::<f64>() / counts.len() as f64;
        // The least value that so many of 100 do not exceed.
        let at = |share: usize| counts[(counts.len() * share).div_ceil(100).max(1) - 1];
        let name = split.name();
        let (low, high) = (counts[0], counts[counts.len() - 1]);
        let (p5, p25, p50, p75, p95) = (at(5), at(25), at(50), at(75), at(95));
        let _ = writeln!(
            out,
            "| {name} | {low} | {p5} | {p25} | {p50} | {mean:.0} | {p75} | {p95} | {high} |"
        );
    }
    out + "\n" + &histogram(kept)
}

/// Chunks by tokens, in at most twenty steps of a round width.
fn histogram(kept: &[Kept]) -> String {
    let counts = || kept.iter().map(|chunk| chunk.place.tokens);
    let most = counts().max().unwrap_or(0);
    let widths = (0..9).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10_u32.pow(zeros)));
    let width = widths.into_iter().find(|width| most / width < 20).unwrap_or(u32::MAX);
    let mut bins = vec![0; (most / width) as usize + 1];
    counts().for_each(|tokens| bins[(tokens / width) as usize] += 1);
    let highest = bins.iter().copied().max().unwrap_or(0).max(1);
    let first = bins.iter().position(|count| *count > 0).unwrap_or(0);
    let mut out = String::from("```\n   tokens  chunks\n");
    for (i, count) in bins.iter().enumerate().skip(first) {
        let bar = "#".repeat((count * WIDTH).div_ceil(highest));
        let _ = writeln!(out, "{:>9} {count:>7} {bar}", format!("{}-", i as u32 * width));
    }
    out + "```\n"
}

fn removals(corpus: &Corpus, fates: &Fates, forbidden: &Forbidden) -> String {
    let mut out = String::from(
        "## What was left out\n\nIn this order; `removed.jsonl` names each chunk and why.\n\n\
         | | chunks | tokens |\n| --- | ---: | ---: |\n",
    );
    let mut row = |name: &str, with: &dyn Fn(Option<Reason>) -> bool| {
        let chosen = corpus.chunks.iter().zip(&fates.removed);
        let chosen = chosen.filter(|(_, own)| with(own.as_ref().map(|own| own.reason)));
        let (chunks, tokens) = chosen.fold((0, 0), |(chunks, tokens), (chunk, _)| {
            (chunks + 1, tokens + u64::from(chunk.place.tokens))
        });
        let _ = writeln!(out, "| {name} | {chunks} | {tokens} |");
    };
    row("given", &|_| true);
    for reason in Reason::ALL {
        row(&reason.name().replace('_', " "), &|own| own == Some(reason));
    }
    row("kept", &|own| own.is_none());
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for own in fates.removed.iter().flatten().filter(|own| own.reason == Reason::Quality) {
        *rules.entry(own.detail.split(':').next().unwrap_or_default()).or_default() += 1;
    }
    if !rules.is_empty() {
        let rules: Vec<String> = rules.iter().map(|(rule, n)| format!("`{rule}` {n}")).collect();
        let _ = writeln!(out, "\nRules of quality that were broken first: {}.", rules.join(", "));
    }
    match forbidden.texts {
        0 => out += "\nNo evaluation was given, so contamination was not looked for.\n",
        texts => {
            let short = forbidden.short;
            let _ = writeln!(
                out,
                "\nThe evaluation has {texts} texts, {short} of them too short to look for."
            );
        }
    }
    out
}

/// How many chunks there are of each kind.
fn counts(
    title: &str,
    column: &str,
    kept: &[Kept],
    kind: impl Fn(&Kept) -> Option<String>,
) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for chunk in kept {
        *counts.entry(kind(chunk).unwrap_or_else(|| "uncertain".into())).or_default() += 1;
    }
    let mut out = format!("## {title}\n\n| {column} | chunks | share |\n| --- | ---: | ---: |\n");
    for (name, count) in counts {
        let share = 100.0 * count as f64 / kept.len().max(1) as f64;
        let _ = writeln!(out, "| {name} | {count} | {share:.1} % |");
    }
    out
}

fn documents(corpus: &Corpus, kept: &[Kept]) -> String {
    let mut out = String::from(
        "## Documents\n\n| document | BLAKE3 of its text | split | chunks given | kept | tokens kept |\n\
         | --- | --- | --- | ---: | ---: | ---: |\n",
    );
    let mut rows: BTreeMap<&str, (&super::corpus::Chunk, usize, Vec<&Kept>)> = BTreeMap::new();
    for chunk in &corpus.chunks {
        rows.entry(&chunk.place.document).or_insert((chunk, 0, Vec::new())).1 += 1;
    }
    for chunk in kept {
        if let Some(row) = rows.get_mut(chunk.place.document.as_str()) {
            row.2.push(chunk);
        }
    }
    for (name, (chunk, given, own)) in rows.iter().take(LISTED) {
        let split = own.first().map_or("-", |chunk| chunk.split.name());
        let tokens: u64 = own.iter().map(|chunk| u64::from(chunk.place.tokens)).sum();
        let digest = &chunk.place.digest.to_string()[..16];
        let name = chunk.place.source.as_deref().unwrap_or(name).replace('|', "\\|");
        let kept = own.len();
        let _ = writeln!(out, "| {name} | `{digest}` | {split} | {given} | {kept} | {tokens} |");
    }
    if let Some(more) = rows.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(out, "\nAnd {more} more, in `index.jsonl`.");
    }
    out
}

fn settings(params: &Params) -> String {
    let json = serde_json::to_string_pretty(params).unwrap_or_default();
    format!("## Parameters\n\n```json\n{json}\n```\n")
}

fn of<'a, 'b>(kept: &'a [Kept<'b>], split: Split) -> impl Iterator<Item = &'a Kept<'b>> {
    kept.iter().filter(move |chunk| chunk.split == split)
}

/// The name under which serde writes a plain variant.
fn lower(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
