//! `pairs`: preference pairs for the prompts of the training span, and the reward that made them.
//!
//! [`action`] is the grammar of an action, [`decision`] that of an action with a size, as JSON and as a
//! code, and [`order`] the way from there to an exchange. [`reward`] is an action's score against what
//! followed, [`fill`] the model of resting orders, fitted on the training span, that the score needs,
//! and [`rank`] picks the chosen and the rejected actions of a date. Each pair carries the outcome of
//! its date, so that any other action can be scored there too.
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
//! pairs out, with `balance_regimes` in calm and in volatile times apart; the default leaves all in.
//!
//! The fill model is fitted to bars by default: an order fills once a price trades through it, which
//! needs no book and errs to too few fills. `fills: queue` rests orders in the queues of a book that
//! `events` tell of, `fills: orders` takes the lives of real orders. Where a basis point is many ticks
//! most orders fill as the market passes them, and the queue decides little: of orders 1 to 10 basis
//! points away from bitcoin's mid for ten seconds 7 % (spot) and 25 % (COIN-M) joined behind others,
//! 1 to 2 % and 4 to 6 % of the fills came in the queue, by the model of [`queue::Queue`], and A and k
//! were the same to three digits.
//! It is for large ticks.
//!
//! `sizes`, `hold` and `cancel` widen what is compared. They mean something beside an account: port
//! `account` says what is held and what rests at each date, and the outcome of a pair keeps both.
//!
//! Other trainers read `pairs.jsonl` as it is. TRL's `DPOTrainer` takes `prompt`, `chosen` and
//! `rejected`; Axolotl the same, as `type: { field_prompt: prompt }` of a dataset with `rl: dpo`;
//! LLaMA-Factory by an entry of `dataset_info.json`: `{"ranking": true, "columns": {"prompt":
//! "prompt", "chosen": "chosen", "rejected": "rejected"}}`.
//!
//! Each pair has a `rationale` ([`rationale`]): a sentence for people, made of the score's terms. It
//! knows what followed. It is never part of the prompt or the completions, and must not become one.

pub mod action;
mod balance;
mod charts;
mod compare;
pub mod decision;
pub mod exchange;
pub mod fill;
mod follow;
mod observe;
pub mod order;
pub mod queue;
pub mod rank;
pub mod rationale;
mod repeats;
mod report;
pub mod reward;

#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::featurize::table;
use crate::market::Source;
use crate::market::quality::Quality;
use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use action::MAX_OFFSET_BPS;
use decision::{Form, MAX_SIZE};
use fill::Distance;
use order::Desk;
use queue::Queue;
use rank::Rejected;
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
    /// What each further unit of an order makes all of its units dearer, basis points: without it the
    /// largest of `sizes` wins wherever an order is worth anything.
    #[serde(skip_serializing_if = "free")]
    pub size_impact_bps: f64,
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

fn free(impact: &f64) -> bool {
    *impact == 0.0
}

impl Default for Reward {
    fn default() -> Reward {
        Reward {
            maker_fee_bps: 0.0,
            taker_fee_bps: 1.0,
            half_spread_bps: None,
            adverse_weight: 0.5,
            size_impact_bps: 0.0,
            scale: 1.0,
            horizon_bars: 1,
            markout_bars: 1,
            sigma_window: 20,
            fill_distance: Distance::default(),
        }
    }
}

/// What the fill model is fitted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fills {
    /// Bars, or the trades in each: an order fills in the first that trades through it.
    #[default]
    Bars,
    /// The events of port `events`: orders are imagined to rest in the queues of the book.
    Queue,
    /// The orders of port `events`, one by one: when others' orders were filled.
    Orders,
}

/// Parameters of `pairs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// The reward.
    pub reward: Reward,
    /// What the fill model is fitted to. `queue` and `orders` read the port `events`.
    pub fills: Fills,
    /// Of `fills: queue`: which of the units that are cancelled were ahead of an order.
    pub queue: Queue,
    /// What the files of `events` hold: `binance` or `orders`, as in `featurize`.
    pub source: Source,
    /// How many faults of `events` are put up with, as in `featurize`.
    pub quality: Quality,
    /// Offsets of the limit orders that are compared, basis points; two at least.
    pub offsets_bps: Vec<u32>,
    /// Sizes of the orders that are compared, units: `buy market x2` wants a position of two. The largest
    /// is also the most that the reward counts in an answer.
    #[serde(skip_serializing_if = "usual_sizes")]
    pub sizes: Vec<u32>,
    /// Whether leaving the position and the order that rests is compared too. Needs port `account`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Whether taking the order that rests back is compared too. Needs port `account`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// How the answers are written. `train` and `evaluate` read all three.
    pub answers: Form,
    /// What is traded and within which limits: each pair then holds the `order` that would be sent of
    /// the chosen answer, or why none may be.
    pub desk: Option<Desk>,
    /// Which action is rejected.
    pub rejected: Rejected,
    /// Pairs for each prompt at most: the chosen action against so many different ones. More than 1 is
    /// for `dpo`: `dapo` samples answers of its own, and would ask the same prompt again.
    pub per_prompt: usize,
    /// Least difference of R between chosen and rejected, basis points.
    pub min_gap_bps: f64,
    /// Flat is chosen where no order has an R of at least this, basis points.
    pub flat_below_bps: f64,
    /// Largest share of the pairs whose chosen action is of one family (`buy market`, `sell
    /// market`, `buy limit`, `sell limit`, `flat`); more are left out, evenly over time.
    pub max_family_share: f64,
    /// Whether `max_family_share` holds in calm times (`p_high_vol` below 0.5) and in volatile ones
    /// apart, so that no family stands for a regime. Needs the feature `p_high_vol`.
    pub balance_regimes: bool,
    /// Pairs at most, spread evenly over time. Without it, all.
    pub max_pairs: Option<usize>,
    /// Seed of `rejected: random`.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            reward: Reward::default(),
            fills: Fills::default(),
            queue: Queue::default(),
            source: Source::default(),
            quality: Quality::default(),
            offsets_bps: vec![10, 25, 50, 100],
            sizes: vec![1],
            hold: false,
            cancel: false,
            answers: Form::default(),
            desk: None,
            rejected: Rejected::default(),
            per_prompt: 1,
            min_gap_bps: 1.0,
            flat_below_bps: 0.0,
            max_family_share: 1.0,
            balance_regimes: false,
            max_pairs: None,
            seed: 0,
        }
    }
}

fn usual_sizes(sizes: &[u32]) -> bool {
    *sizes == [1]
}

/// A line of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The prompt's id; of further pairs of the same prompt with `#2`, `#3` and so on after it.
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
    /// Why, in a sentence for people. It knows what followed: no model may read it.
    pub rationale: String,
    /// What would be sent of `chosen`, where there is a desk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
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
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "preference pairs from an execution-aware reward";
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        let mut ports = vec![
            Port::input("prompts", Format::Prompts),
            Port::input("features", Format::Features),
            Port::optional("account", Format::Any),
        ];
        if params.fills != Fills::Bars {
            ports.push(Port::input("events", Format::Any));
        }
        ports
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("pairs", Format::Pairs, "pairs.jsonl"),
            Port::file("reward", Format::Metrics, "reward.json"),
            Port::file("report", Format::Report, "report.html"),
        ]
    }

    fn check(params: &Params) -> Result<(), Invalid> {
        check(params)
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let files = table::files(ctx)?;
        let extent = table::extent(&files)?;
        let r = &params.reward;
        ctx.progress(0, 0, "prompts", "fitting the fill model")?;
        let fitted = observe::fit(extent, params, ctx)?.ok_or_else(|| {
            let what = "no fill model: limit orders at these offsets never fill";
            StageError::bad(table::first(&files), what)
                .hint("choose `offsets_bps` within the range of a bar")
        })?;
        let spec = RewardSpec {
            maker_fee_bps: r.maker_fee_bps,
            taker_fee_bps: r.taker_fee_bps,
            adverse_weight: r.adverse_weight,
            scale: r.scale,
            horizon_bars: r.horizon_bars,
            markout_bars: r.markout_bars,
            fill: fitted.model,
            fill_distance: r.fill_distance,
            max_size: params.sizes.iter().copied().max().unwrap_or(1),
            size_impact_bps: r.size_impact_bps,
        };
        if fitted.model.k <= 0.0 {
            ctx.warn(format!(
                "fills do not fall with distance (k = {}): where the volatility of `sigma_window` bars says little of the next ones, set `reward.fill_distance` to `bps`",
                fitted.model.k
            ));
        }
        ctx.metric("fill_log_likelihood", fitted.log_likelihood);
        ctx.metric("fill_orders", fitted.orders);
        ctx.metric("fill_fills", fitted.fills);
        let (stats, shown) = compare::write(extent, params, &spec, ctx)?;
        let page = report::render(ctx.output("pairs")?, (&stats, &shown), &fitted, &spec, params)?;
        fs_err::write(ctx.output("report")?, page)?;
        let mut json = serde_json::to_string_pretty(&spec).map_err(std::io::Error::from)?;
        json.push('\n');
        fs_err::write(ctx.output("reward")?, json)?;
        ctx.metric("fill_a", spec.fill.a);
        ctx.metric("fill_k", spec.fill.k);
        if let Some([a, k]) = fitted.errors {
            ctx.metric("fill_a_error", a);
            ctx.metric("fill_k_error", k);
        }
        Ok(())
    }
}

fn check(params: &Params) -> Result<(), Invalid> {
    let r = &params.reward;
    check_fills(params)?;
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
        ("reward.size_impact_bps", r.size_impact_bps),
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
    if params.balance_regimes && params.max_family_share == 1.0 {
        return Err(Invalid::new("balance_regimes", "has nothing to hold in each regime")
            .help("set `max_family_share` below 1, such as 0.3"));
    }
    let mut sizes = params.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    let inside = sizes.iter().all(|size| (1..=MAX_SIZE).contains(size));
    if sizes.is_empty() || sizes.len() != params.sizes.len() || !inside {
        return Err(Invalid::new("sizes", format!("must be different sizes of 1 to {MAX_SIZE}")));
    }
    let others = 2 * (params.offsets_bps.len() + 1) * sizes.len()
        + usize::from(params.hold)
        + usize::from(params.cancel);
    if !(1..=others).contains(&params.per_prompt) {
        return Err(Invalid::new("per_prompt", format!("must lie between 1 and {others}"))
            .help("there is flat, and a market order and a limit at each offset on both sides"));
    }
    if params.max_pairs == Some(0) {
        return Err(Invalid::new("max_pairs", "must be above 0"));
    }
    Ok(())
}

/// What the fill model is fitted to, against the source that it is to come from.
fn check_fills(params: &Params) -> Result<(), Invalid> {
    params.source.check().map_err(|mut e| {
        e.path = format!("source.{}", e.path);
        e
    })?;
    if let Queue::Power(n) = params.queue
        && !(n > 0.0 && n <= 100.0)
    {
        return Err(Invalid::new("queue.power", "must be above 0 and at most 100"));
    }
    let fits = match (params.fills, &params.source) {
        (Fills::Bars, Source::Bars(_)) => true,
        (Fills::Bars, _) => {
            return Err(Invalid::new("source", "is not read with `fills: bars`")
                .help("set `fills` to `queue` or `orders`, or leave `source` out"));
        }
        (Fills::Queue, Source::Binance(_) | Source::Orders(_)) => true,
        (Fills::Orders, Source::Orders(_)) => true,
        _ => false,
    };
    match (fits, params.fills) {
        (true, _) => Ok(()),
        (_, Fills::Orders) => Err(Invalid::new("source", "does not tell orders apart")
            .help("`fills: orders` needs `source: { orders: {} }`")),
        _ => Err(Invalid::new("source", "tells of no trades, or of no book")
            .help("`fills: queue` needs the book and the trades: `binance` or `orders`")),
    }
}
