//! What a corpus is made of: texts, prompts with completions, or conversations.
//!
//! What a line is, its fields say. A line that could be two things, is none, or is another than the
//! lines before it is an error with its place: to guess would train on the wrong tokens.

use std::path::Path;

use serde_json::{Map, Value};

use super::data;
use crate::model::chat::Message;
use crate::{Result, StageError};

/// A line of a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The line, from 1.
    pub line: u64,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// `text`.
    Text(String),
    /// `prompt` and `completion`.
    Completion {
        /// What stands before.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// `messages`.
    Chat(Vec<Message>),
}

impl Body {
    /// The fields that make it what it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::Text(_) => "`text`",
            Body::Completion { .. } => "`prompt` and `completion`",
            Body::Chat(_) => "`messages`",
        }
    }

    /// All text in it.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Body::Text(text) => vec![text],
            Body::Completion { prompt, completion } => vec![prompt, completion],
            Body::Chat(messages) => messages.iter().map(|m| m.content.as_str()).collect(),
        }
    }
}

/// Reads a corpus, all of one kind.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for (line, fields) in data::jsonl::<Map<String, Value>>(path)? {
        let body = body(fields).map_err(|message| {
            StageError::bad(path, message).at(line).hint(
                "a record has `text`, or `prompt` and `completion`, or `messages` of `role` and \
                 `content`",
            )
        })?;
        if let Some(first) = records.first().filter(|first| first.body.kind() != body.kind()) {
            let message =
                format!("a record of {} after records of {}", body.kind(), first.body.kind());
            return Err(StageError::bad(path, message)
                .at(line)
                .hint("keep records of one kind in a file; train on one after the other"));
        }
        records.push(Record { line, body });
    }
    Ok(records)
}

fn body(mut fields: Map<String, Value>) -> Result<Body, String> {
    let has = |name: &str| fields.contains_key(name);
    let kinds = [has("text"), has("prompt") || has("completion"), has("messages")];
    if kinds.iter().filter(|kind| **kind).count() > 1 {
        return Err("it could be read in two ways".into());
    }
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("`{name}` is {}, not a text", what(&other))),
        None => Err(format!("`{name}` is missing")),
    };
    match kinds {
        [true, ..] => Ok(Body::Text(text("text")?)),
        [_, true, _] => {
            Ok(Body::Completion { prompt: text("prompt")?, completion: text("completion")? })
        }
        [_, _, true] => chat(fields.remove("messages").unwrap_or_default()),
        _ => Err("not a record of this format: it has none of the fields".into()),
    }
}

fn chat(messages: Value) -> Result<Body, String> {
    let messages: Vec<Message> =
        serde_json::from_value(messages).map_err(|e| format!("`messages`: {e}"))?;
    if !messages.iter().any(|message| message.role == "assistant") {
        return Err("`messages`: there is none of the role `assistant` to learn from".into());
    }
    Ok(Body::Chat(messages))
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Result<Vec<Record>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), lines.join("\n")).unwrap();
        read(file.path())
    }

    const CHAT: &str =
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"id":1}"#;

    #[test]
    fn the_fields_say_what_a_record_is() {
        let kinds = [
            (r#"{"text":"a","prompts":3}"#, "`text`"),
            (r#"{"prompt":"a","completion":"b"}"#, "`prompt` and `completion`"),
            (CHAT, "`messages`"),
        ];
        for (line, kind) in kinds {
            let records = parse(&["", line, line]).unwrap();
            assert_eq!(records[0].body.kind(), kind);
            assert_eq!((records[0].line, records[1].line), (2, 3));
        }
    }

    #[test]
    fn a_record_that_is_unclear_is_an_error_with_its_line() {
        let bad = [
            (r#"{"text":"a","completion":"b"}"#, "two ways"),
            (r#"{"prompt":"a"}"#, "`completion` is missing"),
            (r#"{"prompt":"a","completion":3}"#, "`completion` is a number"),
            (r#"{"question":"a"}"#, "none of the fields"),
            (r#"{"messages":[{"role":"user","content":"a"}]}"#, "assistant"),
            (r#"{"messages":[{"role":"assistant","content":["a"]}]}"#, "`messages`"),
            (CHAT, "a record of `messages` after records of `text`"),
        ];
        for (line, said) in bad {
            let e = parse(&[r#"{"text":"a"}"#, line]).unwrap_err();
            assert!(e.to_string().contains(":2: ") && e.to_string().contains(said), "{e}");
            assert!(e.help().is_some());
        }
    }
}
