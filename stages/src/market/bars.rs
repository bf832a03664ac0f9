//! OHLCV bars from CSV (plain or packed) and Parquet, as samples.
//!
//! A bar's time is the stamp that the file has: whether that is the beginning or the end of the bar is
//! the file's custom, and known here no better. Nothing is repaired unless the caller lets it: a row
//! that cannot be a bar is an error, since a number that was guessed here would be traded on later.

use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::Place;
use super::quality::{Counts, Fault, Tally};
use super::rows::{Columns, Role, Rows, SYMBOL, TIME, positive};
use super::time::{self, Form, Stamp, Zones};
use super::zone::Local;
use super::{Feed, Sample, Samples};
use crate::{Invalid, Result, StageError};

/// Files of OHLCV bars: CSV, plain or packed, or Parquet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bars {
    /// Names of columns that are not found by themselves, by what they mean: time, open, high, low,
    /// close, volume, symbol.
    pub columns: Columns,
    /// The symbol that is wanted, where the files hold several.
    pub symbol: Option<String>,
    /// The IANA name of the zone of times that do not say theirs, such as America/New_York. Without it
    /// they are UTC. Dates of `splits` and of the output are UTC all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The files hold closes and nothing else of a bar, such as a table with a column for each
    /// instrument: name that of this series in `columns`, as `close`. Open, high and low are then the
    /// close and volume is 0; features of ranges or volume are refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub closes_only: bool,
}

const fn role(name: &'static str, aliases: &'static [&'static str]) -> Role {
    Role { name, aliases, required: true }
}

const ROLES: &[Role] = &[
    Role { name: "time", aliases: BAR_TIME, ..TIME },
    SYMBOL,
    role("open", &["o", "open_price"]),
    role("high", &["h", "high_price"]),
    role("low", &["l", "low_price"]),
    CLOSE,
    role("volume", &["vol", "v"]),
];
/// Of files with closes alone.
const CLOSES: &[Role] = &[Role { name: "time", aliases: BAR_TIME, ..TIME }, SYMBOL, CLOSE];
const CLOSE: Role = role("close", &["c", "close_price"]);
const BAR_TIME: &[&str] =
    &["date", "timestamp", "datetime", "open_time", "ts", "ts_event", "day", "__index_level_0__"];
const VOLUME: usize = 6;

impl Bars {
    /// Holds `columns` to what bars have.
    ///
    /// # Errors
    /// A column that is not read.
    pub fn check(&self) -> Result<(), Invalid> {
        Local::new(self.time_zone.as_deref())?;
        super::rows::check(&self.columns, self.roles())
    }

    fn roles(&self) -> &'static [Role] {
        if self.closes_only { CLOSES } else { ROLES }
    }
}

/// The samples of files of bars.
pub struct BarFiles {
    source: Cells,
    params: Bars,
    symbol: Option<String>,
    last: Option<(i64, Place)>,
    form: Form,
    tally: Tally,
}

/// Where cells come from.
enum Cells {
    Csv(Rows),
    Parquet(Parquet),
}

impl BarFiles {
    /// Opens the first file.
    ///
    /// # Errors
    /// It cannot be read, or lacks a column.
    pub fn open(params: &Bars, paths: Vec<PathBuf>, tally: Tally) -> Result<BarFiles> {
        let local = Local::new(params.time_zone.as_deref());
        let local = local.map_err(|e| StageError::failed(e.message))?;
        let parquet = paths.iter().filter(|path| is_parquet(path)).count();
        let source = match parquet {
            0 => {
                let mut rows = Rows::new(paths, params.roles(), &params.columns).local(local);
                rows.begin()?;
                Cells::Csv(rows)
            }
            n if n == paths.len() => Cells::Parquet(Parquet::open(paths, params, local)?),
            _ => {
                return Err(StageError::failed("some files of bars are Parquet and some are not")
                    .hint("make an input of each, or convert them"));
            }
        };
        let params = params.clone();
        Ok(BarFiles { source, params, symbol: None, last: None, form: Form::Date, tally })
    }

    fn place(&self) -> Place {
        match &self.source {
            Cells::Csv(rows) => rows.place(),
            Cells::Parquet(parquet) => parquet.place,
        }
    }

    fn wanted(&mut self) -> Result<bool> {
        let parquet;
        let symbol = match &self.source {
            Cells::Csv(rows) => rows.cell(1),
            Cells::Parquet(rows) => {
                parquet = rows.text(1);
                parquet.as_deref()
            }
        };
        let Some(symbol) = symbol else { return Ok(true) };
        if let Some(wanted) = &self.params.symbol {
            return Ok(symbol.eq_ignore_ascii_case(wanted));
        }
        match &self.symbol {
            None => self.symbol = Some(symbol.to_owned()),
            Some(first) if first == symbol => {}
            Some(first) => {
                return Err(self
                    .tally
                    .bad(self.place(), format!("`{symbol}` beside `{first}`"))
                    .hint("set `symbol` to the one that is wanted"));
            }
        }
        Ok(true)
    }

    /// The row's time, where it comes after the rows before.
    fn time(&mut self) -> Result<Option<Stamp>> {
        let stamp = match &mut self.source {
            Cells::Csv(rows) => rows.stamp(&mut self.tally)?,
            Cells::Parquet(parquet) => parquet.stamp(&mut self.tally)?,
        };
        let Some(stamp) = stamp else { return Ok(None) };
        let place = self.place();
        if let Some((last, there)) = self.last {
            let text = stamp.form.write(stamp.time);
            let of = if there.file == place.file { "" } else { " of the file before" };
            let line = there.line;
            if stamp.time == last {
                let message = || format!("time {text} is on line {line}{of} already");
                let hint = "keep one row for each time";
                self.tally.fault(Fault::Duplicate, place, message, hint)?;
                return Ok(None);
            }
            if stamp.time < last {
                let message = || format!("time {text} comes after a later one on line {line}{of}");
                let hint = "sort the file by time";
                self.tally.fault(Fault::OutOfOrder, place, message, hint)?;
                return Ok(None);
            }
        }
        self.form = self.form.max(stamp.form);
        self.last = Some((stamp.time, place));
        Ok(Some(stamp))
    }

    fn number(&mut self, role: usize) -> Result<Option<f64>> {
        let zero = role == VOLUME;
        match &self.source {
            Cells::Csv(rows) => rows.number(role, zero, &mut self.tally),
            Cells::Parquet(rows) => {
                let text = rows.text(role).unwrap_or_default();
                positive(&text, rows.roles[role].name, zero, rows.place, &mut self.tally)
            }
        }
    }

    /// Fills in the bar of the row; false where it is left out.
    fn bar(&mut self, into: &mut Sample) -> Result<bool> {
        if !self.wanted()? {
            self.tally.counts.other += 1;
            return Ok(false);
        }
        let before = self.last;
        let Some(stamp) = self.time()? else { return Ok(false) };
        let mut values = [0.0; 5];
        let count = self.params.roles().len() - 2;
        for (value, role) in values.iter_mut().zip(2..).take(count) {
            let Some(number) = self.number(role)? else {
                self.last = before;
                return Ok(false);
            };
            *value = number;
        }
        if self.params.closes_only {
            values = [values[0], values[0], values[0], values[0], 0.0];
        }
        let [open, high, low, close, volume] = values;
        if high < low {
            let message = || format!("high {high} is below low {low}");
            let hint = "check that the columns are not swapped; remove the row if it is wrong";
            self.tally.fault(Fault::BadValue, self.place(), message, hint)?;
            self.last = before;
            return Ok(false);
        }
        into.trades.clear();
        into.peers.clear();
        let trades = std::mem::take(&mut into.trades);
        let peers = std::mem::take(&mut into.peers);
        *into = Sample {
            time: stamp.time,
            open,
            high,
            low,
            close,
            volume,
            turnover: close * volume,
            trades,
            peers,
            ..Sample::default()
        };
        Ok(true)
    }
}

impl Samples for BarFiles {
    fn next(&mut self, into: &mut Sample) -> Result<bool> {
        loop {
            let found = match &mut self.source {
                Cells::Csv(rows) => rows.advance(&mut self.tally)?,
                Cells::Parquet(parquet) => parquet.advance(&mut self.tally)?,
            };
            if !found {
                return Ok(false);
            }
            if self.bar(into)? {
                self.tally.counts.samples += 1;
                return Ok(true);
            }
        }
    }
}

impl Feed for BarFiles {
    fn counts(&self) -> Counts {
        self.tally.counts.clone()
    }

    fn form(&self) -> Form {
        self.form
    }

    fn file(&self) -> usize {
        self.last.map_or(0, |(_, place)| place.file as usize)
    }
}

fn is_parquet(path: &Path) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let read = fs_err::File::open(path).and_then(|file| file.take(4).read_to_end(&mut head));
    read.is_ok() && head == b"PAR1"
}

/// The rows of Parquet files. A place's line is the row, from 1.
struct Parquet {
    paths: Vec<PathBuf>,
    roles: &'static [Role],
    columns: Columns,
    reader: Option<RowIter<'static>>,
    places: Vec<Option<usize>>,
    row: Option<Row>,
    zones: Zones,
    local: Option<Local>,
    place: Place,
}

impl Parquet {
    fn open(paths: Vec<PathBuf>, params: &Bars, local: Option<Local>) -> Result<Parquet> {
        let mut parquet = Parquet {
            paths,
            roles: params.roles(),
            columns: params.columns.clone(),
            reader: None,
            places: Vec::new(),
            row: None,
            zones: Zones::default(),
            local,
            place: Place::default(),
        };
        parquet.start(0)?;
        Ok(parquet)
    }

    fn start(&mut self, file: usize) -> Result<bool> {
        let Some(path) = self.paths.get(file) else { return Ok(false) };
        let reader = SerializedFileReader::new(fs_err::File::open(path)?.into_parts().0)
            .map_err(|e| unreadable(path, &e))?;
        let schema = reader.metadata().file_metadata().schema();
        let header: Vec<String> =
            schema.get_fields().iter().map(|field| field.name().to_lowercase()).collect();
        let position = |name: &str| header.iter().position(|found| found == &name.to_lowercase());
        let find = |role: &Role| {
            let found = match self.columns.get(role.name) {
                Some(column) => position(column),
                None => std::iter::once(&role.name).chain(role.aliases).find_map(|n| position(n)),
            };
            if found.is_none() && role.required {
                let name = self.columns.get(role.name).map_or(role.name, String::as_str);
                let hint =
                    format!("name the column in `columns`; columns found: {}", header.join(", "));
                return Err(StageError::bad(path, format!("missing column `{name}`")).hint(hint));
            }
            Ok(found)
        };
        self.places = self.roles.iter().map(find).collect::<Result<_>>()?;
        if reader.metadata().file_metadata().num_rows() == 0 {
            return Err(StageError::bad(path, "the file has no rows"));
        }
        self.reader = Some(RowIter::from_file_into(Box::new(reader)));
        self.place = Place { file: file as u32, line: 0 };
        self.zones = Zones::default();
        self.local.iter_mut().for_each(Local::start);
        Ok(true)
    }

    fn advance(&mut self, tally: &mut Tally) -> Result<bool> {
        loop {
            let Some(reader) = &mut self.reader else {
                if !self.start(self.place.file as usize + 1)? {
                    return Ok(false);
                }
                continue;
            };
            match reader.next() {
                Some(Ok(row)) => {
                    self.row = Some(row);
                    self.place.line += 1;
                    tally.counts.lines += 1;
                    return Ok(true);
                }
                Some(Err(e)) => {
                    return Err(unreadable(&self.paths[self.place.file as usize], &e)
                        .at(self.place.line + 1));
                }
                None => self.reader = None,
            }
        }
    }

    fn field(&self, role: usize) -> Option<&Field> {
        let place = self.places.get(role).copied().flatten()?;
        self.row.as_ref()?.get_column_iter().nth(place).map(|(_, field)| field)
    }

    /// The cell as text, so that what it may be is decided in one place.
    fn text(&self, role: usize) -> Option<String> {
        Some(match self.field(role)? {
            Field::Null => String::new(),
            Field::Str(text) => text.clone(),
            Field::Double(x) => x.to_string(),
            Field::Float(x) => x.to_string(),
            other => other.to_string(),
        })
    }

    fn stamp(&mut self, tally: &mut Tally) -> Result<Option<Stamp>> {
        let stamp = |time: Option<i64>, form| {
            time.map(|time| Stamp { time, form, zone: time::Zone::Epoch })
        };
        let found = match self.field(0) {
            Some(Field::TimestampMillis(t)) => stamp(t.checked_mul(1_000_000), Form::Millis),
            Some(Field::TimestampMicros(t)) => stamp(t.checked_mul(1_000), Form::Micros),
            Some(Field::Date(days)) => stamp(i64::from(*days).checked_mul(time::DAY), Form::Date),
            _ => self.text(0).and_then(|text| time::parse(&text)),
        };
        let Some(stamp) = found else {
            let text = self.text(0).unwrap_or_default();
            let message = || format!("`{text}` is not a time");
            tally.fault(Fault::Malformed, self.place, message, time::HINT)?;
            return Ok(None);
        };
        if let Err(message) = self.zones.check(&stamp, self.place.line) {
            return Err(tally.bad(self.place, message).hint(time::ZONE_HINT));
        }
        let Some(mut local) = self.local.take() else { return Ok(Some(stamp)) };
        let text = self.text(0).unwrap_or_default();
        let settled = local.settle(stamp, &text, self.place, tally);
        self.local = Some(local);
        settled
    }
}

fn unreadable(path: &Path, error: &parquet::errors::ParquetError) -> StageError {
    StageError::bad(path, format!("cannot be read as Parquet: {error}"))
        .hint("the file is cut off or damaged, or packed otherwise than with Snappy: write it anew")
}
