//! Strategies on the same bars under the same rules: replays, intervals from the same draws, random
//! portfolios, other costs, stretches of time, the index.

use std::sync::Arc;

use rayon::prelude::*;

use super::assessment::{BASE, Delay, HOLD, Index, MODEL, Strategy};
use super::backtest::{Fill, Path, Rules};
use super::baselines::{Random, random, random_weights};
use super::inference::{Interval, block_length, bootstrap, fan};
use super::metrics::{LAGS, mean, measure, regress, sharpe};
use super::panel::Panel;
use super::params::Params;
use super::plan::{Moves, Plan};
use super::queues::Fills;
use super::sensitivity::{Scenario, Slice, break_even, scenario, scenarios, slices};
use super::significance::holm;

/// What competes.
pub struct Case<'a> {
    /// Parameters.
    pub params: &'a Params,
    /// The seed.
    pub seed: u64,
    /// The bars that are judged.
    pub panel: &'a Panel,
    /// The strategies; the model first.
    pub plans: Vec<Plan>,
    /// Bars a year.
    pub per_year: f64,
    /// Probability of high volatility at each date, where there is one.
    pub storm: &'a [Option<f64>],
    /// When limit orders fill in the book's queues, under each queue model; the first is the panel's.
    pub queues: &'a [Arc<Fills>],
}

/// How it ended.
pub struct Contest {
    /// The strategies; the model first.
    pub strategies: Vec<Strategy>,
    /// The model among random portfolios.
    pub random: Random,
    /// The model under other costs and fills.
    pub scenarios: Vec<Scenario>,
    /// Cost at which nothing is left.
    pub break_even_bps: Option<f64>,
    /// The model later and earlier.
    pub delays: Vec<Delay>,
    /// By calendar year.
    pub years: Vec<Slice>,
    /// By regime.
    pub regimes: Vec<Slice>,
    /// The model on the index.
    pub index: Index,
    /// Value of the index.
    pub market: Vec<f64>,
    /// Resampled equity of the model.
    pub fan: Vec<(f64, f64)>,
    /// Mean block of the bootstrap, in bars.
    pub block: f64,
}

/// Dates by which decisions are delayed, to see how fast their worth decays.
const DELAYS: [i64; 6] = [-1, 0, 1, 2, 5, 10];

/// Lets the strategies compete. There is at least one plan, and the panel has at least three dates.
pub fn contest(case: Case) -> Contest {
    let Case { params, seed, panel, plans, per_year, storm, queues } = case;
    let rules = params.rules();
    // Buy and hold is the index: unlike a model it is never closed by the horizon.
    let rules_of = |name: &str| if name == HOLD { Rules { horizon: 0, ..rules } } else { rules };
    let index = panel.index();
    let paths: Vec<Path> =
        plans.par_iter().map(|p| p.moves.play(panel, &rules_of(&p.name))).collect();
    let returns: Vec<Vec<f64>> = paths.iter().map(Path::returns).collect();
    let series: Vec<&[f64]> = returns.iter().map(Vec::as_slice).collect();
    // The longer memory of the two: too short a block makes an interval too narrow.
    let block = block_length(&index).max(block_length(&returns[0]));
    let sampled = bootstrap(&series, per_year, block, params.draws, seed);
    let mine = &plans[0].moves;
    let replay = |rules: &Rules| mine.play(panel, rules);
    let limits = mine.has_limits().then_some(!queues.is_empty());
    let mut other = scenarios(&replay, &rules, per_year, limits);
    if mine.has_limits() {
        let in_queue = |fills: &Arc<Fills>| {
            let panel = Panel { queue: Some(fills.clone()), ..panel.clone() };
            let path = mine.play(&panel, &Rules { fill: Fill::Queue, ..rules });
            scenario(fills.name(), &path, per_year)
        };
        other.extend(queues.iter().map(in_queue));
    }
    let even = break_even(&replay, &rules);
    let delay = |dates: &i64| Delay {
        dates: *dates,
        sharpe: sharpe(&mine.shifted(*dates).play(panel, &rules).returns(), per_year),
    };
    let delays: Vec<Delay> = DELAYS.par_iter().map(delay).collect();
    let random = match mine {
        Moves::Orders(_) => {
            random(&panel.bars, &paths[0], &rules, per_year, params.random_portfolios, seed)
        }
        Moves::Weights(weights) => {
            let given = (panel, weights, &paths[0]);
            random_weights(given, &rules, per_year, params.random_portfolios, seed)
        }
    };
    let year = |i: usize| panel.dates.get(i + 1).and_then(|d| d.get(..4)).map(String::from);
    let regime = |i: usize| {
        let p = storm.get(i).copied().flatten()?;
        Some(if p > 0.5 { "high volatility" } else { "low volatility" }.to_string())
    };
    let find = |name: &&str| plans.iter().position(|p| p.name == *name);
    let shown: Vec<&[f64]> =
        [MODEL, HOLD, BASE].iter().filter_map(find).map(|at| series[at]).collect();
    let (years, regimes) = (slices(&shown, per_year, year), slices(&shown, per_year, regime));
    let on_index = on_index(&returns[0], &index, per_year);
    let fan = fan(&returns[0], block, params.draws.min(1000), seed, &random.marks);
    let mut strategies: Vec<Strategy> = plans
        .into_iter()
        .zip(paths)
        .zip(sampled)
        .map(|((plan, path), sampled)| Strategy {
            metrics: measure(&path, &index, per_year),
            name: plan.name,
            about: plan.about,
            sampled,
            p: None,
            path,
        })
        .collect();
    // Of the Sharpe ratio's distribution without skill; one that never varies is no try.
    let at: Vec<usize> =
        (0..strategies.len()).filter(|i| strategies[*i].metrics.psr.is_some()).collect();
    let p: Vec<f64> = at.iter().map(|i| 1.0 - strategies[*i].metrics.psr.unwrap_or(0.0)).collect();
    for ((i, p), corrected) in at.iter().zip(&p).zip(holm(&p)) {
        strategies[*i].p = Some((*p, corrected));
    }
    let mut value = 1.0;
    let market = std::iter::once(1.0)
        .chain(index.iter().map(|r| {
            value *= 1.0 + r;
            value
        }))
        .collect();
    Contest {
        strategies,
        random,
        scenarios: other,
        break_even_bps: even,
        delays,
        years,
        regimes,
        index: on_index,
        market,
        fan,
        block,
    }
}

fn on_index(mine: &[f64], index: &[f64], per_year: f64) -> Index {
    let (down, fell): (Vec<f64>, Vec<f64>) =
        mine.iter().zip(index).filter(|(_, i)| **i < 0.0).unzip();
    let line = regress(&down, &fell, LAGS);
    let whole = regress(mine, index, LAGS);
    let interval = whole.and_then(|l| {
        let error = (l.alpha / l.alpha_t.filter(|t| *t != 0.0)?).abs();
        let reach = 1.959_963_984_540_054 * error;
        Some(Interval { low: (l.alpha - reach) * per_year, high: (l.alpha + reach) * per_year })
    });
    Index {
        down_days: down.len(),
        down_beta: line.map(|l| l.beta),
        down_correlation: line.and_then(|l| l.correlation),
        down_mean: mean(&down),
        alpha: interval,
    }
}
