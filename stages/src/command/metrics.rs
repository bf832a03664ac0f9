//! Numbers that a command leaves in a JSON file become metrics of its action.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Params;
use super::item::Pattern;
use crate::{Context, Invalid, Result, StageError};

/// `metrics` must name an output that is a file.
pub fn check(params: &Params) -> std::result::Result<(), Invalid> {
    let Some(name) = &params.metrics else { return Ok(()) };
    match params.outputs.get(name) {
        None => {
            let outputs: Vec<String> = params.outputs.keys().map(|o| format!("`{o}`")).collect();
            let invalid = Invalid::new("metrics", format!("no output `{name}`"));
            Err(invalid.help(format!("name one of the outputs: {}", outputs.join(", "))))
        }
        Some(path) if Pattern::of(path).is_some() => {
            let message = format!("each item writes an output `{name}` of its own");
            // A sum or a mean of them means something only to who knows what they are.
            Err(Invalid::new("metrics", message).help(format!(
                "let a stage that reads them all (`from: STAGE.{name}`) write one JSON file, and \
                 give `metrics` to that one"
            )))
        }
        Some(path) if path.ends_with('/') || path.contains(['{', '}']) => {
            Err(Invalid::new("metrics", format!("output `{name}` is a folder"))
                .help("name an output that is one JSON file"))
        }
        Some(_) => Ok(()),
    }
}

/// Keeps the numbers of the file, nested ones by dotted names.
pub fn report(params: &Params, ctx: &Context) -> Result<()> {
    let Some(name) = &params.metrics else { return Ok(()) };
    let path = ctx.output(name)?;
    let text = std::fs::read(path)?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| {
        StageError::failed(format!("its output `{name}` is no JSON: {error}"))
            .hint("`metrics` names an output like {\"accuracy\": 0.93}")
    })?;
    let mut numbers = BTreeMap::new();
    flatten("", &value, &mut numbers);
    if numbers.is_empty() {
        ctx.warn(format!("its output `{name}` has no number to keep"));
    }
    numbers.into_iter().for_each(|(name, number)| ctx.metric(&name, number));
    Ok(())
}

fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{key}"), value, into);
            }
        }
        Value::Number(number) => {
            let name = if name.is_empty() { "value" } else { name };
            into.extend(number.as_f64().map(|number| (name.to_owned(), number)));
        }
        Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_numbers_have_dotted_names_and_the_rest_is_no_metric() {
        let value =
            serde_json::json!({ "a": 1, "b": { "c": 2.5, "d": [1, 2], "e": "x" }, "f": null });
        let mut numbers = BTreeMap::new();
        flatten("", &value, &mut numbers);
        assert_eq!(numbers, BTreeMap::from([("a".into(), 1.0), ("b.c".into(), 2.5)]));
    }
}
