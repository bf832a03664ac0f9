//! Which rows a model may learn from, be stopped by, and be asked about.
//!
//! Folds are made of dates, so that all instruments of a panel share their boundaries: what one knew on
//! a day tells of the others. A date's label ends where the furthest horizon of any instrument does. A
//! date whose label reaches the test span is purged, so that nothing that is learnt, and no weight of an
//! ensemble, rests on a price of that span.
//!
//! The folds themselves, purge and embargo are those of [`crate::featurize::folds`].

use std::collections::BTreeMap;

use super::panel::Panel;
use super::params::Params;
use crate::featurize::folds::{Fold, Scheme};
use crate::featurize::split::Split;
use crate::{Result, StageError};

/// Dates that a model learns from at the least.
const FEWEST: usize = 30;

/// One fit: places of dates in [`Protocol::times`], ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// The number of the fold; `None` for the last fit, on the whole training span.
    pub fold: Option<usize>,
    /// Dates to learn from.
    pub train: Vec<usize>,
    /// Dates to stop by; perhaps none.
    pub valid: Vec<usize>,
    /// Dates to be asked about; of the last fit none, since those are of other spans.
    pub asked: Vec<usize>,
    /// Dates left out because their label overlaps that of a date that is asked about.
    pub purged: usize,
    /// Dates left out for the embargo alone.
    pub embargoed: usize,
}

/// All fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Times of the dates that may be learnt from, ascending.
    pub times: Vec<i64>,
    /// Where the last label of each ends.
    pub ends: Vec<i64>,
    /// The folds, then the last fit.
    pub tasks: Vec<Task>,
}

/// Makes the fits of a panel; `stops` where the model is stopped by rows of its own.
///
/// # Errors
/// Too few dates to learn from, or a training row of one instrument after the first test row of another.
pub fn protocol(panel: &Panel, params: &Params, stops: bool) -> Result<Protocol> {
    let ahead = params.furthest();
    let mut until: BTreeMap<i64, i64> = BTreeMap::new();
    let mut first = i64::MAX;
    for asset in &panel.assets {
        for (row, (&time, split)) in asset.times.iter().zip(&asset.split).enumerate() {
            match split {
                Split::Train => {
                    let end = asset.times.get(row + ahead).copied().unwrap_or(i64::MAX);
                    let slot = until.entry(time).or_insert(end);
                    *slot = end.max(*slot);
                }
                Split::Test | Split::Holdout => first = first.min(time),
                Split::Warmup | Split::Gap => {}
            }
        }
    }
    let path = panel.assets.first().map_or_else(Default::default, |asset| asset.path.clone());
    if until.last_key_value().is_some_and(|(last, _)| *last >= first) {
        return Err(StageError::bad(
            path,
            "training rows of one instrument lie after test rows of another",
        )
        .hint("give `splits.train_end` of the featurize stage as a date"));
    }
    let all = until.len();
    let spans: Vec<(i64, i64)> = until.into_iter().filter(|(_, end)| *end < first).collect();
    let spans: Vec<(i64, i64)> = spans.into_iter().filter(|(_, end)| *end < i64::MAX).collect();
    let mut tasks = Vec::new();
    let folds = params.folds.folds(&spans, params.embargo_bars, params.embargo_from);
    for (number, fold) in folds.into_iter().enumerate() {
        tasks.push(task(Some(number), fold, &spans, params, stops));
    }
    let train = (0..spans.len()).collect();
    let last = Fold { train, purged: all - spans.len(), ..Fold::default() };
    tasks.push(task(None, last, &spans, params, stops));
    enough(&tasks).map_err(|what| {
        StageError::bad(path, what)
            .hint(format!("{FEWEST} are needed: fewer `folds`, a shorter horizon, or more rows"))
    })?;
    let (times, ends) = spans.into_iter().unzip();
    Ok(Protocol { times, ends, tasks })
}

/// Whether all tasks have dates enough to learn from, or which has not.
fn enough(tasks: &[Task]) -> std::result::Result<(), String> {
    let few = tasks.iter().find(|task| task.train.len() < FEWEST);
    few.map_or(Ok(()), |Task { fold, train, .. }| {
        let of = fold.map_or("the training span".into(), |fold| format!("fold {fold}"));
        Err(format!("{of} has {} dates to learn from", train.len()))
    })
}

impl Protocol {
    /// The fits of a cross-validation within the dates that a task may see, those to stop by too: its
    /// folds are purged as those of the task itself were.
    ///
    /// # Errors
    /// Too few dates to learn from.
    pub fn within(
        &self,
        task: &Task,
        scheme: Scheme,
        params: &Params,
        stops: bool,
    ) -> Result<Vec<Task>> {
        let mut dates: Vec<usize> = task.train.iter().chain(&task.valid).copied().collect();
        dates.sort_unstable();
        let spans: Vec<(i64, i64)> =
            dates.iter().map(|&at| (self.times[at], self.ends[at])).collect();
        let folds = scheme.folds(&spans, params.embargo_bars, params.embargo_from);
        let tasks: Vec<Task> = folds
            .into_iter()
            .enumerate()
            .map(|(number, fold)| {
                let own = self::task(Some(number), fold, &spans, params, stops);
                let places = |of: Vec<usize>| of.into_iter().map(|at| dates[at]).collect();
                let (train, valid) = (places(own.train), places(own.valid));
                Task { train, valid, asked: places(own.asked), ..own }
            })
            .collect();
        let of = task.fold.map_or("the last fit".into(), |fold| format!("fold {fold}"));
        match (tasks.is_empty(), enough(&tasks)) {
            (false, Ok(())) => Ok(tasks),
            (_, why) => {
                let why = why.err().unwrap_or_else(|| "there is none".into());
                Err(StageError::failed(format!("of the inner folds of {of}: {why}")).hint(format!(
                    "{FEWEST} are needed: fewer folds in `search.folds`, or more rows"
                )))
            }
        }
    }
}

fn task(
    number: Option<usize>,
    fold: Fold,
    spans: &[(i64, i64)],
    params: &Params,
    stops: bool,
) -> Task {
    let Fold { mut train, test, purged, embargoed } = fold;
    let mut valid = Vec::new();
    if stops {
        (train, valid) = held_back(&train, spans, params);
    }
    Task { fold: number, train, valid, asked: test, purged, embargoed }
}

/// Splits the dates of a fit into those to learn from and the last ones, to stop by; purged.
fn held_back(train: &[usize], spans: &[(i64, i64)], params: &Params) -> (Vec<usize>, Vec<usize>) {
    let own: Vec<(i64, i64)> = train.iter().map(|&at| spans[at]).collect();
    let held = ((own.len() as f64 * params.valid_fraction) as usize).max(1);
    let walk = Scheme::WalkForward { folds: 1, test_rows: Some(held) };
    let fold = walk.folds(&own, params.embargo_bars, params.embargo_from).pop().unwrap_or_default();
    let places = |of: Vec<usize>| of.into_iter().map(|at| train[at]).collect();
    (places(fold.train), places(fold.test))
}
