//! From answers to everything that the report says: replays, baselines, intervals, scenarios.
//!
//! [`Assessment`] is what `metrics.json` holds; the report is a view of it and computes nothing.

use serde::Serialize;

use super::answers::{Answer, Tally, tally};
use super::backtest::{Bar, Fill, Path, Rules, run};
use super::baselines::{RULES, Random, majority, random};
use super::inference::{Sampled, block_length, bootstrap};
use super::input::{Prompt, Step, Table};
use super::metrics::{Metrics, measure, sharpe};
use super::params::Params;
use super::verdict::{self, Target};
use crate::pairs::action::{Action, Side};
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

/// The model under other assumptions.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// What is different.
    pub name: String,
    /// Compound growth a year.
    pub cagr: Option<f64>,
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
    /// Deepest fall.
    pub max_drawdown: f64,
    /// Whole return.
    pub total_return: f64,
}

/// A part of the bars: returns and Sharpe ratios of the model, buy and hold, and the base model.
#[derive(Clone, Debug, Serialize)]
pub struct Slice {
    /// Which part.
    pub name: String,
    /// Returns in it.
    pub returns: usize,
    /// For each strategy shown: compounded return and Sharpe ratio a year.
    pub rows: Vec<(f64, Option<f64>)>,
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
    /// The action, or `parse failure`.
    pub action: String,
    /// The position at the close of the bar in which its order could fill.
    pub position: i8,
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

/// Decisions on the bars of the backtest.
type Decided = Vec<Option<Action>>;

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
    let read = |raws: Vec<String>| -> Vec<Answer> {
        given.prompts.iter().zip(raws).map(|(p, raw)| Answer::new(p.row, raw)).collect()
    };
    let model = read(given.model);
    let base = given.base.map(read);
    let on_bars = |decide: &dyn Fn(usize) -> Action| -> Decided {
        let mut decided = vec![None; bars.len()];
        for prompt in given.prompts {
            if let Some(slot) = decided.get_mut(prompt.row - first) {
                *slot = Some(decide(prompt.row));
            }
        }
        decided
    };
    let said = |answers: &[Answer]| -> Decided {
        let mut decided = vec![None; bars.len()];
        for answer in answers {
            if let Some(slot) = decided.get_mut(answer.row - first) {
                *slot = Some(answer.action.unwrap_or(Action::Flat));
            }
        }
        decided
    };
    let mine = said(&model);
    let mut plans: Vec<(String, String, Decided)> =
        vec![(MODEL.into(), "the model's answers".into(), mine.clone())];
    if let Some(base) = &base {
        plans.push((BASE.into(), "the answers of the model before tuning".into(), said(base)));
    }
    let hold = on_bars(&|_| Action::Market(Side::Buy));
    plans.push((HOLD.into(), "long from the first decision to the end".into(), hold));
    let actions: Vec<Action> = mine.iter().flatten().copied().collect();
    if let Some(action) = majority(&actions) {
        let about = format!("always the model's most frequent action, “{action}”");
        plans.push(("always majority".into(), about, on_bars(&|_| action)));
    }
    for rule in RULES {
        let decided = on_bars(&|row| (rule.decide)(table, row));
        plans.push((rule.name.into(), rule.about.into(), decided));
    }
    // Buy and hold is the index: unlike a model it is never closed by the horizon.
    let rules_of = |name: &str| if name == HOLD { Rules { horizon: 0, ..rules } } else { rules };
    let index: Vec<f64> = bars.windows(2).map(|w| w[1].close / w[0].close - 1.0).collect();
    let paths: Vec<Path> =
        plans.iter().map(|(name, _, decided)| run(&bars, decided, &rules_of(name))).collect();
    let returns: Vec<Vec<f64>> = paths.iter().map(Path::returns).collect();
    let series: Vec<&[f64]> = returns.iter().map(Vec::as_slice).collect();
    // The index's dependence, so that the blocks do not hang on how the model happened to trade.
    let block = block_length(&index);
    let sampled = bootstrap(&series, per_year, block, params.draws, given.seed);
    let strategies: Vec<Strategy> = plans
        .into_iter()
        .zip(paths)
        .zip(sampled)
        .map(|(((name, about, _), path), sampled)| Strategy {
            metrics: measure(&path, &index, per_year),
            name,
            about,
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
    let splits = ["warmup", "train", "gap", "test"]
        .map(|name| (name.to_string(), table.split.iter().filter(|s| *s == name).count()));
    let trained = || {
        let is_train = |s: &String| s == "train";
        let (a, b) =
            (table.split.iter().position(is_train)?, table.split.iter().rposition(is_train)?);
        Some((table.dates.get(a)?.clone(), table.dates.get(b)?.clone()))
    };
    let provenance = Provenance {
        seed: given.seed,
        first: dates.first().cloned().unwrap_or_default(),
        last: dates.last().cloned().unwrap_or_default(),
        bars: bars.len(),
        per_year,
        splits: splits.into(),
        trained: trained(),
        prompts: given.prompts.len(),
        available: given.available,
        block,
        models: given.about,
        params: params.clone(),
    };
    let mut assessment = Assessment {
        scenarios: scenarios(&bars, &mine, &rules, per_year),
        break_even_bps: break_even(&bars, &mine, &rules),
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

impl Assessment {
    /// A strategy by name.
    pub fn strategy(&self, name: &str) -> Option<&Strategy> {
        self.strategies.iter().find(|s| s.name == name)
    }
}

/// The last bar of the backtest: that by which the last decision has had as long as the others,
/// within the test split. Bars after the last prompt would only show a position left alone.
fn last_row(given: &Given) -> usize {
    let end = given.table.split.iter().rposition(|s| s == "test").unwrap_or(0);
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

fn scenarios(bars: &[Bar], decided: &Decided, rules: &Rules, per_year: f64) -> Vec<Scenario> {
    let other = match rules.fill {
        Fill::Penetrate => ("limits fill when touched", Fill::Touch),
        Fill::Touch => ("limits fill when traded through", Fill::Penetrate),
    };
    let mut cases = vec![
        ("gross: no costs", rules.scaled(0.0)),
        ("0.5x costs", rules.scaled(0.5)),
        ("1x costs", *rules),
        ("2x costs", rules.scaled(2.0)),
        ("5x costs", rules.scaled(5.0)),
        ("one more bar of latency", Rules { latency: rules.latency + 1, ..*rules }),
    ];
    if decided.iter().flatten().any(|a| matches!(a, Action::Limit(..))) {
        cases.push((other.0, Rules { fill: other.1, ..*rules }));
    }
    cases
        .into_iter()
        .map(|(name, rules)| {
            let metrics = measure(&run(bars, decided, &rules), &[], per_year);
            Scenario {
                name: name.into(),
                cagr: metrics.cagr,
                sharpe: metrics.sharpe,
                max_drawdown: metrics.max_drawdown,
                total_return: metrics.total_return,
            }
        })
        .collect()
}

/// The cost of each side at which nothing is left, by bisection. `None` where the model does not
/// trade, loses without costs, or gains at 1,000 bps.
fn break_even(bars: &[Bar], decided: &Decided, rules: &Rules) -> Option<f64> {
    let left = |bps: f64| {
        let rules = Rules { taker_bps: bps, maker_bps: bps, half_spread_bps: 0.0, ..*rules };
        run(bars, decided, &rules).equity.last().map_or(0.0, |e| e - 1.0)
    };
    let (mut low, mut high) = (0.0, 1000.0);
    if left(low) <= 0.0 || left(high) > 0.0 {
        return None;
    }
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if left(middle) > 0.0 { low = middle } else { high = middle }
    }
    Some(low)
}

/// Groups returns (return i leads to bar i + 1) by a name, in the order in which names appear.
fn slices(
    series: &[Vec<f64>],
    per_year: f64,
    name: impl Fn(usize) -> Option<String>,
) -> Vec<Slice> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for i in 0..series.first().map_or(0, Vec::len) {
        let Some(name) = name(i) else { continue };
        match groups.iter_mut().find(|g| g.0 == name) {
            Some(group) => group.1.push(i),
            None => groups.push((name, vec![i])),
        }
    }
    let slice = |(name, at): (String, Vec<usize>)| {
        let row = |s: &Vec<f64>| {
            let part: Vec<f64> = at.iter().filter_map(|i| s.get(*i).copied()).collect();
            (part.iter().map(|r| 1.0 + r).product::<f64>() - 1.0, sharpe(&part, per_year))
        };
        Slice { returns: at.len(), rows: series.iter().map(row).collect(), name }
    };
    groups.into_iter().map(slice).collect()
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
