//! From a date's outcome to a preference: which actions are compared, which wins, and which of
//! the others it is set against.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::action::Side;
use super::decision::Decision;
use super::reward::{Outcome, RewardSpec, Score, records, score};
use crate::featurize::table::Row;

/// Which action the chosen one is set against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rejected {
    /// The one of the lowest R: mostly the market order on the wrong side, which teaches
    /// direction and little else.
    Worst,
    /// Any of those that are lower by the least gap, drawn by date and seed.
    #[default]
    Random,
    /// The best of those that are lower by the least gap: the hardest pairs.
    Second,
}

/// The decisions that are compared: flat, hold and cancel where they are asked for, market orders, and
/// limits at each offset, of each size.
pub fn candidates(offsets_bps: &[u32], sizes: &[u32], hold: bool, cancel: bool) -> Vec<Decision> {
    let mut all = vec![Decision::Flat];
    all.extend(hold.then_some(Decision::Hold));
    all.extend(cancel.then_some(Decision::Cancel));
    for side in [Side::Buy, Side::Sell] {
        all.extend(sizes.iter().map(|&size| Decision::Market(side, size)));
        for &offset in offsets_bps {
            all.extend(sizes.iter().map(|&size| Decision::Limit(side, offset, size)));
        }
    }
    all
}

/// What is preferred at one date.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// The better decision and its score.
    pub chosen: (Decision, Score),
    /// Worse decisions and their scores, all different: a pair each, one at least.
    pub rejected: Vec<(Decision, Score)>,
}

/// How preferences are made.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Least difference of R, basis points.
    pub min_gap_bps: f64,
    /// What an order must be worth more than sending none, basis points.
    pub flat_below_bps: f64,
    /// Which action is rejected.
    pub rejected: Rejected,
    /// Actions that are rejected at most.
    pub count: usize,
    /// Seed of [`Rejected::Random`].
    pub seed: u64,
}

/// Ranks the candidates by R and picks the best and those that it is set against. Equal scores keep
/// the order of the candidates. `None` where nothing lies `min_gap_bps` below the chosen action.
pub fn prefer(
    spec: &RewardSpec,
    outcome: &Outcome,
    candidates: &[Decision],
    rules: &Rules,
    date: &str,
) -> Option<Preference> {
    let mut scored: Vec<(Decision, Score)> =
        candidates.iter().map(|&decision| (decision, score(spec, outcome, decision))).collect();
    scored.sort_by(|a, b| b.1.net_bps.total_cmp(&a.1.net_bps));
    let best = scored.first()?;
    // The best of those that send no order: flat, or to hold or cancel where they are compared.
    let quiet = scored.iter().find(|(decision, _)| decision.size() == 0);
    let chosen = match quiet {
        Some(quiet) if best.1.net_bps - quiet.1.net_bps < rules.flat_below_bps => quiet,
        _ => best,
    };
    let mut lower: Vec<(Decision, Score)> = scored.clone();
    lower.retain(|(decision, s)| {
        *decision != chosen.0 && chosen.1.net_bps - s.net_bps >= rules.min_gap_bps
    });
    let rejected: Vec<_> = match rules.rejected {
        Rejected::Worst => lower.into_iter().rev().take(rules.count).collect(),
        Rejected::Second => lower.into_iter().take(rules.count).collect(),
        Rejected::Random => {
            let mut rng = ChaCha8Rng::seed_from_u64(rules.seed ^ fnv1a(date));
            let draws = rules.count.min(lower.len());
            (0..draws).map(|_| lower.remove(rng.random_range(0..lower.len()))).collect()
        }
    };
    (!rejected.is_empty()).then_some(Preference { chosen: *chosen, rejected })
}

/// A digest of a short text that stays the same for ever (FNV-1a).
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Close-to-close volatility over `horizon` bars as known at the last row of `past`, basis points,
/// rounded to 1e-4; `None` where there are not `window` returns, or the price stood still.
pub fn sigma(past: &[Row], horizon: usize, window: usize) -> Option<f64> {
    let past = past.get(past.len().checked_sub(window + 1)?..)?;
    let returns = || past.windows(2).map(|pair| (pair[1].close / pair[0].close).ln());
    let mean = returns().sum::<f64>() / window as f64;
    let squares: f64 = returns().map(|r| (r - mean) * (r - mean)).sum();
    let deviation = (squares / (window - 1) as f64).sqrt();
    let sigma = round(1e4 * deviation * (horizon as f64).sqrt());
    (sigma > 0.0).then_some(sigma)
}

/// How an outcome is taken.
#[derive(Clone, Copy, Debug)]
pub struct Taking {
    /// H, bars.
    pub horizon: usize,
    /// tau, bars.
    pub markout: usize,
    /// Bars behind sigma.
    pub sigma_window: usize,
    /// Half the spread where it is not that of the row, basis points.
    pub half_spread_bps: Option<f64>,
    /// The place of the feature `spread_bps`.
    pub spread: Option<usize>,
}

/// What followed the last row of `past`, over H + tau bars; `None` where `ahead` has fewer, or
/// where there is no [`sigma`] or no spread.
///
/// Rounded to 1e-4 basis points, so that what a file holds is what was scored.
pub fn outcome(past: &[Row], ahead: &[Row], how: &Taking) -> Option<Outcome> {
    let now = past.last()?;
    let (h, tau) = (how.horizon, how.markout);
    let ahead = ahead.get(..h + tau)?;
    let close = now.close;
    let away = |price: f64| round(1e4 * (price / close - 1.0));
    let half = match (how.half_spread_bps, now.quote) {
        (Some(half), _) => half,
        (None, Some(quote)) => 1e4 * (quote.ask - quote.bid) / 2.0 / close,
        (None, None) => now.features.get(how.spread?)? / 2.0,
    };
    let half = round(half);
    // Without quotes the spread is taken to stay as it is, in basis points.
    let moved = |row: &Row, side: Side| match (now.quote, row.quote, side) {
        (Some(from), Some(to), Side::Buy) => round(1e4 * (to.ask - from.ask) / close),
        (Some(from), Some(to), Side::Sell) => round(1e4 * (to.bid - from.bid) / close),
        _ => away(row.close) * (1.0 + side.sign() * half / 1e4),
    };
    let judged = |at: usize| away(ahead[at + tau].close);
    let low = |at: usize| [away(ahead[at].range().0), judged(at)];
    let high = |at: usize| [away(ahead[at].range().1), judged(at)];
    let traded = |step: &[f64; 2]| step[0].is_finite();
    Some(Outcome {
        close,
        half_spread_bps: half,
        sigma_bps: sigma(past, h, how.sigma_window)?,
        horizon_bars: h,
        markout_bars: tau,
        markout_bps: away(ahead[tau - 1].close),
        ask_bps: moved(&ahead[h - 1], Side::Buy),
        bid_bps: moved(&ahead[h - 1], Side::Sell),
        end_bps: away(ahead[h + tau - 1].close),
        falls: records(1.0, (0..h).map(low).filter(traded)),
        rises: records(-1.0, (0..h).map(high).filter(traded)),
        position: 0.0,
        resting: None,
    })
}

fn round(bps: f64) -> f64 {
    (bps * 1e4).round() / 1e4
}
