//! `quantmill runs diff`.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{clock, home, print, print_json};
use crate::exit::Failure;
use crate::experiment::differ::{self, Line, Part};
use crate::experiment::history;
use crate::experiment::values::show;
use crate::report::table::{Side, Table, cut, number};
use crate::report::text::{Paint, colour_out, columns, paint};

/// Arguments of `runs diff`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  quantmill runs diff latest~1 latest
  quantmill runs diff 20261121-0813 latest --all --json")]
pub struct Diff {
    /// A run
    #[arg(value_name = "A")]
    a: String,
    /// Another
    #[arg(value_name = "B", default_value = "latest")]
    b: String,
    /// Show what is the same as well
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Whole<'a> {
    a: &'a str,
    b: &'a str,
    lines: &'a [Line],
}

/// Prints what differs, part by part.
pub fn diff(arguments: &Diff) -> Result<(), Failure> {
    let home = home()?;
    let (a, b) = (history::find(&home, &arguments.a)?, history::find(&home, &arguments.b)?);
    let lines = differ::differ(&a, &b, arguments.all);
    if arguments.json {
        return print_json(&Whole { a: &a.id, b: &b.id, lines: &lines });
    }
    let (on, width) = (colour_out(), columns(&std::io::stdout(), 200));
    let mut out = format!("a  {}  {}\nb  {}  {}\n", a.id, clock(a.at), b.id, clock(b.at));
    let parts = [
        (Part::Place, "where and with what"),
        (Part::Params, "parameters"),
        (Part::Inputs, "inputs"),
        (Part::Outputs, "outputs"),
        (Part::Metrics, "metrics"),
    ];
    // Half of what the name leaves, and some for the change.
    let longest = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let room = (width.saturating_sub(longest + 8) / 2).clamp(12, 60);
    for (part, title) in parts {
        let head = [(title, Side::Left), ("a", Side::Left), ("b", Side::Left), ("", Side::Left)];
        let mut table = Table::new(head);
        for line in lines.iter().filter(|line| line.part == part) {
            let (a, b) = sides(line, room);
            table.row([line.name.clone(), a, b, change(line)]);
        }
        if !table.is_empty() {
            let head = |head: &str| paint(on, Paint::Bold, head);
            out.push_str(&format!("\n{}", table.draw(width, head, |_, line| line.into())));
        }
    }
    if lines.is_empty() {
        out.push_str("\nnothing differs\n");
    }
    print(&out)
}

/// What it was on each side. Of two long texts the part is shown from which on they differ.
fn sides(line: &Line, room: usize) -> (String, String) {
    let text = |value: &Option<Value>| value.as_ref().map_or("-".into(), show);
    let (a, b) = (text(&line.a), text(&line.b));
    let (a, b) = (a.replace('\n', "⏎"), b.replace('\n', "⏎"));
    let long = a.chars().count().max(b.chars().count()) > room;
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let skip = if long && a != b { same.saturating_sub(room / 4) } else { 0 };
    let from = |text: String| match skip {
        0 => cut(&text, room),
        _ => cut(&format!("…{}", text.chars().skip(skip).collect::<String>()), room),
    };
    (from(a), from(b))
}

fn change(line: &Line) -> String {
    let Some(change) = line.change else { return String::new() };
    let sign = if change > 0.0 { "+" } else { "" };
    let percent = line.percent.map(|percent| format!(" ({sign}{percent:.1} %)"));
    format!("{sign}{}{}", number(change), percent.unwrap_or_default())
}
