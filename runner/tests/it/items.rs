//! Stages that map over files: what an item reads, what its key covers, and what a change does again.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Parser;
use quantmill::commands::plan::{PlanArgs, plan};
use quantmill::commands::run::{Run, run};
use quantmill::executor::item_key;
use quantmill_cache::{ActionKey, Artifact, Digest, Entry, Tree};
use quantmill_stages::command::Command;
use quantmill_stages::{Context, Format, Items, Kind, Port, Result, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::space::Space;

const KINDS: &[Kind] = &[Kind::of::<Joins>(), Kind::of::<Command>()];

/// Writes what it reads, and notes in `log` which item it was.
struct Joins;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Files before an item's own; without it there are no items.
    #[serde(default)]
    behind: Option<usize>,
}

impl Stage for Joins {
    const NAME: &'static str = "joins";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "files one after the other";
    type Params = Params;
    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("days", Format::Any)]
    }
    fn outputs(params: &Params) -> Vec<Port> {
        match params.behind {
            Some(_) => vec![Port::tree("all", Format::Any, "all")],
            None => vec![Port::file("all", Format::Any, "all.txt")],
        }
    }
    fn items(params: &Params) -> Option<Items> {
        params.behind.map(|behind| Items { port: "days", behind })
    }
    fn run(_: &Params, ctx: &Context) -> Result<()> {
        let mut text = String::new();
        for (name, path) in ctx.files("days") {
            text += &format!("{name}={} ", fs_err::read_to_string(path)?);
        }
        let out = ctx.output("all")?;
        let out = ctx.item().map_or(out.to_owned(), |item| out.join(item));
        fs_err::write(out, text.trim_end())?;
        let log = ctx.job().dir.join("log");
        let mut log = fs_err::OpenOptions::new().create(true).append(true).open(log)?;
        // In one piece: others write beside it.
        Ok(log.write_all(format!("{}\n", ctx.item().unwrap_or("all")).as_bytes())?)
    }
}

#[derive(Parser)]
struct RunCli {
    #[command(flatten)]
    run: Run,
}

#[derive(Parser)]
struct PlanCli {
    #[command(flatten)]
    plan: PlanArgs,
}

/// Runs in this process, with the kinds above: the items that ran.
fn ran(space: &Space) -> Vec<String> {
    let _ = fs_err::remove_file(space.path("log"));
    let dir = space.path("").display().to_string();
    assert!(plan(&PlanCli::parse_from(["plan", &dir]).plan, KINDS).is_ok());
    assert!(run(&RunCli::parse_from(["run", &dir]).run, KINDS).is_ok());
    space.log()
}

/// Five days, of which all have run.
fn days(stage: &str) -> Space {
    let space = Space::new(&format!(
        "version: 1\ninputs: {{ days: \"days/*.txt\" }}\nstages:\n  s: {stage}\n"
    ));
    for day in 1..=5 {
        space.write(&format!("days/{day}.txt"), &day.to_string());
    }
    assert_eq!(ran(&space).len(), 5);
    assert!(ran(&space).is_empty());
    space
}

#[test]
fn a_new_file_is_one_item_and_reads_those_before_it() {
    let space = days("{ uses: joins, from: days, with: { behind: 2 } }");
    assert_eq!(space.read("out/s/all/1.txt"), "1.txt=1");
    assert_eq!(space.read("out/s/all/2.txt"), "1.txt=1 2.txt=2");
    assert_eq!(space.read("out/s/all/5.txt"), "3.txt=3 4.txt=4 5.txt=5");
    space.write("days/6.txt", "6");
    assert_eq!(ran(&space), ["6.txt"]);
    assert_eq!(space.read("out/s/all/6.txt"), "4.txt=4 5.txt=5 6.txt=6");
    assert_eq!(space.read("out/s/all/1.txt"), "1.txt=1");
}

#[test]
fn a_change_is_done_again_as_far_as_it_is_read() {
    let space = days("{ uses: joins, from: days, with: { behind: 2 } }");
    space.write("days/2.txt", "two");
    assert_eq!(ran(&space), ["2.txt", "3.txt", "4.txt"]);
    assert_eq!(space.read("out/s/all/4.txt"), "2.txt=two 3.txt=3 4.txt=4");
    // Back to what was: every item is known.
    space.write("days/2.txt", "2");
    assert!(ran(&space).is_empty());
    assert_eq!(space.read("out/s/all/4.txt"), "2.txt=2 3.txt=3 4.txt=4");
    fs_err::remove_file(space.path("days/1.txt")).unwrap();
    assert_eq!(ran(&space), ["2.txt", "3.txt"]);
    assert_eq!(space.read("out/s/all/3.txt"), "2.txt=2 3.txt=3");
    assert!(!space.path("out/s/all/1.txt").exists());
    // A name counts as the bytes do: the order of the files hangs on it.
    fs_err::rename(space.path("days/3.txt"), space.path("days/3b.txt")).unwrap();
    assert_eq!(ran(&space), ["3b.txt", "4.txt", "5.txt"]);
    // A file in between comes before those after it.
    space.write("days/4a.txt", "4a");
    assert_eq!(ran(&space), ["4a.txt", "5.txt"]);
}

#[test]
fn what_a_stage_made_is_read_in_the_same_way() {
    let text = r#"
version: 1
inputs: { days: "days/*.txt" }
stages:
  clean:
    uses: command
    map: days
    with: { run: "tr a-z A-Z < {in.item} > {out.c}", outputs: { c: "clean/{name}" } }
  s: { uses: joins, from: clean, with: { behind: 1 } }
"#;
    let space = Space::new(text);
    for day in ["a", "b", "c"] {
        space.write(&format!("days/{day}"), "");
        space.write(&format!("days/{day}.txt"), day);
    }
    assert_eq!(ran(&space), ["a.txt", "b.txt", "c.txt"]);
    assert_eq!(space.read("out/s/all/c.txt"), "b.txt=B c.txt=C");
    space.write("days/d.txt", "d");
    assert_eq!(ran(&space), ["d.txt"]);
    // Another day that is cleaned to the same: nothing after it runs.
    space.write("days/b.txt", "B");
    assert!(ran(&space).is_empty());
}

#[test]
fn without_items_it_is_one_action() {
    let stage = "version: 1\nstages:\n  s: { uses: joins, from: ./days }\n";
    let space = Space::new(stage);
    space.write("days/1.txt", "1");
    space.write("days/2.txt", "2");
    assert_eq!(ran(&space), ["all"]);
    assert_eq!(space.read("out/s/all.txt"), "1.txt=1 2.txt=2");
}

/// The keys of items are what caches hold: they stay as they are.
#[test]
fn the_key_of_an_item_covers_what_it_reads() {
    let keys = |behind: usize| -> BTreeMap<String, Digest> {
        let space = days(&format!("{{ uses: joins, from: days, with: {{ behind: {behind} }} }}"));
        let events = space.records().into_iter().flatten();
        let ended = events.filter(|event| event["event"] == "action_finished");
        let key = |event: serde_json::Value| {
            (
                event["item"].as_str().unwrap().to_owned(),
                event["key"].as_str().unwrap().parse().unwrap(),
            )
        };
        ended.map(key).collect()
    };
    let digest = |day: &str| Digest::of(day.as_bytes());
    let expected = |behind: usize, reads: Artifact| {
        let stage = ActionKey {
            stage: "joins".into(),
            version: 1,
            params: json!({ "behind": behind }),
            ..ActionKey::default()
        };
        item_key(&stage, "days", "3.txt", reads)
    };
    let alone = expected(0, Artifact::File(digest("3")));
    assert_eq!(keys(0)["3.txt"], alone.digest());
    assert_eq!(
        alone.json(),
        format!(
            r#"{{"inputs":{{"days":"file:{}"}},"item":"3.txt","params":{{"behind":0}},"stage":"joins","version":1}}"#,
            digest("3")
        )
    );
    let entry = |day: &str| Entry { digest: digest(day), size: 1, executable: false };
    let entries = ["2", "3"].map(|day| (format!("{day}.txt"), entry(day))).into();
    let read = Artifact::Tree(Digest::of(&Tree { entries }.encode()));
    assert_eq!(keys(1)["3.txt"], expected(1, read).digest());
}

const MARKET: &str = r#"
version: 1
vars:
  features: [realised_vol, momentum_5, vwap_dev_bps]
  splits: { train_end: "2024-01-03" }
inputs:
  train: days/2024-01-0[12].csv
  bars: days/*.csv
stages:
  fit:
    uses: featurize
    from: { bars: train }
    with: { features: "${features}", splits: "${splits}" }
  days:
    uses: featurize
    from: { bars: bars, fit: fit.fit }
    with: { features: "${features}", splits: "${splits}", by_file: { behind: 2 } }
  prompts:
    uses: encode
    from: days
    with: { template: "Volatility {{ realised_vol.level }}. Decision:", bar: minute }
"#;

/// Sixty bars of a minute.
fn bars(day: usize, seed: u64) -> String {
    let mut rows = String::from("time,open,high,low,close,volume\n");
    for minute in 0..60u64 {
        let close = 100.0 + (minute * seed % 17) as f64 / 8.0;
        let (open, high, low) = (close - 0.25, close + 0.5, close - 0.5);
        let volume = 1 + minute * seed % 5;
        rows +=
            &format!("2024-01-{day:02}T10:{minute:02}:00,{open},{high},{low},{close},{volume}\n");
    }
    rows
}

/// The items of `days` that the last run made, and whether anything else ran.
fn made(space: &Space) -> Vec<String> {
    let last = space.records().pop().unwrap();
    let ended = last.into_iter().filter(|event| event["event"] == "action_finished");
    let item = |event: serde_json::Value| match event["stage"].as_str() {
        Some("days") => event["item"].as_str().unwrap().to_owned(),
        stage => stage.unwrap().to_owned(),
    };
    let mut made: Vec<String> = ended.map(item).collect();
    made.sort_unstable();
    made
}

#[test]
fn a_new_day_of_bars_is_all_that_is_computed() {
    let space = Space::new(MARKET);
    let write = |day: usize, seed: u64| {
        space.write(&format!("days/2024-01-{day:02}.csv"), &bars(day, seed));
    };
    for day in 1..=3 {
        write(day, day as u64 + 6);
    }
    space.run().ok();
    assert_eq!(
        made(&space),
        ["2024-01-01.csv", "2024-01-02.csv", "2024-01-03.csv", "fit", "prompts"]
    );
    write(4, 11);
    let plan = space.quantmill(&["plan"]).ok().out;
    assert!(plan.contains("1 of 4 items (an item reads the 2 files before it too)"), "{plan}");
    assert!(plan.contains("hit     fit "), "{plan}");
    let explained = space.quantmill(&["explain", "days"]).ok().out;
    assert!(explained.contains("2024-01-04.csv is new\n"), "{explained}");
    assert!(explained.contains("  an item reads the 2 files before it too\n"), "{explained}");
    space.run().ok();
    assert_eq!(made(&space), ["2024-01-04.csv", "prompts"]);
    // Its windows are full from the first row on, and its first five rows are the embargo.
    let table = space.read("out/days/features/2024-01-04.csv");
    let splits = table.lines().skip(1).map(|line| line.split(',').nth(6).unwrap());
    let splits: Vec<&str> = splits.collect();
    assert_eq!(splits, [vec!["gap"; 5], vec!["test"; 55]].concat());
    let prompts = space.read("out/prompts/prompts.jsonl");
    assert_eq!(prompts.matches("\"t0\":\"2024-01-04T").count(), 55, "{prompts}");
    // A day that changes is done again with the one that reads it; the fit does not.
    write(3, 23);
    space.run().ok();
    assert_eq!(made(&space), ["2024-01-03.csv", "2024-01-04.csv", "prompts"]);
}
