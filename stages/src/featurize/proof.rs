//! `check: causality`: the data are cut after some row of the test span, and once more changed from
//! there on; the fit and all rows up to the cut must come out as they did, to the bit.
//!
//! A feature that is pushed sample by sample cannot look ahead; what can is anything that was told of
//! the whole series before: a fit, or a scale. Labels look ahead by what they are, and are left out.

use super::Params;
use super::feature::Column;
use super::feature::causal::disturb;
use super::fit::Fit;
use super::learn::learn;
use super::scan::Scan;
use super::write::Rack;
use crate::market::spool::{Spool, Unspool};
use crate::market::{Sample, Samples};
use crate::{Context, Result, StageError};

/// Where the data are cut, as shares of the rows after the training span.
const CUTS: [f64; 3] = [0.1, 0.5, 0.9];

/// Tries it.
///
/// # Errors
/// A row depends on later data, which is named with the columns; or there are no rows to cut at.
pub fn prove(
    params: &Params,
    columns: &[Column],
    scan: &Scan,
    fit: &Fit,
    ctx: &Context,
) -> Result<()> {
    let after = scan.rows.saturating_sub(scan.spans.train_end);
    if after < 10 {
        return Err(StageError::failed("there are no rows after the training span to cut at")
            .hint("end the training span earlier, or leave out `check: causality`"));
    }
    let given = ctx.has("fit");
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut rack = |scan: &Scan| match given {
        true => Rack::new(columns, scan, fit),
        false => {
            let fit = learn(params, columns, scan, |_, _, _| ctx.progress(0, 0, "cuts", ""))?;
            Rack::new(columns, scan, &fit)
        }
    };
    for (tried, share) in CUTS.into_iter().enumerate() {
        let cut = scan.spans.train_end + 1 + (share * (after - 1) as f64) as usize;
        ctx.progress(tried as u64, CUTS.len() as u64, "cuts", "causality")?;
        try_at(scan, cut, &names, &ctx.scratch().join("cut"), &mut rack)?;
    }
    ctx.metric("causality_cuts", CUTS.len() as f64);
    Ok(())
}

/// Tries one cut. `rack` makes the features for a scan, having seen all of its samples if it likes.
///
/// # Errors
/// A row depends on later data, which is named with the column.
pub fn try_at(
    scan: &Scan,
    cut: usize,
    names: &[&str],
    spool: &std::path::Path,
    rack: &mut dyn FnMut(&Scan) -> Result<Rack>,
) -> Result<()> {
    for changed in [false, true] {
        let rows = spoil(scan, spool, cut, changed)?;
        let spool = spool.to_owned();
        let other = Scan { spool, rows, counts: scan.counts.clone(), ..*scan };
        let racks = (rack(scan)?, rack(&other)?);
        compare(names, (scan, &other), racks, cut)?;
    }
    Ok(())
}

/// Writes the samples up to `cut`, and if asked others in the place of those after it.
fn spoil(scan: &Scan, to: &std::path::Path, cut: usize, changed: bool) -> Result<usize> {
    let (mut from, mut into) = (Unspool::open(&scan.spool)?, Spool::create(to)?);
    let (mut sample, mut rows) = (Sample::default(), 0);
    while (changed || rows < cut) && from.next(&mut sample)? {
        if rows >= cut {
            disturb(&mut sample);
        }
        into.push(&sample)?;
        rows += 1;
    }
    into.finish()?;
    Ok(rows)
}

/// Compares the rows up to `cut`.
fn compare(
    names: &[&str],
    (scan, other): (&Scan, &Scan),
    mut racks: (Rack, Rack),
    cut: usize,
) -> Result<()> {
    let mut files = (Unspool::open(&scan.spool)?, Unspool::open(&other.spool)?);
    let (mut a, mut b) = (Sample::default(), Sample::default());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..cut {
        if !(files.0.next(&mut a)? && files.1.next(&mut b)?) {
            break;
        }
        racks.0.push(&a, &mut ours);
        racks.1.push(&b, &mut theirs);
        let bits = |value: &Option<f64>| value.map(f64::to_bits);
        if let Some(at) = ours.iter().zip(&theirs).position(|(x, y)| bits(x) != bits(y)) {
            let (name, date) = (names.get(at).copied().unwrap_or(""), scan.form.write(a.time));
            return Err(StageError::failed(format!(
                "`{name}` at {date} depends on what comes after it: it is {:?}, and {:?} where the data end or change after row {cut}",
                ours[at], theirs[at]
            ))
            .hint("a feature may use what is known at its own time alone; leave it out"));
        }
    }
    Ok(())
}
