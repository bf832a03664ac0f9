//! The stage's way with forecasts: which ports it reads, and what becomes of their files.
//!
//! Tables of `features` are one instrument each and go by the names that the forecasts know them by;
//! where the forecasts name none, all tables are one series in the order of their names, as they are
//! for prompts.

use std::path::{Path, PathBuf};

use super::assessment::Assessment;
use super::forecasts::{self, Run};
use super::importance;
use super::input::{self, Table};
use super::panel::Panel;
use super::params::Params;
use super::policy::Policy;
use super::positions::{Given, assess};
use super::{facts, selection};
use crate::{Context, Format, Port, Result, StageError};

/// The ports.
pub fn ports() -> Vec<Port> {
    vec![
        Port::input("forecasts", Format::Any),
        Port::input("features", Format::Features),
        Port::optional("baselines", Format::Any),
        Port::optional("trials", Format::Any),
        Port::optional("control", Format::Any),
        Port::optional("importance", Format::Any),
    ]
}

/// Reads the ports and assesses.
///
/// # Errors
/// A file is not what it must be, or the span is too short.
pub fn run(params: &Params, policy: &Policy, ctx: &Context) -> Result<Assessment> {
    let files = tables_of(ctx, "forecasts", "/forecasts.csv");
    if files.is_empty() {
        return Err(StageError::failed("input `forecasts` has no CSV file")
            .hint("feed the outputs of `forecast` stages"));
    }
    ctx.progress(0, 4, "steps", "reading")?;
    let mut names: Vec<String> = Vec::new();
    for (_, path) in &files {
        names.extend(forecasts::assets(path)?);
    }
    names.sort();
    names.dedup();
    let tables = tables(ctx, &names)?;
    let whole = Panel::of(&tables);
    let judged = params.split.name();
    let one = |(name, path): &(String, PathBuf)| {
        forecasts::read(path, name, &whole, judged, policy.horizon)
    };
    let runs = forecasts::seeds(files.iter().map(one).collect::<Result<_>>()?)?;
    let horizon = runs.first().map_or(0, |run| run.horizon);
    let baselines = baselines(ctx, &whole, judged, horizon)?;
    let trials = trials(ctx)?;
    let control = control(ctx, &whole, judged, horizon)?;
    let importance = match ctx.has("importance") {
        true => {
            let files = tables_of(ctx, "importance", "/importance.csv");
            let paths: Vec<&Path> = files.iter().map(|(_, path)| path.as_path()).collect();
            Some(importance::read(&paths, horizon)?)
        }
        false => None,
    };
    ctx.progress(1, 4, "steps", "backtest")?;
    assess(Given {
        params,
        policy,
        seed: ctx.seed(),
        tables: &tables,
        whole: &whole,
        runs,
        baselines,
        control,
        importance,
        inputs: facts::sources(ctx)?,
        trials,
    })
}

/// Other models of the port `baselines`, over `horizon` bars; 0 is the shortest of each.
///
/// # Errors
/// A file is no output `forecasts`, or has no forecasts over the horizon.
pub fn baselines(ctx: &Context, whole: &Panel, judged: &str, horizon: usize) -> Result<Vec<Run>> {
    let files = tables_of(ctx, "baselines", "/forecasts.csv");
    let one =
        |(name, path): &(String, PathBuf)| forecasts::read(path, name, whole, judged, horizon);
    let mut baselines: Vec<Run> = files.iter().map(one).collect::<Result<_>>()?;
    named_apart(&mut baselines);
    Ok(baselines)
}

/// The model of the port `control`, a run for each seed; none where it is not fed.
///
/// # Errors
/// As those of [`forecasts::read`] and [`forecasts::seeds`].
fn control(ctx: &Context, whole: &Panel, judged: &str, horizon: usize) -> Result<Vec<Run>> {
    let files = tables_of(ctx, "control", "/forecasts.csv");
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let one =
        |(name, path): &(String, PathBuf)| forecasts::read(path, name, whole, judged, horizon);
    forecasts::seeds(files.iter().map(one).collect::<Result<_>>()?)
}

/// Returns of other configurations, from the port `trials`.
///
/// # Errors
/// A file is no output `returns`.
pub fn trials(ctx: &Context) -> Result<Vec<selection::Trial>> {
    let files = tables_of(ctx, "trials", "/returns.csv");
    files.iter().map(|(_, path)| selection::trial(path)).collect()
}

/// The CSV files of a port by name, without what every one of them ends in.
fn tables_of(ctx: &Context, port: &str, end: &str) -> Vec<(String, PathBuf)> {
    let csv = ctx.files(port).filter(|(name, _)| name.ends_with(".csv"));
    csv.map(|(name, path)| (stem(name, end), path.to_owned())).collect()
}

fn stem(name: &str, end: &str) -> String {
    let own = name.strip_suffix(end).unwrap_or(name);
    own.strip_suffix(".csv").unwrap_or(own).to_owned()
}

fn tables(ctx: &Context, names: &[String]) -> Result<Vec<(String, Table)>> {
    let files = tables_of(ctx, "features", "/features.csv");
    let paths: Vec<&Path> = files.iter().map(|(_, path)| path.as_path()).collect();
    match (files.as_slice(), names) {
        ([], _) => Err(StageError::failed("input `features` has no CSV file")),
        ([_], [name]) => Ok(vec![(name.clone(), input::features(&paths)?)]),
        (_, [name]) if name.is_empty() => Ok(vec![(String::new(), input::features(&paths)?)]),
        _ => {
            // An instrument without a forecast is not traded, and is left out.
            let wanted = files.iter().filter(|(name, _)| names.contains(name));
            let table =
                |(name, path): &(String, PathBuf)| Ok((name.clone(), input::features(&[path])?));
            let tables: Vec<(String, Table)> = wanted.map(table).collect::<Result<_>>()?;
            match tables.len() == names.len() {
                true => Ok(tables),
                false => {
                    let missing = names.iter().find(|name| tables.iter().all(|t| t.0 != **name));
                    Err(StageError::failed(format!(
                        "no table of `{}` among the features",
                        missing.map_or("", String::as_str)
                    ))
                    .hint(format!(
                        "the tables are {}",
                        files.iter().map(|f| f.0.as_str()).collect::<Vec<_>>().join(", ")
                    )))
                }
            }
        }
    }
}

/// Names of baselines that neither repeat nor are those of other strategies.
fn named_apart(baselines: &mut [Run]) {
    for at in 0..baselines.len() {
        let name = match baselines[at].name.as_str() {
            "forecasts" => "baseline".to_string(),
            name => name.to_string(),
        };
        let taken = |name: &str| {
            super::baselines::NAMES.contains(&name)
                || baselines[..at].iter().any(|run| run.name == name)
        };
        let numbered = (2..).map(|n| format!("{name} {n}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name));
        baselines[at].name = free.unwrap_or(name);
    }
}
