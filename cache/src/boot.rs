//! Which boot of the machine this is, and one sync for many files.
//!
//! A file that was written but not synced is whole for everybody until the machine goes down. So what
//! is written now need not be synced file by file: it is believed for as long as the machine has not
//! been booted anew, and for good once one [`sync`] of its file system has returned. Where there is no
//! name for a boot, each file is synced on its own.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

/// A name for the time since the machine was last booted, where there is one.
pub(crate) fn id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    ID.get_or_init(|| {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let text = text.trim();
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (plain && !text.is_empty()).then(|| text.to_owned())
    })
    .as_deref()
}

/// Returns once all that was written to the file system of `folder` is on its disk.
#[cfg(target_os = "linux")]
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fs_err::File::open(folder)?)?)
}

/// Files are synced one by one here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}
