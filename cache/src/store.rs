//! [`Store`]: bytes kept under their digest.
//!
//! A blob is written to a temporary file on the store's file system, made read-only and renamed into
//! place: it is there whole or not at all for as long as the machine runs. When it has reached the
//! disk is the index's affair, which syncs many at a time ([`Index::sync`](crate::Index::sync)).
//! Blobs go in and out by reflink where the file system has it, else by copy, never by hard link: an
//! edit of a file in the workspace cannot reach the store.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::session::{Scratch, Session};
use crate::stamp::Stamp;
use crate::{Artifact, Digest, Entry, Tree, boot};

/// Below this size, a file is copied through memory rather than by reflink.
const SMALL: u64 = 64 << 10;
/// From so many files on, a folder is taken in on every core.
const MANY: usize = 32;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A blob is not there, or its bytes are not what they were.
    #[error("the store has no whole copy of {0}")]
    Missing(Digest),
    /// A blob that should be a folder's manifest is none.
    #[error("{0} is not the manifest of a folder")]
    NotATree(Digest),
    /// A name that would leave the folder it belongs to, or is not UTF-8.
    #[error("{0}: not a usable file name (relative UTF-8 without `..` or links is)")]
    Name(PathBuf),
}

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// A content-addressed store in a folder. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: PathBuf,
    root: PathBuf,
    writable: bool,
    boot: Option<String>,
    opened: SystemTime,
    session: Mutex<Option<Arc<Session>>>,
    /// Blobs whose bytes this process has hashed.
    sound: Mutex<HashSet<Digest>>,
}

impl Store {
    /// The store below `home`, made where it is not there. Where `home` cannot be written, what is in
    /// it can still be read.
    pub fn open(home: &Path) -> Result<Store> {
        Store::open_in(home, boot::id().map(str::to_owned))
    }

    /// The store as it is in a given boot of the machine.
    pub(crate) fn open_in(home: &Path, boot: Option<String>) -> Result<Store> {
        let home = std::path::absolute(home)?;
        let root = home.join("store");
        if !root.is_dir()
            && let Err(error) = fs_err::create_dir_all(&root)
            && !home.is_dir()
        {
            return Err(error.into());
        }
        let writable = writable(&home) && (writable(&root));
        let (opened, session, sound) = (SystemTime::now(), Mutex::default(), Mutex::default());
        Ok(Store(Arc::new(Inner { home, root, writable, boot, opened, session, sound })))
    }

    /// The folder that the store lies in.
    pub fn home(&self) -> &Path {
        &self.0.home
    }

    /// False where nothing can be kept: then bytes are named, and read, and that is all.
    pub fn writable(&self) -> bool {
        self.0.writable
    }

    /// The boot of the machine, where files are not synced one by one.
    pub(crate) fn boot(&self) -> Option<&str> {
        self.0.boot.as_deref()
    }

    /// A fresh folder on the store's file system, removed when dropped.
    pub fn scratch(&self) -> Result<Scratch> {
        Ok(Scratch::make(self.session()?)?)
    }

    /// A path on the store's file system that nobody else uses.
    pub(crate) fn fresh(&self) -> Result<PathBuf> {
        Ok(self.session()?.fresh())
    }

    /// Clears away after processes that were killed; says how many those were.
    pub fn sweep(&self) -> io::Result<usize> {
        crate::session::clear(&self.tmp())
    }

    fn session(&self) -> Result<Arc<Session>> {
        let mut session = self.0.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let begun = Arc::new(Session::begin(&self.tmp(), self.0.opened)?);
        *session = Some(Arc::clone(&begun));
        Ok(begun)
    }

    /// Where what is not finished lies.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.home.join("tmp")
    }

    /// Where blobs lie that were found damaged.
    pub(crate) fn damaged(&self) -> PathBuf {
        self.0.home.join("damaged")
    }

    /// Where the blobs lie.
    pub(crate) fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where a blob lies, whether or not it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let text = |digits| std::str::from_utf8(digits).unwrap_or_default();
        let mut path = PathBuf::with_capacity(self.0.root.as_os_str().len() + 66);
        path.push(&self.0.root);
        path.push(text(&hex[..2]));
        path.push(text(&hex[2..]));
        path
    }

    /// True where the blob is there; with a size, where it is there whole.
    pub fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        let found = std::fs::metadata(self.path(digest));
        found.is_ok_and(|meta| meta.is_file() && size.is_none_or(|size| meta.len() == size))
    }

    /// Keeps bytes. Where the store cannot be written, it names them.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.0.writable || self.same(&digest, bytes.len() as u64, |found| found == bytes) {
            return Ok(digest);
        }
        let temp = self.fresh()?;
        let written = self.write_new(&temp, bytes).and_then(|()| self.publish(&temp, &digest));
        written.inspect_err(|_| drop(std::fs::remove_file(&temp)))?;
        Ok(digest)
    }

    fn write_new(&self, temp: &Path, bytes: &[u8]) -> Result<()> {
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o444);
        let mut file = options.open(temp)?;
        file.write_all(bytes)?;
        if self.0.boot.is_none() {
            file.sync_all()?;
        }
        Ok(())
    }

    /// Writes a small file elsewhere on the store's file system, in one step.
    pub(crate) fn write_record(&self, bytes: &[u8], to: &Path) -> Result<()> {
        let temp = self.fresh()?;
        let written = self.write_new(&temp, bytes).and_then(|()| Ok(fs_err::rename(&temp, to)?));
        written.inspect_err(|_| drop(std::fs::remove_file(&temp)))
    }

    /// Whether the blob is there with this content already. Its bytes are compared: they may be left
    /// from before a crash. It is marked as used now, so that a `gc` that goes on leaves it alone.
    fn same(&self, digest: &Digest, size: u64, equal: impl Fn(&[u8]) -> bool) -> bool {
        let path = self.path(digest);
        let Ok(mut file) = std::fs::File::open(&path) else { return false };
        let Ok(meta) = file.metadata() else { return false };
        if meta.len() != size {
            return false;
        }
        let mut bytes = Vec::with_capacity(size as usize + 1);
        if file.read_to_end(&mut bytes).is_err() || !equal(&bytes) {
            return false;
        }
        self.touch(&file, &meta)
    }

    /// Marks a blob that is older than this process as used now; false where it is gone meanwhile.
    fn touch(&self, file: &std::fs::File, meta: &std::fs::Metadata) -> bool {
        if meta.modified().is_ok_and(|written| written >= self.0.opened) || !self.0.writable {
            return true;
        }
        let _ = file.set_modified(SystemTime::now());
        linked(file)
    }

    /// Whether a blob is there, and if so, keeps a `gc` that goes on from taking it.
    pub fn keep(&self, digest: &Digest) -> bool {
        let Ok(file) = std::fs::File::open(self.path(digest)) else { return false };
        file.metadata().is_ok_and(|meta| meta.is_file() && self.touch(&file, &meta))
    }

    /// Takes a file or a folder on the store's file system (a stage's output in its scratch): the
    /// files are moved, not copied.
    pub fn adopt(&self, path: &Path) -> Result<Artifact> {
        let meta = fs_err::symlink_metadata(path)?;
        if meta.is_file() {
            return Ok(Artifact::File(self.adopt_file(path)?.digest));
        }
        if !meta.is_dir() {
            return Err(StoreError::Name(path.to_owned()));
        }
        let found = files(path)?;
        let take = |(name, file): (String, PathBuf)| Ok((name, self.adopt_file(&file)?));
        let entries: Result<BTreeMap<_, _>> = if found.len() < MANY {
            found.into_iter().map(take).collect()
        } else {
            let all: Vec<_> = found.into_iter().collect();
            let taken: Result<Vec<_>> = all.into_par_iter().map(take).collect();
            taken.map(|taken| taken.into_iter().collect())
        };
        self.put_tree(&Tree { entries: entries? })
    }

    fn adopt_file(&self, path: &Path) -> Result<Entry> {
        let file = fs_err::File::open(path)?;
        let meta = file.metadata()?;
        let size = meta.len();
        set_read_only(&file, &meta)?;
        if self.0.boot.is_none() {
            file.sync_all()?;
        }
        let digest = Digest::of_open(file, size)?;
        let known = self.has(&digest, Some(size)) && self.sound(&digest) && self.keep(&digest);
        if !known {
            self.publish(path, &digest)?;
            self.vouch(digest);
        }
        Ok(Entry { digest, size, executable: is_executable(&meta) })
    }

    /// Whether the blob's bytes are what its name says, hashed once in a process. One whose bytes are
    /// not is removed: whoever made it makes it again.
    pub fn sound(&self, digest: &Digest) -> bool {
        if self.known_sound(digest) {
            return true;
        }
        let path = self.path(digest);
        let sound = Digest::of_file(&path).is_ok_and(|found| found == *digest);
        if sound {
            self.vouch(*digest);
        } else if self.0.writable && std::fs::remove_file(path).is_ok() {
            tracing::warn!("{digest} was damaged; it is removed from the store");
        }
        sound
    }

    fn known_sound(&self, digest: &Digest) -> bool {
        self.0.sound.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn vouch(&self, digest: Digest) {
        self.0.sound.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
    }

    /// Keeps a folder's manifest; its files are there already.
    pub fn put_tree(&self, tree: &Tree) -> Result<Artifact> {
        Ok(Artifact::Tree(self.put(&tree.encode())?))
    }

    /// Moves a finished file to its place.
    fn publish(&self, temp: &Path, digest: &Digest) -> Result<()> {
        let place = self.path(digest);
        match std::fs::rename(temp, &place) {
            Ok(()) => Ok(()),
            // The folder may not be there yet; if it is something else, the second error names it.
            Err(_) => {
                if let Some(folder) = place.parent() {
                    fs_err::create_dir_all(folder)?;
                }
                Ok(fs_err::rename(temp, &place)?)
            }
        }
    }

    /// A blob's bytes, which are what its name says.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let bytes = std::fs::read(self.path(digest)).map_err(|_| StoreError::Missing(*digest))?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(StoreError::Missing(*digest)),
        }
    }

    /// The folder that a manifest describes.
    pub fn tree(&self, digest: &Digest) -> Result<Tree> {
        Tree::decode(&self.read(digest)?).ok_or(StoreError::NotATree(*digest))
    }

    /// True where every blob that the artifact needs is there whole.
    pub fn holds(&self, artifact: &Artifact) -> bool {
        match artifact {
            Artifact::File(digest) => self.has(digest, None),
            Artifact::Tree(digest) => self.tree(digest).is_ok_and(|tree| {
                tree.entries.values().all(|entry| self.has(&entry.digest, Some(entry.size)))
            }),
        }
    }

    /// Reads every blob that the artifact needs and removes those whose bytes are not what their
    /// names say. True where all are whole.
    pub fn check(&self, artifact: &Artifact) -> bool {
        let mut all = vec![artifact.digest()];
        if let Artifact::Tree(digest) = artifact
            && let Ok(tree) = self.tree(digest)
        {
            all.extend(tree.entries.values().map(|entry| entry.digest));
        }
        // Not `all`, which stops at the first.
        all.par_iter().map(|digest| self.sound(digest)).reduce(|| true, |a, b| a & b)
            && self.holds(artifact)
    }

    /// The files of an artifact, where they lie in the store. A file artifact is named `name`.
    pub fn places(&self, artifact: &Artifact, name: &str) -> Result<BTreeMap<String, PathBuf>> {
        Ok(match artifact {
            Artifact::File(digest) => BTreeMap::from([(name.to_owned(), self.path(digest))]),
            Artifact::Tree(digest) => {
                let entries = self.tree(digest)?.entries.into_iter();
                entries.map(|(name, entry)| (name, self.path(&entry.digest))).collect()
            }
        })
    }

    /// Writes a blob to `to`, replacing what is there in one step.
    pub fn write_file(&self, digest: &Digest, executable: bool, to: &Path) -> Result<()> {
        self.write_stamped(digest, executable, to).map(drop)
    }

    /// Writes a blob to `to` and tells how the file looks, where that can be relied on at once: its
    /// write time is one that no other writer gives it.
    pub(crate) fn write_stamped(
        &self,
        digest: &Digest,
        executable: bool,
        to: &Path,
    ) -> Result<Option<Stamp>> {
        let mut temp = self.fresh()?;
        let copied = self.copy_out(digest, executable, &temp);
        let mut file = copied.inspect_err(|_| drop(std::fs::remove_file(&temp)))?;
        let folder = to.parent().ok_or_else(|| StoreError::Name(to.to_owned()))?;
        let is = |moved: &io::Result<()>, kind| matches!(moved, Err(e) if e.kind() == kind);
        let mut moved = std::fs::rename(&temp, to);
        if is(&moved, io::ErrorKind::NotFound) {
            fs_err::create_dir_all(folder)?;
            moved = std::fs::rename(&temp, to);
        }
        if is(&moved, io::ErrorKind::CrossesDevices) {
            let _ = std::fs::remove_file(&temp);
            temp = self.session()?.fresh_in(folder)?;
            let copied = self.copy_out(digest, executable, &temp);
            file = copied.inspect_err(|_| drop(std::fs::remove_file(&temp)))?;
            moved = std::fs::rename(&temp, to);
        }
        if is(&moved, io::ErrorKind::IsADirectory) {
            fs_err::remove_dir_all(to)?;
            moved = std::fs::rename(&temp, to);
        }
        if moved.is_err() {
            // Once more, for an error that names the paths.
            moved = fs_err::rename(&temp, to);
        }
        moved.inspect_err(|_| drop(std::fs::remove_file(&temp)))?;
        let (file, time) = file;
        // Renaming changed the inode's time; the write time tells whether somebody has written since.
        let stamp = Stamp::of(&file.metadata()?);
        Ok(stamp.written_at(time).then_some(stamp))
    }

    fn copy_out(
        &self,
        digest: &Digest,
        executable: bool,
        temp: &Path,
    ) -> Result<(std::fs::File, SystemTime)> {
        if !self.sound(digest) {
            return Err(StoreError::Missing(*digest));
        }
        let from = self.path(digest);
        let mut source = std::fs::File::open(&from).map_err(|_| StoreError::Missing(*digest))?;
        let meta = source.metadata()?;
        if !meta.is_file() {
            return Err(StoreError::Missing(*digest));
        }
        let file = if meta.len() < SMALL {
            let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
            source.read_to_end(&mut bytes)?;
            let mut options = fs_err::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            fs_err::os::unix::fs::OpenOptionsExt::mode(
                &mut options,
                if executable { 0o755 } else { 0o644 },
            );
            let mut file = options.open(temp)?;
            file.write_all(&bytes)?;
            file
        } else {
            reflink_copy::reflink_or_copy(&from, temp)?;
            set_mode(temp, executable)?;
            fs_err::OpenOptions::new().append(true).open(temp)?
        };
        let (file, _) = file.into_parts();
        let time = SystemTime::now();
        file.set_modified(time)?;
        Ok((file, time))
    }
}

/// Whether this process may make files in a folder.
#[cfg(unix)]
pub(crate) fn writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
pub(crate) fn writable(folder: &Path) -> bool {
    folder.is_dir()
}

/// Whether an open file still has a name.
#[cfg(unix)]
fn linked(file: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|meta| meta.nlink() > 0)
}

#[cfg(not(unix))]
fn linked(_: &std::fs::File) -> bool {
    true
}

/// The regular files below a folder by relative name. Links are refused: what they point to is not
/// the folder's.
pub(crate) fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else { return Err(StoreError::Name(path)) };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((format!("{prefix}{name}/"), path));
            } else if kind.is_file() {
                found.insert(format!("{prefix}{name}"), path);
            } else {
                return Err(StoreError::Name(path));
            }
        }
    }
    Ok(found)
}

#[cfg(unix)]
pub(crate) fn is_executable(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    meta.permissions().mode() & 0o100 != 0
}

#[cfg(unix)]
fn set_mode(path: &Path, executable: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = if executable { 0o755 } else { 0o644 };
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(crate) fn is_executable(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn set_mode(path: &Path, _: bool) -> io::Result<()> {
    let mut permissions = fs_err::metadata(path)?.permissions();
    permissions.set_readonly(false);
    fs_err::set_permissions(path, permissions)
}

fn set_read_only(file: &fs_err::File, meta: &std::fs::Metadata) -> io::Result<()> {
    let mut permissions = meta.permissions();
    if permissions.readonly() {
        return Ok(());
    }
    permissions.set_readonly(true);
    file.set_permissions(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_file_goes_in_and_comes_out() {
        let (dir, store) = store();
        let scratch = store.scratch().unwrap();
        let made = scratch.path().join("made");
        fs_err::write(&made, "hello").unwrap();
        let artifact = store.adopt(&made).unwrap();
        assert_eq!(artifact, Artifact::File(Digest::of(b"hello")));
        assert!(!made.exists(), "moved, not copied");
        let out = dir.path().join("out/deep/file.txt");
        store.write_file(&artifact.digest(), false, &out).unwrap();
        assert_eq!(fs_err::read_to_string(&out).unwrap(), "hello");
        fs_err::write(&out, "edited").unwrap();
        assert_eq!(store.read(&artifact.digest()).unwrap(), b"hello");
    }

    #[test]
    fn a_folder_has_one_name_whatever_the_order_it_was_written_in() {
        let (_dir, store) = store();
        let mut seen = Vec::new();
        for names in [["a", "b/c"], ["b/c", "a"]] {
            let scratch = store.scratch().unwrap();
            let root = scratch.path().join("tree");
            for name in names {
                fs_err::create_dir_all(root.join(name).parent().unwrap()).unwrap();
                fs_err::write(root.join(name), name).unwrap();
            }
            seen.push(store.adopt(&root).unwrap());
        }
        assert_eq!(seen[0], seen[1]);
        let tree = store.tree(&seen[0].digest()).unwrap();
        assert_eq!(tree.entries.keys().collect::<Vec<_>>(), ["a", "b/c"]);
        assert!(store.holds(&seen[0]));
    }

    #[test]
    fn a_lost_or_cut_blob_is_not_believed() {
        let (_dir, store) = store();
        let scratch = store.scratch().unwrap();
        let root = scratch.path().join("tree");
        fs_err::create_dir(&root).unwrap();
        fs_err::write(root.join("a"), "alpha").unwrap();
        let artifact = store.adopt(&root).unwrap();
        let blob = store.path(&Digest::of(b"alpha"));
        let mut permissions = fs_err::metadata(&blob).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false)]
        permissions.set_readonly(false);
        fs_err::set_permissions(&blob, permissions).unwrap();
        fs_err::write(&blob, "").unwrap();
        assert!(!store.holds(&artifact));
        fs_err::remove_file(&blob).unwrap();
        assert!(!store.holds(&artifact));
        assert!(matches!(
            store.write_file(&Digest::of(b"alpha"), false, &scratch.path().join("x")),
            Err(StoreError::Missing(_))
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_an_output_folder_is_refused() {
        let (_dir, store) = store();
        let scratch = store.scratch().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", scratch.path().join("link")).unwrap();
        assert!(matches!(store.adopt(&scratch.path()), Err(StoreError::Name(_))));
    }
}
