//! Each kernel against the same formula composed of Burn's operations, with its gradients; and the
//! scan against its recurrence.

use burn::tensor::backend::AutodiffBackend;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::device::flex;
use crate::model::weights::uniform;

type Back = Autodiff<Flex>;

/// Uniform in -1..1.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| (2.0 * uniform(&mut rng) - 1.0) as f32).collect()
}

/// The result of a function of matrices, and the gradients of its weighted sum.
fn run<const N: usize>(
    inputs: &[(Vec<f32>, usize); N],
    f: impl Fn([Tensor<Back, 2>; N]) -> Tensor<Back, 2>,
) -> Vec<Vec<f32>> {
    let inputs = inputs
        .each_ref()
        .map(|(values, width)| constant::<Back>(values.clone(), *width, &flex()).require_grad());
    let out = f(inputs.clone());
    let [rows, width] = out.dims();
    let mut all = vec![out.clone().inner().into_data().into_vec().unwrap()];
    let weights = constant::<Back>(numbers(rows * width, 99), width, &flex());
    let grads = (out * weights).sum().backward();
    for input in inputs {
        let grad = input.grad(&grads).map(|grad| grad.into_data().into_vec().unwrap());
        all.push(grad.unwrap_or_default());
    }
    all
}

fn close(a: &[Vec<f32>], b: &[Vec<f32>], tolerance: f32) {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        // A kernel gives no gradient to what is constant.
        if a.is_empty() {
            continue;
        }
        assert_eq!(a.len(), b.len(), "{i}");
        let top = b.iter().fold(1.0f32, |top, x| top.max(x.abs()));
        for (j, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= tolerance * top, "output or gradient {i} at {j}: {a} != {b}");
        }
    }
}

fn agrees<const N: usize, K: Kernel<N> + Copy>(kernel: K, inputs: [(Vec<f32>, usize); N]) {
    let fused = run(&inputs, |inputs| Back::apply(kernel, inputs));
    let composed = run(&inputs, |inputs| kernel.composed(inputs));
    close(&fused, &composed, 1e-5);
}

fn of(rows: usize, width: usize, seed: u64) -> (Vec<f32>, usize) {
    (numbers(rows * width, seed), width)
}

/// Rates from slow to fast, elapsed times from short to long.
fn scanned(rows: usize, s: usize) -> [(Vec<f32>, usize); 5] {
    let decay = (0..s).map(|i| -4.0 * i as f32 / s as f32 + 1.0).collect();
    let dt = numbers(rows, 5).iter().map(|x| (2.0 * x).exp()).collect();
    [of(rows, 2 * s, 1), of(rows, s, 2), of(1, 2 * s, 3), (decay, s), (dt, 1)]
}

/// `s_t = a s_{t-1} + v_t`, row by row, as the definition says.
fn recurrence(len: usize, s: usize, inputs: [Tensor<Back, 2>; 5]) -> Tensor<Back, 2> {
    let [p, u, bias, decay, dt] = inputs;
    let rows = dt.dims()[0];
    let p = p + bias;
    let rate = (p.clone().narrow(1, 0, s).exp() + 1.0).log() * dt * decay.exp();
    let a = rate.neg().exp();
    let gate = (p.narrow(1, s, s).neg().exp() + 1.0).recip();
    let v = (a.clone().square().neg() + 1.0).sqrt() * u * gate;
    let mut out = Vec::new();
    for start in (0..rows).step_by(len) {
        let mut state = Tensor::<Back, 2>::zeros([1, s], &flex());
        for t in start..start + len {
            state = a.clone().narrow(0, t, 1) * state + v.clone().narrow(0, t, 1);
            out.push(state.clone());
        }
    }
    Tensor::cat(out, 0)
}

#[test]
fn the_scan_is_its_recurrence_in_both_forms() {
    // 37 is no multiple of a chunk.
    let (len, s) = (37, 5);
    let inputs = scanned(2 * len, s);
    let expected = run(&inputs, |inputs| recurrence(len, s, inputs));
    let scan = Scan { len, state: s, kalman: false };
    close(&run(&inputs, |inputs| Back::apply(scan, inputs)), &expected, 1e-5);
    close(&run(&inputs, |inputs| scan.composed(inputs)), &expected, 1e-5);
}

#[test]
fn the_filter_is_its_recurrence() {
    agrees(Scan { len: 19, state: 6, kalman: true }, scanned(2 * 19, 6));
}

#[test]
fn a_filter_of_a_constant_gains_as_the_theory_says() {
    // With rates near zero and unit noise, the variance after n observations is 1 / (1 + n).
    let (len, s) = (20, 1);
    // softplus(0.5398) + 1e-3 = 1
    let bias = vec![0.0, 0.539_743];
    let inputs = [
        (vec![0.0; 2 * len], 2),
        (vec![1.0; len], 1),
        (bias, 2),
        (vec![-30.0], 1),
        (vec![1.0; len], 1),
    ];
    let out = &run(&inputs, |inputs| Back::apply(Scan { len, state: s, kalman: true }, inputs))[0];
    for (t, row) in out.chunks_exact(2).enumerate() {
        let n = (t + 1) as f32;
        assert!((row[1] - 1.0 / (1.0 + n)).abs() < 3e-3, "{t}: {row:?}");
        assert!((row[0] - n / (1.0 + n)).abs() < 6e-3, "{t}: {row:?}");
    }
}

#[test]
fn attention_agrees_with_and_without_the_state() {
    for (heads, width) in [(2, 32), (3, 24)] {
        let attention = Attention { len: 21, heads, width };
        agrees(attention, [of(42, 3 * width, 1)]);
        agrees(attention, [of(42, 3 * width, 1), of(42, 2 * width, 2)]);
    }
}

#[test]
fn what_goes_through_a_row_agrees() {
    // More rows than a task has.
    let (rows, width) = (131, 20);
    agrees(Norm, [of(rows, width, 1), of(1, width, 2)]);
    agrees(Film, [of(rows, width, 1), of(1, width, 2), of(rows, 2 * width, 3)]);
    agrees(SwiGlu { width }, [of(rows, 2 * width, 1)]);
    for rate in [0.0, 0.3] {
        let drop = Drop { rate, seed: 7 };
        agrees(Residual { drop, width }, [of(rows, width, 1), of(rows, width, 2)]);
        let inputs =
            [of(rows, width, 1), of(rows, width, 2), of(rows, width, 3), of(rows, 2 * width, 4)];
        agrees(Mix { drop, width }, inputs);
    }
}

#[test]
fn the_lstm_agrees() {
    agrees(Lstm { len: 11, hidden: 8 }, [of(33, 32, 1), of(8, 32, 2)]);
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let count = 100_000;
    let drop = Drop { rate: 0.2, seed: rng.next_u32() };
    let zeros = constant::<Flex>(vec![0.0; count], 10, &flex());
    let ones = constant::<Flex>(vec![1.0; count], 10, &flex());
    let out = Flex::apply(Residual { drop, width: 10 }, [zeros, ones]);
    let values: Vec<f32> = out.into_data().into_vec().unwrap();
    let dropped = values.iter().filter(|x| **x == 0.0).count() as f64 / count as f64;
    assert!((dropped - 0.2).abs() < 0.005, "{dropped}");
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64;
    assert!((mean - 1.0).abs() < 0.01, "{mean}");
}

#[test]
fn a_node_without_a_tracked_input_records_nothing() {
    let x = constant::<Back>(numbers(20, 1), 10, &flex());
    let weight = constant::<Back>(vec![1.0; 10], 10, &flex()).require_grad();
    let out = Back::apply(Norm, [x.clone(), weight.clone()]);
    let grads = out.sum().backward();
    assert!(x.grad(&grads).is_none() && weight.grad(&grads).is_some());
    let _: Tensor<<Back as AutodiffBackend>::InnerBackend, 2> = x.inner();
}
