//! The bid-ask spread, estimated from bars.
//!
//! Corwin and Schultz (2012): highs are mostly bought and lows mostly sold, so that the range of
//! two bars taken as one holds the spread once and their two ranges hold it twice. Estimates below
//! zero are set to zero, as the authors do; their adjustment for gaps between bars is left out.
//! Roll (1984): 2 sqrt(-cov(dp_t, dp_(t-1))), zero where the covariance is positive.
//!
//! Either is noisy and, on an index, which nobody quotes, an upper bound in spirit: read it as a
//! relative measure of friction rather than as a price to pay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bars::Bar;
use super::rolling::{Window, moments};

/// How the spread is estimated from bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpreadMethod {
    /// Highs and lows of neighbouring bars.
    #[default]
    CorwinSchultz,
    /// Autocovariance of price changes.
    Roll,
}

/// A rolling estimate.
#[derive(Clone, Debug)]
pub struct Spread {
    method: SpreadMethod,
    previous: Option<Bar>,
    estimates: Window,
    /// dp_t, and dp_(t-1) beside it.
    changes: (Window, Window),
    last_change: Option<f64>,
}

impl Spread {
    /// An estimate over the last `window` pairs of bars.
    pub fn new(method: SpreadMethod, window: usize) -> Spread {
        Spread {
            method,
            previous: None,
            estimates: Window::new(window),
            changes: (Window::new(window), Window::new(window)),
            last_change: None,
        }
    }

    /// Takes the next bar; the spread as a share of the price, once the window is full.
    pub fn push(&mut self, bar: &Bar) -> Option<f64> {
        let previous = self.previous.replace(bar.clone())?;
        match self.method {
            SpreadMethod::CorwinSchultz => {
                self.estimates.push(corwin_schultz(&previous, bar));
                self.estimates.mean()
            }
            SpreadMethod::Roll => {
                let change = bar.close - previous.close;
                if let Some(before) = self.last_change.replace(change) {
                    self.changes.0.push(change);
                    self.changes.1.push(before);
                }
                let (covariance, _) = moments(&self.changes.0, &self.changes.1)?;
                Some(roll(covariance) / bar.close)
            }
        }
    }
}

/// The spread that two neighbouring bars show, as a share of the price; at least 0.
pub fn corwin_schultz(a: &Bar, b: &Bar) -> f64 {
    let range = |high: f64, low: f64| (high / low).ln().powi(2);
    let beta = range(a.high, a.low) + range(b.high, b.low);
    let gamma = range(a.high.max(b.high), a.low.min(b.low));
    let k = 3.0 - 2.0 * 2f64.sqrt();
    let alpha = ((2.0 * beta).sqrt() - beta.sqrt()) / k - (gamma / k).sqrt();
    (2.0 * (alpha.exp() - 1.0) / (1.0 + alpha.exp())).max(0.0)
}

/// Roll's spread, in the unit of the price.
pub fn roll(autocovariance: f64) -> f64 {
    2.0 * (-autocovariance).max(0.0).sqrt()
}
