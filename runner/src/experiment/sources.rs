//! Keeps the source files of stages that ran, so that a run can be made again when they are gone.
//!
//! Copies are reflinks where the file system has them. A large input is noted by its digest alone: a
//! copy of it would surprise whoever looks at the disk. What is kept is freed by `cache gc` once no
//! run names it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use quantmill_cache::{Artifact, IndexError, Store};

use crate::source::Given;

/// An input with more bytes is not kept unasked.
const BYTES: u64 = 256 << 20;
/// An input with more files is not kept unasked.
const FILES: usize = 1_000;

/// What a run keeps of its sources.
#[derive(Debug, Default)]
pub struct Sources {
    all: bool,
    seen: Mutex<BTreeSet<Artifact>>,
}

impl Sources {
    /// Keeps inputs up to the limits, or `all` of them.
    pub fn new(all: bool) -> Sources {
        Sources { all, seen: Mutex::default() }
    }

    /// Keeps what fed a stage and lies in the workspace.
    pub fn keep<'a>(
        &self,
        store: &Store,
        given: impl Iterator<Item = &'a Given>,
    ) -> Result<(), IndexError> {
        for given in given.filter(|given| given.is_source()) {
            let new =
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(given.artifact);
            if !new || !self.all && given.input.files.len() > FILES {
                continue;
            }
            let tree = match given.artifact {
                Artifact::Tree(digest) => Some(store.tree(&digest)?),
                Artifact::File(_) => None,
            };
            let sizes = given.input.files.iter().map(|(name, path)| match &tree {
                Some(tree) => tree.entries.get(name).map_or(0, |entry| entry.size),
                None => std::fs::metadata(path).map_or(0, |meta| meta.len()),
            });
            if !self.all && sizes.sum::<u64>() > BYTES {
                continue;
            }
            for (name, path) in &given.input.files {
                let entry = tree.as_ref().and_then(|tree| tree.entries.get(name));
                let digest = entry.map_or(given.artifact.digest(), |entry| entry.digest);
                if store.has(&digest, entry.map(|entry| entry.size)) {
                    continue;
                }
                let scratch = store.scratch()?;
                let copy = scratch.path().join("copy");
                reflink_copy::reflink_or_copy(path, &copy)?;
                if store.adopt(&copy)? != Artifact::File(digest) {
                    // It was edited since: the next run sees that, and this one did not read it.
                    tracing::debug!("{} changed before it could be kept", path.display());
                }
            }
        }
        Ok(())
    }
}
