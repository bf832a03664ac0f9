//! Pictures of a graph: text for a terminal, SVG for a page, Mermaid and DOT for other tools.

pub mod markup;
pub mod svg;
pub mod text;

mod layout;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::graph::{From, Graph};
use crate::plan::{Plan, Verdict};

/// What is drawn, and how.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The pipeline.
    pub graph: &'a Graph,
    /// Marks each stage with what a run would do.
    pub plan: Option<&'a Plan>,
    /// Draws each cell of a matrix by itself rather than all as one.
    pub cells: bool,
}

/// What a run would do with the stages that an item stands for: how many are hits, run, and wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    hit: usize,
    run: usize,
    unknown: usize,
}

impl Status {
    /// What counts most, as one word.
    fn word(self) -> &'static str {
        match self {
            Status { run: 1.., .. } => "run",
            Status { unknown: 1.., .. } => "unknown",
            _ => "hit",
        }
    }

    /// All of it: colour is never the only carrier.
    fn said(self) -> String {
        let parts = [(self.run, "run"), (self.unknown, "unknown"), (self.hit, "hit")];
        let parts: Vec<_> = parts.into_iter().filter(|(n, _)| *n > 0).collect();
        match parts.as_slice() {
            [(_, word)] => (*word).to_owned(),
            parts => {
                parts.iter().map(|(n, word)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// Something that is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item<'a> {
    /// A source file: its name in `inputs`, or its path, and what it stands for.
    Source { name: &'a str, pattern: &'a str },
    /// A stage, or all cells of one, and its kind.
    Stage { name: Cow<'a, str>, kind: &'a str, status: Option<Status> },
}

impl Item<'_> {
    fn name(&self) -> &str {
        match self {
            Item::Source { name, .. } => name,
            Item::Stage { name, .. } => name,
        }
    }

    /// What stands below the name, if anything: what a source is, or a stage's kind and status.
    fn second(&self) -> Option<String> {
        match self {
            Item::Source { name, pattern } => (name != pattern).then(|| (*pattern).to_owned()),
            Item::Stage { name, kind, status } => {
                let kind = (name != kind).then(|| (*kind).to_owned());
                let parts = [kind, status.map(Status::said)];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                (!parts.is_empty()).then(|| parts.join(" · "))
            }
        }
    }

    fn status(&self) -> Option<Status> {
        match self {
            Item::Source { .. } => None,
            Item::Stage { status, .. } => *status,
        }
    }
}

/// Sources, then stages in order, and who feeds whom: each pair once, with the ports it joins.
struct Picture<'a> {
    items: Vec<Item<'a>>,
    edges: Vec<(usize, usize, Vec<&'a str>)>,
}

fn picture<'a>(view: &View<'a>) -> Picture<'a> {
    let graph = view.graph;
    let mut items: Vec<Item> = Vec::new();
    let mut sources: BTreeMap<&From, usize> = BTreeMap::new();
    for from in graph.nodes.iter().flat_map(|node| node.inputs.iter().map(|(_, from)| from)) {
        let item = match from {
            From::Input(name) => {
                let pattern = graph.inputs.get(name).map_or("", |input| input.pattern.as_str());
                Item::Source { name, pattern }
            }
            From::Path(path) => Item::Source { name: path, pattern: path },
            From::Output { .. } | From::Cells { .. } => continue,
        };
        sources.entry(from).or_insert_with(|| {
            items.push(item);
            items.len() - 1
        });
    }
    let groups = groups(view);
    let first = items.len();
    let mut place = vec![0; graph.nodes.len()];
    for (at, group) in groups.iter().enumerate() {
        let node = &graph.nodes[group[0]];
        let name = match group.len() {
            1 => Cow::Borrowed(node.name.as_str()),
            n => Cow::Owned(format!("{} ×{n}", node.base)),
        };
        items.push(Item::Stage { name, kind: node.kind.name, status: status(view, group) });
        group.iter().for_each(|&index| place[index] = first + at);
    }
    let mut edges: Vec<(usize, usize, Vec<&str>)> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let to = first + at;
        let mut into: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        let mut order = Vec::new();
        for (port, from) in group.iter().flat_map(|&index| &graph.nodes[index].inputs) {
            let stages = from.nodes().map(|node| place[node]);
            for from in stages.chain(sources.get(from).copied()) {
                let ports = into.entry(from).or_insert_with(|| {
                    order.push(from);
                    Vec::new()
                });
                if !ports.contains(&port.as_str()) {
                    ports.push(port);
                }
            }
        }
        edges.extend(
            order.into_iter().map(|from| (from, to, into.remove(&from).unwrap_or_default())),
        );
    }
    Picture { items, edges }
}

/// The nodes of each stage, each stage after those that feed it.
fn groups(view: &View) -> Vec<Vec<usize>> {
    let nodes = &view.graph.nodes;
    if view.cells {
        return (0..nodes.len()).map(|index| vec![index]).collect();
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut of = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let group = *known.entry(&node.base).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(index);
        of.push(group);
    }
    let edges = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.before().into_iter().map(move |before| (before, index)));
    let edges: Vec<(usize, usize)> =
        edges.map(|(a, b)| (of[a], of[b])).filter(|(a, b)| a != b).collect();
    if edges.iter().all(|(a, b)| a < b) {
        return groups;
    }
    // A cell that lacks an optional input may come before what feeds the others.
    let mut depth = vec![0; groups.len()];
    for _ in 0..groups.len() {
        for &(a, b) in &edges {
            depth[b] = depth[b].max(depth[a] + 1);
        }
    }
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&group| depth[group]);
    order.into_iter().map(|group| std::mem::take(&mut groups[group])).collect()
}

fn status(view: &View, group: &[usize]) -> Option<Status> {
    let plan = view.plan?;
    let mut status = Status::default();
    for step in group.iter().filter_map(|&index| plan.steps[index].as_ref()) {
        match step.verdict {
            Verdict::Hit(_) => status.hit += 1,
            Verdict::Stale(_) => status.run += 1,
            Verdict::Unknown(_) => status.unknown += 1,
        }
    }
    Some(status)
}
