//! What a running stage is given: its inputs, where to write, a seed, a device, and three ways to
//! speak (progress, metrics, warnings).
//!
//! A [`Job`] is the part that can be written down, so that an action can run in a child process; a
//! [`Context`] adds the [`Sink`] that listens and the [`Cancel`] flag.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Input, Result, StageError};

/// Where models compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The CPU backend (flex): deterministic.
    #[default]
    Cpu,
    /// wgpu: Metal, Vulkan, DirectX 12 or WebGPU.
    Wgpu,
    /// CUDA.
    Cuda,
}

impl Device {
    /// The name, as `--device` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Wgpu => "wgpu",
            Device::Cuda => "cuda",
        }
    }
}

/// How far a `command` is kept to what it declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Not at all.
    #[default]
    Off,
    /// What it reads and writes beside that is told.
    Trace,
    /// What it reads and writes beside that is refused.
    Strict,
}

/// An action, ready to run: everything that a [`Context`] holds but the listeners.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// The stage's kind (`uses`).
    pub kind: String,
    /// Resolved parameters.
    pub params: Value,
    /// Inputs by port.
    pub inputs: BTreeMap<String, Input>,
    /// Where each output goes: a file to create, or an empty folder that exists.
    pub outputs: BTreeMap<String, PathBuf>,
    /// The item, where the stage maps over items: its relative name.
    pub item: Option<String>,
    /// The seed.
    pub seed: u64,
    /// The device.
    pub device: Device,
    /// A folder that exists, is empty, and is removed afterwards.
    pub scratch: PathBuf,
    /// A folder that exists and stays from one attempt to the next, until the action succeeds; for
    /// stages that go on where they were killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<PathBuf>,
    /// The pipeline's folder: where a `command` runs.
    pub dir: PathBuf,
    /// Environment a `command` may see beside PATH, HOME and LANG.
    pub env: BTreeMap<String, String>,
    /// Secrets that a `command` may see, by name. Their values are neither logged nor hashed.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Names that `env` and `secrets` give and that are not set.
    #[serde(default)]
    pub unset: Vec<String>,
    /// How far a `command` is kept to what it declares.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// How long it may take, in milliseconds.
    #[serde(default)]
    pub timeout: Option<u64>,
}

/// How far an action is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 where it is not known.
    pub total: u64,
    /// The unit, in the plural: `pages`, `tokens`, `steps`.
    pub unit: String,
    /// A short word on the state, such as `loss 3.214`.
    pub note: String,
    /// What it has worked through so far and in what unit, such as tokens: how fast it does is for
    /// whoever has a clock to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<(u64, String)>,
}

/// Who listens to a running stage.
pub trait Sink: Sync {
    /// How far it is; may be called often.
    fn progress(&self, progress: Progress);
    /// A number worth keeping with the run.
    fn metric(&self, name: &str, value: f64);
    /// Something that a person should know and that does not stop the stage.
    fn warn(&self, message: &str);
    /// A line that a `command` printed.
    fn output(&self, line: &str);
    /// How far a `command` was really kept to what it declares: `off`, or by what means.
    fn sandbox(&self, _how: &str) {}
}

/// A flag that asks a stage to stop.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a running stage is given.
pub struct Context<'a> {
    job: &'a Job,
    sink: &'a dyn Sink,
    cancel: Cancel,
    begun: Instant,
}

impl<'a> Context<'a> {
    /// A context of a job that begins now.
    pub fn new(job: &'a Job, sink: &'a dyn Sink, cancel: Cancel) -> Context<'a> {
        Context { job, sink, cancel, begun: Instant::now() }
    }
    /// The job.
    pub fn job(&self) -> &Job {
        self.job
    }
    /// The seed of this action.
    pub fn seed(&self) -> u64 {
        self.job.seed
    }
    /// The device to compute on.
    pub fn device(&self) -> Device {
        self.job.device
    }
    /// The item, where the stage maps over items.
    pub fn item(&self) -> Option<&str> {
        self.job.item.as_deref()
    }
    /// A folder for temporary files.
    pub fn scratch(&self) -> &Path {
        &self.job.scratch
    }
    /// A folder for what an attempt after this one needs to go on. None where there is no such
    /// attempt, as in tests.
    pub fn resume(&self) -> Option<&Path> {
        self.job.resume.as_deref()
    }
    /// Whether the port is fed.
    pub fn has(&self, port: &str) -> bool {
        self.job.inputs.contains_key(port)
    }
    /// The files of a port, by relative name in order. Empty where it is not fed.
    pub fn files(&self, port: &str) -> impl Iterator<Item = (&str, &Path)> {
        let files = self.job.inputs.get(port).map(|input| &input.files);
        files.into_iter().flatten().map(|(name, path)| (name.as_str(), path.as_path()))
    }
    /// The one file of a port.
    pub fn file(&self, port: &str) -> Result<&Path> {
        let mut files = self.files(port);
        match (files.next(), files.next()) {
            (Some((_, path)), None) => Ok(path),
            (None, _) => Err(StageError::failed(format!("input `{port}` has no file"))),
            _ => Err(StageError::failed(format!("input `{port}` has more than one file"))
                .hint("name a single file in `inputs`, or combine them in a stage of their own")),
        }
    }
    /// A file below a folder port, such as `config.json` of a model.
    pub fn member(&self, port: &str, name: &str) -> Option<&Path> {
        self.job.inputs.get(port)?.files.get(name).map(PathBuf::as_path)
    }
    /// Where output `name` goes: a file to create, or an empty folder that exists.
    pub fn output(&self, name: &str) -> Result<&Path> {
        let path = self.job.outputs.get(name).map(PathBuf::as_path);
        path.ok_or_else(|| StageError::failed(format!("no output `{name}`")))
    }
    /// Says how far it is. Also stops a stage that is cancelled or late: call it at least once a
    /// second.
    pub fn progress(
        &self,
        done: u64,
        total: u64,
        unit: &str,
        note: impl Into<String>,
    ) -> Result<()> {
        self.progress_of(done, total, unit, note, None)
    }
    /// [`Context::progress`] with how much it has worked through, and in what unit.
    pub fn progress_of(
        &self,
        done: u64,
        total: u64,
        unit: &str,
        note: impl Into<String>,
        work: Option<(u64, &str)>,
    ) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(StageError::Cancelled);
        }
        if self.job.timeout.is_some_and(|limit| self.begun.elapsed().as_millis() > limit.into()) {
            return Err(self.late());
        }
        let work = work.map(|(count, unit)| (count, unit.to_owned()));
        let (unit, note) = (unit.into(), note.into());
        self.sink.progress(Progress { done, total, unit, note, work });
        Ok(())
    }
    /// The flag that asks it to stop.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
    /// Keeps a number with the run.
    pub fn metric(&self, name: &str, value: f64) {
        self.sink.metric(name, value);
    }
    /// Says something that a person should know.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.sink.warn(&self.mask(message.as_ref()));
    }
    /// Passes on a line that a `command` printed.
    pub fn print(&self, line: &str) {
        self.sink.output(&self.mask(line));
    }
    /// Says how far a `command` was really kept to what it declares.
    pub fn sandbox(&self, how: &str) {
        self.sink.sandbox(how);
    }
    /// The text with `***` in place of the values of secrets. Those of several lines count by line,
    /// because output comes in lines.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let lines = self.job.secrets.values().flat_map(|value| value.lines());
        let mut parts: Vec<&str> = lines.map(str::trim).filter(|line| line.len() > 3).collect();
        // One may be part of another.
        parts.sort_unstable_by_key(|part| std::cmp::Reverse(part.len()));
        parts.into_iter().fold(Cow::Borrowed(text), |text, part| match text.contains(part) {
            true => text.replace(part, "***").into(),
            false => text,
        })
    }
    /// The error of a stage that took longer than it may.
    pub fn late(&self) -> StageError {
        let limit = Duration::from_millis(self.job.timeout.unwrap_or_default());
        StageError::failed(format!("took longer than {}", spelt(limit)))
            .hint("raise the stage's `timeout`, or leave it out")
    }
}

/// A duration as a pipeline spells it: `1h30m`, `10m`, `2s`, `150ms`.
fn spelt(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (millis.into(), "ms"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, unit)| format!("{count}{unit}")).collect()
}
