//! Reads `features.csv` back, or the folder of one a file, for the stages that follow: row by row, so
//! that a series may be of any length.
//!
//! Columns are found by name, so that a file with more of them, or with other bars, is read as
//! well; rows of the warm-up have features that are not known. The features are the columns after
//! `split` that are not [`COMPANIONS`].

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::split::Split;
use crate::market::{Quote, time};
use crate::{Context, Result, StageError};

/// Columns after `split` that are no features.
pub const COMPANIONS: [&str; 11] = [
    "bid",
    "bid_size",
    "ask",
    "ask_size",
    "trade_low",
    "trade_high",
    "index_close",
    "t1",
    "label",
    "label_return",
    "label_side",
];

/// A row of `features.csv`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The date as the file has it.
    pub date: String,
    /// The same in nanoseconds since 1970-01-01 UTC.
    pub time: i64,
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Units traded.
    pub volume: f64,
    /// Its split.
    pub split: Split,
    /// The features in the order of [`Rows::names`]; `NaN` where the warm-up knows none.
    pub features: Vec<f64>,
    /// The best quotes at its end, where the source has quotes.
    pub quote: Option<Quote>,
    /// The lowest and the highest trade in it, where the source has trades apart from bars.
    pub traded: Option<(f64, f64)>,
}

impl Row {
    /// The lowest price that a resting buy could have filled at, and the highest for a sell: of
    /// trades where they are known, else of the bar.
    pub fn range(&self) -> (f64, f64) {
        self.traded.unwrap_or((self.low, self.high))
    }
}

/// The rows of a file, or of several as one series, in order; ends after the first error.
pub struct Rows {
    table: Table,
    /// The files after it.
    rest: VecDeque<PathBuf>,
    record: csv::StringRecord,
    names: Vec<String>,
    last: Option<i64>,
    done: bool,
}

/// A file that is being read.
struct Table {
    path: PathBuf,
    reader: csv::Reader<fs_err::File>,
    header: csv::StringRecord,
    places: Places,
}

/// Where the columns are.
struct Places {
    date: usize,
    split: usize,
    bar: [usize; 5],
    quote: Option<[usize; 4]>,
    traded: Option<[usize; 2]>,
    features: Vec<usize>,
}

impl Table {
    fn open(path: PathBuf) -> Result<Table> {
        let mut reader = csv::Reader::from_reader(fs_err::File::open(&path)?);
        let header = reader.headers().map_err(|e| unreadable(&path, &e))?.clone();
        let find = |name: &str| header.iter().position(|found| found == name);
        let place = |name: &str| {
            find(name).ok_or_else(|| {
                let found = header.iter().collect::<Vec<_>>().join(", ");
                StageError::bad(&path, format!("missing column `{name}`"))
                    .at(1)
                    .hint(format!("features come from a `featurize` stage; columns found: {found}"))
            })
        };
        let split = place("split")?;
        let is_feature = |at: &usize| header.get(*at).is_some_and(|n| !COMPANIONS.contains(&n));
        let features: Vec<usize> = (split + 1..header.len()).filter(is_feature).collect();
        let mut bar = [0; 5];
        for (slot, name) in bar.iter_mut().zip(["open", "high", "low", "close", "volume"]) {
            *slot = place(name)?;
        }
        let quote = ["bid", "bid_size", "ask", "ask_size"].map(find);
        let traded = ["trade_low", "trade_high"].map(find);
        let places = Places {
            date: place("date")?,
            split,
            bar,
            quote: quote.iter().all(Option::is_some).then(|| quote.map(Option::unwrap_or_default)),
            traded: traded
                .iter()
                .all(Option::is_some)
                .then(|| traded.map(Option::unwrap_or_default)),
            features,
        };
        Ok(Table { path, reader, header, places })
    }

    fn names(&self) -> Vec<String> {
        self.places.features.iter().map(|&at| self.header[at].to_owned()).collect()
    }
}

/// The files of port `features`, one series in the order of their names: one table, or one a file.
///
/// # Errors
/// There is none.
pub fn files(ctx: &Context) -> Result<Vec<PathBuf>> {
    let files: Vec<PathBuf> = ctx.files("features").map(|(_, path)| path.to_owned()).collect();
    match files.is_empty() {
        true => Err(StageError::failed("input `features` has no file")),
        false => Ok(files),
    }
}

/// The place that a fault of all files is told at.
pub fn first(files: &[PathBuf]) -> &Path {
    files.first().map_or(Path::new("features"), PathBuf::as_path)
}

impl Rows {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, or a column is missing.
    pub fn open(path: &Path) -> Result<Rows> {
        Rows::open_all(&[path.to_owned()])
    }

    /// Opens files that are one series, the first now and each other when it is come to.
    ///
    /// # Errors
    /// There is none, the first cannot be read, or a column is missing.
    pub fn open_all(files: &[PathBuf]) -> Result<Rows> {
        let (first, rest) =
            files.split_first().ok_or_else(|| StageError::failed("there is no table to read"))?;
        let table = Table::open(first.clone())?;
        let rest = rest.iter().cloned().collect();
        let (names, record) = (table.names(), csv::StringRecord::new());
        Ok(Rows { table, rest, record, names, last: None, done: false })
    }

    /// The names of the features.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The place of a feature in a row.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|own| own == name)
    }

    /// Goes on to the next line, of the next file where one has ended.
    fn advance(&mut self) -> Result<bool> {
        loop {
            let Table { path, reader, .. } = &mut self.table;
            if reader.read_record(&mut self.record).map_err(|e| unreadable(path, &e))? {
                return Ok(true);
            }
            let Some(next) = self.rest.pop_front() else { return Ok(false) };
            let before = std::mem::replace(&mut self.table, Table::open(next)?);
            let names = self.table.names();
            if names != self.names {
                let (old, new) = (self.names.join(", "), names.join(", "));
                let before = before.path.display();
                let message = format!("features `{new}` where {before} has `{old}`");
                return Err(StageError::bad(&self.table.path, message)
                    .at(1)
                    .hint("the files must come from one `featurize` stage; name its `features`"));
            }
        }
    }

    fn read(&mut self) -> Result<Option<Row>> {
        if !self.advance()? {
            return Ok(None);
        }
        let Table { path, header, places, .. } = &self.table;
        let line = self.record.position().map_or(0, csv::Position::line);
        let bad = |message: String| StageError::bad(path, message).at(line);
        let text = |at: usize| self.record.get(at).unwrap_or("");
        let number = |at: usize| match text(at).parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(x),
            _ => {
                let name = header.get(at).unwrap_or("");
                Err(bad(format!("{name} is not a number: `{}`", text(at))))
            }
        };
        let split = Split::parse(text(places.split))
            .ok_or_else(|| bad(format!("unknown split `{}`", text(places.split))))?;
        let feature = |&at: &usize| match text(at) {
            "" if split == Split::Warmup => Ok(f64::NAN),
            _ => number(at),
        };
        let features = places.features.iter().map(feature).collect::<Result<_>>()?;
        let date = text(places.date).to_owned();
        let stamp = time::parse(&date)
            .ok_or_else(|| bad(format!("`{date}` is not a date")).hint(time::HINT))?;
        if self.last.is_some_and(|last| last >= stamp.time) {
            return Err(bad("dates do not ascend".into()).hint("sort the file by date"));
        }
        self.last = Some(stamp.time);
        let given = |places: &[usize]| places.iter().all(|&at| !text(at).is_empty());
        let quote = match places.quote {
            Some(at) if given(&at) => Some(Quote {
                bid: number(at[0])?,
                bid_size: number(at[1])?,
                ask: number(at[2])?,
                ask_size: number(at[3])?,
            }),
            _ => None,
        };
        // Where nothing traded, nothing could fill: the range is that of the mid, turned inside out.
        let traded = match places.traded {
            Some(at) if given(&at) => Some((number(at[0])?, number(at[1])?)),
            Some(_) => Some((f64::INFINITY, f64::NEG_INFINITY)),
            None => None,
        };
        let [open, high, low, close, volume] = places.bar;
        Ok(Some(Row {
            date,
            time: stamp.time,
            open: number(open)?,
            high: number(high)?,
            low: number(low)?,
            close: number(close)?,
            volume: number(volume)?,
            split,
            features,
            quote,
            traded,
        }))
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if self.done {
            return None;
        }
        let row = self.read().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}

/// The rows of a file one after the other, each with those around it; holds no more of them than
/// that takes.
pub struct Around {
    rows: std::iter::Take<Rows>,
    held: Vec<Row>,
    /// The row that is looked at, among those held.
    at: usize,
    /// Its number in the file; `None` before the first.
    number: Option<usize>,
    behind: usize,
    ahead: usize,
}

impl Around {
    /// Before the first row; of the file only the first `rows` are seen.
    pub fn new(rows: Rows, count: usize, behind: usize, ahead: usize) -> Around {
        Around { rows: rows.take(count), held: Vec::new(), at: 0, number: None, behind, ahead }
    }

    /// Goes on to the next row; its number, or `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn step(&mut self) -> Result<Option<usize>> {
        if self.number.is_some() {
            self.at += 1;
        }
        while self.held.len() <= self.at + self.ahead {
            match self.rows.next() {
                Some(row) => self.held.push(row?),
                None => break,
            }
        }
        if self.at >= self.held.len() {
            return Ok(None);
        }
        // Moved rarely, so that each row is moved once or so.
        if self.at > self.behind + self.ahead + 1024 {
            self.held.drain(..self.at - self.behind);
            self.at = self.behind;
        }
        let number = self.number.map_or(0, |number| number + 1);
        self.number = Some(number);
        Ok(Some(number))
    }

    /// The row that is looked at, which [`Around::step`] found.
    pub fn row(&self) -> &Row {
        &self.held[self.at]
    }

    /// That row and those before it, `behind` at most, the oldest first.
    pub fn past(&self) -> &[Row] {
        &self.held[self.at.saturating_sub(self.behind)..=self.at]
    }

    /// The rows after it: `ahead`, or fewer near the end.
    pub fn ahead(&self) -> &[Row] {
        let end = (self.at + 1 + self.ahead).min(self.held.len());
        &self.held[self.at + 1..end]
    }
}

/// What a series holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Rows up to the last training row.
    pub train_end: usize,
    /// Training rows among them.
    pub train: usize,
    /// Rows in all.
    pub rows: usize,
}

/// Counts the rows of a series, having read each.
///
/// # Errors
/// A file cannot be read, or there is no training row.
pub fn extent(files: &[PathBuf]) -> Result<Extent> {
    let mut extent = Extent::default();
    for (at, row) in Rows::open_all(files)?.enumerate() {
        extent.rows += 1;
        if row?.split == Split::Train {
            extent.train_end = at + 1;
            extent.train += 1;
        }
    }
    match extent.train {
        0 => Err(StageError::bad(first(files), "no row of split `train`")
            .hint("check `splits` of the featurize stage")),
        _ => Ok(extent),
    }
}

/// What the CSV reader could not read.
pub fn unreadable(path: &Path, error: &csv::Error) -> StageError {
    let line = error.position().map(csv::Position::line);
    let bad = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            StageError::bad(path, format!("{len} cells where the header has {expected_len}"))
                .hint("fields are separated by commas; quote a field that holds one")
        }
        csv::ErrorKind::Utf8 { .. } => {
            StageError::bad(path, "not UTF-8 text").hint("export the file as UTF-8")
        }
        _ => StageError::bad(path, error.to_string()),
    };
    match line {
        Some(line) => bad.at(line),
        None => bad,
    }
}

/// All rows of a file, for tests.
#[cfg(test)]
pub fn read(path: &Path) -> Result<Vec<Row>> {
    Rows::open(path)?.collect()
}
