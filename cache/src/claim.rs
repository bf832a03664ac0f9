//! [`Claims`]: who works on which action, or writes to which place, across processes.
//!
//! One file is the table: the claim on an action is a lock on the byte whose place is the first 63
//! bits of its key. Nothing is created or removed for a claim, and the operating system drops it with
//! the process that holds it, however that ends. Within a process a set does the same. Nobody asks for
//! a claim while holding another, so that waiting ends.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Digest;

/// The claims below a home folder.
#[derive(Clone, Debug)]
pub struct Claims(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: std::fs::File,
    here: Mutex<HashSet<i64>>,
}

/// The right to run an action; given back when dropped, or when the process ends.
#[derive(Debug)]
pub struct Claim {
    inner: Arc<Inner>,
    place: i64,
}

impl Claims {
    /// The table of a home folder, made where there is none.
    pub fn open(home: &Path) -> io::Result<Claims> {
        let path = home.join("locks");
        let file = fs_err::OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let inner = Inner { file: file.into_parts().0, here: Mutex::default() };
        Ok(Claims(Arc::new(inner)))
    }

    /// The claim on an action, unless somebody has it.
    pub fn take(&self, key: &Digest) -> io::Result<Option<Claim>> {
        let mut first = [0; 8];
        first.copy_from_slice(&key.as_bytes()[..8]);
        // The last place has none after it.
        let place = (i64::from_le_bytes(first) & i64::MAX).min(i64::MAX - 1);
        let mut here = self.0.here();
        if here.contains(&place) || !lock(&self.0.file, place)? {
            return Ok(None);
        }
        here.insert(place);
        Ok(Some(Claim { inner: Arc::clone(&self.0), place }))
    }
}

impl Inner {
    fn here(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut here = self.inner.here();
        here.remove(&self.place);
        unlock(&self.inner.file, self.place);
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
fn set(file: &std::fs::File, place: i64, kind: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: all zeros is a valid `flock`, and the pointer outlives the call.
    let done = unsafe {
        let mut range: libc::flock = std::mem::zeroed();
        range.l_type = kind as _;
        range.l_whence = libc::SEEK_SET as _;
        range.l_start = place;
        range.l_len = 1;
        libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
fn lock(file: &std::fs::File, place: i64) -> io::Result<bool> {
    match set(file, place, libc::F_WRLCK as _) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
fn unlock(file: &std::fs::File, place: i64) {
    let _ = set(file, place, libc::F_UNLCK as _);
}

// Without byte ranges that belong to an open file, processes may do an action twice; each result is
// whole, and the last one is kept.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos")))]
fn lock(_: &std::fs::File, _: i64) -> io::Result<bool> {
    Ok(true)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos")))]
fn unlock(_: &std::fs::File, _: i64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_one_claim_whoever_asks() {
        let dir = tempfile::tempdir().unwrap();
        // Two tables are as good as two processes: the lock belongs to the open file.
        let (one, two) = (Claims::open(dir.path()).unwrap(), Claims::open(dir.path()).unwrap());
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let held = one.take(&a).unwrap().unwrap();
        assert!(one.take(&a).unwrap().is_none());
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos"))]
        assert!(two.take(&a).unwrap().is_none());
        let other = two.take(&b).unwrap();
        assert!(other.is_some(), "another action is nobody's");
        drop(held);
        assert!(two.take(&a).unwrap().is_some());
    }
}
