//! Which rows may be learnt from, and which are for judging.
//!
//! A row's label looks `horizon_bars` ahead, to t1. A training row whose t1 passes the end of the
//! training span is purged; the first `embargo_bars` after that end are kept out of the test span,
//! since windows and autocorrelation carry the training span into them. Both are `gap`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::date;
use crate::Invalid;

/// Where training ends and testing begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Splits {
    /// The last date of the training span, inclusive. Without it, `train_fraction` of the rows.
    pub train_end: Option<String>,
    /// The first date of the test span. Without it, the row after the training span.
    pub test_start: Option<String>,
    /// Share of the rows that are training span where `train_end` is not given. A file that grows
    /// then moves the end: give the date where runs are to be compared.
    pub train_fraction: f64,
    /// Rows after the training span that are never test rows.
    pub embargo_bars: usize,
    /// Bars that a label looks ahead.
    pub horizon_bars: usize,
}

impl Default for Splits {
    fn default() -> Splits {
        Splits {
            train_end: None,
            test_start: None,
            train_fraction: 0.7,
            embargo_bars: 5,
            horizon_bars: 5,
        }
    }
}

impl Splits {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A date that is none, dates in the wrong order, a share outside 0 to 1.
    pub fn check(&self) -> Result<(), Invalid> {
        for (name, text) in [("train_end", &self.train_end), ("test_start", &self.test_start)] {
            if text.as_ref().is_some_and(|t| date::key(t).is_none()) {
                let message = format!("`{}` is not a date", text.as_deref().unwrap_or_default());
                return Err(Invalid::new(format!("splits.{name}"), message)
                    .help("write YYYY-MM-DD, perhaps with a time: YYYY-MM-DD HH:MM:SS"));
            }
        }
        let (end, start) = (bound(&self.train_end), bound(&self.test_start));
        if let (Some(end), Some(start)) = (end, start)
            && date::up_to(&start, &end)
        {
            return Err(Invalid::new("splits.test_start", "the test span begins before train_end")
                .help("testing on rows that were learnt from proves nothing"));
        }
        if !(self.train_fraction > 0.0 && self.train_fraction < 1.0) {
            return Err(Invalid::new("splits.train_fraction", "must lie between 0 and 1"));
        }
        Ok(())
    }
}

/// The sort key of a bound that was checked before.
pub fn bound(text: &Option<String>) -> Option<String> {
    text.as_deref().and_then(date::key)
}

/// The split of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Some window is not full yet.
    Warmup,
    /// May be learnt from.
    Train,
    /// Purged or embargoed.
    Gap,
    /// For judging alone.
    Test,
}

impl Split {
    /// As the column has it.
    pub fn name(self) -> &'static str {
        match self {
            Split::Warmup => "warmup",
            Split::Train => "train",
            Split::Gap => "gap",
            Split::Test => "test",
        }
    }
    /// Reads [`Split::name`].
    pub fn parse(text: &str) -> Option<Split> {
        [Split::Warmup, Split::Train, Split::Gap, Split::Test]
            .into_iter()
            .find(|split| split.name() == text)
    }
}

/// The spans as row numbers, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Rows before this one may be training rows.
    pub train: usize,
    /// Rows from this one on are test rows.
    pub test: usize,
}

impl Spans {
    /// From the number of rows up to the end of the training span, and before the test span.
    pub fn new(splits: &Splits, up_to_train_end: usize, before_test: usize) -> Spans {
        Spans {
            train: up_to_train_end.saturating_sub(splits.horizon_bars),
            test: before_test.max(up_to_train_end + splits.embargo_bars),
        }
    }
    /// The split of row `row`, where every window is full.
    pub fn of(&self, row: usize) -> Split {
        match row {
            row if row < self.train => Split::Train,
            row if row < self.test => Split::Gap,
            _ => Split::Test,
        }
    }
}

/// `keep` of the numbers 0 to `rows`, spread evenly, the first among them; all where `keep` is as
/// many or more.
pub fn evenly(rows: usize, keep: usize) -> impl Iterator<Item = usize> {
    let keep = keep.min(rows);
    (0..keep).map(move |i| (i as u128 * rows as u128 / keep as u128) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_evenly() {
        assert_eq!(evenly(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(evenly(3, 9).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(evenly(0, 3).count(), 0);
    }
}
