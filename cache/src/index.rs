//! [`Index`]: which action gave what, and which file had which content when it was last looked at.
//!
//! The truth about actions lies in files, `actions/<key>.json` (key and result), written whole by
//! rename; `index.sqlite` beside them answers quickly and is rebuilt from them whenever it is lost or
//! damaged. It must lie on a local disk.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::store::{files, is_executable};
use crate::{ActionKey, ActionResult, Artifact, Digest, Entry, Stamp, Store, StoreError, Tree};

/// Why the index could not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Reading or writing failed; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The database failed.
    #[error("{path}: {source}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Result<T> = std::result::Result<T, IndexError>;

/// An action as it is written down.
#[derive(Serialize, Deserialize)]
struct Record {
    key: ActionKey,
    result: ActionResult,
}

/// The index below a home folder.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    actions: PathBuf,
    connection: Mutex<Connection>,
}

impl Index {
    /// The index below `home`; made, or rebuilt from the actions' files, where it is not usable.
    pub fn open(home: &Path) -> Result<Index> {
        let path = home.join("index.sqlite");
        let actions = home.join("actions");
        fs_err::create_dir_all(&actions)?;
        let known = path.exists();
        let connection = match connect(&path) {
            Ok(connection) if known => return Ok(Index::new(path, actions, connection)),
            Ok(connection) => connection,
            Err(_) => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.clone().into_os_string();
                    file.push(suffix);
                    let _ = std::fs::remove_file(file);
                }
                connect(&path)
                    .map_err(|source| IndexError::Database { path: path.clone(), source })?
            }
        };
        let index = Index::new(path, actions, connection);
        index.rebuild()?;
        Ok(index)
    }

    fn new(path: PathBuf, actions: PathBuf, connection: Connection) -> Index {
        Index { path, actions, connection: Mutex::new(connection) }
    }

    fn rebuild(&self) -> Result<()> {
        for (_, file) in files(&self.actions)? {
            // A torn or foreign file is no record: its action simply runs again.
            let record = std::fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok());
            if let Some(record) = record {
                self.insert(&record)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sql<T>(&self, answer: rusqlite::Result<T>) -> Result<T> {
        answer.map_err(|source| IndexError::Database { path: self.path.clone(), source })
    }

    /// What the action gave, if it is known and every blob it names is in the store.
    pub fn get(&self, key: &Digest, store: &Store) -> Result<Option<ActionResult>> {
        Ok(self
            .record(key)?
            .map(|record| record.result)
            .filter(|result| result.outputs.values().all(|artifact| store.holds(artifact))))
    }

    /// The key that has this digest, if its action is known: what an explanation compares with.
    pub fn key(&self, key: &Digest) -> Result<Option<ActionKey>> {
        Ok(self.record(key)?.map(|record| record.key))
    }

    /// What the action gave, whether or not its outputs are still there.
    pub fn remembered(&self, key: &Digest) -> Result<Option<ActionResult>> {
        Ok(self.record(key)?.map(|record| record.result))
    }

    fn record(&self, key: &Digest) -> Result<Option<Record>> {
        let connection = self.lock();
        let found = connection
            .prepare_cached("SELECT record FROM actions WHERE key = ?1")
            .and_then(|mut query| {
                query.query_row([key.as_bytes()], |row| row.get::<_, String>(0)).optional()
            });
        Ok(self.sql(found)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Remembers what the action gave. Its outputs are in the store already.
    pub fn put(&self, key: &ActionKey, result: &ActionResult) -> Result<()> {
        let record = Record { key: key.clone(), result: result.clone() };
        let mut temp = tempfile::NamedTempFile::new_in(&self.actions)?;
        temp.write_all(&serde_json::to_vec(&record).map_err(std::io::Error::from)?)?;
        temp.persist(self.actions.join(format!("{}.json", key.digest()))).map_err(|e| e.error)?;
        self.insert(&record)
    }

    fn insert(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string(record).map_err(std::io::Error::from)?;
        let sql = "INSERT OR REPLACE INTO actions (key, record) VALUES (?1, ?2)";
        let digest = record.key.digest();
        let done = self.lock().execute(sql, params![digest.as_bytes(), text]);
        self.sql(done).map(drop)
    }

    /// The content of a file, read only if it changed since it was last looked at. Whoever wants to
    /// be sure that the bytes stay the same while they are used compares [`Stamp`]s.
    pub fn file(&self, path: &Path) -> Result<(Entry, Stamp)> {
        let before = SystemTime::now();
        let meta = fs_err::metadata(path)?;
        let stamp = Stamp::of(&meta);
        let name = path.to_string_lossy();
        let connection = self.lock();
        let known = connection
            .prepare_cached("SELECT digest FROM files WHERE path = ?1 AND stamp = ?2")
            .and_then(|mut query| {
                query
                    .query_row(params![name, stamp.bytes()], |row| row.get::<_, [u8; 32]>(0))
                    .optional()
            });
        let known = self.sql(known)?;
        drop(connection);
        let digest = match known {
            Some(bytes) => Digest::from(bytes),
            None => {
                let digest = Digest::of_file(path)?;
                if stamp.settled(before) {
                    let sql =
                        "INSERT OR REPLACE INTO files (path, stamp, digest) VALUES (?1, ?2, ?3)";
                    let done =
                        self.lock().execute(sql, params![name, stamp.bytes(), digest.as_bytes()]);
                    self.sql(done)?;
                }
                digest
            }
        };
        Ok((Entry { digest, size: meta.len(), executable: is_executable(&meta) }, stamp))
    }

    /// The content of a folder, each file as [`Index::file`] sees it.
    pub fn folder(&self, path: &Path) -> Result<Tree> {
        let mut entries = BTreeMap::new();
        for (name, file) in files(path)? {
            entries.insert(name, self.file(&file)?.0);
        }
        Ok(Tree { entries })
    }

    /// Whether `at` is what the artifact says already.
    pub fn stands(&self, store: &Store, artifact: &Artifact, at: &Path) -> Result<bool> {
        match self.compare(store, artifact, at) {
            // Another run is writing there.
            Err(IndexError::Io(e) | IndexError::Store(StoreError::Io(e)))
                if e.kind() == ErrorKind::NotFound =>
            {
                Ok(false)
            }
            compared => compared,
        }
    }

    fn compare(&self, store: &Store, artifact: &Artifact, at: &Path) -> Result<bool> {
        let Artifact::Tree(digest) = artifact else {
            return Ok(at.is_file() && self.file(at)?.0.digest == artifact.digest());
        };
        if !at.is_dir() || at.is_symlink() {
            return Ok(false);
        }
        let (wanted, found) = (store.tree(digest)?, files(at)?);
        if !wanted.entries.keys().eq(found.keys()) {
            return Ok(false);
        }
        for (entry, file) in wanted.entries.values().zip(found.values()) {
            if self.file(file)?.0 != *entry {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes `to` what the artifact says: files that differ are replaced, files that do not belong
    /// to it are removed. Returns true where anything had to be written.
    pub fn restore(&self, store: &Store, artifact: &Artifact, to: &Path) -> Result<bool> {
        let Artifact::Tree(digest) = artifact else {
            let same = self.stands(store, artifact, to)?;
            if !same {
                store.write_file(&artifact.digest(), false, to)?;
            }
            return Ok(!same);
        };
        let wanted = store.tree(digest)?;
        if to.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            fs_err::remove_file(to)?;
        }
        fs_err::create_dir_all(to)?;
        let mut wrote = false;
        for (name, file) in files(to)? {
            if !wanted.entries.contains_key(&name) {
                fs_err::remove_file(file)?;
                wrote = true;
            }
        }
        for (name, entry) in &wanted.entries {
            if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                return Err(StoreError::Name(name.into()).into());
            }
            let file = to.join(name);
            if !file.is_file() || self.file(&file)?.0 != *entry {
                store.write_file(&entry.digest, entry.executable, &file)?;
                wrote = true;
            }
        }
        Ok(wrote)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS actions (key BLOB PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp BLOB NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;",
    )?;
    // The smallest question that meets a damaged page of either table's root.
    connection.query_row("SELECT (SELECT count(*) FROM sqlite_schema)", [], |_| Ok(()))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::TICK;

    fn space() -> (tempfile::TempDir, Store, Index) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let index = Index::open(dir.path()).unwrap();
        (dir, store, index)
    }

    fn key(stage: &str) -> ActionKey {
        ActionKey {
            stage: stage.into(),
            version: 1,
            params: serde_json::json!({}),
            inputs: BTreeMap::new(),
            item: None,
            seed: None,
            device: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }

    #[test]
    fn a_result_is_believed_only_while_its_blobs_are_there() {
        let (_dir, store, index) = space();
        let digest = store.put(b"out").unwrap();
        let outputs = BTreeMap::from([("text".into(), Artifact::File(digest))]);
        let result = ActionResult { outputs, millis: 5, ..ActionResult::default() };
        let key = key("a");
        assert_eq!(index.get(&key.digest(), &store).unwrap(), None);
        index.put(&key, &result).unwrap();
        assert_eq!(index.get(&key.digest(), &store).unwrap(), Some(result.clone()));
        fs_err::remove_file(store.path(&digest)).unwrap();
        assert_eq!(index.get(&key.digest(), &store).unwrap(), None);
        assert_eq!(index.remembered(&key.digest()).unwrap(), Some(result));
    }

    #[test]
    fn a_lost_or_torn_database_is_rebuilt() {
        let (dir, store, index) = space();
        index.put(&key("a"), &ActionResult::default()).unwrap();
        drop(index);
        let database = dir.path().join("index.sqlite");
        for damage in
            [None, Some("not a database at all, and long enough to look like one".repeat(99))]
        {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
            }
            if let Some(bytes) = damage {
                fs_err::write(&database, bytes).unwrap();
            }
            let index = Index::open(dir.path()).unwrap();
            assert!(index.get(&key("a").digest(), &store).unwrap().is_some());
        }
    }

    #[test]
    fn an_edit_with_the_same_size_and_write_time_is_seen() {
        let (dir, _store, index) = space();
        let path = dir.path().join("file");
        fs_err::write(&path, "one").unwrap();
        let time = fs_err::metadata(&path).unwrap().modified().unwrap();
        std::thread::sleep(TICK * 2);
        assert_eq!(index.file(&path).unwrap().0.digest, Digest::of(b"one"));
        fs_err::write(&path, "two").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(index.file(&path).unwrap().0.digest, Digest::of(b"two"));
    }

    #[test]
    fn restore_rights_a_folder_and_then_leaves_it_alone() {
        let (dir, store, index) = space();
        let scratch = store.scratch().unwrap();
        let made = scratch.path().join("tree");
        fs_err::create_dir_all(made.join("deep")).unwrap();
        fs_err::write(made.join("a"), "alpha").unwrap();
        fs_err::write(made.join("deep/b"), "beta").unwrap();
        let artifact = store.adopt(&made).unwrap();
        let out = dir.path().join("out");
        assert!(index.restore(&store, &artifact, &out).unwrap());
        assert!(!index.restore(&store, &artifact, &out).unwrap());
        fs_err::write(out.join("a"), "tampered").unwrap();
        fs_err::write(out.join("stray"), "?").unwrap();
        assert!(index.restore(&store, &artifact, &out).unwrap());
        assert_eq!(fs_err::read_to_string(out.join("a")).unwrap(), "alpha");
        assert!(!out.join("stray").exists());
        assert_eq!(store.put_tree(&index.folder(&out).unwrap()).unwrap(), artifact);
    }
}
