//! Provenance, contamination, and what the numbers do not show.

use std::collections::BTreeMap;

use super::words;
use crate::evaluate::anonymise::Anonymised;
use crate::evaluate::assessment::Assessment;
use crate::evaluate::backtest::Fill;
use crate::evaluate::document::{Block, Table};
use crate::evaluate::numbers::{count, many, or_none, percent, ratio};
use crate::evaluate::policy::Sizing;
use crate::evaluate::verdict::show;
use crate::{Result, StageError};

/// Where the numbers come from.
pub fn provenance(a: &Assessment) -> Result<Vec<Block>> {
    let settings = serde_json::to_string_pretty(&a.provenance.params)
        .map_err(|e| StageError::failed(format!("cannot write the report: {e}")))?;
    Ok(vec![
        Block::Table(Table::facts(facts(a))),
        Block::Heading("Parameters".into()),
        Block::Code(settings),
    ])
}

fn facts(a: &Assessment) -> Vec<(&'static str, String)> {
    let p = &a.provenance;
    let mut facts = vec![(
        "Backtest",
        format!("{} to {}, {}, {} a year", p.first, p.last, many(p.bars, "bar"), ratio(p.per_year)),
    )];
    match a.of_language() {
        true => facts.push((
            "Prompts answered",
            format!("{} of {} in the test span", count(p.decisions), count(p.available)),
        )),
        false => facts.push((
            "Positions set",
            format!(
                "at {} of {} with forecasts, over {}",
                count(p.decisions),
                many(p.available, "date"),
                many(p.horizon, "bar")
            ),
        )),
    }
    if !p.assets.is_empty() {
        let first: Vec<&str> = p.assets.iter().take(12).map(String::as_str).collect();
        let more = p.assets.len().saturating_sub(12);
        let rest = if more > 0 { format!(" and {} more", count(more)) } else { String::new() };
        facts.push((
            "Instruments",
            format!("{}: {}{rest}", count(p.assets.len()), first.join(", ")),
        ));
    }
    if let Some((from, to)) = &p.trained {
        facts.push(("Training span", format!("{from} to {to}")));
    }
    facts.extend(p.models.iter().map(|m| ("Model", m.clone())));
    facts.extend(policy(a).map(|text| ("Positions", text)));
    let rules = p.params.rules();
    let later = match rules.latency {
        1 => "in the next bar".into(),
        n => format!("{} bars later", count(n)),
    };
    facts.push((
        "Orders",
        match a.of_language() {
            true => format!(
                "decided at a close; {later}, a market order fills at the open, a limit order only where {}",
                match rules.fill {
                    Fill::Penetrate => "the bar trades beyond the limit",
                    Fill::Touch => "the bar reaches the limit",
                    Fill::Queue => "trades have taken what stood before it in the book’s queue, or gone past it",
                }
            ),
            false => format!(
                "decided at a close; {later}, a market order fills at the open; one for an instrument without a bar waits for its next"
            ),
        },
    ));
    let limit = match a.of_language() {
        true => format!("; limit order {} bps fee", ratio(rules.maker_bps)),
        false => String::new(),
    };
    facts.push((
        "Costs, each side",
        format!(
            "market order {} bps fee, {} bps half spread and {} bps slippage{limit}",
            ratio(rules.taker_bps),
            ratio(rules.half_spread_bps),
            ratio(rules.slippage_bps),
        ),
    ));
    facts.push((
        "Intervals",
        format!(
            "95%, stationary bootstrap, {} draws, mean block {} bars (Politis and White)",
            count(p.params.draws),
            ratio(p.block)
        ),
    ));
    facts.push(("Seed", p.seed.to_string()));
    for source in &p.inputs {
        let files =
            if source.files > 1 { many(source.files, "file") + ", " } else { String::new() };
        facts.push(("Data", format!("{}: {files}BLAKE3 {}", source.port, source.digest)));
    }
    facts
}

fn policy(a: &Assessment) -> Option<String> {
    let policy = a.provenance.params.forecasts.as_ref()?;
    let size = match policy.sizing {
        Sizing::Sign => "whole, in the direction of p_up - p_down".to_string(),
        Sizing::Probability => "as large as p_up - p_down".to_string(),
        Sizing::MeanOverScale => format!("as large as mean over scale, whole at {}", policy.cap),
    };
    Some(format!(
        "{size}; none below {}; at most {} of equity each and {} together{}; set anew every {}",
        policy.threshold,
        ratio(policy.max_weight),
        ratio(policy.gross),
        if policy.long_only { ", never short" } else { "" },
        many(policy.every(a.provenance.horizon), "date")
    ))
}

/// Whether the model can have read what came.
pub fn contamination(a: &Assessment) -> Vec<Block> {
    let said = &a.contamination.said;
    let mut blocks = match a.contamination.claimable {
        true => vec![words(said.clone())],
        false => vec![Block::Alarm(said.clone())],
    };
    match &a.anonymised {
        Some(anonymised) => blocks.extend(without_names(anonymised)),
        None if a.of_language() => blocks.push(words("The change in Sharpe ratio with names replaced and dates moved is not available: it takes answers to other prompts, and as long again. Set `anonymise`.")),
        None => {}
    }
    blocks
}

/// Dates that are listed at most.
const LISTED: usize = 8;

/// What asking without names and dates changed.
fn without_names(a: &Anonymised) -> Vec<Block> {
    let r = &a.replaced;
    let list = |all: &BTreeMap<(String, String), usize>| -> String {
        let one = |((from, to), times): (&(String, String), &usize)| {
            format!("{from} → {to} ({})", many(*times, "time"))
        };
        let more = all.len().saturating_sub(LISTED);
        let mut said: Vec<String> = all.iter().take(LISTED).map(one).collect();
        if more > 0 {
            said.push(format!("and {} more, in `metrics.json`", count(more)));
        }
        match said.is_empty() {
            true => "none".into(),
            false => said.join("; "),
        }
    };
    let times: usize = r.dates.values().sum();
    let mut facts = vec![
        ("Prompts changed", format!("{} of {}", count(r.changed), count(r.prompts))),
        ("Names replaced", list(&r.names)),
        (
            "Dates moved",
            match times {
                0 => "none".to_string(),
                n => format!(
                    "{} by {} days: {}",
                    many(n, "time"),
                    count_signed(a.shift_days),
                    list(&r.dates)
                ),
            },
        ),
    ];
    if !r.left.is_empty() {
        let mut left: Vec<(&String, &usize)> = r.left.iter().collect();
        left.sort_by_key(|(what, times)| (std::cmp::Reverse(**times), what.as_str()));
        let first: Vec<String> =
            left.iter().take(LISTED).map(|(what, times)| format!("{what} ({times})")).collect();
        facts.push((
            "Left as it was",
            format!(
                "{}, which may be years or dates and may be numbers: {}. To replace one, put it among `names`",
                many(left.len(), "word"),
                first.join(", ")
            ),
        ));
    }
    let Some(change) = &a.change else {
        return vec![
            Block::Heading("Asked without names and dates".into()),
            words(
                "There was nothing to replace: no prompt has a date or one of the names, so that the model was not asked again and this says nothing of memory. The built-in styles of `encode` name neither date nor ticker; prices, returns and regimes can still be recognised.",
            ),
            Block::Table(Table::facts(facts)),
        ];
    };
    facts.extend([
        ("Decisions changed", percent(change.decisions)),
        (
            "Sharpe ratio",
            format!(
                "{} with names and dates, {} without; the first less the second lies between {} (95%, the same draws)",
                or_none(change.named, ratio),
                or_none(change.anonymous, ratio),
                show(change.difference, ratio).replace(" to ", " and ")
            ),
        ),
    ]);
    let reading = match change.difference {
        None => "The returns of one of the two do not vary, so that nothing can be compared.",
        Some(d) if d.low > 0.0 => {
            "Reading: it earns more where it can tell what and when it is asked about. That hints at memory of what followed."
        }
        Some(d) if d.high < 0.0 => {
            "Reading: it earns less with names and dates than without. That is no hint at memory."
        }
        Some(_) => {
            "Reading: no change is proven, hence no hint at memory. It is no proof of the contrary: prices, returns and news can tell the time to who remembers them."
        }
    };
    let mut blocks = vec![
        Block::Heading("Asked without names and dates".into()),
        Block::Table(Table::facts(facts)),
        words(reading),
    ];
    if let Some(example) = &a.example {
        blocks.push(words("A prompt as it was asked anew:"));
        blocks.push(Block::Code(example.clone()));
    }
    blocks
}

/// A whole number with its sign.
fn count_signed(n: i64) -> String {
    let sign = if n < 0 { "−" } else { "+" };
    format!("{sign}{}", count(n.unsigned_abs() as usize))
}

/// What the numbers do not show.
pub fn limits(a: &Assessment) -> Vec<String> {
    let p = &a.provenance;
    let seeds = match &a.seeds {
        Some(seeds) => {
            format!("One market and one test span, with {} seeds.", count(seeds.each.len()))
        }
        None => "One run: one seed, one market, one test span. Another seed may answer otherwise."
            .into(),
    };
    let mut limits = vec![
        seeds,
        "Whether the prices could be traded. If they are those of an index or another computed series, nobody quotes them, and every fill here is a fiction that only exercises the machinery.".into(),
        "Fills come from bars. A bar says that a price was traded, not that our order stood first; market impact, partial fills, borrow fees, interest, dividends and margin are left out.".into(),
    ];
    if a.training.curves.iter().any(|(name, _)| *name == "reward") {
        limits.push("Reward in training is not profit: it scores how an order was sent, on the training span. A rising curve says that the model learned the reward, nothing about the test span.".into());
    }
    let judged = p.params.split.name();
    let test = a.splits.rows.iter().find(|(name, _)| name == judged).map_or(0, |(_, n)| *n);
    if a.of_language() && p.bars < test {
        limits.push(format!(
            "The backtest ends with the prompts that were answered, on {}: {} of the {} bars of the test span are not in it.",
            p.last,
            count(test - p.bars),
            count(test)
        ));
    }
    limits
}
