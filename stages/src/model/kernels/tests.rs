use burn::Dispatch;
use burn::prelude::*;

use super::{Kernels, Span, composed};
use crate::device::{self, Train};

type Plain<const D: usize> = Tensor<Dispatch, D>;

/// Values that look random and are the same everywhere.
fn noise<const D: usize>(shape: [usize; D], seed: usize) -> Plain<D> {
    let n: usize = shape.iter().product();
    let values = (0..n).map(|i| (((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5) - 1.0);
    let values: Vec<f32> = values.collect();
    Tensor::from_data(TensorData::new(values, shape), &device::cpu())
}

fn close<const D: usize>(a: Plain<D>, b: Plain<D>, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let size = b.clone().abs().max().into_scalar().max(1.0);
    let far = (a - b).abs().max().into_scalar() / size;
    assert!(far < 2e-6, "{what}: off by {far}");
}

/// The value of `f` and the gradients of `sum(f * weight)`: by the kernels, and by Burn's own
/// record of the composed operations, which knows nothing of the hand-written backward passes.
fn agree<const D: usize, const E: usize>(
    what: &str,
    inputs: [Plain<D>; 2],
    kernel: impl Fn([Tensor<Train, D>; 2]) -> Tensor<Train, E>,
    composed: impl Fn([Tensor<Train, D>; 2]) -> Tensor<Train, E>,
) {
    let run = |f: &dyn Fn([Tensor<Train, D>; 2]) -> Tensor<Train, E>| {
        let leaves = inputs.clone().map(|x| Tensor::<Train, D>::from_inner(x).require_grad());
        let out = f(leaves.clone());
        let weight = Tensor::from_inner(noise(out.dims(), 5));
        let grads = (out.clone() * weight).sum().backward();
        (out.inner(), leaves.map(|leaf| leaf.grad(&grads)))
    };
    let ((a, da), (b, db)) = (run(&kernel), run(&composed));
    close(a, b, what);
    for (i, (da, db)) in da.into_iter().zip(db).enumerate() {
        match (da, db) {
            (Some(da), Some(db)) => close(da, db, &format!("{what}: gradient {i}")),
            (da, db) => assert!(da.is_none() && db.is_none(), "{what}: gradient {i}"),
        }
    }
}

#[test]
fn swiglu_and_its_gradients_are_those_of_burn() {
    agree(
        "swiglu",
        [noise([37, 70], 1) * 4.0, noise([37, 70], 2)],
        |[g, u]| Train::swiglu(g, u),
        |[g, u]| composed::swiglu(g, u),
    );
}

#[test]
fn rms_norm_and_its_gradients_are_those_of_burn() {
    agree(
        "rms_norm",
        [noise([67, 40], 1), noise([1, 40], 2)],
        |[x, w]| Train::rms_norm(x, w.squeeze_dim(0), 1e-5),
        |[x, w]| composed::rms_norm(x, w.squeeze_dim(0), 1e-5),
    );
}

#[test]
fn rope_and_its_gradient_are_those_of_burn() {
    let span = Span { batch: 3, len: 20, start: 4 };
    let angle = noise([20, 4], 7) * 3.0;
    let (cos, sin) = (angle.clone().cos(), angle.sin());
    let tables = || (Tensor::from_inner(cos.clone()), Tensor::from_inner(sin.clone()));
    agree(
        "rope",
        [noise([60, 24], 1), noise([60, 24], 2)],
        |[x, _]| Train::rope(x, tables().0, tables().1, span),
        |[x, _]| composed::rope(x, tables().0, tables().1, span),
    );
}

#[test]
fn causal_softmax_and_its_gradient_are_those_of_burn() {
    let span = Span { batch: 2, len: 9, start: 3 };
    agree(
        "causal_softmax",
        [noise([2, 3, 18, 12], 1) * 5.0, noise([2, 3, 18, 12], 2)],
        |[x, _]| Train::causal_softmax(x, 0.7, span),
        |[x, _]| composed::causal_softmax(x, 0.7, span, None),
    );
}

/// Two windows of nine: segments of 4 and 5 tokens, and of 9.
fn starts() -> std::sync::Arc<[u32]> {
    [0, 0, 0, 0, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0].into()
}

#[test]
fn packed_softmax_and_its_gradient_are_those_of_burn() {
    let span = Span { batch: 2, len: 9, start: 0 };
    agree(
        "packed_softmax",
        [noise([2, 3, 18, 9], 1) * 5.0, noise([2, 3, 18, 9], 2)],
        |[x, _]| Train::packed_softmax(x, 0.7, span, &starts()),
        |[x, _]| composed::causal_softmax(x, 0.7, span, Some(&starts())),
    );
    let probs = Dispatch::packed_softmax(noise([2, 3, 18, 9], 1), 0.7, span, &starts());
    let probs: Vec<f32> = probs.into_data().into_vec().unwrap();
    for (row, probs) in probs.chunks(9).enumerate() {
        let (window, t) = (row / 54, row % 9);
        let from = starts()[window * 9 + t] as usize;
        assert!(probs[..from].iter().chain(&probs[t + 1..]).all(|p| *p == 0.0), "row {row}");
        assert!((probs[from..=t].iter().sum::<f32>() - 1.0).abs() < 1e-6, "row {row}");
    }
}

#[test]
fn rope_of_own_positions_and_its_gradient_are_those_of_burn() {
    let span = Span { batch: 2, len: 10, start: 0 };
    let tables = || [1, 2].map(|seed| Tensor::<Train, 2>::from_inner(noise([20, 4], seed)));
    agree(
        "rope",
        [noise([20, 24], 3), noise([20, 24], 4)],
        |[x, _]| Train::rope(x, tables()[0].clone(), tables()[1].clone(), span),
        |[x, _]| composed::rope(x, tables()[0].clone(), tables()[1].clone(), span),
    );
}

#[test]
fn log_probs_and_their_gradient_are_those_of_burn() {
    let targets: Vec<u32> = (0..50).map(|i| i * 7 % 33).collect();
    agree(
        "log_probs",
        [noise([50, 33], 1) * 6.0, noise([50, 33], 2)],
        |[x, _]| Train::log_probs(x, &targets, 0.8),
        |[x, _]| composed::log_probs(x, &targets, 0.8),
    );
}

/// GPUs take the composed backward passes, which the tests above do not reach.
#[test]
fn the_composed_backward_passes_are_those_of_burn() {
    let grad = |x: &Tensor<Train, 2>, out: Tensor<Train, 2>, dy: Plain<2>| {
        let grads = (out * Tensor::from_inner(dy)).sum().backward();
        x.grad(&grads).unwrap()
    };
    let leaf = |x: Plain<2>| Tensor::<Train, 2>::from_inner(x).require_grad();
    let (a, b, dy) = (noise([9, 14], 1) * 3.0, noise([9, 14], 2), noise([9, 14], 3));

    let (da, db) = composed::swiglu_backward(a.clone(), b.clone(), dy.clone());
    let (x, y) = (leaf(a.clone()), leaf(b.clone()));
    close(da, grad(&x, composed::swiglu(x.clone(), y.clone()), dy.clone()), "gate");
    close(db, grad(&y, composed::swiglu(x, y.clone()), dy.clone()), "up");

    let weight: Plain<1> = noise([14], 4);
    let (da, _) = composed::rms_norm_backward(a.clone(), weight.clone(), 1e-5, dy.clone());
    let x = leaf(a.clone());
    let out = composed::rms_norm(x.clone(), Tensor::from_inner(weight), 1e-5);
    close(da, grad(&x, out, dy), "norm");

    let (targets, dy) = ([3u32, 0, 13, 5, 5, 1, 2, 9, 8], noise([9], 3));
    let da = composed::log_probs_backward(a.clone(), &targets, 0.7, dy.clone());
    let x = leaf(a);
    let out = composed::log_probs(x.clone(), &targets, 0.7).unsqueeze_dim(1);
    close(da, grad(&x, out, dy.unsqueeze_dim(1)), "log_probs");
}
