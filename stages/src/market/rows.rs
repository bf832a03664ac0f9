//! Rows of CSV files, plain or packed, with columns found by what they mean.
//!
//! A column is found by the name that the caller gives, or else by the names under which exchanges,
//! vendors and data sets write it, in any case. Further columns are left alone. Several files are one
//! table; each has its header.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::event::Place;
use super::file::{Plain, unreadable};
use super::quality::{Fault, Tally};
use super::time::{self, Stamp, Zones};
use super::zone::Local;
use crate::{Invalid, Result, StageError};

/// What a column means.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its name, under which the caller gives a column's.
    pub name: &'static str,
    /// Names under which such columns are written, in lower case, the likeliest first.
    pub aliases: &'static [&'static str],
    /// Whether there must be one.
    pub required: bool,
}

/// The role of the time: of receipt, where a file has that too.
pub const TIME: Role = Role {
    name: "time",
    aliases: &[
        "local_timestamp",
        "receive_time",
        "received",
        "recv_time",
        "timestamp",
        "datetime",
        "date",
        "ts",
        "event_time",
        "transaction_time",
        "transact_time",
        "ts_event",
        "open_time",
    ],
    required: true,
};

/// The role of the symbol.
pub const SYMBOL: Role =
    Role { name: "symbol", aliases: &["ticker", "instrument", "pair"], required: false };

/// Columns of files, by role.
pub type Columns = BTreeMap<String, String>;

/// Holds the roles that `columns` names to those there are.
///
/// # Errors
/// A role that there is not.
pub fn check(columns: &Columns, roles: &[Role]) -> Result<(), Invalid> {
    match columns.keys().find(|key| roles.iter().all(|role| role.name != key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let names: Vec<_> = roles.iter().map(|role| role.name).collect();
            Err(Invalid::new("columns", format!("no such column is read: `{key}`"))
                .help(format!("one of {}", names.join(", "))))
        }
    }
}

/// The rows of files, one after the other.
pub struct Rows {
    paths: Vec<PathBuf>,
    roles: &'static [Role],
    columns: Columns,
    reader: Option<csv::Reader<Plain>>,
    record: csv::StringRecord,
    places: Vec<Option<usize>>,
    header: Vec<String>,
    zones: Zones,
    local: Option<Local>,
    place: Place,
    rows: u64,
}

impl Rows {
    /// Opens the files one by one as they are come to.
    pub fn new(paths: Vec<PathBuf>, roles: &'static [Role], columns: &Columns) -> Rows {
        Rows {
            paths,
            roles,
            columns: columns.clone(),
            reader: None,
            record: csv::StringRecord::new(),
            places: Vec::new(),
            header: Vec::new(),
            zones: Zones::default(),
            local: None,
            place: Place::default(),
            rows: 0,
        }
    }

    /// Takes times without a zone as of that one.
    pub fn local(mut self, local: Option<Local>) -> Rows {
        self.local = local;
        self
    }

    /// Opens the first file, so that its columns are known.
    ///
    /// # Errors
    /// It cannot be read, or lacks a column.
    pub fn begin(&mut self) -> Result<()> {
        if self.reader.is_none() { self.open(0).map(|_| ()) } else { Ok(()) }
    }

    /// Moves on to the next row; false at the end of the last file.
    ///
    /// # Errors
    /// A file cannot be read, lacks a column or has no row, or holds more malformed rows than may pass.
    pub fn advance(&mut self, tally: &mut Tally) -> Result<bool> {
        loop {
            let Some(reader) = &mut self.reader else {
                let next = self.place.file as usize + usize::from(self.rows > 0);
                if !self.open(next)? {
                    return Ok(false);
                }
                continue;
            };
            let read = reader.read_record(&mut self.record);
            self.place.line = match self.record.position() {
                Some(position) if position.line() > self.place.line => position.line(),
                _ => self.place.line + 1,
            };
            match read {
                Ok(true) => {
                    self.rows += 1;
                    tally.counts.lines += 1;
                    return Ok(true);
                }
                Ok(false) if self.rows == 0 => {
                    return Err(StageError::bad(
                        &self.paths[self.place.file as usize],
                        "the file has a header and no rows",
                    ));
                }
                Ok(false) => self.reader = None,
                Err(error) => self.odd(error, tally)?,
            }
        }
    }

    /// A row that cannot be read.
    fn odd(&mut self, error: csv::Error, tally: &mut Tally) -> Result<()> {
        if let Some(position) = error.position() {
            self.place.line = position.line();
        }
        let (message, hint) = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => (
                format!("{len} cells where the header has {expected_len}"),
                "fields are separated by commas; quote a field that holds one",
            ),
            csv::ErrorKind::Utf8 { .. } => (
                "not UTF-8 text".to_owned(),
                "the file must be CSV, plain, gzip or xz; export it as UTF-8",
            ),
            _ => {
                let path = &self.paths[self.place.file as usize];
                let text = error.to_string();
                return Err(match error.into_kind() {
                    csv::ErrorKind::Io(e) => unreadable(path, self.place.line, e),
                    _ => StageError::bad(path, text).at(self.place.line),
                });
            }
        };
        self.rows += 1;
        tally.counts.lines += 1;
        tally.fault(Fault::Malformed, self.place, || message, hint)
    }

    fn open(&mut self, next: usize) -> Result<bool> {
        let Some(path) = self.paths.get(next) else { return Ok(false) };
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(Plain::open(path)?);
        let header = match reader.headers() {
            Ok(header) => header.clone(),
            Err(error) => {
                let text = error.to_string();
                return Err(match error.into_kind() {
                    csv::ErrorKind::Io(e) => unreadable(path, 1, e),
                    csv::ErrorKind::Utf8 { .. } => StageError::bad(path, "not UTF-8 text")
                        .at(1)
                        .hint("the file must be CSV, plain, gzip or xz; export it as UTF-8"),
                    _ => StageError::bad(path, text).at(1),
                });
            }
        };
        let name = |name: &str| name.trim_start_matches('\u{feff}').trim().to_lowercase();
        self.header = header.iter().map(name).collect();
        self.place = Place { file: next as u32, line: 1 };
        self.rows = 0;
        self.zones = Zones::default();
        self.local.iter_mut().for_each(Local::start);
        let needed = || {
            let needed = self.roles.iter().filter(|role| role.required).map(|role| role.name);
            needed.collect::<Vec<_>>().join(",")
        };
        if self.header.iter().all(String::is_empty) {
            return Err(StageError::bad(path, "the file is empty")
                .hint(format!("it needs a header and rows: {}", needed())));
        }
        if self.header.iter().all(|cell| cell.parse::<f64>().is_ok()) {
            return Err(StageError::bad(path, "the first line has numbers, and no column names")
                .at(1)
                .hint(format!("put a header before it, with {}", needed())));
        }
        let find = |role: &Role| -> Result<Option<usize>> {
            let position = |name: &str| self.header.iter().position(|found| found == name);
            if let Some(column) = self.columns.get(role.name) {
                let found = position(&name(column));
                return found.map(Some).ok_or_else(|| self.missing(path, column));
            }
            let mut names = std::iter::once(&role.name).chain(role.aliases);
            // A time of receipt is better than one that is merely called time.
            let found = match role.name {
                "time" => role.aliases[..4].iter().chain(names).find_map(|name| position(name)),
                _ => names.find_map(|name| position(name)),
            };
            if found.is_none() && role.required {
                Err(self.missing(path, role.name))
            } else {
                Ok(found)
            }
        };
        self.places = self.roles.iter().map(find).collect::<Result<_>>()?;
        self.reader = Some(reader);
        Ok(true)
    }

    fn missing(&self, path: &std::path::Path, name: &str) -> StageError {
        let near = self
            .header
            .iter()
            .map(|found| (strsim::jaro_winkler(found, name), found))
            .filter(|(score, _)| *score > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let mut hint = match near {
            Some((_, near)) => format!("is `{near}` meant? say so in `columns`; "),
            None => "name the column in `columns`; ".to_owned(),
        };
        hint += &format!("columns found: {}", self.header.join(", "));
        StageError::bad(path, format!("missing column `{name}`")).at(1).hint(hint)
    }

    /// Where the row stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The names of all columns of the file, in lower case.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The place among all columns of that with a role.
    pub fn column(&self, role: usize) -> Option<usize> {
        self.places.get(role).copied().flatten()
    }

    /// The cell of a column with a role; `None` where there is no such column.
    pub fn cell(&self, role: usize) -> Option<&str> {
        self.at(self.column(role)?)
    }

    /// The cell at a place among all columns.
    pub fn at(&self, column: usize) -> Option<&str> {
        self.record.get(column)
    }

    /// The row's time, from the column of role 0.
    ///
    /// # Errors
    /// More rows whose time cannot be read than may pass; a time with a zone among those without.
    pub fn stamp(&mut self, tally: &mut Tally) -> Result<Option<Stamp>> {
        let text = self.record.get(self.column(0).unwrap_or(0)).unwrap_or("");
        let Some(stamp) = time::parse(text) else {
            let message = || format!("`{text}` is not a time");
            tally.fault(Fault::Malformed, self.place, message, time::HINT)?;
            return Ok(None);
        };
        if let Err(message) = self.zones.check(&stamp, self.place.line) {
            return Err(tally.bad(self.place, message).hint(time::ZONE_HINT));
        }
        match &mut self.local {
            Some(local) => local.settle(stamp, text, self.place, tally),
            None => Ok(Some(stamp)),
        }
    }

    /// A number in the column of a role that is above 0, or not below it where `zero` may be.
    ///
    /// # Errors
    /// More such faults than may pass.
    pub fn number(&self, role: usize, zero: bool, tally: &mut Tally) -> Result<Option<f64>> {
        let text = self.cell(role).unwrap_or("");
        let name = self.roles.get(role).map_or("", |role| role.name);
        positive(text, name, zero, self.place, tally)
    }
}

/// A number above 0, or not below it where `zero` may be.
///
/// # Errors
/// More such faults than may pass.
pub fn positive(
    text: &str,
    name: &str,
    zero: bool,
    place: Place,
    tally: &mut Tally,
) -> Result<Option<f64>> {
    let mut bad = |message: String, hint| {
        tally.fault(Fault::BadValue, place, || message, hint).map(|()| None)
    };
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() || zero && x == 0.0 => Ok(Some(x)),
        Ok(x) if x.is_finite() && zero => {
            bad(format!("{name} is below 0: {text}"), "correct the cell or remove the row")
        }
        Ok(x) if x.is_finite() => bad(
            format!("{name} must be above 0, and is {text}"),
            "correct the cell or remove the row",
        ),
        _ if text.is_empty() => bad(
            format!("{name} is empty"),
            "fill the cell or remove the row; numbers are not guessed",
        ),
        _ => bad(
            format!("{name} is not a number: `{text}`"),
            "write numbers as 1234.5, without thousands separators",
        ),
    }
}
