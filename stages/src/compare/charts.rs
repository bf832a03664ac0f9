//! The figures, each an SVG file that also stands alone on paper.
//!
//! As in the report of `evaluate`: fixed colours of Okabe and Ito which a page may override, lines
//! told apart by dash too, no font embedded. Many models share one thin grey; only the best, the
//! reference and the baselines then have a name in the legend, or, where there are groups, a hue a
//! group. Captions claim nothing that the figure does not show; data, span, costs and seeds are the
//! same for all (`words::source`).

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::found::{Comparison, LEVEL, Model};
use crate::evaluate::charts::{BLUE, Figure, GREY, GRID, INK, ORANGE, padded};
use crate::evaluate::numbers::{self, count, or_none, percent, ratio};

const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
const YELLOW: RGBColor = RGBColor(0xe6, 0x9f, 0x00);

const WIDTH: u32 = 640;
/// The backend writes a font size of this over 1.24.
const FONT: i32 = 19;
/// Width of a character of that size, on average.
const CHAR: i32 = 9;
const LINE: i32 = 24;
/// Models that have a colour of their own.
const COLOURED: usize = 8;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failed = Box<dyn std::error::Error>;

/// Draws every figure that there is data for.
///
/// # Errors
/// The drawing library reports a failure.
pub fn figures(found: &Comparison) -> Result<Vec<Figure>, Failed> {
    let mut all = vec![equity(found)?, sharpe(found)?];
    all.extend(differences(found)?);
    all.extend(overfit(found)?);
    all.extend(seeds(found)?);
    Ok(all)
}

#[derive(Clone, Copy)]
struct Pen {
    color: RGBColor,
    width: u32,
    dash: Option<(i32, i32)>,
}

/// A line of the chart of equities.
struct Curve<'a> {
    model: &'a Model,
    pen: Pen,
    /// Its name in the legend; several may share one.
    legend: String,
}

const HUES: [RGBColor; 4] = [ORANGE, GREEN, PURPLE, YELLOW];

/// The lines in the order in which they are drawn: what matters comes last.
fn curves(found: &Comparison) -> Vec<Curve<'_>> {
    let pen = |color, width, dash| Pen { color, width, dash };
    let dash_after = |at: usize| (at >= HUES.len()).then_some((7, 4));
    let many = found.models.len() > COLOURED;
    let groups = found.grouped();
    let (mut all, mut hue) = (Vec::new(), 0);
    for (at, (group, models)) in groups.iter().enumerate() {
        for model in *models {
            let name = Some(model.name.as_str());
            let (pen, legend) = if name == found.best().map(|m| m.name.as_str()) {
                (pen(BLUE, 3, None), model.name.clone())
            } else if name == found.reference.as_deref() || !many {
                hue += 1;
                (pen(HUES[(hue - 1) % HUES.len()], 2, dash_after(hue - 1)), model.name.clone())
            } else if groups.len() > 1 {
                let legend = if group.is_empty() { "single" } else { group };
                (pen(HUES[at % HUES.len()], 1, dash_after(at)), legend.to_owned())
            } else {
                (pen(GREY, 1, None), "the others".to_owned())
            };
            all.push(Curve { model, pen, legend });
        }
    }
    let dashes = [(2, 3), (9, 3), (5, 5)];
    for (model, dash) in found.baselines.iter().zip(dashes.iter().cycle()) {
        let legend = model.name.clone();
        all.push(Curve { model, pen: pen(INK, 2, Some(*dash)), legend });
    }
    // What has a name of its own over what shares one, the best over all.
    all.sort_by_key(|c| (c.legend == c.model.name, c.pen.width));
    all
}

fn equity(found: &Comparison) -> Result<Figure, Failed> {
    let curves = curves(found);
    let values = |m: &Model| -> Vec<f64> {
        let grow = |value: &mut f64, r: &f64| {
            *value *= 1.0 + r;
            Some(*value)
        };
        std::iter::once(1.0).chain(m.returns.iter().scan(1.0, grow)).collect()
    };
    let lines: Vec<Vec<f64>> = curves.iter().map(|c| values(c.model)).collect();
    let range = padded(lines.iter().flatten().copied());
    let mut entries: Vec<Entry> = Vec::new();
    let (own, shared): (Vec<&Curve>, Vec<&Curve>) =
        curves.iter().partition(|c| c.legend == c.model.name);
    for curve in own.iter().rev().chain(&shared) {
        if !entries.iter().any(|(name, _)| *name == curve.legend) {
            entries.push((curve.legend.clone(), Some(curve.pen)));
        }
    }
    let rows = legend_rows(&entries);
    let last = found.dates.len() as f64;
    let svg = draw(350 + rows * LINE as u32, |root| {
        let plot = legend(root, &entries)?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(16)
            .x_label_area_size(32)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, range.0..range.1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text())
            .x_labels(5)
            .y_labels(6)
            .x_label_formatter(&|x| {
                let at = (x.round() as usize).saturating_sub(1);
                found.dates.get(at).and_then(|d| d.get(..7)).unwrap_or_default().to_owned()
            })
            .y_label_formatter(&|y| ratio(*y))
            .draw()?;
        for (curve, line) in curves.iter().zip(&lines) {
            let points = line.iter().enumerate().map(|(i, v)| (i as f64, *v));
            let style = curve.pen.color.stroke_width(curve.pen.width);
            match curve.pen.dash {
                None => chart.draw_series(LineSeries::new(points, style))?,
                Some((on, off)) => {
                    chart.draw_series(DashedLineSeries::new(points, on, off, style))?
                }
            };
        }
        Ok(())
    })?;
    let own = |c: &Curve| c.legend == c.model.name;
    let ends: Vec<String> = curves
        .iter()
        .zip(&lines)
        .rev()
        .filter(|(c, _)| own(c))
        .filter_map(|(c, line)| Some(format!("{} {}", c.model.name, ratio(*line.last()?))))
        .collect();
    let others = match curves.iter().filter(|c| !own(c)).count() {
        0 => String::new(),
        1 => " The thin line is one more model.".to_owned(),
        n => format!(" The thin lines are {} more models.", count(n)),
    };
    Ok(Figure {
        name: "equity",
        title: "Equity after costs".into(),
        caption: format!(
            "Value of 1 invested in each model at the beginning, after costs. At the end: {}.{others}",
            ends.join(", ")
        ),
        svg,
    })
}

/// A row of a figure with a name, a value and its range.
struct Row {
    name: String,
    points: Vec<f64>,
    value: Option<f64>,
    range: Option<(f64, f64)>,
    color: RGBColor,
}

fn sharpe(found: &Comparison) -> Result<Figure, Failed> {
    let best = found.best().map(|m| m.name.as_str());
    let row = |m: &Model| Row {
        name: m.name.clone(),
        points: Vec::new(),
        value: m.sharpe,
        range: m.interval.map(|i| (i.low, i.high)),
        color: match m.name.as_str() {
            name if Some(name) == best => BLUE,
            _ if found.baselines.iter().any(|b| b.name == m.name) => ORANGE,
            _ => GREY,
        },
    };
    let mut rows: Vec<Row> = found.shown().map(row).collect();
    rows.sort_by(|a, b| {
        let key = |r: &Row| r.value.unwrap_or(f64::NEG_INFINITY);
        key(b).total_cmp(&key(a))
    });
    let chance = found.selection.sharpe_by_chance;
    let mut lines = vec![(0.0, "0".to_owned())];
    lines.extend(chance.map(|c| (c, format!("best of {} by chance", found.selection.trials))));
    let by_chance = chance.map_or_else(String::new, |c| {
        format!(
            " The dashed line is what the best of {} models without skill would be expected to reach, {}.",
            count(found.selection.trials),
            ratio(c)
        )
    });
    Ok(Figure {
        name: "sharpe",
        title: "Sharpe ratios with 95% intervals".into(),
        caption: format!(
            "Sharpe ratio a year of each model (dot) and the 95% interval of {} stationary-bootstrap draws (line). Blue is the highest of the models, orange what was replayed beside them.{by_chance} The intervals do not take into account that the best was chosen.",
            count(found.provenance.draws)
        ),
        svg: forest(&rows, &lines)?,
    })
}

fn differences(found: &Comparison) -> Result<Option<Figure>, Failed> {
    let Some(reference) = &found.reference else { return Ok(None) };
    let row = |m: &Model| {
        let d = m.difference?;
        Some(Row {
            name: m.name.clone(),
            points: Vec::new(),
            value: Some(d.value),
            range: Some((d.interval.low, d.interval.high)),
            color: if d.p_holm < LEVEL { ORANGE } else { GREY },
        })
    };
    let mut rows: Vec<Row> = found.shown().filter_map(row).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    rows.sort_by(|a, b| b.value.unwrap_or(0.0).total_cmp(&a.value.unwrap_or(0.0)));
    let marked = rows.iter().filter(|r| r.color == ORANGE).count();
    Ok(Some(Figure {
        name: "differences",
        title: "Differences of Sharpe ratios to the reference".into(),
        caption: format!(
            "Sharpe ratio a year less that of {reference} (dot) and its 95% interval from the same draws of both (line). Orange marks the {} of {} that remain significant at 5% after Holm.",
            count(marked),
            count(rows.len())
        ),
        svg: forest(&rows, &[(0.0, "no difference".to_owned())])?,
    }))
}

fn seeds(found: &Comparison) -> Result<Option<Figure>, Failed> {
    if found.seeds.is_empty() {
        return Ok(None);
    }
    let row = |s: &super::seeds::Seeds| Row {
        name: s.name.clone(),
        points: s.sharpes.iter().flatten().copied().collect(),
        value: s.sharpe.map(|q| q[1]),
        range: s.sharpe.map(|q| (q[0], q[2])),
        color: BLUE,
    };
    let rows: Vec<Row> = found.seeds.iter().map(row).collect();
    let ranks: Vec<String> = found
        .seeds
        .iter()
        .take(3)
        .map(|s| format!("{} {}", s.name, or_none(s.rank.map(|q| q[1]), ratio)))
        .collect();
    Ok(Some(Figure {
        name: "seeds",
        title: "Sharpe ratios over seeds".into(),
        caption: format!(
            "Sharpe ratio a year of each seed (rings), their median (dot) and the middle half of them (line), by median rank within a seed. Median ranks: {}. A model without seeds has a dot alone.",
            ranks.join(", ")
        ),
        svg: forest(&rows, &[(0.0, "0".to_owned())])?,
    }))
}

/// Rows with dots and ranges over a common axis, and named upright lines.
fn forest(rows: &[Row], lines: &[(f64, String)]) -> Result<String, Failed> {
    let longest = rows.iter().map(|r| r.name.chars().count() as i32).max().unwrap_or(0);
    let room = (longest * CHAR + 18).clamp(60, 270);
    let values = rows.iter().flat_map(|r| {
        let range = r.range.map(|(a, b)| [a, b]);
        r.points.iter().copied().chain(r.value).chain(range.into_iter().flatten())
    });
    let range = padded(values.chain(lines.iter().map(|l| l.0)));
    let height = rows.len() as u32 * LINE as u32 + 44;
    let named: Vec<(String, Option<Pen>)> = lines
        .iter()
        .filter(|(_, name)| name != "0")
        .map(|(_, name)| {
            let pen = Pen { color: INK, width: 1, dash: Some((4, 3)) };
            (name.clone(), Some(pen))
        })
        .collect();
    draw(height + legend_rows(&named) * LINE as u32, |root| {
        let plot = legend(root, &named)?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(18)
            .margin_top(4)
            .x_label_area_size(32)
            .y_label_area_size(room)
            .build_cartesian_2d(range.0..range.1, (rows.len() as f64)..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text())
            .x_labels(6)
            .x_label_formatter(&|x| numbers::fixed(*x, if range.1 - range.0 < 0.5 { 2 } else { 1 }))
            .draw()?;
        for (x, name) in lines {
            let ends = [(*x, 0.0), (*x, rows.len() as f64)];
            match name.as_str() {
                "0" => chart.draw_series(LineSeries::new(ends, INK.stroke_width(1)))?,
                _ => chart.draw_series(DashedLineSeries::new(ends, 4, 3, INK.stroke_width(1)))?,
            };
        }
        for (i, row) in rows.iter().enumerate() {
            let y = i as f64 + 0.5;
            if let Some((low, high)) = row.range {
                let ends = vec![(low, y), (high, y)];
                chart.draw_series([PathElement::new(ends, row.color.stroke_width(3))])?;
            }
            let rings =
                row.points.iter().map(|x| Circle::new((*x, y), 4, row.color.stroke_width(1)));
            chart.draw_series(rings)?;
            let dot = row.value.map(|x| Circle::new((x, y), 5, row.color.filled()));
            chart.draw_series(dot)?;
            let at = chart.plotting_area().map_coordinate(&(range.0, y));
            words_at(root, tail(&row.name, (room - 14) / CHAR), (at.0 - 8, at.1), HPos::Right)?;
        }
        Ok(())
    })
}

fn overfit(found: &Comparison) -> Result<Option<Figure>, Failed> {
    let Some(o) = &found.selection.overfit else { return Ok(None) };
    let bins = found.selection.trials.min(25);
    let mut counts = vec![[0usize; 2]; bins];
    for logit in &o.logits {
        let w = 1.0 / (1.0 + (-logit).exp());
        let bin = ((w * bins as f64) as usize).min(bins - 1);
        counts[bin][usize::from(*logit <= 0.0)] += 1;
    }
    let total = o.logits.len() as f64;
    let most = counts.iter().map(|c| c[0] + c[1]).max().unwrap_or(1) as f64 / total;
    let svg = draw(360, |root| {
        let plot = boxes(root, &[("better than the median", BLUE), ("not better", ORANGE)])?;
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(20)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..bins as f64, 0.0..1.06 * most)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(text())
            .x_labels(0)
            .y_labels(5)
            .y_label_formatter(&|y| format!("{}%", numbers::whole(y * 100.0)))
            .draw()?;
        for (i, [better, worse]) in counts.iter().enumerate() {
            let (left, right) = (i as f64 + 0.1, i as f64 + 0.9);
            let (low, high) = (*worse as f64 / total, (worse + better) as f64 / total);
            chart.draw_series([Rectangle::new([(left, 0.0), (right, low)], ORANGE.filled())])?;
            chart.draw_series([Rectangle::new([(left, low), (right, high)], BLUE.filled())])?;
        }
        let (left, right) = (0.0, bins as f64);
        for (x, name, side) in [
            (left, "last", HPos::Left),
            (right / 2.0, "rank in the other half", HPos::Center),
            (right, "first", HPos::Right),
        ] {
            let at = chart.plotting_area().map_coordinate(&(x, 0.0));
            words_at(root, name.to_owned(), (at.0, at.1 + 18), side)?;
        }
        Ok(())
    })?;
    Ok(Some(Figure {
        name: "overfit",
        title: "Where the best of one half stands in the other".into(),
        caption: format!(
            "Rank in one half of the span of the model that had the highest Sharpe ratio in the other half, over {} ways to halve {} blocks of {} returns. In {} of them it is no better than the median: the probability of overfitting.",
            count(o.logits.len()),
            count(o.blocks),
            count(o.block),
            percent(o.pbo)
        ),
        svg,
    }))
}

/// The end of a name that is too long for its place: there, cells differ.
fn tail(name: &str, most: i32) -> String {
    let (length, most) = (name.chars().count(), most.max(4) as usize);
    if length <= most {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length + 1 - most).collect();
    format!("…{end}")
}

type Entry = (String, Option<Pen>);

/// Where each entry of a legend begins: row and pixel.
fn places(entries: &[Entry]) -> Vec<(i32, i32)> {
    let (mut row, mut x) = (0, 14);
    let place = |(name, _): &Entry| {
        let width = 28 + tail(name, 60).chars().count() as i32 * CHAR + 26;
        if x > 14 && x + width > WIDTH as i32 {
            (row, x) = (row + 1, 14);
        }
        x += width;
        (row, x - width)
    };
    entries.iter().map(place).collect()
}

fn legend_rows(entries: &[Entry]) -> u32 {
    places(entries).last().map_or(0, |(row, _)| *row as u32 + 1)
}

/// Draws the legend along the top and returns what is left.
fn legend<'a>(root: &Area<'a>, entries: &[Entry]) -> Result<Area<'a>, Failed> {
    for ((name, pen), (row, x)) in entries.iter().zip(places(entries)) {
        let y = row * LINE + LINE / 2 + 2;
        if let Some(pen) = pen {
            let style = pen.color.stroke_width(pen.width.max(2));
            let pieces = if pen.dash.is_some() { vec![(0, 9), (13, 22)] } else { vec![(0, 22)] };
            for (from, to) in pieces {
                root.draw(&PathElement::new(vec![(x + from, y), (x + to, y)], style))?;
            }
        }
        words_at(root, tail(name, 60), (x + 28, y), HPos::Left)?;
    }
    Ok(root.split_vertically(legend_rows(entries) as i32 * LINE + 4).1)
}

/// A legend of coloured boxes.
fn boxes<'a>(root: &Area<'a>, entries: &[(&str, RGBColor)]) -> Result<Area<'a>, Failed> {
    let mut x = 14;
    for (name, color) in entries {
        root.draw(&Rectangle::new([(x + 4, 6), (x + 20, 20)], color.filled()))?;
        words_at(root, (*name).to_owned(), (x + 28, 14), HPos::Left)?;
        x += 28 + name.chars().count() as i32 * CHAR + 22;
    }
    Ok(root.split_vertically(LINE + 4).1)
}

fn words_at(root: &Area, words: String, at: (i32, i32), side: HPos) -> Result<(), Failed> {
    root.draw(&Text::new(words, at, text().pos(Pos::new(side, VPos::Center))))?;
    Ok(())
}

fn text() -> TextStyle<'static> {
    ("sans-serif", FONT).into_font().color(&INK)
}

fn draw(height: u32, figure: impl FnOnce(&Area) -> Result<(), Failed>) -> Result<String, Failed> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        figure(&root)?;
        root.present()?;
    }
    Ok(svg)
}
