//! The state-space layer: a diagonal linear recurrence whose decay and input depend on the row.
//!
//! ```text
//! rate = softplus(p_D + b_D) dt e^A, kept within RATES ;  a = exp(-rate)
//! plain:   s_t = a s_{t-1} + sqrt(1 - a^2) u sigmoid(p_g + b_g)
//! Kalman:  q = 1 - a^2 ; P' = a^2 P + q ; r = softplus(p_g + b_g) + 1e-3 ; K = P' / (P' + r)
//!          s_t = a s_{t-1} + K (u - a s_{t-1}) ; P = (1 - K) P'
//! ```
//! Each channel has unit variance where its input has. `s` starts a window at 0 and `P` at 1. On the
//! CPU a task is a window: its channels are lanes, and rows follow one another. Elsewhere the plain
//! scan goes in chunks of 16 rows, each a product with the matrix of decays between its rows, which
//! needs no division by a decay and so cannot overflow; the Kalman form steps.

use burn::prelude::*;
use burn::tensor::activation::{sigmoid as sigmoids, softplus as softpluses};
use rayon::prelude::*;

use super::math::{exp, sigmoid, softplus, wide};
use super::{Kernel, Output, tasks};

/// The decay rates of a row: below, the slope of `sqrt(1 - a^2)` grows without bound; above, nothing
/// of the past is left in f32.
pub const RATES: [f32; 2] = [1e-4, 20.0];
/// Added to the noise of an observation.
const NOISE: f32 = 1e-3;
/// Rows of a chunk where operations are composed.
const CHUNK: usize = 16;

/// Inputs: `p` `[n, 2 s]`, rates and gates; `u` `[n, s]`; their biases `[1, 2 s]`; `A` `[1, s]`; `dt`
/// `[n, 1]`, constant. Gives `[n, s]`, or `[n, 2 s]` with `P` in the Kalman form.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Rows of a window.
    pub len: usize,
    /// Channels.
    pub state: usize,
    /// The Kalman form.
    pub kalman: bool,
}

impl Scan {
    fn width(&self) -> usize {
        if self.kalman { 2 * self.state } else { self.state }
    }
}

impl Kernel<5> for Scan {
    fn forward(&self, [p, u, bias, decay, dt]: [&[f32]; 5]) -> Output {
        let (s, width) = (self.state, self.width());
        let mut values = vec![0.0; dt.len() * width];
        let mut saved = vec![0.0; dt.len() * 2 * s];
        let speed: Vec<f32> = decay.iter().map(|&a| exp(a)).collect();
        let fixed = Fixed { bias, speed: &speed, state: s };
        let inputs = p
            .par_chunks(self.len * 2 * s)
            .zip(u.par_chunks(self.len * s))
            .zip(dt.par_chunks(self.len));
        let outputs = tasks(&mut values, self.len * width, self.len * width * 8)
            .zip(saved.par_chunks_mut(self.len * 2 * s));
        outputs.zip(inputs).for_each(|((out, saved), ((p, u), dt))| match self.kalman {
            false => plain(&fixed, p, u, dt, out, saved),
            true => kalman(&fixed, p, u, dt, out, saved),
        });
        Output { values, width, saved }
    }

    fn backward(
        &self,
        [p, u, bias, decay, dt]: [&[f32]; 5],
        out: &[f32],
        saved: &[f32],
        grad: &[f32],
    ) -> [Option<Vec<f32>>; 5] {
        let (s, width, len) = (self.state, self.width(), self.len);
        let speed: Vec<f32> = decay.iter().map(|&a| exp(a)).collect();
        let fixed = Fixed { bias, speed: &speed, state: s };
        let (mut dp, mut du) = (vec![0.0; p.len()], vec![0.0; u.len()]);
        // Of each window: the gradients of the biases, and of A.
        let mut parts = vec![0.0; dt.len() / len * 3 * s];
        let inputs = p.par_chunks(len * 2 * s).zip(u.par_chunks(len * s)).zip(dt.par_chunks(len));
        let known = out
            .par_chunks(len * width)
            .zip(saved.par_chunks(len * 2 * s))
            .zip(grad.par_chunks(len * width));
        let outputs = tasks(&mut dp, len * 2 * s, len * width * 8)
            .zip(du.par_chunks_mut(len * s))
            .zip(parts.par_chunks_mut(3 * s));
        outputs.zip(inputs).zip(known).for_each(|((to, from), ((out, saved), grad))| {
            let ((dp, du), part) = to;
            let ((p, u), dt) = from;
            match self.kalman {
                false => plain_backward(&fixed, p, u, dt, out, saved, grad, dp, du, part),
                true => kalman_backward(&fixed, p, u, dt, out, saved, grad, dp, du, part),
            }
        });
        let (mut dbias, mut ddecay) = (vec![0.0; 2 * s], vec![0.0; s]);
        for part in parts.chunks_exact(3 * s) {
            let (b, a) = part.split_at(2 * s);
            dbias.iter_mut().zip(b).for_each(|(total, x)| *total += x);
            ddecay.iter_mut().zip(a).for_each(|(total, x)| *total += x);
        }
        [Some(dp), Some(du), Some(dbias), Some(ddecay), None]
    }

    fn composed<B: Backend>(&self, inputs: [Tensor<B, 2>; 5]) -> Tensor<B, 2> {
        let [p, u, bias, decay, dt] = inputs;
        let (s, len) = (self.state, self.len);
        let rows = dt.dims()[0];
        let p = p + bias;
        let rate = softpluses(p.clone().narrow(1, 0, s), 1.0) * dt * decay.exp();
        let rate = rate.clamp(RATES[0], RATES[1]);
        let gate = p.narrow(1, s, s);
        let shape = [rows / len, len, s];
        if self.kalman {
            let noise = softpluses(gate, 1.0) + NOISE;
            let [rate, noise, u] = [rate, noise, u].map(|x| x.reshape(shape));
            return steps(rate, noise, u).reshape([rows, 2 * s]);
        }
        let a = rate.clone().neg().exp();
        let scale = ((a.clone().neg() + 1.0) * (a + 1.0)).sqrt();
        let v = scale * u * sigmoids(gate);
        chunks(rate.reshape(shape), v.reshape(shape)).reshape([rows, s])
    }
}

/// `s_t = exp(-rate_t) s_{t-1} + v_t` over `[windows, rows, channels]`, chunk by chunk.
fn chunks<B: Backend>(rate: Tensor<B, 3>, v: Tensor<B, 3>) -> Tensor<B, 3> {
    let [windows, len, s] = v.dims();
    let place = v.device();
    let mut carry: Option<Tensor<B, 3>> = None;
    let mut out = Vec::new();
    for start in (0..len).step_by(CHUNK) {
        let rows = CHUNK.min(len - start);
        let total = rate.clone().narrow(1, start, rows).cumsum(1);
        let v = v.clone().narrow(1, start, rows);
        // What is left at row i of what came in at row j: exp(-(total_i - total_j)) for j <= i.
        let shape = [windows, rows, rows, s];
        let between = total.clone().unsqueeze_dim::<4>(2) - total.clone().unsqueeze_dim::<4>(1);
        let later = Tensor::<B, 2, Bool>::tril_mask([rows, rows], 0, &place);
        let later = later.reshape([1, rows, rows, 1]).expand(shape);
        let left = between.neg().mask_fill(later, f32::NEG_INFINITY).exp();
        let mut own = (left * v.unsqueeze_dim::<4>(1)).sum_dim(2).squeeze_dim::<3>(2);
        if let Some(carry) = carry {
            own = own + total.neg().exp() * carry;
        }
        carry = Some(own.clone().narrow(1, rows - 1, 1));
        out.push(own);
    }
    Tensor::cat(out, 1)
}

/// The Kalman form over `[windows, rows, channels]`, row by row.
fn steps<B: Backend>(rate: Tensor<B, 3>, noise: Tensor<B, 3>, u: Tensor<B, 3>) -> Tensor<B, 3> {
    let [windows, len, s] = u.dims();
    let mut state = Tensor::<B, 3>::zeros([windows, 1, s], &u.device());
    let mut spread = state.ones_like();
    let a = rate.neg().exp();
    let mut out = Vec::new();
    for t in 0..len {
        let [a, noise, u] = [&a, &noise, &u].map(|x| x.clone().narrow(1, t, 1));
        let square = a.clone() * a.clone();
        let ahead = square.clone() * spread + (square.neg() + 1.0);
        let gain = ahead.clone() / (ahead.clone() + noise);
        let kept = a * state;
        state = kept.clone() + gain.clone() * (u - kept);
        spread = (gain.neg() + 1.0) * ahead;
        out.push(Tensor::cat(vec![state.clone(), spread.clone()], 2));
    }
    Tensor::cat(out, 1)
}

/// What all windows share.
#[derive(Clone, Copy)]
struct Fixed<'a> {
    bias: &'a [f32],
    /// `e^A`.
    speed: &'a [f32],
    state: usize,
}

#[inline(always)]
fn clamp(rate: f32) -> f32 {
    let rate = if rate < RATES[0] { RATES[0] } else { rate };
    if rate > RATES[1] { RATES[1] } else { rate }
}

/// The gradient of `p_D` and of `A` at a row, of that of the rate.
#[inline(always)]
fn of_rate(drate: f32, rate: f32, p: f32, scale: f32) -> (f32, f32) {
    let inside = if rate > RATES[0] && rate < RATES[1] { drate } else { 0.0 };
    (inside * scale * sigmoid(p), inside * rate)
}

wide! {
    fn plain<'a>(fixed: &'a Fixed<'a>, p: &'a [f32], u: &'a [f32], dt: &'a [f32], out: &'a mut [f32], saved: &'a mut [f32]) {
        let s = fixed.state;
        let (rate_bias, gate_bias) = fixed.bias.split_at(s);
        let speed = &fixed.speed[..s];
        for (t, &dt) in dt.iter().enumerate() {
            let (rates, gates) = p[t * 2 * s..][..2 * s].split_at(s);
            let u = &u[t * s..][..s];
            let (before, now) = out.split_at_mut(t * s);
            let now = &mut now[..s];
            let (kept_rates, kept_gates) = saved[t * 2 * s..][..2 * s].split_at_mut(s);
            for i in 0..s {
                let rate = clamp(softplus(rates[i] + rate_bias[i]) * dt * speed[i]);
                let gate = sigmoid(gates[i] + gate_bias[i]);
                let a = exp(-rate);
                kept_rates[i] = rate;
                kept_gates[i] = gate;
                now[i] = ((1.0 - a) * (1.0 + a)).sqrt() * u[i] * gate;
            }
            if t > 0 {
                let before = &before[(t - 1) * s..][..s];
                for i in 0..s {
                    now[i] += exp(-kept_rates[i]) * before[i];
                }
            }
        }
    }
}

wide! {
    fn plain_backward<'a>(fixed: &'a Fixed<'a>, p: &'a [f32], u: &'a [f32], dt: &'a [f32], out: &'a [f32], saved: &'a [f32], grad: &'a [f32], dp: &'a mut [f32], du: &'a mut [f32], part: &'a mut [f32]) {
        let s = fixed.state;
        let rate_bias = &fixed.bias[..s];
        let speed = &fixed.speed[..s];
        let (part_bias, part_decay) = part.split_at_mut(2 * s);
        let (part_rate, part_gate) = part_bias.split_at_mut(s);
        let zeros = vec![0.0; s];
        let mut carry = vec![0.0; s];
        let carry = &mut carry[..s];
        for t in (0..dt.len()).rev() {
            let rates = &p[t * 2 * s..][..s];
            let u = &u[t * s..][..s];
            let before = if t > 0 { &out[(t - 1) * s..][..s] } else { &zeros[..s] };
            let (kept_rates, kept_gates) = saved[t * 2 * s..][..2 * s].split_at(s);
            let grad = &grad[t * s..][..s];
            let (drates, dgates) = dp[t * 2 * s..][..2 * s].split_at_mut(s);
            let du = &mut du[t * s..][..s];
            for i in 0..s {
                let (rate, gate) = (kept_rates[i], kept_gates[i]);
                let a = exp(-rate);
                let root = ((1.0 - a) * (1.0 + a)).sqrt();
                let g = grad[i] + carry[i];
                let da = g * (before[i] - u[i] * gate * a / root);
                let (dpre, ddecay) =
                    of_rate(-a * da, rate, rates[i] + rate_bias[i], dt[t] * speed[i]);
                let dgate = g * root * u[i] * gate * (1.0 - gate);
                drates[i] = dpre;
                dgates[i] = dgate;
                du[i] = g * root * gate;
                part_rate[i] += dpre;
                part_gate[i] += dgate;
                part_decay[i] += ddecay;
                carry[i] = g * a;
            }
        }
    }
}

wide! {
    fn kalman<'a>(fixed: &'a Fixed<'a>, p: &'a [f32], u: &'a [f32], dt: &'a [f32], out: &'a mut [f32], saved: &'a mut [f32]) {
        let s = fixed.state;
        let (rate_bias, gate_bias) = fixed.bias.split_at(s);
        let (mut state, mut spread) = (vec![0.0f32; s], vec![1.0f32; s]);
        for (t, &dt) in dt.iter().enumerate() {
            let (rates, gates) = p[t * 2 * s..][..2 * s].split_at(s);
            let u = &u[t * s..][..s];
            let (out_state, out_spread) = out[t * 2 * s..][..2 * s].split_at_mut(s);
            let (kept_rates, kept_noise) = saved[t * 2 * s..][..2 * s].split_at_mut(s);
            for i in 0..s {
                let rate = clamp(softplus(rates[i] + rate_bias[i]) * dt * fixed.speed[i]);
                let noise = softplus(gates[i] + gate_bias[i]) + NOISE;
                let a = exp(-rate);
                let ahead = a * a * spread[i] + (1.0 - a * a);
                let gain = ahead / (ahead + noise);
                let kept = a * state[i];
                state[i] = kept + gain * (u[i] - kept);
                spread[i] = (1.0 - gain) * ahead;
                out_state[i] = state[i];
                out_spread[i] = spread[i];
                kept_rates[i] = rate;
                kept_noise[i] = noise;
            }
        }
    }
}

wide! {
    fn kalman_backward<'a>(fixed: &'a Fixed<'a>, p: &'a [f32], u: &'a [f32], dt: &'a [f32], out: &'a [f32], saved: &'a [f32], grad: &'a [f32], dp: &'a mut [f32], du: &'a mut [f32], part: &'a mut [f32]) {
        let s = fixed.state;
        let (rate_bias, gate_bias) = fixed.bias.split_at(s);
        let first: Vec<f32> = (0..2 * s).map(|i| if i < s { 0.0 } else { 1.0 }).collect();
        let (mut carry, mut carry_spread) = (vec![0.0f32; s], vec![0.0f32; s]);
        for t in (0..dt.len()).rev() {
            let (rates, gates) = p[t * 2 * s..][..2 * s].split_at(s);
            let u = &u[t * s..][..s];
            let before = if t > 0 { &out[(t - 1) * 2 * s..][..2 * s] } else { &first[..] };
            let (state, spread) = before.split_at(s);
            let (kept_rates, kept_noise) = saved[t * 2 * s..][..2 * s].split_at(s);
            let (grad_state, grad_spread) = grad[t * 2 * s..][..2 * s].split_at(s);
            let (drates, dgates) = dp[t * 2 * s..][..2 * s].split_at_mut(s);
            let du = &mut du[t * s..][..s];
            for i in 0..s {
                let (rate, noise) = (kept_rates[i], kept_noise[i]);
                let a = exp(-rate);
                let ahead = a * a * spread[i] + (1.0 - a * a);
                let gain = ahead / (ahead + noise);
                let kept = a * state[i];
                let g = grad_state[i] + carry[i];
                let gp = grad_spread[i] + carry_spread[i];
                let dgain = g * (u[i] - kept);
                let lost = 1.0 - gain;
                let dahead = gp * lost * lost + dgain * lost / (ahead + noise);
                let dnoise = gp * gain * gain - dgain * gain / (ahead + noise);
                let dkept = g * lost;
                let da = dkept * state[i] + dahead * 2.0 * a * (spread[i] - 1.0);
                let (dpre, ddecay) =
                    of_rate(-a * da, rate, rates[i] + rate_bias[i], dt[t] * fixed.speed[i]);
                let dgate = dnoise * sigmoid(gates[i] + gate_bias[i]);
                drates[i] = dpre;
                dgates[i] = dgate;
                du[i] = g * gain;
                part[i] += dpre;
                part[s + i] += dgate;
                part[2 * s + i] += ddecay;
                carry[i] = dkept * a;
                carry_spread[i] = dahead * a * a;
            }
        }
    }
}
