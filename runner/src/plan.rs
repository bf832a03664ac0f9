//! [`Plan`]: what a run would do, known without running anything.
//!
//! A plan is exact down to the first stage that must run. What lies behind it is unknown: if its
//! output turns out as before, the rest stays a hit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use quantmill_cache::{ActionKey, ActionResult, Artifact, Entry, IndexError, Tree};
use quantmill_stages::{Device, Input};

use crate::diagnostic::{Problem, Problems, suggest};
use crate::exit::Failure;
use crate::graph::{From, Graph, Node, Out};
use crate::lock::Lockfile;
use crate::source::{self, Given, SourceError};
use crate::state::State;
use crate::why;

/// What will happen to a stage.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Its outputs are known.
    Hit(ActionResult),
    /// It runs, for these reasons.
    Stale(Vec<String>),
    /// It depends on stages that run: their places in the graph.
    Unknown(Vec<usize>),
}

/// A stage of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// What will happen.
    pub verdict: Verdict,
    /// Its key and inputs, where they are known already.
    pub ready: Option<Arc<Ready>>,
    /// Milliseconds that it took last time, if there was one.
    pub last: Option<u64>,
}

/// A stage whose inputs are all known.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its key.
    pub key: ActionKey,
    /// What feeds each port.
    pub given: BTreeMap<String, Given>,
}

/// What a run would do.
#[derive(Debug)]
pub struct Plan {
    /// A step for each of the graph's nodes; `None` where it was not asked for.
    pub steps: Vec<Option<Step>>,
    /// Source files by their pattern.
    sources: BTreeMap<String, Given>,
    device: Device,
    lock: Lockfile,
}

/// Plans the targets (all stages where there are none) and everything that they need.
pub fn plan(
    graph: &Graph,
    state: &State,
    lock: &Lockfile,
    targets: &[String],
    device: Device,
) -> Result<Plan, Failure> {
    let wanted = wanted(graph, targets)?;
    let mut plan = Plan {
        steps: vec![None; graph.nodes.len()],
        sources: sources(graph, state, &wanted)?,
        device,
        lock: lock.clone(),
    };
    let mut known: Vec<Option<BTreeMap<String, Artifact>>> = vec![None; graph.nodes.len()];
    for index in wanted {
        let waits = waits_on(&graph.nodes[index], &known);
        let step = if waits.is_empty() {
            plan.assess(graph, state, index, &known)?
        } else {
            let last = plan.last_time(state, &graph.nodes[index].name)?;
            Step { verdict: Verdict::Unknown(waits), ready: None, last }
        };
        if let Verdict::Hit(result) = &step.verdict {
            known[index] = Some(result.outputs.clone());
        }
        plan.steps[index] = Some(step);
    }
    Ok(plan)
}

fn waits_on(node: &Node, known: &[Option<BTreeMap<String, Artifact>>]) -> Vec<usize> {
    let mut waits = node.before();
    waits.retain(|before| known[*before].is_none());
    waits
}

/// The targets and all that they need, in the graph's order.
fn wanted(graph: &Graph, targets: &[String]) -> Result<BTreeSet<usize>, Failure> {
    if targets.is_empty() {
        return Ok((0..graph.nodes.len()).collect());
    }
    let mut open = Vec::new();
    for target in targets {
        let found = graph.nodes.iter().position(|node| node.name == *target);
        open.push(found.ok_or_else(|| {
            let names = graph.nodes.iter().map(|node| node.name.as_str());
            Failure::usage(format!("no stage `{target}`"), suggest(target, "stages", names))
        })?);
    }
    let mut wanted = BTreeSet::new();
    while let Some(index) = open.pop() {
        if wanted.insert(index) {
            open.extend(graph.nodes[index].before());
        }
    }
    Ok(wanted)
}

/// Hashes every source that the wanted stages read; all that are missing are reported together.
fn sources(
    graph: &Graph,
    state: &State,
    wanted: &BTreeSet<usize>,
) -> Result<BTreeMap<String, Given>, Failure> {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for index in wanted {
        let node = &graph.nodes[*index];
        for from in node.inputs.values() {
            let Some((pattern, span)) = pattern(graph, node, from) else { continue };
            if found.contains_key(pattern) {
                continue;
            }
            match source::read(state, &graph.dir, pattern) {
                Ok(given) => drop(found.insert(pattern.to_owned(), given)),
                Err(SourceError::Nothing { message, help }) => {
                    let problem = Problem::new("input::missing", span, message);
                    problems.push(problem.label("nothing is here").maybe_help(help));
                }
                Err(SourceError::Index(error)) => return Err(error.into()),
            }
        }
    }
    if problems.is_empty() {
        return Ok(found);
    }
    Err(Problems::new(graph.sources.clone(), problems).into())
}

fn pattern<'a>(
    graph: &'a Graph,
    node: &'a Node,
    from: &'a From,
) -> Option<(&'a str, crate::diagnostic::Span)> {
    match from {
        From::Input(name) => {
            graph.inputs.get(name).map(|input| (input.pattern.as_str(), input.span))
        }
        From::Path(path) => Some((path.strip_prefix("./").unwrap_or(path), node.span)),
        From::Output { .. } | From::Cells { .. } => None,
    }
}

impl Plan {
    /// The verdict on a stage whose inputs are all known.
    pub fn assess(
        &self,
        graph: &Graph,
        state: &State,
        index: usize,
        known: &[Option<BTreeMap<String, Artifact>>],
    ) -> Result<Step, IndexError> {
        let node = &graph.nodes[index];
        let ready = self.ready(graph, state, index, known)?;
        let digest = ready.key.digest();
        let last = self.last_time(state, &node.name)?;
        let verdict = match state.index.get(&digest, &state.store)? {
            Some(result) => Verdict::Hit(result),
            None => Verdict::Stale(self.reasons(state, &node.name, &ready.key)?),
        };
        let hit = matches!(verdict, Verdict::Hit(_));
        tracing::debug!(key = %digest.short(), hit, "judge {}", node.name);
        Ok(Step { verdict, ready: Some(Arc::new(ready)), last })
    }

    fn ready(
        &self,
        graph: &Graph,
        state: &State,
        index: usize,
        known: &[Option<BTreeMap<String, Artifact>>],
    ) -> Result<Ready, IndexError> {
        let node = &graph.nodes[index];
        let mut given = BTreeMap::new();
        for (port, from) in &node.inputs {
            let value = match from {
                From::Output { node, port } => {
                    let artifact = known[*node].as_ref().and_then(|outputs| outputs.get(port));
                    let out = graph.nodes[*node].outputs.iter().find(|out| out.port.name == *port);
                    // The graph ties ports to outputs that exist.
                    let (Some(artifact), Some(out)) = (artifact, out) else { continue };
                    made(state, artifact, out, &graph.dir)?
                }
                From::Cells { nodes, port } => {
                    let made = nodes.iter().map(|(cell, &node)| (cell, node, port.as_str()));
                    match cells(graph, state, made, known)? {
                        Some(given) => given,
                        None => continue,
                    }
                }
                source => {
                    let pattern = pattern(graph, node, source).map(|(pattern, _)| pattern);
                    let Some(found) = pattern.and_then(|p| self.sources.get(p)) else { continue };
                    found.clone()
                }
            };
            given.insert(port.clone(), value);
        }
        let env =
            node.env.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
        let key = ActionKey {
            stage: node.kind.name.into(),
            version: node.kind.version,
            params: node.params.clone(),
            inputs: given.iter().map(|(port, given)| (port.clone(), given.artifact)).collect(),
            item: None,
            seed: node.kind.seeded.then_some(node.seed),
            device: node.kind.device.then(|| self.device.name().to_owned()),
            env: env.collect(),
            secrets: node.secrets.clone(),
        };
        Ok(Ready { key, given })
    }

    fn last_time(&self, state: &State, stage: &str) -> Result<Option<u64>, IndexError> {
        let Some(record) = self.lock.stages.get(stage) else { return Ok(None) };
        Ok(state.index.remembered(&record.key)?.map(|result| result.millis))
    }

    fn reasons(
        &self,
        state: &State,
        stage: &str,
        key: &ActionKey,
    ) -> Result<Vec<String>, IndexError> {
        let Some(record) = self.lock.stages.get(stage) else {
            return Ok(vec!["it has not run yet".into()]);
        };
        let digest = key.digest();
        if record.key == digest {
            let known = state.index.remembered(&digest)?.is_some();
            let why =
                if known { "its outputs are gone from the store" } else { "it has not run here" };
            return Ok(vec![why.into()]);
        }
        Ok(match state.index.key(&record.key)? {
            Some(old) => why::changes(&old, key, &state.store),
            None => vec!["it differs from the lock file".into()],
        })
    }

    /// The device of the run.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Stages that surely run, and all stages that the plan looks at.
    pub fn counts(&self) -> (usize, usize) {
        let steps = self.steps.iter().flatten();
        let stale = steps.clone().filter(|step| matches!(step.verdict, Verdict::Stale(_)));
        (stale.count(), steps.count())
    }
}

/// An output of a stage, as it lies in the store, under the name that its place has.
fn made(state: &State, artifact: &Artifact, out: &Out, dir: &Path) -> Result<Given, IndexError> {
    let name = Path::new(&out.dest).file_name().unwrap_or_default().to_string_lossy();
    let files = state.store.places(artifact, &name)?;
    let tree = matches!(artifact, Artifact::Tree(_));
    Ok(Given {
        artifact: *artifact,
        input: Input { files, tree },
        stamps: Vec::new(),
        shown: Some(dir.join(&out.dest)),
    })
}

/// An output of every cell as one folder: a file or a folder a cell, below the cell's name.
fn cells<'a>(
    graph: &Graph,
    state: &State,
    made: impl Iterator<Item = (&'a String, usize, &'a str)>,
    known: &[Option<BTreeMap<String, Artifact>>],
) -> Result<Option<Given>, IndexError> {
    let mut tree = Tree::default();
    let mut files = BTreeMap::new();
    for (cell, node, port) in made {
        let artifact = known[node].as_ref().and_then(|outputs| outputs.get(port));
        let out = graph.nodes[node].outputs.iter().find(|out| out.port.name == port);
        let (Some(artifact), Some(out)) = (artifact, out) else { return Ok(None) };
        let given = self::made(state, artifact, out, &graph.dir)?;
        let entries = match artifact {
            Artifact::Tree(digest) => state.store.tree(digest)?.entries,
            Artifact::File(digest) => {
                let name = given.input.files.keys().next().cloned().unwrap_or_default();
                let size = fs_err::metadata(state.store.path(digest))?.len();
                BTreeMap::from([(name, Entry { digest: *digest, size, executable: false })])
            }
        };
        let below = |name: String| format!("{cell}/{name}");
        tree.entries.extend(entries.into_iter().map(|(name, entry)| (below(name), entry)));
        files.extend(given.input.files.into_iter().map(|(name, path)| (below(name), path)));
    }
    let artifact = state.store.put_tree(&tree)?;
    Ok(Some(Given {
        artifact,
        input: Input { files, tree: true },
        stamps: Vec::new(),
        shown: None,
    }))
}
