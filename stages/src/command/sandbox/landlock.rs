//! Keeps a command to its places by Landlock, the Linux kernel's sandbox for everybody.
//!
//! A thread that is about to spawn the command restricts itself and passes that on; it then ends.
//! So the command can be spawned without a fork, and nothing of this process is restricted.
//! What it cannot stop: the names and times of files (`stat`) and lists of folders can be seen
//! everywhere in the pipeline's folder, and UDP is open.

use std::path::Path;
use std::process::{Child, Command};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::places::{DEVICES, Places, SHARED, SYSTEM};
use crate::{Result, StageError};

/// The newest version whose rights are known here.
const NEWEST: ABI = ABI::V7;

/// Folders with more inputs than this that are not an input as a whole are opened as a whole; what a
/// command then reads too many, the trace tells.
const RULES: usize = 4096;

/// Spawns a command that can do no more than the places say. Returns also what is in force.
pub fn spawn(command: &mut Command, places: &Places) -> Result<(Child, String)> {
    let spawn = || {
        let status = rules(places).and_then(RulesetCreated::restrict_self).map_err(failed)?;
        if status.ruleset == RulesetStatus::NotEnforced {
            return Err(missing());
        }
        let version = match status.landlock {
            landlock::LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
            _ => 0,
        };
        Ok((command.spawn()?, format!("landlock {version}")))
    };
    // No thread of this process but this one may be restricted: it cannot be taken back.
    std::thread::scope(|scope| scope.spawn(spawn).join())
        .unwrap_or_else(|_| Err(StageError::failed("the thread that starts the command panicked")))
}

fn missing() -> StageError {
    StageError::failed("`sandbox: strict` needs Landlock, which this kernel lacks")
        .hint("Linux 5.13 or later has it; `sandbox: trace` tells instead of refusing")
}

fn failed(error: RulesetError) -> StageError {
    StageError::failed(format!("`sandbox: strict` could not be set up: {error}"))
        .hint("`sandbox: trace` tells instead of refusing")
}

fn rules(places: &Places) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::from_read(NEWEST);
    let devices = AccessFs::from_file(NEWEST) | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| {
        // What is not there needs no rule.
        let Ok(fd) = PathFd::new(path) else { return Ok(()) };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        (&mut rules).add_rule(PathBeneath::new(fd, access)).map(drop)
    };
    for path in SYSTEM.map(Path::new).into_iter().chain(places.programs.iter().map(AsRef::as_ref)) {
        allow(path, read)?;
    }
    for path in DEVICES {
        allow(Path::new(path), devices)?;
    }
    let devices_of_gpus = fs_err::read_dir("/dev").into_iter().flatten().flatten();
    for entry in devices_of_gpus {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if ["nvidia", "dri", "kfd"].iter().any(|gpu| name.starts_with(gpu)) {
            allow(&entry.path(), devices)?;
        }
    }
    allow(&places.dir, AccessFs::ReadDir.into())?;
    for path in &places.folders {
        allow(path, read)?;
    }
    if places.files.len() <= RULES {
        for path in &places.files {
            allow(path, read)?;
        }
    } else {
        let mut folders: Vec<&Path> =
            places.files.iter().filter_map(|path| path.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        for path in folders {
            allow(path, read)?;
        }
    }
    allow(Path::new(SHARED), all)?;
    // A file in the workspace may be written, but not made, moved or removed.
    for path in places.own.iter().chain(&places.outputs) {
        allow(path, all)?;
    }
    Ok(rules)
}
