//! [`Files`]: the digests of files in the workspace, read only when they changed since they were last
//! looked at. What is known is kept by folder, in [`Listing`]s, which are read once and written once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rusqlite::{OptionalExtension, params};

use crate::database::Database;
use crate::listing::{Known, Listing, Written};
use crate::store::Result;
use crate::{Digest, Stamp, StoreError};

/// What is known of the workspace's files.
#[derive(Debug, Default)]
pub(crate) struct Files {
    listings: Mutex<HashMap<PathBuf, Listing>>,
}

impl Files {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Listing>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the listing of a folder.
    pub(crate) fn listing<T>(
        &self,
        database: &Database,
        folder: &Path,
        f: impl FnOnce(&mut Listing) -> T,
    ) -> T {
        let mut listings = self.lock();
        if let Some(listing) = listings.get_mut(folder) {
            return f(listing);
        }
        f(listings.entry(folder.to_owned()).or_insert_with(|| load(database, folder)))
    }

    /// The content of a file and how it looked before it was hashed. It is read only where `known`
    /// does not fit; the flag says whether that is worth remembering.
    pub(crate) fn look(path: &Path, known: Option<Known>) -> Result<(Known, bool)> {
        let now = SystemTime::now();
        let stamp = Stamp::of(&fs_err::metadata(path)?);
        match known {
            Some(known) if known.stamp == stamp => Ok((known, false)),
            _ => Files::hash(path, stamp, now),
        }
    }

    /// Hashes a file that looked like `stamp` at some time after `now`.
    pub(crate) fn hash(path: &Path, stamp: Stamp, now: SystemTime) -> Result<(Known, bool)> {
        let digest = Digest::of_open(fs_err::File::open(path)?, stamp.len())?;
        Ok((Known { stamp, digest }, stamp.settled(now)))
    }

    /// One file, see [`Files::look`].
    pub(crate) fn file(&self, database: &Database, path: &Path) -> Result<Known> {
        let Some((folder, name)) = split(path) else {
            return Err(StoreError::Name(path.to_owned()));
        };
        let known = self.listing(database, folder, |listing| listing.get(name));
        let (known, remember) = Files::look(path, known)?;
        if remember {
            self.listing(database, folder, |listing| listing.set(name, known));
        }
        Ok(known)
    }

    /// Remembers a file that was written just now.
    pub(crate) fn wrote(&self, database: &Database, path: &Path, known: Known) {
        if let Some((folder, name)) = split(path) {
            self.listing(database, folder, |listing| listing.set(name, known));
        }
    }

    /// Forgets folders that are not there any more.
    pub(crate) fn forget_gone(&self, database: &Database) {
        database.with(|connection| {
            let transaction = connection.transaction()?;
            let folders: Vec<Vec<u8>> = transaction
                .prepare("SELECT folder FROM listings")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for folder in folders {
                if !std::str::from_utf8(&folder).is_ok_and(|folder| Path::new(folder).is_dir()) {
                    transaction.execute("DELETE FROM listings WHERE folder = ?1", [&folder])?;
                    transaction.execute("DELETE FROM changes WHERE folder = ?1", [&folder])?;
                }
            }
            transaction.commit()
        });
    }

    /// Writes down what changed.
    pub(crate) fn flush(&self, database: &Database) {
        let mut listings = self.lock();
        let written: Vec<_> = listings
            .iter_mut()
            .filter_map(|(folder, listing)| Some((folder, listing.write()?)))
            .collect();
        if written.is_empty() {
            return;
        }
        database.with(|connection| {
            let transaction = connection.transaction()?;
            for (folder, written) in &written {
                let folder = folder.as_os_str().as_encoded_bytes();
                match written {
                    Written::Changes(bytes) => {
                        let sql = "INSERT OR REPLACE INTO changes VALUES (?1, ?2)";
                        transaction.prepare_cached(sql)?.execute(params![folder, bytes])?;
                    }
                    Written::Base(bytes) => {
                        let sql = "INSERT OR REPLACE INTO listings VALUES (?1, ?2)";
                        transaction.prepare_cached(sql)?.execute(params![folder, bytes])?;
                        let sql = "DELETE FROM changes WHERE folder = ?1";
                        transaction.prepare_cached(sql)?.execute([folder])?;
                    }
                }
            }
            transaction.commit()
        });
    }
}

fn split(path: &Path) -> Option<(&Path, &str)> {
    Some((path.parent()?, path.file_name()?.to_str()?))
}

fn load(database: &Database, folder: &Path) -> Listing {
    let key = folder.as_os_str().as_encoded_bytes();
    let found = database.with(|connection| {
        let sql = "SELECT base, changes FROM listings LEFT JOIN changes USING (folder) \
                   WHERE folder = ?1";
        let mut query = connection.prepare_cached(sql)?;
        query
            .query_row([key], |row| {
                let (base, changes) = (row.get_ref(0)?, row.get_ref(1)?);
                Ok(Listing::decode(base.as_blob()?, changes.as_blob_or_null()?))
            })
            .optional()
    });
    found.flatten().unwrap_or_default()
}
