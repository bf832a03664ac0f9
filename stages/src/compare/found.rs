//! From aligned runs to everything that the report says.
//!
//! [`Comparison`] is what `compare.json` holds; page, Markdown and figures are views of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::input::{Run, Strategy};
use super::record::min_track_record;
use super::resample::{Difference, adjust, draws};
use super::seeds::{Entry, Seeds, seeds};
use super::{Params, words};
use crate::evaluate::inference::{Interval, Moments, block_length};
use crate::evaluate::metrics::{
    cagr, deviation, finite, max_drawdown, mean, sharpe, sharpe_per_bar,
};
use crate::evaluate::overfit::{Overfit, cscv};
use crate::evaluate::selection::best_by_chance;
use crate::evaluate::verdict::Target;
use crate::{Result, StageError};

/// The level at which a difference counts, and the confidence of a track record.
pub const LEVEL: f64 = 0.05;

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Heading.
    pub title: String,
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// The verdict, sentence by sentence.
    pub verdict: Vec<String>,
    /// What is claimed and how it stands.
    pub claims: Vec<Target>,
    /// The models by group, and in it by Sharpe ratio.
    pub models: Vec<Model>,
    /// What every run replayed beside its model.
    pub baselines: Vec<Model>,
    /// Groups in order, with how many of `models` each has.
    pub groups: Vec<(String, usize)>,
    /// The model with the highest Sharpe ratio, as a place in `models`.
    pub best: Option<usize>,
    /// What the others are compared with.
    pub reference: Option<String>,
    /// What choosing the best is worth.
    pub selection: Selection,
    /// Models with several seeds among the others; empty where there is none.
    pub seeds: Vec<Seeds>,
    /// What the numbers do not show.
    pub limits: Vec<String>,
    /// What a reader should know first.
    pub warnings: Vec<String>,
    /// Date of each return.
    #[serde(skip)]
    pub dates: Vec<String>,
}

/// Where the numbers come from.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// The data, as the pipeline names them.
    pub data: Option<String>,
    /// Date of the first return.
    pub first: String,
    /// Date of the last return.
    pub last: String,
    /// Returns.
    pub returns: usize,
    /// Bars a year.
    pub per_year: f64,
    /// Costs and fills in words, with the models that had them.
    pub costs: Vec<(String, Vec<String>)>,
    /// Seed of the draws.
    pub seed: u64,
    /// Bootstrap draws.
    pub draws: usize,
    /// Their mean block, in bars.
    pub block: f64,
}

/// A model, or a strategy beside it.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// `port`, `port@cell`, or the baseline's name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
    /// Probability that the true one is above 0, chosen or not.
    pub psr: Option<f64>,
    /// Compound growth a year.
    pub cagr: Option<f64>,
    /// Deepest fall; negative.
    pub max_drawdown: f64,
    /// Units traded in a year, over its own span.
    pub turnover: f64,
    /// Round trips, over its own span.
    pub trades: usize,
    /// Share of profitable round trips.
    pub hit_rate: Option<f64>,
    /// Mean gain over mean loss of a round trip.
    pub payoff: Option<f64>,
    /// Mean round trip.
    pub expectancy: Option<f64>,
    /// Quality of its forecasts, where it makes any.
    pub forecast: Option<Quality>,
    /// Its text may reach into the span, as far as its evaluation knows.
    pub may_remember: bool,
    /// Its Sharpe ratio less that of the reference.
    pub difference: Option<Difference>,
    /// Net returns.
    #[serde(skip)]
    pub returns: Vec<f64>,
}

/// How good forecasts are, apart from what was earned with them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Matthews correlation of predicted and true class; 0 is chance.
    pub mcc: Option<f64>,
    /// Brier score; smaller is better.
    pub brier: Option<f64>,
    /// Against the hardest of the evaluation's own baselines.
    pub versus: Option<Versus>,
}

/// The test of Diebold and Mariano on log losses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Versus {
    /// The baseline.
    pub name: String,
    /// Whether the model has the smaller loss.
    pub better: bool,
    /// Two-sided p-value.
    pub p: f64,
}

/// What choosing the best of the models is worth. Baselines are no tries.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Selection {
    /// Models that were tried.
    pub trials: usize,
    /// Those that have a Sharpe ratio.
    pub ranked: usize,
    /// Variance of their Sharpe ratios, of a bar.
    pub variance: Option<f64>,
    /// Mean correlation between the returns of two of them.
    pub correlation: Option<f64>,
    /// Sharpe ratio a year that the best of as many without skill is expected to have.
    pub sharpe_by_chance: Option<f64>,
    /// Probability that the true Sharpe ratio of the best is above that.
    pub deflated_sharpe: Option<f64>,
    /// Returns that a Sharpe ratio like the best's takes to be above 0 at 95 %, had it been the only try.
    pub min_track_record: Option<usize>,
    /// The same, to be above what chance gives the best.
    pub min_track_record_deflated: Option<usize>,
    /// The probability of overfitting.
    pub overfit: Option<Overfit>,
}

/// Compares aligned runs. `told` hears how far it is.
///
/// # Errors
/// A group, the reference or a baseline names nothing, or those of `told`.
pub fn compare(
    params: &Params,
    runs: Vec<Run>,
    seed: u64,
    told: &(dyn Fn(usize, usize) -> Result<()> + Sync),
) -> Result<Comparison> {
    let per_year = runs[0].evaluated.provenance.per_year;
    let dates = runs[0].dates.clone();
    let group_of = groups(params, &runs)?;
    let mut models: Vec<(usize, Model)> = Vec::with_capacity(runs.len());
    for (run, group) in runs.iter().zip(&group_of.0) {
        let strategy = run.evaluated.strategies.iter().find(|s| s.name == run.columns[0]);
        let mut model = model(&run.name, strategy, &run.returns[0], per_year);
        model.about = run.evaluated.provenance.models.first().cloned().unwrap_or(model.about);
        model.forecast = run.evaluated.forecast();
        model.may_remember = run.evaluated.may_remember();
        models.push((*group, model));
    }
    models.sort_by(|(group_a, a), (group_b, b)| {
        let key = |m: &Model| m.sharpe.unwrap_or(f64::NEG_INFINITY);
        group_a.cmp(group_b).then(key(b).total_cmp(&key(a))).then(a.name.cmp(&b.name))
    });
    let count = |at: usize| models.iter().filter(|(group, _)| *group == at).count();
    let groups: Vec<(String, usize)> =
        group_of.1.into_iter().enumerate().map(|(at, name)| (name, count(at))).collect();
    let mut models: Vec<Model> = models.into_iter().map(|(_, model)| model).collect();
    let mut baselines = baselines(params, &runs, per_year)?;

    let best = models.iter().enumerate().filter_map(|(at, m)| Some((at, m.sharpe?)));
    // Of equals the first, as in a table.
    let best = best.reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|(at, _)| at);
    let shown: Vec<&Model> = models.iter().chain(&baselines).collect();
    let reference = match &params.reference {
        None => best,
        Some(name) => match shown.iter().position(|m| m.name == *name) {
            None => {
                let names: Vec<&str> = shown.iter().map(|m| m.name.as_str()).collect();
                return Err(StageError::failed(format!(
                    "`reference: {name}` is none of the models"
                ))
                .hint(format!("there are {}", names.join(", "))));
            }
            at => at,
        },
    };
    let series: Vec<&[f64]> = shown.iter().map(|m| m.returns.as_slice()).collect();
    let block = series.iter().map(|x| block_length(x)).fold(1.0, f64::max);
    let drawn = draws(&series, per_year, block, params.draws, seed, told)?;
    let sharpes: Vec<Option<f64>> = shown.iter().map(|m| m.sharpe).collect();
    let reference_name = reference.map(|at| shown[at].name.clone());
    let selection = select(&models, best, per_year, params.blocks);
    for (at, m) in models.iter_mut().chain(&mut baselines).enumerate() {
        m.interval = m.sharpe.and_then(|_| drawn.interval(at));
        m.difference = reference.filter(|other| *other != at).and_then(|other| {
            let value = sharpes[at]? - sharpes[other]?;
            drawn.difference(at, other, value)
        });
    }
    let mut differences: Vec<&mut Difference> =
        models.iter_mut().chain(&mut baselines).filter_map(|m| m.difference.as_mut()).collect();
    adjust(&mut differences);

    let named: Vec<(String, Option<String>, Option<f64>)> = runs
        .iter()
        .map(|run| {
            let (base, seed) = run.seeded();
            let sharpe = models.iter().find(|m| m.name == run.name).and_then(|m| m.sharpe);
            (base, seed, sharpe)
        })
        .collect();
    let entries: Vec<Entry> = named
        .iter()
        .map(|(base, seed, sharpe)| Entry { base, seed: seed.as_deref(), sharpe: *sharpe })
        .collect();
    let provenance = Provenance {
        data: params.data.clone(),
        first: dates.first().cloned().unwrap_or_default(),
        last: dates.last().cloned().unwrap_or_default(),
        returns: dates.len(),
        per_year,
        costs: costs(&runs),
        seed,
        draws: params.draws,
        block,
    };
    let mut found = Comparison {
        title: params.title.clone(),
        provenance,
        verdict: Vec::new(),
        claims: Vec::new(),
        models,
        baselines,
        groups,
        best,
        reference: reference_name,
        selection,
        seeds: seeds(&entries),
        limits: Vec::new(),
        warnings: Vec::new(),
        dates,
    };
    found.warnings = words::warnings(&found);
    found.claims = words::claims(&found);
    found.verdict = words::verdict(&found);
    found.limits = words::limits(&found, params);
    Ok(found)
}

impl Comparison {
    /// The model with the highest Sharpe ratio.
    pub fn best(&self) -> Option<&Model> {
        self.models.get(self.best?)
    }

    /// Models, then baselines.
    pub fn shown(&self) -> impl DoubleEndedIterator<Item = &Model> {
        self.models.iter().chain(&self.baselines)
    }

    /// Groups with their models.
    pub fn grouped(&self) -> Vec<(&str, &[Model])> {
        let mut rest = self.models.as_slice();
        let mut groups = Vec::with_capacity(self.groups.len());
        for (name, count) in &self.groups {
            let (mine, others) = rest.split_at(*count);
            groups.push((name.as_str(), mine));
            rest = others;
        }
        groups
    }
}

/// The group of each run, and the names of the groups in order.
fn groups(params: &Params, runs: &[Run]) -> Result<(Vec<usize>, Vec<String>)> {
    let fits = |run: &Run, pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => run.name.starts_with(start),
        None => run.name == pattern || run.port() == pattern,
    };
    if params.groups.is_empty() {
        let of = |run: &Run| if run.is_cell() { run.port().to_owned() } else { String::new() };
        let mut names: Vec<String> = runs.iter().map(of).collect();
        names.sort();
        names.dedup();
        let at = |run: &Run| names.iter().position(|name| *name == of(run)).unwrap_or(0);
        return Ok((runs.iter().map(at).collect(), names.clone()));
    }
    for (group, patterns) in &params.groups {
        for pattern in patterns {
            if !runs.iter().any(|run| fits(run, pattern)) {
                let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
                return Err(StageError::failed(format!(
                    "`{pattern}` of group `{group}` is no model"
                ))
                .hint(format!("there are {}", names.join(", "))));
            }
        }
    }
    let mut names: Vec<String> = params.groups.keys().cloned().collect();
    let mut places = Vec::with_capacity(runs.len());
    for run in runs {
        let mine: Vec<usize> = params
            .groups
            .values()
            .enumerate()
            .filter(|(_, patterns)| patterns.iter().any(|p| fits(run, p)))
            .map(|(at, _)| at)
            .collect();
        match mine.as_slice() {
            [] => {
                if names.len() == params.groups.len() {
                    names.push("others".into());
                }
                places.push(params.groups.len());
            }
            [at] => places.push(*at),
            [a, b, ..] => {
                return Err(StageError::failed(format!(
                    "`{}` is in two groups, `{}` and `{}`",
                    run.name, names[*a], names[*b]
                ))
                .hint("name each model once"));
            }
        }
    }
    Ok((places, names))
}

fn model(name: &str, strategy: Option<&Strategy>, returns: &[f64], per_year: f64) -> Model {
    let traded = strategy.map(|s| &s.metrics);
    let hits = traded.and_then(|t| t.hits);
    Model {
        name: name.to_owned(),
        about: strategy.map(|s| s.about.clone()).unwrap_or_default(),
        sharpe: sharpe(returns, per_year),
        interval: None,
        psr: Moments::of(returns).and_then(|m| finite(m.psr(0.0))),
        cagr: cagr(returns, per_year),
        max_drawdown: max_drawdown(returns),
        turnover: traded.map_or(0.0, |t| t.turnover),
        trades: traded.map_or(0, |t| t.trades),
        hit_rate: hits.map(|h| h.rate),
        payoff: hits.and_then(|h| h.payoff),
        expectancy: hits.map(|h| h.expectancy),
        forecast: None,
        may_remember: false,
        difference: None,
        returns: returns.to_vec(),
    }
}

/// The strategies beside the models, from the first run that has each.
fn baselines(params: &Params, runs: &[Run], per_year: f64) -> Result<Vec<Model>> {
    let mut found = Vec::new();
    for name in &params.baselines {
        let Some((run, returns)) = runs.iter().find_map(|r| Some((r, r.strategy(name)?))) else {
            // That nobody replayed the usual one is no mistake of the pipeline.
            if *params.baselines == *Params::default().baselines {
                continue;
            }
            let known: Vec<&str> = runs[0].columns.iter().skip(1).map(String::as_str).collect();
            return Err(StageError::failed(format!("no run has a baseline `{name}`"))
                .hint(format!("there are {}", known.join(", "))));
        };
        let strategy = run.evaluated.strategies.iter().find(|s| s.name == *name);
        found.push(model(name, strategy, returns, per_year));
    }
    Ok(found)
}

/// Costs and fills in words, with who had them, in the order of the runs.
fn costs(runs: &[Run]) -> Vec<(String, Vec<String>)> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for run in runs {
        let words = words::costs(&run.evaluated.provenance.params);
        all.entry(words).or_default().push(run.name.clone());
    }
    all.into_iter().collect()
}

fn select(models: &[Model], best: Option<usize>, per_year: f64, blocks: usize) -> Selection {
    let bars: Vec<f64> = models.iter().filter_map(|m| sharpe_per_bar(&m.returns)).collect();
    let trials = models.len();
    let spread = deviation(&bars);
    let chance = spread.map(|spread| best_by_chance(spread, trials));
    let moments = best.and_then(|at| Moments::of(&models[at].returns));
    let series: Vec<&[f64]> = models.iter().map(|m| m.returns.as_slice()).collect();
    let record = |against: Option<f64>| min_track_record(moments.as_ref()?, against?, 1.0 - LEVEL);
    Selection {
        trials,
        ranked: bars.len(),
        variance: spread.map(|s| s * s),
        correlation: correlation(&series),
        sharpe_by_chance: chance.map(|c| c * per_year.sqrt()),
        deflated_sharpe: moments.zip(chance).and_then(|(m, c)| finite(m.psr(c))),
        min_track_record: record(Some(0.0)),
        min_track_record_deflated: record(chance),
        overfit: cscv(&series, blocks),
    }
}

/// Mean correlation of all pairs of series that vary: with unit vectors z, the squared length of
/// their sum holds each pair twice and each series once.
fn correlation(series: &[&[f64]]) -> Option<f64> {
    let unit = |x: &&[f64]| -> Option<Vec<f64>> {
        sharpe_per_bar(x)?;
        let m = mean(x)?;
        let length = x.iter().map(|v| (v - m).powi(2)).sum::<f64>().sqrt();
        Some(x.iter().map(|v| (v - m) / length).collect())
    };
    let units: Vec<Vec<f64>> = series.iter().filter_map(unit).collect();
    let n = units.len() as f64;
    let rows = units.first().map_or(0, Vec::len);
    let total: f64 = (0..rows).map(|r| units.iter().map(|u| u[r]).sum::<f64>().powi(2)).sum();
    (units.len() > 1).then(|| (total - n) / (n * (n - 1.0)))
}
