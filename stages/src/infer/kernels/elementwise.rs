//! Norms, rotary angles, activations: what goes once through a row.

use super::super::simd::{Op, Simd};

/// `x / sqrt(mean(x²) + eps) · weight`, from one row into another.
pub struct Norm<'a> {
    /// The row.
    pub x: &'a [f32],
    /// What each number is multiplied by.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
    /// The result.
    pub out: &'a mut [f32],
}

impl Op for Norm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Norm { x, weight, eps, out } = self;
        let (lanes, rest) = x.as_chunks::<16>();
        let mut sum = s.splat(0.0);
        for x in lanes {
            // SAFETY: sixteen are there.
            let x = unsafe { s.load(x.as_ptr()) };
            sum = s.fma(x, x, sum);
        }
        let sum = s.sum(sum) + rest.iter().map(|x| x * x).sum::<f32>();
        let factor = 1.0 / (sum / x.len() as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }
}

/// [`Norm`] in place.
pub fn norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    let sum: f32 = x.iter().map(|x| x * x).sum();
    let factor = 1.0 / (sum / x.len() as f32 + eps).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * factor * weight;
    }
}

/// `x += y`.
pub struct Add<'a>(pub &'a mut [f32], pub &'a [f32]);

impl Op for Add<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, y) in self.0.iter_mut().zip(self.1) {
            *x += y;
        }
    }
}

/// `gate · sigmoid(gate) · up`, into `out`.
pub struct SwiGlu<'a> {
    /// The gate.
    pub gate: &'a [f32],
    /// What it lets through.
    pub up: &'a [f32],
    /// The result.
    pub out: &'a mut [f32],
}

impl Op for SwiGlu<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SwiGlu { gate, up, out } = self;
        let (lanes, _) = gate.as_chunks::<16>();
        let one = s.splat(1.0);
        for ((g, u), y) in lanes.iter().zip(up.as_chunks::<16>().0).zip(out.as_chunks_mut::<16>().0)
        {
            // SAFETY: sixteen are there.
            unsafe {
                let (g, u) = (s.load(g.as_ptr()), s.load(u.as_ptr()));
                let e = s.exp(s.sub(s.splat(0.0), g));
                s.store(y.as_mut_ptr(), s.mul(s.div(g, s.add(one, e)), u));
            }
        }
        for i in lanes.len() * 16..gate.len() {
            out[i] = gate[i] / (1.0 + (-gate[i]).exp()) * up[i];
        }
    }
}

/// Turns the pairs of a head by the angles of a position.
pub fn rope(head: &mut [f32], cos: &[f32], sin: &[f32], interleaved: bool) {
    if interleaved {
        for (pair, (c, s)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
            let [a, b] = *pair;
            *pair = [a * c - b * s, a * s + b * c];
        }
    } else {
        let (first, second) = head.split_at_mut(cos.len());
        for ((a, b), (c, s)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}

/// Cosines and sines of a position, by the frequency of each pair. As in HF, the angle is a product
/// of two f32.
pub fn angles(position: usize, frequencies: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    for ((c, s), f) in cos.iter_mut().zip(sin).zip(frequencies) {
        let angle = f64::from(position as f32 * f);
        (*c, *s) = (angle.cos() as f32, angle.sin() as f32);
    }
}
