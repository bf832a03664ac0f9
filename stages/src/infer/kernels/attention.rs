//! Attention of a few rows (a query head of a token each) over the cache of one key head.
//!
//! Keys lie in tiles of sixteen positions, `[tile, size, 16]`, so that one load meets many queries
//! and no lanes are summed; values lie `[position, wide]`, with `wide` the size of a head rounded up
//! to lanes. Both are f16, or f32 where the weights are.

use half::f16;

use super::super::simd::{Op, Simd};
use super::Out;

/// Positions of a tile of keys.
pub const TILE: usize = 16;

/// A number of the cache.
pub trait Cell: Copy + Default + Send + Sync + 'static {
    /// # Safety
    /// Sixteen are there.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F;
    /// # Safety
    /// There is room for sixteen.
    unsafe fn store<S: Simd>(s: S, p: *mut Self, x: S::F);
    /// From f32.
    fn of(x: f32) -> Self;
}

impl Cell for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load(p) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut f32, x: S::F) {
        // SAFETY: the caller's promise.
        unsafe { s.store(p, x) }
    }
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }
}

impl Cell for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f16) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut f16, x: S::F) {
        // SAFETY: the caller's promise.
        unsafe { s.store_f16(p.cast(), x) }
    }
    #[inline(always)]
    fn of(x: f32) -> f16 {
        f16::from_f32(x)
    }
}

/// Writes a head into the cache, its numbers `stride` apart.
pub struct Store<'a, C> {
    /// The numbers.
    pub from: &'a [f32],
    /// Where the first goes: all have room there, and belong to nobody else.
    pub to: *mut C,
    /// From one to the next.
    pub stride: usize,
}

impl<C: Cell> Op for Store<'_, C> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Store { from, to, stride } = self;
        let (lanes, rest) = from.as_chunks::<16>();
        for (i, lanes) in lanes.iter().enumerate() {
            let mut cells = [C::default(); 16];
            // SAFETY: sixteen numbers, sixteen cells; the places are promised.
            unsafe {
                C::store(s, cells.as_mut_ptr(), s.load(lanes.as_ptr()));
                for (d, cell) in cells.into_iter().enumerate() {
                    to.add((16 * i + d) * stride).write(cell);
                }
            }
        }
        for (d, x) in rest.iter().enumerate() {
            // SAFETY: as above.
            unsafe { to.add((16 * lanes.len() + d) * stride).write(C::of(*x)) };
        }
    }
}

/// A query of a head, and how many positions it sees.
#[derive(Clone, Copy)]
pub struct Query {
    /// Where its numbers begin in the queries.
    pub from: usize,
    /// Where its result goes.
    pub to: usize,
    /// Positions that it sees, from the first.
    pub sees: usize,
}

/// Up to eight queries over one key head.
pub struct Attention<'a, C> {
    /// All queries.
    pub q: &'a [f32],
    /// The queries of this unit.
    pub queries: &'a [Query],
    /// Keys of the head: `[tile, size, 16]`.
    pub keys: &'a [C],
    /// Values of the head: `[position, wide]`.
    pub values: &'a [C],
    /// Width of a head.
    pub size: usize,
    /// Results, `size` for each query.
    pub out: Out,
    /// Memory to use.
    pub scratch: &'a mut Vec<f32>,
}

/// Queries of a unit, at the most.
pub const QUERIES: usize = 8;

impl<C: Cell> Op for Attention<'_, C> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.queries.len() {
            0 => {}
            1 => rows::<S, C, 1>(s, self),
            2 => rows::<S, C, 2>(s, self),
            3 => rows::<S, C, 3>(s, self),
            4 => rows::<S, C, 4>(s, self),
            _ => rows::<S, C, 8>(s, self),
        }
    }
}

#[inline(always)]
fn rows<S: Simd, C: Cell, const R: usize>(s: S, unit: Attention<C>) {
    let Attention { q, queries, keys, values, size, out, scratch } = unit;
    // Spare rows repeat the first query; their results go nowhere.
    let query = |r: usize| queries.get(r).copied().unwrap_or(queries[0]);
    let longest = queries.iter().map(|query| query.sees).max().unwrap_or(0);
    let (tiles, wide) = (longest.div_ceil(TILE), size.next_multiple_of(16));
    let stride = tiles * TILE;
    assert!(keys.len() >= tiles * size * TILE && values.len() >= longest * wide);
    assert!((0..R).all(|r| query(r).from + size <= q.len()));
    if scratch.len() < R * stride {
        scratch.resize(R * stride, 0.0);
    }
    let scores = scratch.as_mut_ptr();
    let scale = s.splat(1.0 / (size as f32).sqrt());
    let q: [*const f32; R] = std::array::from_fn(|r| q[query(r).from..].as_ptr());
    for tile in 0..tiles {
        let mut y = [s.splat(0.0); R];
        for d in 0..size {
            // SAFETY: checked above.
            unsafe {
                let k = C::load(s, keys.as_ptr().add((tile * size + d) * TILE));
                for (y, q) in y.iter_mut().zip(q) {
                    *y = s.fma(s.splat(*q.add(d)), k, *y);
                }
            }
        }
        for (r, y) in y.iter().enumerate() {
            // SAFETY: the scratch is that long.
            unsafe { s.store(scores.add(r * stride + tile * TILE), s.mul(*y, scale)) };
        }
    }
    let mut inverse = [0.0; R];
    for (r, inverse) in inverse.iter_mut().enumerate() {
        // SAFETY: the scratch is that long, and each row is its own part.
        let row = unsafe { std::slice::from_raw_parts_mut(scores.add(r * stride), stride) };
        *inverse = 1.0 / softmax(s, row, query(r).sees);
    }
    for d in (0..wide).step_by(16) {
        let mut y = [s.splat(0.0); R];
        for position in 0..longest {
            // SAFETY: checked above.
            unsafe {
                let v = C::load(s, values.as_ptr().add(position * wide + d));
                for (r, y) in y.iter_mut().enumerate() {
                    *y = s.fma(s.splat(*scores.add(r * stride + position)), v, *y);
                }
            }
        }
        for (r, query) in queries.iter().enumerate().take(R) {
            let mut lanes = [0.0; 16];
            let len = 16.min(size - d);
            // SAFETY: sixteen lanes; each query has a part of the results.
            let to = unsafe {
                s.store(lanes.as_mut_ptr(), s.mul(y[r], s.splat(inverse[r])));
                out.part(query.to + d, len)
            };
            to.copy_from_slice(&lanes[..len]);
        }
    }
}

/// Makes `e^(x - largest)` of the first `len` numbers and 0 of the others; their sum. The length of
/// the row is a multiple of sixteen.
#[inline(always)]
fn softmax<S: Simd>(s: S, row: &mut [f32], len: usize) -> f32 {
    row[len..].fill(f32::NEG_INFINITY);
    let mut top = s.splat(f32::NEG_INFINITY);
    for x in row.chunks_exact(16) {
        // SAFETY: sixteen are there.
        top = s.max(top, unsafe { s.load(x.as_ptr()) });
    }
    let top = s.splat(s.largest(top));
    let mut sum = s.splat(0.0);
    for x in row.chunks_exact_mut(16) {
        // SAFETY: sixteen are there.
        unsafe {
            let y = s.exp(s.sub(s.load(x.as_ptr()), top));
            s.store(x.as_mut_ptr(), y);
            sum = s.add(sum, y);
        }
    }
    // `exp` stops at e^-87, which is not 0 but adds nothing to a sum of at least 1.
    row[len..].fill(0.0);
    s.sum(sum)
}
