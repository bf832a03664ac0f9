//! A price series on its own: returns, where the price lies in its window, memory, and events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Bars, LONGEST, Lag, Previous, Window, above_zero, feed, priced};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::featurize::window::{Comoments, Moments, Rolling};
use crate::market::Sample;

/// What the entries of this file share.
const PLAIN: Entry = Entry {
    name: "",
    aliases: &[],
    suffix: None,
    formula: "",
    unit: "",
    source: "",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Bars<1, 1>>(),
    make: |_, _| Err(Invalid::new("", "no such feature")),
    fit: None,
};

/// Log return.
pub const LOG_RETURN: Entry = Entry {
    name: "log_return",
    aliases: &["return"],
    suffix: Some("bars"),
    formula: "ln(P_t / P_(t-bars))",
    unit: "log",
    make: |params, _| {
        let p: Bars<1, 1> = read(params)?;
        Ok(Box::new(Return { bars: p.bars, closes: Lag::new(p.bars) }))
    },
    ..PLAIN
};

struct Return {
    bars: usize,
    closes: Lag,
}

impl Feature for Return {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        if !priced(sample.close) {
            return None;
        }
        self.closes.push(sample.close);
        self.closes.back(self.bars).map(|before| (sample.close / before).ln())
    }
}

/// Where the price lies between Bollinger's bands.
pub const BOLLINGER_Z: Entry = Entry {
    name: "bollinger_z",
    aliases: &["zscore"],
    suffix: Some("bars"),
    formula: "(P - mean P) / sd(P) over `bars`, ddof 0; 0 where the price stood still",
    unit: "deviations",
    source: "Bollinger 2001",
    params: Shape::of::<Bars<20, 2>>(),
    make: |params, _| {
        let p: Bars<20, 2> = read(params)?;
        Ok(Box::new(Place(Rolling::new(p.bars))))
    },
    ..PLAIN
};

struct Place(Rolling<Moments>);

impl Feature for Place {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let moments = self.0.push(sample.close)?;
        let deviation = moments.deviation(self.0.size(), 0);
        Some(if deviation > 0.0 { (sample.close - moments.mean) / deviation } else { 0.0 })
    }
}

/// Whether returns follow one another.
pub const AUTOCORRELATION: Entry = Entry {
    name: "autocorrelation",
    aliases: &["autocorr"],
    formula: "correlation of r_t with r_(t-1) over w pairs",
    unit: "-1 to 1",
    params: Shape::of::<Window<60>>(),
    make: |params, _| {
        let p: Window<60> = read(params)?;
        let (previous, pairs) = (Previous::default(), Rolling::new(p.window));
        Ok(Box::new(Echo { previous, last: None, pairs }))
    },
    ..PLAIN
};

struct Echo {
    previous: Previous,
    last: Option<f64>,
    pairs: Rolling<Comoments>,
}

impl Feature for Echo {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let change = self.previous.log_return(sample.close);
        let pair = change.and_then(|now| Some([now, self.last.replace(now)?]));
        feed(&mut self.pairs, pair).map(|pairs| pairs.correlation())
    }
}

/// Parameters of `fracdiff`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fracdiff {
    /// Order of the difference: 0 is the series, 1 its returns.
    pub d: f64,
    /// Weights below it are left out; it decides the length of the window.
    pub threshold: f64,
}

impl Default for Fracdiff {
    fn default() -> Fracdiff {
        Fracdiff { d: 0.4, threshold: 1e-3 }
    }
}

impl Settings for Fracdiff {
    fn check(&self) -> Result<(), Invalid> {
        if !(self.d > 0.0 && self.d < 2.0) {
            return Err(Invalid::new("d", "must lie between 0 and 2"));
        }
        above_zero("threshold", self.threshold)?;
        match weights(self.d, self.threshold) {
            Some(_) => Ok(()),
            None => Err(Invalid::new("threshold", format!("makes a window longer than {LONGEST}"))
                .help("raise it; 1e-4 is small already")),
        }
    }
}

/// Fractional difference.
pub const FRACDIFF: Entry = Entry {
    name: "fracdiff",
    aliases: &["frac_diff"],
    formula: "sum w_k ln P_(t-k), w_0 = 1, w_k = -w_(k-1) (d - k + 1) / k, up to the last w_k of \
              `threshold` or more",
    unit: "log",
    source: "Hosking 1981; Lopez de Prado 2018, section 5.5 (fixed width)",
    params: Shape::of::<Fracdiff>(),
    make: |params, _| {
        let p: Fracdiff = read(params)?;
        let weights = weights(p.d, p.threshold)
            .ok_or_else(|| Invalid::new("threshold", "makes too long a window"))?;
        Ok(Box::new(Difference { logs: Lag::new(weights.len() - 1), weights }))
    },
    ..PLAIN
};

/// The weights of a fractional difference, the newest first; `None` where they are too many.
pub fn weights(d: f64, threshold: f64) -> Option<Vec<f64>> {
    let mut weights = vec![1.0];
    let mut last = 1.0f64;
    for k in 1..=LONGEST {
        last *= -(d - k as f64 + 1.0) / k as f64;
        if last.abs() < threshold {
            return Some(weights);
        }
        weights.push(last);
    }
    None
}

struct Difference {
    weights: Vec<f64>,
    logs: Lag,
}

impl Feature for Difference {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        if !priced(sample.close) {
            return None;
        }
        self.logs.push(sample.close.ln());
        let known = self.logs.is_full();
        known.then(|| self.logs.iter().rev().zip(&self.weights).map(|(x, w)| x * w).sum())
    }
}

/// Parameters of `cusum`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CusumSettings {
    /// Log return that has to add up.
    pub threshold: f64,
}

impl Default for CusumSettings {
    fn default() -> CusumSettings {
        CusumSettings { threshold: 0.02 }
    }
}

impl Settings for CusumSettings {
    fn check(&self) -> Result<(), Invalid> {
        above_zero("threshold", self.threshold)
    }
}

/// Events of the symmetric CUSUM filter.
pub const CUSUM: Entry = Entry {
    name: "cusum",
    aliases: &[],
    formula: "1 where S+ = max(0, S+ + r) passes the threshold, -1 where S- = min(0, S- + r) falls \
              below minus it, and that sum begins anew; 0 elsewhere",
    unit: "event",
    source: "Lopez de Prado 2018, section 2.5.2.1",
    params: Shape::of::<CusumSettings>(),
    make: |params, _| {
        let p: CusumSettings = read(params)?;
        Ok(Box::new(Events { previous: Previous::default(), cusum: Cusum::new(p.threshold) }))
    },
    ..PLAIN
};

/// The symmetric CUSUM filter.
#[derive(Clone, Copy, Debug)]
pub struct Cusum {
    threshold: f64,
    up: f64,
    down: f64,
}

impl Cusum {
    /// Before the first change.
    pub fn new(threshold: f64) -> Cusum {
        Cusum { threshold, up: 0.0, down: 0.0 }
    }
    /// Takes a change: 1 or -1 at an event, else 0.
    pub fn push(&mut self, change: f64) -> f64 {
        self.up = (self.up + change).max(0.0);
        self.down = (self.down + change).min(0.0);
        if self.down < -self.threshold {
            self.down = 0.0;
            -1.0
        } else if self.up > self.threshold {
            self.up = 0.0;
            1.0
        } else {
            0.0
        }
    }
}

struct Events {
    previous: Previous,
    cusum: Cusum,
}

impl Feature for Events {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        self.previous.log_return(sample.close).map(|change| self.cusum.push(change))
    }
}
