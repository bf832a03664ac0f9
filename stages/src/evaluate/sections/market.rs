//! Baselines, costs, uncertainty, the index.

use super::{shown, words};
use crate::evaluate::assessment::{Assessment, BASE, HOLD, MODEL, Strategy};
use crate::evaluate::baselines::NAMES;
use crate::evaluate::charts::Figure;
use crate::evaluate::document::{Block, Row, Table};
use crate::evaluate::numbers::{
    NONE, count, many, or_none, ordinal, percent, ratio, signed_percent,
};
use crate::evaluate::sensitivity::Slice;
use crate::evaluate::verdict::show;

/// The model among rules, other models and chance.
pub fn baselines(a: &Assessment, figures: &[Figure]) -> Vec<Block> {
    let mut blocks: Vec<Block> = shown(figures, &["equity", "drawdown"]).into_iter().collect();
    blocks.push(words("All trade on the same dates, under the same rules and costs."));
    let head = std::iter::once("After costs").chain(a.strategies.iter().map(|s| s.name.as_str()));
    let mut table = Table::new(&head.collect::<Vec<_>>(), rows(&a.strategies));
    (table.look, table.model) = ("metrics", true);
    blocks.push(Block::Table(table));
    blocks.push(words(random(a)));
    let about = |s: &Strategy| format!("{}: {}", s.name, s.about);
    let mut list: Vec<String> = a.strategies.iter().map(about).collect();
    let language = a.of_language();
    if language && a.strategy(BASE).is_none() {
        list.push("the untuned base model is missing: feed it to the port `base`".into());
    }
    if !language {
        list.push("an untuned language model is none of a numerical model’s baselines".into());
    }
    let models = a.strategies.iter().filter(|s| !NAMES.contains(&s.name.as_str())).count();
    if models == 0 {
        list.push("a logit and gradient boosting are missing: feed their forecasts to the port `baselines`".into());
    }
    blocks.push(Block::List(list));
    blocks
}

/// The metrics, a row each, with a cell for each strategy.
fn rows(strategies: &[Strategy]) -> Vec<Row> {
    let row = |name: &str, note: &str, cell: &dyn Fn(&Strategy) -> String| Row {
        name: name.into(),
        note: note.into(),
        cells: strategies.iter().map(cell).collect(),
    };
    vec![
        row("Return a year", "compound, after costs", &|s| or_none(s.metrics.cagr, signed_percent)),
        row("Whole return", "", &|s| signed_percent(s.metrics.total_return)),
        row("Volatility a year", "", &|s| or_none(s.metrics.volatility, percent)),
        row("Sharpe", "mean over deviation, times √P", &|s| or_none(s.metrics.sharpe, ratio)),
        row("Sharpe, 95%", "bootstrap interval", &|s| show(s.sampled.sharpe, ratio)),
        row("Sharpe after Lo", "corrected for autocorrelation, 5 lags", &|s| {
            or_none(s.metrics.sharpe_lo, ratio)
        }),
        row("Model’s Sharpe less this", "95%, from the same draws", &|s| {
            if s.name == MODEL { NONE.into() } else { show(s.sampled.sharpe_behind_first, ratio) }
        }),
        row("P(Sharpe > 0)", "probabilistic Sharpe ratio", &|s| or_none(s.metrics.psr, percent)),
        row("Sortino", "", &|s| or_none(s.metrics.sortino, ratio)),
        row("Calmar", "return a year over deepest fall", &|s| or_none(s.metrics.calmar, ratio)),
        row("Deepest fall", "", &|s| percent(s.metrics.max_drawdown)),
        row("Deepest fall, 95th pct.", "one resampled history in 20 falls further", &|s| {
            or_none(s.sampled.drawdown_p95, percent)
        }),
        row("Trades", "round trips", &|s| count(s.metrics.trades)),
        row("Hit rate", "profitable trades", &|s| or_none(s.metrics.hits.map(|h| h.rate), percent)),
        row("Payoff", "mean gain over mean loss", &|s| {
            or_none(s.metrics.hits.and_then(|h| h.payoff), ratio)
        }),
        row("Expectancy", "mean trade", &|s| {
            or_none(s.metrics.hits.map(|h| h.expectancy), signed_percent)
        }),
        row("Profit factor", "gains over losses, by trade", &|s| {
            or_none(s.metrics.hits.and_then(|h| h.profit_factor), ratio)
        }),
        row("Turnover a year", "a round trip of the whole equity is 2", &|s| {
            ratio(s.metrics.turnover)
        }),
        row("Exposure", "closes with a position", &|s| percent(s.metrics.exposure)),
        row("Mean position", "+1 is always long", &|s| ratio(s.metrics.net_exposure)),
        row("Costs paid", "of the initial equity", &|s| percent(s.metrics.costs)),
        row("Beta", "to the index without costs", &|s| {
            or_none(s.metrics.index.map(|l| l.beta), ratio)
        }),
        row("Alpha a year", "what beta does not explain", &|s| {
            or_none(s.metrics.alpha, signed_percent)
        }),
        row("t of alpha", "Newey-West, 5 lags", &|s| {
            or_none(s.metrics.index.and_then(|l| l.alpha_t), ratio)
        }),
    ]
}

/// A sentence about random portfolios.
fn random(a: &Assessment) -> String {
    let r = &a.random;
    let three = |v: Option<[f64; 3]>, show: fn(f64) -> String| {
        v.map_or_else(
            || NONE.into(),
            |v| format!("{}, {} and {}", show(v[0]), show(v[1]), show(v[2])),
        )
    };
    if r.degenerate {
        return format!(
            "All {} random portfolios with the model’s holding periods are the same portfolio: the position hardly changes, and there is no timing to test.",
            count(r.count)
        );
    }
    let place =
        |p: Option<f64>| p.map_or_else(|| NONE.into(), |p| ordinal((p * 100.0).round() as usize));
    let how = match a.of_language() {
        true => {
            "hold what the model held for as long as it held it, at other times, with its costs for market orders"
        }
        false => {
            "hold the model’s weights in their order, begun at another date, forwards or backwards, with the instruments exchanged for one another, at its costs"
        }
    };
    format!(
        "{} random portfolios {how}: the turnover stays, the timing goes. The 5th, 50th and 95th percentile of their Sharpe ratios are {}, of their returns {}. The model stands at the {} percentile by Sharpe ratio and the {} by return.",
        count(r.count),
        three(r.sharpe, ratio),
        three(r.total_return, signed_percent),
        place(r.percentile_sharpe),
        place(r.percentile_return)
    )
}

/// The model under other costs, latency and fills.
pub fn costs(a: &Assessment, figures: &[Figure]) -> Vec<Block> {
    let row = |s: &crate::evaluate::sensitivity::Scenario| {
        Row::new(
            s.name.clone(),
            [
                or_none(s.cagr, signed_percent),
                signed_percent(s.total_return),
                or_none(s.sharpe, ratio),
                percent(s.max_drawdown),
                match s.limits {
                    (0, _) => NONE.into(),
                    (sent, filled) => format!("{} of {}", count(filled), count(sent)),
                },
            ],
        )
    };
    let head = [
        "The model with",
        "Return a year",
        "Whole return",
        "Sharpe",
        "Deepest fall",
        "Limit orders filled",
    ];
    let table = Table::new(&head, a.scenarios.iter().map(row).collect());
    let even = match a.break_even_bps {
        Some(bps) => format!("The model breaks even at {} bps of the notional a side.", ratio(bps)),
        None => {
            "There is no break-even cost: the model does not gain before costs, or never pays any."
                .into()
        }
    };
    let limits = a.strategy(MODEL).map_or((0, 0), |m| m.metrics.limits);
    let fills = match limits {
        (0, _) => "Touch, penetrate and queue fills are the same here: no limit order was sent."
            .to_string(),
        (sent, filled) if a.provenance.params.book.is_some() => format!(
            "{} of {} filled. In the queue an order waits behind what the book held when it came, {}; cancels ahead of it count as its row says. It fills whole, and nobody reacts to it.",
            count(filled),
            many(sent, "limit order"),
            match a.provenance.params.book.as_ref().and_then(|book| book.delay) {
                Some(delay) => format!("{} after the close", String::from(delay)),
                None => "without delay".into(),
            }
        ),
        (sent, filled) => format!(
            "{} of {} filled. Queue fills take a book, which bars do not have: the touch is their upper end, the penetration the cautious one.",
            count(filled),
            many(sent, "limit order")
        ),
    };
    let mut blocks = vec![Block::Table(table), words(even), words(fills)];
    blocks.extend(shown(figures, &["costs"]));
    blocks
}

/// Intervals, seeds, years and regimes.
pub fn uncertainty(a: &Assessment, figures: &[Figure]) -> Vec<Block> {
    let mut blocks = Vec::new();
    if let Some(model) = a.strategy(MODEL) {
        let said = match model.sampled.sharpe {
            None => "its returns do not vary, so that there is no Sharpe ratio".to_string(),
            Some(i) if i.covers(0.0) => {
                format!("{} to {}, which covers 0: no skill is proven", ratio(i.low), ratio(i.high))
            }
            Some(i) => format!("{} to {}, without 0", ratio(i.low), ratio(i.high)),
        };
        blocks.push(words(format!("95% interval of the Sharpe ratio: {said}.")));
    }
    match &a.seeds {
        Some(seeds) => {
            let quartiles = seeds.quartiles.map_or_else(
                || NONE.into(),
                |(low, high)| format!("{} to {}", ratio(low), ratio(high)),
            );
            blocks.push(words(format!(
                "{} seeds: median Sharpe ratio {}, middle half (IQR) {quartiles}. What is judged is their mean forecast, not the best of them.",
                count(seeds.each.len()),
                or_none(seeds.median, ratio),
            )));
            let row = |s: &crate::evaluate::assessment::Seed| {
                Row::new(
                    s.name.clone(),
                    [
                        or_none(s.sharpe, ratio),
                        or_none(s.cagr, signed_percent),
                        percent(s.max_drawdown),
                        or_none(s.mcc, ratio),
                    ],
                )
            };
            let head = ["Seed", "Sharpe", "Return a year", "Deepest fall", "Matthews correlation"];
            blocks.push(Block::Table(Table::new(&head, seeds.each.iter().map(row).collect())));
        }
        None => blocks.push(words(match a.of_language() {
            true => "One seed: median and spread over five seeds take five training runs, each with an `evaluate` of its own.",
            false => "One seed: feed the forecasts of several, as of a matrix over `seed`, to the port `forecasts` for median and spread.",
        })),
    }
    blocks.extend(shown(figures, &["rolling", "regimes"]));
    let names: Vec<&str> =
        [MODEL, HOLD, BASE].into_iter().filter(|n| a.strategy(n).is_some()).collect();
    for (first, slices) in [("Year", &a.years), ("Regime at the close before", &a.regimes)] {
        if slices.is_empty() {
            blocks.push(words("By regime: the features have no p_high_vol to tell regimes by."));
            continue;
        }
        let mut head = vec![first.to_string(), "Bars".into()];
        head.extend(names.iter().flat_map(|n| [format!("{n}: return"), "Sharpe".into()]));
        let row = |s: &Slice| {
            let pair = |(gain, sharpe): &(f64, Option<f64>)| {
                [signed_percent(*gain), or_none(*sharpe, ratio)]
            };
            let cells = std::iter::once(count(s.returns)).chain(s.rows.iter().flat_map(pair));
            Row::new(s.name.clone(), cells)
        };
        let rows = slices.iter().map(row).collect();
        blocks.push(Block::Table(Table { head, rows, ..Table::default() }));
    }
    blocks
}

/// The model on the index.
pub fn index(a: &Assessment) -> Vec<Block> {
    let Some(model) = a.strategy(MODEL) else { return Vec::new() };
    let what = match a.provenance.assets.len() {
        0 | 1 => "The index is the instrument itself, held without costs.",
        _ => "The index is the mean return of all instruments, without costs.",
    };
    let Some(line) = model.metrics.index else {
        return vec![words(format!(
            "{what} Beta and alpha are not defined: the index, or the model, does not vary."
        ))];
    };
    let i = &a.index;
    let down = format!("on the {} when it fell", many(i.down_days, "day"));
    let facts = vec![
        ("Beta".to_string(), ratio(line.beta)),
        (
            "Alpha a year".into(),
            format!(
                "{} (95% {}, Newey-West t {}, 5 lags)",
                or_none(model.metrics.alpha, signed_percent),
                show(i.alpha, signed_percent),
                or_none(line.alpha_t, ratio)
            ),
        ),
        ("Correlation".into(), or_none(line.correlation, ratio)),
        (format!("Beta {down}"), or_none(i.down_beta, ratio)),
        (format!("Correlation {down}"), or_none(i.down_correlation, ratio)),
        (format!("Mean return {down}"), or_none(i.down_mean, signed_percent)),
    ];
    vec![words(what), Block::Table(Table::facts(facts))]
}
