//! `quantmill runs rm`.

use std::time::Duration;

use clap::Args;

use super::home;
use crate::exit::Failure;
use crate::experiment::history;
use crate::report::text::count;

/// Arguments of `runs rm`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  quantmill runs rm 20261121-0813
  quantmill runs rm --older-than 30d
  quantmill cache gc                         frees what no run or lock names")]
pub struct Rm {
    /// The runs
    #[arg(value_name = "RUN", required_unless_present = "older_than")]
    runs: Vec<String>,
    /// All runs that began longer ago than this, such as 90m, 12h or 30d
    #[arg(long, value_name = "TIME", value_parser = span)]
    older_than: Option<Duration>,
}

/// Removes the records; the store is left as it is.
pub fn rm(arguments: &Rm) -> Result<(), Failure> {
    let home = home()?;
    let mut folders = Vec::new();
    for name in &arguments.runs {
        folders.push(history::find(&home, name)?.folder);
    }
    if let Some(span) = arguments.older_than {
        let since = chrono::Utc::now().timestamp_millis() - span.as_millis() as i64;
        let old = history::newest(&home)?.filter(|run| run.at < since);
        folders.extend(old.map(|run| run.folder));
    }
    folders.sort_unstable();
    folders.dedup();
    for folder in &folders {
        fs_err::remove_dir_all(folder)?;
    }
    eprintln!("removed {}", count(folders.len(), "record"));
    if !folders.is_empty() {
        eprintln!("  hint: `quantmill cache gc` frees what no run and no lock names any more");
    }
    Ok(())
}

/// Reads `90s`, `30m`, `12h`, `30d`.
pub fn span(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" | "days" => 86400.0,
        _ => return Err("it takes a number and a unit: 90s, 30m, 12h, 30d".into()),
    };
    let number: f64 = digits.parse().map_err(|_| format!("`{digits}` is no number"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| format!("`{text}` is no time"))
}
