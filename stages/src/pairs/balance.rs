//! Which pairs stay, so that neither a family of actions nor a regime outweighs the rest; and how many
//! there are of each.
//!
//! Pairs are only left out, evenly over time: none is repeated or weighted.

use super::Params;
use super::action::{Action, FAMILIES};
use crate::Context;
use crate::featurize::split::evenly;

/// A time as the hidden Markov model of feature `p_high_vol` sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// A probability of the volatile state below 0.5.
    Calm,
    /// From 0.5 on.
    Volatile,
}

impl Regime {
    /// Both.
    pub const ALL: [Regime; 2] = [Regime::Calm, Regime::Volatile];

    /// By the probability of the volatile state.
    pub fn of(p_high_vol: f64) -> Regime {
        if p_high_vol < 0.5 { Regime::Calm } else { Regime::Volatile }
    }

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Regime::Calm => "calm",
            Regime::Volatile => "volatile",
        }
    }
}

/// What is kept of a pair in memory.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    /// The better action.
    pub chosen: Action,
    /// The worse action.
    pub rejected: Action,
    /// Difference of R, basis points.
    pub gap_bps: f32,
    /// Rewards of both.
    pub rewards: [f32; 2],
    /// The regime, where the features tell.
    pub regime: Option<Regime>,
}

impl Brief {
    /// The place of the chosen family in [`FAMILIES`].
    pub fn family(&self) -> usize {
        FAMILIES.iter().position(|name| *name == self.chosen.family()).unwrap_or_default()
    }
}

/// The numbers of the pairs that stay: of families that are over their share fewer, and of all no more
/// than the number, spread evenly over time.
pub fn thin(briefs: &[Brief], params: &Params) -> Vec<usize> {
    let part = |brief: &Brief| match brief.regime {
        Some(Regime::Volatile) if params.balance_regimes => 1,
        _ => 0,
    };
    let mut kept: Vec<usize> = Vec::new();
    for regime in 0..2 {
        let mut places: [Vec<usize>; FAMILIES.len()] = Default::default();
        for (at, brief) in briefs.iter().enumerate().filter(|(_, brief)| part(brief) == regime) {
            places[brief.family()].push(at);
        }
        let counts: Vec<usize> = places.iter().map(Vec::len).collect();
        let cap = family_cap(&counts, params.max_family_share);
        let stay = |places: &Vec<usize>| -> Vec<usize> {
            evenly(places.len(), cap).filter_map(|i| places.get(i).copied()).collect()
        };
        kept.extend(places.iter().flat_map(stay));
    }
    kept.sort_unstable();
    evenly(kept.len(), params.max_pairs.unwrap_or(usize::MAX)).map(|i| kept[i]).collect()
}

/// The most pairs that each family may keep, so that none has more than `share` of what is left.
pub fn family_cap(counts: &[usize], share: f64) -> usize {
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

/// Pairs by chosen family, in each of [`Regime::ALL`].
pub fn by_regime(pairs: &[Brief]) -> [[usize; FAMILIES.len()]; 2] {
    let mut counts = [[0; FAMILIES.len()]; 2];
    for pair in pairs {
        if let Some(regime) = pair.regime {
            counts[usize::from(regime == Regime::Volatile)][pair.family()] += 1;
        }
    }
    counts
}

/// Tells of the pairs that are there.
pub fn report(pairs: &[Brief], offsets: &[u32], ctx: &Context) {
    let n = pairs.len() as f64;
    let mean = |of: &dyn Fn(&Brief) -> f64| pairs.iter().map(of).sum::<f64>() / n;
    ctx.metric("pairs", n);
    ctx.metric("gap_mean_bps", mean(&|p| f64::from(p.gap_bps)));
    ctx.metric("reward_chosen_mean", mean(&|p| f64::from(p.rewards[0])));
    ctx.metric("reward_rejected_mean", mean(&|p| f64::from(p.rewards[1])));
    for name in FAMILIES {
        let chosen = mean(&|p| f64::from(p.chosen.family() == name));
        let slug = name.replace(' ', "_");
        ctx.metric(&format!("chosen_{slug}"), chosen);
        ctx.metric(&format!("rejected_{slug}"), mean(&|p| f64::from(p.rejected.family() == name)));
        if chosen > 0.8 {
            ctx.warn(format!(
                "{:.0} % of the pairs choose `{name}`: a model can win by always saying it; see `max_family_share` and `reward.adverse_weight`",
                100.0 * chosen
            ));
        }
    }
    for &offset in offsets {
        let at = |a: Action| matches!(a, Action::Limit(_, o) if o == offset);
        ctx.metric(&format!("chosen_limit_{offset}"), mean(&|p| f64::from(at(p.chosen))));
    }
    if pairs.iter().any(|pair| pair.regime.is_some()) {
        for (regime, counts) in Regime::ALL.into_iter().zip(by_regime(pairs)) {
            let all: usize = counts.iter().sum();
            ctx.metric(&format!("pairs_{}", regime.name()), all as f64);
            for (name, count) in FAMILIES.iter().zip(counts) {
                let slug = name.replace(' ', "_");
                ctx.metric(&format!("pairs_{}_{slug}", regime.name()), count as f64);
            }
        }
    }
}
