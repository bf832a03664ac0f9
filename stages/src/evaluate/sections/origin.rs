//! Provenance, contamination, and what the numbers do not show.

use super::words;
use crate::evaluate::assessment::Assessment;
use crate::evaluate::backtest::Fill;
use crate::evaluate::document::{Block, Table};
use crate::evaluate::numbers::{count, many, ratio};
use crate::evaluate::policy::Sizing;
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
                "decided at a close; {later}, a market order fills at the open, a limit order only where the bar {} the limit",
                match rules.fill {
                    Fill::Penetrate => "trades beyond",
                    Fill::Touch => "reaches",
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
    if a.of_language() {
        blocks.push(words("The change in Sharpe ratio with an anonymised ticker and shifted dates is not computed here: it takes answers to other prompts. Encode the same rows with names and dates taken out, evaluate them in a stage of their own, and set the two side by side."));
    }
    blocks
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
    if a.log.iter().any(|s| s.contains_key("reward_mean")) {
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
