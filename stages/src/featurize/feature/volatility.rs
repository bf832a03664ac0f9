//! Volatility, by estimator, as percent a year: 100 sqrt(v P) of a variance v a sample and P
//! samples a year.
//!
//! With o = ln(O/C_prev), u = ln(H/O), d = ln(L/O), c = ln(C/O), r = ln(C/C_prev) and means over
//! the window of w:
//!
//! | | variance | source |
//! | --- | --- | --- |
//! | close | var(r), ddof 1 | |
//! | realised | sum r^2 / w | Andersen and Bollerslev 1998 |
//! | bipower | pi/2 sum abs(r_t r_(t-1)) / (w - 1), blind to single jumps | Barndorff-Nielsen and Shephard 2004 |
//! | parkinson | mean (u - d)^2 / (4 ln 2) | Parkinson 1980 |
//! | garman_klass | mean (u - d)^2 / 2 - (2 ln 2 - 1) c^2 | Garman and Klass 1980 |
//! | rogers_satchell | mean u (u - c) + d (d - c) | Rogers and Satchell 1991 |
//! | yang_zhang | var(o) + k var(c) + (1 - k) rs, k = 0.34 / (1.34 + (w + 1) / (w - 1)) | Yang and Zhang 2000 |
//! | ewma | v <- lambda v + (1 - lambda) r^2, from the first r^2 | RiskMetrics 1996 |
//!
//! Parkinson, Garman-Klass and Rogers-Satchell see nothing of what happens between bars; on
//! markets that close they lie below the others.

use std::f64::consts::{FRAC_PI_2, LN_2};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Previous, Window, at_least, length, priced};
use super::{Entry, Feature, Making, Need, Settings, Shape, read};
use crate::Invalid;
use crate::featurize::window::{Moments, Rolling};
use crate::market::Sample;

/// How volatility is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Close to close.
    Close,
    /// Squares of returns.
    Realised,
    /// Products of neighbouring returns.
    Bipower,
    /// High and low.
    Parkinson,
    /// High, low, open and close, without drift.
    GarmanKlass,
    /// High, low, open and close, with drift.
    RogersSatchell,
    /// Rogers-Satchell with the moves between bars.
    YangZhang,
}

impl Estimator {
    /// Whether it takes closes and nothing else.
    fn of_closes(self) -> bool {
        matches!(self, Estimator::Close | Estimator::Realised | Estimator::Bipower)
    }
}

/// Parameters of `realised_vol`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Realised {
    /// How it is estimated; `realised` on quotes and `yang_zhang` on bars where nothing is said.
    pub estimator: Option<Estimator>,
    /// Samples in the window.
    pub window: usize,
}

impl Default for Realised {
    fn default() -> Realised {
        Realised { estimator: None, window: 20 }
    }
}

impl Settings for Realised {
    fn check(&self) -> Result<(), Invalid> {
        length("window", self.window)
    }
}

/// Volatility by the estimator that suits the source.
pub const REALISED: Entry = Entry {
    name: "realised_vol",
    aliases: &["realized_vol", "volatility"],
    suffix: None,
    formula: "100 sqrt(v P), P samples a year; v on quotes and closes sum r^2 / w, on bars \
              Yang-Zhang, or what `estimator` says",
    unit: "percent a year",
    source: "Yang and Zhang 2000; Andersen and Bollerslev 1998",
    needs: &[Need::Bars],
    prefers: &[Need::Quotes],
    params: Shape::of::<Realised>(),
    make: |params, making| {
        let p: Realised = read(params)?;
        let usual = match making.source.quotes || !making.source.ranges {
            true => Estimator::Realised,
            false => Estimator::YangZhang,
        };
        let estimator = p.estimator.unwrap_or(usual);
        if !making.source.ranges && !estimator.of_closes() {
            let message = "needs open, high and low, and the source has none";
            return Err(Invalid::new("estimator", message)
                .help("of closes there are `realised`, `close` and `bipower`"));
        }
        Ok(annual(estimator, p.window, making))
    },
    fit: None,
};

/// Close to close.
pub const ROLLING_STD: Entry = Entry {
    name: "rolling_std",
    aliases: &["close_vol"],
    formula: "100 sqrt(var(r) P), ddof 1",
    source: "",
    make: |params, making| {
        let p: Window<20> = read(params)?;
        Ok(annual(Estimator::Close, p.window, making))
    },
    ..PLAIN
};

/// Bipower variation.
pub const BIPOWER: Entry = Entry {
    name: "bipower_vol",
    aliases: &["bipower"],
    formula: "100 sqrt(pi/2 sum abs(r_t r_(t-1)) / (w - 1) P): w returns, w - 1 products",
    source: "Barndorff-Nielsen and Shephard 2004",
    make: |params, making| {
        let p: Window<20> = read(params)?;
        Ok(annual(Estimator::Bipower, p.window, making))
    },
    ..PLAIN
};

/// Parkinson.
pub const PARKINSON: Entry = Entry {
    name: "parkinson_vol",
    aliases: &["parkinson"],
    formula: "100 sqrt(mean ln(H / L)^2 / (4 ln 2) P)",
    source: "Parkinson 1980",
    make: |params, making| {
        let p: Window<20> = read(params)?;
        Ok(annual(Estimator::Parkinson, p.window, making))
    },
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Garman-Klass.
pub const GARMAN_KLASS: Entry = Entry {
    name: "garman_klass_vol",
    aliases: &["garman_klass"],
    formula: "100 sqrt(mean(ln(H / L)^2 / 2 - (2 ln 2 - 1) ln(C / O)^2) P)",
    source: "Garman and Klass 1980",
    make: |params, making| {
        let p: Window<20> = read(params)?;
        Ok(annual(Estimator::GarmanKlass, p.window, making))
    },
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Rogers-Satchell.
pub const ROGERS_SATCHELL: Entry = Entry {
    name: "rogers_satchell_vol",
    aliases: &["rogers_satchell"],
    formula: "100 sqrt(mean(u (u - c) + d (d - c)) P), u = ln(H / O), d = ln(L / O), c = ln(C / O)",
    source: "Rogers and Satchell 1991",
    make: |params, making| {
        let p: Window<20> = read(params)?;
        Ok(annual(Estimator::RogersSatchell, p.window, making))
    },
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Yang-Zhang, and what the entries of this file share.
pub const YANG_ZHANG: Entry = Entry {
    name: "yang_zhang_vol",
    aliases: &["yang_zhang"],
    formula: "100 sqrt((var(o) + k var(c) + (1 - k) rs) P) over w moves between bars, \
              k = 0.34 / (1.34 + (w + 1) / (w - 1))",
    source: "Yang and Zhang 2000",
    needs: &[Need::Ranges],
    ..PLAIN
};

/// What the entries of this file share.
const PLAIN: Entry = Entry {
    name: "",
    aliases: &[],
    suffix: None,
    formula: "",
    unit: "percent a year",
    source: "",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Window<20>>(),
    make: |params, making| {
        let p: Window<20> = read(params)?;
        Ok(annual(Estimator::YangZhang, p.window, making))
    },
    fit: None,
};

/// Parameters of `ewma_vol`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ewma {
    /// What is kept of the variance from one sample to the next.
    pub lambda: f64,
    /// Returns before it counts.
    pub warmup: usize,
}

impl Default for Ewma {
    fn default() -> Ewma {
        Ewma { lambda: 0.94, warmup: 20 }
    }
}

impl Settings for Ewma {
    fn check(&self) -> Result<(), Invalid> {
        at_least("warmup", self.warmup, 1)?;
        if self.lambda > 0.0 && self.lambda < 1.0 {
            return Ok(());
        }
        Err(Invalid::new("lambda", "must lie between 0 and 1"))
    }
}

/// Exponentially weighted.
pub const EWMA: Entry = Entry {
    name: "ewma_vol",
    aliases: &["ewma"],
    formula: "100 sqrt(v P), v <- lambda v + (1 - lambda) r^2, from the first r^2 on",
    source: "RiskMetrics 1996",
    params: Shape::of::<Ewma>(),
    make: |params, making| {
        let p: Ewma = read(params)?;
        let previous = Previous::default();
        Ok(Box::new(Weighted {
            p,
            previous,
            variance: 0.0,
            seen: 0,
            periods: making.periods_per_year,
        }))
    },
    ..PLAIN
};

struct Weighted {
    p: Ewma,
    previous: Previous,
    variance: f64,
    seen: usize,
    periods: f64,
}

impl Feature for Weighted {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let change = self.previous.log_return(sample.close)?;
        let square = change * change;
        self.variance = match self.seen {
            0 => square,
            _ => self.p.lambda * self.variance + (1.0 - self.p.lambda) * square,
        };
        self.seen += 1;
        (self.seen >= self.p.warmup).then(|| percent(self.variance, self.periods))
    }
}

/// A variance a sample as percent a year.
pub fn percent(variance: f64, periods: f64) -> f64 {
    // Bars whose open or close lies outside their range can push the range terms below zero.
    100.0 * (variance.max(0.0) * periods).sqrt()
}

fn annual(estimator: Estimator, window: usize, making: &Making) -> Box<dyn Feature> {
    let none = (estimator == Estimator::YangZhang).then(|| Rolling::new(window));
    let terms = match estimator {
        Estimator::Bipower => window - 1,
        _ => window,
    };
    Box::new(Rolled {
        estimator,
        periods: making.periods_per_year,
        previous: Previous::default(),
        last: None,
        terms: Rolling::new(terms),
        night: none.clone(),
        day: none,
    })
}

struct Rolled {
    estimator: Estimator,
    periods: f64,
    previous: Previous,
    /// The return before.
    last: Option<f64>,
    /// What the estimator is a mean (`close`: a variance) of.
    terms: Rolling<Moments>,
    /// Moves between bars and within them, for Yang-Zhang.
    night: Option<Rolling<Moments>>,
    day: Option<Rolling<Moments>>,
}

impl Feature for Rolled {
    fn push(&mut self, s: &Sample) -> Option<f64> {
        if ![s.open, s.high, s.low, s.close].into_iter().all(priced) {
            return None;
        }
        let (u, d, c) = ((s.high / s.open).ln(), (s.low / s.open).ln(), (s.close / s.open).ln());
        let previous = self.previous.push(s.close);
        let change = previous.map(|p| (s.close / p).ln());
        let square = (u - d) * (u - d);
        let term = match self.estimator {
            Estimator::Close => change,
            Estimator::Realised => change.map(|r| r * r),
            Estimator::Bipower => {
                let last = std::mem::replace(&mut self.last, change);
                change.zip(last).map(|(r, before)| FRAC_PI_2 * (r * before).abs())
            }
            Estimator::Parkinson => Some(square / (4.0 * LN_2)),
            Estimator::GarmanKlass => Some(0.5 * square - (2.0 * LN_2 - 1.0) * c * c),
            Estimator::RogersSatchell | Estimator::YangZhang => Some(u * (u - c) + d * (d - c)),
        };
        let mean = term.and_then(|term| self.terms.push(term));
        let w = self.terms.size();
        let variance = match (&mut self.night, &mut self.day) {
            (Some(night), Some(day)) => {
                let open = (s.open / previous?).ln();
                let k = 0.34 / (1.34 + (w as f64 + 1.0) / (w as f64 - 1.0));
                let (night, day) = (night.push(open), day.push(c));
                night?.variance(w, 1) + k * day?.variance(w, 1) + (1.0 - k) * mean?.mean
            }
            _ if self.estimator == Estimator::Close => mean?.variance(w, 1),
            _ => mean?.mean,
        };
        Some(percent(variance, self.periods))
    }
}
