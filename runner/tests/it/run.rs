//! Failures, interruptions, two runs at once, and what is written down.

use std::time::{Duration, Instant};

use crate::space::Space;

#[test]
fn a_failure_stops_what_needs_it_and_leaves_nothing_half_written() {
    let space = Space::new(
        r#"
version: 1
stages:
  bad:
    uses: command
    with: { run: "echo partial > {out.x}; echo to stderr >&2; exit 3", outputs: { x: out/bad } }
  after:
    uses: command
    from: { x: bad }
    with: { run: "cat {in.x} > {out.y}", outputs: { y: out/after } }
"#,
    );
    let ended = space.run();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("failed  bad: "), "{}", ended.err);
    assert!(ended.err.contains("to stderr"), "{}", ended.err);
    assert!(ended.err.contains("skipped after: bad failed"), "{}", ended.err);
    assert!(!space.path("out/bad").exists());
    assert_eq!(space.run().code, 1, "a failure is not remembered as a result");
}

#[test]
fn every_missing_source_is_named_with_its_line() {
    let space = Space::new(
        r#"version: 1
inputs:
  a: data/prices.csv
  b: "papers/*.pdf"
stages:
  x:
    uses: command
    from: { a: a, b: b }
    with: { run: "cat {in.a} > {out.x}", outputs: { x: out/x } }
"#,
    );
    space.write("data/price.csv", "1");
    let ended = space.run();
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("no file or folder `data/prices.csv`"), "{}", ended.err);
    assert!(ended.err.contains("did you mean `data/price.csv`?"), "{}", ended.err);
    assert!(ended.err.contains("no file matches `papers/*.pdf`"), "{}", ended.err);
    assert!(ended.err.contains("pipeline.yaml:3:"), "{}", ended.err);
    assert!(!space.path("out").exists());
}

const SLOW: &str = r#"
version: 1
stages:
  slow:
    uses: command
    with: { run: "echo slow >> log; sleep 1; echo done > {out.x}", outputs: { x: out/x } }
  after:
    uses: command
    from: { x: slow }
    with: { run: "echo after >> log; cat {in.x} > {out.y}", outputs: { y: out/y } }
"#;

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_stages_and_says_so() {
    let space = Space::new(&SLOW.replace("sleep 1", "sleep 30"));
    let mut run = space.command(&["run"]).spawn().unwrap();
    let begun = Instant::now();
    while space.log().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the stage never began");
        std::thread::sleep(Duration::from_millis(10));
    }
    let signal = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status();
    assert!(signal.unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(20), "it waited for the command");
}

#[test]
fn a_run_is_recorded_and_locked() {
    let space = Space::new(&SLOW.replace("sleep 1;", ""));
    space.run().ok();
    let lock = space.read("pipeline.lock");
    assert!(lock.contains("  \"after\":\n    uses: command@"), "{lock}");
    space.run().ok();
    assert_eq!(space.read("pipeline.lock"), lock);
    let mut runs: Vec<_> = fs_err::read_dir(space.path(".quantmill/runs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    runs.sort();
    assert_eq!(runs.len(), 2);
    let events: Vec<serde_json::Value> = fs_err::read_to_string(runs[0].join("events.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = events.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "run_started",
            "surveyed",
            "stage_started",
            "action_finished",
            "stage_finished",
            "stage_started",
            "action_finished",
            "stage_finished",
            "run_finished"
        ]
    );
    assert_eq!(events[0]["stages"], 2);
    assert_eq!(events[8]["ran"], 2);
}
