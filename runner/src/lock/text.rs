//! The lock file as text: a subset of YAML, written and read by hand, which takes a tenth of the
//! time of a general reader and goes on past damage.
//!
//! Git merges by lines and wants one line that neither side touched between two changes. So every
//! record ends with an empty line, and so does the last one, before a closing remark: changes of
//! neighbours, and records added or removed beside a change, do not touch.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use quantmill_cache::{ActionKey, Artifact, Digest};
use serde_json::Value;

use super::{Lockfile, Record};

const HEAD: &str = "# What each stage last ran with and gave. Written by quantmill; commit it.\n\
                    version: 1\nstages:\n";
const TAIL: &str =
    "# Where a merge conflicts, keep either side or both: the next run puts it right.\n";

/// The whole file, piece by piece: it is as large as all that is kept of it.
pub fn file(stages: &BTreeMap<String, Arc<str>>) -> impl Iterator<Item = Cow<'_, str>> {
    let records = stages.iter().flat_map(|(name, text)| piece(name, text));
    [HEAD.into()].into_iter().chain(records).chain([TAIL.into()])
}

fn piece<'a>(name: &str, text: &'a str) -> [Cow<'a, str>; 3] {
    let mut title = String::with_capacity(name.len() + 8);
    title.push_str("  ");
    quote(name, &mut title);
    title.push_str(":\n");
    [title.into(), text.into(), "\n".into()]
}

/// A record, without its name.
pub fn render(key: &ActionKey, outputs: &BTreeMap<String, Artifact>) -> String {
    let mut out = format!("    uses: {}@{}\n    key: {}\n", key.stage, key.version, key.digest());
    if let Some(seed) = key.seed {
        let _ = writeln!(out, "    seed: {seed}");
    }
    if let Some(device) = &key.device {
        let _ = writeln!(out, "    device: {device}");
    }
    section(&mut out, "inputs", key.inputs.iter().map(|(k, v)| (k, format!("\"{v}\""))));
    let params: BTreeMap<_, _> = key.params.as_object().into_iter().flatten().collect();
    section(&mut out, "params", params.iter().map(|(k, v)| (*k, v.to_string())));
    section(&mut out, "outputs", outputs.iter().map(|(k, v)| (k, format!("\"{v}\""))));
    out
}

/// JSON is YAML: one compact value a line.
fn section<'a>(out: &mut String, title: &str, fields: impl Iterator<Item = (&'a String, String)>) {
    let mut fields = fields.peekable();
    if fields.peek().is_none() {
        let _ = writeln!(out, "    {title}: {{}}");
        return;
    }
    let _ = writeln!(out, "    {title}:");
    for (name, value) in fields {
        out.push_str("      ");
        quote(name, out);
        let _ = writeln!(out, ": {value}");
    }
}

fn quote(name: &str, out: &mut String) {
    match name.bytes().any(|b| b == b'"' || b == b'\\' || b < b' ') {
        true => out.push_str(&Value::from(name).to_string()),
        false => {
            out.push('"');
            out.push_str(name);
            out.push('"');
        }
    }
}

/// Reads a file, conflict markers of git in it or not.
pub fn read(text: &str) -> Lockfile {
    if !text.lines().any(|line| line.starts_with("<<<<<<< ")) {
        return Lockfile { stages: records(text), others: BTreeMap::new() };
    }
    let [ours, theirs] = sides(text).map(|side| {
        let mut stages = records(&side);
        // What a half-resolved merge left is kept only where it can be understood.
        stages.retain(|_, text| record(text).is_some());
        stages
    });
    let (mut stages, mut others) = (ours, BTreeMap::new());
    for (name, text) in theirs {
        match stages.get(&name) {
            Some(ours) if *ours == text => {}
            Some(_) => drop(others.insert(name, text)),
            None => drop(stages.insert(name, text)),
        }
    }
    Lockfile { stages, others }
}

/// The two files that a merge could not join. What both came from, which some styles of conflict
/// show, is neither.
fn sides(text: &str) -> [String; 2] {
    let (mut ours, mut theirs) = (String::new(), String::new());
    let (mut here, mut there) = (true, true);
    for line in text.lines() {
        match line.get(..7) {
            Some("<<<<<<<") => (here, there) = (true, false),
            Some("|||||||") => (here, there) = (false, false),
            Some("=======") => (here, there) = (false, true),
            Some(">>>>>>>") => (here, there) = (true, true),
            _ => {
                for (side, on) in [(&mut ours, here), (&mut theirs, there)] {
                    if on {
                        side.push_str(line);
                        side.push('\n');
                    }
                }
            }
        }
    }
    [ours, theirs]
}

/// The texts of the records by name; of two with the same name the last.
fn records(text: &str) -> BTreeMap<String, Arc<str>> {
    let mut found = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    for line in text.lines() {
        if let (Some((_, text)), true) = (&mut current, line.starts_with("    ")) {
            text.push_str(line);
            text.push('\n');
        } else if !line.is_empty() {
            found.extend(current.take().map(|(name, text)| (name, text.into())));
            if line.strip_prefix("version: ").is_some_and(|version| version != "1") {
                return BTreeMap::new();
            }
            let name = line.strip_prefix("  ").and_then(field).filter(|(_, rest)| rest.is_empty());
            current = name.map(|(name, _)| (name, String::with_capacity(512)));
        }
    }
    found.extend(current.map(|(name, text)| (name, text.into())));
    found
}

/// A record from its text; `None` where it is damaged.
pub fn record(text: &str) -> Option<Record> {
    let (mut uses, mut key, mut seed, mut device) = (None, None, None, None);
    let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    let mut params = serde_json::Map::new();
    let mut section = "";
    for line in text.lines() {
        let line = line.strip_prefix("    ")?;
        if let Some(line) = line.strip_prefix("  ") {
            let (name, value) = field(line)?;
            let artifact = || value.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
            match section {
                "inputs:" => drop(inputs.insert(name, artifact()?)),
                "outputs:" => drop(outputs.insert(name, artifact()?)),
                "params:" => drop(params.insert(name, serde_json::from_str(value).ok()?)),
                _ => return None,
            }
            continue;
        }
        section = line;
        match line.split_once(' ') {
            Some(("uses:", value)) => uses = value.rsplit_once('@'),
            Some(("key:", value)) => key = value.parse().ok(),
            Some(("seed:", value)) => seed = Some(value.parse().ok()?),
            Some(("device:", value)) => device = Some(value.to_owned()),
            _ => {}
        }
    }
    let (kind, version) = uses?;
    Some(Record {
        kind: kind.to_owned(),
        version: version.parse().ok()?,
        key: key?,
        seed,
        device,
        inputs,
        params: Value::Object(params),
        outputs,
    })
}

/// The digest of a record's key, without a look at the rest.
pub fn key(text: &str) -> Option<Digest> {
    text.lines().take(2).find_map(|line| line.strip_prefix("    key: "))?.parse().ok()
}

/// `"name": value` or `"name":`.
fn field(line: &str) -> Option<(String, &str)> {
    let quoted = line.strip_prefix('"')?;
    let (name, rest) = match quoted.split_once('"') {
        Some((name, rest)) if !name.contains('\\') => (name.to_owned(), rest),
        _ => {
            let mut names = serde_json::Deserializer::from_str(line).into_iter::<String>();
            let name = names.next()?.ok()?;
            (name, &line[names.byte_offset()..])
        }
    };
    let rest = rest.strip_prefix(':')?;
    Some((name, rest.strip_prefix(' ').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(params: Value) -> ActionKey {
        ActionKey {
            stage: "train".into(),
            version: 3,
            params,
            inputs: BTreeMap::from([("corpus".into(), Artifact::Tree(Digest::of(b"x")))]),
            seed: Some(7),
            device: Some("cpu".into()),
            ..ActionKey::default()
        }
    }

    fn lock(stages: &[(&str, Value)]) -> Lockfile {
        let mut lock = Lockfile::default();
        for (name, params) in stages {
            let key = key(params.clone());
            lock.set(name, &key, &key.inputs);
        }
        lock
    }

    #[test]
    fn what_is_written_reads_back() {
        let odd = json!({
            "run": "echo \"a: b\" # no comment\n", "lr": 1e-4, "n": null, "on": true, "a\"b\\": [1]
        });
        let whole = lock(&[("no", odd.clone()), ("007", json!({})), ("q\"\\\n", json!({}))]);
        let text = file(&whole.stages).collect::<String>();
        assert_eq!(read(&text), whole);
        assert_eq!(read(&text.replace('\n', "\r\n")), whole, "git may have changed the line ends");
        let (key, record) = (key(odd.clone()), whole.get("no").unwrap());
        assert_eq!(record.params, odd);
        assert_eq!(whole.key("no"), Some(record.key));
        assert_eq!((record.key, record.seed), (key.digest(), Some(7)));
        assert_eq!((&record.inputs, &record.outputs), (&key.inputs, &key.inputs));
        let yaml: BTreeMap<String, Value> = serde_yaml::from_str(&text).unwrap();
        assert_eq!(yaml["stages"]["no"]["params"], odd, "it is YAML");
    }

    #[test]
    fn a_conflict_keeps_what_is_whole_and_both_sides() {
        let base = lock(&[("a", json!({})), ("b", json!({ "x": 1 })), ("c", json!({}))]);
        let parts = |x: i32| {
            let text = file(&lock(&[("b", json!({ "x": x }))]).stages).collect::<String>();
            text.strip_prefix(HEAD).unwrap().strip_suffix(TAIL).unwrap().to_owned()
        };
        let marked = file(&base.stages).collect::<String>().replace(
            &parts(1),
            &format!(
                "<<<<<<< HEAD\n{}||||||| 123\n{}=======\n{}>>>>>>> topic\n",
                parts(1),
                parts(0),
                parts(2)
            ),
        );
        let merged = read(&marked);
        assert_eq!(merged.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b", "c"]);
        let sides: Vec<Value> = merged.sides("b").into_iter().map(|side| side.params).collect();
        assert_eq!(sides, [json!({ "x": 1 }), json!({ "x": 2 })]);
        assert_eq!(merged.sides("c").len(), 1);
        assert_eq!(read(&file(&merged.stages).collect::<String>()), base, "our side is written");
    }

    #[test]
    fn damage_costs_the_record_that_it_hits() {
        let whole = lock(&[("a", json!({})), ("b", json!({})), ("c", json!({}))]);
        let text = file(&whole.stages).collect::<String>();
        let cut = &text[..text.find("  \"c\"").unwrap() + 40];
        assert_eq!(read(cut).iter().count(), 2);
        let broken = text.replacen("params: {}", "params: [", 1).replacen("seed: 7", "seed: ?", 1);
        assert_eq!(read(&broken).get("a"), None);
        assert_eq!(read(&broken).get("b"), whole.get("b"));
        for garbage in ["", "\u{0}", "<<<<<<< HEAD\nstages: [\n", "version: 2\nstages:\n  \"a\":\n"]
        {
            assert_eq!(read(garbage), Lockfile::default());
        }
    }
}
