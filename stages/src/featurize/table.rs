//! Reads `features.csv` back, for the stages that follow.
//!
//! Columns are found by name, so that a file with more of them, or with other bars, is read as
//! well; rows of the warm-up have features that are not known.

use std::path::Path;

use super::bars::{Bar, unreadable};
use super::date;
use super::split::Split;
use super::state::FEATURES;
use crate::{Result, StageError};

/// A row of `features.csv`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The bar.
    pub bar: Bar,
    /// Its split.
    pub split: Split,
    /// The features in the order of [`FEATURES`]; `NaN` in the warm-up.
    pub features: [f64; 15],
}

impl Row {
    /// A feature by name.
    pub fn feature(&self, name: &str) -> Option<f64> {
        self.features.get(FEATURES.iter().position(|f| *f == name)?).copied()
    }
}

/// All rows of a file, in order.
///
/// # Errors
/// A column is missing, a cell is not a number, a split is unknown, dates do not ascend, or a row
/// past the warm-up lacks a feature.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let mut reader = csv::Reader::from_path(path)
        .map_err(|e| StageError::failed(format!("{}: {e}", path.display())))?;
    let header = reader.headers().map_err(|e| unreadable(path, &e))?.clone();
    let place = |name: &str| {
        header.iter().position(|found| found == name).ok_or_else(|| {
            let found = header.iter().collect::<Vec<_>>().join(", ");
            StageError::bad(path, format!("missing column `{name}`"))
                .at(1)
                .hint(format!("features come from a `featurize` stage; columns found: {found}"))
        })
    };
    let (date_at, split_at) = (place("date")?, place("split")?);
    let mut bar_at = [0; 5];
    for (slot, name) in bar_at.iter_mut().zip(["open", "high", "low", "close", "volume"]) {
        *slot = place(name)?;
    }
    let mut feature_at = [0; 15];
    for (slot, name) in feature_at.iter_mut().zip(FEATURES) {
        *slot = place(name)?;
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| unreadable(path, &e))? {
        let line = record.position().map_or(0, csv::Position::line);
        let bad = |message: String| StageError::bad(path, message).at(line);
        let text = |at: usize| record.get(at).unwrap_or("");
        let number = |at: usize| match text(at).parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(x),
            _ => {
                let name = header.get(at).unwrap_or("");
                Err(bad(format!("{name} is not a number: `{}`", text(at))))
            }
        };
        let split = Split::parse(text(split_at))
            .ok_or_else(|| bad(format!("unknown split `{}`", text(split_at))))?;
        let mut features = [f64::NAN; 15];
        for (slot, at) in features.iter_mut().zip(feature_at) {
            if split != Split::Warmup || !text(at).is_empty() {
                *slot = number(at)?;
            }
        }
        let day = text(date_at).to_owned();
        let key = date::key(&day).ok_or_else(|| bad(format!("`{day}` is not a date")))?;
        if rows.last().is_some_and(|last| last.bar.key >= key) {
            return Err(bad("dates do not ascend".into()).hint("sort the file by date"));
        }
        let [open, high, low, close, volume] = bar_at;
        let bar = Bar {
            date: day,
            key,
            open: number(open)?,
            high: number(high)?,
            low: number(low)?,
            close: number(close)?,
            volume: number(volume)?,
        };
        rows.push(Row { bar, split, features });
    }
    Ok(rows)
}
