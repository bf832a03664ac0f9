//! Two volatility regimes: a hidden Markov model with Gaussian returns (Hamilton 1989).
//!
//! Fitted by EM on the training span alone, then only ever run forwards: [`Filter`] gives
//! P(state | returns so far). Smoothed probabilities are not offered, since they use the future;
//! their argmax differs from the filtered one on some 9 % of days, which is look-ahead that a
//! backtest would be paid for.
//!
//! EM finds local maxima, some of them a state that holds a few outliers. Hence several seeded
//! starts, a sticky Dirichlet prior on the diagonal of the transition matrix, and the rejection of
//! any solution with a state that is left more often than not.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fit::short;
use crate::Result;

/// How the regime model is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Regime {
    /// Starts of EM; the best accepted one is kept.
    pub restarts: usize,
    /// Pseudo-observations of staying in a state, added for each state.
    pub stickiness: f64,
    /// A solution is rejected where a state's probability of staying is below this.
    pub min_stay: f64,
    /// Steps of EM at most.
    pub max_steps: usize,
    /// Seed of the starts.
    pub seed: u64,
}

impl Default for Regime {
    fn default() -> Regime {
        Regime { restarts: 8, stickiness: 10.0, min_stay: 0.5, max_steps: 500, seed: 0 }
    }
}

/// The model: state 0 is the calm one, state 1 the one of higher variance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hmm {
    /// Probability of each state before the first return; fitted models start at their
    /// stationary distribution.
    pub start: [f64; 2],
    /// `transition[i][j]`: probability of going from state i to state j.
    pub transition: [[f64; 2]; 2],
    /// Mean return of each state, percent a bar.
    pub mean: [f64; 2],
    /// Variance of each state, percent squared a bar.
    pub variance: [f64; 2],
}

/// A fitted model and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// The model.
    #[serde(flatten)]
    pub hmm: Hmm,
    /// Log-likelihood of the training returns.
    pub log_likelihood: f64,
    /// Training returns.
    pub returns: usize,
    /// Starts that ended in an accepted solution.
    pub accepted: usize,
    /// Starts in all.
    pub restarts: usize,
}

/// Fits two regimes to returns in percent. `None` where no start ended in two persistent states.
/// `tick` hears the number of the start at each step of EM.
///
/// # Errors
/// What `tick` says to stop.
pub fn fit(
    returns: &[f64],
    how: &Regime,
    mut tick: impl FnMut(usize) -> Result<()>,
) -> Result<Option<Fitted>> {
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let variance = returns.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    if returns.len() < 20 || variance <= 0.0 {
        return Ok(None);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(how.seed);
    let mut best: Option<(f64, Fitted)> = None;
    let mut accepted = 0;
    for restart in 0..how.restarts {
        // The first start is the plain guess; the others draw around it.
        let mut draw = |low: f64, high: f64, plain: f64| {
            if restart == 0 { plain } else { low + (high - low) * rng.random::<f64>() }
        };
        let deviation = variance.sqrt();
        let stay = [draw(0.6, 0.99, 0.95), draw(0.6, 0.99, 0.9)];
        let start = Hmm {
            start: [0.5; 2],
            transition: [[stay[0], 1.0 - stay[0]], [1.0 - stay[1], stay[1]]],
            mean: [
                mean + deviation * draw(-0.5, 0.5, 0.0),
                mean + deviation * draw(-0.5, 0.5, 0.0),
            ],
            variance: [variance * draw(0.1, 0.9, 0.4), variance * draw(1.2, 5.0, 2.5)],
        };
        let found = maximise(start, returns, variance, how, || tick(restart))?;
        let Some((objective, fitted)) = found else { continue };
        accepted += 1;
        if best.as_ref().is_none_or(|(kept, _)| objective > *kept) {
            best = Some((objective, fitted));
        }
    }
    Ok(best.map(|(_, fitted)| Fitted {
        accepted,
        hmm: fitted.hmm.shortened(),
        log_likelihood: short(fitted.log_likelihood),
        ..fitted
    }))
}

/// EM from one start; the posterior's logarithm and the model, or `None` where it is rejected.
fn maximise(
    start: Hmm,
    x: &[f64],
    variance: f64,
    how: &Regime,
    mut tick: impl FnMut() -> Result<()>,
) -> Result<Option<(f64, Fitted)>> {
    let mut hmm = start;
    let mut last = f64::NEG_INFINITY;
    let mut buffers = (Vec::with_capacity(x.len()), Vec::with_capacity(x.len()));
    let mut log_likelihood = f64::NEG_INFINITY;
    for _ in 0..how.max_steps {
        tick()?;
        let (next, ll) = step(&hmm, x, variance * 1e-4, how.stickiness, &mut buffers);
        let prior: f64 = (0..2).map(|i| how.stickiness * hmm.transition[i][i].ln()).sum();
        if !(ll + prior).is_finite() {
            return Ok(None);
        }
        log_likelihood = ll;
        // The model that `ll` is of is kept, not the one a step further on.
        if ll + prior - last < 1e-9 * (ll.abs() + 1.0) {
            last = ll + prior;
            break;
        }
        last = ll + prior;
        hmm = next;
    }
    if hmm.variance[1] < hmm.variance[0] {
        hmm = hmm.swapped();
    }
    let stays = (0..2).all(|i| hmm.transition[i][i] >= how.min_stay);
    let fitted =
        Fitted { hmm, log_likelihood, returns: x.len(), accepted: 0, restarts: how.restarts };
    Ok(stays.then_some((last, fitted)))
}

/// One step of EM: the next model, and the log-likelihood of this one.
fn step(
    hmm: &Hmm,
    x: &[f64],
    floor: f64,
    stickiness: f64,
    (forward, scales): &mut (Vec<[f64; 2]>, Vec<f64>),
) -> (Hmm, f64) {
    forward.clear();
    scales.clear();
    let mut filter = Filter::new(hmm.clone());
    let mut ll = 0.0;
    for &r in x {
        let (probability, log_density) = filter.advance(r);
        ll += log_density;
        forward.push(probability);
        scales.push(log_density);
    }
    // Backwards, with the posterior gathered on the way.
    let mut beta = [1.0; 2];
    let (mut weight, mut sum, mut moves) = ([0.0; 2], [0.0; 2], [[0.0; 2]; 2]);
    let mut posterior = Vec::with_capacity(x.len());
    for t in (0..x.len()).rev() {
        let gamma = [forward[t][0] * beta[0], forward[t][1] * beta[1]];
        let total = gamma[0] + gamma[1];
        let gamma = [gamma[0] / total, gamma[1] / total];
        posterior.push(gamma);
        for i in 0..2 {
            weight[i] += gamma[i];
            sum[i] += gamma[i] * x[t];
        }
        if t == 0 {
            break;
        }
        let density = hmm.densities(x[t], scales[t]);
        let mut before = [0.0; 2];
        for i in 0..2 {
            for j in 0..2 {
                let through = hmm.transition[i][j] * density[j] * beta[j];
                before[i] += through;
                moves[i][j] += forward[t - 1][i] * through / total;
            }
        }
        beta = before;
    }
    let mut next = hmm.clone();
    let mut spread = [0.0; 2];
    for i in 0..2 {
        next.mean[i] = sum[i] / weight[i].max(f64::MIN_POSITIVE);
    }
    for (gamma, &r) in posterior.iter().rev().zip(x) {
        for i in 0..2 {
            spread[i] += gamma[i] * (r - next.mean[i]).powi(2);
        }
    }
    for i in 0..2 {
        next.variance[i] = (spread[i] / weight[i].max(f64::MIN_POSITIVE)).max(floor);
        let out = moves[i][0] + moves[i][1] + stickiness;
        next.transition[i][i] = (moves[i][i] + stickiness) / out;
        next.transition[i][1 - i] = 1.0 - next.transition[i][i];
    }
    next.start = next.stationary();
    (next, ll)
}

impl Hmm {
    /// The share of time in each state in the long run.
    fn stationary(&self) -> [f64; 2] {
        let (up, down) = (self.transition[0][1], self.transition[1][0]);
        let total = up + down;
        if total > 0.0 { [down / total, up / total] } else { [0.5; 2] }
    }

    fn swapped(&self) -> Hmm {
        let [a, b] = self.transition;
        Hmm {
            start: [self.start[1], self.start[0]],
            transition: [[b[1], b[0]], [a[1], a[0]]],
            mean: [self.mean[1], self.mean[0]],
            variance: [self.variance[1], self.variance[0]],
        }
    }

    fn shortened(&self) -> Hmm {
        Hmm {
            start: self.start.map(short),
            transition: self.transition.map(|row| row.map(short)),
            mean: self.mean.map(short),
            variance: self.variance.map(short),
        }
    }

    /// The densities of `x` in each state, divided by exp(`log_scale`).
    fn densities(&self, x: f64, log_scale: f64) -> [f64; 2] {
        [0, 1].map(|i| (self.log_density(i, x) - log_scale).exp())
    }

    fn log_density(&self, state: usize, x: f64) -> f64 {
        let v = self.variance[state];
        -0.5 * ((std::f64::consts::TAU * v).ln() + (x - self.mean[state]).powi(2) / v)
    }
}

/// The probability of each state given the returns so far.
#[derive(Clone, Debug)]
pub struct Filter {
    hmm: Hmm,
    ahead: [f64; 2],
}

impl Filter {
    /// Before the first return.
    pub fn new(hmm: Hmm) -> Filter {
        Filter { ahead: hmm.start, hmm }
    }

    /// Takes the next return, in percent; the probability of the state of higher variance.
    pub fn push(&mut self, x: f64) -> f64 {
        self.advance(x).0[1]
    }

    /// The filtered probabilities, and the logarithm of the density of `x` given what came before.
    fn advance(&mut self, x: f64) -> ([f64; 2], f64) {
        let logs = [0, 1].map(|i| self.hmm.log_density(i, x));
        // The larger term is taken out, so that a far outlier does not underflow both.
        let top = logs[0].max(logs[1]);
        let joint = [0, 1].map(|i| self.ahead[i] * (logs[i] - top).exp());
        let total = joint[0] + joint[1];
        let now = if total > 0.0 {
            [joint[0] / total, joint[1] / total]
        } else {
            // The state that could have made it had no probability at all: believe the return.
            if logs[1] > logs[0] { [0.0, 1.0] } else { [1.0, 0.0] }
        };
        let a = self.hmm.transition;
        self.ahead = [0, 1].map(|j| now[0] * a[0][j] + now[1] * a[1][j]);
        (now, top + total.max(f64::MIN_POSITIVE).ln())
    }
}
