//! Where a workspace keeps what it knows: `.quantmill/` with the store, the index and the runs.
//!
//! One folder serves every pipeline of a repository, so that pipelines share what they have in
//! common. Any number of runs may use it at once: an action is claimed by a lock that the operating
//! system drops with its owner, so nothing is left to clean up after a kill.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quantmill_cache::{Claim, Claims, Digest, Index, IndexError, Store};
use quantmill_stages::Cancel;

/// The folder's name.
pub const FOLDER: &str = ".quantmill";

/// The folder below it of what unfinished actions keep to go on from, one each by its key.
pub const RESUME: &str = "resume";

/// How often a run asks for an action that another has claimed.
const PATIENCE: Duration = Duration::from_millis(20);

/// An open state folder.
#[derive(Debug)]
pub struct State {
    /// The folder.
    pub home: PathBuf,
    /// Bytes by digest.
    pub store: Store,
    /// Results by action, digests by file.
    pub index: Index,
    claims: Option<Claims>,
    /// Held for as long as the state is open, and alone by a `gc` that may take everything.
    _gate: Option<File>,
}

impl State {
    /// Opens the folder, making what is not there. One that cannot be written can still be read.
    /// Waits while a `cache gc` is at work alone.
    pub fn open(home: PathBuf) -> Result<State, IndexError> {
        let store = Store::open(&home)?;
        let gate = if store.writable() { Some(gate(&home)?) } else { None };
        if let Some(gate) = &gate
            && let Err(TryLockError::WouldBlock) = gate.try_lock_shared()
        {
            eprintln!("waiting for `quantmill cache gc` to end");
            gate.lock_shared()?;
        }
        State::with(home, store, gate)
    }

    /// Opens the folder, if possible with nobody else in it; the flag says whether that is so.
    pub fn alone(home: PathBuf) -> Result<(State, bool), IndexError> {
        let store = Store::open(&home)?;
        if !store.writable() {
            return Ok((State::with(home, store, None)?, false));
        }
        let gate = gate(&home)?;
        let alone = match gate.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                gate.lock_shared()?;
                false
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        };
        Ok((State::with(home, store, Some(gate))?, alone))
    }

    fn with(home: PathBuf, store: Store, gate: Option<File>) -> Result<State, IndexError> {
        let index = Index::open(&store)?;
        let claims = if store.writable() {
            fs_err::create_dir_all(home.join("runs"))?;
            Some(Claims::open(&home)?)
        } else {
            None
        };
        Ok(State { home, store, index, claims, _gate: gate })
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
        let read_only = || std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
        let claims = self.claims.as_ref().ok_or_else(read_only)?;
        let mut waited = false;
        while !stop() {
            if let Some(claim) = claims.take(name)? {
                if waited {
                    // Its owner may have been killed, and left a command that still writes.
                    self.store.sweep()?;
                }
                return Ok(Some(claim));
            }
            waited = true;
            std::thread::sleep(PATIENCE);
        }
        Ok(None)
    }
}

fn gate(home: &Path) -> std::io::Result<File> {
    let path = home.join("gc.lock");
    Ok(fs_err::OpenOptions::new().create(true).append(true).open(path)?.into_parts().0)
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
