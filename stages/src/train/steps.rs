//! What the three loops share: the optimizer with its learning rate, checkpoints, validation on the
//! way, and the word on a step.

use burn::optim::GradientsAccumulator;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Notes, Read};
use super::log::Log;
use super::optim::{AdamW, Optimizer};
use super::params::Params;
use super::schedule;
use crate::device::Train;
use crate::model::Llama;
use crate::{Context, Result, StageError};

/// Sums gradients of a model.
pub type Gradients = GradientsAccumulator<Llama<Train>>;

/// Lines of a file that an error names.
const NAMED: usize = 12;

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

    /// Moves the model along the gradients. `lines` are those of the records of the batch.
    ///
    /// # Errors
    /// The loss or the gradient is not finite: the weights would be lost.
    pub fn update(
        &mut self,
        model: Llama<Train>,
        gradients: &mut Gradients,
        loss: f64,
        lines: impl FnOnce() -> Vec<u64>,
    ) -> Result<(Llama<Train>, Moved)> {
        self.done += 1;
        let share = schedule::at(self.params.schedule, self.done, self.warmup, self.total);
        let rate = self.params.learning_rate * share;
        let (model, norm) = match loss.is_finite() {
            true => self.optimizer.step(rate, model, gradients.grads()),
            false => (model, f64::NAN),
        };
        if norm.is_finite() {
            return Ok((model, Moved { rate, norm }));
        }
        let what = if loss.is_finite() { "gradient" } else { "loss" };
        let (done, total) = (self.done, self.total);
        let batch = batch(lines());
        Err(StageError::failed(format!(
            "the {what} is not finite at update {done} of {total} (rate {rate:.1e}{batch})"
        ))
        .hint("lower `learning_rate`, raise `warmup_steps`, or look at those records"))
    }
}

fn batch(mut lines: Vec<u64>) -> String {
    lines.sort_unstable();
    lines.dedup();
    let more = if lines.len() > NAMED { ", ..." } else { "" };
    let named: Vec<String> = lines.iter().take(NAMED).map(u64::to_string).collect();
    match named.is_empty() {
        true => String::new(),
        false => format!("; the batch: lines {}{more}", named.join(", ")),
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

impl<'a> Run<'a, '_> {
    /// Says how far the loop is, with how many tokens it has seen, and stops it where the run was
    /// cancelled.
    pub fn tell(&self, done: usize, tokens: usize, note: impl Into<String>) -> Result<()> {
        let (done, total) = (done as u64, self.params.steps as u64);
        self.ctx.progress_of(done, total, "steps", note, Some((tokens as u64, "tokens")))
    }

    /// The checkpoint of an attempt before this one, if there is one: the model, the optimizer and
    /// the log are then as they were, and what is returned says after how many steps.
    pub fn resume<S: DeserializeOwned + Default>(
        &mut self,
        model: Llama<Train>,
        steps: &mut Steps,
        watch: &mut Watch,
    ) -> Result<(Llama<Train>, usize, S)> {
        let fresh = |model| Ok((model, 0, S::default()));
        let Some(folder) = self.ctx.resume() else { return fresh(model) };
        let read: Read<(S, Watched)> = match checkpoint::read(folder, &model) {
            Ok(Some(read)) => read,
            Ok(None) => return fresh(model),
            Err(why) => {
                self.ctx.warn(format!("the last checkpoint is not usable ({why}): from the start"));
                return fresh(model);
            }
        };
        let Notes { step, updates, time, rows, state: (state, watched) } = read.notes;
        steps.done = updates;
        steps.optimizer.restore(time, read.moments, &model.embed.device());
        self.log.restore(rows)?;
        (watch.seen, watch.model) = (watched, read.best);
        self.tell(step, 0, "goes on from a checkpoint")?;
        Ok((read.model, step, state))
    }

    /// Writes a checkpoint where one is due after `step`.
    pub fn checkpoint<S: Serialize>(
        &self,
        step: usize,
        model: &Llama<Train>,
        steps: &Steps,
        watch: &Watch,
        state: &S,
    ) -> Result<()> {
        let every = self.params.checkpoint_every;
        let due = every > 0 && step.is_multiple_of(every) && step < self.params.steps;
        let Some(folder) = self.ctx.resume().filter(|_| due) else { return Ok(()) };
        let (updates, time) = (steps.done, steps.optimizer.time());
        let rows = self.log.rows().to_vec();
        let notes = Notes { step, updates, time, rows, state: (state, &watch.seen) };
        checkpoint::write(folder, &notes, model, watch.model.as_ref(), &steps.optimizer)
    }
}

/// Validation on the way: when, what was best, and when to stop.
pub struct Watch {
    every: Option<usize>,
    patience: Option<usize>,
    steps: usize,
    seen: Watched,
    model: Option<Llama<Train>>,
}

/// What the validations so far have shown.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Watched {
    best: Option<(usize, f64)>,
    /// Validations since.
    since: usize,
}

impl Watch {
    /// As the parameters say; never where nothing is held out.
    pub fn new(params: &Params, held: bool) -> Watch {
        let every = params.eval_every.filter(|_| held);
        let (patience, steps) = (params.patience, params.steps);
        Watch { every, patience, steps, seen: Watched::default(), model: None }
    }

    /// Whether a validation is due after `step`.
    pub fn due(&self, step: usize) -> bool {
        self.every.is_some_and(|every| step.is_multiple_of(every) || step == self.steps)
    }

    /// Takes note of a validation. True where the training should end.
    pub fn note(&mut self, step: usize, loss: f64, model: &Llama<Train>) -> bool {
        if loss.is_finite() && self.seen.best.is_none_or(|(_, best)| loss < best) {
            self.seen = Watched { best: Some((step, loss)), since: 0 };
            self.model = Some(model.clone());
            return false;
        }
        self.seen.since += 1;
        self.patience.is_some_and(|patience| self.seen.since >= patience)
    }

    /// The model of the best validation, or the last one where there was none on the way.
    pub fn choose(self, last: Llama<Train>, step: usize, run: &Run) -> Llama<Train> {
        if let Some((best, _)) = self.seen.best {
            run.ctx.metric("best_step", best as f64);
        }
        if step < self.steps {
            run.ctx.metric("stopped_at", step as f64);
        }
        self.model.unwrap_or(last)
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
