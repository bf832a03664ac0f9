//! Fits the fill model to orders at training rows, and keeps what was observed beside it.
//!
//! By default orders are imagined to rest and the bars say when they fill, of nothing else than prices
//! that traded through them. With the events of the market ([`super::follow`]) they rest in queues, or
//! are those that others placed.

use std::path::PathBuf;

use super::action::Side;
use super::fill::{self, BarWaits, FillModel, Waits};
use super::follow;
use super::rank::sigma;
use super::{Fills, Params};
use crate::featurize::split::{Split, evenly};
use crate::featurize::table::{self, Around, Extent, Row, Rows};
use crate::{Context, Result};

/// A fitted model, and what it was fitted to.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The model.
    pub model: FillModel,
    /// Its log-likelihood.
    pub log_likelihood: f64,
    /// Standard errors of A and k, where the times of fills are known. They take orders for independent:
    /// orders of neighbouring rows are not, and the truth is wider.
    pub errors: Option<[f64; 2]>,
    /// Orders watched.
    pub orders: f64,
    /// Of which filled.
    pub fills: f64,
    /// Shares that filled, by distance.
    pub points: Vec<Point>,
}

/// How many of the orders at about one distance filled within the horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Mean distance, in the unit of the model.
    pub distance: f64,
    /// The share.
    pub share: f64,
    /// Its 95 % interval: Wilson's, or where some were taken back sooner that of a Poisson rate.
    pub interval: [f64; 2],
    /// Orders.
    pub orders: f64,
}

/// Fits the model that the parameters ask for; `None` where nothing fills.
///
/// # Errors
/// A file cannot be read, or the events are not those of the features.
pub fn fit(extent: Extent, params: &Params, ctx: &Context) -> Result<Option<Fitted>> {
    Ok(match params.fills {
        Fills::Bars => bars(&table::files(ctx)?, extent, params)?,
        Fills::Queue => exact(&follow::queues(extent, params, ctx)?, params),
        Fills::Orders => exact(&follow::lives(extent, params, ctx)?, params),
    })
}

fn exact(waits: &[Waits], params: &Params) -> Option<Fitted> {
    let model = fill::fit_exact(waits)?;
    Some(Fitted {
        model,
        log_likelihood: fill::log_likelihood_exact(&model, waits),
        errors: fill::errors(&model, waits),
        orders: waits.len() as f64,
        fills: waits.iter().map(|w| w.fills).sum(),
        points: points(
            waits.iter().map(|w| (w.distance, 1.0, w.fills, w.exposure)).collect(),
            params.reward.horizon_bars as f64,
        ),
    })
}

/// Rests a limit on each side, at each offset, at each training row, and sees when it fills.
/// Orders whose time would pass the end of the span are left out; a long span is represented by
/// [`follow::ROWS`] rows spread evenly.
fn bars(files: &[PathBuf], extent: Extent, params: &Params) -> Result<Option<Fitted>> {
    let r = &params.reward;
    let mut waits: Vec<BarWaits> = Vec::new();
    let mut chosen = evenly(extent.train_end, follow::ROWS).peekable();
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
    let Some(model) = fill::fit_bars(&waits) else { return Ok(None) };
    let horizon = r.horizon_bars as f64;
    // Each entry is of two orders, one a side.
    let watched = |w: &BarWaits| (w.distance, 2.0, w.fills, 2.0 * horizon);
    Ok(Some(Fitted {
        model,
        log_likelihood: fill::log_likelihood(&model, &waits),
        errors: None,
        orders: 2.0 * waits.len() as f64,
        fills: waits.iter().map(|w| w.fills).sum(),
        points: points(waits.iter().map(watched).collect(), horizon),
    }))
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

/// Points of the chart at most.
const POINTS: usize = 12;

/// From `(distance, orders, fills, exposure)` to shares, with about as many orders to each point.
fn points(mut watched: Vec<(f64, f64, f64, f64)>, horizon: f64) -> Vec<Point> {
    watched.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all: f64 = watched.iter().map(|w| w.1).sum();
    let mut points = Vec::new();
    let mut begin = 0;
    let mut held = 0.0;
    for end in 1..=watched.len() {
        held += watched[end - 1].1;
        // Orders at one distance stay together.
        let apart = watched.get(end).is_none_or(|next| next.0 > watched[end - 1].0);
        if !apart || held < all / POINTS as f64 && end < watched.len() {
            continue;
        }
        points.push(point(&watched[begin..end], horizon));
        (begin, held) = (end, 0.0);
    }
    points
}

fn point(watched: &[(f64, f64, f64, f64)], horizon: f64) -> Point {
    let sum = |of: fn(&(f64, f64, f64, f64)) -> f64| watched.iter().map(of).sum::<f64>();
    let (orders, fills, exposure) = (sum(|w| w.1), sum(|w| w.2), sum(|w| w.3));
    let distance = watched.iter().map(|w| w.0 * w.1).sum::<f64>() / orders;
    let whole = |w: &&(f64, f64, f64, f64)| w.2 >= w.1 || w.3 >= w.1 * horizon * (1.0 - 1e-6);
    let seen = watched.iter().filter(whole).count();
    // Nearly all were watched to the end: a share. Else the fills of those that were taken back are
    // missing from it, and the rate tells what it would have been.
    if seen as f64 >= 0.98 * watched.len() as f64 {
        let share = fills / orders;
        return Point { distance, share, interval: wilson(fills, orders), orders };
    }
    let share = |fills: f64| -(-fills.max(0.0) / exposure * horizon).exp_m1();
    let wide = 1.96 * fills.max(1.0).sqrt();
    Point {
        distance,
        share: share(fills),
        interval: [share(fills - wide), share(fills + wide)],
        orders,
    }
}

/// Wilson's 95 % interval of a share.
fn wilson(hits: f64, n: f64) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    let (p, z2) = (hits / n, Z * Z);
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
    [(middle - half).max(0.0), (middle + half).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_by_hand() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
        for (hits, n, low, high) in
            [(81.0, 263.0, 0.2553, 0.3662), (15.0, 148.0, 0.0624, 0.1605), (0.0, 20.0, 0.0, 0.1611)]
        {
            let found = wilson(hits, n);
            assert!((found[0] - low).abs() < 5e-5 && (found[1] - high).abs() < 5e-5, "{found:?}");
        }
    }

    #[test]
    fn orders_that_were_taken_back_do_not_count_as_unfilled() {
        // All watched: half of them filled.
        let all: Vec<_> = (0..100).map(|at| (1.0, 1.0, f64::from(at % 2), 3.0)).collect();
        let [one] = points(all, 3.0)[..] else { panic!() };
        assert_eq!((one.share, one.orders), (0.5, 100.0));
        // Most taken back after a third of the time: by the rate.
        let some: Vec<_> =
            (0..100).map(|at| (1.0, 1.0, f64::from(u8::from(at < 10)), 1.0)).collect();
        let [one] = points(some, 3.0)[..] else { panic!() };
        assert!((one.share - (1.0 - (-0.3f64).exp())).abs() < 1e-12);
        assert!(one.interval[0] < one.share && one.share < one.interval[1]);
        // Distances are kept apart, and few in number.
        let many: Vec<_> = (0..1000).map(|at| (f64::from(at / 10), 1.0, 0.0, 3.0)).collect();
        let found = points(many, 3.0);
        assert!((8..=POINTS).contains(&found.len()));
        assert_eq!(found.iter().map(|p| p.orders).sum::<f64>(), 1000.0);
        assert!(found.is_sorted_by(|a, b| a.distance < b.distance));
    }
}
