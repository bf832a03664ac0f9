//! Fits a model on the rows that the protocol gives it: the one place that knows every model.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

#[cfg(feature = "models")]
use super::neural;
use super::params::{ClassWeights, Model};
use super::series::{Forecaster, Slice, Target};
use super::{boosting, language, linear, rules};
use crate::{Context, Result, StageError};

/// What a model is fitted on.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Rows to learn from.
    pub train: &'a [Slice<'a>],
    /// Rows to stop by; perhaps none.
    pub valid: &'a [Slice<'a>],
    /// What a class of a horizon counts for: down, flat and up.
    pub class_weights: &'a [[f32; 3]],
    /// Values within plus and minus this are flat.
    pub flat: f64,
}

/// Fits a model. `log` hears of what came of it.
///
/// # Errors
/// A number that is none, or the model does not converge; the run is cancelled.
pub fn fit(
    model: &Model,
    data: &Data,
    ctx: &Context,
    log: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Box<dyn Forecaster>> {
    Ok(match model {
        Model::Majority {}
        | Model::Persistence {}
        | Model::Momentum(_)
        | Model::MovingAverage(_)
        | Model::MeanReversion(_) => {
            log(json!({}))?;
            Box::new(rules::fit(data))
        }
        Model::Logit(logit) => Box::new(linear::logit(logit, data, log)?),
        Model::Ridge(ridge) => Box::new(linear::ridge(ridge, data, log)?),
        Model::Boosting(boosting) => Box::new(boosting::fit(boosting, data, ctx.seed(), log)?),
        Model::Hybrid(_) | Model::Lstm(_) | Model::Transformer(_) => net(model, data, ctx, log)?,
        Model::Language(own) => language::fit(own, data, log)?,
        Model::Ensemble {} => {
            return Err(StageError::failed(
                "an ensemble is of forecasts, and is not fitted on rows",
            ));
        }
    })
}

/// Trains a net on the device of the run.
#[cfg(feature = "models")]
fn net(
    model: &Model,
    data: &Data,
    ctx: &Context,
    log: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Box<dyn Forecaster>> {
    let Some(net) = model.net() else {
        return Err(StageError::failed(format!("`{}` is no net", model.name())));
    };
    let place = crate::device::open(ctx.device())?;
    let Data { train, valid, class_weights, .. } = *data;
    let data = neural::Data { train, valid, class_weights };
    let mut tell =
        |done, all, note: &str| ctx.progress(done as u64, all as u64, "steps", note.to_owned());
    let mut logged = Ok(());
    let mut keep = |step: &neural::Step| {
        if logged.is_ok() {
            logged = serde_json::to_value(step)
                .map_err(|e| StageError::from(std::io::Error::from(e)))
                .and_then(&mut *log);
        }
    };
    let fitted = neural::fit(&net, &data, ctx.seed(), &place, &mut tell, &mut keep)?;
    logged.map(|()| fitted)
}

#[cfg(not(feature = "models"))]
fn net(
    model: &Model,
    _: &Data,
    _: &Context,
    _: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Box<dyn Forecaster>> {
    Err(StageError::failed(format!("`{}` is a net, and this build has none", model.name()))
        .hint("build with the feature `models`, which is on unless it is left out"))
}

/// The features and the target of each row that counts and is known over a horizon.
pub fn known<'a>(
    slices: &'a [Slice<'a>],
    horizon: usize,
) -> impl Iterator<Item = (&'a [f32], Target)> {
    slices.iter().flat_map(move |slice| {
        let series = slice.series;
        slice.rows.clone().zip(&slice.counts).filter(|(_, counts)| **counts).filter_map(
            move |(row, _)| {
                let target = series.targets[row * series.horizons + horizon]?;
                Some((&series.x[row * series.features..(row + 1) * series.features], target))
            },
        )
    })
}

/// What the classes count for, a horizon each: as many of each, or one and all.
pub fn class_weights(kind: ClassWeights, train: &[Slice], horizons: usize) -> Vec<[f32; 3]> {
    let of = |horizon: usize| {
        let mut counts = [0.0f64; 3];
        known(train, horizon).for_each(|(_, target)| counts[usize::from(target.class)] += 1.0);
        let (all, classes) =
            (counts.iter().sum::<f64>(), counts.iter().filter(|n| **n > 0.0).count() as f64);
        counts.map(|n| match (kind, n > 0.0) {
            (ClassWeights::Balanced, true) => (all / (classes * n)) as f32,
            _ => 1.0,
        })
    };
    (0..horizons).map(of).collect()
}

/// Writes `model.json` into the folder of a model.
///
/// # Errors
/// It cannot be written.
pub fn write(folder: &Path, model: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(model).map_err(std::io::Error::from)?;
    text.push('\n');
    Ok(fs_err::write(folder.join("model.json"), text)?)
}
