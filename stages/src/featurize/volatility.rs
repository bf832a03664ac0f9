//! Volatility of bars, by estimator, as a variance a bar.
//!
//! With o = ln(O/C_prev), u = ln(H/O), d = ln(L/O), c = ln(C/O) and means over the window:
//!
//! | | variance | source |
//! | --- | --- | --- |
//! | close | var(ln C/C_prev), ddof 1 | |
//! | parkinson | mean (u - d)^2 / (4 ln 2) | Parkinson 1980 |
//! | garman_klass | mean (u - d)^2 / 2 - (2 ln 2 - 1) c^2 | Garman and Klass 1980 |
//! | rogers_satchell | mean u (u - c) + d (d - c) | Rogers and Satchell 1991 |
//! | yang_zhang | var(o) + k var(c) + (1 - k) rs, k = 0.34 / (1.34 + (w + 1) / (w - 1)) | Yang and Zhang 2000 |
//!
//! Parkinson, Garman-Klass and Rogers-Satchell see nothing of what happens between bars; on
//! markets that close they lie below the others.

use std::f64::consts::LN_2;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bars::Bar;
use super::rolling::Window;

/// How volatility is estimated from bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Close to close.
    Close,
    /// High and low.
    Parkinson,
    /// High, low, open and close, without drift.
    GarmanKlass,
    /// High, low, open and close, with drift.
    RogersSatchell,
    /// Rogers-Satchell with the moves between bars.
    #[default]
    YangZhang,
}

/// A rolling estimate.
#[derive(Clone, Debug)]
pub struct Volatility {
    estimator: Estimator,
    window: usize,
    previous_close: Option<f64>,
    /// Terms that are averaged: of the range, or rs of Yang-Zhang.
    range: Window,
    overnight: Window,
    intraday: Window,
    closes: Window,
}

impl Volatility {
    /// An estimate over `window` bars.
    pub fn new(estimator: Estimator, window: usize) -> Volatility {
        Volatility {
            estimator,
            window,
            previous_close: None,
            range: Window::new(window),
            overnight: Window::new(window),
            intraday: Window::new(window),
            closes: Window::new(window),
        }
    }

    /// Takes the next bar; the variance a bar, once the window is full.
    pub fn push(&mut self, bar: &Bar) -> Option<f64> {
        let (u, d) = ((bar.high / bar.open).ln(), (bar.low / bar.open).ln());
        let c = (bar.close / bar.open).ln();
        let spread = (u - d) * (u - d);
        self.range.push(match self.estimator {
            Estimator::Parkinson => spread / (4.0 * LN_2),
            Estimator::GarmanKlass => 0.5 * spread - (2.0 * LN_2 - 1.0) * c * c,
            _ => u * (u - c) + d * (d - c),
        });
        if let Some(previous) = self.previous_close.replace(bar.close) {
            self.overnight.push((bar.open / previous).ln());
            self.intraday.push(c);
            self.closes.push((bar.close / previous).ln());
        }
        let variance = match self.estimator {
            Estimator::Close => self.closes.variance(),
            Estimator::YangZhang => self.yang_zhang(),
            _ => self.range.mean(),
        };
        // Bars whose open or close lies outside their range can push the range terms below zero.
        variance.map(|v| v.max(0.0))
    }

    fn yang_zhang(&self) -> Option<f64> {
        let w = self.window as f64;
        let k = 0.34 / (1.34 + (w + 1.0) / (w - 1.0));
        let (night, day) = (self.overnight.variance()?, self.intraday.variance()?);
        Some(night + k * day + (1.0 - k) * self.range.mean()?)
    }
}
