//! Which files count for a pipeline, and which folders to watch for them.
//!
//! Folders are watched rather than files: editors save by renaming, and a file that is not there yet
//! cannot be watched.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use notify::RecursiveMode;

use crate::graph::{From, Graph};
use crate::{record, source, state};

/// What counts.
pub struct Scope {
    dir: PathBuf,
    /// The pipeline file and what it includes.
    texts: Vec<PathBuf>,
    /// Patterns of sources, relative to the folder.
    patterns: Vec<String>,
    /// What stages write, and the state folder: never a reason to run.
    own: Vec<PathBuf>,
    watched: BTreeMap<PathBuf, RecursiveMode>,
}

impl Scope {
    /// What is known of a pipeline that was not read yet: its file.
    pub fn new(pipeline: &Path) -> Scope {
        let dir = pipeline.parent().unwrap_or(Path::new("/")).to_owned();
        let (texts, own) = (vec![pipeline.to_owned()], vec![state::locate(&dir)]);
        Scope { dir, texts, patterns: Vec::new(), own, watched: BTreeMap::new() }
    }

    /// Takes in what the pipeline says now.
    pub fn follow(&mut self, graph: &Graph) {
        self.texts.truncate(1);
        let texts = record::texts(graph).map(|(path, _)| clean(&self.dir.join(path)));
        self.texts.extend(texts.collect::<Vec<_>>());
        let paths = graph
            .nodes
            .iter()
            .flat_map(|node| node.inputs.iter().map(|(_, from)| from))
            .filter_map(|from| match from {
                From::Path(path) => Some(path.strip_prefix("./").unwrap_or(path).to_owned()),
                From::Input(name) => Some(graph.inputs.get(name)?.pattern.clone()),
                From::Output { .. } | From::Cells { .. } => None,
            });
        self.patterns = paths.collect();
        self.patterns.sort();
        self.patterns.dedup();
        self.own.truncate(1);
        let outputs = graph.nodes.iter().flat_map(|node| &node.outputs);
        self.own.extend(outputs.map(|out| clean(&self.dir.join(&out.dest))));
    }

    /// The pipeline's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many files or patterns count.
    pub fn files(&self) -> usize {
        self.texts.len().saturating_sub(1).max(1) + self.patterns.len()
    }

    /// Whether a change there counts.
    pub fn holds(&self, path: &Path) -> bool {
        let hidden = |path: &Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
        };
        if self.texts.iter().any(|text| text == path) {
            return true;
        }
        if hidden(path) || self.own.iter().any(|own| path.starts_with(own)) {
            return false;
        }
        self.patterns.iter().any(|pattern| {
            let whole = clean(&self.dir.join(pattern));
            // A folder on the way to it may come and go as a whole.
            path.starts_with(&whole)
                || whole.starts_with(path) && path != self.dir && path.starts_with(&self.dir)
                || source::matches(&self.dir, pattern, path)
        })
    }

    /// The folders to begin and to end watching.
    pub fn turn(&mut self) -> (Vec<(PathBuf, RecursiveMode)>, Vec<PathBuf>) {
        let mut wanted: BTreeMap<PathBuf, RecursiveMode> = BTreeMap::new();
        let mut want = |folder: &Path, deep: bool| {
            // Until it is there, the folder in which it will be made.
            let found = folder.ancestors().find(|folder| folder.is_dir());
            let Some(found) = found else { return };
            let mode = if deep && found == folder {
                RecursiveMode::Recursive
            } else {
                RecursiveMode::NonRecursive
            };
            let old = wanted.entry(found.to_owned()).or_insert(mode);
            if mode == RecursiveMode::Recursive {
                *old = mode;
            }
        };
        for text in &self.texts {
            want(text.parent().unwrap_or(&self.dir), false);
        }
        for pattern in &self.patterns {
            let base = clean(&self.dir.join(source::base(pattern)));
            want(base.parent().unwrap_or(&base), false);
            if base.is_dir() || base != clean(&self.dir.join(pattern)) {
                want(&base, true);
            }
        }
        let end = self.watched.iter().filter(|(folder, mode)| wanted.get(*folder) != Some(mode));
        let end = end.map(|(folder, _)| folder.clone()).collect();
        let begin = wanted.iter().filter(|(folder, mode)| self.watched.get(*folder) != Some(mode));
        let begin = begin.map(|(folder, mode)| (folder.clone(), *mode)).collect();
        self.watched = wanted;
        (begin, end)
    }
}

/// A path without `.` and `..`, as the system tells of it.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_count_and_what_stages_write_does_not() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("p");
        for folder in ["data", "tree/deep", "out", ".git"] {
            fs_err::create_dir_all(dir.join(folder)).unwrap();
        }
        let mut scope = Scope::new(&dir.join("pipeline.yaml"));
        scope.patterns =
            ["data/*.csv", "tree", "../beside.txt", "later/x.txt"].map(String::from).into();
        scope.own.push(dir.join("tree/out"));
        let counts = |name: &str| scope.holds(&clean(&dir.join(name)));
        for name in [
            "pipeline.yaml",
            "data/a.csv",
            "data",
            "tree/deep/a",
            "../beside.txt",
            "later",
            "later/x.txt",
        ] {
            assert!(counts(name), "{name}");
        }
        for name in [
            "notes.md",
            "data/a.txt",
            "data/deep/a.csv",
            "data/.a.csv.swp",
            "tree/out/x",
            "out/x",
            ".quantmill/runs",
            "pipeline.lock",
            ".",
            "..",
        ] {
            assert!(!counts(name), "{name}");
        }
        let (begin, end) = scope.turn();
        let deep: Vec<&Path> = begin
            .iter()
            .filter(|(_, mode)| *mode == RecursiveMode::Recursive)
            .map(|(folder, _)| folder.strip_prefix(&dir).unwrap())
            .collect();
        assert_eq!(deep, [Path::new("data"), Path::new("tree")]);
        assert!(begin.iter().any(|(folder, _)| folder == home.path()), "{begin:?}");
        assert!(end.is_empty());
        assert_eq!(scope.turn(), (vec![], vec![]));
        scope.patterns.clear();
        assert_eq!(scope.turn().1.len(), 3, "data, tree, the folder above");
    }
}
