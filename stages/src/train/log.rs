//! `log.jsonl`: one JSON object a step, written as training goes.
//!
//! No clock: the same run gives the same bytes. Durations are the runner's business.

use std::io::Write;
use std::path::Path;

use fs_err::File;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Result;

/// The numbers of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The step, from 1.
    pub step: usize,
    /// Numbers by name, in order.
    pub numbers: Vec<(String, f64)>,
}

impl Row {
    /// A number by its name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(key, _)| key == name).map(|(_, number)| *number)
    }
}

/// A log being written.
pub struct Log {
    file: File,
    rows: Vec<Row>,
}

impl Log {
    /// A new log at `path`.
    pub fn create(path: &Path) -> Result<Log> {
        Ok(Log { file: File::create(path)?, rows: Vec::new() })
    }

    /// What was written.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Writes the rows of a log that was cut off.
    pub fn restore(&mut self, rows: Vec<Row>) -> Result<()> {
        rows.into_iter().try_for_each(|row| self.row(row))
    }

    /// Writes a line: the step, then the numbers in the order given, whose names need no escaping.
    /// Numbers keep seven digits, about what an f32 holds.
    pub fn line(&mut self, step: usize, numbers: &[(&str, f64)]) -> Result<()> {
        let numbers = numbers.iter().map(|(name, number)| ((*name).to_owned(), *number));
        self.row(Row { step, numbers: numbers.collect() })
    }

    fn row(&mut self, row: Row) -> Result<()> {
        let mut text = format!("{{\"step\":{}", row.step);
        for (name, number) in &row.numbers {
            text.push_str(&format!(",\"{name}\":{}", rounded(*number)));
        }
        text.push_str("}\n");
        self.rows.push(row);
        // A line a step is not worth a buffer, and can be followed as it comes.
        Ok(self.file.write_all(text.as_bytes())?)
    }
}

fn rounded(number: f64) -> Value {
    let short = format!("{number:.6e}").parse::<f64>().unwrap_or(number);
    if short.fract() == 0.0 && short.abs() < 1e15 {
        return Value::from(short as i64);
    }
    Value::from(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_in_the_order_given() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::create(file.path()).unwrap();
        log.line(1, &[("loss", 3.123456789), ("lr", 2e-5), ("tokens", 2048.0)]).unwrap();
        log.line(2, &[("loss", -0.0)]).unwrap();
        let text = fs_err::read_to_string(file.path()).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"loss\":3.123457,\"lr\":0.00002,\"tokens\":2048}\n{\"step\":2,\"loss\":0}\n"
        );
    }
}
