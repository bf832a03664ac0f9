//! Jupyter notebooks (`.ipynb`) to Markdown: prose as it is, code in fences.
//!
//! Outputs are left out: tables and pictures of a run are not the author's text.

use serde::Deserialize;

use crate::{Result, StageError};

#[derive(Deserialize)]
struct Notebook {
    #[serde(default)]
    cells: Vec<Cell>,
    /// Where the cells are in notebooks before version 4.
    #[serde(default)]
    worksheets: Vec<Sheet>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Sheet {
    #[serde(default)]
    cells: Vec<Cell>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    language_info: Language,
}

#[derive(Default, Deserialize)]
struct Language {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Cell {
    cell_type: String,
    #[serde(default, alias = "input")]
    source: Source,
    /// Of a heading cell, before version 4.
    #[serde(default)]
    level: usize,
}

/// One string, or its lines.
#[derive(Default, Deserialize)]
#[serde(from = "serde_json::Value")]
struct Source(String);

impl From<serde_json::Value> for Source {
    fn from(value: serde_json::Value) -> Source {
        Source(match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Array(lines) => {
                lines.iter().filter_map(|line| line.as_str()).collect()
            }
            _ => String::new(),
        })
    }
}

/// The Markdown of a notebook. `name` stands for it in errors.
///
/// # Errors
/// Where the file is not the JSON of a notebook, with the line.
pub fn markdown(bytes: &[u8], name: &str) -> Result<String> {
    let notebook: Notebook = serde_json::from_slice(bytes).map_err(|error| {
        StageError::bad(name, format!("not a Jupyter notebook: {error}"))
            .at(error.line() as u64)
            .hint("open it in Jupyter and save it again")
    })?;
    let language = notebook.metadata.language_info.name;
    let mut out = String::new();
    for cell in notebook.cells.iter().chain(notebook.worksheets.iter().flat_map(|s| &s.cells)) {
        let text = cell.source.0.trim_end();
        if text.trim().is_empty() {
            continue;
        }
        match cell.cell_type.as_str() {
            "code" => {
                // A fence that the code does not hold.
                let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
                let fence = "`".repeat(longest.max(2) + 1);
                out.push_str(&format!("{fence}{language}\n{text}\n{fence}\n\n"));
            }
            "heading" => {
                out.push_str(&format!("{} {text}\n\n", "#".repeat(cell.level.clamp(1, 6))));
            }
            _ => {
                out.push_str(text);
                out.push_str("\n\n");
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_and_code_but_no_outputs() {
        let json = r##"{"cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "Text with $x$."]},
            {"cell_type": "code", "source": "y = 1", "outputs": [{"text": ["42"]}]},
            {"cell_type": "code", "source": []}],
            "metadata": {"language_info": {"name": "python"}}, "nbformat": 4}"##;
        let text = markdown(json.as_bytes(), "a.ipynb").expect("a notebook");
        assert_eq!(text, "# Title\nText with $x$.\n\n```python\ny = 1\n```\n\n");
        let error = markdown(b"{\n 1}", "a.ipynb").expect_err("no JSON");
        assert!(error.to_string().starts_with("a.ipynb:2: not a Jupyter notebook"), "{error}");
    }
}
