//! A [`Scan`] in bytes: how its files looked, in the order of their names.
//!
//! [`glance`] compares a snapshot with the folder and lists and sorts nothing: a folder that looks as
//! it did has the files that it had. Where a few of them look otherwise, those are hashed, and the
//! rest of the scan is as it was written down.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::binary::{Reader, put_number, put_text};
use crate::database::Database;
use crate::files::Files;
use crate::listing::Known;
use crate::{Digest, Scan, Stamp, scan};

/// More files than this are hashed side by side, by a scan of its own.
const FEW: usize = 64;

/// What a snapshot and a look at its files tell.
#[derive(Debug)]
pub struct Glance {
    bytes: Arc<Vec<u8>>,
    /// Where in the bytes the snapshot is.
    at: Range<usize>,
    /// Files that look otherwise than they did, by their place in the snapshot.
    changed: Vec<usize>,
    before: SystemTime,
}

impl Glance {
    /// True where every file looks as it did.
    pub fn same(&self) -> bool {
        self.changed.is_empty()
    }

    fn snapshot(&self) -> &[u8] {
        &self.bytes[self.at.clone()]
    }

    /// What tells it from other scans: the folder, and the name of the walk.
    pub(crate) fn name(&self) -> Option<(PathBuf, String)> {
        let head = Head::read(&mut Reader(self.snapshot()))?;
        Some((head.root.to_owned(), head.walk.to_owned()))
    }
}

/// What a snapshot begins with.
struct Head<'a> {
    root: &'a Path,
    walk: &'a str,
    digest: Digest,
    folders: Vec<(&'a str, Stamp)>,
}

impl<'a> Head<'a> {
    fn read(read: &mut Reader<'a>) -> Option<Head<'a>> {
        let (root, walk) = (Path::new(text(read)?), text(read)?);
        let digest = Digest::from(*read.array()?);
        let count = read.number()?;
        let folder = |_| Some((text(read)?, Stamp::from_bytes(read.array()?)));
        Some(Head { root, walk, digest, folders: (0..count).map(folder).collect::<Option<_>>()? })
    }
}

fn text<'a>(read: &mut Reader<'a>) -> Option<&'a str> {
    std::str::from_utf8(read.text()?).ok()
}

impl Scan {
    /// How everything looked; `None` where that cannot be told, or the folder holds what the scan
    /// left out and a snapshot does not know.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        if !self.others.is_empty() {
            return None;
        }
        let size = self.files.len() * (4 + Stamp::SIZE + 32) + self.names.len();
        let mut out = Vec::with_capacity(size + (4 << 10));
        put_text(&mut out, self.root.to_str()?.as_bytes());
        put_text(&mut out, self.walk.as_bytes());
        out.extend_from_slice(self.digest.as_bytes());
        put_number(&mut out, self.folders.len());
        for (name, stamp) in &self.folders {
            put_text(&mut out, name.as_bytes());
            out.extend_from_slice(&stamp.bytes());
        }
        let folder = |at: &u32| self.files[*at as usize].folder;
        let runs = self.order().chunk_by(|a, b| folder(a) == folder(b));
        put_number(&mut out, runs.clone().count());
        for run in runs {
            put_number(&mut out, run.first().map(folder)? as usize);
            put_number(&mut out, run.len());
            for at in run.iter().map(|at| *at as usize) {
                let Known { stamp, digest } = self.files[at].known;
                put_text(&mut out, self.name(at).as_bytes());
                out.extend_from_slice(&stamp.bytes());
                out.extend_from_slice(digest.as_bytes());
            }
        }
        Some(out)
    }

    /// The first file that does not look as it did, or that changed so shortly before it was read
    /// that a later change could look the same, and has another content now.
    pub fn changed(&self) -> Option<PathBuf> {
        let folder = |at: &u32| self.files[*at as usize].folder;
        for run in self.order().chunk_by(|a, b| folder(a) == folder(b)) {
            let folder = self.root.join(&self.folders[folder(run.first()?) as usize].0);
            let open = File::open(&folder).ok();
            for at in run.iter().map(|at| *at as usize) {
                let (name, known) = (self.name(at), self.files[at].known);
                let now = open.as_ref().and_then(|open| Stamp::at(open, name).ok());
                let same = now == Some(known.stamp)
                    && (known.stamp.settled(self.before)
                        || Digest::of_file(&folder.join(name)).ok() == Some(known.digest));
                if !same {
                    return Some(folder.join(name));
                }
            }
        }
        None
    }
}

/// Looks at every file of the snapshot that is `at` a place among some bytes. `None` where a folder
/// does not look as it did, or a file cannot be looked at: then only a scan tells what is there.
pub fn glance(bytes: &Arc<Vec<u8>>, at: Range<usize>) -> Option<Glance> {
    let before = SystemTime::now();
    let mut read = Reader(bytes.get(at.clone())?);
    let head = Head::read(&mut read)?;
    let mut seen = vec![false; head.folders.len()];
    let (mut changed, mut file) = (Vec::new(), 0);
    for _ in 0..read.number()? {
        let number = read.number()?;
        let (folder, then) = head.folders.get(number)?;
        let open = File::open(head.root.join(folder)).ok()?;
        if !std::mem::replace(&mut seen[number], true) && Stamp::of(&open.metadata().ok()?) != *then
        {
            return None;
        }
        for _ in 0..read.number()? {
            let now = Stamp::at(&open, read.text()?).ok()?;
            if now.bytes() != *read.array()? {
                changed.push(file);
            }
            read.take(32)?;
            file += 1;
        }
    }
    for ((folder, then), _) in head.folders.iter().zip(seen).filter(|(_, seen)| !seen) {
        if Stamp::read(&head.root.join(folder)).ok()? != *then {
            return None;
        }
    }
    let whole = read.0.is_empty();
    whole.then(|| Glance { bytes: Arc::clone(bytes), at, changed, before })
}

/// The scan that a snapshot and a look at it amount to; `None` where too much has changed.
pub(crate) fn revive(glance: &Glance, files: &Files, database: &Database) -> Option<Scan> {
    if glance.changed.len() > FEW {
        return None;
    }
    let mut read = Reader(glance.snapshot());
    let head = Head::read(&mut read)?;
    let folders = head.folders.iter().map(|(name, stamp)| ((*name).to_owned(), *stamp));
    let mut scan = Scan {
        root: head.root.to_owned(),
        walk: head.walk.to_owned(),
        before: glance.before,
        folders: folders.collect(),
        names: String::new(),
        files: Vec::new(),
        others: Vec::new(),
        digest: head.digest,
        manifest: None,
        order: OnceLock::new(),
    };
    for _ in 0..read.number()? {
        let folder = read.number()?;
        scan.folders.get(folder)?;
        for _ in 0..read.number()? {
            let start = scan.names.len() as u32;
            scan.names.push_str(text(&mut read)?);
            let stamp = Stamp::from_bytes(read.array()?);
            let known = Known { stamp, digest: Digest::from(*read.array()?) };
            let (folder, end) = (folder as u32, scan.names.len() as u32);
            scan.files.push(scan::File { folder, start, end, known });
        }
    }
    scan.order = (0..scan.files.len() as u32).collect::<Vec<u32>>().into();
    for at in &glance.changed {
        let file = scan.files.get(*at)?;
        let folder = scan.root.join(&scan.folders[file.folder as usize].0);
        scan.files[*at].known = files.file(database, &folder.join(scan.name(*at))).ok()?;
    }
    if !glance.changed.is_empty() {
        scan.identify();
    }
    Some(scan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::TICK;
    use crate::{ALL, Index, Store};

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    /// What a glance at the snapshot makes of it, which must be what a scan finds.
    fn look(index: &Index, root: &Path, snapshot: &[u8]) -> Option<usize> {
        let glance = glance(&Arc::new(snapshot.to_vec()), 0..snapshot.len())?;
        let changed = glance.changed.len();
        index.glanced(glance);
        let mut again = index.rescan(root, &ALL).unwrap();
        let mut anew = index.scan(root, &ALL).unwrap();
        assert_eq!((again.digest(), again.manifest()), (anew.digest(), anew.manifest()));
        assert_eq!(again.snapshot().is_some(), anew.snapshot().is_some());
        Some(changed)
    }

    #[test]
    fn a_glance_is_as_good_as_a_scan() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&Store::open(&dir.path().join("home")).unwrap()).unwrap();
        let root = dir.path().join("data");
        for name in ["a-b", "a/b", "a/c/d", "a0", "empty/.keep", "z/1", "z/2"] {
            write(&root, name, name);
        }
        fs_err::remove_file(root.join("empty/.keep")).unwrap();
        std::thread::sleep(TICK * 2);
        let snapshot = index.scan(&root, &ALL).unwrap().snapshot().unwrap();
        assert_eq!(look(&index, &root, &snapshot), Some(0));
        write(&root, "a/c/d", "another");
        write(&root, "z/1", "Z/1");
        assert_eq!(look(&index, &root, &snapshot), Some(2));
        for torn in [0, 40, snapshot.len() / 2, snapshot.len() - 1] {
            let bytes = Arc::new(snapshot.clone());
            assert!(glance(&bytes, 0..torn).is_none(), "torn at {torn}");
        }
        write(&root, "empty/new", "new");
        assert_eq!(look(&index, &root, &snapshot), None);
        fs_err::remove_file(root.join("empty/new")).unwrap();
        assert_eq!(look(&index, &root, &snapshot), None, "a folder's times tell");
        let snapshot = index.scan(&root, &ALL).unwrap().snapshot().unwrap();
        fs_err::remove_file(root.join("a/b")).unwrap();
        assert_eq!(look(&index, &root, &snapshot), None);
    }

    #[test]
    fn a_change_while_somebody_reads_shows() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&Store::open(&dir.path().join("home")).unwrap()).unwrap();
        let root = dir.path().join("data");
        write(&root, "a/old", "old");
        std::thread::sleep(TICK * 2);
        write(&root, "a/new", "new");
        let scan = index.scan(&root, &ALL).unwrap();
        assert_eq!((scan.changed(), scan.settled()), (None, false));
        write(&root, "a/new", "now");
        assert_eq!(scan.changed(), Some(root.join("a/new")));
        write(&root, "a/new", "new");
        let again = index.scan(&root, &ALL).unwrap();
        fs_err::remove_file(root.join("a/old")).unwrap();
        assert_eq!(again.changed(), Some(root.join("a/old")));
    }
}
