//! Technical indicators with the conventions of TA-Lib, warm-up included: Wilder's averages are
//! seeded by a simple one, `bbands` divides by n, MACD's averages begin together.
//!
//! They are streams of the `ta-lib` crate, a translation of TA-Lib's C: one is opened on as many
//! samples as the indicator looks back, and then fed one by one. The crate counts samples up to
//! 100,000,000 and then stops; from there on the value is not known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ta_lib::{Core, MAType, RetCode};

use super::parts::{Bars, Nothing, above_zero, at_least, length, ratio};
use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::market::Sample;

/// What the entries of this file share.
const PLAIN: Entry = Entry {
    name: "",
    aliases: &[],
    suffix: Some("bars"),
    formula: "",
    unit: "0 to 100",
    source: "TA-Lib",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Bars<14, 2>>(),
    make: |_, _| Err(Invalid::new("", "no such indicator")),
    fit: None,
};

/// Wilder's relative strength index.
pub const RSI: Entry = Entry {
    name: "rsi",
    formula: "100 U / (U + D), U and D Wilder's averages of rises and falls over `bars`, each \
              seeded by a simple one",
    source: "Wilder 1978, as in TA-Lib",
    make: |params, _| {
        let n = bars::<14>(params)?;
        streamed(
            Core::new().rsi_lookback(n),
            close,
            move |core, [c]| core.rsi_open(c, n),
            |s, [c]| s.update(c),
        )
    },
    ..PLAIN
};

/// Average true range.
pub const ATR: Entry = Entry {
    name: "atr",
    formula: "Wilder's average over `bars` of max(H, P_(t-1)) - min(L, P_(t-1))",
    unit: "price",
    source: "Wilder 1978, as in TA-Lib",
    make: |params, _| {
        let n = bars::<14>(params)?;
        streamed(
            Core::new().atr_lookback(n),
            range,
            move |core, [h, l, c]| core.atr_open(h, l, c, n),
            |s, [h, l, c]| s.update(h, l, c),
        )
    },
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Average true range in percent of the price.
pub const NATR: Entry = Entry {
    name: "natr",
    formula: "100 ATR / P",
    unit: "percent of the price",
    make: |params, _| natr(params),
    needs: &[Need::Ranges],
    ..PLAIN
};

/// The same by the name that the forecast models know.
pub const ATR_PCT: Entry = Entry {
    name: "atr_pct",
    formula: "100 ATR / P",
    unit: "percent of the price",
    make: |params, _| natr(params),
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Simple moving average.
pub const SMA: Entry = Entry {
    name: "sma",
    formula: "mean P over `bars`",
    unit: "price",
    params: Shape::of::<Bars<20, 2>>(),
    make: |params, _| {
        let n = bars::<20>(params)?;
        streamed(
            Core::new().sma_lookback(n),
            close,
            move |core, [c]| core.sma_open(c, n),
            |s, [c]| s.update(c),
        )
    },
    ..PLAIN
};

/// Exponential moving average.
pub const EMA: Entry = Entry {
    name: "ema",
    formula: "E <- E + 2 / (bars + 1) (P - E), seeded by a simple average",
    unit: "price",
    params: Shape::of::<Bars<20, 2>>(),
    make: |params, _| {
        let n = bars::<20>(params)?;
        streamed(
            Core::new().ema_lookback(n),
            close,
            move |core, [c]| core.ema_open(c, n),
            |s, [c]| s.update(c),
        )
    },
    ..PLAIN
};

/// Rate of change.
pub const ROC: Entry = Entry {
    name: "roc",
    formula: "100 (P_t / P_(t-bars) - 1)",
    unit: "percent",
    params: Shape::of::<Bars<10, 1>>(),
    make: |params, _| {
        let n = read::<Bars<10, 1>>(params)?.bars as i32;
        streamed(
            Core::new().roc_lookback(n),
            close,
            move |core, [c]| core.roc_open(c, n),
            |s, [c]| s.update(c),
        )
    },
    ..PLAIN
};

/// Average directional index.
pub const ADX: Entry = Entry {
    name: "adx",
    formula: "Wilder's average of 100 abs(DI+ - DI-) / (DI+ + DI-) over `bars`",
    source: "Wilder 1978, as in TA-Lib",
    make: |params, _| {
        let n = bars::<14>(params)?;
        streamed(
            Core::new().adx_lookback(n),
            range,
            move |core, [h, l, c]| core.adx_open(h, l, c, n),
            |s, [h, l, c]| s.update(h, l, c),
        )
    },
    needs: &[Need::Ranges],
    ..PLAIN
};

/// On-balance volume.
pub const OBV: Entry = Entry {
    name: "obv",
    suffix: None,
    formula: "running sum of V sign(P_t - P_(t-1)), from the first V on",
    unit: "units of volume",
    source: "Granville 1963, as in TA-Lib",
    needs: &[Need::Volume],
    params: Shape::of::<Nothing>(),
    make: |_, _| {
        streamed(
            Core::new().obv_lookback(),
            |s| [s.close, s.volume],
            |core, [c, v]| core.obv_open(c, v),
            |s, [c, v]| s.update(c, v),
        )
    },
    ..PLAIN
};

/// Money flow index.
pub const MFI: Entry = Entry {
    name: "mfi",
    formula: "100 U / (U + D), U and D sums over `bars` of V (H + L + C) / 3 on rises and falls of \
              (H + L + C) / 3",
    needs: &[Need::Volume],
    make: |params, _| {
        let n = bars::<14>(params)?;
        streamed(
            Core::new().mfi_lookback(n),
            |s| [s.high, s.low, s.close, s.volume],
            move |core, [h, l, c, v]| core.mfi_open(h, l, c, v, n),
            |s, [h, l, c, v]| s.update(h, l, c, v),
        )
    },
    ..PLAIN
};

/// Commodity channel index.
pub const CCI: Entry = Entry {
    name: "cci",
    formula: "(T - mean T) / (0.015 mean abs(T - mean T)) over `bars`, T = (H + L + C) / 3",
    unit: "about -200 to 200",
    source: "Lambert 1980, as in TA-Lib",
    params: Shape::of::<Bars<20, 2>>(),
    make: |params, _| {
        let n = bars::<20>(params)?;
        streamed(
            Core::new().cci_lookback(n),
            range,
            move |core, [h, l, c]| core.cci_open(h, l, c, n),
            |s, [h, l, c]| s.update(h, l, c),
        )
    },
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Williams' %R.
pub const WILLR: Entry = Entry {
    name: "willr",
    formula: "-100 (max H - P) / (max H - min L) over `bars`",
    unit: "-100 to 0",
    make: |params, _| {
        let n = bars::<14>(params)?;
        streamed(
            Core::new().willr_lookback(n),
            range,
            move |core, [h, l, c]| core.willr_open(h, l, c, n),
            |s, [h, l, c]| s.update(h, l, c),
        )
    },
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Parameters of MACD.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Macd {
    /// Samples of the fast average.
    pub fast: usize,
    /// Samples of the slow average.
    pub slow: usize,
    /// Samples of the average of their difference.
    pub signal: usize,
}

impl Default for Macd {
    fn default() -> Macd {
        Macd { fast: 12, slow: 26, signal: 9 }
    }
}

impl Settings for Macd {
    fn check(&self) -> Result<(), Invalid> {
        length("fast", self.fast)?;
        length("slow", self.slow)?;
        at_least("signal", self.signal, 1)?;
        if self.fast < self.slow {
            return Ok(());
        }
        Err(Invalid::new("fast", format!("must lie below slow: {}", self.slow)))
    }
}

/// What the entries of MACD share.
const ANY_MACD: Entry = Entry {
    suffix: None,
    unit: "price",
    source: "Appel 1979, as in TA-Lib",
    params: Shape::of::<Macd>(),
    ..PLAIN
};

/// The difference of two averages.
pub const MACD: Entry = Entry {
    name: "macd",
    formula: "EMA_fast - EMA_slow",
    make: |params, _| macd(read(params)?, |(line, _, _)| line),
    ..ANY_MACD
};

/// Its average.
pub const MACD_SIGNAL: Entry = Entry {
    name: "macd_signal",
    formula: "EMA_signal(MACD)",
    make: |params, _| macd(read(params)?, |(_, signal, _)| signal),
    ..ANY_MACD
};

/// The one less the other.
pub const MACD_HIST: Entry = Entry {
    name: "macd_hist",
    formula: "MACD - EMA_signal(MACD)",
    make: |params, _| macd(read(params)?, |(_, _, hist)| hist),
    ..ANY_MACD
};

/// Parameters of `macd_hist_atr`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MacdAtr {
    /// Samples of the fast average.
    pub fast: usize,
    /// Samples of the slow average.
    pub slow: usize,
    /// Samples of the average of their difference.
    pub signal: usize,
    /// Samples of the average true range.
    pub bars: usize,
}

impl Default for MacdAtr {
    fn default() -> MacdAtr {
        MacdAtr { fast: 12, slow: 26, signal: 9, bars: 14 }
    }
}

impl MacdAtr {
    fn macd(&self) -> Macd {
        Macd { fast: self.fast, slow: self.slow, signal: self.signal }
    }
}

impl Settings for MacdAtr {
    fn check(&self) -> Result<(), Invalid> {
        self.macd().check()?;
        length("bars", self.bars)
    }
}

/// MACD's histogram in units of the range.
pub const MACD_HIST_ATR: Entry = Entry {
    name: "macd_hist_atr",
    formula: "(MACD - EMA_signal(MACD)) / ATR; 0 where ATR is",
    unit: "average true ranges",
    params: Shape::of::<MacdAtr>(),
    make: |params, making| {
        let p: MacdAtr = read(params)?;
        let hist = macd(p.macd(), |(_, _, hist)| hist)?;
        let atr = (ATR.make)(&serde_json::json!({ "bars": p.bars }), making)?;
        Ok(Box::new(Quotient(hist, atr)))
    },
    needs: &[Need::Ranges],
    ..ANY_MACD
};

/// Parameters of Bollinger's bands.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bands {
    /// Samples in the window.
    pub bars: usize,
    /// Deviations from the middle to either band.
    pub deviations: f64,
}

impl Default for Bands {
    fn default() -> Bands {
        Bands { bars: 20, deviations: 2.0 }
    }
}

impl Settings for Bands {
    fn check(&self) -> Result<(), Invalid> {
        length("bars", self.bars)?;
        above_zero("deviations", self.deviations)
    }
}

/// What the entries of the bands share.
const ANY_BAND: Entry = Entry {
    unit: "price",
    source: "Bollinger 2001, as in TA-Lib",
    params: Shape::of::<Bands>(),
    ..PLAIN
};

/// The upper band.
pub const BB_UPPER: Entry = Entry {
    name: "bb_upper",
    formula: "mean P + deviations sd(P) over `bars`, ddof 0",
    make: |params, _| bands(read(params)?, |(upper, _, _)| upper),
    ..ANY_BAND
};

/// The middle band.
pub const BB_MIDDLE: Entry = Entry {
    name: "bb_middle",
    formula: "mean P over `bars`",
    make: |params, _| bands(read(params)?, |(_, middle, _)| middle),
    ..ANY_BAND
};

/// The lower band.
pub const BB_LOWER: Entry = Entry {
    name: "bb_lower",
    formula: "mean P - deviations sd(P) over `bars`, ddof 0",
    make: |params, _| bands(read(params)?, |(_, _, lower)| lower),
    ..ANY_BAND
};

/// Parameters of the stochastic oscillator.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stochastic {
    /// Samples in the range.
    pub bars: usize,
    /// Samples of the average of the raw value.
    pub smooth: usize,
    /// Samples of the average of that.
    pub signal: usize,
}

impl Default for Stochastic {
    fn default() -> Stochastic {
        Stochastic { bars: 14, smooth: 3, signal: 3 }
    }
}

impl Settings for Stochastic {
    fn check(&self) -> Result<(), Invalid> {
        at_least("bars", self.bars, 1)?;
        at_least("smooth", self.smooth, 1)?;
        at_least("signal", self.signal, 1)
    }
}

/// The slow stochastic oscillator.
pub const STOCH_K: Entry = Entry {
    name: "stoch_k",
    formula: "mean over `smooth` of 100 (P - min L) / (max H - min L) over `bars`",
    source: "Lane 1984, as in TA-Lib",
    params: Shape::of::<Stochastic>(),
    make: |params, _| stochastic(read(params)?, |(k, _)| k),
    needs: &[Need::Ranges],
    ..PLAIN
};

/// Its average.
pub const STOCH_D: Entry = Entry {
    name: "stoch_d",
    formula: "mean of stoch_k over `signal`",
    source: "Lane 1984, as in TA-Lib",
    params: Shape::of::<Stochastic>(),
    make: |params, _| stochastic(read(params)?, |(_, d)| d),
    needs: &[Need::Ranges],
    ..PLAIN
};

fn bars<const N: usize>(params: &serde_json::Value) -> Result<i32, Invalid> {
    Ok(read::<Bars<N, 2>>(params)?.bars as i32)
}

fn close(sample: &Sample) -> [f64; 1] {
    [sample.close]
}

fn range(sample: &Sample) -> [f64; 3] {
    [sample.high, sample.low, sample.close]
}

fn natr(params: &serde_json::Value) -> Result<Box<dyn Feature>, Invalid> {
    let n = bars::<14>(params)?;
    streamed(
        Core::new().natr_lookback(n),
        range,
        move |core, [h, l, c]| core.natr_open(h, l, c, n),
        |s, [h, l, c]| s.update(h, l, c),
    )
}

fn macd(p: Macd, of: fn((f64, f64, f64)) -> f64) -> Result<Box<dyn Feature>, Invalid> {
    let [fast, slow, signal] = [p.fast, p.slow, p.signal].map(|n| n as i32);
    streamed(
        Core::new().macd_lookback(fast, slow, signal),
        close,
        move |core, [c]| core.macd_open(c, fast, slow, signal).map(|(s, v)| (s, of(v))),
        move |s, [c]| s.update(c).map(of),
    )
}

fn bands(p: Bands, of: fn((f64, f64, f64)) -> f64) -> Result<Box<dyn Feature>, Invalid> {
    let (n, wide) = (p.bars as i32, p.deviations);
    streamed(
        Core::new().bbands_lookback(n, wide, wide, MAType::SMA),
        close,
        move |core, [c]| core.bbands_open(c, n, wide, wide, MAType::SMA).map(|(s, v)| (s, of(v))),
        move |s, [c]| s.update(c).map(of),
    )
}

fn stochastic(p: Stochastic, of: fn((f64, f64)) -> f64) -> Result<Box<dyn Feature>, Invalid> {
    let [n, smooth, signal] = [p.bars, p.smooth, p.signal].map(|n| n as i32);
    let simple = MAType::SMA;
    streamed(
        Core::new().stoch_lookback(n, smooth, simple, signal, simple),
        range,
        move |core, [h, l, c]| {
            let opened = core.stoch_open(h, l, c, n, smooth, simple, signal, simple);
            opened.map(|(s, v)| (s, of(v)))
        },
        move |s, [h, l, c]| s.update(h, l, c).map(of),
    )
}

/// The one by the other, which is a range: 0 where there is none.
struct Quotient(Box<dyn Feature>, Box<dyn Feature>);

impl Feature for Quotient {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let (a, b) = (self.0.push(sample), self.1.push(sample));
        Some(ratio(a?, b?))
    }
}

/// A stream of TA-Lib's over `N` series: opened on the first `first` samples, then fed.
struct Streamed<S, const N: usize, O, U> {
    first: usize,
    seed: [Vec<f64>; N],
    stream: Option<S>,
    input: fn(&Sample) -> [f64; N],
    open: O,
    update: U,
}

fn streamed<S, const N: usize, O, U>(
    lookback: Result<usize, RetCode>,
    input: fn(&Sample) -> [f64; N],
    open: O,
    update: U,
) -> Result<Box<dyn Feature>, Invalid>
where
    S: Send + 'static,
    O: Fn(&Core, [&[f64]; N]) -> Result<(S, f64), RetCode> + Send + 'static,
    U: Fn(&mut S, [f64; N]) -> Result<f64, RetCode> + Send + 'static,
{
    let first = lookback.map_err(|e| Invalid::new("", format!("TA-Lib refuses it: {e:?}")))? + 1;
    let seed = std::array::from_fn(|_| Vec::new());
    Ok(Box::new(Streamed { first, seed, stream: None, input, open, update }))
}

impl<S, const N: usize, O, U> Feature for Streamed<S, N, O, U>
where
    S: Send,
    O: Fn(&Core, [&[f64]; N]) -> Result<(S, f64), RetCode> + Send,
    U: Fn(&mut S, [f64; N]) -> Result<f64, RetCode> + Send,
{
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let now = (self.input)(sample);
        if !now.iter().all(|x| x.is_finite()) {
            return None;
        }
        if let Some(stream) = &mut self.stream {
            return (self.update)(stream, now).ok();
        }
        for (series, x) in self.seed.iter_mut().zip(now) {
            series.push(x);
        }
        if self.seed[0].len() < self.first {
            return None;
        }
        let seed = std::mem::replace(&mut self.seed, std::array::from_fn(|_| Vec::new()));
        let (stream, value) =
            (self.open)(&Core::new(), std::array::from_fn(|i| seed[i].as_slice())).ok()?;
        self.stream = Some(stream);
        Some(value)
    }
}
