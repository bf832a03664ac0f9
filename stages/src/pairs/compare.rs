//! Writes the pairs of every training prompt that has one.
//!
//! Prompts and rows are read side by side; what is held is one prompt's pairs, the rows that its label
//! spans, and a bit for each prompt ([`super::repeats`]). Which pairs are left out for balance or number
//! is known at the end only ([`super::balance`]), so they wait in a file, with what is known of each in
//! another.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::balance::{BRIEF, Brief, Counts, Regime, Stats, Thin, report};
use super::decision::Decision;
use super::rank::{Preference, Rules, Taking, candidates, outcome, prefer};
use super::rationale::{Places, Signs, sentence};
use super::repeats::Repeats;
use super::report::Shown;
use super::reward::{Outcome, Resting, RewardSpec, Score};
use super::{Both, Pair, Params, Terms};
use crate::encode::beside::{Account, Beside};
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

/// Writes port `pairs`, and tells of it. What is known of the pairs that are there.
///
/// # Errors
/// A file cannot be read or written, a prompt is of no training row, or there is no pair.
pub fn write(
    extent: Extent,
    params: &Params,
    spec: &RewardSpec,
    ctx: &Context,
) -> Result<(Stats, Shown)> {
    let (texts, known) = (ctx.scratch().join("pairs.jsonl"), ctx.scratch().join("pairs.known"));
    let create = |path: &Path| fs_err::File::create(path).map(BufWriter::new);
    let mut out = (create(&texts)?, create(&known)?);
    let counts = all(extent, params, spec, ctx, (&mut out.0, &mut out.1))?;
    out.0.flush()?;
    out.1.flush()?;
    drop(out);
    let mut thin = Thin::new(&counts, params);
    let (mut stats, mut shown) = (Stats::default(), Shown::of(thin.kept));
    let whole = thin.kept == counts.total();
    let to = ctx.output("pairs")?;
    let mut copy = match whole {
        true => None,
        false => Some((BufReader::new(fs_err::File::open(&texts)?), create(to)?)),
    };
    let mut known = BufReader::new(fs_err::File::open(&known)?);
    let (mut line, mut bytes) = (String::new(), [0; BRIEF]);
    for _ in 0..counts.total() {
        known.read_exact(&mut bytes)?;
        let brief = Brief::from_bytes(&bytes)
            .ok_or_else(|| StageError::failed("a scratch file was changed while it was in use"))?;
        let stays = thin.keeps(&brief);
        if let Some((from, to)) = &mut copy {
            line.clear();
            from.read_line(&mut line)?;
            if stays {
                to.write_all(line.as_bytes())?;
            }
        }
        if stays {
            shown.push(stats.pairs, brief.regime);
            stats.push(&brief);
        }
    }
    match copy {
        Some((_, mut to)) => to.flush()?,
        None => fs_err::rename(&texts, to).or_else(|_| fs_err::copy(&texts, to).map(|_| ()))?,
    }
    report(&stats, params, ctx);
    Ok((stats, shown))
}

/// Writes all pairs, in the order of the prompts, and what is known of each.
fn all(
    extent: Extent,
    params: &Params,
    spec: &RewardSpec,
    ctx: &Context,
    (out, known): (&mut impl Write, &mut impl Write),
) -> Result<Counts> {
    let mut account = held(params, ctx)?;
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
    let actions = candidates(&params.offsets_bps, &params.sizes, params.hold, params.cancel);
    let (mut counts, mut dropped, mut total) = (Counts::default(), Dropped::default(), 0usize);
    let repeats = Repeats::find(path, ctx.scratch())?;
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
        if repeats.has(total - 1) {
            dropped.repeated += 1;
            continue;
        }
        let account = account.at(t0)?.0;
        let Some(mut outcome) = outcome(rows.past(), rows.ahead(), &taking) else {
            // Where the horizon is there, the volatility is not.
            let short = rows.ahead().len() < span;
            *if short { &mut dropped.past_end } else { &mut dropped.still } += 1;
            continue;
        };
        if let Some(account) = account {
            hold(&mut outcome, &account, ctx)?;
        }
        let Some(preference) = prefer(spec, &outcome, &actions, &rules, &prompt.t0) else {
            dropped.gap += 1;
            continue;
        };
        let signs = places.signs(rows.row());
        let Preference { chosen, rejected } = preference;
        let t1 = &rows.ahead()[span - 1].date;
        for (at, rejected) in rejected.iter().enumerate() {
            let brief = brief(&chosen, rejected, &signs);
            counts.push(&brief, params);
            known.write_all(&brief.to_bytes())?;
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
    if counts.total() == 0 {
        let Dropped { past_end, still, gap, repeated } = dropped;
        return Err(StageError::bad(path, format!("no pairs: {total} training prompts, {past_end} of them with a label past the end of the training span, {still} with a price that stood still before, {gap} with too small a gap, {repeated} repeated"))
            .hint("lower `min_gap_bps`, or give `encode` more training rows"));
    }
    Ok(counts)
}

/// The account, as far as the prompts have come.
fn held(params: &Params, ctx: &Context) -> Result<Beside> {
    if ctx.has("account") {
        return Beside::open(Some(ctx.file("account")?), None, (0, 0));
    }
    if params.hold || params.cancel {
        let what = "`hold` and `cancel` are to be compared, and nothing says what is held";
        return Err(StageError::failed(what).hint(
            "feed port `account`: columns `date`, `position`, `pnl_bps` and, for the order that rests, `resting`",
        ));
    }
    Ok(Beside::default())
}

/// Adds what the account holds at the decision.
fn hold(outcome: &mut Outcome, account: &Account, ctx: &Context) -> Result<()> {
    outcome.position = account.position;
    outcome.resting = match Decision::read(&account.resting) {
        Some(Decision::Limit(side, offset_bps, size)) => Some(Resting { side, offset_bps, size }),
        _ if account.resting.is_empty() => None,
        _ => {
            let what = format!("`{}` is no limit order that may rest", account.resting);
            return Err(StageError::bad(ctx.file("account")?, what)
                .hint("write it as `buy limit 10`: basis points from the mid at that date"));
        }
    };
    Ok(())
}

type Scored = (Decision, Score);

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
        chosen: format!(" {}", chosen.0.write(params.answers)),
        rejected: format!(" {}", rejected.0.write(params.answers)),
        reward_chosen: chosen.1.reward,
        reward_rejected: rejected.1.reward,
        rationale: sentence(signs, chosen, rejected),
        components: Both { chosen: terms(&chosen.1), rejected: terms(&rejected.1) },
        order: (params.desk.as_ref())
            .map(|desk| desk.sent(chosen.0, outcome.close, outcome.position)),
        outcome: outcome.clone(),
    }
}
