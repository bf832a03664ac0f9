//! [`Scan`]: what lies below a folder, each file with its digest, hashed only where it changed.
//!
//! A folder is listed once and each of its files looked at once, in the order in which the file
//! system gives them, beside what is known of them. Where nothing changed, the name of the whole is
//! known, too, and nothing is sorted or encoded. A scan can be written down as a
//! [snapshot](crate::glance), with which the folder is compared sooner still.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use rayon::prelude::*;
use rusqlite::{OptionalExtension, params};

use crate::database::Database;
use crate::files::Files;
use crate::listing::{Known, Listing};
use crate::store::Result;
use crate::tree::Manifest;
use crate::{Digest, Entry, Stamp, StoreError, Tree};

/// Which files a [`Scan`] takes.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    /// A name for the choice: scans with one name and one root take the same files.
    pub name: &'a str,
    /// Take hidden files and folders, too.
    pub hidden: bool,
    /// Follow links. Otherwise they are among what is [left out](Scan::others).
    pub links: bool,
    /// How many folders deep, the root being the first.
    pub depth: usize,
    /// Whether a file is wanted, by its relative name.
    pub wanted: &'a (dyn Fn(&str) -> bool + Sync),
}

/// Every file, links left out: how a folder of outputs is read.
pub const ALL: Walk<'_> =
    Walk { name: "", hidden: true, links: false, depth: usize::MAX, wanted: &|_| true };

/// The files below a folder.
#[derive(Debug)]
pub struct Scan {
    pub(crate) root: PathBuf,
    /// The name of the [`Walk`].
    pub(crate) walk: String,
    /// A time before anything was looked at.
    pub(crate) before: SystemTime,
    /// `""` and the names of the folders below, each with a `/` at its end, and how they looked
    /// before they were read.
    pub(crate) folders: Vec<(String, Stamp)>,
    pub(crate) names: String,
    pub(crate) files: Vec<File>,
    pub(crate) others: Vec<PathBuf>,
    pub(crate) digest: Digest,
    /// The manifest, where it had to be made.
    pub(crate) manifest: Option<Vec<u8>>,
    /// The files in the order of their full names.
    pub(crate) order: OnceLock<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    pub folder: u32,
    pub start: u32,
    pub end: u32,
    pub known: Known,
}

/// A folder while it is read.
struct Reading {
    path: PathBuf,
    /// Where its files begin among all.
    first: usize,
    /// Files to hash: their places, and whether each is worth remembering.
    changed: Vec<usize>,
    /// How many files the listing knew.
    known: usize,
    /// How many of the names the listing knew, and how many were not where it had them.
    met: usize,
    loose: usize,
    /// Files that the folder has and the walk did not want.
    passed: Vec<String>,
}

impl Reading {
    /// Leaves a file out.
    fn pass(&mut self, listing: &Listing, name: &str) {
        self.met += usize::from(listing.get(name).is_some());
        self.passed.push(name.to_owned());
    }
}

impl Scan {
    /// Reads what lies below `root`.
    pub(crate) fn read(
        files: &Files,
        database: &Database,
        root: &Path,
        walk: &Walk<'_>,
    ) -> Result<Scan> {
        let root = std::path::absolute(root)?;
        let mut scan = Scan {
            root: root.clone(),
            walk: walk.name.to_owned(),
            before: SystemTime::now(),
            folders: vec![(String::new(), Stamp::default())],
            names: String::new(),
            files: Vec::new(),
            others: Vec::new(),
            digest: Digest::from([0; 32]),
            manifest: None,
            order: OnceLock::new(),
        };
        let mut mark = Some(blake3::Hasher::new());
        scan.folder(files, database, walk, &root, 0, &mut mark, &mut Vec::new())?;
        let Some(mark) = mark.map(|mark| *mark.finalize().as_bytes()) else {
            scan.identify();
            return Ok(scan);
        };
        let mut name = root.into_os_string().into_encoded_bytes();
        name.push(0);
        name.extend_from_slice(walk.name.as_bytes());
        match recall(database, &name, &mark) {
            Some(digest) => scan.digest = digest,
            None => {
                scan.identify();
                database.with(|connection| {
                    let sql = "INSERT OR REPLACE INTO scans VALUES (?1, ?2, ?3)";
                    let values = params![name, mark, scan.digest.as_bytes()];
                    connection.prepare_cached(sql)?.execute(values)
                });
            }
        }
        Ok(scan)
    }

    #[allow(clippy::too_many_arguments)]
    fn folder(
        &mut self,
        files: &Files,
        database: &Database,
        walk: &Walk<'_>,
        path: &Path,
        folder: u32,
        mark: &mut Option<blake3::Hasher>,
        trail: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let mut below: Vec<(String, PathBuf, bool)> = Vec::new();
        // Before it is read: what comes later changes it.
        self.folders[folder as usize].1 = Stamp::read(path)?;
        let listing = files.listing(database, path, |listing| listing.clone());
        let mut reading = Reading {
            path: path.to_owned(),
            first: self.files.len(),
            changed: Vec::new(),
            known: listing.len(),
            met: 0,
            loose: 0,
            passed: Vec::new(),
        };
        let mut at = 0;
        let mut relative = self.folders[folder as usize].0.clone();
        let prefix = relative.len();
        for entry in fs_err::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { return Err(StoreError::Name(entry.path())) };
            if !walk.hidden && name.starts_with('.') {
                reading.pass(&listing, name);
                continue;
            }
            let mut kind = entry.file_type()?;
            let mut meta = None;
            if kind.is_symlink() && walk.links {
                let target = fs_err::metadata(entry.path())?;
                kind = target.file_type();
                meta = Some(target);
            }
            if kind.is_dir() {
                below.push((name.to_owned(), entry.path(), meta.is_some()));
                continue;
            }
            if !kind.is_file() {
                self.others.push(entry.path());
                continue;
            }
            relative.truncate(prefix);
            relative.push_str(name);
            if !(walk.wanted)(&relative) {
                reading.pass(&listing, name);
                continue;
            }
            let meta = match meta {
                Some(meta) => meta,
                None => entry.metadata()?,
            };
            let stamp = Stamp::of(&meta);
            let known = listing.next(&mut at, &mut reading.loose, name);
            reading.met += usize::from(known.is_some());
            let known = match known {
                Some(known) if known.stamp == stamp => known,
                _ => {
                    reading.changed.push(self.files.len());
                    Known { stamp, digest: Digest::from([0; 32]) }
                }
            };
            let start = self.names.len();
            self.names.push_str(name);
            let (start, end) = (start as u32, self.names.len() as u32);
            self.files.push(File { folder, start, end, known });
        }
        self.finish(files, database, reading, mark)?;
        if self.folders[folder as usize].0.matches('/').count() + 1 >= walk.depth {
            return Ok(());
        }
        for (name, below, linked) in below {
            if linked {
                // Where we stand. A link to a folder that holds one of these leads round for ever.
                trail.push(fs_err::canonicalize(path)?);
                let real = fs_err::canonicalize(&below)?;
                if trail.iter().any(|place| place.starts_with(&real)) {
                    let message =
                        format!("{}: a link to a folder that it lies in", below.display());
                    return Err(std::io::Error::other(message).into());
                }
            }
            let prefix = format!("{}{name}/", self.folders[folder as usize].0);
            if let Some(mark) = mark {
                mark.update(prefix.as_bytes());
                mark.update(&[0]);
            }
            self.folders.push((prefix, Stamp::default()));
            let inner = (self.folders.len() - 1) as u32;
            self.folder(files, database, walk, &below, inner, mark, trail)?;
            if linked {
                trail.pop();
            }
        }
        Ok(())
    }

    /// Hashes what changed in a folder and tells its listing.
    fn finish(
        &mut self,
        files: &Files,
        database: &Database,
        reading: Reading,
        mark: &mut Option<blake3::Hasher>,
    ) -> Result<()> {
        let hash = |at: &usize| {
            let stamp = self.files[*at].known.stamp;
            Files::hash(&reading.path.join(self.name(*at)), stamp, self.before)
        };
        let hashed: Vec<(Known, bool)> = match reading.changed.len() {
            0 | 1 => reading.changed.iter().map(hash).collect::<Result<_>>()?,
            _ => reading.changed.par_iter().map(hash).collect::<Result<_>>()?,
        };
        let mut all = true;
        for (at, (known, _)) in reading.changed.iter().zip(&hashed) {
            self.files[*at].known = *known;
        }
        files.listing(database, &reading.path, |listing| {
            for (at, (known, remember)) in reading.changed.iter().zip(&hashed) {
                let name = self.name(*at);
                if *remember {
                    listing.set(name, *known);
                } else {
                    listing.forget(name);
                    all = false;
                }
            }
            let seen = self.files.len() - reading.first;
            if reading.known > reading.met {
                self.clear(listing, &reading);
            }
            if reading.loose > seen / 16 && listing.len() == seen {
                listing.reorder((reading.first..self.files.len()).map(|at| self.name(at)));
            }
            match mark {
                Some(mark) if all && listing.marked() => listing.mark(mark),
                _ if seen == 0 => {}
                _ => *mark = None,
            }
        });
        Ok(())
    }

    /// Forgets the files that are gone from a folder.
    fn clear(&self, listing: &mut Listing, reading: &Reading) {
        let mut here: Vec<&str> =
            (reading.first..self.files.len()).map(|at| self.name(at)).collect();
        here.extend(reading.passed.iter().map(String::as_str));
        here.sort_unstable();
        let gone = listing.names().filter(|name| here.binary_search(name).is_err());
        let gone: Vec<String> = gone.map(str::to_owned).collect();
        for name in gone {
            listing.forget(&name);
        }
    }

    pub(crate) fn name(&self, at: usize) -> &str {
        let file = &self.files[at];
        &self.names[file.start as usize..file.end as usize]
    }

    fn prefix(&self, at: usize) -> &str {
        &self.folders[self.files[at].folder as usize].0
    }

    fn full_name(&self, at: usize) -> String {
        [self.prefix(at), self.name(at)].concat()
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        if self.files[a].folder == self.files[b].folder {
            return self.name(a).cmp(self.name(b));
        }
        let parts = |at| self.prefix(at).bytes().chain(self.name(at).bytes());
        parts(a).cmp(parts(b))
    }

    pub(crate) fn order(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let mut order: Vec<u32> = (0..self.files.len() as u32).collect();
            // Stable: that one merges, and the files of a folder lie together already.
            order.sort_by(|a, b| self.compare(*a as usize, *b as usize));
            order
        })
    }

    /// Makes its manifest and takes the digest of that.
    pub(crate) fn identify(&mut self) {
        let manifest = self.encode();
        self.digest = Digest::of(&manifest);
        self.manifest = Some(manifest);
    }

    /// The manifest of the folder's [`Tree`].
    pub fn manifest(&mut self) -> Vec<u8> {
        self.manifest.take().unwrap_or_else(|| self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut manifest = Manifest::with_capacity(self.files.len());
        for at in self.order().iter().map(|at| *at as usize) {
            manifest.push([self.prefix(at), self.name(at)], &entry(&self.files[at].known));
        }
        manifest.into_bytes()
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The folder as a tree.
    pub fn tree(&self) -> Tree {
        let at = |at: &u32| (self.full_name(*at as usize), entry(&self.files[*at as usize].known));
        Tree { entries: self.order().iter().map(at).collect() }
    }

    /// Every file in the order of the names: its relative name, how it looked, what is in it.
    pub fn files(&self) -> impl Iterator<Item = (String, Stamp, Digest)> {
        self.order().iter().map(|at| {
            let Known { stamp, digest } = self.files[*at as usize].known;
            (self.full_name(*at as usize), stamp, digest)
        })
    }

    /// How the file looked that is at this place among [`Scan::files`], and its content.
    pub fn file(&self, at: usize) -> Option<(Stamp, Digest)> {
        let Known { stamp, digest } = self.files[*self.order().get(at)? as usize].known;
        Some((stamp, digest))
    }

    /// The place of a file by its relative name, if there is one.
    pub fn place(&self, name: &str) -> Option<PathBuf> {
        let full =
            |at: &u32| self.prefix(*at as usize).bytes().chain(self.name(*at as usize).bytes());
        self.order().binary_search_by(|at| full(at).cmp(name.bytes())).ok()?;
        Some(self.root.join(name))
    }

    /// The places of the files whose own names, without a folder's, are wanted.
    pub fn named(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = PathBuf> {
        let found = self.order().iter().map(|at| *at as usize);
        let found = found.filter(move |at| wanted(self.name(*at)));
        found.map(|at| self.root.join(self.full_name(at)))
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether no folder has got or lost a file since.
    pub fn complete(&self) -> bool {
        let same = |(name, then): &(String, Stamp)| {
            Stamp::read(&self.root.join(name)).is_ok_and(|now| now == *then)
        };
        self.folders.iter().all(same)
    }

    /// A time before anything was looked at.
    pub fn before(&self) -> SystemTime {
        self.before
    }

    /// Whether all of it was unchanged for so long that a later change shows.
    pub fn settled(&self) -> bool {
        let stamps = self.files.iter().map(|file| file.known.stamp);
        let mut stamps = stamps.chain(self.folders.iter().map(|(_, stamp)| *stamp));
        stamps.all(|stamp| stamp.settled(self.before))
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True where there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What is neither a file nor a folder, or is a link that was not followed.
    pub fn others(&self) -> &[PathBuf] {
        &self.others
    }
}

fn entry(known: &Known) -> Entry {
    let Known { stamp, digest } = known;
    Entry { digest: *digest, size: stamp.len(), executable: stamp.executable() }
}

fn recall(database: &Database, name: &[u8], mark: &[u8; 32]) -> Option<Digest> {
    let found = database.with(|connection| {
        let mut query =
            connection.prepare_cached("SELECT tree FROM scans WHERE name = ?1 AND mark = ?2")?;
        query.query_row(params![name, mark], |row| row.get::<_, [u8; 32]>(0)).optional()
    });
    found.flatten().map(Digest::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::TICK;
    use crate::{Index, Store};

    fn space(files: &[&str]) -> (tempfile::TempDir, Index, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("home")).unwrap();
        let index = Index::open(&store).unwrap();
        let root = dir.path().join("data");
        for name in files {
            write(&root, name, name);
        }
        std::thread::sleep(TICK * 2);
        (dir, index, root)
    }

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn names(scan: &Scan) -> Vec<String> {
        scan.tree().entries.into_keys().collect()
    }

    #[test]
    fn a_scan_follows_every_change_whatever_it_remembers() {
        let all = ["a-b", "a/b", "a/c/d", "z", ".hidden", "a/.hidden"];
        let (_dir, index, root) = space(&all);
        let check = |index: &Index| {
            let mut wanted = Tree::default();
            for (name, path) in crate::store::files(&root).unwrap() {
                let (digest, size) =
                    (Digest::of_file(&path).unwrap(), path.metadata().unwrap().len());
                wanted.entries.insert(name, Entry { digest, size, executable: false });
            }
            for _ in 0..3 {
                let mut scan = index.scan(&root, &ALL).unwrap();
                assert_eq!(scan.tree(), wanted);
                assert_eq!(scan.manifest(), wanted.encode());
                assert_eq!(scan.digest(), Digest::of(&wanted.encode()));
                index.sync().unwrap();
            }
        };
        check(&index);
        write(&root, "a/b", "changed");
        check(&index);
        std::thread::sleep(TICK * 2);
        check(&index);
        write(&root, "a/new", "new");
        fs_err::remove_file(root.join("z")).unwrap();
        check(&index);
        let again = Index::open(&Store::open(&root.with_file_name("home")).unwrap()).unwrap();
        check(&again);
    }

    #[test]
    fn walks_that_differ_share_what_they_know_and_nothing_else() {
        let (_dir, index, root) = space(&["a.csv", "b.txt", ".c.csv", "d/e.csv"]);
        let shallow = Walk { name: "*", depth: 1, hidden: false, ..ALL };
        let tables = Walk { name: "csv", wanted: &|name| name.ends_with(".csv"), ..ALL };
        for _ in 0..3 {
            assert_eq!(names(&index.scan(&root, &shallow).unwrap()), ["a.csv", "b.txt"]);
            assert_eq!(names(&index.scan(&root, &tables).unwrap()), [".c.csv", "a.csv", "d/e.csv"]);
            assert_eq!(index.scan(&root, &ALL).unwrap().len(), 4);
            index.sync().unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_where_asked_and_never_round() {
        let (_dir, index, root) = space(&["a/b"]);
        std::os::unix::fs::symlink("a", root.join("linked")).unwrap();
        let follow = Walk { name: "links", links: true, ..ALL };
        assert_eq!(names(&index.scan(&root, &follow).unwrap()), ["a/b", "linked/b"]);
        let scan = index.scan(&root, &ALL).unwrap();
        assert_eq!(
            (names(&scan), scan.others()),
            (vec!["a/b".to_owned()], &[root.join("linked")][..])
        );
        std::os::unix::fs::symlink("..", root.join("a/up")).unwrap();
        let error = index.scan(&root, &follow).unwrap_err().to_string();
        assert!(error.contains("a link to a folder that it lies in"), "{error}");
    }
}
