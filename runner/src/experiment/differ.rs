//! What differs between two runs, name by name: where and with what they ran, what each stage was
//! given, and what it reported.

use std::collections::{BTreeMap, BTreeSet};

use quantmill_cache::Artifact;
use serde::Serialize;
use serde_json::Value;

use super::account::Account;
use crate::lock::Lockfile;

/// A part of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Commit, machine, versions, environment.
    Place,
    /// Parameters and seeds of stages.
    Params,
    /// Sources, by digest.
    Inputs,
    /// Outputs, by digest.
    Outputs,
    /// Numbers.
    Metrics,
}

/// A name with what it was in each run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Where it belongs.
    pub part: Part,
    /// Its name.
    pub name: String,
    /// In the first run, if it is there.
    pub a: Option<Value>,
    /// In the second.
    pub b: Option<Value>,
    /// Of numbers: the second less the first.
    pub change: Option<f64>,
    /// The change as a share of the first, in percent.
    pub percent: Option<f64>,
}

type Values = BTreeMap<(Part, String), Value>;

/// Compares two runs; with `all` what is the same is there as well.
pub fn differ(a: &Account, b: &Account, all: bool) -> Vec<Line> {
    let (mut a, mut b) = (values(a), values(b));
    // A run that ran nothing did not look.
    for name in ["processor", "uncommitted changes"] {
        let key = (Part::Place, name.to_owned());
        if !(a.contains_key(&key) && b.contains_key(&key)) {
            a.remove(&key);
            b.remove(&key);
        }
    }
    let names: BTreeSet<&(Part, String)> = a.keys().chain(b.keys()).collect();
    let line = |key: &(Part, String)| {
        let (a, b) = (a.get(key).cloned(), b.get(key).cloned());
        let numbers = a.as_ref().and_then(Value::as_f64).zip(b.as_ref().and_then(Value::as_f64));
        let change = numbers.map(|(a, b)| b - a);
        let percent = numbers.filter(|(a, _)| *a != 0.0).map(|(a, b)| 100.0 * (b - a) / a.abs());
        Line { part: key.0, name: key.1.clone(), a, b, change, percent }
    };
    names.into_iter().map(line).filter(|line| all || line.a != line.b).collect()
}

fn values(run: &Account) -> Values {
    let mut values = Values::new();
    let mut put = |part, name: String, value: Value| {
        if !value.is_null() && value != "" {
            values.insert((part, name), value);
        }
    };
    let setting = &run.setting;
    let lock = run.lock();
    let place = [
        ("commit", setting.commit.clone().into()),
        ("uncommitted changes", run.survey.dirty.into()),
        ("branch", setting.branch.clone().into()),
        ("quantmill", setting.version.clone().into()),
        ("device", setting.device.clone().into()),
        ("host", setting.host.clone().into()),
        ("platform", setting.platform.clone().into()),
        ("processor", run.survey.cpu.clone().into()),
        ("processors", setting.cpus.into()),
        ("at a time", setting.jobs.into()),
        ("targets", setting.targets.join(" ").into()),
        ("status", run.status().word().into()),
        ("milliseconds", run.summary.map(|summary| summary.millis).into()),
    ];
    place.into_iter().for_each(|(name, value)| put(Part::Place, name.into(), value));
    for (path, copy) in run.texts() {
        let text = std::fs::read(copy).ok().map(|text| quantmill_cache::Digest::of(&text).short());
        put(Part::Place, format!("text of {path}"), text.into());
    }
    for (name, value) in &setting.env {
        put(Part::Place, format!("environment {name}"), value.clone().into());
    }
    for (kind, version) in &setting.kinds {
        put(Part::Place, format!("version of {kind}"), (*version).into());
    }
    for (name, value) in &setting.set {
        put(Part::Params, format!("--set {name}"), super::values::read(value));
    }
    stages(&lock, &mut put);
    for (stage, told) in &run.told {
        for (name, value) in &told.metrics {
            put(Part::Metrics, format!("{stage}.{name}"), (*value).into());
        }
    }
    values
}

fn stages(lock: &Lockfile, put: &mut impl FnMut(Part, String, Value)) {
    let records: Vec<_> = lock.iter().collect();
    let made: BTreeSet<Artifact> =
        records.iter().flat_map(|(_, record)| record.outputs.values().copied()).collect();
    for (stage, record) in records {
        let mut params = BTreeMap::new();
        flatten(stage, &record.params, &mut params);
        params.into_iter().for_each(|(name, value)| put(Part::Params, name, value));
        put(Part::Params, format!("{stage}.seed"), record.seed.into());
        for (port, artifact) in &record.inputs {
            if !made.contains(artifact) {
                put(Part::Inputs, format!("{stage}.{port}"), artifact.digest().short().into());
            }
        }
        for (port, artifact) in &record.outputs {
            put(Part::Outputs, format!("{stage}.{port}"), artifact.digest().short().into());
        }
    }
}

/// Every value of the parameters by its dotted name; lists stay whole.
fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                flatten(&format!("{name}.{key}"), value, into);
            }
        }
        other => drop(into.insert(name.to_owned(), other.clone())),
    }
}
