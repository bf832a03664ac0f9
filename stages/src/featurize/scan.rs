//! The first pass: reads the source once, into a scratch file of samples, and finds out how long it
//! is and where its spans lie.

use std::path::PathBuf;

use super::feature::Source as Has;
use super::split::{Bound, Spans};
use super::{Params, series};
use crate::market::clock::Clock;
use crate::market::quality::Counts;
use crate::market::spool::Spool;
use crate::market::time::{DAY, Form};
use crate::market::{self, Sample, Samples};
use crate::{Context, Result, StageError};

/// What is known of the samples before any is used.
pub struct Scan {
    /// The samples.
    pub spool: PathBuf,
    /// Their number.
    pub rows: usize,
    /// The first that is written: those before it are of files that are read to fill windows.
    pub own: usize,
    /// Where the spans lie.
    pub spans: Spans,
    /// Times of the first row, and of the last of the training span.
    pub train: (i64, i64),
    /// How times are written.
    pub form: Form,
    /// What the samples hold.
    pub source: Has,
    /// Samples in a year.
    pub periods_per_year: f64,
    /// What was found in the files.
    pub counts: Counts,
}

/// Reads the source.
///
/// # Errors
/// It cannot be read, holds more faults than the parameters allow, or too few rows.
pub fn scan(params: &Params, ctx: &Context) -> Result<Scan> {
    let series = series(params, ctx)?;
    let mut feed = market::open(&params.source, &series, &params.sampling, &params.quality)?;
    let path = ctx.scratch().join("samples");
    let mut spool = Spool::create(&path)?;
    let splits = &params.splits;
    let (end, start, sealed) = (
        Bound::read(&splits.train_end),
        Bound::read(&splits.test_start),
        Bound::read(&splits.holdout_start),
    );
    let mut has = Has { index: series.index.is_some(), ..Has::default() };
    has.peers = series.peers.is_some();
    let closes = matches!(&params.source, market::Source::Bars(bars) if bars.closes_only);
    has.ranges = !closes;
    let (mut rows, mut up_to_end, mut before_test, mut before_holdout) = (0, 0, 0, 0);
    let (by_file, mut own) = (params.by_file.is_some(), 0);
    let item = series.files.iter().position(|(name, _)| by_file && Some(&**name) == ctx.item());
    let item = item.unwrap_or_default();
    let mut odd = 0u64;
    let mut sample = Sample::default();
    while feed.next(&mut sample)? {
        spool.push(&sample)?;
        rows += 1;
        own += usize::from(feed.file() < item);
        up_to_end += usize::from(end.is_some_and(|end| end.holds(sample.time)));
        before_test += usize::from(start.is_some_and(|start| sample.time < start.first));
        before_holdout += usize::from(sealed.is_none_or(|start| sample.time < start.first));
        has.volume |= sample.volume > 0.0;
        has.quotes |= sample.quote.is_some();
        has.trades |= !sample.trades.is_empty();
        has.depth |= sample.depth.is_some();
        let inside = |x| (sample.low..=sample.high).contains(&x);
        odd += u64::from(!(inside(sample.open) && inside(sample.close)));
        if rows % 10_000 == 0 {
            ctx.progress(rows as u64, 0, "rows", "reading")?;
        }
    }
    spool.finish()?;
    // A bar without volume on every row is still a source of bars.
    has.volume |= !params.source.has_clock() && !closes;
    if odd > 0 {
        ctx.warn(format!("{odd} bars open or close outside their low and high"));
    }
    let counts = feed.counts();
    tell(&counts, ctx);
    if end.is_none() {
        up_to_end = (before_holdout as f64 * splits.train_fraction) as usize;
    }
    let spans = Spans::new(splits, up_to_end, before_test, before_holdout);
    let train = ends(&path, spans.train)?;
    let years = |span: i64| span as f64 / (365.25 * DAY as f64);
    let periods_per_year = match (params.periods_per_year, params.sampling.clock) {
        (Some(given), _) => given,
        (None, _) if !params.source.has_clock() => 252.0,
        (None, Clock::Every(span)) => 1.0 / years(span.0),
        (None, _) => match years(train.1 - train.0) {
            span if span > 0.0 => (spans.train - 1) as f64 / span,
            _ => 252.0,
        },
    };
    let form = feed.form();
    if spans.train < 30 && !by_file {
        let message = format!("the training span holds {} rows", spans.train);
        let port = series.files.first().map_or_else(PathBuf::new, |(name, _)| name.into());
        return Err(StageError::bad(port, message)
            .hint("it needs as many rows as the longest window and more; move `splits.train_end`, add rows, or sample more often"));
    }
    Ok(Scan { spool: path, rows, own, spans, train, form, source: has, periods_per_year, counts })
}

/// Times of the first row and of the last of the first `rows`.
fn ends(spool: &std::path::Path, rows: usize) -> Result<(i64, i64)> {
    let mut file = market::spool::Unspool::open(spool)?;
    let (mut sample, mut ends) = (Sample::default(), (0, 0));
    for row in 0..rows {
        if !file.next(&mut sample)? {
            break;
        }
        ends = (if row == 0 { sample.time } else { ends.0 }, sample.time);
    }
    Ok(ends)
}

/// Says what was repaired or left out.
fn tell(counts: &Counts, ctx: &Context) {
    let mut said = Vec::new();
    for (name, count) in counts.faults() {
        ctx.metric(name, count as f64);
        if count > 0 {
            said.push(format!("{count} {}", name.replace('_', " ")));
        }
    }
    if !said.is_empty() {
        ctx.warn(format!("faults in the data, within what `quality` allows: {}", said.join(", ")));
    }
    for (name, count) in [
        ("updates", counts.updates),
        ("levels", counts.levels),
        ("quotes", counts.quotes),
        ("trades", counts.trades),
        ("superseded", counts.superseded),
        ("stale", counts.stale),
        ("idle", counts.idle),
    ] {
        if count > 0 {
            ctx.metric(name, count as f64);
        }
    }
}
