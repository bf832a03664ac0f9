//! How likely a resting order is to fill: lambda(d) = A e^(-k d) a bar, P = 1 - exp(-lambda H)
//! (Avellaneda and Stoikov 2008).

use serde::{Deserialize, Serialize};

/// The intensity of fills as a function of the distance from the mid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillModel {
    /// A: fills a unit of time at distance 0.
    pub a: f64,
    /// k: decay with each unit of distance (basis points in a reward).
    pub k: f64,
}

impl FillModel {
    /// The intensity at distance `d`.
    pub fn intensity(&self, d: f64) -> f64 {
        self.a * (-self.k * d).exp()
    }
    /// The probability of a fill within `horizon` units of time.
    pub fn p_fill(&self, d: f64, horizon: f64) -> f64 {
        -(-self.intensity(d) * horizon).exp_m1()
    }
}
