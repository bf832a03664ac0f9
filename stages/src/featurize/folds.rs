//! Splits into folds for cross-validation whose training rows share no information with the test
//! rows: walk-forward, purged k-fold and combinatorial purged cross-validation.
//!
//! A row is known at t0 and its label at t1. Row i may be trained on for a block of test rows iff
//! its label ends before the block begins, t1_i < t0_j for every j, or it begins after the block's
//! labels and the embargo (Lopez de Prado 2018, ch. 7 and 12). Each block of test rows that hangs
//! together is purged by itself: a fold whose test rows are two blocks far apart keeps what lies
//! between.
//!
//! Nothing is shuffled. Rows without a label take no part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invalid;

/// How rows are split into folds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Tests follow each other at the end of the rows; each trains on all that came before.
    WalkForward {
        /// Folds.
        #[serde(default = "five")]
        folds: usize,
        /// Rows of a test. Without it, the rows are cut in `folds` + 1 equal parts.
        #[serde(default)]
        test_rows: Option<usize>,
    },
    /// Each of k blocks is the test once.
    PurgedKFold {
        /// Blocks.
        #[serde(default = "five")]
        folds: usize,
    },
    /// Every choice of `test` of the `groups` is the test once (CPCV).
    Combinatorial {
        /// Blocks.
        #[serde(default = "six")]
        groups: usize,
        /// Blocks of a test.
        #[serde(default = "two")]
        test: usize,
    },
}

fn five() -> usize {
    5
}
fn six() -> usize {
    6
}
fn two() -> usize {
    2
}

/// Where the embargo begins to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmbargoFrom {
    /// At the end of the last label of a test.
    #[default]
    Label,
    /// At the last test row: shorter than the label, it does nothing.
    Row,
}

/// A fold: numbers of rows, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// Rows to train on.
    pub train: Vec<usize>,
    /// Rows to judge by.
    pub test: Vec<usize>,
    /// Rows left out because their label overlaps a test's.
    pub purged: usize,
    /// Rows left out for the embargo alone.
    pub embargoed: usize,
}

impl Scheme {
    /// What the types cannot say.
    ///
    /// # Errors
    /// Too few folds, or as many test groups as there are groups.
    pub fn check(&self, path: &str) -> Result<(), Invalid> {
        let few =
            |name: &str| Err(Invalid::new(format!("{path}.{name}"), "must lie between 2 and 100"));
        match *self {
            Scheme::WalkForward { folds, test_rows } => match (folds, test_rows) {
                (1..=1000, None | Some(1..)) => Ok(()),
                (_, Some(0)) => {
                    Err(Invalid::new(format!("{path}.walk_forward.test_rows"), "must be above 0"))
                }
                _ => Err(Invalid::new(
                    format!("{path}.walk_forward.folds"),
                    "must lie between 1 and 1000",
                )),
            },
            Scheme::PurgedKFold { folds } if !(2..=100).contains(&folds) => {
                few("purged_k_fold.folds")
            }
            Scheme::Combinatorial { groups, .. } if !(2..=20).contains(&groups) => Err(
                Invalid::new(format!("{path}.combinatorial.groups"), "must lie between 2 and 20"),
            ),
            Scheme::Combinatorial { groups, test } if test == 0 || test >= groups => {
                Err(Invalid::new(
                    format!("{path}.combinatorial.test"),
                    "must be at least 1 and less than `groups`",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The folds of rows with `spans` (t0, t1), which ascend in t0; `embargo` is a number of rows.
    pub fn folds(&self, spans: &[(i64, i64)], embargo: usize, from: EmbargoFrom) -> Vec<Fold> {
        let tests = self.tests(spans.len());
        let walk = matches!(self, Scheme::WalkForward { .. });
        tests.into_iter().map(|test| fold(spans, &test, embargo, from, walk)).collect()
    }

    /// The test blocks, as half-open ranges of rows, of each fold.
    fn tests(&self, rows: usize) -> Vec<Vec<(usize, usize)>> {
        match *self {
            Scheme::WalkForward { folds, test_rows } => {
                let each = test_rows.unwrap_or(rows / (folds + 1));
                let first = rows.saturating_sub(folds * each);
                let test = |fold: usize| (first + fold * each, first + (fold + 1) * each);
                (0..folds).map(|fold| vec![test(fold)]).filter(|t| t[0].1 <= rows).collect()
            }
            Scheme::PurgedKFold { folds } => blocks(rows, folds).map(|block| vec![block]).collect(),
            Scheme::Combinatorial { groups, test } => {
                let blocks: Vec<_> = blocks(rows, groups).collect();
                let chosen = choose(groups, test).into_iter();
                chosen.map(|of| joined(of.into_iter().map(|group| blocks[group]))).collect()
            }
        }
    }

    /// The paths through all rows that the tests of the folds make: C(groups, test) test / groups.
    pub fn paths(&self) -> usize {
        match *self {
            Scheme::Combinatorial { groups, test } => choose(groups, test).len() * test / groups,
            _ => 1,
        }
    }
}

/// `count` blocks of `rows` as equal as can be, the longer ones first.
fn blocks(rows: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    let (each, more) = (rows / count, rows % count);
    let begin = move |block: usize| block * each + block.min(more);
    (0..count).map(move |block| (begin(block), begin(block + 1)))
}

/// Blocks in order, with those that touch made one.
fn joined(blocks: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (begin, end) in blocks {
        match out.last_mut() {
            Some(last) if last.1 == begin => last.1 = end,
            _ => out.push((begin, end)),
        }
    }
    out
}

/// Every choice of `k` of the numbers below `n`, in order.
fn choose(n: usize, k: usize) -> Vec<Vec<usize>> {
    let mut out = Vec::new();
    let mut at: Vec<usize> = (0..k).collect();
    loop {
        out.push(at.clone());
        let Some(i) = (0..k).rev().find(|&i| at[i] < n - k + i) else { return out };
        at[i] += 1;
        for j in i + 1..k {
            at[j] = at[j - 1] + 1;
        }
    }
}

fn fold(
    spans: &[(i64, i64)],
    test: &[(usize, usize)],
    embargo: usize,
    from: EmbargoFrom,
    walk: bool,
) -> Fold {
    let mut fold = Fold::default();
    // What each block takes: labels that overlap [t0, t1], and rows up to the embargo's end.
    let taken: Vec<(i64, i64, usize)> = test
        .iter()
        .filter(|(begin, end)| begin < end)
        .map(|&(begin, end)| {
            let last = spans[begin..end].iter().map(|span| span.1).max().unwrap_or(i64::MIN);
            let after = match from {
                EmbargoFrom::Label => spans.partition_point(|span| span.0 <= last),
                EmbargoFrom::Row => end,
            };
            (spans[begin].0, last, after + embargo)
        })
        .collect();
    let ahead = test.last().map_or(0, |block| block.0);
    for (row, &(t0, t1)) in spans.iter().enumerate() {
        if test.iter().any(|&(begin, end)| (begin..end).contains(&row)) {
            fold.test.push(row);
        } else if walk && row >= ahead {
            continue;
        } else if taken.iter().any(|&(begin, end, _)| t1 >= begin && t0 <= end) {
            fold.purged += 1;
        } else if taken.iter().any(|&(_, end, until)| t0 > end && row < until) {
            fold.embargoed += 1;
        } else {
            fold.train.push(row);
        }
    }
    fold
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Sixty days with labels of `ahead` further days.
    fn days(ahead: i64) -> Vec<(i64, i64)> {
        (0..60).map(|day| (day, day + ahead)).collect()
    }

    fn reference() -> Value {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/featurize/testdata/cv.json");
        serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
    }

    fn agrees(folds: &[Fold], expected: &Value) {
        let rows = |value: &Value| -> Vec<usize> {
            let row = |v: &Value| match v {
                Value::Array(block) => block.iter().map(|v| v.as_u64().unwrap() as usize).collect(),
                v => vec![v.as_u64().unwrap() as usize],
            };
            value.as_array().unwrap().iter().flat_map(row).collect()
        };
        let expected = expected.as_array().unwrap();
        assert_eq!(folds.len(), expected.len());
        for (fold, expected) in folds.iter().zip(expected) {
            assert_eq!(fold.test, rows(&expected["test"]));
            assert_eq!(fold.train, rows(&expected["train"]), "test {:?}", fold.test);
        }
    }

    /// purgedcv takes the end of a label as not part of it, so that its five days are four further
    /// ones; skfolio counts five rows and the embargo after them.
    #[test]
    fn agrees_with_the_reference() {
        let expected = reference();
        let k_fold = Scheme::PurgedKFold { folds: 5 };
        agrees(&k_fold.folds(&days(4), 0, EmbargoFrom::Label), &expected["purge_only"]);
        agrees(&k_fold.folds(&days(4), 3, EmbargoFrom::Row), &expected["embargo_3obs"]);
        let cpcv = Scheme::Combinatorial { groups: 6, test: 2 };
        assert_eq!(cpcv.paths() as u64, expected["skfolio_n_paths"].as_u64().unwrap());
        agrees(&cpcv.folds(&days(4), 0, EmbargoFrom::Label), &expected["cpcv_6_2"]);
        let skfolio = cpcv.folds(&days(5), 2, EmbargoFrom::Label);
        agrees(&skfolio, &expected["skfolio_cpcv_6_2_purge5_emb2"]);
        let walk = Scheme::WalkForward { folds: 4, test_rows: Some(8) };
        agrees(&walk.folds(&days(4), 0, EmbargoFrom::Label), &expected["walk_forward_exp_4x8"]);
    }

    proptest! {
        /// No label of a training row overlaps one of a test row, whatever the labels.
        #[test]
        fn nothing_leaks(
            steps in proptest::collection::vec((1i64..5, 0i64..40), 30..200),
            embargo in 0usize..10,
            kind in 0usize..3,
        ) {
            let scheme = [
                Scheme::WalkForward { folds: 3, test_rows: None },
                Scheme::PurgedKFold { folds: 4 },
                Scheme::Combinatorial { groups: 5, test: 2 },
            ][kind];
            let mut t0 = 0;
            let spans: Vec<(i64, i64)> = steps
                .iter()
                .map(|(step, label)| {
                    t0 += step;
                    (t0, t0 + label)
                })
                .collect();
            for fold in scheme.folds(&spans, embargo, EmbargoFrom::Label) {
                prop_assert!(!fold.test.is_empty());
                for &i in &fold.train {
                    for &j in &fold.test {
                        let apart = spans[i].1 < spans[j].0 || spans[i].0 > spans[j].1;
                        prop_assert!(apart, "train {i} {:?}, test {j} {:?}", spans[i], spans[j]);
                    }
                }
            }
        }
    }
}
