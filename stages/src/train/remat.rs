//! Gradient checkpointing by blocks (Chen et al., arXiv 1604.06174): only the stream between blocks is
//! kept, and a block's inside is computed again on the way back.
//!
//! Activations then take the memory of one block and not of all, for about a third more time. The
//! record of Burn is cut at every block: `sum(out * grad)` of a block alone has the gradients of its
//! weights and of what went into it.

use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use super::balance::Balance;
use super::logps::numbers;
use super::losses::cross_entropy;
use super::sft::Rows;
use super::steps::Gradients;
use crate::Result;
use crate::device::Train;
use crate::model::{Llama, Routed};

/// The loss of some windows, a part of a batch of `count` tokens that count, in forward pass
/// `(step, pass)`, and that of the balance of experts, which has that `weight`. The gradients are
/// added to `sum`.
pub fn backward(
    model: &Llama<Train>,
    rows: &Rows,
    count: usize,
    (step, pass): (usize, usize),
    weight: f64,
    sum: &mut Gradients,
) -> Result<(f64, f64)> {
    let frame = rows.frame(model)?;
    let targets = Llama::targets(&frame, rows.tokens(), &rows.at)?;
    let mut inputs = vec![model.embedded(rows.tokens()).inner()];
    let mut routed = Vec::new();
    model.begin(step, pass);
    for (i, block) in model.blocks.iter().enumerate() {
        let x = Tensor::from_inner(inputs[i].clone());
        let (out, sent) = model.through(block, x, &frame);
        inputs.push(out.inner());
        // The numbers alone: what they came from is not to stay.
        routed.extend(sent.map(Routed::detach));
    }
    let balance = Balance::of(&routed, &rows.real());
    let leaf = |x| Tensor::<Train, 2>::from_inner(x).require_grad();
    let mut add = |grads| sum.accumulate(model, GradientsParams::from_grads(grads, model));

    let x = leaf(inputs.pop().unwrap_or_else(|| Tensor::zeros([0, 0], &model.embed.device())));
    let logp = model.chosen(model.normed(x.clone()), &rows.at, &targets, 1.0);
    let loss = cross_entropy(&numbers(&logp), count);
    let slopes: Vec<f32> = loss.grad.iter().map(|g| *g as f32).collect();
    let slopes = Tensor::<Train, 1>::from_data(slopes.as_slice(), &logp.device());
    let grads = (logp * slopes).sum().backward();
    let mut grad = x.grad(&grads);
    add(grads);

    // The same masks as on the way there.
    model.begin(step, pass);
    for block in model.blocks.iter().rev() {
        let (Some(input), Some(g)) = (inputs.pop(), grad.take()) else { break };
        let x = leaf(input);
        let (out, sent) = model.through(block, x.clone(), &frame);
        let mut loss = (out * Tensor::from_inner(g)).sum().cast(DType::F32);
        if let (Some(sent), true) = (&sent, weight > 0.0) {
            loss = loss + balance.term(sent, weight);
        }
        let grads = loss.backward();
        grad = x.grad(&grads);
        add(grads);
    }
    if let (true, Some(g)) = (model.embed.is_require_grad(), grad) {
        let out = model.embedded(rows.tokens());
        add((out * Tensor::from_inner(g)).sum().backward());
    }
    Ok((loss.value, balance.value))
}
