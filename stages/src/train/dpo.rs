//! Direct preference optimisation of a low-rank adapter.
//!
//! The reference is the base without its adapter; each pair's reference log-probabilities are
//! computed once, when the pair is first met, and kept. Prompt and completions are encoded
//! separately, so that no token spans the border between them.

use burn::module::AutodiffModule;
use serde::{Deserialize, Serialize};

use super::data::Shuffle;
use super::logps::{Group, backward, group, numbers};
use super::losses::{Preference, dpo};
use super::options::Dpo;
use super::steps::{Gradients, Run, Steps, Watch, note, recent};
use crate::Result;
use crate::device::{Back, Train};
use crate::model::{Kernels, Llama};

/// A preference pair as tokens.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The prompt and two completions, the chosen one first.
    pub group: Group,
    /// How much it counts.
    pub weight: f64,
    /// The line that it comes from.
    pub line: u64,
}

/// Preference pairs.
pub struct Pairs {
    /// Those to train on; at least one.
    pub train: Vec<Pair>,
    /// Those held out.
    pub valid: Vec<Pair>,
}

/// Sums of log-probabilities: of the chosen completion, and of the rejected one.
type Sums = (f64, f64);

/// What the loop knows beside weights.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    means: Vec<Mean>,
    tokens: usize,
    ended: bool,
}

/// Trains the adapter of `model`; `reference` is the same model without it.
pub fn run(
    model: Llama<Train>,
    reference: &Llama<Back>,
    pairs: &Pairs,
    settings: &Dpo,
    run: &mut Run,
) -> Result<Llama<Train>> {
    let params = run.params;
    let mut steps = Steps::new(run, 1);
    let mut watch = Watch::new(params, !pairs.valid.is_empty());
    let (mut model, mut done, mut state): (_, _, State) =
        run.resume(model, &mut steps, &mut watch)?;
    let mut gradients = Gradients::new();
    let mut order = Shuffle::new(pairs.train.len(), run.ctx.seed());
    order.by_ref().take(done * params.batch).for_each(drop);
    let mut known: Vec<Option<Sums>> = vec![None; pairs.train.len()];
    while done < params.steps && !state.ended {
        let step = done + 1;
        model.begin(step, 0);
        let mut mean = Mean::default();
        let mut lines = Vec::new();
        for at in order.by_ref().take(params.batch) {
            run.tell(done, state.tokens, note(state.means.last().map(|mean| mean.loss)))?;
            let (Some(pair), Some(known)) = (pairs.train.get(at), known.get_mut(at)) else {
                continue;
            };
            let reference = match *known {
                Some(sums) => sums,
                None => *known.insert(sums(reference, &pair.group)?),
            };
            let logp = group(&model, &pair.group, 1.0)?;
            let policy = split(&numbers(&logp), &pair.group);
            let pair_loss = dpo(&preference(pair, policy, reference), settings);
            let share = 1.0 / params.batch as f64;
            let (chosen, rejected) = lengths(&pair.group);
            let mut grad = vec![pair_loss.grad_chosen * share; chosen];
            grad.resize(chosen + rejected, pair_loss.grad_rejected * share);
            backward(logp, &grad, &model, &mut gradients);
            mean.add(pair_loss.value, pair_loss.margin, policy);
            lines.push(pair.line);
            state.tokens += pair.group.prompt.len() + pair.group.tokens();
        }
        let mean = mean.over(params.batch);
        let moved;
        (model, moved) = steps.update(model, &mut gradients, mean.loss, || lines)?;
        let mut line = vec![
            ("loss", mean.loss),
            ("lr", moved.rate),
            ("grad_norm", moved.norm),
            ("tokens", state.tokens as f64),
            ("margin", mean.margin),
            ("accuracy", mean.accuracy),
            ("chosen_logp", mean.chosen),
            ("rejected_logp", mean.rejected),
        ];
        state.means.push(mean);
        if watch.due(step) {
            let valid = validate(&model.valid(), reference, pairs, settings, step, run)?;
            line.extend([("valid_loss", valid.loss), ("valid_accuracy", valid.accuracy)]);
            state.ended = watch.note(step, valid.loss, &model);
        }
        run.log.line(step, &line)?;
        done = step;
        run.checkpoint(done, &model, &steps, &watch, &state)?;
    }
    let over = |f: fn(&Mean) -> f64| recent(&state.means.iter().map(f).collect::<Vec<_>>());
    run.ctx.metric("train_loss", over(|m| m.loss));
    run.ctx.metric("accuracy", over(|m| m.accuracy));
    run.ctx.metric("margin", over(|m| m.margin));
    let model = watch.choose(model, done, run);
    if !pairs.valid.is_empty() {
        let mean = validate(&model.valid(), reference, pairs, settings, params.steps, run)?;
        run.ctx.metric("valid_loss", mean.loss);
        run.ctx.metric("valid_accuracy", mean.accuracy);
        run.ctx.metric("valid_margin", mean.margin);
    }
    run.tell(params.steps, state.tokens, note(state.means.last().map(|mean| mean.loss)))?;
    Ok(model)
}

/// Sums over pairs, and then their means.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
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

/// Means over the pairs that are held out, of which there is one at least.
fn validate(
    model: &Llama<Back>,
    reference: &Llama<Back>,
    pairs: &Pairs,
    settings: &Dpo,
    step: usize,
    run: &Run,
) -> Result<Mean> {
    let mut mean = Mean::default();
    for pair in &pairs.valid {
        run.tell(step, 0, "validation")?;
        let (policy, reference) = (sums(model, &pair.group)?, sums(reference, &pair.group)?);
        let loss = dpo(&preference(pair, policy, reference), settings);
        mean.add(loss.value, loss.margin, policy);
    }
    Ok(mean.over(pairs.valid.len()))
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

fn preference(pair: &Pair, policy: Sums, reference: Sums) -> Preference {
    let (chosen_tokens, rejected_tokens) = lengths(&pair.group);
    Preference {
        chosen: policy.0,
        rejected: policy.1,
        ref_chosen: reference.0,
        ref_rejected: reference.1,
        chosen_tokens,
        rejected_tokens,
        weight: pair.weight,
    }
}
