//! What the three loops share: the optimizer with its learning rate, and the word on a step.

use burn::optim::GradientsAccumulator;

use super::log::Log;
use super::optim::{AdamW, Optimizer};
use super::params::Params;
use super::schedule;
use crate::device::Train;
use crate::model::Llama;
use crate::{Context, Result, StageError};

/// Sums gradients of a model.
pub type Gradients = GradientsAccumulator<Llama<Train>>;

/// The optimizer on its way through the schedule.
pub struct Steps<'a> {
    optimizer: Optimizer<Train>,
    params: &'a Params,
    /// Updates planned in all.
    total: usize,
    warmup: usize,
    done: usize,
}

/// What an update did.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The learning rate.
    pub rate: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
}

impl<'a> Steps<'a> {
    /// A schedule over `params.steps` steps of `updates` updates each.
    pub fn new(run: &Run<'a, '_>, updates: usize) -> Steps<'a> {
        let params = run.params;
        let optimizer = Optimizer::new(AdamW::new(params), run.on_cpu);
        let (total, warmup) = (params.steps * updates, params.warmup_steps * updates);
        Steps { optimizer, params, total, warmup, done: 0 }
    }

    /// Moves the model along the gradients.
    ///
    /// # Errors
    /// The loss or the gradient is not finite: the weights would be lost.
    pub fn update(
        &mut self,
        model: Llama<Train>,
        gradients: &mut Gradients,
        loss: f64,
    ) -> Result<(Llama<Train>, Moved)> {
        self.done += 1;
        let share = schedule::at(self.params.schedule, self.done, self.warmup, self.total);
        let rate = self.params.learning_rate * share;
        let (model, norm) = self.optimizer.step(rate, model, gradients.grads());
        if loss.is_finite() && norm.is_finite() {
            return Ok((model, Moved { rate, norm }));
        }
        let what = if loss.is_finite() { "gradient" } else { "loss" };
        let (done, total) = (self.done, self.total);
        Err(StageError::failed(format!("the {what} is not finite at update {done} of {total}"))
            .hint("lower `learning_rate`, or raise `warmup_steps`"))
    }
}

/// What every loop is given.
pub struct Run<'a, 'c> {
    /// Progress, metrics, seed.
    pub ctx: &'a Context<'c>,
    /// The parameters.
    pub params: &'a Params,
    /// One line a step.
    pub log: Log,
    /// Whether tensors lie in this process's memory.
    pub on_cpu: bool,
}

impl Run<'_, '_> {
    /// Says how far the loop is, and stops it where the run was cancelled.
    pub fn tell(&self, done: usize, note: impl Into<String>) -> Result<()> {
        self.ctx.progress(done as u64, self.params.steps as u64, "steps", note)
    }
}

/// The note on a loss.
pub fn note(loss: Option<f64>) -> String {
    loss.map(|loss| format!("loss {loss:.3}")).unwrap_or_default()
}

/// The mean over the last steps, at most ten: what a loop ended with, less its noise.
pub fn recent(values: &[f64]) -> f64 {
    let last = &values[values.len().saturating_sub(10)..];
    last.iter().sum::<f64>() / last.len().max(1) as f64
}
