//! The engine: YAML to Spec, Graph, Plan, Run, Lock.

pub mod diagnostic;
pub mod graph;
