//! Source files: from a path or a glob of the pipeline file to digests.
//!
//! Sources are read in place and never written. What a stage read is compared with what was hashed
//! by the files' stamps once the stage has ended.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use quantmill_cache::{Artifact, IndexError, Stamp, Tree};
use quantmill_stages::Input;

use crate::diagnostic::nearest;
use crate::state::State;

/// What feeds a port, ready to be read.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its content.
    pub artifact: Artifact,
    /// Where it lies.
    pub input: Input,
    /// For source files: how each looked when it was hashed, in the order of `input.files`.
    pub stamps: Vec<Stamp>,
    /// For what a stage made: the path that people know it by.
    pub shown: Option<PathBuf>,
}

impl Given {
    /// Names files as people know them in a message that may name their places in the store.
    pub fn rename(&self, message: String) -> String {
        let Some(shown) = &self.shown else { return message };
        self.input.files.iter().fold(message, |message, (name, place)| {
            let shown = if self.input.tree { shown.join(name) } else { shown.clone() };
            message.replace(&*place.to_string_lossy(), &shown.to_string_lossy())
        })
    }

    /// The first file that is no longer what was hashed.
    pub fn changed(&self) -> Option<&Path> {
        let mut files = self.input.files.values().zip(&self.stamps);
        let changed = files.find(|(path, then)| Stamp::read(path).ok().as_ref() != Some(*then));
        changed.map(|(path, _)| path.as_path())
    }
}

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing is there.
    #[error("{message}")]
    Nothing {
        /// What was looked for.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// Reading failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> SourceError {
        SourceError::Index(error.into())
    }
}

/// Finds and hashes what a path, folder or glob names, relative to `dir`.
pub fn read(state: &State, dir: &Path, pattern: &str) -> Result<Given, SourceError> {
    let whole = dir.join(pattern);
    if whole.is_file() {
        let (entry, stamp) = state.index.file(&whole)?;
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let input = Input { files: BTreeMap::from([(name, whole.clone())]), tree: false };
        let artifact = Artifact::File(entry.digest);
        return Ok(Given { artifact, input, stamps: vec![stamp], shown: None });
    }
    let found = if whole.is_dir() { walk(&whole)? } else { expand(dir, pattern)? };
    if found.is_empty() {
        return Err(nothing(dir, pattern));
    }
    tracing::debug!("{pattern}: {} files", found.len());
    let mut tree = Tree::default();
    let mut stamps = Vec::with_capacity(found.len());
    for (name, path) in &found {
        let (entry, stamp) = state.index.file(path)?;
        tree.entries.insert(name.clone(), entry);
        stamps.push(stamp);
    }
    let artifact = state.store.put_tree(&tree).map_err(IndexError::from)?;
    Ok(Given { artifact, input: Input { files: found, tree: true }, stamps, shown: None })
}

/// Whether a path, folder or glob names anything. Reads no file.
pub fn exists(dir: &Path, pattern: &str) -> Result<(), SourceError> {
    let whole = dir.join(pattern);
    let found = whole.is_file()
        || match whole.is_dir() {
            true => !walk(&whole)?.is_empty(),
            false => !expand(dir, pattern)?.is_empty(),
        };
    if found { Ok(()) } else { Err(nothing(dir, pattern)) }
}

fn is_glob(part: &str) -> bool {
    part.contains(['*', '?', '[', '{'])
}

/// The files that match a glob, named from the last folder before the first wildcard.
fn expand(dir: &Path, pattern: &str) -> Result<BTreeMap<String, PathBuf>, SourceError> {
    let parts: Vec<&str> = pattern.split('/').collect();
    let Some(first) = parts.iter().position(|part| is_glob(part)) else {
        return Ok(BTreeMap::new());
    };
    let base = dir.join(parts[..first].join("/"));
    let glob = GlobBuilder::new(&parts[first..].join("/")).literal_separator(true).build();
    let glob = glob.map_err(|error| SourceError::Nothing {
        message: format!("`{pattern}` is not a glob: {}", error.kind()),
        help: Some("`*` matches within a folder, `**` across folders, `{a,b}` either".into()),
    })?;
    let matcher = glob.compile_matcher();
    if !base.is_dir() {
        return Ok(BTreeMap::new());
    }
    let mut found = walk(&base)?;
    found.retain(|name, _| matcher.is_match(name));
    Ok(found)
}

/// Every file below a folder, hidden ones aside; links are followed.
fn walk(base: &Path) -> Result<BTreeMap<String, PathBuf>, SourceError> {
    let mut found = BTreeMap::new();
    let walker = ignore::WalkBuilder::new(base)
        .standard_filters(false)
        .hidden(true)
        .follow_links(true)
        .build();
    for entry in walker {
        let entry = entry.map_err(io::Error::other)?;
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.into_path();
        if let Some(name) = path.strip_prefix(base).ok().and_then(Path::to_str) {
            found.insert(name.replace(std::path::MAIN_SEPARATOR, "/"), path);
        }
    }
    Ok(found)
}

fn nothing(dir: &Path, pattern: &str) -> SourceError {
    if is_glob(pattern) {
        return SourceError::Nothing {
            message: format!("no file matches `{pattern}`"),
            help: Some(format!("it is looked for from {}", dir.display())),
        };
    }
    let wanted = Path::new(pattern);
    let folder = dir.join(wanted.parent().unwrap_or(Path::new("")));
    let names: Vec<String> = std::fs::read_dir(&folder)
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    let name = wanted.file_name().unwrap_or_default().to_string_lossy();
    let help = match nearest(&name, names.iter().map(String::as_str)) {
        Some(best) => format!("did you mean `{}`?", wanted.with_file_name(best).display()),
        None if !folder.is_dir() => format!("there is no folder {}", folder.display()),
        None => format!("it is looked for from {}", dir.display()),
    };
    SourceError::Nothing { message: format!("no file or folder `{pattern}`"), help: Some(help) }
}
