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
        let path = self.home.join("claims").join(key.to_string());
        let file = fs_err::OpenOptions::new().create(true).append(true).open(&path)?;
        let file = file.into_parts().0;
        while !cancel.is_cancelled() {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Claim { path, _file: file })),
                Err(std::fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The right to run an action; given back when dropped, or when the process ends.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _file: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Whoever waits on the removed file gets it, looks the action up, and finds it done.
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
