//! What is fitted: by the training span alone.

use super::feature::{Column, Fits};
use super::fit::Fit;
use super::scan::Scan;
use super::{Params, wrong};
use crate::Result;
use crate::market::spool::Unspool;
use crate::market::{Sample, Samples};

/// Fits what the columns need. `tick` hears of steps done, of how many, and of what.
///
/// # Errors
/// The span does not hold what there is to learn, or `tick` says to stop.
pub fn learn(
    params: &Params,
    columns: &[Column],
    scan: &Scan,
    mut tick: impl FnMut(u64, u64, &str) -> Result<()>,
) -> Result<Fit> {
    let mut learners = Vec::new();
    for column in columns {
        let learner = column.learner(scan.periods_per_year, &scan.source).map_err(wrong)?;
        learners.extend(learner.map(|learner| (&column.name, learner)));
    }
    if !learners.is_empty() {
        let mut file = Unspool::open(&scan.spool)?;
        let mut sample = Sample::default();
        for row in 0..scan.spans.train {
            if !file.next(&mut sample)? {
                break;
            }
            learners.iter_mut().for_each(|(_, learner)| learner.push(&sample));
            if row % 10_000 == 0 {
                tick(row as u64, scan.spans.train as u64, "learning")?;
            }
        }
    }
    let mut fits = Fits::new();
    for (name, learner) in learners {
        let fitted = learner.finish(&mut |done, all| tick(done, all, name))?;
        fits.insert(name.clone(), fitted);
    }
    let (first, last) = scan.train;
    Ok(Fit {
        train: (scan.form.write(first), scan.form.write(last)),
        train_rows: scan.spans.train,
        periods_per_year: scan.periods_per_year,
        label: params.label,
        meta: params.meta.clone(),
        fits,
        ..Fit::default()
    })
}
