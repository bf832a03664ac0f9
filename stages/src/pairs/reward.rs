//! The reward of an order, in one place: pairs are ranked with it and decoded completions are
//! scored with it, so that both mean the same.
//!
//! For side s (+1 buy, -1 sell), mid m (the close; m0 at the decision), half spread h, a limit d
//! away from the mid, horizon H and markout tau (bars), all terms in basis points of m0:
//!
//! ```text
//! limit    R = P (PI - maker - w AS) - (1 - P) OC
//!          P  = 1 - exp(-A e^(-k x) H)                 Avellaneda-Stoikov 2008; x = d/sigma_H, or d
//!          PI = s (touch_opp,0 - p)   = h + d          against crossing the spread at once
//!          AS = max(0, -Markout), Markout = s (m_(fill+tau) - p)
//!          OC = max(0, s (touch_opp,H - touch_opp,0))  what chasing it costs later
//! market   R = -h - taker + w Markout, Markout = s (m_tau - m0)
//! flat     R = 0
//! n units    n R - n (n - 1) impact                   impact of a limit times P
//! reward     = 1/2 + 1/2 tanh(R / (c sigma_H))
//! ```
//!
//! A limit at p fills in the first later bar, within H, that trades through p (touching is not
//! enough: nothing is known of the queue), at p even where the bar opened beyond it. Where none
//! does, the fill that `P` still allows is taken to happen in bar H, so that its markout is that
//! of t + H + tau.
//!
//! P stays the modelled probability where the bars show whether the order filled (`filled` among
//! the components): an order that was lucky to fill is still charged (1 - P) OC. This keeps one
//! path from deciding how far away to rest.
//!
//! A size is a position to be had, as in the backtest: of an account that holds p units, an order of side s
//! and size q trades s q - p of them (a limit nothing where that is not on its side), and sizes above
//! `max_size` count as that. What is held goes on earning w p (m_tau - m0), whatever is traded beside it.
//! `flat` sells all of it, for |p| (h + taker). `hold` leaves the position and the order that rests, whose
//! R it has; `cancel` leaves the position alone. Of an account that holds nothing the three are worth 0.
//! In hindsight a larger size is worth more wherever R is above 0: without an impact the largest wins.
//! R is in basis points of one unit's notional, and the other terms are of one unit.
//!
//! What it deliberately is not: a profit. PI credits a limit against the order that would have
//! crossed the spread, whatever the price does next, and only losses beyond p come back, as AS.
//! R ranks ways to send an order; the backtest in `evaluate` says what holding it earned.

use serde::{Deserialize, Serialize};

use super::action::{MAX_OFFSET_BPS, Side};
use super::decision::Decision;
use super::fill::{Distance, FillModel};

/// Everything that scoring needs besides the outcome; `reward.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSpec {
    /// Fee of a fill that rested, basis points; negative is a rebate.
    pub maker_fee_bps: f64,
    /// Fee of an order that crosses the spread, basis points.
    pub taker_fee_bps: f64,
    /// w: weight of the markout.
    pub adverse_weight: f64,
    /// c: scale of the reward, in units of `sigma_bps`.
    pub scale: f64,
    /// H: bars for which a limit order rests.
    pub horizon_bars: usize,
    /// tau: bars from the fill to the price that judges it.
    pub markout_bars: usize,
    /// The fill model, fitted on the training span.
    pub fill: FillModel,
    /// What the fill model takes for the distance of an order.
    #[serde(default)]
    pub fill_distance: Distance,
    /// Sizes above it count as it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub max_size: u32,
    /// What each further unit of an order makes all of its units dearer, basis points.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size_impact_bps: f64,
}

fn one() -> u32 {
    1
}
fn is_one(size: &u32) -> bool {
    *size == 1
}
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

impl RewardSpec {
    /// P: the modelled probability that a limit `offset_bps` away fills within the horizon, where
    /// volatility over the horizon is `sigma_bps`.
    pub fn p_fill(&self, offset_bps: f64, sigma_bps: f64) -> f64 {
        let distance = self.fill_distance.of(offset_bps, sigma_bps);
        self.fill.p_fill(distance, self.horizon_bars as f64)
    }
}

/// What came after a decision: enough to score any action taken then, however long the horizon.
///
/// Everything is in basis points of `close`, away from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// m0: the mid at the decision (the close of a bar), in the price's own unit.
    pub close: f64,
    /// h: half the spread.
    pub half_spread_bps: f64,
    /// sigma_H: volatility over the horizon as known at the decision.
    pub sigma_bps: f64,
    /// H, bars.
    pub horizon_bars: usize,
    /// tau, bars.
    pub markout_bars: usize,
    /// The mid tau bars after the decision.
    pub markout_bps: f64,
    /// How far the best ask rose over H.
    pub ask_bps: f64,
    /// How far the best bid rose over H.
    pub bid_bps: f64,
    /// The mid H + tau bars after the decision.
    pub end_bps: f64,
    /// The bars within H that trade lower than those before them, as `[low, mid tau bars later]`;
    /// of those that fill no further whole basis point the first.
    pub falls: Vec<[f64; 2]>,
    /// The bars within H that trade higher than those before them, in the same way.
    pub rises: Vec<[f64; 2]>,
    /// p: units held at the decision, below 0 where short.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub position: f64,
    /// The limit order that rested at the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resting: Option<Resting>,
}

/// A limit order that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resting {
    /// Its side.
    pub side: Side,
    /// How far it lies from the mid at the decision, whole basis points.
    pub offset_bps: u32,
    /// Its units.
    pub size: u32,
}

/// Gathers [`Outcome::falls`] or, with `sign` -1, [`Outcome::rises`]: of `(extreme, mid tau bars
/// later)` those that trade through an offset of whole basis points that none before did.
pub fn records(sign: f64, path: impl Iterator<Item = [f64; 2]>) -> Vec<[f64; 2]> {
    // The highest whole offset that is traded through so far.
    let mut through = 0;
    let mut out = Vec::new();
    for step in path {
        let away = -sign * step[0];
        let reached = (away.min(f64::from(MAX_OFFSET_BPS) + 1.0).ceil() - 1.0).max(0.0) as u32;
        if reached > through {
            through = reached;
            out.push(step);
        }
    }
    out
}

impl Outcome {
    /// Whether `spec` can score it: of the same horizon, every number finite, sigma above 0.
    ///
    /// # Errors
    /// What is wrong, as a lower-case fragment.
    pub fn check(&self, spec: &RewardSpec) -> Result<(), String> {
        let (own, asked) =
            ((self.horizon_bars, self.markout_bars), (spec.horizon_bars, spec.markout_bars));
        if own != asked {
            return Err(format!(
                "outcome is of {} + {} bars; the reward needs {} + {}",
                own.0, own.1, asked.0, asked.1
            ));
        }
        let plain = [
            self.close,
            self.half_spread_bps,
            self.markout_bps,
            self.ask_bps,
            self.bid_bps,
            self.end_bps,
            self.position,
        ];
        let paths = self.falls.iter().chain(&self.rises).flatten();
        if !plain.iter().chain(paths).all(|x| x.is_finite()) {
            return Err("outcome holds a number that is not finite".into());
        }
        if !(self.sigma_bps.is_finite() && self.sigma_bps > 0.0) {
            return Err("outcome.sigma_bps must be above 0".into());
        }
        Ok(())
    }

    /// The mid tau bars after the bar within H that trades through a limit, if one does.
    pub fn filled(&self, side: Side, offset_bps: u32) -> Option<f64> {
        let offset = f64::from(offset_bps);
        let path = match side {
            Side::Buy => &self.falls,
            Side::Sell => &self.rises,
        };
        path.iter().find(|step| side.sign() * step[0] < -offset).map(|step| step[1])
    }
}

/// The terms of a score, basis points except where said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Components {
    /// P: modelled probability that the order fills; 1 for a market order, 0 for flat.
    pub p_fill: f64,
    /// Whether the bars that followed traded through it.
    pub filled: bool,
    /// PI of a limit.
    pub improvement_bps: f64,
    /// The fee of its kind of fill.
    pub fee_bps: f64,
    /// The half spread that a market order pays.
    pub half_spread_bps: f64,
    /// Markout: signed move from the fill price (limit) or the mid (market).
    pub markout_bps: f64,
    /// AS of a limit, before its weight.
    pub adverse_bps: f64,
    /// OC of a limit, before its probability.
    pub opportunity_bps: f64,
    /// What the position that is kept earns, with what the order that is left resting is worth; of all
    /// units.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub carried_bps: f64,
    /// What the size costs beside the price of one unit; of all units.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub impact_bps: f64,
}

/// What an action was worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Between 0 and 1; 1/2 is what doing nothing gets.
    pub reward: f64,
    /// R, basis points of the close.
    pub net_bps: f64,
    /// The terms of R.
    pub components: Components,
}

/// Scores a decision against what followed.
pub fn score(spec: &RewardSpec, outcome: &Outcome, decision: impl Into<Decision>) -> Score {
    let held = outcome.position;
    let carried = match held {
        0.0 => 0.0,
        held => spec.adverse_weight * held * outcome.markout_bps,
    };
    let kept =
        |carried_bps: f64| (carried_bps, Components { carried_bps, ..Components::default() });
    let more = |side: Side, size: u32| side.sign() * f64::from(size.min(spec.max_size)) - held;
    let (net_bps, components) = match decision.into() {
        Decision::Hold => kept(carried + left(spec, outcome)),
        Decision::Cancel => kept(carried),
        Decision::Flat if held == 0.0 => kept(0.0),
        Decision::Flat => {
            let (half, fee) = (outcome.half_spread_bps, spec.taker_fee_bps);
            let paid = Components { half_spread_bps: half, fee_bps: fee, ..Components::default() };
            (-held.abs() * (half + fee), paid)
        }
        Decision::Market(side, size) => match more(side, size) {
            0.0 => kept(carried),
            units => {
                let side = if units > 0.0 { Side::Buy } else { Side::Sell };
                sized(spec, units.abs(), carried, market(spec, outcome, side))
            }
        },
        Decision::Limit(side, offset, size) => match side.sign() * more(side, size) {
            units if units > 0.0 => sized(spec, units, carried, limit(spec, outcome, side, offset)),
            _ => kept(carried),
        },
    };
    Score { reward: squash(net_bps / (spec.scale * outcome.sigma_bps)), net_bps, components }
}

/// An order of so many units beside what is held.
fn sized(
    spec: &RewardSpec,
    units: f64,
    carried_bps: f64,
    (one_bps, terms): (f64, Components),
) -> (f64, Components) {
    let impact_bps = spec.size_impact_bps * units * (units - 1.0).max(0.0) * terms.p_fill;
    (units * one_bps + carried_bps - impact_bps, Components { carried_bps, impact_bps, ..terms })
}

/// What the order that rests is worth, where there is one.
fn left(spec: &RewardSpec, outcome: &Outcome) -> f64 {
    let Some(Resting { side, offset_bps, size }) = outcome.resting else { return 0.0 };
    let units = f64::from(size.min(spec.max_size));
    sized(spec, units, 0.0, limit(spec, outcome, side, offset_bps)).0
}

fn market(spec: &RewardSpec, outcome: &Outcome, side: Side) -> (f64, Components) {
    let markout_bps = side.sign() * outcome.markout_bps;
    let components = Components {
        p_fill: 1.0,
        filled: true,
        fee_bps: spec.taker_fee_bps,
        half_spread_bps: outcome.half_spread_bps,
        markout_bps,
        ..Components::default()
    };
    let cost = outcome.half_spread_bps + spec.taker_fee_bps;
    (spec.adverse_weight * markout_bps - cost, components)
}

fn limit(spec: &RewardSpec, outcome: &Outcome, side: Side, offset: u32) -> (f64, Components) {
    let (s, h, d) = (side.sign(), outcome.half_spread_bps, f64::from(offset));
    let filled = outcome.filled(side, offset);
    let markout_bps = s * filled.unwrap_or(outcome.end_bps) + d;
    // What the order would have crossed to, at the end and at the decision.
    let moved = match side {
        Side::Buy => outcome.ask_bps,
        Side::Sell => -outcome.bid_bps,
    };
    let components = Components {
        p_fill: spec.p_fill(d, outcome.sigma_bps),
        filled: filled.is_some(),
        improvement_bps: h + d,
        fee_bps: spec.maker_fee_bps,
        half_spread_bps: 0.0,
        markout_bps,
        adverse_bps: (-markout_bps).max(0.0),
        opportunity_bps: moved.max(0.0),
        ..Components::default()
    };
    let c = &components;
    let if_filled = c.improvement_bps - c.fee_bps - spec.adverse_weight * c.adverse_bps;
    (c.p_fill * if_filled - (1.0 - c.p_fill) * c.opportunity_bps, components)
}

/// 1/2 + 1/2 tanh(x), kept off its ends: a reward of exactly 0 or 1 would say that nothing can be
/// worse or better, and f64 rounds there from |x| of about 19.
fn squash(x: f64) -> f64 {
    (0.5 + 0.5 * x.tanh()).clamp(f64::EPSILON, 1.0 - f64::EPSILON)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pairs::action::Action;

    fn spec() -> RewardSpec {
        RewardSpec {
            maker_fee_bps: 1.0,
            taker_fee_bps: 3.0,
            adverse_weight: 0.5,
            scale: 1.0,
            horizon_bars: 2,
            markout_bars: 1,
            // Half of all orders at distance 0 fill in a bar; 10 bps away the rate is a quarter.
            fill: FillModel { a: 2f64.ln(), k: 4f64.ln() / 10.0 },
            fill_distance: Distance::Bps,
            max_size: 1,
            size_impact_bps: 0.0,
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            close: 100.0,
            half_spread_bps: 2.0,
            sigma_bps: 50.0,
            horizon_bars: 2,
            markout_bars: 1,
            // Lows -10 and -12, highs 8 and 30, closes -4, 20 and 40.
            markout_bps: -4.0,
            ask_bps: 20.0 * 1.0002,
            bid_bps: 20.0 * 0.9998,
            end_bps: 40.0,
            falls: records(1.0, [[-10.0, 20.0], [-12.0, 40.0]].into_iter()),
            rises: records(-1.0, [[8.0, 20.0], [30.0, 40.0]].into_iter()),
            position: 0.0,
            resting: None,
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn a_market_order_pays_spread_and_fee_and_earns_its_markout() {
        let buy = score(&spec(), &outcome(), Action::Market(Side::Buy));
        close(buy.net_bps, -2.0 - 3.0 + 0.5 * -4.0);
        let sell = score(&spec(), &outcome(), Action::Market(Side::Sell));
        close(sell.net_bps, -2.0 - 3.0 + 0.5 * 4.0);
        close(sell.reward, 0.5 + 0.5 * (-3.0f64 / 50.0).tanh());
    }

    #[test]
    fn a_limit_by_hand() {
        // Touching -10 in bar 1 is not through it; bar 2 trades at -12, judged at bar 3.
        let buy = score(&spec(), &outcome(), Action::Limit(Side::Buy, 10));
        let c = buy.components;
        assert!(c.filled);
        close(c.p_fill, 1.0 - 2f64.powf(-2.0 / 4.0));
        close(c.improvement_bps, 12.0);
        close(c.markout_bps, 50.0);
        close(c.adverse_bps, 0.0);
        close(c.opportunity_bps, 20.0 * 1.0002);
        close(buy.net_bps, c.p_fill * 11.0 - (1.0 - c.p_fill) * 20.0 * 1.0002);

        // A sell at +5 fills in bar 1 (high 8), judged at bar 2: sold at 5, now 20.
        let sell = score(&spec(), &outcome(), Action::Limit(Side::Sell, 5));
        let c = sell.components;
        assert!(c.filled);
        close(c.markout_bps, -15.0);
        close(c.opportunity_bps, 0.0);
        close(c.p_fill, 1.0 - 2f64.powf(-2.0 * 0.5));
        close(sell.net_bps, c.p_fill * (7.0 - 1.0 - 0.5 * 15.0));
    }

    #[test]
    fn a_limit_that_nothing_trades_through_is_not_filled_but_is_scored() {
        let c = score(&spec(), &outcome(), Action::Limit(Side::Buy, 12)).components;
        assert!(!c.filled, "12 was touched only");
        close(c.markout_bps, 40.0 + 12.0);
    }

    #[test]
    fn a_distance_in_sigma_fills_more_often_in_volatile_times() {
        let spec = RewardSpec {
            fill: FillModel { a: 2f64.ln(), k: 4f64.ln() },
            fill_distance: Distance::Sigma,
            ..spec()
        };
        close(spec.p_fill(50.0, 50.0), 1.0 - 2f64.powf(-2.0 / 4.0));
        close(spec.p_fill(50.0, 100.0), 1.0 - 2f64.powf(-2.0 / 2.0));
        let c = score(&spec, &outcome(), Action::Limit(Side::Buy, 50)).components;
        close(c.p_fill, spec.p_fill(50.0, outcome().sigma_bps));
    }

    #[test]
    fn flat_is_one_half() {
        let flat = score(&spec(), &outcome(), Action::Flat);
        assert_eq!((flat.reward, flat.net_bps), (0.5, 0.0));
    }

    #[test]
    fn sizes_scale_positions_and_fees() {
        let one = score(&spec(), &outcome(), Action::Market(Side::Buy));
        let (three, limit) = (Decision::Market(Side::Buy, 3), Decision::Limit(Side::Buy, 10, 3));
        // With the default a size counts as 1.
        assert_eq!(score(&spec(), &outcome(), three), one);
        let spec = RewardSpec { max_size: 4, ..spec() };
        close(score(&spec, &outcome(), three).net_bps, 3.0 * one.net_bps);
        close(score(&spec, &outcome(), Decision::Market(Side::Buy, 9)).net_bps, 4.0 * one.net_bps);
        let rests = score(&spec, &outcome(), Action::Limit(Side::Buy, 10));
        close(score(&spec, &outcome(), limit).net_bps, 3.0 * rests.net_bps);
        let dear = RewardSpec { size_impact_bps: 0.25, ..spec.clone() };
        let market = score(&dear, &outcome(), three);
        close(market.net_bps, 3.0 * one.net_bps - 6.0 * 0.25);
        close(market.components.impact_bps, 1.5);
        let filled = rests.components.p_fill;
        close(score(&dear, &outcome(), limit).net_bps, 3.0 * rests.net_bps - 1.5 * filled);
    }

    #[test]
    fn what_is_held_earns_and_costs() {
        let spec = RewardSpec { max_size: 4, ..spec() };
        let resting = Some(Resting { side: Side::Sell, offset_bps: 5, size: 2 });
        let held = Outcome { position: 2.0, resting, ..outcome() };
        let of = |decision| score(&spec, &held, decision).net_bps;
        let carried = 0.5 * 2.0 * -4.0;
        let rests = score(&spec, &outcome(), Action::Limit(Side::Sell, 5)).net_bps;
        close(of(Decision::Cancel), carried);
        close(of(Decision::Hold), carried + 2.0 * rests);
        // Out of two units by crossing.
        close(of(Decision::Flat), -2.0 * (2.0 + 3.0));
        // To three, to one, and to minus one: what is traded pays, and earns by its own side.
        let cost = 2.0 + 3.0;
        close(of(Decision::Market(Side::Buy, 3)), 0.5 * 3.0 * -4.0 - cost);
        close(of(Decision::Market(Side::Buy, 1)), 0.5 * -4.0 - cost);
        close(of(Decision::Market(Side::Sell, 1)), 0.5 * 4.0 - 3.0 * cost);
        close(of(Decision::Market(Side::Buy, 2)), carried);
        // A limit adds on its side and does nothing on the other.
        let buy = score(&spec, &outcome(), Action::Limit(Side::Buy, 10)).net_bps;
        close(of(Decision::Limit(Side::Buy, 10, 3)), carried + buy);
        close(of(Decision::Limit(Side::Buy, 10, 1)), carried);
        // It reads back as it is, and a file without either reads as nothing held.
        let text = serde_json::to_string(&held).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), held);
        assert!(!serde_json::to_string(&outcome()).unwrap().contains("position"));
        for decision in [Decision::Hold, Decision::Cancel, Decision::Flat] {
            let nothing = score(&spec, &outcome(), decision);
            assert_eq!((nothing.net_bps, nothing.reward), (0.0, 0.5));
        }
    }

    #[test]
    fn an_outcome_of_another_horizon_is_refused() {
        let said = outcome().check(&RewardSpec { horizon_bars: 3, ..spec() }).unwrap_err();
        assert_eq!(said, "outcome is of 2 + 1 bars; the reward needs 3 + 1");
        assert_eq!(outcome().check(&spec()), Ok(()));
        let strange = Outcome { falls: vec![[-5.0, f64::NAN]], ..outcome() };
        assert!(strange.check(&spec()).unwrap_err().contains("not finite"));
    }

    #[test]
    fn records_are_those_that_fill_a_further_offset() {
        let path = [-0.5, -1.0, -1.2, -1.9, -3.0, -3.1, -2.0, -900.0, -901.0];
        let kept = records(1.0, path.into_iter().map(|low| [low, 0.0]));
        assert_eq!(kept.iter().map(|step| step[0]).collect::<Vec<_>>(), [-1.2, -3.0, -3.1, -900.0]);
    }

    fn any_action() -> impl Strategy<Value = Action> {
        let side = prop_oneof![Just(Side::Buy), Just(Side::Sell)];
        prop_oneof![
            Just(Action::Flat),
            side.clone().prop_map(Action::Market),
            (side, 1u32..=500).prop_map(|(s, n)| Action::Limit(s, n)),
        ]
    }

    /// Ten bars as (mid, above, below), of which the last is for the markout.
    type Bars = Vec<(f64, f64, f64)>;

    fn followed(half_spread_bps: f64, sigma_bps: f64, bars: &Bars) -> Outcome {
        let low = |at: usize| [bars[at].0 - bars[at].2, bars[at + 1].0];
        let high = |at: usize| [bars[at].0 + bars[at].1, bars[at + 1].0];
        Outcome {
            close: 100.0,
            half_spread_bps,
            sigma_bps,
            horizon_bars: 9,
            markout_bars: 1,
            markout_bps: bars[0].0,
            ask_bps: bars[8].0,
            bid_bps: bars[8].0,
            end_bps: bars[9].0,
            falls: records(1.0, (0..9).map(low)),
            rises: records(-1.0, (0..9).map(high)),
            position: 0.0,
            resting: None,
        }
    }

    fn any_bars() -> impl Strategy<Value = Bars> {
        proptest::collection::vec((-300f64..300.0, 0f64..300.0, 0f64..300.0), 10)
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        (0f64..60.0, 1f64..500.0, any_bars()).prop_map(|(h, sigma, bars)| followed(h, sigma, &bars))
    }

    proptest! {
        #[test]
        fn rewards_stay_inside_and_keep_the_order_of_net(
            outcome in any_outcome(), a in any_action(), b in any_action(),
        ) {
            let (a, b) = (score(&spec(), &outcome, a), score(&spec(), &outcome, b));
            prop_assert!(a.reward > 0.0 && a.reward < 1.0);
            if a.net_bps >= b.net_bps {
                prop_assert!(a.reward >= b.reward);
            }
        }

        #[test]
        fn a_higher_fee_never_helps(
            outcome in any_outcome(), action in any_action(), fee in 0f64..50.0,
        ) {
            let dear = RewardSpec { maker_fee_bps: 1.0 + fee, taker_fee_bps: 3.0 + fee, ..spec() };
            let (cheap, dear) = (score(&spec(), &outcome, action), score(&dear, &outcome, action));
            prop_assert!(dear.net_bps <= cheap.net_bps);
            if action == Action::Flat {
                prop_assert_eq!(dear, cheap);
            }
        }

        /// The few steps that an outcome keeps fill what the whole path fills.
        #[test]
        fn what_is_kept_fills_like_the_whole(bars in any_bars(), offset in 1u32..=500) {
            let outcome = followed(1.0, 50.0, &bars);
            let far = f64::from(offset);
            let fell = (0..9).find(|&at| bars[at].0 - bars[at].2 < -far).map(|at| bars[at + 1].0);
            let rose = (0..9).find(|&at| bars[at].0 + bars[at].1 > far).map(|at| bars[at + 1].0);
            prop_assert_eq!(outcome.filled(Side::Buy, offset), fell);
            prop_assert_eq!(outcome.filled(Side::Sell, offset), rose);
        }

        #[test]
        fn buying_and_selling_are_mirror_images(bars in any_bars(), offset in 1u32..=500) {
            let turned: Bars = bars.iter().map(|&(mid, above, below)| (-mid, below, above)).collect();
            let (outcome, mirror) = (followed(0.0, 50.0, &bars), followed(0.0, 50.0, &turned));
            let pairs = [
                (Action::Market(Side::Buy), Action::Market(Side::Sell)),
                (Action::Limit(Side::Buy, offset), Action::Limit(Side::Sell, offset)),
            ];
            for (buy, sell) in pairs {
                let (b, s) = (score(&spec(), &outcome, buy), score(&spec(), &mirror, sell));
                prop_assert!((b.net_bps - s.net_bps).abs() < 1e-9);
            }
        }
    }
}
