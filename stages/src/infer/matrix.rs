//! A weight matrix as the kernels want it.
//!
//! Quantised rows are laid out anew once, at load: sixteen rows make a tile, in which the quads of
//! weights that one instruction multiplies lie side by side, and the scales of sixteen rows too. The
//! bits stay as many. Floats stay where the file has them. A row that is no multiple of 32 weights
//! cannot be quantised; the formats do not allow it.

use super::importance::Squares;
use super::pool::Pass;
use crate::model::gguf::Packing;
use crate::model::weights::{Bytes, Raw};
use crate::{Result, StageError};

/// Rows of a tile.
pub const ROWS: usize = 16;
/// Weights of a row that share a scale, as the kernels go through it.
pub const GROUP: usize = 32;

/// `y = W x`, `[rows, columns]`.
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// The weights.
    pub weights: Weights,
    /// Added to the product.
    pub bias: Option<Vec<f32>>,
    /// A low-rank product that is added.
    pub adapter: Option<Box<Adapter>>,
    /// What its inputs were, where somebody wants to know.
    pub(super) squares: Option<Box<Squares>>,
}

/// `s B (A x)`.
pub struct Adapter {
    /// `[r, columns]`
    pub a: Matrix,
    /// `[rows, r]`, times the scale.
    pub b: Matrix,
}

/// Where the weights are.
pub enum Weights {
    /// Rows as they lie in the file.
    Floats(Packing, Floats),
    /// Tiles of quantised rows.
    Tiles(Tiles),
}

/// Floats of a file, or of our own.
pub enum Floats {
    /// In a file.
    Mapped(Bytes),
    /// Computed.
    Own(Vec<u8>),
}

impl std::ops::Deref for Floats {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Floats::Mapped(bytes) => bytes,
            Floats::Own(bytes) => bytes,
        }
    }
}

/// Tiles: for each, the scales of all its groups, then the weights of all its groups.
pub struct Tiles {
    /// How they were packed in the file.
    pub packing: Packing,
    lines: Vec<Line>,
    layout: Layout,
    groups: usize,
}

/// 64 bytes that lie on one line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read as bytes of many lines")] [u8; 64]);

/// Bytes of a tile.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Groups whose scales make a record.
    pub record: usize,
    /// Bytes of a record: of sixteen rows.
    pub scales: usize,
    /// Bytes of the weights of a group: of sixteen rows.
    pub weights: usize,
}

impl Layout {
    /// None for floats.
    pub const fn of(packing: Packing) -> Option<Layout> {
        let (record, scales, weights) = match packing {
            // f16 scales of sixteen rows.
            Packing::Q4_0 => (1, 32, 256),
            // f16 scales, f16 minima.
            Packing::Q4_1 => (1, 64, 256),
            Packing::Q8_0 => (1, 32, 512),
            // f16 scales and minima, then for each of eight groups a byte for each.
            Packing::Q4K => (8, 64 + 8 * 32, 256),
            Packing::Q5K => (8, 64 + 8 * 32, 256 + 64),
            // f16 scales, then for each half of eight groups a byte.
            Packing::Q6K => (8, 32 + 8 * 32, 256 + 128),
            Packing::F32 | Packing::F16 | Packing::Bf16 => return None,
        };
        Some(Layout { record, scales, weights })
    }
    /// Bytes before the weights of a tile of that many groups.
    pub fn before(self, groups: usize) -> usize {
        (groups.div_ceil(self.record) * self.scales).next_multiple_of(64)
    }
    fn tile(self, groups: usize) -> usize {
        self.before(groups) + groups * self.weights
    }
}

impl Tiles {
    /// The bytes of a tile: scales, weights.
    pub fn tile(&self, tile: usize) -> (&[u8], &[u8]) {
        let size = self.layout.tile(self.groups);
        self.bytes()[tile * size..][..size].split_at(self.layout.before(self.groups))
    }
    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.groups
    }
    fn bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 bytes, of which every value is valid.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }
}

/// Bytes that threads write different parts of.
struct Target(*mut u8);
// SAFETY: each unit of a loop writes a tile of its own.
unsafe impl Sync for Target {}

impl Target {
    /// # Safety
    /// The range is there, and nobody else has it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, from: usize, len: usize) -> &mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}

impl Matrix {
    /// A tensor of a file as it lies there, quantised or not: what a device is loaded from. The
    /// kernels of the CPU take it only where it is of floats.
    pub fn filed(name: &str, raw: &Raw, shape: [usize; 2]) -> Result<Matrix> {
        if raw.shape != shape {
            let message = format!("tensor `{name}` is {:?}, not {shape:?}", raw.shape);
            return Err(StageError::failed(message)
                .hint("config.json and the weights must be of the same model"));
        }
        let [rows, columns] = shape;
        let packing = raw.packing;
        let size = columns / packing.block() * packing.bytes();
        if !columns.is_multiple_of(packing.block()) || raw.bytes.len() != rows * size {
            return Err(StageError::failed(format!("tensor `{name}` is cut off")));
        }
        let weights = Weights::Floats(packing, Floats::Mapped(raw.bytes.clone()));
        Ok(Matrix { rows, columns, weights, bias: None, adapter: None, squares: None })
    }

    /// Lays out a tensor of a file for the CPU; `name` is for errors.
    pub fn new(name: &str, raw: &Raw, shape: [usize; 2], pass: &Pass) -> Result<Matrix> {
        let filed = Matrix::filed(name, raw, shape)?;
        let (rows, columns, packing) = (filed.rows, filed.columns, raw.packing);
        let weights = match Layout::of(packing) {
            None => return Ok(filed),
            Some(layout) => {
                let size = columns / packing.block() * packing.bytes();
                let groups = columns / GROUP;
                let (tile, tiles) = (layout.tile(groups), rows.div_ceil(ROWS));
                let mut lines = vec![Line([0; 64]); tile * tiles / 64];
                let target = Target(lines.as_mut_ptr().cast());
                let bytes: &[u8] = &raw.bytes;
                pass.run(tiles, |i, _| {
                    // SAFETY: tiles do not overlap, and `lines` has them all.
                    let tile = unsafe { target.part(i * tile, tile) };
                    let (scales, weights) = tile.split_at_mut(layout.before(groups));
                    let rows = i * ROWS..rows.min((i + 1) * ROWS);
                    for (r, row) in
                        bytes[rows.start * size..rows.end * size].chunks_exact(size).enumerate()
                    {
                        put_row(packing, layout, row, r, scales, weights);
                    }
                });
                Weights::Tiles(Tiles { packing, lines, layout, groups })
            }
        };
        Ok(Matrix { weights, ..filed })
    }

    /// A matrix of floats.
    pub fn of_floats(values: &[f32], rows: usize, columns: usize) -> Matrix {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let weights = Weights::Floats(Packing::F32, Floats::Own(bytes));
        Matrix { rows, columns, weights, bias: None, adapter: None, squares: None }
    }

    /// Sixteen rows each, the last perhaps fewer.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }
    /// How the weights were packed in the file.
    pub fn packing(&self) -> Packing {
        match &self.weights {
            Weights::Floats(packing, _) => *packing,
            Weights::Tiles(tiles) => tiles.packing,
        }
    }
    /// The product takes quantised inputs.
    pub fn quantized(&self) -> bool {
        matches!(self.weights, Weights::Tiles(_))
    }
}

fn half_at(bytes: &[u8], at: usize) -> [u8; 2] {
    [bytes[at], bytes[at + 1]]
}

/// Writes row `r` of a tile.
fn put_row(
    packing: Packing,
    layout: Layout,
    row: &[u8],
    r: usize,
    scales: &mut [u8],
    weights: &mut [u8],
) {
    let blocks = row.chunks_exact(packing.bytes());
    let per = packing.block() / GROUP;
    let records = scales.chunks_exact_mut(layout.scales);
    let groups = weights.chunks_exact_mut(layout.weights * per);
    for ((block, record), groups) in blocks.zip(records).zip(groups) {
        put_scales(packing, block, r, record);
        match packing {
            // The quads of these lie in the file as they do here.
            Packing::Q4_0 | Packing::Q4_1 => {
                let quads = &block[packing.bytes() - 16..];
                for (line, quad) in groups.chunks_exact_mut(64).zip(quads.chunks_exact(4)) {
                    line[4 * r..4 * r + 4].copy_from_slice(quad);
                }
            }
            Packing::Q8_0 => {
                for (line, quad) in groups.chunks_exact_mut(64).zip(block[2..].chunks_exact(4)) {
                    for (to, from) in line[4 * r..4 * r + 4].iter_mut().zip(quad) {
                        *to = from ^ 128;
                    }
                }
            }
            _ => {
                let levels = levels(packing, block);
                let groups = groups.chunks_exact_mut(layout.weights);
                for (group, levels) in groups.zip(levels.chunks_exact(GROUP)) {
                    put_levels(packing, levels, r, group);
                }
            }
        }
    }
}

fn put_scales(packing: Packing, block: &[u8], r: usize, record: &mut [u8]) {
    let mut half = |at: usize, from: [u8; 2]| {
        record[at + 2 * r..at + 2 * r + 2].copy_from_slice(&from);
    };
    match packing {
        Packing::Q4_0 | Packing::Q8_0 => half(0, half_at(block, 0)),
        Packing::Q4_1 => {
            half(0, half_at(block, 0));
            half(32, half_at(block, 2));
        }
        Packing::Q4K | Packing::Q5K => {
            half(0, half_at(block, 0));
            half(32, half_at(block, 2));
            let s = &block[4..16];
            for (j, pair) in record[64..].chunks_exact_mut(32).enumerate() {
                (pair[r], pair[16 + r]) = match j {
                    0..4 => (s[j] & 63, s[j + 4] & 63),
                    _ => {
                        ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4)
                    }
                };
            }
        }
        Packing::Q6K => {
            half(0, half_at(block, 208));
            for (part, scale) in record[32..].chunks_exact_mut(16).zip(&block[192..208]) {
                part[r] = *scale;
            }
        }
        Packing::F32 | Packing::F16 | Packing::Bf16 => {}
    }
}

/// The levels of a block of 256, in order.
pub(super) fn levels(packing: Packing, block: &[u8]) -> [u8; 256] {
    let mut levels = [0; 256];
    let pairs = levels.chunks_exact_mut(64).enumerate();
    match packing {
        Packing::Q4K => {
            for (pair, levels) in pairs {
                for (l, byte) in block[16 + 32 * pair..][..32].iter().enumerate() {
                    (levels[l], levels[32 + l]) = (byte & 15, byte >> 4);
                }
            }
        }
        Packing::Q5K => {
            for (pair, levels) in pairs {
                let bytes = block[48 + 32 * pair..][..32].iter().zip(&block[16..48]);
                for (l, (byte, high)) in bytes.enumerate() {
                    let high = high >> (2 * pair);
                    levels[l] = (byte & 15) | (high & 1) << 4;
                    levels[32 + l] = (byte >> 4) | (high >> 1 & 1) << 4;
                }
            }
        }
        _ => {
            for (part, levels) in levels.chunks_exact_mut(128).enumerate() {
                let (low, high) = (&block[64 * part..][..64], &block[128 + 32 * part..][..32]);
                for l in 0..32 {
                    levels[l] = (low[l] & 15) | (high[l] & 3) << 4;
                    levels[32 + l] = (low[32 + l] & 15) | (high[l] >> 2 & 3) << 4;
                    levels[64 + l] = (low[l] >> 4) | (high[l] >> 4 & 3) << 4;
                    levels[96 + l] = (low[32 + l] >> 4) | (high[l] >> 6 & 3) << 4;
                }
            }
        }
    }
    levels
}

/// Writes the 32 levels of a group: low nibbles of quads `t` and `t + 4` in one line, then the bits
/// above them, quad by quad.
fn put_levels(packing: Packing, levels: &[u8], r: usize, group: &mut [u8]) {
    for t in 0..4 {
        for b in 0..4 {
            let (low, high) = (levels[4 * t + b], levels[16 + 4 * t + b]);
            group[64 * t + 4 * r + b] = (low & 15) | (high & 15) << 4;
        }
    }
    if packing == Packing::Q4K {
        return;
    }
    for t in 0..8 {
        for b in 0..4 {
            let top = levels[4 * t + b] >> 4;
            match packing {
                Packing::Q5K => group[256 + 4 * r + b] |= top << t,
                _ => group[256 + 64 * (t / 4) + 4 * r + b] |= top << (2 * (t % 4)),
            }
        }
    }
}
