//! [`Session`]: a process's own folder below `tmp/`, for what is not finished.
//!
//! The process holds a lock on a file in it for as long as it lives. A folder whose lock is free
//! belongs to a process that was killed: the next one to make its own removes it, and ends the
//! commands that still work for nobody in it. They are known by their `TMPDIR`, which is in it.

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

/// Removes what killed processes left below `tmp`, at a time when nobody makes a session; says how
/// many folders that were.
pub(crate) fn clear(tmp: &Path) -> io::Result<usize> {
    let gate = lock_file(&tmp.join(LOCK))?;
    gate.lock()?;
    sweep(tmp)
}

fn sweep(tmp: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs_err::read_dir(tmp)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let lock = std::fs::OpenOptions::new().append(true).open(entry.path().join(LOCK));
        let alive = lock.as_ref().is_ok_and(|lock| lock.try_lock().is_err());
        if !alive {
            orphans::end(&entry.path());
            swept += usize::from(std::fs::remove_dir_all(entry.path()).is_ok());
        }
    }
    Ok(swept)
}

#[cfg(target_os = "linux")]
mod orphans {
    use std::path::Path;
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process};

    /// Ends every process whose temporary folder lies in a dead session's, and waits until they are
    /// gone. What they would write, and where, is nobody's any more.
    pub fn end(session: &Path) {
        let mut mark = b"TMPDIR=".to_vec();
        mark.extend(session.as_os_str().as_encoded_bytes());
        mark.push(b'/');
        // A killed process goes at once, unless the kernel holds it: then nobody can help.
        for _ in 0..100 {
            let found = working(&mark);
            if found.is_empty() {
                return;
            }
            for pid in found {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn working(mark: &[u8]) -> Vec<Pid> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let marked = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(mark))
        };
        pids.filter(marked).filter_map(Pid::from_raw).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod orphans {
    /// There is no way to see what a process works for: its folder goes, and it fails by itself.
    pub fn end(_: &std::path::Path) {}
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
        #[cfg(target_os = "linux")]
        let busy = |folder: &Path| {
            let mut command = std::process::Command::new("sleep");
            command.arg("60").env("TMPDIR", folder.join("7/tmp")).spawn()
        };
        fs_err::create_dir_all(dead.join("7/out")).unwrap();
        fs_err::write(dead.join(LOCK), "").unwrap();
        #[cfg(target_os = "linux")]
        let (mut orphan, mut worker) = (busy(&dead).unwrap(), busy(&living.folder).unwrap());
        let other = Session::begin(dir.path()).unwrap();
        assert!(living.folder.is_dir() && other.folder.is_dir() && !dead.exists());
        #[cfg(target_os = "linux")]
        {
            assert!(!orphan.wait().unwrap().success());
            assert!(worker.try_wait().unwrap().is_none());
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
    }
}
