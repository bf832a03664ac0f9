//! A note of the last run that left everything in place: as long as all that it rests on looks as it
//! did then, the same question has the same answer, and nothing needs to be read, parsed or judged.
//!
//! The note holds what every file and folder looked like ([`Stamp`]): the pipeline file and what it
//! includes, the lock, the sources, the outputs; and the environment that stages may see. It is a
//! shortcut and never more: where anything differs, or the note is torn, the run takes the long way.
//! It is not written where a file had changed so recently that another edit could look the same.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::SystemTime;

use quantmill_cache::binary::{Reader, put_number, put_text};
use quantmill_cache::{ALL, Artifact, Digest, Glance, IndexError, Scan, Stamp, TICK, glance};
use quantmill_stages::Kind;

use crate::plan::Wish;
use crate::record::Repeat;
use crate::run::Ran;
use crate::source::{Given, Origin};
use crate::state::State;

const MAGIC: &[u8] = b"quantmill up to date 2\n";

/// What is asked of a run, by its digest: the pipeline, the wish, the values set, and this program.
pub fn question(pipeline: &Path, set: &[(String, String)], wish: &Wish, kinds: &[Kind]) -> Digest {
    let pipeline = absolute(pipeline).unwrap_or_else(|_| pipeline.to_owned());
    let kinds: Vec<_> = kinds.iter().map(|kind| (kind.name, kind.version)).collect();
    let program = (env!("CARGO_PKG_VERSION"), kinds);
    let text = format!("{pipeline:?} {set:?} {wish:?} {program:?}");
    Digest::of(text.as_bytes())
}

/// Where the note lies that answers a question.
pub fn place(home: &Path, question: &Digest) -> PathBuf {
    home.join("uptodate").join(question.to_string())
}

/// Folders of the store: fewer than there were means that it was cleared by hand. Single blobs are
/// not looked for, since what stands in its place needs none.
fn shelves(home: &Path) -> usize {
    std::fs::read_dir(home.join("store")).map_or(0, Iterator::count)
}

/// What a look at the note tells.
pub enum Look {
    /// The note still holds.
    UpToDate {
        /// How many stages are in place.
        stages: usize,
        /// What the record of a run says that finds them so.
        again: Box<Repeat>,
    },
    /// It does not; but this is how the files of folders look now.
    Changed(Vec<Glance>),
}

/// Looks whether the answer to a question is still that of the note.
pub fn look(home: &Path, question: &Digest) -> Look {
    let mut glances = Vec::new();
    match compare(home, question, &mut glances) {
        Some((stages, again)) => Look::UpToDate { stages, again: Box::new(again) },
        None => Look::Changed(glances),
    }
}

fn compare(home: &Path, question: &Digest, glances: &mut Vec<Glance>) -> Option<(usize, Repeat)> {
    let bytes = Arc::new(std::fs::read(place(home, question)).ok()?);
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(body).as_bytes() != sum {
        return None;
    }
    let mut note = Reader(body.strip_prefix(MAGIC)?);
    let stages = note.number()?;
    let again = note.text()?;
    if shelves(home) < note.number()? {
        return None;
    }
    for _ in 0..note.number()? {
        let name = std::str::from_utf8(note.text()?).ok()?;
        if value(name).as_bytes() != note.take(32)? {
            return None;
        }
    }
    let mut same = true;
    for _ in 0..note.number()? {
        let length = note.text()?.len();
        let end = body.len() - note.0.len();
        let glance = glance(&bytes, end - length..end);
        same &= glance.as_ref().is_some_and(Glance::same);
        glances.extend(glance);
    }
    if !same {
        return None;
    }
    for _ in 0..note.number()? {
        let folder = File::open(Path::new(OsStr::from_bytes(note.text()?))).ok()?;
        for _ in 0..note.number()? {
            if Stamp::at(&folder, note.text()?).ok()?.bytes() != *note.array()? {
                return None;
            }
        }
    }
    let again = serde_json::from_slice(again).ok()?;
    note.0.is_empty().then_some((stages, again))
}

/// A variable's value by its digest; one that is not set differs from an empty one.
fn value(name: &str) -> Digest {
    let value = std::env::var_os(name);
    Digest::of(format!("{:?}", value.as_deref().map(OsStrExt::as_bytes)).as_bytes())
}

/// Takes a note once a run has left everything in place; false where that cannot be told for sure.
pub fn write(
    ran: &Ran,
    lock: &Path,
    question: &Digest,
    again: &Repeat,
) -> Result<bool, IndexError> {
    let Ran { summary, graph, plan, state } = ran;
    let done: Vec<usize> = (0..graph.nodes.len()).filter(|&i| plan.steps[i].is_some()).collect();
    let settled = plan.sources().all(Given::settled);
    if !settled || done.iter().any(|&index| plan.again(index)) {
        return Ok(false);
    }
    if summary.ran + summary.restored > 0 {
        // Once this moment is over, an edit of what was written in it shows.
        std::thread::sleep(TICK + TICK / 4);
    }
    let before = SystemTime::now();
    let mut note = Note {
        before,
        env: BTreeMap::new(),
        scans: Vec::new(),
        files: BTreeMap::new(),
        doubtful: false,
    };
    for source in graph.sources.0.iter().filter(|source| source.name != "--set") {
        let path = Path::new(&source.name);
        note.file(path, Stamp::read(path)?);
        // It may have been edited since it was read.
        if fs_err::read(path)? != source.text.as_bytes() {
            return Ok(false);
        }
    }
    note.file(lock, Stamp::read(lock)?);
    for given in plan.sources() {
        match &given.origin {
            Origin::Folder(scan) => note.scan(scan),
            Origin::Files(looks) => {
                let files = given.input.files.values().zip(looks);
                files.for_each(|(path, look)| note.file(path, look.stamp));
            }
            Origin::Store => {}
        }
    }
    for &index in &done {
        let node = &graph.nodes[index];
        note.env.extend(node.env.iter().map(|name| (name.clone(), value(name))));
        let Some(outputs) = plan.outputs(index) else { return Ok(false) };
        for out in &node.outputs {
            let Some(artifact) = outputs.get(out.port.name.as_ref()) else { continue };
            if !note.output(state, artifact, &graph.dir.join(&out.dest))? {
                return Ok(false);
            }
        }
    }
    if note.doubtful {
        return Ok(false);
    }
    let path = place(&state.home, question);
    fs_err::create_dir_all(state.home.join("uptodate"))?;
    let mut temp = tempfile::NamedTempFile::new_in(state.home.join("uptodate"))?;
    let again = serde_json::to_vec(again).map_err(std::io::Error::from)?;
    temp.write_all(&note.encode(done.len(), &again, shelves(&state.home)))?;
    temp.persist(path).map_err(|e| e.error)?;
    Ok(true)
}

/// What is noted.
struct Note {
    /// When it was begun.
    before: SystemTime,
    env: BTreeMap<String, Digest>,
    /// Snapshots of whole folders.
    scans: Vec<Vec<u8>>,
    /// How single files looked, by folder and name.
    files: BTreeMap<PathBuf, BTreeMap<Vec<u8>, Stamp>>,
    /// Something changed so recently that an edit could hide, or cannot be looked at.
    doubtful: bool,
}

impl Note {
    fn file(&mut self, path: &Path, stamp: Stamp) {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        self.doubtful |= !stamp.settled(self.before);
        // Most files come folder by folder, so the key is there already.
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        match self.files.get_mut(folder) {
            Some(known) => drop(known.insert(name, stamp)),
            None => drop(self.files.insert(folder.to_owned(), BTreeMap::from([(name, stamp)]))),
        }
    }

    fn scan(&mut self, scan: &Scan) {
        match scan.snapshot() {
            Some(snapshot) => self.scans.push(snapshot),
            None => self.doubtful = true,
        }
    }

    /// False where the output is not in its place as it should be.
    fn output(
        &mut self,
        state: &State,
        artifact: &Artifact,
        place: &Path,
    ) -> Result<bool, IndexError> {
        match artifact {
            Artifact::File(digest) => {
                let (entry, stamp) = state.index.file(place)?;
                self.file(place, stamp);
                Ok(entry.digest == *digest)
            }
            Artifact::Tree(digest) => {
                let scan = state.index.scan(place, &ALL)?;
                self.doubtful |= !scan.settled();
                self.scan(&scan);
                Ok(scan.digest() == *digest)
            }
        }
    }

    fn encode(&self, stages: usize, again: &[u8], shelves: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.scans.iter().map(Vec::len).sum::<usize>() + 4096);
        out.extend_from_slice(MAGIC);
        put_number(&mut out, stages);
        put_text(&mut out, again);
        put_number(&mut out, shelves);
        put_number(&mut out, self.env.len());
        for (name, value) in &self.env {
            put_text(&mut out, name.as_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        put_number(&mut out, self.scans.len());
        self.scans.iter().for_each(|scan| put_text(&mut out, scan));
        put_number(&mut out, self.files.len());
        for (path, files) in &self.files {
            let path = absolute(path).unwrap_or_else(|_| path.clone());
            put_text(&mut out, path.as_os_str().as_bytes());
            put_number(&mut out, files.len());
            for (name, stamp) in files {
                put_text(&mut out, name);
                out.extend_from_slice(&stamp.bytes());
            }
        }
        let sum = Digest::of(&out);
        out.extend_from_slice(sum.as_bytes());
        out
    }
}
