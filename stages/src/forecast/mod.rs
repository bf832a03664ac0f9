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
//! boosted trees, nets ([`neural`]) and language models ([`language`]); `ensemble` mixes the forecasts of other stages of this kind.
//!
//! `search` chooses parameters of the model on inner folds of each fit ([`search`]), `importance` says
//! what forecasts lose without a feature ([`importance`]), and `labels: permuted` is the control.
//!
//! It picks no model and trades nothing: that is for `evaluate` to judge.

mod boosting;
mod ensemble;
mod expect;
pub mod fit;
pub mod importance;
pub mod language;
mod linear;
pub mod lines;
mod mixture;
pub mod neural;
pub mod panel;
pub mod params;
mod permute;
mod prepare;
mod protocol;
mod rules;
pub mod search;
pub mod series;
mod student;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use serde_json::{Value, json};

use crate::evaluate::params::Judging;
use crate::{Context, Format, Invalid, Port, Result, Stage};
use importance::Rises;
use lines::{Line, Span};
use params::Model;
pub use params::Params;
use protocol::Task;
use work::Work;

/// The stage.
pub struct Forecasting;

impl Stage for Forecasting {
    const NAME: &'static str = "forecast";
    const VERSION: u32 = 2;
    const ABOUT: &'static str =
        "features to forecasts of direction and return, out of fold and on the test span";
    const SEEDED: bool = true;
    // Of nets. A build without them has the same keys, so that it finds what one with them made.
    const DEVICE: bool = true;
    const TRIAL: bool = true;
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        match params.model {
            Model::Ensemble {} => vec![Port::optional("forecasts", Format::Any), Port::any()],
            Model::Language(_) => vec![
                Port::input("features", Format::Features),
                Port::input("prompts", Format::Prompts),
                Port::input("language", Format::Model),
            ],
            _ => vec![Port::input("features", Format::Features)],
        }
    }

    fn outputs(params: &Params) -> Vec<Port> {
        let mut ports = vec![
            Port::file("forecasts", Format::Any, "forecasts.csv"),
            Port::tree("model", Format::Any, "model"),
            Port::file("log", Format::Log, "log.jsonl"),
        ];
        if params.importance.is_some() {
            ports.push(Port::file("importance", Format::Any, "importance.csv"));
        }
        ports
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
            &json!({ "horizon": of.horizon, "weights": of.weights, "log_loss": of.log_loss, "gap": of.gap }),
        )?;
    }
    log.0.flush()?;
    ensemble::save(&weights, ctx.output("model")?)?;
    lines::tell(&mixed, ctx);
    lines::write(&mixed, ctx.output("forecasts")?)
}

fn forecast(params: &Params, ctx: &Context) -> Result<()> {
    let mut panel = panel::read(params, ctx)?;
    if let Model::Language(language) = &params.model {
        language::read(language, &mut panel, params.split, ctx)?;
    }
    let protocol = protocol::protocol(&panel, params, params.model.stops())?;
    let work = Work::new(params, &panel, &protocol);
    let mut rises = params.importance.map(|asked| Rises::new(asked, &work));
    let mut log = Log::create(ctx)?;
    let mut lines = Vec::new();
    let all = protocol.tasks.len() as u64;
    for (at, task) in protocol.tasks.iter().enumerate() {
        let name = task.fold.map_or("last".to_owned(), |fold| fold.to_string());
        ctx.progress(at as u64, all, "fits", &name)?;
        let mut tell = |said: Value| {
            let mut line =
                json!({ "fit": name, "dates": task.train.len(), "valid": task.valid.len() });
            line["purged"] = task.purged.into();
            line["embargoed"] = task.embargoed.into();
            if let (Value::Object(line), Value::Object(said)) = (&mut line, said) {
                line.extend(said);
            }
            log.line(&line)
        };
        let model = match &params.search {
            Some(search) => search::choose(search, &work, &protocol, task, ctx, &mut tell)?,
            None => params.model.clone(),
        };
        let fitted = work.fit(&model, task, ctx, &mut tell)?;
        work.answer(&model, task, &fitted, &mut lines)?;
        if let Some(rises) = &mut rises {
            rises.add(&work, &model, task, &fitted, ctx)?;
        }
        if task.fold.is_none() {
            work.save(&model, &fitted, ctx)?;
        }
    }
    ctx.progress(all, all, "fits", "writing")?;
    log.0.flush()?;
    if let Some(rises) = rises {
        rises.write(ctx.seed(), ctx.output("importance")?)?;
    }
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
