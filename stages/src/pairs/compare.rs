//! Writes the pair of every training prompt that has one.
//!
//! Prompts and rows are read side by side, each once; what is held is one pair and the rows that
//! its label spans. Which pairs are left out for balance or number is known at the end only, so
//! they wait in a file, with a few bytes in memory for each.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, BufWriter, Write};

use quantmill_cache::Digest;

use super::action::{Action, FAMILIES};
use super::rank::{Preference, Rules, Taking, candidates, outcome, prefer};
use super::reward::{Outcome, RewardSpec, Score};
use super::{Both, Pair, Params, Terms};
use crate::encode::prompt::{Prompt, Prompts};
use crate::featurize::split::{Split, evenly};
use crate::featurize::table::{self, Around, Extent, Row, Rows};
use crate::market::time;
use crate::{Context, Result, StageError};

/// What is kept of a pair until it is known which stay.
#[derive(Clone, Copy, Debug)]
struct Brief {
    chosen: Action,
    rejected: Action,
    gap_bps: f32,
    rewards: [f32; 2],
}

/// Prompts that gave no pair, by reason.
#[derive(Default)]
struct Dropped {
    past_end: usize,
    gap: usize,
    repeated: usize,
}

/// Writes port `pairs`, and tells of it.
///
/// # Errors
/// A file cannot be read or written, a prompt is of no training row, or there is no pair.
pub fn write(extent: Extent, params: &Params, spec: &RewardSpec, ctx: &Context) -> Result<()> {
    let scratch = ctx.scratch().join("pairs.jsonl");
    let mut out = BufWriter::new(fs_err::File::create(&scratch)?);
    let briefs = all(extent, params, spec, ctx, &mut out)?;
    out.flush()?;
    drop(out);
    let kept = thin(&briefs, params);
    if kept.len() == briefs.len() {
        let to = ctx.output("pairs")?;
        fs_err::rename(&scratch, to).or_else(|_| fs_err::copy(&scratch, to).map(|_| ()))?;
    } else {
        let mut kept = kept.iter().copied().peekable();
        let mut out = BufWriter::new(fs_err::File::create(ctx.output("pairs")?)?);
        let mut lines = BufReader::new(fs_err::File::open(&scratch)?);
        let mut line = String::new();
        for number in 0..briefs.len() {
            line.clear();
            lines.read_line(&mut line)?;
            if kept.next_if_eq(&number).is_some() {
                out.write_all(line.as_bytes())?;
            }
        }
        out.flush()?;
    }
    let kept: Vec<Brief> = kept.into_iter().map(|at| briefs[at]).collect();
    report(&kept, &params.offsets_bps, ctx);
    Ok(())
}

/// Writes all pairs, in the order of the prompts.
fn all(
    extent: Extent,
    params: &Params,
    spec: &RewardSpec,
    ctx: &Context,
    out: &mut impl Write,
) -> Result<Vec<Brief>> {
    let (path, r) = (ctx.file("prompts")?, &params.reward);
    let reader = Rows::open_all(&table::files(ctx)?)?;
    let taking = Taking {
        horizon: r.horizon_bars,
        markout: r.markout_bars,
        sigma_window: r.sigma_window,
        half_spread_bps: r.half_spread_bps,
        spread: reader.place("spread_bps"),
    };
    let span = r.horizon_bars + r.markout_bars;
    let mut rows = Around::new(reader, extent.train_end, r.sigma_window, span);
    let rules = Rules {
        min_gap_bps: params.min_gap_bps,
        flat_below_bps: params.flat_below_bps,
        rejected: params.rejected,
        seed: params.seed,
    };
    let actions = candidates(&params.offsets_bps);
    let (mut briefs, mut dropped, mut total) = (Vec::new(), Dropped::default(), 0usize);
    let mut seen = HashSet::new();
    let mut at = rows.step()?;
    for prompt in Prompts::open(path)? {
        let prompt = prompt?;
        if prompt.split != Split::Train {
            continue;
        }
        total += 1;
        if total % 1000 == 0 {
            ctx.progress(total as u64, 0, "prompts", "")?;
        }
        let t0 = time::parse(&prompt.t0).map_or(i64::MIN, |stamp| stamp.time);
        while at.is_some() && rows.row().time < t0 {
            at = rows.step()?;
        }
        let found = at.filter(|_| rows.row().time == t0 && rows.row().split == Split::Train);
        if found.is_none() {
            let message = format!("prompt `{}` is of no training row", prompt.id);
            return Err(StageError::bad(path, message).hint(
                "prompts and features must come from the same featurize stage, both in order of time",
            ));
        }
        // The same words again teach nothing further.
        if !seen.insert(Digest::of(prompt.prompt.as_bytes())) {
            dropped.repeated += 1;
            continue;
        }
        let Some(outcome) = outcome(rows.past(), rows.ahead(), &taking) else {
            dropped.past_end += 1;
            continue;
        };
        let Some(preference) = prefer(spec, &outcome, &actions, &rules, &prompt.t0) else {
            dropped.gap += 1;
            continue;
        };
        briefs.push(brief(&preference));
        let end = &rows.ahead()[span - 1];
        serde_json::to_writer(&mut *out, &pair(prompt, end, outcome, &preference))
            .map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    ctx.progress(total as u64, total as u64, "prompts", "")?;
    ctx.metric("prompts_train", total as f64);
    ctx.metric("dropped_label_past_train_end", dropped.past_end as f64);
    ctx.metric("dropped_gap_too_small", dropped.gap as f64);
    ctx.metric("dropped_repeated", dropped.repeated as f64);
    if briefs.is_empty() {
        let Dropped { past_end, gap, repeated } = dropped;
        return Err(StageError::bad(path, format!("no pairs: {total} training prompts, {past_end} of them with a label past the end of the training span, {gap} with too small a gap, {repeated} repeated"))
            .hint("lower `min_gap_bps`, or give `encode` more training rows"));
    }
    Ok(briefs)
}

fn brief(preference: &Preference) -> Brief {
    let ((chosen, better), (rejected, worse)) = (preference.chosen, preference.rejected);
    Brief {
        chosen,
        rejected,
        gap_bps: (better.net_bps - worse.net_bps) as f32,
        rewards: [better.reward as f32, worse.reward as f32],
    }
}

fn pair(prompt: Prompt, end: &Row, outcome: Outcome, preference: &Preference) -> Pair {
    let (chosen, rejected) = (&preference.chosen, &preference.rejected);
    let terms = |score: &Score| Terms { net_bps: score.net_bps, terms: score.components };
    Pair {
        id: prompt.id,
        t0: prompt.t0,
        t1: end.date.clone(),
        prompt: prompt.prompt,
        chosen: format!(" {}", chosen.0),
        rejected: format!(" {}", rejected.0),
        reward_chosen: chosen.1.reward,
        reward_rejected: rejected.1.reward,
        components: Both { chosen: terms(&chosen.1), rejected: terms(&rejected.1) },
        outcome,
    }
}

/// The pairs that stay: of families that are over their share fewer, and of all no more than the
/// number, spread evenly over time.
fn thin(briefs: &[Brief], params: &Params) -> Vec<usize> {
    let mut places: [Vec<usize>; FAMILIES.len()] = Default::default();
    for (at, brief) in briefs.iter().enumerate() {
        let family = FAMILIES.iter().position(|name| *name == brief.chosen.family());
        places[family.unwrap_or_default()].push(at);
    }
    let counts: Vec<usize> = places.iter().map(Vec::len).collect();
    let cap = family_cap(&counts, params.max_family_share);
    let mut kept: Vec<usize> = places
        .iter()
        .flat_map(|places| evenly(places.len(), cap).filter_map(|i| places.get(i).copied()))
        .collect();
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

fn report(pairs: &[Brief], offsets: &[u32], ctx: &Context) {
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
}
