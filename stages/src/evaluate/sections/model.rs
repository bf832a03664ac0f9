//! Forecasts and answers apart from money, and the verdict on each target.

use super::evidence::number;
use super::{shown, words};
use crate::evaluate::answers::FAILURE;
use crate::evaluate::assessment::{Assessment, Rival};
use crate::evaluate::charts::Figure;
use crate::evaluate::document::{Block, Row, Table};
use crate::evaluate::importance::Importance;
use crate::evaluate::numbers::{NONE, count, or_none, percent, ratio};
use crate::evaluate::quality::{ACROSS, Quality};
use crate::evaluate::significance::Comparison;
use crate::evaluate::verdict::Judgement;

/// How good the model is apart from money.
pub fn quality(a: &Assessment, figures: &[Figure]) -> Vec<Block> {
    match a.of_language() {
        true => answers(a, figures),
        false => forecasts(a, figures),
    }
}

/// Scores smaller than a percent need more digits.
fn score(x: f64) -> String {
    if x.abs() < 0.1 { format!("{x:.5}") } else { format!("{x:.4}") }
}

fn forecasts(a: &Assessment, figures: &[Figure]) -> Vec<Block> {
    let row = |name: &str, note: &str, cell: &dyn Fn(&Quality) -> String| Row {
        name: name.into(),
        note: note.into(),
        cells: a.quality.iter().map(cell).collect(),
    };
    let class = |q: &Quality, of: fn(&crate::evaluate::quality::Classes) -> Option<f64>| {
        q.classes.as_ref().and_then(of)
    };
    let rows = vec![
        row("Forecasts", "with what came known", &|q| count(q.known)),
        row("Matthews correlation", "0 is chance", &|q| or_none(class(q, |c| c.mcc), ratio)),
        row("Accuracy", "of the likeliest class", &|q| {
            or_none(class(q, |c| Some(c.accuracy)), percent)
        }),
        row("Always the commonest", "what that gets right", &|q| {
            or_none(class(q, |c| Some(c.majority)), percent)
        }),
        row("Balanced accuracy", "a third is chance", &|q| {
            or_none(class(q, |c| c.balanced_accuracy), percent)
        }),
        row("Macro F1", "", &|q| or_none(class(q, |c| Some(c.macro_f1)), ratio)),
        row("Brier score", "three classes; lower is better", &|q| or_none(q.brier, score)),
        row("Brier of the shares", "that came; nobody knew them", &|q| {
            or_none(q.brier_shares, score)
        }),
        row("Log loss", "lower is better", &|q| or_none(q.log_loss, score)),
        row("Log loss of the shares", "", &|q| or_none(q.log_loss_shares, score)),
        row("ECE", "ten bins, of a rise", &|q| or_none(q.ece10, percent)),
        row("CRPS", "of the whole distribution, in log return", &|q| or_none(q.crps, score)),
        row("Rank correlation (IC)", "of the mean with what came, all rows", &|q| {
            or_none(q.information.whole, ratio)
        }),
        row("IC by date", "mean across instruments", &|q| or_none(q.information.mean, ratio)),
        row("ICIR", "that over its deviation", &|q| or_none(q.information.ratio, ratio)),
        row("t of IC", "horizons that overlap count once", &|q| or_none(q.information.t, ratio)),
    ];
    let head: Vec<&str> =
        std::iter::once("Span judged").chain(a.quality.iter().map(|q| q.name.as_str())).collect();
    let mut table = Table::new(&head, rows);
    (table.look, table.model) = ("metrics", true);
    let mut blocks = vec![
        words("A forecast can be right and lose to costs, or wrong and earn with the market."),
        Block::Table(table),
    ];
    let dates = a.quality.first().map_or(0, |q| q.information.dates);
    if dates == 0 {
        blocks.push(words(format!(
            "IC by date and ICIR take at least {ACROSS} instruments at a date; there are fewer."
        )));
    }
    if a.quality.first().is_some_and(|q| q.crps.is_none()) {
        blocks.push(words("There is no CRPS: the forecasts have no scale."));
    }
    blocks.extend(shown(figures, &["calibration", "confusion"]));
    if a.rivals.is_empty() {
        blocks.push(words("The test of Diebold and Mariano needs another model’s forecasts: feed those of gradient boosting to the port `baselines`."));
    } else {
        let test = |c: Option<Comparison>| match c {
            None => [NONE.to_string(), NONE.into()],
            Some(c) => [ratio(c.statistic), number(c.p)],
        };
        let row = |r: &Rival| {
            let better = |c: Option<Comparison>| match c {
                Some(c) if c.p < 0.05 && c.difference < 0.0 => "the model is better",
                Some(c) if c.p < 0.05 => "the model is worse",
                Some(_) => "no difference is proven",
                None => "the losses do not differ",
            };
            let cells = test(r.squared).into_iter().chain(test(r.log_loss));
            Row::new(r.name.clone(), cells.chain([better(r.squared).to_string()]))
        };
        let head = ["Against", "DM, squared error", "p", "DM, log loss", "p", "Squared error"];
        let table = Table::new(&head, a.rivals.iter().map(row).collect()).with_words();
        blocks.push(words("Test of Diebold and Mariano with the correction of Harvey, Leybourne and Newbold, on dates; below 0 the model is better:"));
        blocks.push(Block::Table(table));
    }
    blocks.push(Block::Heading("Feature importance".into()));
    blocks.extend(importance(a, figures));
    blocks
}

/// Features of a table at most.
const FEATURES: usize = 40;

/// What the features are worth to the model.
fn importance(a: &Assessment, figures: &[Figure]) -> Vec<Block> {
    let all = match &a.importance {
        None => {
            return vec![words(
                "Not available: feed the output `importance` of the judged `forecast` stage to the port `importance`.",
            )];
        }
        Some(all) if all.is_empty() => {
            return vec![words(
                "The model reads no features: a rule, or a model that reads forecasts.",
            )];
        }
        Some(all) => all,
    };
    let row = |i: &Importance| {
        let interval = i.interval.map_or_else(
            || NONE.to_string(),
            |(low, high)| format!("{} to {}", digits(low), digits(high)),
        );
        let said = match i.interval {
            Some((low, _)) if low > 0.0 => "matters",
            Some((_, high)) if high < 0.0 => "is better without it",
            _ => "not proven",
        };
        Row::new(i.feature.clone(), [digits(i.loss_increase), interval, said.into()])
    };
    let head = ["Feature", "Increase of the log loss", "95% interval", "The model"];
    let table = Table::new(&head, all.iter().take(FEATURES).map(row).collect());
    let more = match all.len().saturating_sub(FEATURES) {
        0 => String::new(),
        n => format!(" {} less important ones are in `metrics.json` alone.", count(n)),
    };
    let mut blocks = vec![words(format!(
        "By how much the log loss out of fold increases when a feature is permuted across dates, the fitted models as they are. Features that say the same stand in for one another: each alone looks idle.{more}"
    ))];
    blocks.extend(shown(figures, &["importance"]));
    blocks.push(Block::Table(table));
    blocks
}

/// An increase of a log loss, as exact as a small one needs it.
fn digits(x: f64) -> String {
    crate::evaluate::numbers::fixed(x, 5)
}

fn answers(a: &Assessment, figures: &[Figure]) -> Vec<Block> {
    let who = |source: &str| if source == "model" { "model" } else { "base model" };
    let mut blocks = Vec::new();
    for t in a.answers.iter().filter(|t| t.always_one) {
        let Some((action, share)) = &t.top else { continue };
        blocks.push(Block::Alarm(match action.as_str() {
            FAILURE => format!("Alarm: {} of the answers of the {} cannot be read as an action.", percent(*share), who(t.source)),
            _ => format!("Alarm: the {} gives one answer, “{action}”, to {} of the prompts. Its results say nothing about reading them.", who(t.source), percent(*share)),
        }));
    }
    let row =
        |name: &str, note: &str, cell: &dyn Fn(&crate::evaluate::answers::Tally) -> String| Row {
            name: name.into(),
            note: note.into(),
            cells: a.answers.iter().map(cell).collect(),
        };
    let ahead = match a.answers.first().map_or(1, |t| t.direction.ahead) {
        1 => "of buys and sells, next bar".to_string(),
        n => format!("of buys and sells, {n} bars on"),
    };
    let rows = vec![
        row("Prompts", "", &|t| count(t.answers)),
        row("Parse failures", "count as flat", &|t| percent(t.failure_rate)),
        row("Different answers", "", &|t| count(t.distinct)),
        row("Most frequent", "", &|t| {
            t.top
                .as_ref()
                .map_or_else(|| NONE.into(), |(a, share)| format!("{a}, {}", percent(*share)))
        }),
        row("Direction right", &ahead, &|t| or_none(t.direction.accuracy, percent)),
        row("Bars that rose", "what always saying buy reaches", &|t| {
            or_none(t.direction.up, percent)
        }),
        row("Correlation", "Matthews; 0 is a coin", &|t| or_none(t.direction.mcc, ratio)),
    ];
    let head: Vec<&str> =
        std::iter::once("Answers").chain(a.answers.iter().map(|t| who(t.source))).collect();
    blocks.extend(shown(figures, &["actions"]));
    blocks.push(Block::Table(Table::new(&head, rows)));
    let confusion = |t: &crate::evaluate::answers::Tally| -> Vec<Row> {
        let names = ["said buy", "said sell", "said neither"];
        let counts = names.iter().zip(&t.direction.table);
        counts.map(|(name, [up, not])| Row::new(*name, [count(*up), count(*not)])).collect()
    };
    if let Some(tally) = a.answers.first() {
        blocks.push(Block::Table(Table::new(
            &["The model", "rose", "did not rise"],
            confusion(tally),
        )));
    }
    blocks.push(words("Decoded answers have no probabilities, so that Brier score, log loss, calibration, CRPS and the test of Diebold and Mariano do not exist for them."));
    if !a.samples.is_empty() {
        blocks.push(Block::Heading("Sample prompts, at even distances".into()));
        blocks.push(Block::Samples(a.samples.clone()));
    }
    blocks.push(Block::Heading("Training".into()));
    blocks.push(words(a.training.said.clone()));
    blocks.extend(shown(figures, &["reward", "failures", "accuracy", "loss"]));
    blocks.push(Block::Heading("Feature importance".into()));
    blocks.push(words("Not available: a language model reads a text, and no table whose columns could be permuted."));
    blocks
}

/// Claims and what is to be said of them.
pub fn verdict(a: &Assessment) -> Vec<Block> {
    let name = |j: Judgement| match j {
        Judgement::Pass => "PASS",
        Judgement::Fail => "FAIL",
        Judgement::NotProven => "NOT PROVEN",
    };
    let row = |t: &crate::evaluate::verdict::Target| {
        Row::new(
            t.claim.clone(),
            [name(t.judgement).to_string(), t.value.clone(), t.interval.clone(), t.why.clone()],
        )
    };
    let head = ["Claim", "Judgement", "Measured", "95% interval", "Why"];
    let table = Table::new(&head, a.targets.iter().map(row).collect()).with_words();
    vec![
        Block::Table(table),
        words(
            "A claim passes only where the cautious end of its interval clears it, and fails only where the generous end does not. A Sharpe ratio passes only with a deflated Sharpe ratio above 95% and a probability of overfitting below 20%; a drawdown only where 95 of 100 resampled histories stay within it; a hit rate only with a mean trade above zero.",
        ),
    ]
}
