//! An order in which stages can run, or the circle that forbids one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use petgraph::graph::{DiGraph, NodeIndex};

use super::Wire;
use crate::diagnostic::Problem;
use crate::spec::StageSpec;

/// Places in the file, each after what feeds it; among the ready in the order of the file. Circles
/// are reported, and what they hold up is left out.
pub(crate) fn topological(
    stages: &[StageSpec],
    wires: &[Vec<Wire>],
    problems: &mut Vec<Problem>,
) -> Vec<usize> {
    let mut feeds: Vec<Vec<usize>> = vec![Vec::new(); stages.len()];
    let mut waits = vec![0usize; stages.len()];
    for (stage, wires) in wires.iter().enumerate() {
        for before in wires.iter().flat_map(|wire| wire.fed.stages()) {
            feeds[before].push(stage);
            waits[stage] += 1;
        }
    }
    let ready = (0..stages.len()).filter(|&i| waits[i] == 0).map(Reverse);
    let mut ready: BinaryHeap<_> = ready.collect();
    let mut order = Vec::with_capacity(stages.len());
    while let Some(Reverse(stage)) = ready.pop() {
        order.push(stage);
        for &next in &feeds[stage] {
            waits[next] -= 1;
            if waits[next] == 0 {
                ready.push(Reverse(next));
            }
        }
    }
    if order.len() < stages.len() {
        circles(stages, wires, &feeds, problems);
    }
    order
}

/// One problem for each group of stages that wait for one another.
fn circles(
    stages: &[StageSpec],
    wires: &[Vec<Wire>],
    feeds: &[Vec<usize>],
    problems: &mut Vec<Problem>,
) {
    let mut dag: DiGraph<(), ()> = DiGraph::new();
    let ids: Vec<NodeIndex> = stages.iter().map(|_| dag.add_node(())).collect();
    for (stage, next) in feeds.iter().enumerate() {
        for &next in next {
            dag.add_edge(ids[stage], ids[next], ());
        }
    }
    // Kosaraju's, because petgraph's Tarjan recurses and a long chain would overflow the stack.
    for group in petgraph::algo::kosaraju_scc(&dag) {
        if group.len() == 1 && group.iter().all(|&id| !dag.contains_edge(id, id)) {
            continue;
        }
        let mut member = vec![false; stages.len()];
        group.iter().for_each(|id| member[id.index()] = true);
        let Some(first) = group.iter().map(|id| id.index()).min() else { continue };
        let Some(circle) = shortest(first, feeds, &member) else { continue };
        let names: Vec<&str> = circle.iter().map(|&i| stages[i].name.name.as_str()).collect();
        let message = format!("stages wait for each other: {}", names.join(" -> "));
        let mut places = circle.windows(2).filter_map(|pair| {
            let (before, after) = (pair[0], pair[1]);
            let wire = wires[after].iter().find(|wire| wire.fed.stages().any(|s| s == before));
            let label =
                format!("`{}` feeds `{}`", stages[before].name.name, stages[after].name.name);
            wire.map(|wire| (wire.span, label))
        });
        let Some((span, label)) = places.next() else { continue };
        let problem = Problem::new("graph::cycle", span, message).label(label);
        let problem = places.fold(problem, |problem, (span, label)| problem.also(span, label));
        problems.push(problem.help("cut one of these"));
    }
}

/// The shortest way from a stage back to itself within a group.
fn shortest(first: usize, feeds: &[Vec<usize>], member: &[bool]) -> Option<Vec<usize>> {
    let mut came: Vec<Option<usize>> = vec![None; feeds.len()];
    let mut queue = VecDeque::from([first]);
    while let Some(at) = queue.pop_front() {
        for &next in feeds[at].iter().filter(|&&next| member[next]) {
            if next == first {
                let mut circle = vec![first];
                let mut back = at;
                while back != first {
                    circle.push(back);
                    back = came[back]?;
                }
                circle.push(first);
                circle.reverse();
                return Some(circle);
            }
            if came[next].is_none() {
                came[next] = Some(at);
                queue.push_back(next);
            }
        }
    }
    None
}
