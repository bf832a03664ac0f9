//! The report's figures as SVG, in the colours of the evaluation report.
//!
//! Ink, grid and series have fixed colours, which the page overrides by attribute selectors in the dark;
//! lines and boxes are told apart without colour too. No font is embedded.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::balance::{BINS, Stats};
use super::observe::Fitted;
use crate::evaluate::charts::{BLUE, Figure, GRID, INK, ORANGE};
use crate::evaluate::numbers::{percent, ratio};

const SIZE: (u32, u32) = (640, 380);
/// The backend writes a font size of this over 1.24.
const FONT: i32 = 21;
const LEGEND: i32 = 30;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Failed = Box<dyn std::error::Error>;
type Drawn = Result<(), Failed>;

/// The fill model over what it was fitted to; distances in `unit`.
///
/// # Errors
/// The drawing library reports a failure.
pub fn fills(fitted: &Fitted, horizon: f64, unit: &str) -> Result<Figure, Failed> {
    let points = &fitted.points;
    let last = points.iter().map(|p| p.distance).fold(0.0, f64::max);
    let right = if last > 0.0 { 1.08 * last } else { 1.0 };
    let p_fill = |d: f64| fitted.model.p_fill(d, horizon);
    let highest = points.iter().map(|p| p.interval[1]).fold(p_fill(0.0), f64::max);
    let svg = draw(|root| {
        let plot = legend(root, &[("model", Mark::Line), ("observed, 95%", Mark::Dot)])?;
        let mut chart = axes(&plot, 0.0..right, 0.0..(1.05 * highest).min(1.0), &|x| ratio(*x))?;
        let curve = (0..=200).map(|i| right * f64::from(i) / 200.0).map(|d| (d, p_fill(d)));
        chart.draw_series(LineSeries::new(curve, BLUE.stroke_width(3)))?;
        for p in points {
            let ends = [(p.distance, p.interval[0]), (p.distance, p.interval[1])];
            chart.draw_series([PathElement::new(ends.to_vec(), ORANGE.stroke_width(2))])?;
            chart.draw_series([Circle::new((p.distance, p.share), 4, ORANGE.filled())])?;
        }
        Ok(())
    })?;
    let at = |p: &super::observe::Point| {
        format!(
            "{} at {} (model {})",
            percent(p.share),
            ratio(p.distance),
            percent(p_fill(p.distance))
        )
    };
    let ends: Vec<String> = points.first().into_iter().chain(points.last()).map(at).collect();
    Ok(Figure {
        name: "fills",
        title: "Orders that fill".into(),
        caption: format!(
            "Share that fills within the horizon, by distance in {unit}: {}. Intervals take orders for independent; those of neighbouring rows are not, and the truth is wider.",
            ends.join(", ")
        ),
        svg,
    })
}

/// How rewards of chosen and rejected actions are distributed.
///
/// # Errors
/// The drawing library reports a failure.
pub fn rewards(stats: &Stats) -> Result<Figure, Failed> {
    let n = stats.pairs as f64;
    let shares = stats.bins.map(|bins| bins.map(|count| count as f64 / n));
    let most = shares.iter().flatten().copied().fold(0.0, f64::max);
    let svg = draw(|root| {
        let entries = [("chosen", Mark::Box(BLUE)), ("rejected", Mark::Box(ORANGE))];
        let plot = legend(root, &entries)?;
        let mut chart = axes(&plot, 0.0..1.0, 0.0..1.08 * most, &|x| format!("{x:.1}"))?;
        let width = 1.0 / BINS as f64;
        for (side, (bins, color)) in shares.iter().zip([BLUE, ORANGE]).enumerate() {
            let bars = bins.iter().enumerate().filter(|(_, share)| **share > 0.0);
            chart.draw_series(bars.map(|(bin, &share)| {
                let left = width * (bin as f64 + 0.08 + 0.42 * side as f64);
                Rectangle::new([(left, 0.0), (left + 0.42 * width, share)], color.filled())
            }))?;
        }
        Ok(())
    })?;
    let [chosen, rejected] = stats.rewards();
    Ok(Figure {
        name: "rewards",
        title: "Rewards".into(),
        caption: format!(
            "Share of the pairs by reward, 0 to 1; one half is what doing nothing gets. Mean of the chosen {}, of the rejected {}.",
            ratio(chosen),
            ratio(rejected)
        ),
        svg,
    })
}

/// Shares of each row in two series, as bars to the right.
///
/// # Errors
/// The drawing library reports a failure.
pub fn shares(
    (name, title, caption): (&'static str, &str, String),
    rows: &[&str],
    series: [(&str, &[f64]); 2],
) -> Result<Figure, Failed> {
    let colors = [BLUE, ORANGE];
    let svg = draw(|root| {
        let entries = [(series[0].0, Mark::Box(BLUE)), (series[1].0, Mark::Box(ORANGE))];
        let plot = legend(root, &entries)?;
        let most = series.iter().flat_map(|s| s.1).copied().fold(0.1, f64::max);
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(70)
            .margin_bottom(6)
            .y_label_area_size(124)
            .build_cartesian_2d(0.0..most, (rows.len() as f64)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .disable_axes()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .x_labels(5)
            .draw()?;
        for (side, ((_, shares), color)) in series.iter().zip(colors).enumerate() {
            for (row, &share) in shares.iter().enumerate() {
                let top = row as f64 + 0.12 + 0.38 * side as f64;
                chart.draw_series([Rectangle::new(
                    [(0.0, top), (share, top + 0.38)],
                    color.filled(),
                )])?;
                let at = chart.plotting_area().map_coordinate(&(share, top + 0.19));
                let label = if share == 0.0 { "0".into() } else { percent(share) };
                write(root, label, (at.0 + 6, at.1), HPos::Left)?;
            }
        }
        for (row, name) in rows.iter().enumerate() {
            let at = chart.plotting_area().map_coordinate(&(0.0, row as f64 + 0.5));
            write(root, (*name).into(), (at.0 - 8, at.1), HPos::Right)?;
        }
        Ok(())
    })?;
    Ok(Figure { name, title: title.into(), caption, svg })
}

fn axes<'a, 'b>(
    plot: &'a Area<'b>,
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
    label: &dyn Fn(&f64) -> String,
) -> Result<Chart<'a, 'b>, Failed> {
    let mut chart = ChartBuilder::on(plot)
        .margin_right(20)
        .margin_top(8)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(text())
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&label)
        .y_label_formatter(&|y| percent(*y))
        .draw()?;
    Ok(chart)
}

/// A mark of the legend.
#[derive(Clone, Copy)]
enum Mark {
    Line,
    Dot,
    Box(RGBColor),
}

/// Draws the legend along the top and returns what is left.
fn legend<'a>(root: &Area<'a>, entries: &[(&str, Mark)]) -> Result<Area<'a>, Failed> {
    let (mut x, y) = (14, LEGEND / 2);
    for (name, mark) in entries {
        match mark {
            Mark::Line => {
                let style = BLUE.stroke_width(3);
                root.draw(&PathElement::new(vec![(x, y), (x + 22, y)], style))?;
            }
            Mark::Dot => {
                let style = ORANGE.stroke_width(2);
                root.draw(&PathElement::new(vec![(x + 11, y - 9), (x + 11, y + 9)], style))?;
                root.draw(&Circle::new((x + 11, y), 4, ORANGE.filled()))?;
            }
            Mark::Box(color) => {
                root.draw(&Rectangle::new([(x + 4, y - 7), (x + 20, y + 7)], color.filled()))?;
            }
        }
        write(root, (*name).to_owned(), (x + 28, y), HPos::Left)?;
        x += 28 + name.chars().count() as i32 * 9 + 22;
    }
    Ok(root.split_vertically(LEGEND).1)
}

fn write(root: &Area, words: String, at: (i32, i32), side: HPos) -> Drawn {
    root.draw(&Text::new(words, at, text().pos(Pos::new(side, VPos::Center))))?;
    Ok(())
}

fn text() -> TextStyle<'static> {
    ("sans-serif", FONT).into_font().color(&INK)
}

fn draw(figure: impl FnOnce(&Area) -> Drawn) -> Result<String, Failed> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        figure(&root)?;
        root.present()?;
    }
    Ok(svg)
}
