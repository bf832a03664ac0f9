//! Reads every blob and compares it with its name: finds what a disk, or a hand, has changed.
//!
//! A blob that is not what its name says is moved aside, so that nobody is given it: whatever needs it
//! is a miss, and its producer runs again.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::inventory::Inventory;
use crate::store::Result;
use crate::{Artifact, Digest, Store};

/// A blob that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What it should be.
    pub digest: Digest,
    /// Who made it: kind, item, name of the output, and the action's key.
    pub made: Vec<Made>,
}

/// An output that has a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The action's key.
    pub key: Digest,
    /// The stage's kind.
    pub stage: String,
    /// The item.
    pub item: Option<String>,
    /// The output's name.
    pub output: String,
    /// The output.
    pub artifact: Artifact,
    /// The file's name in an output that is a folder.
    pub file: Option<String>,
}

/// Reads all blobs; `read` is told how many bytes are read so far. What is damaged is moved aside.
pub fn verify(
    store: &Store,
    inventory: &Inventory,
    read: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Damage>> {
    let done = AtomicU64::new(0);
    let whole = |(digest, size): (&Digest, u64)| {
        let path = store.path(digest);
        let found = Digest::of_file(&path);
        read(done.fetch_add(size, Ordering::Relaxed) + size);
        match found {
            Ok(found) => found == *digest,
            // Freed meanwhile; or it cannot be read.
            Err(_) => !path.exists(),
        }
    };
    let all: Vec<_> = inventory.blobs.iter().map(|(digest, blob)| (digest, blob.size)).collect();
    let mut bad: Vec<Digest> =
        all.into_par_iter().filter(|blob| !whole(*blob)).map(|(digest, _)| *digest).collect();
    bad.sort_unstable();
    // Before they are moved: a manifest may be among them.
    let damage =
        bad.iter().map(|digest| Damage { digest: *digest, made: makers(store, inventory, digest) });
    let damage: Vec<Damage> = damage.collect();
    for digest in &bad {
        let damaged = store.damaged();
        fs_err::create_dir_all(&damaged)?;
        fs_err::rename(store.path(digest), damaged.join(digest.to_string()))?;
    }
    Ok(damage)
}

fn makers(store: &Store, inventory: &Inventory, digest: &Digest) -> Vec<Made> {
    let mut made = Vec::new();
    for (key, brief) in &inventory.records {
        for (output, artifact) in &brief.outputs {
            let file = match artifact {
                _ if artifact.digest() == *digest => None,
                Artifact::File(_) => continue,
                Artifact::Tree(tree) => {
                    let Ok(tree) = store.tree(tree) else { continue };
                    let mut entries = tree.entries.into_iter();
                    match entries.find(|(_, entry)| entry.digest == *digest) {
                        Some((name, _)) => Some(name),
                        None => continue,
                    }
                }
            };
            let (stage, item) = (brief.stage.clone(), brief.item.clone());
            let (output, artifact) = (output.clone(), *artifact);
            made.push(Made { key: *key, stage, item, output, artifact, file });
        }
    }
    made.sort_by_key(|made| made.key);
    made
}
