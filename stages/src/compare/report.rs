//! The page: one HTML file that opens from disk, on a phone, in the dark and on paper.
//!
//! It loads nothing and has no scripts, in the style of the report of `evaluate`. Names come from
//! pipelines of anybody: the template escapes everything but the figures drawn here, whose text the
//! drawing library escapes.

use serde::Serialize;

use super::found::{Comparison, Model};
use super::words;
use crate::Result;
use crate::evaluate::charts::Figure;
use crate::evaluate::inference::Interval;
use crate::evaluate::numbers::{NONE, count, fixed, many, or_none, percent, ratio, signed_percent};
use crate::evaluate::report::fill;
use crate::evaluate::verdict::show;

const TEMPLATE: &str = include_str!("report.html.jinja");

/// The columns of the table of models: heading, and what it is. A number may have its interval.
pub const COLUMNS: [(&str, &str); 8] = [
    ("Sharpe", "a year, 95%"),
    ("less the reference’s", "95%, paired"),
    ("p", "Holm"),
    ("Return a year", "compound"),
    ("Deepest fall", ""),
    ("Turnover a year", "a round trip is 2"),
    ("Hit rate", "payoff: gain over loss"),
    ("Mean trade", ""),
];

/// Further columns, where any evaluation measured forecasts.
pub const FORECAST: [(&str, &str); 3] =
    [("MCC", "0 is chance"), ("Brier", "less is better"), ("Log loss", "Diebold-Mariano")];

/// A cell: a number, and in small what belongs to it.
pub type Cell = (String, Option<String>);

/// A row of the table of models.
#[derive(Serialize)]
pub struct Row {
    /// The model.
    pub name: String,
    /// Whether it has the highest Sharpe ratio.
    pub best: bool,
    /// Whether it is what the others are compared with.
    pub reference: bool,
    /// A cell a column.
    pub cells: Vec<Cell>,
}

/// A heading of the table and the models under it.
#[derive(Serialize)]
pub struct Section {
    /// The group; empty where there is one without a name.
    pub name: String,
    /// Its models.
    pub rows: Vec<Row>,
}

/// What the template shows.
#[derive(Serialize)]
struct Page<'a> {
    found: &'a Comparison,
    tiles: Vec<(&'static str, String, String)>,
    facts: Vec<(&'static str, String)>,
    columns: Vec<(&'static str, &'static str)>,
    sections: Vec<Section>,
    figures: Vec<Figure>,
    source: String,
    about: Vec<(&'a str, &'a str)>,
    quartiles: Vec<Quartiles<'a>>,
}

/// A row of the table of seeds: name, runs, Sharpe ratios and ranks.
#[derive(Serialize)]
pub struct Quartiles<'a> {
    name: &'a str,
    runs: String,
    sharpe: String,
    sharpe_iqr: String,
    rank: String,
    rank_iqr: String,
}

/// Writes the page.
///
/// # Errors
/// The template does not fit.
pub fn render(found: &Comparison, figures: &[Figure]) -> Result<String> {
    let page = Page {
        found,
        tiles: tiles(found),
        facts: facts(found),
        columns: columns(found),
        sections: sections(found),
        figures: figures.iter().cloned().map(embed).collect(),
        source: words::source(found),
        about: found
            .shown()
            .filter(|m| !m.about.is_empty())
            .map(|m| (m.name.as_str(), m.about.as_str()))
            .collect(),
        quartiles: quartiles(found),
    };
    fill(TEMPLATE, &page)
}

/// A figure for a page: it scales, and says what it shows. Titles are our own.
fn embed(figure: Figure) -> Figure {
    let start = figure.svg.find("viewBox").unwrap_or(0);
    let rest = figure.svg.get(start..).unwrap_or_default();
    let svg = format!("<svg role=\"img\" aria-label=\"{}\" {rest}", figure.title);
    Figure { svg, ..figure }
}

/// The columns that there is anything for.
pub fn columns(found: &Comparison) -> Vec<(&'static str, &'static str)> {
    let forecasts = found.models.iter().any(|m| m.forecast.is_some());
    COLUMNS.into_iter().chain(FORECAST.into_iter().filter(|_| forecasts)).collect()
}

/// The table of models by group, the baselines at the end.
pub fn sections(found: &Comparison) -> Vec<Section> {
    let columns = columns(found).len();
    let best = found.best().map(|m| m.name.as_str());
    let row = |m: &Model, model: bool| {
        let is = |name: Option<&str>| Some(m.name.as_str()) == name;
        let mut cells = cells(m);
        cells.truncate(columns);
        Row {
            name: m.name.clone(),
            best: model && is(best),
            reference: is(found.reference.as_deref()),
            cells,
        }
    };
    let mut all: Vec<Section> = found
        .grouped()
        .into_iter()
        .map(|(name, models)| Section {
            name: name.to_owned(),
            rows: models.iter().map(|m| row(m, true)).collect(),
        })
        .collect();
    if !found.baselines.is_empty() {
        all.push(Section {
            name: "replayed beside them, no tries".into(),
            rows: found.baselines.iter().map(|m| row(m, false)).collect(),
        });
    }
    all
}

fn cells(m: &Model) -> Vec<Cell> {
    let d = m.difference;
    let q = m.forecast.clone().unwrap_or_default();
    let alone = |text: String| (text, None);
    let between = |i: Option<Interval>| i.map(|i| show(Some(i), ratio));
    let versus = q.versus.map(|v| {
        let stands = if v.better { "better" } else { "not better" };
        (stands.to_owned(), Some(format!("than {}, p {}", v.name, p_value(v.p))))
    });
    vec![
        (or_none(m.sharpe, ratio), between(m.interval)),
        (or_none(d.map(|d| d.value), ratio), between(d.map(|d| d.interval))),
        alone(or_none(d.map(|d| d.p_holm), p_value)),
        alone(or_none(m.cagr, signed_percent)),
        alone(percent(m.max_drawdown)),
        (ratio(m.turnover), Some(many(m.trades, "trade"))),
        (or_none(m.hit_rate, percent), m.payoff.map(|p| format!("payoff {}", ratio(p)))),
        alone(or_none(m.expectancy, signed_percent)),
        alone(or_none(q.mcc, |x| fixed(x, 3))),
        alone(or_none(q.brier, |x| fixed(x, 3))),
        versus.unwrap_or_else(|| alone(NONE.into())),
    ]
}

/// A p-value with as many digits as it deserves.
fn p_value(p: f64) -> String {
    if p < 0.001 { "<0.001".into() } else { fixed(p, if p < 0.1 { 3 } else { 2 }) }
}

fn tiles(found: &Comparison) -> Vec<(&'static str, String, String)> {
    let (best, s) = (found.best(), &found.selection);
    let name = best.map_or_else(|| "none".into(), |m| m.name.clone());
    let splits = s.overfit.as_ref().map_or_else(
        || "too little to split".into(),
        |o| format!("over {} splits; 50% is a draw", count(o.logits.len())),
    );
    let record = s.min_track_record_deflated.or(s.min_track_record);
    vec![
        ("Models tried", count(s.trials), format!("best: {name}")),
        (
            "Sharpe ratio of the best",
            or_none(best.and_then(|m| m.sharpe), ratio),
            format!(
                "95% {}; by chance {}",
                show(best.and_then(|m| m.interval), ratio),
                or_none(s.sharpe_by_chance, ratio)
            ),
        ),
        (
            "Deflated Sharpe ratio",
            or_none(s.deflated_sharpe, words::chance),
            format!(
                "95% is usually asked; alone {}",
                or_none(best.and_then(|m| m.psr), words::chance)
            ),
        ),
        ("Probability of overfitting", or_none(s.overfit.as_ref().map(|o| o.pbo), percent), splits),
        (
            "Record it takes",
            record.map_or_else(|| NONE.into(), count),
            format!(
                "returns at 95%, after the choice; there are {}",
                count(found.provenance.returns)
            ),
        ),
    ]
}

/// Where the numbers come from, and what the selection was computed of.
pub fn facts(found: &Comparison) -> Vec<(&'static str, String)> {
    let (p, s) = (&found.provenance, &found.selection);
    let mut facts = Vec::new();
    if let Some(data) = &p.data {
        facts.push(("Data", data.clone()));
    }
    facts.push((
        "Span",
        format!(
            "{} to {}, {} returns, {} a year",
            p.first,
            p.last,
            count(p.returns),
            words::short(p.per_year)
        ),
    ));
    let one = p.costs.len() == 1;
    facts.extend(p.costs.iter().map(|(costs, who)| match one {
        true => ("Costs", costs.clone()),
        false => ("Costs", format!("{costs}: {}", words::list(who))),
    }));
    facts.push(("Seeds", words::seeds(found)));
    facts.push((
        "Intervals",
        format!(
            "stationary bootstrap, {} draws of all series together, mean block {} bars (Politis and White), seed {}",
            count(p.draws),
            ratio(p.block),
            p.seed
        ),
    ));
    facts.push((
        "Tries",
        format!(
            "{} models, {} with a Sharpe ratio; variance of their Sharpe ratios a year {}; mean correlation of their returns {}",
            count(s.trials),
            count(s.ranked),
            s.variance.map_or_else(|| NONE.into(), |v| fixed(v * p.per_year, 4)),
            or_none(s.correlation, ratio)
        ),
    ));
    if let Some(o) = &s.overfit {
        facts.push((
            "Overfitting",
            format!(
                "{} blocks of {} returns, {} splits; chosen in one half, a Sharpe ratio of 0 or less in the other in {} of them",
                o.blocks,
                count(o.block),
                count(o.logits.len()),
                percent(o.loss)
            ),
        ));
    }
    facts
}

/// The table of seeds.
pub fn quartiles(found: &Comparison) -> Vec<Quartiles<'_>> {
    let iqr = |q: Option<[f64; 3]>| {
        q.map_or_else(|| NONE.into(), |q| format!("{} to {}", ratio(q[0]), ratio(q[2])))
    };
    let median = |q: Option<[f64; 3]>| or_none(q.map(|q| q[1]), ratio);
    let row = |s: &'_ super::seeds::Seeds| {
        let runs = match s.seeds.len() {
            0 => "one run".to_owned(),
            n => format!("{} ({})", count(n), s.seeds.join(", ")),
        };
        // One run has no spread, though it has a rank within each seed.
        let spread = iqr(s.sharpe.filter(|_| s.sharpes.len() > 1));
        (runs, median(s.sharpe), spread, median(s.rank), iqr(s.rank))
    };
    found
        .seeds
        .iter()
        .map(|s| {
            let (runs, sharpe, sharpe_iqr, rank, rank_iqr) = row(s);
            Quartiles { name: &s.name, runs, sharpe, sharpe_iqr, rank, rank_iqr }
        })
        .collect()
}

impl Quartiles<'_> {
    /// The cells after the name.
    pub fn cells(&self) -> [&str; 5] {
        [&self.runs, &self.sharpe, &self.sharpe_iqr, &self.rank, &self.rank_iqr]
    }
    /// The name.
    pub fn name(&self) -> &str {
        self.name
    }
}
