//! The fifteen features of the market state, bar by bar.
//!
//! [`State::push`] takes one bar and gives what is known at its close. It holds windows and
//! nothing else, so that memory does not grow with the file, and a row cannot depend on a later
//! one. What was learnt from the training span comes in from outside, as a [`Fit`].

use std::collections::VecDeque;

use ta_lib::{Core, RsiStream};

use super::bars::Bar;
use super::fit::Fit;
use super::flow::{Vpin, bought};
use super::regime::Filter;
use super::rolling::{Window, correlation, slope};
use super::spread::Spread;
use super::volatility::Volatility;
use super::{Impact, Params};

/// The names of the features, in the order of the columns.
pub const FEATURES: [&str; 15] = [
    "spread_bps",
    "imbalance",
    "depth",
    "momentum_1",
    "momentum_5",
    "momentum_30",
    "momentum_12_1",
    "realised_vol",
    "order_flow_imbalance",
    "vwap_dev_bps",
    "trade_intensity",
    "kyle_lambda",
    "vpin",
    "rsi_14",
    "p_high_vol",
];

/// A row: the features in the order of [`FEATURES`]; `None` until their windows are full.
pub type Row = [Option<f64>; 15];

/// Bars in 12-1 momentum: the far end and the part that is left out.
const LONG: usize = 252;
const SKIP: usize = 21;

/// What is kept between bars.
pub struct State {
    periods: f64,
    impact: Impact,
    closes: VecDeque<f64>,
    returns: Window,
    spread: Spread,
    volatility: Volatility,
    illiquidity: Carried,
    lambda: Carried,
    typical: (Window, Window),
    volume: Window,
    flow: (Window, Window),
    moves: (Window, Window),
    vpin: Vpin,
    rsi: Rsi,
    regime: Filter,
}

impl State {
    /// Before the first bar.
    pub fn new(params: &Params, fit: &Fit) -> State {
        let w = &params.windows;
        let pair = |size| (Window::new(size), Window::new(size));
        State {
            periods: params.periods_per_year,
            impact: params.impact,
            closes: VecDeque::with_capacity(LONG + 2),
            returns: Window::new(w.volatility),
            spread: Spread::new(params.spread, w.spread),
            volatility: Volatility::new(params.volatility, w.volatility),
            illiquidity: Carried::new(w.depth),
            lambda: Carried::new(w.impact),
            typical: pair(w.vwap),
            volume: Window::new(w.intensity),
            flow: pair(w.flow),
            moves: pair(w.impact),
            vpin: Vpin::new(fit.vpin_bucket, w.vpin_buckets),
            rsi: Rsi::Seeding(Vec::with_capacity(RSI + 1)),
            regime: Filter::new(fit.regime.hmm.clone()),
        }
    }

    /// Takes the next bar.
    pub fn push(&mut self, bar: &Bar) -> Row {
        let previous = self.closes.back().copied();
        self.closes.push_back(bar.close);
        if self.closes.len() > LONG + 1 {
            self.closes.pop_front();
        }
        let change = previous.map(|p| (bar.close / p).ln());
        if let Some(r) = change {
            self.returns.push(r);
        }
        let sigma = self.returns.deviation();
        let share = change.zip(sigma).map(|(r, sigma)| bought(r, sigma));
        let tilt = share.map(|b| 2.0 * b - 1.0);
        let turnover = bar.close * bar.volume;

        self.typical.0.push((bar.high + bar.low + bar.close) / 3.0 * bar.volume);
        self.typical.1.push(bar.volume);
        self.volume.push(bar.volume);
        if let Some(tilt) = tilt {
            self.flow.0.push(bar.volume * tilt);
            self.flow.1.push(bar.volume);
        }
        [
            self.spread.push(bar).map(|s| 1e4 * s),
            tilt,
            self.illiquidity.push(illiquidity(previous, bar)).map(|a| -a.ln()),
            self.momentum(1, sigma),
            self.momentum(5, sigma),
            self.momentum(30, sigma),
            self.long_momentum(),
            self.volatility.push(bar).map(|v| 100.0 * (v * self.periods).sqrt()),
            ratio(&self.flow.0, &self.flow.1),
            self.vwap_deviation(bar),
            self.intensity(bar),
            self.kyle(previous, bar, turnover, tilt),
            share.and_then(|b| self.vpin.push(bar.volume, b)),
            self.rsi.push(bar.close),
            change.map(|r| self.regime.push(100.0 * r)),
        ]
    }

    fn back(&self, bars: usize) -> Option<f64> {
        self.closes.get(self.closes.len().checked_sub(bars + 1)?).copied()
    }

    /// ln(P_t / P_(t-h)) / (sigma sqrt h).
    fn momentum(&self, bars: usize, sigma: Option<f64>) -> Option<f64> {
        let moved = (self.back(0)? / self.back(bars)?).ln();
        let sigma = sigma?;
        Some(if sigma > 0.0 { moved / (sigma * (bars as f64).sqrt()) } else { 0.0 })
    }

    /// P_(t-21) / P_(t-252) - 1 (Jegadeesh and Titman 1993).
    fn long_momentum(&self) -> Option<f64> {
        Some(self.back(SKIP)? / self.back(LONG)? - 1.0)
    }

    fn vwap_deviation(&self, bar: &Bar) -> Option<f64> {
        let (value, volume) = (self.typical.0.sum()?, self.typical.1.sum()?);
        Some(if volume > 0.0 { 1e4 * (bar.close * volume / value - 1.0) } else { 0.0 })
    }

    fn intensity(&self, bar: &Bar) -> Option<f64> {
        let (mean, deviation) = (self.volume.mean()?, self.volume.deviation()?);
        Some(if deviation > 0.0 { (bar.volume - mean) / deviation } else { 0.0 })
    }

    /// Basis points of price for a billion units of turnover.
    fn kyle(
        &mut self,
        previous: Option<f64>,
        bar: &Bar,
        turnover: f64,
        tilt: Option<f64>,
    ) -> Option<f64> {
        match self.impact {
            Impact::Amihud => self.lambda.push(illiquidity(previous, bar)).map(|a| a * 1e13),
            Impact::Ols => {
                self.moves.0.push(turnover / 1e9 * tilt?);
                self.moves.1.push(1e4 * (bar.close / previous? - 1.0));
                slope(&self.moves.0, &self.moves.1)
            }
        }
    }
}

/// Amihud's (2002) illiquidity of a bar: absolute return by turnover. None where nothing traded.
fn illiquidity(previous: Option<f64>, bar: &Bar) -> Option<f64> {
    let turnover = bar.close * bar.volume;
    (turnover > 0.0).then_some((bar.close / previous? - 1.0).abs() / turnover)
}

/// Sum by sum; 0 where nothing traded.
fn ratio(part: &Window, whole: &Window) -> Option<f64> {
    let (part, whole) = (part.sum()?, whole.sum()?);
    Some(if whole > 0.0 { part / whole } else { 0.0 })
}

/// A rolling mean above zero over the bars that have a value. While the mean is zero (the price
/// stood still) the last value is carried on.
#[derive(Clone, Debug)]
struct Carried {
    window: Window,
    last: Option<f64>,
}

impl Carried {
    fn new(size: usize) -> Carried {
        Carried { window: Window::new(size), last: None }
    }
    fn push(&mut self, value: Option<f64>) -> Option<f64> {
        if let Some(value) = value {
            self.window.push(value);
        }
        self.last = self.window.mean().filter(|&mean| mean > 0.0).or(self.last);
        self.last
    }
}

/// Bars in the relative strength index.
const RSI: usize = 14;

/// Wilder's relative strength index, seeded with a simple average, as TA-Lib streams it.
enum Rsi {
    Seeding(Vec<f64>),
    Running(Box<RsiStream>),
}

impl Rsi {
    fn push(&mut self, close: f64) -> Option<f64> {
        match self {
            Rsi::Running(stream) => stream.update(close).ok(),
            Rsi::Seeding(closes) => {
                closes.push(close);
                if closes.len() <= RSI {
                    return None;
                }
                let (stream, first) = Core::new().rsi_open(closes, RSI as i32).ok()?;
                *self = Rsi::Running(Box::new(stream));
                Some(first)
            }
        }
    }
}

/// Rolling correlation of returns with those of an index whose closes come by date.
pub struct Follower {
    returns: (Window, Window),
    last: Option<(f64, f64)>,
}

impl Follower {
    /// Correlation over `size` returns.
    pub fn new(size: usize) -> Follower {
        Follower { returns: (Window::new(size), Window::new(size)), last: None }
    }
    /// Takes a close, and the index's last close at or before that date.
    pub fn push(&mut self, close: f64, index: f64) -> Option<f64> {
        if let Some((c, i)) = self.last.replace((close, index)) {
            self.returns.0.push(close / c - 1.0);
            self.returns.1.push(index / i - 1.0);
        }
        correlation(&self.returns.0, &self.returns.1)
    }
}
