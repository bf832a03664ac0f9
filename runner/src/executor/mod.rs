//! Runs one action and publishes what it made: claim, look again, run, check the sources, move the
//! outputs into the store, remember the result. Nothing is visible before the last step.

mod in_place;
mod local;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use quantmill_cache::{ActionKey, ActionResult, Artifact, Digest, IndexError, Scratch};
use quantmill_stages::{Cancel, Device, Input, Job, Progress, Sink, StageError};

use self::in_place::InPlace;
use crate::graph::{Node, Out};
use crate::plan::Ready;
use crate::source::Given;
use crate::state::{RESUME, State};

/// An action with everything that it needs.
pub struct Action<'a> {
    /// The stage.
    pub node: &'a Node,
    /// Key and inputs.
    pub ready: &'a Ready,
    /// The device.
    pub device: Device,
    /// The pipeline's folder.
    pub dir: &'a std::path::Path,
    /// It runs even where its result is known.
    pub again: bool,
    /// What other stages made lies in the workspace.
    pub in_place: bool,
}

/// What an action gave.
pub struct Done {
    /// Its key's digest.
    pub key: Digest,
    /// Its result.
    pub result: ActionResult,
    /// It ran here: another run may have done it meanwhile.
    pub ran: bool,
}

/// Why an action did not give a result.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The stage failed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The state folder is not usable.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<std::io::Error> for ActionError {
    fn from(error: std::io::Error) -> ActionError {
        ActionError::Index(error.into())
    }
}

impl From<quantmill_cache::StoreError> for ActionError {
    fn from(error: quantmill_cache::StoreError) -> ActionError {
        ActionError::Index(error.into())
    }
}

/// Runs the action, unless another run has done it meanwhile.
pub fn execute(
    action: &Action<'_>,
    state: &State,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Result<Done, ActionError> {
    let key = &action.ready.key;
    let digest = key.digest();
    let Some(_claim) = state.claim(&digest, cancel)? else {
        return Err(StageError::Cancelled.into());
    };
    let known = if action.again { None } else { state.index.get(&digest, &state.store)? };
    if let Some(result) = known.filter(|result| action.node.takes(result)) {
        tracing::debug!(key = %digest.short(), "another run has done it meanwhile");
        return Ok(Done { key: digest, result, ran: false });
    }
    tracing::debug!(key = %digest.short(), json = %key.json(), "run {}", action.node.kind.name);
    let kept = state.home.join(RESUME).join(digest.to_string());
    if action.again && kept.exists() {
        // Who asks for it again wants it from the start.
        fs_err::remove_dir_all(&kept)?;
    }
    let mut in_place = action.in_place && action.node.kind.named;
    let result = loop {
        if let Some(result) = attempt(action, state, sink, cancel, in_place, &kept)? {
            break result;
        }
        tracing::debug!(key = %digest.short(), "another run moved what it read; again on copies");
        in_place = false;
    };
    state.index.put(key, &result)?;
    if kept.exists() {
        fs_err::remove_dir_all(&kept)?;
    }
    tracing::debug!(key = %digest.short(), millis = result.millis, "keep {:?}", result.outputs);
    Ok(Done { key: digest, result, ran: true })
}

/// Runs the action and takes its outputs into the store. `None` where what it read in place did not
/// stay as it was.
fn attempt(
    action: &Action<'_>,
    state: &State,
    sink: &dyn Sink,
    cancel: &Cancel,
    in_place: bool,
    kept: &Path,
) -> Result<Option<ActionResult>, ActionError> {
    let scratch = state.store.scratch()?;
    let mut looks = InPlace::default();
    let mut inputs = BTreeMap::new();
    for (port, given) in &action.ready.given {
        let placed = if in_place { looks.input(state, given)? } else { None };
        if placed.is_none() {
            inspect(port, given, state)?;
        }
        inputs.insert(port.clone(), placed.unwrap_or_else(|| given.input.clone()));
    }
    let job = prepare(action, &scratch, inputs, kept)?;
    let started = Instant::now();
    let heard = Heard::new(sink);
    let ended = local::run(&action.node.kind, &job, &heard, cancel);
    if !looks.stands() {
        return Ok(None);
    }
    ended.map_err(|e| rename(e, &action.ready.given))?;
    if let Some(path) = action.ready.given.values().find_map(|given| given.changed()) {
        let error = StageError::bad(&path, "changed while the stage was reading it");
        return Err(error.hint("run again").into());
    }
    let mut result = heard.into_result();
    for (name, path) in &job.outputs {
        if path.symlink_metadata().is_err() {
            let error = StageError::failed(format!("it did not write its output `{name}`"));
            return Err(error.into());
        }
        result.outputs.insert(name.clone(), state.store.adopt(path)?);
    }
    result.millis = started.elapsed().as_millis() as u64;
    Ok(Some(result))
}

/// Looks at the bytes of what comes from the store: a stage must not compute with a damaged blob.
/// What is damaged is taken back from its place in the workspace, if it is whole there.
fn inspect(port: &str, given: &Given, state: &State) -> Result<(), ActionError> {
    if given.is_source() || state.store.check(&given.artifact) {
        return Ok(());
    }
    let place = given.shown.as_deref();
    if place.map_or(Ok(false), |place| state.store.recover(&given.artifact, place))? {
        return Ok(());
    }
    let what = place.map_or(port.to_owned(), |place| place.display().to_string());
    let error = StageError::failed(format!("the store's copy of {what} is damaged"));
    Err(error.hint("run again: it is then made anew").into())
}

/// The error with the files as people know them: a stage reads blobs of the store.
fn rename(error: StageError, given: &BTreeMap<String, Arc<Given>>) -> StageError {
    let help = error.help().map(str::to_owned);
    match error {
        StageError::BadInput { .. } | StageError::Failed { .. } => {
            let message = given.values().fold(error.to_string(), |text, given| given.rename(text));
            StageError::Failed { message, help }
        }
        other => other,
    }
}

fn prepare(
    action: &Action<'_>,
    scratch: &Scratch,
    inputs: BTreeMap<String, Input>,
    kept: &Path,
) -> Result<Job, ActionError> {
    let resume = action.node.kind.resumes.then(|| kept.to_owned());
    if let Some(folder) = &resume {
        fs_err::create_dir_all(folder)?;
    }
    let made = scratch.outputs();
    let mut outputs = BTreeMap::new();
    // A name that keeps the extension, for programs that go by it.
    let name = |Out { port, .. }: &Out| -> String {
        port.path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(&port.name).into()
    };
    let names: BTreeSet<String> = action.node.outputs.iter().map(name).collect();
    let distinct = names.len() == action.node.outputs.len();
    for out in &action.node.outputs {
        let (port, mut path) = (&out.port, made.clone());
        if !distinct {
            path.push(port.name.as_ref());
            fs_err::create_dir(&path)?;
        }
        path.push(name(out));
        if port.tree {
            fs_err::create_dir(&path)?;
        }
        outputs.insert(port.name.clone().into_owned(), path);
    }
    Ok(Job {
        kind: action.node.kind.name.into(),
        params: action.ready.key.params.clone(),
        inputs,
        outputs,
        item: action.ready.key.item.clone(),
        seed: action.node.seed,
        device: action.device,
        scratch: scratch.path(),
        resume,
        dir: action.dir.to_owned(),
        env: action.ready.key.env.clone(),
        secrets: secrets(action.node),
        unset: unset(action.node),
        sandbox: action.node.sandbox,
        timeout: action.node.timeout.map(|limit| limit.as_millis() as u64),
    })
}

/// The secrets that are set, by name.
fn secrets(node: &Node) -> BTreeMap<String, String> {
    let value = |name: &String| Some((name.clone(), std::env::var(name).ok()?));
    node.secrets.iter().filter_map(value).collect()
}

/// What `env` and `secrets` name and nobody has set.
fn unset(node: &Node) -> Vec<String> {
    let names = node.env.iter().chain(&node.secrets);
    names.filter(|name| std::env::var(name).is_err()).cloned().collect()
}

/// Passes on what a stage says and keeps what belongs to its result.
struct Heard<'a> {
    sink: &'a dyn Sink,
    kept: std::sync::Mutex<ActionResult>,
}

impl<'a> Heard<'a> {
    fn new(sink: &'a dyn Sink) -> Heard<'a> {
        Heard { sink, kept: Default::default() }
    }
    fn into_result(self) -> ActionResult {
        self.kept.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    fn keep(&self, f: impl FnOnce(&mut ActionResult)) {
        f(&mut self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Sink for Heard<'_> {
    fn progress(&self, progress: Progress) {
        self.sink.progress(progress);
    }
    fn metric(&self, name: &str, value: f64) {
        self.keep(|result| result.metrics.extend([(name.to_owned(), value)]));
        self.sink.metric(name, value);
    }
    fn warn(&self, message: &str) {
        self.keep(|result| result.warnings.push(message.into()));
        self.sink.warn(message);
    }
    fn output(&self, line: &str) {
        self.sink.output(line);
    }
    fn sandbox(&self, how: &str) {
        self.keep(|result| result.confined = how.starts_with("strict"));
        self.sink.sandbox(how);
    }
}

/// The key of one item of a stage that maps over items: what it reads in place of the folder.
pub fn item_key(stage: &ActionKey, port: &str, name: &str, reads: Artifact) -> ActionKey {
    let mut key = stage.clone();
    key.inputs.insert(port.to_owned(), reads);
    key.item = Some(name.to_owned());
    key
}
