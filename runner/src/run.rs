//! Runs a plan: one loop hands out stages as what they need becomes known.
//!
//! Async ends here. A stage that is ready is judged, and its actions run, on blocking threads; a
//! semaphore bounds how many actions run at a time. After a failure nothing new begins, and what is
//! running is let finish, because its result is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use quantmill_cache::{ActionResult, Artifact, Tree};
use quantmill_stages::{Cancel, Progress, Sink, StageError};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};

use crate::event::{Event, Finished, Outcome, Summary};
use crate::executor::{self, Action, ActionError};
use crate::exit::Failure;
use crate::graph::Graph;
use crate::plan::{Plan, Ready, Step, Verdict};
use crate::state::State;

type Outputs = BTreeMap<String, Artifact>;

/// What a run needs beside its plan.
#[derive(Clone)]
pub struct Options {
    /// Actions at a time.
    pub jobs: usize,
    /// Go on with what does not need a stage that failed.
    pub keep_going: bool,
    /// Put outputs where the pipeline says; otherwise they stay in the store.
    pub publish: bool,
    /// Asks the run to stop.
    pub cancel: Cancel,
    /// Who listens.
    pub events: Sender<Event>,
}

/// Everything that the tasks of a run share.
struct Shared {
    graph: Graph,
    plan: Plan,
    state: State,
    options: Options,
    permits: Arc<Semaphore>,
}

/// Why a stage did not end well.
enum Ended {
    Failed,
    Cancelled,
    Broken(Failure),
}

/// Runs the plan to its end and returns how it went.
pub async fn run(
    graph: Graph,
    plan: Plan,
    state: State,
    options: Options,
) -> Result<Summary, Failure> {
    let started = Instant::now();
    let permits = Arc::new(Semaphore::new(options.jobs.max(1)));
    let shared = Arc::new(Shared { graph, plan, state, options, permits });
    let total = shared.graph.nodes.len();
    let mut known: Vec<Option<Outputs>> = vec![None; total];
    let mut waiting: BTreeSet<usize> =
        (0..total).filter(|index| shared.plan.steps[*index].is_some()).collect();
    let mut failed: BTreeMap<usize, usize> = BTreeMap::new();
    let mut summary = Summary::default();
    let mut running = JoinSet::new();
    loop {
        let stop = shared.options.cancel.is_cancelled()
            || (summary.failed > 0 && !shared.options.keep_going);
        let ready: Vec<usize> = waiting
            .iter()
            .copied()
            .filter(|index| {
                !stop && shared.graph.nodes[*index].before().iter().all(|&n| known[n].is_some())
            })
            .collect();
        for index in ready {
            waiting.remove(&index);
            let (shared, known) = (Arc::clone(&shared), known.clone());
            running.spawn(async move { (index, stage(shared, index, known).await) });
        }
        let Some(done) = running.join_next().await else { break };
        let (index, done) = done.map_err(std::io::Error::other)?;
        match done {
            Ok((outputs, outcome)) => {
                known[index] = Some(outputs);
                summary.ran += usize::from(outcome == Outcome::Ran);
                summary.hits += usize::from(outcome != Outcome::Ran);
                summary.restored += usize::from(outcome == Outcome::Restored);
            }
            Err(Ended::Failed) => {
                summary.failed += 1;
                failed.insert(index, index);
            }
            Err(Ended::Cancelled) => shared.options.cancel.cancel(),
            Err(Ended::Broken(failure)) => return Err(failure),
        }
    }
    for index in waiting {
        let node = &shared.graph.nodes[index];
        let because = node.before().iter().find_map(|n| failed.get(n).copied());
        if let Some(culprit) = because {
            failed.insert(index, culprit);
        }
        let because = because.or_else(|| failed.values().next().copied());
        if let Some(culprit) = because {
            let because = shared.graph.nodes[culprit].name.clone();
            shared.say(Event::StageSkipped { stage: node.name.clone(), because });
            summary.skipped += 1;
        }
    }
    summary.interrupted = shared.options.cancel.is_cancelled();
    summary.millis = started.elapsed().as_millis() as u64;
    shared.say(Event::RunFinished(summary));
    Ok(summary)
}

impl Shared {
    fn say(&self, event: Event) {
        // Nobody listens any more only when the process is ending.
        let _ = self.options.events.send(event);
    }

    fn fail(&self, stage: &str, item: Option<String>, error: &StageError) {
        let (message, help) = (error.to_string(), error.help().map(str::to_owned));
        self.say(Event::StageFailed { stage: stage.into(), item, message, help });
    }
}

/// One stage, from judgement to outputs in place.
async fn stage(
    shared: Arc<Shared>,
    index: usize,
    known: Vec<Option<Outputs>>,
) -> Result<(Outputs, Outcome), Ended> {
    let started = Instant::now();
    let judged = Arc::clone(&shared);
    let step = blocking(move || {
        let early = judged.plan.steps[index].as_ref();
        match early.filter(|step| !matches!(step.verdict, Verdict::Unknown(_))) {
            Some(step) => Ok(step.clone()),
            None => judged
                .plan
                .assess(&judged.graph, &judged.state, index, &known)
                .map_err(|e| Ended::Broken(e.into())),
        }
    })
    .await?;
    let Step { verdict, ready: Some(ready), .. } = step else {
        return Err(Ended::Broken(
            std::io::Error::other("a stage without inputs was started").into(),
        ));
    };
    let (result, ran, cached) = match verdict {
        Verdict::Hit(result) => (result, 0, 0),
        Verdict::Stale(reasons) => work(&shared, index, Arc::clone(&ready), &reasons).await?,
        Verdict::Unknown(_) => return Err(Ended::Cancelled),
    };
    blocking(move || {
        let restored = publish(&shared, index, &result).map_err(Ended::Broken)?;
        let node = &shared.graph.nodes[index];
        let outcome = match (ran, restored) {
            (0, false) => Outcome::Hit,
            (0, true) => Outcome::Restored,
            _ => Outcome::Ran,
        };
        shared.say(Event::StageFinished(Box::new(Finished {
            stage: node.name.clone(),
            outcome,
            key: ready.key.clone(),
            outputs: result.outputs.clone(),
            metrics: result.metrics,
            ran,
            cached,
            millis: started.elapsed().as_millis() as u64,
        })));
        Ok((result.outputs, outcome))
    })
    .await
}

/// Puts outputs where they belong; true where anything had to be written.
fn publish(shared: &Shared, index: usize, result: &ActionResult) -> Result<bool, Failure> {
    let mut wrote = false;
    if !shared.options.publish {
        return Ok(false);
    }
    for out in &shared.graph.nodes[index].outputs {
        let Some(artifact) = result.outputs.get(out.port.name.as_ref()) else { continue };
        let place = shared.graph.dir.join(&out.dest);
        wrote |= shared.state.index.restore(&shared.state.store, artifact, &place)?;
    }
    Ok(wrote)
}

/// Runs the actions of a stage: one, or one for each item that is no hit. Returns its result, how
/// many actions it took, and how many items were hits.
async fn work(
    shared: &Arc<Shared>,
    index: usize,
    ready: Arc<Ready>,
    reasons: &[String],
) -> Result<(ActionResult, usize, usize), Ended> {
    let node = &shared.graph.nodes[index];
    let started = |actions, cached| Event::StageStarted {
        stage: node.name.clone(),
        kind: node.kind.name.into(),
        why: reasons.join("; "),
        actions,
        cached,
    };
    let Some(port) = node.items.as_deref().filter(|port| ready.given.contains_key(*port)) else {
        let (state, key) = (Arc::clone(shared), Arc::clone(&ready));
        shared.say(started(1, 0));
        let (result, ran) = action(state, index, (*key).clone()).await?;
        return Ok((result, usize::from(ran), usize::from(!ran)));
    };
    let (judged, whole, port) = (Arc::clone(shared), Arc::clone(&ready), port.to_owned());
    let items =
        blocking(move || items(&judged, &whole, &port).map_err(|e| Ended::Broken(e.into())))
            .await?;
    let mut results = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let todo = items.iter().filter(|(_, hit)| hit.is_none()).count();
    let cached = items.len() - todo;
    shared.say(started(todo, cached));
    for (item, hit) in items {
        let name = item.key.item.clone().unwrap_or_default();
        match hit {
            Some(result) => drop(results.insert(name, result)),
            None => {
                let shared = Arc::clone(shared);
                drop(tasks.spawn(async move { (name, action(shared, index, item).await) }));
            }
        }
    }
    let (mut ended, mut ran) = (None, 0);
    while let Some(done) = tasks.join_next().await {
        let (name, done) = done.map_err(|e| Ended::Broken(std::io::Error::other(e).into()))?;
        match done {
            Ok((result, here)) => {
                ran += usize::from(here);
                results.insert(name, result);
            }
            Err(error) => ended = ended.or(Some(error)),
        }
    }
    if let Some(error) = ended {
        return Err(error);
    }
    let (shared, key) = (Arc::clone(shared), ready.key.clone());
    blocking(move || {
        let merged = merge(&shared, index, results)?;
        shared.state.index.put(&key, &merged).map_err(|e| Ended::Broken(e.into()))?;
        Ok((merged, ran, todo + cached - ran))
    })
    .await
}

/// The items of a stage, each with its result where that is known.
fn items(
    shared: &Shared,
    ready: &Ready,
    port: &str,
) -> Result<Vec<(Ready, Option<ActionResult>)>, quantmill_cache::IndexError> {
    let whole = &ready.given[port];
    let mut items = Vec::with_capacity(whole.input.files.len());
    let tree = match whole.artifact {
        Artifact::Tree(digest) => shared.state.store.tree(&digest)?,
        Artifact::File(_) => Tree::default(),
    };
    for (name, path) in &whole.input.files {
        let digest = tree.entries.get(name).map_or(whole.artifact.digest(), |entry| entry.digest);
        let key = executor::item_key(&ready.key, port, name, digest);
        let mut given = ready.given.clone();
        if let Some(one) = given.get_mut(port) {
            one.artifact = Artifact::File(digest);
            one.input.files.retain(|other, _| other == name);
            one.input.tree = false;
            one.stamps.retain(|(other, _)| other == path);
        }
        let hit = shared.state.index.get(&key.digest(), &shared.state.store)?;
        items.push((Ready { key, given }, hit));
    }
    Ok(items)
}

/// The folder of what all items wrote. Their numbers stay with them: a sum of shares means nothing.
fn merge(
    shared: &Shared,
    index: usize,
    results: BTreeMap<String, ActionResult>,
) -> Result<ActionResult, Ended> {
    let node = &shared.graph.nodes[index];
    let store = &shared.state.store;
    let mut trees: BTreeMap<String, Tree> = BTreeMap::new();
    let mut whole = ActionResult::default();
    for (item, result) in results {
        for (name, artifact) in result.outputs {
            let tree = store.tree(&artifact.digest()).map_err(|e| Ended::Broken(e.into()))?;
            let all = trees.entry(name).or_default();
            for (file, entry) in tree.entries {
                if all.entries.get(&file).is_some_and(|other| *other != entry) {
                    let error = StageError::failed(format!("two items write `{file}`"));
                    let error = error.hint("rename one of the source files");
                    shared.fail(&node.name, Some(item), &error);
                    return Err(Ended::Failed);
                }
                all.entries.insert(file, entry);
            }
        }
        whole.warnings.extend(result.warnings);
        whole.millis += result.millis;
    }
    for (name, tree) in trees {
        let artifact = store.put_tree(&tree).map_err(|e| Ended::Broken(e.into()))?;
        whole.outputs.insert(name, artifact);
    }
    Ok(whole)
}

/// One action, once there is a permit for it.
/// The flag says whether it ran here.
async fn action(
    shared: Arc<Shared>,
    index: usize,
    ready: Ready,
) -> Result<(ActionResult, bool), Ended> {
    let permit = Arc::clone(&shared.permits).acquire_owned().await;
    if shared.options.cancel.is_cancelled() {
        return Err(Ended::Cancelled);
    }
    blocking(move || {
        let _permit = permit;
        let node = &shared.graph.nodes[index];
        let (stage, item) = (node.name.clone(), ready.key.item.clone());
        let key = ready.key.digest();
        let action = Action {
            ready,
            node: node.clone(),
            device: shared.plan.device(),
            dir: shared.graph.dir.clone(),
        };
        let speaker = Speaker { shared: &shared, stage: &stage, item: &item };
        match executor::execute(&action, &shared.state, &speaker, &shared.options.cancel) {
            Ok((result, ran)) => {
                let millis = if ran { result.millis } else { 0 };
                shared.say(Event::ActionFinished { stage, item, key, millis });
                Ok((result, ran))
            }
            Err(ActionError::Stage(StageError::Cancelled)) => Err(Ended::Cancelled),
            Err(ActionError::Stage(error)) => {
                shared.fail(&stage, item, &error);
                Err(Ended::Failed)
            }
            Err(ActionError::Index(error)) => Err(Ended::Broken(error.into())),
        }
    })
    .await
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Ended> + Send + 'static,
) -> Result<T, Ended> {
    spawn_blocking(f).await.unwrap_or_else(|e| Err(Ended::Broken(std::io::Error::other(e).into())))
}

/// Turns what an action says into events.
struct Speaker<'a> {
    shared: &'a Shared,
    stage: &'a str,
    item: &'a Option<String>,
}

impl Sink for Speaker<'_> {
    fn progress(&self, progress: Progress) {
        let (stage, item) = (self.stage.to_owned(), self.item.clone());
        self.shared.say(Event::Progress { stage, item, progress });
    }
    fn metric(&self, name: &str, value: f64) {
        let (stage, item, name) = (self.stage.to_owned(), self.item.clone(), name.to_owned());
        self.shared.say(Event::Metric { stage, item, name, value });
    }
    fn warn(&self, message: &str) {
        let (stage, item, message) = (self.stage.to_owned(), self.item.clone(), message.to_owned());
        self.shared.say(Event::Warning { stage, item, message });
    }
    fn output(&self, line: &str) {
        self.shared.say(Event::Output { stage: self.stage.to_owned(), line: line.to_owned() });
    }
}
