//! How much of a result hangs on assumptions and on stretches of time: other costs, one bar more
//! of latency, other fills; years and regimes.

use rayon::prelude::*;
use serde::Serialize;

use super::backtest::{Fill, Path, Rules};
use super::metrics::{measure, sharpe};

/// Returns below which a slice has no Sharpe ratio: of a handful it is noise.
const FEWEST: usize = 20;

/// The model under other assumptions.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// What is different.
    pub name: String,
    /// Compound growth a year.
    pub cagr: Option<f64>,
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
    /// Deepest fall.
    pub max_drawdown: f64,
    /// Whole return.
    pub total_return: f64,
    /// Limit orders that would have changed the position, and those that filled.
    pub limits: (usize, usize),
}

/// A part of the bars: returns and Sharpe ratios of the model, buy and hold, and the base model.
#[derive(Clone, Debug, Serialize)]
pub struct Slice {
    /// Which part.
    pub name: String,
    /// Returns in it.
    pub returns: usize,
    /// For each strategy shown: compounded return and Sharpe ratio a year.
    pub rows: Vec<(f64, Option<f64>)>,
}

/// Replays the model under other costs, latency and, where it sends limit orders (`limits`), other fills:
/// those that the rules do not have, or `true` for all, to stand side by side.
pub fn scenarios(
    replay: &(dyn Fn(&Rules) -> Path + Sync),
    rules: &Rules,
    per_year: f64,
    limits: Option<bool>,
) -> Vec<Scenario> {
    let mut cases = vec![
        ("gross: no costs", rules.scaled(0.0)),
        ("0.5x costs", rules.scaled(0.5)),
        ("1x costs", *rules),
        ("2x costs", rules.scaled(2.0)),
        ("5x costs", rules.scaled(5.0)),
        ("one more bar of latency", Rules { latency: rules.latency + 1, ..*rules }),
    ];
    let fills = [
        ("limits fill when touched", Fill::Touch),
        ("limits fill when traded through", Fill::Penetrate),
    ];
    if let Some(all) = limits {
        let others = fills.into_iter().filter(|(_, fill)| all || *fill != rules.fill);
        cases.extend(others.map(|(name, fill)| (name, Rules { fill, ..*rules })));
    }
    cases.into_par_iter().map(|(name, rules)| scenario(name, &replay(&rules), per_year)).collect()
}

/// A replay under another assumption.
pub fn scenario(name: impl Into<String>, path: &Path, per_year: f64) -> Scenario {
    let metrics = measure(path, &[], per_year);
    Scenario {
        name: name.into(),
        cagr: metrics.cagr,
        sharpe: metrics.sharpe,
        max_drawdown: metrics.max_drawdown,
        total_return: metrics.total_return,
        limits: metrics.limits,
    }
}

/// The cost of each side, in basis points, at which nothing is left, by bisection. `None` where the model does not
/// trade, loses without costs, or gains at 1,000 bps.
pub fn break_even(replay: &dyn Fn(&Rules) -> Path, rules: &Rules) -> Option<f64> {
    let left = |bps: f64| {
        let costs = Rules { taker_bps: bps, maker_bps: bps, ..rules.scaled(0.0) };
        replay(&costs).equity.last().map_or(0.0, |e| e - 1.0)
    };
    let (mut low, mut high) = (0.0, 1000.0);
    if left(low) <= 0.0 || left(high) > 0.0 {
        return None;
    }
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if left(middle) > 0.0 { low = middle } else { high = middle }
    }
    Some(low)
}

/// Groups returns (return i leads to bar i + 1) by a name, in the order in which names appear.
pub fn slices(
    series: &[&[f64]],
    per_year: f64,
    name: impl Fn(usize) -> Option<String>,
) -> Vec<Slice> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for i in 0..series.first().map_or(0, |s| s.len()) {
        let Some(name) = name(i) else { continue };
        match groups.iter_mut().find(|g| g.0 == name) {
            Some(group) => group.1.push(i),
            None => groups.push((name, vec![i])),
        }
    }
    let slice = |(name, at): (String, Vec<usize>)| {
        let row = |s: &&[f64]| {
            let part: Vec<f64> = at.iter().filter_map(|i| s.get(*i).copied()).collect();
            let ratio = sharpe(&part, per_year).filter(|_| part.len() >= FEWEST);
            (part.iter().map(|r| 1.0 + r).product::<f64>() - 1.0, ratio)
        };
        Slice { returns: at.len(), rows: series.iter().map(row).collect(), name }
    };
    groups.into_iter().map(slice).collect()
}
