//! [`Tree`]: a folder as the list of its files, and [`Artifact`]: a file or a tree by name.
//!
//! The manifest is one line a file, in the order of the names, so that equal folders have equal
//! digests wherever and whenever they were written. Times, owners and empty folders do not count;
//! the executable bit does.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Digest;

/// Bytes that are compared at once.
const PAGE: usize = 4096;

pub(crate) const HEADER: &str = "quantmill tree 1";

/// A file of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// A folder: relative `/`-separated name to file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The files.
    pub entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// The manifest's bytes; their digest is the tree's.
    pub fn encode(&self) -> Vec<u8> {
        let mut manifest = Manifest::with_capacity(self.entries.len());
        for (name, entry) in &self.entries {
            manifest.push([name.as_str()], entry);
        }
        manifest.into_bytes()
    }

    /// Reads a manifest; `None` where it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Tree> {
        Tree::lines(std::str::from_utf8(strip(bytes)?).ok()?)
    }

    fn lines(mut rest: &str) -> Option<Tree> {
        let mut entries: Vec<(String, Entry)> = Vec::with_capacity(rest.len() / 80);
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            let digest = Digest::from_hex(line.as_bytes().get(..64)?)?;
            let executable = match line.get(64..67)? {
                " x " => true,
                " - " => false,
                _ => return None,
            };
            let (size, name) = line[67..].split_once(' ')?;
            let name = if name.contains('\\') { unescape(name) } else { name.to_owned() };
            // One order, so that equal folders have equal manifests; no name twice.
            if entries.last().is_some_and(|(last, _)| *last >= name) {
                return None;
            }
            entries.push((name, Entry { digest, size: size.parse().ok()?, executable }));
        }
        Some(Tree { entries: entries.into_iter().collect() })
    }

    /// The files in which two manifests differ; `None` where one is none.
    pub fn differing(old: &[u8], new: &[u8]) -> Option<(Tree, Tree)> {
        let (old, new) = (strip(old)?, strip(new)?);
        let common = common(old.chunks(PAGE).zip(new.chunks(PAGE)));
        let common =
            common + (old[common..].iter().zip(&new[common..])).take_while(|(a, b)| a == b).count();
        // From the beginning of the line in which they part.
        let start = old[..common].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let (old, new) = (&old[start..], &new[start..]);
        let common = self::common(old.rchunks(PAGE).zip(new.rchunks(PAGE)));
        let (left, other) = (&old[..old.len() - common], &new[..new.len() - common]);
        let common =
            common + left.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
        // To the end of a line: a byte before it belongs to one that differs.
        let same = &old[old.len() - common..];
        let end = same.iter().position(|&byte| byte == b'\n').map_or(0, |at| common - at - 1);
        let part =
            |bytes: &[u8]| Tree::lines(std::str::from_utf8(&bytes[..bytes.len() - end]).ok()?);
        Some((part(old)?, part(new)?))
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.entries.values().map(|entry| entry.size).sum()
    }
}

/// How many bytes the first pages have in common that are equal.
fn common<'a>(pages: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> usize {
    pages.take_while(|(a, b)| a == b).map(|(a, _)| a.len()).sum()
}

/// A manifest without its first line.
fn strip(manifest: &[u8]) -> Option<&[u8]> {
    manifest.strip_prefix(HEADER.as_bytes())?.strip_prefix(b"\n")
}

/// A manifest while it is written, a file at a time in the order of their names.
pub(crate) struct Manifest(Vec<u8>);

impl Manifest {
    pub(crate) fn with_capacity(files: usize) -> Manifest {
        let mut bytes = Vec::with_capacity(HEADER.len() + 1 + files * 104);
        bytes.extend_from_slice(HEADER.as_bytes());
        bytes.push(b'\n');
        Manifest(bytes)
    }

    /// Adds a file; its name comes in parts.
    pub(crate) fn push<const N: usize>(&mut self, name: [&str; N], entry: &Entry) {
        let out = &mut self.0;
        out.extend_from_slice(&entry.digest.hex());
        out.extend_from_slice(if entry.executable { b" x " } else { b" - " });
        let mut digits = [0; 20];
        let (mut at, mut left) = (digits.len(), entry.size);
        while at == digits.len() || left > 0 {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        out.extend_from_slice(&digits[at..]);
        out.push(b' ');
        for part in name {
            if part.bytes().any(|byte| byte == b'\\' || byte == b'\n') {
                let part = part.replace('\\', "\\\\").replace('\n', "\\n");
                out.extend_from_slice(part.as_bytes());
            } else {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.push(b'\n');
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => out.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
            _ => out.push(c),
        }
    }
    out
}

/// A file or a folder, by content. Written `file:<hex>` or `tree:<hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Artifact {
    /// A file.
    File(Digest),
    /// A folder: the digest of its manifest.
    Tree(Digest),
}

impl Artifact {
    /// The digest of the file, or of the manifest.
    pub fn digest(&self) -> Digest {
        match self {
            Artifact::File(digest) | Artifact::Tree(digest) => *digest,
        }
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Artifact::File(digest) => write!(f, "file:{digest}"),
            Artifact::Tree(digest) => write!(f, "tree:{digest}"),
        }
    }
}

impl FromStr for Artifact {
    type Err = String;
    fn from_str(text: &str) -> Result<Artifact, String> {
        let parsed = text.split_once(':').and_then(|(kind, hex)| match kind {
            "file" => hex.parse().ok().map(Artifact::File),
            "tree" => hex.parse().ok().map(Artifact::Tree),
            _ => None,
        });
        parsed.ok_or_else(|| format!("`{text}` is no artifact"))
    }
}

impl Serialize for Artifact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Artifact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Artifact, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_manifest_reads_back(names in prop::collection::btree_map(".{1,12}", any::<(u64, bool)>(), 0..8)) {
            let entry = |(size, executable): (u64, bool)| Entry {
                digest: Digest::of(&size.to_le_bytes()), size, executable,
            };
            let tree = Tree { entries: names.into_iter().map(|(k, v)| (k, entry(v))).collect() };
            prop_assert_eq!(Tree::decode(&tree.encode()), Some(tree));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Tree::decode(&bytes), None);
        }
    }

    #[test]
    fn names_with_newlines_and_backslashes_survive() {
        let entry = Entry { digest: Digest::of(b"x"), size: 1, executable: false };
        let names = ["a\nb", "a\\nb", "a\\", "\\\n"].map(String::from);
        let tree = Tree { entries: names.into_iter().map(|name| (name, entry)).collect() };
        assert_eq!(Tree::decode(&tree.encode()), Some(tree));
    }
}
