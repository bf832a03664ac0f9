//! What a row is to be judged by: labels that look ahead, each with the time t1 at which it is
//! known.
//!
//! Labels are the one thing here that is not causal, so they are made apart from the features, from
//! nothing but prices, and every row carries t1. [`folds`](super::folds) purges by it.
//!
//! The triple barrier (Lopez de Prado 2018, ch. 3): from p the price may rise to p (1 + take sigma),
//! fall to p (1 - stop sigma), or run out of time; the first of the three decides. Where the low and
//! the high of one bar touch both, the stop is taken to have come first. Sigma is known at t0.
//!
//! A row whose label would end after the data has none: it is not cut short.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::market::Sample;

/// What a label is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// ln(P_(t+h) / P_t); the class is its sign.
    ForwardReturn {
        /// h.
        horizon: Horizon,
    },
    /// Up, down, or flat where the forward return is smaller than a threshold.
    Direction {
        /// How far it looks ahead.
        horizon: Horizon,
        /// Less than this, basis points, is flat.
        #[serde(default)]
        flat_below_bps: f64,
    },
    /// Which of three barriers is touched first.
    TripleBarrier {
        /// When time runs out.
        horizon: Horizon,
        /// The upper barrier, in sigmas; 0 for none.
        #[serde(default = "one")]
        take: f64,
        /// The lower barrier, in sigmas; 0 for none.
        #[serde(default = "one")]
        stop: f64,
        /// Whether highs and lows touch, or closes alone.
        #[serde(default)]
        touch: Touch,
        /// Span of the exponentially weighted deviation of one-bar returns that is sigma.
        #[serde(default = "fifty")]
        span: f64,
    },
}

fn one() -> f64 {
    1.0
}
fn fifty() -> f64 {
    50.0
}

/// How far a label looks ahead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Horizon {
    /// Bars, or ticks of the clock.
    Bars(usize),
    /// Seconds: the first row at least so much later.
    Seconds(f64),
}

/// What touches a barrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Touch {
    /// Lows and highs.
    #[default]
    Range,
    /// Closes.
    Close,
}

/// A label that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// When it was known: nanoseconds since 1970-01-01 UTC.
    pub t1: i64,
    /// How many rows later that was.
    pub rows: usize,
    /// P_t1 / P_t0 - 1, at the barrier's price where one was touched by a low or a high.
    pub simple: f64,
    /// 1 up, -1 down, 0 neither.
    pub class: i8,
}

impl Label {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A horizon or a barrier that is none.
    pub fn check(&self, path: &str) -> Result<(), Invalid> {
        let wrong = |name: &str, why: &str| Err(Invalid::new(format!("{path}.{name}"), why));
        let (kind, horizon) = match self {
            Label::ForwardReturn { horizon } => ("forward_return", horizon),
            Label::Direction { horizon, .. } => ("direction", horizon),
            Label::TripleBarrier { horizon, .. } => ("triple_barrier", horizon),
        };
        match *horizon {
            Horizon::Bars(bars) if !(1..=1_000_000).contains(&bars) => {
                return wrong(&format!("{kind}.horizon.bars"), "must lie between 1 and 1000000");
            }
            Horizon::Seconds(s) if !(s > 0.0 && s < 1e9) => {
                return wrong(&format!("{kind}.horizon.seconds"), "must be above 0");
            }
            _ => {}
        }
        match *self {
            Label::Direction { flat_below_bps, .. }
                if flat_below_bps.is_nan() || flat_below_bps < 0.0 =>
            {
                wrong("direction.flat_below_bps", "must be 0 or more")
            }
            Label::TripleBarrier { take, stop, .. }
                if !(take >= 0.0 && stop >= 0.0 && take.is_finite() && stop.is_finite()) =>
            {
                wrong("triple_barrier", "`take` and `stop` must be 0 or more")
            }
            Label::TripleBarrier { span, .. } if !(span > 1.0 && span.is_finite()) => {
                wrong("triple_barrier.span", "must be above 1")
            }
            _ => Ok(()),
        }
    }

    fn horizon(&self) -> Horizon {
        match *self {
            Label::ForwardReturn { horizon }
            | Label::Direction { horizon, .. }
            | Label::TripleBarrier { horizon, .. } => horizon,
        }
    }
}

/// A row whose label is not known yet, or is but waits for one before it.
#[derive(Clone, Copy, Debug)]
struct Open {
    time: i64,
    price: f64,
    sigma: Option<f64>,
    age: usize,
    known: Option<Known>,
}

/// Labels rows in their order; holds as many as the horizon reaches over.
pub struct Labeller {
    label: Label,
    sigma: Deviation,
    last: Option<f64>,
    open: VecDeque<Open>,
}

impl Labeller {
    /// Before the first row.
    pub fn new(label: Label) -> Labeller {
        let span = if let Label::TripleBarrier { span, .. } = label { span } else { fifty() };
        let open = VecDeque::new();
        Labeller { label, sigma: Deviation::new(span), last: None, open }
    }

    /// Takes the next row: it decides rows before it, and is open itself.
    pub fn push(&mut self, sample: &Sample) {
        if let Some(last) = self.last.replace(sample.close) {
            self.sigma.push(sample.close / last - 1.0);
        }
        let sigma = self.sigma.value();
        self.push_with(sample, sigma);
    }

    fn push_with(&mut self, sample: &Sample, sigma: Option<f64>) {
        for row in self.open.iter_mut().filter(|row| row.known.is_none()) {
            row.age += 1;
            row.known = decide(&self.label, row, sample);
        }
        let (time, price) = (sample.time, sample.close);
        self.open.push_back(Open { time, price, sigma, age: 0, known: None });
    }

    /// The label of the next row in order, once it is known. With `ended`, there are no more rows,
    /// and what is not known never will be: `Some(None)`.
    pub fn pop(&mut self, ended: bool) -> Option<Option<Known>> {
        let first = self.open.front()?;
        // Without a sigma a barrier has no place, and there will be no label.
        let never =
            ended || (matches!(self.label, Label::TripleBarrier { .. }) && first.sigma.is_none());
        let known = first.known;
        (known.is_some() || never).then(|| {
            self.open.pop_front();
            known
        })
    }
}

fn decide(label: &Label, row: &Open, now: &Sample) -> Option<Known> {
    let due = match label.horizon() {
        Horizon::Bars(bars) => row.age >= bars,
        Horizon::Seconds(seconds) => now.time >= row.time.saturating_add((seconds * 1e9) as i64),
    };
    let simple = now.close / row.price - 1.0;
    let at = |simple: f64, class: i8| Some(Known { t1: now.time, rows: row.age, simple, class });
    match *label {
        Label::ForwardReturn { .. } if due => at(simple, sign(simple)),
        Label::Direction { flat_below_bps, .. } if due => {
            at(simple, if simple.ln_1p().abs() * 1e4 < flat_below_bps { 0 } else { sign(simple) })
        }
        Label::TripleBarrier { take, stop, touch, .. } => {
            let sigma = row.sigma?;
            let (up, down) = (take * sigma, -stop * sigma);
            let (low, high) = match touch {
                Touch::Range => (now.low / row.price - 1.0, now.high / row.price - 1.0),
                Touch::Close => (simple, simple),
            };
            let paid = |barrier: f64| if touch == Touch::Range { barrier } else { simple };
            match () {
                () if stop > 0.0 && low <= down => at(paid(down), -1),
                () if take > 0.0 && high >= up => at(paid(up), 1),
                () if due => at(simple, 0),
                () => None,
            }
        }
        _ => None,
    }
}

fn sign(x: f64) -> i8 {
    match x {
        x if x > 0.0 => 1,
        x if x < 0.0 => -1,
        _ => 0,
    }
}

/// Weights that give each class of the training rows the same sum: n / (classes n_c).
pub fn balance(counts: &[(i8, usize)]) -> Vec<(i8, f64)> {
    let present: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
    let all: usize = present.iter().map(|(_, count)| count).sum();
    let weight = |count: usize| all as f64 / (present.len() * count) as f64;
    present.iter().map(|&&(class, count)| (class, weight(count))).collect()
}

/// Exponentially weighted standard deviation, weights (1 - a)^i with a = 2 / (span + 1), corrected
/// for its bias as pandas does (`ewm(span).std()`).
#[derive(Clone, Debug)]
pub struct Deviation {
    keep: f64,
    count: usize,
    mean: f64,
    variance: f64,
    weight: f64,
    squares: f64,
}

impl Deviation {
    /// Before the first value.
    pub fn new(span: f64) -> Deviation {
        let keep = 1.0 - 2.0 / (span + 1.0);
        Deviation { keep, count: 0, mean: 0.0, variance: 0.0, weight: 0.0, squares: 0.0 }
    }
    /// Takes a value.
    pub fn push(&mut self, x: f64) {
        self.count += 1;
        let old = self.weight * self.keep;
        let weight = old + 1.0;
        let mean = (old * self.mean + x) / weight;
        let moved = self.mean - mean;
        let away = x - mean;
        self.variance = (old * (self.variance + moved * moved) + away * away) / weight;
        self.mean = mean;
        self.weight = weight;
        self.squares = self.squares * self.keep * self.keep + 1.0;
    }
    /// The deviation of two values or more.
    pub fn value(&self) -> Option<f64> {
        let all = self.weight * self.weight;
        (self.count > 1).then(|| (all / (all - self.squares) * self.variance).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const DAY: i64 = 86_400_000_000_000;

    fn expected() -> Value {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/featurize/testdata");
        serde_json::from_str(&fs_err::read_to_string(dir.join("barrier.json")).unwrap()).unwrap()
    }

    /// The closes that the reference is of.
    fn daily(expected: &Value) -> Vec<Sample> {
        let day = |day: &Value| {
            let close = day[1].as_f64().unwrap();
            bar(DAY * day[0].as_i64().unwrap(), close, close, close)
        };
        expected["closes"].as_array().unwrap().iter().map(day).collect()
    }

    /// mlfinpy's daily volatility is of returns since the last bar that is more than a day older,
    /// which between weekdays is two bars.
    #[test]
    fn deviation_agrees_with_the_reference() {
        let expected = expected();
        let days = daily(&expected);
        let mut deviation = Deviation::new(50.0);
        let mut seen = 0;
        for (i, day) in days.iter().enumerate() {
            let before = days.partition_point(|d| d.time < day.time - DAY);
            if before > 0 {
                deviation.push(day.close / days[before - 1].close - 1.0);
            }
            if let Some(of) = expected["daily_vol"].get(i.to_string()) {
                let of = of.as_f64().unwrap();
                assert!((deviation.value().unwrap() / of - 1.0).abs() < 1e-9, "{i}");
                seen += 1;
            }
        }
        assert_eq!(seen, expected["daily_vol"].as_object().unwrap().len());
    }

    /// Without a side, mlfinpy takes the first of `pt_sl` for both barriers, and yet the second to
    /// class what ran out of time.
    #[test]
    fn barriers_agree_with_the_reference() {
        let expected = expected();
        let days = daily(&expected);
        let horizon = Horizon::Seconds(10.0 * 86_400.0);
        for (name, both) in [("pt1_sl1", 1.0), ("pt2_sl1", 2.0)] {
            let (take, stop) = (both, both);
            let label =
                Label::TripleBarrier { horizon, take, stop, touch: Touch::Close, span: 50.0 };
            let events = expected[name].as_array().unwrap().clone();
            assert!(events.len() > 50);
            for event in events {
                let i = event["i"].as_u64().unwrap() as usize;
                let mut labeller = Labeller::new(label);
                labeller.push_with(&days[i], event["trgt"].as_f64());
                let later = days[i + 1..].iter();
                let known = later.into_iter().find_map(|day| {
                    labeller.push_with(day, None);
                    labeller.pop(false)
                });
                let known = known.unwrap().unwrap();
                assert_eq!(known.t1, days[event["t1"].as_u64().unwrap() as usize].time, "{i}");
                assert!((known.simple - event["ret"].as_f64().unwrap()).abs() < 1e-12, "{i}");
                let bin = event["bin"].as_i64().unwrap();
                let ran_out = (known.class, bin) == (0, -1)
                    && known.simple < -event["trgt"].as_f64().unwrap();
                assert!(i64::from(known.class) == bin || both == 2.0 && ran_out, "{i}");
            }
        }
    }

    fn bar(time: i64, low: f64, high: f64, close: f64) -> Sample {
        Sample { time, open: close, high, low, close, ..Sample::default() }
    }

    #[test]
    fn of_both_in_one_bar_the_stop_comes_first() {
        let label = Label::TripleBarrier {
            horizon: Horizon::Bars(3),
            take: 1.0,
            stop: 1.0,
            touch: Touch::Range,
            span: 50.0,
        };
        let mut labeller = Labeller::new(label);
        labeller.push_with(&bar(0, 100.0, 100.0, 100.0), Some(0.01));
        labeller.push_with(&bar(1, 99.5, 100.5, 100.0), Some(0.01));
        assert_eq!(labeller.pop(false), None);
        labeller.push_with(&bar(2, 90.0, 110.0, 100.0), Some(0.01));
        let known = labeller.pop(false).unwrap().unwrap();
        assert_eq!((known.t1, known.class), (2, -1));
        assert!((known.simple + 0.01).abs() < 1e-15);
    }

    #[test]
    fn rows_come_out_in_order_and_the_last_have_none() {
        let label = Label::Direction { horizon: Horizon::Bars(2), flat_below_bps: 50.0 };
        let mut labeller = Labeller::new(label);
        let closes = [100.0, 101.0, 100.2, 103.0];
        let mut out = Vec::new();
        for (time, close) in closes.into_iter().enumerate() {
            labeller.push(&bar(time as i64, close, close, close));
            out.extend(std::iter::from_fn(|| labeller.pop(false)));
        }
        out.extend(std::iter::from_fn(|| labeller.pop(true)));
        let classes: Vec<_> = out.iter().map(|known| known.map(|k| (k.t1, k.class))).collect();
        assert_eq!(classes, [Some((2, 0)), Some((3, 1)), None, None]);
    }

    #[test]
    fn classes_weigh_the_same() {
        assert_eq!(balance(&[(-1, 10), (0, 0), (1, 30)]), [(-1, 2.0), (1, 40.0 / 60.0)]);
    }
}
