//! One number against another, or against a word, as SVG.
//!
//! Points are joined where each value of `x` has one; where it has several they are scattered around
//! the line of their means. An axis of positive numbers that spans two powers of ten is logarithmic.
//! Colours are attributes that a style turns over on a dark page. No font is embedded.

use plotters::prelude::*;
use serde_json::Value;

use super::values::{Frame, show};
use crate::report::table::number;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const PAGE: RGBColor = RGBColor(0xff, 0xff, 0xff);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const SIZE: (u32, u32) = (640, 400);
/// The backend writes a font size of this over 1.24.
const FONT: i32 = 17;

/// On a dark page ink is light, and the rest has less light.
const STYLE: &str = "<style>@media (prefers-color-scheme: dark) {\
[fill=\"#222222\"] { fill: #dddddd } [stroke=\"#222222\"] { stroke: #dddddd }\
[stroke=\"#DDDDDD\"] { stroke: #3a3a3a } [fill=\"#FFFFFF\"] { fill: #161616 }\
[fill=\"#0072B2\"] { fill: #56b4e9 } [stroke=\"#0072B2\"] { stroke: #56b4e9 }}</style>\n";

/// A point, and how its `x` reads.
struct Point {
    x: f64,
    y: f64,
}

/// Draws `y` against `x` for all rows that have both; `None` where there are none.
///
/// # Errors
/// The drawing library reports a failure.
pub fn svg(frame: &Frame, x: &str, y: &str) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let pairs: Vec<(Value, f64)> = (frame.rows.iter())
        .filter_map(|row| Some((row.get(x)?, row.get(y)?.as_f64()?)))
        .filter(|(_, y)| y.is_finite())
        .collect();
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut words: Vec<String> = Vec::new();
    if !pairs.iter().all(|(x, _)| x.as_f64().is_some()) {
        for (x, _) in &pairs {
            let word = show(x);
            if !words.contains(&word) {
                words.push(word);
            }
        }
    }
    let place = |x: &Value| match words.iter().position(|word| *word == show(x)) {
        Some(place) => place as f64,
        None => x.as_f64().unwrap_or(f64::NAN),
    };
    let mut points: Vec<Point> = pairs.iter().map(|(x, y)| Point { x: place(x), y: *y }).collect();
    let (least, most) = ends(points.iter().map(|p| p.x));
    let log = words.is_empty() && least > 0.0 && most / least >= 100.0;
    if log {
        points.iter_mut().for_each(|point| point.x = point.x.log10());
    }
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    let mut out = String::new();
    draw(&mut out, &points, &words, log, (x, y))?;
    let end = out.find('>').map_or(0, |at| at + 1);
    out.insert_str(end, &format!("\n{STYLE}"));
    Ok(Some(out))
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
}

fn padded((least, most): (f64, f64)) -> std::ops::Range<f64> {
    let gap = if most > least { (most - least) * 0.06 } else { least.abs().max(1.0) * 0.1 };
    least - gap..most + gap
}

/// The mean of each place that has points.
fn means(points: &[Point]) -> Vec<(f64, f64)> {
    let mut means: Vec<(f64, f64, usize)> = Vec::new();
    for point in points {
        match means.last_mut() {
            Some((x, sum, n)) if *x == point.x => (*sum, *n) = (*sum + point.y, *n + 1),
            _ => means.push((point.x, point.y, 1)),
        }
    }
    means.into_iter().map(|(x, sum, n)| (x, sum / n as f64)).collect()
}

fn draw(
    out: &mut String,
    points: &[Point],
    words: &[String],
    log: bool,
    (x, y): (&str, &str),
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(out, SIZE).into_drawing_area();
    root.fill(&PAGE)?;
    let means = means(points);
    let range = match words.is_empty() {
        true => padded(ends(points.iter().map(|p| p.x))),
        false => -0.5..words.len() as f64 - 0.5,
    };
    let text = ("sans-serif", FONT).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(range, padded(ends(points.iter().map(|p| p.y))))?;
    let whole = !log && points.iter().all(|point| point.x.fract() == 0.0);
    let tick = |value: &f64| {
        let near = value.round();
        let between = (value - near).abs() > 1e-6;
        match (words.is_empty(), log) {
            (true, true) => {
                // Two digits: nobody reads 0.000316228.
                let rough = format!("{:.1e}", 10_f64.powf(*value)).parse();
                rough.map_or(String::new(), number)
            }
            (_, false) if whole && between => String::new(),
            (true, false) => number(*value),
            (false, _) => words.get(near.max(0.0) as usize).cloned().unwrap_or_default(),
        }
    };
    let several = means.len() < points.len();
    let log = if log { " (log)" } else { "" };
    let x_name = format!("{x}{log}{}", if several { "; the line joins means" } else { "" });
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_labels(if words.is_empty() { 6 } else { 2 * words.len() + 1 })
        .y_labels(6)
        .x_label_formatter(&tick)
        .y_label_formatter(&|value| number(*value))
        .x_desc(x_name)
        .y_desc(y)
        .draw()?;
    if words.is_empty() && means.len() > 1 {
        chart.draw_series(LineSeries::new(means.iter().copied(), BLUE.stroke_width(2)))?;
    } else if several {
        let bar = |&(x, y): &(f64, f64)| {
            PathElement::new([(x - 0.2, y), (x + 0.2, y)], BLUE.stroke_width(2))
        };
        chart.draw_series(means.iter().map(bar))?;
    }
    let dot = |point: &Point| Circle::new((point.x, point.y), 4, BLUE.filled());
    chart.draw_series(points.iter().map(dot))?;
    root.present()?;
    Ok(())
}
