//! Why a stage runs: the difference between the key that it has now and the key that it last had.
//!
//! Both are the very JSON that was hashed, so the explanation cannot disagree with the hash. Where
//! only the lock file knows the last key, as in a fresh clone, its record is compared.

mod bytes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use quantmill_cache::{ActionKey, Artifact, Entry, IndexError, Store, Tree};
use serde::Serialize;
use serde_json::Value;

use crate::lock::{Lockfile, Record};
use crate::plan::Ready;
use crate::source::Given;
use crate::state::State;

/// How many changed files of a folder are named.
const NAMED: usize = 3;

/// A difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A value: a parameter by its dotted path, the kind, the seed, the device.
    Value {
        /// Which.
        field: String,
        /// What it was; nothing where it was not there.
        old: Option<Value>,
        /// What it is.
        new: Option<Value>,
    },
    /// An environment variable that the stage names.
    Env {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// A file of an input.
    File {
        /// The input.
        input: String,
        /// The file, as people know it.
        file: String,
        /// What happened to it.
        how: How,
        /// The first line that differs, where the old bytes are still known.
        line: Option<Line>,
    },
    /// Anything else, in words.
    Note {
        /// The words.
        text: String,
    },
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Its content changed.
    Changed,
    /// It is new.
    New,
    /// It is gone.
    Gone,
}

/// A line that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// What it was; nothing where the old file was shorter.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

impl From<&str> for Change {
    fn from(text: &str) -> Change {
        Change::Note { text: text.to_owned() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Value { field, old, new } => {
                let [old, new] = [old, new].map(|value| value.as_ref().map(plain));
                let (old, new) = bytes::apart(old.as_deref(), new.as_deref());
                write!(f, "{field}: {old} -> {new}")
            }
            Change::Env { name, old, new } => {
                let (old, new) = bytes::apart(old.as_deref(), new.as_deref());
                write!(f, "environment variable {name}: {old} -> {new}")
            }
            Change::File { file, how: How::New, .. } => write!(f, "{file} is new"),
            Change::File { file, how: How::Gone, .. } => write!(f, "{file} is gone"),
            Change::File { file, line: None, .. } => write!(f, "{file} changed"),
            Change::File { file, line: Some(line), .. } => {
                let (old, new) = bytes::apart(line.old.as_deref(), line.new.as_deref());
                write!(f, "{file} changed in line {}: {old} -> {new}", line.number)
            }
            Change::Note { text } => f.write_str(text),
        }
    }
}

/// A value as it is shown: a text without quotes, unless it could be taken for something else.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if serde_json::from_str::<Value>(text).is_err() => text.clone(),
        other => other.to_string(),
    }
}

/// All of them on one line.
pub fn line(changes: &[Change]) -> String {
    changes.iter().map(Change::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a stage that is no hit runs.
pub fn reasons(
    state: &State,
    lock: &Lockfile,
    stage: &str,
    ready: &Ready,
) -> Result<Vec<Change>, IndexError> {
    let digest = ready.key.digest();
    let mut found: Option<Vec<Change>> = None;
    // Of the sides of a merge the nearer one explains more.
    for record in lock.sides(stage) {
        if record.key == digest {
            let known = state.index.remembered(&digest)?.is_some();
            let why =
                if known { "its outputs are gone from the store" } else { "it has not run here" };
            return Ok(vec![why.into()]);
        }
        let changes = since(state, &record, ready)?;
        if found.as_ref().is_none_or(|found| changes.len() < found.len()) {
            found = Some(changes);
        }
    }
    Ok(found.unwrap_or_else(|| vec!["it has not run yet".into()]))
}

/// What differs from a record of the lock.
pub fn since(state: &State, record: &Record, ready: &Ready) -> Result<Vec<Change>, IndexError> {
    if let Some(old) = state.index.key(&record.key)? {
        return Ok(changes(&old, ready, &state.store));
    }
    // The lock does not hold the environment.
    let old = ActionKey {
        stage: record.kind.clone(),
        version: record.version,
        params: record.params.clone(),
        inputs: record.inputs.clone(),
        item: None,
        seed: record.seed,
        device: record.device.clone(),
        env: ready.key.env.clone(),
        secrets: ready.key.secrets.clone(),
    };
    let mut changes = changes(&old, ready, &state.store);
    if changes.is_empty() {
        changes.push("its environment differs from the lock file's".into());
    }
    Ok(changes)
}

/// What is known to differ of a stage that waits on others: all but what they will give.
pub fn so_far(
    state: &State,
    lock: &Lockfile,
    stage: &str,
    known: Ready,
) -> Result<Vec<Change>, IndexError> {
    let Some(record) = lock.get(stage) else { return Ok(Vec::new()) };
    let mut known = known;
    for (port, artifact) in &record.inputs {
        known.key.inputs.entry(port.clone()).or_insert(*artifact);
    }
    match known.key.digest() == record.key {
        true => Ok(Vec::new()),
        false => since(state, &record, &known),
    }
}

/// What differs between an old key of a stage and the one it has now; empty where nothing does.
pub fn changes(old: &ActionKey, ready: &Ready, store: &Store) -> Vec<Change> {
    let new = &ready.key;
    let mut out = Vec::new();
    let mut value = |field: &str, old: Option<Value>, new: Option<Value>| {
        if old != new {
            out.push(Change::Value { field: field.to_owned(), old, new });
        }
    };
    if old.stage != new.stage {
        value("uses", Some(old.stage.as_str().into()), Some(new.stage.as_str().into()));
    } else {
        let field = format!("version of {}", new.stage);
        value(&field, Some(old.version.into()), Some(new.version.into()));
    }
    values("", Some(&old.params), Some(&new.params), &mut value);
    value("seed", old.seed.map(Value::from), new.seed.map(Value::from));
    value("device", old.device.clone().map(Value::from), new.device.clone().map(Value::from));
    value("item", old.item.clone().map(Value::from), new.item.clone().map(Value::from));
    if old.secrets != new.secrets {
        value("secrets", Some(old.secrets.clone().into()), Some(new.secrets.clone().into()));
    }
    for port in both(&old.inputs, &new.inputs) {
        match (old.inputs.get(port), new.inputs.get(port)) {
            (Some(a), Some(b)) if a != b => {
                input(port, a, b, ready.given.get(port).map(|given| &**given), store, &mut out)
            }
            (Some(_), None) => {
                out.push(Change::Note { text: format!("input {port} is no longer given") })
            }
            (None, Some(_)) => out.push(Change::Note { text: format!("input {port} is new") }),
            _ => {}
        }
    }
    for name in both(&old.env, &new.env) {
        let (old, new) = (old.env.get(name).cloned(), new.env.get(name).cloned());
        if old != new {
            out.push(Change::Env { name: name.clone(), old, new });
        }
    }
    out
}

fn both<'a, T, U>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, U>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}

fn values(
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut impl FnMut(&str, Option<Value>, Option<Value>),
) {
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                values(&path, a.get(name), b.get(name), out);
            }
        }
        _ => out(path, old.cloned(), new.cloned()),
    }
}

/// What changed in an input; for a folder, which files.
fn input(
    port: &str,
    old: &Artifact,
    new: &Artifact,
    given: Option<&Given>,
    store: &Store,
    out: &mut Vec<Change>,
) {
    let file = |file: &str, how, line| Change::File {
        input: port.to_owned(),
        file: file.to_owned(),
        how,
        line,
    };
    let place = |name: &str| given.and_then(|given| given.input.files.place(name));
    let (old, new) = match (old, new) {
        (Artifact::Tree(old), Artifact::Tree(new)) => {
            let read = store.read(old).ok().zip(store.read(new).ok());
            match read.and_then(|(old, new)| Tree::differing(&old, &new)) {
                Some((old, new)) => (old.entries, new.entries),
                None => return out.push(Change::Note { text: format!("input {port} changed") }),
            }
        }
        (Artifact::File(old), Artifact::File(_)) => {
            let name = given.and_then(|given| given.input.files.keys().next());
            let name = name.map_or(port, String::as_str);
            let line = place(name).and_then(|path| bytes::first_line(&store.path(old), &path));
            return out.push(file(name, How::Changed, line));
        }
        (_, Artifact::Tree(_)) => {
            return out.push(Change::Note { text: format!("input {port} is a folder now") });
        }
        (_, Artifact::File(_)) => {
            return out.push(Change::Note { text: format!("input {port} is a file now") });
        }
    };
    let (mut named, mut more) = (0, 0);
    let same = |a: Option<&Entry>, b: Option<&Entry>| a == b;
    for name in both(&old, &new) {
        let (a, b) = (old.get(name), new.get(name));
        let how = match (a, b) {
            _ if same(a, b) => continue,
            (Some(_), Some(_)) => How::Changed,
            (None, _) => How::New,
            (_, None) => How::Gone,
        };
        if named == NAMED {
            more += 1;
            continue;
        }
        named += 1;
        let old = a.map(|entry| store.path(&entry.digest)).filter(|_| how == How::Changed);
        let line = old.zip(place(name)).and_then(|(old, new)| bytes::first_line(&old, &new));
        out.push(file(name, how, line));
    }
    if more > 0 {
        out.push(Change::Note { text: format!("{more} more files of {port}") });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quantmill_cache::Digest;
    use quantmill_stages::Input;
    use serde_json::json;

    use super::*;

    fn said(
        old: &ActionKey,
        new: ActionKey,
        given: BTreeMap<String, Arc<Given>>,
        store: &Store,
    ) -> Vec<String> {
        let ready = Ready { key: new, given };
        changes(old, &ready, store).iter().map(Change::to_string).collect()
    }

    #[test]
    fn each_difference_has_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let tree = |files: &[(&str, &str)]| {
            let entry = |text: &str| Entry {
                digest: Digest::of(text.as_bytes()),
                size: text.len() as u64,
                executable: false,
            };
            let entries = files.iter().map(|(n, t)| (n.to_string(), entry(t))).collect();
            store.put_tree(&Tree { entries }).unwrap()
        };
        let key = |params: Value, papers: Artifact, seed, env: &[(&str, &str)]| ActionKey {
            stage: "train".into(),
            version: 1,
            params,
            inputs: BTreeMap::from([("papers".into(), papers)]),
            seed,
            env: env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..ActionKey::default()
        };
        let old = key(
            json!({"lora": {"r": 8}, "x": 1, "gone": true}),
            tree(&[("a", "1"), ("b", "1")]),
            Some(1),
            &[("LANG", "C"), ("B", "1")],
        );
        let new = key(
            json!({"lora": {"r": 16}, "x": 1}),
            tree(&[("b", "2"), ("c", "1")]),
            None,
            &[("LANG", "de"), ("A", "")],
        );
        let none = BTreeMap::new;
        assert_eq!(said(&old, old.clone(), none(), &store), Vec::<String>::new());
        assert_eq!(
            said(&old, new, none(), &store),
            [
                "gone: true -> none",
                "lora.r: 8 -> 16",
                "seed: 1 -> none",
                "a is gone",
                "b changed",
                "c is new",
                "environment variable A: none -> \"\"",
                "environment variable B: 1 -> none",
                "environment variable LANG: C -> de",
            ]
        );
    }

    #[test]
    fn a_text_file_shows_its_first_changed_line_while_the_old_bytes_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = dir.path().join("notes.md");
        fs_err::write(&path, "one\ntwo, and more\n").unwrap();
        let key = |text: &[u8]| ActionKey {
            inputs: BTreeMap::from([("notes".into(), Artifact::File(Digest::of(text)))]),
            ..ActionKey::default()
        };
        let (old, new) = (key(b"one\n2, and more\n"), key(b"one\ntwo, and more\n"));
        let given = || {
            let files = BTreeMap::from([("notes.md".into(), path.clone())]);
            let input = Input { files: files.into(), tree: false };
            let artifact = new.inputs["notes"];
            let given = Given::stored(artifact, input, None);
            BTreeMap::from([("notes".into(), given.into())])
        };
        assert_eq!(said(&old, new.clone(), given(), &store), ["notes.md changed"]);
        store.put(b"one\n2, and more\n").unwrap();
        assert_eq!(
            said(&old, new.clone(), given(), &store),
            ["notes.md changed in line 2: 2, and more -> two, and more"]
        );
    }
}
