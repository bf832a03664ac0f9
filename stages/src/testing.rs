//! Runs a stage on files, for the tests beside each stage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use crate::{Cancel, Context, Input, Job, Kind, Progress, Result, Sink, Stage};

/// What a stage said and wrote.
pub struct Ran {
    /// Holds the outputs.
    #[allow(dead_code)]
    pub dir: tempfile::TempDir,
    /// Output paths by name.
    pub outputs: BTreeMap<String, PathBuf>,
    /// Metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// Warnings, in order.
    pub warnings: Vec<String>,
}

impl Ran {
    /// The text of an output file.
    pub fn text(&self, output: &str) -> String {
        fs_err::read_to_string(&self.outputs[output]).expect("an output that is text")
    }
}

#[derive(Default)]
struct Heard(Mutex<(BTreeMap<String, f64>, Vec<String>)>);

impl Sink for Heard {
    fn progress(&self, _: Progress) {}
    fn metric(&self, name: &str, value: f64) {
        self.0.lock().expect("lock").0.insert(name.into(), value);
    }
    fn warn(&self, message: &str) {
        self.0.lock().expect("lock").1.push(message.into());
    }
    fn output(&self, _: &str) {}
}

/// A port fed by a file, or by a folder as its files.
pub fn input(path: &Path) -> Input {
    let mut files = BTreeMap::new();
    let tree = path.is_dir();
    if !tree {
        let name = path.file_name().expect("a file name").to_string_lossy().into_owned();
        files.insert(name, path.to_owned());
    }
    let mut folders = if tree { vec![path.to_owned()] } else { Vec::new() };
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder).expect("a folder") {
            let found = entry.expect("an entry").path();
            if found.is_dir() {
                folders.push(found);
            } else {
                let name = found.strip_prefix(path).expect("below").to_string_lossy().into_owned();
                files.insert(name, found);
            }
        }
    }
    Input { files: files.into(), tree }
}

/// Resolves the parameters and runs the stage with seed 0 on the CPU.
pub fn run<S: Stage>(params: Value, inputs: &[(&str, &Path)]) -> Result<Ran> {
    let kind = Kind::of::<S>();
    let params = (kind.resolve)(&params).expect("valid parameters");
    let dir = tempfile::tempdir()?;
    let mut outputs = BTreeMap::new();
    for port in (kind.outputs)(&params) {
        let path = dir.path().join(port.name.as_ref());
        if port.tree {
            fs_err::create_dir(&path)?;
        }
        outputs.insert(port.name.into_owned(), path);
    }
    let scratch = dir.path().join(".scratch");
    fs_err::create_dir(&scratch)?;
    let inputs: BTreeMap<String, Input> =
        inputs.iter().map(|(port, path)| (port.to_string(), input(path))).collect();
    // Of a folder the last file: the others are before it.
    let item = (kind.items)(&params).and_then(|over| inputs.get(over.port));
    let item = item.and_then(|input| input.files.keys().next_back().cloned());
    let job = Job {
        kind: kind.name.into(),
        params,
        inputs,
        outputs: outputs.clone(),
        item,
        scratch,
        dir: dir.path().to_owned(),
        ..Job::default()
    };
    let heard = Heard::default();
    (kind.run)(&job.params, &Context::new(&job, &heard, Cancel::default()))?;
    let (metrics, warnings) = heard.0.into_inner().expect("lock");
    Ok(Ran { dir, outputs, metrics, warnings })
}

/// Gives `act` a context with inputs and a scratch folder, for what a stage is made of.
pub fn with<T>(inputs: &[(&str, &Path)], act: impl FnOnce(&Context) -> T) -> T {
    let dir = tempfile::tempdir().expect("a folder");
    let job = Job {
        inputs: inputs.iter().map(|(port, path)| (port.to_string(), input(path))).collect(),
        scratch: dir.path().to_owned(),
        dir: dir.path().to_owned(),
        ..Job::default()
    };
    act(&Context::new(&job, &Heard::default(), Cancel::default()))
}
