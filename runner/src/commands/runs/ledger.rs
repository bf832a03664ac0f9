//! `quantmill runs ledger`.

use std::collections::BTreeMap;

use clap::Args;
use quantmill_stages::Kind;

use super::{Of, clock, print, print_json};
use crate::exit::Failure;
use crate::experiment::ledger::{self, Trial};
use crate::experiment::trials::{self, Group};
use crate::report::table::{Side, Table, number};
use crate::report::text::{Paint, colour_out, columns, count, paint};

/// Arguments of `runs ledger`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
A trial is an action that tries a model out (train, forecast, evaluate) and really
ran; a search within one counts all that it tried. Trials with the same parameters,
seed, device, models and data count once. They are on the same data where what they
were judged on comes from the same source file, by path or by content. The more
configurations the same data has seen, the less the best one means: of evaluations
the last lines say how much is left.

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
struct Whole<'a> {
    trials: &'a [&'a Trial],
    groups: Vec<Counted<'a>>,
}

#[derive(serde::Serialize)]
struct Counted<'a> {
    #[serde(flatten)]
    group: Group<'a>,
    /// What the best of them is worth.
    best: BTreeMap<String, f64>,
}

impl<'a> Counted<'a> {
    fn of(group: Group<'a>, kinds: &[Kind]) -> Result<Counted<'a>, Failure> {
        let best = group.judge(kinds, None)?.map(|judged| judged.numbers);
        Ok(Counted { group, best: best.unwrap_or_default() })
    }
}

/// Prints every trial, and the counts.
pub fn ledger(arguments: &LedgerArgs, kinds: &[Kind]) -> Result<(), Failure> {
    let (home, pipeline) = arguments.of.home()?;
    let all = ledger::read(&home)?;
    let mine = |trial: &Trial| pipeline.as_ref().is_none_or(|wanted| trial.pipeline == *wanted);
    let trials: Vec<&Trial> = all.iter().filter(|trial| mine(trial)).collect();
    // Another pipeline's trials on the same data count as well.
    let mut groups = trials::groups(&all);
    groups.retain(|group| group.configs.iter().any(|trial| mine(trial)));
    if arguments.json {
        let groups = groups.into_iter().map(|group| Counted::of(group, kinds));
        let groups = groups.collect::<Result<_, _>>()?;
        return print_json(&Whole { trials: &trials, groups });
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
        let (trials, ran) = (count(group.trials, "configuration"), count(group.ran, "run"));
        out.push_str(&format!("{}: {trials} in {ran} on {}\n", group.kind, data(&group)));
        if let Some(judged) = group.judge(kinds, None)? {
            out.push_str(&format!("  the best: {}\n", judged.line));
        }
    }
    print(&out)
}

/// `features 1f2e3d, prompts 4c5b6a and 2 more`.
fn data(group: &Group) -> String {
    let port = |(port, data): (&&str, &std::collections::BTreeSet<quantmill_cache::Artifact>)| {
        let first = data.first().map(|data| data.digest().short()).unwrap_or_default();
        let more = data.len().saturating_sub(1);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{port} {first}{more}")
    };
    group.data.iter().map(port).collect::<Vec<_>>().join(", ")
}
