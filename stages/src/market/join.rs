//! Closes of an index and of peers, joined to samples: the last at or before each.
//!
//! A close that is dated with a day alone is known when that day is over. Beside samples that are dated
//! so too it counts from the same date on; beside samples with a time of day from the next day on, else
//! they would see the close of the evening.

use std::path::Path;

use super::quality::{Counts, Fault, Quality, Tally};
use super::rows::{Columns, Role, Rows, TIME, positive};
use super::time::{DAY, Form};
use super::{Feed, Sample, Samples};
use crate::{Result, StageError};

const CLOSE: Role =
    Role { name: "close", aliases: &["price", "adj close", "adj_close", "value"], required: true };
const INDEX: &[Role] =
    &[Role { name: "time", aliases: DATED, ..TIME }, Role { required: false, ..CLOSE }];
const PEERS: &[Role] = &[Role { name: "time", aliases: DATED, ..TIME }];
const DATED: &[&str] = &["date", "timestamp", "datetime", "ts", "day"];

/// Rows of closes in order of time.
pub struct Closes {
    names: Vec<String>,
    dated: bool,
    times: Vec<i64>,
    /// As many a row as there are names; what a row leaves empty is that of the row before.
    closes: Vec<f64>,
    at: usize,
}

impl Closes {
    /// Reads an index: the columns date and close; in a file of two columns the close may have any name.
    ///
    /// # Errors
    /// The file cannot be read, is empty, lacks a column, or is not in order.
    pub fn index(path: &Path) -> Result<Closes> {
        let closes = Closes::read(path, INDEX, |rows| {
            let (date, all) = (rows.column(0), rows.header().len());
            let lone = all == 2 && rows.column(1).is_none();
            (0..all).filter(|column| lone && Some(*column) != date).collect()
        })?;
        if closes.names.is_empty() {
            return Err(StageError::bad(path, "missing column `close`")
                .at(1)
                .hint("an index has a date and a close"));
        }
        Ok(closes)
    }

    /// Reads peers: a column with dates, and one for each peer.
    ///
    /// # Errors
    /// The file cannot be read, is empty, has no peer, or is not in order.
    pub fn peers(path: &Path) -> Result<Closes> {
        let closes = Closes::read(path, PEERS, |rows| {
            let date = rows.column(0);
            (0..rows.header().len()).filter(|column| Some(*column) != date).collect()
        })?;
        if closes.names.is_empty() {
            return Err(StageError::bad(path, "no column beside the date")
                .at(1)
                .hint("a column for each peer holds its closes"));
        }
        Ok(closes)
    }

    fn read(
        path: &Path,
        roles: &'static [Role],
        which: impl Fn(&Rows) -> Vec<usize>,
    ) -> Result<Closes> {
        let mut tally = Tally::new(&Quality::default(), vec![path.to_owned()]);
        let mut rows = Rows::new(vec![path.to_owned()], roles, &Columns::new());
        rows.begin()?;
        let mut columns = which(&rows);
        if let Some(close) = rows.column(1) {
            columns.push(close);
        }
        let name = |column: &usize| rows.header().get(*column).cloned().unwrap_or_default();
        let names: Vec<String> = columns.iter().map(name).collect();
        let (mut times, mut closes) = (Vec::new(), Vec::new());
        let (mut dated, mut line) = (true, 0);
        while rows.advance(&mut tally)? {
            let Some(stamp) = rows.stamp(&mut tally)? else { continue };
            let place = rows.place();
            if let Some(last) = times.last() {
                let text = stamp.form.write(stamp.time);
                if stamp.time == *last {
                    let message = || format!("time {text} is on line {line} already");
                    tally.fault(Fault::Duplicate, place, message, "keep one row for each time")?;
                }
                if stamp.time < *last {
                    let message = || format!("time {text} comes after a later one on line {line}");
                    tally.fault(Fault::OutOfOrder, place, message, "sort the file by time")?;
                }
            }
            (line, dated) = (place.line, dated && stamp.form == Form::Date);
            times.push(stamp.time);
            for (column, name) in columns.iter().zip(&names) {
                let text = rows.at(*column).unwrap_or("");
                let above = closes.len().checked_sub(columns.len());
                let before = above.map_or(f64::NAN, |above| closes[above]);
                // Peers are listed and delisted: an empty cell is no close.
                closes.push(match text {
                    "" if roles.len() == 1 => before,
                    _ => positive(text, name, false, place, &mut tally)?.unwrap_or(before),
                });
            }
        }
        Ok(Closes { names, dated, times, closes, at: 0 })
    }

    /// The columns' names, in lower case.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The closes known at `time`, where `dated` says that times are days; times must not descend.
    fn known(&mut self, time: i64, dated: bool) -> Option<&[f64]> {
        let late = if self.dated && !dated { DAY } else { 0 };
        while self.times.get(self.at).is_some_and(|t| t.saturating_add(late) <= time) {
            self.at += 1;
        }
        let width = self.names.len();
        let row = self.at.checked_sub(1)?;
        self.closes.get(row * width..(row + 1) * width)
    }
}

/// Samples with an index and peers beside them.
pub struct Joined {
    /// The samples.
    pub feed: Box<dyn Feed>,
    /// The index.
    pub index: Option<Closes>,
    /// The peers.
    pub peers: Option<Closes>,
}

impl Samples for Joined {
    fn next(&mut self, into: &mut Sample) -> Result<bool> {
        if !self.feed.next(into)? {
            return Ok(false);
        }
        let dated = self.feed.form() == Form::Date;
        if let Some(index) = &mut self.index {
            into.index = index.known(into.time, dated).map(|closes| closes[0]);
        }
        if let Some(peers) = &mut self.peers {
            into.peers.clear();
            let width = peers.names.len();
            match peers.known(into.time, dated) {
                Some(closes) => into.peers.extend_from_slice(closes),
                None => into.peers.resize(width, f64::NAN),
            }
        }
        Ok(true)
    }
}

impl Feed for Joined {
    fn counts(&self) -> Counts {
        self.feed.counts()
    }

    fn form(&self) -> Form {
        self.feed.form()
    }

    fn file(&self) -> usize {
        self.feed.file()
    }
}
