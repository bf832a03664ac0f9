//! What is written down of runs, and how people read it.

use serde_json::Value;

use crate::space::{Ended, Space};

pub const PIPELINE: &str = r#"
version: 1
vars: { scale: 2 }
inputs: { numbers: data/*.txt }
stages:
  total:
    uses: command
    from: numbers
    env: [UNIT]
    with: { run: "cat {in.numbers}/* | awk '{s+=$1} END {print s*${scale}}' > {out.n}", outputs: { n: out/n } }
  report:
    uses: command
    from: { n: total }
    with: { run: "sed s/^/total:/ {in.n} > {out.r}", outputs: { r: out/r } }
"#;

pub fn space() -> Space {
    let space = Space::new(PIPELINE);
    space.write("data/a.txt", "1\n2\n");
    space.write("data/b.txt", "3\n");
    space
}

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.ok().out).unwrap()
}

fn folders(space: &Space) -> Vec<std::path::PathBuf> {
    let entries = fs_err::read_dir(space.path(".quantmill/runs")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

#[test]
fn a_stage_is_told_to_have_started_when_it_has() {
    let stage = |name: &str| {
        let with = format!("{{ run: \"echo > {{out.x}}\", outputs: {{ x: out/{name} }} }}");
        format!("  {name}: {{ uses: command, with: {with} }}\n")
    };
    let stages = ["a", "b", "c"].map(stage).concat();
    let space = Space::new(&format!("version: 1\nstages:\n{stages}"));
    space.quantmill(&["run", "-j", "1"]).ok();
    let records = space.records();
    let events = records[0].iter().filter_map(|line| line["event"].as_str());
    let both = ["stage_started", "action_finished"];
    let told: Vec<&str> = events.filter(|event| both.contains(event)).collect();
    assert_eq!(told, both.repeat(3));
}

#[test]
fn a_run_that_does_nothing_writes_three_lines_and_shares_its_texts() {
    let space = space();
    space.run().ok();
    space.run().ok();
    space.run().ok();
    let folders = folders(&space);
    let [first, .., last] = &folders[..] else { panic!() };
    let events = fs_err::read_to_string(last.join("events.jsonl")).unwrap();
    assert!(events.lines().count() <= 3, "{events}");
    for name in ["pipeline.yaml", "pipeline.lock"] {
        let text = fs_err::read_to_string(first.join(name)).unwrap();
        assert_eq!(fs_err::read_to_string(last.join(name)).unwrap(), text);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            assert_eq!(fs_err::metadata(last.join(name)).unwrap().nlink(), 3, "{name}");
        }
    }
    assert_eq!(
        fs_err::read_to_string(last.join("pipeline.lock")).unwrap(),
        space.read("pipeline.lock")
    );
    let shown = json(space.quantmill(&["runs", "show", "latest", "--json"]));
    assert_eq!(shown["stages"]["total"]["outcome"], "hit");
    assert_eq!(shown["summary"]["hits"], 2);
}

#[test]
fn a_run_keeps_its_texts_and_its_sources() {
    let space = space();
    let mut command = space.command(&["run", "--set", "scale=3", "--note", "three"]);
    assert!(command.env("UNIT", "m").output().unwrap().status.success());
    space.write("data/a.txt", "9\n");
    space.write("pipeline.yaml", "version: 1\n");
    let shown = json(space.quantmill(&["runs", "show", "--json"]));
    assert_eq!(shown["note"], "three");
    assert_eq!(shown["status"], "ok");
    assert_eq!(shown["setting"]["set"], serde_json::json!([["scale", "3"]]));
    assert_eq!(shown["setting"]["env"], serde_json::json!({ "UNIT": "m" }));
    assert_eq!(shown["sources"][0]["read_by"], serde_json::json!(["total.numbers"]));
    assert_eq!(shown["sources"][0]["kept"], true);
    let text = space.quantmill(&["runs", "show", "--pipeline"]).ok().out;
    assert_eq!(text, format!("# pipeline.yaml\n{PIPELINE}"));
    let lock = space.quantmill(&["runs", "show", "--lock"]).ok().out;
    assert_eq!(lock, space.read("pipeline.lock"));
}

#[test]
fn a_large_source_is_noted_by_its_digest_unless_it_is_asked_for() {
    let space = space();
    for n in 0..1001 {
        space.write(&format!("data/{n}.txt"), "1\n");
    }
    space.run().ok();
    let kept = |space: &Space| {
        json(space.quantmill(&["runs", "show", "--json"]))["sources"][0]["kept"].clone()
    };
    assert_eq!(kept(&space), false);
    space.quantmill(&["run", "--keep-inputs", "--set", "scale=5"]).ok();
    assert_eq!(kept(&space), true);
}

#[test]
fn runs_are_listed_named_and_removed() {
    let space = space();
    space.run().ok();
    space.run().ok();
    space.write("data/b.txt", "bad\n");
    space.quantmill(&["run", "--set", "stages.report.with.run=exit 1"]);
    let rows = json(space.quantmill(&["runs", "list", "--json"]));
    let column = |name: &str| -> Vec<Value> {
        rows.as_array().unwrap().iter().map(|row| row[name].clone()).collect()
    };
    assert_eq!(column("status"), ["failed", "ok", "ok"]);
    assert_eq!(column("ran"), [1, 0, 2]);
    let ran = json(space.quantmill(&["runs", "list", "--ran", "--json"]));
    assert_eq!(ran.as_array().unwrap().len(), 2);
    let oldest = rows[2]["id"].as_str().unwrap();
    let same = json(space.quantmill(&["runs", "show", "latest~2", "--json"]));
    assert_eq!(same["id"], oldest);
    space.quantmill(&["runs", "note", oldest, "the first"]).ok();
    let text = space.quantmill(&["runs", "list"]).ok().out;
    assert!(text.lines().last().unwrap().ends_with("the first"), "{text}");
    let shared = &oldest[..4];
    let ended = space.quantmill(&["runs", "show", shared]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("begins the names of 3 runs"), "{}", ended.err);
    space.quantmill(&["runs", "rm", oldest]).ok();
    assert_eq!(space.quantmill(&["runs", "show", oldest]).code, 2);
    space.quantmill(&["runs", "rm", "--older-than", "0s"]).ok();
    assert_eq!(space.quantmill(&["runs", "list"]).ok().out, "");
}

#[test]
fn a_run_that_was_killed_is_told_apart() {
    let space = space();
    space.run().ok();
    let events = folders(&space)[0].join("events.jsonl");
    let text = fs_err::read_to_string(&events).unwrap();
    fs_err::write(&events, &text[..text.len() - 40]).unwrap();
    let shown = json(space.quantmill(&["runs", "show", "--json"]));
    assert_eq!(shown["status"], "unfinished");
    assert_eq!(shown["stages"]["report"]["outcome"], "ran");
}
