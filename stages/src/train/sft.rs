//! Next-token prediction on a corpus: packed windows, cross-entropy.

use burn::module::AutodiffModule;

use super::data::Windows;
use super::logps::{backward, numbers};
use super::losses::cross_entropy;
use super::steps::{Gradients, Run, Steps, note, recent};
use crate::Result;
use crate::device::{Back, Train};
use crate::model::{Kernels, Llama};

/// Trains on `train` for the steps of the parameters, and validates on `valid` at the end.
pub fn run(
    mut model: Llama<Train>,
    train: &mut Windows,
    valid: Option<&Windows>,
    run: &mut Run,
) -> Result<Llama<Train>> {
    let params = run.params;
    let mut steps = Steps::new(run, 1);
    let mut gradients = Gradients::new();
    let mut losses = Vec::new();
    let mut seen = 0;
    for step in 1..=params.steps {
        run.tell(step - 1, note(losses.last().copied()))?;
        let windows: Vec<Vec<u32>> = (0..params.batch).map(|_| train.draw().to_vec()).collect();
        let count: usize = windows.iter().map(|window| window.len() - 1).sum();
        let mut loss = 0.0;
        for part in windows.chunks(params.micro_batch.unwrap_or(params.batch)) {
            let logp = log_probs(&model, part)?;
            let part = cross_entropy(&numbers(&logp), count);
            backward(logp, &part.grad, &model, &mut gradients);
            loss += part.value;
        }
        let moved;
        (model, moved) = steps.update(model, &mut gradients, loss)?;
        seen += count;
        losses.push(loss);
        run.log.line(
            step,
            &[
                ("loss", loss),
                ("lr", moved.rate),
                ("grad_norm", moved.norm),
                ("tokens", seen as f64),
            ],
        )?;
    }
    run.ctx.metric("train_loss", recent(&losses));
    run.ctx.metric("tokens", seen as f64);
    if let Some(valid) = valid {
        let loss = validate(&model.valid(), valid, run)?;
        run.ctx.metric("valid_loss", loss);
        run.ctx.metric("perplexity", loss.exp());
    }
    run.tell(params.steps, note(losses.last().copied()))?;
    Ok(model)
}

/// Log-probabilities of every token but the first of every window; windows are of one length.
fn log_probs<B: Kernels>(model: &Llama<B>, windows: &[Vec<u32>]) -> Result<burn::Tensor<B, 1>> {
    let len = windows.first().map_or(0, Vec::len);
    let at: Vec<usize> = (0..windows.len() * len).filter(|i| i % len != len - 1).collect();
    model.log_probs(&windows.concat(), windows.len(), &at, 1.0)
}

/// Mean loss per token over all windows.
fn validate(model: &Llama<Back>, windows: &Windows, run: &Run) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for window in windows.all() {
        run.tell(run.params.steps, "validation")?;
        let logp = numbers(&log_probs(model, &[window.to_vec()])?);
        sum -= logp.iter().sum::<f64>();
        count += logp.len();
    }
    Ok(sum / count.max(1) as f64)
}
