//! Causality, splits, selection.

use super::words;
use crate::evaluate::assessment::Assessment;
use crate::evaluate::causality::Outcome;
use crate::evaluate::document::{Block, Row, Table};
use crate::evaluate::numbers::{NONE, count, many, or_none, percent, ratio};

/// Tests for look-ahead.
pub fn causality(a: &Assessment) -> Vec<Block> {
    let outcome = |o: Outcome| match o {
        Outcome::Clean => "CLEAN",
        Outcome::Caught => "CAUGHT",
        Outcome::Look => "LOOK",
        Outcome::NotDone => "NOT DONE",
    };
    let row = |c: &crate::evaluate::causality::Check| {
        Row::new(sentence(&c.name), [outcome(c.outcome).to_string(), c.said.clone()])
    };
    let rows = a.causality.iter().map(row).collect();
    let mut blocks = Vec::new();
    if a.causality.iter().any(|c| c.outcome == Outcome::Caught) {
        blocks.push(Block::Alarm(
            "Look-ahead was found. No number on this page is worth anything until it is mended."
                .into(),
        ));
    }
    blocks.push(Block::Table(Table::new(&["Test", "Found", "In words"], rows).with_words()));
    blocks.push(words("Decisions at other dates than they were taken, in Sharpe ratio:"));
    let delay = |d: &crate::evaluate::assessment::Delay| match d.dates {
        -1 => ("a bar early (cheating)".to_string(), or_none(d.sharpe, ratio)),
        0 => ("as taken".into(), or_none(d.sharpe, ratio)),
        n => (format!("{} late", many(n.unsigned_abs() as usize, "bar")), or_none(d.sharpe, ratio)),
    };
    let (head, cells): (Vec<String>, Vec<String>) = a.delays.iter().map(delay).unzip();
    let mut table = Table { rows: vec![Row::new("Sharpe", cells)], ..Table::default() };
    table.head = std::iter::once(String::new()).chain(head).collect();
    blocks.push(Block::Table(table));
    if a.of_language() {
        blocks.push(words("A control fitted to shuffled labels is not available: a language model’s labels are not shuffled before training, which would take training anew; that decisions in another order earn nothing is the same question asked of the result."));
    }
    blocks
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |c| c.to_uppercase().chain(letters).collect())
}

/// Rows of each split and what they share.
pub fn splits(a: &Assessment) -> Vec<Block> {
    let s = &a.splits;
    let rows: Vec<String> = s
        .rows
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(name, n)| format!("{name} {}", count(*n)))
        .collect();
    let mut facts = vec![
        ("Rows", rows.join(", ")),
        (
            "Purged or embargoed",
            format!("{} between training and the test span, in neither", many(s.purged, "row")),
        ),
        (
            "Overlap",
            format!(
                "{} of training with labels that end in the judged span, recomputed from {}{}",
                many(s.overlap, "row"),
                s.from,
                if s.overlap == 0 { "" } else { ": it must be zero" }
            ),
        ),
    ];
    if !a.of_language() {
        facts.push(match s.out_of_fold {
            (0, _) => ("Out of fold", "the forecasts hold no rows out of fold".into()),
            (n, folds) => (
                "Out of fold",
                format!(
                    "{} in {}, of which {} reach into the judged span; that each fold was purged is for `forecast` to see to, which alone knows what it fitted on",
                    many(n, "forecast"),
                    many(folds, "fold"),
                    count(s.fold_overlap)
                ),
            ),
        });
    }
    vec![Block::Table(Table::facts(facts))]
}

/// What trying often does to the best result.
pub fn selection(a: &Assessment) -> Vec<Block> {
    let s = &a.selection;
    let mut blocks = Vec::new();
    match s.trials {
        Some(n) => {
            let overfit = s.overfit.as_ref();
            let facts = vec![
                ("Configurations", format!("{} on the same dates, this one included", count(n))),
                ("Best by chance", format!("of as many without skill: Sharpe ratio {}", or_none(s.sharpe_by_chance, ratio))),
                ("Deflated Sharpe ratio", format!("{}; above 95% is asked", or_none(s.deflated_sharpe, percent))),
                (
                    "Probability of overfitting",
                    match overfit {
                        Some(o) => format!("{} of {} splits (CSCV, a rank in the lower half counts); below 20% is asked", percent(o.pbo), count(o.logits.len())),
                        None => "the span is too short to be cut into ten blocks".into(),
                    },
                ),
            ];
            blocks.push(Block::Table(Table::facts(facts)));
        }
        None => blocks.push(words("No returns of other tries were given (port `trials`), so that this page knows neither the deflated Sharpe ratio nor the probability of overfitting (PBO). The runner's ledger counts every configuration that was tried on the same data, and openings of the sealed holdout; the page of trials beside this one has the deflated Sharpe ratio, made anew by each run, and “quantmill runs ledger” prints them. Tries that no ledger has seen are in neither.")),
    }
    blocks.push(Block::Link(
        "report.trials.html".into(),
        "Trials on the same data, as the ledger has them".into(),
    ));
    if let Some([ten, hundred]) = a.random.best_of.filter(|_| !a.random.degenerate) {
        blocks.push(words(format!(
            "The best of many tries looks good by chance: of 10 random portfolios like the model’s the best would have a Sharpe ratio of {}, of 100 one of {}.",
            ratio(ten),
            ratio(hundred)
        )));
    }
    let row = |s: &crate::evaluate::assessment::Strategy| {
        let cells = s.p.map_or([NONE.to_string(), NONE.into(), "never varies".into()], |(p, h)| {
            let said = if h < 0.05 { "above zero" } else { "not proven" };
            [number(p), number(h), said.into()]
        });
        Row::new(s.name.clone(), cells)
    };
    let rows = a.strategies.iter().map(row).collect();
    blocks.push(words("The chance of so high a Sharpe ratio without skill (1 - PSR), and the same corrected by Holm for the number of strategies on this page:"));
    let head = ["Strategy", "p", "p, Holm", "Sharpe"];
    blocks.push(Block::Table(Table::new(&head, rows)));
    blocks
}

/// A probability with three decimals.
pub fn number(p: f64) -> String {
    if p < 0.0005 { "<0.001".into() } else { format!("{p:.3}") }
}
