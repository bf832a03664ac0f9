//! Figures of how sure a result is: rolling Sharpe ratio, regimes, costs, calibration, confusion.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::assessment::Assessment;
use super::charts::{
    BLUE, Curve, Figure, GREY, GRID, Mark, ORANGE, PENS, Pen, axes, curves, draw, legend,
    legend_of, line, padded, plot_text, text, thinned,
};
use super::importance::Importance;
use super::metrics::sharpe;
use super::numbers;
use super::quality::Quality;

type Maybe = Result<Option<Figure>, Box<dyn std::error::Error>>;

/// Bars of the rolling Sharpe ratio: half a year, or a quarter of the span where that is less.
fn window(a: &Assessment) -> usize {
    let half = (a.provenance.per_year / 2.0).round() as usize;
    half.min(a.dates.len() / 4).max(2)
}

/// The Sharpe ratio of the bars behind each date.
pub(super) fn rolling(a: &Assessment) -> Maybe {
    let (window, per_year) = (window(a), a.provenance.per_year);
    if a.dates.len() < 40 {
        return Ok(None);
    }
    let ratios = |equity: &[f64]| -> Vec<f64> {
        let returns: Vec<f64> =
            equity.windows(2).map(|w| if w[0] > 0.0 { w[1] / w[0] - 1.0 } else { 0.0 }).collect();
        let of = |part: &[f64]| sharpe(part, per_year).unwrap_or(f64::NAN);
        let lead = std::iter::repeat_n(f64::NAN, window);
        lead.chain(returns.windows(window).map(of)).collect()
    };
    let curves = curves(a, ratios);
    if curves.iter().all(|c| c.points.is_empty()) {
        return Ok(None);
    }
    let svg = draw(|root| {
        let values = curves.iter().flat_map(|c| c.points.iter().map(|p| p.1));
        let range = padded(values.chain([0.0]));
        let plot = legend(root, &legend_of(&curves))?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(14)
            .margin_top(4)
            .x_label_area_size(32)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..(a.dates.len() - 1) as f64, range.0..range.1)?;
        axes(&mut chart, a, &|y| numbers::ratio(*y))?;
        let zero = vec![(0.0, 0.0), ((a.dates.len() - 1) as f64, 0.0)];
        chart.draw_series(LineSeries::new(zero, GREY.stroke_width(1)))?;
        for curve in &curves {
            line(&mut chart, curve)?;
        }
        Ok(())
    })?;
    Ok(Some(Figure {
        name: "rolling",
        title: "Rolling Sharpe ratio".into(),
        caption: format!(
            "Sharpe ratio a year of the {} bars behind each date. A single stretch far above the rest carries the result.",
            numbers::count(window)
        ),
        svg,
    }))
}

/// The index, with the dates of high volatility shaded.
pub(super) fn regimes(a: &Assessment) -> Maybe {
    if a.storm.iter().all(Option::is_none) || a.market.len() < 3 {
        return Ok(None);
    }
    let points: Vec<(f64, f64)> =
        a.market.iter().enumerate().map(|(i, v)| (i as f64, *v)).collect();
    let curve = Curve { name: "index", pen: PENS[0], points: thinned(points) };
    let high = |p: &Option<f64>| p.is_some_and(|p| p > 0.5);
    let share = a.storm.iter().filter(|p| high(p)).count() as f64 / a.storm.len() as f64;
    let svg = draw(|root| {
        let range = padded(curve.points.iter().map(|p| p.1));
        let entries = [("index", Mark::Line(PENS[0])), ("high volatility", Mark::Band(ORANGE))];
        let plot = legend(root, &entries)?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(14)
            .margin_top(4)
            .x_label_area_size(32)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..(a.dates.len() - 1) as f64, range.0..range.1)?;
        axes(&mut chart, a, &|y| numbers::ratio(*y))?;
        let mut at = 0;
        for run in a.storm.chunk_by(|x, y| high(x) == high(y)) {
            if run.first().is_some_and(high) {
                let (from, to) = (at as f64, (at + run.len()).min(a.dates.len() - 1) as f64);
                let area = [(from, range.0), (to, range.1)];
                chart.draw_series([Rectangle::new(area, ORANGE.mix(0.18).filled())])?;
            }
            at += run.len();
        }
        line(&mut chart, &curve)
    })?;
    Ok(Some(Figure {
        name: "regimes",
        title: "The market and its regimes".into(),
        caption: format!(
            "Value of 1 in the index; shaded where the features say that high volatility is likelier than not: {} of the dates.",
            numbers::percent(share)
        ),
        svg,
    }))
}

/// What multiples of the costs leave of the Sharpe ratio.
pub(super) fn costs(a: &Assessment) -> Result<Figure, Box<dyn std::error::Error>> {
    let multiples = [0.0, 0.5, 1.0, 2.0, 5.0];
    let points: Vec<(f64, f64)> = multiples
        .into_iter()
        .zip(&a.scenarios)
        .filter_map(|(by, s)| Some((by, s.sharpe?)))
        .collect();
    let hold = a.strategy(super::assessment::HOLD).and_then(|h| h.metrics.sharpe);
    let svg = draw(|root| {
        let range = padded(points.iter().map(|p| p.1).chain(hold).chain([0.0]));
        let entries = [("model", Mark::Line(PENS[2])), ("buy and hold", Mark::Line(PENS[0]))];
        let plot = legend(root, &entries[..if hold.is_some() { 2 } else { 1 }])?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(24)
            .margin_top(4)
            .x_label_area_size(32)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..5.0, range.0..range.1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text())
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}x"))
            .y_label_formatter(&|y| numbers::ratio(*y))
            .draw()?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (5.0, 0.0)], GREY.stroke_width(1)))?;
        if let Some(hold) = hold {
            let points = vec![(0.0, hold), (5.0, hold)];
            line(&mut chart, &Curve { name: "buy and hold", pen: PENS[0], points })?;
        }
        let dots = points.iter().map(|p| Circle::new(*p, 5, BLUE.filled()));
        chart.draw_series(dots)?;
        line(&mut chart, &Curve { name: "model", pen: PENS[2], points: points.clone() })
    })?;
    let say = |p: &(f64, f64)| format!("{}x {}", p.0, numbers::ratio(p.1));
    Ok(Figure {
        name: "costs",
        title: "Sharpe ratio by costs".into(),
        caption: format!(
            "With no costs, half, whole, double and five times the costs: {}.",
            points.iter().map(say).collect::<Vec<_>>().join(", ")
        ),
        svg,
    })
}

/// Said probabilities of a rise against how often it came.
pub(super) fn calibration(quality: &Quality) -> Maybe {
    if quality.calibration.is_empty() {
        return Ok(None);
    }
    let most = quality.calibration.iter().map(|b| b.count).max().unwrap_or(1) as f64;
    let svg = draw(|root| {
        let entries = [("came", Mark::Box(BLUE)), ("perfect", Mark::Line(PENS[0]))];
        let plot = legend(root, &entries)?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(20)
            .margin_top(4)
            .x_label_area_size(32)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text())
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{}%", numbers::whole(x * 100.0)))
            .y_label_formatter(&|y| format!("{}%", numbers::whole(y * 100.0)))
            .draw()?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], GREY.stroke_width(2)))?;
        for bin in &quality.calibration {
            let size = 4 + (10.0 * (bin.count as f64 / most).sqrt()) as i32;
            let dot = Circle::new((bin.said, bin.came), size, BLUE.mix(0.7).filled());
            chart.draw_series([dot])?;
        }
        Ok(())
    })?;
    Ok(Some(Figure {
        name: "calibration",
        title: "Calibration of the probability of a rise".into(),
        caption: format!(
            "Across what was said, up how often it came; the larger the dot, the more forecasts. Mean distance from the line (ECE, ten bins): {}.",
            numbers::or_none(quality.ece10, numbers::percent)
        ),
        svg,
    }))
}

/// Guessed classes against those that came.
pub(super) fn confusion(quality: &Quality) -> Maybe {
    let Some(classes) = &quality.classes else { return Ok(None) };
    let names = ["down", "flat", "up"];
    let svg = draw(|root| {
        let plot = legend(root, &[("share of what came", Mark::Box(BLUE))])?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(14)
            .margin_bottom(40)
            .margin_top(4)
            .y_label_area_size(120)
            .build_cartesian_2d(0.0..3.0, 3.0..0.0)?;
        for (i, row) in classes.confusion.iter().enumerate() {
            let all = row.iter().sum::<usize>().max(1) as f64;
            for (j, count) in row.iter().enumerate() {
                let (x, y) = (j as f64, i as f64);
                let cell = [(x + 0.03, y + 0.03), (x + 0.97, y + 0.97)];
                let color = BLUE.mix(0.06 + 0.5 * *count as f64 / all);
                chart.draw_series([Rectangle::new(cell, color.filled())])?;
                let at = chart.plotting_area().map_coordinate(&(x + 0.5, y + 0.5));
                let share = numbers::percent(*count as f64 / all);
                plot_text(root, numbers::count(*count), (at.0, at.1 - 11), HPos::Center)?;
                plot_text(root, share, (at.0, at.1 + 13), HPos::Center)?;
            }
            let at = chart.plotting_area().map_coordinate(&(0.0, i as f64 + 0.5));
            let came = format!("came {}", names.get(i).unwrap_or(&""));
            plot_text(root, came, (at.0 - 10, at.1), HPos::Right)?;
            let at = chart.plotting_area().map_coordinate(&(i as f64 + 0.5, 3.0));
            let said = format!("said {}", names.get(i).unwrap_or(&""));
            plot_text(root, said, (at.0, at.1 + 18), HPos::Center)?;
        }
        Ok(())
    })?;
    Ok(Some(Figure {
        name: "confusion",
        title: "What was guessed and what came".into(),
        caption: format!(
            "Counts, and shares of each row. Matthews correlation {}; balanced accuracy {}, of which a third is chance.",
            numbers::or_none(classes.mcc, numbers::ratio),
            numbers::or_none(classes.balanced_accuracy, numbers::percent)
        ),
        svg,
    }))
}

/// Features of the chart at most.
const FEATURES: usize = 14;

/// By how much the log loss increases when a feature is permuted, with intervals.
pub(super) fn importance(all: &[Importance]) -> Maybe {
    let shown = &all[..all.len().min(FEATURES)];
    if shown.is_empty() {
        return Ok(None);
    }
    let ends = |i: &Importance| {
        let (low, high) = i.interval.unwrap_or((i.loss_increase, i.loss_increase));
        [low, high, i.loss_increase]
    };
    let svg = draw(|root| {
        let range = padded(shown.iter().flat_map(ends).chain([0.0]));
        let pen = Pen { color: ORANGE, width: 2, dash: None };
        let entries = [("increase", Mark::Box(BLUE)), ("95% interval", Mark::Line(pen))];
        let plot = legend(root, &entries)?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(24)
            .margin_top(2)
            .x_label_area_size(32)
            .y_label_area_size(210)
            .build_cartesian_2d(range.0..range.1, (shown.len() as f64)..0.0)?;
        let digits = if range.1 - range.0 < 0.02 { 4 } else { 3 };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text())
            .x_labels(4)
            .x_label_formatter(&|x| numbers::fixed(*x, digits))
            .draw()?;
        for (at, i) in shown.iter().enumerate() {
            let middle = at as f64 + 0.5;
            let bar = [(0.0, middle - 0.3), (i.loss_increase, middle + 0.3)];
            chart.draw_series([Rectangle::new(bar, BLUE.filled())])?;
            if let Some((low, high)) = i.interval {
                let style = pen.color.stroke_width(pen.width);
                let whisker = vec![(low, middle), (high, middle)];
                let ends = [low, high].map(|x| vec![(x, middle - 0.2), (x, middle + 0.2)]);
                let parts = std::iter::once(whisker).chain(ends);
                chart.draw_series(parts.map(|points| PathElement::new(points, style)))?;
            }
            let place = chart.plotting_area().map_coordinate(&(range.0, middle));
            let name: String = i.feature.chars().take(24).collect();
            plot_text(root, name, (place.0 - 8, place.1), HPos::Right)?;
        }
        let zero = vec![(0.0, 0.0), (0.0, shown.len() as f64)];
        chart.draw_series(LineSeries::new(zero, GREY.stroke_width(1)))?;
        Ok(())
    })?;
    let first = shown.first().map_or("", |i| i.feature.as_str());
    let sure = all.iter().filter(|i| i.interval.is_some_and(|(low, _)| low > 0.0)).count();
    let what = match all.len() - shown.len() {
        0 => "all features".to_string(),
        _ => {
            format!("the {} most important of {}", shown.len(), numbers::many(all.len(), "feature"))
        }
    };
    Ok(Some(Figure {
        name: "importance",
        title: "Feature importance".into(),
        caption: format!(
            "Increase of the log loss out of fold when a feature is permuted: {what}, {first} the most. The interval of {} lies above 0.",
            numbers::count(sure)
        ),
        svg,
    }))
}
