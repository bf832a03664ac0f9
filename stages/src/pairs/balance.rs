//! Which pairs stay, so that neither a family of actions nor a regime outweighs the rest; and how many
//! there are of each.
//!
//! Pairs are only left out, evenly over time: none is repeated or weighted.

use std::collections::BTreeMap;

use super::Params;
use super::action::FAMILIES;
use super::decision::Decision;
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

/// What is known of a pair besides its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brief {
    /// The better decision.
    pub chosen: Decision,
    /// The worse decision.
    pub rejected: Decision,
    /// Difference of R, basis points.
    pub gap_bps: f32,
    /// Rewards of both.
    pub rewards: [f32; 2],
    /// The regime, where the features tell.
    pub regime: Option<Regime>,
}

/// Bytes of a code: `S500x1000` has nine.
const CODE: usize = 9;
/// Bytes of a brief in a file.
pub const BRIEF: usize = 2 * CODE + 3 * 4 + 1;

/// The place of a decision's family in [`FAMILIES`]: hold and cancel are of `flat`, which sends nothing.
fn family(decision: Decision) -> usize {
    let own = decision.action().family();
    FAMILIES.iter().position(|name| *name == own).unwrap_or_default()
}

impl Brief {
    /// As bytes of a file.
    pub fn to_bytes(self) -> [u8; BRIEF] {
        let mut bytes = [b' '; BRIEF];
        for (at, decision) in [(0, self.chosen), (CODE, self.rejected)] {
            let code = decision.code();
            bytes[at..at + code.len()].copy_from_slice(code.as_bytes());
        }
        let numbers = [self.gap_bps, self.rewards[0], self.rewards[1]];
        for (slot, number) in bytes[2 * CODE..].chunks_exact_mut(4).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes[BRIEF - 1] = match self.regime {
            None => 0,
            Some(Regime::Calm) => 1,
            Some(Regime::Volatile) => 2,
        };
        bytes
    }

    /// Back from the bytes; `None` where they are none.
    pub fn from_bytes(bytes: &[u8; BRIEF]) -> Option<Brief> {
        let decision =
            |at: usize| Decision::from_code(std::str::from_utf8(&bytes[at..at + CODE]).ok()?);
        let number = |at: usize| {
            let at = 2 * CODE + 4 * at;
            bytes[at..at + 4].try_into().map(f32::from_le_bytes).ok()
        };
        let regime = match bytes[BRIEF - 1] {
            1 => Some(Regime::Calm),
            2 => Some(Regime::Volatile),
            _ => None,
        };
        Some(Brief {
            chosen: decision(0)?,
            rejected: decision(CODE)?,
            gap_bps: number(0)?,
            rewards: [number(1)?, number(2)?],
            regime,
        })
    }
}

/// Pairs by regime, of which those that are not told apart are of the first, and by chosen family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([[usize; FAMILIES.len()]; 2]);

fn part(brief: &Brief, params: &Params) -> usize {
    match brief.regime {
        Some(Regime::Volatile) if params.balance_regimes => 1,
        _ => 0,
    }
}

impl Counts {
    /// Takes a pair.
    pub fn push(&mut self, brief: &Brief, params: &Params) {
        self.0[part(brief, params)][family(brief.chosen)] += 1;
    }
    /// All of them.
    pub fn total(&self) -> usize {
        self.0.iter().flatten().sum()
    }
}

/// Says of one pair after the other whether it stays: of families that are over their share fewer, and of
/// all no more than the number, spread evenly over time.
pub struct Thin<'a> {
    params: &'a Params,
    /// Those of each regime and family that stay, by number, and how many came.
    families: [[(Numbers, usize); FAMILIES.len()]; 2],
    /// Those that stay of what the families leave, and how many came.
    all: (Numbers, usize),
    /// How many stay.
    pub kept: usize,
}

type Numbers = std::iter::Peekable<Box<dyn Iterator<Item = usize>>>;

fn spread(of: usize, keep: usize) -> Numbers {
    (Box::new(evenly(of, keep)) as Box<dyn Iterator<Item = usize>>).peekable()
}

impl<'a> Thin<'a> {
    /// Of so many pairs.
    pub fn new(counts: &Counts, params: &'a Params) -> Thin<'a> {
        let caps = counts.0.map(|counts| family_cap(&counts, params.max_family_share));
        let families = [0, 1].map(|at| counts.0[at].map(|count| (spread(count, caps[at]), 0)));
        let left = |at: usize| counts.0[at].iter().map(|n| (*n).min(caps[at])).sum::<usize>();
        let left = left(0) + left(1);
        let most = params.max_pairs.unwrap_or(usize::MAX);
        Thin { params, families, all: (spread(left, most), 0), kept: left.min(most) }
    }

    /// Whether the next pair stays.
    pub fn keeps(&mut self, brief: &Brief) -> bool {
        let next = |(stay, came): &mut (Numbers, usize)| {
            *came += 1;
            stay.next_if_eq(&(*came - 1)).is_some()
        };
        let families = &mut self.families[part(brief, self.params)];
        next(&mut families[family(brief.chosen)]) && next(&mut self.all)
    }
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

/// Bins of the histogram of rewards, from 0 to 1.
pub const BINS: usize = 20;

/// What is to be said of the pairs that are there, gathered one by one.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Pairs.
    pub pairs: usize,
    gap: f64,
    rewards: [f64; 2],
    /// By family of the chosen and of the rejected.
    families: [[usize; FAMILIES.len()]; 2],
    /// Rewards of both by bin.
    pub bins: [[usize; BINS]; 2],
    /// By chosen family, in each of [`Regime::ALL`].
    pub by_regime: [[usize; FAMILIES.len()]; 2],
    /// Chosen limits by offset, chosen orders by size, and what is chosen in place of an order.
    offsets: BTreeMap<u32, usize>,
    sizes: BTreeMap<u32, usize>,
    hold: usize,
    cancel: usize,
}

impl Stats {
    /// Takes a pair.
    pub fn push(&mut self, pair: &Brief) {
        self.pairs += 1;
        self.gap += f64::from(pair.gap_bps);
        for (side, decision) in [pair.chosen, pair.rejected].into_iter().enumerate() {
            let reward = f64::from(pair.rewards[side]);
            self.rewards[side] += reward;
            self.bins[side][((reward * BINS as f64) as usize).min(BINS - 1)] += 1;
            self.families[side][family(decision)] += 1;
        }
        if let Some(regime) = pair.regime {
            self.by_regime[usize::from(regime == Regime::Volatile)][family(pair.chosen)] += 1;
        }
        match pair.chosen {
            Decision::Limit(_, offset, _) => *self.offsets.entry(offset).or_default() += 1,
            Decision::Hold => self.hold += 1,
            Decision::Cancel => self.cancel += 1,
            _ => {}
        }
        if pair.chosen.size() > 0 {
            *self.sizes.entry(pair.chosen.size()).or_default() += 1;
        }
    }

    /// Mean difference of R, basis points.
    pub fn gap_bps(&self) -> f64 {
        self.gap / self.pairs as f64
    }

    /// Mean rewards of the chosen and of the rejected.
    pub fn rewards(&self) -> [f64; 2] {
        self.rewards.map(|sum| sum / self.pairs as f64)
    }

    /// Shares of each of [`FAMILIES`] among the chosen and among the rejected.
    pub fn shares(&self) -> [[f64; FAMILIES.len()]; 2] {
        self.families.map(|counts| counts.map(|count| count as f64 / self.pairs as f64))
    }
}

/// Tells of the pairs that are there.
pub fn report(stats: &Stats, params: &Params, ctx: &Context) {
    let n = stats.pairs as f64;
    let [chosen, rejected] = stats.rewards();
    ctx.metric("pairs", n);
    ctx.metric("gap_mean_bps", stats.gap_bps());
    ctx.metric("reward_chosen_mean", chosen);
    ctx.metric("reward_rejected_mean", rejected);
    let [chosen, rejected] = stats.shares();
    for ((name, chosen), rejected) in FAMILIES.iter().zip(chosen).zip(rejected) {
        let slug = name.replace(' ', "_");
        ctx.metric(&format!("chosen_{slug}"), chosen);
        ctx.metric(&format!("rejected_{slug}"), rejected);
        if chosen > 0.8 {
            ctx.warn(format!(
                "{:.0} % of the pairs choose `{name}`: a model can win by always saying it; see `max_family_share` and `reward.adverse_weight`",
                100.0 * chosen
            ));
        }
    }
    let share = |count: Option<&usize>| count.copied().unwrap_or_default() as f64 / n;
    for offset in &params.offsets_bps {
        ctx.metric(&format!("chosen_limit_{offset}"), share(stats.offsets.get(offset)));
    }
    for size in params.sizes.iter().filter(|_| params.sizes != [1]) {
        ctx.metric(&format!("chosen_size_{size}"), share(stats.sizes.get(size)));
    }
    for (compared, name, count) in
        [(params.hold, "chosen_hold", stats.hold), (params.cancel, "chosen_cancel", stats.cancel)]
    {
        if compared {
            ctx.metric(name, count as f64 / n);
        }
    }
    if stats.by_regime.iter().flatten().any(|count| *count > 0) {
        for (regime, counts) in Regime::ALL.into_iter().zip(stats.by_regime) {
            let all: usize = counts.iter().sum();
            ctx.metric(&format!("pairs_{}", regime.name()), all as f64);
            for (name, count) in FAMILIES.iter().zip(counts) {
                let slug = name.replace(' ', "_");
                ctx.metric(&format!("pairs_{}_{slug}", regime.name()), count as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pairs::decision::tests::any_decision;

    /// The same, with every pair in memory.
    fn plainly(briefs: &[Brief], params: &Params) -> Vec<usize> {
        let mut kept: Vec<usize> = Vec::new();
        for regime in 0..2 {
            let mut places: [Vec<usize>; FAMILIES.len()] = Default::default();
            for (at, brief) in briefs.iter().enumerate() {
                if part(brief, params) == regime {
                    places[family(brief.chosen)].push(at);
                }
            }
            let cap = family_cap(&places.each_ref().map(Vec::len), params.max_family_share);
            for places in &places {
                kept.extend(evenly(places.len(), cap).map(|i| places[i]));
            }
        }
        kept.sort_unstable();
        evenly(kept.len(), params.max_pairs.unwrap_or(usize::MAX)).map(|i| kept[i]).collect()
    }

    proptest! {
        #[test]
        fn pairs_are_left_out_in_passing_as_if_all_were_there(
            pairs in proptest::collection::vec((any_decision(), any_decision(), 0usize..3), 1..200),
            share in 0.21f64..1.0,
            balance_regimes: bool,
            max_pairs in proptest::option::of(1usize..150),
        ) {
            let regimes = [None, Some(Regime::Calm), Some(Regime::Volatile)];
            let brief = |(at, (chosen, rejected, regime)): (usize, (Decision, Decision, usize))| Brief {
                chosen,
                rejected,
                gap_bps: at as f32,
                rewards: [0.75, 0.1],
                regime: regimes[regime],
            };
            let briefs: Vec<Brief> = pairs.into_iter().enumerate().map(brief).collect();
            for brief in &briefs {
                prop_assert_eq!(Brief::from_bytes(&brief.to_bytes()), Some(*brief));
            }
            let params =
                Params { max_family_share: share, balance_regimes, max_pairs, ..Params::default() };
            let mut counts = Counts::default();
            briefs.iter().for_each(|brief| counts.push(brief, &params));
            let mut thin = Thin::new(&counts, &params);
            let kept: Vec<usize> = (0..briefs.len()).filter(|&at| thin.keeps(&briefs[at])).collect();
            prop_assert_eq!(&kept, &plainly(&briefs, &params));
            prop_assert_eq!(kept.len(), thin.kept);
        }
    }
}
