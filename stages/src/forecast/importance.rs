//! How much worse forecasts become where a feature tells nothing any more.
//!
//! Permutation importance (Breiman 2001, sec. 10; Fisher, Rudin and Dominici 2019) of the models that
//! were fitted without the rows they are judged on: in the rows of a fold the values of one feature are
//! permuted across dates, with all instruments of a date together, the fitted model forecasts again,
//! and the rise of the log loss counts. Nothing is fitted anew, and no row of the test span is looked
//! at. A model that reads windows finds the permuted values in all of a window: rows before the fold are
//! given values of the fold, too.
//!
//! The interval is of the mean over dates: the middle 95 % of a stationary bootstrap (Politis and
//! Romano 1994) that draws dates, with their repeats and instruments, in blocks by Politis and White
//! (2004), and as long as the horizon at the least, since the losses of neighbouring dates overlap.
//!
//! Features that tell the same stand in for each other: each alone may seem to tell nothing.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::params::Model;
use super::permute;
use super::prepare::CONTEXT;
use super::protocol::Task;
use super::series::{Forecast, Series};
use super::work::{Fitted, Work, rows_of};
use crate::evaluate::inference::{Interval, block_length, draw};
use crate::{Context, Invalid, Result, StageError};

/// What an importance costs, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Importance {
    /// Permutations of each feature in each fold. A fold is forecast once more for each: of nets, few
    /// will do.
    pub repeats: usize,
    /// Draws of the bootstrap.
    pub draws: usize,
}

impl Default for Importance {
    fn default() -> Importance {
        Importance { repeats: 5, draws: 1000 }
    }
}

impl Importance {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn check(&self) -> std::result::Result<(), Invalid> {
        let wrong = |name: &str, why: &str| Err(Invalid::new(format!("importance.{name}"), why));
        match (self.repeats, self.draws) {
            (0, _) | (1001.., _) => wrong("repeats", "must lie between 1 and 1000"),
            (_, ..100) | (_, 100_001..) => wrong("draws", "must lie between 100 and 100000"),
            _ => Ok(()),
        }
    }
}

/// Rises of the log loss, as folds tell them.
pub struct Rises<'a> {
    asked: Importance,
    /// Names of the features; none of a model that reads none.
    features: &'a [String],
    horizons: &'a [usize],
    /// By date: rows of each horizon, and by horizon and feature the sum of the rises of these.
    dates: BTreeMap<i64, (Vec<f64>, Vec<f64>)>,
}

impl<'a> Rises<'a> {
    /// Nothing told so far.
    pub fn new(asked: Importance, work: &Work<'a>) -> Rises<'a> {
        let reads = super::prepare::reads_table(&work.params.model);
        let features = if reads { &work.panel.inputs[..] } else { &[] };
        Rises { asked, features, horizons: &work.params.horizons, dates: BTreeMap::new() }
    }

    /// Adds a fold: forecasts it with each feature permuted.
    ///
    /// # Errors
    /// The model refuses a series, or the run is cancelled.
    pub fn add(
        &mut self,
        work: &Work,
        model: &Model,
        task: &Task,
        fitted: &Fitted,
        ctx: &Context,
    ) -> Result<()> {
        let Some(fold) = task.fold.filter(|_| !self.features.is_empty()) else { return Ok(()) };
        let mut all = work.series(model, &fitted.scaler);
        let rows: Vec<Vec<Option<usize>>> =
            work.places.iter().map(|places| rows_of(places, &task.asked, work.dates)).collect();
        let mut losses = Vec::new();
        for (series, rows) in all.iter().zip(&rows) {
            losses.push(self.losses(series, rows, fitted)?);
        }
        for (asset, (rows, losses)) in work.panel.assets.iter().zip(rows.iter().zip(&losses)) {
            for (row, losses) in rows.iter().flatten().zip(losses) {
                let (counts, _) = self.date(asset.times[*row]);
                counts
                    .iter_mut()
                    .zip(losses)
                    .for_each(|(n, l)| *n += f64::from(u8::from(l.is_some())));
            }
        }
        let (repeats, width) = (self.asked.repeats, self.features.len());
        for feature in 0..width {
            let done = (feature, width);
            ctx.progress(
                done.0 as u64,
                done.1 as u64,
                "features",
                format!("importance, fold {fold}"),
            )?;
            for repeat in 0..repeats {
                let stream = ((fold * width + feature) * repeats + repeat) as u64;
                let order = permute::order(task.asked.len(), 1, ctx.seed(), stream | 1 << 62);
                for (at, asset) in work.panel.assets.iter().enumerate() {
                    let kept = permuted(&mut all[at], feature, &rows[at], &order);
                    let worse = self.losses(&all[at], &rows[at], fitted);
                    kept.into_iter().for_each(|(cell, x)| all[at].x[cell] = x);
                    for (row, (new, old)) in
                        rows[at].iter().flatten().zip(worse?.iter().zip(&losses[at]))
                    {
                        let (_, sums) = self.date(asset.times[*row]);
                        for (h, (new, old)) in new.iter().zip(old).enumerate() {
                            if let (Some(new), Some(old)) = (new, old) {
                                sums[h * width + feature] += (new - old) / repeats as f64;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn date(&mut self, time: i64) -> &mut (Vec<f64>, Vec<f64>) {
        let (h, f) = (self.horizons.len(), self.features.len());
        self.dates.entry(time).or_insert_with(|| (vec![0.0; h], vec![0.0; h * f]))
    }

    /// By row and horizon: -ln of what the class that came was given.
    fn losses(
        &self,
        series: &Series,
        rows: &[Option<usize>],
        fitted: &Fitted,
    ) -> Result<Vec<Vec<Option<f64>>>> {
        let mut own = rows.iter().copied().flatten();
        let Some(first) = own.next() else { return Ok(Vec::new()) };
        let last = own.next_back().unwrap_or(first);
        let told = fitted.model.predict(series, first..last + 1)?;
        let width = series.horizons;
        let loss = |row: usize, h: usize| {
            let Forecast { p, .. } = told[(row - first) * width + h];
            let target = series.targets[row * width + h]?;
            Some(-f64::from(p[usize::from(target.class)]).max(1e-15).ln())
        };
        let of = |row: usize| (0..width).map(|h| loss(row, h)).collect();
        Ok(rows.iter().copied().flatten().map(of).collect())
    }

    /// Writes `feature,horizon,loss_increase,lo,hi`, in the order of the features.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, seed: u64, path: &Path) -> Result<()> {
        let failed =
            |e: csv::Error| StageError::failed(format!("cannot write the importance: {e}"));
        let mut out = csv::Writer::from_writer(fs_err::File::create(path)?);
        out.write_record(["feature", "horizon", "loss_increase", "lo", "hi"]).map_err(failed)?;
        let width = self.features.len();
        for (h, horizon) in self.horizons.iter().enumerate() {
            let counts: Vec<f64> = self.dates.values().map(|(counts, _)| counts[h]).collect();
            let of = |f: usize| -> Vec<f64> {
                self.dates.values().map(|(_, sums)| sums[h * width + f]).collect()
            };
            for (f, feature) in self.features.iter().enumerate() {
                let sums = of(f);
                let Some((rise, Interval { low, high })) =
                    interval(&sums, &counts, *horizon, self.asked.draws, seed)
                else {
                    continue;
                };
                let numbers = [rise, low, high].map(|x| x.to_string());
                let cells = [feature.clone(), horizon.to_string()].into_iter().chain(numbers);
                out.write_record(cells).map_err(failed)?;
            }
        }
        Ok(out.flush()?)
    }
}

/// Permutes a feature of a series; gives what was there before, by cell.
fn permuted(
    series: &mut Series,
    feature: usize,
    rows: &[Option<usize>],
    order: &[usize],
) -> Vec<(usize, f32)> {
    let moves = permute::rows(rows, order);
    let Some(&(first, _)) = moves.first() else { return Vec::new() };
    let cell = |row: usize| row * series.features + feature;
    // Backwards before the fold, as the fold itself is permuted from its end on.
    let before = (first.saturating_sub(CONTEXT)..first).rev();
    let before = before.zip(moves.iter().rev().cycle()).map(|(row, (_, from))| (row, *from));
    let moves: Vec<(usize, usize)> = moves.iter().copied().chain(before).collect();
    let given: Vec<f32> = moves.iter().map(|(_, from)| series.x[cell(*from)]).collect();
    let kept = moves.iter().map(|(row, _)| (cell(*row), series.x[cell(*row)])).collect();
    let cells: Vec<usize> = moves.iter().map(|(row, _)| cell(*row)).collect();
    cells.into_iter().zip(given).for_each(|(cell, x)| series.x[cell] = x);
    kept
}

/// The mean rise of a row, and the middle 95 % of it where dates are drawn anew.
fn interval(
    sums: &[f64],
    counts: &[f64],
    horizon: usize,
    draws: usize,
    seed: u64,
) -> Option<(f64, Interval)> {
    let mean = |at: &mut dyn Iterator<Item = usize>| {
        let (sum, count) = at.fold((0.0, 0.0), |(s, n), at| (s + sums[at], n + counts[at]));
        (count > 0.0).then_some(sum / count)
    };
    let n = sums.len();
    let block = block_length(sums).max(horizon as f64).min((n as f64 / 3.0).max(1.0));
    let drawn = |number: usize| mean(&mut draw(n, block, seed, number as u64).into_iter());
    let drawn: Vec<f64> = (0..draws).into_par_iter().filter_map(drawn).collect();
    Some((mean(&mut (0..n))?, Interval::of(drawn)?))
}
