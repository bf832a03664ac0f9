//! Tests across modules of quantmill-stages, in one binary.

mod evaluate;
