//! What a `gc` must keep: every digest that a lock file of the workspace or the record of a run names.
//!
//! Both are read as text, and whatever looks like a digest counts: the key of an action, an input, an
//! output. A format that changes can so never lose anything; at worst too much is kept.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use quantmill_cache::Digest;

use crate::experiment::{account, history};
use crate::{lock, state};

/// Folders that hold what tools make and no pipeline.
const SKIPPED: [&str; 5] = ["target", "node_modules", "venv", "__pycache__", "dist"];

/// The lock files of the workspace, which is all below the folder that holds the state folder, hidden
/// folders and those of build tools aside; and those of every pipeline that a run was of.
pub fn locks(home: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    // A state folder that was moved elsewhere lies in no workspace: then the runs tell.
    if home.file_name().is_some_and(|name| name == state::FOLDER)
        && let Some(root) = home.parent()
    {
        below(root, &mut found)?;
    }
    for run in history::ids(home)? {
        let account = account::read(home, &run);
        let Some(setting) = account.map(|account| account.setting) else { continue };
        let pipeline = setting.dir.join(setting.texts.first().unwrap_or(&setting.pipeline));
        found.push(lock::path(&pipeline));
    }
    found.retain(|path| path.is_file());
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn below(root: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let (name, path, kind) = {
                let entry = entry?;
                (entry.file_name(), entry.path(), entry.file_type()?)
            };
            let name = name.to_string_lossy();
            if kind.is_dir() {
                let passed = name.starts_with('.') || SKIPPED.contains(&&*name);
                open.extend((!passed).then_some(path));
            } else if name.ends_with(".lock") && pipeline(&path).is_some() {
                found.push(path);
            }
        }
    }
    Ok(())
}

/// The pipeline file that a lock belongs to.
pub fn pipeline(lock: &Path) -> Option<PathBuf> {
    ["yaml", "yml"].iter().map(|end| lock.with_extension(end)).find(|path| path.is_file())
}

/// Adds every digest in a file.
pub fn add(file: &Path, roots: &mut HashSet<Digest>) -> std::io::Result<()> {
    let bytes = fs_err::read(file)?;
    let words = bytes.split(|byte| !byte.is_ascii_hexdigit());
    roots.extend(words.filter_map(Digest::from_hex));
    Ok(())
}

/// Adds every digest in the record of a run.
pub fn add_run(folder: &Path, roots: &mut HashSet<Digest>) -> std::io::Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            add(&entry.path(), roots)?;
        }
    }
    Ok(())
}

/// The pipeline and the stage that a key belongs to, as the locks have it.
pub fn owners(locks: &[PathBuf]) -> HashMap<Digest, (PathBuf, String)> {
    let mut owners = HashMap::new();
    for path in locks {
        for (stage, record) in lock::read(path).iter() {
            owners.insert(record.key, (path.clone(), stage.to_owned()));
        }
    }
    owners
}
