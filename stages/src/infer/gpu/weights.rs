//! Weights as the kernels read them: tiles of 32 outputs in which words of neighbours lie side by side.
//!
//! The levels of 32 inputs (a group) of an output are one to eight vectors of four words, its scales
//! and what lies above the low four bits words of their own. Nothing is rounded: every packing
//! keeps its levels and its 16-bit scales, and grows by 0.13 bits a weight at the most (the
//! scales of k-quants are whole bytes). Outputs that fill up a tile are zeros.

use super::kernels::product::{record, vectors};
use crate::infer::matrix::{Matrix, levels};
use crate::model::gguf::{Packing, scale_and_min};

/// Outputs of a tile.
pub const ROWS: usize = 32;
/// Inputs of a group.
pub const GROUP: usize = 32;

/// Sizes of the tiles of a matrix.
#[derive(Clone, Copy)]
pub struct Layout {
    pub packing: Packing,
    pub groups: usize,
}

impl Layout {
    /// Of matrices with that many inputs.
    pub fn of(packing: Packing, columns: usize) -> Layout {
        Layout { packing, groups: columns.div_ceil(GROUP) }
    }
    /// Words of levels of a tile.
    pub fn words(self) -> usize {
        self.groups * vectors(self.packing) * 4 * ROWS
    }
    /// Words of scales of a tile.
    pub fn scales(self) -> usize {
        let (per, size) = record(self.packing);
        self.groups.div_ceil(per) * size * ROWS
    }
    /// Bytes of a tile.
    pub fn bytes(self) -> usize {
        (self.words() + self.scales()) * 4
    }
}

/// Lays out a tile: outputs `32 tile..` of a matrix whose rows are as they lie in the file. `words`
/// and `scales` are zeros.
pub fn put_tile(matrix: &Matrix, bytes: &[u8], tile: usize, words: &mut [u32], scales: &mut [u32]) {
    let (packing, columns) = (matrix.packing(), matrix.columns);
    let size = columns / packing.block() * packing.bytes();
    let rows = tile * ROWS..matrix.rows.min((tile + 1) * ROWS);
    for (lane, row) in rows.enumerate() {
        put_row(packing, &bytes[row * size..][..size], lane, words, scales);
    }
}

fn put_row(packing: Packing, row: &[u8], lane: usize, words: &mut [u32], scales: &mut [u32]) {
    let width = vectors(packing);
    // The word of an input and how far up in it: `bits` a level.
    let mut put = |column: usize, bits: usize, level: u32| {
        let per = 32 / bits;
        let (group, word) = (column / GROUP, column % GROUP / per);
        let at = ((group * width + word / 4) * ROWS + lane) * 4 + word % 4;
        words[at] |= level << (column % per * bits);
    };
    let (_, size) = record(packing);
    let mut scale = |record: usize, word: usize, value: u32| {
        scales[(record * size + word) * ROWS + lane] |= value;
    };
    let pair = |b: &[u8], at: usize| u32::from(u16::from_le_bytes([b[at], b[at + 1]]));
    for (i, b) in row.chunks_exact(packing.bytes()).enumerate() {
        match packing {
            Packing::F32 => put(i, 32, u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Packing::F16 | Packing::Bf16 => put(i, 16, pair(b, 0)),
            Packing::Q4_0 | Packing::Q4_1 => {
                let quants = &b[packing.bytes() - 16..];
                for (l, byte) in quants.iter().enumerate() {
                    put(32 * i + l, 4, u32::from(byte & 15));
                    put(32 * i + 16 + l, 4, u32::from(byte >> 4));
                }
                match packing {
                    Packing::Q4_0 => scale(i / 2, 0, pair(b, 0) << (16 * (i % 2))),
                    _ => scale(i, 0, pair(b, 0) | pair(b, 2) << 16),
                }
            }
            Packing::Q8_0 => {
                for (l, byte) in b[2..].iter().enumerate() {
                    put(32 * i + l, 8, u32::from(byte ^ 128));
                }
                scale(i / 2, 0, pair(b, 0) << (16 * (i % 2)));
            }
            Packing::Q4K | Packing::Q5K => {
                scale(i, 0, pair(b, 0) | pair(b, 2) << 16);
                for j in 0..8 {
                    let (s, m) = scale_and_min(&b[4..16], j);
                    scale(i, 1 + j / 4, u32::from(s) << (8 * (j % 4)));
                    scale(i, 3 + j / 4, u32::from(m) << (8 * (j % 4)));
                }
                for (l, level) in levels(packing, b).into_iter().enumerate() {
                    put(256 * i + l, 4, u32::from(level & 15));
                    if packing == Packing::Q5K {
                        scale(i, 5 + l / 32, u32::from(level >> 4) << (l % 32));
                    }
                }
            }
            Packing::Q6K => {
                scale(i, 0, pair(b, 208));
                for (j, byte) in b[192..208].iter().enumerate() {
                    scale(i, 1 + j / 4, u32::from(byte ^ 128) << (8 * (j % 4)));
                }
                for (l, level) in levels(packing, b).into_iter().enumerate() {
                    put(256 * i + l, 4, u32::from(level & 15));
                    scale(i, 5 + l / 16, u32::from(level >> 4) << (2 * (l % 16)));
                }
            }
        }
    }
}
