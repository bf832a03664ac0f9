//! Reads the evaluations that are compared, and puts them on the same dates.
//!
//! A port is a model: `lstm: report.metrics`, and `lstm_returns: report.returns` for its returns.
//! Where a port gathers the cells of a matrix, each cell is a model of its own, named `port@cell`.
//! A folder that holds both files of a model feeds it through one port.
//!
//! Nothing is filled in: runs on other dates or other bars are refused, because a Sharpe ratio of
//! one year beside that of another compares the years.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::found::{Quality, Versus};
use super::params::{Align, HOLD};
use crate::evaluate::metrics::sharpe;
use crate::{Context, Result, StageError};

/// The end of the name of a port that brings the returns of the model named before it.
const RETURNS: &str = "_returns";

/// What is read of a `metrics.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Evaluated {
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// The judged model first, then what it was measured beside.
    pub strategies: Vec<Strategy>,
    /// Quality of the forecasts, the model's first, where it made any.
    #[serde(default)]
    quality: Vec<Forecasts>,
    /// The model's forecasts against those of baselines.
    #[serde(default)]
    rivals: Vec<Rival>,
    /// Whether the model can have read about the test span.
    contamination: Option<Contamination>,
}

#[derive(Clone, Debug, Deserialize)]
struct Forecasts {
    classes: Option<Classes>,
    brier: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Classes {
    mcc: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Rival {
    name: String,
    log_loss: Option<Test>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Test {
    difference: f64,
    p: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Contamination {
    claimable: bool,
}

impl Evaluated {
    /// How good the forecasts are. Of several baselines the one that comes closest, or lies furthest
    /// ahead, by log loss.
    pub fn forecast(&self) -> Option<Quality> {
        let own = self.quality.first()?;
        let tested = self.rivals.iter().filter_map(|r| Some((&r.name, r.log_loss?)));
        let hardest = tested.max_by(|a, b| a.1.difference.total_cmp(&b.1.difference));
        let versus = hardest.map(|(name, test)| Versus {
            name: name.clone(),
            better: test.difference < 0.0,
            p: test.p,
        });
        let mcc = own.classes.as_ref().and_then(|c| c.mcc);
        Some(Quality { mcc, brier: own.brier, versus })
    }

    /// Whether it is known that the model may remember the test span, or not known that it cannot.
    pub fn may_remember(&self) -> bool {
        self.contamination.as_ref().is_some_and(|c| !c.claimable)
    }
}

/// Where the numbers of a run come from.
#[derive(Clone, Debug, Deserialize)]
pub struct Provenance {
    /// Seed of its draws and of a sampled answer.
    pub seed: u64,
    /// Bars a year.
    pub per_year: f64,
    /// What the models are, in a line each.
    #[serde(default)]
    pub models: Vec<String>,
    /// Parameters of its `evaluate`.
    #[serde(default)]
    pub params: Value,
}

/// A strategy of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct Strategy {
    /// Its name: that of its column of returns.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub about: String,
    /// What does not follow from returns.
    pub metrics: Traded,
}

/// What a replay knows beside returns.
#[derive(Clone, Debug, Deserialize)]
pub struct Traded {
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
    /// Round trips.
    pub trades: usize,
    /// How they ended.
    pub hits: Option<Ended>,
    /// Units traded in a year.
    pub turnover: f64,
    /// Costs paid, as a share of the initial equity.
    pub costs: f64,
}

/// How round trips ended.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Ended {
    /// Share of them that gained.
    pub rate: f64,
    /// Mean gain over mean loss.
    pub payoff: Option<f64>,
    /// Mean of all.
    pub expectancy: f64,
}

/// A run: one model, evaluated.
#[derive(Clone, Debug)]
pub struct Run {
    /// `port`, or `port@cell`.
    pub name: String,
    /// Its metrics.
    pub evaluated: Evaluated,
    /// Date of each return.
    pub dates: Vec<String>,
    /// Strategies by column; the judged model first.
    pub columns: Vec<String>,
    /// Net returns, one series a strategy.
    pub returns: Vec<Vec<f64>>,
}

impl Run {
    /// The port.
    pub fn port(&self) -> &str {
        self.name.split('@').next().unwrap_or_default()
    }

    /// Whether it is a cell of a matrix.
    pub fn is_cell(&self) -> bool {
        self.name.contains('@')
    }

    /// The name without its seed, and the seed.
    pub fn seeded(&self) -> (String, Option<String>) {
        let Some((port, cell)) = self.name.split_once('@') else {
            return (self.name.clone(), None);
        };
        let (seed, rest): (Vec<&str>, Vec<&str>) =
            cell.split(',').partition(|part| part.starts_with("seed="));
        let seed = seed.first().and_then(|s| s.strip_prefix("seed=")).map(String::from);
        let base = if rest.is_empty() { port.into() } else { format!("{port}@{}", rest.join(",")) };
        (base, seed)
    }

    /// Returns of a strategy by name.
    pub fn strategy(&self, name: &str) -> Option<&[f64]> {
        let at = self.columns.iter().position(|column| column == name)?;
        self.returns.get(at).map(Vec::as_slice)
    }

    fn span(&self) -> String {
        let ends = self.dates.first().zip(self.dates.last());
        ends.map_or_else(
            || "no dates".into(),
            |(from, to)| format!("{from} to {to}, {} returns", self.dates.len()),
        )
    }
}

/// The runs of all ports, in the order of their names.
///
/// # Errors
/// A run lacks one of its two files, a file is not what it must be, or there are fewer than two runs.
pub fn runs(ctx: &Context) -> Result<Vec<Run>> {
    let mut found: BTreeMap<String, Vec<(&str, PathBuf)>> = BTreeMap::new();
    let ports: Vec<&String> = ctx.job().inputs.keys().collect();
    for &port in &ports {
        let model = port.strip_suffix(RETURNS).filter(|stem| ports.iter().any(|p| p == stem));
        for (file, path) in ctx.files(port) {
            let model = model.unwrap_or(port);
            let name = match file.rsplit_once('/') {
                Some((cell, _)) => format!("{model}@{cell}"),
                None => model.to_owned(),
            };
            found.entry(name).or_default().push((file, path.to_owned()));
        }
    }
    let runs =
        found.into_iter().map(|(name, files)| run(name, &files)).collect::<Result<Vec<_>>>()?;
    if runs.len() < 2 {
        return Err(StageError::failed(format!("there is {} to compare", many(runs.len()))).hint(
            "feed at least two: `a: eval_a.metrics`, `a_returns: eval_a.returns`, `b: ...`",
        ));
    }
    Ok(runs)
}

fn many(n: usize) -> &'static str {
    if n == 0 { "no run" } else { "only one run" }
}

fn run(name: String, files: &[(&str, PathBuf)]) -> Result<Run> {
    let one = |extension: &str, output: &str| -> Result<&Path> {
        let mut fits = files.iter().filter(|(file, _)| file.ends_with(extension));
        match (fits.next(), fits.next()) {
            (Some((_, path)), None) => Ok(path),
            (None, _) => {
                let port = name.split('@').next().unwrap_or_default();
                let port =
                    if output == "returns" { format!("{port}{RETURNS}") } else { port.into() };
                Err(StageError::failed(format!("`{name}` has no {output} (a {extension} file)"))
                    .hint(format!(
                        "feed `{port}: STAGE.{output}` of an `evaluate`; gather both alike"
                    )))
            }
            _ => Err(StageError::failed(format!("`{name}` has several {extension} files"))
                .hint("one run a port, or one a cell of a gathered port")),
        }
    };
    let (json, csv) = (one(".json", "metrics")?, one(".csv", "returns")?);
    let evaluated: Evaluated = serde_json::from_slice(&fs_err::read(json)?).map_err(|e| {
        StageError::bad(json, format!("these are no metrics of an `evaluate`: {e}"))
            .at(e.line() as u64)
            .hint("feed `STAGE.metrics`")
    })?;
    let (dates, columns, returns) = table(csv)?;
    let bad = |message: String| StageError::bad(csv, message);
    let Some(judged) = evaluated.strategies.iter().find(|s| s.name == columns[0]) else {
        return Err(bad(format!("the metrics of `{name}` have no strategy `{}`", columns[0])).at(1));
    };
    let computed = sharpe(&returns[0], evaluated.provenance.per_year);
    let agree = match (computed, judged.metrics.sharpe) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * (1.0 + b.abs()),
        (a, b) => a.is_none() && b.is_none(),
    };
    if !agree {
        let show = |x: Option<f64>| x.map_or_else(|| "none".into(), |x| format!("{x:.4}"));
        return Err(bad(format!(
            "the returns of `{name}` have a Sharpe ratio of {}, its metrics say {}",
            show(computed),
            show(judged.metrics.sharpe)
        ))
        .hint("feed both files of the same stage"));
    }
    Ok(Run { name, evaluated, dates, columns, returns })
}

type Returns = (Vec<String>, Vec<String>, Vec<Vec<f64>>);

/// Reads `date,<strategy>,...`.
fn table(path: &Path) -> Result<Returns> {
    let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
    let broken = |e: csv::Error| {
        let line = e.position().map_or(0, csv::Position::line);
        StageError::bad(path, format!("cannot read the table: {e}")).at(line)
    };
    let header = reader.headers().map_err(broken)?.clone();
    if header.get(0) != Some("date") || header.len() < 2 {
        return Err(StageError::bad(path, "the columns are not `date` and one a strategy")
            .at(1)
            .hint("feed `STAGE.returns` of an `evaluate`"));
    }
    let columns: Vec<String> = header.iter().skip(1).map(String::from).collect();
    let (mut dates, mut returns) = (Vec::<String>::new(), vec![Vec::new(); columns.len()]);
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        let date = &record[0];
        if dates.last().is_some_and(|last| last.as_str() >= date) {
            return Err(StageError::bad(path, format!("date `{date}` does not follow")).at(line));
        }
        dates.push(date.to_owned());
        for (column, cell) in returns.iter_mut().zip(record.iter().skip(1)) {
            let number = cell.parse::<f64>().ok().filter(|x| x.is_finite());
            column.push(number.ok_or_else(|| {
                StageError::bad(path, format!("`{cell}` is not a return")).at(line)
            })?);
        }
    }
    if dates.len() < 2 {
        return Err(StageError::bad(path, format!("there are {} returns", dates.len()))
            .hint("leave a longer test span in `featurize`"));
    }
    Ok((dates, columns, returns))
}

/// Puts the runs on the same dates.
///
/// # Errors
/// They have other dates (with `exact`), share none, or have other bars.
pub fn align(mut runs: Vec<Run>, align: Align) -> Result<Vec<Run>> {
    let first = &runs[0];
    for run in &runs[1..] {
        same_bars(first, run)?;
    }
    if align == Align::Intersect {
        let from = runs.iter().filter_map(|r| r.dates.first()).max().cloned().unwrap_or_default();
        let to = runs.iter().filter_map(|r| r.dates.last()).min().cloned().unwrap_or_default();
        for run in &mut runs {
            let keep = |d: &String| *d >= from && *d <= to;
            let start = run.dates.iter().position(keep).unwrap_or(0);
            let end = run.dates.iter().rposition(keep).map_or(start, |last| last + 1);
            run.dates = run.dates[start..end].to_vec();
            run.returns.iter_mut().for_each(|x| *x = x[start..end].to_vec());
        }
        if let Some(run) = runs.iter().find(|r| r.dates.len() < 2) {
            return Err(StageError::failed(format!(
                "the runs have no span in common: the latest begins on {from}, the earliest ends on {to}"
            ))
            .hint(format!("leave out `{}`, or evaluate all on one span", run.name)));
        }
    }
    let first = &runs[0];
    for run in &runs[1..] {
        let at = first.dates.iter().zip(&run.dates).position(|(a, b)| a != b);
        if at.is_none() && first.dates.len() == run.dates.len() {
            continue;
        }
        let ends = |r: &Run| (r.dates.first().cloned(), r.dates.last().cloned());
        let error = if ends(first) == ends(run) {
            let at = at.unwrap_or(first.dates.len().min(run.dates.len()));
            let date = |r: &Run| r.dates.get(at).cloned().unwrap_or_default();
            StageError::failed(format!(
                "`{}` has other bars than `{}`: {} where that has {}",
                run.name,
                first.name,
                date(run),
                date(first)
            ))
            .hint("evaluate all of them on the same features")
        } else {
            StageError::failed(format!(
                "`{}` has another span ({}) than `{}` ({})",
                run.name,
                run.span(),
                first.name,
                first.span()
            ))
            .hint("evaluate all on one span, or compare the span they share: `with: { align: intersect }`")
        };
        return Err(error);
    }
    Ok(runs)
}

/// Refuses runs of other bars, as far as that shows: bars a year, and what the index did.
fn same_bars(first: &Run, run: &Run) -> Result<()> {
    let (a, b) = (&first.evaluated.provenance, &run.evaluated.provenance);
    let fail = |what: String| {
        Err(StageError::failed(format!(
            "`{}` has other bars than `{}`: {what}",
            run.name, first.name
        ))
        .hint("evaluate all of them on the same features"))
    };
    if a.per_year != b.per_year {
        return fail(format!("{} a year, and not {}", b.per_year, a.per_year));
    }
    // Who holds one unit earns what the bars say, from the bar after the first fill on.
    let whole = |p: &Provenance| p.params["unit"].as_f64().is_none_or(|unit| unit == 1.0);
    let (Some(x), Some(y)) = (first.strategy(HOLD), run.strategy(HOLD)) else { return Ok(()) };
    if !whole(a) || !whole(b) {
        return Ok(());
    }
    let inner = |run: &Run, p: &Provenance| {
        let skip = 1 + p.params["latency"].as_u64().unwrap_or(1) as usize;
        skip.min(run.dates.len())..run.dates.len().saturating_sub(1).max(skip.min(run.dates.len()))
    };
    let (of_first, of_run) = (inner(first, a), inner(run, b));
    let mine: BTreeMap<&str, f64> = run.dates[of_run.clone()]
        .iter()
        .zip(&y[of_run])
        .map(|(date, r)| (date.as_str(), *r))
        .collect();
    for (date, r) in first.dates[of_first.clone()].iter().zip(&x[of_first]) {
        if let Some(other) = mine.get(date.as_str())
            && (other - r).abs() > 1e-6
        {
            return fail(format!("{HOLD} returns {other:.6} on {date}, and not {r:.6}"));
        }
    }
    Ok(())
}
