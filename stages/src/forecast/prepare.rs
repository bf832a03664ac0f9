//! From a panel to the series that a model sees: targets, scaled features, elapsed time.
//!
//! What scales the features and says what the usual step is comes from the rows of one fit alone, and is
//! kept with the model. For rules the series has one feature, their signal, as it is.

use std::collections::BTreeMap;

use serde::Serialize;

use super::panel::{Asset, Panel};
use super::params::{Model, Params};
use super::protocol::Protocol;
use super::rules;
use super::series::{Series, Slice, Target};
use crate::featurize::split::Split;
use crate::{Result, StageError};

/// Scaled features lie between plus and minus this, so that one row cannot rule a fit.
const BOUND: f64 = 10.0;

/// Rows before the first that counts which a model may read; beyond them no net looks back.
pub const CONTEXT: usize = 512;

/// What is learnt of the features themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scaler {
    /// Means of the rows that were learnt from.
    pub mean: Vec<f64>,
    /// Their standard deviations; 0 of a feature that did not vary, which then is 0 throughout.
    pub deviation: Vec<f64>,
    /// Nanoseconds from a row to the next: the median.
    pub step: i64,
}

/// Places of an asset's rows among the dates of the protocol; `None` of rows that are not `train`.
pub type Places = Vec<Option<usize>>;

/// The places of all assets.
pub fn places(panel: &Panel, protocol: &Protocol) -> Vec<Places> {
    let at: BTreeMap<i64, usize> = protocol.times.iter().copied().zip(0..).collect();
    let place = |(time, split): (&i64, &Split)| match split {
        Split::Train => at.get(time).copied(),
        _ => None,
    };
    let of = |asset: &Asset| asset.times.iter().zip(&asset.split).map(place).collect();
    panel.assets.iter().map(of).collect()
}

/// What happened, `[rows, horizons]` of an asset.
pub fn targets(asset: &Asset, params: &Params) -> Vec<Option<Target>> {
    let mut all = Vec::with_capacity(asset.rows() * params.horizons.len());
    for row in 0..asset.rows() {
        for &horizon in &params.horizons {
            let target =
                asset.came(row, horizon).zip(asset.unit(row, horizon)).map(|(came, unit)| Target {
                    class: class(came, params.threshold * unit),
                    value: (came / unit) as f32,
                });
            all.push(target);
        }
    }
    all
}

/// 0 down, 1 flat, 2 up.
pub fn class(came: f64, flat: f64) -> u8 {
    match came {
        r if r > flat => 2,
        r if r < -flat => 0,
        _ => 1,
    }
}

/// Learns the scaler from the rows whose date is one of `train`.
///
/// # Errors
/// On `strict`, a feature that does not vary.
pub fn scaler(panel: &Panel, places: &[Places], train: &[bool], strict: bool) -> Result<Scaler> {
    let width = panel.inputs.len();
    let (mut sum, mut squares, mut count) = (vec![0.0; width], vec![0.0; width], 0.0);
    let mut steps = Vec::new();
    let counted = |(asset, places): (&Asset, &Places)| {
        // A row without a prompt has no numbers of its model.
        let known =
            |row: usize| !asset.raw[row * width..(row + 1) * width].iter().any(|x| x.is_nan());
        let counts = |(row, place): (usize, &Option<usize>)| {
            place.filter(|at| train[*at] && known(row)).map(|_| row)
        };
        places.iter().enumerate().filter_map(counts).collect::<Vec<usize>>()
    };
    let rows: Vec<Vec<usize>> = panel.assets.iter().zip(places).map(counted).collect();
    for (asset, rows) in panel.assets.iter().zip(&rows) {
        for &row in rows {
            count += 1.0;
            let cells = &asset.raw[row * width..(row + 1) * width];
            sum.iter_mut().zip(cells).for_each(|(sum, x)| *sum += x);
            if row > 0 {
                steps.push(asset.times[row] - asset.times[row - 1]);
            }
        }
    }
    let mean: Vec<f64> = sum.iter().map(|sum| sum / count).collect();
    for (asset, rows) in panel.assets.iter().zip(&rows) {
        for &row in rows {
            let cells = &asset.raw[row * width..(row + 1) * width];
            for (at, x) in cells.iter().enumerate() {
                squares[at] += (x - mean[at]).powi(2);
            }
        }
    }
    // Rounding leaves a constant feature with a deviation of some 1e-16 of its size.
    let deviation = |(squares, mean): (&f64, &f64)| match (squares / count).sqrt() {
        d if d > 1e-12 * mean.abs() => d,
        _ => 0.0,
    };
    let deviation: Vec<f64> = squares.iter().zip(&mean).map(deviation).collect();
    if let (true, Some(at)) = (strict, deviation.iter().position(|d| *d == 0.0)) {
        let path = panel.assets.first().map_or_else(Default::default, |asset| asset.path.clone());
        let message = format!("feature `{}` is the same in all training rows", panel.inputs[at]);
        return Err(StageError::bad(path, message)
            .hint("leave it out of `inputs`: nothing can be learnt from it"));
    }
    steps.sort_unstable();
    let step = steps.get(steps.len() / 2).copied().unwrap_or(1).max(1);
    Ok(Scaler { mean, deviation, step })
}

/// The series of an asset, for a model.
pub fn series(
    asset: &Asset,
    targets: &[Option<Target>],
    model: &Model,
    horizons: usize,
    scaler: &Scaler,
) -> Series {
    let x = match (rules::signal(model, &asset.closes), model) {
        (Some(signal), _) => signal,
        // Log-probabilities and answers are what they are.
        (None, Model::Language(language)) if !language.learns() => {
            asset.raw.iter().map(|x| if x.is_nan() { 0.0 } else { *x as f32 }).collect()
        }
        (None, _) => scaled(asset, scaler),
    };
    let mut dt = vec![1.0; asset.rows()];
    for (row, pair) in asset.times.windows(2).enumerate() {
        dt[row + 1] = ((pair[1] - pair[0]) as f64 / scaler.step as f64) as f32;
    }
    Series {
        name: asset.name.clone(),
        features: x.len() / asset.rows().max(1),
        x,
        dt,
        targets: targets.to_vec(),
        horizons,
    }
}

fn scaled(asset: &Asset, scaler: &Scaler) -> Vec<f32> {
    let width = scaler.mean.len();
    let one = |(at, x): (usize, &f64)| {
        let (mean, deviation) = (scaler.mean[at % width], scaler.deviation[at % width]);
        match deviation > 0.0 && !x.is_nan() {
            true => ((x - mean) / deviation).clamp(-BOUND, BOUND) as f32,
            false => 0.0,
        }
    };
    asset.raw.iter().enumerate().map(one).collect()
}

/// The rows of each series whose date is one of `dates`, with those before that are read beside them.
/// Series without such a row are left out.
pub fn slices<'a>(all: &'a [Series], places: &[Places], dates: &[bool]) -> Vec<Slice<'a>> {
    let mut out = Vec::new();
    for (series, places) in all.iter().zip(places) {
        let counts = |place: &Option<usize>| place.is_some_and(|at| dates[at]);
        let (Some(first), Some(last)) =
            (places.iter().position(counts), places.iter().rposition(counts))
        else {
            continue;
        };
        let rows = first.saturating_sub(CONTEXT)..last + 1;
        let counts = places[rows.clone()].iter().map(counts).collect();
        out.push(Slice { series, rows, counts });
    }
    out
}

/// Marks the dates of a task.
pub fn marks(dates: &[usize], of: usize) -> Vec<bool> {
    let mut marks = vec![false; of];
    dates.iter().for_each(|&at| marks[at] = true);
    marks
}

/// Whether the model reads the features of the table: not closes alone, nor prompts.
pub fn reads_table(model: &Model) -> bool {
    rules::signal(model, &[]).is_none() && !matches!(model, Model::Language(_))
}
