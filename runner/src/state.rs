//! Where a workspace keeps what it knows: `.quantmill/` with the store, the index and the runs.
//!
//! One folder serves every pipeline of a repository, so that pipelines share what they have in
//! common. Any number of runs may use it at once: an action is claimed by a lock that the operating
//! system drops with its owner, so nothing is left to clean up after a kill.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quantmill_cache::{Digest, Index, IndexError, Store};
use quantmill_stages::Cancel;

/// The folder's name.
pub const FOLDER: &str = ".quantmill";

/// An open state folder.
#[derive(Debug)]
pub struct State {
    /// The folder.
    pub home: PathBuf,
    /// Bytes by digest.
    pub store: Store,
    /// Results by action, digests by file.
    pub index: Index,
}

impl State {
    /// Opens the folder, making what is not there.
    pub fn open(home: PathBuf) -> Result<State, IndexError> {
        let store = Store::open(&home)?;
        let index = Index::open(&home)?;
        fs_err::create_dir_all(home.join("claims"))?;
        fs_err::create_dir_all(home.join("runs"))?;
        Ok(State { home, store, index })
    }

    /// Waits until no other run works on the action, then holds it. `None` where it was cancelled.
    pub fn claim(&self, key: &Digest, cancel: &Cancel) -> std::io::Result<Option<Claim>> {
        self.hold(key, || cancel.is_cancelled())
    }

    /// Waits until no other run writes a stage's outputs, of which the first goes to `place`, then
    /// holds it: the outputs of two runs do not mix.
    pub fn turn(&self, place: &Path) -> std::io::Result<Option<Claim>> {
        let place = std::path::absolute(place)?;
        let name = Digest::derive("quantmill 2026 place", place.as_os_str().as_encoded_bytes());
        self.hold(&name, || false)
    }

    fn hold(&self, name: &Digest, stop: impl Fn() -> bool) -> std::io::Result<Option<Claim>> {
        let path = self.home.join("claims").join(name.to_string());
        while !stop() {
            let file = fs_err::OpenOptions::new().create(true).append(true).open(&path)?;
            let file = file.into_parts().0;
            match file.try_lock() {
                Ok(()) if stands(&file, &path) => return Ok(Some(Claim { path, _file: file })),
                // It was given back, and removed, between the two steps.
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Whether the open file is still the one of that name: of two that hold a lock, one may hold that
/// of a file which the other's owner has removed.
#[cfg(unix)]
fn stands(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |meta: std::io::Result<std::fs::Metadata>| meta.ok().map(|meta| meta.ino());
    number(file.metadata()) == number(std::fs::metadata(path))
}

#[cfg(not(unix))]
fn stands(_: &File, _: &Path) -> bool {
    // An open file cannot be removed there.
    true
}

/// The right to run an action or to write its outputs; given back when dropped, or when the process
/// ends.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _file: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Before the lock goes, so that nobody finds a file that is about to be removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The state folder of a pipeline: `QUANTMILL_HOME`, else the `.quantmill` beside the nearest `.git`
/// or the one that is there already, else one in the pipeline's own folder.
pub fn locate(dir: &Path) -> PathBuf {
    if let Some(home) = std::env::var_os("QUANTMILL_HOME").filter(|home| !home.is_empty()) {
        return home.into();
    }
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let root = dir.ancestors().find(|up| up.join(FOLDER).is_dir() || up.join(".git").exists());
    root.unwrap_or(&dir).join(FOLDER)
}
