//! A line of `prompts.jsonl`, and the reader for the stages that follow.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::featurize::split::Split;
use crate::{Result, StageError};

/// What a model is asked at one decision time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Unique in the file.
    pub id: String,
    /// The date of the decision.
    pub t0: String,
    /// `train` or `test`; `holdout` where that was opened.
    pub split: Split,
    /// The text; a completion goes on right after it.
    pub prompt: String,
}

/// The prompts of a file in order; ends after the first error.
pub struct Prompts {
    path: PathBuf,
    lines: BufReader<fs_err::File>,
    line: String,
    number: u64,
    last: Option<String>,
    done: bool,
}

impl Prompts {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path) -> Result<Prompts> {
        let lines = BufReader::with_capacity(1 << 16, fs_err::File::open(path)?);
        let path = path.to_owned();
        Ok(Prompts { path, lines, line: String::new(), number: 0, last: None, done: false })
    }

    fn read(&mut self) -> Result<Option<Prompt>> {
        loop {
            self.line.clear();
            self.number += 1;
            if self.lines.read_line(&mut self.line)? == 0 {
                return Ok(None);
            }
            if !self.line.trim().is_empty() {
                break;
            }
        }
        let prompt: Prompt = serde_json::from_str(&self.line).map_err(|e| {
            StageError::bad(&self.path, format!("not a prompt: {e}"))
                .at(self.number)
                .hint("each line is {\"id\", \"t0\", \"split\", \"prompt\"}, as `encode` writes it")
        })?;
        if self.last.as_ref() == Some(&prompt.id) {
            let message = format!("id `{}` came before", prompt.id);
            return Err(StageError::bad(&self.path, message).at(self.number));
        }
        self.last = Some(prompt.id.clone());
        Ok(Some(prompt))
    }
}

impl Iterator for Prompts {
    type Item = Result<Prompt>;

    fn next(&mut self) -> Option<Result<Prompt>> {
        if self.done {
            return None;
        }
        let prompt = self.read().transpose();
        self.done = !matches!(prompt, Some(Ok(_)));
        prompt
    }
}
