//! Figures of a language model: what it answered, and how its training went.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::answers::Tally;
use super::assessment::{MODEL, Training};
use super::charts::{
    Area, Curve, Drawn, Figure, GREY, GRID, Mark, PENS, draw, legend, line, padded, plot_text, text,
};
use super::input::Step;
use super::numbers;

pub(super) fn histogram(tallies: &[Tally]) -> Result<Figure, Box<dyn std::error::Error>> {
    let pens = [PENS[2], PENS[1]];
    let names = ["model", "base model"];
    let svg = draw(|root| {
        let entries: Vec<(&str, Mark)> = names
            .into_iter()
            .zip(pens)
            .take(tallies.len())
            .map(|(n, p)| (n, Mark::Box(p.color)))
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
        for (t, (tally, pen)) in tallies.iter().zip(pens).enumerate() {
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

impl Training {
    /// Of a log, and where it is from.
    pub fn of(log: &[Step], said: impl Into<String>) -> Training {
        Training { said: said.into(), curves: curves(log) }
    }
}

/// The series of a log that are drawn.
fn curves(log: &[Step]) -> Vec<(&'static str, Vec<(f64, f64)>)> {
    // The loss of a policy gradient is no measure of progress.
    let rewarded = log.iter().any(|s| s.contains_key("reward_mean"));
    let drawn = LOGGED.into_iter().filter(|(key, ..)| !(rewarded && *key == "loss"));
    let curve = |(key, name, ..): (&str, &'static str, &str, &str)| {
        let value = |s: &Step| match key {
            // A count of what was sampled; steps may sample more or less.
            "parse_failures" => Some(s.get(key)? / s.get("samples").filter(|n| **n > 0.0)?),
            _ => s.get(key).copied(),
        };
        let at = |i: usize, s: &Step| s.get("step").copied().unwrap_or(i as f64);
        let points: Vec<(f64, f64)> =
            log.iter().enumerate().filter_map(|(i, s)| Some((at(i, s), value(s)?))).collect();
        (points.len() > 1).then_some((name, points))
    };
    drawn.filter_map(curve).collect()
}

pub(super) fn by_step(training: &Training) -> Result<Vec<Figure>, Box<dyn std::error::Error>> {
    let mut figures = Vec::new();
    for (name, points) in &training.curves {
        let Some((_, _, title, caption)) = LOGGED.iter().find(|logged| logged.1 == *name) else {
            continue;
        };
        let window = (points.len() / 12).clamp(3, 50).min(points.len());
        let svg = draw(|root| steps(root, points, window))?;
        let mean = |part: &[(f64, f64)]| part.iter().map(|p| p.1).sum::<f64>() / part.len() as f64;
        figures.push(Figure {
            name,
            title: (*title).into(),
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
    let plot = legend(root, &[("moving mean", Mark::Line(PENS[2])), ("step", Mark::Dot)])?;
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
    line(&mut chart, &Curve { name: MODEL, pen: PENS[2], points: moving })
}
