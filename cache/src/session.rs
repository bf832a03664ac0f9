//! [`Session`]: a process's own folder below `tmp/`, for what is not finished.
//!
//! The process holds a lock on a file in it for as long as it lives. A folder whose lock is free
//! belongs to a process that was killed: the next one to make its own removes it, and ends the
//! commands that still work for nobody in it. They are known by their `TMPDIR`, which is in it.
//!
//! The folder of an action is emptied and used again. A new one for each would take and free an inode
//! or more each time, and ext4 passes over those that were freed of late one by one: with thousands of
//! actions that search took half of all processor time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The lock's name in a session's folder.
const LOCK: &str = "lock";
/// The name of the list of temporary files elsewhere, a path ended by a zero byte each.
const ELSEWHERE: &str = "elsewhere";
/// How the name of such a file begins.
const PREFIX: &str = ".quantmill-";
/// The folders in the folder of an action: for its outputs, and for whatever else.
const PARTS: [&str; 2] = ["out", "tmp"];

/// The folder of this process.
#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    _lock: std::fs::File,
    next: AtomicU64,
    idle: Mutex<Vec<PathBuf>>,
}

impl Session {
    /// Makes a folder below `tmp`, and removes those of the dead. `since` is when this process began
    /// to use the store.
    pub(crate) fn begin(tmp: &Path, since: SystemTime) -> io::Result<Session> {
        fs_err::create_dir_all(tmp)?;
        // Held while a session is made, so that nobody takes it for dead before it has its lock.
        let gate = lock_file(&tmp.join(LOCK))?;
        gate.lock()?;
        sweep(tmp)?;
        let prefix = format!("{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(tmp)?.keep();
        let lock = lock_file(&folder.join(LOCK))?;
        lock.lock()?;
        lock.set_modified(since)?;
        Ok(Session { folder, _lock: lock, next: AtomicU64::new(0), idle: Mutex::default() })
    }

    /// A path that nobody else uses.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A path in another folder, on another file system, that nobody else uses. Whoever clears away
    /// after a killed process removes what lies there.
    pub(crate) fn fresh_in(&self, folder: &Path) -> io::Result<PathBuf> {
        let session = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = std::path::absolute(folder)?.join(format!("{PREFIX}{session}-{number}"));
        let mut line = path.as_os_str().as_encoded_bytes().to_vec();
        line.push(0);
        lock_file(&self.folder.join(ELSEWHERE))?.write_all(&line)?;
        Ok(path)
    }

    /// Folders of actions that have ended, empty.
    fn idle(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// When the oldest session of a living process began; `None` where there is none.
pub(crate) fn oldest(tmp: &Path) -> Option<SystemTime> {
    let folders = std::fs::read_dir(tmp).ok()?.flatten();
    folders
        .filter_map(|entry| {
            let file = std::fs::File::open(entry.path().join(LOCK)).ok()?;
            if file.try_lock().is_ok() {
                return None;
            }
            file.metadata().and_then(|meta| meta.modified()).ok()
        })
        .min()
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
            forget_elsewhere(&entry.path());
            swept += usize::from(std::fs::remove_dir_all(entry.path()).is_ok());
        }
    }
    Ok(swept)
}

/// Removes what a dead session had begun to write elsewhere.
fn forget_elsewhere(session: &Path) {
    let list = std::fs::read(session.join(ELSEWHERE)).unwrap_or_default();
    for path in list.split(|byte| *byte == 0).filter_map(|path| std::str::from_utf8(path).ok()) {
        let path = Path::new(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_absolute() && name.starts_with(PREFIX) {
            let _ = std::fs::remove_file(path);
        }
    }
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

/// A folder for one action, emptied when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    session: Arc<Session>,
}

impl Scratch {
    pub(crate) fn make(session: Arc<Session>) -> io::Result<Scratch> {
        let path = session.fresh();
        let idle = session.idle().pop();
        if let Some(idle) = idle {
            // By another name: a process that outlived its action does not write into this one's.
            fs_err::rename(idle, &path)?;
            return Ok(Scratch { path, session });
        }
        fs_err::create_dir(&path)?;
        for part in PARTS {
            fs_err::create_dir(path.join(part))?;
        }
        Ok(Scratch { path, session })
    }

    /// Where outputs go; empty at the start.
    pub fn outputs(&self) -> PathBuf {
        self.path.join(PARTS[0])
    }

    /// For whatever else; empty at the start.
    pub fn path(&self) -> PathBuf {
        self.path.join(PARTS[1])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match empty(&self.path) {
            Ok(()) => self.session.idle().push(std::mem::take(&mut self.path)),
            // What somebody made of it cannot be used again.
            Err(_) => drop(std::fs::remove_dir_all(&self.path)),
        }
    }
}

/// Removes all that an action has left. Fails where the parts are not what they were.
fn empty(scratch: &Path) -> io::Result<()> {
    let mut parts = 0;
    for entry in std::fs::read_dir(scratch)? {
        let entry = entry?;
        if PARTS.iter().any(|part| entry.file_name() == *part) && ours(&entry.metadata()?) {
            parts += 1;
            for left in std::fs::read_dir(entry.path())? {
                remove(&left?)?;
            }
        } else {
            remove(&entry)?;
        }
    }
    if parts == PARTS.len() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Whether it is a folder (no link to one) that its owner can use.
fn ours(meta: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    let open = std::os::unix::fs::MetadataExt::mode(meta) & 0o700 == 0o700;
    #[cfg(not(unix))]
    let open = !meta.permissions().readonly();
    meta.is_dir() && open
}

fn remove(entry: &std::fs::DirEntry) -> io::Result<()> {
    match entry.file_type()?.is_dir() {
        true => std::fs::remove_dir_all(entry.path()),
        false => std::fs::remove_file(entry.path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let since = SystemTime::UNIX_EPOCH;
        let living = Session::begin(dir.path(), since).unwrap();
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
        let other = Session::begin(dir.path(), SystemTime::now()).unwrap();
        assert!(living.folder.is_dir() && other.folder.is_dir() && !dead.exists());
        #[cfg(target_os = "linux")]
        {
            assert!(!orphan.wait().unwrap().success());
            assert!(worker.try_wait().unwrap().is_none());
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
        assert_eq!(oldest(dir.path()), Some(since));
        drop((living, other));
        assert_eq!(oldest(dir.path()), None);
    }

    #[test]
    fn what_the_dead_began_elsewhere_goes_and_nothing_else() {
        let (tmp, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let living = Session::begin(tmp.path(), SystemTime::now()).unwrap();
        let dead = Session::begin(tmp.path(), SystemTime::now()).unwrap();
        let paths = [&living, &dead, &dead].map(|s| s.fresh_in(dir.path()).unwrap());
        let kept = dir.path().join("kept");
        for path in paths.iter().chain([&kept]) {
            fs_err::write(path, "half").unwrap();
        }
        // A list that was torn, or that somebody wrote into, removes nothing else.
        let mut list = lock_file(&dead.folder.join(ELSEWHERE)).unwrap();
        list.write_all(kept.as_os_str().as_encoded_bytes()).unwrap();
        // As a kill leaves it: the folder is there, and its lock is free.
        let folder = dead.folder.clone();
        let copy = tmp.path().join("1-copy");
        fs_err::create_dir(&copy).unwrap();
        for name in [LOCK, ELSEWHERE] {
            fs_err::copy(folder.join(name), copy.join(name)).unwrap();
        }
        drop(dead);
        assert_eq!(clear(tmp.path()).unwrap(), 1);
        assert_eq!(paths.map(|path| path.exists()), [true, false, false]);
        assert!(kept.exists() && !copy.exists());
    }

    /// A kill on the way would leave a file beside `to`: whoever clears up has to know of it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_blob_goes_to_another_file_system_by_way_of_a_file_that_is_listed() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path()).unwrap();
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
        let device = |path: &Path| fs_err::metadata(path).unwrap().dev();
        if device(dir.path()) == device(other.path()) {
            return;
        }
        let digest = store.put(b"alpha").unwrap();
        let to = other.path().join("deep/out");
        store.write_file(&digest, false, &to).unwrap();
        assert_eq!(fs_err::read(&to).unwrap(), b"alpha");
        assert_eq!(fs_err::read_dir(to.parent().unwrap()).unwrap().count(), 1);
        let list = store.fresh().unwrap().with_file_name("elsewhere");
        let list = fs_err::read_to_string(list).unwrap();
        assert!(list.starts_with(&*other.path().join("deep/.quantmill-").to_string_lossy()));
    }

    #[test]
    fn a_folder_is_used_again_only_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let session = Arc::new(Session::begin(dir.path(), SystemTime::now()).unwrap());
        let make = || Scratch::make(Arc::clone(&session)).unwrap();
        let first = make();
        let place = first.path.clone();
        for name in ["out/a/b", "tmp/c", "d"] {
            fs_err::create_dir_all(place.join(name).parent().unwrap()).unwrap();
            fs_err::write(place.join(name), "left").unwrap();
        }
        drop(first);
        let again = make();
        let old = place;
        let place = again.path.clone();
        assert!(!old.exists() && session.idle().is_empty());
        for part in [place.clone(), again.outputs(), again.path()] {
            let left = fs_err::read_dir(&part).unwrap().count();
            assert_eq!(left, if part == place { PARTS.len() } else { 0 });
        }
        let elsewhere = tempfile::tempdir().unwrap();
        fs_err::write(elsewhere.path().join("kept"), "").unwrap();
        fs_err::remove_dir(again.path()).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(elsewhere.path(), again.path()).unwrap();
        drop(again);
        assert!(elsewhere.path().join("kept").exists() && !place.exists());
        assert!(session.idle().is_empty());
    }
}
