//! The DAG: stages in the order in which they can run, each port tied to what feeds it, each output
//! to its place.
//!
//! A [`Graph`] is the last thing that a user's file decides: it is complete and consistent, and
//! nothing after it needs to look at YAML. It does not touch the disk.

mod left_out;
mod order;
mod places;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use quantmill_cache::ActionResult;
use quantmill_stages::{Items, Kind, Port, Sandbox, Settled};
use serde_json::Value as Json;

use crate::diagnostic::{Problem, Problems, Severity, Sources, Span, suggest};
use crate::params;
use crate::spec::{Spec, StageSpec, Text};
use wire::{Fed, Names, Wire};

/// A checked pipeline.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The pipeline file, for diagnostics that come later.
    pub sources: Sources,
    /// The pipeline's folder: what all relative paths start from.
    pub dir: PathBuf,
    /// Source files by name.
    pub inputs: BTreeMap<String, InputSpec>,
    /// Stages, each after those that feed it; among the ready in the order of the file.
    pub nodes: Vec<Node>,
    /// An edge from each node to those that it feeds. Its weights are places in `nodes`, equal to
    /// its own node indices.
    pub dag: petgraph::graph::DiGraph<usize, ()>,
    /// What its writer may not have meant.
    pub warnings: Vec<Problem>,
}

/// A source file, folder or glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// Its name in `inputs`.
    pub name: String,
    /// Path or glob, relative to the pipeline's folder.
    pub pattern: String,
    /// The pattern in the file.
    pub span: Span,
}

/// What a stage needs of the machine while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Processors.
    pub cpu: u32,
    /// GPUs.
    pub gpu: u32,
    /// Bytes of memory.
    pub memory: u64,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { cpu: 1, gpu: 0, memory: 0 }
    }
}

/// A stage of a pipeline; of a stage with a matrix, one of its cells.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name: that of the file, and of a cell `name@axis=value,...`.
    pub name: String,
    /// Its name in the file.
    pub base: String,
    /// Its value on each axis of the matrix, spelt out, by the axis' name.
    pub cell: BTreeMap<String, String>,
    /// What it runs.
    pub kind: Kind,
    /// Resolved parameters, defaults filled in, as JSON: the text takes a tenth of the room.
    params: Box<str>,
    /// What feeds each port, in the order of the ports' names.
    pub inputs: Vec<(String, From)>,
    /// What it makes, in the order of the kind: the first is what `from: stage` means.
    pub outputs: Vec<Out>,
    /// The seed: of the stage, else of the pipeline, else 0.
    pub seed: u64,
    /// Names of environment variables that it may see, sorted.
    pub env: Vec<String>,
    /// Names of secrets that it may see, sorted.
    pub secrets: Vec<String>,
    /// What it maps over: each file is an action of its own.
    pub items: Option<Items>,
    /// It keeps what it gave last, whatever its inputs are now.
    pub frozen: bool,
    /// It runs in every run.
    pub always: bool,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// How long an action of it may take.
    pub timeout: Option<Duration>,
    /// What it needs of the machine.
    pub needs: Needs,
    /// The most time that it needs, as its writer says.
    pub time: Option<Duration>,
    /// How far it is kept to what it declares.
    pub sandbox: Sandbox,
    /// Its name in the file.
    pub span: Span,
}

/// What feeds a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// A named input.
    Input(String),
    /// A file or folder, relative to the pipeline's folder; begins with `./`.
    Path(String),
    /// An output of another stage.
    Output {
        /// Its place in `Graph::nodes`.
        node: usize,
        /// Its port.
        port: String,
    },
    /// An output of every cell of a stage: a folder with one entry a cell, named like the cell.
    Cells {
        /// Places in `Graph::nodes` by the cells' names.
        nodes: BTreeMap<String, usize>,
        /// The port.
        port: String,
    },
}

impl From {
    /// The stages that feed it.
    pub fn nodes(&self) -> impl Iterator<Item = usize> {
        let (one, many) = match self {
            From::Output { node, .. } => (Some(*node), None),
            From::Cells { nodes, .. } => (None, Some(nodes.values().copied())),
            _ => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

impl Node {
    /// Whether a result with its key may stand for it: what is to be confined is judged again where
    /// the result came about without.
    pub fn takes(&self, result: &ActionResult) -> bool {
        result.confined || !self.kind.named || self.sandbox != Sandbox::Strict
    }

    /// Resolved parameters: defaults filled in.
    pub fn params(&self) -> Json {
        // It was written by the same library.
        serde_json::from_str(&self.params).unwrap_or_default()
    }

    /// What feeds a port.
    pub fn input(&self, port: &str) -> Option<&From> {
        self.inputs.iter().find(|(name, _)| name == port).map(|(_, from)| from)
    }

    /// The stages that feed it, each once, in order.
    pub fn before(&self) -> Vec<usize> {
        let mut before: Vec<usize> =
            self.inputs.iter().flat_map(|(_, from)| from.nodes()).collect();
        before.sort_unstable();
        before.dedup();
        before
    }
}

/// An output and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// The port.
    pub port: Port,
    /// Where it goes, relative to the pipeline's folder: `out/<stage>/<port.path>`, or what `to`
    /// says; for a `command` the path that it names.
    pub dest: PathBuf,
}

/// Ties a [`Spec`] together. All problems come back at once, those of the spec among them.
pub fn build(spec: Spec, kinds: &[Kind]) -> Result<Graph, Problems> {
    let Spec { sources, dir, seed, sandbox, mut inputs, stages, mut problems } = spec;
    let known = know(&stages, kinds, &sources, &mut problems);
    let names = Names::new(&inputs, &stages, &known);
    let mut wires: Vec<Vec<Wire>> = (stages.iter().zip(&known))
        .map(|(stage, known)| wire::stage(stage, known.as_ref(), &names, &mut problems))
        .collect();
    drop(names);
    let mut outs: Vec<Vec<(Out, Span)>> = (stages.iter().zip(&known))
        .map(|(stage, known)| places::outputs(stage, known.as_ref(), &sources, &mut problems))
        .collect();
    let mut order = order::topological(&stages, &wires, &mut problems);
    unread(&inputs, &wires, &sources, &mut problems);
    let gone = left_out::leave_out(&stages, &order, &mut wires, &mut inputs, &mut problems);
    order.retain(|&stage| !gone[stage]);
    for (outs, _) in outs.iter_mut().zip(&gone).filter(|(_, gone)| **gone) {
        outs.clear();
    }
    places::conflicts(&stages, &outs, &inputs, &wires, &mut problems);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        // What seems to be unused may be what a mistake hides.
        problems.retain(|p| p.severity == Severity::Error || !p.code.ends_with("::unused"));
        // The program ends with this: to take thousands of stages apart first is time lost.
        std::mem::forget((stages, known, wires, outs));
        return Err(Problems::new(sources, problems));
    }
    let mut place = vec![0; stages.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old] = new;
    }
    let mut nodes: Vec<Option<Node>> = Vec::new();
    nodes.resize_with(order.len(), || None);
    let parts = stages.into_iter().zip(known).zip(wires.into_iter().zip(outs));
    for (old, ((stage, known), (wires, outs))) in parts.enumerate() {
        if let (false, Some(known)) = (gone[old], known) {
            nodes[place[old]] = Some(node(stage, known, wires, outs, (seed, sandbox), &place));
        }
    }
    // Every place has one. (`flatten` would take a second list as long.)
    let nodes: Vec<Node> = nodes.into_iter().map_while(|node| node).collect();
    let inputs = inputs.into_iter().map(|input| (input.name.clone(), input)).collect();
    let dag = dag(&nodes);
    Ok(Graph { sources, dir, inputs, nodes, dag, warnings: problems })
}

/// What is known of a stage whose kind exists and whose parameters can be read.
pub(crate) struct Known {
    kind: Kind,
    params: Box<str>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    items: Option<Items>,
}

fn know(
    stages: &[StageSpec],
    kinds: &[Kind],
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Vec<Option<Known>> {
    let mut schemas = params::Schemas::new(kinds);
    let mut know = |stage: &StageSpec| {
        let uses = stage.uses.as_ref()?;
        let Some(&kind) = kinds.iter().find(|kind| kind.name == uses.text) else {
            let message = format!("unknown stage kind `{}`", uses.text);
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
            let problem = Problem::new("graph::unknown_kind", uses.span, message);
            let help = suggest(&uses.text, "stage kinds", names);
            problems.push(problem.label("no such kind").maybe_help(help));
            return None;
        };
        let schema = schemas.of(kind.name)?;
        if stage.unclear {
            return None;
        }
        let Settled { params, inputs, outputs, items } =
            params::resolve(&kind, schema, stage, sources, problems)?;
        Some(Known { kind, params: params.to_string().into(), inputs, outputs, items })
    };
    stages.iter().map(&mut know).collect()
}

/// Warns of inputs that nothing reads; those of an included file may be meant for others.
fn unread(
    inputs: &[InputSpec],
    wires: &[Vec<Wire>],
    sources: &Sources,
    problems: &mut Vec<Problem>,
) {
    let fed = wires.iter().flatten().filter_map(|wire| match &wire.fed {
        Fed::Input(name) => Some(name.as_str()),
        _ => None,
    });
    let fed: BTreeSet<&str> = fed.collect();
    for input in inputs.iter().filter(|input| !fed.contains(input.name.as_str())) {
        if sources.is_own(input.span) {
            let message = format!("nothing reads the input `{}`", input.name);
            let problem = Problem::warning("input::unused", input.span, message);
            problems.push(
                problem.help(format!(
                    "feed it to a stage, as `from: {}`, or leave it out",
                    input.name
                )),
            );
        }
    }
}

fn node(
    stage: StageSpec,
    known: Known,
    wires: Vec<Wire>,
    outputs: Vec<(Out, Span)>,
    (seed, sandbox): (u64, Sandbox),
    place: &[usize],
) -> Node {
    let mut inputs: Vec<(String, From)> = Vec::with_capacity(wires.len());
    for wire in wires {
        let from = match wire.fed {
            Fed::Input(name) => From::Input(name),
            Fed::Path(path) => From::Path(path),
            Fed::Stage { stage, port } => From::Output { node: place[stage], port },
            Fed::Cells { stages, port } => {
                let nodes = stages.into_iter().map(|(cell, stage)| (cell, place[stage]));
                From::Cells { nodes: nodes.collect(), port }
            }
        };
        inputs.push((wire.port, from));
    }
    inputs.sort_by(|a, b| a.0.cmp(&b.0));
    let items = match stage.map {
        Some(_) => Some(Items::of(wire::ITEM)),
        None => known.items,
    };
    let cell = stage.cell.iter().map(|bound| (bound.axis.clone(), bound.label.clone()));
    Node {
        inputs,
        base: stage.base,
        name: stage.name.name,
        cell: cell.collect(),
        kind: known.kind,
        params: known.params,
        outputs: outputs.into_iter().map(|(out, _)| out).collect(),
        seed: stage.seed.unwrap_or(seed),
        env: sorted(stage.env),
        secrets: sorted(stage.secrets),
        items,
        frozen: stage.frozen,
        always: stage.always,
        retries: stage.retries,
        timeout: stage.timeout,
        needs: stage.needs,
        time: stage.time,
        sandbox: stage.sandbox.unwrap_or(sandbox),
        span: stage.name.span,
    }
}

/// Each name once, in order.
fn sorted(names: Vec<Text>) -> Vec<String> {
    let names: BTreeSet<String> = names.into_iter().map(|name| name.text).collect();
    names.into_iter().collect()
}

fn dag(nodes: &[Node]) -> petgraph::graph::DiGraph<usize, ()> {
    let mut dag = petgraph::graph::DiGraph::with_capacity(nodes.len(), nodes.len());
    let ids: Vec<_> = (0..nodes.len()).map(|i| dag.add_node(i)).collect();
    for (i, node) in nodes.iter().enumerate() {
        for b in node.before() {
            dag.add_edge(ids[b], ids[i], ());
        }
    }
    dag
}
