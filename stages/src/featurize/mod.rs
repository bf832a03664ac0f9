//! `featurize`: market data in, the market state at each tick of a clock out.
//!
//! ```text
//! source (bars, quotes, trades, depth, streams, orders) -> market::open -> Sample
//!   scan    reads it once into a scratch file, and counts rows and faults
//!   learn   what is fitted, on the training span alone
//!   write   features, label and split of each sample; scalers
//! ```
//!
//! Which features there are, `quantmill stages featurize` lists ([`feature::FEATURES`]); without
//! `features` it is the market state, fifteen of them in the forms that the source allows. Every one
//! is causal: cutting the data at a row leaves all rows before it as they are, to the bit, and
//! `check: causality` tries that on the very data of a pipeline. Labels look ahead and are apart:
//! each row has the time `t1` at which its own is known, by which the splits are purged.
//!
//! Memory is bounded by windows and horizons, not by the length of the data.
//!
//! With `by_file` each file of a series, such as a day, is an action of its own, so that a new one is
//! all that is computed ([`ByFile`]).
//!
//! It does not scale columns (the scalers are in `fit.json`), fill gaps, or adjust for splits and
//! dividends.

pub mod feature;
pub mod fit;
pub mod folds;
pub mod labels;
mod learn;
mod proof;
mod scan;
mod sides;
pub mod split;
pub mod table;
pub mod window;
mod write;

#[cfg(test)]
mod by_file_tests;
#[cfg(test)]
pub(crate) mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::market::clock::{Clock, Sampling};
use crate::market::quality::Quality;
use crate::market::{Series, Source};
use crate::{Context, Format, Invalid, Items, Named, Port, Result, Stage, StageError};
use feature::{Column, FeatureSpec};
use fit::Fit;
use labels::{Label, Meta};
use split::Splits;

/// What is tried on the data beside the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Nothing.
    #[default]
    Off,
    /// The data are cut, and changed, after three times in the test span: no row before may change.
    /// Takes about six times as long.
    Causality,
}

/// One file of the series at a time.
///
/// A row then depends on its own file and the `behind` before it, and on nothing else. Windows that
/// these fill are as they would be in a run over all files; what has no end, such as an exponential
/// mean or the filter of `p_high_vol`, begins anew with the first file that is read. A row is of the
/// file that makes it known: an empty second between two files is of the second.
///
/// Nothing is learnt: `fit` comes from a stage over the files of the training span. Spans go by the
/// dates of `splits`, of which `train_end` must be given. As the next file is not read, the last rows
/// of a file have no label, and those of the training span, `horizon_bars` at least, are `gap`. The
/// embargo counts from the first row that is read after `train_end`. Where `index` or `peers` grow,
/// every file is done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ByFile {
    /// How many files before it are read to fill the windows; their rows are not written again.
    pub behind: usize,
}

impl Default for ByFile {
    fn default() -> ByFile {
        ByFile { behind: 1 }
    }
}

/// Parameters of `featurize`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// What the files hold.
    pub source: Source,
    /// The clock that samples quotes, trades and books; bars are taken as they are.
    pub sampling: Sampling,
    /// The features, each a name or a name with parameters. Without it, the market state.
    pub features: Option<Vec<FeatureSpec>>,
    /// Samples in a year. Without it: 252 for bars, what the clock gives for a clock of time, and for
    /// any other as many as the training span has.
    pub periods_per_year: Option<f64>,
    /// What a row is to be judged by.
    pub label: Option<Label>,
    /// Makes the label a meta-label: whether a side that a feature or a model takes is worth taking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    /// Training and test span.
    pub splits: Splits,
    /// How many faults of the data are put up with.
    pub quality: Quality,
    /// What is tried beside the work.
    pub check: Check,
    /// Each file of `bars` or `events` is an action of its own, and `features` the folder of their
    /// tables. Without it, all files are one action and one table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_file: Option<ByFile>,
}

impl Params {
    /// The port of the series.
    fn port(&self) -> &'static str {
        if self.source.has_clock() { "events" } else { "bars" }
    }
}

/// The stage.
pub struct Featurize;

impl Stage for Featurize {
    const NAME: &'static str = "featurize";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "market data to causal features, labels and splits";
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        let format = if params.source.has_clock() { Format::Any } else { Format::Bars };
        let fit = match params.by_file {
            Some(_) => Port::input("fit", Format::Metrics),
            None => Port::optional("fit", Format::Metrics),
        };
        let mut ports = vec![
            Port::input(params.port(), format),
            Port::optional("index", Format::Any),
            Port::optional("peers", Format::Any),
            fit,
        ];
        if params.meta.as_ref().is_some_and(|meta| meta.answers.is_some()) {
            ports.push(Port::input("answers", Format::Any));
        }
        ports
    }

    fn items(params: &Params) -> Option<Items> {
        params.by_file.map(|by| Items { port: params.port(), behind: by.behind })
    }

    fn outputs(params: &Params) -> Vec<Port> {
        if params.by_file.is_some() {
            return vec![Port::tree("features", Format::Features, "features")];
        }
        let mut ports = vec![
            Port::file("features", Format::Features, "features.csv"),
            Port::file("fit", Format::Metrics, "fit.json"),
        ];
        if params.splits.folds.is_some() {
            ports.push(Port::file("folds", Format::Metrics, "folds.json"));
        }
        ports
    }

    fn check(params: &Params) -> Result<(), Invalid> {
        params.source.check().map_err(|e| under("source", e))?;
        params.sampling.check().map_err(|e| under("sampling", e))?;
        if params.periods_per_year.is_some_and(|p| !(p > 0.0 && p.is_finite())) {
            return Err(Invalid::new("periods_per_year", "must be above 0"));
        }
        if let Some(list) = &params.features {
            feature::parse(list)?;
            if list.is_empty() {
                return Err(Invalid::new("features", "names none")
                    .help("leave it out for the fifteen of the market state"));
            }
        }
        if let Some(label) = &params.label {
            label.check("label")?;
        }
        check_meta(params)?;
        params.splits.check()?;
        if params.by_file.is_some() { check_by_file(params) } else { Ok(()) }
    }

    fn names() -> Option<(&'static str, Vec<Named>)> {
        Some(("features", feature::listing().iter().map(named).collect()))
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let scan = scan::scan(params, ctx)?;
        let columns = columns(params, &scan)?;
        let fit = match ctx.has("fit") {
            true => Fit::read(ctx.file("fit")?, &columns)?,
            false => learn::learn(params, &columns, &scan, |done, all, what| {
                ctx.progress(done, all, "steps", what)
            })?,
        };
        if params.check == Check::Causality {
            proof::prove(params, &columns, &scan, &fit, ctx)?;
        }
        write::write(params, &columns, &scan, fit, ctx)
    }
}

fn check_meta(params: &Params) -> Result<(), Invalid> {
    let Some(meta) = &params.meta else { return Ok(()) };
    if params.label.is_none() {
        return Err(Invalid::new("meta", "judges a side, and there is no `label` to judge it by")
            .help("add a `label`, such as { triple_barrier: { horizon: { bars: 10 } } }"));
    }
    let named = |list: &Vec<FeatureSpec>| {
        let columns = feature::parse(list)?;
        Ok(columns.into_iter().map(|column| column.name).collect::<Vec<_>>())
    };
    let columns = params.features.as_ref().map(named).transpose()?;
    meta.check(columns.as_deref())
}

/// What a file alone does not tell.
fn check_by_file(params: &Params) -> Result<(), Invalid> {
    if params.splits.train_end.is_none() {
        return Err(Invalid::new("splits.train_end", "must be given where there is `by_file`")
            .help("a share of the rows is one of all files, and an action reads only a few"));
    }
    if params.splits.folds.is_some() {
        return Err(Invalid::new("splits.folds", "go over all rows, and `by_file` over one file")
            .help("make the folds in a stage without `by_file`"));
    }
    if params.check == Check::Causality {
        return Err(Invalid::new(
            "check",
            "cuts the whole series, and `by_file` reads a few files",
        )
        .help("check the stage that learns the `fit`"));
    }
    if params.source.has_clock() && !matches!(params.sampling.clock, Clock::Every(_)) {
        return Err(Invalid::new("sampling.clock", "must be `every` where there is `by_file`")
            .help("one that counts would begin anew in each action, and rows would not meet"));
    }
    Ok(())
}

fn named(row: &feature::Listed) -> Named {
    let needs: Vec<&str> = row.needs.iter().map(|need| need.name()).collect();
    let mut what = format!("{}; {}; needs {}", row.unit, row.source, needs.join(", "));
    if row.fitted {
        what += "; fitted on the training span";
    }
    let mut notes = vec![what];
    let mut params: Vec<String> = Vec::new();
    for (name, value) in row.params.as_object().into_iter().flatten() {
        params.push(format!("{name}: {value}"));
    }
    if !params.is_empty() {
        notes.push(format!("{{ {} }}", params.join(", ")));
    }
    Named { name: row.name, about: row.formula, notes }
}

/// The columns of the features for what the source has.
fn columns(params: &Params, scan: &scan::Scan) -> Result<Vec<Column>> {
    let list = match &params.features {
        Some(list) => list.clone(),
        None => feature::default_features(&scan.source),
    };
    let columns = feature::parse(&list).map_err(wrong)?;
    columns.iter().try_for_each(|column| column.check(&scan.source)).map_err(wrong)?;
    Ok(columns)
}

/// The files of the ports.
fn series(params: &Params, ctx: &Context) -> Result<Series> {
    let port = params.port();
    let side = |name: &str| ctx.has(name).then(|| ctx.file(name).map(Into::into)).transpose();
    Ok(Series {
        files: ctx.files(port).map(|(name, path)| (name.to_owned(), path.to_owned())).collect(),
        index: side("index")?,
        peers: side("peers")?,
    })
}

fn under(place: &str, mut e: Invalid) -> Invalid {
    e.also = e.also.into_iter().map(|e| under(place, e)).collect();
    e.path = if e.path.is_empty() { place.into() } else { format!("{place}.{}", e.path) };
    e
}

/// A parameter that only the data show to be wrong.
fn wrong(e: Invalid) -> StageError {
    let error = StageError::failed(format!("{}: {}", e.path, e.message));
    match e.help {
        Some(help) => error.hint(help),
        None => error,
    }
}
