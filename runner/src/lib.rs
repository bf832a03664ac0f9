//! The engine: YAML to Spec, Graph, Plan, Run, Lock.
