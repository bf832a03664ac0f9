//! A layer of experts: each token goes through the few that a router chooses for it.
//!
//! Qwen3-MoE: the router's softmax runs over all experts, the largest are taken, and their weights
//! are made to sum to 1 where the model says so. Tokens of one expert go through it together.

use super::engine::Buffers;
use super::forward::Run;
use super::kernels::Out;
use super::matrix::Matrix;
use crate::model::router;

/// A router and its experts.
pub(super) struct Experts {
    pub router: Matrix,
    pub experts: Vec<Expert>,
    /// Experts of a token.
    pub used: usize,
    /// Their weights sum to 1.
    pub normed: bool,
}

/// One expert.
pub(super) struct Expert {
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

/// The layer on `b.normed`, into `b.delta`.
pub(super) fn experts(run: &Run, layer: &Experts, b: &mut Buffers) {
    let (n, count, d) = (run.n, layer.experts.len(), b.normed.width);
    b.router.resize(n * count, 0.0);
    run.products(&[(&layer.router, Out::of(&mut b.router))], &b.normed, &mut b.low);
    let mut rows: Vec<Vec<(usize, f32)>> = vec![Vec::new(); count];
    for (row, logits) in b.router.chunks_exact(count).take(n).enumerate() {
        for (expert, weight) in choose(logits, layer.used, layer.normed) {
            rows[expert].push((row, weight));
        }
    }
    b.delta[..n * d].fill(0.0);
    for (expert, rows) in layer.experts.iter().zip(&rows).filter(|(_, rows)| !rows.is_empty()) {
        let run = Run { n: rows.len(), ..*run };
        let which: Vec<usize> = rows.iter().map(|(row, _)| *row).collect();
        b.chosen.gather(&b.normed, &which);
        let (gate, up) = (Out::of(&mut b.gate), Out::of(&mut b.up));
        run.products(&[(&expert.gate, gate), (&expert.up, up)], &b.chosen, &mut b.low);
        run.gated(&b.gate, &b.up, expert.gate.rows, &mut b.inner);
        run.products(&[(&expert.down, Out::of(&mut b.expert))], &b.inner, &mut b.low);
        for ((row, weight), y) in rows.iter().zip(b.expert.chunks_exact(d)) {
            for (to, y) in b.delta[row * d..][..d].iter_mut().zip(y) {
                *to += weight * y;
            }
        }
    }
}

/// The experts of a token and their weights, by the router's logits.
fn choose(logits: &[f32], used: usize, normed: bool) -> Vec<(usize, f32)> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let probs: Vec<f32> = logits.iter().map(|x| (x - top).exp()).collect();
    let chosen = router::top(&probs, used);
    let sum: f32 = match normed {
        true => chosen.iter().map(|&expert| probs[expert]).sum(),
        false => probs.iter().sum(),
    };
    chosen.into_iter().map(|expert| (expert, probs[expert] / sum)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_takes_the_most_likely_and_weighs_them() {
        let logits = [0.0, 3f32.ln(), 2f32.ln(), 4f32.ln()];
        let near = |a: &[(usize, f32)], b: &[(usize, f32)]| {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-6, "{a:?} for {b:?}");
            }
        };
        near(&choose(&logits, 2, false), &[(3, 0.4), (1, 0.3)]);
        near(&choose(&logits, 2, true), &[(3, 4.0 / 7.0), (1, 3.0 / 7.0)]);
    }
}
