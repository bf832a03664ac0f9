//! The binary `quantmill`.
fn main() {}
