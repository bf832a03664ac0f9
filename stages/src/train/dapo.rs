//! Reinforcement learning from the reward of sampled answers: DAPO (Yu et al., arXiv 2503.14476).
//!
//! A step samples groups of completions, scores them, and makes several updates, each on its own
//! part of the groups, as the paper does. Completions are sampled without top-k and top-p, so that the
//! probabilities of sampling are those of the loss, at the same temperature. Under a grammar (`form`)
//! both are probabilities among the tokens that it allows, and a token that it forces has no part in
//! the loss, nor in the number of tokens that the loss is a mean over.
//!
//! The first update of a step is on the policy that sampled: its own log-probabilities are the old
//! ones, and every ratio is 1. Later updates take those of sampling; `logp_gap` in the log is how far
//! the two lie apart.
//!
//! Dynamic sampling: a group whose rewards (before the length penalty) are all equal teaches
//! nothing and is replaced by another prompt's, until the batch is full or `max_rounds` batches
//! have been sampled. verl then stops with an error, as does `short: fail`. With `short: train` a
//! smaller batch trains as long as one group is left, and the log counts what was dropped; with none
//! left, the first step is an error and a later one ends the training with a warning, since a policy
//! that always answers alike has nothing more to learn from its own answers.
//!
//! There is no KL term and no reference model, as in the paper.

use serde::{Deserialize, Serialize};

use super::data::Shuffle;
use super::logps::{Group, backward, group, numbers};
use super::losses::{Clip, PolicyLoss, advantages, dapo, informative, soft_overlong, weights};
use super::options::{Dapo, Short};
use super::steps::{Gradients, Run, Steps, Watch, recent};
use crate::device::Train;
use crate::model::{Choice, Llama};
use crate::{Result, StageError};

/// Rewards of a group that differ by less are equal.
const TOLERANCE: f64 = 1e-6;

/// A sampled completion.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its tokens, the end-of-text token included where it came to one.
    pub tokens: Vec<u32>,
    /// Their log-probabilities when they were sampled.
    pub logp: Vec<f64>,
    /// Under a grammar: what each was chosen among. Empty without one.
    pub choices: Vec<Choice>,
    /// False where it was cut off at the limit.
    pub ended: bool,
}

impl Sample {
    /// Whether each token was chosen and not forced.
    fn choosing(&self) -> impl Iterator<Item = bool> {
        let free = self.choices.is_empty();
        (0..self.tokens.len())
            .map(move |i| free || self.choices.get(i).is_some_and(Option::is_some))
    }
    /// Tokens that were not forced.
    fn chosen(&self) -> usize {
        self.choosing().filter(|chosen| *chosen).count()
    }
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug)]
pub struct Scored {
    /// The reward.
    pub reward: f64,
    /// Whether it could be read at all.
    pub parsed: bool,
}

/// Where samples and rewards come from; a test may put its own in place.
pub trait World {
    /// The prompt of question `at`, as tokens.
    fn prompt(&self, at: usize) -> &[u32];
    /// How many questions there are; at least one.
    fn questions(&self) -> usize;
    /// Samples `count` completions of question `at`.
    fn sample(&mut self, model: &Llama<Train>, at: usize, count: usize) -> Result<Vec<Sample>>;
    /// Scores a completion of question `at`.
    fn score(&mut self, at: usize, sample: &Sample) -> Result<Scored>;
    /// The line that question `at` comes from.
    fn line(&self, at: usize) -> u64;
    /// Goes on where `groups` groups have been sampled already.
    fn skip(&mut self, groups: usize);
}

/// A group that will be trained on.
struct Rollout {
    group: Group,
    /// One a token that was not forced, completion by completion, as are those that follow.
    old: Vec<f64>,
    advantage: Vec<f64>,
    /// False for the tokens of completions that are left out of the loss.
    counts: Vec<bool>,
    /// The line of its prompt.
    line: u64,
}

impl Rollout {
    /// How many tokens of each completion count.
    fn lengths(&self) -> Vec<usize> {
        let mut at = 0;
        let counted = |chosen: usize| {
            let part = &self.counts[at..at + chosen];
            at += chosen;
            part.iter().filter(|counts| **counts).count()
        };
        self.group.chosen().into_iter().map(counted).collect()
    }

    /// Of a number for each token those whose token counts.
    fn kept(&self, values: &[f64]) -> Vec<f64> {
        let pairs = values.iter().zip(&self.counts);
        pairs.filter(|(_, counts)| **counts).map(|(value, _)| *value).collect()
    }

    /// The loss of the tokens that count, and its derivative by the log-probability `now` of every
    /// token, those that do not count among them.
    fn loss(&self, now: &[f64], old: &[f64], weight: &[f64], clip: Clip) -> (PolicyLoss, Vec<f64>) {
        let [now, old, advantage, weight] =
            [now, old, &self.advantage, weight].map(|values| self.kept(values));
        let loss = dapo(&now, &old, &advantage, &weight, clip);
        let mut slopes = loss.loss.grad.iter();
        let slope = |counts: &bool| match counts {
            true => slopes.next().copied().unwrap_or(0.0),
            false => 0.0,
        };
        let grad = self.counts.iter().map(slope).collect();
        (loss, grad)
    }
}

/// What the loop knows beside weights.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    rewards: Vec<f64>,
    failures: Vec<f64>,
    tokens: usize,
    /// Groups sampled.
    asked: usize,
}

/// Trains the adapter of `model` in `world`.
pub fn run(
    model: Llama<Train>,
    world: &mut dyn World,
    settings: &Dapo,
    run: &mut Run,
) -> Result<Llama<Train>> {
    let params = run.params;
    let mut steps = Steps::new(run, settings.updates);
    let mut watch = Watch::new(params, false);
    let (mut model, mut step, mut state): (_, _, State) =
        run.resume(model, &mut steps, &mut watch)?;
    let mut order = Shuffle::new(world.questions(), run.ctx.seed());
    order.by_ref().take(state.asked).for_each(drop);
    world.skip(state.asked);
    while step < params.steps {
        step += 1;
        let mut seen = Seen::default();
        let rollouts = roll(&model, world, settings, run, &mut order, &mut seen, step, &state)?;
        state.asked += seen.groups;
        state.rewards.push(seen.mean());
        state.failures.push(seen.failures as f64 / seen.rewards.len().max(1) as f64);
        full(&rollouts, &seen, settings, step, params.batch)?;
        let mut done = Done::default();
        let per_update = rollouts.len().div_ceil(settings.updates).max(1);
        for (i, part) in rollouts.chunks(per_update).enumerate() {
            run.tell(step - 1, state.tokens, note(&state.rewards))?;
            model = update(model, &mut steps, part, settings, i == 0, &mut done)?;
        }
        state.tokens += seen.tokens;
        run.log.line(step, &line(&seen, &done, rollouts.len(), state.tokens))?;
        if rollouts.is_empty() {
            let message = "every group has equal rewards: the policy answers alike";
            run.ctx.warn(format!("stopped at step {step} of {}: {message}", params.steps));
            break;
        }
        run.checkpoint(step, &model, &steps, &watch, &state)?;
    }
    let State { rewards, failures, tokens, .. } = &state;
    run.ctx.metric("steps", rewards.len() as f64);
    run.ctx.metric("reward_first", recent(&rewards[..rewards.len().min(10)]));
    run.ctx.metric("reward_last", recent(rewards));
    run.ctx.metric("parse_failure_rate_first", recent(&failures[..failures.len().min(10)]));
    run.ctx.metric("parse_failure_rate_last", recent(failures));
    run.tell(params.steps, *tokens, note(rewards))?;
    Ok(model)
}

/// An error where too few groups teach something.
fn full(
    rollouts: &[Rollout],
    seen: &Seen,
    settings: &Dapo,
    step: usize,
    batch: usize,
) -> Result<()> {
    let hint = "raise `dapo.temperature`, `dapo.group` or `dapo.max_rounds`, or teach the \
                base the form of an answer first (dpo with `nll`)";
    if rollouts.is_empty() && step == 1 {
        let message = format!("all {} groups have equal rewards", seen.dropped);
        return Err(StageError::failed(message).hint(hint));
    }
    if rollouts.len() < batch && settings.short == Short::Fail {
        let (kept, asked) = (rollouts.len(), seen.groups);
        let message = format!(
            "step {step}: {kept} of {asked} groups have rewards that differ, and the batch is of \
             {batch}"
        );
        return Err(StageError::failed(message).hint(format!("{hint}; or set `dapo.short: train`")));
    }
    Ok(())
}

fn note(rewards: &[f64]) -> String {
    rewards.last().map(|reward| format!("reward {reward:.3}")).unwrap_or_default()
}

/// What sampling saw in a step: all of it, also what was dropped.
#[derive(Default)]
struct Seen {
    rewards: Vec<f64>,
    failures: usize,
    cut: usize,
    dropped: usize,
    /// Groups sampled.
    groups: usize,
    tokens: usize,
    /// Those that were not forced.
    chosen: usize,
    /// Sum of the log-probabilities of all tokens.
    logp: f64,
}

impl Seen {
    fn mean(&self) -> f64 {
        self.rewards.iter().sum::<f64>() / self.rewards.len().max(1) as f64
    }
    fn std(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.rewards.iter().map(|r| (r - mean).powi(2)).sum();
        (squares / self.rewards.len().max(1) as f64).sqrt()
    }
}

/// What the updates of a step did.
#[derive(Default)]
struct Done {
    updates: usize,
    loss: f64,
    rate: f64,
    norm: f64,
    tokens: usize,
    clipped: usize,
    /// Largest difference between a log-probability when sampled and in the first update, before
    /// any weight has moved: rollout and trainer must agree.
    gap: f64,
}

fn line(seen: &Seen, done: &Done, groups: usize, tokens: usize) -> [(&'static str, f64); 15] {
    let samples = seen.rewards.len().max(1) as f64;
    let updates = done.updates.max(1) as f64;
    [
        ("loss", done.loss / updates),
        ("lr", done.rate),
        ("grad_norm", done.norm / updates),
        ("tokens", tokens as f64),
        ("reward_mean", seen.mean()),
        ("reward_std", seen.std()),
        ("samples", seen.rewards.len() as f64),
        ("parse_failures", seen.failures as f64),
        ("truncated", seen.cut as f64),
        ("groups", groups as f64),
        ("groups_dropped", seen.dropped as f64),
        ("response_length", seen.tokens as f64 / samples),
        ("entropy", -seen.logp / seen.chosen.max(1) as f64),
        ("clip_share", done.clipped as f64 / done.tokens.max(1) as f64),
        ("logp_gap", done.gap),
    ]
}

/// Samples until the batch is full of groups that teach something, or the bound is reached.
#[allow(clippy::too_many_arguments)]
fn roll(
    model: &Llama<Train>,
    world: &mut dyn World,
    settings: &Dapo,
    run: &Run,
    order: &mut Shuffle,
    seen: &mut Seen,
    step: usize,
    state: &State,
) -> Result<Vec<Rollout>> {
    let mut rollouts = Vec::new();
    for at in order.by_ref().take(run.params.batch * settings.max_rounds) {
        run.tell(step - 1, state.tokens + seen.tokens, note(&state.rewards))?;
        let samples = world.sample(model, at, settings.group)?;
        let scored = samples.iter().map(|sample| world.score(at, sample));
        let scored = scored.collect::<Result<Vec<Scored>>>()?;
        seen.groups += 1;
        let rewards: Vec<f64> = scored.iter().map(|scored| scored.reward).collect();
        seen.failures += scored.iter().filter(|scored| !scored.parsed).count();
        seen.cut += samples.iter().filter(|sample| !sample.ended).count();
        seen.tokens += samples.iter().map(|sample| sample.tokens.len()).sum::<usize>();
        seen.chosen += samples.iter().map(Sample::chosen).sum::<usize>();
        seen.logp += samples.iter().flat_map(|sample| &sample.logp).sum::<f64>();
        seen.rewards.extend_from_slice(&rewards);
        if !informative(&rewards, TOLERANCE) {
            seen.dropped += 1;
            continue;
        }
        rollouts.push(rollout(world.prompt(at), world.line(at), samples, rewards, settings));
        if rollouts.len() == run.params.batch {
            break;
        }
    }
    Ok(rollouts)
}

fn rollout(
    prompt: &[u32],
    line: u64,
    samples: Vec<Sample>,
    mut rewards: Vec<f64>,
    settings: &Dapo,
) -> Rollout {
    for (reward, sample) in rewards.iter_mut().zip(&samples) {
        *reward += soft_overlong(sample.tokens.len(), settings.max_tokens, settings.overlong_cache);
    }
    let (spread, epsilon) = (settings.advantage_std, settings.advantage_epsilon);
    let advantages = advantages(&rewards, spread, epsilon);
    let mut out = Rollout {
        group: Group::free(prompt.to_vec(), Vec::new()),
        old: Vec::new(),
        advantage: Vec::new(),
        counts: Vec::new(),
        line,
    };
    for (sample, advantage) in samples.into_iter().zip(advantages) {
        let chosen = sample.logp.iter().zip(sample.choosing()).filter(|(_, chosen)| *chosen);
        out.old.extend(chosen.map(|(logp, _)| *logp));
        out.advantage.resize(out.old.len(), advantage);
        out.counts.resize(out.old.len(), sample.ended || !settings.overlong_filter);
        out.group.completions.push(sample.tokens);
        if !sample.choices.is_empty() {
            out.group.choices.push(sample.choices);
        }
    }
    out
}

/// One update on some groups.
fn update(
    model: Llama<Train>,
    steps: &mut Steps,
    part: &[Rollout],
    settings: &Dapo,
    fresh: bool,
    done: &mut Done,
) -> Result<Llama<Train>> {
    let count = part.iter().flat_map(|r| &r.counts).filter(|counts| **counts).count();
    if count == 0 {
        return Ok(model);
    }
    let clip = Clip { low: settings.clip_low, high: settings.clip_high, dual: settings.dual_clip };
    // Of the whole batch, before any of it goes through the model.
    let lengths: Vec<Vec<usize>> = part.iter().map(Rollout::lengths).collect();
    let mut shares = weights(&lengths, settings.aggregate, settings.max_tokens).into_iter();
    let mut gradients = Gradients::new();
    let mut loss = 0.0;
    for rollout in part {
        let logp = group(&model, &rollout.group, settings.temperature as f32)?;
        let now = numbers(&logp);
        if fresh {
            let gaps = now.iter().zip(&rollout.old).map(|(now, old)| (now - old).abs());
            done.gap = gaps.fold(done.gap, f64::max);
        }
        let chosen = rollout.group.chosen().into_iter().zip(shares.by_ref());
        let weight: Vec<f64> =
            chosen.flat_map(|(tokens, share)| std::iter::repeat_n(share, tokens)).collect();
        let old = if fresh { &now } else { &rollout.old };
        let (part, grad) = rollout.loss(&now, old, &weight, clip);
        backward(logp, &grad, &model, &mut gradients);
        loss += part.loss.value;
        done.clipped += part.clipped;
    }
    let lines = || part.iter().map(|rollout| rollout.line).collect();
    let (model, moved) = steps.update(model, &mut gradients, loss, lines)?;
    done.updates += 1;
    done.tokens += count;
    done.loss += loss;
    done.norm += moved.norm;
    done.rate = moved.rate;
    Ok(model)
}

#[cfg(test)]
#[path = "dapo_tests.rs"]
mod tests;
