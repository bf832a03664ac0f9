//! The run record: a folder `.quantmill/runs/<id>/` with `events.jsonl`, one [`Event`] a line with the
//! time it happened, and beside it the pipeline's texts and the lock as they were.
//!
//! Events are written as they happen and never changed. A run that did nothing costs two lines: its
//! texts and lock are links to those of the run before. Reading is the business of
//! [`crate::experiment`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use quantmill_cache::Digest;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Outcome, Setting, Summary, Survey};
use crate::experiment::repository;
use crate::graph::Graph;
use crate::lock::Lockfile;

/// The events of a run.
pub const EVENTS: &str = "events.jsonl";
/// The lock as it was after a run.
pub const LOCK: &str = "pipeline.lock";

/// The folder with the record of a run.
pub fn folder(home: &Path, run: &str) -> PathBuf {
    home.join("runs").join(run)
}

/// The name of the copy of the `n`th text: the pipeline is the first, then what it includes.
pub fn text_name(n: usize) -> String {
    if n == 0 { "pipeline.yaml".into() } else { format!("include-{n}.yaml") }
}

/// Numbers by stage and name.
pub type Metrics = BTreeMap<String, BTreeMap<String, f64>>;

/// A line of the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line<E> {
    /// Milliseconds since 1970.
    pub at: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: E,
}

/// An open record.
pub struct Record {
    file: fs_err::File,
    folder: PathBuf,
    dir: PathBuf,
    pipeline: PathBuf,
    texts: Vec<Arc<str>>,
    surveyed: bool,
    hits: usize,
    metrics: Metrics,
    /// Stages that were hits.
    untold: BTreeSet<String>,
    finished: BTreeSet<String>,
    fell: BTreeSet<String>,
    summary: Option<Summary>,
}

/// Which run of a pipeline last wrote its texts and its lock down, and how these looked.
#[derive(Serialize, Deserialize)]
struct Last {
    run: String,
    texts: Vec<Digest>,
    lock: Vec<i64>,
}

impl Record {
    /// Begins the record of a run below the state folder.
    pub fn create(home: &Path, setting: &Setting, graph: &Graph) -> io::Result<Record> {
        let folder = folder(home, &setting.run);
        fs_err::create_dir_all(&folder)?;
        let file = fs_err::File::create(folder.join(EVENTS))?;
        let texts = texts(graph).map(|(_, text)| Arc::clone(text)).collect();
        let pipeline = setting.dir.join(setting.texts.first().map_or("", String::as_str));
        let dir = setting.dir.clone();
        Ok(Record {
            file,
            folder,
            dir,
            pipeline,
            texts,
            surveyed: false,
            hits: 0,
            metrics: Metrics::new(),
            untold: BTreeSet::new(),
            finished: BTreeSet::new(),
            fell: BTreeSet::new(),
            summary: None,
        })
    }

    /// Writes an event down. Progress is not worth keeping, and hits share a line.
    pub fn note(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Progress { .. } => return Ok(()),
            Event::StageStarted { .. } if !self.surveyed => {
                self.surveyed = true;
                let survey = Survey { cpu: cpu(), dirty: repository::dirty(&self.dir) };
                self.write(&Event::Surveyed(survey))?;
            }
            Event::StageFinished(done) => {
                self.finished.insert(done.stage.clone());
                if !done.metrics.is_empty() {
                    self.metrics.insert(done.stage.clone(), done.metrics.clone());
                }
                if done.outcome == Outcome::Hit {
                    self.hits += 1;
                    self.untold.insert(done.stage.clone());
                    return Ok(());
                }
            }
            Event::StageFailed { stage, .. } | Event::StageSkipped { stage, .. } => {
                self.fell.insert(stage.clone());
            }
            Event::RunFinished(summary) => {
                self.summary = Some(*summary);
                if self.hits > 0 {
                    let mut metrics = self.metrics.clone();
                    metrics.retain(|stage, _| self.untold.contains(stage));
                    self.write(&Event::Hits { stages: self.hits, metrics })?;
                }
            }
            _ => {}
        }
        self.write(event)
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let at = chrono::Utc::now().timestamp_millis();
        let mut line = serde_json::to_vec(&Line { at, event })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Ends the record and returns the numbers of all stages: keeps the texts, and the lock as far as it is of this run. `lock` was written
    /// to `place`, or to no place where the run publishes nothing.
    pub fn finish(
        self,
        home: &Path,
        mut lock: Lockfile,
        place: Option<&Path>,
    ) -> io::Result<Metrics> {
        let pointer = home.join("last").join(pointer(&self.pipeline));
        let texts: Vec<Digest> =
            self.texts.iter().map(|text| Digest::of(text.as_bytes())).collect();
        let quiet = self.summary.is_some_and(|s| s.ran + s.failed + s.restored == 0);
        let looks = place.and_then(|place| looks(place).ok());
        if let (true, Some(looks)) = (quiet, &looks) {
            let last = std::fs::read(&pointer).ok();
            let last: Option<Last> = last.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let same = last.filter(|last| last.texts == texts && last.lock == *looks);
            let linked =
                |last: Last| link(&folder(home, &last.run), &self.folder, self.texts.len()).is_ok();
            if same.is_some_and(linked) {
                return Ok(self.metrics);
            }
        }
        for (n, text) in self.texts.iter().enumerate() {
            fs_err::write(self.folder.join(text_name(n)), &**text)?;
        }
        // Where hits were not told one by one, what the lock knew before is right for them.
        let untold = self.summary.is_some_and(|s| s.hits > self.hits + s.restored);
        let before: Vec<String> = match untold {
            true => lock.iter().map(|(stage, _)| stage.to_owned()).collect(),
            false => Vec::new(),
        };
        let names = before.iter().chain(&self.finished).filter(|name| !self.fell.contains(*name));
        lock.keep(names.map(String::as_str));
        lock.write_to(fs_err::File::create(self.folder.join(LOCK))?)?;
        if let (Some(lock), Some(run)) = (looks, self.folder.file_name()) {
            let last = Last { run: run.to_string_lossy().into_owned(), texts, lock };
            fs_err::create_dir_all(home.join("last"))?;
            let mut temp = tempfile::NamedTempFile::new_in(home.join("last"))?;
            temp.write_all(&serde_json::to_vec(&last)?)?;
            temp.persist(pointer).map_err(|e| e.error)?;
        }
        Ok(self.metrics)
    }
}

/// Links the texts and the lock of another run. Records are never changed, so runs may share them.
fn link(other: &Path, own: &Path, texts: usize) -> io::Result<()> {
    for name in (0..texts).map(text_name).chain([LOCK.to_owned()]) {
        let (from, to) = (other.join(&name), own.join(&name));
        if fs_err::hard_link(&from, &to).is_err() {
            fs_err::copy(from, to)?;
        }
    }
    Ok(())
}

/// What the record of a run says that finds everything as another left it.
#[derive(Serialize, Deserialize)]
pub struct Repeat {
    /// How the other was started.
    pub setting: Setting,
    /// The numbers of its stages.
    pub metrics: Metrics,
}

/// Records a run that had nothing to do. Fails where the record of the other run is gone.
pub fn repeat(
    home: &Path,
    other: Repeat,
    note: Option<String>,
    summary: Summary,
) -> io::Result<()> {
    let Repeat { mut setting, metrics } = other;
    let other = folder(home, &setting.run);
    setting.run = id();
    setting.note = note;
    setting.to_run = 0;
    let head = repository::head(&setting.dir);
    (setting.commit, setting.branch) = (head.commit, head.branch);
    let (own, texts) = (folder(home, &setting.run), setting.texts.len());
    if !other.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    fs_err::create_dir_all(&own)?;
    let at = chrono::Utc::now().timestamp_millis();
    let mut lines = Vec::new();
    let hits = Event::Hits { stages: summary.hits, metrics };
    for event in [Event::RunStarted(Box::new(setting)), hits, Event::RunFinished(summary)] {
        serde_json::to_writer(&mut lines, &Line { at, event })?;
        lines.push(b'\n');
    }
    link(&other, &own, texts)?;
    fs_err::write(own.join(EVENTS), lines)
}

/// The name of a pipeline among all that share a state folder.
fn pointer(pipeline: &Path) -> String {
    Digest::of(pipeline.to_string_lossy().as_bytes()).short()
}

/// How a file looks without reading it.
fn looks(path: &Path) -> io::Result<Vec<i64>> {
    let meta = fs_err::metadata(path)?;
    let written = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&meta) as i64;
    #[cfg(not(unix))]
    let inode = 0;
    Ok(vec![meta.len() as i64, inode, written.as_nanos() as i64])
}

/// The pipeline file and what it includes: path relative to the folder, and text.
pub fn texts(graph: &Graph) -> impl Iterator<Item = (String, &Arc<str>)> {
    let sources = graph.sources.0.iter().filter(|source| source.name != "--set");
    sources.map(|source| {
        let path = Path::new(&source.name);
        let path = path.strip_prefix(&graph.dir).unwrap_or(path);
        (path.display().to_string(), &source.text)
    })
}

/// A new run id: the time, readable and sorting as it passed, and this process.
pub fn id() -> String {
    let time = chrono::Utc::now().format("%Y%m%d-%H%M%S-%3f");
    format!("{time}-{}", std::process::id())
}

/// What can be told of where a run happens without waiting.
pub fn place(setting: &mut Setting, graph: &Graph) {
    setting.dir = std::path::absolute(&graph.dir).unwrap_or_else(|_| graph.dir.clone());
    setting.texts = texts(graph).map(|(path, _)| path).collect();
    let head = repository::head(&setting.dir);
    (setting.commit, setting.branch) = (head.commit, head.branch);
    for node in &graph.nodes {
        if !setting.kinds.contains_key(node.kind.name) {
            setting.kinds.insert(node.kind.name.to_owned(), node.kind.version);
        }
        for name in &node.env {
            if let Ok(value) = std::env::var(name) {
                setting.env.insert(name.clone(), value);
            }
        }
    }
    setting.host = host();
    setting.platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
}

fn host() -> String {
    let named = |path: &str| std::fs::read_to_string(path).ok();
    let name = named("/proc/sys/kernel/hostname").or_else(|| said("hostname", &[]));
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}

fn cpu() -> Option<String> {
    let Ok(file) = std::fs::File::open("/proc/cpuinfo") else {
        return said("sysctl", &["-n", "machdep.cpu.brand_string"]);
    };
    // The first processor's lines: the kernel writes the rest only if they are asked for.
    let mut lines = io::BufRead::lines(io::BufReader::new(file)).take(40).map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    out.status.success().then(|| text.trim().to_owned())
}
