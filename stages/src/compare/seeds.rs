//! A model that was trained with several seeds: the spread of its Sharpe ratios, and its rank.
//!
//! A rank is taken within a seed, among all models that were run with it; a model without seeds, such
//! as a rule, takes part in each. Median and quartiles are linear between neighbours.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::evaluate::inference::quantile;

/// A model over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seeds {
    /// The model, without its seed.
    pub name: String,
    /// Its seeds; none of a model that has only one run.
    pub seeds: Vec<String>,
    /// Sharpe ratio a year of each, in the order of the seeds.
    pub sharpes: Vec<Option<f64>>,
    /// Quartiles of the Sharpe ratios: 25 %, median, 75 %.
    pub sharpe: Option<[f64; 3]>,
    /// Quartiles of the ranks by Sharpe ratio within each seed; 1 is the best.
    pub rank: Option<[f64; 3]>,
}

/// A run as it takes part.
pub struct Entry<'a> {
    /// The model without its seed.
    pub base: &'a str,
    /// The seed, where the name has one.
    pub seed: Option<&'a str>,
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
}

/// The models over their seeds, by median rank; empty where no model has two.
pub fn seeds(entries: &[Entry]) -> Vec<Seeds> {
    let mut models: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        models.entry(entry.base).or_default().push(entry);
    }
    let several = |runs: &Vec<&Entry>| runs.iter().filter(|r| r.seed.is_some()).count() > 1;
    if !models.values().any(several) {
        return Vec::new();
    }
    let mut all: Vec<&str> =
        entries.iter().filter_map(|e| e.seed).collect::<BTreeSet<_>>().into_iter().collect();
    all.sort_by(|a, b| number(a).total_cmp(&number(b)).then(a.cmp(b)));
    let mut ranks: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for seed in &all {
        let takes = |e: &&Entry| e.seed.is_none_or(|own| own == *seed);
        let field: Vec<&Entry> = entries.iter().filter(takes).collect();
        for entry in &field {
            let Some(own) = entry.sharpe else { continue };
            let better = field.iter().filter(|e| e.sharpe.is_some_and(|s| s > own)).count();
            ranks.entry(entry.base).or_default().push(1.0 + better as f64);
        }
    }
    let mut out: Vec<Seeds> = models
        .into_iter()
        .map(|(name, mut runs)| {
            runs.sort_by(|a, b| {
                let of = |e: &Entry| e.seed.map_or(f64::NEG_INFINITY, number);
                of(a).total_cmp(&of(b)).then(a.seed.cmp(&b.seed))
            });
            Seeds {
                name: name.to_owned(),
                seeds: runs.iter().filter_map(|r| r.seed.map(String::from)).collect(),
                sharpe: quartiles(runs.iter().filter_map(|r| r.sharpe).collect()),
                sharpes: runs.iter().map(|r| r.sharpe).collect(),
                rank: ranks.remove(name).and_then(quartiles),
            }
        })
        .collect();
    let median = |s: &Seeds| s.rank.map_or(f64::INFINITY, |r| r[1]);
    out.sort_by(|a, b| median(a).total_cmp(&median(b)).then(a.name.cmp(&b.name)));
    out
}

fn number(seed: &str) -> f64 {
    seed.parse().unwrap_or(f64::INFINITY)
}

fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    Some([quantile(&values, 0.25)?, quantile(&values, 0.5)?, quantile(&values, 0.75)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_taken_within_a_seed() {
        let entry = |base, seed, sharpe| Entry { base, seed, sharpe };
        let found = seeds(&[
            entry("net", Some("10"), Some(1.0)),
            entry("net", Some("2"), Some(0.2)),
            entry("net", Some("3"), Some(0.6)),
            entry("logit", None, Some(0.5)),
            entry("flat", None, None),
        ]);
        let names: Vec<&str> = found.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["net", "logit", "flat"]);
        // Seed 2: logit first; seeds 3 and 10: net first.
        assert_eq!(found[0].rank, Some([1.0, 1.0, 1.5]));
        assert_eq!(found[1].rank, Some([1.5, 2.0, 2.0]));
        assert_eq!(found[0].seeds, ["2", "3", "10"]);
        assert_eq!(found[0].sharpes, [Some(0.2), Some(0.6), Some(1.0)]);
        assert_eq!(found[0].sharpe, Some([0.4, 0.6, 0.8]));
        assert_eq!((found[2].rank, found[2].sharpe), (None, None));
        assert!(seeds(&[entry("net", Some("1"), Some(1.0)), entry("b", None, None)]).is_empty());
    }
}
