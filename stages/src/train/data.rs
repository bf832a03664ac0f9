//! What the methods read: documents, preference pairs, and the order in which they are visited.
//!
//! Text becomes tokens elsewhere; this file deals in files, lines and numbers. A bad line is an
//! error with its file and line, never skipped.

use std::path::Path;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Result, StageError};

/// What `train` needs of a line of preference pairs; other fields are left alone.
#[derive(Debug, Deserialize)]
pub struct Pair {
    /// What stands before both completions.
    pub prompt: String,
    /// The better completion.
    pub chosen: String,
    /// The worse completion.
    pub rejected: String,
    /// The reward of the better one.
    pub reward_chosen: Option<f64>,
    /// The reward of the worse one.
    pub reward_rejected: Option<f64>,
}

/// Reads a JSONL file; blank lines are passed over.
///
/// # Errors
/// The file cannot be read, is not UTF-8, has a line that is not a `T` (named by its number), or
/// has no line at all.
pub fn jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<(u64, T)>> {
    let bytes = fs_err::read(path)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        StageError::bad(path, "not UTF-8").at(line as u64)
    })?;
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = i as u64 + 1;
        let row = serde_json::from_str(line).map_err(|e| {
            StageError::bad(path, format!("not a record of this format: {e}"))
                .at(number)
                .hint("each line must be one JSON object")
        })?;
        rows.push((number, row));
    }
    if rows.is_empty() {
        return Err(
            StageError::bad(path, "no records").hint("did an earlier stage drop everything?")
        );
    }
    Ok(rows)
}

/// Random numbers of one purpose: the streams of one seed are independent of each other, so that
/// drawing more for one purpose does not shift another.
pub fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Which stream serves what.
pub mod stream {
    /// The order of the data. Stream 0 is that of fresh weights.
    pub const ORDER: u64 = 1;
    /// Sampled completions: this and all after it, one a group.
    pub const SAMPLES: u64 = 2;
}

/// Visits `0..len` again and again, in a new order each time.
pub struct Shuffle {
    order: Vec<usize>,
    next: usize,
    rng: ChaCha8Rng,
}

impl Shuffle {
    /// An order over `len` things, which must be at least one.
    pub fn new(len: usize, seed: u64) -> Shuffle {
        let order: Vec<usize> = (0..len).collect();
        Shuffle { next: order.len(), order, rng: rng(seed, stream::ORDER) }
    }
}

impl Iterator for Shuffle {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next == self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.next = 0;
        }
        self.next += 1;
        self.order.get(self.next - 1).copied()
    }
}

/// A corpus as one stream of tokens, each document closed by an end-of-text token, cut into windows.
///
/// Windows run across documents, as in GPT's pre-training: a token may attend to the document
/// before its own, from which the end-of-text token tells it apart.
pub struct Windows {
    tokens: Vec<u32>,
    len: usize,
    queue: Vec<usize>,
    rng: ChaCha8Rng,
    /// Where each document ends, and the line that it comes from.
    ends: Vec<(usize, u64)>,
}

impl Windows {
    /// Windows of `len` inputs (and as many targets, one further). A stream that is too short for
    /// one gives a single, shorter window.
    pub fn new(tokens: Vec<u32>, len: usize, seed: u64) -> Windows {
        let len = len.min(tokens.len().saturating_sub(1)).max(1);
        let (queue, rng) = (Vec::new(), rng(seed, stream::ORDER));
        Windows { tokens, len, queue, rng, ends: Vec::new() }
    }

    /// Notes where documents end, and which lines they come from.
    pub fn from_lines(self, ends: Vec<(usize, u64)>) -> Windows {
        Windows { ends, ..self }
    }

    /// The next window: `len + 1` tokens.
    #[cfg(test)]
    pub fn draw(&mut self) -> &[u32] {
        let start = self.next_start();
        self.at(start)
    }

    /// The window that starts at a place.
    pub fn at(&self, start: usize) -> &[u32] {
        self.tokens.get(start..start + self.len + 1).unwrap_or(&self.tokens)
    }

    /// The lines of the documents in the window that starts at a place.
    pub fn lines(&self, start: usize) -> Vec<u64> {
        let from = self.ends.partition_point(|(end, _)| *end <= start);
        let to = self.ends.partition_point(|(end, _)| *end < start + self.len);
        self.ends[from..(to + 1).min(self.ends.len())].iter().map(|(_, line)| *line).collect()
    }

    /// Where the next window starts. Each pass over the corpus starts at a random phase, so
    /// that windows do not begin at the same words every time, and is shuffled.
    pub fn next_start(&mut self) -> usize {
        if self.queue.is_empty() {
            let last = self.tokens.len().saturating_sub(self.len + 1);
            let phase = self.rng.random_range(0..=last.min(self.len - 1));
            self.queue = (phase..=last).step_by(self.len).collect();
            self.queue.shuffle(&mut self.rng);
        }
        self.queue.pop().unwrap_or_default()
    }

    /// All windows in order, none overlapping: for validation. The last may be shorter.
    pub fn all(&self) -> impl Iterator<Item = &[u32]> {
        let starts = (0..self.tokens.len().saturating_sub(1)).step_by(self.len);
        starts.filter_map(|at| self.tokens.get(at..(at + self.len + 1).min(self.tokens.len())))
    }
}

/// Joins documents into one stream, each followed by `end`.
pub fn join(documents: &[Vec<u32>], end: u32) -> Vec<u32> {
    let mut stream = Vec::with_capacity(documents.iter().map(|d| d.len() + 1).sum());
    for document in documents {
        stream.extend_from_slice(document);
        stream.push(end);
    }
    stream
}

/// Cuts the last `share` of a stream off as what is held out. Neither part is left without a
/// window: below 4 tokens on either side nothing is held out.
pub fn hold_out(mut stream: Vec<u32>, share: f64) -> (Vec<u32>, Vec<u32>) {
    let held = (stream.len() as f64 * share).round() as usize;
    if held < 4 || stream.len() - held < 4 {
        return (stream, Vec::new());
    }
    let tail = stream.split_off(stream.len() - held);
    (stream, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Text {
        text: String,
    }

    fn file(text: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_bad_line_is_named() {
        let cases: [(&[u8], Option<u64>, &str); 4] = [
            (b"{\"text\":\"a\"}\n\n{\"text\":3}\n", Some(3), "not a record"),
            (b"{\"text\":\"a\"}\nnonsense\n", Some(2), "not a record"),
            (b"{\"text\":\"a\"}\n\xff\n", Some(2), "not UTF-8"),
            (b"\n\n", None, "no records"),
        ];
        for (bytes, expected, said) in cases {
            let file = file(bytes);
            match jsonl::<Text>(file.path()) {
                Err(StageError::BadInput { line, message, .. }) => {
                    assert_eq!(line, expected, "{message}");
                    assert!(message.contains(said), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        let file = file(b"\n{\"text\":\"a\",\"more\":1}\n\n{\"text\":\"b\"}");
        let rows = jsonl::<Text>(file.path()).unwrap();
        let got: Vec<_> = rows.iter().map(|(line, d)| (*line, d.text.as_str())).collect();
        assert_eq!(got, [(2, "a"), (4, "b")]);
    }

    #[test]
    fn a_shuffle_visits_all_before_any_twice() {
        let mut shuffle = Shuffle::new(5, 7);
        let mut orders = Vec::new();
        for _ in 0..3 {
            let order = shuffle.by_ref().take(5).collect::<Vec<_>>();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
            orders.push(order);
        }
        assert!(orders[0] != orders[1] || orders[1] != orders[2]);
        assert!(Shuffle::new(5, 7).take(5).eq(orders[0].iter().copied()));
        assert!(Shuffle::new(50, 7).take(50).ne(Shuffle::new(50, 8).take(50)));
    }

    #[test]
    fn windows_cover_the_stream_and_step_by_their_length() {
        let mut windows = Windows::new((0..103).collect(), 10, 0);
        let mut seen = [false; 103];
        for _ in 0..40 {
            let window = windows.draw();
            assert_eq!(window.len(), 11);
            assert!(window.windows(2).all(|w| w[1] == w[0] + 1));
            window.iter().for_each(|t| seen[*t as usize] = true);
        }
        assert!(seen[10..90].iter().all(|s| *s));
        let windows = windows.from_lines(vec![(4, 1), (12, 3), (50, 4), (103, 9)]);
        assert_eq!(windows.lines(3), [1, 3, 4]);
        assert_eq!(windows.lines(92), [9]);
        let targets: usize = windows.all().map(|w| w.len() - 1).sum();
        assert_eq!(targets, 102, "each token but the first is a target once");
    }

    #[test]
    fn a_stream_shorter_than_a_window_is_one_window() {
        let mut windows = Windows::new(vec![1, 2, 3], 10, 0);
        assert_eq!(windows.draw(), [1, 2, 3]);
        assert_eq!(windows.draw(), [1, 2, 3]);
    }

    #[test]
    fn documents_are_closed_and_the_tail_is_held_out() {
        let stream = join(&[vec![1, 2], vec![3]], 0);
        assert_eq!(stream, [1, 2, 0, 3, 0]);
        let (kept, held) = hold_out((0..100).collect(), 0.1);
        assert_eq!((kept.len(), held.len(), held[0]), (90, 10, 90));
        assert_eq!(hold_out(stream.clone(), 0.1), (stream, vec![]));
    }
}
