//! Volatility by GARCH(1,1) (Bollerslev 1986), fitted on the training span.
//!
//! r_t = mu + e_t with returns in percent, v_(t+1) = omega + alpha e_t^2 + beta v_t. The Gaussian
//! likelihood is climbed by the simplex of Nelder and Mead (1965) over mu, the long-run variance,
//! alpha + beta and alpha's share of it, so that any point is a stationary model. The first
//! variance is the average of the first 75 e^2 with weights 0.94^i, as the `arch` package has it:
//! it belongs to the training span, as everything that is fitted does.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parts::{Nothing, Previous};
use super::regime::KEPT;
use super::{Entry, Feature, Learner, Need, Shape};
use crate::market::Sample;
use crate::{Result, StageError};

/// The forecast of the next sample's volatility.
pub const GARCH: Entry = Entry {
    name: "garch_vol",
    aliases: &["garch"],
    suffix: None,
    formula: "sqrt(v_(t+1) P), v_(t+1) = omega + alpha (100 r_t - mu)^2 + beta v_t, fitted on the \
              training span",
    unit: "percent a year",
    source: "Bollerslev 1986",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Nothing>(),
    make: |_, making| {
        let fit: Garch = making.fitted()?;
        Ok(forecast(fit, making.periods_per_year))
    },
    fit: Some(|_, _| {
        Ok(Box::new(Gathering {
            previous: Previous::default(),
            returns: VecDeque::new(),
            model: Box::new(|returns, tick| {
                let fitted = fit(returns, |step| tick(step, 1800))?.ok_or_else(|| {
                    let n = returns.len();
                    StageError::failed(format!("GARCH cannot be fitted to {n} returns"))
                        .hint("it needs 100 returns and more that vary; train on a longer span")
                })?;
                Ok(serde_json::to_value(fitted).map_err(std::io::Error::from)?)
            }),
        }))
    }),
};

/// The model, of returns in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Garch {
    /// Mean return.
    pub mu: f64,
    /// Constant of the variance.
    pub omega: f64,
    /// Weight of the last squared residual.
    pub alpha: f64,
    /// Weight of the last variance.
    pub beta: f64,
    /// What stands for both before the first return.
    pub backcast: f64,
    /// Log-likelihood of the training returns.
    pub log_likelihood: f64,
}

impl Recursion for Garch {
    fn first(&self) -> f64 {
        self.omega + (self.alpha + self.beta) * self.backcast
    }
    fn next(&self, variance: f64, x: f64) -> f64 {
        let e = x - self.mu;
        self.omega + self.alpha * e * e + self.beta * variance
    }
    fn log_likelihood(&self) -> f64 {
        self.log_likelihood
    }
}

impl Garch {
    /// The model at a point of the simplex: mu, ln long-run variance, logits of persistence and of
    /// alpha's share.
    fn at(point: &[f64; 4], x: &[f64], backcast: f64) -> Garch {
        let logistic = |z: f64| 1.0 / (1.0 + (-z).exp());
        let persistence = logistic(point[2]);
        let alpha = persistence * logistic(point[3]);
        let omega = (1.0 - persistence) * point[1].exp();
        let beta = persistence - alpha;
        let mut model = Garch { mu: point[0], omega, alpha, beta, backcast, log_likelihood: 0.0 };
        let mut variance = model.first();
        for &r in x {
            let e = r - model.mu;
            model.log_likelihood -=
                0.5 * ((std::f64::consts::TAU * variance).ln() + e * e / variance);
            variance = model.next(variance, r);
        }
        model
    }
}

/// What stands for the variance before the first return; residuals are from the plain mean.
pub(super) fn backcast(mu: f64, x: &[f64]) -> f64 {
    let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
    for r in x.iter().take(75) {
        sum += weight * (r - mu) * (r - mu);
        weights += weight;
        weight *= 0.94;
    }
    sum / weights
}

/// Fits returns in percent; `None` where they are fewer than 100 or do not vary. `tick` hears of
/// each step.
///
/// # Errors
/// What `tick` says to stop.
pub fn fit(x: &[f64], tick: impl FnMut(u64) -> Result<()>) -> Result<Option<Garch>> {
    // Persistence 0.95, of which alpha has a tenth.
    let start = |mean, level| [mean, level, 2.944, -2.197];
    let sides = |deviation| [0.1 * deviation, 0.5, 1.0, 1.0];
    // A simplex may shrink before it is there: begun anew twice.
    climb(x, start, sides, &[1.0, 0.3, 0.05], 600, Garch::at, tick)
}

/// The model of the greatest likelihood of returns in percent; `None` where they are fewer than 100 or
/// do not vary. A simplex begins at `start` of the mean and the logarithm of the variance, with
/// `sides` of the deviation times the first of `scales`; another where it ends with the next.
pub(super) fn climb<M: Recursion, const N: usize>(
    x: &[f64],
    start: impl Fn(f64, f64) -> [f64; N],
    sides: impl Fn(f64) -> [f64; N],
    scales: &[f64],
    steps: usize,
    at: impl Fn(&[f64; N], &[f64], f64) -> M,
    mut tick: impl FnMut(u64) -> Result<()>,
) -> Result<Option<M>> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n;
    if x.len() < 100 || variance <= 0.0 {
        return Ok(None);
    }
    let backcast = backcast(mean, x);
    let cost = |point: &[f64; N]| {
        let ll = at(point, x, backcast).log_likelihood();
        if ll.is_finite() { -ll } else { f64::INFINITY }
    };
    let (mut best, mut taken) = (start(mean, variance.ln()), 0);
    for scale in scales {
        let sides = sides(variance.sqrt()).map(|side| side * scale);
        best = minimise(cost, best, sides, steps, |_| {
            taken += 1;
            tick(taken)
        })?;
    }
    let found = at(&best, x, backcast);
    Ok(found.log_likelihood().is_finite().then_some(found))
}

/// Nelder and Mead's simplex from `start`, with sides of those lengths, for so many steps at most.
///
/// # Errors
/// What `tick` says to stop.
fn minimise<const N: usize>(
    cost: impl Fn(&[f64; N]) -> f64,
    start: [f64; N],
    sides: [f64; N],
    steps: usize,
    mut tick: impl FnMut(f64) -> Result<()>,
) -> Result<[f64; N]> {
    let mut corners: Vec<([f64; N], f64)> = vec![(start, cost(&start))];
    for (i, side) in sides.iter().enumerate() {
        let mut corner = start;
        corner[i] += side;
        corners.push((corner, cost(&corner)));
    }
    for _ in 0..steps {
        corners.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, worst) = (corners[0].1, corners[N]);
        tick(best)?;
        if worst.1 - best <= 1e-12 * best.abs() {
            break;
        }
        let centre: [f64; N] =
            std::array::from_fn(|i| corners[..N].iter().map(|c| c.0[i]).sum::<f64>() / N as f64);
        let along = |step: f64| -> ([f64; N], f64) {
            let point = std::array::from_fn(|i| centre[i] + step * (worst.0[i] - centre[i]));
            (point, cost(&point))
        };
        let reflected = along(-1.0);
        let taken = if reflected.1 < best {
            let further = along(-2.0);
            if further.1 < reflected.1 { Some(further) } else { Some(reflected) }
        } else if reflected.1 < corners[N - 1].1 {
            Some(reflected)
        } else {
            let inside = along(if reflected.1 < worst.1 { -0.5 } else { 0.5 });
            (inside.1 < worst.1.min(reflected.1)).then_some(inside)
        };
        match taken {
            Some(corner) => corners[N] = corner,
            None => {
                let to = corners[0].0;
                for corner in &mut corners[1..] {
                    corner.0 = std::array::from_fn(|i| to[i] + 0.5 * (corner.0[i] - to[i]));
                    corner.1 = cost(&corner.0);
                }
            }
        }
    }
    corners.sort_by(|a, b| a.1.total_cmp(&b.1));
    Ok(corners[0].0)
}

/// A model of the variance of the next return by that of the last.
pub(super) trait Recursion: Send {
    /// The variance of the first return.
    fn first(&self) -> f64;
    /// The variance of the next return, after one of `x` whose own was `variance`.
    fn next(&self, variance: f64, x: f64) -> f64;
    /// The log-likelihood of the returns that it was fitted to.
    fn log_likelihood(&self) -> f64;
}

/// The volatility of the next sample by a model, of `periods` samples a year.
pub(super) fn forecast(fit: impl Recursion + 'static, periods: f64) -> Box<dyn Feature> {
    let variance = fit.first();
    Box::new(Forecast { fit, previous: Previous::default(), variance, periods })
}

struct Forecast<M> {
    fit: M,
    previous: Previous,
    variance: f64,
    periods: f64,
}

impl<M: Recursion> Feature for Forecast<M> {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let change = 100.0 * self.previous.log_return(sample.close)?;
        self.variance = self.fit.next(self.variance, change);
        Some((self.variance * self.periods).sqrt())
    }
}

/// Makes a fit of returns in percent; its second argument hears of steps done, of how many.
type Model = dyn Fn(&[f64], &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Value> + Send;

/// Gathers returns in percent, the last [`KEPT`], for a model.
pub(super) struct Gathering {
    pub previous: Previous,
    pub returns: VecDeque<f64>,
    pub model: Box<Model>,
}

impl Learner for Gathering {
    fn push(&mut self, sample: &Sample) {
        let Some(change) = self.previous.log_return(sample.close) else { return };
        if self.returns.len() == KEPT {
            self.returns.pop_front();
        }
        self.returns.push_back(100.0 * change);
    }

    fn finish(self: Box<Self>, tick: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Value> {
        let returns: Vec<f64> = self.returns.into();
        (self.model)(&returns, tick)
    }
}
