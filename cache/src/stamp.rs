//! [`Stamp`]: what the file system says of a file's content without reading it.
//!
//! Length, inode, mode, the times of the last write and of the last change of the inode. An edit
//! that keeps length and write time still changes the latter. File systems may tell time in ticks of
//! some milliseconds, so that a second edit within a tick would go unseen: a stamp is worth
//! remembering only once it has [settled](Stamp::settled), or when we wrote the file ourselves and
//! gave it a write time that no tick has (see [`Stamp::written_at`]).

use std::fs::Metadata;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file whose inode changed this recently may change again within one tick of the file system's
/// clock: what we know of it is not remembered.
pub const TICK: Duration = Duration::from_millis(20);

/// How a file looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stamp {
    len: u64,
    inode: u64,
    mode: u32,
    /// Nanoseconds since 1970, both.
    written: i64,
    changed: i64,
}

impl Stamp {
    /// Bytes of its binary form.
    pub const SIZE: usize = 36;

    /// The stamp of a file now; links are followed.
    pub fn read(path: &Path) -> std::io::Result<Stamp> {
        Ok(Stamp::of(&fs_err::metadata(path)?))
    }

    /// The stamp of a file below an open folder: the system need not walk the way to it.
    #[cfg(unix)]
    pub fn at(
        folder: impl std::os::fd::AsFd,
        name: impl rustix::path::Arg,
    ) -> std::io::Result<Stamp> {
        let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::empty())?;
        // The types of the fields differ between systems.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        Ok(Stamp {
            len: stat.st_size as u64,
            inode: stat.st_ino as u64,
            mode: u32::from(stat.st_mode),
            written: join(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: join(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        })
    }

    /// The stamp in what the file system has told already.
    #[cfg(unix)]
    pub fn of(meta: &Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        Stamp {
            len: meta.len(),
            inode: meta.ino(),
            mode: meta.mode(),
            written: join(meta.mtime(), meta.mtime_nsec()),
            changed: join(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// The stamp in what the file system has told already.
    #[cfg(not(unix))]
    pub fn of(meta: &Metadata) -> Stamp {
        let written = meta.modified().map(nanos).unwrap_or_default();
        Stamp { len: meta.len(), inode: 0, mode: 0, written, changed: written }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a file without bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether its owner may execute it.
    pub fn executable(&self) -> bool {
        self.mode & 0o100 != 0
    }

    /// False where the last change is so recent that another could carry the same time, or where it
    /// lies in the future. `now` is a time at or before the stamp was taken.
    pub fn settled(&self, now: SystemTime) -> bool {
        nanos(now) > self.changed.saturating_add(TICK.as_nanos() as i64)
    }

    /// Whether the last write was ours: right after we wrote the file we set its write time to a
    /// moment between two ticks, which no other writer gets.
    pub(crate) fn written_at(&self, time: SystemTime) -> bool {
        self.written == nanos(time) && time.duration_since(UNIX_EPOCH).is_ok()
    }

    /// Its binary form.
    pub fn bytes(&self) -> [u8; Stamp::SIZE] {
        let mut out = [0; Stamp::SIZE];
        out[..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..16].copy_from_slice(&self.inode.to_le_bytes());
        out[16..24].copy_from_slice(&self.written.to_le_bytes());
        out[24..32].copy_from_slice(&self.changed.to_le_bytes());
        out[32..].copy_from_slice(&self.mode.to_le_bytes());
        out
    }

    /// Reads the binary form.
    pub fn from_bytes(bytes: &[u8; Stamp::SIZE]) -> Stamp {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let mut mode = [0; 4];
        mode.copy_from_slice(&bytes[32..]);
        Stamp {
            len: word(0),
            inode: word(8),
            mode: u32::from_le_bytes(mode),
            written: word(16) as i64,
            changed: word(24) as i64,
        }
    }
}

#[cfg(unix)]
fn join(seconds: i64, nanos: i64) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}

fn nanos(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_form_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs_err::write(&path, "bytes").unwrap();
        let stamp = Stamp::read(&path).unwrap();
        assert_eq!(Stamp::from_bytes(&stamp.bytes()), stamp);
        assert_eq!(stamp.len(), 5);
    }

    #[test]
    fn a_fresh_file_and_one_of_the_future_are_not_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs_err::write(&path, "bytes").unwrap();
        let (stamp, now) = (Stamp::read(&path).unwrap(), SystemTime::now());
        assert!(!stamp.settled(now - Duration::from_secs(60)), "the clock was set back");
        assert!(stamp.settled(now + TICK * 2));
    }
}
