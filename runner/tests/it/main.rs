//! The engine from outside: the real binary on small pipelines of commands.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bad;
mod cache;
#[cfg(target_os = "linux")]
mod calls;
mod clocks;
#[cfg(feature = "lm")]
mod decide;
mod disk;
mod explain;
mod fetch;
mod front;
#[cfg(feature = "lm")]
mod generate;
mod hub;
mod incremental;
mod items;
#[cfg(unix)]
mod kill;
mod language;
mod layers;
mod many;
#[cfg(target_os = "linux")]
mod memory;
mod merge;
#[cfg(feature = "lm")]
mod models;
mod plan;
mod progress;
mod random;
mod records;
mod reproduce;
mod run;
mod sandbox;
mod semantics;
#[cfg(all(feature = "lm", unix))]
mod serve;
mod space;
mod sweep;
mod toy;
#[cfg(all(feature = "models", target_os = "linux"))]
mod train;
mod trials;
mod verbs;
mod watch;
