//! The lock file: for every stage its key, and what went in and came out, beside the pipeline and
//! committed with it. One record a stage in the order of the names, a field a line, no date and no
//! host: it changes only where a stage does, and merges where different stages changed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quantmill_cache::{ActionKey, Artifact, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::Event;

/// The lock file of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lockfile {
    /// The format's version.
    pub version: u32,
    /// A record for every stage.
    #[serde(default)]
    pub stages: BTreeMap<String, Record>,
}

/// What a stage was when it last ended well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Kind and version, as in `extract@1`.
    pub uses: String,
    /// The digest of its key.
    pub key: Digest,
    /// Its seed, where it uses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Its device, where that changes bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its inputs.
    #[serde(default)]
    pub inputs: BTreeMap<String, Artifact>,
    /// Its parameters, defaults filled in.
    #[serde(default)]
    pub params: Value,
    /// Its outputs.
    #[serde(default)]
    pub outputs: BTreeMap<String, Artifact>,
}

impl Record {
    fn new(key: &ActionKey, outputs: &BTreeMap<String, Artifact>) -> Record {
        Record {
            uses: format!("{}@{}", key.stage, key.version),
            key: key.digest(),
            seed: key.seed,
            device: key.device.clone(),
            inputs: key.inputs.clone(),
            params: key.params.clone(),
            outputs: outputs.clone(),
        }
    }
}

/// The lock file of a pipeline file: the same name, ending in `.lock`.
pub fn path(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("lock")
}

/// Reads it. A lock that is not there, or that a merge left in pieces, is an empty one: it explains
/// what changed and decides nothing.
pub fn read(path: &Path) -> Lockfile {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_yaml::from_str(&text).unwrap_or_default()
}

impl Lockfile {
    /// Takes in what happened.
    pub fn note(&mut self, event: &Event) {
        if let Event::StageFinished(done) = event {
            let record = Record::new(&done.key, &done.outputs);
            self.stages.insert(done.stage.clone(), record);
        }
    }

    /// Forgets stages that the pipeline no longer has.
    pub fn keep<'a>(&mut self, stages: impl Iterator<Item = &'a str>) {
        let names: std::collections::BTreeSet<&str> = stages.collect();
        self.stages.retain(|name, _| names.contains(name.as_str()));
    }

    fn render(&self) -> String {
        let mut out = String::from(
            "# What each stage last ran with and gave. Written by quantmill; commit it.\nversion: 1\nstages:\n",
        );
        for (name, record) in &self.stages {
            out.push_str(&format!("  {}:\n", quote(name)));
            out.push_str(&format!("    uses: {}\n    key: {}\n", record.uses, record.key));
            if let Some(seed) = record.seed {
                out.push_str(&format!("    seed: {seed}\n"));
            }
            if let Some(device) = &record.device {
                out.push_str(&format!("    device: {device}\n"));
            }
            artifacts(&mut out, "inputs", &record.inputs);
            let params = record.params.as_object().into_iter().flatten();
            let params: BTreeMap<_, _> = params.collect();
            section(&mut out, "params", params.iter().map(|(k, v)| (k.as_str(), v.to_string())));
            artifacts(&mut out, "outputs", &record.outputs);
        }
        out
    }

    /// Writes it, whole, where it differs from what is there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = self.render();
        if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut temp = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            temp.permissions(std::fs::Permissions::from_mode(0o644));
        }
        let mut temp = temp.prefix(".quantmill-").tempfile_in(folder.unwrap_or(Path::new(".")))?;
        temp.write_all(text.as_bytes())?;
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|e| e.error)?;
        Ok(())
    }
}

fn artifacts(out: &mut String, title: &str, artifacts: &BTreeMap<String, Artifact>) {
    section(out, title, artifacts.iter().map(|(k, v)| (k.as_str(), format!("\"{v}\""))));
}

/// JSON is YAML: one compact value a line.
fn section<'a>(out: &mut String, title: &str, fields: impl Iterator<Item = (&'a str, String)>) {
    let mut fields = fields.peekable();
    if fields.peek().is_none() {
        out.push_str(&format!("    {title}: {{}}\n"));
        return;
    }
    out.push_str(&format!("    {title}:\n"));
    for (name, value) in fields {
        out.push_str(&format!("      {}: {value}\n", quote(name)));
    }
}

fn quote(name: &str) -> String {
    Value::from(name).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back_and_garbage_is_an_empty_lock() {
        let key = ActionKey {
            stage: "train".into(),
            version: 3,
            params: json!({ "run": "echo \"a: b\" # no comment\n", "lr": 1e-4, "n": null, "on": true }),
            inputs: BTreeMap::from([("corpus".into(), Artifact::Tree(Digest::of(b"x")))]),
            item: None,
            seed: Some(7),
            device: Some("cpu".into()),
            env: BTreeMap::new(),
            secrets: Vec::new(),
        };
        let mut lock = Lockfile { version: 1, ..Lockfile::default() };
        lock.stages.insert("no".into(), Record::new(&key, &key.inputs));
        lock.stages.insert("007".into(), Record::new(&key, &BTreeMap::new()));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pipeline.lock");
        lock.write(&file).unwrap();
        assert_eq!(read(&file), lock);
        fs_err::write(&file, "<<<<<<< HEAD\nstages: [\n").unwrap();
        assert_eq!(read(&file), Lockfile::default());
    }
}
