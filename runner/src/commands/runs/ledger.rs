//! `quantmill runs ledger`.

use clap::Args;

use super::{Of, clock, print, print_json};
use crate::exit::Failure;
use crate::experiment::ledger::{self, Group, Trial};
use crate::report::table::{Side, Table, number};
use crate::report::text::{Paint, colour_out, columns, count, paint};

/// Arguments of `runs ledger`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
A trial is an action that tries a model out (train, evaluate) and really ran.
Trials with the same parameters, seed, device and models that go in count once.
The more configurations the same data has seen, the less the best one means.

Examples:
  quantmill runs ledger
  quantmill runs ledger --json | jq '.groups[].trials'")]
pub struct LedgerArgs {
    #[command(flatten)]
    of: Of,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Whole {
    trials: Vec<Trial>,
    groups: Vec<Group>,
}

/// Prints every trial, and the counts.
pub fn ledger(arguments: &LedgerArgs) -> Result<(), Failure> {
    let (home, pipeline) = arguments.of.home()?;
    let mut trials = ledger::read(&home)?;
    trials.retain(|trial| pipeline.as_ref().is_none_or(|wanted| trial.pipeline == *wanted));
    let groups = ledger::count(&trials);
    if arguments.json {
        return print_json(&Whole { trials, groups });
    }
    if trials.is_empty() {
        eprintln!("no trial is recorded: no stage that trains or evaluates a model ran here");
        return Ok(());
    }
    let head = [("when", Side::Left), ("stage", Side::Left), ("config", Side::Left)];
    let mut table = Table::new(head.into_iter().chain([("data", Side::Left), ("", Side::Left)]));
    for trial in &trials {
        let data: Vec<String> = trial.data.values().map(|data| data.digest().short()).collect();
        let metrics = trial.metrics.iter().map(|(k, v)| format!("{k} {}", number(*v)));
        let metrics = metrics.collect::<Vec<_>>().join("  ");
        let (config, data) = (trial.config.short(), data.join(" "));
        table.row([clock(trial.at), trial.stage.clone(), config, data, metrics]);
    }
    let (on, width) = (colour_out(), columns(&std::io::stdout(), 200));
    let mut out = table.draw(width, |head| paint(on, Paint::Bold, head), |_, line| line.into());
    for group in groups {
        let data =
            group.data.iter().map(|(port, data)| format!("{port} {}", data.digest().short()));
        let data = data.collect::<Vec<_>>().join(", ");
        let (trials, ran) = (count(group.trials, "configuration"), count(group.ran, "run"));
        out.push_str(&format!("{}: {trials} in {ran} on {data}\n", group.kind));
    }
    print(&out)
}
