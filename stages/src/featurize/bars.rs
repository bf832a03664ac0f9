//! Reads OHLCV bars and index closes from CSV, one row at a time, and says what is wrong with a
//! file and on which line.
//!
//! Column names are taken in any case and order; further columns are left alone. Gzip is
//! recognised by its first bytes. Nothing is repaired: a row that cannot be a bar stops the stage,
//! since a number that was guessed here would be traded on later.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::date;
use crate::{Result, StageError};

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The date as the file has it.
    pub date: String,
    /// The date as it sorts ([`date::key`]).
    pub key: String,
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
}

impl Bar {
    /// Whether open and close lie within low and high.
    pub fn is_ordered(&self) -> bool {
        let inside = |x| (self.low..=self.high).contains(&x);
        inside(self.open) && inside(self.close)
    }
}

/// The bars of a file in order; ends after the first error.
pub struct Bars {
    table: Table<6>,
}

impl Bars {
    /// Opens a file with the columns date, open, high, low, close and volume.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or lacks a column.
    pub fn open(path: &Path) -> Result<Bars> {
        let columns = ["date", "open", "high", "low", "close", "volume"];
        Ok(Bars { table: Table::open(path, columns)? })
    }
}

impl Iterator for Bars {
    type Item = Result<Bar>;

    fn next(&mut self) -> Option<Result<Bar>> {
        self.table.read(|table, key| {
            let [open, high, low, close] =
                [table.price(1)?, table.price(2)?, table.price(3)?, table.price(4)?];
            let volume = table.number(5)?;
            if volume < 0.0 {
                return Err(table.bad(format!("volume is negative: {volume}")));
            }
            if high < low {
                let message = format!("high {high} is below low {low}");
                return Err(table.bad(message).hint(
                    "check that the columns are not swapped; remove the row if it is wrong",
                ));
            }
            Ok(Bar { date: table.cell(0).to_owned(), key, open, high, low, close, volume })
        })
    }
}

/// The closes of an index (columns date and close), in order; ends after the first error.
pub struct Closes {
    table: Table<2>,
}

impl Closes {
    /// Opens the file.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or lacks a column.
    pub fn open(path: &Path) -> Result<Closes> {
        Ok(Closes { table: Table::open(path, ["date", "close"])? })
    }
}

impl Iterator for Closes {
    type Item = Result<(String, f64)>;

    fn next(&mut self) -> Option<Result<(String, f64)>> {
        self.table.read(|table, key| Ok((key, table.price(1)?)))
    }
}

/// A CSV file with `N` columns that are looked for; the first of them is the date.
struct Table<const N: usize> {
    path: PathBuf,
    reader: csv::Reader<Box<dyn Read>>,
    names: [&'static str; N],
    places: [usize; N],
    record: csv::StringRecord,
    last: Option<(String, u64)>,
    done: bool,
}

impl<const N: usize> Table<N> {
    fn open(path: &Path, names: [&'static str; N]) -> Result<Table<N>> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(plain(path)?);
        let header = reader.headers().map_err(|e| unreadable(path, &e))?.clone();
        let found: Vec<String> = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').trim().to_lowercase())
            .collect();
        if found.iter().all(String::is_empty) {
            return Err(StageError::bad(path, "the file is empty")
                .hint(format!("it needs a header and rows: {}", names.join(","))));
        }
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            *place = found
                .iter()
                .position(|f| f == name || aliases(name).contains(&f.as_str()))
                .ok_or_else(|| missing(path, name, &found))?;
        }
        let record = csv::StringRecord::new();
        Ok(Table { path: path.to_owned(), reader, names, places, record, last: None, done: false })
    }

    /// The next row: its date is checked here, the rest by `parse`.
    fn read<T>(&mut self, parse: impl FnOnce(&Self, String) -> Result<T>) -> Option<Result<T>> {
        if self.done {
            return None;
        }
        let row = self.advance().and_then(|key| key.map(|key| parse(self, key)).transpose());
        self.done = !matches!(row, Ok(Some(_)));
        row.transpose()
    }

    fn advance(&mut self) -> Result<Option<String>> {
        if !self.reader.read_record(&mut self.record).map_err(|e| unreadable(&self.path, &e))? {
            if self.last.is_none() {
                return Err(StageError::bad(&self.path, "the file has a header and no rows"));
            }
            return Ok(None);
        }
        let text = self.cell(0);
        let Some(key) = date::key(text) else {
            return Err(self
                .bad(format!("`{text}` is not a date"))
                .hint("write dates as YYYY-MM-DD, with a time as YYYY-MM-DD HH:MM:SS"));
        };
        if let Some((last, line)) = &self.last {
            if key == *last {
                return Err(self
                    .bad(format!("date {text} is on line {line} already"))
                    .hint("keep one row for each date"));
            }
            if key < *last {
                return Err(self
                    .bad(format!("date {text} comes after a later one on line {line}"))
                    .hint("sort the file by date"));
            }
        }
        self.last = Some((key.clone(), self.line()));
        Ok(Some(key))
    }

    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    fn bad(&self, message: impl Into<String>) -> StageError {
        StageError::bad(&self.path, message).at(self.line())
    }

    fn cell(&self, column: usize) -> &str {
        self.places.get(column).and_then(|&place| self.record.get(place)).unwrap_or("")
    }

    fn number(&self, column: usize) -> Result<f64> {
        let text = self.cell(column);
        let name = self.names.get(column).copied().unwrap_or("");
        match text.parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(x),
            _ if text.is_empty() => Err(self
                .bad(format!("{name} is empty"))
                .hint("fill the cell or remove the row; prices are not guessed")),
            _ => Err(self
                .bad(format!("{name} is not a number: `{text}`"))
                .hint("write numbers as 1234.5, without thousands separators")),
        }
    }

    fn price(&self, column: usize) -> Result<f64> {
        let price = self.number(column)?;
        if price > 0.0 {
            return Ok(price);
        }
        let name = self.names.get(column).copied().unwrap_or("");
        Err(self.bad(format!("{name} must be above 0, and is {price}")))
    }
}

/// Other names under which exchanges and libraries write a column.
fn aliases(name: &str) -> &'static [&'static str] {
    match name {
        "date" => &["timestamp", "datetime", "time"],
        "volume" => &["vol"],
        _ => &[],
    }
}

/// The file's bytes, unpacked where they are gzip.
fn plain(path: &Path) -> Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(1 << 16, fs_err::File::open(path)?);
    if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(file)));
    }
    Ok(Box::new(file))
}

fn missing(path: &Path, name: &str, found: &[String]) -> StageError {
    let near = found
        .iter()
        .map(|f| (strsim::jaro_winkler(f, name), f))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let mut hint = match near {
        Some((_, near)) => format!("is `{near}` meant? rename it to `{name}`; "),
        None => String::new(),
    };
    hint += &format!("columns found: {}", found.join(", "));
    StageError::bad(path, format!("missing column `{name}`")).at(1).hint(hint)
}

/// What the CSV reader could not read.
pub fn unreadable(path: &Path, error: &csv::Error) -> StageError {
    let line = error.position().map(csv::Position::line);
    let bad = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            StageError::bad(path, format!("{len} cells where the header has {expected_len}"))
                .hint("fields are separated by commas; quote a field that holds one")
        }
        csv::ErrorKind::Utf8 { .. } => StageError::bad(path, "not UTF-8 text")
            .hint("the file must be CSV, plain or gzip; export it as UTF-8"),
        _ => StageError::bad(path, error.to_string()),
    };
    match line {
        Some(line) => bad.at(line),
        None => bad,
    }
}
