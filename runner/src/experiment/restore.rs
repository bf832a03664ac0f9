//! Puts together a folder in which a run can happen again: the pipeline's texts as they were, its
//! inputs by digest, and the rest of the folder as it was in the commit.
//!
//! An input's file comes from the store, else from the workspace if that still has these bytes, else
//! from the commit. What is nowhere any more is named; nothing is made up. Files that no stage
//! declares are there only as far as git has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use quantmill_cache::{Artifact, Digest, Entry, Store};
use quantmill_stages::Kind;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::repository;
use crate::exit::Failure;
use crate::graph::Graph;
use crate::lock::Lockfile;
use crate::plan;
use crate::source;
use crate::state::State;

/// The file beside an imported record that names the files of its commit.
pub const TRACKED: &str = "tracked.json";

/// A file of the commit: its content lies in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tracked {
    /// Its content.
    pub digest: Digest,
    /// Whether it may be executed.
    pub executable: bool,
}

/// What a source was in a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// The path or glob of the pipeline file.
    pub pattern: String,
    /// Its content.
    pub artifact: Artifact,
}

/// A file that is nowhere any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its path, relative to the pipeline's folder.
    pub path: String,
    /// What it had to be.
    pub digest: Digest,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.digest.short())
    }
}

/// Where files were found, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// In the store.
    pub store: usize,
    /// In the workspace.
    pub workspace: usize,
    /// In the commit.
    pub commit: usize,
    /// In place: named by an absolute path.
    pub place: usize,
}

/// Where the files of a run may be found.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The store that the run used.
    pub store: &'a Store,
    /// The run.
    pub run: &'a Account,
}

/// Writes the pipeline's texts below `to`, deep enough that what they name with `..` lies below it
/// too; returns the pipeline file.
pub fn texts(run: &Account, to: &Path) -> Result<PathBuf, Failure> {
    let mut up = 0;
    let mut all = Vec::new();
    for (path, copy) in run.texts() {
        let text = fs_err::read_to_string(copy).map_err(|_| {
            let message = format!("the record of run {} is not whole: {path} is missing", run.id);
            Failure::usage(message, Some("a run that was cut off keeps no pipeline".into()))
        })?;
        up = up.max(climbs(path)).max(climbs(&text));
        all.push((path, text));
    }
    up = run.setting.set.iter().map(|(_, value)| climbs(value)).fold(up, usize::max);
    let names = run.setting.dir.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    let tail = &names[names.len().saturating_sub(up + 1)..];
    let mut dir = to.to_owned();
    // A folder too near the root has too few parents.
    (tail.len()..=up).for_each(|_| dir.push("pipeline"));
    dir.extend(tail);
    for (path, text) in &all {
        let place = dir.join(path);
        fs_err::create_dir_all(place.parent().unwrap_or(&dir))?;
        fs_err::write(place, text)?;
    }
    let first = all.first().map_or(crate::PIPELINE, |(path, _)| path);
    Ok(dir.join(first))
}

/// How many folders up a text may lead: the longest run of `../` in it.
fn climbs(text: &str) -> usize {
    let mut most = 0;
    let mut rest = text;
    while let Some(at) = rest.find("../") {
        let mut here = &rest[at..];
        let mut n = 0;
        while let Some(after) = here.strip_prefix("../") {
            (here, n) = (after, n + 1);
        }
        most = most.max(n);
        rest = here;
    }
    most
}

/// What each source was, for the stages that the lock knows.
pub fn inputs(graph: &Graph, lock: &Lockfile) -> BTreeSet<Wanted> {
    let mut wanted = BTreeSet::new();
    for node in &graph.nodes {
        let Some(record) = lock.get(&node.name) else { continue };
        for (port, from) in &node.inputs {
            let pattern = plan::pattern(graph, node, from).map(|(pattern, _)| pattern.to_owned());
            let artifact = record.inputs.get(port).copied();
            wanted.extend(
                pattern.zip(artifact).map(|(pattern, artifact)| Wanted { pattern, artifact }),
            );
        }
    }
    wanted
}

/// A pipeline that was laid out: its file, its graph, what its sources were.
pub struct Laid {
    /// The pipeline file.
    pub file: PathBuf,
    /// What it says.
    pub graph: Graph,
    /// Its sources.
    pub wanted: BTreeSet<Wanted>,
}

/// Writes the texts below `to` and reads them.
pub fn lay(run: &Account, lock: &Lockfile, to: &Path, kinds: &[Kind]) -> Result<Laid, Failure> {
    let file = texts(run, to)?;
    let graph = crate::load(&file, &run.setting.set, kinds)?;
    let wanted = inputs(&graph, lock);
    Ok(Laid { file, graph, wanted })
}

impl Origin<'_> {
    /// The files of a source: path relative to the pipeline's folder, and what is there.
    pub fn files(&self, wanted: &Wanted) -> Result<BTreeMap<String, Entry>, Gone> {
        let Wanted { pattern, artifact } = wanted;
        let gone = || Gone { path: pattern.clone(), digest: artifact.digest() };
        let tree = match artifact {
            Artifact::File(digest) => {
                let entry = Entry { digest: *digest, size: 0, executable: false };
                return Ok(BTreeMap::from([(pattern.clone(), entry)]));
            }
            // The store notes the list of a folder's files whenever it hashes one.
            Artifact::Tree(digest) => self.store.tree(digest).map_err(|_| gone())?,
        };
        let fixed = pattern.split('/').take_while(|part| !part.contains(['*', '?', '[', '{']));
        let base = fixed.collect::<Vec<_>>().join("/");
        let below = |name: String| if base.is_empty() { name } else { format!("{base}/{name}") };
        Ok(tree.entries.into_iter().map(|(name, entry)| (below(name), entry)).collect())
    }

    /// Writes a file to `to`, wherever it is found; false where it is gone. `path` is relative to the
    /// pipeline's folder.
    pub fn fetch(
        &self,
        path: &str,
        entry: &Entry,
        to: &Path,
        found: &mut Found,
    ) -> Result<bool, Failure> {
        let whole = |path: &Path| Digest::of_file(path).is_ok_and(|is| is == entry.digest);
        let there = self.run.setting.dir.join(path);
        fs_err::create_dir_all(to.parent().unwrap_or(to))?;
        if self.store.has(&entry.digest, None) {
            self.store.write_file(&entry.digest, entry.executable, to)?;
            if whole(to) {
                found.store += 1;
                return Ok(true);
            }
        }
        if there.is_file() && whole(&there) {
            reflink_copy::reflink_or_copy(&there, to)
                .or_else(|_| fs_err::copy(&there, to).map(Some))?;
            found.workspace += 1;
            return Ok(true);
        }
        let commit = self.run.setting.commit.as_ref();
        let bytes = commit.and_then(|c| repository::file_at(&self.run.setting.dir, c, path));
        if let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == entry.digest) {
            fs_err::write(to, bytes)?;
            mode(to, entry.executable)?;
            found.commit += 1;
            return Ok(true);
        }
        let _ = std::fs::remove_file(to);
        Ok(false)
    }

    /// Writes all sources to their places around a pipeline that was laid out. The list names what is
    /// gone.
    pub fn inputs(&self, laid: &Laid) -> Result<(Found, Vec<Gone>), Failure> {
        let (mut found, mut gone) = (Found::default(), Vec::new());
        for wanted in &laid.wanted {
            let files = match self.files(wanted) {
                Ok(files) => files,
                Err(lost) => {
                    gone.push(lost);
                    continue;
                }
            };
            for (path, entry) in files {
                if Path::new(&path).is_absolute() {
                    // It cannot be put elsewhere; it has to be what it was.
                    match Digest::of_file(Path::new(&path)) {
                        Ok(is) if is == entry.digest => found.place += 1,
                        _ => gone.push(Gone { path, digest: entry.digest }),
                    }
                    continue;
                }
                let to = laid.graph.dir.join(&path);
                if !self.fetch(&path, &entry, &to, &mut found)? {
                    gone.push(Gone { path, digest: entry.digest });
                }
            }
        }
        Ok((found, gone))
    }

    /// Writes the files of the commit below the pipeline's folder where nothing lies yet. False where
    /// neither git nor the record has them.
    pub fn tracked(&self, laid: &Laid) -> Result<bool, Failure> {
        let dir = &laid.graph.dir;
        let put = |path: &str, executable: bool, content: &mut dyn io::Read| -> io::Result<()> {
            let to = dir.join(path);
            let safe = Path::new(path)
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if !safe || to.exists() || path.ends_with(".lock") {
                return Ok(());
            }
            fs_err::create_dir_all(to.parent().unwrap_or(dir))?;
            io::copy(content, &mut fs_err::File::create(&to)?)?;
            mode(&to, executable)
        };
        let setting = &self.run.setting;
        if let Some(commit) = &setting.commit
            && repository::files_at(&setting.dir, commit, put)?
        {
            return Ok(true);
        }
        let Ok(bytes) = std::fs::read(self.run.folder.join(TRACKED)) else { return Ok(false) };
        let files: BTreeMap<String, Tracked> =
            serde_json::from_slice(&bytes).map_err(io::Error::from)?;
        for (path, file) in files {
            let bytes = self.store.read(&file.digest)?;
            put(&path, file.executable, &mut bytes.as_slice())?;
        }
        Ok(true)
    }
}

/// Takes away what a glob or a folder of the pipeline would find and what was not there in the run;
/// returns the sources that then still are not what they were.
pub fn prune(laid: &Laid, state: &State) -> Result<Vec<Wanted>, Failure> {
    let mut wrong = Vec::new();
    for wanted in &laid.wanted {
        let look = || source::read(state, &laid.graph.dir, &wanted.pattern);
        let Ok(given) = look() else {
            wrong.push(wanted.clone());
            continue;
        };
        if let (Artifact::Tree(digest), true) = (wanted.artifact, given.input.tree)
            && let Ok(tree) = state.store.tree(&digest)
        {
            let extra =
                given.input.files.iter().filter(|(name, _)| !tree.entries.contains_key(*name));
            extra.map(|(_, path)| path).try_for_each(fs_err::remove_file)?;
        }
        if !look().is_ok_and(|given| given.artifact == wanted.artifact) {
            wrong.push(wanted.clone());
        }
    }
    Ok(wrong)
}

#[cfg(unix)]
fn mode(path: &Path, executable: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = if executable { 0o755 } else { 0o644 };
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn mode(_: &Path, _: bool) -> io::Result<()> {
    Ok(())
}
