//! What it costs to trade now: spread, sizes at the touch, and illiquidity.
//!
//! On bars the spread is estimated. Corwin and Schultz (2012): highs are mostly bought and lows
//! mostly sold, so that the range of two bars taken as one holds the spread once and their two
//! ranges hold it twice; estimates below zero are set to zero, as the authors do, and their
//! adjustment for gaps between bars is left out. Roll (1984): 2 sqrt(-cov(dp_t, dp_(t-1))), zero
//! where the covariance is positive. Either is noisy: a relative measure of friction rather than a
//! price to pay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flow::share_bought;
use super::parts::{Carried, Nothing, Previous, Sigma, Window, above_zero, length, priced};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::featurize::window::{Comoments, Moments, Rolling};
use crate::market::Sample;

/// How the spread is estimated from bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Highs and lows of neighbouring bars.
    #[default]
    CorwinSchultz,
    /// Autocovariance of price changes.
    Roll,
}

/// Parameters of `spread_bps`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spread {
    /// How it is estimated on bars; quotes say it.
    pub method: Method,
    /// Pairs of bars in the mean (Corwin-Schultz), or of changes (Roll).
    pub window: usize,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread { method: Method::default(), window: 20 }
    }
}

impl Settings for Spread {
    fn check(&self) -> Result<(), Invalid> {
        length("window", self.window)
    }
}

/// Spread in basis points of the price.
pub const SPREAD: Entry = Entry {
    name: "spread_bps",
    aliases: &["spread"],
    suffix: None,
    formula: "on quotes 1e4 (a - b) / m; on bars 1e4 times the mean of Corwin-Schultz estimates, \
              each at least 0, or Roll's 2 sqrt(max(0, -cov(dP_t, dP_(t-1)))) / P",
    unit: "bps",
    source: "Corwin and Schultz 2012; Roll 1984",
    needs: &[Need::Ranges],
    prefers: &[Need::Quotes],
    params: Shape::of::<Spread>(),
    make: |params, making| {
        let p: Spread = read(params)?;
        if making.source.quotes {
            return Ok(Box::new(QuotedSpread));
        }
        Ok(match p.method {
            Method::CorwinSchultz => Box::new(CorwinSchultz::new(p.window)),
            Method::Roll => Box::new(Roll::new(p.window)),
        })
    },
    fit: None,
};

/// Corwin-Schultz, whatever the source has.
pub const CORWIN_SCHULTZ: Entry = Entry {
    name: "corwin_schultz_bps",
    aliases: &["corwin_schultz"],
    suffix: None,
    formula: "1e4 times the mean over w pairs of bars of max(0, 2 (e^a - 1) / (1 + e^a))",
    unit: "bps",
    source: "Corwin and Schultz 2012",
    needs: &[Need::Ranges],
    prefers: &[],
    params: Shape::of::<Window<20>>(),
    make: |params, _| {
        let p: Window<20> = read(params)?;
        Ok(Box::new(CorwinSchultz::new(p.window)))
    },
    fit: None,
};

/// Roll, whatever the source has.
pub const ROLL: Entry = Entry {
    name: "roll_spread_bps",
    aliases: &["roll"],
    suffix: None,
    formula: "1e4 2 sqrt(max(0, -cov(dP_t, dP_(t-1)))) / P over w pairs of changes, by 1 / w",
    unit: "bps",
    source: "Roll 1984",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Window<20>>(),
    make: |params, _| {
        let p: Window<20> = read(params)?;
        Ok(Box::new(Roll::new(p.window)))
    },
    fit: None,
};

/// Sizes at the touch, or who traded.
pub const IMBALANCE: Entry = Entry {
    name: "imbalance",
    aliases: &[],
    suffix: None,
    formula: "on quotes (q_b - q_a) / (q_b + q_a); on bars the share of the volume that takers \
              bought less the share that they sold, where the source does not say who did \
              2 Phi(r / sigma) - 1 with sigma over w returns",
    unit: "-1 to 1",
    source: "bulk volume classification: Easley, Lopez de Prado and O'Hara 2012",
    needs: &[Need::Bars],
    prefers: &[Need::Quotes],
    params: Shape::of::<Window<20>>(),
    make: |params, making| {
        let p: Window<20> = read(params)?;
        Ok(match making.source.quotes {
            true => Box::new(QuotedImbalance),
            false => Box::new(BulkImbalance(Sigma::new(p.window))),
        })
    },
    fit: None,
};

/// Parameters of `depth`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Depth {
    /// Bars in the mean, without a book.
    pub window: usize,
    /// Time constant of the average of a book's depth, in seconds.
    pub seconds: f64,
    /// Samples of a book before the average counts.
    pub warmup: usize,
}

impl Default for Depth {
    fn default() -> Depth {
        Depth { window: 20, seconds: 86_400.0, warmup: 20 }
    }
}

impl Settings for Depth {
    fn check(&self) -> Result<(), Invalid> {
        length("window", self.window)?;
        length("warmup", self.warmup)?;
        above_zero("seconds", self.seconds)
    }
}

/// How much there is to trade against.
pub const DEPTH: Entry = Entry {
    name: "depth",
    aliases: &[],
    suffix: None,
    formula: "with a book ln(notional within 10 bps of m / its average), the average weighted by \
              e^(-age / seconds); on bars -ln mean(abs(return) / (P V))",
    unit: "log",
    source: "Amihud 2002",
    needs: &[Need::Volume],
    prefers: &[Need::Depth],
    params: Shape::of::<Depth>(),
    make: |params, making| {
        let p: Depth = read(params)?;
        Ok(match making.source.depth {
            true => Box::new(BookDepth { p, sum: 0.0, weight: 0.0, seen: 0, last: None }),
            false => Box::new(Amihud::new(p.window, |mean| -mean.ln())),
        })
    },
    fit: None,
};

/// Amihud's measure.
pub const AMIHUD: Entry = Entry {
    name: "amihud",
    aliases: &[],
    suffix: None,
    formula: "1e9 mean(abs(P_t / P_(t-1) - 1) / (P V)) over w bars with volume",
    unit: "return for 1e9 of turnover",
    source: "Amihud 2002",
    needs: &[Need::Volume],
    prefers: &[],
    params: Shape::of::<Window<20>>(),
    make: |params, _| {
        let p: Window<20> = read(params)?;
        Ok(Box::new(Amihud::new(p.window, |mean| 1e9 * mean)))
    },
    fit: None,
};

/// Where the sizes pull the price.
pub const MICROPRICE: Entry = Entry {
    name: "microprice_dev_bps",
    aliases: &["microprice"],
    suffix: None,
    formula: "1e4 (p - m) / m with p = (a q_b + b q_a) / (q_a + q_b)",
    unit: "bps",
    source: "Stoikov 2018",
    needs: &[Need::Quotes],
    prefers: &[],
    params: Shape::of::<Nothing>(),
    make: |_, _| Ok(Box::new(Microprice)),
    fit: None,
};

struct QuotedSpread;

impl Feature for QuotedSpread {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let quote = sample.quote?;
        Some(1e4 * (quote.ask - quote.bid) / quote.mid())
    }
}

struct QuotedImbalance;

impl Feature for QuotedImbalance {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let quote = sample.quote?;
        let size = quote.bid_size + quote.ask_size;
        Some(if size > 0.0 { (quote.bid_size - quote.ask_size) / size } else { 0.0 })
    }
}

struct Microprice;

impl Feature for Microprice {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let (q, size) = sample.quote.map(|q| (q, q.bid_size + q.ask_size))?;
        if size <= 0.0 {
            return Some(0.0);
        }
        let price = (q.ask * q.bid_size + q.bid * q.ask_size) / size;
        Some(1e4 * (price - q.mid()) / q.mid())
    }
}

struct BulkImbalance(Sigma);

impl Feature for BulkImbalance {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let (change, sigma) = self.0.push(sample.close);
        share_bought(sample, change, sigma).map(|share| 2.0 * share - 1.0)
    }
}

/// An average over all that was, weighted by e^(-age / seconds): from the first sample on its
/// weights sum to one.
struct BookDepth {
    p: Depth,
    sum: f64,
    weight: f64,
    seen: usize,
    last: Option<i64>,
}

impl Feature for BookDepth {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let depth = sample.depth.filter(|depth| depth.is_finite() && *depth >= 0.0)?;
        let age = self.last.replace(sample.time).map_or(0.0, |last| (sample.time - last) as f64);
        let kept = (-age.max(0.0) / 1e9 / self.p.seconds).exp();
        self.sum = self.sum * kept + depth;
        self.weight = self.weight * kept + 1.0;
        self.seen += 1;
        let average = self.sum / self.weight;
        let known = self.seen >= self.p.warmup && average > 0.0;
        // An empty book: a millionth of what is usual, rather than no number.
        known.then(|| (depth / average).max(1e-6).ln())
    }
}

/// Amihud's (2002) illiquidity of a bar: absolute return by turnover. None where nothing traded.
pub fn illiquidity(previous: Option<f64>, close: f64, volume: f64) -> Option<f64> {
    let turnover = close * volume;
    (turnover > 0.0).then_some((close / previous? - 1.0).abs() / turnover)
}

/// A function of the mean illiquidity.
pub struct Amihud {
    previous: Previous,
    mean: Carried,
    scale: fn(f64) -> f64,
}

impl Amihud {
    /// Over `window` bars with volume.
    pub fn new(window: usize, scale: fn(f64) -> f64) -> Amihud {
        Amihud { previous: Previous::default(), mean: Carried::new(window), scale }
    }
}

impl Feature for Amihud {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let previous = self.previous.push(sample.close);
        let value = illiquidity(previous, sample.close, sample.volume);
        self.mean.push(value).map(self.scale)
    }
}

struct CorwinSchultz {
    previous: Option<(f64, f64)>,
    estimates: Rolling<Moments>,
}

impl CorwinSchultz {
    fn new(window: usize) -> CorwinSchultz {
        CorwinSchultz { previous: None, estimates: Rolling::new(window) }
    }
}

impl Feature for CorwinSchultz {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let bar = (sample.high, sample.low);
        if !(priced(bar.0) && priced(bar.1)) {
            return None;
        }
        let previous = self.previous.replace(bar)?;
        self.estimates.push(corwin_schultz(previous, bar)).map(|m| 1e4 * m.mean)
    }
}

/// The spread that two neighbouring bars (high, low) show, as a share of the price; at least 0.
pub fn corwin_schultz(a: (f64, f64), b: (f64, f64)) -> f64 {
    let range = |high: f64, low: f64| (high / low).ln().powi(2);
    let beta = range(a.0, a.1) + range(b.0, b.1);
    let gamma = range(a.0.max(b.0), a.1.min(b.1));
    let k = 3.0 - 2.0 * 2f64.sqrt();
    let alpha = ((2.0 * beta).sqrt() - beta.sqrt()) / k - (gamma / k).sqrt();
    (2.0 * (alpha.exp() - 1.0) / (1.0 + alpha.exp())).max(0.0)
}

struct Roll {
    previous: Previous,
    last_change: Option<f64>,
    changes: Rolling<Comoments>,
}

impl Roll {
    fn new(window: usize) -> Roll {
        let changes = Rolling::new(window);
        Roll { previous: Previous::default(), last_change: None, changes }
    }
}

impl Feature for Roll {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let change = sample.close - self.previous.push(sample.close)?;
        let before = self.last_change.replace(change)?;
        let both = self.changes.push([change, before])?;
        Some(1e4 * roll(both.covariance(self.changes.size(), 0)) / sample.close)
    }
}

/// Roll's spread, in the unit of the price.
pub fn roll(autocovariance: f64) -> f64 {
    2.0 * (-autocovariance).max(0.0).sqrt()
}
