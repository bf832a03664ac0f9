//! Blobs that the store has lost and the workspace still has: an output in its place is as good as
//! its blob, once its bytes have been hashed.

use std::path::Path;

use crate::store::{Result, files, is_executable};
use crate::{Artifact, Digest, Entry, Store, Tree};

impl Store {
    /// Takes the artifact back from `from` where that is what lies there; the workspace keeps its
    /// own. True where the store has it again.
    pub fn recover(&self, artifact: &Artifact, from: &Path) -> Result<bool> {
        let tree = matches!(artifact, Artifact::Tree(_));
        if from.is_dir() != tree || from.is_symlink() || !from.exists() {
            return Ok(false);
        }
        if look(from)? != *artifact {
            return Ok(false);
        }
        let scratch = self.scratch()?;
        let copy = scratch.path().join("copy");
        match tree {
            false => copy_file(from, &copy)?,
            true => {
                fs_err::create_dir(&copy)?;
                for (name, file) in files(from)? {
                    let to = copy.join(name);
                    if let Some(folder) = to.parent() {
                        fs_err::create_dir_all(folder)?;
                    }
                    copy_file(&file, &to)?;
                }
            }
        }
        // It may have been edited while it was copied.
        Ok(self.adopt(&copy)? == *artifact)
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    reflink_copy::reflink_or_copy(from, to)?;
    Ok(())
}

/// What lies there, named by its content.
fn look(path: &Path) -> Result<Artifact> {
    if path.is_file() {
        return Ok(Artifact::File(Digest::of_file(path)?));
    }
    let mut tree = Tree::default();
    for (name, file) in files(path)? {
        let meta = fs_err::metadata(&file)?;
        let (digest, size) = (Digest::of_file(&file)?, meta.len());
        tree.entries.insert(name, Entry { digest, size, executable: is_executable(&meta) });
    }
    Ok(Artifact::Tree(Digest::of(&tree.encode())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_artifact_comes_back_from_where_it_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let place = dir.path().join("out");
        fs_err::create_dir_all(place.join("deep")).unwrap();
        fs_err::write(place.join("deep/a"), "alpha").unwrap();
        let artifact = look(&place).unwrap();
        assert!(!store.holds(&artifact));
        assert!(store.recover(&artifact, &place).unwrap());
        assert!(store.holds(&artifact));
        assert!(place.join("deep/a").exists());
        let other = Artifact::File(Digest::of(b"beta"));
        assert!(!store.recover(&other, &place.join("deep/a")).unwrap());
        assert!(!store.recover(&other, &place.join("none")).unwrap());
    }
}
