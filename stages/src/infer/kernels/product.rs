//! `y = W x` for a tile of sixteen rows and any number of inputs.
//!
//! A group of 32 quantised weights of sixteen rows is eight registers; each input's 32 integers go
//! through them as eight dot products of quads, and only then scales apply:
//! `y += d_x (s_w sum(q_w q_x) + m_w sum(q_x))`. The registers serve up to eight inputs before the
//! next group comes. Each output is summed in one order, whatever the number of inputs or threads.

use half::{bf16, f16};

use super::super::matrix::{GROUP, Layout, Matrix, ROWS, Tiles, Weights};
use super::super::simd::{Op, Simd};
use super::Out;
use super::inputs::Inputs;
use crate::model::gguf::Packing;

/// One tile of a product.
pub struct Product<'a> {
    /// The matrix.
    pub matrix: &'a Matrix,
    /// Which sixteen rows of it.
    pub tile: usize,
    /// The inputs.
    pub inputs: &'a Inputs,
    /// How many rows of them.
    pub n: usize,
    /// `[n, matrix.rows]`; the columns of this tile are written by nobody else.
    pub out: Out,
    /// Add to what is there.
    pub add: bool,
}

impl Product<'_> {
    /// What the product of a row is added to.
    #[inline(always)]
    fn base(&self, row: usize, there: f32) -> f32 {
        match (self.add, &self.matrix.bias) {
            (true, _) => there,
            (false, Some(bias)) => bias[row],
            (false, None) => 0.0,
        }
    }
}

impl Op for Product<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match &self.matrix.weights {
            Weights::Tiles(tiles) => match tiles.packing {
                Packing::Q4_0 => tiled::<S, Q40>(s, &self, tiles),
                Packing::Q4_1 => tiled::<S, Q41>(s, &self, tiles),
                Packing::Q8_0 => tiled::<S, Q80>(s, &self, tiles),
                Packing::Q4K => tiled::<S, Q4K>(s, &self, tiles),
                Packing::Q5K => tiled::<S, Q5K>(s, &self, tiles),
                _ => tiled::<S, Q6K>(s, &self, tiles),
            },
            Weights::Floats(packing, bytes) => match packing {
                Packing::F16 => dense::<S, Half>(s, &self, bytes),
                Packing::Bf16 => dense::<S, Brain>(s, &self, bytes),
                _ => dense::<S, Single>(s, &self, bytes),
            },
        }
    }
}

/// How a group of a tile is read.
trait Form {
    /// Levels reach 255.
    const WIDE: bool = false;
    /// The two halves of a group have scales of their own.
    const HALVES: bool = false;
    /// Bytes and groups of a record of scales, bytes of a group.
    const LAYOUT: Layout;
    /// # Safety
    /// `LAYOUT.weights` bytes are there.
    unsafe fn weights<S: Simd>(s: S, p: *const u8) -> [S::B; 8];
    /// Scale and minimum of each half of group `g` of a record.
    /// # Safety
    /// `LAYOUT.scales` bytes are there.
    unsafe fn scales<S: Simd>(s: S, p: *const u8, g: usize) -> [(S::F, S::F); 2];
}

const fn layout(packing: Packing) -> Layout {
    match Layout::of(packing) {
        Some(layout) => layout,
        None => panic!("floats have no tiles"),
    }
}

/// # Safety
/// 256 bytes are there.
#[inline(always)]
unsafe fn nibbles<S: Simd>(s: S, p: *const u8) -> [S::B; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut w = [s.bytes(p), s.bytes(p.add(64)), s.bytes(p.add(128)), s.bytes(p.add(192))];
        let mut high = w;
        for t in 0..4 {
            high[t] = s.and(s.shr(w[t], 4), 15);
            w[t] = s.and(w[t], 15);
        }
        [w[0], w[1], w[2], w[3], high[0], high[1], high[2], high[3]]
    }
}

struct Q40;
impl Form for Q40 {
    const LAYOUT: Layout = layout(Packing::Q4_0);
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, p: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's promise.
        unsafe { nibbles(s, p) }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, p: *const u8, _: usize) -> [(S::F, S::F); 2] {
        // SAFETY: the caller's promise.
        let d = unsafe { s.load_f16(p.cast()) };
        [(d, s.mul(d, s.splat(-8.0))); 2]
    }
}

struct Q41;
impl Form for Q41 {
    const LAYOUT: Layout = layout(Packing::Q4_1);
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, p: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's promise.
        unsafe { nibbles(s, p) }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, p: *const u8, _: usize) -> [(S::F, S::F); 2] {
        // SAFETY: the caller's promise.
        unsafe { [(s.load_f16(p.cast()), s.load_f16(p.add(32).cast())); 2] }
    }
}

struct Q80;
impl Form for Q80 {
    const WIDE: bool = true;
    const LAYOUT: Layout = layout(Packing::Q8_0);
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, p: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut w = [s.bytes(p); 8];
            for (t, w) in w.iter_mut().enumerate() {
                *w = s.bytes(p.add(64 * t));
            }
            w
        }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, p: *const u8, _: usize) -> [(S::F, S::F); 2] {
        // SAFETY: the caller's promise.
        let d = unsafe { s.load_f16(p.cast()) };
        [(d, s.mul(d, s.splat(-128.0))); 2]
    }
}

/// # Safety
/// 64 + 8 * 32 bytes are there.
#[inline(always)]
unsafe fn affine<S: Simd>(s: S, p: *const u8, g: usize) -> [(S::F, S::F); 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (d, m) = (s.load_f16(p.cast()), s.load_f16(p.add(32).cast()));
        let pair = p.add(64 + 32 * g);
        let min = s.mul(m, s.load_u8(pair.add(16)));
        [(s.mul(d, s.load_u8(pair)), s.sub(s.splat(0.0), min)); 2]
    }
}

struct Q4K;
impl Form for Q4K {
    const LAYOUT: Layout = layout(Packing::Q4K);
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, p: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's promise.
        unsafe { nibbles(s, p) }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, p: *const u8, g: usize) -> [(S::F, S::F); 2] {
        // SAFETY: the caller's promise.
        unsafe { affine(s, p, g) }
    }
}

/// Bits `from..` of each byte moved to `4..`.
#[inline(always)]
fn lift<S: Simd>(s: S, line: S::B, from: usize, mask: u8) -> S::B {
    s.and(if from < 4 { s.shl(line, 4 - from as u32) } else { s.shr(line, from as u32 - 4) }, mask)
}

struct Q5K;
impl Form for Q5K {
    const LAYOUT: Layout = layout(Packing::Q5K);
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, p: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's promise.
        let (mut w, high) = unsafe { (nibbles(s, p), s.bytes(p.add(256))) };
        for (t, w) in w.iter_mut().enumerate() {
            *w = s.or(*w, lift(s, high, t, 16));
        }
        w
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, p: *const u8, g: usize) -> [(S::F, S::F); 2] {
        // SAFETY: the caller's promise.
        unsafe { affine(s, p, g) }
    }
}

struct Q6K;
impl Form for Q6K {
    const HALVES: bool = true;
    const LAYOUT: Layout = layout(Packing::Q6K);
    #[inline(always)]
    unsafe fn weights<S: Simd>(s: S, p: *const u8) -> [S::B; 8] {
        // SAFETY: the caller's promise.
        let (mut w, high) =
            unsafe { (nibbles(s, p), [s.bytes(p.add(256)), s.bytes(p.add(256 + 64))]) };
        for (t, w) in w.iter_mut().enumerate() {
            *w = s.or(*w, lift(s, high[t / 4], 2 * (t % 4), 48));
        }
        w
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(s: S, p: *const u8, g: usize) -> [(S::F, S::F); 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let d = s.load_f16(p.cast());
            let part = p.add(32 + 32 * g);
            let first = s.mul(d, s.load_i8(part.cast()));
            let second = s.mul(d, s.load_i8(part.add(16).cast()));
            let offset = s.splat(-32.0);
            [(first, s.mul(first, offset)), (second, s.mul(second, offset))]
        }
    }
}

#[inline(always)]
fn tiled<S: Simd, M: Form>(s: S, p: &Product, tiles: &Tiles) {
    let mut j = 0;
    if S::MANY {
        while p.n - j >= 8 {
            columns::<S, M, 8>(s, p, tiles, j);
            j += 8;
        }
    }
    while p.n - j >= 4 {
        columns::<S, M, 4>(s, p, tiles, j);
        j += 4;
    }
    while p.n - j >= 1 {
        columns::<S, M, 1>(s, p, tiles, j);
        j += 1;
    }
}

/// # Safety
/// Four integers are there.
#[inline(always)]
unsafe fn dot<S: Simd, M: Form>(s: S, sum: S::I, w: S::B, x: *const i32) -> S::I {
    // SAFETY: the caller's promise.
    let x = unsafe { x.read_unaligned() };
    if M::WIDE { s.dot_wide(sum, w, x) } else { s.dot(sum, w, x) }
}

/// A tile for inputs `j..j + N`.
#[inline(always)]
fn columns<S: Simd, M: Form, const N: usize>(s: S, p: &Product, tiles: &Tiles, j: usize) {
    let (scales, weights) = tiles.tile(p.tile);
    let (groups, width, inputs) = (tiles.groups(), p.inputs.width, p.inputs);
    assert!(inputs.small.len() >= (j + N) * width && inputs.half.len() >= (j + N) * groups * 2);
    let mut y = [s.splat(0.0); N];
    for g in 0..groups {
        // SAFETY: the tile has so many groups, and the inputs so many rows (checked above).
        unsafe {
            let w = M::weights(s, weights.as_ptr().add(g * M::LAYOUT.weights));
            let record = g / M::LAYOUT.record * M::LAYOUT.scales;
            let [first, second] = M::scales(s, scales.as_ptr().add(record), g % M::LAYOUT.record);
            for (c, y) in y.iter_mut().enumerate() {
                let row = j + c;
                let x: *const i32 = inputs.small.as_ptr().add(row * width + g * GROUP).cast();
                let (mut a, mut b) = (s.zeros(), s.zeros());
                for t in 0..4 {
                    a = dot::<S, M>(s, a, w[t], x.add(t));
                    b = dot::<S, M>(s, b, w[t + 4], x.add(t + 4));
                }
                let d = s.splat(*inputs.scale.get_unchecked(row * groups + g));
                if M::HALVES {
                    let half = inputs.half.as_ptr().add(2 * (row * groups + g));
                    *y = s.fma(s.floats(a), s.mul(first.0, d), *y);
                    *y = s.fma(s.floats(b), s.mul(second.0, d), *y);
                    *y = s.fma(first.1, s.splat(*half), *y);
                    *y = s.fma(second.1, s.splat(*half.add(1)), *y);
                } else {
                    let sum = s.splat(*inputs.sum.get_unchecked(row * groups + g));
                    *y = s.fma(s.floats(s.iadd(a, b)), s.mul(first.0, d), *y);
                    *y = s.fma(first.1, sum, *y);
                }
            }
        }
    }
    let rows = ROWS.min(p.matrix.rows - p.tile * ROWS);
    for (c, y) in y.iter().enumerate() {
        let mut lanes = [0.0; ROWS];
        // SAFETY: sixteen lanes; this tile's part of a row of the outputs.
        let out = unsafe {
            s.store(lanes.as_mut_ptr(), *y);
            p.out.part((j + c) * p.matrix.rows + p.tile * ROWS, rows)
        };
        for (i, (out, y)) in out.iter_mut().zip(lanes).enumerate() {
            *out = y + p.base(p.tile * ROWS + i, *out);
        }
    }
}

/// An element of a row of floats.
trait Element {
    const BYTES: usize;
    /// # Safety
    /// Sixteen elements are there.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F;
    /// # Safety
    /// One element is there.
    unsafe fn one(p: *const u8) -> f32;
}

struct Single;
impl Element for Single {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<f32>().read_unaligned() }
    }
}

struct Half;
impl Element for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        f16::from_bits(unsafe { p.cast::<u16>().read_unaligned() }).to_f32()
    }
}

struct Brain;
impl Element for Brain {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn one(p: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        bf16::from_bits(unsafe { p.cast::<u16>().read_unaligned() }).to_f32()
    }
}

#[inline(always)]
fn dense<S: Simd, E: Element>(s: S, p: &Product, bytes: &[u8]) {
    let mut row = p.tile * ROWS;
    let end = (row + ROWS).min(p.matrix.rows);
    while row < end {
        let fits = end - row >= 4;
        let mut j = 0;
        while j < p.n {
            match (fits, p.n - j >= 4) {
                (true, true) => block::<S, E, 4, 4>(s, p, bytes, row, j),
                (true, false) => block::<S, E, 4, 1>(s, p, bytes, row, j),
                (false, true) => block::<S, E, 1, 4>(s, p, bytes, row, j),
                (false, false) => block::<S, E, 1, 1>(s, p, bytes, row, j),
            }
            j += if p.n - j >= 4 { 4 } else { 1 };
        }
        row += if fits { 4 } else { 1 };
    }
}

/// `R` rows of floats from `row` on, for inputs `j..j + N`.
#[inline(always)]
fn block<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    p: &Product,
    bytes: &[u8],
    row: usize,
    j: usize,
) {
    let (width, x) = (p.matrix.columns, &p.inputs.floats);
    assert!(bytes.len() >= (row + R) * width * E::BYTES && x.len() >= (j + N) * width);
    let mut y = [[s.splat(0.0); N]; R];
    let whole = width / 16 * 16;
    let bytes = bytes.as_ptr().wrapping_add(row * width * E::BYTES);
    for k in (0..whole).step_by(16) {
        let mut inputs = [s.splat(0.0); N];
        for (c, input) in inputs.iter_mut().enumerate() {
            // SAFETY: checked above.
            *input = unsafe { s.load(x.as_ptr().add((j + c) * width + k)) };
        }
        for (r, y) in y.iter_mut().enumerate() {
            // SAFETY: checked above.
            let w = unsafe { E::load(s, bytes.add((r * width + k) * E::BYTES)) };
            for (y, x) in y.iter_mut().zip(inputs) {
                *y = s.fma(w, x, *y);
            }
        }
    }
    for (r, y) in y.iter().enumerate() {
        for (c, y) in y.iter().enumerate() {
            let mut sum = s.sum(*y);
            for k in whole..width {
                // SAFETY: checked above.
                sum += unsafe { E::one(bytes.add((r * width + k) * E::BYTES)) }
                    * x[(j + c) * width + k];
            }
            // SAFETY: this tile's part of a row of the outputs.
            let out = unsafe { p.out.part((j + c) * p.matrix.rows + row + r, 1) };
            out[0] = sum + p.base(row + r, out[0]);
        }
    }
}
