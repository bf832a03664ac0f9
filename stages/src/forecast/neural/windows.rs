//! Rows to windows: which rows a net sees together, in training and when it is asked.
//!
//! In training, windows follow one another through a slice from a random offset, so that a row
//! stands at another place each epoch. When a net is asked, windows begin at fixed rows, half a window
//! apart, and answer for their second half: a row's forecast rests on at least half a window of
//! rows before it, and is the same whatever else is asked for.

use std::ops::Range;

use burn::prelude::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::kernels::constant;
use crate::forecast::series::{Series, Slice, Target};

/// Columns besides the features: the log of the elapsed time, and 1.
pub const MORE: usize = 2;
/// The elapsed times that a net is told.
const ELAPSED: [f32; 2] = [1e-3, 1e3];

/// Rows of a series that a net sees together.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The first row.
    pub start: usize,
    /// Rows that there are; those after them are empty.
    pub rows: usize,
    /// Which of its rows it answers for.
    pub own: Range<usize>,
}

/// Windows of `len` rows for training on `rows` rows, from an offset below `len`.
pub fn training(rows: usize, len: usize, offset: usize) -> Vec<Window> {
    if rows <= len {
        return vec![Window { start: 0, rows, own: 0..rows }];
    }
    let offset = offset.min(rows - len);
    let mut out = Vec::new();
    if offset > 0 {
        out.push(Window { start: 0, rows: len, own: 0..offset });
    }
    let mut start = offset;
    while start + len <= rows {
        out.push(Window { start, rows: len, own: 0..len });
        start += len;
    }
    if start < rows {
        out.push(Window { start: rows - len, rows: len, own: len - (rows - start)..len });
    }
    out
}

/// Windows of `len` rows that answer for `asked` of `rows` rows. Each row has one window, whatever
/// `asked` is.
pub fn asking(rows: usize, len: usize, asked: Range<usize>) -> Vec<Window> {
    let half = len / 2;
    let mut out = Vec::new();
    let mut at = asked.start;
    while at < asked.end {
        // The block of half a window that the row lies in.
        let block = at / half;
        let start = block.saturating_sub(1) * half;
        let end = ((block + 1) * half).min(asked.end);
        // A window is filled only up to the last row it answers for at most; later rows could not be
        // seen anyway.
        let held = len.min(rows - start);
        out.push(Window { start, rows: held, own: at - start..end - start });
        at = end;
    }
    out
}

/// Windows of several series as columns and targets.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// `[windows * len, features + MORE]`
    pub x: Vec<f32>,
    /// `[windows * len]`
    pub dt: Vec<f32>,
    /// `[windows * len, horizons]`
    pub targets: Vec<Option<Target>>,
}

impl Batch {
    /// Adds a window of a series, with the targets of its own rows that count; `first` is the
    /// series' row at which the windows' rows are counted from.
    pub fn push(&mut self, series: &Series, first: usize, window: &Window, len: usize) {
        let width = series.features;
        for t in 0..len {
            let row = first + window.start + t;
            if t >= window.rows {
                self.x.resize(self.x.len() + width + MORE, 0.0);
                self.dt.push(1.0);
                continue;
            }
            let x = &series.x[row * width..(row + 1) * width];
            let dt = series.dt[row].clamp(ELAPSED[0], ELAPSED[1]);
            self.x.extend_from_slice(x);
            self.x.extend([dt.ln(), 1.0]);
            self.dt.push(dt);
        }
    }

    /// [`Batch::push`] with the targets of a slice.
    pub fn learn(&mut self, slice: &Slice, window: &Window, len: usize) {
        self.push(slice.series, slice.rows.start, window, len);
        let horizons = slice.series.horizons;
        for t in 0..len {
            let at = window.start + t;
            let counts = window.own.contains(&t) && slice.counts.get(at) == Some(&true);
            let from = (slice.rows.start + at) * horizons;
            match counts {
                true => self.targets.extend_from_slice(&slice.series.targets[from..][..horizons]),
                false => self.targets.resize(self.targets.len() + horizons, None),
            }
        }
    }

    /// The tensors of columns and elapsed times.
    pub fn tensors<B: Backend>(&mut self, features: usize, place: &B::Device) -> [Tensor<B, 2>; 2] {
        let x = constant(std::mem::take(&mut self.x), features + MORE, place);
        [x, constant(std::mem::take(&mut self.dt), 1, place)]
    }
}

/// Windows of slices, in a random order; only those with something to learn from.
pub fn epoch(slices: &[Slice], len: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, Window)> {
    let mut out = Vec::new();
    for (i, slice) in slices.iter().enumerate() {
        let offset = below(rng, len);
        let windows = training(slice.rows.len(), len, offset);
        out.extend(windows.into_iter().filter(|w| teaches(slice, w)).map(|w| (i, w)));
    }
    for i in (1..out.len()).rev() {
        out.swap(i, below(rng, i + 1));
    }
    out
}

/// Windows that answer for all rows of slices; only those with something to compare with.
pub fn validation(slices: &[Slice], len: usize) -> Vec<(usize, Window)> {
    let mut out = Vec::new();
    for (i, slice) in slices.iter().enumerate() {
        let rows = slice.rows.len();
        let windows = asking(rows, len, 0..rows);
        out.extend(windows.into_iter().filter(|w| teaches(slice, w)).map(|w| (i, w)));
    }
    out
}

fn teaches(slice: &Slice, window: &Window) -> bool {
    let horizons = slice.series.horizons;
    window.own.clone().any(|t| {
        let at = window.start + t;
        let from = (slice.rows.start + at) * horizons;
        slice.counts.get(at) == Some(&true)
            && slice.series.targets[from..][..horizons].iter().any(Option::is_some)
    })
}

fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_learnt_from_once() {
        for rows in [1, 5, 8, 9, 30] {
            for offset in 0..8 {
                let mut seen = vec![0; rows];
                for w in training(rows, 8, offset) {
                    assert!(w.start + w.rows <= rows && w.rows <= 8);
                    w.own.for_each(|t| seen[w.start + t] += 1);
                }
                assert!(seen.iter().all(|&n| n == 1), "{rows} {offset}: {seen:?}");
            }
        }
    }

    #[test]
    fn every_row_asked_for_has_the_same_window() {
        let all = asking(100, 8, 0..100);
        let window = |row: usize, windows: &[Window]| {
            let has = |w: &&Window| w.own.contains(&row.wrapping_sub(w.start));
            let found: Vec<usize> = windows.iter().filter(has).map(|w| w.start).collect();
            assert_eq!(found.len(), 1);
            found[0]
        };
        for range in [0..1, 3..9, 37..64, 99..100] {
            let some = asking(100, 8, range.clone());
            for row in range {
                assert_eq!(window(row, &some), window(row, &all));
                assert!(row < 4 || row - window(row, &all) >= 4);
            }
        }
    }
}
