//! [`Stamp`]: what the file system says of a file's content without reading it.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file whose inode changed this recently may change again within one tick of the file system's
/// clock: what is known of it is not remembered.
pub const TICK: Duration = Duration::from_millis(20);

/// Length, inode, mode, and the times (seconds, nanoseconds) of the last write and of the last change
/// of the inode. An edit that keeps length and write time still changes the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([i64; 7]);

impl Stamp {
    /// Bytes of [`Stamp::bytes`].
    pub const SIZE: usize = 56;

    /// The stamp of a file now.
    pub fn read(path: &Path) -> std::io::Result<Stamp> {
        Ok(Stamp::of(&fs_err::metadata(path)?))
    }

    /// The stamp of a file, from what the system says of it.
    #[cfg(unix)]
    pub fn of(meta: &std::fs::Metadata) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        Stamp([
            meta.len() as i64,
            meta.ino() as i64,
            i64::from(meta.mode()),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ])
    }

    /// The stamp of a file, from what the system says of it.
    #[cfg(not(unix))]
    pub fn of(meta: &std::fs::Metadata) -> Stamp {
        let since = |time: std::io::Result<SystemTime>| {
            let time = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            time.unwrap_or_default().as_nanos() as i64
        };
        let written = since(meta.modified());
        let (seconds, rest) = (written / 1_000_000_000, written % 1_000_000_000);
        Stamp([meta.len() as i64, 0, 0, seconds, rest, seconds, rest])
    }

    /// The stamp of a file below an open folder: the system need not walk the way to it.
    #[cfg(unix)]
    pub fn at(folder: impl std::os::fd::AsFd, name: &std::ffi::CStr) -> std::io::Result<Stamp> {
        let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::empty())?;
        // The types of the fields differ between systems.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        Ok(Stamp([
            stat.st_size as i64,
            stat.st_ino as i64,
            i64::from(stat.st_mode),
            stat.st_mtime as i64,
            stat.st_mtime_nsec as i64,
            stat.st_ctime as i64,
            stat.st_ctime_nsec as i64,
        ]))
    }

    /// The stamp as it is written down.
    pub fn bytes(&self) -> [u8; Stamp::SIZE] {
        let mut bytes = [0; Stamp::SIZE];
        for (to, part) in bytes.chunks_exact_mut(8).zip(self.0) {
            to.copy_from_slice(&part.to_le_bytes());
        }
        bytes
    }

    /// False where the last change was so recent when the stamp was taken that another could carry
    /// the same time. `at` is a moment before that, and before the content was read.
    pub fn settled(&self, at: SystemTime) -> bool {
        let [.., seconds, rest] = self.0;
        let changed = Duration::new(seconds.max(0) as u64, rest.clamp(0, 999_999_999) as u32);
        at.duration_since(UNIX_EPOCH).unwrap_or_default() > changed + TICK
    }
}
