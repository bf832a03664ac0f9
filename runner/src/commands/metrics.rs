//! `quantmill metrics`: what runs gave, beside what they were given.

use clap::Args;

use super::runs::{Of, Picked, print, print_json};
use crate::exit::Failure;
use crate::experiment::account::Account;
use crate::experiment::values::{Frame, Row, show};
use crate::report::table::{Side, Table, number};
use crate::report::text::{Paint, colour_out, columns, paint};

/// Arguments of `metrics`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
A row is a run, or a cell of its matrix. Columns are the values that are not the
same in all rows, and the metrics, named `stage.metric`.

Examples:
  quantmill metrics                          the latest runs that ran something
  quantmill metrics latest latest~3 --metric sharpe --metric turnover
  quantmill metrics --csv > metrics.csv")]
pub struct Metrics {
    #[command(flatten)]
    picked: Picked,
    #[command(flatten)]
    of: Of,
    /// Show this metric only, as `evaluate.sharpe` or `sharpe`; may be given again
    #[arg(long, value_name = "NAME")]
    metric: Vec<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
}

/// Prints the table.
pub fn metrics(arguments: &Metrics) -> Result<(), Failure> {
    let runs = arguments.picked.runs(&arguments.of)?;
    let frame = Frame::new(&runs);
    let mut metrics = Vec::new();
    for name in &arguments.metric {
        metrics.push(frame.name(name)?);
    }
    if metrics.is_empty() {
        metrics.extend(frame.metrics());
    }
    if arguments.json {
        return print_json(&frame);
    }
    if metrics.is_empty() {
        eprintln!("no stage of these runs reported a number");
        return Ok(());
    }
    let mut rows: Vec<&Row> = frame.rows.iter().collect();
    rows.retain(|row| metrics.iter().any(|name| row.metrics.contains_key(name)));
    let varying = Frame { rows: rows.iter().map(|row| (*row).clone()).collect() }.varying();
    if arguments.csv {
        return csv(&rows, &varying, &metrics);
    }
    let (on, width) = (colour_out(), columns(&std::io::stdout(), 200));
    let (table, left) = table(&rows, &varying, &metrics, width);
    print(&table.draw(width, |head| paint(on, Paint::Bold, head), |_, line| line.into()))?;
    if left > 0 {
        eprintln!("and {left} more: --csv and --json have all, --metric NAME picks");
    }
    Ok(())
}

/// A table of as many metrics as fit, and how many do not.
fn table(rows: &[&Row], varying: &[String], metrics: &[String], width: usize) -> (Table, usize) {
    let several = rows.windows(2).any(|pair| pair[0].run != pair[1].run);
    let shown = |metrics: &[String]| {
        let head = [("run".to_owned(), Side::Left)].into_iter();
        let head =
            head.chain(varying.iter().chain(metrics).map(|name| (name.clone(), Side::Right)));
        let mut table = Table::new(head);
        for row in rows {
            let values =
                varying.iter().map(|name| row.values.get(name).map_or(String::new(), show));
            let metrics = metrics
                .iter()
                .map(|name| row.metrics.get(name).map_or(String::new(), |n| number(*n)));
            let run = row.run[..19.min(row.run.len())].to_owned();
            let run = if several || varying.is_empty() { run } else { String::new() };
            table.row([run].into_iter().chain(values).chain(metrics));
        }
        table
    };
    // One at the least.
    let fits = |n: &usize| shown(&metrics[..*n]).width() <= width;
    let most = (1..=metrics.len()).rev().find(fits).unwrap_or(1.min(metrics.len()));
    (shown(&metrics[..most]), metrics.len() - most)
}

/// The metrics of each cell of a run's matrix, for people; `None` where there is nothing to compare.
pub fn cells(run: &Account, width: usize) -> Option<String> {
    let frame = Frame::new([run]);
    let (varying, metrics) = (frame.varying(), frame.metrics().into_iter().collect::<Vec<_>>());
    if varying.is_empty() || metrics.is_empty() {
        return None;
    }
    let rows: Vec<&Row> = frame.rows.iter().filter(|row| !row.metrics.is_empty()).collect();
    let (table, left) = table(&rows, &varying, &metrics, width);
    let mut out = table.draw(width, str::to_owned, |_, line| line.to_owned());
    if left > 0 {
        out.push_str(&format!("and {left} more: `quantmill metrics latest`\n"));
    }
    Some(out)
}

fn csv(rows: &[&Row], varying: &[String], metrics: &[String]) -> Result<(), Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |cells: Vec<String>| writer.write_record(cells).map_err(std::io::Error::other);
    let head = ["run".to_owned()].into_iter().chain(varying.iter().chain(metrics).cloned());
    write(head.collect())?;
    for row in rows {
        let values = varying.iter().map(|name| match row.values.get(name) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        });
        let metrics =
            metrics.iter().map(|name| row.metrics.get(name).map_or(String::new(), f64::to_string));
        write([row.run.clone()].into_iter().chain(values).chain(metrics).collect())?;
    }
    let bytes = writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()))?;
    print(&String::from_utf8_lossy(&bytes))
}
