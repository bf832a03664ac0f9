//! The tables of `featurize` in memory: one instrument, or a panel of them.
//!
//! A file is an instrument, named as the file is without its ending; where there is one file, it has no
//! name. Closes, dates, splits and features are taken; labels are not: forecasts have their own, over
//! the horizons of the stage.

use std::path::{Path, PathBuf};

use super::params::Params;
use crate::featurize::labels::Deviation;
use crate::featurize::split::Split;
use crate::featurize::table::Rows;
use crate::{Context, Result, StageError};

/// Returns that a volatility needs.
const RETURNS: usize = 20;

/// The rows of one instrument, in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asset {
    /// Its name; empty where there is only one.
    pub name: String,
    /// Where it was read from.
    pub path: PathBuf,
    /// The dates as the file has them.
    pub dates: Vec<String>,
    /// The same in nanoseconds since 1970-01-01 UTC.
    pub times: Vec<i64>,
    /// Closes, above 0.
    pub closes: Vec<f64>,
    /// The split of each row.
    pub split: Vec<Split>,
    /// `[rows, inputs]`: features; `NaN` where the warm-up knows none.
    pub raw: Vec<f64>,
    /// The deviation of one-bar log returns that is known at a row; `None` at first.
    pub sigma: Vec<Option<f64>>,
}

/// What is forecast from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// By name.
    pub assets: Vec<Asset>,
    /// The names of the features.
    pub inputs: Vec<String>,
}

impl Asset {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.dates.len()
    }

    /// The log return from a row over a horizon, where it is known.
    pub fn came(&self, row: usize, horizon: usize) -> Option<f64> {
        Some((self.closes.get(row + horizon)? / self.closes.get(row)?).ln())
    }

    /// What a return over a horizon is measured in: sigma sqrt(h).
    pub fn unit(&self, row: usize, horizon: usize) -> Option<f64> {
        self.sigma.get(row).copied().flatten().map(|sigma| sigma * (horizon as f64).sqrt())
    }
}

/// Reads the port `features`.
///
/// # Errors
/// There is no table, one has no such features or no rows, or a price is not above 0.
pub fn read(params: &Params, ctx: &Context) -> Result<Panel> {
    let files: Vec<(String, PathBuf)> =
        ctx.files("features").map(|(name, path)| (stem(name), path.to_owned())).collect();
    let one = files.len() == 1;
    let mut panel = Panel::default();
    for (at, (name, path)) in files.iter().enumerate() {
        ctx.progress(at as u64, files.len() as u64, "tables", "reading")?;
        let name = if one { String::new() } else { name.clone() };
        let (asset, inputs) = table(name, path, params)?;
        if at > 0 && inputs != panel.inputs {
            let message = format!(
                "features `{}` where others have `{}`",
                inputs.join(", "),
                panel.inputs.join(", ")
            );
            return Err(StageError::bad(path, message)
                .at(1)
                .hint("name those that all instruments have in `inputs`"));
        }
        panel.inputs = inputs;
        panel.assets.push(asset);
    }
    match panel.assets.is_empty() {
        true => Err(StageError::failed("input `features` has no file")),
        false => Ok(panel),
    }
}

/// The name of an instrument from that of its table.
fn stem(name: &str) -> String {
    let own = name.strip_suffix("/features.csv").unwrap_or(name);
    own.strip_suffix(".csv").unwrap_or(own).to_owned()
}

fn table(name: String, path: &Path, params: &Params) -> Result<(Asset, Vec<String>)> {
    let rows = Rows::open(path)?;
    let inputs = params.inputs.clone().unwrap_or_else(|| rows.names().to_vec());
    let place = |wanted: &String| {
        rows.place(wanted).ok_or_else(|| {
            let near = rows
                .names()
                .iter()
                .map(|found| (strsim::jaro_winkler(found, wanted), found))
                .filter(|(score, _)| *score > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let meant = near.map(|(_, near)| format!("is `{near}` meant? ")).unwrap_or_default();
            StageError::bad(path, format!("no feature `{wanted}`"))
                .at(1)
                .hint(format!("{meant}`inputs` may name {}", rows.names().join(", ")))
        })
    };
    let places = inputs.iter().map(place).collect::<Result<Vec<_>>>()?;
    let mut asset = Asset { name, path: path.to_owned(), ..Asset::default() };
    let mut sigma = Deviation::new(params.volatility_span);
    for row in rows {
        let row = row?;
        if row.close <= 0.0 {
            // The header is line 1.
            return Err(StageError::bad(path, format!("close must be above 0: {}", row.close))
                .at(asset.rows() as u64 + 2));
        }
        if let Some(last) = asset.closes.last() {
            sigma.push((row.close / last).ln());
        }
        let known = asset.rows() >= RETURNS;
        asset.sigma.push(sigma.value().filter(|sigma| known && *sigma > 0.0));
        asset.raw.extend(places.iter().map(|&at| row.features[at]));
        asset.dates.push(row.date);
        asset.times.push(row.time);
        asset.closes.push(row.close);
        asset.split.push(row.split);
    }
    if asset.rows() == 0 {
        return Err(StageError::bad(path, "the file has a header and no rows"));
    }
    Ok((asset, inputs))
}
