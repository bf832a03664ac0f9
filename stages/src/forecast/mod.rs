//! `forecast`: fits a model on the features of `featurize`, and forecasts rows that it has not seen.
//!
//! ```text
//! tables -> panel -> protocol (purged folds by date) -> per fit: scaler, series, fit -> lines
//! ```
//!
//! The training span is forecast out of fold, each fold by a model that was fitted on other rows, purged
//! by the furthest horizon and with an embargo; then a last fit on the whole training span forecasts the
//! test span, or the sealed holdout where `split: holdout` says so. Whatever is learnt, scalers and class
//! weights too, comes from the rows of that fit alone. A return is judged in units of the volatility
//! that was known at its row, and falls into one of three classes.
//!
//! Models ([`params::Model`]) see [`series`] and nothing else: rules that read closes, linear models,
//! boosted trees, and nets ([`neural`]); `ensemble` mixes the forecasts of other stages of this kind.
//!
//! It picks no model, tunes no parameter, and trades nothing: that is for `evaluate` to judge.

mod boosting;
mod ensemble;
mod expect;
pub mod fit;
mod linear;
pub mod lines;
pub mod neural;
pub mod panel;
pub mod params;
mod prepare;
mod protocol;
mod rules;
pub mod series;
mod student;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::evaluate::params::Judging;
use crate::featurize::split::Split;
use crate::{Context, Format, Invalid, Port, Result, Stage};
use fit::Data;
use lines::{Line, Span};
use panel::{Asset, Panel};
use params::Model;
pub use params::Params;
use prepare::{Places, Scaler};
use protocol::{Protocol, Task};
use series::{Forecast, Forecaster, Series, Target};

/// The stage.
pub struct Forecasting;

impl Stage for Forecasting {
    const NAME: &'static str = "forecast";
    const VERSION: u32 = 1;
    const ABOUT: &'static str =
        "features to forecasts of direction and return, out of fold and on the test span";
    const SEEDED: bool = true;
    // Without the feature there is nothing that a device could change.
    const DEVICE: bool = cfg!(feature = "models");
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        match params.model {
            Model::Ensemble {} => vec![Port::optional("forecasts", Format::Any), Port::any()],
            _ => vec![Port::input("features", Format::Features)],
        }
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("forecasts", Format::Any, "forecasts.csv"),
            Port::tree("model", Format::Any, "model"),
            Port::file("log", Format::Log, "log.jsonl"),
        ]
    }

    fn check(params: &Params) -> std::result::Result<(), Invalid> {
        params.check()
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        match params.model {
            Model::Ensemble {} => combine(ctx),
            _ => forecast(params, ctx),
        }
    }
}

/// Mixes the forecasts of other stages.
fn combine(ctx: &Context) -> Result<()> {
    let members = ensemble::members(ctx)?;
    let (mixed, weights) = ensemble::mix(&members)?;
    let mut log = Log::create(ctx)?;
    for of in &weights {
        log.line(
            &json!({ "horizon": of.horizon, "weights": of.weights, "log_loss": of.log_loss }),
        )?;
    }
    log.0.flush()?;
    ensemble::save(&weights, ctx.output("model")?)?;
    lines::tell(&mixed, ctx);
    lines::write(&mixed, ctx.output("forecasts")?)
}

/// All that the fits of a run share.
struct Work<'a> {
    params: &'a Params,
    panel: &'a Panel,
    places: Vec<Places>,
    targets: Vec<Vec<Option<Target>>>,
    dates: usize,
}

/// A model with what scales its series.
struct Fitted {
    model: Box<dyn Forecaster>,
    scaler: Scaler,
}

fn forecast(params: &Params, ctx: &Context) -> Result<()> {
    let panel = panel::read(params, ctx)?;
    let protocol = protocol::protocol(&panel, params, params.model.stops())?;
    let work = Work::new(params, &panel, &protocol);
    let mut log = Log::create(ctx)?;
    let mut lines = Vec::new();
    let all = protocol.tasks.len() as u64;
    for (at, task) in protocol.tasks.iter().enumerate() {
        let name = task.fold.map_or("last".to_owned(), |fold| fold.to_string());
        ctx.progress(at as u64, all, "fits", &name)?;
        let fitted = work.fit(task, ctx, &mut |said| {
            let mut line =
                json!({ "fit": name, "dates": task.train.len(), "valid": task.valid.len() });
            line["purged"] = task.purged.into();
            line["embargoed"] = task.embargoed.into();
            if let (Value::Object(line), Value::Object(said)) = (&mut line, said) {
                line.extend(said);
            }
            log.line(&line)
        })?;
        work.answer(task, &fitted, &mut lines)?;
        if task.fold.is_none() {
            work.save(&fitted, ctx)?;
        }
    }
    ctx.progress(all, all, "fits", "writing")?;
    log.0.flush()?;
    let sum = |of: fn(&Task) -> usize| protocol.tasks.iter().map(of).sum::<usize>() as f64;
    ctx.metric("dates_train", protocol.times.len() as f64);
    ctx.metric("dates_purged", sum(|task| task.purged));
    ctx.metric("dates_embargoed", sum(|task| task.embargoed));
    if !lines.iter().any(|(line, _)| line.span != Span::Fold) {
        ctx.warn(format!(
            "no row is of split `{}`: all forecasts are out of fold",
            params.split.name()
        ));
    }
    if params.split == Judging::Holdout {
        // The mark by which the ledger of trials counts openings.
        let sealed = lines.iter().filter(|(line, _)| line.span == Span::Holdout).count();
        ctx.metric(crate::evaluate::selection::HOLDOUT, sealed as f64);
    }
    lines.sort_by(|a, b| (&a.0.asset, a.1, a.0.horizon).cmp(&(&b.0.asset, b.1, b.0.horizon)));
    let lines: Vec<Line> = lines.into_iter().map(|(line, _)| line).collect();
    lines::tell(&lines, ctx);
    lines::write(&lines, ctx.output("forecasts")?)
}

impl<'a> Work<'a> {
    fn new(params: &'a Params, panel: &'a Panel, protocol: &Protocol) -> Work<'a> {
        let targets = panel.assets.iter().map(|asset| prepare::targets(asset, params)).collect();
        let places = prepare::places(panel, protocol);
        Work { params, panel, places, targets, dates: protocol.times.len() }
    }

    /// The series of all instruments, as a fit scales them.
    fn series(&self, scaler: &Scaler) -> Vec<Series> {
        let of = self.panel.assets.iter().zip(&self.targets);
        of.map(|(asset, targets)| prepare::series(asset, targets, self.params, scaler)).collect()
    }

    fn fit(
        &self,
        task: &Task,
        ctx: &Context,
        log: &mut dyn FnMut(Value) -> Result<()>,
    ) -> Result<Fitted> {
        let train = prepare::marks(&task.train, self.dates);
        let valid = prepare::marks(&task.valid, self.dates);
        // A feature may stand still in a fold; in the last fit it must not.
        let strict = task.fold.is_none() && prepare::reads_features(&self.params.model);
        let scaler = prepare::scaler(self.panel, &self.places, &train, strict)?;
        let all = self.series(&scaler);
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
        let model = fit::fit(&self.params.model, &data, ctx, log)?;
        Ok(Fitted { model, scaler })
    }

    /// Asks about the rows of a fold, or after the last fit about those of the span.
    fn answer(&self, task: &Task, fitted: &Fitted, lines: &mut Vec<(Line, i64)>) -> Result<()> {
        let asked = prepare::marks(&task.asked, self.dates);
        let (split, span) = match self.params.split {
            Judging::Test => (Split::Test, Span::Test),
            Judging::Holdout => (Split::Holdout, Span::Holdout),
        };
        let span = if task.fold.is_some() { Span::Fold } else { span };
        for (at, series) in self.series(&fitted.scaler).iter().enumerate() {
            let (asset, places) = (&self.panel.assets[at], &self.places[at]);
            let wanted = |row: usize| match task.fold {
                Some(_) => places[row].is_some_and(|at| asked[at]),
                None => asset.split[row] == split,
            };
            let rows: Vec<usize> = (0..asset.rows()).filter(|row| wanted(*row)).collect();
            let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else { continue };
            let forecasts = fitted.model.predict(series, first..last + 1)?;
            for row in rows {
                for (h, &horizon) in self.params.horizons.iter().enumerate() {
                    let told = forecasts[(row - first) * self.params.horizons.len() + h];
                    let Some(unit) = asset.unit(row, horizon) else { continue };
                    let line = line(asset, (row, horizon), told, unit, self.params.threshold);
                    lines.push((Line { span, fold: task.fold, ..line }, asset.times[row]));
                }
            }
        }
        Ok(())
    }

    /// Writes the last model, and beside it what turns a table into its series.
    fn save(&self, fitted: &Fitted, ctx: &Context) -> Result<()> {
        #[derive(Serialize)]
        struct About<'a> {
            params: &'a Params,
            seed: u64,
            inputs: &'a [String],
            scaler: &'a Scaler,
        }
        let folder = ctx.output("model")?;
        fitted.model.save(folder)?;
        let about = About {
            params: self.params,
            seed: ctx.seed(),
            inputs: &self.panel.inputs,
            scaler: &fitted.scaler,
        };
        let mut text = serde_json::to_string_pretty(&about).map_err(std::io::Error::from)?;
        text.push('\n');
        Ok(fs_err::write(folder.join("forecast.json"), text)?)
    }
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

/// `log.jsonl`: an object a line, without a clock.
struct Log(BufWriter<fs_err::File>);

impl Log {
    fn create(ctx: &Context) -> Result<Log> {
        Ok(Log(BufWriter::new(fs_err::File::create(ctx.output("log")?)?)))
    }

    /// Keys are sorted, whatever order the maps of a build keep.
    fn line(&mut self, line: &Value) -> Result<()> {
        let sorted: BTreeMap<&String, &Value> = line.as_object().into_iter().flatten().collect();
        let text = serde_json::to_string(&sorted).map_err(std::io::Error::from)?;
        Ok(writeln!(self.0, "{text}")?)
    }
}
