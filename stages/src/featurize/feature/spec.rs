//! The `features:` list of a pipeline: names, or names with parameters, to [`Column`]s.
//!
//! ```yaml
//! features: [spread_bps, rsi_14, { ofi: { window: 100 } }, { momentum: { bars: 5, as: m5 } }]
//! ```
//!
//! A column has the name that was written, or `as`. A number after a name is the parameter that
//! the table says it is: `rsi_14` is `rsi` with `bars: 14`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{Entry, FEATURES, Feature, Learner, Making, Need, Source};
use crate::featurize::fit::short;
use crate::featurize::table::COMPANIONS;
use crate::market::Sample;
use crate::{Invalid, Result};

/// What was learnt, by the name of the column.
pub type Fits = BTreeMap<String, Value>;

/// Columns that the table of features has anyway.
const TAKEN: &[&str] = &["date", "time", "open", "high", "low", "close", "volume", "split"];

/// An item of the list, as written.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSpec {
    /// The name of the feature.
    pub name: String,
    /// The parameters that are given, `as` among them.
    pub given: Map<String, Value>,
}

impl FeatureSpec {
    /// A feature with its defaults.
    pub fn new(name: impl Into<String>) -> FeatureSpec {
        FeatureSpec { name: name.into(), given: Map::new() }
    }
}

impl FeatureSpec {
    /// The same with every parameter written out; as it is where it is none.
    ///
    /// What is hashed is this: where a default changes, so does the key of what it went into.
    fn settled(&self) -> FeatureSpec {
        let Ok(column) = column(self, String::new()) else { return self.clone() };
        let mut given = match column.params {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        if column.name != column.entry.name {
            given.insert("as".into(), column.name.into());
        }
        FeatureSpec { name: column.entry.name.into(), given }
    }
}

impl Serialize for FeatureSpec {
    /// With the defaults filled in.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, given } = &self.settled();
        if given.is_empty() {
            return serializer.serialize_str(name);
        }
        serializer.collect_map([(name, given)])
    }
}

impl<'de> Deserialize<'de> for FeatureSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FeatureSpec, D::Error> {
        let shape = "a feature is a name, or one name with its parameters: { rsi: { bars: 14 } }";
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(FeatureSpec::new(name)),
            Value::Object(map) if map.len() == 1 => {
                let (name, given) =
                    map.into_iter().next().ok_or_else(|| D::Error::custom(shape))?;
                match given {
                    Value::Null => Ok(FeatureSpec::new(name)),
                    Value::Object(given) => Ok(FeatureSpec { name, given }),
                    other => Err(D::Error::custom(format!(
                        "the parameters of `{name}` are a map, such as {{ {name}: {{ as: x }} }}, not {other}"
                    ))),
                }
            }
            other => Err(D::Error::custom(format!("{shape}, not {other}"))),
        }
    }
}

impl JsonSchema for FeatureSpec {
    fn schema_name() -> Cow<'static, str> {
        "Feature".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (mut names, mut numbered, mut maps) = (Vec::new(), Vec::new(), Map::new());
        let mut patterns = Map::new();
        for entry in FEATURES {
            let mut params = (entry.params.schema)(generator);
            params.remove("title");
            params.insert("description".into(), entry.formula.into());
            let properties = params.ensure_object().entry("properties").or_insert(json!({}));
            properties["as"] = json!({
                "type": "string",
                "description": "Name of the column; otherwise that of the feature.",
            });
            let key = format!("feature.{}", entry.name);
            let place = generator.settings().definitions_path.trim_matches('/').to_owned();
            generator.definitions_mut().insert(key.clone(), params.to_value());
            let params =
                json!({ "anyOf": [{ "$ref": format!("#/{place}/{key}") }, { "type": "null" }] });
            for name in std::iter::once(entry.name).chain(entry.aliases.iter().copied()) {
                names.push(name);
                if entry.suffix.is_some() {
                    numbered.push(name);
                }
                maps.insert(name.to_owned(), params.clone());
            }
            if entry.suffix.is_some() {
                let stems = entry.aliases.iter().copied().chain([entry.name]);
                let stems = stems.collect::<Vec<_>>().join("|");
                patterns.insert(format!("^({stems})_[1-9][0-9]*$"), params);
            }
        }
        json_schema!({
            "description": "A feature: its name, or a map from its name to its parameters.",
            "anyOf": [
                { "type": "string", "enum": names },
                { "type": "string", "pattern": format!("^({})_[1-9][0-9]*$", numbered.join("|")) },
                {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "properties": maps,
                    "patternProperties": patterns,
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// A column to compute.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The feature.
    pub entry: &'static Entry,
    /// The parameters, defaults filled in.
    pub params: Value,
    /// Where it is written: `features[2].ofi`.
    pub path: String,
}

/// Reads the list.
///
/// # Errors
/// A feature or a parameter that is not known, a value out of its range, a name twice; of several items
/// that are wrong all, one for each.
pub fn parse(list: &[FeatureSpec]) -> Result<Vec<Column>, Invalid> {
    let mut columns: Vec<Column> = Vec::with_capacity(list.len());
    let mut wrong = Vec::new();
    for (at, spec) in list.iter().enumerate() {
        let column = match column(spec, format!("features[{at}]")) {
            Ok(column) => column,
            Err(invalid) => {
                wrong.push(invalid);
                continue;
            }
        };
        if let Some(other) = columns.iter().find(|other| other.name == column.name) {
            let message = format!("column `{}` is `{}` already", column.name, other.path);
            let hint = match column.entry.suffix.and_then(|suffix| column.params.get(suffix)) {
                Some(number) => format!("{}_{number}", column.entry.name),
                None => format!("{}_2", column.name),
            };
            let help = format!("name one of them anew: `as: {hint}`");
            wrong.push(Invalid::new(column.path, message).help(help));
            continue;
        }
        columns.push(column);
    }
    Invalid::all(wrong).map_or(Ok(columns), Err)
}

fn column(spec: &FeatureSpec, item: String) -> Result<Column, Invalid> {
    let (entry, number) = find(&spec.name).ok_or_else(|| unknown(&spec.name, &item))?;
    let mut given = spec.given.clone();
    let path = format!("{item}.{}", spec.name);
    let name = match given.remove("as") {
        None => spec.name.clone(),
        Some(Value::String(name)) if plain(&name) => name,
        Some(other) => {
            return Err(Invalid::new(
                format!("{path}.as"),
                format!("{other} is not a column name"),
            )
            .help("letters, digits and `_`, a letter first"));
        }
    };
    if TAKEN.contains(&name.as_str()) || COMPANIONS.contains(&name.as_str()) {
        let message = format!("the table has a column `{name}` already");
        return Err(Invalid::new(format!("{path}.as"), message).help("choose another name"));
    }
    if let (Some(suffix), Some(number)) = (entry.suffix, number) {
        if given.contains_key(suffix) {
            let message = format!("`{}` says {suffix}: {number} already", spec.name);
            return Err(Invalid::new(format!("{path}.{suffix}"), message)
                .help(format!("write {}: {{ {suffix}: … }}", entry.name)));
        }
        given.insert(suffix.into(), number.into());
    }
    known(entry, &given, &path)?;
    let params = (entry.params.settle)(&Value::Object(given)).map_err(|mut e| {
        e.path = if e.path.is_empty() { path.clone() } else { format!("{path}.{}", e.path) };
        e
    })?;
    Ok(Column { name, entry, params, path })
}

fn plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A feature by its name, an alias, or either with a number.
pub fn find(name: &str) -> Option<(&'static Entry, Option<u64>)> {
    let named = |name: &str| {
        FEATURES.iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
    };
    if let Some(entry) = named(name) {
        return Some((entry, None));
    }
    let (stem, number) = name.rsplit_once('_')?;
    let digits = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
    let entry = named(stem).filter(|entry| entry.suffix.is_some() && digits)?;
    Some((entry, Some(number.parse().ok()?)))
}

fn unknown(name: &str, item: &str) -> Invalid {
    let names = FEATURES.iter().flat_map(|e| e.aliases.iter().copied().chain([e.name]));
    let help = match nearest(name, names) {
        Some(near) => format!("is `{near}` meant? "),
        None => String::new(),
    };
    Invalid::new(item, format!("there is no feature `{name}`"))
        .help(help + "`quantmill stages featurize` lists them")
}

fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = among.map(|near| (strsim::jaro_winkler(near, name), near));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n)
}

/// Refuses a parameter that the feature does not have.
fn known(entry: &Entry, given: &Map<String, Value>, path: &str) -> Result<(), Invalid> {
    let defaults = entry.defaults();
    let mut names: Vec<&str> =
        defaults.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
    // A map of serde_json is in another order where some dependency asks for that of insertion.
    names.sort_unstable();
    let Some(odd) = given.keys().find(|name| !names.contains(&name.as_str())) else {
        return Ok(());
    };
    let takes = match names.is_empty() {
        true => "it takes `as` alone".to_owned(),
        false => format!("it takes {}, as", names.join(", ")),
    };
    let help = match nearest(odd, names.iter().copied()) {
        Some(near) => format!("is `{near}` meant? {takes}"),
        None => takes,
    };
    let message = format!("`{}` has no parameter `{odd}`", entry.name);
    Err(Invalid::new(format!("{path}.{odd}"), message).help(help))
}

/// What a source lacks of what a feature needs.
pub fn lacks(entry: &Entry, source: &Source) -> Option<Need> {
    entry.needs.iter().copied().find(|need| !source.has(*need))
}

impl Column {
    /// Whether it can be computed from samples of a source.
    ///
    /// # Errors
    /// What the source lacks.
    pub fn check(&self, source: &Source) -> Result<(), Invalid> {
        let Some(need) = lacks(self.entry, source) else { return Ok(()) };
        let help = match need {
            Need::Index => "give the stage an `index` input",
            Need::Peers => "give the stage a `peers` input",
            _ => "leave it out, or give the stage a source that has them",
        };
        let name = self.entry.name;
        let message = format!("`{name}` needs {}, and the source has none", need.name());
        Err(Invalid::new(&self.path, message).help(help))
    }

    /// The feature. What is no finite number is `None`.
    ///
    /// # Errors
    /// The source lacks something, or `fits` does.
    pub fn make(
        &self,
        periods_per_year: f64,
        source: &Source,
        fits: &Fits,
    ) -> Result<Box<dyn Feature>, Invalid> {
        self.check(source)?;
        let making = Making { periods_per_year, source: *source, fit: fits.get(&self.name) };
        let feature = (self.entry.make)(&self.params, &making).map_err(|e| self.here(e))?;
        Ok(Box::new(Checked(feature)))
    }

    /// What learns what [`Column::make`] looks up in `fits` under the column's name; `None` where
    /// there is nothing to learn. Numbers that it learns are rounded as [`short`] does.
    ///
    /// # Errors
    /// The source lacks something.
    pub fn learner(
        &self,
        periods_per_year: f64,
        source: &Source,
    ) -> Result<Option<Box<dyn Learner>>, Invalid> {
        self.check(source)?;
        let Some(fit) = self.entry.fit else { return Ok(None) };
        let making = Making { periods_per_year, source: *source, fit: None };
        let learner = fit(&self.params, &making).map_err(|e| self.here(e))?;
        Ok(Some(Box::new(Rounded(learner))))
    }

    fn here(&self, mut e: Invalid) -> Invalid {
        e.path = match e.path.is_empty() {
            true => self.path.clone(),
            false => format!("{}.{}", self.path, e.path),
        };
        e
    }
}

/// A feature whose answers are finite.
struct Checked(Box<dyn Feature>);

impl Feature for Checked {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        self.0.push(sample).filter(|value| value.is_finite())
    }
}

/// A learner whose numbers read back from a file as they are.
struct Rounded(Box<dyn Learner>);

impl Learner for Rounded {
    fn push(&mut self, sample: &Sample) {
        self.0.push(sample);
    }
    fn finish(self: Box<Self>, tick: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Value> {
        self.0.finish(tick).map(rounded)
    }
}

fn rounded(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => n.as_f64().map(short).into(),
        Value::Array(list) => list.into_iter().map(rounded).collect(),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, rounded(value))).collect())
        }
        other => other,
    }
}
