//! The report on a set of pairs: one HTML file that opens from disk, without scripts.
//!
//! Fill model against what was observed, rewards, balance of classes and regimes, and ten pairs to read.
//! Prompts are made from data and templates of anybody; the page escapes everything but the figures
//! drawn here. It shows hindsight: it is for people, and nothing reads it back.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use super::action::FAMILIES;
use super::balance::{Regime, Stats};
use super::fill::Distance;
use super::observe::Fitted;
use super::reward::RewardSpec;
use super::{Fills, Pair, Params, charts};
use crate::evaluate::charts::Figure;
use crate::evaluate::numbers::{count, fixed, percent, ratio};
use crate::evaluate::report::fill;
use crate::featurize::split::evenly;
use crate::{Result, StageError};

const TEMPLATE: &str = include_str!("report.html.jinja");

/// Pairs that are shown.
const SAMPLES: usize = 10;

#[derive(Serialize)]
struct Sample {
    pair: Pair,
    regime: Option<&'static str>,
    /// Label, completion, reward and R.
    answers: [(&'static str, String, String, String); 2],
}

#[derive(Serialize)]
struct Page {
    tiles: Vec<(&'static str, String, String)>,
    facts: Vec<(&'static str, String)>,
    figures: Vec<Figure>,
    /// Chosen family, and its pairs in calm and in volatile times.
    regimes: Vec<(&'static str, [String; 2])>,
    samples: Vec<Sample>,
    settings: String,
}

/// The pairs that are shown, and the regimes that they are of.
pub struct Shown {
    numbers: std::iter::Peekable<Box<dyn Iterator<Item = usize>>>,
    regimes: Vec<Option<Regime>>,
}

impl Shown {
    /// Some of so many.
    pub fn of(pairs: usize) -> Shown {
        let numbers: Box<dyn Iterator<Item = usize>> = Box::new(evenly(pairs, SAMPLES));
        Shown { numbers: numbers.peekable(), regimes: Vec::new() }
    }

    /// Takes the regime of a pair, all of which come in their order.
    pub fn push(&mut self, number: usize, regime: Option<Regime>) {
        if self.numbers.next_if_eq(&number).is_some() {
            self.regimes.push(regime);
        }
    }
}

/// Writes the page on the pairs of a file, of which `stats` tells.
///
/// # Errors
/// The file cannot be read, or a figure cannot be drawn.
pub fn render(
    pairs: &Path,
    (stats, shown): (&Stats, &Shown),
    fitted: &Fitted,
    spec: &RewardSpec,
    params: &Params,
) -> Result<String> {
    let failed = |e: String| StageError::failed(format!("cannot write the report: {e}"));
    let page = Page {
        tiles: tiles(stats, fitted),
        facts: facts(fitted, spec, params),
        figures: figures(stats, fitted, spec).map_err(|e| failed(e.to_string()))?,
        regimes: regimes(stats),
        samples: samples(pairs, stats.pairs, shown)?,
        settings: serde_json::to_string_pretty(params).map_err(|e| failed(e.to_string()))?,
    };
    fill(TEMPLATE, &page)
}

fn tiles(stats: &Stats, fitted: &Fitted) -> Vec<(&'static str, String, String)> {
    let [chosen, _] = stats.shares();
    let most = (0..chosen.len()).max_by(|a, b| chosen[*a].total_cmp(&chosen[*b]));
    let most = most.unwrap_or_default();
    let [reward, rejected] = stats.rewards();
    vec![
        ("Pairs", count(stats.pairs), "preferences, chosen over rejected".into()),
        (
            "Mean gap",
            format!("{} bps", ratio(stats.gap_bps())),
            "R of the chosen above R of the rejected".into(),
        ),
        ("Mean reward", ratio(reward), format!("chosen; rejected {}", ratio(rejected))),
        (
            "Most chosen",
            percent(chosen[most]),
            format!(
                "{}, of {} families",
                FAMILIES[most],
                chosen.iter().filter(|c| **c > 0.0).count()
            ),
        ),
        (
            "Orders behind the fill model",
            count(fitted.orders as usize),
            format!("{} filled", percent(fitted.fills / fitted.orders)),
        ),
    ]
}

fn facts(fitted: &Fitted, spec: &RewardSpec, params: &Params) -> Vec<(&'static str, String)> {
    let unit = unit(spec.fill_distance);
    let (a, k) = (spec.fill.a, spec.fill.k);
    let model = match fitted.errors {
        Some([of_a, of_k]) => {
            format!(
                "A = {} ± {}, k = {} ± {}",
                fixed(a, 4),
                fixed(of_a, 4),
                fixed(k, 4),
                fixed(of_k, 4)
            )
        }
        None => format!("A = {}, k = {}", fixed(a, 4), fixed(k, 4)),
    };
    let from = match params.fills {
        Fills::Bars => "imagined orders, filled by prices that trade through them",
        Fills::Queue => "imagined orders in the queues of the book, by its events",
        Fills::Orders => "orders that others placed, by their events",
    };
    vec![
        ("Fill model", format!("{model}: P = 1 − exp(−A e^(−k d) H), d in {unit}")),
        ("Fitted to", from.into()),
        ("Log-likelihood", fixed(fitted.log_likelihood, 1)),
        ("Horizon, markout", format!("{} + {} bars", spec.horizon_bars, spec.markout_bars)),
        (
            "Fees",
            format!(
                "maker {} bps, taker {} bps",
                ratio(spec.maker_fee_bps),
                ratio(spec.taker_fee_bps)
            ),
        ),
        ("Weight of the markout", ratio(spec.adverse_weight)),
    ]
}

fn unit(distance: Distance) -> &'static str {
    match distance {
        Distance::Sigma => "volatilities over the horizon",
        Distance::Bps => "basis points",
    }
}

fn figures(
    stats: &Stats,
    fitted: &Fitted,
    spec: &RewardSpec,
) -> Result<Vec<Figure>, Box<dyn std::error::Error>> {
    let [chosen, rejected] = stats.shares();
    let mut all = vec![
        charts::fills(fitted, spec.horizon_bars as f64, unit(spec.fill_distance))?,
        charts::rewards(stats)?,
        charts::shares(
            ("classes", "Classes", "Share of the pairs by family of action.".into()),
            &FAMILIES,
            [("chosen", &chosen), ("rejected", &rejected)],
        )?,
    ];
    let counts = stats.by_regime;
    let sums = counts.map(|counts| counts.iter().sum::<usize>());
    if sums.iter().sum::<usize>() > 0 {
        let part = |at: usize| counts[at].map(|c| c as f64 / (sums[at] as f64).max(1.0));
        let caption = format!(
            "Share of the chosen families in calm times ({} pairs) and in volatile ones ({}), by the probability of the volatile regime at the decision.",
            count(sums[0]),
            count(sums[1])
        );
        all.push(charts::shares(
            ("regimes", "Regimes", caption),
            &FAMILIES,
            [("calm", &part(0)), ("volatile", &part(1))],
        )?);
    }
    Ok(all.into_iter().map(embed).collect())
}

/// A figure for the page: it scales, and says what it shows.
fn embed(figure: Figure) -> Figure {
    let start = figure.svg.find("viewBox").unwrap_or(0);
    let rest = figure.svg.get(start..).unwrap_or_default();
    let svg = format!("<svg role=\"img\" aria-label=\"{}\" {rest}", figure.title);
    Figure { svg, ..figure }
}

fn regimes(stats: &Stats) -> Vec<(&'static str, [String; 2])> {
    let [calm, volatile] = stats.by_regime;
    if calm.iter().chain(&volatile).sum::<usize>() == 0 {
        return Vec::new();
    }
    let row = |(at, name): (usize, &&'static str)| (*name, [count(calm[at]), count(volatile[at])]);
    FAMILIES.iter().enumerate().map(row).collect()
}

fn samples(path: &Path, pairs: usize, shown: &Shown) -> Result<Vec<Sample>> {
    let mut lines = BufReader::new(fs_err::File::open(path)?);
    let (mut line, mut number, mut samples) = (String::new(), 0, Vec::new());
    for (wanted, regime) in evenly(pairs, SAMPLES).zip(&shown.regimes) {
        while number <= wanted {
            line.clear();
            lines.read_line(&mut line)?;
            number += 1;
        }
        let pair: Pair = serde_json::from_str(&line)
            .map_err(|e| StageError::bad(path, e.to_string()).at(number as u64))?;
        let terms = &pair.components;
        let answer = |label, text: &str, reward: f64, net: f64| {
            (label, text.to_owned(), ratio(reward), format!("{} bps", fixed(net, 1)))
        };
        let answers = [
            answer("chosen", &pair.chosen, pair.reward_chosen, terms.chosen.net_bps),
            answer("rejected", &pair.rejected, pair.reward_rejected, terms.rejected.net_bps),
        ];
        let regime = regime.map(Regime::name);
        samples.push(Sample { pair, regime, answers });
    }
    Ok(samples)
}
