//! Volatility by GJR-GARCH(1,1) with Student-t returns (Glosten, Jagannathan and Runkle 1993;
//! Bollerslev 1987), fitted on the training span or given.
//!
//! r_t = mu + e_t with returns in percent, v_(t+1) = omega + (alpha + gamma 1(e_t < 0)) e_t^2 + beta v_t,
//! e_t / sqrt(v_t) of a t-distribution of unit variance: falls raise the volatility more than rises.
//! Maximised and begun as [`super::garch`], over mu, the long-run variance, the persistence
//! alpha + gamma / 2 + beta, the shares of alpha and of gamma / 2 in it, and nu: any point is a
//! stationary model with gamma of 0 or more.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::function::gamma::ln_gamma;

use super::garch::{Gathering, Recursion, backcast, climb, forecast};
use super::parts::Previous;
use super::{Entry, Need, Settings, Shape, read};
use crate::{Invalid, Result, StageError};

/// Parameters of `gjr_vol`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct How {
    /// The model, of returns in percent. Without it, it is fitted on the training span; with it, only the
    /// variance before the first return is taken from there.
    pub model: Option<Given>,
}

/// A model that is given.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Mean return, percent.
    pub mu: f64,
    /// Constant of the variance.
    pub omega: f64,
    /// Weight of the last squared residual.
    pub alpha: f64,
    /// Its additional weight after a fall.
    pub gamma: f64,
    /// Weight of the last variance.
    pub beta: f64,
    /// Degrees of freedom, above 2.
    pub nu: f64,
}

impl Settings for How {
    fn check(&self) -> Result<(), Invalid> {
        let Some(m) = &self.model else { return Ok(()) };
        let weights = [m.omega, m.alpha, m.alpha + m.gamma, m.beta];
        if !m.mu.is_finite() || !weights.iter().all(|x| *x >= 0.0 && x.is_finite()) {
            let why = "omega, alpha, alpha + gamma and beta must be 0 or more";
            return Err(Invalid::new("model", why));
        }
        if m.alpha + m.gamma / 2.0 + m.beta >= 1.0 || m.omega == 0.0 {
            let why = "alpha + gamma / 2 + beta must be below 1, and omega above 0";
            return Err(Invalid::new("model", why).help("its variance has no mean otherwise"));
        }
        if !(m.nu > 2.0 && m.nu.is_finite()) {
            return Err(Invalid::new("model.nu", "must be above 2"));
        }
        Ok(())
    }
}

/// The forecast of the next sample's volatility.
pub const GJR: Entry = Entry {
    name: "gjr_vol",
    aliases: &["gjr_garch", "gjr_t"],
    suffix: None,
    formula: "sqrt(v_(t+1) P), v_(t+1) = omega + (alpha + gamma 1[e_t < 0]) e_t^2 + beta v_t, \
              e_t = 100 r_t - mu of a Student t, fitted on the training span or given as `model`",
    unit: "percent a year",
    source: "Glosten, Jagannathan and Runkle 1993",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<How>(),
    make: |_, making| {
        let fit: Gjr = making.fitted()?;
        Ok(forecast(fit, making.periods_per_year))
    },
    fit: Some(|params, _| {
        let how: How = read(params)?;
        Ok(Box::new(Gathering {
            previous: Previous::default(),
            returns: VecDeque::new(),
            model: Box::new(move |returns, tick| {
                let fitted = match how.model {
                    Some(given) => given.on(returns),
                    None => fit(returns, |step| tick(step, 6000))?.ok_or_else(|| {
                        let n = returns.len();
                        StageError::failed(format!("GJR-GARCH cannot be fitted to {n} returns"))
                            .hint("it needs 100 returns and more that vary; train on a longer span")
                    })?,
                };
                Ok(serde_json::to_value(fitted).map_err(std::io::Error::from)?)
            }),
        }))
    }),
};

/// The model, of returns in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gjr {
    /// Mean return.
    pub mu: f64,
    /// Constant of the variance.
    pub omega: f64,
    /// Weight of the last squared residual.
    pub alpha: f64,
    /// Its additional weight after a fall.
    pub gamma: f64,
    /// Weight of the last variance.
    pub beta: f64,
    /// Degrees of freedom.
    pub nu: f64,
    /// What stands for the variance and the squared residual before the first return.
    pub backcast: f64,
    /// Log-likelihood of the training returns.
    pub log_likelihood: f64,
}

impl Given {
    /// The model, begun by these returns.
    pub fn on(&self, returns: &[f64]) -> Gjr {
        let Given { mu, omega, alpha, gamma, beta, nu } = *self;
        let mean = returns.iter().sum::<f64>() / (returns.len() as f64).max(1.0);
        let backcast = if returns.is_empty() { omega } else { backcast(mean, returns) };
        let model = Gjr { mu, omega, alpha, gamma, beta, nu, backcast, log_likelihood: 0.0 };
        Gjr { log_likelihood: model.likelihood(returns), ..model }
    }
}

impl Recursion for Gjr {
    fn first(&self) -> f64 {
        self.omega + (self.alpha + self.gamma / 2.0 + self.beta) * self.backcast
    }
    fn next(&self, variance: f64, x: f64) -> f64 {
        let e = x - self.mu;
        let weight = if e < 0.0 { self.alpha + self.gamma } else { self.alpha };
        self.omega + weight * e * e + self.beta * variance
    }
    fn log_likelihood(&self) -> f64 {
        self.log_likelihood
    }
}

impl Gjr {
    /// The log-likelihood of returns.
    pub fn likelihood(&self, x: &[f64]) -> f64 {
        let nu = self.nu;
        let constant = ln_gamma((nu + 1.0) / 2.0)
            - ln_gamma(nu / 2.0)
            - 0.5 * (std::f64::consts::PI * (nu - 2.0)).ln();
        let mut variance = self.first();
        let mut sum = 0.0;
        for &r in x {
            let e = r - self.mu;
            sum +=
                0.5 * variance.ln() + 0.5 * (nu + 1.0) * (e * e / (variance * (nu - 2.0))).ln_1p();
            variance = self.next(variance, r);
        }
        x.len() as f64 * constant - sum
    }

    /// The model at a point of the simplex: mu, ln long-run variance, logits of persistence, of the share
    /// of alpha and gamma / 2 in it, and of gamma's in theirs, and ln (nu - 2).
    fn at(point: &[f64; 6], x: &[f64], backcast: f64) -> Gjr {
        let logistic = |z: f64| 1.0 / (1.0 + (-z).exp());
        let persistence = logistic(point[2]);
        let moved = persistence * logistic(point[3]);
        let half_gamma = moved * logistic(point[4]);
        let model = Gjr {
            mu: point[0],
            omega: (1.0 - persistence) * point[1].exp(),
            alpha: moved - half_gamma,
            gamma: 2.0 * half_gamma,
            beta: persistence - moved,
            nu: 2.0 + point[5].exp(),
            backcast,
            log_likelihood: 0.0,
        };
        Gjr { log_likelihood: model.likelihood(x), ..model }
    }
}

/// Fits returns in percent; `None` where they are fewer than 100 or do not vary. `tick` hears of
/// each step.
///
/// # Errors
/// What `tick` says to stop.
pub fn fit(x: &[f64], tick: impl FnMut(u64) -> Result<()>) -> Result<Option<Gjr>> {
    // Persistence 0.95, of which a tenth is moved by residuals, half of it by falls alone; nu = 8.
    let start = |mean, level| [mean, level, 2.944, -2.197, 0.0, 6f64.ln()];
    let sides = |deviation| [0.1 * deviation, 0.5, 1.0, 1.0, 2.0, 0.5];
    // A simplex may shrink before it is there: begun anew five times.
    climb(x, start, sides, &[1.0, 1.0, 0.5, 0.3, 0.1, 0.03], 1000, Gjr::at, tick)
}
