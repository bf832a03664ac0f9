//! Files of market data as bytes and as lines: plain, gzip or xz, told by their first bytes.
//!
//! Several files are one stream, in the order in which they are given. A file that ends before its
//! packing does is an error that says how far it was read.

use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::event::Place;
use crate::{Result, StageError};

/// The bytes of a file, unpacked.
pub struct Plain {
    inner: Box<dyn Read + Send>,
    packing: &'static str,
    read: u64,
}

impl Plain {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Plain> {
        let mut file = fs_err::File::open(path)?;
        let mut head = Vec::new();
        file.by_ref().take(6).read_to_end(&mut head)?;
        let (gzip, xz) = (head.starts_with(&[0x1f, 0x8b]), head.starts_with(b"\xfd7zXZ\0"));
        let whole = std::io::Cursor::new(head).chain(file);
        Ok(match () {
            () if gzip => Plain {
                inner: Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, whole))),
                packing: "gzip",
                read: 0,
            },
            () if xz => Plain {
                inner: Box::new(XzReader::new(BufReader::with_capacity(1 << 16, whole), true)),
                packing: "xz",
                read: 0,
            },
            () => Plain { inner: Box::new(whole), packing: "", read: 0 },
        })
    }
}

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.inner.read(into) {
                Ok(count) => {
                    self.read += count as u64;
                    return Ok(count);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if self.packing.is_empty() => return Err(e),
                Err(e) => {
                    let (packing, read) = (self.packing, self.read);
                    let what = match e.kind() {
                        ErrorKind::UnexpectedEof => "ends early".to_owned(),
                        _ => format!("is damaged ({e})"),
                    };
                    let message = format!("the {packing} {what}, {read} bytes into its content");
                    return Err(std::io::Error::new(ErrorKind::InvalidData, message));
                }
            }
        }
    }
}

/// A packed file, unpacked some blocks ahead on a thread of its own; a plain one as it is.
enum Ahead {
    Here(Plain),
    There {
        /// Blocks, in order; an empty one is the end.
        full: Receiver<std::io::Result<Vec<u8>>>,
        /// Blocks to be filled again.
        empty: SyncSender<Vec<u8>>,
        block: Vec<u8>,
        at: usize,
    },
}

impl Ahead {
    fn open(path: &Path) -> Result<Ahead> {
        let mut plain = Plain::open(path)?;
        if plain.packing.is_empty() {
            return Ok(Ahead::Here(plain));
        }
        let (filled, full) = sync_channel(AHEAD);
        let (empty, refill) = sync_channel::<Vec<u8>>(AHEAD + 2);
        let unpack = move || {
            loop {
                let mut block = refill.try_recv().unwrap_or_default();
                let error = fill(&mut plain, &mut block).err();
                let ended = block.is_empty() || error.is_some();
                // What was read before an error comes first. Nobody reads on after an error elsewhere.
                let gone = !block.is_empty() && filled.send(Ok(block)).is_err();
                if let Some(error) = error {
                    let _ = filled.send(Err(error));
                } else if ended {
                    let _ = filled.send(Ok(Vec::new()));
                }
                if gone || ended {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("unpack".into()).spawn(unpack)?;
        Ok(Ahead::There { full, empty, block: Vec::new(), at: 0 })
    }

    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Ahead::Here(plain) => plain.read(into),
            Ahead::There { full, empty, block, at } => {
                if *at == block.len() {
                    let next = full.recv().map_err(|_| {
                        std::io::Error::other("the thread that unpacks it stopped")
                    })??;
                    // A block too many is let go.
                    let _ = empty.try_send(std::mem::replace(block, next));
                    *at = 0;
                }
                let count = into.len().min(block.len() - *at);
                into[..count].copy_from_slice(&block[*at..*at + count]);
                *at += count;
                Ok(count)
            }
        }
    }
}

/// Fills a block as far as the file goes, and cuts it to what was read.
fn fill(plain: &mut Plain, block: &mut Vec<u8>) -> std::io::Result<()> {
    block.resize(BLOCK, 0);
    let mut count = 0;
    let read = loop {
        match plain.read(&mut block[count..]) {
            Ok(0) => break Ok(()),
            Ok(more) => count += more,
            Err(e) => break Err(e),
        }
    };
    block.truncate(count);
    read
}

/// Blocks that are unpacked ahead.
const AHEAD: usize = 3;

/// What could not be read of a file, at or after a line.
pub fn unreadable(path: &Path, line: u64, error: std::io::Error) -> StageError {
    if error.kind() != ErrorKind::InvalidData {
        return error.into();
    }
    StageError::bad(path, error.to_string())
        .at(line)
        .hint("the file is cut off or damaged: fetch it again, and compare its digest")
}

const BLOCK: usize = 1 << 18;

/// The lines of files, one after the other, without their line ends.
pub struct Lines {
    paths: Vec<PathBuf>,
    reader: Option<Ahead>,
    buffer: Vec<u8>,
    /// What of the buffer is read, and not yet given.
    start: usize,
    end: usize,
    line: (usize, usize),
    place: Place,
}

impl Lines {
    /// Opens the files one by one as they are come to.
    pub fn new(paths: Vec<PathBuf>) -> Lines {
        let buffer = vec![0; BLOCK];
        let place = Place { file: 0, line: 0 };
        Lines { paths, reader: None, buffer, start: 0, end: 0, line: (0, 0), place }
    }

    /// Moves on to the next line; false at the end of the last file.
    ///
    /// # Errors
    /// A file cannot be read, is cut off, or is empty.
    pub fn advance(&mut self) -> Result<bool> {
        let mut searched = self.start;
        loop {
            let fresh = &self.buffer[searched..self.end];
            if let Some(found) = memchr::memchr(b'\n', fresh) {
                let end = searched + found;
                self.give(end);
                self.start = end + 1;
                return Ok(true);
            }
            searched = self.end;
            let Some(reader) = &mut self.reader else {
                if !self.open()? {
                    return Ok(false);
                }
                searched = 0;
                continue;
            };
            // What is left is the beginning of a line, and short.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            searched -= self.start;
            self.start = 0;
            if self.end > self.buffer.len() / 2 {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let path = &self.paths[self.place.file as usize];
            let count = reader
                .read(&mut self.buffer[self.end..])
                .map_err(|e| unreadable(path, self.place.line + 1, e))?;
            self.end += count;
            if count > 0 {
                continue;
            }
            self.reader = None;
            if self.start < self.end {
                self.give(self.end);
                self.start = self.end;
                return Ok(true);
            }
            if self.place.line == 0 {
                return Err(StageError::bad(path, "the file is empty")
                    .hint("leave it out, or fetch it again"));
            }
        }
    }

    /// The line.
    pub fn line(&self) -> &[u8] {
        &self.buffer[self.line.0..self.line.1]
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.place
    }

    fn give(&mut self, end: usize) {
        let cr = end > self.start && self.buffer[end - 1] == b'\r';
        self.line = (self.start, end - usize::from(cr));
        self.place.line += 1;
    }

    /// Opens the file after those that were read.
    fn open(&mut self) -> Result<bool> {
        // Line 0 of file 0 is the state before anything was opened.
        let next = self.place.file as usize + usize::from(self.place.line > 0);
        let Some(path) = self.paths.get(next) else { return Ok(false) };
        self.reader = Some(Ahead::open(path)?);
        self.place = Place { file: next as u32, line: 0 };
        (self.start, self.end) = (0, 0);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(paths: Vec<PathBuf>) -> Result<Vec<(u32, u64, String)>> {
        let mut lines = Lines::new(paths);
        let mut found = Vec::new();
        while lines.advance()? {
            let text = String::from_utf8(lines.line().to_vec()).unwrap();
            found.push((lines.place().file, lines.place().line, text));
        }
        Ok(found)
    }

    #[test]
    fn lines_of_plain_gzip_and_xz_files() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(3 * BLOCK);
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, format!("one\r\n\n{long}\nlast")).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"two\n").unwrap();
        let mut members = gz.finish().unwrap();
        members.extend_from_slice(&members.clone());
        std::fs::write(&b, members).unwrap();
        let found = lines(vec![a, b]).unwrap();
        let expected = [
            (0, 1, "one"),
            (0, 2, ""),
            (0, 3, long.as_str()),
            (0, 4, "last"),
            (1, 1, "two"),
            (1, 2, "two"),
        ];
        assert_eq!(found, expected.map(|(file, line, text)| (file, line, text.to_owned())));

        // Nobody waits for the rest of a file that is not read to its end.
        let d = dir.path().join("d");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all("a line\n".repeat(BLOCK).as_bytes()).unwrap();
        std::fs::write(&d, gz.finish().unwrap()).unwrap();
        let mut part = Lines::new(vec![d]);
        assert!(part.advance().unwrap());
        drop(part);

        // `printf 'id,price\n1,2\n' | xz`
        let c = dir.path().join("c");
        std::fs::write(&c, include_bytes!("testdata/small.csv.xz")).unwrap();
        let found = lines(vec![c]).unwrap();
        assert_eq!(found, [(0, 1, "id,price".to_owned()), (0, 2, "1,2".to_owned())]);
    }
}
