//! Writes the pairs of every training prompt that has one.
//!
//! Prompts and rows are read side by side, each once; what is held is one prompt's pairs and the rows
//! that its label spans. Which pairs are left out for balance or number is known at the end only
//! ([`super::balance`]), so they wait in a file, with a few bytes in memory for each.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, BufWriter, Write};

use quantmill_cache::Digest;

use super::action::Action;
use super::balance::{Brief, Regime, report, thin};
use super::decision::Decision;
use super::rank::{Preference, Rules, Taking, candidates, outcome, prefer};
use super::rationale::{Places, Signs, sentence};
use super::reward::{Outcome, RewardSpec, Score};
use super::{Both, Pair, Params, Terms};
use crate::encode::prompt::{Prompt, Prompts};
use crate::featurize::split::Split;
use crate::featurize::table::{self, Around, Extent, Rows};
use crate::market::time;
use crate::{Context, Result, StageError};

/// Prompts that gave no pair, by reason.
#[derive(Default)]
struct Dropped {
    past_end: usize,
    still: usize,
    gap: usize,
    repeated: usize,
}

/// Writes port `pairs`, and tells of it. What is known of each pair that is there.
///
/// # Errors
/// A file cannot be read or written, a prompt is of no training row, or there is no pair.
pub fn write(
    extent: Extent,
    params: &Params,
    spec: &RewardSpec,
    ctx: &Context,
) -> Result<Vec<Brief>> {
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
    Ok(kept)
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
    let places = Places::of(&reader);
    if params.balance_regimes && !places.has_regime() {
        let files = table::files(ctx)?;
        let message = "missing column `p_high_vol`, which `balance_regimes` goes by";
        return Err(StageError::bad(table::first(&files), message)
            .at(1)
            .hint("add `p_high_vol` to `features` of the featurize stage"));
    }
    let span = r.horizon_bars + r.markout_bars;
    let mut rows = Around::new(reader, extent.train_end, r.sigma_window, span);
    let rules = Rules {
        min_gap_bps: params.min_gap_bps,
        flat_below_bps: params.flat_below_bps,
        rejected: params.rejected,
        count: params.per_prompt,
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
            // Where the horizon is there, the volatility is not.
            let short = rows.ahead().len() < span;
            *if short { &mut dropped.past_end } else { &mut dropped.still } += 1;
            continue;
        };
        let Some(preference) = prefer(spec, &outcome, &actions, &rules, &prompt.t0) else {
            dropped.gap += 1;
            continue;
        };
        let signs = places.signs(rows.row());
        let Preference { chosen, rejected } = preference;
        let t1 = &rows.ahead()[span - 1].date;
        for (at, rejected) in rejected.iter().enumerate() {
            briefs.push(brief(&chosen, rejected, &signs));
            let pair = pair(at, &prompt, t1, &outcome, (&chosen, rejected), &signs, params);
            serde_json::to_writer(&mut *out, &pair).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
    }
    ctx.progress(total as u64, total as u64, "prompts", "")?;
    ctx.metric("prompts_train", total as f64);
    ctx.metric("dropped_label_past_train_end", dropped.past_end as f64);
    ctx.metric("dropped_price_stood_still", dropped.still as f64);
    ctx.metric("dropped_gap_too_small", dropped.gap as f64);
    ctx.metric("dropped_repeated", dropped.repeated as f64);
    if briefs.is_empty() {
        let Dropped { past_end, still, gap, repeated } = dropped;
        return Err(StageError::bad(path, format!("no pairs: {total} training prompts, {past_end} of them with a label past the end of the training span, {still} with a price that stood still before, {gap} with too small a gap, {repeated} repeated"))
            .hint("lower `min_gap_bps`, or give `encode` more training rows"));
    }
    Ok(briefs)
}

type Scored = (Action, Score);

fn brief(chosen: &Scored, rejected: &Scored, signs: &Signs) -> Brief {
    let ((chosen, better), (rejected, worse)) = (chosen, rejected);
    Brief {
        chosen: *chosen,
        rejected: *rejected,
        gap_bps: (better.net_bps - worse.net_bps) as f32,
        rewards: [better.reward as f32, worse.reward as f32],
        regime: signs.p_high_vol.map(Regime::of),
    }
}

fn pair(
    at: usize,
    prompt: &Prompt,
    t1: &str,
    outcome: &Outcome,
    (chosen, rejected): (&Scored, &Scored),
    signs: &Signs,
    params: &Params,
) -> Pair {
    let terms = |score: &Score| Terms { net_bps: score.net_bps, terms: score.components };
    let id = match at {
        0 => prompt.id.clone(),
        _ => format!("{}#{}", prompt.id, at + 1),
    };
    Pair {
        id,
        t0: prompt.t0.clone(),
        t1: t1.to_owned(),
        prompt: prompt.prompt.clone(),
        chosen: format!(" {}", Decision::from(chosen.0).write(params.answers)),
        rejected: format!(" {}", Decision::from(rejected.0).write(params.answers)),
        reward_chosen: chosen.1.reward,
        reward_rejected: rejected.1.reward,
        rationale: sentence(signs, chosen, rejected),
        components: Both { chosen: terms(&chosen.1), rejected: terms(&rejected.1) },
        order: params.desk.as_ref().map(|desk| desk.sent(chosen.0.into(), outcome.close)),
        outcome: outcome.clone(),
    }
}
