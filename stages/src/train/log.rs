//! `log.jsonl`: one JSON object a step, written as training goes.
//!
//! No clock: the same run gives the same bytes. Durations are the runner's business.

use std::io::{BufWriter, Write};
use std::path::Path;

use fs_err::File;
use serde_json::Value;

use crate::Result;

/// A log being written.
pub struct Log(BufWriter<File>);

impl Log {
    /// A new log at `path`.
    pub fn create(path: &Path) -> Result<Log> {
        Ok(Log(BufWriter::new(File::create(path)?)))
    }

    /// Writes a line: the step, then the numbers in the order given, whose names need no escaping.
    /// Numbers keep seven digits, about what an f32 holds.
    pub fn line(&mut self, step: usize, numbers: &[(&str, f64)]) -> Result<()> {
        let mut text = format!("{{\"step\":{step}");
        for (name, number) in numbers {
            text.push_str(&format!(",\"{name}\":{}", rounded(*number)));
        }
        text.push_str("}\n");
        Ok(self.0.write_all(text.as_bytes())?)
    }

    /// Ends the log.
    pub fn finish(mut self) -> Result<()> {
        Ok(self.0.flush()?)
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
        log.finish().unwrap();
        let text = fs_err::read_to_string(file.path()).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"loss\":3.123457,\"lr\":0.00002,\"tokens\":2048}\n{\"step\":2,\"loss\":0}\n"
        );
    }
}
