//! Tests across modules of quantmill-stages, in one binary.
// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod evaluate;
mod extract;
