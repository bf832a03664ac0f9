//! From answers to everything that the report says: replays, baselines, intervals, scenarios.
//!
//! [`Assessment`] is what `metrics.json` holds; the report is a view of it and computes nothing.

use serde::Serialize;

use super::answers::{Answer, Tally, tally};
use super::backtest::{Bar, Path, Rules, run};
use super::baselines::{RULES, Random, majority, random};
use super::inference::{Sampled, block_length, bootstrap};
use super::input::{Prompt, Step, Table};
use super::metrics::{Metrics, measure};
use super::params::Params;
use super::sensitivity::{Scenario, Slice, break_even, scenarios, slices};
use super::verdict::{self, Target};
use crate::pairs::action::{Action, Side};
use crate::pairs::decision::Decision as Said;
use crate::{Result, StageError};

/// What is assessed.
pub struct Given<'a> {
    /// Parameters.
    pub params: &'a Params,
    /// The seed of draws and random portfolios.
    pub seed: u64,
    /// Features of all spans.
    pub table: &'a Table,
    /// Prompts that were answered.
    pub prompts: &'a [Prompt],
    /// Test prompts that there were.
    pub available: usize,
    /// The model's raw answers, one a prompt.
    pub model: Vec<String>,
    /// Those of the untuned base model.
    pub base: Option<Vec<String>>,
    /// The training log.
    pub log: Vec<Step>,
    /// What the models are, in a line each.
    pub about: Vec<String>,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Assessment {
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// The model, the base model and the baselines, in the order of the table.
    pub strategies: Vec<Strategy>,
    /// The model among random portfolios.
    pub random: Random,
    /// The model under other costs and fills.
    pub scenarios: Vec<Scenario>,
    /// Cost of each side, in basis points, at which the model's whole return is zero.
    pub break_even_bps: Option<f64>,
    /// By calendar year.
    pub years: Vec<Slice>,
    /// By regime of the bar before.
    pub regimes: Vec<Slice>,
    /// Answers of the model, then of the base model.
    pub answers: Vec<Tally>,
    /// Claims and what is to be said of them.
    pub targets: Vec<Target>,
    /// The verdict, sentence by sentence.
    pub verdict: Vec<String>,
    /// Date of each bar of the backtest.
    #[serde(skip)]
    pub dates: Vec<String>,
    /// The training log.
    #[serde(skip)]
    pub log: Vec<Step>,
    /// Decisions as rows of `decisions.csv`.
    #[serde(skip)]
    pub decisions: Vec<Decision>,
    /// Prompts shown with their answers.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// Where the numbers come from. No clock, no machine: the run's record has these.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// The seed.
    pub seed: u64,
    /// First date of the backtest: the first decision's.
    pub first: String,
    /// Last date of the backtest.
    pub last: String,
    /// Bars of the backtest.
    pub bars: usize,
    /// Bars a year.
    pub per_year: f64,
    /// Rows of each split of the features.
    pub splits: Vec<(String, usize)>,
    /// First and last date of the training span.
    pub trained: Option<(String, String)>,
    /// Prompts answered.
    pub prompts: usize,
    /// Test prompts there were.
    pub available: usize,
    /// Mean block of the bootstrap, in bars.
    pub block: f64,
    /// What the models are.
    pub models: Vec<String>,
    /// Parameters.
    pub params: Params,
}

/// A way to trade, replayed.
#[derive(Clone, Debug, Serialize)]
pub struct Strategy {
    /// Its name.
    pub name: String,
    /// What it does.
    pub about: String,
    /// What it earned after costs.
    pub metrics: Metrics,
    /// How sure that is.
    pub sampled: Sampled,
    /// The replay.
    #[serde(skip)]
    pub path: Path,
}

/// A row of `decisions.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// Date of the close at which it was taken.
    pub date: String,
    /// `model` or `base`.
    pub source: String,
    /// Every character of the answer.
    pub answer: String,
    /// The decision in words, or `parse failure`.
    pub action: String,
    /// The position at the close of the bar in which its order could fill, in units.
    pub position: i32,
}

/// A prompt and what was answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Date of the decision.
    pub date: String,
    /// The prompt.
    pub prompt: String,
    /// Source, raw answer and reading.
    pub answers: Vec<(String, String, String)>,
    /// Return from this close to the next.
    pub next: Option<f64>,
}

/// Name of the model's strategy.
pub const MODEL: &str = "model";
/// Name of the untuned model's strategy.
pub const BASE: &str = "base model";
/// Name of buy and hold.
pub const HOLD: &str = "buy and hold";

/// A decision for each bar, where one was taken.
type Decided = Vec<Option<Said>>;

/// A strategy before its replay.
struct Plan {
    name: String,
    about: String,
    decided: Decided,
}

/// Replays, compares and judges.
///
/// # Errors
/// Fewer than two bars follow the first decision.
pub fn assess(given: Given) -> Result<Assessment> {
    let (params, table) = (given.params, given.table);
    let rules = params.rules();
    let first = given.prompts.first().map_or(0, |p| p.row);
    let last = last_row(&given);
    let bars: Vec<Bar> = table.bars.get(first..=last).unwrap_or_default().to_vec();
    let dates: Vec<String> = table.dates.get(first..=last).unwrap_or_default().to_vec();
    if bars.len() < 3 {
        return Err(StageError::failed(format!(
            "the test span has {} bars from the first prompt on",
            bars.len()
        ))
        .hint("a backtest needs at least 3; leave a longer test span in `featurize`"));
    }
    let per_year = params.periods_per_year.or_else(|| table.per_year()).ok_or_else(|| {
        StageError::failed("the dates do not say how many bars a year has")
            .hint("set `periods_per_year`")
    })?;
    let read = |raws: &Vec<String>| -> Vec<Answer> {
        let each = given.prompts.iter().zip(raws);
        each.map(|(p, raw)| Answer::new(p.row, raw.clone())).collect()
    };
    let model = read(&given.model);
    let base = given.base.as_ref().map(read);
    let plans = plans(&given, first, bars.len(), &model, base.as_deref());
    // Buy and hold is the index: unlike a model it is never closed by the horizon.
    let rules_of = |name: &str| if name == HOLD { Rules { horizon: 0, ..rules } } else { rules };
    let index: Vec<f64> = bars.windows(2).map(|w| w[1].close / w[0].close - 1.0).collect();
    let paths: Vec<Path> =
        plans.iter().map(|p| run(&bars, &p.decided, &rules_of(&p.name))).collect();
    let returns: Vec<Vec<f64>> = paths.iter().map(Path::returns).collect();
    let series: Vec<&[f64]> = returns.iter().map(Vec::as_slice).collect();
    // The longer memory of the two: too short a block makes an interval too narrow.
    let block = block_length(&index).max(block_length(&returns[0]));
    let sampled = bootstrap(&series, per_year, block, params.draws, given.seed);
    let (other, even) = {
        let mine = &plans[0].decided;
        (scenarios(&bars, mine, &rules, per_year), break_even(&bars, mine, &rules))
    };
    let strategies: Vec<Strategy> = plans
        .into_iter()
        .zip(paths)
        .zip(sampled)
        .map(|((plan, path), sampled)| Strategy {
            metrics: measure(&path, &index, per_year),
            name: plan.name,
            about: plan.about,
            sampled,
            path,
        })
        .collect();
    let random =
        random(&bars, &strategies[0].path, &rules, per_year, params.random_portfolios, given.seed);
    let shown: Vec<&Strategy> = [MODEL, HOLD, BASE]
        .iter()
        .filter_map(|name| strategies.iter().find(|s| s.name == *name))
        .collect();
    let shown: Vec<Vec<f64>> = shown.iter().map(|s| s.path.returns()).collect();
    let year = |i: usize| dates.get(i + 1).and_then(|d| d.get(..4)).map(String::from);
    let regime = |i: usize| {
        let p = table.feature("p_high_vol", first + i)?;
        Some(if p > 0.5 { "high volatility" } else { "low volatility" }.to_string())
    };
    let ahead = params.horizon.max(1);
    let mut answers = vec![tally("model", &model, table, ahead)];
    answers.extend(base.as_deref().map(|base| tally("base", base, table, ahead)));
    let mut decisions = rows(&model, "model", &strategies[0].path, first, rules.latency, &dates);
    if let (Some(base), Some(strategy)) = (&base, strategies.iter().find(|s| s.name == BASE)) {
        decisions.extend(rows(base, "base", &strategy.path, first, rules.latency, &dates));
    }
    let provenance = provenance(&given, &dates, per_year, block);
    let mut assessment = Assessment {
        scenarios: other,
        break_even_bps: even,
        years: slices(&shown, per_year, year),
        regimes: slices(&shown, per_year, regime),
        samples: samples(params.samples, given.prompts, &model, base.as_deref(), table),
        provenance,
        strategies,
        random,
        answers,
        targets: Vec::new(),
        verdict: Vec::new(),
        dates,
        log: given.log,
        decisions,
    };
    assessment.targets = verdict::targets(&assessment);
    assessment.verdict = verdict::sentences(&assessment);
    Ok(assessment)
}

/// What each strategy decides on the bars of the backtest; the model first.
fn plans(
    given: &Given,
    first: usize,
    bars: usize,
    model: &[Answer],
    base: Option<&[Answer]>,
) -> Vec<Plan> {
    let on_bars = |decide: &dyn Fn(usize) -> Action| -> Decided {
        let mut decided = vec![None; bars];
        for prompt in given.prompts {
            if let Some(slot) = decided.get_mut(prompt.row - first) {
                *slot = Some(decide(prompt.row).into());
            }
        }
        decided
    };
    let said = |answers: &[Answer]| -> Decided {
        let mut decided = vec![None; bars];
        for answer in answers {
            if let Some(slot) = decided.get_mut(answer.row - first) {
                *slot = Some(answer.decision.unwrap_or(Said::Flat));
            }
        }
        decided
    };
    let plan = |name: &str, about: &str, decided: Decided| Plan {
        name: name.into(),
        about: about.into(),
        decided,
    };
    let mine = said(model);
    let actions: Vec<Action> = mine.iter().flatten().map(|said| said.action()).collect();
    let mut plans = vec![plan(MODEL, "the model’s answers", mine)];
    if let Some(base) = base {
        plans.push(plan(BASE, "the answers of the model before tuning", said(base)));
    }
    let hold = on_bars(&|_| Action::Market(Side::Buy));
    plans.push(plan(HOLD, "long from the first decision to the end", hold));
    if let Some(action) = majority(&actions) {
        let about = format!("always the model’s most frequent action, “{action}”");
        plans.push(plan("always majority", &about, on_bars(&|_| action)));
    }
    plans.extend(
        RULES.iter().map(|rule| {
            plan(rule.name, rule.about, on_bars(&|row| (rule.decide)(given.table, row)))
        }),
    );
    plans
}

fn provenance(given: &Given, dates: &[String], per_year: f64, block: f64) -> Provenance {
    let table = given.table;
    let splits = ["warmup", "train", "gap", "test", "holdout"]
        .map(|name| (name.to_string(), table.split.iter().filter(|s| *s == name).count()));
    let is_train = |s: &String| s == "train";
    let date = |row: Option<usize>| table.dates.get(row?).cloned();
    let from = date(table.split.iter().position(is_train));
    let to = date(table.split.iter().rposition(is_train));
    Provenance {
        seed: given.seed,
        first: dates.first().cloned().unwrap_or_default(),
        last: dates.last().cloned().unwrap_or_default(),
        bars: dates.len(),
        per_year,
        splits: splits.into(),
        trained: from.zip(to),
        prompts: given.prompts.len(),
        available: given.available,
        block,
        models: given.about.clone(),
        params: given.params.clone(),
    }
}

impl Assessment {
    /// A strategy by name.
    pub fn strategy(&self, name: &str) -> Option<&Strategy> {
        self.strategies.iter().find(|s| s.name == name)
    }
}

/// The last bar of the backtest: that by which the last decision has had as long as the others,
/// within the split that is judged. Bars after the last prompt would only show a position left alone.
fn last_row(given: &Given) -> usize {
    let end = given.table.split.iter().rposition(|s| s == given.params.split.name()).unwrap_or(0);
    let last = given.prompts.last().map_or(0, |p| p.row);
    let step = given.prompts.windows(2).map(|w| w[1].row - w[0].row).max().unwrap_or(1);
    end.min(last + step.max(given.params.latency).max(given.params.horizon))
}

fn rows(
    answers: &[Answer],
    source: &str,
    path: &Path,
    first: usize,
    latency: usize,
    dates: &[String],
) -> Vec<Decision> {
    let row = |a: &Answer| Decision {
        date: dates.get(a.row - first).cloned().unwrap_or_default(),
        source: source.into(),
        answer: a.raw.clone(),
        action: a.label(),
        position: path
            .position
            .get(a.row - first + latency)
            .or(path.position.last())
            .copied()
            .unwrap_or(0),
    };
    answers.iter().map(row).collect()
}

/// Prompts at even distances, with what was answered.
fn samples(
    count: usize,
    prompts: &[Prompt],
    model: &[Answer],
    base: Option<&[Answer]>,
    table: &Table,
) -> Vec<Sample> {
    let count = count.min(prompts.len());
    let pick = |i: usize| (2 * i + 1) * prompts.len() / (2 * count);
    let answer = |source: &str, answers: &[Answer], at: usize| {
        answers.get(at).map(|a| (source.to_string(), a.raw.clone(), a.label()))
    };
    let sample = |at: usize| {
        let prompt = prompts.get(at)?;
        let next =
            table.close(prompt.row + 1).zip(table.close(prompt.row)).map(|(b, a)| b / a - 1.0);
        Some(Sample {
            date: table.dates.get(prompt.row)?.clone(),
            prompt: prompt.text.clone(),
            answers: [answer("model", model, at), base.and_then(|b| answer("base", b, at))]
                .into_iter()
                .flatten()
                .collect(),
            next,
        })
    };
    (0..count).filter_map(|i| sample(pick(i))).collect()
}
