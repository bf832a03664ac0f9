//! Which rows may be learnt from, and which are for judging.
//!
//! A row's label looks ahead to t1: `horizon_bars`, or what the label of the stage says where that is
//! later. A training row whose t1 passes the end of the training span is purged; the first
//! `embargo_bars` after that end are kept out of the test span, since windows and autocorrelation
//! carry the training span into them. Both are `gap`.
//!
//! Rows from `holdout_start` on are sealed: they are `holdout`, and no stage takes them unless its
//! `split: holdout` says so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::folds::{EmbargoFrom, Scheme};
use crate::Invalid;
use crate::market::time::{self, DAY, Form, SECOND};

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
    /// The first date of the sealed holdout. Without it there is none.
    pub holdout_start: Option<String>,
    /// Folds over the labelled rows before the holdout, written to output `folds`. Without it, none.
    pub folds: Option<Scheme>,
    /// Where the embargo of the folds begins to count.
    pub embargo_from: EmbargoFrom,
}

impl Default for Splits {
    fn default() -> Splits {
        Splits {
            train_end: None,
            test_start: None,
            train_fraction: 0.7,
            embargo_bars: 5,
            horizon_bars: 5,
            holdout_start: None,
            folds: None,
            embargo_from: EmbargoFrom::default(),
        }
    }
}

impl Splits {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A date that is none, dates in the wrong order, a share outside 0 to 1.
    pub fn check(&self) -> Result<(), Invalid> {
        for (name, text) in [
            ("train_end", &self.train_end),
            ("test_start", &self.test_start),
            ("holdout_start", &self.holdout_start),
        ] {
            if text.as_ref().is_some_and(|t| time::parse(t).is_none()) {
                let message = format!("`{}` is not a date", text.as_deref().unwrap_or_default());
                return Err(Invalid::new(format!("splits.{name}"), message).help(time::HINT));
            }
        }
        let (end, start) = (Bound::read(&self.train_end), Bound::read(&self.test_start));
        if let (Some(end), Some(start)) = (end, start)
            && end.holds(start.first)
        {
            return Err(Invalid::new("splits.test_start", "the test span begins before train_end")
                .help("testing on rows that were learnt from proves nothing"));
        }
        if let (Some(sealed), Some(before)) = (Bound::read(&self.holdout_start), start.or(end))
            && sealed.first <= before.first
        {
            return Err(Invalid::new(
                "splits.holdout_start",
                "the holdout begins before the test span",
            ));
        }
        if let Some(scheme) = &self.folds {
            scheme.check("splits.folds")?;
        }
        if !(self.train_fraction > 0.0 && self.train_fraction < 1.0) {
            return Err(Invalid::new("splits.train_fraction", "must lie between 0 and 1"));
        }
        Ok(())
    }
}

/// A date that bounds rows: of one that is only a day, the whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its first nanosecond.
    pub first: i64,
    /// Its last nanosecond.
    pub last: i64,
}

impl Bound {
    /// Reads a date; `None` where there is none.
    pub fn read(text: &Option<String>) -> Option<Bound> {
        let stamp = time::parse(text.as_deref()?)?;
        let wide = match stamp.form {
            Form::Date => DAY,
            Form::Seconds => SECOND,
            Form::Millis => 1_000_000,
            Form::Micros => 1_000,
            Form::Nanos => 1,
        };
        Some(Bound { first: stamp.time, last: stamp.time + wide - 1 })
    }

    /// Whether a time lies before its end.
    pub fn holds(&self, time: i64) -> bool {
        time <= self.last
    }
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
    /// Sealed.
    Holdout,
}

impl Split {
    /// All of them.
    pub const ALL: [Split; 5] =
        [Split::Warmup, Split::Train, Split::Gap, Split::Test, Split::Holdout];

    /// As the column has it.
    pub fn name(self) -> &'static str {
        match self {
            Split::Warmup => "warmup",
            Split::Train => "train",
            Split::Gap => "gap",
            Split::Test => "test",
            Split::Holdout => "holdout",
        }
    }
    /// Reads [`Split::name`].
    pub fn parse(text: &str) -> Option<Split> {
        Split::ALL.into_iter().find(|split| split.name() == text)
    }
}

/// The spans as row numbers, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// Rows before this one may be training rows.
    pub train: usize,
    /// Rows before this one are of the training span, whatever their labels.
    pub train_end: usize,
    /// Rows from this one on are test rows.
    pub test: usize,
    /// Rows from this one on are sealed.
    pub holdout: usize,
}

impl Spans {
    /// From the number of rows up to the end of the training span, before the test span, and before
    /// the holdout.
    pub fn new(
        splits: &Splits,
        up_to_train_end: usize,
        before_test: usize,
        before_holdout: usize,
    ) -> Spans {
        Spans {
            train: up_to_train_end.saturating_sub(splits.horizon_bars),
            train_end: up_to_train_end,
            test: before_test.max(up_to_train_end + splits.embargo_bars),
            holdout: before_holdout,
        }
    }
    /// The split of row `row`, where every window is full; its label ends at row `until`.
    pub fn of(&self, row: usize, until: usize) -> Split {
        match row {
            row if row >= self.holdout => Split::Holdout,
            row if row < self.train && until < self.train_end => Split::Train,
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
