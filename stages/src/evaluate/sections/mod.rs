//! What a sceptical reader must find: the eleven sections of the protocol, in its order. What cannot
//! be computed says why.

mod evidence;
mod market;
mod model;
mod origin;

use super::assessment::Assessment;
use super::charts::Figure;
use super::document::{Block, Section};
use crate::Result;

/// All sections, the figures in their places.
///
/// # Errors
/// The parameters cannot be written.
pub fn all(a: &Assessment, figures: &[Figure]) -> Result<Vec<Section>> {
    let numbered: Vec<(&str, Vec<Block>)> = vec![
        ("Provenance", origin::provenance(a)?),
        ("Contamination", origin::contamination(a)),
        ("Causality", evidence::causality(a)),
        ("Splits", evidence::splits(a)),
        ("Baselines", market::baselines(a, figures)),
        ("Costs", market::costs(a, figures)),
        ("Uncertainty", market::uncertainty(a, figures)),
        ("Selection", evidence::selection(a)),
        ("Forecast is not P&L", model::quality(a, figures)),
        ("The index", market::index(a)),
        ("Verdict on each target", model::verdict(a)),
    ];
    let mut sections: Vec<Section> = numbered
        .into_iter()
        .zip(1..)
        .map(|((title, blocks), n)| Section { number: Some(n), title: title.into(), blocks })
        .collect();
    sections.push(Section {
        number: None,
        title: "What this does not show".into(),
        blocks: vec![Block::List(origin::limits(a))],
    });
    Ok(sections)
}

/// The figures of these names, as a block where there is one.
fn shown(figures: &[Figure], names: &[&str]) -> Option<Block> {
    let found: Vec<Figure> = figures.iter().filter(|f| names.contains(&f.name)).cloned().collect();
    (!found.is_empty()).then_some(Block::Figures(found))
}

/// A paragraph.
fn words(text: impl Into<String>) -> Block {
    Block::Words(text.into())
}
