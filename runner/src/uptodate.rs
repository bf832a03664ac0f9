//! A note of the last run that left everything in place: as long as all that it rests on looks as it
//! did then, the same question has the same answer, and nothing needs to be read, parsed or judged.
//!
//! The note holds what every file and folder looked like ([`Stamp`]): the pipeline file and what it
//! includes, the lock, the sources, the outputs; and the environment that stages may see. It is a
//! shortcut and never more: where anything differs, or the note is torn, the run takes the long way.
//! It is not written where a file had changed so recently that another edit could look the same.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};
use std::time::SystemTime;

use quantmill_cache::{Artifact, Digest, IndexError, Stamp, TICK};
use quantmill_stages::Kind;

use crate::plan::Wish;
use crate::record::Repeat;
use crate::run::Ran;
use crate::state::State;

const MAGIC: &[u8] = b"quantmill up to date 1\n";

/// What is asked of a run, by its digest: the pipeline, the wish, the values set, and this program.
pub fn question(pipeline: &Path, set: &[(String, String)], wish: &Wish, kinds: &[Kind]) -> Digest {
    let pipeline = absolute(pipeline).unwrap_or_else(|_| pipeline.to_owned());
    let kinds: Vec<_> = kinds.iter().map(|kind| (kind.name, kind.version)).collect();
    let program = (env!("CARGO_PKG_VERSION"), kinds);
    let text = format!("{pipeline:?} {set:?} {wish:?} {program:?}");
    Digest::of(text.as_bytes())
}

fn place(home: &Path, question: &Digest) -> PathBuf {
    home.join("uptodate").join(question.to_string())
}

/// Folders of the store: fewer than there were means that it was cleared by hand. Single blobs are
/// not looked for, since what stands in its place needs none.
fn shelves(home: &Path) -> usize {
    std::fs::read_dir(home.join("store")).map_or(0, Iterator::count)
}

/// A note that still holds.
pub struct UpToDate {
    /// How many stages are in place.
    pub stages: usize,
    /// What the record of a run says that finds them so.
    pub again: Repeat,
}

/// Looks whether the answer to a question is still that of the note.
pub fn look(home: &Path, question: &Digest) -> Option<UpToDate> {
    let bytes = std::fs::read(place(home, question)).ok()?;
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
    for _ in 0..note.number()? {
        let path = Path::new(std::ffi::OsStr::from_bytes(note.text()?));
        let folder = File::open(path).ok()?;
        let whole = note.number()? == 1;
        if whole && Stamp::of(&folder.metadata().ok()?).bytes() != note.take(Stamp::SIZE)? {
            return None;
        }
        for _ in 0..note.number()? {
            let name = CStr::from_bytes_with_nul(note.text()?).ok()?;
            if Stamp::at(&folder, name).ok()?.bytes() != note.take(Stamp::SIZE)? {
                return None;
            }
        }
    }
    let again = serde_json::from_slice(again).ok()?;
    note.0.is_empty().then_some(UpToDate { stages, again })
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
    let settled = plan.sources().all(|given| given.settled);
    if !settled || done.iter().any(|&index| plan.again(index)) {
        return Ok(false);
    }
    if summary.ran + summary.restored > 0 {
        // Once this moment is over, an edit of what was written in it shows.
        std::thread::sleep(TICK + TICK / 4);
    }
    let before = SystemTime::now();
    let mut note = Note { before, env: BTreeMap::new(), folders: BTreeMap::new(), doubtful: false };
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
        for (path, stamp) in given.input.files.values().zip(&given.stamps) {
            note.file(path, *stamp);
        }
        given.folders.iter().for_each(|(path, stamp)| note.folder(path, *stamp));
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

struct Note {
    /// When it was begun.
    before: SystemTime,
    env: BTreeMap<String, Digest>,
    folders: BTreeMap<PathBuf, Folder>,
    /// Something changed so recently that an edit could hide.
    doubtful: bool,
}

/// A folder: how it looked, where its list of files counts, and how files in it looked.
#[derive(Default)]
struct Folder {
    whole: Option<Stamp>,
    files: BTreeMap<Vec<u8>, Stamp>,
}

impl Note {
    fn file(&mut self, path: &Path, stamp: Stamp) {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        self.doubtful |= !stamp.settled(self.before);
        // Most files come folder by folder, so the key is there already.
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        match self.folders.get_mut(folder) {
            Some(known) => drop(known.files.insert(name, stamp)),
            None => {
                let files = BTreeMap::from([(name, stamp)]);
                self.folders.insert(folder.to_owned(), Folder { whole: None, files });
            }
        }
    }

    fn folder(&mut self, path: &Path, stamp: Stamp) {
        self.doubtful |= !stamp.settled(self.before);
        self.folders.entry(path.to_owned()).or_default().whole = Some(stamp);
    }

    /// False where the output is not in its place as it should be.
    fn output(
        &mut self,
        state: &State,
        artifact: &Artifact,
        place: &Path,
    ) -> Result<bool, IndexError> {
        let digest = match artifact {
            Artifact::File(digest) => {
                let (entry, stamp) = state.index.file(place)?;
                self.file(place, stamp);
                return Ok(entry.digest == *digest);
            }
            Artifact::Tree(digest) => digest,
        };
        let wanted = state.store.tree(digest)?;
        let mut open = vec![(String::new(), place.to_owned())];
        let mut found = 0;
        while let Some((prefix, folder)) = open.pop() {
            self.folder(&folder, Stamp::read(&folder)?);
            for entry in fs_err::read_dir(&folder)? {
                let entry = entry?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    open.push((format!("{name}/"), entry.path()));
                    continue;
                }
                let (is, stamp) = state.index.file(&entry.path())?;
                self.file(&entry.path(), stamp);
                if wanted.entries.get(&name) != Some(&is) {
                    return Ok(false);
                }
                found += 1;
            }
        }
        Ok(found == wanted.entries.len())
    }

    fn encode(&self, stages: usize, again: &[u8], shelves: usize) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let number = |out: &mut Vec<u8>, n: usize| out.extend((n as u32).to_le_bytes());
        let text = |out: &mut Vec<u8>, bytes: &[u8], end: &[u8]| {
            number(out, bytes.len() + end.len());
            out.extend(bytes);
            out.extend(end);
        };
        number(&mut out, stages);
        text(&mut out, again, b"");
        number(&mut out, shelves);
        number(&mut out, self.env.len());
        for (name, value) in &self.env {
            text(&mut out, name.as_bytes(), b"");
            out.extend(value.as_bytes());
        }
        number(&mut out, self.folders.len());
        for (path, folder) in &self.folders {
            let path = absolute(path).unwrap_or_else(|_| path.clone());
            text(&mut out, path.as_os_str().as_bytes(), b"");
            number(&mut out, usize::from(folder.whole.is_some()));
            folder.whole.iter().for_each(|stamp| out.extend(stamp.bytes()));
            number(&mut out, folder.files.len());
            for (name, stamp) in &folder.files {
                text(&mut out, name, b"\0");
                out.extend(stamp.bytes());
            }
        }
        let sum = Digest::of(&out);
        out.extend(sum.as_bytes());
        out
    }
}

/// Reads what `encode` wrote.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }
    fn number(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize)
    }
    fn text(&mut self) -> Option<&'a [u8]> {
        let n = self.number()?;
        self.take(n)
    }
}
