//! Pictures of a graph: text for a terminal, SVG for a page, Mermaid and DOT for other tools.

pub mod markup;
pub mod svg;
pub mod text;

mod layout;

use std::collections::BTreeMap;

use crate::graph::{From, Graph};

/// Something that is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item<'a> {
    /// A source file: its name in `inputs`, or its path, and what it stands for.
    Source { name: &'a str, pattern: &'a str },
    /// A stage and its kind.
    Stage { name: &'a str, kind: &'a str },
}

/// Sources, then stages in order, and who feeds whom: each pair once, with the ports it joins.
struct Picture<'a> {
    items: Vec<Item<'a>>,
    edges: Vec<(usize, usize, Vec<&'a str>)>,
}

fn picture(graph: &Graph) -> Picture<'_> {
    let mut items: Vec<Item> = Vec::new();
    let mut sources: BTreeMap<&From, usize> = BTreeMap::new();
    for from in graph.nodes.iter().flat_map(|node| node.inputs.values()) {
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
    let first = items.len();
    items.extend(
        graph.nodes.iter().map(|node| Item::Stage { name: &node.name, kind: node.kind.name }),
    );
    let mut edges: Vec<(usize, usize, Vec<&str>)> = Vec::new();
    for (to, node) in graph.nodes.iter().enumerate() {
        let start = edges.len();
        for (port, from) in &node.inputs {
            let stages = from.nodes().map(|node| first + node);
            for from in stages.chain(sources.get(from).copied()) {
                match edges[start..].iter_mut().find(|edge| edge.0 == from) {
                    Some(edge) => edge.2.push(port),
                    None => edges.push((from, first + to, vec![port])),
                }
            }
        }
    }
    Picture { items, edges }
}
