//! The report's figures as SVG.
//!
//! Each is a file of its own that also reads well on paper: legends are inside, colours are those
//! of Okabe and Ito (told apart by colour-blind readers), and lines differ in width and dash too.
//! Ink, grid and series have fixed colours which a page may override by attribute selectors, so
//! that one figure serves a light and a dark page. No font is embedded.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::answers::Tally;
use super::assess::{Assessment, BASE, HOLD, MODEL};
use super::input::Step;
use super::metrics::drawdowns;
use super::numbers;

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

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

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
    let mut all = vec![equity(a)?, drawdown(a)?, histogram(&a.answers)?];
    all.extend(by_step(&a.log)?);
    Ok(all)
}

/// How a line is drawn.
#[derive(Clone, Copy)]
struct Pen {
    color: RGBColor,
    width: u32,
    dash: Option<(i32, i32)>,
}

const PENS: [(&str, Pen); 3] = [
    (HOLD, Pen { color: GREY, width: 2, dash: None }),
    (BASE, Pen { color: ORANGE, width: 2, dash: Some((7, 4)) }),
    (MODEL, Pen { color: BLUE, width: 3, dash: None }),
];

/// One line of a figure.
struct Curve<'a> {
    name: &'a str,
    pen: Pen,
    points: Vec<(f64, f64)>,
}

fn curves(a: &Assessment, values: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Curve<'static>> {
    let curve = |(name, pen): (&'static str, Pen)| {
        let values = values(&a.strategy(name)?.path.equity);
        let points = values.into_iter().enumerate().map(|(i, v)| (i as f64, v)).collect();
        Some(Curve { name, pen, points })
    };
    PENS.into_iter().filter_map(curve).collect()
}

fn equity(a: &Assessment) -> Result<Figure, Box<dyn std::error::Error>> {
    let curves = curves(a, <[f64]>::to_vec);
    let svg = draw(|root| {
        let band = &a.random.band;
        let values = curves.iter().flat_map(|c| c.points.iter().map(|p| p.1));
        let range = padded(values.chain(band.iter().flat_map(|b| [b.0, b.1])));
        let mut entries = legend_of(&curves);
        if !band.is_empty() {
            entries.push(("random 90%", Mark::Band));
        }
        let plot = legend(root, &entries)?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(14)
            .x_label_area_size(32)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..(a.dates.len() - 1) as f64, range.0..range.1)?;
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
            .y_label_formatter(&|y| numbers::ratio(*y))
            .draw()?;
        let at = |i: usize, v: f64| (i as f64, v);
        let upper = band.iter().enumerate().map(|(i, b)| at(i, b.1));
        let lower = band.iter().enumerate().rev().map(|(i, b)| at(i, b.0));
        if !band.is_empty() {
            let outline: Vec<(f64, f64)> = upper.chain(lower).collect();
            chart.draw_series([Polygon::new(outline, GREY.mix(0.18))])?;
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
            "Value of 1 invested at the first decision. At the end: {}. The band holds the middle 90% of {} random portfolios with the model's holding periods.",
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
            .y_label_formatter(&|y| format!("{}%", numbers::whole(y * 100.0)))
            .draw()?;
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

fn histogram(tallies: &[Tally]) -> Result<Figure, Box<dyn std::error::Error>> {
    let pens = [PENS[2], PENS[1]];
    let names = ["model", "base model"];
    let svg = draw(|root| {
        let entries: Vec<(&str, Mark)> = names
            .into_iter()
            .zip(pens)
            .take(tallies.len())
            .map(|(n, p)| (n, Mark::Box(p.1.color)))
            .collect();
        let plot = legend(root, &entries)?;
        let rows = tallies.first().map_or(0, |t| t.counts.len());
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(70)
            .margin_bottom(6)
            .y_label_area_size(134)
            .build_cartesian_2d(0.0..1.0, (rows as f64)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .disable_axes()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .x_labels(5)
            .draw()?;
        let thick = 0.76 / tallies.len().max(1) as f64;
        for (t, (tally, (_, pen))) in tallies.iter().zip(pens).enumerate() {
            for (i, count) in tally.counts.iter().enumerate() {
                let top = i as f64 + 0.12 + t as f64 * thick;
                let bar = [(0.0, top), (count.share, top + thick)];
                chart.draw_series([Rectangle::new(bar, pen.color.filled())])?;
                let at = chart.plotting_area().map_coordinate(&(count.share, top + thick / 2.0));
                let label =
                    if count.count == 0 { "0".into() } else { numbers::percent(count.share) };
                plot_text(root, label, (at.0 + 6, at.1), HPos::Left)?;
            }
        }
        for (i, count) in tallies.iter().flat_map(|t| t.counts.iter().enumerate()).take(rows) {
            let at = chart.plotting_area().map_coordinate(&(0.0, i as f64 + 0.5));
            plot_text(root, count.name.into(), (at.0 - 8, at.1), HPos::Right)?;
        }
        Ok(())
    })?;
    let of = |t: &Tally| {
        let most = t.counts.iter().rev().max_by_key(|c| c.count);
        most.map(|c| format!("{}: mostly {} ({})", t.source, c.name, numbers::percent(c.share)))
    };
    let words: Vec<String> = tallies.iter().filter_map(of).collect();
    Ok(Figure {
        name: "actions",
        title: "What was answered".into(),
        caption: format!("Share of the test prompts by kind of answer. {}.", words.join("; ")),
        svg,
    })
}

/// Series of the training log that are drawn: key, name, title and caption.
const LOGGED: [(&str, &str, &str, &str); 4] = [
    (
        "reward_mean",
        "reward",
        "Reward by training step",
        "Mean reward of the completions sampled at each step, between 0 and 1; one half is the reward of doing nothing.",
    ),
    (
        "parse_failures",
        "failures",
        "Parse failures by training step",
        "Share of the completions sampled at each step that are no action.",
    ),
    (
        "accuracy",
        "accuracy",
        "Preferences by training step",
        "Share of the pairs at each step of which the model prefers the chosen completion.",
    ),
    ("loss", "loss", "Loss by training step", "Training loss at each step."),
];

fn by_step(log: &[Step]) -> Result<Vec<Figure>, Box<dyn std::error::Error>> {
    let mut figures = Vec::new();
    // The loss of a policy gradient is no measure of progress.
    let rewarded = log.iter().any(|s| s.contains_key("reward_mean"));
    for (key, name, title, caption) in LOGGED {
        if rewarded && key == "loss" {
            continue;
        }
        let value = |s: &Step| match key {
            // A count of what was sampled; steps may sample more or less.
            "parse_failures" => Some(s.get(key)? / s.get("samples").filter(|n| **n > 0.0)?),
            _ => s.get(key).copied(),
        };
        let at = |i: usize, s: &Step| s.get("step").copied().unwrap_or(i as f64);
        let points: Vec<(f64, f64)> =
            log.iter().enumerate().filter_map(|(i, s)| Some((at(i, s), value(s)?))).collect();
        if points.len() < 2 {
            continue;
        }
        let window = (points.len() / 12).clamp(3, 50).min(points.len());
        let svg = draw(|root| steps(root, &points, window))?;
        let mean = |part: &[(f64, f64)]| part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64;
        figures.push(Figure {
            name,
            title: title.into(),
            caption: format!(
                "{caption} The line is the mean of the last {window} logged steps: {} at first, {} at the end.",
                numbers::ratio(mean(&points[..window])),
                numbers::ratio(mean(&points[points.len() - window..]))
            ),
            svg,
        });
    }
    Ok(figures)
}

fn steps(root: &Area, points: &[(f64, f64)], window: usize) -> Drawn {
    let plot = legend(root, &[("moving mean", Mark::Line(PENS[2].1)), ("step", Mark::Dot)])?;
    let range = padded(points.iter().map(|p| p.1));
    let ends = (points[0].0, points[points.len() - 1].0);
    let mut chart = ChartBuilder::on(&plot)
        .margin_right(20)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(ends.0..ends.1, range.0..range.1)?;
    let digits = if range.1 - range.0 < 0.08 { 3 } else { 2 };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(text())
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|x| numbers::whole(*x))
        .y_label_formatter(&|y| {
            if range.1 > 20.0 { numbers::whole(*y) } else { numbers::fixed(*y, digits) }
        })
        .draw()?;
    chart.draw_series(points.iter().map(|p| Circle::new(*p, 2, GREY.mix(0.45).filled())))?;
    let mean = |w: &[(f64, f64)]| {
        let last = w[w.len() - 1].0;
        (last, w.iter().map(|p| p.1).sum::<f64>() / w.len() as f64)
    };
    let moving = points.windows(window).map(mean).collect();
    line(&mut chart, &Curve { name: MODEL, pen: PENS[2].1, points: moving })
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn line(chart: &mut Chart, curve: &Curve) -> Drawn {
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
enum Mark {
    Line(Pen),
    Box(RGBColor),
    Band,
    Dot,
}

fn legend_of<'a>(curves: &[Curve<'a>]) -> Vec<(&'a str, Mark)> {
    curves.iter().rev().map(|c| (c.name, Mark::Line(c.pen))).collect()
}

/// Draws the legend along the top and returns what is left.
fn legend<'a>(
    root: &Area<'a>,
    entries: &[(&str, Mark)],
) -> Result<Area<'a>, Box<dyn std::error::Error>> {
    let mut x = 14;
    let y = LEGEND / 2;
    for (name, mark) in entries {
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
            Mark::Band => {
                root.draw(&Rectangle::new([(x, y - 7), (x + 22, y + 7)], GREY.mix(0.18).filled()))?;
            }
            Mark::Dot => root.draw(&Circle::new((x + 11, y), 3, GREY.mix(0.6).filled()))?,
        }
        plot_text(root, name.to_string(), (x + 28, y), HPos::Left)?;
        x += 28 + name.chars().count() as i32 * 9 + 22;
    }
    Ok(root.split_vertically(LEGEND).1)
}

fn plot_text(root: &Area, words: String, at: (i32, i32), side: HPos) -> Drawn {
    let style = text().pos(Pos::new(side, VPos::Center));
    root.draw(&Text::new(words, at, style))?;
    Ok(())
}

fn text() -> TextStyle<'static> {
    ("sans-serif", FONT).into_font().color(&INK)
}

fn date(a: &Assessment, x: f64) -> String {
    let at = x.round().max(0.0) as usize;
    a.dates.get(at).and_then(|d| d.get(..7)).unwrap_or("").to_string()
}

/// The range of values and a little more.
fn padded(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = if high > low { (high - low) * 0.05 } else { high.abs().max(1.0) * 0.05 };
    (low - room, high + room)
}

fn draw(figure: impl FnOnce(&Area) -> Drawn) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        figure(&root)?;
        root.present()?;
    }
    Ok(svg)
}
