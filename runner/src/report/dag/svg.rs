//! A graph as one SVG file that looks right on a light and on a dark page.

use super::layout::{Layout, layout};
use super::{Item, Picture, View, picture};

const ROW: f64 = 88.0;
const HEIGHT: f64 = 46.0;
const GAP: f64 = 26.0;
const EDGE: f64 = 14.0;
/// The height and the least width of a legend.
const LEGEND: (f64, f64) = (40.0, 300.0);

const STYLE: &str = "
  text { font-family: ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; text-anchor: middle; }
  .name { font-size: 14px; font-weight: 600; fill: #1f2328; }
  .kind { font-size: 11.5px; fill: #59636e; }
  .file { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 11px; fill: #59636e; }
  .stage { fill: #f3f6fb; stroke: #5b7aa6; stroke-width: 1.25; }
  .source { fill: none; stroke: #9aa4af; stroke-width: 1.25; stroke-dasharray: 4 3; }
  .edge { fill: none; stroke: #8793a1; stroke-width: 1.5; }
  .head { fill: #8793a1; }
  @media (prefers-color-scheme: dark) {
    .name { fill: #e6edf3; } .kind, .file { fill: #9aa7b4; }
    .stage { fill: #1b2433; stroke: #6f93c6; } .source { stroke: #66717d; }
    .edge { stroke: #74808d; } .head { fill: #74808d; }
  }";

/// Beside colours the frames tell what will run (thick) and what waits (broken).
const STATUS: &str = "
  .hit { fill: #e6f4ea; stroke: #3f8f5b; }
  .run { fill: #fff1d6; stroke: #b7791f; stroke-width: 2.5; }
  .unknown { fill: #e8eefb; stroke: #5b7aa6; stroke-dasharray: 5 3; }
  .legend { text-anchor: start; }
  @media (prefers-color-scheme: dark) {
    .hit { fill: #14301f; stroke: #4fa870; } .run { fill: #3d2c0c; stroke: #d19a3f; }
    .unknown { fill: #1b2433; stroke: #6f93c6; }
  }";

/// Draws it.
pub fn svg(view: &View) -> String {
    let picture = picture(view);
    let widths: Vec<f64> = picture.items.iter().map(width).collect();
    let layout = layout(&picture, &widths, GAP);
    let right = layout.points.iter().map(|p| p.x + p.width / 2.0).fold(0.0, f64::max);
    let foot = if view.plan.is_some() { LEGEND } else { (0.0, 0.0) };
    let right = right.max(foot.1);
    let (w, h) =
        (right + 2.0 * EDGE, foot.0 + layout.layers.len() as f64 * ROW - ROW + HEIGHT + 2.0 * EDGE);
    let marks = if view.plan.is_some() { STATUS } else { "" };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" \
         viewBox=\"0 0 {w:.0} {h:.0}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}{marks}\n</style>\n",
        title(&picture)
    );
    edges(&layout, &mut out);
    for (item, point) in picture.items.iter().zip(&layout.points) {
        draw(item, point.x + EDGE, point.layer as f64 * ROW + EDGE, point.width, &mut out);
    }
    if view.plan.is_some() {
        legend(h - EDGE - 8.0, &mut out);
    }
    out.push_str("</svg>\n");
    out
}

/// What the colours mean.
fn legend(y: f64, out: &mut String) {
    let words = [
        ("run", "run", 0.0),
        ("unknown", "unknown: waits", 60.0),
        ("hit", "hit: up to date", 190.0),
    ];
    for (class, said, x) in words {
        let (x, top) = (x + EDGE, y - 10.0);
        out.push_str(&format!(
            "<rect class=\"stage {class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"14\" height=\"12\" rx=\"3\"/>\n\
             <text class=\"kind legend\" x=\"{:.1}\" y=\"{y:.1}\">{said}</text>\n",
            x + 20.0
        ));
    }
}

fn title(picture: &Picture) -> String {
    let stages = picture.items.iter().filter(|item| matches!(item, Item::Stage { .. }));
    format!("pipeline of {} stages", stages.count())
}

/// A width that holds the texts, measured generously: the font is the reader's.
fn width(item: &Item) -> f64 {
    let letter = if matches!(item, Item::Source { .. }) { 6.9 } else { 6.4 };
    let small = item.second().map_or(0.0, |second| letter * short(&second).chars().count() as f64);
    (8.4 * item.name().chars().count() as f64).max(small).max(48.0) + 26.0
}

/// The end of a long path.
fn short(path: &str) -> String {
    let n = path.chars().count();
    match n > 30 {
        true => format!("…{}", path.chars().skip(n - 29).collect::<String>()),
        false => path.to_owned(),
    }
}

fn edges(layout: &Layout, out: &mut String) {
    let entries = entries(layout);
    for (&(a, b), entry) in layout.segments.iter().zip(entries) {
        let (from, to) = (layout.points[a], layout.points[b]);
        let (x1, x2) = (from.x + EDGE, entry + EDGE);
        // A bend is passed through from top to bottom of its layer.
        let y1 = from.layer as f64 * ROW + EDGE + HEIGHT;
        let head = if to.bend { 0.0 } else { 6.0 };
        let y2 = to.layer as f64 * ROW + EDGE - head;
        let middle = (y1 + y2) / 2.0;
        out.push_str(&format!("<path class=\"edge\" d=\"M{x1:.1} {y1:.1}"));
        match (x1 - x2).abs() < 0.5 {
            true => out.push_str(&format!("V{y2:.1}")),
            false => {
                out.push_str(&format!("C{x1:.1} {middle:.1} {x2:.1} {middle:.1} {x2:.1} {y2:.1}"))
            }
        }
        if to.bend {
            out.push_str(&format!("V{:.1}\"/>\n", y2 + HEIGHT));
        } else {
            let tip = y2 + head;
            out.push_str("\"/>\n");
            out.push_str(&format!("<path class=\"head\" d=\"M{x2:.1} {tip:.1}l-4.5 -8h9z\"/>\n"));
        }
    }
}

/// Where each segment ends: side by side at the top of a box, from left to right as they come.
fn entries(layout: &Layout) -> Vec<f64> {
    let mut ends: Vec<f64> = layout.segments.iter().map(|&(_, b)| layout.points[b].x).collect();
    let mut order: Vec<usize> = (0..ends.len()).collect();
    let from = |segment: usize| layout.points[layout.segments[segment].0].x;
    order.sort_by(|&a, &b| {
        layout.segments[a].1.cmp(&layout.segments[b].1).then(from(a).total_cmp(&from(b)))
    });
    for group in order.chunk_by(|&a, &b| layout.segments[a].1 == layout.segments[b].1) {
        let width = group.first().map_or(0.0, |&s| layout.points[layout.segments[s].1].width);
        let step = (width * 0.7 / group.len() as f64).min(14.0);
        for (i, &segment) in group.iter().enumerate() {
            ends[segment] += (i as f64 - (group.len() - 1) as f64 / 2.0) * step;
        }
    }
    ends
}

fn draw(item: &Item, x: f64, y: f64, width: f64, out: &mut String) {
    let status = item.status().map_or("", |status| status.word());
    let (class, radius) = match item {
        Item::Source { .. } => ("source".to_owned(), HEIGHT / 2.0),
        Item::Stage { .. } if status.is_empty() => ("stage".to_owned(), 8.0),
        Item::Stage { .. } => (format!("stage {status}"), 8.0),
    };
    let left = x - width / 2.0;
    out.push_str(&format!(
        "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
         height=\"{HEIGHT:.1}\" rx=\"{radius:.1}\"/>\n"
    ));
    let second = item.second().map(|second| short(&second));
    let small = if matches!(item, Item::Source { .. }) { "file" } else { "kind" };
    let base = if second.is_some() { y + 20.0 } else { y + HEIGHT / 2.0 + 5.0 };
    out.push_str(&format!(
        "<text class=\"name\" x=\"{x:.1}\" y=\"{base:.1}\">{}</text>\n",
        escape(item.name())
    ));
    if let Some(second) = second {
        let base = y + 36.0;
        let second = escape(&second);
        out.push_str(&format!(
            "<text class=\"{small}\" x=\"{x:.1}\" y=\"{base:.1}\">{second}</text>\n"
        ));
    }
}

/// Text as XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
