//! How far the price went.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Lag, Sigma, at_least, length, priced};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::market::Sample;

/// Parameters of `momentum`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Momentum {
    /// Samples that it looks back.
    pub bars: usize,
    /// Returns in the deviation by which it is divided.
    pub window: usize,
}

impl Default for Momentum {
    fn default() -> Momentum {
        Momentum { bars: 5, window: 20 }
    }
}

impl Settings for Momentum {
    fn check(&self) -> Result<(), Invalid> {
        at_least("bars", self.bars, 1)?;
        length("window", self.window)
    }
}

/// Moves in units of their deviation.
pub const MOMENTUM: Entry = Entry {
    name: "momentum",
    aliases: &["mom"],
    suffix: Some("bars"),
    formula: "ln(P_t / P_(t-h)) / (sigma sqrt h), h the bars and sigma over w returns; P is the \
              mid on quotes",
    unit: "deviations",
    source: "",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Momentum>(),
    make: |params, _| {
        let p: Momentum = read(params)?;
        let (closes, sigma) = (Lag::new(p.bars), Sigma::new(p.window));
        Ok(Box::new(Scaled { bars: p.bars, closes, sigma }))
    },
    fit: None,
};

/// Parameters of `momentum_12_1`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Long {
    /// Samples to the far end: a year of days.
    pub long: usize,
    /// The last samples, which are left out: a month of days.
    pub skip: usize,
}

impl Default for Long {
    fn default() -> Long {
        Long { long: 252, skip: 21 }
    }
}

impl Settings for Long {
    fn check(&self) -> Result<(), Invalid> {
        length("long", self.long)?;
        if self.skip < self.long {
            return Ok(());
        }
        Err(Invalid::new("skip", format!("must lie below long: {}", self.long)))
    }
}

/// A year's return without its last month.
pub const MOMENTUM_12_1: Entry = Entry {
    name: "momentum_12_1",
    aliases: &["mom_12_1"],
    suffix: None,
    formula: "P_(t-skip) / P_(t-long) - 1",
    unit: "fraction",
    source: "Jegadeesh and Titman 1993",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Long>(),
    make: |params, _| {
        let p: Long = read(params)?;
        Ok(Box::new(Between { p, closes: Lag::new(p.long) }))
    },
    fit: None,
};

struct Scaled {
    bars: usize,
    closes: Lag,
    sigma: Sigma,
}

impl Feature for Scaled {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        if !priced(sample.close) {
            return None;
        }
        self.closes.push(sample.close);
        let (_, sigma) = self.sigma.push(sample.close);
        let moved = (sample.close / self.closes.back(self.bars)?).ln();
        let sigma = sigma?;
        Some(if sigma > 0.0 { moved / (sigma * (self.bars as f64).sqrt()) } else { 0.0 })
    }
}

struct Between {
    p: Long,
    closes: Lag,
}

impl Feature for Between {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        if !priced(sample.close) {
            return None;
        }
        self.closes.push(sample.close);
        Some(self.closes.back(self.p.skip)? / self.closes.back(self.p.long)? - 1.0)
    }
}
