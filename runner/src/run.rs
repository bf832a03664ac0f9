//! Runs a plan: one loop hands out stages as what they need becomes known.
//!
//! Async ends here. A stage that is ready is judged, and its actions run, on blocking threads; the
//! [`machine::Machine`] bounds how many actions run at a time. After a failure nothing new begins
//! (but for `keep_going`), and what is running is let finish, because its result is kept.

mod action;
pub mod items;
pub mod machine;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use quantmill_cache::{ActionKey, ActionResult, IndexError, StoreError};
use quantmill_stages::{Cancel, Items, StageError};
use tokio::task::{JoinSet, spawn_blocking};

use crate::event::{Event, Finished, Outcome, Summary};
use crate::exit::Failure;
use crate::experiment::sources::Sources;
use crate::graph::{Graph, Needs};
use crate::plan::{Plan, Ready, Step, Verdict};
use crate::state::State;
use crate::why::{self, Change};
use machine::Machine;

/// A run that took this long puts what it made on the disk before it ends.
const WORTH_SYNCING: Duration = Duration::from_secs(5);

/// What a run needs beside its plan.
#[derive(Clone)]
pub struct Options {
    /// What its actions may use at a time: processors (an action that says nothing takes one), GPUs,
    /// bytes of memory.
    pub machine: Needs,
    /// Go on with what does not need a stage that failed.
    pub keep_going: bool,
    /// Put outputs where the pipeline says; otherwise they stay in the store.
    pub publish: bool,
    /// Keep the source files of stages that run, however large they are.
    pub keep_inputs: bool,
    /// Asks the run to stop.
    pub cancel: Cancel,
    /// Who listens.
    pub events: SyncSender<Event>,
}

/// Everything that the tasks of a run share.
struct Shared {
    graph: Graph,
    plan: Plan,
    state: State,
    options: Options,
    machine: Arc<Machine>,
    failed: AtomicBool,
    sources: Sources,
}

/// Why a stage did not end well.
enum Ended {
    /// It was told why.
    Failed,
    /// The run stopped before it was done.
    Cancelled,
    /// The run cannot go on.
    Broken(Failure),
}

/// How far a run is.
struct Progress {
    /// Of each stage how many before it are not done; `None` once it was begun, or is not wanted.
    waits: Vec<Option<usize>>,
    /// Of each stage those that it feeds.
    feeds: Vec<Vec<usize>>,
    /// The failed stage that each stage fell with.
    fell: BTreeMap<usize, usize>,
    summary: Summary,
}

/// A run that has ended.
pub struct Ran {
    /// How it went.
    pub summary: Summary,
    /// The graph.
    pub graph: Graph,
    /// The plan, with the outputs of every stage that ended well.
    pub plan: Plan,
    /// The state.
    pub state: State,
}

/// Runs the plan to its end.
pub async fn run(graph: Graph, plan: Plan, state: State, options: Options) -> Result<Ran, Failure> {
    let started = Instant::now();
    let machine = Machine::new(options.machine);
    let failed = AtomicBool::new(false);
    let sources = Sources::new(options.keep_inputs);
    let shared = Arc::new(Shared { graph, plan, state, options, machine, failed, sources });
    let mut progress = Progress::new(&shared);
    let mut running = JoinSet::new();
    let settling = Arc::clone(&shared);
    let hits = spawn_blocking(move || settle(&settling)).await.map_err(std::io::Error::other)?;
    let mut ready = Vec::new();
    for (index, outcome) in hits? {
        ready.extend(progress.done(index, outcome));
    }
    ready.extend((0..progress.waits.len()).filter(|&index| progress.waits[index] == Some(0)));
    loop {
        ready.sort_unstable();
        ready.dedup();
        for index in ready.drain(..) {
            if !shared.stopped() && progress.waits[index].take().is_some() {
                let shared = Arc::clone(&shared);
                running.spawn(async move { (index, stage(shared, index).await) });
            }
        }
        let Some(done) = running.join_next().await else { break };
        let (index, done) = done.map_err(std::io::Error::other)?;
        match done {
            Ok(outcome) => ready = progress.done(index, outcome),
            Err(Ended::Failed) => {
                shared.failed.store(true, Ordering::Relaxed);
                progress.summary.failed += 1;
                progress.fell.insert(index, index);
            }
            Err(Ended::Cancelled) => progress.waits[index] = Some(0),
            Err(Ended::Broken(failure)) => return Err(failure),
        }
    }
    let mut summary = progress.left(&shared);
    summary.interrupted = shared.options.cancel.is_cancelled();
    summary.millis = started.elapsed().as_millis() as u64;
    shared.say(Event::RunFinished(summary));
    // Whatever a short run made is soon read again, should the machine go down before it is on disk.
    if summary.ran > 0 && started.elapsed() >= WORTH_SYNCING {
        shared.state.index.sync()?;
    }
    // Every task has ended, so nobody else holds it.
    let shared = Arc::into_inner(shared).ok_or_else(|| std::io::Error::other("a task lives on"))?;
    let Shared { graph, plan, state, .. } = shared;
    Ok(Ran { summary, graph, plan, state })
}

impl Progress {
    fn new(shared: &Shared) -> Progress {
        let nodes = &shared.graph.nodes;
        let mut feeds = vec![Vec::new(); nodes.len()];
        let mut waits = vec![None; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            if shared.plan.steps[index].is_some() {
                let before = node.before();
                waits[index] = Some(before.len());
                before.into_iter().for_each(|before| feeds[before].push(index));
            }
        }
        Progress { waits, feeds, fell: BTreeMap::new(), summary: Summary::default() }
    }

    /// Notes that a stage is done; returns those that may begin now.
    fn done(&mut self, index: usize, outcome: Outcome) -> Vec<usize> {
        self.waits[index] = None;
        self.summary.ran += usize::from(outcome == Outcome::Ran);
        self.summary.hits += usize::from(outcome != Outcome::Ran);
        self.summary.restored += usize::from(outcome == Outcome::Restored);
        let mut ready = Vec::new();
        for &next in &self.feeds[index] {
            if let Some(waits) = &mut self.waits[next] {
                *waits -= 1;
                if *waits == 0 {
                    ready.push(next);
                }
            }
        }
        ready
    }

    /// Tells of the stages that did not begin because another failed.
    fn left(mut self, shared: &Shared) -> Summary {
        for (index, node) in shared.graph.nodes.iter().enumerate() {
            if self.waits[index].is_none() {
                continue;
            }
            let because = node.before().iter().find_map(|n| self.fell.get(n).copied());
            if let Some(culprit) = because {
                self.fell.insert(index, culprit);
            }
            let because = because.or_else(|| self.fell.values().next().copied());
            if let Some(culprit) = because {
                let because = shared.graph.nodes[culprit].name.clone();
                shared.say(Event::StageSkipped { stage: node.name.clone(), because });
                self.summary.skipped += 1;
            }
        }
        self.summary
    }
}

impl Shared {
    /// Nothing new begins.
    fn stopped(&self) -> bool {
        let failed = self.failed.load(Ordering::Relaxed) && !self.options.keep_going;
        failed || self.options.cancel.is_cancelled()
    }

    fn say(&self, event: Event) {
        // Nobody listens any more only when the process is ending.
        let _ = self.options.events.send(event);
    }

    fn fail(&self, stage: &str, item: Option<String>, error: &StageError) {
        let (message, help) = (error.to_string(), error.help().map(str::to_owned));
        self.say(Event::StageFailed { stage: stage.into(), item, message, help });
    }
}

/// Puts the outputs of all that is known to be a hit in place.
fn settle(shared: &Shared) -> Result<Vec<(usize, Outcome)>, Failure> {
    let mut done = Vec::new();
    for (index, step) in shared.plan.steps.iter().enumerate() {
        if let Some(Step { verdict: Verdict::Hit(result), .. }) = step {
            if shared.options.cancel.is_cancelled() {
                break;
            }
            match hit(shared, index, ActionResult::clone(result)) {
                Ok(outcome) => done.push((index, outcome)),
                // A damaged blob, which is gone now: judged anew, the stage is no hit.
                Err(Failure::Index(IndexError::Store(StoreError::Missing(_)))) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(done)
}

/// A stage whose result is known.
fn hit(shared: &Shared, index: usize, result: ActionResult) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let key = shared.plan.key(&shared.graph, &shared.state, index)?;
    finish(shared, index, key, Worked { result, ran: 0, cached: 0 }, started)
}

/// What the actions of a stage gave.
struct Worked {
    result: ActionResult,
    /// Actions that ran.
    ran: usize,
    /// Items that were hits.
    cached: usize,
}

/// One stage, from judgement to outputs in place. While it waits for the machine it holds next to
/// nothing: thousands may.
async fn stage(shared: Arc<Shared>, index: usize) -> Result<Outcome, Ended> {
    let why = match &shared.plan.steps[index] {
        Some(Step { verdict: Verdict::Stale(_), .. }) => None,
        _ => {
            let judged = Arc::clone(&shared);
            match blocking(move || judge(&judged, index).map_err(Ended::Broken)).await? {
                Judged::Done(outcome) => return Ok(outcome),
                Judged::Stale(reasons) => Some(reasons),
            }
        }
    };
    let node = &shared.graph.nodes[index];
    match node.items.filter(|over| node.input(over.port).is_some()) {
        Some(over) => Box::pin(each(shared, index, over, why)).await,
        None => whole(shared, index, why).await,
    }
}

/// What a stage is, now that what it waited for is known.
enum Judged {
    /// It was a hit, and its outputs are in place.
    Done(Outcome),
    /// It runs, for these reasons.
    Stale(Box<[Change]>),
}

fn judge(shared: &Shared, index: usize) -> Result<Judged, Failure> {
    let Shared { graph, plan, state, .. } = shared;
    Ok(match plan.assess(graph, state, index)?.verdict {
        Verdict::Hit(result) => Judged::Done(hit(shared, index, *result)?),
        Verdict::Stale(reasons) => Judged::Stale(reasons),
        Verdict::Unknown(_) => Judged::Stale(Box::default()),
    })
}

/// Tells that a stage has actions to run. `why` is as the plan has it where it is not given.
fn start(shared: &Shared, index: usize, why: Option<&[Change]>, actions: usize, cached: usize) {
    let node = &shared.graph.nodes[index];
    let planned = match &shared.plan.steps[index] {
        Some(Step { verdict: Verdict::Stale(reasons), .. }) => reasons,
        _ => [].as_slice(),
    };
    shared.say(Event::StageStarted {
        stage: node.name.clone(),
        kind: node.kind.name.into(),
        why: why::line(why.unwrap_or(planned)),
        actions,
        cached,
    });
}

/// Runs a stage that is one action.
async fn whole(
    shared: Arc<Shared>,
    index: usize,
    why: Option<Box<[Change]>>,
) -> Result<Outcome, Ended> {
    let permit = action::permit(&shared, index).await?;
    blocking(move || {
        let started = Instant::now();
        start(&shared, index, why.as_deref(), 1, 0);
        let ready = shared.plan.ready(&shared.graph, &shared.state, index);
        let ready = ready.map_err(|e| Ended::Broken(e.into()))?;
        let (result, ran) = action::run(&shared, index, &ready)?;
        drop(permit);
        let worked = Worked { result, ran: usize::from(ran), cached: usize::from(!ran) };
        close(&shared, index, ready, worked, started).map_err(Ended::Broken)
    })
    .await
}

/// Ends a stage of which something ran: keeps what it read, and makes its outputs known.
fn close(
    shared: &Shared,
    index: usize,
    ready: Ready,
    worked: Worked,
    started: Instant,
) -> Result<Outcome, Failure> {
    if worked.ran > 0 {
        shared.sources.keep(&shared.state.store, ready.given.values().map(AsRef::as_ref))?;
    }
    finish(shared, index, ready.key, worked, started)
}

/// Makes a stage's outputs known: in their places, to the stages behind it, and to who listens.
fn finish(
    shared: &Shared,
    index: usize,
    key: ActionKey,
    worked: Worked,
    started: Instant,
) -> Result<Outcome, Failure> {
    let node = &shared.graph.nodes[index];
    let Worked { result, ran, cached } = worked;
    let restored = shared.options.publish && publish(shared, index, &result)?;
    let outcome = match (ran, restored) {
        (0, false) => Outcome::Hit,
        (0, true) => Outcome::Restored,
        _ => Outcome::Ran,
    };
    shared.plan.know(index, &result.outputs);
    shared.say(Event::StageFinished(Box::new(Finished {
        stage: node.name.clone(),
        outcome,
        key,
        outputs: result.outputs,
        metrics: result.metrics,
        ran,
        cached,
        millis: started.elapsed().as_millis() as u64,
    })));
    Ok(outcome)
}

/// Puts outputs where they belong; true where anything had to be written.
fn publish(shared: &Shared, index: usize, result: &ActionResult) -> Result<bool, Failure> {
    let (index_of, store) = (&shared.state.index, &shared.state.store);
    let outs = shared.graph.nodes[index].outputs.iter().filter_map(|out| {
        let artifact = result.outputs.get(out.port.name.as_ref())?;
        Some((artifact, shared.graph.dir.join(&out.dest)))
    });
    let outs: Vec<_> = outs.collect();
    let Some((_, first)) = outs.first() else { return Ok(false) };
    let mut stand = true;
    for (artifact, place) in &outs {
        stand = stand && index_of.stands(artifact, place)?;
    }
    if stand {
        return Ok(false);
    }
    let _turn = shared.state.turn(first)?;
    let mut wrote = false;
    for (artifact, place) in &outs {
        wrote |= index_of.restore(store, artifact, place)?;
    }
    Ok(wrote)
}

/// Runs a stage that maps over items: an action for each that is no hit.
async fn each(
    shared: Arc<Shared>,
    index: usize,
    over: Items,
    why: Option<Box<[Change]>>,
) -> Result<Outcome, Ended> {
    let started = Instant::now();
    let judged = Arc::clone(&shared);
    let (ready, items) = blocking(move || {
        let Shared { graph, plan, state, .. } = &*judged;
        let ready = plan.ready(graph, state, index).map_err(|e| Ended::Broken(e.into()))?;
        let items = items::split(plan, state, index, &graph.nodes[index], &ready, over);
        Ok((ready, items.map_err(|e| Ended::Broken(e.into()))?))
    })
    .await?;
    let (todo, cached) = (items.todo.len(), items.known.len());
    start(&shared, index, why.as_deref(), todo, cached);
    let (mut known, mut millis) = (items.known, items.millis);
    let mut tasks = JoinSet::new();
    for item in items.todo {
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let permit = action::permit(&shared, index).await?;
            blocking(move || {
                let (result, ran) = action::run(&shared, index, &item)?;
                drop(permit);
                let files = items::files(&shared.state, &result);
                let files = files.map_err(|e| Ended::Broken(e.into()))?;
                Ok((item.key.item.unwrap_or_default(), files, result.millis, ran))
            })
            .await
        });
    }
    let (mut ended, mut ran) = (None, 0);
    while let Some(done) = tasks.join_next().await {
        match done.map_err(|e| Ended::Broken(std::io::Error::other(e).into()))? {
            Ok((name, files, took, here)) => {
                ran += usize::from(here);
                millis += took;
                known.insert(name, files);
            }
            // A failure counts for more than what it held up.
            Err(Ended::Cancelled) => ended = ended.or(Some(Ended::Cancelled)),
            Err(error) => {
                shared.failed.store(true, Ordering::Relaxed);
                ended = Some(error);
            }
        }
    }
    if let Some(error) = ended {
        return Err(error);
    }
    blocking(move || {
        let result = ActionResult { millis, ..items::merge(&shared, index, known)? };
        shared.state.index.put(&ready.key, &result).map_err(|e| Ended::Broken(e.into()))?;
        let worked = Worked { result, ran, cached: todo + cached - ran };
        close(&shared, index, ready, worked, started).map_err(Ended::Broken)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Ended> + Send + 'static,
) -> Result<T, Ended> {
    spawn_blocking(f).await.unwrap_or_else(|e| Err(Ended::Broken(std::io::Error::other(e).into())))
}
