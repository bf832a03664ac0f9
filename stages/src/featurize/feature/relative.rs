//! An asset beside an index and its peers.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::eigen::eigenvalues;
use super::parts::{Bars, Previous, Window, length, priced};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::featurize::window::{Comoments, Rolling};
use crate::market::Sample;

/// Correlation with the index.
pub const CORRELATION: Entry = Entry {
    name: "corr",
    aliases: &["index_corr"],
    suffix: Some("window"),
    formula: "correlation of returns P_t / P_(t-1) - 1 with the index's over w pairs",
    unit: "-1 to 1",
    source: "",
    needs: &[Need::Index],
    prefers: &[],
    params: Shape::of::<Window<60>>(),
    make: |params, _| {
        let p: Window<60> = read(params)?;
        Ok(Box::new(Follower {
            pair: Pair::default(),
            line: Rolling::new(p.window),
            of: |l| l.correlation(),
        }))
    },
    fit: None,
};

/// Slope on the index.
pub const BETA: Entry = Entry {
    name: "beta",
    aliases: &["index_beta"],
    formula: "slope of returns P_t / P_(t-1) - 1 on the index's over w pairs",
    unit: "",
    make: |params, _| {
        let p: Window<60> = read(params)?;
        Ok(Box::new(Follower {
            pair: Pair::default(),
            line: Rolling::new(p.window),
            of: |l| l.slope(),
        }))
    },
    ..CORRELATION
};

/// Returns of the index and of the asset, side by side.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    index: Previous,
    own: Previous,
}

impl Pair {
    fn push(&mut self, sample: &Sample) -> Option<[f64; 2]> {
        let index = sample.index.filter(|&index| priced(index) && priced(sample.close))?;
        let index = self.index.simple_return(index);
        let own = self.own.simple_return(sample.close);
        Some([index?, own?])
    }
}

struct Follower {
    pair: Pair,
    line: Rolling<Comoments>,
    of: fn(&Comoments) -> f64,
}

impl Feature for Follower {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let pair = self.pair.push(sample)?;
        self.line.push(pair).map(|line| (self.of)(&line))
    }
}

/// How far the asset has strayed from the index.
pub const S_SCORE: Entry = Entry {
    name: "s_score",
    aliases: &["avellaneda_lee"],
    suffix: None,
    formula: "-m / sigma_eq of the AR(1) X' = a + b X + e, X the running sum of the residuals of \
              returns on the index's over w, m = a / (1 - b), sigma_eq = sqrt(var e / (1 - b^2)), \
              var e by n - 1; 0 where X does not revert (b outside 0 to 1)",
    unit: "deviations; enter at 1.25, leave at 0.5",
    source: "Avellaneda and Lee 2010, appendix",
    needs: &[Need::Index],
    prefers: &[],
    params: Shape::of::<Window<60>>(),
    make: |params, _| {
        let p: Window<60> = read(params)?;
        let (pair, line) = (Pair::default(), Rolling::new(p.window));
        Ok(Box::new(Strayed { pair, line, pairs: VecDeque::new() }))
    },
    fit: None,
};

struct Strayed {
    pair: Pair,
    line: Rolling<Comoments>,
    pairs: VecDeque<[f64; 2]>,
}

impl Feature for Strayed {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let pair = self.pair.push(sample)?;
        self.pairs.push_back(pair);
        if self.pairs.len() > self.line.size() {
            self.pairs.pop_front();
        }
        let line = self.line.push(pair)?;
        Some(revert(&line, &self.pairs).map_or(0.0, |r| r.score()))
    }
}

/// A residual as an Ornstein-Uhlenbeck process, sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reversion {
    /// Slope of the asset's returns on the index's.
    pub beta: f64,
    /// X' = a + b X.
    pub a: f64,
    /// The same.
    pub b: f64,
    /// a / (1 - b).
    pub mean: f64,
    /// sqrt(var e / (1 - b^2)), var e with one degree of freedom gone.
    pub deviation: f64,
}

impl Reversion {
    /// -m / sigma_eq: X ends at zero by construction.
    pub fn score(&self) -> f64 {
        -self.mean / self.deviation
    }
    /// Speed of reversion a year: -ln(b) periods.
    pub fn speed(&self, periods_per_year: f64) -> f64 {
        -self.b.ln() * periods_per_year
    }
}

/// Of pairs of returns (index, asset), oldest first, whose moments are `line`. `None` where the
/// running sum of residuals does not revert, or does not vary.
pub fn revert(line: &Comoments, pairs: &VecDeque<[f64; 2]>) -> Option<Reversion> {
    let beta = line.slope();
    let mut x = 0.0;
    let path = pairs.iter().map(|[index, own]| {
        x += (own - line.mean[1]) - beta * (index - line.mean[0]);
        x
    });
    let path: Vec<f64> = path.collect();
    let n = path.len().checked_sub(1).filter(|n| *n > 2)?;
    let mut steps = Rolling::<Comoments>::new(n);
    path.windows(2).for_each(|w| {
        steps.push([w[0], w[1]]);
    });
    let steps = steps.get()?;
    let b = steps.slope();
    if !(b > 0.0 && b < 1.0) {
        return None;
    }
    let a = steps.mean[1] - b * steps.mean[0];
    let errors: f64 = path
        .windows(2)
        .map(|w| ((w[1] - steps.mean[1]) - b * (w[0] - steps.mean[0])).powi(2))
        .sum();
    let variance = errors / (n - 1) as f64;
    let deviation = (variance / (1.0 - b * b)).sqrt();
    let found = Reversion { beta, a, b, mean: a / (1.0 - b), deviation };
    (deviation > 0.0).then_some(found)
}

/// Parameters of `absorption_ratio`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Absorption {
    /// Returns in the window.
    pub window: usize,
    /// Share of the eigenvalues that are summed, at least one.
    pub share: f64,
}

impl Default for Absorption {
    fn default() -> Absorption {
        Absorption { window: 60, share: 0.2 }
    }
}

impl Settings for Absorption {
    fn check(&self) -> Result<(), Invalid> {
        length("window", self.window)?;
        if self.share > 0.0 && self.share <= 1.0 {
            return Ok(());
        }
        Err(Invalid::new("share", "must lie above 0 and be 1 at most"))
    }
}

/// How much of the market moves as one.
pub const ABSORPTION: Entry = Entry {
    name: "absorption_ratio",
    aliases: &["absorption"],
    suffix: None,
    formula: "sum of the largest eigenvalues (`share` of them, at least one) / sum of all, of the \
              covariance of log returns of the asset and its peers over w; 0 where nothing moved",
    unit: "0 to 1",
    source: "Kritzman, Li, Page and Rigobon 2011",
    needs: &[Need::Peers],
    prefers: &[],
    params: Shape::of::<Absorption>(),
    make: |params, _| {
        let p: Absorption = read(params)?;
        Ok(Box::new(Absorbed { p, last: Vec::new(), returns: VecDeque::new() }))
    },
    fit: None,
};

struct Absorbed {
    p: Absorption,
    last: Vec<f64>,
    /// Returns of the asset and its peers, oldest first.
    returns: VecDeque<Vec<f64>>,
}

/// The asset and its peers, where all have a price.
fn market(sample: &Sample) -> Option<Vec<f64>> {
    let prices: Vec<f64> = [sample.close].iter().chain(&sample.peers).copied().collect();
    (prices.len() > 1 && prices.iter().all(|&p| priced(p))).then_some(prices)
}

impl Feature for Absorbed {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let prices = market(sample)?;
        let last = std::mem::replace(&mut self.last, prices);
        if last.len() != self.last.len() {
            self.returns.clear();
            return None;
        }
        let mut row = match self.returns.len() == self.p.window {
            true => self.returns.pop_front()?,
            false => Vec::new(),
        };
        row.clear();
        row.extend(self.last.iter().zip(&last).map(|(now, before)| (now / before).ln()));
        self.returns.push_back(row);
        if self.returns.len() < self.p.window {
            return None;
        }
        let n = self.last.len();
        let rows = self.returns.len() as f64;
        let mut mean = vec![0.0; n];
        for row in &self.returns {
            mean.iter_mut().zip(row).for_each(|(m, r)| *m += r / rows);
        }
        let mut covariance = vec![0.0; n * n];
        for row in &self.returns {
            for i in 0..n {
                for j in i..n {
                    covariance[i * n + j] += (row[i] - mean[i]) * (row[j] - mean[j]) / rows;
                }
            }
        }
        let top = ((self.p.share * n as f64).round() as usize).max(1);
        Some(absorption(&eigenvalues(&covariance, n), top))
    }
}

/// The share of the first `top` of eigenvalues in their sum; 0 where that is zero.
pub fn absorption(eigenvalues: &[f64], top: usize) -> f64 {
    let all: f64 = eigenvalues.iter().sum();
    let first: f64 = eigenvalues.iter().take(top).sum();
    if all > 0.0 { (first / all).clamp(0.0, 1.0) } else { 0.0 }
}

/// Place among the peers.
pub const RANK: Entry = Entry {
    name: "peer_rank",
    aliases: &["rank"],
    suffix: Some("bars"),
    formula: "share of the peers whose return over `bars` is lower than the asset's, ties by half",
    unit: "0 to 1",
    source: "",
    needs: &[Need::Peers],
    prefers: &[],
    params: Shape::of::<Bars<20, 1>>(),
    make: |params, _| {
        let p: Bars<20, 1> = read(params)?;
        Ok(Box::new(Among { bars: p.bars, prices: VecDeque::new(), of: rank }))
    },
    fit: None,
};

/// Distance from the peers.
pub const PEER_Z: Entry = Entry {
    name: "peer_z",
    aliases: &["peer_zscore"],
    formula: "(r - mean) / sd of log returns over `bars` of the asset and its peers, ddof 1; 0 \
              where all are the same",
    unit: "deviations",
    make: |params, _| {
        let p: Bars<20, 1> = read(params)?;
        Ok(Box::new(Among { bars: p.bars, prices: VecDeque::new(), of: distance }))
    },
    ..RANK
};

struct Among {
    bars: usize,
    prices: VecDeque<Vec<f64>>,
    /// Of the returns, the asset's first.
    of: fn(&[f64]) -> f64,
}

impl Feature for Among {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let now = market(sample)?;
        if self.prices.back().is_some_and(|last| last.len() != now.len()) {
            self.prices.clear();
        }
        self.prices.push_back(now);
        if self.prices.len() <= self.bars {
            return None;
        }
        let before = self.prices.pop_front()?;
        let now = self.prices.back()?;
        let returns: Vec<f64> = now.iter().zip(&before).map(|(n, b)| (n / b).ln()).collect();
        Some((self.of)(&returns))
    }
}

fn rank(returns: &[f64]) -> f64 {
    let Some((own, peers)) = returns.split_first() else { return 0.5 };
    let below = peers.iter().filter(|p| *p < own).count() as f64;
    let equal = peers.iter().filter(|p| *p == own).count() as f64;
    (below + equal / 2.0) / peers.len() as f64
}

fn distance(returns: &[f64]) -> f64 {
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let squares: f64 = returns.iter().map(|r| (r - mean).powi(2)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    match returns.first() {
        Some(own) if deviation > 0.0 => (own - mean) / deviation,
        _ => 0.0,
    }
}
