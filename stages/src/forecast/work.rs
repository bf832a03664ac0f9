//! A fit, and what it says of the rows that it has not seen.

use serde::Serialize;
use serde_json::Value;

use super::fit::{self, Data};
use super::lines::{Line, Span};
use super::panel::{Asset, Panel};
use super::params::{Labels, Params};
use super::prepare::{self, Places, Scaler};
use super::protocol::{Protocol, Task};
use super::series::{Forecast, Forecaster, Series, Target};
use super::{Model, permute};
use crate::evaluate::params::Judging;
use crate::featurize::split::Split;
use crate::{Context, Result};

/// All that the fits of a run share.
pub struct Work<'a> {
    /// What is asked for.
    pub params: &'a Params,
    /// The instruments.
    pub panel: &'a Panel,
    /// Where their rows lie among the dates of the protocol.
    pub places: Vec<Places>,
    /// What happened, by instrument: `[rows, horizons]`.
    pub targets: Vec<Vec<Option<Target>>>,
    /// Dates of the protocol.
    pub dates: usize,
}

/// A model with what scales its series.
pub struct Fitted {
    /// The model.
    pub model: Box<dyn Forecaster>,
    /// The scaler.
    pub scaler: Scaler,
}

impl<'a> Work<'a> {
    /// What fits of these parameters share.
    pub fn new(params: &'a Params, panel: &'a Panel, protocol: &Protocol) -> Work<'a> {
        let targets = panel.assets.iter().map(|asset| prepare::targets(asset, params)).collect();
        let places = prepare::places(panel, protocol);
        Work { params, panel, places, targets, dates: protocol.times.len() }
    }

    /// The series of all instruments, as a fit scales them.
    pub fn series(&self, model: &Model, scaler: &Scaler) -> Vec<Series> {
        let horizons = self.params.horizons.len();
        let of = self.panel.assets.iter().zip(&self.targets);
        of.map(|(asset, targets)| prepare::series(asset, targets, model, horizons, scaler))
            .collect()
    }

    /// Fits a model on the rows of a task.
    ///
    /// # Errors
    /// As [`fit::fit`]; a feature that does not vary in the last fit.
    pub fn fit(
        &self,
        model: &Model,
        task: &Task,
        ctx: &Context,
        log: &mut dyn FnMut(Value) -> Result<()>,
    ) -> Result<Fitted> {
        let train = prepare::marks(&task.train, self.dates);
        let valid = prepare::marks(&task.valid, self.dates);
        // A feature may stand still in a fold; in the last fit it must not.
        let strict = task.fold.is_none() && prepare::reads_table(model);
        let scaler = prepare::scaler(self.panel, &self.places, &train, strict)?;
        let mut all = self.series(model, &scaler);
        if self.params.labels == Labels::Permuted {
            let stream = 2 * task.fold.map_or(0, |fold| fold as u64 + 1);
            self.permute(&mut all, &task.train, ctx.seed(), stream);
            self.permute(&mut all, &task.valid, ctx.seed(), stream + 1);
        }
        let (train, valid) = (
            prepare::slices(&all, &self.places, &train),
            prepare::slices(&all, &self.places, &valid),
        );
        let horizons = self.params.horizons.len();
        let data = Data {
            train: &train,
            valid: &valid,
            class_weights: &fit::class_weights(self.params.class_weights, &train, horizons),
            flat: self.params.threshold,
        };
        let model = fit::fit(model, &data, ctx, log)?;
        Ok(Fitted { model, scaler })
    }

    /// Gives rows of `dates` the labels of other ones of them. Blocks as long as the furthest horizon
    /// move as one: labels of neighbours overlap, and a control whose labels did not would be fitted on
    /// more independent rows than the model that it stands beside.
    fn permute(&self, all: &mut [Series], dates: &[usize], seed: u64, stream: u64) {
        let order = permute::order(dates.len(), self.params.furthest(), seed, stream);
        for ((series, places), targets) in all.iter_mut().zip(&self.places).zip(&self.targets) {
            let width = series.horizons;
            for (row, from) in permute::rows(&rows_of(places, dates, self.dates), &order) {
                series.targets[row * width..(row + 1) * width]
                    .copy_from_slice(&targets[from * width..(from + 1) * width]);
            }
        }
    }

    /// The rows of an instrument that a task asks about.
    pub fn asked(&self, at: usize, task: &Task) -> Vec<usize> {
        let (asset, places) = (&self.panel.assets[at], &self.places[at]);
        if task.fold.is_some() {
            return rows_of(places, &task.asked, self.dates).into_iter().flatten().collect();
        }
        let split = match self.params.split {
            Judging::Test => Split::Test,
            Judging::Holdout => Split::Holdout,
        };
        (0..asset.rows()).filter(|row| asset.split[*row] == split).collect()
    }

    /// Asks about the rows of a fold, or after the last fit about those of the span.
    ///
    /// # Errors
    /// The model refuses a series.
    pub fn answer(
        &self,
        model: &Model,
        task: &Task,
        fitted: &Fitted,
        lines: &mut Vec<(Line, i64)>,
    ) -> Result<()> {
        let span = match (task.fold, self.params.split) {
            (Some(_), _) => Span::Fold,
            (None, Judging::Test) => Span::Test,
            (None, Judging::Holdout) => Span::Holdout,
        };
        let horizons = &self.params.horizons;
        for (at, series) in self.series(model, &fitted.scaler).iter().enumerate() {
            let asset = &self.panel.assets[at];
            let rows = self.asked(at, task);
            let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else { continue };
            let forecasts = fitted.model.predict(series, first..last + 1)?;
            for row in rows {
                for (h, &horizon) in horizons.iter().enumerate() {
                    let told = forecasts[(row - first) * horizons.len() + h];
                    let Some(unit) = asset.unit(row, horizon) else { continue };
                    let line = line(asset, (row, horizon), told, unit, self.params.threshold);
                    lines.push((Line { span, fold: task.fold, ..line }, asset.times[row]));
                }
            }
        }
        Ok(())
    }

    /// Writes the last model, and beside it what turns a table into its series.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, model: &Model, fitted: &Fitted, ctx: &Context) -> Result<()> {
        #[derive(Serialize)]
        struct About<'a> {
            params: Params,
            seed: u64,
            inputs: &'a [String],
            scaler: &'a Scaler,
        }
        let folder = ctx.output("model")?;
        fitted.model.save(folder)?;
        let about = About {
            // With the model as it was chosen, where it was searched for.
            params: Params { model: model.clone(), ..self.params.clone() },
            seed: ctx.seed(),
            inputs: &self.panel.inputs,
            scaler: &fitted.scaler,
        };
        let mut text = serde_json::to_string_pretty(&about).map_err(std::io::Error::from)?;
        text.push('\n');
        Ok(fs_err::write(folder.join("forecast.json"), text)?)
    }
}

/// By date: the row of an instrument, where it has one.
pub fn rows_of(places: &Places, dates: &[usize], of: usize) -> Vec<Option<usize>> {
    let mut row = vec![None; of];
    for (at, place) in places.iter().enumerate() {
        if let Some(place) = place {
            row[*place] = Some(at);
        }
    }
    dates.iter().map(|&date| row[date]).collect()
}

/// A line of a row: from units of its volatility to returns.
fn line(
    asset: &Asset,
    (row, horizon): (usize, usize),
    told: Forecast,
    unit: f64,
    threshold: f64,
) -> Line {
    let came = asset.came(row, horizon);
    let [p_down, p_flat, p_up] = told.p;
    Line {
        asset: asset.name.clone(),
        t0: asset.dates[row].clone(),
        t1: asset.dates.get(row + horizon).cloned(),
        span: Span::Test,
        fold: None,
        horizon,
        p_down,
        p_flat,
        p_up,
        mean: (f64::from(told.mean) * unit) as f32,
        scale: told.scale.map(|scale| (f64::from(scale) * unit) as f32),
        class: came.map(|came| prepare::class(came, threshold * unit) as i8 - 1),
        came: came.map(|came| came as f32),
    }
}
