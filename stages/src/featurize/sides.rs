//! The side that a meta-label judges: the sign of a feature, or what a model answered.
//!
//! Answers are read along with the rows. They count for the row of their own date, and are not carried
//! on: a model that was not asked takes no side. Whether it had seen the row in its training is for the
//! pipeline to know; nothing here can tell.

use std::path::{Path, PathBuf};

use super::feature::Column;
use super::labels::Meta;
use super::table::unreadable;
use super::wrong;
use crate::market::time;
use crate::pairs::decision::Decision;
use crate::{Context, Invalid, Result, StageError};

/// Where sides come from.
pub enum Sides {
    /// There is no meta-label.
    None,
    /// A feature, by its place.
    Feature(Meta, usize),
    /// A file.
    Answers(Answers),
}

impl Sides {
    /// What the parameters name.
    ///
    /// # Errors
    /// The column is not there, or the file cannot be read.
    pub fn open(meta: Option<&Meta>, columns: &[Column], ctx: &Context) -> Result<Sides> {
        let Some(meta) = meta else { return Ok(Sides::None) };
        if let Some(column) = &meta.answers {
            return Answers::open(ctx.file("answers")?, column).map(Sides::Answers);
        }
        let side = meta.side.as_deref().unwrap_or_default();
        let place = columns.iter().position(|column| column.name == side);
        let place = place.ok_or_else(|| {
            let message = format!("there is no column `{side}` in `features`");
            wrong(Invalid::new("meta.side", message).help("add it to `features`"))
        })?;
        Ok(Sides::Feature(meta.clone(), place))
    }

    /// The side at a row: 1, -1, or none.
    ///
    /// # Errors
    /// The file of answers cannot be read.
    pub fn at(&mut self, time: i64, features: &[Option<f64>]) -> Result<Option<i8>> {
        match self {
            Sides::None => Ok(None),
            Sides::Feature(meta, place) => {
                Ok(meta.side_of(features.get(*place).copied().flatten()))
            }
            Sides::Answers(answers) => answers.at(time),
        }
    }
}

/// A CSV file of answers, read in the order of its dates. Where it has a column `source`, as the
/// decisions of `evaluate` have, those of the first source count.
pub struct Answers {
    path: PathBuf,
    reader: csv::Reader<fs_err::File>,
    /// Places of the date, the answer and the source.
    places: (usize, usize, Option<usize>),
    source: Option<String>,
    /// The next answer, and its date.
    next: Option<(i64, Option<i8>)>,
}

impl Answers {
    fn open(path: &Path, column: &str) -> Result<Answers> {
        let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
        let header = reader.headers().map_err(|e| unreadable(path, &e))?.clone();
        let find = |name: &str| header.iter().position(|found| found == name);
        let place = |name: &str| {
            find(name).ok_or_else(|| {
                let found = header.iter().collect::<Vec<_>>().join(", ");
                StageError::bad(path, format!("missing column `{name}`"))
                    .at(1)
                    .hint(format!("columns found: {found}"))
            })
        };
        let places = (place("date")?, place(column)?, find("source"));
        let mut answers = Answers { path: path.into(), reader, places, source: None, next: None };
        answers.next = answers.read(i64::MIN)?;
        Ok(answers)
    }

    /// The next answer of the source, which must come after `last`.
    fn read(&mut self, last: i64) -> Result<Option<(i64, Option<i8>)>> {
        let (date, answer, source) = self.places;
        let mut record = csv::StringRecord::new();
        while self.reader.read_record(&mut record).map_err(|e| unreadable(&self.path, &e))? {
            let cell = |at: usize| record.get(at).unwrap_or("").trim();
            let bad = |what: String| {
                StageError::bad(&self.path, what).at(record.position().map_or(0, |at| at.line()))
            };
            let of = source.map(cell).unwrap_or_default();
            if self.source.as_deref().is_some_and(|first| first != of) {
                continue;
            }
            let stamp = time::parse(cell(date))
                .ok_or_else(|| bad(format!("`{}` is not a date", cell(date))).hint(time::HINT))?;
            if stamp.time <= last {
                return Err(bad("dates do not ascend".into()).hint("sort the file by date"));
            }
            let side = side(cell(answer));
            self.source = Some(of.to_owned());
            return Ok(Some((stamp.time, side)));
        }
        Ok(None)
    }

    fn at(&mut self, time: i64) -> Result<Option<i8>> {
        while let Some((date, side)) = self.next {
            if date > time {
                return Ok(None);
            }
            self.next = self.read(date)?;
            if date == time {
                return Ok(side);
            }
        }
        Ok(None)
    }
}

/// The side of an answer: of a number its sign, of an action its side. What is neither takes none.
fn side(text: &str) -> Option<i8> {
    if let Ok(number) = text.parse::<f64>() {
        return match number {
            x if x > 0.0 => Some(1),
            x if x < 0.0 => Some(-1),
            _ => None,
        };
    }
    Decision::read(text)?.action().side().map(|side| if side.sign() > 0.0 { 1 } else { -1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_at_their_own_date() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions.csv");
        let rows = "2020-01-02,model,buy market\n2020-01-03,model,flat\n2020-01-05,model,S25x3\n\
                    2020-01-06,model,parse failure\n2020-01-07,model,-0.5\n2020-01-02,base,sell market\n";
        fs_err::write(&path, format!("date,source,action\n{rows}")).unwrap();
        let mut answers = Answers::open(&path, "action").unwrap();
        let day = |n: u32| time::parse(&format!("2020-01-{n:02}")).unwrap().time;
        let sides: Vec<_> = (1..9).map(|n| answers.at(day(n)).unwrap()).collect();
        assert_eq!(sides, [None, Some(1), None, None, Some(-1), None, Some(-1), None]);
        let error = Answers::open(&path, "side").err().unwrap().to_string();
        assert!(error.contains("decisions.csv:1: missing column `side`"), "{error}");
        fs_err::write(&path, "date,x\n2020-01-02,1\n2020-01-02,1\n").unwrap();
        let error = Answers::open(&path, "x").unwrap().at(day(9)).unwrap_err().to_string();
        assert!(error.contains(":3: dates do not ascend"), "{error}");
    }
}
