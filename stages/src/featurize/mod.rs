//! `featurize`: bars in, the market state of each bar out.
//!
//! Fifteen features, in the forms that OHLCV bars allow. P close, V volume, r log return, sigma its
//! rolling standard deviation (`windows.volatility`), T = P V turnover:
//!
//! | column | form on bars | source |
//! | --- | --- | --- |
//! | `spread_bps` | Corwin-Schultz, clipped at 0, rolling mean; or Roll | [`spread`] |
//! | `imbalance` | 2 Phi(r / sigma) - 1 of the bar | bulk volume classification |
//! | `depth` | -ln mean(abs return / T) | Amihud 2002 |
//! | `momentum_1`, `_5`, `_30` | ln(P_t / P_(t-h)) / (sigma sqrt h) | |
//! | `momentum_12_1` | P_(t-21) / P_(t-252) - 1, a fraction | Jegadeesh and Titman 1993 |
//! | `realised_vol` | percent a year | [`volatility`] |
//! | `order_flow_imbalance` | sum V (2 Phi(r / sigma) - 1) / sum V | signed bulk volume |
//! | `vwap_dev_bps` | 1e4 (P / VWAP - 1), VWAP of typical prices (H + L + C) / 3 | |
//! | `trade_intensity` | (V - mean) / deviation over the window | |
//! | `kyle_lambda` | basis points of price for 1e9 of turnover: Amihud, or a slope | Kyle 1985 |
//! | `vpin` | mean abs(V_b - V_s) / V over buckets of equal volume | [`flow`] |
//! | `rsi_14` | Wilder, seeded with a simple average | TA-Lib |
//! | `p_high_vol` | filtered probability of the volatile regime | [`regime`] |
//!
//! On bars, `kyle_lambda` in its default form is Amihud's measure over a longer window than
//! `depth`, which is the negative logarithm of the same; bars hold no signed volume from which a
//! slope could be had that is not circular, and `impact: ols` (returns on signed bulk volume) is
//! exactly that. `imbalance`, `order_flow_imbalance` and `vpin` take their signs from returns.
//!
//! Two passes: the first checks the whole file and gathers what is fitted (the regime model and
//! the bucket of VPIN, on the training span alone; it keeps one number for each bar, and nothing
//! else grows with the file), the second computes and writes. Every feature is causal: cutting
//! the file at a row leaves all rows before it as they are, to the bit.
//!
//! An `index` (columns date and close) adds two columns at the end: `index_close`, the last at or
//! before each date, and `corr_60`, the rolling correlation of returns with it.
//!
//! The regime model finds two states in any series; `regime_variance_ratio` and the stays among
//! the metrics say whether they mean anything.
//!
//! It does not scale, fill gaps, or adjust for splits and dividends.

pub mod bars;
pub mod date;
pub mod feature;
pub mod fit;
pub mod flow;
pub mod folds;
pub mod labels;
pub mod regime;
pub mod rolling;
pub mod split;
pub mod spread;
pub mod state;
pub mod table;
pub mod volatility;
pub mod window;

#[cfg(test)]
pub(crate) mod tests;

use std::io::Write;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use bars::{Bars, Closes};
use fit::{Fit, Scalers};
use split::{Spans, Split, Splits};
use state::{FEATURES, Follower, State};

/// How `kyle_lambda` is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// Mean absolute return by turnover.
    #[default]
    Amihud,
    /// Slope of returns on signed bulk volume. Its sign is read off the same returns.
    Ols,
}

/// Lengths of windows, in bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Windows {
    /// Volatility: `realised_vol`, and the sigma of momentum and of bulk volume classification.
    pub volatility: usize,
    /// `spread_bps`.
    pub spread: usize,
    /// `depth`.
    pub depth: usize,
    /// `order_flow_imbalance`.
    pub flow: usize,
    /// `vwap_dev_bps`.
    pub vwap: usize,
    /// `trade_intensity`.
    pub intensity: usize,
    /// `kyle_lambda`.
    pub impact: usize,
    /// Buckets over which `vpin` is a mean.
    pub vpin_buckets: usize,
    /// Correlation with the index.
    pub correlation: usize,
}

impl Default for Windows {
    fn default() -> Windows {
        Windows {
            volatility: 20,
            spread: 20,
            depth: 20,
            flow: 20,
            vwap: 20,
            intensity: 20,
            impact: 60,
            vpin_buckets: 50,
            correlation: 60,
        }
    }
}

/// Parameters of `featurize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Bars in a year: 252 for daily bars of a stock market, 365 where trading never stops,
    /// 525600 for minutes.
    pub periods_per_year: f64,
    /// Lengths of windows.
    pub windows: Windows,
    /// Estimator of the spread.
    pub spread: spread::SpreadMethod,
    /// Estimator of volatility.
    pub volatility: volatility::Estimator,
    /// Form of `kyle_lambda`.
    pub impact: Impact,
    /// A bucket of VPIN, in mean bars of the training span.
    pub vpin_bucket_bars: f64,
    /// The regime model.
    pub regime: regime::Regime,
    /// Training and test span.
    pub splits: Splits,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            periods_per_year: 252.0,
            windows: Windows::default(),
            spread: Default::default(),
            volatility: Default::default(),
            impact: Impact::default(),
            vpin_bucket_bars: 1.0,
            regime: Default::default(),
            splits: Splits::default(),
        }
    }
}

/// The stage.
pub struct Featurize;

impl Stage for Featurize {
    const NAME: &'static str = "featurize";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "bars to fifteen causal features of the market state";
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("bars", Format::Bars), Port::optional("index", Format::Any)]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("features", Format::Features, "features.csv"),
            Port::file("fit", Format::Metrics, "fit.json"),
        ]
    }

    fn check(params: &Params) -> Result<(), Invalid> {
        check(params)
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let path = ctx.file("bars")?;
        let scan = scan(path, params, ctx)?;
        let mut fit = learn(path, &scan, params, ctx)?;
        let counts = write(path, &scan, &mut fit, params, ctx)?;
        let mut json = serde_json::to_string_pretty(&fit).map_err(std::io::Error::from)?;
        json.push('\n');
        fs_err::write(ctx.output("fit")?, json)?;
        for (split, rows) in counts {
            ctx.metric(&format!("rows_{}", split.name()), rows as f64);
        }
        ctx.metric("regime_log_likelihood", fit.regime.log_likelihood);
        ctx.metric("regime_stay_calm", fit.regime.hmm.transition[0][0]);
        ctx.metric("regime_stay_volatile", fit.regime.hmm.transition[1][1]);
        let [calm, volatile] = fit.regime.hmm.variance;
        ctx.metric("regime_variance_ratio", volatile / calm);
        Ok(())
    }
}

fn check(params: &Params) -> Result<(), Invalid> {
    let w = &params.windows;
    let windows = [
        ("volatility", w.volatility),
        ("spread", w.spread),
        ("depth", w.depth),
        ("flow", w.flow),
        ("vwap", w.vwap),
        ("intensity", w.intensity),
        ("impact", w.impact),
        ("vpin_buckets", w.vpin_buckets),
        ("correlation", w.correlation),
    ];
    for (name, bars) in windows {
        if !(2..=100_000).contains(&bars) {
            return Err(Invalid::new(format!("windows.{name}"), "must lie between 2 and 100000"));
        }
    }
    let above_zero = [
        ("periods_per_year", params.periods_per_year),
        ("vpin_bucket_bars", params.vpin_bucket_bars),
    ];
    for (name, value) in above_zero {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Invalid::new(name, "must be above 0"));
        }
    }
    let r = &params.regime;
    if !(1..=1000).contains(&r.restarts) {
        return Err(Invalid::new("regime.restarts", "must lie between 1 and 1000"));
    }
    if r.max_steps == 0 {
        return Err(Invalid::new("regime.max_steps", "must be above 0"));
    }
    if !(r.stickiness >= 0.0 && r.stickiness.is_finite()) {
        return Err(Invalid::new("regime.stickiness", "must be 0 or more"));
    }
    if !(0.0..1.0).contains(&r.min_stay) {
        return Err(Invalid::new("regime.min_stay", "must be at least 0 and below 1"));
    }
    params.splits.check()
}

/// What the first pass finds.
struct Scan {
    rows: usize,
    spans: Spans,
    /// Dates of the first row and of the last training row.
    train: (String, String),
    /// Log returns in percent up to the last training row.
    returns: Vec<f64>,
    mean_volume: f64,
}

fn scan(path: &Path, params: &Params, ctx: &Context) -> Result<Scan> {
    let (end, start) =
        (split::bound(&params.splits.train_end), split::bound(&params.splits.test_start));
    let (mut rows, mut up_to_end, mut before_test, mut odd) = (0, 0, 0, 0u64);
    let (mut closes, mut volumes) = (Vec::new(), Vec::new());
    for bar in Bars::open(path)? {
        let bar = bar?;
        rows += 1;
        up_to_end += usize::from(end.as_ref().is_some_and(|end| date::up_to(&bar.key, end)));
        before_test += usize::from(start.as_ref().is_some_and(|start| bar.key < *start));
        odd += u64::from(!bar.is_ordered());
        if end.is_none() || up_to_end == rows {
            closes.push(bar.close);
            volumes.push(bar.volume);
        }
        if rows % 10_000 == 0 {
            ctx.progress(rows as u64, 0, "bars", "reading")?;
        }
    }
    if end.is_none() {
        up_to_end = (rows as f64 * params.splits.train_fraction) as usize;
    }
    if odd > 0 {
        ctx.warn(format!("{odd} bars open or close outside their low and high"));
    }
    let spans = Spans::new(&params.splits, up_to_end, before_test);
    closes.truncate(spans.train);
    volumes.truncate(spans.train);
    let too_short = || {
        StageError::bad(path, format!("the training span holds {} rows", spans.train))
            .hint("it needs a year of bars and more; move `splits.train_end` or add rows")
    };
    if spans.train < 30 {
        return Err(too_short());
    }
    let mut dates = Bars::open(path)?.take(spans.train);
    let first = dates.next().ok_or_else(too_short)??.date;
    let last = dates.last().ok_or_else(too_short)??.date;
    let returns = closes.windows(2).map(|w| 100.0 * (w[1] / w[0]).ln()).collect();
    let mean_volume = volumes.iter().sum::<f64>() / volumes.len() as f64;
    Ok(Scan { rows, spans, train: (first, last), returns, mean_volume })
}

fn learn(path: &Path, scan: &Scan, params: &Params, ctx: &Context) -> Result<Fit> {
    if scan.mean_volume <= 0.0 {
        return Err(StageError::bad(path, "volume is 0 throughout the training span")
            .hint("six of the features need it; use bars with traded volume"));
    }
    let restarts = params.regime.restarts as u64;
    let fitted = regime::fit(&scan.returns, &params.regime, |restart| {
        ctx.progress(restart as u64, restarts, "starts", "fitting the regimes")
    })?;
    let regime = fitted.ok_or_else(|| {
        let (n, restarts) = (scan.returns.len(), params.regime.restarts);
        StageError::failed(format!(
            "the regime model found no two lasting states in {n} training returns ({restarts} starts)"
        ))
        .hint("raise `regime.stickiness` or `regime.restarts`, or train on a longer span")
    })?;
    Ok(Fit {
        train: scan.train.clone(),
        train_rows: scan.spans.train,
        periods_per_year: params.periods_per_year,
        regime,
        vpin_bucket: fit::short(scan.mean_volume * params.vpin_bucket_bars),
        scalers: Default::default(),
    })
}

/// The second pass: writes the rows, completes the scalers, counts the splits.
fn write(
    path: &Path,
    scan: &Scan,
    fit: &mut Fit,
    params: &Params,
    ctx: &Context,
) -> Result<[(Split, usize); 4]> {
    let mut index = match ctx.has("index") {
        true => Some(Companion::open(ctx.file("index")?, params.windows.correlation)?),
        false => None,
    };
    let out = fs_err::File::create(ctx.output("features")?)?;
    let mut out = std::io::BufWriter::new(out);
    write!(out, "date,open,high,low,close,volume,split,{}", FEATURES.join(","))?;
    writeln!(out, "{}", if index.is_some() { ",index_close,corr_60" } else { "" })?;
    let mut state = State::new(params, fit);
    let mut scalers = Scalers::default();
    let mut counts = [(Split::Warmup, 0), (Split::Train, 0), (Split::Gap, 0), (Split::Test, 0)];
    for (row, bar) in Bars::open(path)?.enumerate() {
        let bar = bar?;
        let features = state.push(&bar);
        let followed = match &mut index {
            Some(index) => Some(index.at(&bar)?),
            None => None,
        };
        let whole = complete(&features);
        let known = followed.is_none_or(|(_, correlation)| correlation.is_some());
        let split = match &whole {
            Some(_) if known => scan.spans.of(row),
            _ => Split::Warmup,
        };
        if let (Split::Train, Some(whole)) = (split, &whole) {
            scalers.push(whole);
        }
        for (name, count) in &mut counts {
            *count += usize::from(*name == split);
        }
        let bars::Bar { date, open, high, low, close, volume, .. } = &bar;
        write!(out, "{date},{open},{high},{low},{close},{volume},{}", split.name())?;
        for value in features {
            cell(&mut out, value)?;
        }
        if let Some((close, correlation)) = followed {
            cell(&mut out, close)?;
            cell(&mut out, correlation)?;
        }
        writeln!(out)?;
        if row % 5_000 == 0 {
            ctx.progress(row as u64, scan.rows as u64, "bars", "features")?;
        }
    }
    out.flush()?;
    ctx.progress(scan.rows as u64, scan.rows as u64, "bars", "features")?;
    let [_, (_, train), _, (_, test)] = counts;
    if train == 0 {
        let message =
            format!("every row of the training span ({} rows) is warm-up", scan.spans.train);
        return Err(StageError::bad(path, message)
            .hint("momentum_12_1 alone needs 253 bars before the first row; train on more"));
    }
    if test == 0 {
        ctx.warn("no row is left to test on: `splits.train_end` is at the end of the file");
    }
    fit.scalers = scalers.finish();
    Ok(counts)
}

/// The row where every feature is known and finite.
fn complete(features: &state::Row) -> Option<[f64; 15]> {
    let mut whole = [0.0; 15];
    for (slot, value) in whole.iter_mut().zip(features) {
        *slot = value.filter(|x| x.is_finite())?;
    }
    Some(whole)
}

/// A cell after a comma; empty where the value is not known.
fn cell(out: &mut impl Write, value: Option<f64>) -> std::io::Result<()> {
    match value.filter(|x| x.is_finite()) {
        Some(value) => write!(out, ",{value}"),
        None => write!(out, ","),
    }
}

/// An index read beside the bars.
struct Companion {
    closes: std::iter::Peekable<Closes>,
    last: Option<f64>,
    follower: Follower,
}

impl Companion {
    fn open(path: &Path, window: usize) -> Result<Companion> {
        let closes = Closes::open(path)?.peekable();
        Ok(Companion { closes, last: None, follower: Follower::new(window) })
    }

    /// The index's close at the date of `bar` or before it, and the correlation so far.
    fn at(&mut self, bar: &bars::Bar) -> Result<(Option<f64>, Option<f64>)> {
        while let Some(next) =
            self.closes.next_if(|row| row.as_ref().map_or(true, |(key, _)| *key <= bar.key))
        {
            self.last = Some(next?.1);
        }
        let correlation = self.last.and_then(|index| self.follower.push(bar.close, index));
        Ok((self.last, correlation))
    }
}
