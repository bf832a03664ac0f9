//! The engine: YAML to Spec, Graph, Plan, Run, Lock.

pub mod diagnostic;
pub mod graph;
pub mod params;
pub mod set;
pub mod spec;
pub mod vars;
pub mod yaml;
