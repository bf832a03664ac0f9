//! The lock file: for every stage its key, and what went in and came out, beside the pipeline and
//! committed with it. It explains what changed and decides nothing, but for what a frozen stage
//! keeps.
//!
//! One record a stage in the order of the names, a field a line, no date and no host: it changes
//! only where a stage does. Records are kept as their text and read one by one when asked for, so
//! that ten thousand of them cost little time and memory. [`text`] knows the layout, and how a merge
//! in git goes about it.

mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quantmill_cache::{ActionKey, Artifact, Digest};
use serde_json::Value;

use crate::event::Event;

/// The lock file of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockfile {
    /// The text of each stage's record, without its name.
    stages: BTreeMap<String, Arc<str>>,
    /// What the other branch has where a merge left both.
    others: BTreeMap<String, Arc<str>>,
}

/// What a stage was when it last ended well.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// The digest of its key.
    pub key: Digest,
    /// Its seed, where it uses one.
    pub seed: Option<u64>,
    /// Its device, where that changes bytes.
    pub device: Option<String>,
    /// Its inputs.
    pub inputs: BTreeMap<String, Artifact>,
    /// Its parameters, defaults filled in.
    pub params: Value,
    /// Its outputs.
    pub outputs: BTreeMap<String, Artifact>,
}

/// The lock file of a pipeline file: the same name, ending in `.lock`.
pub fn path(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("lock")
}

/// Reads it. A lock that is not there is an empty one; of one that a merge left in pieces, all
/// records that are whole are kept, those of both sides among them.
pub fn read(path: &Path) -> Lockfile {
    text::read(&std::fs::read_to_string(path).unwrap_or_default())
}

impl Lockfile {
    /// What a stage was.
    pub fn get(&self, stage: &str) -> Option<Record> {
        text::record(self.stages.get(stage)?)
    }

    /// The digest of the key that a stage had.
    pub fn key(&self, stage: &str) -> Option<Digest> {
        text::key(self.stages.get(stage)?)
    }

    /// What a stage was on each side of a merge that left both; else as [`Lockfile::get`].
    pub fn sides(&self, stage: &str) -> Vec<Record> {
        let texts = [self.stages.get(stage), self.others.get(stage)];
        texts.into_iter().flatten().filter_map(|text| text::record(text)).collect()
    }

    /// Every stage with what it was.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Record)> {
        self.stages.iter().filter_map(|(name, text)| Some((name.as_str(), text::record(text)?)))
    }

    /// Remembers what a stage is now.
    pub fn set(&mut self, stage: &str, key: &ActionKey, outputs: &BTreeMap<String, Artifact>) {
        self.others.remove(stage);
        self.stages.insert(stage.to_owned(), text::render(key, outputs).into());
    }

    /// Takes in what happened.
    pub fn note(&mut self, event: &Event) {
        if let Event::StageFinished(done) = event {
            self.set(&done.stage, &done.key, &done.outputs);
        }
    }

    /// Forgets stages that the pipeline no longer has.
    pub fn keep<'a>(&mut self, stages: impl Iterator<Item = &'a str>) {
        let names: std::collections::BTreeSet<&str> = stages.collect();
        self.stages.retain(|name, _| names.contains(name.as_str()));
        self.others.retain(|name, _| names.contains(name.as_str()));
    }

    /// Its text.
    pub fn text(&self) -> String {
        text::file(&self.stages).collect()
    }

    /// Writes its text.
    pub fn write_to(&self, out: impl Write) -> io::Result<()> {
        let mut out = io::BufWriter::new(out);
        text::file(&self.stages).try_for_each(|piece| out.write_all(piece.as_bytes()))?;
        out.flush()
    }

    /// Whether a file has its text and no more.
    fn is_in(&self, path: &Path) -> bool {
        let Ok(old) = std::fs::File::open(path) else { return false };
        let (mut old, mut part) = (io::BufReader::new(old), Vec::new());
        let same = |piece: Cow<str>| {
            part.resize(piece.len(), 0);
            old.read_exact(&mut part).is_ok() && part == piece.as_bytes()
        };
        text::file(&self.stages).all(same) && old.fill_buf().is_ok_and(|rest| rest.is_empty())
    }

    /// Writes it, whole, where it differs from what is there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if self.is_in(path) {
            return Ok(());
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut temp = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            temp.permissions(std::fs::Permissions::from_mode(0o644));
        }
        let temp = temp.prefix(".quantmill-").tempfile_in(folder.unwrap_or(Path::new(".")))?;
        self.write_to(temp.as_file())?;
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|e| e.error)?;
        Ok(())
    }
}
