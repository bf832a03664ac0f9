//! Near duplicates: texts that share most of their runs of words (shingles).
//!
//! MinHash finds the candidates: a signature keeps the least value of each of many hashes of a text's
//! shingles, and two signatures agree at a place with a probability that is the share of shingles
//! that the texts have in common (their Jaccard similarity). Bands of places that agree in full are
//! looked up in a table. Each candidate is then compared exactly, so that nothing is called a
//! duplicate that is none; the bands are chosen so that 99 of 100 pairs at the threshold are found.
//! Of texts alike the first stays. One that is contained in a much longer one is not found.

use std::collections::HashMap;

use rayon::prelude::*;
use rustc_hash::FxBuildHasher;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{grams, mix};

/// What a near duplicate is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Near {
    /// The share of common shingles (Jaccard similarity) from which on two texts are alike.
    pub threshold: f64,
    /// The words of a shingle.
    pub shingle: u32,
    /// The hashes of a signature.
    pub permutations: u32,
}

impl Default for Near {
    fn default() -> Near {
        Near { threshold: 0.8, shingle: 5, permutations: 128 }
    }
}

/// For each text, as its words, the earlier one that it repeats and how alike they are. That one
/// repeats no other.
pub fn repeats(texts: &[Vec<u64>], near: &Near) -> Vec<Option<(usize, f64)>> {
    let shingles: Vec<Vec<u64>> = texts
        .par_iter()
        .map(|words| {
            let mut all: Vec<u64> = grams(words, near.shingle as usize).collect();
            all.sort_unstable();
            all.dedup();
            all
        })
        .collect();
    let (bands, rows) = bands(near);
    let hashes: Vec<(u64, u64)> =
        (0..bands as u64 * rows as u64).map(|i| (mix(2 * i + 1) | 1, mix(!i))).collect();
    let signatures: Vec<Vec<u64>> =
        shingles.par_iter().map(|own| signature(own, &hashes, rows)).collect();
    let mut tables: Vec<HashMap<u64, Vec<usize>, FxBuildHasher>> = vec![HashMap::default(); bands];
    let mut found = Vec::with_capacity(texts.len());
    for (i, signature) in signatures.iter().enumerate() {
        if shingles[i].is_empty() {
            found.push(None);
            continue;
        }
        let known = tables.iter().zip(signature).filter_map(|(table, band)| table.get(band));
        let mut candidates: Vec<usize> = known.flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let alike = candidates.into_iter().map(|j| (j, jaccard(&shingles[j], &shingles[i])));
        let best = alike.filter(|(_, share)| *share >= near.threshold).fold(
            None,
            |best: Option<(usize, f64)>, next| match best {
                Some(best) if best.1 >= next.1 => Some(best),
                _ => Some(next),
            },
        );
        if best.is_none() {
            for (table, band) in tables.iter_mut().zip(signature) {
                table.entry(*band).or_default().push(i);
            }
        }
        found.push(best);
    }
    found
}

/// How many bands, and how many hashes each: the longest bands that still find 99 of 100 pairs at
/// the threshold.
fn bands(near: &Near) -> (usize, usize) {
    let all = near.permutations.max(1) as usize;
    let finds =
        |rows: usize| 1.0 - (1.0 - near.threshold.powi(rows as i32)).powi((all / rows) as i32);
    let rows = (1..=all).rev().find(|rows| finds(*rows) >= 0.99).unwrap_or(1);
    (all / rows, rows)
}

/// The bands of a signature, each as one number.
fn signature(shingles: &[u64], hashes: &[(u64, u64)], rows: usize) -> Vec<u64> {
    let mut least = vec![u64::MAX; hashes.len()];
    for shingle in shingles {
        for (least, (factor, addend)) in least.iter_mut().zip(hashes) {
            *least = (*least).min(shingle.wrapping_mul(*factor).wrapping_add(*addend) >> 16);
        }
    }
    least.chunks_exact(rows).map(|band| band.iter().fold(0, |sum, x| mix(sum ^ x))).collect()
}

/// The share of the elements of two ascending lists that both have.
fn jaccard(one: &[u64], two: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0);
    while let (Some(a), Some(b)) = (one.get(i), two.get(j)) {
        both += usize::from(a == b);
        i += usize::from(a <= b);
        j += usize::from(b <= a);
    }
    both as f64 / (one.len() + two.len() - both).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` words that no other seed has.
    fn text(seed: u64, count: u64) -> Vec<u64> {
        (0..count).map(|i| mix(seed << 32 | i)).collect()
    }

    #[test]
    fn alike_is_found_and_unlike_is_not() {
        let near = Near::default();
        let base = text(1, 1000);
        let mut edited = base.clone();
        edited[10] = 7;
        edited[600] = 8;
        let mut half = base.clone();
        half.splice(500.., text(2, 500));
        let texts = [base.clone(), text(3, 1000), edited, half, base, vec![], vec![]];
        let found = repeats(&texts, &near);
        assert_eq!(found[4], Some((0, 1.0)));
        let (at, share) = found[2].unwrap();
        // Each edit spoils five of 996 shingles, in both texts.
        assert!(at == 0 && (share - 986.0 / 1006.0).abs() < 1e-12, "{share}");
        for unlike in [0, 1, 3, 5, 6] {
            assert_eq!(found[unlike], None, "{unlike}");
        }
    }

    #[test]
    fn pairs_at_the_threshold_are_found_and_below_it_are_not() {
        let near = Near::default();
        for (changed, expected) in [(21, 200), (26, 0)] {
            let found = (0..200u64).filter(|seed| {
                // Every change spoils five shingles of 996.
                let base = text(*seed, 1000);
                let mut other = base.clone();
                for i in 0..changed {
                    other[10 + i * 35] = !base[i];
                }
                repeats(&[base, other], &near)[1].is_some()
            });
            let found = found.count() as i64;
            assert!((found - expected).abs() <= 4, "{changed}: {found}");
        }
        assert_eq!(bands(&near), (21, 6));
        assert_eq!(bands(&Near { threshold: 1.0, ..near }), (1, 128));
    }

    #[test]
    fn short_texts_are_compared_whole() {
        let texts = [text(1, 3), text(1, 3), text(2, 3)];
        assert_eq!(repeats(&texts, &Near::default()), [None, Some((0, 1.0)), None]);
    }
}
