//! Direct preference optimisation of a low-rank adapter.
//!
//! The reference is the base without its adapter; each pair's reference log-probabilities are
//! computed once, when the pair is first met, and kept. Prompt and completions are encoded
//! separately, so that no token spans the border between them.

use burn::module::AutodiffModule;

use super::data::Shuffle;
use super::logps::{Group, backward, group, numbers};
use super::losses::{Preference, dpo};
use super::params::Dpo;
use super::steps::{Gradients, Run, Steps, note, recent};
use crate::Result;
use crate::device::{Back, Train};
use crate::model::{Kernels, Llama};

/// Pairs as groups of two completions, the chosen one first.
pub struct Pairs {
    /// Those to train on; at least one.
    pub train: Vec<Group>,
    /// Those held out.
    pub valid: Vec<Group>,
}

/// Sums of log-probabilities: of the chosen completion, and of the rejected one.
type Sums = (f64, f64);

/// Trains the adapter of `model`; `reference` is the same model without it.
pub fn run(
    mut model: Llama<Train>,
    reference: &Llama<Back>,
    pairs: &Pairs,
    settings: &Dpo,
    run: &mut Run,
) -> Result<Llama<Train>> {
    let params = run.params;
    let mut steps = Steps::new(run, 1);
    let mut gradients = Gradients::new();
    let mut order = Shuffle::new(pairs.train.len(), run.ctx.seed());
    let mut known: Vec<Option<Sums>> = vec![None; pairs.train.len()];
    let mut means: Vec<Mean> = Vec::new();
    let mut tokens = 0;
    for step in 1..=params.steps {
        let mut mean = Mean::default();
        for at in order.by_ref().take(params.batch) {
            run.tell(step - 1, note(means.last().map(|mean| mean.loss)))?;
            let (Some(pair), Some(known)) = (pairs.train.get(at), known.get_mut(at)) else {
                continue;
            };
            let reference = match *known {
                Some(sums) => sums,
                None => *known.insert(sums(reference, pair)?),
            };
            let logp = group(&model, pair, 1.0)?;
            let policy = split(&numbers(&logp), pair);
            let pair_loss = dpo(&preference(pair, policy, reference), settings.beta, settings.nll);
            let share = 1.0 / params.batch as f64;
            let (chosen, rejected) = lengths(pair);
            let mut grad = vec![pair_loss.grad_chosen * share; chosen];
            grad.resize(chosen + rejected, pair_loss.grad_rejected * share);
            backward(logp, &grad, &model, &mut gradients);
            mean.add(pair_loss.value, pair_loss.margin, policy);
            tokens += pair.prompt.len() + pair.tokens();
        }
        let mean = mean.over(params.batch);
        let moved;
        (model, moved) = steps.update(model, &mut gradients, mean.loss)?;
        run.log.line(
            step,
            &[
                ("loss", mean.loss),
                ("lr", moved.rate),
                ("grad_norm", moved.norm),
                ("tokens", tokens as f64),
                ("margin", mean.margin),
                ("accuracy", mean.accuracy),
                ("chosen_logp", mean.chosen),
                ("rejected_logp", mean.rejected),
            ],
        )?;
        means.push(mean);
    }
    let over = |f: fn(&Mean) -> f64| recent(&means.iter().map(f).collect::<Vec<_>>());
    run.ctx.metric("train_loss", over(|m| m.loss));
    run.ctx.metric("accuracy", over(|m| m.accuracy));
    run.ctx.metric("margin", over(|m| m.margin));
    validate(&model.valid(), reference, &pairs.valid, settings, run)?;
    run.tell(params.steps, note(means.last().map(|mean| mean.loss)))?;
    Ok(model)
}

/// Sums over pairs, and then their means.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    loss: f64,
    margin: f64,
    /// Share of pairs whose margin is above 0.
    accuracy: f64,
    chosen: f64,
    rejected: f64,
}

impl Mean {
    fn add(&mut self, loss: f64, margin: f64, (chosen, rejected): Sums) {
        self.loss += loss;
        self.margin += margin;
        self.accuracy += f64::from(u8::from(margin > 0.0));
        self.chosen += chosen;
        self.rejected += rejected;
    }

    /// The means of what was added for `count` pairs.
    fn over(self, count: usize) -> Mean {
        let n = count.max(1) as f64;
        Mean {
            loss: self.loss / n,
            margin: self.margin / n,
            accuracy: self.accuracy / n,
            chosen: self.chosen / n,
            rejected: self.rejected / n,
        }
    }
}

fn validate(
    model: &Llama<Back>,
    reference: &Llama<Back>,
    pairs: &[Group],
    settings: &Dpo,
    run: &Run,
) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    let mut mean = Mean::default();
    for pair in pairs {
        run.tell(run.params.steps, "validation")?;
        let (policy, reference) = (sums(model, pair)?, sums(reference, pair)?);
        let loss = dpo(&preference(pair, policy, reference), settings.beta, settings.nll);
        mean.add(loss.value, loss.margin, policy);
    }
    let mean = mean.over(pairs.len());
    run.ctx.metric("valid_loss", mean.loss);
    run.ctx.metric("valid_accuracy", mean.accuracy);
    run.ctx.metric("valid_margin", mean.margin);
    Ok(())
}

fn lengths(pair: &Group) -> (usize, usize) {
    let chosen = pair.completions.first().map_or(0, Vec::len);
    (chosen, pair.tokens() - chosen)
}

fn split(logp: &[f64], pair: &Group) -> Sums {
    let (chosen, rejected) = logp.split_at(lengths(pair).0.min(logp.len()));
    (chosen.iter().sum(), rejected.iter().sum())
}

fn sums<B: Kernels>(model: &Llama<B>, pair: &Group) -> Result<Sums> {
    Ok(split(&numbers(&group(model, pair, 1.0)?), pair))
}

fn preference(pair: &Group, policy: Sums, reference: Sums) -> Preference {
    Preference {
        chosen: policy.0,
        rejected: policy.1,
        ref_chosen: reference.0,
        ref_rejected: reference.1,
        chosen_tokens: lengths(pair).0,
    }
}
