//! Frees what nothing needs: blobs and records that no lock file and no recorded run names.
//!
//! Alone, it takes records first and blobs after them, so that no record ever names what was taken.
//! Beside a run it is careful: a result that is being made has its blobs in place before its record is
//! there. So then it leaves every record and all that they name, and of the other blobs takes only
//! those that are older than the oldest run; whoever keeps an old blob anew makes it younger, and a
//! blob that was made younger at the last moment is put back. The database of the index is written anew
//! only alone: a run would have to wait for that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use crate::index::Index;
use crate::inventory::Inventory;
use crate::store::Result;
use crate::{Digest, Store, session};

/// A process that has kept blobs but written none leaves no trace of when it began: it is taken to
/// have begun at most this long ago.
const GRACE: Duration = Duration::from_secs(3600);

/// What can be freed, or was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs.
    pub blobs: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Records of actions.
    pub records: usize,
    /// Folders that killed runs left.
    pub scratch: usize,
    /// Blobs and bytes by the kind of stage that made them; those that no record names under "".
    pub stages: BTreeMap<String, (usize, u64)>,
}

/// What to free.
#[derive(Debug)]
pub struct Garbage {
    blobs: Vec<(Digest, u64)>,
    records: Vec<Digest>,
    since: Option<SystemTime>,
    freed: Freed,
}

/// Looks what can be freed. `alone` says that no run is on.
pub fn find(store: &Store, inventory: &Inventory, roots: &HashSet<Digest>, alone: bool) -> Garbage {
    let since = (!alone).then(|| {
        let young = SystemTime::now() - GRACE;
        session::oldest(&store.tmp()).map_or(young, |oldest| oldest.min(young))
    });
    let (blobs, records) = inventory.needed(store, roots, !alone);
    let free = inventory.blobs.iter().filter(|(digest, blob)| {
        !blobs.contains(*digest) && since.is_none_or(|since| blob.written < since)
    });
    let blobs: Vec<(Digest, u64)> = free.map(|(digest, blob)| (*digest, blob.size)).collect();
    let gone = inventory.records.keys().filter(|key| !records.contains(*key));
    let records: Vec<Digest> = gone.copied().collect();
    let mut made: HashMap<Digest, &str> = HashMap::new();
    for brief in inventory.records.values() {
        for (_, artifact) in &brief.outputs {
            let blobs = inventory.blobs_of(store, artifact);
            made.extend(blobs.into_iter().map(|blob| (blob, brief.stage.as_str())));
        }
    }
    let mut freed = Freed { blobs: blobs.len(), records: records.len(), ..Freed::default() };
    for (digest, size) in &blobs {
        freed.bytes += size;
        let stage = made.get(digest).copied().unwrap_or_default();
        let entry = freed.stages.entry(stage.to_owned()).or_default();
        *entry = (entry.0 + 1, entry.1 + size);
    }
    Garbage { blobs, records, since, freed }
}

impl Garbage {
    /// What would be freed.
    pub fn freed(&self) -> &Freed {
        &self.freed
    }

    /// Frees it.
    pub fn free(self, store: &Store, index: &Index) -> Result<Freed> {
        let Garbage { blobs, records, since, mut freed } = self;
        index.forget(&records)?;
        for (digest, size) in blobs {
            let path = store.path(&digest);
            let taken = match since {
                None => std::fs::remove_file(path).is_ok(),
                Some(since) => take(store, &path, since)?,
            };
            if !taken {
                freed.blobs -= 1;
                freed.bytes -= size;
            }
        }
        freed.scratch = if store.tmp().is_dir() { store.sweep()? } else { 0 };
        let damaged = store.damaged();
        if damaged.is_dir() {
            fs_err::remove_dir_all(damaged)?;
        }
        if since.is_none() {
            index.shrink()?;
        }
        Ok(freed)
    }
}

/// Takes a blob away, unless somebody has kept it anew meanwhile.
fn take(store: &Store, path: &std::path::Path, since: SystemTime) -> Result<bool> {
    let aside = store.fresh()?;
    if std::fs::rename(path, &aside).is_err() {
        return Ok(false);
    }
    if fs_err::metadata(&aside)?.modified()? >= since {
        fs_err::rename(&aside, path)?;
        return Ok(false);
    }
    fs_err::remove_file(aside)?;
    Ok(true)
}
