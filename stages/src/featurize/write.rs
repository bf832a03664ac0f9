//! The last pass: features, label and split of each sample; and what is known at its end, the
//! scalers, the weights of classes and the folds.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufWriter, Write};

use serde::Serialize;

use super::feature::{Column, Feature};
use super::fit::{Fit, Scalers, short};
use super::folds::Fold;
use super::labels::{Known, Labeller, balance};
use super::scan::Scan;
use super::sides::Sides;
use super::split::Split;
use super::{Params, wrong};
use crate::market::spool::Unspool;
use crate::market::{Sample, Samples};
use crate::{Context, Result, StageError};

/// The features of a source, one after the other.
pub struct Rack(pub Vec<Box<dyn Feature>>);

impl Rack {
    /// Before the first sample.
    ///
    /// # Errors
    /// A column cannot be made of what the source and the fit hold.
    pub fn new(columns: &[Column], scan: &Scan, fit: &Fit) -> Result<Rack> {
        let make = |column: &Column| {
            column.make(fit.periods_per_year, &scan.source, &fit.fits).map_err(wrong)
        };
        columns.iter().map(make).collect::<Result<_>>().map(Rack)
    }

    /// The values at a sample.
    pub fn push(&mut self, sample: &Sample, into: &mut Vec<Option<f64>>) {
        into.clear();
        into.extend(self.0.iter_mut().map(|feature| feature.push(sample)));
    }
}

/// A row that waits for its label.
struct Waiting {
    time: i64,
    /// Its cells up to the split, and those after it.
    cells: (Vec<u8>, Vec<u8>),
    /// Its features, where all are known.
    whole: Option<Vec<f64>>,
}

/// Counts and sums over the rows that were written.
#[derive(Default)]
struct Sums {
    splits: BTreeMap<Split, usize>,
    scalers: Scalers,
    classes: BTreeMap<i8, usize>,
    /// Number, t0 and t1 of the rows of the folds.
    spans: Vec<(usize, (i64, i64))>,
    late: usize,
}

/// Writes the outputs.
///
/// # Errors
/// A file cannot be written, or no training row has all features.
pub fn write(
    params: &Params,
    columns: &[Column],
    scan: &Scan,
    mut fit: Fit,
    ctx: &Context,
) -> Result<()> {
    let mut path = ctx.output("features")?.to_owned();
    if params.by_file.is_some() {
        path.push(table_name(ctx.item().unwrap_or(params.port())));
        path.parent().map_or(Ok(()), fs_err::create_dir_all)?;
    }
    let mut out = BufWriter::with_capacity(1 << 18, fs_err::File::create(path)?);
    header(&mut out, params, columns, scan)?;
    let mut rack = Rack::new(columns, scan, &fit)?;
    let mut labeller = params.label.map(|label| Labeller::new(label, params.meta.as_ref()));
    let mut sides = Sides::open(params.meta.as_ref(), columns, ctx)?;
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let (mut sums, mut done) = (Sums::default(), 0);
    let mut file = Unspool::open(&scan.spool)?;
    let (mut sample, mut values) = (Sample::default(), Vec::new());
    let mut row = 0;
    loop {
        let more = file.next(&mut sample)?;
        if more {
            rack.push(&sample, &mut values);
            if let Some(labeller) = &mut labeller {
                labeller.push(&sample, sides.at(sample.time, &values)?);
            }
            waiting.push_back(cells(&sample, &values, scan));
            row += 1;
        }
        // Without a label every row is ready at once.
        while !waiting.is_empty() {
            let label = match &mut labeller {
                None => Some(None),
                Some(labeller) => labeller.pop(!more),
            };
            let (Some(label), Some(waits)) = (label, waiting.front()) else { break };
            finish(&mut out, params, scan, (done, waits, label), &mut sums)?;
            waiting.pop_front();
            done += 1;
        }
        if !more {
            break;
        }
        if row % 10_000 == 0 {
            ctx.progress(row as u64, scan.rows as u64, "rows", "features")?;
        }
    }
    out.flush()?;
    ctx.progress(scan.rows as u64, scan.rows as u64, "rows", "features")?;
    if params.by_file.is_some() {
        return report_file(params, scan, &sums, ctx);
    }
    report(params, columns, scan, &sums, ctx)?;
    if !ctx.has("fit") {
        fit.scalers = sums.scalers.finish(columns.iter().map(|column| column.name.as_str()));
        let counts: Vec<(i8, usize)> = sums.classes.iter().map(|(&c, &n)| (c, n)).collect();
        fit.class_weights = balance(&counts).into_iter().map(|(c, w)| (c, short(w))).collect();
    }
    json(ctx, "fit", &fit)?;
    if let Some(scheme) = &params.splits.folds {
        json(ctx, "folds", &folds(params, scheme, &sums))?;
    }
    Ok(())
}

/// The name of a file's table: its own, as `.csv` and not packed.
pub fn table_name(item: &str) -> String {
    let plain = [".gz", ".xz"].into_iter().find_map(|end| item.strip_suffix(end)).unwrap_or(item);
    let stem = match plain.rsplit_once('.') {
        Some((stem, kind)) if !stem.is_empty() && !kind.contains('/') => stem,
        _ => plain,
    };
    format!("{stem}.csv")
}

fn header(out: &mut impl Write, params: &Params, columns: &[Column], scan: &Scan) -> Result<()> {
    write!(out, "date,open,high,low,close,volume,split")?;
    if scan.source.quotes {
        write!(out, ",bid,bid_size,ask,ask_size")?;
    }
    if scan.source.trades {
        write!(out, ",trade_low,trade_high")?;
    }
    if scan.source.index {
        write!(out, ",index_close")?;
    }
    for column in columns {
        write!(out, ",{}", column.name)?;
    }
    if params.label.is_some() {
        write!(out, ",t1,label,label_return")?;
    }
    if params.meta.is_some() {
        write!(out, ",label_side")?;
    }
    Ok(writeln!(out)?)
}

fn cells(sample: &Sample, values: &[Option<f64>], scan: &Scan) -> Waiting {
    let (mut before, mut after) = (Vec::with_capacity(96), Vec::with_capacity(320));
    let Sample { open, high, low, close, volume, .. } = sample;
    let date = scan.form.write(sample.time);
    // Writing to a vector cannot fail.
    let _ = write!(before, "{date},{open},{high},{low},{close},{volume}");
    if scan.source.quotes {
        let quote = sample.quote;
        cell(&mut after, quote.map(|q| q.bid));
        cell(&mut after, quote.map(|q| q.bid_size));
        cell(&mut after, quote.map(|q| q.ask));
        cell(&mut after, quote.map(|q| q.ask_size));
    }
    if scan.source.trades {
        let prices = || sample.trades.iter().map(|trade| trade.price);
        cell(&mut after, prices().reduce(f64::min));
        cell(&mut after, prices().reduce(f64::max));
    }
    if scan.source.index {
        cell(&mut after, sample.index);
    }
    values.iter().for_each(|value| cell(&mut after, *value));
    Waiting { time: sample.time, cells: (before, after), whole: values.iter().copied().collect() }
}

/// A cell after a comma; empty where the value is not known.
fn cell(out: &mut Vec<u8>, value: Option<f64>) {
    out.push(b',');
    if let Some(value) = value {
        let _ = write!(out, "{value}");
    }
}

/// Writes a row whose label is known, or never will be.
fn finish(
    out: &mut impl Write,
    params: &Params,
    scan: &Scan,
    (row, waits, label): (usize, &Waiting, Option<Known>),
    sums: &mut Sums,
) -> Result<()> {
    if row < scan.own {
        return Ok(());
    }
    let unlabelled = params.label.is_some() && label.is_none();
    let until = row + label.map_or(0, |known| known.rows);
    let split = match &waits.whole {
        None => Split::Warmup,
        // What has no label cannot be learnt from; it may still be judged by other means.
        Some(_) if unlabelled && row < scan.spans.train_end => Split::Gap,
        Some(_) => scan.spans.of(row, until),
    };
    out.write_all(&waits.cells.0)?;
    write!(out, ",{}", split.name())?;
    out.write_all(&waits.cells.1)?;
    match label {
        Some(Known { t1, simple, class, side, .. }) => {
            write!(out, ",{},{class},{simple}", scan.form.write(t1))?;
            if params.meta.is_some() {
                write!(out, ",{side}")?;
            }
        }
        None if params.meta.is_some() => write!(out, ",,,,")?,
        None if params.label.is_some() => write!(out, ",,,")?,
        None => {}
    }
    out.write_all(b"\n")?;
    *sums.splits.entry(split).or_default() += 1;
    sums.late += usize::from(unlabelled);
    if let (Split::Train, Some(whole)) = (split, &waits.whole) {
        sums.scalers.push(whole);
        if let Some(known) = label {
            *sums.classes.entry(known.class).or_default() += 1;
        }
    }
    let wanted = params.splits.folds.is_some() && !unlabelled;
    if wanted && !matches!(split, Split::Warmup | Split::Holdout) {
        // Without a label a row is known at once.
        sums.spans.push((row, (waits.time, label.map_or(waits.time, |known| known.t1))));
    }
    Ok(())
}

/// Tells of the rows of one file.
fn report_file(params: &Params, scan: &Scan, sums: &Sums, ctx: &Context) -> Result<()> {
    for (split, n) in &sums.splits {
        ctx.metric(&format!("rows_{}", split.name()), *n as f64);
    }
    let warm_up = sums.splits.get(&Split::Warmup).copied().unwrap_or_default();
    let behind = params.by_file.map_or(0, |by| by.behind);
    // At the beginning of a series windows fill; later on they should be full.
    if warm_up > 0 && warm_up == scan.rows - scan.own && ctx.files(params.port()).count() > behind {
        ctx.warn(format!(
            "every row is warm-up: {behind} files before it do not fill the windows; raise `by_file.behind`"
        ));
    }
    Ok(())
}

fn report(
    params: &Params,
    columns: &[Column],
    scan: &Scan,
    sums: &Sums,
    ctx: &Context,
) -> Result<()> {
    let count = |split: Split| sums.splits.get(&split).copied().unwrap_or_default();
    for split in Split::ALL {
        ctx.metric(&format!("rows_{}", split.name()), count(split) as f64);
    }
    for (class, n) in &sums.classes {
        ctx.metric(&format!("label_{class}"), *n as f64);
    }
    if params.label.is_some() {
        ctx.metric("rows_without_label", sums.late as f64);
    }
    if count(Split::Train) == 0 {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(StageError::failed(format!(
            "every row of the training span ({} rows) is warm-up",
            scan.spans.train
        ))
        .hint(format!(
            "the longest window is longer than the span, or a feature is never known: {}",
            names.join(", ")
        )));
    }
    if count(Split::Test) == 0 {
        ctx.warn("no row is left to test on: `splits.train_end` is at the end of the file");
    }
    Ok(())
}

/// `folds.json`: rows as half-open ranges of row numbers, from 0, of the features file.
#[derive(Serialize)]
struct Folds {
    scheme: super::folds::Scheme,
    embargo_bars: usize,
    rows: usize,
    paths: usize,
    folds: Vec<Ranges>,
}

#[derive(Serialize)]
struct Ranges {
    train: Vec<(usize, usize)>,
    test: Vec<(usize, usize)>,
    purged: usize,
    embargoed: usize,
}

fn folds(params: &Params, scheme: &super::folds::Scheme, sums: &Sums) -> Folds {
    let splits = &params.splits;
    let spans: Vec<(i64, i64)> = sums.spans.iter().map(|(_, span)| *span).collect();
    let ranges = |rows: &[usize]| -> Vec<(usize, usize)> {
        let mut out: Vec<(usize, usize)> = Vec::new();
        for &at in rows {
            let row = sums.spans[at].0;
            match out.last_mut() {
                Some(last) if last.1 == row => last.1 += 1,
                _ => out.push((row, row + 1)),
            }
        }
        out
    };
    let told = |fold: Fold| Ranges {
        train: ranges(&fold.train),
        test: ranges(&fold.test),
        purged: fold.purged,
        embargoed: fold.embargoed,
    };
    let folds = scheme.folds(&spans, splits.embargo_bars, splits.embargo_from);
    Folds {
        scheme: *scheme,
        embargo_bars: splits.embargo_bars,
        rows: spans.len(),
        paths: scheme.paths(),
        folds: folds.into_iter().map(told).collect(),
    }
}

fn json(ctx: &Context, output: &str, value: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    json.push('\n');
    Ok(fs_err::write(ctx.output(output)?, json)?)
}
