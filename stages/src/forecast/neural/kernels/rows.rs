//! What goes once through a row: norms, gates, and the sums with the stream.

use burn::prelude::*;
use burn::tensor::activation::sigmoid as sigmoids;
use rayon::prelude::*;

use super::math::{inverse_rms, sigmoid, sum, wide};
use super::{Kernel, Output, constant, tasks};

/// Added to the mean square of a row.
pub const EPSILON: f32 = 1e-6;
/// Rows of a task.
const ROWS: usize = 64;

/// Dropout: which numbers stay depends on the seed and on their place alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drop {
    /// The share that is dropped; 0 drops nothing.
    pub rate: f32,
    /// A new one for every layer of every step.
    pub seed: u32,
}

impl Drop {
    /// What the number at a place is multiplied by.
    #[inline(always)]
    fn factor(self, place: usize) -> f32 {
        // The finalizer of MurmurHash3.
        let mut h = (place as u32) ^ self.seed;
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^= h >> 16;
        let uniform = (h >> 8) as f32 * (1.0 / 16_777_216.0);
        if uniform >= self.rate { 1.0 / (1.0 - self.rate) } else { 0.0 }
    }

    fn factors(self, count: usize) -> Vec<f32> {
        (0..count).map(|place| self.factor(place)).collect()
    }

    fn composed<B: Backend>(self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        if self.rate == 0.0 {
            return x;
        }
        let [rows, width] = x.dims();
        let factors = constant(self.factors(rows * width), width, &x.device());
        x * factors
    }
}

fn same(values: Vec<f32>, width: usize) -> Output {
    Output { values, width, saved: Vec::new() }
}

/// Sums the parts of all tasks, in order.
fn total(parts: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![0.0; width];
    for part in parts.chunks_exact(width) {
        out.iter_mut().zip(part).for_each(|(total, x)| *total += x);
    }
    out
}

/// `x / sqrt(mean(x^2) + eps) * weight` of each row. Inputs: `x` `[n, w]`, the weight `[1, w]`.
#[derive(Clone, Copy, Debug)]
pub struct Norm;

/// The same, then `(1 + gamma) y + beta`: FiLM (Perez et al. 2018, arXiv 1709.07871). A third input
/// holds gamma and beta, `[n, 2 w]`.
#[derive(Clone, Copy, Debug)]
pub struct Film;

wide! {
    fn norm<'a>(x: &'a [f32], weight: &'a [f32], out: &'a mut [f32]) {
        let width = weight.len();
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let inverse = inverse_rms(x, EPSILON);
            for ((y, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *y = x * inverse * w;
            }
        }
    }
}

/// The gradients of a normed row, of that of the result; that of the weight is added.
#[inline(always)]
fn norm_row(x: &[f32], weight: &[f32], grad: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
    let width = weight.len();
    let (x, grad) = (&x[..width], &grad[..width]);
    let inverse = inverse_rms(x, EPSILON);
    let along = sum(width, |i| grad[i] * weight[i] * x[i]);
    let along = along * inverse * inverse * inverse / width as f32;
    for i in 0..width {
        dweight[i] += grad[i] * x[i] * inverse;
        dx[i] = grad[i] * weight[i] * inverse - x[i] * along;
    }
}

wide! {
    fn norm_backward<'a>(x: &'a [f32], weight: &'a [f32], grad: &'a [f32], dx: &'a mut [f32], dweight: &'a mut [f32]) {
        let width = weight.len();
        let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((dx, x), grad) in rows.zip(grad.chunks_exact(width)) {
            norm_row(x, weight, grad, dx, &mut dweight[..width]);
        }
    }
}

impl Kernel<2> for Norm {
    fn forward(&self, [x, weight]: [&[f32]; 2]) -> Output {
        let size = ROWS * weight.len();
        let mut out = vec![0.0; x.len()];
        let tasks = tasks(&mut out, size, size).zip(x.par_chunks(size));
        tasks.for_each(|(out, x)| norm(x, weight, out));
        same(out, weight.len())
    }

    fn backward(
        &self,
        [x, weight]: [&[f32]; 2],
        _: &[f32],
        _: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; 2] {
        let width = weight.len();
        let size = ROWS * width;
        let mut dx = vec![0.0; x.len()];
        let mut parts = vec![0.0; x.len().div_ceil(size) * width];
        let tasks = tasks(&mut dx, size, size).zip(x.par_chunks(size)).zip(grad.par_chunks(size));
        tasks
            .zip(parts.par_chunks_mut(width))
            .for_each(|(((dx, x), grad), part)| norm_backward(x, weight, grad, dx, part));
        [Some(dx), Some(total(&parts, width))]
    }

    fn composed<B: Backend>(&self, [x, weight]: [Tensor<B, 2>; 2]) -> Tensor<B, 2> {
        let inverse = (x.clone().square().mean_dim(1) + EPSILON).sqrt().recip();
        x * inverse * weight
    }
}

wide! {
    fn film<'a>(x: &'a [f32], weight: &'a [f32], film: &'a [f32], out: &'a mut [f32]) {
        let width = weight.len();
        let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((out, x), film) in rows.zip(film.chunks_exact(2 * width)) {
            let (gamma, beta) = film.split_at(width);
            let inverse = inverse_rms(x, EPSILON);
            for i in 0..width {
                out[i] = x[i] * inverse * weight[i] * (1.0 + gamma[i]) + beta[i];
            }
        }
    }
}

wide! {
    fn film_backward<'a>(x: &'a [f32], weight: &'a [f32], film: &'a [f32], grad: &'a [f32], dx: &'a mut [f32], dfilm: &'a mut [f32], dweight: &'a mut [f32]) {
        let width = weight.len();
        let rows = dx.chunks_exact_mut(width).zip(dfilm.chunks_exact_mut(2 * width));
        let known = x.chunks_exact(width).zip(film.chunks_exact(2 * width));
        let mut inner = vec![0.0f32; width];
        for (((dx, dfilm), (x, film)), grad) in rows.zip(known).zip(grad.chunks_exact(width)) {
            let (dgamma, dbeta) = dfilm.split_at_mut(width);
            let inverse = inverse_rms(x, EPSILON);
            for i in 0..width {
                inner[i] = grad[i] * (1.0 + film[i]);
                dgamma[i] = grad[i] * x[i] * inverse * weight[i];
                dbeta[i] = grad[i];
            }
            norm_row(x, weight, &inner, dx, &mut dweight[..width]);
        }
    }
}

impl Kernel<3> for Film {
    fn forward(&self, [x, weight, films]: [&[f32]; 3]) -> Output {
        let size = ROWS * weight.len();
        let mut out = vec![0.0; x.len()];
        let tasks = tasks(&mut out, size, size).zip(x.par_chunks(size));
        tasks
            .zip(films.par_chunks(2 * size))
            .for_each(|((out, x), films)| film(x, weight, films, out));
        same(out, weight.len())
    }

    fn backward(
        &self,
        [x, weight, films]: [&[f32]; 3],
        _: &[f32],
        _: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; 3] {
        let width = weight.len();
        let size = ROWS * width;
        let (mut dx, mut dfilm) = (vec![0.0; x.len()], vec![0.0; films.len()]);
        let mut parts = vec![0.0; x.len().div_ceil(size) * width];
        let tasks = tasks(&mut dx, size, size).zip(dfilm.par_chunks_mut(2 * size));
        let known = x.par_chunks(size).zip(films.par_chunks(2 * size)).zip(grad.par_chunks(size));
        tasks.zip(known).zip(parts.par_chunks_mut(width)).for_each(
            |(((dx, dfilm), ((x, films), grad)), part)| {
                film_backward(x, weight, films, grad, dx, dfilm, part);
            },
        );
        [Some(dx), Some(total(&parts, width)), Some(dfilm)]
    }

    fn composed<B: Backend>(&self, [x, weight, films]: [Tensor<B, 2>; 3]) -> Tensor<B, 2> {
        let width = weight.dims()[1];
        let normed = Norm.composed([x, weight]);
        normed * (films.clone().narrow(1, 0, width) + 1.0) + films.narrow(1, width, width)
    }
}

/// `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202). Input: both beside each other, `[n, 2 w]`.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu {
    /// The width of the result.
    pub width: usize,
}

wide! {
    fn swiglu<'a>(x: &'a [f32], out: &'a mut [f32], width: &'a usize) {
        let width = *width;
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
            let (gate, up) = x.split_at(width);
            for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *y = g * sigmoid(g) * u;
            }
        }
    }
}

wide! {
    fn swiglu_backward<'a>(x: &'a [f32], grad: &'a [f32], dx: &'a mut [f32], width: &'a usize) {
        let width = *width;
        let rows = dx.chunks_exact_mut(2 * width).zip(x.chunks_exact(2 * width));
        for ((dx, x), grad) in rows.zip(grad.chunks_exact(width)) {
            let (gate, up) = x.split_at(width);
            let (dgate, dup) = dx.split_at_mut(width);
            for i in 0..width {
                let (s, dy) = (sigmoid(gate[i]), grad[i]);
                dgate[i] = dy * up[i] * s * (1.0 + gate[i] * (1.0 - s));
                dup[i] = dy * gate[i] * s;
            }
        }
    }
}

impl Kernel<1> for SwiGlu {
    fn forward(&self, [x]: [&[f32]; 1]) -> Output {
        let (width, size) = (self.width, ROWS * self.width);
        let mut out = vec![0.0; x.len() / 2];
        let tasks = tasks(&mut out, size, size).zip(x.par_chunks(2 * size));
        tasks.for_each(|(out, x)| swiglu(x, out, &width));
        same(out, width)
    }

    fn backward(
        &self,
        [x]: [&[f32]; 1],
        _: &[f32],
        _: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; 1] {
        let (width, size) = (self.width, ROWS * self.width);
        let mut dx = vec![0.0; x.len()];
        let tasks = tasks(&mut dx, 2 * size, 2 * size).zip(x.par_chunks(2 * size));
        tasks
            .zip(grad.par_chunks(size))
            .for_each(|((dx, x), grad)| swiglu_backward(x, grad, dx, &width));
        [Some(dx)]
    }

    fn composed<B: Backend>(&self, [x]: [Tensor<B, 2>; 1]) -> Tensor<B, 2> {
        let gate = x.clone().narrow(1, 0, self.width);
        gate.clone() * sigmoids(gate) * x.narrow(1, self.width, self.width)
    }
}

/// `m + drop(y)`. Inputs: both, `[n, w]`.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// Its dropout.
    pub drop: Drop,
    /// The width of a row.
    pub width: usize,
}

wide! {
    fn add<'a>(x: &'a [f32], y: &'a [f32], out: &'a mut [f32], drop: &'a (Drop, usize)) {
        let &(drop, from) = drop;
        if drop.rate == 0.0 {
            for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                *out = x + y;
            }
        } else {
            for (i, ((out, &x), &y)) in out.iter_mut().zip(x).zip(y).enumerate() {
                *out = x + y * drop.factor(from + i);
            }
        }
    }
}

impl Kernel<2> for Residual {
    fn forward(&self, [x, y]: [&[f32]; 2]) -> Output {
        let size = ROWS * self.width;
        let mut out = vec![0.0; x.len()];
        let tasks = tasks(&mut out, size, size).zip(x.par_chunks(size)).zip(y.par_chunks(size));
        tasks.enumerate().for_each(|(i, ((out, x), y))| add(x, y, out, &(self.drop, i * size)));
        same(out, self.width)
    }

    fn backward(
        &self,
        [x, _]: [&[f32]; 2],
        _: &[f32],
        _: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; 2] {
        if self.drop.rate == 0.0 {
            return [Some(grad.to_vec()), Some(grad.to_vec())];
        }
        let size = ROWS * self.width;
        let zeros = vec![0.0; size];
        let mut dy = vec![0.0; x.len()];
        let tasks = tasks(&mut dy, size, size).zip(grad.par_chunks(size)).enumerate();
        tasks.for_each(|(i, (dy, grad))| add(&zeros, grad, dy, &(self.drop, i * size)));
        [Some(grad.to_vec()), Some(dy)]
    }

    fn composed<B: Backend>(&self, [x, y]: [Tensor<B, 2>; 2]) -> Tensor<B, 2> {
        x + self.drop.composed(y)
    }
}

/// `m + drop(g o + (1 - g) c)` with `g = sigmoid(a + b)`. Inputs: `m`, `o` and `a`, `[n, w]`, and `b`
/// and `c` beside each other, `[n, 2 w]`.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Its dropout.
    pub drop: Drop,
    /// The width of a row.
    pub width: usize,
}

wide! {
    fn mix<'a>(m: &'a [f32], o: &'a [f32], a: &'a [f32], bc: &'a [f32], out: &'a mut [f32], how: &'a (Mix, usize)) {
        let &(Mix { drop, width }, mut place) = how;
        let rows = m.chunks_exact(width).zip(o.chunks_exact(width)).zip(a.chunks_exact(width));
        let rows = rows.zip(bc.chunks_exact(2 * width)).zip(out.chunks_exact_mut(width));
        for ((((m, o), a), bc), out) in rows {
            let (b, c) = bc.split_at(width);
            for i in 0..width {
                let g = sigmoid(a[i] + b[i]);
                out[i] = c[i] + g * (o[i] - c[i]);
            }
            if drop.rate > 0.0 {
                for (i, out) in out.iter_mut().enumerate() {
                    *out *= drop.factor(place + i);
                }
            }
            for (out, &m) in out.iter_mut().zip(m) {
                *out += m;
            }
            place += width;
        }
    }
}

wide! {
    fn mix_backward<'a>(o: &'a [f32], a: &'a [f32], bc: &'a [f32], grad: &'a [f32], do_: &'a mut [f32], da: &'a mut [f32], dbc: &'a mut [f32], how: &'a (Mix, usize)) {
        let &(Mix { drop, width }, mut place) = how;
        let known = o.chunks_exact(width).zip(a.chunks_exact(width)).zip(bc.chunks_exact(2 * width));
        let known = known.zip(grad.chunks_exact(width));
        let outputs = do_.chunks_exact_mut(width).zip(da.chunks_exact_mut(width));
        let outputs = outputs.zip(dbc.chunks_exact_mut(2 * width));
        let mut inner = vec![0.0f32; width];
        for ((((o, a), bc), grad), ((do_, da), dbc)) in known.zip(outputs) {
            let (b, c) = bc.split_at(width);
            let (db, dc) = dbc.split_at_mut(width);
            inner.copy_from_slice(grad);
            if drop.rate > 0.0 {
                for (i, inner) in inner.iter_mut().enumerate() {
                    *inner *= drop.factor(place + i);
                }
            }
            for i in 0..width {
                let g = sigmoid(a[i] + b[i]);
                let dy = inner[i];
                let dgate = dy * (o[i] - c[i]) * g * (1.0 - g);
                do_[i] = dy * g;
                dc[i] = dy * (1.0 - g);
                da[i] = dgate;
                db[i] = dgate;
            }
            place += width;
        }
    }
}

impl Kernel<4> for Mix {
    fn forward(&self, [m, o, a, bc]: [&[f32]; 4]) -> Output {
        let size = ROWS * self.width;
        let mut out = vec![0.0; m.len()];
        let known = m.par_chunks(size).zip(o.par_chunks(size)).zip(a.par_chunks(size));
        let tasks = tasks(&mut out, size, size).zip(known.zip(bc.par_chunks(2 * size)));
        tasks.enumerate().for_each(|(i, (out, (((m, o), a), bc)))| {
            mix(m, o, a, bc, out, &(*self, i * size));
        });
        same(out, self.width)
    }

    fn backward(
        &self,
        [_, o, a, bc]: [&[f32]; 4],
        _: &[f32],
        _: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; 4] {
        let size = ROWS * self.width;
        let (mut do_, mut da, mut dbc) =
            (vec![0.0; o.len()], vec![0.0; a.len()], vec![0.0; bc.len()]);
        let known = o.par_chunks(size).zip(a.par_chunks(size)).zip(bc.par_chunks(2 * size));
        let outputs = tasks(&mut do_, size, size).zip(da.par_chunks_mut(size));
        let outputs = outputs.zip(dbc.par_chunks_mut(2 * size));
        known.zip(grad.par_chunks(size)).zip(outputs).enumerate().for_each(
            |(i, ((((o, a), bc), grad), ((do_, da), dbc)))| {
                mix_backward(o, a, bc, grad, do_, da, dbc, &(*self, i * size));
            },
        );
        [Some(grad.to_vec()), Some(do_), Some(da), Some(dbc)]
    }

    fn composed<B: Backend>(&self, [m, o, a, bc]: [Tensor<B, 2>; 4]) -> Tensor<B, 2> {
        let b = bc.clone().narrow(1, 0, self.width);
        let c = bc.narrow(1, self.width, self.width);
        let g = sigmoids(a + b);
        m + self.drop.composed(c.clone() + g * (o - c))
    }
}
