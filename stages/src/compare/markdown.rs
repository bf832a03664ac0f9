//! The same as Markdown, and the captions beside the figures.
//!
//! Names are escaped as far as Markdown would read them: tables keep their columns and no HTML gets
//! through.

use std::fmt::Write as _;

use super::found::Comparison;
use super::{report, words};
use crate::evaluate::charts::Figure;
use crate::evaluate::numbers::count;

/// The report.
pub fn report(found: &Comparison, figures: &[Figure]) -> String {
    let p = &found.provenance;
    let mut out = format!(
        "# {}\n\n{} models, {} to {}, {} returns.\n\n**{}**",
        plain(&found.title),
        count(found.selection.trials),
        p.first,
        p.last,
        count(p.returns),
        plain(&found.verdict.first().cloned().unwrap_or_default())
    );
    for sentence in found.verdict.iter().skip(1) {
        out += &format!(" {}", plain(sentence));
    }
    out += "\n";
    for warning in &found.warnings {
        out += &format!("\n> {}\n", plain(warning));
    }
    out += "\n## Claims\n\n";
    let claims = found.claims.iter().map(|c| {
        let judgement = match c.judgement {
            crate::evaluate::verdict::Judgement::Pass => "PASS",
            crate::evaluate::verdict::Judgement::Fail => "FAIL",
            crate::evaluate::verdict::Judgement::NotProven => "NOT PROVEN",
        };
        [&c.claim, judgement, &c.value, &c.interval, &c.why].map(String::from).to_vec()
    });
    out += &table(&["Claim", "Judgement", "Measured", "95% interval", "Why"], claims);
    let columns = report::columns(found);
    for section in report::sections(found) {
        let name = if section.name.is_empty() { "The models" } else { &section.name };
        out += &format!("\n## {}\n\n", plain(name));
        let heads: Vec<&str> =
            std::iter::once("Model").chain(columns.iter().map(|(name, _)| *name)).collect();
        let rows = section.rows.into_iter().map(|row| {
            let mut name = row.name;
            name += if row.best { " (highest)" } else { "" };
            name += if row.reference { " (reference)" } else { "" };
            let cells = row.cells.into_iter().map(|(text, more)| match more {
                Some(more) => format!("{text} ({more})"),
                None => text,
            });
            std::iter::once(name).chain(cells).collect()
        });
        out += &table(&heads, rows);
    }
    if !found.seeds.is_empty() {
        out += "\n## Over seeds\n\n";
        let heads = [
            "Model",
            "Runs (seeds)",
            "Sharpe, median",
            "Sharpe, middle half",
            "Rank, median",
            "Rank, middle half",
        ];
        let rows = report::quartiles(found)
            .into_iter()
            .map(|q| std::iter::once(q.name()).chain(q.cells()).map(String::from).collect());
        out += &table(&heads, rows);
    }
    out += "\n## Figures\n";
    for figure in figures {
        let _ = write!(
            out,
            "\n![{}](figures/{}.svg)\n\n{}\n",
            plain(&figure.title),
            figure.name,
            plain(&figure.caption)
        );
    }
    out += &format!("\n{}\n\n## Provenance\n\n", plain(&words::source(found)));
    for (name, value) in report::facts(found) {
        out += &format!("- {name}: {}\n", plain(&value));
    }
    for model in found.shown().filter(|m| !m.about.is_empty()) {
        out += &format!("- {}: {}\n", plain(&model.name), plain(&model.about));
    }
    out += "\n## What this does not show\n\n";
    for limit in &found.limits {
        out += &format!("- {}\n", plain(limit));
    }
    out
}

/// A caption for each figure that also says data, span, costs and seeds, ready to be taken over.
pub fn captions(found: &Comparison, figures: &[Figure]) -> String {
    let mut out = String::from("# Captions\n");
    let source = plain(&words::source(found));
    for figure in figures {
        out += &format!("\n## {}.svg\n\n{} {source}\n", figure.name, plain(&figure.caption));
    }
    out
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = format!("| {} |\n|{}\n", heads.join(" | "), " --- |".repeat(heads.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out
}

/// Text that stays what it is: what Markdown or HTML would read is escaped, and lines are joined.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '|' | '\\' | '*' | '_' | '[' | ']' | '`' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}
