//! [`Plan`]: what a run would do, known without running anything.
//!
//! A plan is exact down to the first stage that must run. What lies behind it is unknown: if its
//! output turns out as before, the rest stays a hit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use quantmill_cache::{ActionKey, ActionResult, Artifact, Digest, Entry, IndexError, Tree};
use quantmill_stages::{Device, Input};

use crate::diagnostic::{Problem, Problems, suggest};
use crate::exit::Failure;
use crate::graph::{From, Graph, Node, Out};
use crate::lock::Lockfile;
use crate::source::{self, Given, SourceError};
use crate::state::State;
use crate::why::{self, Change};

/// What will happen to a stage.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Its outputs are known.
    Hit(Box<ActionResult>),
    /// It runs, for these reasons.
    Stale(Box<[Change]>),
    /// It depends on stages that run: their places in the graph.
    Unknown(Vec<usize>),
}

/// A stage of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// What will happen.
    pub verdict: Verdict,
    /// The digest of its key, where that is known already.
    pub key: Option<Digest>,
}

/// The outputs of a stage by port: of every stage they are kept to the end, and a map of so few would
/// take ten times the room.
#[derive(Debug)]
pub struct Outputs(Box<[(String, Artifact)]>);

impl Outputs {
    /// The output of a port.
    pub fn get(&self, port: &str) -> Option<&Artifact> {
        self.0.iter().find(|(name, _)| name == port).map(|(_, artifact)| artifact)
    }
}

/// A stage whose inputs are all known.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its key.
    pub key: ActionKey,
    /// What feeds each port.
    pub given: BTreeMap<String, Arc<Given>>,
}

/// What a run is to do.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Stages to make with all that they need; empty means all.
    pub targets: Vec<String>,
    /// Make these stages, all that depends on them, and what that needs; no others.
    pub downstream_of: Vec<String>,
    /// Stages to run even where they are hits.
    pub force: Vec<String>,
    /// Run every stage.
    pub force_all: bool,
    /// Where models compute.
    pub device: Device,
}

/// What a run would do, and what it knows already.
#[derive(Debug)]
pub struct Plan {
    /// A step for each of the graph's nodes; `None` where it was not asked for.
    pub steps: Vec<Option<Step>>,
    /// The outputs of each node, once they are known.
    known: Vec<OnceLock<Outputs>>,
    /// Nodes that run even where they are hits.
    again: BTreeSet<usize>,
    /// Source files by their pattern.
    sources: BTreeMap<String, Arc<Given>>,
    device: Device,
    lock: Lockfile,
}

/// Plans what is wished for and everything that it needs.
pub fn plan(graph: &Graph, state: &State, lock: &Lockfile, wish: &Wish) -> Result<Plan, Failure> {
    let wanted = wanted(graph, wish)?;
    let mut again: BTreeSet<usize> = named(graph, &wish.force)?.into_iter().collect();
    again.extend(wanted.iter().filter(|&&i| wish.force_all || graph.nodes[i].always));
    let mut plan = Plan {
        steps: vec![None; graph.nodes.len()],
        known: (0..graph.nodes.len()).map(|_| OnceLock::new()).collect(),
        again,
        sources: sources(graph, state, &wanted)?,
        device: wish.device,
        lock: lock.clone(),
    };
    let mut problems = Vec::new();
    for index in wanted {
        let node = &graph.nodes[index];
        let mut waits = node.before();
        waits.retain(|before| plan.known[*before].get().is_none());
        let step = if node.frozen {
            match plan.frozen(state, node)? {
                Some(step) => step,
                None => {
                    problems.push(never(node));
                    continue;
                }
            }
        } else if waits.is_empty() {
            plan.assess(graph, state, index)?
        } else {
            Step { verdict: Verdict::Unknown(waits), key: None }
        };
        if let Verdict::Hit(result) = &step.verdict {
            plan.know(index, &result.outputs);
        }
        plan.steps[index] = Some(step);
    }
    match problems.is_empty() {
        true => Ok(plan),
        false => Err(Problems::new(graph.sources.clone(), problems).into()),
    }
}

fn never(node: &Node) -> Problem {
    let message = format!("`{}` is frozen, and what it once gave is not here", node.name);
    let problem = Problem::new("plan::frozen", node.span, message);
    problem.help("run it once without `frozen: true`")
}

/// The nodes of stages, or of single cells, by name.
fn named(graph: &Graph, names: &[String]) -> Result<Vec<usize>, Failure> {
    let mut found = Vec::new();
    for name in names {
        let before = found.len();
        let nodes = graph.nodes.iter().enumerate();
        let fits = nodes.filter(|(_, node)| node.name == *name || node.base == *name);
        found.extend(fits.map(|(index, _)| index));
        if found.len() == before {
            let names = graph.nodes.iter().flat_map(|node| [node.name.as_str(), &node.base]);
            let help = suggest(name, "stages", names);
            return Err(Failure::usage(format!("no stage `{name}`"), help));
        }
    }
    Ok(found)
}

/// What is wished for and all that it needs, in the graph's order.
fn wanted(graph: &Graph, wish: &Wish) -> Result<BTreeSet<usize>, Failure> {
    let mut open = named(graph, &wish.targets)?;
    let mut below: BTreeSet<usize> = named(graph, &wish.downstream_of)?.into_iter().collect();
    for (index, node) in graph.nodes.iter().enumerate() {
        if node.before().iter().any(|before| below.contains(before)) {
            below.insert(index);
        }
    }
    if !wish.downstream_of.is_empty() {
        open.retain(|index| below.contains(index));
        if wish.targets.is_empty() {
            open.extend(below);
        } else if open.is_empty() {
            let message = "no target depends on what `--downstream-of` names";
            return Err(Failure::usage(message, Some("leave out one of the two".into())));
        }
    } else if wish.targets.is_empty() {
        return Ok((0..graph.nodes.len()).collect());
    }
    let mut wanted = BTreeSet::new();
    while let Some(index) = open.pop() {
        if wanted.insert(index) && !graph.nodes[index].frozen {
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
) -> Result<BTreeMap<String, Arc<Given>>, Failure> {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for node in wanted.iter().map(|index| &graph.nodes[*index]).filter(|node| !node.frozen) {
        for (_, from) in &node.inputs {
            let Some((pattern, span)) = pattern(graph, node, from) else { continue };
            if found.contains_key(pattern) {
                continue;
            }
            match source::read(state, &graph.dir, pattern) {
                Ok(given) => drop(found.insert(pattern.to_owned(), Arc::new(given))),
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

/// The path or glob that feeds a port, where no stage does.
pub fn pattern<'a>(
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
    /// Notes what a node gave.
    pub fn know(&self, index: usize, outputs: &BTreeMap<String, Artifact>) {
        let outputs = outputs.iter().map(|(port, artifact)| (port.clone(), *artifact));
        // Whoever said it first said the same.
        let _ = self.known[index].set(Outputs(outputs.collect()));
    }

    /// The outputs of a node, once they are known.
    pub fn outputs(&self, index: usize) -> Option<&Outputs> {
        self.known[index].get()
    }

    /// All source files that the plan reads.
    pub fn sources(&self) -> impl Iterator<Item = &Given> {
        self.sources.values().map(Arc::as_ref)
    }

    /// Whether the node runs even where it is a hit.
    pub fn again(&self, index: usize) -> bool {
        self.again.contains(&index)
    }

    /// The key that the stage last had.
    pub fn last_key(&self, stage: &str) -> Option<Digest> {
        self.lock.key(stage)
    }

    /// The verdict on a stage whose inputs are all known.
    pub fn assess(&self, graph: &Graph, state: &State, index: usize) -> Result<Step, IndexError> {
        let node = &graph.nodes[index];
        let digest = self.key(graph, state, index)?.digest();
        let verdict = if self.again(index) {
            let why = if node.always { "it always runs" } else { "it was asked to" };
            Verdict::Stale([why.into()].into())
        } else {
            match state.index.get(&digest, &state.store)? {
                Some(result) if node.takes(&result) => Verdict::Hit(result.into()),
                Some(_) => {
                    Verdict::Stale(["it has not run under `sandbox: strict` yet".into()].into())
                }
                None => match heal(graph, state, node, &digest)? {
                    Some(result) => Verdict::Hit(result.into()),
                    None => {
                        let ready = self.ready(graph, state, index)?;
                        Verdict::Stale(why::reasons(state, &self.lock, &node.name, &ready)?.into())
                    }
                },
            }
        };
        let hit = matches!(verdict, Verdict::Hit(_));
        tracing::debug!(key = %digest.short(), hit, "judge {}", node.name);
        Ok(Step { verdict, key: Some(digest) })
    }

    /// What a frozen stage last gave, if that is still there.
    fn frozen(&self, state: &State, node: &Node) -> Result<Option<Step>, IndexError> {
        let Some(last) = self.last_key(&node.name) else { return Ok(None) };
        let Some(result) = state.index.get(&last, &state.store)? else { return Ok(None) };
        Ok(Some(Step { verdict: Verdict::Hit(result.into()), key: Some(last) }))
    }

    /// The key of a stage, as far as what feeds it is known; of a frozen one the key that it last had.
    pub fn key(&self, graph: &Graph, state: &State, index: usize) -> Result<ActionKey, IndexError> {
        let node = &graph.nodes[index];
        if let (true, Some(last)) = (node.frozen, self.last_key(&node.name))
            && let Some(key) = state.index.key(&last)?
        {
            return Ok(key);
        }
        let mut inputs = BTreeMap::new();
        for (port, from) in &node.inputs {
            let artifact = match from {
                From::Output { node, port } => {
                    self.outputs(*node).and_then(|outputs| outputs.get(port)).copied()
                }
                From::Cells { nodes, port } => {
                    self.cells(graph, state, nodes, port)?.map(|given| given.artifact)
                }
                source => self.source(graph, node, source).map(|given| given.artifact),
            };
            inputs.extend(artifact.map(|artifact| (port.clone(), artifact)));
        }
        Ok(self.key_of(node, inputs))
    }

    fn key_of(&self, node: &Node, inputs: BTreeMap<String, Artifact>) -> ActionKey {
        let env =
            node.env.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
        ActionKey {
            stage: node.kind.name.into(),
            version: node.kind.version,
            params: node.params(),
            inputs,
            item: None,
            seed: node.kind.seeded.then_some(node.seed),
            device: node.kind.device.then(|| self.device.name().to_owned()),
            env: env.collect(),
            secrets: node.secrets.clone(),
        }
    }

    /// The source files that feed a port, where no stage does and the plan reads them.
    pub fn source(&self, graph: &Graph, node: &Node, from: &From) -> Option<&Arc<Given>> {
        self.sources.get(pattern(graph, node, from)?.0)
    }

    /// The key of a stage and what feeds it, as far as that is known.
    pub fn ready(&self, graph: &Graph, state: &State, index: usize) -> Result<Ready, IndexError> {
        let node = &graph.nodes[index];
        let mut given = BTreeMap::new();
        for (port, from) in &node.inputs {
            let value = match from {
                From::Output { node, port } => {
                    let artifact = self.known[*node].get().and_then(|outputs| outputs.get(port));
                    let out = graph.nodes[*node].outputs.iter().find(|out| out.port.name == *port);
                    // The graph ties ports to outputs that exist.
                    let (Some(artifact), Some(out)) = (artifact, out) else { continue };
                    Arc::new(made(state, artifact, out, &graph.dir)?)
                }
                From::Cells { nodes, port } => match self.cells(graph, state, nodes, port)? {
                    Some(given) => Arc::new(given),
                    None => continue,
                },
                source => match self.source(graph, node, source) {
                    Some(found) => Arc::clone(found),
                    None => continue,
                },
            };
            given.insert(port.clone(), value);
        }
        let inputs = given.iter().map(|(port, given)| (port.clone(), given.artifact)).collect();
        Ok(Ready { key: self.key_of(node, inputs), given })
    }

    /// An output of every cell as one folder: a file or a folder a cell, below the cell's name.
    fn cells(
        &self,
        graph: &Graph,
        state: &State,
        nodes: &BTreeMap<String, usize>,
        port: &str,
    ) -> Result<Option<Given>, IndexError> {
        let mut tree = Tree::default();
        let mut files = BTreeMap::new();
        for (cell, &node) in nodes {
            let artifact = self.known[node].get().and_then(|outputs| outputs.get(port));
            let out = graph.nodes[node].outputs.iter().find(|out| out.port.name == port);
            let (Some(artifact), Some(out)) = (artifact, out) else { return Ok(None) };
            let given = made(state, artifact, out, &graph.dir)?;
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
            let named = given.input.files.iter();
            files.extend(named.map(|(name, path)| (below(name.clone()), path.clone())));
        }
        let artifact = state.store.put_tree(&tree)?;
        let input = Input { files: files.into(), tree: true };
        Ok(Some(Given::stored(artifact, input, None)))
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
    Ok(Given::stored(*artifact, Input { files: files.into(), tree }, Some(dir.join(&out.dest))))
}

/// What the action gave where the store has lost it and the workspace still has it.
fn heal(
    graph: &Graph,
    state: &State,
    node: &Node,
    key: &Digest,
) -> Result<Option<ActionResult>, IndexError> {
    let result = state.index.remembered(key)?.filter(|result| node.takes(result));
    let Some(result) = result else { return Ok(None) };
    for (port, artifact) in &result.outputs {
        let out = node.outputs.iter().find(|out| out.port.name == *port);
        let Some(place) = out.map(|out| graph.dir.join(&out.dest)) else { return Ok(None) };
        if !state.store.holds(artifact) && !state.store.recover(artifact, &place)? {
            return Ok(None);
        }
    }
    tracing::debug!(key = %key.short(), "the store has {} from the workspace again", node.name);
    Ok(Some(result))
}
