//! Inputs of a product: rows of floats, and the same in groups of 32 small integers with a scale.
//!
//! The integers are ggml's Q8_0 and Q8_1 (scale = largest magnitude / 127), but the scale stays f32.

use super::super::matrix::GROUP;
use super::super::simd::{Op, Simd};

/// Rows, `[n, width]`.
#[derive(Default)]
pub struct Inputs {
    /// Floats of a row.
    pub width: usize,
    /// `[n, width]`
    pub floats: Vec<f32>,
    /// `[n, width]`, small integers.
    pub small: Vec<i8>,
    /// `[n, groups]`, what the integers are multiplied by.
    pub scale: Vec<f32>,
    /// `[n, groups]`, sums of groups, scaled.
    pub sum: Vec<f32>,
    /// `[n, 2 groups]`, sums of halves of groups, scaled.
    pub half: Vec<f32>,
}

/// A row of [`Inputs`] to write.
pub struct Row<'a> {
    /// Floats.
    pub floats: &'a mut [f32],
    small: &'a mut [i8],
    scale: &'a mut [f32],
    sum: &'a mut [f32],
    half: &'a mut [f32],
}

/// Pointers to rows, for threads that write rows of their own.
pub struct Rows {
    width: usize,
    floats: *mut f32,
    small: *mut i8,
    scale: *mut f32,
    sum: *mut f32,
    half: *mut f32,
}
// SAFETY: `row` asks for rows that nobody else has.
unsafe impl Sync for Rows {}

impl Inputs {
    /// Room for `n` rows.
    pub fn fit(&mut self, n: usize, width: usize) {
        let groups = width / GROUP;
        self.width = width;
        // Never shorter, so that memory is taken and zeroed once.
        grow(&mut self.floats, n * width);
        grow(&mut self.small, n * width);
        grow(&mut self.scale, n * groups);
        grow(&mut self.sum, n * groups);
        grow(&mut self.half, n * groups * 2);
    }

    /// Rows to write.
    pub fn rows(&mut self) -> Rows {
        Rows {
            width: self.width,
            floats: self.floats.as_mut_ptr(),
            small: self.small.as_mut_ptr(),
            scale: self.scale.as_mut_ptr(),
            sum: self.sum.as_mut_ptr(),
            half: self.half.as_mut_ptr(),
        }
    }

    /// Some rows of another, one after the other.
    pub fn gather(&mut self, from: &Inputs, rows: &[usize]) {
        let (width, groups) = (from.width, from.width / GROUP);
        self.fit(rows.len(), width);
        for (to, &row) in rows.iter().enumerate() {
            copy(&mut self.floats, &from.floats, to, row, width);
            copy(&mut self.small, &from.small, to, row, width);
            copy(&mut self.scale, &from.scale, to, row, groups);
            copy(&mut self.sum, &from.sum, to, row, groups);
            copy(&mut self.half, &from.half, to, row, 2 * groups);
        }
    }
}

fn grow<T: Clone + Default>(values: &mut Vec<T>, len: usize) {
    if values.len() < len {
        values.resize(len, T::default());
    }
}

fn copy<T: Copy>(to: &mut [T], from: &[T], i: usize, j: usize, width: usize) {
    to[i * width..][..width].copy_from_slice(&from[j * width..][..width]);
}

impl Rows {
    /// # Safety
    /// The row is there ([`Inputs::fit`]), and nobody else has it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row(&self, i: usize) -> Row<'_> {
        let (width, groups) = (self.width, self.width / GROUP);
        // SAFETY: the caller's promise; rows do not overlap.
        unsafe {
            Row {
                floats: std::slice::from_raw_parts_mut(self.floats.add(i * width), width),
                small: std::slice::from_raw_parts_mut(self.small.add(i * width), width),
                scale: std::slice::from_raw_parts_mut(self.scale.add(i * groups), groups),
                sum: std::slice::from_raw_parts_mut(self.sum.add(i * groups), groups),
                half: std::slice::from_raw_parts_mut(self.half.add(i * groups * 2), groups * 2),
            }
        }
    }
}

/// Fills the small integers of a row from its floats.
pub struct Shrink<'a>(pub Row<'a>);

impl Op for Shrink<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Row { floats, small, scale, sum, half } = self.0;
        for (g, (x, q)) in floats.chunks_exact(GROUP).zip(small.chunks_exact_mut(GROUP)).enumerate()
        {
            // SAFETY: 32 floats and 32 bytes are there.
            unsafe {
                let (a, b) = (s.load(x.as_ptr()), s.load(x.as_ptr().add(16)));
                let size = |x| s.max(x, s.sub(s.splat(0.0), x));
                let d = s.largest(s.max(size(a), size(b))) / 127.0;
                let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
                let level = |x| s.round(s.mul(x, s.splat(inverse)));
                let (a, b) = (level(a), level(b));
                s.store_i8(q.as_mut_ptr(), a);
                s.store_i8(q.as_mut_ptr().add(16), b);
                // Sums of small integers are exact.
                let (first, second) = (s.sum(a), s.sum(b));
                scale[g] = d;
                sum[g] = d * (first + second);
                (half[2 * g], half[2 * g + 1]) = (d * first, d * second);
            }
        }
    }
}
