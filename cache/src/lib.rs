//! How bytes are named and kept; knows no stage and no YAML.
//!
//! [`Digest`] names bytes by BLAKE3, [`Tree`] names a folder by the digests of its files, [`Store`]
//! keeps both by name, and [`Index`] remembers which action ([`ActionKey`]) gave which
//! [`ActionResult`]. Bytes are published in that order, so a result never names bytes that were not
//! there when it was written.

mod action;
mod digest;
mod index;
mod recover;
mod stamp;
mod store;
mod tree;

pub use action::{ActionKey, ActionResult, KEY_CONTEXT};
pub use digest::Digest;
pub use index::{Index, IndexError};
pub use stamp::{Stamp, TICK};
pub use store::{Store, StoreError};
pub use tree::{Artifact, Entry, Tree};
