//! [`Digest`]: the BLAKE3 name of some bytes.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// From this size on, a file is mapped and hashed on every core.
const PARALLEL: u64 = 4 << 20;
/// Below this size, a file is read in one go.
const SMALL: u64 = 64 << 10;
/// The two digits of each byte, and the value of each digit.
const DIGITS: [[u8; 2]; 256] = digits();
const VALUES: [u8; 256] = values();
/// What [`VALUES`] has for a byte that is no digit.
const NONE: u8 = 0xff;

/// A BLAKE3 hash, 32 bytes; written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes in memory; what `b3sum` prints for a file of them.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file's content. Errors name the path.
    pub fn of_file(path: &Path) -> io::Result<Digest> {
        let file = fs_err::File::open(path)?;
        let size = file.metadata()?.len();
        Digest::of_open(file, size)
    }

    /// The digest of an open file that is `size` bytes long, as far as is known.
    pub(crate) fn of_open(file: fs_err::File, size: u64) -> io::Result<Digest> {
        if size < SMALL {
            let mut bytes = Vec::with_capacity(size as usize + 1);
            { file }.read_to_end(&mut bytes)?;
            return Ok(Digest::of(&bytes));
        }
        let mut hasher = blake3::Hasher::new();
        if size >= PARALLEL {
            hasher.update_mmap_rayon(file.path())?;
        } else {
            hasher.update_reader(file)?;
        }
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// A digest in a domain of its own (BLAKE3 `derive_key`): equal bytes of another kind get
    /// another name. `b3sum --derive-key CONTEXT` gives the same.
    pub fn derive(context: &str, bytes: &[u8]) -> Digest {
        Digest(blake3::derive_key(context, bytes))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 digits, in ASCII.
    pub fn hex(&self) -> [u8; 64] {
        let mut out = [0; 64];
        for (place, byte) in out.chunks_exact_mut(2).zip(self.0) {
            place.copy_from_slice(&DIGITS[usize::from(byte)]);
        }
        out
    }

    /// Reads 64 digits; `None` where they are none.
    pub fn from_hex(text: &[u8]) -> Option<Digest> {
        let mut bytes = [0; 32];
        let mut all = 0;
        for (byte, pair) in bytes.iter_mut().zip(<&[u8; 64]>::try_from(text).ok()?.chunks_exact(2))
        {
            let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
            all |= high | low;
            *byte = high << 4 | low & 15;
        }
        (all < 16).then_some(Digest(bytes))
    }

    /// The first eight digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

const fn digits() -> [[u8; 2]; 256] {
    let hex = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [hex[byte >> 4], hex[byte & 15]];
        byte += 1;
    }
    table
}

const fn values() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value];
        table[digit as usize] = value as u8;
        table[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    table
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the 64 hexadecimal digits of a BLAKE3 digest")]
pub struct NoDigest;

impl FromStr for Digest {
    type Err = NoDigest;
    fn from_str(text: &str) -> Result<Digest, NoDigest> {
        Digest::from_hex(text.as_bytes()).ok_or(NoDigest)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format!("`{text}` is no BLAKE3 digest")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Origin: BLAKE3's published test vectors, input length 0.
    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn empty_bytes_have_the_published_digest() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes_small_and_large() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, 5_000, SMALL as usize, PARALLEL as usize + 17] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let path = dir.path().join("file");
            fs_err::write(&path, &bytes).unwrap();
            assert_eq!(Digest::of_file(&path).unwrap(), Digest::of(&bytes));
        }
    }

    #[test]
    fn digits_read_back_and_others_are_refused() {
        let digest = Digest::of(b"digits");
        assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
        assert_eq!(digest.to_string(), blake3::hash(b"digits").to_hex().as_str());
        let text = digest.to_string();
        assert_eq!(text.to_uppercase().parse(), Ok(digest));
        let wrong = [&text[1..], "", &format!("{}g", &text[1..]), &format!("{text}0")];
        assert!(wrong.iter().all(|text| text.parse::<Digest>().is_err()));
    }

    #[test]
    fn a_derived_digest_differs() {
        assert_ne!(Digest::derive("a", b"x"), Digest::of(b"x"));
        assert_ne!(Digest::derive("a", b"x"), Digest::derive("b", b"x"));
    }
}
