//! Fits the fill model to orders that are imagined to rest at training rows.

use std::path::PathBuf;

use super::Params;
use super::action::Side;
use super::fill::{self, BarWaits, FillModel};
use super::rank::sigma;
use crate::Result;
use crate::featurize::split::{Split, evenly};
use crate::featurize::table::{Around, Extent, Row, Rows};

/// Rows that determine the two numbers of the fill model well enough.
const ROWS: usize = 20_000;

/// Rests a limit on each side, at each offset, at each training row, and sees when it fills.
/// Orders whose time would pass the end of the span are left out; a long span is represented by
/// [`ROWS`] rows spread evenly. The model and its log-likelihood; `None` where nothing fills.
///
/// # Errors
/// A file cannot be read.
pub fn fit(files: &[PathBuf], extent: Extent, params: &Params) -> Result<Option<(FillModel, f64)>> {
    let r = &params.reward;
    let mut waits: Vec<BarWaits> = Vec::new();
    let mut chosen = evenly(extent.train_end, ROWS).peekable();
    let mut rows =
        Around::new(Rows::open_all(files)?, extent.train_end, r.sigma_window, r.horizon_bars);
    while let Some(number) = rows.step()? {
        if chosen.peek() != Some(&number) {
            continue;
        }
        chosen.next();
        if rows.row().split != Split::Train || rows.ahead().len() < r.horizon_bars {
            continue;
        }
        let Some(sigma) = sigma(rows.past(), r.horizon_bars, r.sigma_window) else { continue };
        waits.extend(params.offsets_bps.iter().map(|&offset| {
            let distance = r.fill_distance.of(f64::from(offset), sigma);
            BarWaits { distance, ..both_sides(rows.row(), rows.ahead(), f64::from(offset)) }
        }));
    }
    let fitted = fill::fit_bars(&waits);
    Ok(fitted.map(|model| (model, fill::log_likelihood(&model, &waits))))
}

fn both_sides(row: &Row, ahead: &[Row], offset: f64) -> BarWaits {
    let mut both = BarWaits::default();
    for side in [Side::Buy, Side::Sell] {
        let price = row.close * (1.0 - side.sign() * offset / 1e4);
        let through = |bar: &Row| match side {
            Side::Buy => bar.range().0 < price,
            Side::Sell => bar.range().1 > price,
        };
        match ahead.iter().position(through) {
            Some(before) => {
                both.fills += 1.0;
                both.bars_without += before as f64;
            }
            None => both.bars_without += ahead.len() as f64,
        }
    }
    both
}
