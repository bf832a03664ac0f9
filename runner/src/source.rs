//! Source files: from a path, a glob, a URL or a model of the hub to digests.
//!
//! Sources are read in place and never written. What a stage read is compared with what was hashed
//! by the files' stamps once the stage has ended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};
use quantmill_cache::{Artifact, Digest, IndexError, Scan, Stamp, Walk};
use quantmill_stages::{Files, Input};

use crate::diagnostic::nearest;
use crate::state::State;
use crate::{fetch, hub};

/// What feeds a port, ready to be read.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its content.
    pub artifact: Artifact,
    /// Where it lies.
    pub input: Input,
    /// Where it comes from.
    pub origin: Origin,
    /// For what a stage made: the path that people know it by.
    pub shown: Option<PathBuf>,
}

/// Where an input comes from. What lies in the workspace can change at any time.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The store.
    Store,
    /// Source files, in the order of their names.
    Files(Box<[Look]>),
    /// A folder or a glob of source files.
    Folder(Arc<Scan>),
}

/// How a source file looked when it was hashed.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Its stamp.
    pub stamp: Stamp,
    /// Its content, where it had changed so recently that a later change could look the same.
    fresh: Option<Digest>,
}

impl Look {
    /// Of a file that looked like this some time after `before`.
    pub fn new(stamp: Stamp, digest: Digest, before: SystemTime) -> Look {
        Look { stamp, fresh: (!stamp.settled(before)).then_some(digest) }
    }

    /// Whether the file is still what it was.
    fn stands(&self, path: &Path) -> bool {
        Stamp::read(path).is_ok_and(|now| now == self.stamp)
            && self.fresh.is_none_or(|digest| Digest::of_file(path).ok() == Some(digest))
    }
}

impl Given {
    /// What lies in the store.
    pub fn stored(artifact: Artifact, input: Input, shown: Option<PathBuf>) -> Given {
        Given { artifact, input, origin: Origin::Store, shown }
    }

    /// Whether it lies in the workspace, where anybody may change it.
    pub fn is_source(&self) -> bool {
        !matches!(self.origin, Origin::Store)
    }

    /// Whether it was unchanged for so long that its looks tell of any later change.
    pub fn settled(&self) -> bool {
        match &self.origin {
            Origin::Store => true,
            Origin::Files(looks) => looks.iter().all(|look| look.fresh.is_none()),
            Origin::Folder(scan) => scan.settled(),
        }
    }

    /// Names files as people know them in a message that may name their places in the store.
    pub fn rename(&self, message: String) -> String {
        let Some(shown) = &self.shown else { return message };
        self.input.files.iter().fold(message, |message, (name, place)| {
            let shown = if self.input.tree { shown.join(name) } else { shown.clone() };
            message.replace(&*place.to_string_lossy(), &shown.to_string_lossy())
        })
    }

    /// The first file that is no longer what was hashed.
    pub fn changed(&self) -> Option<PathBuf> {
        match &self.origin {
            Origin::Store => None,
            Origin::Folder(scan) => scan.changed(),
            Origin::Files(looks) => {
                let mut files = self.input.files.values().zip(looks);
                files.find(|(path, look)| !look.stands(path)).map(|(path, _)| path.clone())
            }
        }
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
    if let Some(remotes) = fetch::remotes(pattern) {
        return fetch::read(state, &remotes?);
    }
    if let Some(hub) = hub::named(pattern) {
        return read(state, dir, &hub?.place()?);
    }
    let before = SystemTime::now();
    let whole = dir.join(pattern);
    if whole.is_file() {
        let (entry, stamp) = state.index.file(&whole)?;
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let input = Input { files: [(name, whole)].into_iter().collect(), tree: false };
        let artifact = Artifact::File(entry.digest);
        let origin = Origin::Files([Look::new(stamp, entry.digest, before)].into());
        return Ok(Given { artifact, input, origin, shown: None });
    }
    let Some(choice) = Choice::new(dir, pattern)? else { return Err(nothing(dir, pattern)) };
    let wanted = |name: &str| choice.wants(name);
    let walk =
        Walk { name: pattern, hidden: false, links: true, depth: choice.depth, wanted: &wanted };
    let mut scan = state.index.rescan(&choice.base, &walk)?;
    if scan.is_empty() {
        return Err(nothing(dir, pattern));
    }
    tracing::debug!("{pattern}: {} files", scan.len());
    let artifact = state.index.keep(&mut scan)?;
    let scan = Arc::new(scan);
    let files = Files::scanned(Arc::clone(&scan), choice.glob.is_none());
    let (input, origin) = (Input { files, tree: true }, Origin::Folder(scan));
    Ok(Given { artifact, input, origin, shown: None })
}

/// Whether a path, folder or glob names anything. Reads no file; what lies elsewhere is taken to be
/// there.
pub fn exists(dir: &Path, pattern: &str) -> Result<(), SourceError> {
    if let Some(remotes) = fetch::remotes(pattern) {
        return remotes.map(drop);
    }
    if let Some(hub) = hub::named(pattern) {
        return hub.map(drop);
    }
    let found = match dir.join(pattern).is_file() {
        true => true,
        false => match Choice::new(dir, pattern)? {
            Some(choice) => any(&choice, "", &choice.base, choice.depth)?,
            None => false,
        },
    };
    if found { Ok(()) } else { Err(nothing(dir, pattern)) }
}

/// The part of a pattern before the first wildcard: a folder, or all of it.
pub fn base(pattern: &str) -> String {
    let parts: Vec<&str> = pattern.split('/').collect();
    let first = parts.iter().position(|part| is_glob(part)).unwrap_or(parts.len());
    parts[..first].join("/")
}

/// Whether a glob names a file, be it there or not.
pub fn matches(dir: &Path, pattern: &str, path: &Path) -> bool {
    let base = base(pattern);
    let rest = pattern[base.len()..].trim_start_matches('/');
    let glob = GlobBuilder::new(rest).literal_separator(true).build();
    match (glob, path.strip_prefix(dir.join(base))) {
        (Ok(glob), Ok(name)) if is_glob(rest) => glob.compile_matcher().is_match(name),
        _ => false,
    }
}

fn is_glob(part: &str) -> bool {
    part.contains(['*', '?', '[', '{'])
}

/// The files of a folder, or those that match a glob, named from the last folder before the first
/// wildcard. Hidden ones are never meant.
struct Choice {
    base: PathBuf,
    /// How many folders deep; 1 is the base's own files.
    depth: usize,
    glob: Option<GlobMatcher>,
}

impl Choice {
    /// What a pattern means; `None` where it is no glob and there is no such folder.
    fn new(dir: &Path, pattern: &str) -> Result<Option<Choice>, SourceError> {
        let whole = dir.join(pattern);
        if whole.is_dir() {
            return Ok(Some(Choice { base: whole, depth: usize::MAX, glob: None }));
        }
        let parts: Vec<&str> = pattern.split('/').collect();
        let Some(first) = parts.iter().position(|part| is_glob(part)) else { return Ok(None) };
        let base = dir.join(parts[..first].join("/"));
        let glob = GlobBuilder::new(&parts[first..].join("/")).literal_separator(true).build();
        let glob = glob.map_err(|error| SourceError::Nothing {
            message: format!("`{pattern}` is not a glob: {}", error.kind()),
            help: Some("`*` matches within a folder, `**` across folders, `{a,b}` either".into()),
        })?;
        // A `{a,b/c}` may hold a slash that `parts` took for one of the path: then all is looked at.
        let deep = parts.iter().any(|part| part.contains("**") || part.contains(['{', '}']));
        let depth = if deep { usize::MAX } else { parts.len() - first };
        let glob = Some(glob.compile_matcher());
        Ok(base.is_dir().then_some(Choice { base, depth, glob }))
    }

    fn wants(&self, name: &str) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.is_match(name))
    }
}

/// Whether there is a file that is wanted. Links to folders are not followed far: one is enough.
fn any(choice: &Choice, prefix: &str, folder: &Path, depth: usize) -> io::Result<bool> {
    let mut below = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let (name, meta) = (format!("{prefix}{name}"), fs_err::metadata(entry.path())?);
        if meta.is_file() && choice.wants(&name) {
            return Ok(true);
        }
        // No tree is so deep: a link goes round.
        if meta.is_dir() && depth > 1 && name.matches('/').count() < 64 {
            below.push((format!("{name}/"), entry.path()));
        }
    }
    for (prefix, folder) in below {
        if any(choice, &prefix, &folder, depth - 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where, and what fetches it, where the pipeline has a script for what is not committed.
fn looked(dir: &Path) -> String {
    let script = dir.join("fetch.sh");
    let fetch = match script.is_file() {
        true => format!("; {} fetches what is not committed", script.display()),
        false => String::new(),
    };
    format!("it is looked for from {}{fetch}", dir.display())
}

fn nothing(dir: &Path, pattern: &str) -> SourceError {
    if is_glob(pattern) {
        return SourceError::Nothing {
            message: format!("no file matches `{pattern}`"),
            help: Some(looked(dir)),
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
        None => looked(dir),
    };
    SourceError::Nothing { message: format!("no file or folder `{pattern}`"), help: Some(help) }
}
