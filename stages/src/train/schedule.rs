//! The learning rate over the steps: a linear warm-up, then a curve.
//!
//! Not here: restarts and per-layer rates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the learning rate does after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Curve {
    /// Half a cosine down to zero.
    #[default]
    Cosine,
    /// A straight line down to zero.
    Linear,
    /// It stays.
    Constant,
}

/// The share of the peak rate at `step`, of `total`, with `warmup` steps of rise from zero: the
/// curves of `get_cosine_schedule_with_warmup` and its sisters in transformers.
pub fn share(curve: Curve, step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        return step as f64 / warmup as f64;
    }
    let done = step.saturating_sub(warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    match curve {
        Curve::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
        Curve::Linear => (1.0 - done).max(0.0),
        Curve::Constant => 1.0,
    }
}

/// The share for step `step` of `steps`, counted from 1. Both ends of [`share`] are zero; a step at
/// a rate of zero is a step wasted, so the curve here spans one step more on either side.
pub fn at(curve: Curve, step: usize, warmup: usize, steps: usize) -> f64 {
    share(curve, step, warmup, steps + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `lr_cosine_warmup` of vectors computed with transformers: warm-up 10, 100 steps.
    #[test]
    fn cosine_agrees_with_transformers() {
        let expected = [
            (0, 0.0),
            (1, 0.1),
            (5, 0.5),
            (10, 1.0),
            (11, 0.9996954135095479),
            (55, 0.5),
            (99, 0.00030458649045211894),
            (100, 0.0),
        ];
        for (step, share) in expected {
            let got = super::share(Curve::Cosine, step, 10, 100);
            assert!((got - share).abs() < 1e-12, "step {step}: {got} != {share}");
        }
    }

    #[test]
    fn no_step_is_wasted() {
        for curve in [Curve::Cosine, Curve::Linear, Curve::Constant] {
            for (warmup, steps) in [(0, 1), (3, 10), (10, 10)] {
                for step in 1..=steps {
                    let share = at(curve, step, warmup, steps);
                    assert!(share > 0.0 && share <= 1.0, "{curve:?} {step}/{steps}: {share}");
                }
            }
        }
    }

    #[test]
    fn linear_falls_in_equal_parts() {
        assert_eq!(share(Curve::Linear, 5, 0, 10), 0.5);
        assert_eq!(share(Curve::Linear, 20, 0, 10), 0.0);
    }
}
