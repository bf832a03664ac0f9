//! What stands beside the features: the account (position, profit and past decisions) and news, each
//! read along with the rows and seen only up to the date of a row.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::featurize::table::unreadable;
use crate::market::time;
use crate::{Result, StageError};

/// The account at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Units held; below 0 where short.
    pub position: f64,
    /// Profit since the position was opened, or the day began: basis points.
    pub pnl_bps: f64,
    /// The last decisions, the oldest first.
    pub decisions: Vec<String>,
    /// The order that rests, where the file says, such as `buy limit 10`.
    pub resting: String,
}

/// Lines of a CSV file with a date and further columns, in order; ends after the first error.
struct Dated {
    path: PathBuf,
    reader: csv::Reader<fs_err::File>,
    places: Vec<Option<usize>>,
    last: Option<i64>,
    done: bool,
}

impl Dated {
    /// Opens a file: `date` and the first `needed` of `names` must be there.
    fn open(path: &Path, names: &[&str], needed: usize) -> Result<Dated> {
        let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
        let header = reader.headers().map_err(|e| unreadable(path, &e))?.clone();
        let find = |name: &str| header.iter().position(|found| found == name);
        for name in std::iter::once(&"date").chain(&names[..needed]) {
            if find(name).is_none() {
                let found = header.iter().collect::<Vec<_>>().join(", ");
                return Err(StageError::bad(path, format!("missing column `{name}`"))
                    .at(1)
                    .hint(format!("columns found: {found}")));
            }
        }
        let places = std::iter::once(&"date").chain(names).map(|name| find(name)).collect();
        Ok(Dated { path: path.to_owned(), reader, places, last: None, done: false })
    }

    fn read(&mut self) -> Result<Option<Line>> {
        let mut record = csv::StringRecord::new();
        if !self.reader.read_record(&mut record).map_err(|e| unreadable(&self.path, &e))? {
            return Ok(None);
        }
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |place: &Option<usize>| place.and_then(|at| record.get(at)).unwrap_or("");
        let mut cells = self.places.iter().map(|place| cell(place).trim().to_owned());
        let date = cells.next().unwrap_or_default();
        let bad = |what: String| StageError::bad(&self.path, what).at(line);
        let stamp = time::parse(&date)
            .ok_or_else(|| bad(format!("`{date}` is not a date")).hint(time::HINT))?;
        if self.last.is_some_and(|last| last > stamp.time) {
            return Err(bad("dates do not ascend".into()).hint("sort the file by date"));
        }
        self.last = Some(stamp.time);
        Ok(Some(Line { time: stamp.time, line, cells: cells.collect() }))
    }
}

struct Line {
    time: i64,
    line: u64,
    cells: Vec<String>,
}

impl Iterator for Dated {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Result<Line>> {
        if self.done {
            return None;
        }
        let line = self.read().transpose();
        self.done = !matches!(line, Some(Ok(_)));
        line
    }
}

/// Both, as far as the rows have come.
#[derive(Default)]
pub struct Beside {
    account: Option<(Peekable<Dated>, PathBuf)>,
    news: Option<Peekable<Dated>>,
    now: Option<Account>,
    decisions: VecDeque<String>,
    lines: VecDeque<String>,
    back: (usize, usize),
}

impl Beside {
    /// Opens what is given: the account with the last `decisions`, and the last `news` lines.
    ///
    /// # Errors
    /// A file cannot be read, or lacks a column.
    pub fn open(
        account: Option<&Path>,
        news: Option<&Path>,
        (decisions, lines): (usize, usize),
    ) -> Result<Beside> {
        let columns = ["position", "pnl_bps", "decision", "resting"];
        let account = match account {
            Some(path) => Some((Dated::open(path, &columns, 2)?.peekable(), path.to_owned())),
            None => None,
        };
        let news = news.map(|path| Dated::open(path, &["text"], 1)).transpose()?;
        let back = (decisions, lines);
        Ok(Beside { account, news: news.map(Iterator::peekable), back, ..Beside::default() })
    }

    /// What is known at a time: the account, and the news, the oldest first.
    ///
    /// # Errors
    /// A file cannot be read, or a cell is not a number.
    pub fn at(&mut self, time: i64) -> Result<(Option<Account>, Vec<String>)> {
        if let Some((lines, path)) = &mut self.account {
            while let Some(line) = next_up_to(lines, time)? {
                let number = |at: usize| {
                    let text = &line.cells[at];
                    text.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(|| {
                        StageError::bad(&*path, format!("`{text}` is not a number")).at(line.line)
                    })
                };
                let (position, pnl_bps) = (number(0)?, number(1)?);
                let resting = line.cells[3].clone();
                self.now = Some(Account { position, pnl_bps, decisions: Vec::new(), resting });
                keep(&mut self.decisions, &line.cells[2], self.back.0);
            }
        }
        if let Some(lines) = &mut self.news {
            while let Some(line) = next_up_to(lines, time)? {
                keep(&mut self.lines, &line.cells[0], self.back.1);
            }
        }
        let account = self
            .now
            .clone()
            .map(|now| Account { decisions: self.decisions.iter().cloned().collect(), ..now });
        Ok((account, self.lines.iter().cloned().collect()))
    }
}

/// The next line, where it is not later than `key`: what came before a bar closed is known then.
fn next_up_to(lines: &mut Peekable<Dated>, time: i64) -> Result<Option<Line>> {
    lines.next_if(|line| line.as_ref().map_or(true, |line| line.time <= time)).transpose()
}

fn keep(lines: &mut VecDeque<String>, line: &str, most: usize) {
    if !line.is_empty() {
        lines.push_back(line.to_owned());
    }
    while lines.len() > most {
        lines.pop_front();
    }
}
