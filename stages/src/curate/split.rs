//! Training and validation by document, those that repeat each other on the same side.
//!
//! A group of documents goes where a hash of its first name and the seed says. So a document that is
//! added moves no other, unless it joins two groups. The share that is held out is met on average and
//! not exactly; where chance would leave a side empty, one group is moved there.

use quantmill_cache::Digest;
use serde::Serialize;

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// To validate.
    Validation,
}

impl Split {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
        }
    }
}

/// For each of `count` things, the first one of its group: those that `pairs` join.
pub fn groups(count: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Vec<usize> {
    let mut first: Vec<usize> = (0..count).collect();
    fn root(first: &mut [usize], mut at: usize) -> usize {
        while first[at] != at {
            first[at] = first[first[at]];
            at = first[at];
        }
        at
    }
    for (one, two) in pairs {
        let (one, two) = (root(&mut first, one), root(&mut first, two));
        first[one.max(two)] = one.min(two);
    }
    (0..count).map(|at| root(&mut first, at)).collect()
}

/// The side of each group, by its name.
pub fn sides(names: &[&str], share: f64, seed: u64) -> Vec<Split> {
    let draws: Vec<f64> = names.iter().map(|name| draw(name, seed)).collect();
    let side = |draw: &f64| if *draw < share { Split::Validation } else { Split::Train };
    let mut sides: Vec<Split> = draws.iter().map(side).collect();
    if share > 0.0 && sides.len() > 1 {
        let order = |a: &usize, b: &usize| draws[*a].total_cmp(&draws[*b]);
        let (least, most) = ((0..sides.len()).min_by(order), (0..sides.len()).max_by(order));
        for (at, side) in [(least, Split::Validation), (most, Split::Train)] {
            if let Some(at) = at.filter(|_| !sides.contains(&side)) {
                sides[at] = side;
            }
        }
    }
    sides
}

/// A number of 0..1 that belongs to a name.
fn draw(name: &str, seed: u64) -> f64 {
    let digest =
        Digest::derive("quantmill 2026 split by document", format!("{seed} {name}").as_bytes());
    let bytes = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(bytes) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_joined_by_pairs() {
        let pairs = [(4, 2), (3, 4), (0, 0)].into_iter();
        assert_eq!(groups(6, pairs), [0, 1, 2, 2, 2, 5]);
    }

    #[test]
    fn the_share_is_met_on_average_and_additions_move_nothing() {
        let names: Vec<String> = (0..2000).map(|i| format!("paper {i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all = sides(&names, 0.1, 7);
        let held = all.iter().filter(|side| **side == Split::Validation).count();
        assert!((150..250).contains(&held), "{held}");
        assert_eq!(sides(&names[..1500], 0.1, 7), all[..1500]);
        assert_ne!(sides(&names, 0.1, 8), all);
    }

    #[test]
    fn neither_side_stays_empty() {
        for share in [1e-9, 0.05, 0.95] {
            for seed in 0..20 {
                let sides = sides(&["a", "b", "c"], share, seed);
                assert!(sides.contains(&Split::Train) && sides.contains(&Split::Validation));
            }
        }
        assert_eq!(sides(&["a", "b"], 0.0, 0), [Split::Train; 2]);
        assert_eq!(sides(&["a"], 0.05, 0), [Split::Train]);
    }
}
