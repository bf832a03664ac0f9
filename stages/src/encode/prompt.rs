//! A line of `prompts.jsonl`, and the reader for the stages that follow.

use std::io::BufRead;
use std::path::Path;

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
    /// `train` or `test`.
    pub split: Split,
    /// The text; a completion goes on right after it.
    pub prompt: String,
}

/// All prompts of a file, in order.
///
/// # Errors
/// A line is no prompt, or an id comes twice.
pub fn read(path: &Path) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for (number, line) in (1..).zip(std::io::BufReader::new(fs_err::File::open(path)?).lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let prompt: Prompt = serde_json::from_str(&line).map_err(|e| {
            StageError::bad(path, format!("not a prompt: {e}"))
                .at(number)
                .hint("each line is {\"id\", \"t0\", \"split\", \"prompt\"}, as `encode` writes it")
        })?;
        if !ids.insert(prompt.id.clone()) {
            let message = format!("id `{}` came before", prompt.id);
            return Err(StageError::bad(path, message).at(number));
        }
        prompts.push(prompt);
    }
    Ok(prompts)
}
