//! [`Inventory`]: everything that a store holds and everything that its records name, read once.
//! What `cache stats`, `verify` and `gc` look at; no run does.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::index::{Record, records};
use crate::store::Result;
use crate::{Artifact, Digest, Store, Tree};

/// A blob.
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    /// Bytes.
    pub size: u64,
    /// When it was written or last kept.
    pub written: SystemTime,
}

/// What a record of an action says, as far as storage goes.
#[derive(Clone, Debug)]
pub struct Brief {
    /// The stage's kind.
    pub stage: String,
    /// The item, where it is one item's action.
    pub item: Option<String>,
    /// What it read.
    pub inputs: Vec<Artifact>,
    /// What it gave, by name.
    pub outputs: Vec<(String, Artifact)>,
    /// Blobs that say which item wrote which file.
    pub owners: Vec<Digest>,
}

/// What there is.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Every blob.
    pub blobs: HashMap<Digest, Blob>,
    /// Every record by its key.
    pub records: HashMap<Digest, Brief>,
}

impl Inventory {
    /// Reads what there is.
    pub fn read(store: &Store) -> Result<Inventory> {
        let shards: Vec<String> = (0..=255u8).map(|shard| format!("{shard:02x}")).collect();
        let blobs: Result<Vec<Vec<(Digest, Blob)>>> =
            shards.par_iter().map(|shard| shelf(store, shard)).collect();
        let actions = store.home().join("actions");
        let files = if actions.is_dir() { records(&actions)? } else { Vec::new() };
        let briefs = files.into_par_iter().filter_map(|(key, path)| {
            let record: Record = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
            Some((key, brief(record)))
        });
        Ok(Inventory { blobs: blobs?.into_iter().flatten().collect(), records: briefs.collect() })
    }

    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.size).sum()
    }

    /// The blobs of an artifact: itself and, of a folder, its files.
    pub fn blobs_of(&self, store: &Store, artifact: &Artifact) -> Vec<Digest> {
        let mut all = vec![artifact.digest()];
        if let Artifact::Tree(digest) = artifact
            && let Ok(tree) = store.tree(digest)
        {
            all.extend(tree.entries.values().map(|entry| entry.digest));
        }
        all
    }

    /// Every blob that is needed: what `roots` name, and what the records among them name. A root is
    /// the digest of a blob, of a folder's manifest or of an action's key. Also says which records
    /// are needed; with `all`, every one of them is.
    pub fn needed(
        &self,
        store: &Store,
        roots: &HashSet<Digest>,
        all: bool,
    ) -> (HashSet<Digest>, HashSet<Digest>) {
        let mut needed = Needed { store, blobs: HashSet::new() };
        let mut records: HashSet<Digest> = HashSet::new();
        for (key, brief) in &self.records {
            if all || roots.contains(key) {
                records.insert(*key);
                brief.inputs.iter().for_each(|artifact| needed.artifact(artifact));
                brief.outputs.iter().for_each(|(_, artifact)| needed.artifact(artifact));
                needed.blobs.extend(&brief.owners);
            }
        }
        for root in roots.iter().filter(|root| self.blobs.contains_key(*root)) {
            // Only its own bytes tell whether it is a manifest.
            needed.artifact(&Artifact::Tree(*root));
        }
        // An item's record is worth what it saves, and costs nothing, while the folder of all items,
        // which its stage's record names, has all that it gave.
        for (key, brief) in self.records.iter().filter(|(_, brief)| brief.item.is_some()) {
            let files = |(_, artifact): &(String, Artifact)| match artifact {
                Artifact::File(digest) => needed.blobs.contains(digest),
                Artifact::Tree(digest) => store.tree(digest).is_ok_and(|tree| {
                    !tree.entries.is_empty()
                        && tree.entries.values().all(|e| needed.blobs.contains(&e.digest))
                }),
            };
            if !records.contains(key) && brief.outputs.iter().all(files) {
                records.insert(*key);
                let outputs = brief.outputs.iter().map(|(_, artifact)| artifact.digest());
                needed.blobs.extend(outputs);
            }
        }
        (needed.blobs, records)
    }
}

struct Needed<'a> {
    store: &'a Store,
    blobs: HashSet<Digest>,
}

impl Needed<'_> {
    fn artifact(&mut self, artifact: &Artifact) {
        let new = self.blobs.insert(artifact.digest());
        if let Artifact::Tree(digest) = artifact
            && new
            && let Some(tree) = manifest(self.store, digest)
        {
            self.blobs.extend(tree.entries.values().map(|entry| entry.digest));
        }
    }
}

/// The folder that a blob describes, if it does.
fn manifest(store: &Store, digest: &Digest) -> Option<Tree> {
    use std::io::Read;
    let mut file = std::fs::File::open(store.path(digest)).ok()?;
    let mut start = [0; crate::tree::HEADER.len()];
    file.read_exact(&mut start).ok()?;
    if start != *crate::tree::HEADER.as_bytes() {
        return None;
    }
    store.tree(digest).ok()
}

fn shelf(store: &Store, shard: &str) -> Result<Vec<(Digest, Blob)>> {
    let folder = store.root().join(shard);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let digest = name.to_str().and_then(|name| format!("{shard}{name}").parse().ok());
        // A blob may go while we look.
        let (Some(digest), Ok(meta)) = (digest, entry.metadata()) else { continue };
        found.push((digest, Blob { size: meta.len(), written: meta.modified()? }));
    }
    Ok(found)
}

fn brief(record: Record) -> Brief {
    Brief {
        stage: record.key.stage,
        item: record.key.item,
        inputs: record.key.inputs.into_values().collect(),
        outputs: record.result.outputs.into_iter().collect(),
        owners: record.result.items.into_values().collect(),
    }
}
