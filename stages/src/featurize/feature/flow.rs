//! Who traded, how much and how often, and what it did to the price.
//!
//! Where a source says what takers bought, that is used. Bars seldom do: bulk volume classification
//! (Easley, Lopez de Prado and O'Hara 2012) calls the share Phi(r / sigma) of a bar's volume
//! bought. It reads the sign off the price, so that everything built on it moves with the return by
//! construction; it is no substitute for signed trades. Single trades without a side are signed by
//! the tick rule (Lee and Ready 1991): the sign of the last change of price.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::function::erf::erfc;

use super::liquidity::Amihud;
use super::parts::{Previous, Sigma, Window, above_zero, at_least, feed, length, ratio};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::featurize::window::{Comoments, Moments, Rolling, Sum};
use crate::market::{Quote, Sample, Trade};

/// The share of a bar's volume that was bought, 0 to 1; one half where `sigma` is zero.
pub fn bulk(change: f64, sigma: f64) -> f64 {
    if sigma > 0.0 { 0.5 * erfc(-change / sigma / std::f64::consts::SQRT_2) } else { 0.5 }
}

/// The share of a sample's volume that takers bought, as the source says, or else by [`bulk`]. Known
/// with `sigma` in both cases, so that a source that says it now and then leaves no gaps.
pub fn share_bought(sample: &Sample, change: Option<f64>, sigma: Option<f64>) -> Option<f64> {
    let (change, sigma) = change.zip(sigma)?;
    match sample.bought {
        Some(bought) if sample.volume > 0.0 => Some((bought / sample.volume).clamp(0.0, 1.0)),
        _ => Some(bulk(change, sigma)),
    }
}

/// The order flow of a change of the best quotes, in units: what was added to the bid or taken
/// from the ask, less the reverse (Cont, Kukanov and Stoikov 2014, equation 10).
pub fn order_flow(before: &Quote, now: &Quote) -> f64 {
    let mut flow = 0.0;
    if now.bid >= before.bid {
        flow += now.bid_size;
    }
    if now.bid <= before.bid {
        flow -= before.bid_size;
    }
    if now.ask <= before.ask {
        flow -= now.ask_size;
    }
    if now.ask >= before.ask {
        flow += before.ask_size;
    }
    flow
}

/// Signs of trades, by their takers' sides or else by the tick rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    price: Option<f64>,
    sign: f64,
}

impl Signs {
    /// Takes a price: 1 after a rise, -1 after a fall, and again that of the trade before where it
    /// stands; 0 before the first change.
    pub fn tick(&mut self, price: f64) -> f64 {
        match self.price.replace(price) {
            Some(before) if price > before => self.sign = 1.0,
            Some(before) if price < before => self.sign = -1.0,
            _ => {}
        }
        self.sign
    }

    /// Takes a trade: 1 bought, -1 sold.
    pub fn of(&mut self, trade: &Trade) -> f64 {
        let tick = self.tick(trade.price);
        match trade.bought {
            Some(true) => 1.0,
            Some(false) => -1.0,
            None => tick,
        }
    }

    /// What takers bought of a sample less what they sold, in units; `None` where neither it nor
    /// its trades say.
    pub fn volume(&mut self, sample: &Sample) -> Option<f64> {
        let by_trade: f64 = sample.trades.iter().map(|trade| self.of(trade) * trade.size).sum();
        match sample.bought {
            Some(bought) => Some(2.0 * bought - sample.volume),
            None if !sample.trades.is_empty() => Some(by_trade),
            None => (sample.volume == 0.0).then_some(0.0),
        }
    }
}

/// Parameters of what is built on signed volume.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Signed {
    /// Samples in the window.
    pub window: usize,
    /// Returns in the deviation by which bulk volume classification signs.
    pub volatility: usize,
}

impl Default for Signed {
    fn default() -> Signed {
        Signed { window: 20, volatility: 20 }
    }
}

impl Settings for Signed {
    fn check(&self) -> Result<(), Invalid> {
        length("window", self.window)?;
        length("volatility", self.volatility)
    }
}

/// Pressure on the quotes, or on the volume.
pub const ORDER_FLOW: Entry = Entry {
    name: "order_flow_imbalance",
    aliases: &["ofi"],
    suffix: None,
    formula: "on quotes sum e / mean((q_b + q_a) / 2) over w samples, e of each change of the \
              quotes; on bars sum V (2 s - 1) / sum V, s the share bought, Phi(r / sigma) where \
              the source does not say",
    unit: "mean sizes at the touch; on bars -1 to 1",
    source: "Cont, Kukanov and Stoikov 2014",
    needs: &[Need::Bars],
    prefers: &[Need::Quotes],
    params: Shape::of::<Signed>(),
    make: |params, making| {
        let p: Signed = read(params)?;
        let window = Rolling::new(p.window);
        if making.source.quotes {
            return Ok(Box::new(QuoteFlow { flow: window, touch: Rolling::new(p.window) }));
        }
        if !making.source.has(Need::Volume) {
            return Err(Invalid::new("", "needs quotes or volume, and the source has neither"));
        }
        let sigma = Sigma::new(p.volatility);
        Ok(Box::new(SignedVolume { sigma, signed: window, volume: Rolling::new(p.window) }))
    },
    fit: None,
};

struct QuoteFlow {
    flow: Rolling<Sum>,
    touch: Rolling<Moments>,
}

impl Feature for QuoteFlow {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let both = sample.flow.zip(sample.touch).filter(|b| b.0.is_finite() && b.1.is_finite());
        let (flow, touch) = both?;
        let (flow, touch) = (self.flow.push(flow), self.touch.push(touch));
        Some(ratio(flow?.0, touch?.mean))
    }
}

struct SignedVolume {
    sigma: Sigma,
    signed: Rolling<Sum>,
    volume: Rolling<Sum>,
}

impl Feature for SignedVolume {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let (change, sigma) = self.sigma.push(sample.close);
        let share = share_bought(sample, change, sigma);
        let share = share.filter(|_| sample.volume.is_finite());
        let signed = feed(&mut self.signed, share.map(|s| sample.volume * (2.0 * s - 1.0)));
        let volume = feed(&mut self.volume, share.map(|_| sample.volume));
        Some(ratio(signed?.0, volume?.0))
    }
}

/// Distance from what was paid on average.
pub const VWAP_DEVIATION: Entry = Entry {
    name: "vwap_dev_bps",
    aliases: &["vwap_dev"],
    suffix: None,
    formula: "1e4 (P / VWAP - 1) over w samples, P the mid on quotes; VWAP of trades, on bars of \
              typical prices (H + L + C) / 3",
    unit: "bps",
    source: "",
    needs: &[Need::Volume],
    prefers: &[Need::Trades],
    params: Shape::of::<Window<20>>(),
    make: |params, making| {
        let p: Window<20> = read(params)?;
        let paid = Paid::new(p.window, making.source.trades);
        // Close by volume first, then by value: 0 where nothing traded.
        Ok(Box::new(Vwap {
            paid,
            of: |close, value, volume| 1e4 * (close * volume / value - 1.0),
            idle: |_| 0.0,
        }))
    },
    fit: None,
};

/// What was paid on average.
pub const VWAP: Entry = Entry {
    name: "vwap",
    aliases: &[],
    suffix: None,
    formula: "sum price size / sum size over the trades of w samples, on bars of typical prices \
              (H + L + C) / 3; P where nothing traded",
    unit: "price",
    source: "",
    needs: &[Need::Volume],
    prefers: &[Need::Trades],
    params: Shape::of::<Window<20>>(),
    make: |params, making| {
        let p: Window<20> = read(params)?;
        let paid = Paid::new(p.window, making.source.trades);
        Ok(Box::new(Vwap { paid, of: |_, value, volume| value / volume, idle: |close| close }))
    },
    fit: None,
};

struct Paid {
    trades: bool,
    value: Rolling<Sum>,
    volume: Rolling<Sum>,
}

impl Paid {
    fn new(window: usize, trades: bool) -> Paid {
        Paid { trades, value: Rolling::new(window), volume: Rolling::new(window) }
    }
    fn push(&mut self, s: &Sample) -> Option<(f64, f64)> {
        let value = match self.trades {
            true => s.turnover,
            false => (s.high + s.low + s.close) / 3.0 * s.volume,
        };
        if !(value.is_finite() && s.volume.is_finite()) {
            return None;
        }
        let (value, volume) = (self.value.push(value), self.volume.push(s.volume));
        Some((value?.0, volume?.0))
    }
}

struct Vwap {
    paid: Paid,
    of: fn(f64, f64, f64) -> f64,
    idle: fn(f64) -> f64,
}

impl Feature for Vwap {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let (value, volume) = self.paid.push(sample)?;
        Some(match volume > 0.0 && value > 0.0 {
            true => (self.of)(sample.close, value, volume),
            false => (self.idle)(sample.close),
        })
    }
}

/// Parameters of `trade_intensity`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Intensity {
    /// On bars: samples in the window.
    pub window: usize,
    /// With trades: 1 / kappa, the time after which a trade counts for 1 / e.
    pub seconds: f64,
}

impl Default for Intensity {
    fn default() -> Intensity {
        Intensity { window: 20, seconds: 60.0 }
    }
}

impl Settings for Intensity {
    fn check(&self) -> Result<(), Invalid> {
        length("window", self.window)?;
        above_zero("seconds", self.seconds)
    }
}

/// How busy the market is.
pub const INTENSITY: Entry = Entry {
    name: "trade_intensity",
    aliases: &["intensity"],
    suffix: None,
    formula: "with trades lambda <- lambda e^(-kappa dt) + kappa for each, kappa = 1 / seconds, \
              known after 3 / kappa; on bars (V - mean V) / deviation of V over w bars",
    unit: "trades a second; on bars deviations",
    source: "Hawkes 1971, without the base rate",
    needs: &[Need::Volume],
    prefers: &[Need::Trades],
    params: Shape::of::<Intensity>(),
    make: |params, making| {
        let p: Intensity = read(params)?;
        Ok(match making.source.trades {
            true => Box::new(Decayed { kappa: 1.0 / p.seconds, rate: 0.0, last: 0, first: None }),
            false => Box::new(VolumeScore(Rolling::new(p.window))),
        })
    },
    fit: None,
};

struct Decayed {
    kappa: f64,
    rate: f64,
    last: i64,
    first: Option<i64>,
}

impl Decayed {
    fn decay(&mut self, time: i64) {
        let seconds = (time - self.last).max(0) as f64 / 1e9;
        self.rate *= (-self.kappa * seconds).exp();
        self.last = self.last.max(time);
    }
}

impl Feature for Decayed {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let first = *self.first.get_or_insert(sample.time);
        for trade in &sample.trades {
            self.decay(trade.time);
            self.rate += self.kappa;
        }
        self.decay(sample.time);
        let seen = (sample.time - first) as f64 / 1e9;
        (seen * self.kappa >= 3.0).then_some(self.rate)
    }
}

struct VolumeScore(Rolling<Moments>);

impl Feature for VolumeScore {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let moments = self.0.push(sample.volume)?;
        let deviation = moments.deviation(self.0.size(), 1);
        Some(if deviation > 0.0 { (sample.volume - moments.mean) / deviation } else { 0.0 })
    }
}

/// Trades a second.
pub const TRADE_RATE: Entry = Entry {
    name: "trade_rate",
    aliases: &[],
    suffix: None,
    formula: "trades of the last w samples / the time that those samples took",
    unit: "trades a second",
    source: "",
    needs: &[Need::Trades],
    prefers: &[],
    params: Shape::of::<Window<60>>(),
    make: |params, _| {
        let p: Window<60> = read(params)?;
        Ok(Box::new(Rate {
            last: None,
            trades: Rolling::new(p.window),
            time: Rolling::new(p.window),
        }))
    },
    fit: None,
};

struct Rate {
    last: Option<i64>,
    trades: Rolling<Sum>,
    time: Rolling<Sum>,
}

impl Feature for Rate {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        // The first sample's interval has no known beginning.
        let last = self.last.replace(sample.time)?;
        let trades = self.trades.push(sample.trades.len() as f64);
        let time = self.time.push((sample.time - last) as f64 / 1e9);
        Some(ratio(trades?.0, time?.0))
    }
}

/// How `kyle_lambda` is measured on bars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// Mean absolute return by turnover.
    #[default]
    Amihud,
    /// Slope of returns on signed turnover. Where bulk volume classification signs it, its sign is
    /// read off the same returns.
    Ols,
}

/// Parameters of `kyle_lambda`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kyle {
    /// How it is measured on bars; with trades it is a slope.
    pub method: Impact,
    /// Samples in the window.
    pub window: usize,
    /// Returns in the deviation by which bulk volume classification signs.
    pub volatility: usize,
}

impl Default for Kyle {
    fn default() -> Kyle {
        Kyle { method: Impact::default(), window: 60, volatility: 20 }
    }
}

impl Settings for Kyle {
    fn check(&self) -> Result<(), Invalid> {
        at_least("window", self.window, 3)?;
        length("volatility", self.volatility)
    }
}

/// What a trade does to the price.
pub const KYLE: Entry = Entry {
    name: "kyle_lambda",
    aliases: &["kyle"],
    suffix: None,
    formula: "with trades lambda of the least-squares line dP = c + lambda x over w samples, x the \
              signed volume; on bars 1e13 mean(abs(return) / (P V)), or with `method: ols` the \
              slope of 1e4 return on (2 s - 1) P V / 1e9, s = Phi(r / sigma)",
    unit: "price a unit traded; on bars bps for 1e9 of turnover",
    source: "Kyle 1985; Amihud 2002",
    needs: &[Need::Volume],
    prefers: &[Need::Trades],
    params: Shape::of::<Kyle>(),
    make: |params, making| {
        let p: Kyle = read(params)?;
        let (previous, line) = (Previous::default(), Rolling::new(p.window));
        Ok(match (making.source.trades, p.method) {
            (true, _) => Box::new(TradeImpact { previous, signs: Signs::default(), line }),
            (false, Impact::Amihud) => Box::new(Amihud::new(p.window, |mean| 1e13 * mean)),
            (false, Impact::Ols) => {
                Box::new(BarImpact { previous, sigma: Sigma::new(p.volatility), line })
            }
        })
    },
    fit: None,
};

struct TradeImpact {
    previous: Previous,
    signs: Signs,
    line: Rolling<Comoments>,
}

impl Feature for TradeImpact {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let signed = self.signs.volume(sample);
        let change = self.previous.push(sample.close).map(|before| sample.close - before);
        let point = signed.zip(change).map(|(x, y)| [x, y]);
        feed(&mut self.line, point).map(|line| line.slope())
    }
}

struct BarImpact {
    previous: Previous,
    sigma: Sigma,
    line: Rolling<Comoments>,
}

impl Feature for BarImpact {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let (change, sigma) = self.sigma.push(sample.close);
        let previous = self.previous.push(sample.close);
        let tilt = share_bought(sample, change, sigma).map(|share| 2.0 * share - 1.0);
        let point = tilt.zip(previous).map(|(tilt, previous)| {
            [sample.close * sample.volume / 1e9 * tilt, 1e4 * (sample.close / previous - 1.0)]
        });
        feed(&mut self.line, point).map(|line| line.slope())
    }
}
