//! [`Session`]: a process's own folder below `tmp/`, for what is not finished.
//!
//! The process holds a lock on a file in it for as long as it lives. A folder whose lock is free
//! belongs to a process that was killed: the next one to make its own removes it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The lock's name in a session's folder.
const LOCK: &str = "lock";

/// The folder of this process.
#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    _lock: std::fs::File,
    next: AtomicU64,
}

impl Session {
    /// Makes a folder below `tmp`, and removes those of the dead.
    pub(crate) fn begin(tmp: &Path) -> io::Result<Session> {
        fs_err::create_dir_all(tmp)?;
        // Held while a session is made, so that nobody takes it for dead before it has its lock.
        let gate = lock_file(&tmp.join(LOCK))?;
        gate.lock()?;
        sweep(tmp)?;
        let prefix = format!("{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(tmp)?.keep();
        let lock = lock_file(&folder.join(LOCK))?;
        lock.lock()?;
        Ok(Session { folder, _lock: lock, next: AtomicU64::new(0) })
    }

    /// A path that nobody else uses.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Removes what killed processes left below `tmp`; says how many folders that were.
pub(crate) fn sweep(tmp: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs_err::read_dir(tmp)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let lock = std::fs::OpenOptions::new().append(true).open(entry.path().join(LOCK));
        let alive = lock.as_ref().is_ok_and(|lock| lock.try_lock().is_err());
        if !alive && std::fs::remove_dir_all(entry.path()).is_ok() {
            swept += 1;
        }
    }
    Ok(swept)
}

fn lock_file(path: &Path) -> io::Result<std::fs::File> {
    Ok(fs_err::OpenOptions::new().create(true).append(true).open(path)?.into_parts().0)
}

/// A folder for one action, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    // Keeps the session's folder.
    _session: std::sync::Arc<Session>,
}

impl Scratch {
    pub(crate) fn make(session: std::sync::Arc<Session>) -> io::Result<Scratch> {
        let path = session.fresh();
        fs_err::create_dir(&path)?;
        Ok(Scratch { path, _session: session })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let living = Session::begin(dir.path()).unwrap();
        let dead = dir.path().join("1-dead");
        fs_err::create_dir_all(dead.join("7/out")).unwrap();
        fs_err::write(dead.join(LOCK), "").unwrap();
        let other = Session::begin(dir.path()).unwrap();
        assert!(living.folder.is_dir() && other.folder.is_dir() && !dead.exists());
    }
}
