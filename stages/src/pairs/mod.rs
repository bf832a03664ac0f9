//! `pairs`: preference pairs for the prompts of the training span, and the reward that made them.
//!
//! [`action`] is the grammar of a decision, [`reward`] its score against what followed, [`fill`]
//! the model of resting orders, fitted on the training span, that the score needs, and [`rank`]
//! picks the chosen and the rejected action of a date. Each pair carries the outcome of its date,
//! so that any other action can be scored there too.
//!
//! A label looks ahead to t1 = t + `horizon_bars` + `markout_bars`. No pair's t1 passes the last
//! training row.
//!
//! What to know before training on them:
//!
//! * The chosen action is best in hindsight. Most of what sets days apart is the sign of the next
//!   move, which is noise; a model that learns the pairs by heart has learnt nothing.
//! * R of a limit counts its improvement on the spread as gained and a fall beyond its price as
//!   lost, but a rise after the fill as nothing; R of a market order counts the move both ways, by
//!   `adverse_weight`. Large moves are therefore won by market orders and small ones by limits,
//!   and the weight sets where the line lies: on daily bars of a stock index with bars of 1 and 1,
//!   0.25 gives market orders a fifth of the days, the default 0.5 44 %, 1 two thirds.
//! * Of the limits, far ones win until the modelled chance of a fill falls faster than the
//!   improvement grows, at about 0.75 sigma: give offsets on both sides of that, or the farthest
//!   always wins.
//! * Flat scores 0 and some side of some order is above that nearly always, in hindsight: flat is
//!   almost never chosen, and a model trained on that is never out of the market.
//!   `flat_below_bps` says what an order must at least be worth: on the same bars, 30 gives each of
//!   the five families about a fifth. The default, 0, is the plain ranking by R.
//!
//! The shares of each family among the chosen and the rejected are metrics of every run, and a
//! family with more than 80 % of the chosen is warned of. `max_family_share` caps it by leaving
//! pairs out; the default leaves all in.

pub mod action;
pub mod fill;
pub mod rank;
pub mod reward;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encode::prompt::{self, Prompt};
use crate::featurize::split::{Split, evenly};
use crate::featurize::table::{self, Row};
use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use action::{Action, FAMILIES, MAX_OFFSET_BPS, Side};
use fill::{BarWaits, Distance, FillModel};
use rank::{Preference, Rejected, Rules, candidates, outcome, prefer, sigma};
use reward::{Components, Outcome, RewardSpec};

/// The terms of the reward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reward {
    /// Fee of an order that rested, basis points; negative is a rebate.
    pub maker_fee_bps: f64,
    /// Fee of an order that crosses the spread, basis points.
    pub taker_fee_bps: f64,
    /// Half the spread, basis points. Without it, half of `spread_bps` of the date.
    pub half_spread_bps: Option<f64>,
    /// Weight of the markout: of the adverse part for limits, of all of it for market orders.
    pub adverse_weight: f64,
    /// Scale of the reward, in units of volatility over the horizon.
    pub scale: f64,
    /// Bars for which a limit order rests.
    pub horizon_bars: usize,
    /// Bars from the fill to the price that judges it.
    pub markout_bars: usize,
    /// Bars of close-to-close volatility behind the scale and the distance.
    pub sigma_window: usize,
    /// What the fill model takes for the distance of an order: `sigma`, volatilities over the
    /// horizon, or `bps`.
    pub fill_distance: Distance,
}

impl Default for Reward {
    fn default() -> Reward {
        Reward {
            maker_fee_bps: 0.0,
            taker_fee_bps: 1.0,
            half_spread_bps: None,
            adverse_weight: 0.5,
            scale: 1.0,
            horizon_bars: 1,
            markout_bars: 1,
            sigma_window: 20,
            fill_distance: Distance::default(),
        }
    }
}

/// Parameters of `pairs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// The reward.
    pub reward: Reward,
    /// Offsets of the limit orders that are compared, basis points; two at least.
    pub offsets_bps: Vec<u32>,
    /// Which action is rejected.
    pub rejected: Rejected,
    /// Least difference of R between chosen and rejected, basis points.
    pub min_gap_bps: f64,
    /// Flat is chosen where no order has an R of at least this, basis points.
    pub flat_below_bps: f64,
    /// Largest share of the pairs whose chosen action is of one family (`buy market`, `sell
    /// market`, `buy limit`, `sell limit`, `flat`); more are left out, evenly over time.
    pub max_family_share: f64,
    /// Pairs at most, spread evenly over time. Without it, all.
    pub max_pairs: Option<usize>,
    /// Seed of `rejected: random`.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            reward: Reward::default(),
            offsets_bps: vec![10, 25, 50, 100],
            rejected: Rejected::default(),
            min_gap_bps: 1.0,
            flat_below_bps: 0.0,
            max_family_share: 1.0,
            max_pairs: None,
            seed: 0,
        }
    }
}

/// A line of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The prompt's id.
    pub id: String,
    /// The date of the decision.
    pub t0: String,
    /// The last date that the label saw.
    pub t1: String,
    /// The prompt.
    pub prompt: String,
    /// The better completion, after a space.
    pub chosen: String,
    /// The worse completion, after a space.
    pub rejected: String,
    /// Reward of `chosen`, 0 to 1.
    pub reward_chosen: f64,
    /// Reward of `rejected`, 0 to 1.
    pub reward_rejected: f64,
    /// The terms of both.
    pub components: Both,
    /// What followed: enough to score any action at this date.
    pub outcome: Outcome,
}

/// The terms of both rewards.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Both {
    /// Of the chosen action.
    pub chosen: Terms,
    /// Of the rejected action.
    pub rejected: Terms,
}

/// R and its terms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// R, basis points.
    pub net_bps: f64,
    /// Its terms.
    #[serde(flatten)]
    pub terms: Components,
}

/// The stage.
pub struct Pairs;

impl Stage for Pairs {
    const NAME: &'static str = "pairs";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "preference pairs from an execution-aware reward";
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("prompts", Format::Prompts), Port::input("features", Format::Features)]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("pairs", Format::Pairs, "pairs.jsonl"),
            Port::file("reward", Format::Metrics, "reward.json"),
        ]
    }

    fn check(params: &Params) -> Result<(), Invalid> {
        check(params)
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let path = ctx.file("features")?;
        let rows = table::read(path)?;
        let last = rows.iter().rposition(|row| row.split == Split::Train).ok_or_else(|| {
            StageError::bad(path, "no row of split `train`")
                .hint("check `splits` of the featurize stage")
        })?;
        let span = rows.get(..=last).unwrap_or_default();
        let r = &params.reward;
        ctx.progress(0, 0, "prompts", "fitting the fill model")?;
        let (fill, log_likelihood) = fit_fill(span, params).ok_or_else(|| {
            StageError::bad(path, "no fill model: limit orders at these offsets never fill")
                .hint("choose `offsets_bps` within the range of a bar")
        })?;
        let spec = RewardSpec {
            maker_fee_bps: r.maker_fee_bps,
            taker_fee_bps: r.taker_fee_bps,
            adverse_weight: r.adverse_weight,
            scale: r.scale,
            horizon_bars: r.horizon_bars,
            markout_bars: r.markout_bars,
            fill,
            fill_distance: r.fill_distance,
        };
        ctx.metric("fill_log_likelihood", log_likelihood);
        let mut pairs = compare(span, params, &spec, ctx)?;
        thin(&mut pairs, params);
        let mut out = std::io::BufWriter::new(fs_err::File::create(ctx.output("pairs")?)?);
        for (pair, _) in &pairs {
            serde_json::to_writer(&mut out, pair).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        let mut json = serde_json::to_string_pretty(&spec).map_err(std::io::Error::from)?;
        json.push('\n');
        fs_err::write(ctx.output("reward")?, json)?;
        report(&pairs, &spec, &params.offsets_bps, ctx);
        Ok(())
    }
}

fn check(params: &Params) -> Result<(), Invalid> {
    let r = &params.reward;
    let finite = [
        ("reward.maker_fee_bps", r.maker_fee_bps),
        ("reward.taker_fee_bps", r.taker_fee_bps),
        ("flat_below_bps", params.flat_below_bps),
    ];
    for (name, value) in finite {
        if !value.is_finite() {
            return Err(Invalid::new(name, "must be a finite number"));
        }
    }
    let not_negative = [
        ("reward.adverse_weight", r.adverse_weight),
        ("reward.half_spread_bps", r.half_spread_bps.unwrap_or(0.0)),
        ("min_gap_bps", params.min_gap_bps),
    ];
    for (name, value) in not_negative {
        if !(value >= 0.0 && value.is_finite()) {
            return Err(Invalid::new(name, "must be 0 or more"));
        }
    }
    if !(r.scale > 0.0 && r.scale.is_finite()) {
        return Err(Invalid::new("reward.scale", "must be above 0"));
    }
    for (name, bars) in
        [("reward.horizon_bars", r.horizon_bars), ("reward.markout_bars", r.markout_bars)]
    {
        if !(1..=1000).contains(&bars) {
            return Err(Invalid::new(name, "must lie between 1 and 1000"));
        }
    }
    if !(2..=1000).contains(&r.sigma_window) {
        return Err(Invalid::new("reward.sigma_window", "must lie between 2 and 1000"));
    }
    let mut offsets = params.offsets_bps.clone();
    offsets.sort_unstable();
    offsets.dedup();
    let inside = offsets.iter().all(|offset| (1..=MAX_OFFSET_BPS).contains(offset));
    if offsets.len() < 2 || offsets.len() != params.offsets_bps.len() || !inside {
        let message = format!("must be two or more different offsets of 1 to {MAX_OFFSET_BPS}");
        return Err(Invalid::new("offsets_bps", message)
            .help("the fill model needs two offsets to see how fills fall with distance"));
    }
    if !(params.max_family_share > 0.2 && params.max_family_share <= 1.0) {
        return Err(Invalid::new("max_family_share", "must be above 0.2 and at most 1")
            .help("there are five families: a fifth each is the least that can be asked"));
    }
    if params.max_pairs == Some(0) {
        return Err(Invalid::new("max_pairs", "must be above 0"));
    }
    Ok(())
}

/// Rows that determine the two numbers of the fill model well enough.
const FILL_ROWS: usize = 20_000;

/// Rests a limit on each side, at each offset, at each training row, and sees when it fills.
/// Orders whose time would pass the end of the span are left out; a long span is represented by
/// [`FILL_ROWS`] rows spread evenly. The model and its log-likelihood.
fn fit_fill(span: &[Row], params: &Params) -> Option<(FillModel, f64)> {
    let r = &params.reward;
    let mut waits: Vec<BarWaits> = Vec::new();
    for at in evenly(span.len(), FILL_ROWS) {
        let Some(row) = span.get(at) else { break };
        let Some(ahead) = span.get(at + 1..at + 1 + r.horizon_bars) else { break };
        let sigma = sigma(span, at, r.horizon_bars, r.sigma_window);
        let (Some(sigma), Split::Train) = (sigma, row.split) else { continue };
        for &offset in &params.offsets_bps {
            let offset = f64::from(offset);
            let mut both =
                BarWaits { distance: r.fill_distance.of(offset, sigma), ..BarWaits::default() };
            for side in [Side::Buy, Side::Sell] {
                let price = row.bar.close * (1.0 - side.sign() * offset / 1e4);
                let through = |bar: &Row| match side {
                    Side::Buy => bar.bar.low < price,
                    Side::Sell => bar.bar.high > price,
                };
                match ahead.iter().position(through) {
                    Some(before) => {
                        both.fills += 1.0;
                        both.bars_without += before as f64;
                    }
                    None => both.bars_without += r.horizon_bars as f64,
                }
            }
            waits.push(both);
        }
    }
    let model = fill::fit_bars(&waits)?;
    Some((model, fill::log_likelihood(&model, &waits)))
}

/// The pair of every training prompt that has one, in the order of the prompts.
fn compare(
    span: &[Row],
    params: &Params,
    spec: &RewardSpec,
    ctx: &Context,
) -> Result<Vec<(Pair, Preference)>> {
    let path = ctx.file("prompts")?;
    let prompts = prompt::read(path)?;
    let places: BTreeMap<&str, usize> =
        span.iter().enumerate().map(|(at, row)| (row.bar.date.as_str(), at)).collect();
    let r = &params.reward;
    let rules = Rules {
        min_gap_bps: params.min_gap_bps,
        flat_below_bps: params.flat_below_bps,
        rejected: params.rejected,
        seed: params.seed,
    };
    let actions = candidates(&params.offsets_bps);
    let train: Vec<Prompt> = prompts.into_iter().filter(|p| p.split == Split::Train).collect();
    let (total, mut cut, mut close) = (train.len(), 0usize, 0usize);
    let mut pairs = Vec::new();
    for (done, prompt) in train.into_iter().enumerate() {
        if done % 1000 == 0 {
            ctx.progress(done as u64, total as u64, "prompts", "")?;
        }
        let at = match places.get(prompt.t0.as_str()) {
            Some(&at) if span.get(at).is_some_and(|row| row.split == Split::Train) => at,
            _ => {
                let message = format!("prompt `{}` is of no training row", prompt.id);
                return Err(StageError::bad(path, message)
                    .hint("prompts and features must come from the same featurize stage"));
            }
        };
        let (h, tau) = (r.horizon_bars, r.markout_bars);
        let followed = outcome(span, at, h, tau, r.half_spread_bps, r.sigma_window);
        let end = span.get(at + h + tau);
        let (Some(outcome), Some(end)) = (followed, end) else {
            cut += 1;
            continue;
        };
        let Some(preference) = prefer(spec, &outcome, &actions, &rules, &prompt.t0) else {
            close += 1;
            continue;
        };
        pairs.push((pair(prompt, end, outcome, &preference), preference));
    }
    ctx.progress(total as u64, total as u64, "prompts", "")?;
    ctx.metric("prompts_train", total as f64);
    ctx.metric("dropped_label_past_train_end", cut as f64);
    ctx.metric("dropped_gap_too_small", close as f64);
    if pairs.is_empty() {
        return Err(StageError::bad(path, format!("no pairs: {total} training prompts, {cut} of them with a label past the end of the training span, {close} with too small a gap"))
            .hint("lower `min_gap_bps`, or give `encode` more training rows"));
    }
    Ok(pairs)
}

fn pair(prompt: Prompt, end: &Row, outcome: Outcome, preference: &Preference) -> Pair {
    let (chosen, rejected) = (&preference.chosen, &preference.rejected);
    let terms = |score: &reward::Score| Terms { net_bps: score.net_bps, terms: score.components };
    Pair {
        id: prompt.id,
        t0: prompt.t0,
        t1: end.bar.date.clone(),
        prompt: prompt.prompt,
        chosen: format!(" {}", chosen.0),
        rejected: format!(" {}", rejected.0),
        reward_chosen: chosen.1.reward,
        reward_rejected: rejected.1.reward,
        components: Both { chosen: terms(&chosen.1), rejected: terms(&rejected.1) },
        outcome,
    }
}

/// Leaves out pairs of families that are over their share, then those over the number.
fn thin(pairs: &mut Vec<(Pair, Preference)>, params: &Params) {
    let family = |pair: &(Pair, Preference)| pair.1.chosen.0.family();
    let count = |name: &str| pairs.iter().filter(|pair| family(pair) == name).count();
    let counts = FAMILIES.map(|name| (name, count(name)));
    let cap = family_cap(&counts.map(|(_, n)| n), params.max_family_share);
    let mut kept: Vec<usize> = Vec::with_capacity(pairs.len());
    for (name, n) in counts {
        let places: Vec<usize> = (0..pairs.len())
            .filter(|&at| pairs.get(at).is_some_and(|p| family(p) == name))
            .collect();
        kept.extend(evenly(n, cap).filter_map(|i| places.get(i)));
    }
    kept.sort_unstable();
    let kept: Vec<usize> = evenly(kept.len(), params.max_pairs.unwrap_or(usize::MAX))
        .filter_map(|i| kept.get(i).copied())
        .collect();
    let mut at = 0;
    pairs.retain(|_| {
        at += 1;
        kept.binary_search(&(at - 1)).is_ok()
    });
}

/// The most pairs that each family may keep, so that none has more than `share` of what is left.
fn family_cap(counts: &[usize], share: f64) -> usize {
    let mut left: usize = counts.iter().sum();
    loop {
        let cap = ((left as f64 * share) as usize).max(1);
        let kept = counts.iter().map(|&n| n.min(cap)).sum();
        if kept == left {
            return cap;
        }
        left = kept;
    }
}

fn report(pairs: &[(Pair, Preference)], spec: &RewardSpec, offsets: &[u32], ctx: &Context) {
    let n = pairs.len() as f64;
    let mean = |of: &dyn Fn(&Preference) -> f64| pairs.iter().map(|p| of(&p.1)).sum::<f64>() / n;
    ctx.metric("pairs", n);
    ctx.metric("gap_mean_bps", mean(&|p| p.chosen.1.net_bps - p.rejected.1.net_bps));
    ctx.metric("reward_chosen_mean", mean(&|p| p.chosen.1.reward));
    ctx.metric("reward_rejected_mean", mean(&|p| p.rejected.1.reward));
    ctx.metric("fill_a", spec.fill.a);
    ctx.metric("fill_k", spec.fill.k);
    let share = |of: &dyn Fn(&Preference) -> Action, name: &str| {
        mean(&|p| f64::from(of(p).family() == name))
    };
    for name in FAMILIES {
        let chosen = share(&|p| p.chosen.0, name);
        let slug = name.replace(' ', "_");
        ctx.metric(&format!("chosen_{slug}"), chosen);
        ctx.metric(&format!("rejected_{slug}"), share(&|p| p.rejected.0, name));
        if chosen > 0.8 {
            ctx.warn(format!(
                "{:.0} % of the pairs choose `{name}`: a model can win by always saying it; see `max_family_share` and `reward.adverse_weight`",
                100.0 * chosen
            ));
        }
    }
    for &offset in offsets {
        let at = |a: Action| matches!(a, Action::Limit(_, o) if o == offset);
        ctx.metric(&format!("chosen_limit_{offset}"), mean(&|p| f64::from(at(p.chosen.0))));
    }
}
