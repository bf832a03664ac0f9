//! The report: one HTML file that opens from disk, on a phone, in the dark and on paper.
//!
//! It loads nothing: no script, font or image from elsewhere, and a content policy that forbids
//! it. Answers of a model are untrusted text; the template escapes everything but the figures
//! drawn here. Nothing is computed here that `metrics.json` does not hold.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use super::assess::{Assessment, BASE, HOLD, MODEL, Sample, Strategy};
use super::backtest::Fill;
use super::charts::{self, Figure};
use super::input::day;
use super::numbers::{NONE, count, or_none, ordinal, percent, ratio, signed_percent};
use super::verdict::show;
use crate::{Result, StageError};

const TEMPLATE: &str = include_str!("report.html.jinja");
const STYLE: &str = include_str!("style.css");

/// A row of a table: what it is, and a cell for each column.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    about: &'static str,
    cells: Vec<String>,
}

/// What the template shows.
#[derive(Serialize)]
struct Page<'a> {
    found: &'a Assessment,
    samples: &'a [Sample],
    tiles: Vec<(&'static str, String, String)>,
    facts: Vec<(&'static str, String)>,
    settings: String,
    curves: Vec<&'a Figure>,
    actions: Vec<&'a Figure>,
    training: Vec<&'a Figure>,
    rows: Vec<Row>,
    random: String,
    break_even: String,
    shown: Vec<&'static str>,
    limits: Vec<String>,
}

/// Writes the report.
///
/// # Errors
/// A figure cannot be drawn or the template cannot be filled in.
pub fn render(a: &Assessment) -> Result<String> {
    let failed = |e: String| StageError::failed(format!("cannot write the report: {e}"));
    let figures = charts::figures(a).map_err(|e| failed(e.to_string()))?;
    let figures: Vec<Figure> = figures.into_iter().map(embed).collect();
    let named = |names: &[&str]| figures.iter().filter(|f| names.contains(&f.name)).collect();
    let shown = [MODEL, HOLD, BASE].into_iter().filter(|name| a.strategy(name).is_some());
    let page = Page {
        found: a,
        samples: &a.samples,
        tiles: tiles(a),
        facts: facts(a),
        settings: serde_json::to_string_pretty(&a.provenance.params)
            .map_err(|e| failed(e.to_string()))?,
        curves: named(&["equity", "drawdown"]),
        actions: named(&["actions"]),
        training: named(&["reward", "failures", "accuracy", "loss"]),
        rows: rows(&a.strategies),
        random: random(a),
        break_even: or_none(a.break_even_bps, ratio),
        shown: shown.collect(),
        limits: limits(a),
    };
    fill(TEMPLATE, &page)
}

/// Fills a page in, with the style that all pages share.
///
/// # Errors
/// The template does not fit the page.
pub fn fill(template: &str, page: &impl Serialize) -> Result<String> {
    let filled = || -> std::result::Result<String, minijinja::Error> {
        let mut env = Environment::new();
        env.set_auto_escape_callback(|_| AutoEscape::Html);
        env.add_filter("percent", |x: Option<f64>| or_none(x, percent));
        env.add_filter("signed", |x: Option<f64>| or_none(x, signed_percent));
        env.add_filter("ratio", |x: Option<f64>| or_none(x, ratio));
        env.add_filter("count", |n: usize| count(n));
        env.add_filter("visible", |text: &str| visible(text));
        env.add_template("style", STYLE)?;
        env.add_template("page", template)?;
        env.get_template("page")?.render(Serde(page))
    };
    filled().map_err(|e| StageError::failed(format!("cannot write the page: {e:#}")))
}

/// A figure for a page: it scales, and says what it shows.
fn embed(figure: Figure) -> Figure {
    let start = figure.svg.find("viewBox").unwrap_or(0);
    let rest = figure.svg.get(start..).unwrap_or_default();
    let svg = format!("<svg role=\"img\" aria-label=\"{}\" {rest}", figure.title);
    Figure { svg, ..figure }
}

/// Text as it is, with what cannot be seen made visible.
fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("⏎\n"),
            '\t' => out.push('⇥'),
            c if hidden(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The numbers that people look for first: label, value, note.
fn tiles(a: &Assessment) -> Vec<(&'static str, String, String)> {
    let Some(model) = a.strategy(MODEL) else { return Vec::new() };
    let hold = a.strategy(HOLD).map(|h| &h.metrics);
    let m = &model.metrics;
    let failures = a.answers.first().map_or(0.0, |t| t.failure_rate);
    let hits = m.hits.map_or_else(
        || "no trade".to_string(),
        |h| format!("{} profitable, mean {}", percent(h.rate), signed_percent(h.expectancy)),
    );
    vec![
        (
            "Return a year, net",
            or_none(m.cagr, signed_percent),
            format!("buy and hold {}", or_none(hold.and_then(|h| h.cagr), signed_percent)),
        ),
        (
            "Sharpe ratio",
            or_none(m.sharpe, ratio),
            format!("95% {}", show(model.sampled.sharpe, ratio)),
        ),
        (
            "Deepest fall",
            percent(m.max_drawdown),
            format!("buy and hold {}", or_none(hold.map(|h| h.max_drawdown), percent)),
        ),
        ("Trades", count(m.trades), hits),
        ("Parse failures", percent(failures), "count as flat".into()),
    ]
}

/// Where the numbers come from.
fn facts(a: &Assessment) -> Vec<(&'static str, String)> {
    let p = &a.provenance;
    let mut facts = vec![
        (
            "Backtest",
            format!(
                "{} to {}, {} bars, {} a year",
                p.first,
                p.last,
                count(p.bars),
                ratio(p.per_year)
            ),
        ),
        (
            "Prompts answered",
            format!("{} of {} in the test span", count(p.prompts), count(p.available)),
        ),
    ];
    if let Some((from, to)) = &p.trained {
        facts.push(("Training span", format!("{from} to {to}")));
    }
    let splits: Vec<String> =
        p.splits.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
    facts.push(("Rows by split", splits.join(", ")));
    facts.extend(p.models.iter().map(|m| ("Model", m.clone())));
    let rules = p.params.rules();
    facts.push((
        "Orders",
        format!(
            "decided at a close; {}, a market order fills at the open, a limit order only where the bar {} the limit",
            match rules.latency {
                1 => "in the next bar".into(),
                n => format!("{} bars later", count(n)),
            },
            match rules.fill {
                Fill::Penetrate => "trades beyond",
                Fill::Touch => "reaches",
            }
        ),
    ));
    facts.push((
        "Costs, each side",
        format!(
            "market order {} bps fee and {} bps half spread, limit order {} bps fee",
            ratio(rules.taker_bps),
            ratio(rules.half_spread_bps),
            ratio(rules.maker_bps)
        ),
    ));
    facts.push((
        "Intervals",
        format!(
            "stationary bootstrap, {} draws, mean block {} bars (Politis and White)",
            count(p.params.draws),
            ratio(p.block)
        ),
    ));
    facts.push(("Seed", p.seed.to_string()));
    facts
}

/// The metrics, a row each, with a cell for each strategy.
fn rows(strategies: &[Strategy]) -> Vec<Row> {
    let row = |name: &str, about: &'static str, cell: &dyn Fn(&Strategy) -> String| Row {
        name: name.into(),
        about,
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
        row("Turnover a year", "units; a round trip is 2", &|s| ratio(s.metrics.turnover)),
        row("Exposure", "closes with a position", &|s| percent(s.metrics.exposure)),
        row("Mean position", "+1 is always long", &|s| ratio(s.metrics.net_exposure)),
        row("Costs paid", "of the initial equity", &|s| percent(s.metrics.costs)),
        row("Beta", "to buy and hold without costs", &|s| {
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
    format!(
        "{} random portfolios hold what the model held for as long as it held it, at other times, with its costs for market orders. The 5th, 50th and 95th percentile of their Sharpe ratios are {}, of their returns {}. The model stands at the {} percentile by Sharpe ratio and the {} by return.",
        count(r.count),
        three(r.sharpe, ratio),
        three(r.total_return, signed_percent),
        place(r.percentile_sharpe),
        place(r.percentile_return)
    )
}

/// What trying often does to the best result.
fn selection(a: &Assessment) -> String {
    let mut text = "Selection is not corrected on this page. Its bytes follow from the model and the data alone, while the number of models, prompts and settings that were tried on the same data grows: each run counts them anew on the page “trials” beside this one, with the deflated Sharpe ratio, and “quantmill runs ledger” prints them. Tries that no ledger has seen are in neither, and there is no probability of overfitting, which needs the returns of every try. The best of many tries looks good by chance".to_string();
    match a.random.best_of.filter(|_| !a.random.degenerate) {
        Some([ten, hundred]) => {
            text += &format!(
                ": of 10 random portfolios like the model’s the best would have a Sharpe ratio of {}, of 100 one of {}.",
                ratio(ten),
                ratio(hundred)
            );
        }
        None => text.push('.'),
    }
    text
}

/// What the numbers do not show.
fn limits(a: &Assessment) -> Vec<String> {
    let p = &a.provenance;
    let known = p.params.knowledge_cutoff.as_deref();
    let contamination = match known.map(|cutoff| (cutoff, day(cutoff) >= day(&p.first))) {
        None => "Memory is not ruled out. Nothing here says where the text ends that the model was trained on; if it reaches into the test span, the model may recall these prices. A claim of foresight cannot be made.".to_string(),
        Some((cutoff, true)) => format!(
            "Memory is not ruled out. The model was trained on text up to {cutoff}, which reaches into the test span that begins on {}.",
            p.first
        ),
        Some((cutoff, false)) => format!(
            "The model’s text is said to end on {cutoff}, before the test span; that is taken on trust."
        ),
    };
    let mut limits = vec![
        contamination,
        selection(a),
        "One run: one seed, one market, one test span. Another seed may answer otherwise.".into(),
        "Whether the prices could be traded. If they are those of an index or another computed series, nobody quotes them, and every fill here is a fiction that only exercises the machinery.".into(),
        "Fills come from bars. A bar says that a price was traded, not that our order stood first; market impact, partial fills, borrow fees, interest, dividends and margin are left out.".into(),
        "Statistical baselines that are fitted to the same features (a logit, boosted trees) are not in the table.".into(),
    ];
    if a.log.iter().any(|s| s.contains_key("reward_mean")) {
        limits.push("Reward in training is not profit: it scores how an order was sent, on the training span. A rising curve says that the model learned the reward, nothing about the test span.".into());
    }
    let test = p.splits.iter().find(|(name, _)| name == "test").map_or(0, |(_, n)| *n);
    if p.bars < test {
        limits.push(format!(
            "The backtest ends with the prompts that were answered, on {}: {} of the {} bars of the test span are not in it.",
            p.last,
            count(test - p.bars),
            count(test)
        ));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_shown() {
        assert_eq!(visible(" flat\n"), " flat⏎\n");
        assert_eq!(visible("a\u{202e}b\u{0}"), "a\\u{202e}b\\u{0}");
        assert_eq!(visible("é 中 😀"), "é 中 😀");
    }
}
