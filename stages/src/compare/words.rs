//! What may be said of a comparison: verdict, claims, limits, and the line under every figure.
//!
//! Sentences are chosen by numbers alone. None says more than its number: an interval is about these
//! bars, a probability of overfitting about the choice among these models.

use serde_json::Value;

use super::Params;
use super::found::{Comparison, LEVEL, Model};
use super::params::Align;
use crate::evaluate::numbers::{NONE, count, fixed, many, or_none, percent, ratio};
use crate::evaluate::verdict::{Judgement, Target, judge, show};

/// Names that a sentence lists before it counts the rest.
const LISTED: usize = 4;
/// Probability of overfitting below which choosing carries over.
const PBO: f64 = 0.2;

/// Costs and fills of an evaluation in words.
pub fn costs(params: &Value) -> String {
    let of = |name: &str| params[name].as_f64();
    let Some((taker, spread)) = of("taker_fee_bps").zip(of("half_spread_bps")) else {
        return "not stated".into();
    };
    let mut text =
        format!("{} bps fee and {} bps half spread a side at market", short(taker), short(spread));
    if let Some(slippage) = of("slippage_bps").filter(|s| *s != 0.0) {
        text += &format!(", {} bps slippage", short(slippage));
    }
    if let Some(maker) = of("maker_fee_bps") {
        text += &format!(", {} bps fee of a limit order", short(maker));
    }
    if let Some(latency) = params["latency"].as_u64() {
        text += &format!(", filled {} after the decision", many(latency as usize, "bar"));
    }
    text
}

/// A probability; never as certain as it may look when rounded.
pub fn chance(p: f64) -> String {
    match p {
        p if p > 0.9995 => ">99.9%".into(),
        p if p < 0.0005 => "<0.1%".into(),
        p => percent(p),
    }
}

/// A cost or a count without needless zeros.
pub fn short(x: f64) -> String {
    if x.fract() == 0.0 { fixed(x, 0) } else { ratio(x) }
}

/// Data, span, costs and seeds: what a figure says when it stands alone.
pub fn source(found: &Comparison) -> String {
    let p = &found.provenance;
    let data = p.data.as_deref().unwrap_or("the bars of the compared evaluations");
    let costs: Vec<&str> = p.costs.iter().map(|(words, _)| words.as_str()).collect();
    format!(
        "Data: {data}, {} to {}, {} returns, {} a year. Costs: {}. Seeds: {}; draws from seed {}.",
        p.first,
        p.last,
        count(p.returns),
        short(p.per_year),
        costs.join("; or "),
        seeds(found),
        p.seed
    )
}

/// Seeds of the models in words.
pub fn seeds(found: &Comparison) -> String {
    let several = found.seeds.iter().filter(|s| s.seeds.len() > 1);
    let told: Vec<String> = several.map(|s| format!("{} of “{}”", s.seeds.len(), s.name)).collect();
    match told.len() {
        0 => "one run of each model".into(),
        n if n > LISTED => format!("several of {} models", count(n)),
        _ => format!("{}, one run of each other", told.join(", ")),
    }
}

/// What a reader should know before the numbers.
pub fn warnings(found: &Comparison) -> Vec<String> {
    let mut all = Vec::new();
    let costs = &found.provenance.costs;
    if costs.len() > 1 {
        let each: Vec<String> =
            costs.iter().map(|(words, who)| format!("{} ({words})", list(who))).collect();
        all.push(format!("the models were not evaluated with the same costs: {}", each.join("; ")));
    }
    let silent: Vec<&str> =
        found.models.iter().filter(|m| m.sharpe.is_none()).map(|m| m.name.as_str()).collect();
    if !silent.is_empty() {
        all.push(format!("returns that never vary, and no Sharpe ratio: {}", list(&silent)));
    }
    all
}

/// Names with commas, the first few of them.
pub fn list<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<String> =
        names.iter().take(LISTED).map(|name| format!("“{}”", name.as_ref())).collect();
    match names.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        rest => format!("{} and {} more", shown.join(", "), count(rest)),
    }
}

/// What is claimed of the best and of choosing it.
pub fn claims(found: &Comparison) -> Vec<Target> {
    let (best, s) = (found.best(), &found.selection);
    let interval = best.and_then(|m| m.interval);
    let alone = judge(interval, 0.0);
    let nothing = || "there is nothing to judge".to_string();
    let name = best.map_or_else(|| "the best".to_string(), |m| format!("“{}”", m.name));
    let lucky = match s.deflated_sharpe {
        Some(p) if p > 1.0 - LEVEL => Judgement::Pass,
        Some(p) if p < LEVEL => Judgement::Fail,
        _ => Judgement::NotProven,
    };
    let pbo = s.overfit.as_ref().map(|o| o.pbo);
    let carries = match pbo {
        Some(p) if p < PBO => Judgement::Pass,
        Some(p) if p >= 0.5 => Judgement::Fail,
        _ => Judgement::NotProven,
    };
    vec![
        Target {
            claim: format!("Sharpe ratio of {name} above 0, were it the only try"),
            value: or_none(best.and_then(|m| m.sharpe), ratio),
            interval: show(interval, ratio),
            judgement: alone,
            why: match (alone, interval) {
                (_, None) => nothing(),
                (Judgement::Pass, _) => "the whole interval lies above 0".into(),
                (Judgement::Fail, _) => "the whole interval lies below 0".into(),
                _ => "the interval covers 0".into(),
            },
        },
        Target {
            claim: format!("above what chance gives the best of {}", count(s.trials)),
            value: or_none(s.deflated_sharpe, chance),
            interval: NONE.into(),
            judgement: lucky,
            why: match (s.deflated_sharpe, s.sharpe_by_chance) {
                (Some(_), Some(by)) => format!(
                    "deflated Sharpe ratio, against {} by chance; above 95% passes, below 5% fails",
                    ratio(by)
                ),
                _ => nothing(),
            },
        },
        Target {
            claim: "choosing by Sharpe ratio carries over".into(),
            value: or_none(pbo, percent),
            interval: NONE.into(),
            judgement: carries,
            why: match &s.overfit {
                Some(o) => format!(
                    "probability of overfitting over {} splits; below 20% passes, 50% and more fails",
                    count(o.logits.len())
                ),
                None => nothing(),
            },
        },
    ]
}

/// The verdict.
pub fn verdict(found: &Comparison) -> Vec<String> {
    let s = &found.selection;
    let models = count(s.trials);
    let Some(best) = found.best() else {
        return vec![format!(
            "None of the {models} models has a Sharpe ratio: their returns never vary. There is nothing to choose."
        )];
    };
    let passes = found.claims.iter().all(|c| c.judgement == Judgement::Pass);
    let mut say = vec![match passes {
        true => format!(
            "“{}” is the best of {models} models on these bars, and remains above chance when the choice among them is taken into account.",
            best.name
        ),
        false => format!(
            "“{}” has the highest Sharpe ratio of {models} models, and it is not shown that this is more than luck and choice.",
            best.name
        ),
    }];
    say.push(format!(
        "Its Sharpe ratio is {} a year (95% {}){}.",
        or_none(best.sharpe, ratio),
        show(best.interval, ratio),
        baseline(found)
    ));
    if let (Some(deflated), Some(by_chance)) = (s.deflated_sharpe, s.sharpe_by_chance) {
        say.push(format!(
            "Alone it would lie above 0 with a probability of {}. The best of {models} without any skill would be expected to reach {}, and the probability that its true Sharpe ratio lies above that is {} (deflated Sharpe ratio; {} the 95% usually asked).",
            or_none(best.psr, chance),
            ratio(by_chance),
            chance(deflated),
            if deflated > 1.0 - LEVEL { "above" } else { "below" }
        ));
    }
    if let Some(o) = &s.overfit {
        let meaning = match o.pbo {
            p if p >= 0.5 => "choosing by Sharpe ratio did not carry over",
            p if p >= PBO => {
                "choosing carried over more often than not, and less often than is usually asked"
            }
            _ => "choosing carried over within this span",
        };
        say.push(format!(
            "In {} of the {} ways to halve the span, the model that was best in one half was no better than the median in the other (probability of overfitting): {meaning}.",
            percent(o.pbo),
            count(o.logits.len())
        ));
    }
    say.extend(differences(found));
    if let Some(needed) = s.min_track_record {
        say.push(record(found, needed));
    }
    say
}

fn baseline(found: &Comparison) -> String {
    let told: Vec<String> = found
        .baselines
        .iter()
        .map(|m| format!("; {} has {}", m.name, or_none(m.sharpe, ratio)))
        .collect();
    told.concat()
}

fn differences(found: &Comparison) -> Option<String> {
    let reference = found.reference.as_deref()?;
    let others: Vec<&Model> = found.shown().filter(|m| m.difference.is_some()).collect();
    let beyond = |above: bool| -> Vec<&str> {
        let fits = |m: &&&Model| {
            m.difference.is_some_and(|d| d.p_holm < LEVEL && (d.value > 0.0) == above)
        };
        others.iter().filter(fits).map(|m| m.name.as_str()).collect()
    };
    let (above, below) = (beyond(true), beyond(false));
    let of = count(others.len());
    Some(match (above.is_empty(), below.is_empty()) {
        _ if others.is_empty() => return None,
        (true, true) => format!(
            "None of the {of} differences in Sharpe ratio to “{reference}” is significant at 5% (paired bootstrap, Holm)."
        ),
        (above_none, below_none) => {
            let mut parts = Vec::new();
            if !above_none {
                parts.push(format!("above it {}", list(&above)));
            }
            if !below_none {
                parts.push(format!("below it {}", list(&below)));
            }
            format!(
                "Of {of} differences in Sharpe ratio to “{reference}”, {} {} significant at 5% (paired bootstrap, Holm): {}.",
                count(above.len() + below.len()),
                if above.len() + below.len() == 1 { "is" } else { "are" },
                parts.join("; ")
            )
        }
    })
}

fn record(found: &Comparison, needed: usize) -> String {
    let p = &found.provenance;
    let years = |n: usize| ratio(n as f64 / p.per_year);
    let deflated = match found.selection.min_track_record_deflated {
        Some(n) => format!(
            "after the choice among {}, {} ({} years)",
            count(found.selection.trials),
            count(n),
            years(n)
        ),
        None => {
            "after the choice no record is long enough, for it does not lie above chance".into()
        }
    };
    format!(
        "A Sharpe ratio like this takes {} returns ({} years) to lie above 0 at 95%, were it the only try; {deflated}. There are {}.",
        count(needed),
        years(needed),
        count(p.returns)
    )
}

/// What the numbers do not show.
pub fn limits(found: &Comparison, params: &Params) -> Vec<String> {
    let s = &found.selection;
    let mut all = vec![
        format!(
            "Tries that are not on this page. The {} here are counted as all there were; whatever else was tried on the same data, and left out, makes chance stronger. “quantmill runs ledger” counts what this machine has seen.",
            many(s.trials, "model")
        ),
        "The deflated Sharpe ratio takes tries for independent. Those that resemble each other count for less, so that it errs to the cautious side.".into(),
        "The probability of overfitting is about choosing among these models by their Sharpe ratio on this span, and about nothing else: not whether one of them earns money, and not how each was trained.".into(),
        "One span of one history. Intervals come from resampling it; what never happened in it is in none of them.".into(),
    ];
    if let (Some(best), Some(reference)) = (found.best(), &found.reference)
        && best.name == *reference
    {
        all.push(format!(
            "“{reference}” was chosen as reference because it is the best here, so that its lead over the others flatters it. Name a reference beforehand for a test that does not."
        ));
    }
    if s.trials < 10 {
        all.push(format!(
            "Of {} a probability of overfitting is coarse: a rank among few says little.",
            many(s.trials, "model")
        ));
    }
    if s.ranked < s.trials {
        all.push(format!(
            "{} of the models {} no Sharpe ratio because {} returns never vary: counted as tries, not in the spread.",
            count(s.trials - s.ranked),
            if s.trials - s.ranked == 1 { "has" } else { "have" },
            if s.trials - s.ranked == 1 { "its" } else { "their" }
        ));
    }
    if let Some(o) = s.overfit.as_ref().filter(|o| o.left_out > 0) {
        all.push(format!(
            "The span is cut into {} blocks of {} returns for the probability of overfitting; the last {} are not in it.",
            o.blocks,
            count(o.block),
            many(o.left_out, "return")
        ));
    }
    if params.align == Align::Intersect {
        all.push("Only dates that all runs have are compared. Turnover, trades, hit rate, payoff and forecast quality are those of each run’s own span.".into());
    }
    let memory: Vec<&str> =
        found.models.iter().filter(|m| m.may_remember).map(|m| m.name.as_str()).collect();
    if !memory.is_empty() {
        all.push(format!(
            "Memory is not ruled out of {}: the text that it was trained on may reach into the span. Their evaluations say more.",
            list(&memory)
        ));
    }
    if found.models.iter().all(|m| m.forecast.is_none()) {
        all.push("None of the evaluations measured forecasts, so that there is no column for their quality: what was earned is not what was known.".into());
    }
    all
}
