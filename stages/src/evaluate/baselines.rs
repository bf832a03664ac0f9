//! What the model must beat: rules that need no model, and chance.
//!
//! Every rule decides at the same dates as the model, from data up to that close, and trades under
//! the same rules and costs. Random portfolios hold what the model held for as long as it held it,
//! but at other times: the number of trades of each side and the exposure stay, the timing goes.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::backtest::{Bar, Path, Rules, run};
use super::inference::{band, marks, quantile};
use super::input::Table;
use super::metrics::{deviation, sharpe};
use super::panel::Panel;
use super::plan::{Moves, Plan, turned};
use super::portfolio::{Weights, replay};
use crate::pairs::action::{Action, Side};
use crate::pairs::decision::Decision;

/// A rule that decides at a row of the features.
pub struct Rule {
    /// Its name in tables.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// The decision at a row, from it and the rows before.
    pub decide: fn(&Table, usize) -> Action,
}

/// The rules, in the order of the table.
pub const RULES: &[Rule] = &[
    Rule { name: "cash", about: "never trades", decide: |_, _| Action::Flat },
    Rule {
        name: "momentum 12-1",
        about: "long where the close 21 bars ago is above that of 252 bars ago, else short",
        decide: momentum,
    },
    Rule {
        name: "mean reversion",
        about: "short after a rise over 5 bars, long after a fall",
        decide: |table, row| towards(change(table, row, 5, 0).map(|c| -c)),
    },
    Rule {
        name: "template rule",
        about: "from the model's own features: the sign of momentum_30, flat where p_high_vol is above one half",
        decide: template,
    },
];

/// Names of strategies that are there without any other model.
pub const NAMES: [&str; 9] = [
    "model",
    "base model",
    "buy and hold",
    "always majority",
    "vol-targeted",
    "cash",
    "momentum 12-1",
    "mean reversion",
    "template rule",
];

fn momentum(table: &Table, row: usize) -> Action {
    towards(change(table, row, 252, 21))
}

fn template(table: &Table, row: usize) -> Action {
    match table.feature("p_high_vol", row) {
        Some(p) if p <= 0.5 => towards(table.feature("momentum_30", row)),
        _ => Action::Flat,
    }
}

/// The return from `from` bars ago to `to` bars ago.
fn change(table: &Table, row: usize, from: usize, to: usize) -> Option<f64> {
    let (then, now) = (table.close(row.checked_sub(from)?)?, table.close(row.checked_sub(to)?)?);
    Some(now / then - 1.0)
}

/// A market order with the sign of a number; flat without one.
fn towards(signal: Option<f64>) -> Action {
    match signal {
        Some(x) if x > 0.0 => Action::Market(Side::Buy),
        Some(x) if x < 0.0 => Action::Market(Side::Sell),
        _ => Action::Flat,
    }
}

/// Volatility a year that `vol-targeted` aims at.
const AIM: f64 = 0.10;
/// Bars behind its estimate.
const BEHIND: usize = 20;

/// Long each instrument by as much as would have a volatility of [`AIM`] a year, were it that of the
/// last [`BEHIND`] bars, divided by the instruments there are: `panel` from its first date on, decided
/// from date `first` on at every `every`-th. No position is larger than `most`.
pub fn vol_targeted(
    panel: &Panel,
    first: usize,
    (every, per_year, most): (usize, f64, f64),
) -> Plan {
    let (dates, width) = (panel.len() - first, panel.width());
    let mut weights = Weights::none(dates, width);
    for t in (0..dates).step_by(every.max(1)) {
        let weight = |asset: usize| {
            let closes: Vec<f64> = panel.back(asset, first + t).take(BEHIND + 1).collect();
            let returns: Vec<f64> = closes.windows(2).map(|w| (w[0] / w[1]).ln()).collect();
            let vol = deviation(&returns).filter(|d| returns.len() == BEHIND && *d > 0.0);
            vol.map_or(0.0, |d| (AIM / (d * per_year.sqrt()) / width as f64).min(most))
        };
        let row: Vec<f64> = (0..width).map(weight).collect();
        weights.set(t, &row);
    }
    let about = "long, sized to a volatility of 10% a year by that of the last 20 bars";
    Plan {
        name: "vol-targeted".into(),
        about: about.into(),
        moves: Moves::Weights(weights.limited(most, 1.0f64.max(most))),
    }
}

/// The most frequent action; of equally frequent ones the first in the order of actions.
pub fn majority(actions: &[Action]) -> Option<Action> {
    let mut counts: BTreeMap<Action, usize> = BTreeMap::new();
    for action in actions {
        *counts.entry(*action).or_default() += 1;
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(action, _)| action)
}

/// Where the model stands among random portfolios.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Random {
    /// How many.
    pub count: usize,
    /// Share of them with a lower Sharpe ratio, ties counted half.
    pub percentile_sharpe: Option<f64>,
    /// Share of them with a lower return, ties counted half.
    pub percentile_return: Option<f64>,
    /// 5th, 50th and 95th percentile of their Sharpe ratios.
    pub sharpe: Option<[f64; 3]>,
    /// 5th, 50th and 95th percentile of their returns.
    pub total_return: Option<[f64; 3]>,
    /// Sharpe ratio to expect of the best of 10 of them, and of the best of 100: what trying that
    /// often yields without skill.
    pub best_of: Option<[f64; 2]>,
    /// All of them are the same portfolio: the model's position hardly ever changes, so that there
    /// is no timing to compare.
    pub degenerate: bool,
    /// Bars at which curves of many portfolios are kept.
    #[serde(skip)]
    pub marks: Vec<usize>,
    /// 5th and 95th percentile of their equity at these.
    #[serde(skip)]
    pub band: Vec<(f64, f64)>,
}

/// Replays `count` portfolios with the spells of `model` at other times, under `rules`.
pub fn random(
    bars: &[Bar],
    model: &Path,
    rules: &Rules,
    per_year: f64,
    count: usize,
    seed: u64,
) -> Random {
    // Positions, not orders, are shuffled: each is entered by a market order.
    let rules = Rules { horizon: 0, ..*rules };
    let lead = rules.latency.min(model.position.len());
    let spells = spells(&model.position[lead..]);
    let one = |number: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        run(bars, &decisions(&shuffled(&spells, &mut rng), bars.len()), &rules)
    };
    among(model, one, per_year, count)
}

/// Replays `count` portfolios with the weights of the model at other times and on other instruments
/// ([`turned`]); `given` is the panel, the weights and their replay.
pub fn random_weights(
    given: (&Panel, &Weights, &Path),
    rules: &Rules,
    per_year: f64,
    count: usize,
    seed: u64,
) -> Random {
    let (panel, weights, model) = given;
    let one = |number: u64| {
        let other = turned(weights, seed, number);
        replay(panel, |t| other.get(t), rules)
    };
    among(model, one, per_year, count)
}

/// Where `model` stands among `count` portfolios.
fn among(model: &Path, one: impl Fn(u64) -> Path + Sync, per_year: f64, count: usize) -> Random {
    let marks = marks(model.equity.len());
    let stat = |path: &Path| {
        let end = path.equity.last().map_or(0.0, |e| e - 1.0);
        (sharpe(&path.returns(), per_year).unwrap_or(0.0), end)
    };
    // Of long curves only so much is kept as is drawn.
    let kept = |number: u64| {
        let path = one(number);
        let curve: Vec<f64> = marks.iter().filter_map(|m| path.equity.get(*m).copied()).collect();
        (stat(&path), curve)
    };
    let (all, curves): (Vec<(f64, f64)>, Vec<Vec<f64>>) =
        (0..count as u64).into_par_iter().map(kept).unzip();
    let Some((first, curve)) = all.first().zip(curves.first()) else { return Random::default() };
    let mine = stat(model);
    let column = |pick: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = all.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (sharpes, ends) = (column(|s| s.0), column(|s| s.1));
    Random {
        count,
        percentile_sharpe: percentile(&sharpes, mine.0),
        percentile_return: percentile(&ends, mine.1),
        sharpe: three(&sharpes),
        total_return: three(&ends),
        best_of: best_of(&sharpes, 10).zip(best_of(&sharpes, 100)).map(|(a, b)| [a, b]),
        degenerate: all.iter().all(|s| s == first) && curves.iter().all(|c| c == curve),
        band: band(&curves, marks.len(), 0.05),
        marks,
    }
}

fn three(sorted: &[f64]) -> Option<[f64; 3]> {
    Some([quantile(sorted, 0.05)?, quantile(sorted, 0.5)?, quantile(sorted, 0.95)?])
}

/// Mean of the largest of `n` draws, with replacement, from sorted values.
fn best_of(sorted: &[f64], n: i32) -> Option<f64> {
    let m = sorted.len() as f64;
    let weight = |i: usize| ((i + 1) as f64 / m).powi(n) - (i as f64 / m).powi(n);
    (m > 0.0).then(|| sorted.iter().enumerate().map(|(i, v)| v * weight(i)).sum())
}

/// Share of sorted values below `value`, ties counted half.
fn percentile(sorted: &[f64], value: f64) -> Option<f64> {
    let below = sorted.partition_point(|v| *v < value);
    let upto = sorted.partition_point(|v| *v <= value);
    (!sorted.is_empty()).then(|| (below + upto) as f64 / 2.0 / sorted.len() as f64)
}

/// Runs of equal positions: position and length.
fn spells(position: &[i32]) -> Vec<(i32, usize)> {
    position.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
}

/// The same spells with the lengths of each position shuffled, begun at a random one.
fn shuffled(spells: &[(i32, usize)], rng: &mut ChaCha8Rng) -> Vec<(i32, usize)> {
    let mut all = spells.to_vec();
    let most = all.iter().map(|(units, _)| units.abs()).max().unwrap_or(0);
    for side in -most..=most {
        let mut lengths: Vec<usize> =
            all.iter().filter(|(s, _)| *s == side).map(|(_, n)| *n).collect();
        lengths.shuffle(rng);
        let slots = all.iter_mut().filter(|(s, _)| *s == side);
        for (slot, length) in slots.zip(lengths) {
            slot.1 = length;
        }
    }
    if !all.is_empty() {
        let at = rng.random_range(0..all.len());
        all.rotate_left(at);
    }
    all
}

/// Market orders that lead to the spells, from the first bar at which an order can have arrived.
fn decisions(spells: &[(i32, usize)], bars: usize) -> Vec<Option<Decision>> {
    let mut decisions = vec![None; bars];
    let mut at = 0;
    for (units, length) in spells {
        if let Some(slot) = decisions.get_mut(at) {
            *slot = Some(Decision::of(towards(Some(f64::from(*units))), units.unsigned_abs()));
        }
        at += length;
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::super::backtest::Fill;
    use super::*;

    const RULES_FREE: Rules = Rules {
        latency: 1,
        fill: Fill::Penetrate,
        horizon: 0,
        taker_bps: 0.0,
        maker_bps: 0.0,
        half_spread_bps: 0.0,
        unit: 1.0,
        max_size: 1,
        rest: 1,
        slippage_bps: 0.0,
    };
    const BUY: Action = Action::Market(Side::Buy);
    const SELL: Action = Action::Market(Side::Sell);

    fn bars(n: usize) -> Vec<Bar> {
        let price = |i: usize| 100.0 + 10.0 * (i as f64 * 0.7).sin();
        (0..n)
            .map(|i| (price(i), price(i + 1)))
            .map(|(open, close)| Bar {
                open,
                high: open.max(close) + 0.1,
                low: open.min(close) - 0.1,
                close,
            })
            .collect()
    }

    fn table(closes: &[f64]) -> Table {
        let bar = |c: &f64| Bar { open: *c, high: *c, low: *c, close: *c };
        let dates = (0..closes.len()).map(|t| format!("{t:04}")).collect();
        Table { bars: closes.iter().map(bar).collect(), dates, ..Table::default() }
    }

    #[test]
    fn momentum_looks_from_twelve_months_to_one() {
        let mut closes = vec![100.0; 300];
        closes[278 - 252] = 90.0;
        // The last month does not count.
        closes[270] = 1.0;
        assert_eq!(momentum(&table(&closes), 278), BUY);
        closes[278 - 21] = 80.0;
        assert_eq!(momentum(&table(&closes), 278), SELL);
        assert_eq!(momentum(&table(&closes), 251), Action::Flat);
    }

    #[test]
    fn the_template_rule_stays_out_of_storms() {
        let mut table = table(&[1.0, 1.0, 1.0]);
        table.features.insert("p_high_vol".into(), vec![Some(0.2), Some(0.9), None]);
        table.features.insert("momentum_30".into(), vec![Some(-1.0), Some(1.0), Some(1.0)]);
        let got: Vec<Action> = (0..3).map(|row| template(&table, row)).collect();
        assert_eq!(got, [SELL, Action::Flat, Action::Flat]);
    }

    #[test]
    fn volatility_is_aimed_at_with_what_is_known() {
        let mut closes: Vec<f64> = vec![100.0];
        for i in 1..60 {
            let size = if i < 40 { 0.01 } else { 0.04 };
            closes.push(closes[i - 1] * f64::exp(if i % 2 == 0 { size } else { -size }));
        }
        let panel = Panel::single(&table(&closes));
        let plan = vol_targeted(&panel, 30, (1, 252.0, 1.0));
        let Moves::Weights(weights) = &plan.moves else { panic!("no weights") };
        let at = |t: usize| weights.get(t).unwrap()[0];
        let deviation = 0.01 * (20.0f64 / 19.0).sqrt();
        assert!((at(0) - AIM / (deviation * 252f64.sqrt())).abs() < 1e-9, "{}", at(0));
        // The first large move is at date 40, ten after the first.
        assert!((at(9) - at(0)).abs() < 1e-9);
        assert!(at(10) < at(9) && at(29) < 0.3 * at(9));
        // Cut, it is the same.
        let cut = vol_targeted(&panel.slice(0..45), 30, (1, 252.0, 1.0));
        let Moves::Weights(part) = &cut.moves else { panic!("no weights") };
        assert!((0..15).all(|t| part.get(t) == weights.get(t)));
    }

    #[test]
    fn the_majority_is_stable() {
        assert_eq!(majority(&[]), None);
        assert_eq!(majority(&[SELL, BUY, SELL]), Some(SELL));
        assert_eq!(majority(&[SELL, BUY]), Some(BUY));
    }

    #[test]
    fn random_portfolios_keep_turnover_and_exposure() {
        let bars = bars(200);
        let pattern = [
            Some(BUY),
            None,
            Some(SELL),
            None,
            None,
            Some(Action::Flat),
            None,
            Some(BUY),
            Some(SELL),
        ];
        let decided: Vec<Option<Action>> = (0..200).map(|i| pattern[(i * i + i) % 9]).collect();
        let model = run(&bars, &decided, &RULES_FREE);
        let held = spells(&model.position[1..]);
        let count = |p: &[(i32, usize)], side| -> usize {
            p.iter().filter(|s| s.0 == side).map(|s| s.1).sum()
        };
        for number in 0..50 {
            let mut rng = ChaCha8Rng::seed_from_u64(number);
            let other = shuffled(&held, &mut rng);
            assert_eq!(other.len(), held.len());
            let path = run(&bars, &decisions(&other, 200), &RULES_FREE);
            for side in [-1, 0, 1] {
                let got = path.position[1..].iter().filter(|p| **p == side).count();
                assert_eq!(got, count(&held, side));
            }
        }
        let random = random(&bars, &model, &RULES_FREE, 252.0, 200, 3);
        assert!(!random.degenerate);
        let p = random.percentile_sharpe.unwrap();
        assert!((0.0..=1.0).contains(&p));
        assert_eq!(random.band.len(), 200);
    }

    #[test]
    fn the_best_of_many_is_better() {
        assert_eq!(best_of(&[1.0, 2.0], 1), Some(1.5));
        // The larger of two tosses: 2 in three of four cases.
        assert_eq!(best_of(&[1.0, 2.0], 2), Some(1.75));
        assert_eq!(best_of(&[], 10), None);
    }

    #[test]
    fn one_action_alone_has_no_timing() {
        let bars = bars(50);
        let model = run(&bars, &vec![Some(BUY); 50], &RULES_FREE);
        let random = random(&bars, &model, &RULES_FREE, 252.0, 20, 3);
        assert!(random.degenerate);
        assert_eq!(random.percentile_sharpe, Some(0.5));
    }

    #[test]
    fn perfect_foresight_beats_chance() {
        let bars = bars(300);
        // Knows the next bar's direction: a plant that the comparison must notice.
        let knows = |i: usize| bars.get(i + 1).map(|b| towards(Some(b.close - b.open)));
        let decided: Vec<Option<Action>> = (0..300).map(knows).collect();
        let model = run(&bars, &decided, &RULES_FREE);
        let random = random(&bars, &model, &RULES_FREE, 252.0, 200, 3);
        assert_eq!(random.percentile_sharpe, Some(1.0));
    }
}
