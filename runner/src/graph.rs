//! The DAG: stages in the order in which they can run, each port tied to what feeds it, each output
//! to its place.
//!
//! A [`Graph`] is the last thing that a user's file decides: it is complete and consistent, and
//! nothing after it needs to look at YAML. It does not touch the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quantmill_stages::{Kind, Port};

use crate::diagnostic::{Sources, Span};

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

/// A stage of a pipeline.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub kind: Kind,
    /// Resolved parameters: defaults filled in.
    pub params: serde_json::Value,
    /// What feeds each port.
    pub inputs: BTreeMap<String, From>,
    /// What it makes, in the order of the kind: the first is what `from: stage` means.
    pub outputs: Vec<Out>,
    /// The seed: of the stage, else of the pipeline, else 0.
    pub seed: u64,
    /// Names of environment variables that it may see, sorted.
    pub env: Vec<String>,
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
