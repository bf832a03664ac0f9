//! Why an action was chosen, in one sentence for people who look at a pair.
//!
//! It is put together by fixed rules from the state at the decision ([`Signs`]) and from the terms of
//! the score, so that the same pair always has the same words. Nothing is asked of a model.
//!
//! The terms know what followed: a rationale is hindsight. It stands in a field of its own, beside the
//! prompt and the completions and never in them; `train` does not read it. Who feeds it to a model
//! that is later asked at the same date has leaked the label.

use super::action::Side;
use super::decision::Decision;
use super::reward::Score;
use crate::featurize::table::{Row, Rows};

/// The features that a rationale speaks of, as known at the decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signs {
    /// Return over the last 5 bars in units of its volatility.
    pub momentum: Option<f64>,
    /// -1 to 1: of the best quotes where `quoted`, else of the volume.
    pub imbalance: Option<f64>,
    /// Probability of the volatile regime.
    pub p_high_vol: Option<f64>,
    /// The spread, basis points.
    pub spread_bps: Option<f64>,
    /// Whether the source has quotes.
    pub quoted: bool,
}

/// Where a file has the features of [`Signs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    momentum: Option<usize>,
    imbalance: Option<usize>,
    p_high_vol: Option<usize>,
    spread_bps: Option<usize>,
}

impl Places {
    /// Looks them up.
    pub fn of(rows: &Rows) -> Places {
        Places {
            momentum: rows.place("momentum_5"),
            imbalance: rows.place("imbalance"),
            p_high_vol: rows.place("p_high_vol"),
            spread_bps: rows.place("spread_bps"),
        }
    }

    /// Whether there is the column `p_high_vol`.
    pub fn has_regime(&self) -> bool {
        self.p_high_vol.is_some()
    }

    /// Those of a row.
    pub fn signs(&self, row: &Row) -> Signs {
        let at = |place: Option<usize>| row.features.get(place?).copied().filter(|x| x.is_finite());
        Signs {
            momentum: at(self.momentum),
            imbalance: at(self.imbalance),
            p_high_vol: at(self.p_high_vol),
            spread_bps: at(self.spread_bps),
            quoted: row.quote.is_some(),
        }
    }
}

/// From here on, in volatilities, a move counts as momentum.
const MOMENTUM: f64 = 0.5;
/// From here on one side of the book or the volume counts as heavier.
const IMBALANCE: f64 = 0.3;
/// From here on, basis points, a spread is worth a word.
const WIDE: f64 = 20.0;

/// The sentence for a chosen decision against a rejected one.
pub fn sentence(signs: &Signs, chosen: &(Decision, Score), rejected: &(Decision, Score)) -> String {
    let (decision, score) = chosen;
    let mut parts = match *decision {
        Decision::Limit(side, ..) => limit(signs, side, score),
        Decision::Market(side, _) => market(signs, side, score),
        Decision::Flat if score.components.half_spread_bps > 0.0 => {
            vec![format!("out of the position for {}", bps(-score.net_bps))]
        }
        Decision::Flat => vec!["no order was worth its cost".to_owned()],
        Decision::Hold => vec![format!("what is held is worth {}", bps(score.net_bps))],
        Decision::Cancel => vec!["what rests is better taken back".to_owned()],
    };
    if decision.size() > 1 {
        parts.push(format!("for {} units", decision.size()));
    }
    if signs.p_high_vol.is_some_and(|p| p >= 0.5) {
        parts.push("volatile market".into());
    }
    let gap = score.net_bps - rejected.1.net_bps;
    parts.push(format!("{} better than {}", bps(gap), rejected.0));
    let mut text = parts.join("; ");
    text.push('.');
    // All begin with an ASCII letter.
    text[..1].make_ascii_uppercase();
    text
}

fn limit(signs: &Signs, side: Side, score: &Score) -> Vec<String> {
    let c = &score.components;
    let entry = if c.adverse_bps == 0.0 { "good entry" } else { "entry" };
    let gain = bps(c.improvement_bps);
    let mut parts = vec![format!("{entry}{}, {gain} better than crossing", trend(signs, side))];
    parts.extend(pressure(signs, side).map(str::to_owned));
    let chance = match c.p_fill {
        p if p >= 0.7 => "fill likely",
        p if p < 0.3 => "fill unlikely",
        _ => "fill uncertain",
    };
    parts.push(format!("{chance} ({:.0} %)", 100.0 * c.p_fill));
    if c.adverse_bps > 0.0 {
        parts.push(format!("adverse move of {} after a fill", bps(c.adverse_bps)));
    }
    let chase = (1.0 - c.p_fill) * c.opportunity_bps;
    if chase >= 0.5 {
        parts.push(format!("missing it costs {}", bps(c.opportunity_bps)));
    }
    parts
}

fn market(signs: &Signs, side: Side, score: &Score) -> Vec<String> {
    let c = &score.components;
    let (cost, moved) = (c.half_spread_bps + c.fee_bps, c.markout_bps);
    let way = if moved >= 0.0 { "gain" } else { "lose" };
    let mut parts = vec![format!(
        "cross{} for {} to {way} {}",
        trend(signs, side),
        bps(cost),
        bps(moved.abs())
    )];
    parts.extend(pressure(signs, side).filter(|_| !signs.quoted).map(str::to_owned));
    if let Some(spread) = signs.spread_bps.filter(|spread| *spread >= WIDE) {
        parts.push(format!("spread wide ({})", bps(spread)));
    }
    parts
}

fn trend(signs: &Signs, side: Side) -> &'static str {
    match signs.momentum.map(|m| side.sign() * m) {
        Some(m) if m >= MOMENTUM => " with momentum",
        Some(m) if m <= -MOMENTUM => " against momentum",
        _ => "",
    }
}

/// Of quotes: how long the queue is that an order joins. Of volume: who leads.
fn pressure(signs: &Signs, side: Side) -> Option<&'static str> {
    let imbalance = signs.imbalance.filter(|x| x.abs() >= IMBALANCE)?;
    Some(match (signs.quoted, side.sign() * imbalance > 0.0, imbalance > 0.0) {
        (true, true, _) => "queue long",
        (true, false, _) => "queue short",
        (false, _, true) => "buyers lead",
        (false, _, false) => "sellers lead",
    })
}

/// Basis points with a decimal where they are few.
fn bps(x: f64) -> String {
    if x.abs() < 9.95 { format!("{x:.1} bps") } else { format!("{x:.0} bps") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::action::Action;
    use crate::pairs::reward::Components;

    fn scored(action: Action, net_bps: f64, components: Components) -> (Decision, Score) {
        (action.into(), Score { reward: 0.5, net_bps, components })
    }

    fn resting(p_fill: f64, adverse_bps: f64, opportunity_bps: f64) -> Components {
        let improvement_bps = 27.0;
        Components {
            p_fill,
            improvement_bps,
            adverse_bps,
            opportunity_bps,
            ..Components::default()
        }
    }

    #[test]
    fn a_limit_on_quotes() {
        let signs = Signs {
            momentum: Some(0.8),
            imbalance: Some(-0.6),
            p_high_vol: Some(0.2),
            spread_bps: Some(1.0),
            quoted: true,
        };
        let chosen = scored(Action::Limit(Side::Buy, 25), 12.0, resting(0.74, 4.26, 0.0));
        let rejected = scored(Action::Market(Side::Sell), -8.5, Components::default());
        assert_eq!(
            sentence(&signs, &chosen, &rejected),
            "Entry with momentum, 27 bps better than crossing; queue short; fill likely (74 %); \
             adverse move of 4.3 bps after a fill; 20 bps better than sell market."
        );
        // The same state, from the other side.
        let chosen = scored(Action::Limit(Side::Sell, 25), 12.0, resting(0.25, 0.0, 20.0));
        let rejected = scored(Action::Flat, 0.0, Components::default());
        assert_eq!(
            sentence(&signs, &chosen, &rejected),
            "Good entry against momentum, 27 bps better than crossing; queue long; fill unlikely \
             (25 %); missing it costs 20 bps; 12 bps better than flat."
        );
    }

    #[test]
    fn a_limit_on_bars_speaks_of_volume_and_not_of_queues() {
        let signs = Signs {
            momentum: Some(-0.1),
            imbalance: Some(0.4),
            p_high_vol: Some(0.9),
            ..Signs::default()
        };
        let chosen = scored(Action::Limit(Side::Sell, 25), 12.0, resting(0.5, 0.0, 0.0));
        let rejected = scored(Action::Limit(Side::Buy, 10), 3.0, Components::default());
        assert_eq!(
            sentence(&signs, &chosen, &rejected),
            "Good entry, 27 bps better than crossing; buyers lead; fill uncertain (50 %); volatile \
             market; 9.0 bps better than buy limit 10."
        );
    }

    #[test]
    fn a_market_order_and_flat() {
        let signs = Signs { momentum: Some(-2.0), spread_bps: Some(24.0), ..Signs::default() };
        let crossed = Components {
            p_fill: 1.0,
            fee_bps: 1.0,
            half_spread_bps: 12.0,
            markout_bps: 80.0,
            ..Components::default()
        };
        let chosen = scored(Action::Market(Side::Sell), 27.0, crossed);
        let rejected = scored(Action::Market(Side::Buy), -53.0, Components::default());
        assert_eq!(
            sentence(&signs, &chosen, &rejected),
            "Cross with momentum for 13 bps to gain 80 bps; spread wide (24 bps); 80 bps better than \
             buy market."
        );
        let flat = scored(Action::Flat, 0.0, Components::default());
        assert_eq!(
            sentence(&Signs::default(), &flat, &rejected),
            "No order was worth its cost; 53 bps better than buy market."
        );
    }
}
