//! What is wrong with market data, counted; and how much of it may pass.
//!
//! Nothing is dropped silently: what is left out or repaired is a number in [`Counts`], and a fault
//! that [`Quality`] does not let pass is an error with its file and line. By default none passes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::Place;
use crate::{Result, StageError};

/// How many faults of each kind may pass. What is then done about each is said with the field; by
/// default none may, and the first stops the stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    /// Lines that are not what they must be; they are left out.
    pub max_malformed: u64,
    /// Prices or sizes that are not numbers, prices of 0 or less, sizes below 0; the line is left out.
    pub max_bad_values: u64,
    /// Events earlier than the one before; they are taken at the time of the one before. Bars: left out.
    pub max_out_of_order: u64,
    /// Events that were there already (by their id), bars at a time that was there already; left out.
    pub max_duplicates: u64,
    /// Updates of the book that are missing (by their ids); the book is built anew.
    pub max_gaps: u64,
    /// Trades that are missing (by their ids); the rest is taken without them.
    pub max_trade_gaps: u64,
    /// Best bids at or above the best ask; the book is built anew, a quote left out.
    pub max_crossed: u64,
    /// Local times (`time_zone`) that a change of clocks skips or shows twice. One that is skipped is left
    /// out; of one that comes twice the first is taken, or the second where the first does not lie after
    /// the row before.
    #[serde(skip_serializing_if = "none")]
    pub max_local_times: u64,
}

fn none(count: &u64) -> bool {
    *count == 0
}

/// A kind of fault that may stop the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line that is not what it must be.
    Malformed,
    /// A price or size that cannot be one.
    BadValue,
    /// Earlier than the event before.
    OutOfOrder,
    /// There already.
    Duplicate,
    /// Updates are missing.
    Gap,
    /// Trades are missing.
    TradeGap,
    /// Bid at or above ask.
    Crossed,
    /// A local time that does not exist, or comes twice.
    LocalTime,
}

/// What was read, and what was found wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Lines or rows read, without headers.
    pub lines: u64,
    /// Changes of the book.
    pub updates: u64,
    /// Levels in them and in snapshots.
    pub levels: u64,
    /// Snapshots of the book.
    pub snapshots: u64,
    /// Best quotes.
    pub quotes: u64,
    /// Trades.
    pub trades: u64,
    /// Samples given.
    pub samples: u64,
    /// [`Fault::Malformed`]
    pub malformed: u64,
    /// [`Fault::BadValue`]
    pub bad_values: u64,
    /// [`Fault::OutOfOrder`]
    pub out_of_order: u64,
    /// [`Fault::Duplicate`]
    pub duplicates: u64,
    /// [`Fault::Gap`]
    pub gaps: u64,
    /// [`Fault::TradeGap`]
    pub trade_gaps: u64,
    /// [`Fault::Crossed`]
    pub crossed: u64,
    /// [`Fault::LocalTime`]
    pub local_times: u64,
    /// Changes and snapshots of the book older than the snapshot it was built from: left out, as the
    /// exchange's rules have it.
    pub stale: u64,
    /// Quotes older than the book: left out.
    pub superseded: u64,
    /// Lines of another kind or symbol: left out.
    pub other: u64,
    /// Events before the book was known well enough for a sample.
    pub warm_up: u64,
    /// Empty intervals, after a pause longer than `max_idle`, that gave no sample.
    pub idle: u64,
    /// Events after the last sample.
    pub left: u64,
}

impl Counts {
    /// The faults, by the name of the count.
    pub fn faults(&self) -> [(&'static str, u64); 8] {
        [
            ("malformed", self.malformed),
            ("bad_values", self.bad_values),
            ("out_of_order", self.out_of_order),
            ("duplicates", self.duplicates),
            ("gaps", self.gaps),
            ("trade_gaps", self.trade_gaps),
            ("crossed", self.crossed),
            ("local_times", self.local_times),
        ]
    }
}

/// Counts faults as they are found, and knows the files for the messages.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// What was found so far.
    pub counts: Counts,
    quality: Quality,
    paths: Vec<PathBuf>,
}

impl Tally {
    /// Nothing found yet in the files at `paths`.
    pub fn new(quality: &Quality, paths: Vec<PathBuf>) -> Tally {
        Tally { counts: Counts::default(), quality: quality.clone(), paths }
    }

    /// Counts a fault at `place`: `message` says what is wrong, `hint` what to do.
    ///
    /// # Errors
    /// There are now more such faults than may pass.
    #[cold]
    pub fn fault(
        &mut self,
        fault: Fault,
        place: Place,
        message: impl FnOnce() -> String,
        hint: &str,
    ) -> Result<()> {
        let (counts, quality) = (&mut self.counts, &self.quality);
        let (count, most, name, repair) = match fault {
            Fault::Malformed => (
                &mut counts.malformed,
                quality.max_malformed,
                "max_malformed",
                "leaves such lines out",
            ),
            Fault::BadValue => (
                &mut counts.bad_values,
                quality.max_bad_values,
                "max_bad_values",
                "leaves such lines out",
            ),
            Fault::OutOfOrder => (
                &mut counts.out_of_order,
                quality.max_out_of_order,
                "max_out_of_order",
                "takes such events at the time of the one before, and leaves such bars out",
            ),
            Fault::Duplicate => (
                &mut counts.duplicates,
                quality.max_duplicates,
                "max_duplicates",
                "leaves the later ones out",
            ),
            Fault::Gap => {
                (&mut counts.gaps, quality.max_gaps, "max_gaps", "builds the book anew after each")
            }
            Fault::TradeGap => (
                &mut counts.trade_gaps,
                quality.max_trade_gaps,
                "max_trade_gaps",
                "goes on without them",
            ),
            Fault::Crossed => (
                &mut counts.crossed,
                quality.max_crossed,
                "max_crossed",
                "builds the book anew after each, and leaves such quotes out",
            ),
            Fault::LocalTime => (
                &mut counts.local_times,
                quality.max_local_times,
                "max_local_times",
                "leaves out those that do not exist, and takes the first of those that come twice",
            ),
        };
        *count += 1;
        if *count <= most {
            return Ok(());
        }
        let mut message = message();
        if most > 0 {
            message += &format!(" (fault {count} of its kind; {name} is {most})");
        }
        let hint = format!("{hint}; or set `quality: {{ {name}: N }}`, which {repair}");
        Err(self.bad(place, message).hint(hint))
    }

    /// An error at a place.
    pub fn bad(&self, place: Place, message: impl Into<String>) -> StageError {
        let bad = match self.paths.get(place.file as usize) {
            Some(path) => StageError::bad(path, message),
            None => StageError::failed(message),
        };
        if place.line > 0 { bad.at(place.line) } else { bad }
    }
}
