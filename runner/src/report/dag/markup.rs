//! A graph as Mermaid and as DOT.

use super::{Item, View, picture};

/// Mermaid, as Markdown renderers draw it.
pub fn mermaid(view: &View) -> String {
    let picture = picture(view);
    let mut out = String::from("flowchart TD\n");
    // Ids are numbers: a stage may be called `end`, which Mermaid reserves.
    for (i, item) in picture.items.iter().enumerate() {
        let mut label = entity(item.name());
        if let Some(second) = item.second() {
            label.push_str(&format!("<br/><small>{}</small>", entity(&second)));
        }
        out.push_str(&match item {
            Item::Source { .. } => format!("  n{i}([\"{label}\"])\n"),
            Item::Stage { status: None, .. } => format!("  n{i}[\"{label}\"]\n"),
            Item::Stage { status: Some(status), .. } => {
                format!("  n{i}[\"{label}\"]:::{}\n", status.word())
            }
        });
    }
    for (from, to, _) in &picture.edges {
        out.push_str(&format!("  n{from} --> n{to}\n"));
    }
    if view.plan.is_some() {
        out.push_str(
            "  classDef hit fill:#e6f4ea,stroke:#3f8f5b,color:#12351f\n  \
             classDef run fill:#fff1d6,stroke:#b7791f,color:#4a2f00\n  \
             classDef unknown fill:#e8eefb,stroke:#5b7aa6,stroke-dasharray:4 3,color:#1c2b45\n",
        );
    }
    out
}

/// Graphviz.
pub fn dot(view: &View) -> String {
    let picture = picture(view);
    let mut out = String::from("digraph pipeline {\n  node [shape=box, style=rounded];\n");
    for (i, item) in picture.items.iter().enumerate() {
        let mut label = quote(item.name());
        if let Some(second) = item.second() {
            label.push_str(&format!("\\n{}", quote(&second)));
        }
        let look = match (item, item.status().map(|status| status.word())) {
            (Item::Source { .. }, _) => ", style=dashed",
            (_, None) => "",
            (_, Some("hit")) => ", style=\"rounded,filled\", fillcolor=\"#e6f4ea\"",
            (_, Some("run")) => ", style=\"rounded,filled,bold\", fillcolor=\"#fff1d6\"",
            (_, Some(_)) => ", style=\"rounded,filled,dashed\", fillcolor=\"#e8eefb\"",
        };
        out.push_str(&format!("  n{i} [label=\"{label}\"{look}];\n"));
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
