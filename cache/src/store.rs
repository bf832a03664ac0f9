//! [`Store`]: bytes kept under their digest.
//!
//! A blob is written to a temporary file beside the store, synced, made read-only and renamed into
//! place: it is there whole or not at all. Blobs go in and out by reflink where the file system has
//! it, else by copy, never by hard link: an edit of a file in the workspace cannot reach the store.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Artifact, Digest, Entry, Tree};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed; the message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A blob is not there, or is not as long as it was.
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

/// A content-addressed store in a folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store below `home`, made where it is not there.
    pub fn open(home: &Path) -> Result<Store> {
        let root = home.join("store");
        fs_err::create_dir_all(home.join("tmp"))?;
        fs_err::create_dir_all(&root)?;
        Ok(Store { root })
    }

    /// A fresh folder on the store's file system, removed when dropped.
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::tempdir_in(self.tmp())?)
    }

    fn tmp(&self) -> PathBuf {
        self.root.with_file_name("tmp")
    }

    /// Where a blob lies, whether or not it is there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        self.root.join(&hex[..2]).join(&hex[2..])
    }

    /// True where the blob is there; with a size, where it is there whole.
    pub fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        let found = std::fs::metadata(self.path(digest));
        found.is_ok_and(|meta| meta.is_file() && size.is_none_or(|size| meta.len() == size))
    }

    /// Keeps bytes.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest, Some(bytes.len() as u64)) {
            let mut temp = tempfile::NamedTempFile::new_in(self.tmp())?;
            temp.write_all(bytes)?;
            self.publish(temp.into_temp_path(), &digest)?;
        }
        Ok(digest)
    }

    /// Takes a file or a folder on the store's file system (a stage's output in its scratch): the
    /// files are moved, not copied.
    pub fn adopt(&self, path: &Path) -> Result<Artifact> {
        let meta = fs_err::symlink_metadata(path)?;
        if meta.is_file() {
            return Ok(Artifact::File(self.adopt_file(path)?.digest));
        }
        let mut tree = Tree::default();
        for (name, file) in files(path)? {
            tree.entries.insert(name, self.adopt_file(&file)?);
        }
        self.put_tree(&tree)
    }

    fn adopt_file(&self, path: &Path) -> Result<Entry> {
        let meta = fs_err::metadata(path)?;
        let digest = Digest::of_file(path)?;
        if !self.has(&digest, Some(meta.len())) {
            self.publish(tempfile::TempPath::try_from_path(path.to_owned())?, &digest)?;
        }
        Ok(Entry { digest, size: meta.len(), executable: is_executable(&meta) })
    }

    /// Keeps a folder's manifest; its files are there already.
    pub fn put_tree(&self, tree: &Tree) -> Result<Artifact> {
        Ok(Artifact::Tree(self.put(&tree.encode())?))
    }

    fn publish(&self, temp: tempfile::TempPath, digest: &Digest) -> Result<()> {
        let file = fs_err::File::open(&temp)?;
        let mut permissions = file.metadata()?.permissions();
        permissions.set_readonly(true);
        fs_err::set_permissions(&temp, permissions)?;
        file.sync_all()?;
        let place = self.path(digest);
        if let Some(folder) = place.parent() {
            fs_err::create_dir_all(folder)?;
        }
        temp.persist(&place).map_err(|e| e.error)?;
        Ok(())
    }

    /// A blob's bytes.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        std::fs::read(self.path(digest)).map_err(|_| StoreError::Missing(*digest))
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
        let folder = to.parent().ok_or_else(|| StoreError::Name(to.to_owned()))?;
        fs_err::create_dir_all(folder)?;
        if to.is_dir() && !to.is_symlink() {
            fs_err::remove_dir_all(to)?;
        }
        let from = self.path(digest);
        if !from.is_file() {
            return Err(StoreError::Missing(*digest));
        }
        // reflink_or_copy wants a name that is free.
        let temp = tempfile::Builder::new().prefix(".quantmill-").make_in(folder, |temp| {
            reflink_copy::reflink_or_copy(&from, temp)?;
            set_mode(temp, executable)
        })?;
        temp.into_temp_path().persist(to).map_err(|e| StoreError::Io(e.error))
    }
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
        assert!(matches!(store.adopt(scratch.path()), Err(StoreError::Name(_))));
    }
}
