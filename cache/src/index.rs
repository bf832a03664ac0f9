//! [`Index`]: which action gave what, and which file had which content when it was last looked at.
//!
//! The truth about actions lies in files, `actions/<key>.json` (key and result), written whole by
//! rename; the database beside them answers quickly and is rebuilt from them whenever it is lost or
//! damaged. What is put is in its file at once and reaches the database many at a time.
//!
//! Nothing is synced file by file. A result carries the name of the boot in which it was written and
//! is believed for as long as the machine runs; [`Index::sync`] syncs all that was written and then
//! takes the name away. A result that has the name of another boot may be older than its bytes: it is
//! believed once every blob that it names has been read and is what its name says.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::database::Database;
use crate::files::Files;
use crate::listing::Known;
use crate::scan::{ALL, Scan, Walk};
use crate::{
    ActionKey, ActionResult, Artifact, Digest, Entry, Glance, Stamp, Store, StoreError, Tree, boot,
    proof, snapshot,
};

/// Results that wait for the database at most.
const BATCH: usize = 1024;

/// Why the index could not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Reading or writing failed; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Result<T> = std::result::Result<T, IndexError>;

/// An action as it is written down.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    /// The boot in which it was written, where files are not synced one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    pub key: ActionKey,
    pub result: ActionResult,
}

/// The part of a [`Record`] that a judgement needs.
#[derive(Deserialize)]
struct Gave {
    result: ActionResult,
}

/// A record's text, and the boot after which it needs a check.
#[derive(Clone)]
struct Row {
    text: String,
    boot: Option<String>,
}

/// What the database does not know yet.
#[derive(Default)]
struct Waiting {
    rows: HashMap<Digest, Row>,
    /// Rows that the database has as not synced.
    unsynced: Vec<Digest>,
    /// Rows of another boot whose blobs were read and are whole.
    checked: HashSet<Digest>,
}

/// The index below a home folder.
pub struct Index {
    store: Store,
    actions: PathBuf,
    database: Database,
    waiting: Mutex<Waiting>,
    files: Files,
    glances: Mutex<HashMap<(PathBuf, String), Glance>>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("actions", &self.actions).finish_non_exhaustive()
    }
}

impl Index {
    /// The index beside a store; made, or rebuilt from the actions' files, where it is not usable.
    pub fn open(store: &Store) -> Result<Index> {
        let actions = store.home().join("actions");
        let (waiting, files, glances) = (Mutex::default(), Files::default(), Mutex::default());
        let store = store.clone();
        if !store.writable() {
            let database = Database::none();
            return Ok(Index { store, actions, database, waiting, files, glances });
        }
        fs_err::create_dir_all(&actions)?;
        let (database, fresh) = Database::open(&store.home().join("index.sqlite"));
        let index = Index { store, actions, database, waiting, files, glances };
        if fresh {
            index.rebuild()?;
        }
        Ok(index)
    }

    /// Reads every record into the database, whose files are newer than it is.
    fn rebuild(&self) -> Result<()> {
        for (key, path) in records(&self.actions)? {
            if let Some(row) = read_row(&path, &key) {
                self.wait(|waiting| waiting.rows.insert(key, row));
            }
            if self.wait(|waiting| waiting.rows.len()) >= BATCH {
                self.flush_rows();
            }
        }
        self.flush_rows();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, f: impl FnOnce(&mut Waiting) -> T) -> T {
        f(&mut self.lock())
    }

    /// What the action gave, if it is known and every blob it names is in the store.
    pub fn get(&self, key: &Digest, store: &Store) -> Result<Option<ActionResult>> {
        let Some(row) = self.row(key) else { return Ok(None) };
        if let Some(result) = self.believe(key, &row, store) {
            return Ok(Some(result));
        }
        // Another run may have made it again since the database was told.
        let newer = read_row(&self.path(key), key).filter(|newer| newer.text != row.text);
        let Some(newer) = newer else { return Ok(None) };
        let result = self.believe(key, &newer, store);
        if result.is_some() {
            self.wait(|waiting| waiting.rows.insert(*key, newer));
        }
        Ok(result)
    }

    fn believe(&self, key: &Digest, row: &Row, store: &Store) -> Option<ActionResult> {
        let Gave { result } = serde_json::from_str(&row.text).ok()?;
        let blobs = || {
            let owners = result.items.values().map(|digest| Artifact::File(*digest));
            result.outputs.values().copied().chain(owners)
        };
        if !blobs().all(|artifact| proof::holds(&self.database, store, &artifact)) {
            return None;
        }
        let settled = row.boot.is_none()
            || row.boot.as_deref() == store.boot()
            || self.wait(|waiting| waiting.checked.contains(key));
        if !settled {
            let whole = blobs().fold(true, |all, artifact| store.check(&artifact) & all);
            tracing::debug!(key = %key.short(), whole, "checked what another boot has left");
            if !whole {
                return None;
            }
            // They were read from the disk, so they are on it.
            let row = Row { text: row.text.clone(), boot: None };
            self.wait(|waiting| {
                waiting.checked.insert(*key);
                waiting.rows.insert(*key, row);
            });
        }
        Some(result)
    }

    /// The key that has this digest, if its action is known: what an explanation compares with.
    pub fn key(&self, key: &Digest) -> Result<Option<ActionKey>> {
        let record = self.row(key).and_then(|row| serde_json::from_str::<Record>(&row.text).ok());
        Ok(record.map(|record| record.key))
    }

    /// What the action gave, whether or not its outputs are still there.
    pub fn remembered(&self, key: &Digest) -> Result<Option<ActionResult>> {
        let gave = self.row(key).and_then(|row| serde_json::from_str::<Gave>(&row.text).ok());
        Ok(gave.map(|gave| gave.result))
    }

    fn row(&self, key: &Digest) -> Option<Row> {
        if let Some(row) = self.wait(|waiting| waiting.rows.get(key).cloned()) {
            return Some(row);
        }
        let known = self.database.with(|connection| {
            connection
                .prepare_cached("SELECT record, boot FROM actions WHERE key = ?1")?
                .query_row([key.as_bytes()], |row| Ok(Row { text: row.get(0)?, boot: row.get(1)? }))
                .optional()
        });
        if let Some(Some(row)) = known {
            return Some(row);
        }
        // Another run that has not told the database yet.
        let row = read_row(&self.path(key), key)?;
        self.wait(|waiting| waiting.rows.insert(*key, row.clone()));
        Some(row)
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.actions.join(format!("{key}.json"))
    }

    /// Remembers what the action gave. Its outputs are in the store already.
    pub fn put(&self, key: &ActionKey, result: &ActionResult) -> Result<()> {
        let json = key.json();
        let digest = Digest::derive(crate::KEY_CONTEXT, json.as_bytes());
        let boot = self.store.boot();
        let result = serde_json::to_string(result).map_err(std::io::Error::from)?;
        let text = match boot {
            Some(boot) => format!("{{\"boot\":\"{boot}\",\"key\":{json},\"result\":{result}}}"),
            None => format!("{{\"key\":{json},\"result\":{result}}}"),
        };
        self.store.write_record(text.as_bytes(), &self.path(&digest))?;
        let row = Row { text, boot: boot.map(str::to_owned) };
        let full = self.wait(|waiting| {
            waiting.checked.remove(&digest);
            waiting.rows.insert(digest, row);
            waiting.rows.len() >= BATCH
        });
        if full {
            self.flush_rows();
        }
        Ok(())
    }

    /// Removes records, and what is known of folders that are gone.
    pub(crate) fn forget(&self, keys: &[Digest]) -> crate::store::Result<()> {
        self.wait(|waiting| keys.iter().for_each(|key| drop(waiting.rows.remove(key))));
        self.database.with(|connection| {
            let transaction = connection.transaction()?;
            for key in keys {
                let sql = "DELETE FROM actions WHERE key = ?1";
                transaction.prepare_cached(sql)?.execute([key.as_bytes()])?;
            }
            transaction.commit()
        });
        for key in keys {
            match std::fs::remove_file(self.path(key)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        self.files.forget_gone(&self.database);
        Ok(())
    }

    /// Gives the room back that forgotten rows took, and forgets those whose record or tree is gone.
    /// For when nobody else uses the index: it is written anew.
    pub(crate) fn shrink(&self) -> crate::store::Result<()> {
        self.flush_rows();
        let kept: HashSet<Digest> =
            records(&self.actions)?.into_iter().map(|(key, _)| key).collect();
        self.database.retain("actions", "key", |key| kept.contains(key));
        self.database.retain("proofs", "tree", |tree| self.store.has(tree, None));
        self.database.shrink();
        Ok(())
    }

    /// Tells the database what it does not know yet.
    fn flush_rows(&self) {
        let rows = self.wait(|waiting| {
            let unsynced = waiting.rows.iter().filter(|(_, row)| row.boot.is_some());
            let unsynced: Vec<Digest> = unsynced.map(|(key, _)| *key).collect();
            waiting.unsynced.extend(unsynced);
            std::mem::take(&mut waiting.rows)
        });
        self.insert(&rows, &[]);
    }

    fn insert(&self, rows: &HashMap<Digest, Row>, synced: &[Digest]) {
        if rows.is_empty() && synced.is_empty() {
            return;
        }
        self.database.with(|connection| {
            let transaction = connection.transaction()?;
            for (key, row) in rows {
                let sql = "INSERT OR REPLACE INTO actions (key, record, boot) VALUES (?1, ?2, ?3)";
                let values = params![key.as_bytes(), row.text, row.boot];
                transaction.prepare_cached(sql)?.execute(values)?;
            }
            for key in synced {
                let sql = "UPDATE actions SET boot = NULL WHERE key = ?1 AND boot = ?2";
                let values = params![key.as_bytes(), self.store.boot()];
                transaction.prepare_cached(sql)?.execute(values)?;
            }
            transaction.commit()
        });
    }

    /// Puts all that was kept so far on the disk, for good: with one sync of the file system, and
    /// with none where nothing was kept. Also writes down what is known of the workspace's files.
    pub fn sync(&self) -> Result<()> {
        let (mut rows, unsynced) = self.wait(|waiting| {
            (std::mem::take(&mut waiting.rows), std::mem::take(&mut waiting.unsynced))
        });
        let ours = |row: &Row| row.boot.is_some() && row.boot.as_deref() == self.store.boot();
        if rows.values().any(ours) || !unsynced.is_empty() {
            if let Err(error) = boot::sync(self.store.home()) {
                self.insert(&rows, &[]);
                self.wait(|waiting| waiting.unsynced.extend(unsynced));
                return Err(error.into());
            }
            rows.values_mut().filter(|row| ours(row)).for_each(|row| row.boot = None);
        }
        self.insert(&rows, &unsynced);
        self.files.flush(&self.database);
        Ok(())
    }

    /// The content of a file, read only if it changed since it was last looked at. Whoever wants to
    /// be sure that the bytes stay the same while they are used compares [`Stamp`]s.
    pub fn file(&self, path: &Path) -> Result<(Entry, Stamp)> {
        let absolute = std::path::absolute(path)?;
        let Known { stamp, digest } = self.files.file(&self.database, &absolute)?;
        Ok((Entry { digest, size: stamp.len(), executable: stamp.executable() }, stamp))
    }

    /// What lies below a folder, each file as [`Index::file`] sees it.
    pub fn scan(&self, root: &Path, walk: &Walk<'_>) -> Result<Scan> {
        Ok(Scan::read(&self.files, &self.database, root, walk)?)
    }

    /// Takes note of a glance at a snapshot, for the next [`Index::rescan`] of the same folder.
    pub fn glanced(&self, glance: Glance) {
        if let Some(name) = glance.name() {
            self.glances.lock().unwrap_or_else(PoisonError::into_inner).insert(name, glance);
        }
    }

    /// A scan, or what a glance has just made unnecessary.
    pub fn rescan(&self, root: &Path, walk: &Walk<'_>) -> Result<Scan> {
        let name = (std::path::absolute(root)?, walk.name.to_owned());
        let glance = self.glances.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        let scan = glance.and_then(|glance| snapshot::revive(&glance, &self.files, &self.database));
        scan.map_or_else(|| self.scan(root, walk), Ok)
    }

    /// Keeps the manifest of a scan in the store.
    pub fn keep(&self, scan: &mut Scan) -> Result<Artifact> {
        if !self.store.sound(&scan.digest()) {
            self.store.put(&scan.manifest())?;
        }
        Ok(Artifact::Tree(scan.digest()))
    }

    /// The content of a folder of outputs: no links.
    pub fn folder(&self, path: &Path) -> Result<Tree> {
        let scan = self.scan(path, &ALL)?;
        match scan.others().first() {
            Some(other) => Err(StoreError::Name(other.clone()).into()),
            None => Ok(scan.tree()),
        }
    }

    /// Whether `at` is what the artifact says already.
    pub fn stands(&self, artifact: &Artifact, at: &Path) -> Result<bool> {
        match self.compare(artifact, at) {
            // Another run is writing there.
            Err(IndexError::Io(e) | IndexError::Store(StoreError::Io(e)))
                if e.kind() == ErrorKind::NotFound =>
            {
                Ok(false)
            }
            compared => compared,
        }
    }

    fn compare(&self, artifact: &Artifact, at: &Path) -> Result<bool> {
        let meta = fs_err::symlink_metadata(at)?;
        Ok(match artifact {
            Artifact::File(digest) => meta.is_file() && self.file(at)?.0.digest == *digest,
            Artifact::Tree(digest) if meta.is_dir() => {
                let scan = self.scan(at, &ALL)?;
                scan.others().is_empty() && scan.digest() == *digest
            }
            Artifact::Tree(_) => false,
        })
    }

    /// Makes `to` what the artifact says: files that differ are replaced, files that do not belong
    /// to it are removed. Returns true where anything had to be written.
    pub fn restore(&self, store: &Store, artifact: &Artifact, to: &Path) -> Result<bool> {
        let to = std::path::absolute(to)?;
        if self.stands(artifact, &to)? {
            return Ok(false);
        }
        let Artifact::Tree(digest) = artifact else {
            self.write(store, &artifact.digest(), false, &to)?;
            return Ok(true);
        };
        let wanted = store.tree(digest)?;
        if to.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            fs_err::remove_file(&to)?;
        }
        fs_err::create_dir_all(&to)?;
        let scan = self.scan(&to, &ALL)?;
        for other in scan.others() {
            fs_err::remove_file(other)?;
        }
        let there = scan.tree();
        for name in there.entries.keys().filter(|name| !wanted.entries.contains_key(*name)) {
            fs_err::remove_file(to.join(name))?;
        }
        for (name, entry) in &wanted.entries {
            if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                return Err(StoreError::Name(name.into()).into());
            }
            if there.entries.get(name) != Some(entry) {
                self.write(store, &entry.digest, entry.executable, &to.join(name))?;
            }
        }
        Ok(true)
    }

    fn write(&self, store: &Store, digest: &Digest, executable: bool, to: &Path) -> Result<()> {
        if let Some(stamp) = store.write_stamped(digest, executable, to)? {
            self.files.wrote(&self.database, to, Known { stamp, digest: *digest });
        }
        Ok(())
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.flush_rows();
        self.files.flush(&self.database);
    }
}

/// The records below a folder, by key.
pub(crate) fn records(folder: &Path) -> crate::store::Result<Vec<(Digest, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let key = name.and_then(|name| name.strip_suffix(".json")?.parse().ok());
        if let Some(key) = key {
            found.push((key, path));
        }
    }
    Ok(found)
}

/// A record as its file has it. A torn file, or another action's, is none: its action runs again.
fn read_row(path: &Path, key: &Digest) -> Option<Row> {
    let text = std::fs::read_to_string(path).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    (record.key.digest() == *key).then_some(Row { text, boot: record.boot })
}

#[cfg(test)]
mod tests;
