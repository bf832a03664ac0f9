//! Measures Quantmill and whatever peers are installed on the same graphs, in one go.
//!
//! `cargo bench -p quantmill --no-default-features --bench peers -- [FILTER]...` needs no more than
//! the engine; the profile is that of `--release`, so that nothing is built twice. Peers are taken
//! from `PATH`; for one that is missing there is a line that says how to install it.
//!
//! What counts is CPU seconds, user and system, of the tool and of every process below it: unlike
//! wall time they hardly depend on what else the machine does. Tools take turns, round by round,
//! and the least of all rounds is compared.

mod bench;
mod cases;
mod graph;
mod measure;
mod table;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use bench::{Bench, Outcome};
use tools::TOOLS;

/// Compares Quantmill with its peers, in CPU seconds of the process tree
#[derive(Parser)]
#[command(after_help = "\
Examples:
  cargo bench -p quantmill --no-default-features --bench peers
  ... -- fan-out --sizes 10,100           the cases whose name contains `fan-out`
  ... -- --tools quantmill,ninja --rounds 9
  ... -- --write README.md                put the tables between the file's markers")]
struct Arguments {
    /// Cases to measure, by a part of their name: version, fan-out, chain, folder, map, hash, check
    filters: Vec<String>,
    /// Numbers of stages, or of files in a folder, where a case does not say otherwise
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000")]
    sizes: Vec<usize>,
    /// Tools to measure [default: all that are installed]
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// How often the quick measurements are repeated
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A tool that would take longer than this, in CPU seconds, is not asked
    #[arg(long, default_value_t = 60.0)]
    limit: f64,
    /// Go on to 100,000 stages with Quantmill alone, and hash 4 GiB in place of 1
    #[arg(long)]
    big: bool,
    /// The binary to measure [default: the one built with this program]
    #[arg(long, value_name = "FILE")]
    quantmill: Option<PathBuf>,
    /// Where the graphs are made; on a local disk [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the tables into this file, between its markers, too
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // A process of its own starts each tool, so that what its children used is that tool's alone.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == measure::HELPER) {
        return measure::helper(words);
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    let binary = arguments.quantmill.clone();
    let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_quantmill").into());
    let wanted =
        |name: &str| arguments.tools.is_empty() || arguments.tools.iter().any(|t| t == name);
    let mut found = Vec::new();
    for tool in TOOLS.iter().filter(|tool| wanted(tool.name)) {
        let program = match tool.name == tools::OURS {
            true => std::fs::canonicalize(&binary).ok(),
            false => tools::on_path(tool.program),
        };
        match program {
            Some(program) => found.push((tool, program)),
            None => eprintln!("{} is not installed, skipped; {}", tool.name, tool.install),
        }
    }
    let mut space = tempfile::Builder::new();
    let space = space.prefix("quantmill-bench-");
    let space = match &arguments.dir {
        Some(dir) => space.tempdir_in(dir)?,
        None => space.tempdir()?,
    };
    let mut bench = Bench {
        tools: found,
        rounds: arguments.rounds.max(1),
        limit: Duration::from_secs_f64(arguments.limit),
        sizes: arguments.sizes.clone(),
        big: arguments.big,
        space: space.path().to_owned(),
        trash: tools::Trash::new(space.path().join("trash"))?,
        rows: Vec::new(),
    };
    for (name, case) in cases::CASES {
        let chosen = arguments.filters.is_empty()
            || arguments.filters.iter().any(|filter| name.contains(filter.as_str()));
        if chosen {
            case(&mut bench)?;
        }
    }
    let tables = table::render(&bench.rows);
    println!("{tables}");
    if let Some(file) = &arguments.write {
        table::write(file, &tables)?;
    }
    Ok(())
}
