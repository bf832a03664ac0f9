//! The stage itself: reads the inputs, asks the models, writes the outputs.

use super::anonymise::{Anonymise, Replaced};
use super::answers::FAILURE;
use super::assess::{Anonymous, Given, assess};
use super::assessment::Training;
use super::causality::Outcome;
use super::decide::{Count, decide};
use super::inference::Moments;
use super::input::{Prompt, Step};
use super::panel::Panel;
use super::params::{Asking, Judging};
use super::{Assessment, Params, Places, facts, input, numerical, queues, selection, write};
use crate::featurize::table;
use crate::train::events;
use crate::{Context, Format, Invalid, Judged, Port, Result, Stage, StageError, Tried};

/// The stage `evaluate`.
pub struct Evaluate;

impl Stage for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 6;
    const ABOUT: &'static str =
        "decide on the test span, backtest against baselines, and report honestly";
    const SEEDED: bool = true;
    const DEVICE: bool = true;
    const TRIAL: bool = true;
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        if params.forecasts.is_some() {
            return numerical::ports();
        }
        let mut ports = vec![
            Port::input("model", Format::Model),
            Port::input("prompts", Format::Prompts),
            Port::input("features", Format::Features),
            Port::optional("base", Format::Model),
            Port::optional("log", Format::Log),
            Port::optional("baselines", Format::Any),
            Port::optional("trials", Format::Any),
        ];
        // Only a head learns from them; a matrix of forms feeds them to all.
        ports.push(match params.form {
            Asking::Head => Port::input("pairs", Format::Pairs),
            _ => Port::optional("pairs", Format::Pairs),
        });
        ports.push(match params.book {
            Some(_) => Port::input("events", Format::Any),
            None => Port::optional("events", Format::Any),
        });
        ports
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("report", Format::Report, "report.html"),
            Port::file("metrics", Format::Metrics, "metrics.json"),
            Port::file("decisions", Format::Any, "decisions.csv"),
            Port::file("returns", Format::Any, "returns.csv"),
            Port::file("markdown", Format::Text, "report.md"),
        ]
    }

    fn check(params: &Params) -> std::result::Result<(), Invalid> {
        params.check()
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        if let Some(policy) = &params.forecasts {
            return finish(&numerical::run(params, policy, ctx)?, params, ctx);
        }
        if ctx.has("events") && params.book.is_none() {
            return Err(StageError::failed(
                "port `events` is fed, and `book` does not say what it holds",
            )
            .hint("set `book: { source: { binance: {} } }`, as in `featurize`"));
        }
        let table = input::features(&table::files(ctx)?)?;
        let mut prompts = input::prompts(ctx.file("prompts")?, &table, params.split.name())?;
        let available = prompts.len();
        prompts.truncate(params.max_prompts.unwrap_or(available));
        let other = params.anonymise.as_ref().map(|anonymise| without_names(anonymise, &prompts));
        let again = other.as_ref().is_some_and(|(_, replaced)| replaced.changed > 0);
        let models = 1 + usize::from(ctx.has("base")) + usize::from(again);
        let total = prompts.len() * models;
        let first = prompts.first().and_then(|prompt| table.dates.get(prompt.row));
        let since = first.map_or("", String::as_str);
        let count = Count { done: 0, total };
        let model = decide(ctx, "model", &prompts, params, since, count)?;
        let mut about = vec![model.about];
        let mut base = None;
        if ctx.has("base") {
            let count = Count { done: prompts.len(), total };
            let decided = decide(ctx, "base", &prompts, params, since, count)?;
            about.push(decided.about);
            base = Some(decided.answers);
        }
        let anonymous = match other {
            None => None,
            Some((others, replaced)) => {
                let changed = prompts.iter().zip(&others).find(|(a, b)| a.text != b.text);
                let example = changed.map(|(_, other)| other.text.clone());
                let count = Count { done: total - prompts.len(), total };
                let answers = match again {
                    true => Some(decide(ctx, "model", &others, params, since, count)?.answers),
                    false => None,
                };
                Some(Anonymous { replaced, example, answers })
            }
        };
        ctx.progress(total as u64, total as u64, "prompts", "backtest")?;
        let rules = params.rules();
        let follow = |panel: &Panel, offsets: &[u32]| match &params.book {
            Some(book) => queues::follow(panel, &rules, book, offsets, ctx),
            None => Ok(Vec::new()),
        };
        let found = assess(Given {
            params,
            seed: ctx.seed(),
            table: &table,
            prompts: &prompts,
            available,
            model: model.answers,
            base,
            anonymous,
            training: training(ctx)?,
            about,
            baselines: numerical::baselines(ctx, &Panel::single(&table), params.split.name(), 0)?,
            inputs: facts::sources(ctx)?,
            trials: numerical::trials(ctx)?,
            queues: params.book.is_some().then_some(&follow),
        })?;
        finish(&found, params, ctx)
    }

    fn judge(tried: &[Tried], own: Option<usize>) -> Result<Option<Judged>> {
        selection::judge(tried, own).map(Some)
    }
}

/// What is known of the model's training: from the port `log`, else from the model's own folder.
fn training(ctx: &Context) -> Result<Training> {
    if ctx.has("log") {
        let log = input::log(ctx.file("log")?)?;
        return Ok(Training::of(&log, "From the log that was fed to the port `log`."));
    }
    let feed = "feed the output `log` of its `train` stage to the port `log`";
    let files: Vec<(&str, &std::path::Path)> = ctx.files("model").collect();
    let own = files.iter().find(|(name, _)| *name == events::NAME);
    Ok(match own {
        Some((_, path)) => match events::read(&fs_err::read(path)?) {
            Some(rows) => {
                let step = |row: events::Row| -> Step {
                    let step = ("step".to_owned(), row.step as f64);
                    row.numbers.into_iter().chain([step]).collect()
                };
                let log: Vec<Step> = rows.into_iter().map(step).collect();
                Training::of(
                    &log,
                    format!("From the record in the model’s folder, `{}`.", events::NAME),
                )
            }
            None => Training::of(
                &[],
                format!(
                    "Not available: `{}` in the model’s folder is damaged, or of another program; {feed}.",
                    events::NAME
                ),
            ),
        },
        None if files.iter().all(|(name, _)| name.ends_with(".gguf")) => Training::of(
            &[],
            format!(
                "Not available: a GGUF file keeps nothing of a training; where Quantmill trained it, {feed}."
            ),
        ),
        None => Training::of(
            &[],
            format!(
                "Not available: the model’s folder has no record of a training (`{}`); where Quantmill trained it, {feed}.",
                events::NAME
            ),
        ),
    })
}

/// The prompts without names and dates, and what was replaced.
fn without_names(anonymise: &Anonymise, prompts: &[Prompt]) -> (Vec<Prompt>, Replaced) {
    let (texts, replaced) = anonymise.apply(prompts.iter().map(|prompt| prompt.text.as_str()));
    let other = |(prompt, text): (&Prompt, String)| Prompt { row: prompt.row, text };
    (prompts.iter().zip(texts).map(other).collect(), replaced)
}

/// Says what was found and writes it.
fn finish(found: &Assessment, params: &Params, ctx: &Context) -> Result<()> {
    if params.split == Judging::Holdout {
        // The mark by which the ledger of trials counts openings.
        ctx.metric(selection::HOLDOUT, found.provenance.decisions as f64);
    }
    say(found, ctx);
    let places = Places {
        report: ctx.output("report")?,
        markdown: ctx.output("markdown")?,
        metrics: ctx.output("metrics")?,
        decisions: ctx.output("decisions")?,
        returns: ctx.output("returns")?,
    };
    write(found, &places)
}

/// Keeps the numbers that a run is compared by, and warns of answers that are no decision.
fn say(found: &Assessment, ctx: &Context) {
    let Some(model) = found.strategies.first() else { return };
    let m = &model.metrics;
    let moments = Moments::of(&model.path.returns());
    let numbers = [
        ("sharpe", m.sharpe),
        ("sharpe_low", model.sampled.sharpe.map(|i| i.low)),
        ("sharpe_high", model.sampled.sharpe.map(|i| i.high)),
        ("cagr", m.cagr),
        ("max_drawdown", Some(m.max_drawdown)),
        ("hit_rate", m.hits.map(|h| h.rate)),
        ("trades", Some(m.trades as f64)),
        ("turnover", Some(m.turnover)),
        // What deflates the Sharpe ratio once more is tried on the same data.
        (selection::SHARPE, moments.map(|m| m.sharpe)),
        (selection::RETURNS, moments.map(|m| m.bars as f64)),
        (selection::SKEWNESS, moments.map(|m| m.skewness)),
        (selection::KURTOSIS, moments.map(|m| m.kurtosis)),
        ("percentile_random", found.random.percentile_sharpe),
        ("parse_failure_rate", found.answers.first().map(|t| t.failure_rate)),
        ("parse_failure_rate_base", found.answers.get(1).map(|t| t.failure_rate)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            ctx.metric(name, value);
        }
    }
    let quality = found.quality.first();
    let seeds = found.seeds.as_ref();
    let more = [
        ("mcc", quality.and_then(|q| q.classes.as_ref()?.mcc)),
        ("log_loss", quality.and_then(|q| q.log_loss)),
        ("ic", quality.and_then(|q| q.information.whole)),
        ("sharpe_median", seeds.and_then(|s| s.median)),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            ctx.metric(name, value);
        }
    }
    let change = found.anonymised.as_ref().and_then(|a| a.change.as_ref());
    if let Some(change) = change {
        ctx.metric("decisions_changed_anonymised", change.decisions);
        if let Some(sharpe) = change.anonymous {
            ctx.metric("sharpe_anonymised", sharpe);
        }
    }
    if found.anonymised.is_some() && change.is_none() {
        ctx.warn(
            "`anonymise` found nothing to replace in the prompts: the model was not asked again",
        );
    }
    for check in found.causality.iter().filter(|c| c.outcome == Outcome::Caught) {
        ctx.warn(format!("{}: {}", check.name, check.said));
    }
    for tally in &found.answers {
        if let (true, Some((action, share))) = (tally.always_one, &tally.top) {
            let share = super::numbers::percent(*share);
            ctx.warn(match action.as_str() {
                FAILURE => format!("{share} of the {}'s answers are no action", tally.source),
                action => format!("{} answers `{action}` to {share} of the prompts", tally.source),
            });
        }
    }
}
