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
//! A meta-label ([`Meta`]; ch. 3.6) leaves the side to something else, a feature or a model's answers,
//! and says whether taking it paid: 1(side ret > 0). The barriers then lie on the side's own path: `take`
//! is profit whichever way it trades. Rows where nothing takes a side have no label.
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

/// Whether a side that something else takes is worth taking: label 1 where it paid, else 0.
///
/// `label_return` is then the return of the side, and a column `label_side` holds the side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Meta {
    /// A column of `features` whose sign is the side, such as `momentum_20`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<String>,
    /// The side is +1 where the column lies above this and -1 where it lies below minus this; between,
    /// none is taken.
    pub above: f64,
    /// Instead of `side`, a column of port `answers` (a CSV file with `date`, such as the `decisions` of
    /// `evaluate`, whose column is `action`): an action in words, JSON or code, or a number, by its sign.
    /// It counts for the row of the same date alone. The answers must be of a model that has not learnt
    /// from that row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<String>,
    /// What becomes of a triple barrier that runs out of time.
    pub timeout: Timeout,
}

/// What a triple barrier that runs out of time is to a meta-label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Timeout {
    /// By the sign of the return of the side.
    #[default]
    Sign,
    /// 0: only the barrier of profit is 1.
    Lost,
}

impl Meta {
    /// What the types cannot say. `columns` are those of the features, where they are known.
    ///
    /// # Errors
    /// No source of sides or two, a threshold that is none, or a column that is not there.
    pub fn check(&self, columns: Option<&[String]>) -> Result<(), Invalid> {
        let hint = "`side` names a column of `features`, `answers` a column of port `answers`";
        match (&self.side, &self.answers) {
            (None, None) => return Err(Invalid::new("meta", "takes no side").help(hint)),
            (Some(_), Some(_)) => {
                return Err(Invalid::new("meta", "takes its side from two places").help(hint));
            }
            (Some(side), None) if columns.is_some_and(|columns| !columns.contains(side)) => {
                let message = format!("there is no column `{side}` in `features`");
                return Err(Invalid::new("meta.side", message).help("add it to `features`"));
            }
            _ => {}
        }
        if !(self.above >= 0.0 && self.above.is_finite()) {
            return Err(Invalid::new("meta.above", "must be 0 or more"));
        }
        Ok(())
    }

    /// The side that a value of the column takes.
    pub fn side_of(&self, value: Option<f64>) -> Option<i8> {
        match value? {
            x if x > self.above => Some(1),
            x if x < -self.above => Some(-1),
            _ => None,
        }
    }
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
    /// P_t1 / P_t0 - 1, at the barrier's price where one was touched by a low or a high; of a meta-label
    /// times the side.
    pub simple: f64,
    /// 1 up, -1 down, 0 neither; of a meta-label 1 where the side paid, else 0.
    pub class: i8,
    /// The side of a meta-label; else 0.
    pub side: i8,
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
    /// 1 or -1 of a meta-label, 0 where nothing takes a side; `None` without a meta-label.
    side: Option<i8>,
    age: usize,
    known: Option<Known>,
}

/// Labels rows in their order; holds as many as the horizon reaches over.
pub struct Labeller {
    label: Label,
    /// Of a meta-label.
    timeout: Option<Timeout>,
    sigma: Deviation,
    last: Option<f64>,
    open: VecDeque<Open>,
}

impl Labeller {
    /// Before the first row; with `meta`, of meta-labels.
    pub fn new(label: Label, meta: Option<&Meta>) -> Labeller {
        let span = if let Label::TripleBarrier { span, .. } = label { span } else { fifty() };
        let (open, timeout) = (VecDeque::new(), meta.map(|meta| meta.timeout));
        Labeller { label, timeout, sigma: Deviation::new(span), last: None, open }
    }

    /// Takes the next row: it decides rows before it, and is open itself. `side` is what a meta-label
    /// judges, where one is taken.
    pub fn push(&mut self, sample: &Sample, side: Option<i8>) {
        if let Some(last) = self.last.replace(sample.close) {
            self.sigma.push(sample.close / last - 1.0);
        }
        let sigma = self.sigma.value();
        self.push_with(sample, sigma, side);
    }

    fn push_with(&mut self, sample: &Sample, sigma: Option<f64>, side: Option<i8>) {
        for row in self.open.iter_mut().filter(|row| row.known.is_none()) {
            row.age += 1;
            row.known = match (row.side, self.timeout) {
                (Some(0), _) => None,
                (Some(side), Some(timeout)) => decide_side(&self.label, row, sample, side, timeout),
                _ => decide(&self.label, row, sample),
            };
        }
        let (time, price) = (sample.time, sample.close);
        let side = self.timeout.map(|_| side.unwrap_or(0));
        self.open.push_back(Open { time, price, sigma, side, age: 0, known: None });
    }

    /// The label of the next row in order, once it is known. With `ended`, there are no more rows,
    /// and what is not known never will be: `Some(None)`.
    pub fn pop(&mut self, ended: bool) -> Option<Option<Known>> {
        let first = self.open.front()?;
        // Without a sigma a barrier has no place, without a side there is nothing to judge, and there
        // will be no label.
        let placeless = matches!(self.label, Label::TripleBarrier { .. }) && first.sigma.is_none();
        let never = ended || placeless || first.side == Some(0);
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
    let (t1, rows) = (now.time, row.age);
    let at = |simple: f64, class: i8| Some(Known { t1, rows, simple, class, side: 0 });
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

/// The same for a side: on its own path, which of a short is the market's upside down.
fn decide_side(
    label: &Label,
    row: &Open,
    now: &Sample,
    side: i8,
    timeout: Timeout,
) -> Option<Known> {
    let s = f64::from(side);
    let mirrored = |price: f64| row.price * (1.0 + s * (price / row.price - 1.0));
    let (low, high) = if side > 0 { (now.low, now.high) } else { (now.high, now.low) };
    let own = Sample {
        time: now.time,
        low: mirrored(low),
        high: mirrored(high),
        close: mirrored(now.close),
        ..Sample::default()
    };
    let known = decide(label, row, &own)?;
    let paid = match (label, known.class, timeout) {
        (Label::TripleBarrier { .. }, 0, Timeout::Sign) => known.simple > 0.0,
        (_, class, _) => class > 0,
    };
    Some(Known { class: i8::from(paid), side, ..known })
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
                let mut labeller = Labeller::new(label, None);
                labeller.push_with(&days[i], event["trgt"].as_f64(), None);
                let later = days[i + 1..].iter();
                let known = later.into_iter().find_map(|day| {
                    labeller.push_with(day, None, None);
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

    /// mlfinpy calls the side's return exp(side ln(1 + r)) - 1, and what runs out of time lost.
    #[test]
    fn meta_labels_agree_with_the_reference() {
        let expected = expected();
        let days = daily(&expected);
        let horizon = Horizon::Seconds(10.0 * 86_400.0);
        let (take, stop, touch) = (1.0, 1.0, Touch::Close);
        let label = Label::TripleBarrier { horizon, take, stop, touch, span: 50.0 };
        let by = |timeout| Meta { side: Some("momentum_20".into()), timeout, ..Meta::default() };
        let (lost, signed) = (by(Timeout::Lost), by(Timeout::Sign));
        let events = expected["meta_label_mom20"].as_array().unwrap();
        let (mut shorts, mut late) = (0, 0);
        for event in events {
            let i = event["i"].as_u64().unwrap() as usize;
            let side = lost.side_of(Some(days[i].close / days[i - 20].close - 1.0)).unwrap();
            assert_eq!(Some(f64::from(side)), event["side"].as_f64());
            let known = |meta: &Meta| {
                let mut labeller = Labeller::new(label, Some(meta));
                labeller.push_with(
                    &days[i],
                    expected["daily_vol"][i.to_string()].as_f64(),
                    Some(side),
                );
                days[i + 1..].iter().find_map(|day| {
                    labeller.push_with(day, None, None);
                    labeller.pop(false)
                })
            };
            let ours = known(&lost).unwrap().unwrap();
            assert_eq!(ours.t1, days[event["t1"].as_u64().unwrap() as usize].time, "{i}");
            let theirs = (1.0 + f64::from(side) * ours.simple).powi(side.into()) - 1.0;
            assert!((theirs - event["ret"].as_f64().unwrap()).abs() < 1e-12, "{i}");
            assert_eq!(Some(i64::from(ours.class)), event["bin"].as_i64(), "{i}");
            let by_sign = known(&signed).unwrap().unwrap();
            assert_eq!((by_sign.class == 1, by_sign.side), (ours.simple > 0.0, side));
            shorts += usize::from(side < 0);
            late += usize::from(by_sign.class != ours.class);
        }
        assert!(events.len() == 64 && shorts > 10 && late > 3);
    }

    #[test]
    fn without_a_side_there_is_no_label() {
        let horizon = Horizon::Bars(1);
        let meta = Meta { side: Some("x".into()), above: 0.5, ..Meta::default() };
        let sides = [0.5, 0.6, -0.6, 0.9].map(|x| meta.side_of(Some(x)));
        assert_eq!(sides, [None, Some(1), Some(-1), Some(1)]);
        let mut labeller = Labeller::new(Label::ForwardReturn { horizon }, Some(&meta));
        let mut out = Vec::new();
        for ((time, close), side) in [100.0, 101.0, 99.0, 98.0].into_iter().enumerate().zip(sides) {
            labeller.push(&bar(time as i64, close, close, close), side);
            out.extend(std::iter::from_fn(|| labeller.pop(false)));
        }
        let classes: Vec<_> = out.iter().map(|known| known.map(|k| (k.class, k.side))).collect();
        assert_eq!(classes, [None, Some((0, 1)), Some((1, -1))]);
        assert!(Meta::default().check(None).unwrap_err().message.contains("no side"));
        let columns = ["y".to_owned()];
        assert_eq!(meta.check(Some(&columns)).unwrap_err().path, "meta.side");
        let both = Meta { answers: Some("action".into()), ..meta };
        assert!(both.check(None).unwrap_err().message.contains("two places"));
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
        let mut labeller = Labeller::new(label, None);
        labeller.push_with(&bar(0, 100.0, 100.0, 100.0), Some(0.01), None);
        labeller.push_with(&bar(1, 99.5, 100.5, 100.0), Some(0.01), None);
        assert_eq!(labeller.pop(false), None);
        labeller.push_with(&bar(2, 90.0, 110.0, 100.0), Some(0.01), None);
        let known = labeller.pop(false).unwrap().unwrap();
        assert_eq!((known.t1, known.class), (2, -1));
        assert!((known.simple + 0.01).abs() < 1e-15);
    }

    #[test]
    fn rows_come_out_in_order_and_the_last_have_none() {
        let label = Label::Direction { horizon: Horizon::Bars(2), flat_below_bps: 50.0 };
        let mut labeller = Labeller::new(label, None);
        let closes = [100.0, 101.0, 100.2, 103.0];
        let mut out = Vec::new();
        for (time, close) in closes.into_iter().enumerate() {
            labeller.push(&bar(time as i64, close, close, close), None);
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
