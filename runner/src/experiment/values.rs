//! What can be compared between runs, as a table: a row for each run, or for each cell of its matrix;
//! what went in (parameters, values of `--set`, axes) and what came out (metrics), by name.
//!
//! A parameter is named `stage.param`, a metric `stage.metric`, an axis and a value of `--set` as in
//! the file and on the command line. Stages of the same base share names: a row has one cell of each.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::account::Account;
use crate::diagnostic::{nearest, suggest};
use crate::exit::Failure;
use crate::lock::Lockfile;

/// Longer texts are no parameters that a table shows, and neither are paths and command lines.
const LONG: usize = 24;

/// A run, or one cell of it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The run.
    pub run: String,
    /// When it began, in milliseconds since 1970.
    pub at: i64,
    /// What went in, by name.
    pub values: BTreeMap<String, Value>,
    /// What came out, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// Rows of runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Frame {
    /// The rows.
    pub rows: Vec<Row>,
}

/// The stage's name in the file, and its value on each axis.
fn split(stage: &str) -> (&str, BTreeMap<&str, &str>) {
    let (base, cell) = stage.split_once('@').unwrap_or((stage, ""));
    // A value may hold a comma: then what follows it belongs to it.
    let mut axes: BTreeMap<&str, &str> = BTreeMap::new();
    let mut rest = cell;
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else { break };
        let next = after.match_indices(',').find(|(at, _)| {
            let then = &after[at + 1..];
            let name = then.split('=').next().unwrap_or("");
            then.contains('=') && !name.contains(',') && !name.is_empty()
        });
        let end = next.map_or(after.len(), |(at, _)| at);
        axes.insert(name, &after[..end]);
        rest = after.get(end + 1..).unwrap_or("");
    }
    if axes.is_empty() && !cell.is_empty() {
        axes.insert("item", cell);
    }
    (base, axes)
}

fn within(small: &BTreeMap<&str, &str>, large: &BTreeMap<&str, &str>) -> bool {
    small.iter().all(|(axis, value)| large.get(axis) == Some(value))
}

impl Frame {
    /// The rows of runs, in their order.
    pub fn new<'a>(runs: impl IntoIterator<Item = &'a Account>) -> Frame {
        Frame { rows: runs.into_iter().flat_map(|run| rows(run, &run.lock())).collect() }
    }

    /// The names of what went in and is not the same in all rows: axes and values of `--set` before
    /// parameters, and no parameter that only repeats one of these.
    pub fn varying(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.rows.iter().flat_map(|row| row.values.keys()).collect();
        let column = |name: &str| -> Vec<Option<&Value>> {
            self.rows.iter().map(|row| row.values.get(name)).collect()
        };
        let mut names: Vec<&String> = names.into_iter().collect();
        names.sort_by_key(|name| name.contains('.'));
        let mut seen: Vec<Vec<Option<&Value>>> = Vec::new();
        let mut varying = Vec::new();
        for name in names {
            let values = column(name);
            let same = values.windows(2).all(|pair| pair[0] == pair[1]);
            let texts = |column: &[Option<&Value>]| -> Vec<String> {
                column.iter().map(|v| v.map_or(String::new(), show)).collect()
            };
            if !same && !seen.iter().any(|other| texts(other) == texts(&values)) {
                seen.push(values);
                varying.push(name.clone());
            }
        }
        varying
    }

    /// The names of all metrics.
    pub fn metrics(&self) -> BTreeSet<String> {
        self.rows.iter().flat_map(|row| row.metrics.keys().cloned()).collect()
    }

    /// The full name that a person means: the whole, or an end of one that no other shares.
    pub fn name(&self, given: &str) -> Result<String, Failure> {
        let values = self.rows.iter().flat_map(|row| row.values.keys().chain(row.metrics.keys()));
        let names: BTreeSet<&str> = values.map(String::as_str).collect();
        if names.contains(given) {
            return Ok(given.to_owned());
        }
        let end = format!(".{given}");
        let fits: Vec<&&str> = names.iter().filter(|name| name.ends_with(&end)).collect();
        match fits.as_slice() {
            [one] => Ok((**one).to_owned()),
            [] => {
                let ends = names.iter().filter_map(|name| Some(name.rsplit_once('.')?.1));
                let near = nearest(given, names.iter().copied().chain(ends));
                let help = match near {
                    Some(near) => Some(format!("did you mean `{near}`?")),
                    None => suggest(given, "names", names.iter().copied()),
                };
                Err(Failure::usage(format!("nothing is called `{given}`"), help))
            }
            several => {
                let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
                let help = Some(format!("write {}", names.join(" or ")));
                Err(Failure::usage(format!("`{given}` could mean several"), help))
            }
        }
    }
}

impl Row {
    /// A value or a metric.
    pub fn get(&self, name: &str) -> Option<Value> {
        let metric = || self.metrics.get(name).map(|&number| Value::from(number));
        self.values.get(name).cloned().or_else(metric)
    }
}

/// A value for people.
pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if !number.is_i64() && !number.is_u64() => {
                crate::report::table::number(float)
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// A value as it is written on a command line or in the name of a cell.
pub fn read(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => number.into(),
        _ => text.into(),
    }
}

fn rows(run: &Account, lock: &Lockfile) -> Vec<Row> {
    let records: BTreeMap<_, _> = lock.iter().collect();
    let cells: Vec<(&str, BTreeMap<&str, &str>, &str)> = records
        .keys()
        .copied()
        .chain(run.told.keys().map(String::as_str).filter(|stage| !records.contains_key(stage)))
        .map(|stage| {
            let (base, axes) = split(stage);
            (stage, axes, base)
        })
        .collect();
    let all: BTreeSet<&BTreeMap<&str, &str>> = cells.iter().map(|(_, axes, _)| axes).collect();
    // A cell that another narrows down has no row of its own.
    let whole =
        all.iter().filter(|axes| !all.iter().any(|other| other != *axes && within(axes, other)));
    let row = |cell: &&&BTreeMap<&str, &str>| {
        let mut row = Row {
            run: run.id.clone(),
            at: run.at,
            values: BTreeMap::new(),
            metrics: BTreeMap::new(),
        };
        for (name, value) in &run.setting.set {
            row.values.insert(name.clone(), read(value));
        }
        for (axis, value) in **cell {
            row.values.insert((*axis).to_owned(), read(value));
        }
        for (stage, _, base) in cells.iter().filter(|(_, axes, _)| within(axes, cell)) {
            if let Some(record) = records.get(stage) {
                flatten(base, &record.params, &mut row.values);
                if let Some(seed) = record.seed {
                    row.values.insert(format!("{base}.seed"), seed.into());
                }
            }
            for (name, value) in run.told.get(*stage).into_iter().flat_map(|told| &told.metrics) {
                row.metrics.insert(format!("{base}.{name}"), *value);
            }
        }
        row
    };
    whole.map(|cell| row(&cell)).collect()
}

/// Every scalar of the parameters by its dotted name.
pub fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(&format!("{name}.{key}"), value, into);
            }
        }
        Value::String(text) if text.chars().count() > LONG || text.contains(['/', ' ']) => {}
        Value::Array(_) | Value::Null => {}
        scalar => drop(into.insert(name.to_owned(), scalar.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cells_come_apart() {
        assert_eq!(split("model"), ("model", BTreeMap::new()));
        assert_eq!(split("m@lr=0.1,seed=2"), ("m", BTreeMap::from([("lr", "0.1"), ("seed", "2")])));
        assert_eq!(split("m@a=x,y,b=1"), ("m", BTreeMap::from([("a", "x,y"), ("b", "1")])));
        assert_eq!(split("load@btc"), ("load", BTreeMap::from([("item", "btc")])));
    }

    #[test]
    fn only_what_varies_is_a_column() {
        let row = |lr: f64, fee: f64, run: &str| Row {
            run: run.into(),
            at: 0,
            values: BTreeMap::from([
                ("fee".into(), fee.into()),
                ("pairs.fee".into(), fee.into()),
                ("train.lr".into(), lr.into()),
                ("train.steps".into(), 5.into()),
            ]),
            metrics: BTreeMap::from([("evaluate.sharpe".into(), lr)]),
        };
        let frame =
            Frame { rows: vec![row(0.1, 1.0, "a"), row(0.2, 2.0, "b"), row(0.2, 3.0, "c")] };
        assert_eq!(frame.varying(), ["fee", "train.lr"]);
        assert_eq!(frame.name("sharpe").unwrap(), "evaluate.sharpe");
        assert_eq!(frame.name("fee").unwrap(), "fee");
        assert!(frame.name("sharp").is_err());
    }
}
