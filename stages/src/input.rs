//! [`Input`]: a file or a folder that an action reads, as its files by name.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use quantmill_cache::Scan;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One input of an action: a file, or a folder as the files in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Input {
    /// Relative name (`/`-separated) to the place of the bytes. A file has one entry, under its own
    /// file name. The places are read-only and may have names of their own (the store's).
    pub files: Files,
    /// A folder rather than one file.
    pub tree: bool,
}

/// Places by relative name. Those of a folder of the workspace are listed once somebody asks: most
/// commands take the folder as it is, however many files it has.
#[derive(Clone, Debug, Default)]
pub struct Files {
    scan: Option<Arc<Scan>>,
    whole: bool,
    listed: OnceLock<Arc<BTreeMap<String, PathBuf>>>,
}

impl Files {
    /// The files that a scan found; `whole` where it left out none but hidden ones.
    pub fn scanned(scan: Arc<Scan>, whole: bool) -> Files {
        Files {
            whole: whole && scan.others().is_empty(),
            scan: Some(scan),
            listed: OnceLock::new(),
        }
    }

    /// The folder that is known to hold these files by their own names and, but for hidden ones, no
    /// others.
    pub fn folder(&self) -> Option<&Path> {
        let scan = self.scan.as_ref().filter(|scan| self.whole && scan.complete())?;
        Some(scan.root())
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.scan.as_ref().map_or_else(|| self.deref().len(), |scan| scan.len())
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of a file.
    pub fn place(&self, name: &str) -> Option<PathBuf> {
        match &self.scan {
            Some(scan) => scan.place(name),
            None => self.deref().get(name).cloned(),
        }
    }

    /// The places of the first files whose own names, without a folder's, are wanted.
    pub fn named(&self, wanted: impl Fn(&str) -> bool, most: usize) -> Vec<PathBuf> {
        let own = |name: &str| wanted(name.rsplit('/').next().unwrap_or(name));
        match &self.scan {
            Some(scan) => scan.named(own).take(most).collect(),
            None => {
                let found = self.iter().filter(|(name, _)| own(name));
                found.map(|(_, place)| place.clone()).take(most).collect()
            }
        }
    }
}

impl Deref for Files {
    type Target = BTreeMap<String, PathBuf>;

    fn deref(&self) -> &BTreeMap<String, PathBuf> {
        self.listed.get_or_init(|| {
            let files = self.scan.iter().flat_map(|scan| {
                scan.files().map(|(name, ..)| {
                    let place = scan.root().join(&name);
                    (name, place)
                })
            });
            Arc::new(files.collect())
        })
    }
}

impl From<BTreeMap<String, PathBuf>> for Files {
    fn from(files: BTreeMap<String, PathBuf>) -> Files {
        Files { scan: None, whole: false, listed: Arc::new(files).into() }
    }
}

impl FromIterator<(String, PathBuf)> for Files {
    fn from_iter<T: IntoIterator<Item = (String, PathBuf)>>(files: T) -> Files {
        files.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<'a> IntoIterator for &'a Files {
    type Item = (&'a String, &'a PathBuf);
    type IntoIter = std::collections::btree_map::Iter<'a, String, PathBuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.deref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Files, D::Error> {
        BTreeMap::deserialize(deserializer).map(Files::from)
    }
}
