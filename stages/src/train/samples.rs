//! Records as tokens, and windows of them.
//!
//! A record of its own window is padded on the right; packed ones share a window and do not see
//! each other. Both give the same loss. Each pass over the records is in a new order and packed
//! anew: longest first, each into the fullest window that has room.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::data::{rng, stream};

/// A record as tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The tokens; at least two.
    pub tokens: Vec<u32>,
    /// Which of them the loss counts: one a token. The first, which nothing predicts, never does;
    /// another does.
    pub counts: Vec<bool>,
    /// The line that it comes from.
    pub line: u64,
}

/// A row of tokens for the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Where the record of each token starts; empty where all tokens may see all before them.
    pub starts: Vec<u32>,
    /// Places whose next token the loss counts.
    pub at: Vec<usize>,
    /// The lines that it comes from.
    pub lines: Vec<u64>,
}

impl Window {
    /// A window of one text, whose every next token counts.
    pub fn text(tokens: &[u32], lines: Vec<u64>) -> Window {
        let at = (0..tokens.len().saturating_sub(1)).collect();
        Window { tokens: tokens.to_vec(), starts: Vec::new(), at, lines }
    }

    fn push(&mut self, sample: &Sample) {
        let start = self.tokens.len();
        self.tokens.extend(&sample.tokens);
        self.starts.resize(self.tokens.len(), start as u32);
        let counted = (1..sample.tokens.len()).filter(|&i| sample.counts[i]);
        self.at.extend(counted.map(|i| start + i - 1));
        self.lines.push(sample.line);
    }
}

/// Records that are visited again and again.
pub struct Samples {
    all: Vec<Sample>,
    /// Tokens of a window.
    len: usize,
    packed: bool,
    queue: Vec<Vec<usize>>,
    rng: ChaCha8Rng,
}

impl Samples {
    /// Windows of up to `len` tokens, of which no sample has more; at least one sample.
    pub fn new(all: Vec<Sample>, len: usize, packed: bool, seed: u64) -> Samples {
        Samples { all, len, packed, queue: Vec::new(), rng: rng(seed, stream::ORDER) }
    }

    /// The next window.
    pub fn draw(&mut self) -> Window {
        if self.queue.is_empty() {
            let mut order: Vec<usize> = (0..self.all.len()).collect();
            order.shuffle(&mut self.rng);
            self.queue = self.pack(order);
            self.queue.shuffle(&mut self.rng);
        }
        let chosen = self.queue.pop().unwrap_or_default();
        self.window(&chosen)
    }

    /// All windows, for validation.
    pub fn all(&self) -> Vec<Window> {
        self.pack((0..self.all.len()).collect()).iter().map(|chosen| self.window(chosen)).collect()
    }

    /// How many windows a pass over the records takes, about.
    pub fn windows(&self) -> usize {
        self.pack((0..self.all.len()).collect()).len()
    }

    fn window(&self, chosen: &[usize]) -> Window {
        let mut window = Window::default();
        chosen.iter().filter_map(|&i| self.all.get(i)).for_each(|sample| window.push(sample));
        window
    }

    fn pack(&self, mut order: Vec<usize>) -> Vec<Vec<usize>> {
        if !self.packed {
            return order.into_iter().map(|i| vec![i]).collect();
        }
        let length = |i: usize| self.all[i].tokens.len();
        order.sort_by_key(|&i| std::cmp::Reverse(length(i)));
        let mut windows: Vec<Vec<usize>> = Vec::new();
        // Windows by the room that is left in them.
        let mut room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for i in order {
            let fits = room.range(length(i)..).next().map(|(&left, _)| left);
            let (at, left) = match fits {
                Some(left) => {
                    let of = room.entry(left).or_default();
                    let at = of.pop().unwrap_or_default();
                    if of.is_empty() {
                        room.remove(&left);
                    }
                    (at, left)
                }
                None => {
                    windows.push(Vec::new());
                    (windows.len() - 1, self.len.max(length(i)))
                }
            };
            windows[at].push(i);
            room.entry(left - length(i)).or_default().push(at);
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(lengths: &[usize]) -> Vec<Sample> {
        let sample = |(i, &n): (usize, &usize)| Sample {
            tokens: (0..n).map(|t| (100 * i + t) as u32).collect(),
            counts: (0..n).map(|t| t >= n / 2 && t > 0).collect(),
            line: i as u64 + 1,
        };
        lengths.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn every_record_is_in_one_window_whole_and_windows_are_full() {
        let mut packed = Samples::new(samples(&[7, 3, 5, 5, 2, 8, 10, 4, 6]), 10, true, 3);
        assert_eq!(packed.windows(), 5);
        for _ in 0..2 {
            let windows: Vec<Window> = (0..5).map(|_| packed.draw()).collect();
            let mut lines: Vec<u64> = windows.iter().flat_map(|w| w.lines.clone()).collect();
            lines.sort_unstable();
            assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
            for window in windows {
                assert!(window.tokens.len() <= 10 && window.starts.len() == window.tokens.len());
                for &at in &window.at {
                    assert_eq!(window.tokens[at + 1], window.tokens[at] + 1, "of one record");
                    assert_eq!(window.starts[at], window.starts[at + 1]);
                }
            }
        }
    }

    #[test]
    fn the_order_is_that_of_the_seed() {
        let draw = |seed| {
            let mut samples = Samples::new(samples(&[3; 20]), 3, false, seed);
            (0..40).map(|_| samples.draw().lines[0]).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[..20], draw(1)[20..]);
    }

    #[test]
    fn only_what_counts_is_predicted() {
        let window = Samples::new(samples(&[4, 3]), 8, true, 0).all().remove(0);
        assert_eq!(window.tokens, [0, 1, 2, 3, 100, 101, 102]);
        assert_eq!(window.starts, [0, 0, 0, 0, 4, 4, 4]);
        assert_eq!(window.at, [1, 2, 4, 5]);
    }
}
