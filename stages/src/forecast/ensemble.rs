//! The mixture of several forecasts that was likeliest out of fold.
//!
//! The weights of a horizon, none below 0 and all summing to 1, minimise the log loss of the mixture of
//! probabilities over rows that are out of fold in all members ([`super::mixture`]). Rows of other spans
//! are not looked at. Out of fold the mixture itself is honest, too: the weights of a fold come from
//! labels that ended before it begins, and are equal where there are none.
//!
//! Of the first member whole lines are kept, of the others numbers alone: files are large and many.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::lines::{self, Line, Seen, Span};
use super::mixture::{self, Found, Likelihoods};
use crate::{Context, Result, StageError};

/// What all members tell of the same rows.
pub struct Members {
    names: Vec<String>,
    /// The rows, as the first member has them.
    rows: Vec<Line>,
    /// By member: what it tells of each row.
    told: Vec<Vec<Told>>,
}

/// What a member expects of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Told {
    p: [f32; 3],
    mean: f32,
    scale: Option<f32>,
}

/// The weights of a horizon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Weights {
    /// Bars ahead.
    pub horizon: usize,
    /// By the name of the member.
    pub weights: BTreeMap<String, f64>,
    /// The mean log loss of the mixture, out of fold, where the weights come from.
    pub log_loss: f64,
    /// No other weights have a mean log loss there that is lower by more.
    pub gap: f64,
    /// Rows out of fold.
    pub rows: usize,
}

/// The files of all ports by the name of the member.
fn files(ctx: &Context) -> BTreeMap<String, PathBuf> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (port, input) in &ctx.job().inputs {
        for (file, path) in &input.files {
            let own = file.strip_suffix("/forecasts.csv").unwrap_or(file);
            let own = own.strip_suffix(".csv").unwrap_or(own);
            let name = match (input.tree, port.as_str()) {
                (false, "forecasts") => own.to_owned(),
                (false, port) => port.to_owned(),
                (true, "forecasts") => own.to_owned(),
                (true, port) => format!("{port}/{own}"),
            };
            found.insert(name, path.clone());
        }
    }
    found
}

/// Reads the members from all ports.
///
/// # Errors
/// A file is no forecasts, there are fewer than two, or they do not tell of the same rows.
pub fn members(ctx: &Context) -> Result<Members> {
    let found = files(ctx);
    if found.len() < 2 {
        return Err(StageError::failed(format!("an ensemble of {} forecasts", found.len()))
            .hint("feed several: `forecasts: model@*`, or each under a name of its own"));
    }
    let all = found.len() as u64;
    let (names, paths): (Vec<String>, Vec<PathBuf>) = found.into_iter().unzip();
    ctx.progress(0, all, "members", &names[0])?;
    let mut rows = lines::read(&paths[0])?;
    let places: FxHashMap<(&str, &str, usize), usize> =
        rows.iter().zip(0..).map(|(line, at)| (key(line), at)).collect();
    let others = (1..paths.len()).into_par_iter().map(|at| {
        ctx.progress(at as u64, all, "members", &names[at])?;
        other(&paths[at], &rows, &places, &names[0])
    });
    // In the order of the members, so that of several mistakes the same one is told.
    let others: Vec<Result<Vec<Option<Told>>>> = others.collect();
    let others = others.into_iter().collect::<Result<Vec<_>>>()?;
    drop(places);
    // Rows that a member lacks are left out.
    let whole: Vec<bool> =
        (0..rows.len()).map(|at| others.iter().all(|told| told[at].is_some())).collect();
    let mut kept = whole.iter();
    rows.retain(|_| kept.next() == Some(&true));
    let mut told = vec![rows.iter().map(Told::of).collect::<Vec<_>>()];
    told.extend(others.into_iter().map(|told| {
        told.into_iter().zip(&whole).filter(|(_, whole)| **whole).filter_map(|(t, _)| t).collect()
    }));
    if rows.is_empty() {
        let message = format!("no row has a forecast of all of {}", names.join(", "));
        return Err(StageError::failed(message));
    }
    Ok(Members { names, rows, told })
}

fn key(line: &Line) -> (&str, &str, usize) {
    (&line.asset, &line.t0, line.horizon)
}

/// What another member tells of each row, where it does.
fn other(
    path: &Path,
    rows: &[Line],
    places: &FxHashMap<(&str, &str, usize), usize>,
    first: &str,
) -> Result<Vec<Option<Told>>> {
    let mut told = vec![None; rows.len()];
    let mut next = 0;
    lines::each(path, |seen| {
        let own = (seen.asset, seen.t0, seen.horizon);
        // Files of one panel have the same rows in the same order.
        let at = match rows.get(next).is_some_and(|line| key(line) == own) {
            true => Some(next),
            false => places.get(&own).copied(),
        };
        let Some(at) = at else { return Ok(()) };
        next = at + 1;
        let row = &rows[at];
        if (seen.span, seen.class) != (row.span, row.class)
            || seen.t1 != row.t1.as_deref().unwrap_or_default()
        {
            let message = format!(
                "{} at {} is another row than in `{first}`: other span, class or end",
                seen.asset, seen.t0
            );
            return Err(StageError::bad(path, message)
                .hint("members need the same features, horizons, threshold and volatility"));
        }
        told[at].get_or_insert(Told::seen(&seen));
        Ok(())
    })?;
    Ok(told)
}

impl Told {
    fn of(line: &Line) -> Told {
        Told { p: [line.p_down, line.p_flat, line.p_up], mean: line.mean, scale: line.scale }
    }

    fn seen(seen: &Seen) -> Told {
        Told { p: seen.p, mean: seen.mean, scale: seen.scale }
    }
}

/// The mixture of the members, and its weights.
///
/// # Errors
/// No row is out of fold.
pub fn mix(members: &Members) -> Result<(Vec<Line>, Vec<Weights>)> {
    let horizons: BTreeSet<usize> = members.rows.iter().map(|line| line.horizon).collect();
    let (mut mixed, mut told) = (Vec::with_capacity(members.rows.len()), Vec::new());
    for horizon in horizons {
        told.push(members.horizon(horizon, &mut mixed)?);
    }
    mixed.sort_by(|a, b| (&a.asset, &a.t0, a.horizon).cmp(&(&b.asset, &b.t0, b.horizon)));
    Ok((mixed, told))
}

impl Members {
    fn horizon(&self, horizon: usize, mixed: &mut Vec<Line>) -> Result<Weights> {
        let of = |at: &usize| self.rows[*at].horizon == horizon;
        let rows: Vec<usize> = (0..self.rows.len()).filter(of).collect();
        // Rows of other spans end here.
        let fold = |at: &usize| self.rows[*at].span == Span::Fold && self.rows[*at].class.is_some();
        let known: Vec<usize> = rows.iter().copied().filter(fold).collect();
        if known.is_empty() {
            return Err(StageError::failed(format!("no row is out of fold over {horizon} bars"))
                .hint("the weights come from such rows alone; give the members `folds`"));
        }
        let Found { weights: last, log_loss, gap } = mixture::weights(&self.likelihoods(&known));
        let mut begins: BTreeMap<usize, &str> = BTreeMap::new();
        for &at in &rows {
            if let (Span::Fold, Some(fold)) = (self.rows[at].span, self.rows[at].fold) {
                let t0 = self.rows[at].t0.as_str();
                let slot = begins.entry(fold).or_insert(t0);
                *slot = (*slot).min(t0);
            }
        }
        let before = |begin: &str| {
            let ended = |at: &usize| self.rows[*at].t1.as_deref().is_some_and(|end| end < begin);
            let known: Vec<usize> = known.iter().copied().filter(ended).collect();
            mixture::weights(&self.likelihoods(&known)).weights
        };
        let by_fold: BTreeMap<usize, Vec<f64>> =
            begins.into_iter().map(|(fold, begin)| (fold, before(begin))).collect();
        mixed.extend(rows.iter().map(|&at| {
            let own = match (self.rows[at].span, self.rows[at].fold) {
                (Span::Fold, Some(fold)) => by_fold.get(&fold).unwrap_or(&last),
                _ => &last,
            };
            self.blend(at, own)
        }));
        let weights = self.names.iter().cloned().zip(last).collect();
        Ok(Weights { horizon, weights, log_loss, gap, rows: known.len() })
    }

    /// What each member gave the class that came.
    fn likelihoods(&self, rows: &[usize]) -> Likelihoods {
        let members = self.told.len();
        let mut values = Vec::with_capacity(rows.len() * members);
        for &at in rows {
            let class = self.rows[at].index().unwrap_or(1);
            values.extend(self.told.iter().map(|told| f64::from(told[at].p[class]).max(1e-15)));
        }
        Likelihoods { values, members }
    }

    /// A line of the mixture: its probabilities, its mean, and the scale that gives it its variance,
    /// since a t with 5 degrees of freedom and scale s varies by 5/3 s^2.
    fn blend(&self, at: usize, weights: &[f64]) -> Line {
        let of = || self.told.iter().map(|told| &told[at]).zip(weights);
        let sum = |value: &dyn Fn(&Told) -> f64| of().map(|(t, w)| w * value(t)).sum::<f64>();
        let mean = sum(&|told| told.mean.into());
        let known = of().all(|(told, weight)| told.scale.is_some() || *weight < 1e-9);
        let second = sum(&|told| {
            let scale = f64::from(told.scale.unwrap_or_default());
            5.0 / 3.0 * scale * scale + f64::from(told.mean).powi(2)
        });
        let scale = ((second - mean * mean).max(0.0) * 0.6).sqrt() as f32;
        let [p_down, p_flat, p_up] = [0, 1, 2].map(|c| sum(&|told| told.p[c].into()) as f32);
        Line {
            p_down,
            p_flat,
            p_up,
            mean: mean as f32,
            scale: (known && scale > 0.0).then_some(scale),
            ..self.rows[at].clone()
        }
    }
}

/// Writes `model.json`.
///
/// # Errors
/// It cannot be written.
pub fn save(weights: &[Weights], folder: &Path) -> Result<()> {
    super::fit::write(folder, &weights)
}
