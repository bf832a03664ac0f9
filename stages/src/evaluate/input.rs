//! Reads what `evaluate` is fed besides the models: features, prompts and the training log.
//!
//! The files come from other stages, yet each is checked for what is used here, and a fault names
//! its line. Columns and keys that are not used are left alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::backtest::Bar;
use crate::{Result, StageError};

/// The rows of features.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Date of each bar, as written.
    pub dates: Vec<String>,
    /// Prices.
    pub bars: Vec<Bar>,
    /// Split of each row: `warmup`, `train`, `gap` or `test`.
    pub split: Vec<String>,
    /// Date at which the label of a row is known, where there are labels.
    pub t1: Vec<Option<String>>,
    /// Every further column by name; `None` where a cell is empty.
    pub features: BTreeMap<String, Vec<Option<f64>>>,
}

impl Table {
    /// Row numbers by date.
    pub fn rows(&self) -> BTreeMap<&str, usize> {
        self.dates.iter().enumerate().map(|(i, d)| (d.as_str(), i)).collect()
    }
    /// A feature at a row, where it is defined.
    pub fn feature(&self, name: &str, row: usize) -> Option<f64> {
        self.features.get(name)?.get(row).copied().flatten()
    }
    /// Close of a row.
    pub fn close(&self, row: usize) -> Option<f64> {
        self.bars.get(row).map(|b| b.close)
    }
    /// Bars a year, from the dates of all rows: rounded to 252, 365 or 52 where it is near one.
    /// `None` where the dates do not span a week.
    pub fn per_year(&self) -> Option<f64> {
        let (first, last) = (day(self.dates.first()?)?, day(self.dates.last()?)?);
        let days = (last - first) as f64;
        let raw = (self.dates.len() - 1) as f64 * 365.25 / days;
        let usual = [252.0, 365.0, 52.0].into_iter().find(|u: &f64| (raw / u - 1.0).abs() < 0.02);
        (days >= 7.0).then(|| usual.unwrap_or(raw))
    }
}

/// Days since 0000-03-01 of an ISO date, by the proleptic Gregorian calendar.
pub fn day(date: &str) -> Option<i64> {
    let mut parts = date.get(..10)?.splitn(3, '-').map(|p| p.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // A year that begins in March has its leap day at the end.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    Some(365 * y + leaps + (153 * m + 2) / 5 + day - 1)
}

/// Reads files of features that are one series, in order.
pub fn features(files: &[impl AsRef<Path>]) -> Result<Table> {
    let mut table = Table::default();
    files.iter().try_for_each(|path| add(&mut table, path.as_ref()))?;
    // A column that a file lacks is empty in its rows.
    table.features.values_mut().for_each(|column| column.resize(table.dates.len(), None));
    Ok(table)
}

fn add(table: &mut Table, path: &Path) -> Result<()> {
    let begin = table.dates.len();
    let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
    let names: Vec<String> =
        reader.headers().map_err(|e| unreadable(path, &e))?.iter().map(String::from).collect();
    let place = |name: &str| {
        names.iter().position(|n| n == name).ok_or_else(|| {
            StageError::bad(path, format!("missing column `{name}`"))
                .at(1)
                .hint("feed the first output of a `featurize` stage")
        })
    };
    let (date, split) = (place("date")?, place("split")?);
    let prices = [place("open")?, place("high")?, place("low")?, place("close")?];
    let until = names.iter().position(|n| n == "t1");
    let is_other =
        |c: &usize| *c != date && *c != split && Some(*c) != until && !prices.contains(c);
    let others: Vec<usize> = (0..names.len()).filter(is_other).collect();
    let mut columns = vec![Vec::new(); others.len()];
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| unreadable(path, &e))? {
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |c: usize| record.get(c).unwrap_or("");
        let number = |c: usize| match cell(c) {
            "" => Ok(None),
            text => text.parse::<f64>().ok().filter(|x| x.is_finite()).map(Some).ok_or_else(|| {
                let name = names.get(c).map_or("", String::as_str);
                StageError::bad(path, format!("{name} is not a number: `{text}`")).at(line)
            }),
        };
        let price = |c: usize| {
            number(c)?.filter(|p| *p > 0.0).ok_or_else(|| {
                let name = names.get(c).map_or("", String::as_str);
                StageError::bad(path, format!("{name} must be above 0")).at(line)
            })
        };
        if day(cell(date)).is_none() {
            return Err(StageError::bad(path, format!("`{}` is not a date", cell(date)))
                .at(line)
                .hint("write dates as YYYY-MM-DD"));
        }
        let bar = Bar {
            open: price(prices[0])?,
            high: price(prices[1])?,
            low: price(prices[2])?,
            close: price(prices[3])?,
        };
        if table.dates.last().is_some_and(|last| last.as_str() >= cell(date)) {
            return Err(StageError::bad(path, format!("date {} does not ascend", cell(date)))
                .at(line)
                .hint("one row a date, in order of time"));
        }
        table.dates.push(cell(date).into());
        table.bars.push(bar);
        table.split.push(cell(split).into());
        table.t1.push(until.map(cell).filter(|t| !t.is_empty()).map(String::from));
        for (column, c) in columns.iter_mut().zip(&others) {
            column.push(number(*c)?);
        }
    }
    let named = others.iter().filter_map(|c| names.get(*c).cloned());
    for (name, column) in named.zip(columns) {
        let whole = table.features.entry(name).or_default();
        whole.resize(begin, None);
        whole.extend(column);
    }
    Ok(())
}

fn unreadable(path: &Path, error: &csv::Error) -> StageError {
    let bad = StageError::bad(path, error.to_string());
    match error.position() {
        Some(at) => bad.at(at.line()),
        None => bad,
    }
}

/// A prompt of the span that is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Row of the features at whose close it decides.
    pub row: usize,
    /// What the model reads.
    pub text: String,
}

/// Reads the prompts of a split, `test` or `holdout`, in order of time.
pub fn prompts(path: &Path, table: &Table, split: &str) -> Result<Vec<Prompt>> {
    #[derive(Deserialize)]
    struct Row {
        t0: String,
        split: String,
        prompt: String,
    }
    let rows = table.rows();
    let mut found: Vec<Prompt> = Vec::new();
    lines(path, |line, text| {
        let row: Row = serde_json::from_str(text).map_err(|e| {
            StageError::bad(path, e.to_string())
                .at(line)
                .hint("each line needs `t0`, `split` and `prompt`, as `encode` writes them")
        })?;
        if row.split != split {
            return Ok(());
        }
        let at = *rows.get(row.t0.as_str()).ok_or_else(|| {
            StageError::bad(path, format!("no features at {}", row.t0))
                .at(line)
                .hint("features and prompts must come from the same bars")
        })?;
        if table.split.get(at).is_some_and(|s| s != split) {
            return Err(StageError::bad(
                path,
                format!("{} is {split} here and not in the features", row.t0),
            )
            .at(line)
            .hint("features and prompts must come from the same split"));
        }
        if found.last().is_some_and(|last| last.row >= at) {
            return Err(StageError::bad(path, format!("{} does not ascend", row.t0))
                .at(line)
                .hint("one prompt a date, in order of time"));
        }
        found.push(Prompt { row: at, text: row.prompt });
        Ok(())
    })?;
    if found.is_empty() {
        let hint = match split {
            "test" => "leave a test span in `featurize`, and longer than its gap",
            _ => "seal a holdout in `featurize`, and encode it with `split: holdout`",
        };
        return Err(StageError::bad(path, format!("no prompt of split `{split}`")).hint(hint));
    }
    Ok(found)
}

/// One step of a training log: the numbers in it, by name.
pub type Step = BTreeMap<String, f64>;

/// Reads a training log; what is not a number is left out.
pub fn log(path: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    lines(path, |line, text| {
        let row: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| StageError::bad(path, e.to_string()).at(line))?;
        steps.push(row.into_iter().filter_map(|(k, v)| Some((k, v.as_f64()?))).collect());
        Ok(())
    })?;
    Ok(steps)
}

fn lines(path: &Path, mut each: impl FnMut(u64, &str) -> Result<()>) -> Result<()> {
    let reader = BufReader::new(fs_err::File::open(path)?);
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line?;
        if !line.trim().is_empty() {
            each(number, &line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs_err::write(&path, text).unwrap();
        (dir, path)
    }

    const HEAD: &str = "date,open,high,low,close,volume,split,momentum_30\n";

    #[test]
    fn days_are_counted() {
        let between = |a, b| day(b).unwrap() - day(a).unwrap();
        assert_eq!(between("1999-12-31", "2000-03-01"), 61);
        assert_eq!(between("2100-02-28", "2100-03-01"), 1);
        assert_eq!(between("1999-01-04", "2018-12-31"), 7301);
        assert_eq!(day("1999-13-04"), None);
        assert_eq!(day("soon"), None);
    }

    #[test]
    fn features_keep_their_cells() {
        let text = format!(
            "{HEAD}2020-01-01,1,2,0.5,1.5,9,warmup,\n2020-01-02,1,2,0.5,1.6,9,test,-0.25\n"
        );
        let (_dir, path) = file("f.csv", &text);
        let table = features(&[path]).unwrap();
        assert_eq!(table.feature("momentum_30", 0), None);
        assert_eq!(table.feature("momentum_30", 1), Some(-0.25));
        assert_eq!(table.close(1), Some(1.6));
        assert_eq!(table.split, ["warmup", "test"]);
    }

    #[test]
    fn files_are_one_series() {
        let (_a, first) = file("a.csv", &format!("{HEAD}2020-01-01,1,2,0.5,1.5,9,train,0.5\n"));
        let other = HEAD.replace("momentum_30", "bid");
        let (_b, second) = file("b.csv", &format!("{other}2020-01-02,1,2,0.5,1.6,9,test,7\n"));
        let table = features(&[&first, &second]).unwrap();
        assert_eq!((table.dates.len(), table.close(1)), (2, Some(1.6)));
        assert_eq!(table.features["momentum_30"], [Some(0.5), None]);
        assert_eq!(table.features["bid"], [None, Some(7.0)]);
        let error = features(&[&second, &first]).unwrap_err().to_string();
        assert!(error.contains("a.csv:2: date 2020-01-01 does not ascend"), "{error}");
    }

    #[test]
    fn faults_name_their_line() {
        let good = "2020-01-02,1,2,0.5,1.5,9,test,\n";
        for (row, want) in [
            ("2020-01-02,1,2,0.5,1.5,9,test,\n", "does not ascend"),
            ("2020-01-03,1,2,0.5,x,9,test,\n", "close is not a number"),
            ("2020-01-03,1,2,0.5,0,9,test,\n", "close must be above 0"),
            ("<b>,1,2,0.5,1,9,test,\n", "`<b>` is not a date"),
            ("2020-01-03,1,2\n", "found record with 3 fields"),
        ] {
            let (_dir, path) = file("f.csv", &format!("{HEAD}{good}{row}"));
            let error = features(&[path]).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains(":3: "), "{error}");
        }
        let (_dir, path) = file("f.csv", "date,open\n");
        assert!(features(&[path]).unwrap_err().to_string().contains("missing column `split`"));
    }

    #[test]
    fn prompts_are_those_of_the_test_span() {
        let text =
            format!("{HEAD}2020-01-01,1,2,0.5,1.5,9,train,\n2020-01-02,1,2,0.5,1.6,9,test,\n");
        let (_dir, path) = file("f.csv", &text);
        let table = features(&[path]).unwrap();
        let row = |t0: &str, split: &str| {
            format!(r#"{{"id":"x","t0":"{t0}","split":"{split}","prompt":"p"}}"#)
        };
        let (_dir, path) =
            file("p.jsonl", &[row("2020-01-01", "train"), row("2020-01-02", "test")].join("\n"));
        assert_eq!(prompts(&path, &table, "test").unwrap(), [Prompt { row: 1, text: "p".into() }]);
        // The holdout is another span, and is not taken for the test span.
        let error = prompts(&path, &table, "holdout").unwrap_err();
        assert!(error.help().unwrap().contains("split: holdout"), "{error}");
        for (rows, want) in [
            (row("2020-01-05", "test"), ":1: no features at 2020-01-05"),
            (row("2020-01-01", "test"), ":1: 2020-01-01 is test here"),
            (row("2020-01-01", "train"), "no prompt of split `test`"),
            ("{".into(), ":1: "),
        ] {
            let (_dir, path) = file("p.jsonl", &rows);
            let error = prompts(&path, &table, "test").unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
