//! A graph as Mermaid and as DOT.

use super::{Item, picture};
use crate::graph::Graph;

/// Mermaid, as Markdown renderers draw it.
pub fn mermaid(graph: &Graph) -> String {
    let picture = picture(graph);
    let mut out = String::from("flowchart TD\n");
    // Ids are numbers: a stage may be called `end`, which Mermaid reserves.
    for (i, item) in picture.items.iter().enumerate() {
        out.push_str(&match item {
            Item::Source { name, pattern } if name == pattern => {
                format!("  n{i}([\"{}\"])\n", entity(name))
            }
            Item::Source { name, pattern } => {
                format!("  n{i}([\"{}<br/><small>{}</small>\"])\n", entity(name), entity(pattern))
            }
            Item::Stage { name, kind } if name == kind => format!("  n{i}[\"{name}\"]\n"),
            Item::Stage { name, kind } => format!("  n{i}[\"{name}<br/><small>{kind}</small>\"]\n"),
        });
    }
    for (from, to, _) in &picture.edges {
        out.push_str(&format!("  n{from} --> n{to}\n"));
    }
    out
}

/// Graphviz.
pub fn dot(graph: &Graph) -> String {
    let picture = picture(graph);
    let mut out = String::from("digraph pipeline {\n  node [shape=box, style=rounded];\n");
    for (i, item) in picture.items.iter().enumerate() {
        let (label, shape) = match item {
            Item::Source { name, pattern } if name == pattern => (quote(name), ", style=dashed"),
            Item::Source { name, pattern } => {
                (format!("{}\\n{}", quote(name), quote(pattern)), ", style=dashed")
            }
            Item::Stage { name, kind } if name == kind => (quote(name), ""),
            Item::Stage { name, kind } => (format!("{}\\n{}", quote(name), quote(kind)), ""),
        };
        out.push_str(&format!("  n{i} [label=\"{label}\"{shape}];\n"));
    }
    for (from, to, ports) in &picture.edges {
        out.push_str(&format!("  n{from} -> n{to} [tooltip=\"{}\"];\n", ports.join(", ")));
    }
    out.push_str("}\n");
    out
}

/// Text within a quoted Mermaid label.
fn entity(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}

/// Text within a quoted DOT string.
fn quote(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
