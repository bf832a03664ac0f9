//! A control: what a model of the same kind is worth that was fitted to labels in another order.
//!
//! Its labels say nothing of its features, so that it can know nothing: its log loss is no better than
//! that of the majority, and its Sharpe ratio is that of its exposure, less costs. If it is more, what
//! it knows came another way than by the labels it was fitted to: out of the features, the splits or
//! the scoring. `forecast` with `labels: permuted` makes the forecasts; nothing is fitted here.

use serde::Serialize;

use super::assessment::MODEL;
use super::causality::{Check, Outcome};
use super::forecasts::{Forecast, Run, mean as mean_forecast};
use super::inference::{Interval, block_length, bootstrap, draw};
use super::metrics::{LAGS, mean, regress, sharpe};
use super::numbers::{NONE, many, or_none, ratio};
use super::panel::Panel;
use super::plan::Moves;
use super::portfolio::Weights;
use super::verdict::show;

/// Name of the test.
pub const NAME: &str = "fit to labels in another order";

/// What the control is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Control {
    /// Its files: seeds of one model.
    pub files: Vec<String>,
    /// Forecasts of the span that is judged.
    pub forecasts: usize,
    /// Sharpe ratio a year of its positions, by the rules and costs of the model.
    pub sharpe: Option<f64>,
    /// Its 95 % interval, from the draws of the others.
    pub interval: Option<Interval>,
    /// The same of what the index does not explain: its returns less beta times those of the index.
    pub hedged: Option<f64>,
    /// Its 95 % interval.
    pub hedged_interval: Option<Interval>,
    /// Log loss.
    pub log_loss: Option<f64>,
    /// Log loss of always saying the shares of the classes.
    pub majority: Option<f64>,
    /// Where those shares are from.
    pub shares: &'static str,
    /// 95 % interval of the one less the other, by dates in blocks: below 0 the control knows more.
    pub difference: Option<Interval>,
}

/// How it is measured.
pub struct Rig<'a> {
    /// The bars that are judged.
    pub panel: &'a Panel,
    /// Forecasts to positions, and those to returns.
    pub weights: &'a dyn Fn(&[Forecast]) -> Weights,
    /// The rules of the model.
    pub rules: &'a super::backtest::Rules,
    /// Bars a year.
    pub per_year: f64,
    /// Mean block of the bootstrap, in bars.
    pub block: f64,
    /// Draws.
    pub draws: usize,
    /// The seed.
    pub seed: u64,
}

/// Measures the control; `None` without files. `folds` are forecasts out of fold, whose classes the
/// majority is counted by.
pub fn measure(runs: &[Run], folds: &[(usize, Forecast)], rig: &Rig) -> Option<Control> {
    let horizon = runs.first()?.horizon;
    let forecasts = mean_forecast(runs);
    let returns = Moves::Weights((rig.weights)(&forecasts)).play(rig.panel, rig.rules).returns();
    let index = rig.panel.index();
    let beta = regress(&returns, &index, LAGS).map_or(0.0, |line| line.beta);
    let hedged: Vec<f64> = returns.iter().zip(&index).map(|(r, i)| r - beta * i).collect();
    let sampled = bootstrap(&[&returns, &hedged], rig.per_year, rig.block, rig.draws, rig.seed);
    let of = |at: usize| sampled.get(at).and_then(|s| s.sharpe);
    let shares = shares(folds.iter().map(|(_, f)| f));
    let (shares, from) = match shares {
        Some(shares) => (Some(shares), "of the rows out of fold"),
        None => (self::shares(forecasts.iter()), "that came, which nobody knew before"),
    };
    let losses = losses(&forecasts, shares);
    let each = |of: fn(&[f64; 3]) -> f64| losses.iter().map(of).collect::<Vec<f64>>();
    let rows = each(|day| day[2]);
    let total: f64 = rows.iter().sum();
    // Of all rows, as the log loss of the other models is.
    let whole = |at: fn(&[f64; 3]) -> f64| {
        let sum: f64 = losses.iter().map(|day| at(day) * day[2]).sum();
        (total > 0.0).then(|| sum / total)
    };
    let difference = each(|day| day[0] - day[1]);
    Some(Control {
        files: runs.iter().map(|run| run.name.clone()).collect(),
        forecasts: forecasts.len(),
        sharpe: sharpe(&returns, rig.per_year),
        interval: of(0),
        hedged: sharpe(&hedged, rig.per_year),
        hedged_interval: of(1),
        log_loss: whole(|day| day[0]),
        majority: whole(|day| day[1]),
        shares: from,
        difference: interval(&difference, horizon, rig.draws, rig.seed),
    })
}

/// Shares of the classes that came; `None` where a class never did, or none is known.
fn shares<'a>(forecasts: impl Iterator<Item = &'a Forecast>) -> Option<[f64; 3]> {
    let mut counts = [0usize; 3];
    forecasts.filter_map(|f| f.class).for_each(|class| counts[class] += 1);
    let all = counts.iter().sum::<usize>() as f64;
    counts.iter().all(|n| *n > 0).then(|| counts.map(|n| n as f64 / all))
}

/// By date: mean loss of the forecasts, of the shares, and the number of rows. Rows of one date are
/// not independent.
fn losses(forecasts: &[Forecast], shares: Option<[f64; 3]>) -> Vec<[f64; 3]> {
    let Some(shares) = shares else { return Vec::new() };
    let loss = |p: &[f64; 3], class: usize| -p[class].max(1e-15).ln();
    let day = |day: &[Forecast]| {
        let known: Vec<(&Forecast, usize)> =
            day.iter().filter_map(|f| Some((f, f.class?))).collect();
        let own: Vec<f64> = known.iter().map(|(f, class)| loss(&f.p, *class)).collect();
        let flat: Vec<f64> = known.iter().map(|(_, class)| loss(&shares, *class)).collect();
        Some([mean(&own)?, mean(&flat)?, known.len() as f64])
    };
    forecasts.chunk_by(|a, b| a.at == b.at).filter_map(day).collect()
}

/// A 95 % interval of the mean, by the stationary bootstrap; blocks are at least a horizon long.
fn interval(x: &[f64], horizon: usize, draws: usize, seed: u64) -> Option<Interval> {
    if x.len() < 20 {
        return None;
    }
    let block = block_length(x).max(horizon as f64);
    let one = |number: usize| {
        let rows = draw(x.len(), block, seed, number as u64);
        rows.iter().map(|row| x[*row]).sum::<f64>() / x.len() as f64
    };
    Interval::of((0..draws).map(one).collect())
}

impl Control {
    /// The test, in words.
    pub fn check(control: Option<&Control>) -> Check {
        let Some(c) = control else {
            return Check::new(
                NAME,
                Outcome::NotDone,
                "not available: feed the forecasts of the same model, fitted by `forecast` with `labels: shuffled`, to the port `control`",
            );
        };
        let numbers = format!(
            "{} of a model fitted to permuted labels: Sharpe ratio {}, 95% {}; less its exposure to the index {}, 95% {}; log loss {} against {} of the majority (shares {}), the difference {}",
            many(c.forecasts, "forecast"),
            or_none(c.sharpe, ratio),
            show(c.interval, ratio),
            or_none(c.hedged, ratio),
            show(c.hedged_interval, ratio),
            or_none(c.log_loss, loss),
            or_none(c.majority, loss),
            c.shares,
            show(c.difference, loss),
        );
        let (outcome, said) = match c.finding() {
            Finding::Nothing => {
                (Outcome::Clean, "its interval covers 0, as it must where nothing leaks")
            }
            Finding::Clear => (
                Outcome::Clean,
                "its positions never varied, and it is no better than the majority",
            ),
            Finding::Leak(why) => (Outcome::Caught, why),
            Finding::Exposure => (
                Outcome::Look,
                "its interval does not cover 0, that of what the index does not explain does: it earned with the market, and not by knowing",
            ),
            Finding::Losses => (
                Outcome::Look,
                "its interval lies below 0: it trades without knowing, and pays for it",
            ),
            Finding::Unknown => (
                Outcome::NotDone,
                "it holds no row of which it is known what came, and its returns do not vary",
            ),
        };
        Check::new(NAME, outcome, format!("{numbers}: {said}"))
    }

    /// In a sentence of the verdict.
    pub fn sentence(&self) -> Option<String> {
        let ratio = |x: Option<f64>| x.map_or_else(|| NONE.to_string(), ratio);
        let what = match self.finding() {
            Finding::Leak(_) => "something leaks",
            Finding::Nothing => "nothing, as it must be without a leak",
            Finding::Exposure => "exposure to the market, and no leak",
            Finding::Losses => "costs, and no leak",
            Finding::Clear | Finding::Unknown => return None,
        };
        Some(format!(
            "Fitted to labels in another order the same {MODEL} has a Sharpe ratio of {} (95% interval {}): {what}.",
            ratio(self.sharpe),
            show(self.interval, super::numbers::ratio)
        ))
    }

    fn finding(&self) -> Finding {
        let above = |i: Option<Interval>| i.is_some_and(|i| i.low > 0.0);
        if self.difference.is_some_and(|d| d.high < 0.0) {
            return Finding::Leak(
                "its log loss is lower than the majority’s though its labels say nothing: something leaks (by chance once in forty)",
            );
        }
        match self.interval {
            _ if above(self.interval) && above(self.hedged_interval) => Finding::Leak(
                "its interval does not cover 0, nor does that of what the index does not explain: something leaks (by chance once in forty)",
            ),
            _ if above(self.interval) => Finding::Exposure,
            Some(i) if i.high < 0.0 => Finding::Losses,
            Some(_) => Finding::Nothing,
            None if self.log_loss.is_some() => Finding::Clear,
            None => Finding::Unknown,
        }
    }
}

enum Finding {
    /// It has no skill, and neither gains nor loses.
    Nothing,
    /// It never held a position that varied.
    Clear,
    /// It knows what it cannot.
    Leak(&'static str),
    /// What it gains the index gives to everybody.
    Exposure,
    /// Costs.
    Losses,
    /// There was nothing to see.
    Unknown,
}

/// A log loss, or a difference of two: they differ late.
fn loss(x: f64) -> String {
    super::numbers::fixed(x, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(interval: (f64, f64), hedged: (f64, f64), difference: (f64, f64)) -> Control {
        let of = |(low, high): (f64, f64)| Some(Interval { low, high });
        Control {
            files: vec!["forecasts".into()],
            forecasts: 100,
            sharpe: Some(0.5),
            interval: of(interval),
            hedged: Some(0.1),
            hedged_interval: of(hedged),
            log_loss: Some(1.09),
            majority: Some(1.08),
            shares: "of the rows out of fold",
            difference: of(difference),
        }
    }

    #[test]
    fn only_what_costs_and_the_market_do_not_explain_is_a_leak() {
        let outcome = |c: &Control| Control::check(Some(c)).outcome;
        let fair = (-0.001, 0.01);
        let said = |c: &Control| c.sentence().unwrap_or_default();
        let clean = control((-1.0, 2.0), (-1.0, 1.0), fair);
        assert_eq!(outcome(&clean), Outcome::Clean);
        assert!(said(&clean).contains("nothing, as it must be"));
        let leaks = control((0.2, 2.0), (0.1, 1.0), fair);
        assert_eq!(outcome(&leaks), Outcome::Caught);
        assert!(said(&leaks).ends_with("something leaks."));
        assert_eq!(outcome(&control((0.2, 2.0), (-0.1, 1.0), fair)), Outcome::Look);
        assert_eq!(outcome(&control((-2.0, -0.2), (-2.0, -0.1), fair)), Outcome::Look);
        assert_eq!(outcome(&control((-1.0, 2.0), (-1.0, 1.0), (-0.02, -0.01))), Outcome::Caught);
        assert_eq!(Control::check(None).outcome, Outcome::NotDone);
    }

    #[test]
    fn the_majority_is_counted_by_what_was_known_before() {
        let of = |class: usize, p: [f64; 3]| Forecast {
            at: class,
            asset: 0,
            until: None,
            p,
            mean: 0.0,
            scale: None,
            class: Some(class),
            came: None,
        };
        let rows: Vec<Forecast> = (0..3).map(|class| of(class, [0.5, 0.25, 0.25])).collect();
        assert_eq!(shares(rows.iter()), Some([1.0 / 3.0; 3]));
        // A class that never came would make the majority's loss infinite.
        assert_eq!(shares(rows[..2].iter()), None);
        let days = losses(&rows, Some([0.5, 0.3, 0.2]));
        assert_eq!(days[0], [-(0.5f64.ln()), -(0.5f64.ln()), 1.0]);
        assert_eq!(days[2], [-(0.25f64.ln()), -(0.2f64.ln()), 1.0]);
    }
}
