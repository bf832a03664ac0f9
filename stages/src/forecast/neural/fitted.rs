//! A fitted net: it forecasts, and is a folder of `config.json` and `model.safetensors`.

use std::ops::Range;
use std::path::Path;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::build::{Build, tensors};
use super::fit::floats;
use super::kernels::{Drop, Fused};
use super::loss::forecasts;
use super::model::Model;
use super::settings::Net;
use super::windows::{Batch, asking};
use crate::device::{Back, Flex, Place, flex, is_cpu};
use crate::forecast::series::{Forecast, Forecaster, Series};
use crate::model::weights::{self, Tensors};
use crate::{Result, StageError};

/// Windows of one pass when a net is asked.
const WINDOWS: usize = 16;
/// Features that a file may claim.
const FEATURES: usize = 1 << 16;
/// Horizons that a file may claim.
const HORIZONS: usize = 1 << 10;

/// What `config.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The net.
    pub net: Net,
    /// Features of a row.
    pub features: usize,
    /// Horizons of a row.
    pub horizons: usize,
    /// What a class counted for in training.
    pub class_weights: Vec<[f32; 3]>,
}

impl Config {
    /// Says what does not hold, in lower case.
    pub fn check(&self) -> std::result::Result<(), String> {
        self.net.check()?;
        for (name, value, most) in
            [("features", self.features, FEATURES), ("horizons", self.horizons, HORIZONS)]
        {
            if value == 0 || value > most {
                return Err(format!("`{name}` is {value}, not in 1..={most}"));
            }
        }
        let weights = self.class_weights.iter().flatten();
        if self.class_weights.len() != self.horizons
            || weights.clone().any(|w| !(w.is_finite() && *w > 0.0))
        {
            let message = "`class_weights` must be three positive numbers for each of";
            return Err(format!("{message} {} horizons", self.horizons));
        }
        Ok(())
    }
}

/// A fitted net.
#[derive(Debug)]
pub struct Fitted<B: Backend> {
    /// Its parameters.
    pub model: Model<B>,
    /// Its settings.
    pub config: Config,
    /// Where it computes.
    pub place: B::Device,
}

/// Reads a folder that [`Forecaster::save`] wrote.
///
/// # Errors
/// A file is missing, damaged, or of another net.
pub fn load(folder: &Path, place: &Place) -> Result<Box<dyn Forecaster>> {
    let path = folder.join("config.json");
    let text = fs_err::read_to_string(&path)?;
    let config: Config = serde_json::from_str(&text).map_err(|e| {
        StageError::bad(&path, e.to_string())
            .at(e.line() as u64)
            .hint("it must be the config.json of a fitted forecast model")
    })?;
    config.check().map_err(|message| StageError::bad(&path, message))?;
    let file = Tensors::open(&folder.join("model.safetensors"))?;
    Ok(match is_cpu(place) {
        true => Box::new(read::<Flex>(config, file, &flex())?),
        false => Box::new(read::<Back>(config, file, place)?),
    })
}

fn read<B: Backend>(config: Config, file: Tensors, place: &B::Device) -> Result<Fitted<B>> {
    let model = Model::build(&config, &mut Build::read(file, place))?;
    Ok(Fitted { model, config, place: place.clone() })
}

impl<B: Fused> Forecaster for Fitted<B> {
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>> {
        let features = self.config.features;
        if series.features != features || series.x.len() != series.rows() * features {
            let message = format!(
                "the model was fitted on {features} features, and `{}` has {}",
                series.name, series.features
            );
            return Err(StageError::failed(message)
                .hint("forecast with the features that the model was fitted on"));
        }
        let len = self.config.net.training().window;
        let rows = rows.start..rows.end.min(series.rows());
        let width = super::loss::HEADS * self.config.horizons;
        let mut heads = Vec::with_capacity(rows.len() * width);
        for windows in asking(series.rows(), len, rows).chunks(WINDOWS) {
            let mut batch = Batch::default();
            windows.iter().for_each(|window| batch.push(series, 0, window, len));
            // All passes have one shape, so that no product is computed in another way.
            batch.x.resize(WINDOWS * len * (features + super::windows::MORE), 0.0);
            batch.dt.resize(WINDOWS * len, 1.0);
            let [x, dt] = batch.tensors::<B>(features, &self.place);
            let values = floats(self.model.forward(x, dt, len, &mut Drop::default));
            for (window, values) in windows.iter().zip(values.chunks_exact(len * width)) {
                heads.extend_from_slice(&values[window.own.start * width..window.own.end * width]);
            }
        }
        Ok(forecasts(&heads, &self.config.class_weights))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        fs_err::create_dir_all(folder)?;
        let mut text = serde_json::to_string_pretty(&self.config)
            .map_err(|e| StageError::failed(format!("config.json: {e}")))?;
        text.push('\n');
        fs_err::write(folder.join("config.json"), text)?;
        weights::write(&folder.join("model.safetensors"), &tensors(&self.model)?)
    }
}
