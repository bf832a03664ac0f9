//! Whether the store still has every file of a folder, without looking at each.
//!
//! The store's blobs lie in 256 folders, the shards. Removing a file changes the times of the folder
//! it was in. So once every blob of a tree was seen, it is enough to see that its shards look as they
//! did then; of a shard that changed, the tree's blobs in it are looked at. That proves that they are
//! there. It does not prove what is in them: that is `cache verify`'s.

use std::path::Path;
use std::time::SystemTime;

use rusqlite::{OptionalExtension, params};

use crate::database::Database;
use crate::{Artifact, Digest, Stamp, Store};

/// Below this size of a manifest, its files are looked at one by one.
const SMALL: u64 = 48 << 10;
const SHARDS: usize = 256;

/// True where every blob that the artifact needs is in the store.
pub(crate) fn holds(database: &Database, store: &Store, artifact: &Artifact) -> bool {
    let Artifact::Tree(digest) = artifact else { return store.holds(artifact) };
    let Ok(meta) = std::fs::metadata(store.path(digest)) else { return false };
    if meta.len() < SMALL {
        return store.holds(artifact);
    }
    let now = shards(store.root());
    let then = recall(database, digest);
    let differs = |shard: usize| match (now[shard], &then) {
        (Some(now), Some(then)) => now != then[shard],
        _ => true,
    };
    let changed: Vec<bool> = (0..SHARDS).map(differs).collect();
    if !changed.contains(&true) {
        return true;
    }
    let Ok(tree) = store.tree(digest) else { return false };
    let mut entries = tree.entries.values();
    let there = entries.all(|entry| {
        let shard = usize::from(entry.digest.as_bytes()[0]);
        !changed[shard] || store.has(&entry.digest, Some(entry.size))
    });
    if there {
        let bytes: Vec<u8> =
            now.iter().flat_map(|stamp| stamp.unwrap_or_default().bytes()).collect();
        database.with(|connection| {
            let sql = "INSERT OR REPLACE INTO proofs VALUES (?1, ?2)";
            connection.prepare_cached(sql)?.execute(params![digest.as_bytes(), bytes])
        });
    }
    there
}

/// How each shard looks; one that is not there, or changed this moment, proves nothing.
fn shards(root: &Path) -> Vec<Option<Stamp>> {
    let now = SystemTime::now();
    (0..SHARDS)
        .map(|shard| {
            let stamp = Stamp::read(&root.join(format!("{shard:02x}"))).ok();
            stamp.filter(|stamp| stamp.settled(now))
        })
        .collect()
}

fn recall(database: &Database, tree: &Digest) -> Option<Vec<Stamp>> {
    let found = database.with(|connection| {
        let mut query = connection.prepare_cached("SELECT shards FROM proofs WHERE tree = ?1")?;
        query.query_row([tree.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional()
    });
    let bytes = found.flatten()?;
    let stamps: Vec<Stamp> = bytes.as_chunks().0.iter().map(Stamp::from_bytes).collect();
    (stamps.len() == SHARDS).then_some(stamps)
}
