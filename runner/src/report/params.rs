//! The parameters of a stage as text, from their JSON schema: for each its default or its type, what
//! it means, and what may stand there. Validation is not done here; `check` does it.

use serde_json::{Map, Value};

use super::text::{Paint, paint};

/// Deeper parameters than this are left to the schema for editors.
const DEEPEST: usize = 5;

/// Lines of text, within a width of so many characters. Alternatives with one of `listed` among them
/// are told elsewhere.
pub fn parameters(schema: &Value, listed: &[&str], columns: usize, colour: bool) -> String {
    let (told, out) = (Vec::new(), String::new());
    let mut page = Page { root: schema, listed, columns, colour, told, out };
    page.properties(schema, 1, "");
    page.out
}

/// The smallest value of a schema: of objects what is required, of alternatives the first.
pub fn least(root: &Value, schema: &Value) -> Value {
    let schema = resolve(root, schema);
    if let Some(fixed) = schema.get("const") {
        return fixed.clone();
    }
    if let Some(first) = alternatives(schema).first() {
        return least(root, first);
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match kind(schema) {
        "object" => {
            let required = schema["required"].as_array().into_iter().flatten();
            let of = |name: &str| (name.to_owned(), least(root, &schema["properties"][name]));
            Value::Object(required.filter_map(Value::as_str).map(of).collect::<Map<_, _>>())
        }
        "array" => Value::Array(Vec::new()),
        "string" => Value::String("x".into()),
        "boolean" => Value::Bool(false),
        _ => Value::from(1),
    }
}

/// What may stand in place of a property: each of its alternatives, or the smallest value.
pub fn choices(root: &Value, property: &Value) -> Vec<Value> {
    let target = resolve(root, property);
    let several: Vec<Value> = alternatives(target).iter().map(|one| least(root, one)).collect();
    if several.is_empty() { vec![least(root, target)] } else { several }
}

/// Follows references, and through what may also be null.
fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        let target = schema["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
        if let Some(inner) = target.and_then(|path| root.pointer(path)) {
            schema = inner;
            continue;
        }
        let several = schema["anyOf"].as_array();
        match several.map(|all| all.iter().filter(|one| one["type"] != "null").collect::<Vec<_>>())
        {
            Some(one) if one.len() == 1 => schema = one[0],
            _ => return schema,
        }
    }
}

fn alternatives(schema: &Value) -> Vec<&Value> {
    let several = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    several.into_iter().flatten().filter(|one| one["type"] != "null").collect()
}

/// The type, without null.
fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("")
        }
        one => one.as_str().unwrap_or(""),
    }
}

/// An alternative that is a mapping of one key: the key, and what lies below it.
fn keyed(schema: &Value) -> Option<(&str, &Value)> {
    let mut properties = schema["properties"].as_object()?.iter();
    let (name, inner) = properties.next()?;
    let alone = properties.next().is_none() && schema["required"][0] == *name;
    alone.then_some((name.as_str(), inner))
}

struct Page<'a> {
    root: &'a Value,
    listed: &'a [&'a str],
    columns: usize,
    colour: bool,
    /// Parts of the schema that have been told, and where.
    told: Vec<(*const Value, String)>,
    out: String,
}

impl Page<'_> {
    fn properties(&mut self, schema: &Value, depth: usize, path: &str) {
        let required = |name: &str| {
            schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
        };
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let target = resolve(self.root, property);
            let hint = match &property["default"] {
                _ if required(name) => " (required)".to_owned(),
                Value::Null | Value::Object(_) => match typed(self.root, target) {
                    kind if kind.is_empty() => String::new(),
                    kind => format!(" <{kind}>"),
                },
                Value::String(text) => format!(" [{text}]"),
                value => format!(" [{}]", short(value)),
            };
            let about = property["description"].as_str().or(target["description"].as_str());
            let (about, path) = (about.unwrap_or(""), join(path, name));
            let known = self.told.iter().find(|(part, _)| std::ptr::eq(*part, target));
            if let Some((_, at)) = known.filter(|_| many(target)) {
                self.line(depth, name, &hint, &format!("{about} As `{at}`."));
                continue;
            }
            self.told.push((target, path.clone()));
            self.line(depth, name, &hint, about);
            self.below(target, depth + 1, &path);
        }
    }

    /// What may stand in a place.
    fn below(&mut self, schema: &Value, depth: usize, path: &str) {
        if depth > DEEPEST || self.elsewhere(schema) {
            return;
        }
        self.properties(schema, depth, path);
        let items = if schema["items"].is_object() { &schema["items"] } else { &Value::Null };
        for inner in [items, &schema["additionalProperties"]] {
            if inner.is_object() {
                self.below(resolve(self.root, inner), depth, path);
            }
        }
        for one in alternatives(schema) {
            let target = resolve(self.root, one);
            let about = one["description"].as_str().or(target["description"].as_str());
            let about = about.unwrap_or("");
            if let Some(fixed) = target["const"].as_str() {
                self.line(depth, fixed, "", about);
            } else if let Some((name, inner)) = keyed(target) {
                let inner = resolve(self.root, inner);
                self.line(depth, &format!("{name}:"), "", about);
                self.below(inner, depth + 1, &join(path, name));
            } else if let Some(names) = target["enum"].as_array() {
                let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
                self.line(depth, "one of", "", &format!("{} {about}", names.join(", ")));
            } else {
                let kind = match typed(self.root, target) {
                    kind if kind.is_empty() => "mapping".into(),
                    kind => kind,
                };
                self.line(depth, &format!("<{kind}>"), "", about);
                self.below(target, depth + 1, path);
            }
        }
    }

    fn elsewhere(&self, schema: &Value) -> bool {
        let keyed = |name: &&str| !schema["properties"][name].is_null();
        let named = |name: &&str| {
            let names = alternatives(schema).into_iter().filter_map(|one| one["enum"].as_array());
            names.flatten().any(|one| one == name)
        };
        self.listed.iter().any(|name| keyed(name) || named(name))
    }

    /// A name and its meaning, broken at spaces; what goes over is indented further.
    fn line(&mut self, depth: usize, name: &str, hint: &str, about: &str) {
        let indent = "  ".repeat(depth);
        let mut at = indent.len() + name.chars().count();
        self.out += &format!("{indent}{}", paint(self.colour, Paint::Bold, name));
        let mut word = |word: &str, space: &str, out: &mut String, dim: bool| {
            let len = word.chars().count();
            if at + space.len() + len > self.columns {
                *out += &format!("\n{indent}    ");
                at = indent.len() + 4;
            } else {
                *out += space;
                at += space.len();
            }
            *out += &paint(self.colour && dim, Paint::Dim, word);
            at += len;
        };
        if !hint.is_empty() {
            word(hint.trim_start(), " ", &mut self.out, true);
        }
        for (i, text) in about.split_whitespace().enumerate() {
            word(text, if i == 0 { "  " } else { " " }, &mut self.out, false);
        }
        self.out.push('\n');
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// Whether there is something to tell below.
fn many(schema: &Value) -> bool {
    schema["properties"].is_object() || !alternatives(schema).is_empty()
}

/// The type in a word: of lists with that of their items.
fn typed(root: &Value, schema: &Value) -> String {
    match kind(schema) {
        "array" => match typed(root, resolve(root, &schema["items"])) {
            items if items.is_empty() => "list".into(),
            items => format!("list of {items}"),
        },
        "object" if schema["properties"].is_object() => String::new(),
        "object" => "mapping".into(),
        "boolean" => "true or false".into(),
        kind => kind.into(),
    }
}

/// A default, as one would write it.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(", "),
        Value::Number(n) if n.is_f64() => match n.as_f64().unwrap_or_default() {
            // Single precision, as its shortest.
            x if f64::from(x as f32) == x => (x as f32).to_string(),
            x => x.to_string(),
        },
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "properties": {
                "model": { "$ref": "#/$defs/Model", "description": "The model." },
                "other": { "$ref": "#/$defs/Model", "description": "Another." },
                "rate": { "type": "number", "default": 0.1f32, "description": "How fast." },
                "kind": { "oneOf": [{ "enum": ["a", "b"], "description": "A letter." }] },
                "days": { "type": ["array", "null"], "items": { "type": "integer" } },
            },
            "required": ["model"],
            "$defs": {
                "Model": { "oneOf": [
                    { "const": "none", "type": "string", "description": "Nothing." },
                    {
                        "type": "object", "description": "A line.", "required": ["line"],
                        "properties": { "line": { "anyOf": [
                            { "$ref": "#/$defs/Line" },
                            { "type": "null" },
                        ] } },
                    },
                ] },
                "Line": {
                    "type": "object", "required": ["slope"],
                    "properties": { "slope": { "type": "number", "description": "Its slope." } },
                },
            },
        })
    }

    #[test]
    fn defaults_types_and_alternatives_are_told() {
        let text = parameters(&schema(), &[], 80, false);
        assert_eq!(
            text,
            "  model (required)  The model.\n    \
               none  Nothing.\n    \
               line:  A line.\n      \
                 slope (required)  Its slope.\n  \
             other  Another. As `model`.\n  \
             rate [0.1]  How fast.\n  \
             kind\n    \
               one of  a, b A letter.\n  \
             days <list of integer>\n"
        );
    }

    #[test]
    fn what_is_listed_elsewhere_is_left_out() {
        let text = parameters(&schema(), &["a"], 80, false);
        assert!(text.contains("  kind\n  days"), "{text}");
    }

    #[test]
    fn text_keeps_to_its_width() {
        let text = parameters(&schema(), &[], 24, false);
        assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
        assert!(text.contains("slope (required)\n          Its slope."), "{text}");
    }

    #[test]
    fn the_least_value_has_what_is_required() {
        let schema = schema();
        assert_eq!(
            least(&schema, &schema["$defs"]["Model"]["oneOf"][1]),
            json!({ "line": { "slope": 1 } })
        );
        let model = &schema["properties"]["model"];
        assert_eq!(choices(&schema, model), [json!("none"), json!({ "line": { "slope": 1 } })]);
    }
}
