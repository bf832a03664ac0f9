//! The report on a set of pairs: one HTML file that opens from disk, without scripts.
//!
//! Fill model against what was observed, rewards, balance of classes and regimes, and ten pairs to read.
//! Prompts are made from data and templates of anybody; the page escapes everything but the figures
//! drawn here. It shows hindsight: it is for people, and nothing reads it back.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use super::action::FAMILIES;
use super::balance::{Brief, Regime, by_regime};
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

/// Writes the page on the pairs of a file, of which `briefs` tells in the same order.
///
/// # Errors
/// The file cannot be read, or a figure cannot be drawn.
pub fn render(
    pairs: &Path,
    briefs: &[Brief],
    fitted: &Fitted,
    spec: &RewardSpec,
    params: &Params,
) -> Result<String> {
    let failed = |e: String| StageError::failed(format!("cannot write the report: {e}"));
    let page = Page {
        tiles: tiles(briefs, fitted),
        facts: facts(fitted, spec, params),
        figures: figures(briefs, fitted, spec).map_err(|e| failed(e.to_string()))?,
        regimes: regimes(briefs),
        samples: samples(pairs, briefs)?,
        settings: serde_json::to_string_pretty(params).map_err(|e| failed(e.to_string()))?,
    };
    fill(TEMPLATE, &page)
}

fn tiles(briefs: &[Brief], fitted: &Fitted) -> Vec<(&'static str, String, String)> {
    let n = briefs.len() as f64;
    let mean = |of: fn(&Brief) -> f32| briefs.iter().map(|b| f64::from(of(b))).sum::<f64>() / n;
    let mut counts = [0usize; FAMILIES.len()];
    briefs.iter().for_each(|brief| counts[brief.family()] += 1);
    let most = (0..counts.len()).max_by_key(|at| counts[*at]).unwrap_or_default();
    vec![
        ("Pairs", count(briefs.len()), "preferences, chosen over rejected".into()),
        (
            "Mean gap",
            format!("{} bps", ratio(mean(|b| b.gap_bps))),
            "R of the chosen above R of the rejected".into(),
        ),
        (
            "Mean reward",
            ratio(mean(|b| b.rewards[0])),
            format!("chosen; rejected {}", ratio(mean(|b| b.rewards[1]))),
        ),
        (
            "Most chosen",
            percent(counts[most] as f64 / n),
            format!(
                "{}, of {} families",
                FAMILIES[most],
                counts.iter().filter(|c| **c > 0).count()
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
    briefs: &[Brief],
    fitted: &Fitted,
    spec: &RewardSpec,
) -> Result<Vec<Figure>, Box<dyn std::error::Error>> {
    let n = briefs.len() as f64;
    let share = |of: &dyn Fn(&Brief, &str) -> bool| -> Vec<f64> {
        let part = |name: &&str| briefs.iter().filter(|b| of(b, name)).count() as f64 / n;
        FAMILIES.iter().map(part).collect()
    };
    let chosen = share(&|b, name| b.chosen.family() == name);
    let rejected = share(&|b, name| b.rejected.family() == name);
    let rewards: Vec<[f32; 2]> = briefs.iter().map(|b| b.rewards).collect();
    let mut all = vec![
        charts::fills(fitted, spec.horizon_bars as f64, unit(spec.fill_distance))?,
        charts::rewards(&rewards)?,
        charts::shares(
            ("classes", "Classes", "Share of the pairs by family of action.".into()),
            &FAMILIES,
            [("chosen", &chosen), ("rejected", &rejected)],
        )?,
    ];
    let counts = by_regime(briefs);
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

fn regimes(briefs: &[Brief]) -> Vec<(&'static str, [String; 2])> {
    let [calm, volatile] = by_regime(briefs);
    if calm.iter().chain(&volatile).sum::<usize>() == 0 {
        return Vec::new();
    }
    let row = |(at, name): (usize, &&'static str)| (*name, [count(calm[at]), count(volatile[at])]);
    FAMILIES.iter().enumerate().map(row).collect()
}

fn samples(path: &Path, briefs: &[Brief]) -> Result<Vec<Sample>> {
    let mut lines = BufReader::new(fs_err::File::open(path)?);
    let (mut line, mut number, mut samples) = (String::new(), 0, Vec::new());
    for wanted in evenly(briefs.len(), SAMPLES) {
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
        let regime = briefs[wanted].regime.map(Regime::name);
        samples.push(Sample { pair, regime, answers });
    }
    Ok(samples)
}
