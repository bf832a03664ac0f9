//! From a numerical model's forecasts to everything that the report says: target positions, their
//! replay over all instruments, baselines, seeds, and the forecasts as forecasts.
//!
//! Several files with the same rows are seeds of one model: what is judged is their mean forecast, and
//! each of them is replayed alone as well.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::assess::{Parts, per_year, span};
use super::assessment::{
    Assessment, Decision, HOLD, MODEL, Provenance, Rival, Seed, Seeds, Source,
};
use super::backtest::Rules;
use super::baselines::{RULES, vol_targeted};
use super::causality;
use super::contest::{Case, contest};
use super::control::{Control, Rig, measure};
use super::facts;
use super::forecasts::{Forecast, Run, mean};
use super::importance::Importance;
use super::inference::quantile;
use super::input::Table;
use super::metrics::{cagr, max_drawdown, sharpe};
use super::panel::Panel;
use super::params::Params;
use super::plan::{Moves, Plan};
use super::policy::{Policy, Sizing};
use super::portfolio::Weights;
use super::quality::quality;
use super::selection::{self, Trial};
use super::significance::diebold_mariano;
use crate::pairs::action::{Action, Side};
use crate::{Result, StageError};

/// What is assessed.
pub struct Given<'a> {
    /// Parameters.
    pub params: &'a Params,
    /// From forecasts to positions.
    pub policy: &'a Policy,
    /// The seed of draws and random portfolios.
    pub seed: u64,
    /// The tables by instrument, of all spans.
    pub tables: &'a [(String, Table)],
    /// All their bars.
    pub whole: &'a Panel,
    /// The model: a run for each of its seeds, with the same rows.
    pub runs: Vec<Run>,
    /// Other models, by name.
    pub baselines: Vec<Run>,
    /// The model fitted to labels in another order: a run for each of its seeds.
    pub control: Vec<Run>,
    /// What its features are worth to the model, where that is known.
    pub importance: Option<Vec<Importance>>,
    /// Digests of the inputs.
    pub inputs: Vec<Source>,
    /// Returns of other configurations on the same bars.
    pub trials: Vec<Trial>,
}

/// Replays, compares and judges.
///
/// # Errors
/// The span is too short, or `sizing` asks for a scale that a forecast lacks.
pub fn assess(given: Given) -> Result<Assessment> {
    let Given { params, policy, seed, tables, whole, runs, baselines, .. } = given;
    let horizon = runs.first().map_or(1, |run| run.horizon);
    let forecasts = mean(&runs);
    if policy.sizing == Sizing::MeanOverScale && forecasts.iter().any(|f| f.scale.is_none()) {
        return Err(StageError::failed("`sizing: mean_over_scale` needs the column `scale`")
            .hint("take `sizing: sign` or `probability`, or a model that has a scale"));
    }
    let every = policy.every(horizon);
    let judged = params.split.name();
    let first = forecasts.first().map_or(0, |f| f.at);
    let last = last_date(tables, whole, judged, &forecasts, every.max(params.latency));
    let panel = span(whole, first, last)?;
    let (dates, width) = (panel.len(), panel.width());
    let per_year = per_year(params, calendar(whole).per_year())?;
    let rules = params.rules();
    let weights_of = |forecasts: &[Forecast], dates: usize| {
        policy.weights(forecasts, first, dates, width, every)
    };
    let mine = weights_of(&forecasts, dates);
    let shape = Shape { first, dates, every, policy };
    let plans = plans(&shape, tables, whole, &mine, &baselines, (last, per_year));
    let storm = storm(tables, &panel);
    let case = Case { params, seed, panel: &panel, plans, per_year, storm: &storm, queues: &[] };
    let found = contest(case);
    let moves = Moves::Weights(mine.clone());
    let block = (found.block.ceil() as usize).max(every).max(horizon);
    let decide = |dates: usize| {
        // Of what is cut off nothing is there to look at.
        let known: Vec<Forecast> =
            forecasts.iter().filter(|f| f.at < first + dates).cloned().collect();
        Moves::Weights(weights_of(&known, dates))
    };
    let shuffled = causality::shuffle(&moves, &panel, &rules, (block, per_year, seed));
    let [same, knows] = causality::forecasts(&forecasts, whole, horizon);
    let folds: Vec<(usize, Forecast)> =
        runs.first().map(|run| run.folds.clone()).unwrap_or_default();
    let splits = facts::splits(tables, judged, horizon, &folds);
    let mut causality = vec![
        causality::truncated(&panel, &rules, &decide),
        causality::delayed(&found.delays),
        causality::shuffled(shuffled, block, "forecasts"),
        knows,
        same,
        causality::tables(tables),
    ];
    causality.extend(tables.first().map(|(_, table)| causality::planted(table, seed)));
    causality.push(facts::overlap_check(&splits));
    let rig = Rig {
        panel: &panel,
        weights: &|f| weights_of(f, dates),
        rules: &rules,
        per_year,
        block: found.block,
        draws: params.draws,
        seed,
    };
    let control = measure(&given.control, &folds, &rig);
    causality.push(Control::check(control.as_ref()));
    let mut measured = vec![quality(MODEL, &forecasts, horizon)];
    measured.extend(baselines.iter().map(|run| quality(&run.name, &run.judged, horizon)));
    let provenance = Provenance {
        seed,
        first: panel.dates.first().cloned().unwrap_or_default(),
        last: panel.dates.last().cloned().unwrap_or_default(),
        bars: dates,
        per_year,
        assets: panel.assets.iter().filter(|a| !a.is_empty()).cloned().collect(),
        trained: facts::trained(tables),
        decisions: mine.dates().count(),
        available: forecasts.chunk_by(|a, b| a.at == b.at).count(),
        horizon,
        block: found.block,
        models: runs
            .iter()
            .map(|run| {
                format!("{}: {} forecasts", run.name, super::numbers::count(run.judged.len()))
            })
            .collect(),
        inputs: given.inputs,
        params: params.clone(),
    };
    let selection = selection::known(&found.strategies, &panel.dates, &given.trials, per_year);
    let parts = Parts {
        contamination: facts::contamination(params, &provenance.first, false),
        seeds: seeds(&runs, &panel, &rules, per_year, &|f| weights_of(f, dates)),
        rivals: baselines.iter().map(|run| rival(&forecasts, run, horizon)).collect(),
        quality: measured,
        decisions: rows(&mine, &panel),
        dates: panel.dates.clone(),
        provenance,
        causality,
        control,
        importance: given.importance,
        splits,
        selection,
        storm,
        ..Parts::default()
    };
    Ok(parts.judged(found))
}

/// The last date of the backtest: that by which the last forecast has had as long as the others, within
/// the split that is judged.
fn last_date(
    tables: &[(String, Table)],
    whole: &Panel,
    judged: &str,
    forecasts: &[Forecast],
    reach: usize,
) -> usize {
    let end =
        |t: &Table| t.split.iter().rposition(|s| s == judged).and_then(|r| t.dates.get(r).cloned());
    let end = tables.iter().filter_map(|(_, t)| end(t)).max();
    let end = end.and_then(|date| whole.dates.binary_search(&date).ok()).unwrap_or(0);
    let last = forecasts.last().map_or(0, |f| f.at);
    end.min(last + reach).max(last.min(whole.len().saturating_sub(1)))
}

/// The dates of all instruments as those of one, to count bars a year by.
fn calendar(whole: &Panel) -> Table {
    Table { dates: whole.dates.clone(), ..Table::default() }
}

/// Probability of high volatility at each date: the mean over the instruments that have one.
fn storm(tables: &[(String, Table)], panel: &Panel) -> Vec<Option<f64>> {
    let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for (_, table) in tables {
        let Some(column) = table.features.get("p_high_vol") else { continue };
        for (date, p) in table.dates.iter().zip(column) {
            if let Some(p) = p {
                let sum = sums.entry(date).or_default();
                *sum = (sum.0 + p, sum.1 + 1);
            }
        }
    }
    let of = |date: &String| sums.get(date.as_str()).map(|(sum, n)| sum / *n as f64);
    panel.dates.iter().map(of).collect()
}

/// Dates at which strategies decide.
struct Shape<'a> {
    first: usize,
    dates: usize,
    every: usize,
    policy: &'a Policy,
}

fn plans(
    shape: &Shape,
    tables: &[(String, Table)],
    whole: &Panel,
    mine: &Weights,
    baselines: &[Run],
    (last, per_year): (usize, f64),
) -> Vec<Plan> {
    let Shape { first, dates, every, policy } = *shape;
    let width = whole.width();
    let plan = |name: &str, about: &str, weights: Weights| Plan {
        name: name.into(),
        about: about.into(),
        moves: Moves::Weights(weights),
    };
    let mut plans =
        vec![plan(MODEL, "the positions that the model’s forecasts give", mine.clone())];
    for run in baselines {
        let weights = policy.weights(&run.judged, first, dates, width, every);
        plans.push(plan(&run.name, "another model’s forecasts, by the same rules", weights));
    }
    let mut hold = Weights::none(dates, width);
    hold.set(0, &vec![1.0 / width as f64; width]);
    let about = match width {
        1 => "long from the first decision to the end",
        _ => "all instruments in equal parts from the first decision to the end, never rebalanced",
    };
    plans.push(plan(HOLD, about, hold));
    // What a rule says of each instrument, with the model's limits.
    let ruled = |signal: &dyn Fn(usize, usize) -> f64| {
        let mut weights = Weights::none(dates, width);
        for t in (0..dates).step_by(every) {
            let side = |asset: usize| signal(asset, t) * policy.max_weight;
            let side =
                |asset: usize| if policy.long_only { side(asset).max(0.0) } else { side(asset) };
            let row: Vec<f64> = (0..width).map(side).collect();
            weights.set(t, &row);
        }
        weights.limited(policy.max_weight, policy.gross)
    };
    let (side, what) = majority(mine);
    let about = format!("always {what}, the model’s most frequent position");
    plans.push(plan("always majority", &about, ruled(&|_, _| side)));
    let places: Vec<BTreeMap<&str, usize>> = tables.iter().map(|(_, t)| t.rows()).collect();
    for rule in RULES {
        let signal = |asset: usize, t: usize| {
            let row = whole.dates.get(first + t).and_then(|d| places[asset].get(d.as_str()));
            match row.map(|row| (rule.decide)(&tables[asset].1, *row)) {
                Some(Action::Market(Side::Buy)) => 1.0,
                Some(Action::Market(Side::Sell)) => -1.0,
                _ => 0.0,
            }
        };
        plans.push(plan(rule.name, rule.about, ruled(&signal)));
    }
    let most = policy.max_weight;
    plans.push(vol_targeted(&whole.slice(0..last + 1), first, (every, per_year, most)));
    plans
}

/// The most frequent side of weights: its sign and its name.
fn majority(weights: &Weights) -> (f64, &'static str) {
    let mut counts = [0usize; 3];
    for row in weights.dates().filter_map(|t| weights.get(t)) {
        row.iter().for_each(|w| counts[usize::from(*w >= 0.0) + usize::from(*w > 0.0)] += 1);
    }
    let most = counts.iter().copied().max().unwrap_or(0);
    // Of equally frequent ones flat, else long.
    [(0.0, 1, "flat"), (1.0, 2, "long"), (-1.0, 0, "short")]
        .into_iter()
        .find(|(_, at, _)| counts[*at] == most)
        .map_or((0.0, "flat"), |(side, _, name)| (side, name))
}

/// Each seed alone; `None` where there is one.
fn seeds(
    runs: &[Run],
    panel: &Panel,
    rules: &Rules,
    per_year: f64,
    weights: &(dyn Fn(&[Forecast]) -> Weights + Sync),
) -> Option<Seeds> {
    if runs.len() < 2 {
        return None;
    }
    let seed = |run: &Run| {
        let returns = Moves::Weights(weights(&run.judged)).play(panel, rules).returns();
        let measured = quality(&run.name, &run.judged, run.horizon);
        Seed {
            name: run.name.clone(),
            sharpe: sharpe(&returns, per_year),
            cagr: cagr(&returns, per_year),
            max_drawdown: max_drawdown(&returns),
            mcc: measured.classes.and_then(|c| c.mcc),
        }
    };
    let each: Vec<Seed> = runs.par_iter().map(seed).collect();
    let mut sharpes: Vec<f64> = each.iter().filter_map(|s| s.sharpe).collect();
    sharpes.sort_by(f64::total_cmp);
    let at = |q: f64| quantile(&sharpes, q);
    Some(Seeds { median: at(0.5), quartiles: at(0.25).zip(at(0.75)), each })
}

/// The model against a baseline on the rows that both have, date by date: rows of one date are not
/// independent, so that their mean difference is one observation.
fn rival(forecasts: &[Forecast], run: &Run, horizon: usize) -> Rival {
    let theirs: BTreeMap<(usize, usize), &Forecast> =
        run.judged.iter().map(|f| ((f.at, f.asset), f)).collect();
    let both: Vec<(&Forecast, &Forecast)> =
        forecasts.iter().filter_map(|f| Some((f, *theirs.get(&(f.at, f.asset))?))).collect();
    let test = |loss: &dyn Fn(&Forecast, &Forecast) -> Option<f64>| {
        let mut differences = Vec::new();
        for day in both.chunk_by(|a, b| a.0.at == b.0.at) {
            let each: Vec<f64> = day
                .iter()
                .filter_map(|(mine, other)| Some(loss(mine, mine)? - loss(other, mine)?))
                .collect();
            differences.extend(super::metrics::mean(&each));
        }
        diebold_mariano(&differences, horizon)
    };
    Rival {
        name: run.name.clone(),
        squared: test(&|f, came| Some((f.mean - came.came?).powi(2))),
        log_loss: test(&|f, came| Some(-f.p[came.class?].max(1e-15).ln())),
    }
}

/// Targets as rows of `decisions.csv`.
fn rows(weights: &Weights, panel: &Panel) -> Vec<Decision> {
    let mut rows = Vec::new();
    for (t, row) in weights.dates().filter_map(|t| Some((t, weights.get(t)?))) {
        for (asset, weight) in panel.assets.iter().zip(row) {
            rows.push(Decision {
                date: panel.dates[t].clone(),
                source: asset.clone(),
                answer: String::new(),
                action: match weight {
                    w if *w > 0.0 => "long",
                    w if *w < 0.0 => "short",
                    _ => "flat",
                }
                .into(),
                position: *weight,
            });
        }
    }
    rows
}
