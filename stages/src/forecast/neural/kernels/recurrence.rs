//! The recurrence of an LSTM (Hochreiter and Schmidhuber 1997; forget gates: Gers et al. 2000).
//!
//! ```text
//! (i, f, g, o) = x_t + h_{t-1} W ; c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g) ; h_t = sigmoid(o) tanh(c_t)
//! ```
//! What the inputs add to the gates is a matrix product of all rows, made before. A task is a window.

use burn::prelude::*;
use burn::tensor::activation::sigmoid as sigmoids;
use rayon::prelude::*;

use super::math::{dot, exp, sigmoid, wide};
use super::{Kernel, Output, tasks};

/// Inputs: what the inputs add to the gates, in the order i, f, g, o, `[n, 4 h]`; `W` `[h, 4 h]`. Gives
/// `h`, `[n, h]`.
#[derive(Clone, Copy, Debug)]
pub struct Lstm {
    /// Rows of a window.
    pub len: usize,
    /// Units.
    pub hidden: usize,
}

impl Kernel<2> for Lstm {
    fn forward(&self, [x, w]: [&[f32]; 2]) -> Output {
        let (len, h) = (self.len, self.hidden);
        let rows = x.len() / (4 * h);
        let mut values = vec![0.0; rows * h];
        // The gates after their functions, and the cell.
        let mut saved = vec![0.0; rows * 5 * h];
        let tasks =
            tasks(&mut values, len * h, len * 4 * h * h).zip(saved.par_chunks_mut(len * 5 * h));
        let tasks = tasks.zip(x.par_chunks(len * 4 * h));
        tasks.for_each(|((out, saved), x)| window(self, x, w, out, saved));
        Output { values, width: h, saved }
    }

    fn backward(
        &self,
        [x, w]: [&[f32]; 2],
        out: &[f32],
        saved: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; 2] {
        let (len, h) = (self.len, self.hidden);
        let mut dx = vec![0.0; x.len()];
        let tasks = tasks(&mut dx, len * 4 * h, len * 4 * h * h).zip(saved.par_chunks(len * 5 * h));
        let tasks = tasks.zip(grad.par_chunks(len * h));
        tasks.for_each(|((dx, saved), grad)| window_backward(self, w, saved, grad, dx));
        // A task is a row of the weight's gradient.
        let mut dw = vec![0.0; w.len()];
        let tasks = super::tasks(&mut dw, 4 * h, dx.len()).enumerate();
        tasks.for_each(|(k, dw)| weight(self, out, &dx, dw, &k));
        [Some(dx), Some(dw)]
    }

    fn composed<B: Backend>(&self, [x, w]: [Tensor<B, 2>; 2]) -> Tensor<B, 2> {
        let (len, h) = (self.len, self.hidden);
        let rows = x.dims()[0];
        let x = x.reshape([rows / len, len, 4 * h]);
        let mut cell = Tensor::<B, 2>::zeros([rows / len, h], &x.device());
        let mut hidden = cell.clone();
        let mut out = Vec::new();
        for t in 0..len {
            let gates = x.clone().narrow(1, t, 1).reshape([rows / len, 4 * h]);
            let gates = gates + hidden.matmul(w.clone());
            let gate = |i: usize| gates.clone().narrow(1, i * h, h);
            cell = sigmoids(gate(1)) * cell + sigmoids(gate(0)) * gate(2).tanh();
            hidden = sigmoids(gate(3)) * cell.clone().tanh();
            out.push(hidden.clone().unsqueeze_dim::<3>(1));
        }
        Tensor::cat(out, 1).reshape([rows, h])
    }
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Of the exponential, which is bounded: 1 - 2 / (e^{2x} + 1).
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

wide! {
    fn window<'a>(how: &'a Lstm, x: &'a [f32], w: &'a [f32], out: &'a mut [f32], saved: &'a mut [f32]) {
        let h = how.hidden;
        let mut cell = vec![0.0f32; h];
        for t in 0..how.len {
            let saved = &mut saved[t * 5 * h..][..5 * h];
            let (gates, kept) = saved.split_at_mut(4 * h);
            gates.copy_from_slice(&x[t * 4 * h..][..4 * h]);
            let (before, now) = out.split_at_mut(t * h);
            if t > 0 {
                for (&y, w) in before[(t - 1) * h..].iter().zip(w.chunks_exact(4 * h)) {
                    for (gate, &w) in gates.iter_mut().zip(w) {
                        *gate += y * w;
                    }
                }
            }
            let (input, rest) = gates.split_at_mut(h);
            let (forget, rest) = rest.split_at_mut(h);
            let (new, output) = rest.split_at_mut(h);
            for i in 0..h {
                input[i] = sigmoid(input[i]);
                forget[i] = sigmoid(forget[i]);
                new[i] = tanh(new[i]);
                output[i] = sigmoid(output[i]);
                cell[i] = forget[i] * cell[i] + input[i] * new[i];
                kept[i] = cell[i];
                now[i] = output[i] * tanh(cell[i]);
            }
        }
    }
}

wide! {
    fn window_backward<'a>(how: &'a Lstm, w: &'a [f32], saved: &'a [f32], grad: &'a [f32], dx: &'a mut [f32]) {
        let h = how.hidden;
        let (mut carry, mut carry_cell) = (vec![0.0f32; h], vec![0.0f32; h]);
        let zeros = vec![0.0f32; h];
        for t in (0..how.len).rev() {
            let kept = &saved[t * 5 * h..][..5 * h];
            let before = if t > 0 { &saved[(t - 1) * 5 * h + 4 * h..][..h] } else { &zeros[..] };
            let grad = &grad[t * h..][..h];
            let gates = &mut dx[t * 4 * h..][..4 * h];
            {
                let (di, rest) = gates.split_at_mut(h);
                let (df, rest) = rest.split_at_mut(h);
                let (dg, d_o) = rest.split_at_mut(h);
                for i in 0..h {
                    let (input, forget) = (kept[i], kept[h + i]);
                    let (new, output) = (kept[2 * h + i], kept[3 * h + i]);
                    let squashed = tanh(kept[4 * h + i]);
                    let dh = grad[i] + carry[i];
                    let dc = carry_cell[i] + dh * output * (1.0 - squashed * squashed);
                    d_o[i] = dh * squashed * output * (1.0 - output);
                    di[i] = dc * new * input * (1.0 - input);
                    dg[i] = dc * input * (1.0 - new * new);
                    df[i] = dc * before[i] * forget * (1.0 - forget);
                    carry_cell[i] = dc * forget;
                }
            }
            for (carry, w) in carry.iter_mut().zip(w.chunks_exact(4 * h)) {
                *carry = dot(gates, w);
            }
        }
    }
}

wide! {
    /// `dw = sum over rows of h_{t-1}[k] dx_t`.
    fn weight<'a>(how: &'a Lstm, out: &'a [f32], dx: &'a [f32], dw: &'a mut [f32], k: &'a usize) {
        let (h, len) = (how.hidden, how.len);
        for (out, dx) in out.chunks_exact(len * h).zip(dx.chunks_exact(len * 4 * h)) {
            for (out, dx) in out.chunks_exact(h).zip(dx.chunks_exact(4 * h).skip(1)) {
                let y = out[*k];
                for (dw, &dx) in dw.iter_mut().zip(dx) {
                    *dw += y * dx;
                }
            }
        }
    }
}
