//! From a language model's answers to everything that the report says.
//!
//! [`Assessment`] is what `metrics.json` holds; the report is a view of it and computes nothing. A
//! numerical model's forecasts come in by `positions`, and end in the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::anonymise::{Anonymised, Change, Replaced};
use super::answers::{Answer, Tally, tally};
use super::assessment::{
    Assessment, BASE, Contamination, Decision, HOLD, MODEL, Provenance, Rival, Sample, Seeds,
    Selection, Source, Splits, Training,
};
use super::backtest::Path;
use super::baselines::{RULES, majority, vol_targeted};
use super::causality::{self, Check, Outcome};
use super::contest::{Case, Contest, contest};
use super::control::Control;
use super::forecasts::Run;
use super::importance::Importance;
use super::inference::bootstrap;
use super::input::{Prompt, Table};
use super::metrics::sharpe;
use super::numbers::many;
use super::panel::Panel;
use super::params::Params;
use super::plan::{Moves, Plan};
use super::policy::Policy;
use super::quality::Quality;
use super::queues::Fills;
use super::selection::{self, Trial};
use super::{facts, leaks, verdict};
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
    /// The model's answers to prompts without names and dates.
    pub anonymous: Option<Anonymous>,
    /// What is known of its training.
    pub training: Training,
    /// What the models are, in a line each.
    pub about: Vec<String>,
    /// Numerical models on the same bars, by name: they trade by weights.
    pub baselines: Vec<Run>,
    /// Digests of the inputs.
    pub inputs: Vec<Source>,
    /// Returns of other configurations on the same bars.
    pub trials: Vec<Trial>,
    /// Follows limit orders of these offsets through the book's queues, where its events are given.
    pub queues: Option<&'a Following<'a>>,
}

/// Follows limit orders of some offsets on a panel.
pub type Following<'a> = dyn Fn(&Panel, &[u32]) -> Result<Vec<Fills>> + 'a;

/// What came of taking names and dates out of the prompts.
pub struct Anonymous {
    /// What was replaced.
    pub replaced: Replaced,
    /// A prompt that changed.
    pub example: Option<String>,
    /// Raw answers, one a prompt; `None` where nothing was replaced.
    pub answers: Option<Vec<String>>,
}

/// A decision for each bar, where one was taken.
type Decided = Vec<Option<Said>>;

/// Replays, compares and judges.
///
/// # Errors
/// Fewer than two bars follow the first decision.
pub fn assess(given: Given) -> Result<Assessment> {
    let (params, table, seed) = (given.params, given.table, given.seed);
    let first = given.prompts.first().map_or(0, |p| p.row);
    let last = last_row(&given);
    let whole = Panel::single(table);
    let mut panel = span(&whole, first, last)?;
    let per_year = per_year(params, table.per_year())?;
    let read = |raws: &Vec<String>| -> Vec<Answer> {
        let each = given.prompts.iter().zip(raws);
        each.map(|(p, raw)| Answer::new(p.row, raw.clone())).collect()
    };
    let model = read(&given.model);
    let base = given.base.as_ref().map(read);
    let mut plans = plans(&given, first, panel.len(), &model, base.as_deref());
    let policy = Policy { max_weight: params.unit, gross: params.unit, ..Policy::default() };
    for run in &given.baselines {
        let every = policy.every(run.horizon);
        let weights = policy.weights(&run.judged, first, panel.len(), 1, every);
        plans.push(Plan {
            name: run.name.clone(),
            about: format!(
                "a numerical model’s forecasts: the whole position in the direction of p_up - p_down, set anew every {}",
                many(every, "bar")
            ),
            moves: Moves::Weights(weights),
        });
    }
    plans.push(vol_targeted(&whole.slice(0..last + 1), first, (1, per_year, params.unit)));
    let mine = plans[0].moves.clone();
    let storm: Vec<Option<f64>> =
        (first..=last).map(|row| table.feature("p_high_vol", row)).collect();
    let anonymous = given.anonymous.as_ref().and_then(|a| a.answers.as_ref()).map(read);
    let queues = match given.queues {
        None => Vec::new(),
        Some(follow) => {
            let other = anonymous.iter().map(|answers| said(answers, first, panel.len()).offsets());
            let all = plans.iter().map(|plan| plan.moves.offsets()).chain(other);
            let offsets: BTreeSet<u32> = all.flatten().collect();
            let fills = follow(&panel, &offsets.into_iter().collect::<Vec<_>>())?;
            fills.into_iter().map(Arc::new).collect()
        }
    };
    panel.queue = queues.first().cloned();
    let case = Case {
        params,
        seed: given.seed,
        panel: &panel,
        plans,
        per_year,
        storm: &storm,
        queues: &queues,
    };
    let found = contest(case);
    let rules = params.rules();
    let ahead = params.horizon.max(1);
    let mut answers = vec![tally("model", &model, table, ahead)];
    answers.extend(base.as_deref().map(|base| tally("base", base, table, ahead)));
    let paths = |name: &str| found.strategies.iter().find(|s| s.name == name).map(|s| &s.path);
    let mut decisions = Vec::new();
    for (answers, source, name) in [(Some(&model), "model", MODEL), (base.as_ref(), "base", BASE)] {
        if let Some((answers, path)) = answers.zip(paths(name)) {
            decisions.extend(rows(answers, source, path, first, rules.latency, &panel.dates));
        }
    }
    let anonymised = given.anonymous.as_ref().map(|given| {
        let change = anonymous.as_ref().map(|other| {
            let path = said(other, first, panel.len()).play(&panel, &rules);
            decisions.extend(rows(other, "anonymised", &path, first, rules.latency, &panel.dates));
            let draws = (found.block, params.draws, seed);
            let named = found.strategies[0].path.returns();
            change((&model, &named), (other, &path.returns()), per_year, draws)
        });
        Anonymised {
            shift_days: params.anonymise.as_ref().map_or(0, |a| a.shift_days),
            replaced: given.replaced.clone(),
            example: given.example.clone(),
            change,
        }
    });
    let block = (found.block.ceil() as usize).max(params.horizon).max(1);
    let tables = [(String::new(), table.clone())];
    let mut causality = vec![
        causality::truncated(&panel, &rules, &|dates| mine.until(dates)),
        causality::delayed(&found.delays),
        causality::shuffled(
            causality::shuffle(&mine, &panel, &rules, (block, per_year, given.seed)),
            block,
            "decisions",
        ),
        causality::tables(&tables),
        causality::planted(table, given.seed),
        prompts_check(given.prompts, table),
    ];
    let splits = facts::splits(&tables, params.split.name(), params.horizon.max(1), &[]);
    causality.push(facts::overlap_check(&splits));
    let provenance = Provenance {
        seed: given.seed,
        first: panel.dates.first().cloned().unwrap_or_default(),
        last: panel.dates.last().cloned().unwrap_or_default(),
        bars: panel.len(),
        per_year,
        assets: Vec::new(),
        trained: facts::trained(&tables),
        decisions: given.prompts.len(),
        available: given.available,
        horizon: 0,
        block: found.block,
        models: given.about.clone(),
        inputs: given.inputs,
        params: params.clone(),
    };
    let selection = selection::known(&found.strategies, &panel.dates, &given.trials, per_year);
    let parts = Parts {
        contamination: facts::contamination(params, &provenance.first, true)
            .and(anonymised.as_ref()),
        anonymised,
        samples: samples(params.samples, given.prompts, &model, base.as_deref(), table),
        provenance,
        causality,
        splits,
        selection,
        answers,
        decisions,
        training: given.training,
        dates: panel.dates.clone(),
        storm,
        ..Parts::default()
    };
    Ok(parts.judged(found))
}

fn prompts_check(prompts: &[Prompt], table: &Table) -> Check {
    const NAME: &str = "prompts that know the future";
    match leaks::prompts(prompts, table) {
        None => Check::new(
            NAME,
            Outcome::Clean,
            "no prompt names a date after its own, and hardly any a price of the bars that follow and of none before",
        ),
        Some(leak) => Check::new(NAME, Outcome::Caught, leak.said),
    }
}

/// The part of a panel that is judged.
///
/// # Errors
/// It has fewer than three dates.
pub fn span(whole: &Panel, first: usize, last: usize) -> Result<Panel> {
    let bars = (last + 1).saturating_sub(first);
    if bars < 3 {
        return Err(StageError::failed(format!(
            "the test span has {bars} bars from the first decision on"
        ))
        .hint("a backtest needs at least 3; leave a longer test span in `featurize`"));
    }
    Ok(whole.slice(first..last + 1))
}

/// Bars a year: the parameter's, else those read off the dates.
///
/// # Errors
/// Neither is there.
pub fn per_year(params: &Params, read: Option<f64>) -> Result<f64> {
    params.periods_per_year.or(read).ok_or_else(|| {
        StageError::failed("the dates do not say how many bars a year has")
            .hint("set `periods_per_year`")
    })
}

/// What stands beside a contest in an assessment.
#[derive(Default)]
pub struct Parts {
    /// As the field of [`Assessment`]; so are the others.
    pub provenance: Provenance,
    /// See there.
    pub contamination: Contamination,
    /// See there.
    pub anonymised: Option<Anonymised>,
    /// See there.
    pub causality: Vec<Check>,
    /// See there.
    pub control: Option<Control>,
    /// See there.
    pub splits: Splits,
    /// See there.
    pub selection: Selection,
    /// See there.
    pub seeds: Option<Seeds>,
    /// See there.
    pub answers: Vec<Tally>,
    /// See there.
    pub quality: Vec<Quality>,
    /// See there.
    pub rivals: Vec<Rival>,
    /// See there.
    pub importance: Option<Vec<Importance>>,
    /// See there.
    pub decisions: Vec<Decision>,
    /// See there.
    pub samples: Vec<Sample>,
    /// See there.
    pub training: Training,
    /// See there.
    pub dates: Vec<String>,
    /// See there.
    pub storm: Vec<Option<f64>>,
}

impl Parts {
    /// The whole, with its verdict.
    pub fn judged(self, found: Contest) -> Assessment {
        let mut assessment = Assessment {
            provenance: self.provenance,
            contamination: self.contamination,
            anonymised: self.anonymised,
            causality: self.causality,
            control: self.control,
            splits: self.splits,
            strategies: found.strategies,
            random: found.random,
            scenarios: found.scenarios,
            break_even_bps: found.break_even_bps,
            delays: found.delays,
            years: found.years,
            regimes: found.regimes,
            seeds: self.seeds,
            selection: self.selection,
            answers: self.answers,
            quality: self.quality,
            rivals: self.rivals,
            importance: self.importance,
            index: found.index,
            targets: Vec::new(),
            verdict: Vec::new(),
            dates: self.dates,
            market: found.market,
            storm: self.storm,
            fan: found.fan,
            training: self.training,
            decisions: self.decisions,
            samples: self.samples,
        };
        assessment.targets = verdict::targets(&assessment);
        assessment.verdict = verdict::sentences(&assessment);
        assessment
    }
}

/// Answers as orders on the bars of the backtest; what is no action is flat.
fn said(answers: &[Answer], first: usize, bars: usize) -> Moves {
    let mut decided: Decided = vec![None; bars];
    for answer in answers {
        if let Some(slot) = decided.get_mut(answer.row - first) {
            *slot = Some(answer.decision.unwrap_or(Said::Flat));
        }
    }
    Moves::Orders(decided)
}

/// Decisions and returns with names and dates, against those without.
fn change(
    (model, named): (&[Answer], &[f64]),
    (other, anonymous): (&[Answer], &[f64]),
    per_year: f64,
    (block, draws, seed): (f64, usize, u64),
) -> Change {
    let others = model.iter().zip(other).filter(|(a, b)| a.decision != b.decision).count();
    let sampled = bootstrap(&[named, anonymous], per_year, block, draws, seed);
    Change {
        decisions: others as f64 / model.len().max(1) as f64,
        named: sharpe(named, per_year),
        anonymous: sharpe(anonymous, per_year),
        difference: sampled.get(1).and_then(|s| s.sharpe_behind_first),
    }
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
    let plan = |name: &str, about: &str, decided: Decided| Plan {
        name: name.into(),
        about: about.into(),
        moves: Moves::Orders(decided),
    };
    let answered = |name: &str, about: &str, answers: &[Answer]| Plan {
        name: name.into(),
        about: about.into(),
        moves: said(answers, first, bars),
    };
    let sent = |answer: &Answer| answer.decision.unwrap_or(Said::Flat).action();
    let actions: Vec<Action> = model.iter().map(sent).collect();
    let mut plans = vec![answered(MODEL, "the model’s answers", model)];
    if let Some(base) = base {
        plans.push(answered(BASE, "the answers of the model before tuning", base));
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
            .map_or(0.0, |units| f64::from(*units)),
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
