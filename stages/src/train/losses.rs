//! The three losses as plain functions of log-probabilities: values and gradients, no tensors.
//!
//! Each loss here is a function of the log-probability of single tokens (or of sums of them), so its
//! gradient with respect to these is a list of numbers. The training loops take the
//! log-probabilities out of the graph, ask this file for the gradient, and send it back through the
//! model as the weights of a sum. The formulas thus stay readable, run in f64, and are compared with
//! reference values to the last digits without a tensor library.
//!
//! Not here: where log-probabilities come from (`logps.rs`), and KL penalties, which DAPO drops.

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

/// DPO (Rafailov et al., arXiv 2305.18290, eq. 7) of one pair, plus `nll` times the mean negative
/// log-probability of a chosen token (Pang et al., arXiv 2404.19733, eq. 1).
///
/// DPO alone only moves the two completions apart and lets both become less likely; a base that
/// does not know the form of an answer yet needs the second term to learn it.
pub fn dpo(pair: &Preference, beta: f64, nll: f64) -> PreferenceLoss {
    let margin = beta * ((pair.chosen - pair.ref_chosen) - (pair.rejected - pair.ref_rejected));
    // -log sigma(m) = log(1 + exp(-m)), written so that neither side overflows.
    let sigmoid = (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
    let slope = -beta / (1.0 + margin.exp());
    let per_token = nll / pair.chosen_tokens.max(1) as f64;
    PreferenceLoss {
        value: sigmoid - per_token * pair.chosen,
        grad_chosen: slope - per_token,
        grad_rejected: -slope,
        margin,
    }
}

/// Advantages within one group: `(r - mean) / (std + eps)`, std with `n - 1` below (Yu et al.,
/// arXiv 2503.14476, eq. 9; the eps 1e-6 is verl's). All zero for a group of one.
pub fn advantages(rewards: &[f64], eps: f64) -> Vec<f64> {
    let n = rewards.len() as f64;
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let mean = rewards.iter().sum::<f64>() / n;
    let var = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0);
    rewards.iter().map(|r| (r - mean) / (var.sqrt() + eps)).collect()
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

/// DAPO's token-level policy loss (arXiv 2503.14476, eq. 8), as a loss to minimise.
///
/// `logp`, `old` and `advantage` hold one entry a token that counts (completions after each other;
/// masked tokens left out). As in [`cross_entropy`], `tokens` is the count over the whole optimizer
/// batch: dividing each part by its own count instead is a known mistake.
pub fn dapo(logp: &[f64], old: &[f64], advantage: &[f64], clip: Clip, tokens: usize) -> PolicyLoss {
    let n = tokens.max(1) as f64;
    let mut value = 0.0;
    let mut clipped = 0;
    let mut grad = Vec::with_capacity(logp.len());
    for ((l, o), a) in logp.iter().zip(old).zip(advantage) {
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
        value += loss / n;
        grad.push(slope / n);
    }
    PolicyLoss { loss: TokenLoss { value, grad }, clipped }
}

#[cfg(test)]
#[path = "losses_tests.rs"]
mod tests;
