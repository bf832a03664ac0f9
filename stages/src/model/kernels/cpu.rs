//! The kernels on slices, forward and backward.
//!
//! Written so that the compiler vectorises them for the baseline instruction set: no library call
//! within a loop, sums in sixteen lanes. Rows go to rayon in chunks of a fixed number of rows, and
//! sums over rows are added up chunk after chunk.

use rayon::prelude::*;

use super::Span;

/// Rows of one task.
const ROWS: usize = 32;
/// Elements of one task where rows do not matter.
const ELEMENTS: usize = 16 * 1024;
const LANES: usize = 16;

/// `e^x` to about 2 ulp, from a range reduction by ln 2 and the Taylor polynomial of degree 7 in
/// the rest, without branches. Below -87.3 it gives 1.2e-38 and not 0.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts; the first has few enough bits that n times it is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let power = (shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32).wrapping_add(127) << 23;
    p * f32::from_bits(power as u32)
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Sum of `f(i)` over `0..n`, in a fixed order that vectorises.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(start + lane);
        }
    }
    let mut total: f32 = lanes.iter().sum();
    for i in whole..n {
        total += f(i);
    }
    total
}

#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    sum(n, |i| a[i] * b[i])
}

#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (top, &x) in lanes.iter_mut().zip(chunk) {
            *top = if x > *top { x } else { *top };
        }
    }
    lanes
        .iter()
        .chain(chunks.remainder())
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

pub fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; gate.len()];
    let inputs = gate.par_chunks(ELEMENTS).zip(up.par_chunks(ELEMENTS));
    out.par_chunks_mut(ELEMENTS).zip(inputs).for_each(|(out, (gate, up))| {
        for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(g) * u;
        }
    });
    out
}

/// The gradients of gate and up, written over the gradient and returned.
pub fn swiglu_backward(gate: &[f32], up: &[f32], grad: &mut [f32]) -> Vec<f32> {
    let mut out = vec![0.0; gate.len()];
    let inputs = gate.par_chunks(ELEMENTS).zip(up.par_chunks(ELEMENTS));
    let outputs = grad.par_chunks_mut(ELEMENTS).zip(out.par_chunks_mut(ELEMENTS));
    outputs.zip(inputs).for_each(|((dgate, dup), (gate, up))| {
        for (((dg, du), &g), &u) in dgate.iter_mut().zip(dup).zip(gate).zip(up) {
            let (s, dy) = (sigmoid(g), *dg);
            *dg = dy * u * s * (1.0 + g * (1.0 - s));
            *du = dy * g * s;
        }
    });
    out
}

#[inline(always)]
pub(crate) fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(width * ROWS).zip(x.par_chunks(width * ROWS)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let inverse = inverse_rms(x, eps);
            for ((y, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *y = x * inverse * w;
            }
        }
    });
    out
}

/// The gradient of `x`, written over the gradient; that of the weight is returned.
pub fn rms_norm_backward(x: &[f32], weight: &[f32], eps: f32, grad: &mut [f32]) -> Vec<f32> {
    let width = weight.len();
    let chunks = grad.par_chunks_mut(width * ROWS).zip(x.par_chunks(width * ROWS));
    let parts: Vec<Vec<f32>> = chunks
        .map(|(grad, x)| {
            let mut dweight = vec![0.0; width];
            for (grad, x) in grad.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let inverse = inverse_rms(x, eps);
                for ((dw, &x), &dy) in dweight.iter_mut().zip(x).zip(grad.iter()) {
                    *dw += dy * x * inverse;
                }
                let along = sum(width, |i| grad[i] * weight[i] * x[i]);
                let along = along * inverse * inverse * inverse / width as f32;
                for ((dy, &x), &w) in grad.iter_mut().zip(x).zip(weight) {
                    *dy = *dy * w * inverse - x * along;
                }
            }
            dweight
        })
        .collect();
    let mut dweight = vec![0.0; width];
    for part in parts {
        dweight.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    dweight
}

/// `[b * t, h * d]` to `[b, h, t, d]`, turned.
///
/// The tables have a row of `half` for each of the `len` positions, or for each of all tokens.
pub fn rope(x: &[f32], tables: [&[f32]; 2], half: usize, heads: usize, len: usize) -> Vec<f32> {
    let ([cos, sin], rows) = (tables, tables[0].len() / half);
    let (size, row) = (2 * half, 2 * half * heads);
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(len * size).enumerate().for_each(|(i, out)| {
        let (batch, head) = (i / heads, i % heads);
        for (t, out) in out.chunks_exact_mut(size).enumerate() {
            let from = (batch * len + t) * row + head * size;
            let (a, b) = x[from..from + size].split_at(half);
            let at = (batch * len + t) % rows * half;
            let (cos, sin) = (&cos[at..][..half], &sin[at..][..half]);
            let (low, high) = out.split_at_mut(half);
            for j in 0..half {
                low[j] = a[j] * cos[j] - b[j] * sin[j];
                high[j] = b[j] * cos[j] + a[j] * sin[j];
            }
        }
    });
    out
}

/// `[b, h, t, d]` to `[b * t, h * d]`, turned back.
pub fn rope_backward(
    grad: &[f32],
    tables: [&[f32]; 2],
    half: usize,
    heads: usize,
    len: usize,
) -> Vec<f32> {
    let ([cos, sin], rows) = (tables, tables[0].len() / half);
    let (size, row) = (2 * half, 2 * half * heads);
    let mut out = vec![0.0; grad.len()];
    out.par_chunks_mut(row * ROWS).enumerate().for_each(|(i, out)| {
        for (j, out) in out.chunks_exact_mut(row).enumerate() {
            let (batch, t) = ((i * ROWS + j) / len, (i * ROWS + j) % len);
            let at = (batch * len + t) % rows * half;
            let (cos, sin) = (&cos[at..][..half], &sin[at..][..half]);
            for (head, out) in out.chunks_exact_mut(size).enumerate() {
                let from = ((batch * heads + head) * len + t) * size;
                let (a, b) = grad[from..from + size].split_at(half);
                let (low, high) = out.split_at_mut(half);
                for k in 0..half {
                    low[k] = a[k] * cos[k] + b[k] * sin[k];
                    high[k] = b[k] * cos[k] - a[k] * sin[k];
                }
            }
        }
    });
    out
}

/// The keys that row `row` of `rows` sees: up to its own position, from the start of its segment.
#[inline(always)]
fn seen(
    row: usize,
    rows: usize,
    keys: usize,
    span: Span,
    starts: Option<&[u32]>,
) -> (usize, usize) {
    let at = row % span.len;
    let end = (span.start + at + 1).min(keys);
    let start = starts.map_or(0, |starts| {
        let window = row / (rows / span.batch).max(1);
        starts.get(window * span.len + at).map_or(0, |&start| start as usize)
    });
    (start.min(end - 1), end)
}

/// In place. `keys` is the length of a row; `starts` is as in `Kernels::packed_softmax`.
pub fn causal_softmax(
    scores: &mut [f32],
    keys: usize,
    scale: f32,
    span: Span,
    starts: Option<&[u32]>,
) {
    let all = scores.len() / keys;
    scores.par_chunks_mut(keys * ROWS).enumerate().for_each(|(i, rows)| {
        for (j, row) in rows.chunks_exact_mut(keys).enumerate() {
            let (from, to) = seen(i * ROWS + j, all, keys, span, starts);
            let (row, hidden) = row.split_at_mut(to);
            let (other, row) = row.split_at_mut(from);
            other.fill(0.0);
            let top = max(row);
            for x in row.iter_mut() {
                *x = exp((*x - top) * scale);
            }
            let inverse = 1.0 / sum(row.len(), |i| row[i]);
            for x in row.iter_mut() {
                *x *= inverse;
            }
            hidden.fill(0.0);
        }
    });
}

/// The gradient of the scores, written over the gradient.
pub fn causal_softmax_backward(
    probs: &[f32],
    keys: usize,
    scale: f32,
    span: Span,
    starts: Option<&[u32]>,
    grad: &mut [f32],
) {
    let all = probs.len() / keys;
    let rows = probs.par_chunks(keys * ROWS);
    grad.par_chunks_mut(keys * ROWS).zip(rows).enumerate().for_each(|(i, (grads, probs))| {
        let rows = grads.chunks_exact_mut(keys).zip(probs.chunks_exact(keys));
        for (j, (grad, probs)) in rows.enumerate() {
            let (from, to) = seen(i * ROWS + j, all, keys, span, starts);
            let (grad, hidden) = grad.split_at_mut(to);
            let (other, grad) = grad.split_at_mut(from);
            other.fill(0.0);
            let probs = &probs[from..to];
            let mean = dot(grad, probs);
            for (g, &p) in grad.iter_mut().zip(probs) {
                *g = scale * p * (*g - mean);
            }
            hidden.fill(0.0);
        }
    });
}

/// Log-probabilities of the targets, and the log of each row's partition sum.
pub fn log_probs(logits: &[f32], width: usize, targets: &[u32], heat: f32) -> (Vec<f32>, Vec<f32>) {
    let cold = 1.0 / heat;
    let rows = logits.par_chunks(width).zip(targets);
    rows.map(|(row, &target)| {
        let top = max(row);
        let total = sum(width, |i| exp((row[i] - top) * cold));
        let partition = top * cold + total.ln();
        (row[target as usize] * cold - partition, partition)
    })
    .unzip()
}

/// The gradient of the logits, written over them.
pub fn log_probs_backward(
    logits: &mut [f32],
    width: usize,
    targets: &[u32],
    heat: f32,
    partition: &[f32],
    grad: &[f32],
) {
    let cold = 1.0 / heat;
    let given = targets.par_iter().zip(partition).zip(grad);
    logits.par_chunks_mut(width).zip(given).for_each(|(row, ((&target, &partition), &grad))| {
        let weight = -grad * cold;
        if weight == 0.0 {
            return row.fill(0.0);
        }
        for x in row.iter_mut() {
            *x = weight * exp(*x * cold - partition);
        }
        row[target as usize] -= weight;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_to_a_few_ulp() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 3e-7, "exp({x}) is off by {error:e}");
        }
    }
}
