//! What may honestly be said: the verdict in sentences, and PASS, FAIL or NOT PROVEN for claims.
//!
//! A claim passes only where the cautious end of its 95 % interval clears it, and fails only where
//! the generous end does not; between them nothing is proven. Sentences are chosen by numbers
//! alone, so that nobody's hopes write them.

use serde::Serialize;
use statrs::distribution::{Beta, ContinuousCDF};

use super::answers::FAILURE;
use super::assessment::{Assessment, BASE, HOLD, MODEL, Strategy};
use super::causality::Outcome;
use super::inference::Interval;
use super::numbers::{count, many, or_none, ordinal, percent, ratio, signed_percent};

/// What is to be said of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Judgement {
    /// The whole interval clears it.
    #[serde(rename = "PASS")]
    Pass,
    /// The whole interval misses it.
    #[serde(rename = "FAIL")]
    Fail,
    /// The interval covers it, or there is nothing to judge.
    #[serde(rename = "NOT PROVEN")]
    NotProven,
}

/// A claim, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// The claim.
    pub claim: String,
    /// What was measured.
    pub value: String,
    /// The interval behind the judgement.
    pub interval: String,
    /// The judgement.
    pub judgement: Judgement,
    /// Why, in a sentence.
    pub why: String,
}

/// Whether an interval lies above a bar, below it, or around it.
pub fn judge(interval: Option<Interval>, bar: f64) -> Judgement {
    match interval {
        Some(i) if i.low > bar => Judgement::Pass,
        Some(i) if i.high < bar => Judgement::Fail,
        _ => Judgement::NotProven,
    }
}

/// An exact 95 % interval of a share: `hits` out of `n` (Clopper and Pearson 1934).
pub fn share_interval(hits: usize, n: usize) -> Option<Interval> {
    let (h, n) = (hits as f64, n as f64);
    if n == 0.0 || h > n {
        return None;
    }
    let quantile = |a: f64, b: f64, q: f64| Beta::new(a, b).ok().map(|d| d.inverse_cdf(q));
    let low = if h > 0.0 { quantile(h, n - h + 1.0, 0.025)? } else { 0.0 };
    let high = if h < n { quantile(h + 1.0, n - h, 0.975)? } else { 1.0 };
    Some(Interval { low, high })
}

/// Judges the claims on the model's strategy.
pub fn targets(a: &Assessment) -> Vec<Target> {
    let Some(model) = a.strategy(MODEL) else { return Vec::new() };
    let want = &a.provenance.params.targets;
    vec![
        sharpe_target(a, model, want.sharpe),
        drawdown_target(model, want.max_drawdown),
        hits_target(model, want.hit_rate),
    ]
}

/// The deflated Sharpe ratio that is asked for.
const DEFLATED: f64 = 0.95;
/// The probability of overfitting from which a pick is not trusted.
const OVERFIT: f64 = 0.2;

fn sharpe_target(a: &Assessment, model: &Strategy, bar: f64) -> Target {
    let interval = model.sampled.sharpe;
    let (deflated, overfit) =
        (a.selection.deflated_sharpe, a.selection.overfit.as_ref().map(|o| o.pbo));
    let caught = a.causality.iter().find(|c| c.outcome == Outcome::Caught);
    let (judgement, why) = match (judge(interval, bar), deflated, overfit) {
        (Judgement::Fail, ..) => {
            (Judgement::Fail, "the whole interval lies below the target".to_string())
        }
        (Judgement::NotProven, ..) if interval.is_none() => {
            (Judgement::NotProven, "returns do not vary, so that there is no Sharpe ratio".into())
        }
        (Judgement::NotProven, ..) => {
            (Judgement::NotProven, "the interval covers the target".into())
        }
        (Judgement::Pass, ..) if caught.is_some() => (
            Judgement::NotProven,
            format!("the interval clears it, but look-ahead was found: {}", caught.map_or("", |c| c.name.as_str())),
        ),
        (Judgement::Pass, Some(d), Some(p)) if d > DEFLATED && p < OVERFIT => (
            Judgement::Pass,
            format!("the whole interval lies above the target, deflated Sharpe ratio {}, probability of overfitting {}", percent(d), percent(p)),
        ),
        (Judgement::Pass, Some(d), p) => (
            Judgement::NotProven,
            format!("the interval clears it, but the deflated Sharpe ratio is {} (above {} is asked) and the probability of overfitting {} (below {})", percent(d), round(DEFLATED), or_none(p, percent), round(OVERFIT)),
        ),
        (Judgement::Pass, None, _) => (
            Judgement::NotProven,
            "the interval clears it, but what was tried beside it is not known here: feed the returns of all tries to the port `trials`".into(),
        ),
    };
    Target {
        claim: format!("Sharpe ratio above {}", ratio(bar)),
        value: or_none(model.metrics.sharpe, ratio),
        interval: show(interval, ratio),
        judgement,
        why,
    }
}

fn drawdown_target(model: &Strategy, bar: f64) -> Target {
    let seen = -model.metrics.max_drawdown;
    let p95 = model.sampled.drawdown_p95.map(|d| -d);
    let traded = model.metrics.trades > 0;
    let (judgement, why) = match p95 {
        _ if !traded => {
            (Judgement::NotProven, "an account that never trades cannot fall".to_string())
        }
        _ if seen >= bar => (Judgement::Fail, "it fell further than the target".into()),
        Some(p) if p < bar => {
            (Judgement::Pass, "95 of 100 resampled histories also stay within the target".into())
        }
        _ => (
            Judgement::NotProven,
            "one resampled history in twenty falls further than the target".into(),
        ),
    };
    Target {
        claim: format!("Drawdown below {}", round(bar)),
        value: percent(seen),
        interval: p95.map_or_else(
            || super::numbers::NONE.into(),
            |p| format!("95th percentile {}", percent(p)),
        ),
        judgement,
        why,
    }
}

fn hits_target(model: &Strategy, bar: f64) -> Target {
    let hits = model.metrics.hits;
    let interval =
        hits.and_then(|h| share_interval((h.rate * h.count as f64).round() as usize, h.count));
    let judgement = match (hits, judge(interval, bar)) {
        (Some(h), Judgement::Pass) if h.expectancy <= 0.0 => Judgement::Fail,
        (_, judgement) => judgement,
    };
    let why = match (hits, judgement) {
        (None, _) => "there is no trade to count".into(),
        (Some(h), _) => {
            let payoff =
                h.payoff.map(|p| format!("; a mean gain is {} times a mean loss", ratio(p)));
            format!(
                "{}, {} on average{}",
                many(h.count, "trade"),
                signed_percent(h.expectancy),
                payoff.unwrap_or_default()
            )
        }
    };
    Target {
        claim: format!("More than {} profitable trades", round(bar)),
        value: hits.map_or_else(|| super::numbers::NONE.into(), |h| percent(h.rate)),
        interval: show(interval, percent),
        judgement,
        why,
    }
}

/// A percentage without an idle decimal.
fn round(share: f64) -> String {
    percent(share).replace(".0%", "%")
}

/// `low to high`, or a dash.
pub fn show(interval: Option<Interval>, number: fn(f64) -> String) -> String {
    let text = |i: Interval| format!("{} to {}", number(i.low), number(i.high));
    interval.map_or_else(|| super::numbers::NONE.into(), text)
}

/// The verdict.
pub fn sentences(a: &Assessment) -> Vec<String> {
    let Some(model) = a.strategy(MODEL) else { return Vec::new() };
    let mut say = vec![headline(a, model).to_string()];
    say.extend(suspicion(a));
    say.extend(a.control.as_ref().and_then(super::control::Control::sentence));
    say.push(result(a, model));
    if model.metrics.trades > 0 {
        say.push(skill(model));
    }
    say.extend(a.strategy(HOLD).map(|hold| against("Buy and hold", hold)));
    say.extend(a.strategy(BASE).map(|base| against("The untuned base model", base)));
    say.extend(chance(a));
    say.extend(costs(a));
    say.extend(reading(a));
    let of = |j: Judgement| a.targets.iter().filter(|t| t.judgement == j).count();
    say.push(format!(
        "Of the {} target claims {} pass, {} fail and {} are not proven.",
        a.targets.len(),
        of(Judgement::Pass),
        of(Judgement::Fail),
        of(Judgement::NotProven)
    ));
    say
}

/// The verdict in a few words. The strongest that it can say is about this span alone.
fn headline(a: &Assessment, model: &Strategy) -> &'static str {
    let against = |name| {
        let other = a.strategy(name);
        judge(other.and_then(|s| s.sampled.sharpe_behind_first), 0.0)
    };
    let chance = a.random.percentile_sharpe.filter(|_| !a.random.degenerate);
    let beyond_chance = chance.is_some_and(|p| p >= 0.95);
    match judge(model.sampled.sharpe, 0.0) {
        _ if model.metrics.trades == 0 => "It never traded.",
        _ if a.causality.iter().any(|c| c.outcome == Outcome::Caught) => "It saw the future.",
        _ if a.answers.first().is_some_and(|t| t.always_one) => "It always says the same.",
        Judgement::Fail => "It loses money.",
        Judgement::Pass if beyond_chance && against(HOLD) == Judgement::Pass => {
            "On this span it beat chance and buy and hold."
        }
        Judgement::Pass if beyond_chance => {
            "On this span it beat chance; that it beats buy and hold is not proven."
        }
        _ => "No skill is proven.",
    }
}

/// What the tests for look-ahead found.
fn suspicion(a: &Assessment) -> Option<String> {
    let caught: Vec<&str> = a
        .causality
        .iter()
        .filter(|c| c.outcome == Outcome::Caught)
        .map(|c| c.name.as_str())
        .collect();
    (!caught.is_empty()).then(|| {
        format!(
            "Look-ahead was found ({}): no number below is worth anything until that is mended.",
            caught.join("; ")
        )
    })
}

fn did(a: &Assessment) -> String {
    let n = a.provenance.decisions;
    match a.of_language() {
        true => format!("answered {}", many(n, "prompt")),
        false => format!("set its positions {}", many(n, "time")),
    }
}

fn result(a: &Assessment, model: &Strategy) -> String {
    let m = &model.metrics;
    let p = &a.provenance;
    if m.trades == 0 {
        return format!(
            "From {} to {} the model {} and never held a position: it earned nothing and risked nothing.",
            p.first,
            p.last,
            did(a)
        );
    }
    format!(
        "From {} to {} the model {}, made {} and {} {} a year after costs ({} in all), with a deepest fall of {}.",
        p.first,
        p.last,
        did(a),
        many(m.trades, "trade"),
        if m.total_return >= 0.0 { "gained" } else { "lost" },
        or_none(m.cagr.map(f64::abs), percent),
        signed_percent(m.total_return),
        percent(-m.max_drawdown),
    )
}

fn skill(model: &Strategy) -> String {
    let Some((sharpe, i)) = model.metrics.sharpe.zip(model.sampled.sharpe) else {
        return "Its returns do not vary, so that there is no Sharpe ratio to speak of.".into();
    };
    let what = match judge(Some(i), 0.0) {
        Judgement::Pass => "the interval lies above zero",
        Judgement::Fail => "the interval lies below zero: it loses reliably",
        Judgement::NotProven => "the interval covers zero, so that skill is not proven",
    };
    format!(
        "Its Sharpe ratio is {} (95% interval {}): {what}.",
        ratio(sharpe),
        show(Some(i), ratio)
    )
}

fn against(name: &str, other: &Strategy) -> String {
    let m = &other.metrics;
    if m.trades == 0 {
        return format!("{name} never held a position.");
    }
    let mut text = format!(
        "{name} made {} a year with a Sharpe ratio of {}",
        or_none(m.cagr, signed_percent),
        or_none(m.sharpe, ratio)
    );
    match other.sampled.sharpe_behind_first {
        Some(i) if i.low == 0.0 && i.high == 0.0 => text += ": the same as the model.",
        Some(i) => {
            let what = match judge(Some(i), 0.0) {
                Judgement::Pass => "the model is better",
                Judgement::Fail => "the model is worse",
                Judgement::NotProven => "no difference is proven",
            };
            text += &format!(
                "; the model's Sharpe ratio less this one lies between {} and {}: {what}.",
                ratio(i.low),
                ratio(i.high)
            );
        }
        None => text += ".",
    }
    text
}

fn chance(a: &Assessment) -> Option<String> {
    let model = a.strategy(MODEL)?;
    if model.metrics.trades == 0 {
        return None;
    }
    if a.random.degenerate {
        return Some(
            "It held one position throughout, so that there is no timing to compare with chance."
                .into(),
        );
    }
    let p = a.random.percentile_sharpe?;
    let what = if p >= 0.95 {
        "better than chance would do in nineteen of twenty cases"
    } else if p <= 0.05 {
        "worse than chance would do in nineteen of twenty cases"
    } else {
        "which chance alone explains"
    };
    Some(format!(
        "Among {} random portfolios with the same holding periods it stands at the {} percentile, {what}.",
        count(a.random.count),
        ordinal((p * 100.0).round() as usize)
    ))
}

fn costs(a: &Assessment) -> Option<String> {
    let model = a.strategy(MODEL)?;
    let gross = a.scenarios.first()?;
    let eaten = gross.total_return > 0.0 && model.metrics.total_return <= 0.0;
    eaten.then(|| {
        format!(
            "Before costs it gained {}: costs take all of it, and it breaks even at {} bps a side.",
            percent(gross.total_return),
            or_none(a.break_even_bps, ratio)
        )
    })
}

fn reading(a: &Assessment) -> Option<String> {
    let tally = a.answers.first()?;
    let mut parts = Vec::new();
    if tally.failure_rate > 0.0 {
        parts.push(format!(
            "{} of its answers could not be read as an action and count as flat",
            percent(tally.failure_rate)
        ));
    }
    if let (true, Some((action, share))) = (tally.always_one, &tally.top) {
        let what =
            if action == FAILURE { "an unreadable text".into() } else { format!("“{action}”") };
        parts.push(format!(
            "it says {what} in {} of the cases, hardly a reading of its prompts",
            percent(*share)
        ));
    }
    let base = a.answers.get(1).map(|base| base.failure_rate);
    if let Some(rate) = base.filter(|rate| tally.failure_rate + rate > 0.0) {
        parts.push(format!("of the base model’s answers {} could not be read", percent(rate)));
    }
    if parts.is_empty() {
        return None;
    }
    let text = parts.join("; ");
    let mut letters = text.chars();
    let first = letters.next()?.to_uppercase();
    Some(format!("{first}{}.", letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::testdata::close;
    use super::*;

    #[test]
    fn only_a_whole_interval_proves() {
        let of = |low, high| Some(Interval { low, high });
        assert_eq!(judge(of(1.6, 2.5), 1.5), Judgement::Pass);
        assert_eq!(judge(of(1.4, 2.5), 1.5), Judgement::NotProven);
        assert_eq!(judge(of(-1.0, 1.4), 1.5), Judgement::Fail);
        assert_eq!(judge(None, 1.5), Judgement::NotProven);
        assert_eq!(serde_json::to_string(&Judgement::NotProven).unwrap(), "\"NOT PROVEN\"");
    }

    #[test]
    fn few_trades_prove_little() {
        // Clopper-Pearson bounds have closed forms at the ends: 1 - 0.025^(1/n).
        let all = share_interval(10, 10).unwrap();
        close(all.low, 0.025f64.powf(0.1), 1e-6);
        assert_eq!(all.high, 1.0);
        let none = share_interval(0, 10).unwrap();
        close(none.high, 1.0 - 0.025f64.powf(0.1), 1e-6);
        let half = share_interval(5, 10).unwrap();
        close(half.low, 1.0 - half.high, 1e-6);
        assert_eq!(share_interval(0, 0), None);
    }
}
