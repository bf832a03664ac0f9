//! The results as Markdown: a table a case, a row a tool, a column a size.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::bench::{Row, Unit};
use crate::tools::OURS;

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// All tables.
pub fn render(rows: &[Row]) -> String {
    let mut cases: Vec<&str> = Vec::new();
    for row in rows {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    let tables = cases.iter().map(|case| table(rows, case, case, seconds));
    let memory = cases.iter().filter(|case| case.starts_with("no-op"));
    let memory = memory.map(|case| table(rows, case, &format!("memory in MiB, {case}"), memory_of));
    tables.chain(memory).collect::<Vec<_>>().join("\n")
}

fn table(rows: &[Row], case: &str, title: &str, cell: fn(&Row) -> String) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.case == case).collect();
    let (mut sizes, mut tools): (Vec<usize>, Vec<&str>) = (Vec::new(), Vec::new());
    for row in &rows {
        if !sizes.contains(&row.size) {
            sizes.push(row.size);
        }
        if !tools.contains(&row.tool.as_str()) {
            tools.push(&row.tool);
        }
    }
    let unit = rows.first().map_or(Unit::One, |row| row.unit);
    let mut text = format!("| {title} |");
    for size in &sizes {
        let _ = write!(text, " {} |", heading(unit, *size));
    }
    let _ = writeln!(text, "\n| --- |{}", " ---: |".repeat(sizes.len()));
    let at = |tool: &str, size: usize| {
        rows.iter().find(|row| row.tool == tool && row.size == size).copied()
    };
    for tool in &tools {
        let _ = write!(text, "| {tool} |");
        for size in &sizes {
            let _ = write!(text, " {} |", at(tool, *size).map_or("-".into(), cell));
        }
        text.push('\n');
    }
    if tools.len() > 1 && tools.contains(&OURS) && title == case {
        text.push_str("| **quantmill / best peer** |");
        for size in &sizes {
            let peers = tools.iter().filter(|tool| **tool != OURS && !tool.contains("floor"));
            let best = peers.filter_map(|tool| at(tool, *size)).map(Row::least);
            let best = best.fold(f64::INFINITY, f64::min);
            let ratio = at(OURS, *size).map(|row| row.least() / best).filter(|ratio| *ratio > 0.0);
            let _ = write!(text, " {} |", ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")));
        }
        text.push('\n');
    }
    text
}

fn heading(unit: Unit, size: usize) -> String {
    match unit {
        Unit::One => "CPU s".into(),
        Unit::Stages => format!("{} stages", grouped(size)),
        Unit::Files => format!("{} files", grouped(size)),
        Unit::Bytes => format!("{} GiB", size >> 30),
    }
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(row: &Row) -> String {
    let cpu = row.least();
    let text = match cpu {
        _ if cpu < 0.01 => format!("{cpu:.4}"),
        _ if cpu < 1.0 => format!("{cpu:.3}"),
        _ => format!("{cpu:.2}"),
    };
    match row.unit {
        Unit::Bytes => format!("{text} ({:.1} GB/s)", row.size as f64 / cpu / 1e9),
        _ => text,
    }
}

fn memory_of(row: &Row) -> String {
    format!("{:.0}", row.memory() as f64 / f64::from(1 << 20))
}

/// Puts the tables between the markers of a file; at its end where it has none.
pub fn write(file: &Path, tables: &str) -> io::Result<()> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let part = format!("{BEGIN}\n{tables}{END}");
    let text = match (text.find(BEGIN), text.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{part}{}", &text[..begin], &text[end + END.len()..])
        }
        _ => format!("{text}{part}\n"),
    };
    fs::write(file, text)
}
