//! Which prompts have the words of one before them.
//!
//! The digests of a long file of prompts do not belong in memory. They go to files by their first byte,
//! and each file is then sorted alone: what is held at once is a 256th of them, and a bit for every
//! prompt. Half a digest (128 bits) tells prompts apart.

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use quantmill_cache::Digest;

use crate::Result;
use crate::encode::prompt::Prompts;
use crate::featurize::split::Split;

/// Bytes of a digest that are kept.
const KEPT: usize = 16;
/// A record: of a digest, and the number of its prompt.
const RECORD: usize = KEPT + 8;

/// A bit for each training prompt, set where its words came before.
#[derive(Debug, Default)]
pub struct Repeats(Vec<u64>);

impl Repeats {
    /// Reads the training prompts of a file; `folder` is for scratch.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn find(prompts: &Path, folder: &Path) -> Result<Repeats> {
        let place = |part: usize| folder.join(format!("words-{part}"));
        let create = |part| Ok(BufWriter::with_capacity(4096, fs_err::File::create(place(part))?));
        let mut parts: Vec<_> = (0..256).map(create).collect::<Result<_>>()?;
        let mut count = 0u64;
        for prompt in Prompts::open(prompts)? {
            let prompt = prompt?;
            if prompt.split == Split::Train {
                let digest = Digest::of(prompt.prompt.as_bytes());
                let bytes = digest.as_bytes();
                let part = &mut parts[usize::from(bytes[0])];
                part.write_all(&bytes[..KEPT])?;
                part.write_all(&count.to_be_bytes())?;
                count += 1;
            }
        }
        parts.iter_mut().try_for_each(Write::flush)?;
        drop(parts);
        let mut bits = vec![0u64; count.div_ceil(64) as usize];
        let mut records: Vec<[u8; RECORD]> = Vec::new();
        for part in 0..256 {
            records.clear();
            let mut file = BufReader::new(fs_err::File::open(place(part))?);
            let many = file.get_ref().metadata()?.len() as usize / RECORD;
            for _ in 0..many {
                let mut record = [0; RECORD];
                file.read_exact(&mut record)?;
                records.push(record);
            }
            drop(file);
            fs_err::remove_file(place(part))?;
            // The number stands last and with its high byte first: of the same words the first prompt
            // comes first.
            records.sort_unstable();
            for pair in records.windows(2).filter(|pair| pair[0][..KEPT] == pair[1][..KEPT]) {
                let number = pair[1][KEPT..].iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
                bits[number / 64] |= 1 << (number % 64);
            }
        }
        Ok(Repeats(bits))
    }

    /// Whether the training prompt of this number, from 0, has the words of one before it.
    pub fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_first_of_each_is_no_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prompts.jsonl");
        // Of every fourth prompt the split is another: it does not count.
        let words = |at: usize| format!("state {}", at * at % 301);
        let line = |at: usize| {
            let split = if at % 4 == 3 { "test" } else { "train" };
            format!(
                "{{\"id\":\"{at}\",\"t0\":\"{at}\",\"split\":\"{split}\",\"prompt\":\"{}\"}}\n",
                words(at)
            )
        };
        fs_err::write(&path, (0..2000).map(line).collect::<String>()).unwrap();
        let repeats = Repeats::find(&path, dir.path()).unwrap();
        let mut seen = HashSet::new();
        let train: Vec<usize> = (0..2000).filter(|at| at % 4 != 3).collect();
        let repeated = train.iter().map(|at| !seen.insert(words(*at)));
        let repeated: Vec<bool> = repeated.collect();
        assert!(repeated.iter().any(|r| *r) && repeated.iter().any(|r| !*r));
        let ours: Vec<bool> = (0..train.len()).map(|number| repeats.has(number)).collect();
        assert_eq!(ours, repeated);
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }
}
