//! The engine from outside: the real binary on small pipelines of commands.

mod incremental;
mod layers;
mod run;
mod space;
