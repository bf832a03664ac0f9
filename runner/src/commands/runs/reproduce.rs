//! `quantmill runs reproduce`.

use std::path::{Path, PathBuf};

use clap::Args;
use quantmill_cache::Store;
use quantmill_stages::Kind;
use serde::Serialize;

use super::{home, print, print_json};
use crate::exit::Failure;
use crate::experiment::account::Account;
use crate::experiment::reproduce::{self, Compared, Ready, Verdict};
use crate::experiment::restore::Found;
use crate::experiment::{archive, history};
use crate::report::table::{Side, Table, cut};
use crate::report::text::{Paint, colour_out, columns, count, paint};

/// How far numbers may be apart where a GPU computed them.
const GPU: f64 = 1e-3;

/// Arguments of `runs reproduce`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Inputs come from the store, else from the workspace if they are there unchanged,
else from the commit; files that no stage declares come from the commit. Every
stage runs again, with an empty store, in a folder of its own. Numbers a and b
are apart by |a - b| / max(1, |a|, |b|).

Examples:
  quantmill runs reproduce latest
  quantmill runs reproduce 20261121-0813 --into again
  quantmill runs reproduce run.tar.gz        what `runs export` wrote")]
pub struct Reproduce {
    /// The run, or an archive that `runs export` wrote
    #[arg(value_name = "RUN|ARCHIVE")]
    run: String,
    /// The folder to run in, which is kept; it must be empty or new
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// How far numbers in JSON, CSV and safetensors may be apart [default: 0; 1e-3 on a GPU]
    #[arg(long, value_name = "DISTANCE")]
    tolerance: Option<f64>,
    /// Actions at a time
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Whole<'a> {
    run: &'a str,
    folder: &'a Path,
    tolerance: f64,
    inputs: Found,
    reproduced: bool,
    first: Option<&'a str>,
    stages: &'a [Compared],
}

/// Makes the run again and says how it compares.
pub fn reproduce(arguments: &Reproduce, kinds: &[Kind]) -> Result<(), Failure> {
    let archived = Path::new(&arguments.run).is_file();
    // What came out of an archive goes when this ends.
    let unpacked = archived.then(tempfile::tempdir).transpose()?;
    let (from, run) = match &unpacked {
        Some(folder) => {
            let run = archive::unpack(Path::new(&arguments.run), folder.path())?;
            (folder.path().to_owned(), run)
        }
        None => {
            let home = home()?;
            let run = history::find(&home, &arguments.run)?;
            (home, run)
        }
    };
    let store = Store::open(&from)?;
    let into = folder(arguments.into.as_deref(), (!archived).then_some(&from), &run.id)?;
    let lock = run.lock();
    let ready = reproduce::prepare(&run, &store, &lock, &into, kinds)?;
    tell(&run, &ready);
    if !ready.gone.is_empty() {
        let mut gone = ready.gone.iter().map(|gone| format!("  {gone}\n")).collect::<String>();
        if !arguments.json {
            gone.insert_str(0, "gone, and so is the run:\n");
            print(&gone)?;
        } else {
            print_json(&serde_json::json!({
                "run": run.id, "reproduced": false,
                "gone": ready.gone.iter().map(|gone| &gone.path).collect::<Vec<_>>(),
            }))?;
        }
        tidy(arguments, &into)?;
        return Err(Failure::Told);
    }
    let now = ready.run(&run, arguments.jobs)?;
    let gpu = run.setting.device != "cpu";
    let tolerance = arguments.tolerance.unwrap_or(if gpu { GPU } else { 0.0 });
    let graph = &ready.laid.graph;
    let stages = reproduce::compare(graph, (&lock, &store), (&now, &ready.store()?), tolerance)?;
    let fine = |stage: &&Compared| !matches!(stage.verdict, Verdict::Same | Verdict::Within);
    let first = stages.iter().find(fine).map(|stage| stage.stage.as_str());
    let reproduced = first.is_none() && !stages.is_empty();
    if arguments.json {
        let (inputs, folder) = (ready.found, into.as_path());
        let stages = &stages;
        print_json(&Whole { run: &run.id, folder, tolerance, inputs, reproduced, first, stages })?;
    } else {
        print(&text(&stages, tolerance, gpu))?;
    }
    if reproduced {
        return tidy(arguments, &into);
    }
    eprintln!(
        "  hint: both can be looked at: what it was in the store, what it is in {}",
        into.display()
    );
    Err(Failure::Told)
}

/// The folder to work in: new, or empty.
fn folder(into: Option<&Path>, home: Option<&PathBuf>, run: &str) -> Result<PathBuf, Failure> {
    let folder = match (into, home) {
        (Some(into), _) => into.to_owned(),
        (None, Some(home)) => {
            let folder = home.join("reproduced").join(run);
            if folder.exists() {
                fs_err::remove_dir_all(&folder)?;
            }
            folder
        }
        (None, None) => tempfile::Builder::new().prefix("quantmill-").tempdir()?.keep(),
    };
    if folder.is_dir() && fs_err::read_dir(&folder)?.next().is_some() {
        let help = "name one that is not there yet".to_owned();
        return Err(Failure::usage(format!("{} is not empty", folder.display()), Some(help)));
    }
    fs_err::create_dir_all(&folder)?;
    Ok(std::path::absolute(folder)?)
}

/// Removes the folder, unless it was asked for.
fn tidy(arguments: &Reproduce, folder: &Path) -> Result<(), Failure> {
    if arguments.into.is_none() {
        fs_err::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Says where everything comes from, and what cannot be vouched for.
fn tell(run: &Account, ready: &Ready) {
    let Found { store, workspace, commit, place } = ready.found;
    let parts = [
        (store, "from the store"),
        (workspace, "from the workspace"),
        (commit, "from the commit"),
        (place, "in place"),
    ];
    let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, from)| format!("{n} {from}"));
    let parts: Vec<String> = parts.collect();
    if !parts.is_empty() {
        eprintln!("inputs: {}", parts.join(", "));
    }
    if !ready.tracked {
        eprintln!("warning: without the commit, files that no stage declares are missing");
    } else if run.survey.dirty == Some(true) {
        eprintln!(
            "warning: the run had changes that were not committed; files that no stage declares are those of the commit"
        );
    }
    if run.setting.version != env!("CARGO_PKG_VERSION") {
        eprintln!(
            "warning: it ran with quantmill {}, this is {}",
            run.setting.version,
            env!("CARGO_PKG_VERSION")
        );
    }
}

fn text(stages: &[Compared], tolerance: f64, gpu: bool) -> String {
    let (on, width) = (colour_out(), columns(&std::io::stdout(), 200));
    let mut table =
        Table::new([("stage", Side::Left), ("result", Side::Left), ("files", Side::Right)]);
    for stage in stages {
        let word = match stage.verdict {
            Verdict::Same => "same".to_owned(),
            Verdict::Within => format!("within {tolerance:e}"),
            Verdict::Differs => "differs".to_owned(),
            Verdict::Follows => "differs as its inputs do".to_owned(),
            Verdict::Changed => "another version or other parameters".to_owned(),
            Verdict::Missing => "failed".to_owned(),
        };
        let files = if stage.files > 0 { stage.files.to_string() } else { String::new() };
        table.row([stage.stage.clone(), word, files]);
    }
    let line = |n: usize, line: &str| match stages[n].verdict {
        Verdict::Same | Verdict::Within => line.to_owned(),
        _ => paint(on, Paint::Red, line),
    };
    let mut out = table.draw(width, |head| paint(on, Paint::Bold, head), line);
    let bad = |stage: &&Compared| !matches!(stage.verdict, Verdict::Same | Verdict::Within);
    let Some(first) = stages.iter().find(bad) else {
        let within = stages.iter().filter(|s| s.verdict == Verdict::Within).count();
        let how = match (within, gpu) {
            (0, _) => "every artifact is the same to the bit".to_owned(),
            (n, true) => format!("{n} within {tolerance:e}, which a GPU is allowed"),
            (n, false) => format!("{n} within {tolerance:e}"),
        };
        out.push_str(&match stages.is_empty() {
            true => "nothing to compare: no stage of that run ended well\n".to_owned(),
            false => format!("reproduced: {}, {how}\n", count(stages.len(), "stage")),
        });
        return out;
    };
    out.push_str(&format!("diverged first: {}\n", paint(on, Paint::Bold, &first.stage)));
    for Compared { differences, .. } in [first] {
        for difference in differences {
            out.push_str(&cut(&format!("  {}: {}", difference.file, difference.how), width));
            out.push('\n');
        }
    }
    if first.more > 0 {
        out.push_str(&format!("  and {} more\n", count(first.more, "file")));
    }
    out
}
