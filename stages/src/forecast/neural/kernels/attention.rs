//! Causal attention within a window, with a penalty on distance (ALiBi: Press et al. 2022, arXiv
//! 2108.12409).
//!
//! Scores live a row at a time: only the log of each row's partition sum is kept for the backward
//! pass, as in FlashAttention (arXiv 2205.14135). A task is a window.

use burn::prelude::*;
use burn::tensor::activation::softmax;
use rayon::prelude::*;

use super::math::{exp, max, sum, wide};
use super::{Kernel, Output, constant, tasks};

/// Inputs: queries, keys and values beside each other, `[n, 3 w]`; perhaps what is added to keys and
/// values, `[n, 2 w]`. Gives `[n, w]`.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Rows of a window.
    pub len: usize,
    /// Heads.
    pub heads: usize,
    /// The width of all heads.
    pub width: usize,
}

impl Attention {
    /// What a step of distance takes from a score of head `h`, counted from 0.
    fn slope(&self, head: usize) -> f32 {
        2f32.powf(-8.0 * (head + 1) as f32 / self.heads as f32)
    }
}

impl<const N: usize> Kernel<N> for Attention {
    fn forward(&self, inputs: [&[f32]; N]) -> Output {
        let (len, width) = (self.len, self.width);
        let qkv = inputs[0];
        let rows = qkv.len() / (3 * width);
        let added = inputs.get(1).copied().unwrap_or_default();
        let mut values = vec![0.0; rows * width];
        let mut saved = vec![0.0; rows * self.heads];
        let tasks = tasks(&mut values, len * width, len * len * width)
            .zip(saved.par_chunks_mut(len * self.heads));
        tasks.enumerate().for_each(|(i, (out, logs))| {
            let qkv = &qkv[i * len * 3 * width..][..len * 3 * width];
            let added = added.get(i * len * 2 * width..(i + 1) * len * 2 * width);
            window(self, qkv, added.unwrap_or_default(), out, logs);
        });
        Output { values, width, saved }
    }

    fn backward(
        &self,
        inputs: [&[f32]; N],
        out: &[f32],
        saved: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; N] {
        let (len, width) = (self.len, self.width);
        let qkv = inputs[0];
        let added = inputs.get(1).copied().unwrap_or_default();
        let mut dqkv = vec![0.0; qkv.len()];
        let known = out.par_chunks(len * width).zip(grad.par_chunks(len * width));
        let known = known.zip(saved.par_chunks(len * self.heads));
        let tasks = tasks(&mut dqkv, len * 3 * width, len * len * width).zip(known);
        tasks.enumerate().for_each(|(i, (dqkv, ((out, grad), logs)))| {
            let qkv = &qkv[i * len * 3 * width..][..len * 3 * width];
            let added = added.get(i * len * 2 * width..(i + 1) * len * 2 * width);
            window_backward(self, qkv, added.unwrap_or_default(), out, logs, grad, dqkv);
        });
        let mut given = [const { None }; N];
        if let Some(dadded) = given.get_mut(1) {
            let mut values = vec![0.0; added.len()];
            let rows = super::tasks(&mut values, 2 * width, width).zip(dqkv.par_chunks(3 * width));
            rows.for_each(|(to, from)| to.copy_from_slice(&from[width..]));
            *dadded = Some(values);
        }
        given[0] = Some(dqkv);
        given
    }

    fn composed<B: Backend>(&self, inputs: [Tensor<B, 2>; N]) -> Tensor<B, 2> {
        let (len, heads, width) = (self.len, self.heads, self.width);
        let [rows, _] = inputs[0].dims();
        let place = inputs[0].device();
        let size = width / heads;
        let part = |i: usize| inputs[0].clone().narrow(1, i * width, width);
        let split = |x: Tensor<B, 2>| x.reshape([rows / len, len, heads, size]).swap_dims(1, 2);
        let (mut k, mut v) = (part(1), part(2));
        if let Some(added) = inputs.get(1) {
            k = k + added.clone().narrow(1, 0, width);
            v = v + added.clone().narrow(1, width, width);
        }
        let bias = (0..heads * len * len).map(|at| {
            let (head, i, j) = (at / (len * len), at / len % len, at % len);
            if j > i { f32::NEG_INFINITY } else { -self.slope(head) * (i - j) as f32 }
        });
        let bias = constant::<B>(bias.collect(), len, &place).reshape([1, heads, len, len]);
        let scores = split(part(0)).matmul(split(k).swap_dims(2, 3)) / (size as f32).sqrt();
        let out = softmax(scores + bias, 3).matmul(split(v));
        out.swap_dims(1, 2).reshape([rows, width])
    }
}

/// Keys and values of a head with what is added: keys and values turned, `[size, len]`, and keys and
/// values as they are, `[len, size]`.
#[inline(always)]
fn gather(
    how: &Attention,
    head: usize,
    qkv: &[f32],
    added: &[f32],
    turned: [&mut [f32]; 2],
    straight: [&mut [f32]; 2],
) {
    let (len, width, size) = (how.len, how.width, how.width / how.heads);
    let ([kt, vt], [k, v]) = (turned, straight);
    for t in 0..len {
        let row = &qkv[t * 3 * width..][..3 * width];
        let from = head * size;
        let (keys, values) = (&row[width + from..][..size], &row[2 * width + from..][..size]);
        let (ko, vo) = (&mut k[t * size..][..size], &mut v[t * size..][..size]);
        if added.is_empty() {
            ko.copy_from_slice(keys);
            vo.copy_from_slice(values);
        } else {
            let row = &added[t * 2 * width..][..2 * width];
            let (more_k, more_v) = (&row[from..][..size], &row[width + from..][..size]);
            for i in 0..size {
                ko[i] = keys[i] + more_k[i];
                vo[i] = values[i] + more_v[i];
            }
        }
        for i in 0..size {
            kt[i * len + t] = ko[i];
            vt[i * len + t] = vo[i];
        }
    }
}

/// `out[j] = sum_i x[i] turned[i, j]` for `j < out.len()`.
#[inline(always)]
fn products(x: &[f32], turned: &[f32], len: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (i, &x) in x.iter().enumerate() {
        let row = &turned[i * len..][..out.len()];
        for (out, &y) in out.iter_mut().zip(row) {
            *out += x * y;
        }
    }
}

/// The scores of a row: scaled products less the penalty.
#[inline(always)]
fn score(scores: &mut [f32], scale: f32, slope: f32) {
    let last = scores.len() as f32 - 1.0;
    for (j, x) in scores.iter_mut().enumerate() {
        *x = *x * scale - slope * (last - j as f32);
    }
}

wide! {
    fn window<'a>(how: &'a Attention, qkv: &'a [f32], added: &'a [f32], out: &'a mut [f32], logs: &'a mut [f32]) {
        let (len, width, heads) = (how.len, how.width, how.heads);
        let size = width / heads;
        let scale = 1.0 / (size as f32).sqrt();
        let mut space = vec![0.0f32; 4 * len * size + len];
        let (kt, rest) = space.split_at_mut(len * size);
        let (vt, rest) = rest.split_at_mut(len * size);
        let (k, rest) = rest.split_at_mut(len * size);
        let (v, scores) = rest.split_at_mut(len * size);
        for head in 0..heads {
            gather(how, head, qkv, added, [kt, vt], [k, v]);
            let slope = how.slope(head);
            for t in 0..len {
                let q = &qkv[t * 3 * width + head * size..][..size];
                let scores = &mut scores[..t + 1];
                products(q, kt, len, scores);
                score(scores, scale, slope);
                let top = max(scores);
                for x in scores.iter_mut() {
                    *x = exp(*x - top);
                }
                let all = sum(t + 1, |j| scores[j]);
                logs[t * heads + head] = top + all.ln();
                let out = &mut out[t * width + head * size..][..size];
                weigh(scores, v, 1.0 / all, out);
            }
        }
    }
}

/// `out = factor * sum_j w[j] x[j]` over rows of `x` as wide as `out`.
#[inline(always)]
fn weigh(w: &[f32], x: &[f32], factor: f32, out: &mut [f32]) {
    let size = out.len();
    if size == 16 {
        // Two sums at a time: one would wait for itself.
        let (mut a, mut b) = ([0.0f32; 16], [0.0f32; 16]);
        let (pairs, last) = w.as_chunks::<2>();
        let (rows, _) = x.as_chunks::<16>();
        for (w, rows) in pairs.iter().zip(rows.as_chunks::<2>().0) {
            for i in 0..16 {
                a[i] += w[0] * rows[0][i];
                b[i] += w[1] * rows[1][i];
            }
        }
        if let [w] = last {
            for i in 0..16 {
                a[i] += w * rows[2 * pairs.len()][i];
            }
        }
        for i in 0..16 {
            out[i] = (a[i] + b[i]) * factor;
        }
        return;
    }
    out.fill(0.0);
    for (&w, x) in w.iter().zip(x.chunks_exact(size)) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out += w * x;
        }
    }
    for out in out.iter_mut() {
        *out *= factor;
    }
}

/// `to[j] += w[j] x` for rows of `to` as wide as `x`.
#[inline(always)]
fn spread(w: &[f32], x: &[f32], to: &mut [f32]) {
    if let Ok(x) = <&[f32; 16]>::try_from(x) {
        for (&w, to) in w.iter().zip(to.as_chunks_mut::<16>().0) {
            for i in 0..16 {
                to[i] += w * x[i];
            }
        }
        return;
    }
    for (&w, to) in w.iter().zip(to.chunks_exact_mut(x.len())) {
        for (to, &x) in to.iter_mut().zip(x) {
            *to += w * x;
        }
    }
}

wide! {
    fn window_backward<'a>(how: &'a Attention, qkv: &'a [f32], added: &'a [f32], out: &'a [f32], logs: &'a [f32], grad: &'a [f32], dqkv: &'a mut [f32]) {
        let (len, width, heads) = (how.len, how.width, how.heads);
        let size = width / heads;
        let scale = 1.0 / (size as f32).sqrt();
        let mut space = vec![0.0f32; 6 * len * size + 2 * len];
        let (kt, rest) = space.split_at_mut(len * size);
        let (vt, rest) = rest.split_at_mut(len * size);
        let (k, rest) = rest.split_at_mut(len * size);
        let (v, rest) = rest.split_at_mut(len * size);
        let (dk, rest) = rest.split_at_mut(len * size);
        let (dv, rest) = rest.split_at_mut(len * size);
        let (probs, dscores) = rest.split_at_mut(len);
        for head in 0..heads {
            gather(how, head, qkv, added, [kt, vt], [k, v]);
            dk.fill(0.0);
            dv.fill(0.0);
            let slope = how.slope(head);
            for t in 0..len {
                let q = &qkv[t * 3 * width + head * size..][..size];
                let from = t * width + head * size;
                let (out, grad) = (&out[from..][..size], &grad[from..][..size]);
                let (probs, dscores) = (&mut probs[..t + 1], &mut dscores[..t + 1]);
                products(q, kt, len, probs);
                score(probs, scale, slope);
                let log = logs[t * heads + head];
                for x in probs.iter_mut() {
                    *x = exp(*x - log);
                }
                products(grad, vt, len, dscores);
                let mean = sum(size, |i| out[i] * grad[i]);
                for (ds, &p) in dscores.iter_mut().zip(probs.iter()) {
                    *ds = p * (*ds - mean) * scale;
                }
                spread(probs, grad, dv);
                spread(dscores, q, dk);
                weigh(dscores, k, 1.0, &mut dqkv[t * 3 * width + head * size..][..size]);
            }
            for t in 0..len {
                let row = &mut dqkv[t * 3 * width + head * size..];
                row[width..][..size].copy_from_slice(&dk[t * size..][..size]);
                row[2 * width..][..size].copy_from_slice(&dv[t * size..][..size]);
            }
        }
    }
}
