//! Why a stage runs: the difference between the key that it has now and the key that it last had.
//!
//! Both are the very JSON that was hashed, so the explanation cannot disagree with the hash.

use std::collections::BTreeSet;

use quantmill_cache::{ActionKey, Artifact, Store};
use serde_json::Value;

/// How many changed files of a folder are named.
const NAMED: usize = 3;
/// How many characters of a value are shown.
const SHOWN: usize = 40;

/// What differs between two keys of a stage, a line each; empty where nothing does.
pub fn changes(old: &ActionKey, new: &ActionKey, store: &Store) -> Vec<String> {
    let mut out = Vec::new();
    if old.stage != new.stage {
        out.push(format!("uses: {} -> {}", old.stage, new.stage));
    } else if old.version != new.version {
        out.push(format!("{} version: {} -> {}", new.stage, old.version, new.version));
    }
    values("", &old.params, &new.params, &mut out);
    let ports: BTreeSet<&String> = old.inputs.keys().chain(new.inputs.keys()).collect();
    for port in ports {
        match (old.inputs.get(port), new.inputs.get(port)) {
            (Some(a), Some(b)) if a != b => out.push(input(port, a, b, store)),
            (Some(_), None) => out.push(format!("input {port} is no longer given")),
            (None, Some(_)) => out.push(format!("input {port} is new")),
            _ => {}
        }
    }
    let plain = |v: Option<String>| v.unwrap_or_else(|| "none".into());
    if old.seed != new.seed {
        let [a, b] = [old.seed, new.seed].map(|seed| plain(seed.map(|s| s.to_string())));
        out.push(format!("seed: {a} -> {b}"));
    }
    if old.device != new.device {
        let [a, b] = [&old.device, &new.device].map(|device| plain(device.clone()));
        out.push(format!("device: {a} -> {b}"));
    }
    let names: BTreeSet<&String> = old.env.keys().chain(new.env.keys()).collect();
    for name in names {
        if old.env.get(name) != new.env.get(name) {
            out.push(format!("environment variable {name} changed"));
        }
    }
    out
}

fn values(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let [a, b] = [a, b].map(|map| map.get(name).unwrap_or(&Value::Null));
                values(&path, a, b, out);
            }
        }
        _ if old == new => {}
        _ => {
            let (a, b) = (old.to_string(), new.to_string());
            let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
            let from = if a.chars().count().max(b.chars().count()) > SHOWN {
                same.saturating_sub(SHOWN / 4)
            } else {
                0
            };
            out.push(format!("{path}: {} -> {}", brief(&a, from), brief(&b, from)));
        }
    }
}

/// A piece of a long value that holds the first difference.
fn brief(text: &str, from: usize) -> String {
    let piece: String = text.chars().skip(from).take(SHOWN).collect();
    let (before, after) = (from > 0, text.chars().count() > from + SHOWN);
    format!("{}{piece}{}", if before { "…" } else { "" }, if after { "…" } else { "" })
}

/// What changed in an input; for a folder, which files.
fn input(port: &str, old: &Artifact, new: &Artifact, store: &Store) -> String {
    let trees = match (old, new) {
        (Artifact::Tree(a), Artifact::Tree(b)) => store.tree(a).ok().zip(store.tree(b).ok()),
        _ => None,
    };
    let Some((old, new)) = trees else { return format!("input {port} changed") };
    let names: BTreeSet<&String> = old.entries.keys().chain(new.entries.keys()).collect();
    let mut said: Vec<String> = Vec::new();
    let mut more = 0;
    for name in names {
        let word = match (old.entries.get(name), new.entries.get(name)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(_), Some(_)) => "changed",
            (None, _) => "is new",
            (_, None) => "is gone",
        };
        match said.len() {
            NAMED => more += 1,
            _ => said.push(format!("{name} {word}")),
        }
    }
    if more > 0 {
        said.push(format!("{more} more"));
    }
    format!("input {port}: {}", said.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quantmill_cache::{Digest, Entry, Tree};
    use serde_json::json;

    use super::*;

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
        let key = |params: Value, papers: Artifact, seed| ActionKey {
            stage: "train".into(),
            version: 1,
            params,
            inputs: BTreeMap::from([("papers".into(), papers)]),
            item: None,
            seed,
            device: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
        };
        let long =
            |word: &str| json!({"run": format!("{} {word} {}", "a".repeat(60), "b".repeat(60))});
        let (old, new) = (long("hello"), long("bye"));
        let file = Artifact::File(Digest::of(b"x"));
        assert_eq!(
            changes(&key(old, file, None), &key(new, file, None), &store),
            [format!("run: …aaaaaaaaa hello {0}… -> …aaaaaaaaa bye {0}bb…", "b".repeat(24))]
        );
        let old = key(json!({"lora": {"r": 8}, "x": 1}), tree(&[("a", "1"), ("b", "1")]), Some(1));
        let new = key(json!({"lora": {"r": 16}, "x": 1}), tree(&[("b", "2"), ("c", "1")]), None);
        assert_eq!(changes(&old, &old, &store), Vec::<String>::new());
        assert_eq!(
            changes(&old, &new, &store),
            ["lora.r: 8 -> 16", "input papers: a is gone, b changed, c is new", "seed: 1 -> none",]
        );
    }
}
