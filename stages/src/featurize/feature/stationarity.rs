//! Whether a price wanders: the variance ratio, and the test of Dickey and Fuller.
//!
//! Both are of one window, and say little of one that is short: over 250 returns a variance ratio of 5
//! has a standard error of about 0.14 where the price is a random walk. The test is
//! computed anew at each sample, so that no error builds up: it costs about w (lags + 2)^2 operations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::function::erf::erfc;

use super::parts::{Lag, Previous, at_least, feed, priced, ratio};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::featurize::window::{Moments, Rolling};
use crate::market::Sample;

/// Parameters of `variance_ratio`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ratio {
    /// Samples of the long return.
    pub bars: usize,
    /// Returns of one sample in the window.
    pub window: usize,
}

impl Default for Ratio {
    fn default() -> Ratio {
        Ratio { bars: 5, window: 250 }
    }
}

impl Settings for Ratio {
    fn check(&self) -> Result<(), Invalid> {
        at_least("bars", self.bars, 2)?;
        at_least("window", self.window, self.bars + 1)
    }
}

/// The variance of long returns against that of short ones.
pub const VARIANCE_RATIO: Entry = Entry {
    name: "variance_ratio",
    aliases: &["vr"],
    suffix: Some("bars"),
    formula: "Var(ln P_t / P_(t-q)) / (q Var(ln P_t / P_(t-1))), overlapping, over w returns, by 1 / n",
    unit: "1 of a random walk; above it trends, below it reverts",
    source: "Lo and MacKinlay 1988",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Ratio>(),
    make: |params, _| {
        let p: Ratio = read(params)?;
        Ok(Box::new(Variances {
            bars: p.bars,
            closes: Lag::new(p.bars),
            short: Rolling::new(p.window),
            long: Rolling::new(p.window + 1 - p.bars),
            previous: Previous::default(),
        }))
    },
    fit: None,
};

struct Variances {
    bars: usize,
    closes: Lag,
    previous: Previous,
    short: Rolling<Moments>,
    long: Rolling<Moments>,
}

impl Feature for Variances {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        if !priced(sample.close) {
            return None;
        }
        self.closes.push(sample.close);
        let short = feed(&mut self.short, self.previous.log_return(sample.close));
        let before = self.closes.back(self.bars);
        let long = feed(&mut self.long, before.map(|before| (sample.close / before).ln()));
        let variance = |moments: Moments, n: usize| moments.variance(n, 0);
        let long = variance(long?, self.long.size());
        Some(ratio(long, self.bars as f64 * variance(short?, self.short.size())))
    }
}

/// What `adf` gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// The t-statistic: the farther below 0, the less the price wanders.
    #[default]
    Statistic,
    /// MacKinnon's approximate p-value of the statistic.
    PValue,
}

/// Parameters of `adf`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Adf {
    /// Prices in the window.
    pub window: usize,
    /// Lagged differences beside the level.
    pub lags: usize,
    /// The statistic or its p-value.
    pub value: Value,
    /// Whether it is of logarithms of prices, or of prices.
    pub log: bool,
    /// Whether prices are divided by those of the port `index`: whether the two drift apart.
    pub relative: bool,
}

impl Default for Adf {
    fn default() -> Adf {
        Adf { window: 100, lags: 1, value: Value::default(), log: true, relative: false }
    }
}

impl Settings for Adf {
    fn check(&self) -> Result<(), Invalid> {
        if self.lags > 50 {
            return Err(Invalid::new("lags", "must be at most 50"));
        }
        at_least("window", self.window, 2 * self.lags + 10)
    }
}

/// The test of a unit root.
pub const ADF: Entry = Entry {
    name: "adf",
    aliases: &["dickey_fuller"],
    suffix: Some("window"),
    formula: "t of g in dy_t = c + g y_(t-1) + sum_i d_i dy_(t-i) + e_t over w prices, y = ln P, \
              or ln P / I with I the index; 0 where y does not vary",
    unit: "t-statistic, or p-value",
    source: "Said and Dickey 1984; MacKinnon 2010",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Adf>(),
    make: |params, making| {
        let p: Adf = read(params)?;
        if p.relative && !making.source.index {
            return Err(Invalid::new("relative", "needs an index, and the source has none")
                .help("give the stage an `index` input"));
        }
        Ok(Box::new(Testing { how: p, levels: Lag::new(p.window - 1) }))
    },
    fit: None,
};

struct Testing {
    how: Adf,
    levels: Lag,
}

impl Feature for Testing {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let price = match self.how.relative {
            true => sample.close / sample.index?,
            false => sample.close,
        };
        if !priced(price) {
            return None;
        }
        self.levels.push(if self.how.log { price.ln() } else { price });
        if !self.levels.is_full() {
            return None;
        }
        let levels: Vec<f64> = self.levels.iter().collect();
        let statistic = dickey_fuller(&levels, self.how.lags).unwrap_or(0.0);
        Some(match self.how.value {
            Value::Statistic => statistic,
            Value::PValue => p_value(statistic),
        })
    }
}

/// The t-statistic of the level, in a regression with a constant and `lags` differences; `None` where
/// there is nothing to regress on.
pub fn dickey_fuller(y: &[f64], lags: usize) -> Option<f64> {
    let changes: Vec<f64> = y.windows(2).map(|w| w[1] - w[0]).collect();
    let rows = changes.len().checked_sub(lags)?;
    let width = lags + 1;
    let free = rows.checked_sub(width + 1).filter(|free| *free > 0)?;
    // Column 0 is the level, 1 to `lags` the differences before, and the last the difference itself.
    let cell = |row: usize, column: usize| match column {
        0 => y[row + lags],
        c if c <= lags => changes[row + lags - c],
        _ => changes[row + lags],
    };
    // Without their means the constant is gone, and levels far from zero lose nothing.
    let columns: Vec<Vec<f64>> = (0..=width)
        .map(|c| {
            let first = cell(0, c);
            let mean = first + (0..rows).map(|r| cell(r, c) - first).sum::<f64>() / rows as f64;
            (0..rows).map(|r| cell(r, c) - mean).collect()
        })
        .collect();
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale: Vec<f64> = columns.iter().map(|c| product(c, c).sqrt()).collect();
    if scale.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
        return None;
    }
    // The level last, so that it is the first to be found by substitution.
    let order: Vec<usize> = (1..width).chain([0]).collect();
    let mut factor = vec![vec![0.0; width]; width];
    let mut right = vec![0.0; width];
    for (i, &a) in order.iter().enumerate() {
        for (j, &b) in order[..=i].iter().enumerate() {
            let known: f64 = (0..j).map(|k| factor[i][k] * factor[j][k]).sum();
            let left = product(&columns[a], &columns[b]) / (scale[a] * scale[b]) - known;
            factor[i][j] = match i == j {
                true if left > 1e-14 => left.sqrt(),
                true => return None,
                false => left / factor[j][j],
            };
        }
        let known: f64 = (0..i).map(|k| factor[i][k] * right[k]).sum();
        let left = product(&columns[a], &columns[width]) / (scale[a] * scale[width]) - known;
        right[i] = left / factor[i][i];
    }
    // In units of the difference's own length the squares that are explained are those of `right`.
    let mut residuals = columns[width].clone();
    let mut slopes = vec![0.0; width];
    for i in (0..width).rev() {
        let known: f64 = (i + 1..width).map(|k| factor[k][i] * slopes[k]).sum();
        slopes[i] = (right[i] - known) / factor[i][i];
        let by = slopes[i] * scale[width] / scale[order[i]];
        residuals.iter_mut().zip(&columns[order[i]]).for_each(|(e, x)| *e -= by * x);
    }
    let variance = product(&residuals, &residuals) / free as f64;
    let level = slopes[width - 1] * scale[width] / scale[0];
    let error = variance.sqrt() / (factor[width - 1][width - 1] * scale[0]);
    (error > 0.0).then(|| level / error)
}

/// The p-value of a statistic with a constant, by MacKinnon's response surface (2010, as in
/// statsmodels).
pub fn p_value(t: f64) -> f64 {
    let z = match t {
        t if t > 2.74 => return 1.0,
        t if t < -18.83 => return 0.0,
        t if t <= -1.61 => 2.1659 + t * (1.4412 + t * 0.038_269),
        _ => 1.7339 + t * (0.932_02 + t * (-0.127_45 - t * 0.010_368)),
    };
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}
