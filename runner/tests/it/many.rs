//! Many runs at once in one workspace.

use std::process::{Child, Stdio};

use crate::space::{Space, long, wait_for};

/// Stages that log each start; the last reads all others.
fn wide(stages: usize) -> String {
    let mut text = String::from("version: 1\nvars: { v: 1 }\nstages:\n");
    let mut from = String::new();
    for i in 0..stages {
        text.push_str(&format!(
            "  s{i}: {{ uses: command, from: {{ x: ./x }}, with: {{ run: 'echo s{i}-${{v}} >> log; for f in 1 2 3; do echo ${{v}} {i} $f > {{out.d}}/$f; done; cat {{in.x}} >> {{out.y}}', outputs: {{ d: out/d{i}/, y: out/y{i} }} }} }}\n"
        ));
        from.push_str(&format!("d{i}: s{i}, "));
    }
    let all: String = (0..stages).map(|i| format!(" {{in.d{i}}}/*")).collect();
    text.push_str(&format!(
        "  all: {{ uses: command, from: {{ {} }}, with: {{ run: 'echo all-${{v}} >> log; cat{all} > {{out.x}}', outputs: {{ x: out/all }} }} }}\n",
        from.trim_end_matches(", ")
    ));
    text
}

/// What `all` must hold.
fn all(stages: usize, v: u32) -> String {
    let line = |i| (1..=3).map(move |f| format!("{v} {i} {f}\n"));
    (0..stages).flat_map(line).collect()
}

fn names(stages: usize, v: u32) -> Vec<String> {
    let mut names: Vec<String> = (0..stages).map(|i| format!("s{i}-{v}")).collect();
    names.push(format!("all-{v}"));
    names.sort_unstable();
    names
}

fn spawn(space: &Space, arguments: &[&str]) -> Child {
    let mut command = space.command(&[&["run", "-j", "2"], arguments].concat());
    command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn ends_well(run: Child) {
    let out = run.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn any_number_of_runs_do_each_action_once() {
    for runs in [2, 8] {
        let space = Space::quick(&wide(6));
        space.write("x", "x\n");
        let runs: Vec<Child> = (0..runs).map(|_| spawn(&space, &[])).collect();
        runs.into_iter().for_each(ends_well);
        assert_eq!(space.log(), names(6, 1));
        assert_eq!(space.read("out/all"), all(6, 1));
        assert_eq!(space.leftovers(), Vec::<String>::new());
        assert!(space.run().ok().ran(&[]));
    }
}

#[test]
fn runs_with_other_values_do_not_mix() {
    for _ in 0..if long() { 100 } else { 4 } {
        let space = Space::quick(&wide(4));
        space.write("x", "x\n");
        let runs: Vec<Child> =
            (1..=4).map(|v| spawn(&space, &["--set", &format!("v={v}")])).collect();
        runs.into_iter().for_each(ends_well);
        for i in 0..4 {
            let whole = |v| (1..=3).map(|f| format!("{v} {i} {f}\n")).collect::<String>();
            let found: String = (1..=3).map(|f| space.read(&format!("out/d{i}/{f}"))).collect();
            assert!((1..=4).any(|v| found == whole(v)), "{found}");
        }
        let found = space.read("out/all");
        assert!((1..=4).any(|v| found == all(4, v)), "{found}");
        let mut log: Vec<String> = (1..=4).flat_map(|v| names(4, v)).collect();
        log.sort_unstable();
        // A command whose input another run moved away is run once more.
        let mut found = space.log();
        found.dedup();
        assert_eq!(found, log);
        for v in 1..=4 {
            let set = format!("v={v}");
            assert!(space.quantmill(&["run", "--set", &set]).ok().ran(&[]));
            assert_eq!(space.read("out/all"), all(4, v));
        }
    }
}

#[test]
fn a_run_that_waits_on_one_that_is_killed_takes_over() {
    let space = Space::quick(
        r#"
version: 1
stages:
  slow:
    uses: command
    with: { run: "echo slow >> log; while ! [ -e go ]; do sleep 0.01; done; echo done > {out.x}", outputs: { x: out/x } }
"#,
    );
    let mut first = spawn(&space, &[]);
    wait_for("the stage to begin", || !space.log().is_empty());
    let second = spawn(&space, &[]);
    let third = spawn(&space, &[]);
    wait_for("the others to plan", || space.records().len() == 3);
    first.kill().unwrap();
    first.wait().unwrap();
    wait_for("another to take over", || space.log().len() == 2);
    space.write("go", "");
    ends_well(second);
    ends_well(third);
    assert_eq!(space.log(), ["slow", "slow"], "one took over, and one waited for it");
    assert_eq!(space.read("out/x"), "done\n");
}

#[test]
fn of_those_that_wait_on_a_failure_each_tries_itself() {
    let space = Space::quick(
        r#"
version: 1
stages:
  bad:
    uses: command
    with: { run: "mkdir busy; echo bad >> log; sleep 0.05; rmdir busy; false > {out.x}", outputs: { x: out/x } }
"#,
    );
    let runs: Vec<Child> = (0..6).map(|_| spawn(&space, &[])).collect();
    for run in runs {
        let out = run.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{err}");
        assert!(!err.contains("File exists"), "two at once: {err}");
    }
    assert_eq!(space.log().len(), 6);
}
