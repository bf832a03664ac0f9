//! The losses as plain functions of log-probabilities: values and gradients, no tensors.
//!
//! Each loss here is a function of the log-probability of single tokens (or of sums of them), so its
//! gradient with respect to these is a list of numbers. The training loops take the
//! log-probabilities out of the graph, ask this file for the gradient, and send it back through the
//! model as the weights of a sum. The formulas thus stay readable, run in f64, and are compared with
//! reference values to the last digits without a tensor library.
//!
//! Not here: where log-probabilities come from (`logps.rs`), and KL penalties, which DAPO drops.

use super::options::{Aggregate, Dpo, Objective, Spread};

/// The result of a loss over tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLoss {
    /// The loss.
    pub value: f64,
    /// Its derivative with respect to each token's log-probability.
    pub grad: Vec<f64>,
}

/// Cross-entropy: the mean negative log-probability over `tokens` tokens (nats).
///
/// `tokens` is the number of the whole optimizer batch, of which `logp` may be a part; the values
/// and gradients of the parts then add up to those of the batch.
pub fn cross_entropy(logp: &[f64], tokens: usize) -> TokenLoss {
    let n = tokens.max(1) as f64;
    TokenLoss { value: -logp.iter().sum::<f64>() / n, grad: vec![-1.0 / n; logp.len()] }
}

/// A preference pair as DPO sees it: log-probabilities of completions, summed over their tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preference {
    /// The chosen completion under the policy.
    pub chosen: f64,
    /// The rejected completion under the policy.
    pub rejected: f64,
    /// The chosen completion under the reference.
    pub ref_chosen: f64,
    /// The rejected completion under the reference.
    pub ref_rejected: f64,
    /// Tokens of the chosen completion, its end included.
    pub chosen_tokens: usize,
    /// Tokens of the rejected completion, its end included.
    pub rejected_tokens: usize,
    /// How much the pair counts: 1, or the gap of its rewards.
    pub weight: f64,
}

/// What DPO makes of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreferenceLoss {
    /// The loss of the pair.
    pub value: f64,
    /// Derivative with respect to `Preference::chosen`.
    pub grad_chosen: f64,
    /// Derivative with respect to `Preference::rejected`.
    pub grad_rejected: f64,
    /// Difference of the implicit rewards, `beta [(chosen - ref) - (rejected - ref)]`.
    pub margin: f64,
}

/// The preference loss of one pair times its weight (see [`Objective`] for the formulas), plus `nll`
/// times the mean negative log-probability of a chosen token (Pang et al., arXiv 2404.19733, eq. 1).
///
/// DPO alone only moves the two completions apart and lets both become less likely; a base that
/// does not know the form of an answer yet needs the second term to learn it.
pub fn dpo(pair: &Preference, settings: &Dpo) -> PreferenceLoss {
    let (beta, smooth) = (settings.beta, settings.label_smoothing);
    let (chosen, rejected) = (pair.chosen - pair.ref_chosen, pair.rejected - pair.ref_rejected);
    let margin = beta * (chosen - rejected);
    let near = -beta * sigmoid(-margin);
    let far = beta * sigmoid(margin);
    // Value, and its derivatives by the two log-ratios.
    let (value, by_chosen, by_rejected) = match settings.loss {
        Objective::Sigmoid => {
            let value = (1.0 - smooth) * softplus(-margin) + smooth * softplus(margin);
            let slope = (1.0 - smooth) * near + smooth * far;
            (value, slope, -slope)
        }
        Objective::Robust => {
            let share = 1.0 - 2.0 * smooth;
            let value = ((1.0 - smooth) * softplus(-margin) - smooth * softplus(margin)) / share;
            let slope = ((1.0 - smooth) * near - smooth * far) / share;
            (value, slope, -slope)
        }
        Objective::Hinge => {
            let slope = if margin < 1.0 { -beta } else { 0.0 };
            ((1.0 - margin).max(0.0), slope, -slope)
        }
        Objective::Ipo => {
            let tokens = |count: usize| if settings.ipo_mean { count.max(1) as f64 } else { 1.0 };
            let (n, m) = (tokens(pair.chosen_tokens), tokens(pair.rejected_tokens));
            let off = chosen / n - rejected / m - 0.5 / beta;
            (off * off, 2.0 * off / n, -2.0 * off / m)
        }
    };
    let per_token = settings.nll / pair.chosen_tokens.max(1) as f64;
    PreferenceLoss {
        value: pair.weight * value - per_token * pair.chosen,
        grad_chosen: pair.weight * by_chosen - per_token,
        grad_rejected: pair.weight * by_rejected,
        margin,
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `log(1 + e^x)`, written so that neither side overflows.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Advantages within one group: `(r - mean) / (std + eps)` (Yu et al., arXiv 2503.14476, eq. 9; the
/// eps 1e-6 is verl's). All zero for a group of one.
pub fn advantages(rewards: &[f64], spread: Spread, eps: f64) -> Vec<f64> {
    let n = rewards.len() as f64;
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let mean = rewards.iter().sum::<f64>() / n;
    let squares = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>();
    let below = match spread {
        Spread::Sample => (squares / (n - 1.0)).sqrt() + eps,
        Spread::Population => (squares / n).sqrt() + eps,
        Spread::None => 1.0,
    };
    rewards.iter().map(|r| (r - mean) / below).collect()
}

/// How much each completion's tokens count in the loss of a batch: a number a completion, group by
/// group. `groups` holds the lengths of the completions that count, `max` the most tokens one may
/// have. A completion without tokens that count weighs nothing.
pub fn weights(groups: &[Vec<usize>], aggregate: Aggregate, max: usize) -> Vec<f64> {
    let lengths = || groups.iter().flatten().copied();
    let share = |parts: usize| 1.0 / parts.max(1) as f64;
    let all: usize = lengths().sum();
    let completions = lengths().filter(|&n| n > 0).count();
    match aggregate {
        Aggregate::Tokens => lengths().map(|_| share(all)).collect(),
        Aggregate::Prompts => {
            let prompts = groups.iter().filter(|group| group.iter().any(|&n| n > 0)).count();
            let weight = |group: &Vec<usize>| share(prompts) * share(group.iter().sum());
            groups.iter().flat_map(|g| std::iter::repeat_n(weight(g), g.len())).collect()
        }
        Aggregate::Sequences => lengths().map(|n| share(completions) * share(n)).collect(),
        Aggregate::Fixed => lengths().map(|_| share(completions * max)).collect(),
    }
}

/// Whether a group teaches anything: its rewards differ by more than `tolerance`. The paper's
/// condition `0 < correct < G` for rewards that are not only 0 and 1.
pub fn informative(rewards: &[f64], tolerance: f64) -> bool {
    let max = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = rewards.iter().copied().fold(f64::INFINITY, f64::min);
    max - min > tolerance
}

/// Soft overlong punishment (arXiv 2503.14476, eq. 13): 0 up to `max - cache` tokens, then falling
/// linearly to -1 at `max`, and -1 beyond.
pub fn soft_overlong(tokens: usize, max: usize, cache: usize) -> f64 {
    let free = max.saturating_sub(cache);
    if tokens <= free {
        0.0
    } else if tokens <= max {
        (free as f64 - tokens as f64) / cache as f64
    } else {
        -1.0
    }
}

/// The clip of the probability ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// How far below 1 the ratio counts.
    pub low: f64,
    /// How far above 1 the ratio counts ("clip-higher").
    pub high: f64,
    /// For negative advantages the loss is at most this times `|A|` (verl's dual clip; not in the
    /// paper).
    pub dual: Option<f64>,
}

/// The policy loss and how much of it was clipped.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyLoss {
    /// Value and gradient.
    pub loss: TokenLoss,
    /// Tokens whose ratio was clipped, and which therefore pull no more.
    pub clipped: usize,
}

/// DAPO's policy loss (arXiv 2503.14476, eq. 8), as a loss to minimise.
///
/// `logp`, `old`, `advantage` and `weight` hold one entry a token that counts (completions after
/// each other; masked tokens left out). The weights are those of the whole optimizer batch, of which
/// the tokens may be a part: to weigh each part by its own count instead is a known mistake.
pub fn dapo(
    logp: &[f64],
    old: &[f64],
    advantage: &[f64],
    weight: &[f64],
    clip: Clip,
) -> PolicyLoss {
    let mut value = 0.0;
    let mut clipped = 0;
    let mut grad = Vec::with_capacity(logp.len());
    for (((l, o), a), w) in logp.iter().zip(old).zip(advantage).zip(weight) {
        // e^20 is far outside any clip; beyond it the product would only overflow.
        let ratio = (l - o).clamp(-20.0, 20.0).exp();
        let free = -a * ratio;
        let held = -a * ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
        let mut loss = free.max(held);
        let mut slope = if held > free { 0.0 } else { free };
        clipped += usize::from(held > free);
        if let Some(c) = clip.dual
            && *a < 0.0
            && loss > -a * c
        {
            loss = -a * c;
            slope = 0.0;
        }
        value += loss * w;
        grad.push(slope * w);
    }
    PolicyLoss { loss: TokenLoss { value, grad }, clipped }
}

#[cfg(test)]
#[path = "losses_tests.rs"]
mod tests;
