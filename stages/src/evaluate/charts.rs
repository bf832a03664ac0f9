//! The report's figures as SVG.
//!
//! Each is a file of its own that also reads well on paper: legends are inside, colours are those
//! of Okabe and Ito (told apart by colour-blind readers), and lines differ in width and dash too.
//! Ink, grid and series have fixed colours which a page may override by attribute selectors, so
//! that one figure serves a light and a dark page. No font is embedded.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::answer_charts::{by_step, histogram};
use super::assessment::{Assessment, BASE, HOLD, MODEL, Strategy};
use super::metrics::drawdowns;
use super::{numbers, plots};

/// Text.
pub const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Grid lines.
pub const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// The model.
pub const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
/// The base model.
pub const ORANGE: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
/// Buy and hold.
pub const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);

const SIZE: (u32, u32) = (640, 380);
/// The backend writes a font size of this over 1.24.
const FONT: i32 = 21;
const LEGEND: i32 = 30;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A figure: its name, what it shows in words, and the SVG.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Figure {
    /// Short name, for a file or an anchor.
    pub name: &'static str,
    /// Heading.
    pub title: String,
    /// What it shows, for those who do not see it.
    pub caption: String,
    /// The drawing.
    pub svg: String,
}

/// Draws every figure that there is data for.
///
/// # Errors
/// The drawing library reports a failure.
pub fn figures(a: &Assessment) -> Result<Vec<Figure>, Box<dyn std::error::Error>> {
    let mut all = vec![equity(a)?, drawdown(a)?];
    all.extend(plots::rolling(a)?);
    all.extend(plots::regimes(a)?);
    all.push(plots::costs(a)?);
    if let Some(quality) = a.quality.first() {
        all.extend(plots::calibration(quality)?);
        all.extend(plots::confusion(quality)?);
    }
    all.extend(plots::importance(a.importance.as_deref().unwrap_or_default())?);
    if a.of_language() {
        all.push(histogram(&a.answers)?);
    }
    all.extend(by_step(&a.training)?);
    Ok(all)
}

/// How a line is drawn.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    pub(super) color: RGBColor,
    pub(super) width: u32,
    pub(super) dash: Option<(i32, i32)>,
}

/// Pens of buy and hold, of what stands beside the model, and of the model.
pub(super) const PENS: [Pen; 3] = [
    Pen { color: GREY, width: 2, dash: None },
    Pen { color: ORANGE, width: 2, dash: Some((7, 4)) },
    Pen { color: BLUE, width: 3, dash: None },
];

/// The strategies that are drawn: buy and hold, the base model or the first other model, the model.
pub(super) fn drawn(a: &Assessment) -> [Option<&Strategy>; 3] {
    let other = a.strategies.get(1).filter(|s| s.name != HOLD);
    [a.strategy(HOLD), a.strategy(BASE).or(other), a.strategy(MODEL)]
}

/// The points of a long series that a line needs: of each of some 500 stretches the lowest and the
/// highest.
pub(super) fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    const STRETCHES: usize = 500;
    if points.len() <= 3 * STRETCHES {
        return points;
    }
    let last = points.last().copied();
    let ends = |part: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let mut two: Vec<(f64, f64)> = [part.iter().min_by(by), part.iter().max_by(by)]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        two.sort_by(|a, b| a.0.total_cmp(&b.0));
        two
    };
    points.chunks(points.len() / STRETCHES).flat_map(ends).chain(last).collect()
}

/// One line of a figure.
pub(super) struct Curve<'a> {
    pub(super) name: &'a str,
    pub(super) pen: Pen,
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) fn curves<'a>(a: &'a Assessment, values: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Curve<'a>> {
    let curve = |(strategy, pen): (Option<&'a Strategy>, Pen)| {
        let strategy = strategy?;
        let values = values(&strategy.path.equity).into_iter();
        let points = values.enumerate().map(|(i, v)| (i as f64, v)).filter(|p| p.1.is_finite());
        Some(Curve { name: &strategy.name, pen, points: thinned(points.collect()) })
    };
    drawn(a).into_iter().zip(PENS).filter_map(curve).collect()
}

fn equity(a: &Assessment) -> Result<Figure, Box<dyn std::error::Error>> {
    let curves = curves(a, <[f64]>::to_vec);
    let svg = draw(|root| {
        let band = &a.random.band;
        let values = curves.iter().flat_map(|c| c.points.iter().map(|p| p.1));
        let bands = band.iter().chain(&a.fan).flat_map(|b| [b.0, b.1]);
        let range = padded(values.chain(bands));
        let mut entries = legend_of(&curves);
        if !band.is_empty() {
            entries.push(("random 90%", Mark::Band(GREY)));
        }
        if !a.fan.is_empty() {
            entries.push(("resampled 95%", Mark::Band(BLUE)));
        }
        let plot = legend(root, &entries)?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(14)
            .x_label_area_size(32)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..(a.dates.len() - 1) as f64, range.0..range.1)?;
        axes(&mut chart, a, &|y| numbers::ratio(*y))?;
        let marks = &a.random.marks;
        for (band, color) in [(&a.fan, BLUE.mix(0.10)), (band, GREY.mix(0.18))] {
            let upper = marks.iter().zip(band).map(|(i, b)| (*i as f64, b.1));
            let lower = marks.iter().zip(band).rev().map(|(i, b)| (*i as f64, b.0));
            if !band.is_empty() {
                let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
                chart.draw_series([Polygon::new(outline, color)])?;
            }
        }
        for curve in &curves {
            line(&mut chart, curve)?;
        }
        Ok(())
    })?;
    let ends: Vec<String> = curves
        .iter()
        .rev()
        .filter_map(|c| Some(format!("{} {}", c.name, numbers::ratio(c.points.last()?.1))))
        .collect();
    Ok(Figure {
        name: "equity",
        title: "Equity after costs".into(),
        caption: format!(
            "Value of 1 invested at the first decision. At the end: {}. The grey band holds the middle 90% of {} random portfolios with the model's turnover, the blue one the middle 95% of the model's returns resampled.",
            ends.join(", "),
            numbers::count(a.random.count)
        ),
        svg,
    })
}

fn drawdown(a: &Assessment) -> Result<Figure, Box<dyn std::error::Error>> {
    let curves = curves(a, drawdowns);
    let svg = draw(|root| {
        let low = padded(curves.iter().flat_map(|c| c.points.iter().map(|p| p.1))).0;
        let plot = legend(root, &legend_of(&curves))?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(14)
            .margin_top(4)
            .x_label_area_size(32)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..(a.dates.len() - 1) as f64, low.min(-0.01)..0.0)?;
        axes(&mut chart, a, &|y| format!("{}%", numbers::whole(y * 100.0)))?;
        for curve in &curves {
            line(&mut chart, curve)?;
        }
        Ok(())
    })?;
    let deepest = |c: &Curve| c.points.iter().map(|p| p.1).fold(0.0, f64::min);
    let falls: Vec<String> = curves
        .iter()
        .rev()
        .map(|c| format!("{} {}", c.name, numbers::percent(deepest(c))))
        .collect();
    Ok(Figure {
        name: "drawdown",
        title: "Fall from the last peak".into(),
        caption: format!(
            "How far equity lies below its highest value so far. Deepest: {}.",
            falls.join(", ")
        ),
        svg,
    })
}

pub(super) type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Dates below, and values as `say` has them.
pub(super) fn axes(chart: &mut Chart, a: &Assessment, say: &dyn Fn(&f64) -> String) -> Drawn {
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(text())
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|x| date(a, *x))
        .y_label_formatter(say)
        .draw()?;
    Ok(())
}

pub(super) fn line(chart: &mut Chart, curve: &Curve) -> Drawn {
    let style = curve.pen.color.stroke_width(curve.pen.width);
    let points = curve.points.iter().copied();
    match curve.pen.dash {
        None => chart.draw_series(LineSeries::new(points, style))?,
        Some((on, off)) => chart.draw_series(DashedLineSeries::new(points, on, off, style))?,
    };
    Ok(())
}

/// A mark of the legend.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Line(Pen),
    Box(RGBColor),
    Band(RGBColor),
    Dot,
}

pub(super) fn legend_of<'a>(curves: &[Curve<'a>]) -> Vec<(&'a str, Mark)> {
    curves.iter().rev().map(|c| (c.name, Mark::Line(c.pen))).collect()
}

/// Draws the legend along the top and returns what is left.
pub(super) fn legend<'a>(
    root: &Area<'a>,
    entries: &[(&str, Mark)],
) -> Result<Area<'a>, Box<dyn std::error::Error>> {
    let (mut x, mut y) = (14, LEGEND / 2);
    for (name, mark) in entries {
        // A long name is cut, and what does not fit goes to the next line.
        let name: String = name.chars().take(28).collect();
        let wide = 28 + name.chars().count() as i32 * 9;
        if x > 14 && x + wide > SIZE.0 as i32 {
            (x, y) = (14, y + LEGEND - 4);
        }
        match mark {
            Mark::Line(pen) => {
                let style = pen.color.stroke_width(pen.width.max(2));
                let pieces =
                    if pen.dash.is_some() { vec![(0, 9), (13, 22)] } else { vec![(0, 22)] };
                for (from, to) in pieces {
                    root.draw(&PathElement::new(vec![(x + from, y), (x + to, y)], style))?;
                }
            }
            Mark::Box(color) => {
                root.draw(&Rectangle::new([(x + 4, y - 7), (x + 20, y + 7)], color.filled()))?
            }
            Mark::Band(color) => {
                root.draw(&Rectangle::new(
                    [(x, y - 7), (x + 22, y + 7)],
                    color.mix(0.18).filled(),
                ))?;
            }
            Mark::Dot => root.draw(&Circle::new((x + 11, y), 3, GREY.mix(0.6).filled()))?,
        }
        plot_text(root, name, (x + 28, y), HPos::Left)?;
        x += wide + 22;
    }
    Ok(root.split_vertically(y + LEGEND / 2).1)
}

pub(super) fn plot_text(root: &Area, words: String, at: (i32, i32), side: HPos) -> Drawn {
    let style = text().pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(words, at, style))?;
    Ok(())
}

pub(super) fn text() -> TextStyle<'static> {
    ("sans-serif", FONT).into_font().color(&INK)
}

pub(super) fn date(a: &Assessment, x: f64) -> String {
    let at = x.round().max(0.0) as usize;
    a.dates.get(at).and_then(|d| d.get(..7)).unwrap_or("").to_string()
}

/// The range of values and a little more.
pub(crate) fn padded(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = if high > low { (high - low) * 0.05 } else { high.abs().max(1.0) * 0.05 };
    (low - room, high + room)
}

pub(super) fn draw(
    figure: impl FnOnce(&Area) -> Drawn,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        figure(&root)?;
        root.present()?;
    }
    Ok(svg)
}
