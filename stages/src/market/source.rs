//! Opens market data, whatever it is, as samples.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Feed;
use super::bars::{BarFiles, Bars};
use super::binance::{Binance, Stream};
use super::clock::{Sampler, Sampling, Tells};
use super::join::{Closes, Joined};
use super::orders::{self, Orders};
use super::quality::{Quality, Tally};
use super::table::{self, Holds, Table};
use crate::{Invalid, Result, StageError};

/// What the files hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// OHLCV bars: CSV, plain or packed, or Parquet.
    Bars(Bars),
    /// Best quotes: CSV.
    Quotes(Table),
    /// Trades: CSV.
    Trades(Table),
    /// The book, as changes or as rows of levels: CSV.
    Depth(Table),
    /// Lines of Binance's market streams.
    Binance(Binance),
    /// Orders one by one: CSV.
    Orders(Orders),
}

impl Default for Source {
    fn default() -> Source {
        Source::Bars(Bars::default())
    }
}

impl Source {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A column that is not read; a number that is out of its range.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Source::Bars(bars) => bars.check(),
            Source::Quotes(table) => table.check(Holds::Quotes),
            Source::Trades(table) => table.check(Holds::Trades),
            Source::Depth(table) => table.check(Holds::Depth),
            Source::Binance(binance) => match binance.contract {
                Some(value) if !(value > 0.0 && value.is_finite()) => {
                    Err(Invalid::new("contract", "must be above 0"))
                }
                _ => Ok(()),
            },
            Source::Orders(orders) => orders.check(),
        }
    }

    /// Whether the source is sampled by a clock; bars are samples already.
    pub fn has_clock(&self) -> bool {
        !matches!(self, Source::Bars(_))
    }
}

/// The files of one series.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its files, by the names that people know: they are one stream in the order of the names.
    pub files: Vec<(String, PathBuf)>,
    /// Closes of an index: CSV with date and close.
    pub index: Option<PathBuf>,
    /// Closes of peers: CSV with a date and a column for each.
    pub peers: Option<PathBuf>,
}

/// Opens a series as samples: bars as they are, all else by the clock of `sampling`.
///
/// # Errors
/// There is no file, or the first cannot be read or lacks a column. What is wrong further on is an error
/// of [`super::Samples::next`].
pub fn open(
    source: &Source,
    series: &Series,
    sampling: &Sampling,
    quality: &Quality,
) -> Result<Box<dyn Feed>> {
    let mut files = series.files.clone();
    files.sort();
    let paths: Vec<PathBuf> = files.into_iter().map(|(_, path)| path).collect();
    if paths.is_empty() {
        return Err(StageError::failed("there is no file of market data")
            .hint("does the pattern in `inputs` match a file?"));
    }
    let tally = Tally::new(quality, paths.clone());
    let table = |table, holds| table::Reader::open(table, holds, paths.clone());
    let feed: Box<dyn Feed> = match source {
        Source::Bars(bars) => Box::new(BarFiles::open(bars, paths, tally)?),
        Source::Quotes(params) => {
            let events = table(params, Holds::Quotes)?;
            Box::new(Sampler::new(events, Tells::Quotes, sampling, tally))
        }
        Source::Trades(params) => {
            let events = table(params, Holds::Trades)?;
            Box::new(Sampler::new(events, Tells::Trades, sampling, tally))
        }
        Source::Depth(params) => {
            let events = table(params, Holds::Depth)?;
            Box::new(Sampler::new(events, Tells::Book, sampling, tally))
        }
        Source::Binance(binance) => {
            let events = Stream::new(binance, paths);
            Box::new(Sampler::new(events, Tells::Both, sampling, tally))
        }
        Source::Orders(orders) => {
            let events = orders::Reader::open(orders, paths)?;
            Box::new(Sampler::new(events, Tells::Both, sampling, tally))
        }
    };
    let index = series.index.as_deref().map(Closes::index).transpose()?;
    let peers = series.peers.as_deref().map(Closes::peers).transpose()?;
    Ok(match (&index, &peers) {
        (None, None) => feed,
        _ => Box::new(Joined { feed, index, peers }),
    })
}
