//! The report: one HTML file that opens from disk, on a phone, in the dark and on paper; and the same
//! as Markdown.
//!
//! It loads nothing: no script, font or image from elsewhere, and a content policy that forbids
//! it. Answers of a model are untrusted text; the template escapes everything but the figures
//! drawn here. Nothing is computed here that `metrics.json` does not hold.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use super::assessment::{Assessment, HOLD, MODEL};
use super::charts::{self, Figure};
use super::document::{Section, markdown, visible};
use super::numbers::{count, many, or_none, percent, ratio, signed_percent};
use super::sections;
use super::verdict::show;
use crate::{Result, StageError};

const TEMPLATE: &str = include_str!("report.html.jinja");
const STYLE: &str = include_str!("style.css");

/// What the template shows.
#[derive(Serialize)]
struct Page<'a> {
    title: String,
    about: String,
    verdict: &'a [String],
    tiles: Vec<(&'static str, String, String)>,
    sections: &'a [Section],
}

/// The report in both forms.
pub struct Report {
    /// The page.
    pub html: String,
    /// The same in Markdown.
    pub markdown: String,
}

/// Writes the report.
///
/// # Errors
/// A figure cannot be drawn or the template cannot be filled in.
pub fn render(a: &Assessment) -> Result<Report> {
    let failed = |e: String| StageError::failed(format!("cannot write the report: {e}"));
    let figures = charts::figures(a).map_err(|e| failed(e.to_string()))?;
    let figures: Vec<Figure> = figures.into_iter().map(embed).collect();
    let sections = sections::all(a, &figures)?;
    let about = about(a);
    let page = Page {
        title: format!("Evaluation {} to {}", a.provenance.first, a.provenance.last),
        about: about.clone(),
        verdict: &a.verdict,
        tiles: tiles(a),
        sections: &sections,
    };
    let html = fill(TEMPLATE, &page)?;
    let tiles: Vec<String> = page
        .tiles
        .iter()
        .map(|(label, value, note)| format!("{label}: {value} ({note})."))
        .collect();
    let lead = [about, a.verdict.join(" "), tiles.join(" ")];
    Ok(Report { html, markdown: markdown(&page.title, &lead, &sections) })
}

fn about(a: &Assessment) -> String {
    let p = &a.provenance;
    let what = match a.of_language() {
        true => format!("{} of a language model", many(p.decisions, "decision")),
        false => match p.assets.len() {
            0 | 1 => "positions from forecasts of one instrument".into(),
            n => format!("positions from forecasts of {} instruments", count(n)),
        },
    };
    format!("{} to {}, {}, {what}", p.first, p.last, many(p.bars, "bar"))
}

/// Fills a page in, with the style that all pages share.
///
/// # Errors
/// The template does not fit the page.
pub fn fill(template: &str, page: &impl Serialize) -> Result<String> {
    let filled = || -> std::result::Result<String, minijinja::Error> {
        let mut env = Environment::new();
        env.set_auto_escape_callback(|_| AutoEscape::Html);
        env.add_filter("percent", |x: Option<f64>| or_none(x, percent));
        env.add_filter("signed", |x: Option<f64>| or_none(x, signed_percent));
        env.add_filter("ratio", |x: Option<f64>| or_none(x, ratio));
        env.add_filter("count", |n: usize| count(n));
        env.add_filter("visible", |text: &str| visible(text));
        env.add_filter("marked", |text: &str| Value::from_safe_string(marked(text)));
        env.add_template("style", STYLE)?;
        env.add_template("page", template)?;
        env.get_template("page")?.render(Serde(page))
    };
    filled().map_err(|e| StageError::failed(format!("cannot write the page: {e:#}")))
}

/// Text as HTML, with what stands between backticks as code.
fn marked(text: &str) -> String {
    let pieces: Vec<&str> = text.split('`').collect();
    let escaped = |text: &str| html_escape::encode_safe(&visible(text)).into_owned();
    if pieces.len().is_multiple_of(2) {
        return escaped(text);
    }
    let piece = |(at, text): (usize, &&str)| match at % 2 {
        0 => escaped(text),
        _ => format!("<code>{}</code>", escaped(text)),
    };
    pieces.iter().enumerate().map(piece).collect()
}

/// A figure for a page: it scales, and says what it shows.
fn embed(figure: Figure) -> Figure {
    let start = figure.svg.find("viewBox").unwrap_or(0);
    let rest = figure.svg.get(start..).unwrap_or_default();
    let svg = format!("<svg role=\"img\" aria-label=\"{}\" {rest}", figure.title);
    Figure { svg, ..figure }
}

/// The numbers that people look for first: label, value, note.
fn tiles(a: &Assessment) -> Vec<(&'static str, String, String)> {
    let Some(model) = a.strategy(MODEL) else { return Vec::new() };
    let hold = a.strategy(HOLD).map(|h| &h.metrics);
    let m = &model.metrics;
    let hits = m.hits.map_or_else(
        || "no trade".to_string(),
        |h| format!("{} profitable, mean {}", percent(h.rate), signed_percent(h.expectancy)),
    );
    let last = match (a.answers.first(), a.quality.first()) {
        (Some(answers), _) => {
            ("Parse failures", percent(answers.failure_rate), "count as flat".into())
        }
        (None, quality) => {
            let mcc = quality.and_then(|q| q.classes.as_ref()?.mcc);
            let ic = quality.and_then(|q| q.information.whole);
            ("Matthews correlation", or_none(mcc, ratio), format!("IC {}", or_none(ic, ratio)))
        }
    };
    vec![
        (
            "Return a year, net",
            or_none(m.cagr, signed_percent),
            format!("buy and hold {}", or_none(hold.and_then(|h| h.cagr), signed_percent)),
        ),
        (
            "Sharpe ratio",
            or_none(m.sharpe, ratio),
            format!("95% {}", show(model.sampled.sharpe, ratio)),
        ),
        (
            "Deepest fall",
            percent(m.max_drawdown),
            format!("buy and hold {}", or_none(hold.map(|h| h.max_drawdown), percent)),
        ),
        ("Trades", count(m.trades), hits),
        last,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_marked_and_nothing_else_means_anything() {
        assert_eq!(marked("set `a<b` & go"), "set <code>a&lt;b</code> &amp; go");
        assert_eq!(marked("one ` alone<"), "one ` alone&lt;");
    }
}
