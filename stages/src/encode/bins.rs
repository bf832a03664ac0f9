//! Percentiles of the training span, and the words for where a value lies: `bins.json`.
//!
//! The cuts come from training rows alone; a test row far outside them is at the first or the
//! ninety-ninth percentile, and no cut moves for it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::featurize::fit::short;
use crate::featurize::split::{Split, evenly};
use crate::featurize::table::{Extent, Rows};

/// The cuts of every feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bins {
    /// Dates of the first and last training row.
    pub train: (String, String),
    /// Training rows.
    pub rows: usize,
    /// The 1st to 99th percentile of each feature over them.
    pub percentiles: BTreeMap<String, Vec<f64>>,
}

/// Training rows that determine percentiles well enough.
const ROWS: usize = 262_144;

impl Bins {
    /// Reads the cuts off the training rows of a series; of a long span off [`ROWS`] of them, spread
    /// evenly.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn fit(files: &[PathBuf], extent: Extent) -> Result<Bins> {
        let rows = Rows::open_all(files)?;
        let names = rows.names().to_vec();
        let mut columns = vec![Vec::new(); names.len()];
        let mut chosen = evenly(extent.train, ROWS).peekable();
        let mut dates: Option<(String, String)> = None;
        let mut number = 0;
        for row in rows.take(extent.train_end) {
            let row = row?;
            if row.split != Split::Train {
                continue;
            }
            let date = row.date;
            dates = Some((dates.map_or_else(|| date.clone(), |(first, _)| first), date));
            if chosen.next_if_eq(&number).is_some() {
                for (column, value) in columns.iter_mut().zip(row.features) {
                    column.push(value);
                }
            }
            number += 1;
        }
        let cuts = |mut values: Vec<f64>| -> Vec<f64> {
            values.sort_by(f64::total_cmp);
            (1..100).map(|p| short(quantile(&values, f64::from(p) / 100.0))).collect()
        };
        let percentiles = names.into_iter().zip(columns.into_iter().map(cuts)).collect();
        Ok(Bins { train: dates.unwrap_or_default(), rows: extent.train, percentiles })
    }

    /// Whether they are of a book of orders rather than of bars.
    pub fn book(&self) -> bool {
        self.percentiles.contains_key("microprice_dev_bps")
    }

    /// The percentile of a value among the training rows, 1 to 99.
    pub fn percentile(&self, name: &str, value: f64) -> usize {
        let cuts = self.percentiles.get(name).map_or(&[][..], Vec::as_slice);
        cuts.partition_point(|&cut| cut <= value).clamp(1, 99)
    }
}

/// A quantile of sorted values, linear between neighbours; 0 of nothing.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * sorted.len().saturating_sub(1) as f64;
    let below = at.floor() as usize;
    let (Some(&a), b) = (sorted.get(below), sorted.get(below + 1)) else { return 0.0 };
    b.map_or(a, |&b| a + (at - below as f64) * (b - a))
}

/// The word for a value of a feature. Sizes are judged by percentile, signs and fixed scales by
/// the value. On a `book`, where a tick's flow and moves have no scale of their own, a sign is that
/// of the value and its strength that of the percentile.
pub fn level(name: &str, value: f64, percentile: usize, book: bool) -> &'static str {
    const SIGN: [&str; 5] =
        ["strongly negative", "negative", "neutral", "positive", "strongly positive"];
    let signed = |small: f64, large: f64| pick(value, [-large, -small, small, large], SIGN);
    let ranked = |words| pick(percentile as f64, [10.0, 30.0, 70.0, 90.0], words);
    let leaning = || match (value.partial_cmp(&0.0), percentile) {
        (_, 41..=59) | (Some(Ordering::Equal) | None, _) => SIGN[2],
        (Some(Ordering::Less), 0..=10) => SIGN[0],
        (Some(Ordering::Less), _) => SIGN[1],
        (Some(Ordering::Greater), 90..) => SIGN[4],
        (Some(Ordering::Greater), _) => SIGN[3],
    };
    match name {
        "order_flow_imbalance" | "microprice_dev_bps" if book => leaning(),
        "vwap_dev_bps" if book => {
            let near = (20..80).contains(&percentile);
            match (value < 0.0, near) {
                (true, true) => "below",
                (true, false) => "far below",
                (false, true) => "above",
                (false, false) => "far above",
            }
        }
        "spread_bps" => ranked(["very narrow", "narrow", "typical", "wide", "very wide"]),
        "depth" => ranked(["very thin", "thin", "typical", "deep", "very deep"]),
        "imbalance" => signed(0.1, 0.6),
        "order_flow_imbalance" => signed(0.02, 0.2),
        "momentum_1" | "momentum_5" | "momentum_30" => signed(0.25, 1.5),
        "momentum_12_1" => signed(0.02, 0.3),
        "vwap_dev_bps" => pick(
            value,
            [-200.0, -0.5, 0.5, 200.0],
            ["far below", "below", "at", "above", "far above"],
        ),
        "rsi_14" => pick(
            value,
            [30.0, 45.0, 55.0, 70.0],
            ["very low", "low", "typical", "high", "very high"],
        ),
        "p_high_vol" => pick(
            value,
            [0.1, 0.4, 0.6, 0.9],
            ["calm", "mostly calm", "undecided", "mostly volatile", "volatile"],
        ),
        _ => ranked(["very low", "low", "typical", "high", "very high"]),
    }
}

/// The word of the class in which a value lies; on a cut, the upper one.
fn pick(value: f64, cuts: [f64; 4], words: [&'static str; 5]) -> &'static str {
    let class = cuts.iter().filter(|&&cut| value >= cut).count();
    words.get(class).copied().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_linear_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&sorted, 0.5), 3.0);
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 1.0), 8.0);
    }

    #[test]
    fn words_follow_sign_and_rank() {
        assert_eq!(level("momentum_5", -1.2, 50, false), "negative");
        assert_eq!(level("momentum_5", 0.0, 1, false), "neutral");
        assert_eq!(level("spread_bps", 3.5, 20, false), "narrow");
        assert_eq!(level("realised_vol", 3.5, 90, false), "very high");
        assert_eq!(level("rsi_14", 70.0, 1, false), "very high");
        assert_eq!(level("order_flow_imbalance", 11.0, 95, true), "strongly positive");
        assert_eq!(level("order_flow_imbalance", 11.0, 50, true), "neutral");
        assert_eq!(level("vwap_dev_bps", -0.4, 30, true), "below");
    }
}
