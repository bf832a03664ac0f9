//! The database beside the index: quick answers to what files say, or what can be found out again.
//!
//! Nothing depends on it. Where it cannot be opened, is damaged, or the disk is full, it answers
//! nothing; a damaged one is removed, and the next to open it begins anew. It must lie on a local disk.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::Digest;

/// Rises with the tables; a database of another form is begun anew.
const FORM: i64 = 2;

/// The file is written anew when more than one page in so many is empty.
const WASTE: i64 = 8;

/// Rows that a transaction of a rebuild holds, and what each table has.
const TABLES: &str = "
CREATE TABLE actions (key BLOB PRIMARY KEY, record TEXT NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE listings (folder BLOB PRIMARY KEY, base BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE changes (folder BLOB PRIMARY KEY, changes BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE scans (name BLOB PRIMARY KEY, mark BLOB NOT NULL, tree BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE proofs (tree BLOB PRIMARY KEY, shards BLOB NOT NULL) WITHOUT ROWID;
";

/// A database, or none.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Database {
    /// Opens or makes the database. The flag says whether it is new.
    pub(crate) fn open(path: &Path) -> (Database, bool) {
        let opened = connect(path).or_else(|error| {
            if !is_damage(&error) {
                return Err(error);
            }
            remove(path);
            connect(path)
        });
        let (connection, fresh) = match opened {
            Ok((connection, fresh)) => (Some(connection), fresh),
            Err(error) => {
                tracing::warn!("{}: {error}; going on without it", path.display());
                (None, false)
            }
        };
        (Database { path: path.to_owned(), connection: Mutex::new(connection) }, fresh)
    }

    /// No database.
    pub(crate) fn none() -> Database {
        Database { path: PathBuf::new(), connection: Mutex::new(None) }
    }

    /// Deletes the rows of a table whose digest in a column is not to be kept.
    pub(crate) fn retain(&self, table: &str, column: &str, keep: impl Fn(&Digest) -> bool) {
        self.with(|connection| {
            let transaction = connection.transaction()?;
            let rows: Vec<Vec<u8>> = transaction
                .prepare(&format!("SELECT {column} FROM {table}"))?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let delete = format!("DELETE FROM {table} WHERE {column} = ?1");
            for row in rows {
                let digest = <[u8; 32]>::try_from(row.as_slice()).map(Digest::from);
                if !digest.is_ok_and(|digest| keep(&digest)) {
                    transaction.prepare_cached(&delete)?.execute([&row])?;
                }
            }
            transaction.commit()
        });
    }

    /// Writes the file anew where it has more room than it needs.
    pub(crate) fn shrink(&self) {
        self.with(|connection| {
            let pages = |name: &str| -> rusqlite::Result<i64> {
                connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
            };
            if pages("freelist_count")? * WASTE > pages("page_count")? {
                connection.execute_batch("VACUUM")?;
            }
            // What was written anew lies in the log still.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
    }

    /// Asks the database, or tells it something; `None` where it does not answer.
    pub(crate) fn with<T>(
        &self,
        f: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Option<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match f(connection.as_mut()?) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!("{}: {error}", self.path.display());
                if is_damage(&error) {
                    *connection = None;
                    remove(&self.path);
                }
                None
            }
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<(Connection, bool)> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.set_prepared_statement_cache_capacity(32);
    let form = |connection: &Connection| -> rusqlite::Result<i64> {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    };
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    if form(&connection)? == FORM {
        return Ok((connection, false));
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have been quicker.
    let fresh = form(&transaction)? != FORM;
    if fresh {
        let old: Vec<String> = transaction
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for table in old {
            transaction.execute_batch(&format!("DROP TABLE \"{table}\""))?;
        }
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", FORM)?;
    }
    transaction.commit()?;
    Ok((connection, fresh))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        // A table or a column that is not there, or has another type.
        || matches!(code, Some(ErrorCode::Unknown))
        || matches!(error, rusqlite::Error::InvalidColumnType(..))
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.to_owned().into_os_string();
        file.push(suffix);
        let _ = std::fs::remove_file(file);
    }
}
