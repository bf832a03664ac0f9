//! How bytes are named and kept; knows no stage and no YAML.
//!
//! [`Digest`] names bytes by BLAKE3, [`Tree`] names a folder by the digests of its files, [`Store`]
//! keeps both by name, and [`Index`] remembers which action ([`ActionKey`]) gave which
//! [`ActionResult`]. Bytes are published in that order, so a result never names bytes that were not
//! there when it was written.

mod action;
pub mod binary;
mod boot;
mod claim;
mod database;
mod digest;
mod files;
pub mod gc;
mod index;
mod inventory;
mod listing;
mod proof;
mod recover;
mod scan;
mod session;
mod snapshot;
mod stamp;
mod store;
mod tree;
mod verify;

pub use action::{ActionKey, ActionResult, KEY_CONTEXT};
pub use claim::{Claim, Claims};
pub use digest::{Digest, NoDigest};
pub use index::{Index, IndexError};
pub use inventory::{Blob, Brief, Inventory};
pub use scan::{ALL, Scan, Walk};
pub use session::Scratch;
pub use snapshot::{Glance, glance};
pub use stamp::{Stamp, TICK};
pub use store::{Store, StoreError};
pub use tree::{Artifact, Entry, Tree};
pub use verify::{Damage, Made, verify};
