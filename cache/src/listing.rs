//! [`Listing`]: how the files of one folder looked when they were last hashed, and their digests.
//!
//! A listing has a base, which is read and compared in the order in which the folder lists its files,
//! and the few changes since it was written, so that one changed file of very many does not write the
//! rest anew. Both have a compact binary form that ends in a checksum: what is torn is not believed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Digest, Stamp};

/// First bytes of the binary forms; the digit rises with the form.
const BASE: &[u8; 8] = b"qmbase 1";
const CHANGES: &[u8; 8] = b"qmdiff 1";
/// Bytes of a file of the base but its name.
const RECORD: usize = 4 + Stamp::SIZE + 32;
/// Bytes of a checksum.
const SUM: usize = 16;
/// The base is written anew when there are more changes than this, and than a sixteenth of it.
const FEW: usize = 64;

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub stamp: Stamp,
    pub digest: Digest,
}

/// The part of a listing that does not change.
#[derive(Debug, Default)]
pub(crate) struct Base {
    /// In the order of the folder, each with where its name ends.
    records: Vec<(u32, Known)>,
    names: String,
    /// The records in the order of their names.
    sorted: Vec<u32>,
    sum: [u8; SUM],
}

/// What is known of a folder's files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    base: Arc<Base>,
    /// Files that differ from the base; `None` where they are gone.
    changes: HashMap<Box<str>, Option<Known>>,
    /// How many files it knows.
    count: usize,
    /// The changes are not written down.
    dirty: bool,
    /// The base is not in the folder's order any more.
    shuffled: bool,
}

/// What there is to write down.
pub(crate) enum Written {
    /// The changes alone.
    Changes(Vec<u8>),
    /// A new base, without changes.
    Base(Vec<u8>),
}

impl Base {
    fn name(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.records[at - 1].0 as usize };
        &self.names[start..self.records[at].0 as usize]
    }

    fn find(&self, name: &str) -> Option<usize> {
        let found = self.sorted.binary_search_by(|at| self.name(*at as usize).cmp(name));
        Some(self.sorted[found.ok()?] as usize)
    }

    fn from_files<'a>(files: impl Iterator<Item = (&'a str, Known)>) -> Base {
        let mut base = Base::default();
        for (name, known) in files {
            base.names.push_str(name);
            base.records.push((base.names.len() as u32, known));
        }
        let mut sorted: Vec<u32> = (0..base.records.len() as u32).collect();
        sorted.sort_by(|a, b| base.name(*a as usize).cmp(base.name(*b as usize)));
        base.sorted = sorted;
        base
    }

    fn encode(&self) -> Vec<u8> {
        let count = self.records.len();
        let mut out = Vec::with_capacity(16 + count * (RECORD + 4) + self.names.len() + SUM);
        out.extend_from_slice(BASE);
        out.extend_from_slice(&(count as u32).to_le_bytes());
        out.extend_from_slice(&(self.names.len() as u32).to_le_bytes());
        for (end, known) in &self.records {
            out.extend_from_slice(&end.to_le_bytes());
            out.extend_from_slice(&known.stamp.bytes());
            out.extend_from_slice(known.digest.as_bytes());
        }
        for at in &self.sorted {
            out.extend_from_slice(&at.to_le_bytes());
        }
        out.extend_from_slice(self.names.as_bytes());
        seal(out)
    }

    fn decode(bytes: &[u8]) -> Option<Base> {
        let (bytes, sum) = unseal(bytes)?;
        let rest = bytes.strip_prefix(BASE)?;
        let (count, rest) = word(rest)?;
        let (length, rest) = word(rest)?;
        let (count, length) = (count as usize, length as usize);
        if rest.len() != count.checked_mul(RECORD + 4)?.checked_add(length)? {
            return None;
        }
        let (records, rest) = rest.split_at(count * RECORD);
        let (sorted, names) = rest.split_at(count * 4);
        let names = String::from_utf8(names.to_owned()).ok()?;
        let mut last = 0;
        let mut read = Vec::with_capacity(count);
        for record in records.chunks_exact(RECORD) {
            let (end, rest) = word(record)?;
            if end < last || !names.is_char_boundary(end as usize) {
                return None;
            }
            last = end;
            read.push((end, known(rest)?));
        }
        let sorted = sorted.chunks_exact(4).map(|four| word(four).map(|(at, _)| at));
        let sorted: Vec<u32> = sorted.collect::<Option<_>>()?;
        let fits = sorted.iter().all(|at| (*at as usize) < count);
        fits.then_some(Base { records: read, names, sorted, sum })
    }
}

impl Listing {
    /// Reads what was written down. What is torn is forgotten: its files are hashed again.
    pub(crate) fn decode(base: &[u8], changes: Option<&[u8]>) -> Listing {
        let Some(base) = Base::decode(base) else { return Listing::default() };
        let changes = match changes.map(|bytes| read_changes(bytes, &base.sum)) {
            None => HashMap::new(),
            Some(Some(changes)) => changes,
            Some(None) => return Listing::default(),
        };
        let mut count = base.records.len();
        for (name, known) in &changes {
            let was = base.find(name).is_some();
            count = count + usize::from(known.is_some()) - usize::from(was);
        }
        Listing { base: Arc::new(base), changes, count, dirty: false, shuffled: false }
    }

    /// What is known of a file.
    pub(crate) fn get(&self, name: &str) -> Option<Known> {
        if let Some(changed) = self.changes.get(name) {
            return *changed;
        }
        self.base.find(name).map(|at| self.base.records[at].1)
    }

    /// What is known of a file, for one who asks for all in the order of the folder: `at` is where
    /// the base had the last one, and moves on. `loose` counts those that were elsewhere.
    pub(crate) fn next(&self, at: &mut usize, loose: &mut usize, name: &str) -> Option<Known> {
        let here = if *at < self.base.records.len() && self.base.name(*at) == name {
            Some(*at)
        } else {
            *loose += 1;
            self.base.find(name)
        };
        if let Some(here) = here {
            *at = here + 1;
        }
        if !self.changes.is_empty()
            && let Some(changed) = self.changes.get(name)
        {
            return *changed;
        }
        here.map(|here| self.base.records[here].1)
    }

    /// Remembers a file.
    pub(crate) fn set(&mut self, name: &str, known: Known) {
        let was = self.get(name);
        if was != Some(known) {
            self.count += usize::from(was.is_none());
            self.changes.insert(name.into(), Some(known));
            self.dirty = true;
        }
    }

    /// Forgets a file.
    pub(crate) fn forget(&mut self, name: &str) {
        if self.get(name).is_some() {
            self.count -= 1;
            self.changes.insert(name.into(), None);
            self.dirty = true;
        }
    }

    /// How many files it knows.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Every file it knows, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let base = (0..self.base.records.len()).map(|at| self.base.name(at));
        let base = base.filter(|name| !self.changes.contains_key(*name));
        base.chain(
            self.changes.iter().filter(|(_, known)| known.is_some()).map(|(name, _)| &**name),
        )
    }

    /// Says in which order the folder lists its files, when that is not the base's order.
    pub(crate) fn reorder<'a>(&mut self, order: impl Iterator<Item = &'a str>) {
        let files: Vec<(&str, Known)> =
            order.filter_map(|name| Some((name, self.get(name)?))).collect();
        let base = Base::from_files(files.into_iter());
        let count = base.records.len();
        let (base, changes) = (Arc::new(base), HashMap::new());
        *self = Listing { base, changes, count, dirty: true, shuffled: true };
    }

    /// A name for what the listing says, the same whenever it says the same since its base was written.
    pub(crate) fn mark(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.base.sum);
        if !self.changes.is_empty() {
            hasher.update(&self.encode_changes());
        }
    }

    /// Whether [`Listing::mark`] will be the same after it was written and read back.
    pub(crate) fn marked(&self) -> bool {
        !self.shuffled && !self.base.records.is_empty() && self.few()
    }

    fn few(&self) -> bool {
        self.changes.len() <= FEW.max(self.base.records.len() / 16)
    }

    /// What is to be written down since the last time, if anything is.
    pub(crate) fn write(&mut self) -> Option<Written> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        if !self.base.records.is_empty() && self.few() && !self.shuffled {
            return Some(Written::Changes(self.encode_changes()));
        }
        if !self.shuffled {
            let changes = std::mem::take(&mut self.changes);
            let old = (0..self.base.records.len())
                .map(|at| (self.base.name(at), self.base.records[at].1));
            let old = old.filter(|(name, _)| !changes.contains_key(*name));
            let new = changes.iter().filter_map(|(name, known)| Some((&**name, (*known)?)));
            self.base = Arc::new(Base::from_files(old.chain(new)));
        }
        self.shuffled = false;
        let bytes = self.base.encode();
        if let Some(base) = Arc::get_mut(&mut self.base) {
            base.sum.copy_from_slice(&bytes[bytes.len() - SUM..]);
        }
        Some(Written::Base(bytes))
    }

    fn encode_changes(&self) -> Vec<u8> {
        let mut sorted: Vec<_> = self.changes.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| *name);
        let mut out = CHANGES.to_vec();
        // The base that they belong to.
        out.extend_from_slice(&self.base.sum);
        for (name, known) in sorted {
            out.extend_from_slice(&(name.len() as u32).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.push(u8::from(known.is_some()));
            if let Some(known) = known {
                out.extend_from_slice(&known.stamp.bytes());
                out.extend_from_slice(known.digest.as_bytes());
            }
        }
        seal(out)
    }
}

fn read_changes(bytes: &[u8], base: &[u8; SUM]) -> Option<HashMap<Box<str>, Option<Known>>> {
    let (bytes, _) = unseal(bytes)?;
    let mut rest = bytes.strip_prefix(CHANGES)?.strip_prefix(base)?;
    let mut changes = HashMap::new();
    while !rest.is_empty() {
        let (length, after) = word(rest)?;
        let (name, after) = after.split_at_checked(length as usize)?;
        let (some, after) = after.split_first()?;
        let name = std::str::from_utf8(name).ok()?.into();
        rest = after;
        let value = if *some == 1 {
            let value = known(rest)?;
            rest = &rest[Stamp::SIZE + 32..];
            Some(value)
        } else {
            None
        };
        changes.insert(name, value);
    }
    Some(changes)
}

fn known(bytes: &[u8]) -> Option<Known> {
    let (stamp, rest) = bytes.split_first_chunk::<{ Stamp::SIZE }>()?;
    let (digest, _) = rest.split_first_chunk::<32>()?;
    Some(Known { stamp: Stamp::from_bytes(stamp), digest: Digest::from(*digest) })
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(&sum.as_bytes()[..SUM]);
    bytes
}

fn unseal(bytes: &[u8]) -> Option<(&[u8], [u8; SUM])> {
    let (bytes, sum) = bytes.split_last_chunk::<SUM>()?;
    (blake3::hash(bytes).as_bytes()[..SUM] == *sum).then_some((bytes, *sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Known {
        Known { stamp: Stamp::default(), digest: Digest::of(text.as_bytes()) }
    }

    fn base(listing: &mut Listing) -> Vec<u8> {
        match listing.write() {
            Some(Written::Base(bytes)) => bytes,
            _ => panic!("a base is due"),
        }
    }

    #[test]
    fn a_listing_reads_back_with_its_changes() {
        let mut listing = Listing::default();
        for i in 0..200 {
            listing.set(&format!("f{i}"), known(&i.to_string()));
        }
        let bytes = base(&mut listing);
        listing.set("f7", known("new"));
        listing.set("added", known("added"));
        listing.forget("f9");
        let Some(Written::Changes(changes)) = listing.write() else { panic!("changes are due") };
        let read = Listing::decode(&bytes, Some(&changes));
        assert_eq!(read.get("f7"), Some(known("new")));
        assert_eq!(read.get("added"), Some(known("added")));
        assert_eq!((read.get("f9"), read.get("f8")), (None, Some(known("8"))));
        assert_eq!((read.names().count(), read.len()), (200, 200));
        let marks = [&listing, &read].map(|listing| {
            let mut hasher = blake3::Hasher::new();
            listing.mark(&mut hasher);
            hasher.finalize()
        });
        assert_eq!(marks[0], marks[1]);
    }

    #[test]
    fn many_changes_make_a_new_base() {
        let mut listing = Listing::default();
        for round in 0..3 {
            for i in 0..100 {
                listing.set(&format!("{round}-{i}"), known("x"));
            }
            let read = Listing::decode(&base(&mut listing), None);
            assert_eq!(read.names().count(), (round + 1) * 100);
        }
    }

    #[test]
    fn what_is_torn_is_forgotten() {
        let mut listing = Listing::default();
        for name in ["a", "b"] {
            listing.set(name, known(name));
        }
        let bytes = base(&mut listing);
        assert_eq!(Listing::decode(&bytes, None).names().count(), 2);
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert_eq!(Listing::decode(&torn, None).names().count(), 0);
            assert_eq!(Listing::decode(&bytes[..at], None).names().count(), 0);
        }
        listing.set("a", known("c"));
        let Some(Written::Changes(mut changes)) = listing.write() else {
            panic!("changes are due")
        };
        changes[30] ^= 1;
        assert_eq!(Listing::decode(&bytes, Some(&changes)).names().count(), 0);
    }

    #[test]
    fn the_order_of_the_folder_is_kept() {
        let mut listing = Listing::default();
        for name in ["a", "b", "c"] {
            listing.set(name, known(name));
        }
        listing.reorder(["c", "a", "b"].into_iter());
        let read = Listing::decode(&base(&mut listing), None);
        let (mut at, mut loose) = (0, 0);
        for (place, name) in ["c", "a", "b"].into_iter().enumerate() {
            assert_eq!((at, read.next(&mut at, &mut loose, name)), (place, Some(known(name))));
        }
        assert_eq!((read.next(&mut at, &mut loose, "none"), loose), (None, 1));
        assert_eq!(read.get("b"), Some(known("b")));
    }
}
