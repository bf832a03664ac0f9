//! From forecasts to target weights: how strong a signal is, how much of the equity it moves, when.
//!
//! Each forecast gives a signal between -1 and 1 (see [`Sizing`]); below the threshold it is 0. A
//! signal times `max_weight` is the weight of its instrument; where the sizes of all weights sum to
//! more than `gross`, all of them shrink alike. Weights are set at the first date of the forecasts and
//! at every `rebalance`-th one after; in between nothing is done. An instrument without a forecast
//! there is closed. What is decided at a date follows from the forecasts of that date alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forecasts::Forecast;
use super::portfolio::Weights;
use crate::Invalid;

/// How a forecast becomes a signal between -1 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sizing {
    /// The whole position in the direction of p_up - p_down.
    #[default]
    Sign,
    /// As much of it as p_up - p_down.
    Probability,
    /// As much of it as the expected return over its scale, of which `cap` is the whole.
    MeanOverScale,
}

/// From forecasts to target positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The horizon whose forecasts decide, in bars; 0 is the shortest in the file.
    pub horizon: usize,
    /// How a forecast becomes a position: `sign`, `probability` or `mean_over_scale`.
    pub sizing: Sizing,
    /// No position below this: of |p_up - p_down|, or of |mean| / scale.
    pub threshold: f64,
    /// |mean| / scale of a whole position, for `mean_over_scale`.
    pub cap: f64,
    /// The largest position in an instrument, as a share of equity.
    pub max_weight: f64,
    /// The most that the sizes of all positions sum to, as a share of equity.
    pub gross: f64,
    /// Never go short.
    pub long_only: bool,
    /// Dates from one rebalancing to the next; 0 is the horizon.
    pub rebalance: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            horizon: 0,
            sizing: Sizing::Sign,
            threshold: 0.0,
            cap: 0.25,
            max_weight: 1.0,
            gross: 1.0,
            long_only: false,
            rebalance: 0,
        }
    }
}

impl Policy {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A number is out of its range.
    pub fn check(&self) -> Result<(), Invalid> {
        let above = |path: &str, value: f64| {
            let fine = value.is_finite() && value > 0.0;
            let path = format!("forecasts.{path}");
            if fine { Ok(()) } else { Err(Invalid::new(path, "must be above 0")) }
        };
        above("cap", self.cap)?;
        above("max_weight", self.max_weight)?;
        above("gross", self.gross)?;
        if !(self.threshold.is_finite() && self.threshold >= 0.0) {
            return Err(Invalid::new("forecasts.threshold", "must be at least 0"));
        }
        Ok(())
    }

    /// Signal of a forecast, between -1 and 1; `None` where it lacks the scale that is asked for.
    pub fn signal(&self, f: &Forecast) -> Option<f64> {
        let lean = f.p[2] - f.p[0];
        let (strength, signal) = match self.sizing {
            Sizing::Sign if lean == 0.0 => (0.0, 0.0),
            Sizing::Sign => (lean, lean.signum()),
            Sizing::Probability => (lean, lean),
            Sizing::MeanOverScale => {
                let z = f.mean / f.scale?;
                (z, (z / self.cap).clamp(-1.0, 1.0))
            }
        };
        let signal = if strength.abs() < self.threshold { 0.0 } else { signal };
        Some(if self.long_only { signal.max(0.0) } else { signal })
    }

    /// Dates from one rebalancing to the next, where forecasts look `horizon` bars ahead.
    pub fn every(&self, horizon: usize) -> usize {
        if self.rebalance > 0 { self.rebalance } else { horizon.max(1) }
    }

    /// Target weights at the dates of a panel of so many instruments from its date `first` on;
    /// `forecasts` are in order of dates. `every` is [`Policy::every`].
    pub fn weights(
        &self,
        forecasts: &[Forecast],
        first: usize,
        dates: usize,
        width: usize,
        every: usize,
    ) -> Weights {
        let mut weights = Weights::none(dates, width);
        let mut row = vec![0.0; width];
        for day in forecasts.chunk_by(|a, b| a.at == b.at) {
            let Some(at) = day.first().and_then(|f| f.at.checked_sub(first)) else { continue };
            if at >= dates || !at.is_multiple_of(every) {
                continue;
            }
            row.fill(0.0);
            for forecast in day {
                row[forecast.asset] = self.signal(forecast).unwrap_or(0.0) * self.max_weight;
            }
            weights.set(at, &row);
        }
        weights.limited(self.max_weight, self.gross)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(at: usize, asset: usize, down: f64, up: f64) -> Forecast {
        Forecast {
            at,
            asset,
            until: None,
            p: [down, 1.0 - down - up, up],
            mean: 0.002,
            scale: Some(0.01),
            class: None,
            came: None,
        }
    }

    #[test]
    fn signals_are_sized_and_cut() {
        let f = forecast(0, 0, 0.2, 0.5);
        let signal = |sizing, threshold, cap| {
            let policy = Policy { sizing, threshold, cap, ..Policy::default() };
            policy.signal(&f).unwrap()
        };
        assert_eq!(signal(Sizing::Sign, 0.0, 1.0), 1.0);
        assert_eq!(signal(Sizing::Sign, 0.31, 1.0), 0.0);
        assert!((signal(Sizing::Probability, 0.0, 1.0) - 0.3).abs() < 1e-15);
        assert!((signal(Sizing::MeanOverScale, 0.0, 0.4) - 0.5).abs() < 1e-15);
        assert_eq!(signal(Sizing::MeanOverScale, 0.0, 0.1), 1.0);
        assert_eq!(signal(Sizing::MeanOverScale, 0.21, 0.1), 0.0);
        let long = Policy { long_only: true, ..Policy::default() };
        assert_eq!(long.signal(&forecast(0, 0, 0.5, 0.2)), Some(0.0));
        assert_eq!(Policy::default().signal(&forecast(0, 0, 0.3, 0.3)), Some(0.0));
        let none = Forecast { scale: None, ..f };
        let policy = Policy { sizing: Sizing::MeanOverScale, ..Policy::default() };
        assert_eq!(policy.signal(&none), None);
    }

    #[test]
    fn weights_keep_to_their_limits_and_dates() {
        let rows: Vec<Forecast> =
            (2..6).flat_map(|at| [forecast(at, 0, 0.1, 0.6), forecast(at, 2, 0.6, 0.1)]).collect();
        let policy = Policy { max_weight: 0.8, gross: 1.0, ..Policy::default() };
        let weights = policy.weights(&rows, 2, 5, 3, 2);
        assert_eq!(weights.dates().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(weights.get(0), Some(&[0.5, 0.0, -0.5][..]));
        assert_eq!(weights.get(1), None);
        // Later forecasts change nothing earlier.
        let part = policy.weights(&rows[..4], 2, 2, 3, 2);
        assert_eq!((part.len(), part.get(0)), (2, weights.get(0)));
    }
}
