//! The JSON Schema of a pipeline file: what an editor completes, explains and underlines.
//!
//! The file's own keys are spelt out here, beside their checks in `spec`; the parameters of each kind
//! are the stage's own schema. Names, formats and circles are beyond a schema: `check` finds those.

use quantmill_stages::Kind;
use serde_json::{Map, Value, json};

/// The schema, as JSON text with a newline at its end.
pub fn text(kinds: &[Kind]) -> String {
    format!("{:#}\n", sorted(schema(kinds)))
}

/// The schema of pipelines of these kinds.
pub fn schema(kinds: &[Kind]) -> Value {
    let mut defs = Map::new();
    let (mut conditions, mut musts) = (Vec::new(), Vec::new());
    for kind in kinds {
        let with = json!({ "$ref": format!("#/$defs/{}", kind.name) });
        let mut own = parameters(kind, &mut defs);
        let required = own.as_object_mut().and_then(|own| own.remove("required"));
        defs.insert(kind.name.to_owned(), own);
        let uses = json!({ "uses": { "const": kind.name } });
        let of_kind = json!({ "required": ["uses"], "properties": uses });
        conditions.push(json!({ "if": of_kind, "then": { "properties": { "with": with } } }));
        let required = required.as_ref().and_then(Value::as_array).into_iter().flatten();
        musts.extend(required.filter_map(Value::as_str).map(|name| must(&of_kind, name)));
    }
    conditions.extend(musts);
    defs.insert("axes".to_owned(), axes());
    defs.insert("stage".to_owned(), stage(kinds, conditions));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Quantmill pipeline",
        "description": "A pipeline: named stages, what feeds each, and its parameters.",
        "type": "object",
        "additionalProperties": false,
        "required": ["version", "stages"],
        "properties": {
            "version": { "description": "The version of this file's format.", "const": 1 },
            "vars": {
                "description": "Variables: `${name}` stands for their value anywhere in `inputs` and `stages`, `${sizes[scale].steps}` for a member that another variable names. `--set name=value` changes one for a run.",
                "type": "object",
            },
            "seed": seed("The seed of every stage that has none of its own."),
            "include": {
                "description": "Files whose `vars`, `inputs` and `stages` are taken in as if they stood here. Paths, also those in an included file, start from this file's folder.",
                "type": ["array", "string", "null"],
                "items": { "type": "string", "minLength": 1 },
            },
            "sandbox": sandbox("How far every `command` is kept to what it declares."),
            "inputs": {
                "description": "Source files: a name for each file, folder or glob, relative to this file, `https://host/file#blake3=<digest>`, or a model of the Hugging Face hub. They are read and hashed, never written.",
                "type": ["object", "null"],
                "propertyNames": { "pattern": "^[a-z0-9_-]+$" },
                "additionalProperties": { "anyOf": [
                    { "type": "string", "minLength": 1 },
                    {
                        "description": "A model of the Hugging Face hub, from the hub's cache or fetched into it.",
                        "type": "object",
                        "required": ["hf"],
                        "additionalProperties": false,
                        "properties": {
                            "hf": { "description": "`owner/name`.", "type": "string" },
                            "revision": { "description": "A branch, tag or commit; `main`.", "type": "string" },
                            "files": { "description": "Which files, as a glob; config, tokenizer, templates and safetensors.", "type": "string" },
                        },
                    },
                ] },
            },
            "stages": {
                "description": "The stages, in any order. A name has lower-case letters, digits, `_` and `-`.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": "^[a-z0-9_-]+$" },
                "additionalProperties": { "$ref": "#/$defs/stage" },
            },
        },
        "$defs": defs,
    })
}

fn seed(description: &str) -> Value {
    let whole = json!({ "type": "integer", "minimum": 0 });
    json!({ "description": description, "default": 0, "anyOf": [whole, variable()] })
}

/// A scalar that is one variable stands for any type.
fn variable() -> Value {
    json!({ "type": "string", "pattern": "^\\$\\{[^}]*\\}$" })
}

fn sandbox(description: &str) -> Value {
    json!({
        "description": format!("{description} `off`: not at all; `trace`: what it reads and writes beside that is told; `strict`: it is refused."),
        "default": "off",
        "anyOf": [{ "enum": ["off", "trace", "strict"] }, variable()],
    })
}

/// A whole number within bounds, or a variable.
fn whole(description: &str, bounds: (u64, u64), default: u64) -> Value {
    let number = json!({ "type": "integer", "minimum": bounds.0, "maximum": bounds.1 });
    json!({ "description": description, "default": default, "anyOf": [number, variable()] })
}

fn boolean(description: &str) -> Value {
    let own = json!({ "type": "boolean" });
    json!({ "description": description, "default": false, "anyOf": [own, variable()] })
}

/// Text of a form, or with a variable in it.
fn formed(description: &str, pattern: &str) -> Value {
    let own = json!({ "type": "string", "pattern": pattern });
    let filled = json!({ "type": "string", "pattern": "\\$\\{" });
    json!({ "description": description, "anyOf": [own, filled] })
}

fn duration(description: &str) -> Value {
    let pattern = "^\\s*([0-9.]+\\s*(ms|s|m|h|d)\\s*)+$";
    formed(&format!("{description} As `90s`, `10m`, `2h`, `1h30m`, `1d`."), pattern)
}

fn variables(description: &str) -> Value {
    json!({
        "description": description,
        "type": "array",
        "items": { "type": "string", "pattern": "^[^= \\u0000]+$" },
    })
}

fn needs() -> Value {
    let size = "^\\s*[0-9.]+\\s*(B|[kK]B|[MGT]B|[KMGT]iB)\\s*$";
    json!({
        "description": "What it needs of the machine while it runs; no more runs at a time than fits.",
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {
            "cpu": whole("Processors.", (1, 65_536), 1),
            "gpu": whole("GPUs.", (0, 1024), 0),
            "memory": formed("Memory, as `512MiB` or `16GiB`.", size),
            "time": duration("The most time that it takes."),
        },
    })
}

/// A list of values on an axis; axes may nest, and a variable may hold the list.
fn matrix() -> Value {
    json!({
        "description": "Axes: a stage for every combination of their values, named `stage@axis=value`. An axis named like a parameter (or `seed`) sets it; others are used as `${matrix.axis}`. Stages that read it follow, cell by cell; `from: stage@*` gathers the cells and `from: stage@axis=value` picks one.",
        "anyOf": [{ "$ref": "#/$defs/axes" }, variable()],
    })
}

fn axes() -> Value {
    json!({
        "type": "object",
        "properties": {
            "exclude": {
                "description": "Cells to leave out: each entry is a map of values on axes.",
                "anyOf": [{ "type": "array", "items": { "anyOf": [{ "type": "object" }, variable()] } }, variable()],
            },
        },
        "additionalProperties": {
            "anyOf": [
                { "description": "The values of an axis.", "type": "array", "minItems": 1 },
                { "$ref": "#/$defs/axes" },
                variable(),
            ],
        },
    })
}

/// A parameter that stages of a kind must have: in `with`, or as an axis. Axes that nest, or that a
/// variable holds, may hide it.
fn must(of_kind: &Value, name: &str) -> Value {
    let flat = json!({ "additionalProperties": { "not": { "type": "object" } } });
    let axis = json!([{ "required": [name] }, { "not": flat }, { "type": "string" }]);
    let by_axis = json!({ "required": ["matrix"], "properties": { "matrix": { "anyOf": axis } } });
    let given = json!({ "required": ["with"], "properties": { "with": { "required": [name] } } });
    json!({ "if": { "allOf": [of_kind, { "not": by_axis }] }, "then": given })
}

fn foreach() -> Value {
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    json!({
        "description": "A stage for every item, named `stage@item`: a list of names, or a map of names to values. `${item}` is the value (`${item.member}`), `${key}` the name. Stages that read it follow, item by item.",
        "anyOf": [
            { "type": "array", "minItems": 1, "items": scalar },
            { "type": "object", "minProperties": 1 },
            variable(),
        ],
    })
}

fn stage(kinds: &[Kind], conditions: Vec<Value>) -> Value {
    let names: Vec<Value> =
        kinds.iter().map(|kind| json!({ "const": kind.name, "description": kind.about })).collect();
    let source = "an input, a stage (its first output), `stage.output`, `stage@cell`, `stage@*`, or a path that begins with `./`";
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["uses"],
        "properties": {
            "uses": { "description": "The kind of stage.", "oneOf": names },
            "from": {
                "description": format!("What feeds it: one source for its first port, or a source by port. A source is {source}."),
                "type": ["string", "object"],
                "additionalProperties": { "type": "string", "description": format!("A source: {source}.") },
            },
            "with": { "description": "Its parameters.", "type": ["object", "null"] },
            "to": {
                "description": "Where its output goes, relative to this file: a path for the first output, or paths by output. By default `out/<stage>/`.",
                "type": ["string", "object"],
                "additionalProperties": { "type": "string" },
            },
            "seed": seed("The seed of this stage."),
            "env": variables("Names of environment variables that it may see; their values count as inputs."),
            "secrets": variables("Names of environment variables that it may see and whose values are neither hashed nor logged."),
            "matrix": matrix(),
            "foreach": foreach(),
            "when": {
                "description": "Whether it takes part: a boolean or an expression over the variables, `matrix`, `item` and `key`, such as `size > 10`. What needs a stage that does not is left out too.",
                "type": ["boolean", "string"],
                "default": true,
            },
            "frozen": boolean("It keeps what it gave last, whatever its inputs are now."),
            "always": boolean("It runs in every run; what follows runs only where its output has changed."),
            "retries": whole("How often it is tried again after a failure.", (0, 100), 0),
            "timeout": duration("How long one action of it may take."),
            "needs": needs(),
            "sandbox": sandbox("How far it is kept to what it declares; by default as the pipeline says."),
            "map": {
                "description": "What a `command` maps over: an input, a folder that a stage makes, or a path or glob. Each file is an action of its own, cached alone; `{in.item}` is the file, and outputs hold `{name}` (its relative name) or `{stem}` (without extension).",
                "type": "string",
                "minLength": 1,
            },
        },
        "allOf": conditions,
    })
}

/// The schema of `with`; what it defines moves to the common definitions as `kind.name`.
fn parameters(kind: &Kind, defs: &mut Map<String, Value>) -> Value {
    let mut own = (kind.schema)().to_value();
    let Some(map) = own.as_object_mut() else { return own };
    map.remove("$schema");
    map.remove("title");
    map.insert("description".to_owned(), kind.about.into());
    let inner = map.remove("$defs");
    rewrite(&mut own, kind.name);
    if let Some(Value::Object(inner)) = inner {
        for (name, mut schema) in inner {
            rewrite(&mut schema, kind.name);
            defs.insert(format!("{}.{name}", kind.name), schema);
        }
    }
    own
}

/// Points references at their new places, and lets each number and boolean be a variable.
fn rewrite(schema: &mut Value, kind: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, kind)),
        Value::Object(map) => {
            if let Some(Value::String(path)) = map.get_mut("$ref")
                && let Some(name) = path.strip_prefix("#/$defs/")
            {
                *path = format!("#/$defs/{kind}.{name}");
            }
            map.values_mut().for_each(|value| rewrite(value, kind));
            let properties = map.get_mut("properties").and_then(Value::as_object_mut);
            properties.into_iter().flatten().for_each(|(_, property)| or_variable(property));
            for below in ["items", "additionalProperties"] {
                map.get_mut(below).into_iter().for_each(or_variable);
            }
        }
        _ => {}
    }
}

/// `"${max_tokens}"` may stand where something else than text is meant.
fn or_variable(property: &mut Value) {
    let Some(map) = property.as_object_mut() else { return };
    let any_text =
        map.get("type").is_some_and(|kind| *kind == "string") && !map.contains_key("enum");
    let (about, own): (Map<_, _>, Map<_, _>) = std::mem::take(map)
        .into_iter()
        .partition(|(key, _)| matches!(key.as_str(), "description" | "default" | "title"));
    *map = about;
    if any_text || own.is_empty() {
        map.extend(own);
    } else {
        map.insert("anyOf".to_owned(), json!([own, variable()]));
    }
}

/// Keys in order, whatever a dependency makes of `serde_json`'s maps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        value => value,
    }
}
