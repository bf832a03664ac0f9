//! Runs the stage `chunk` as the runner does, on one thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quantmill_stages::{ALL, Cancel, Context, Input, Job, Progress, Sink};
use serde_json::{Value, json};

use super::Given;

struct Silent;

impl Sink for Silent {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

/// Cuts every text of a folder, four times: the first loads the vocabulary.
pub(super) fn run(folder: &Path, scratch: &Path) -> Given {
    let kind = ALL.iter().find(|kind| kind.name == "chunk").unwrap();
    let params = (kind.resolve)(&json!({})).unwrap();
    let outputs: BTreeMap<String, PathBuf> =
        ["chunks", "index"].map(|name| (name.to_owned(), scratch.join(name))).into();
    let inputs = BTreeMap::from([("text".to_owned(), input(folder))]);
    let job = Job { kind: "chunk".into(), params, inputs, outputs, ..Job::default() };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let seconds = (0..4).map(|_| {
        let begun = cpu_seconds();
        let context = Context::new(&job, &Silent, Cancel::default());
        one.install(|| (kind.run)(&job.params, &context)).unwrap();
        cpu_seconds() - begun
    });
    let seconds = seconds.fold(f64::INFINITY, f64::min);
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(&job.outputs[name]).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let both = lines("index").into_iter().zip(lines("chunks"));
    let chunks = both.map(|(origin, chunk)| (text(&origin["document"]), text(&chunk["text"])));
    Given { seconds, chunks: chunks.collect() }
}

fn input(folder: &Path) -> Input {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(from) = folders.pop() {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.insert(name, path);
            }
        }
    }
    Input { files: files.into(), tree: true }
}

/// The CPU time of this process, all threads.
fn cpu_seconds() -> f64 {
    // SAFETY: the struct is plain data, and the call writes it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
