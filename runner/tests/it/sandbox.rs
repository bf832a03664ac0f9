//! What a command does beside what it declares: told, refused, or let be, and written down.

#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use crate::space::{Ended, Space};

/// A stage that reads `params.json` without saying so.
fn undeclared(sandbox: &str) -> Space {
    let space = Space::new(&format!(
        r#"
version: 1
{sandbox}
stages:
  model:
    uses: command
    from: {{ data: ./data.csv }}
    with:
      run: "cat {{in.data}} params.json > {{out.model}}; echo fitted >> train.log"
      outputs: {{ model: out/model.txt }}
"#
    ));
    space.write("data.csv", "1\n");
    space.write("params.json", "{}\n");
    space
}

/// What the run's record says was in force.
fn in_force(space: &Space) -> Vec<String> {
    let run = fs_err::read_dir(space.path(".quantmill/runs")).unwrap();
    let run = run.flatten().map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    let events = fs_err::read_to_string(run.join("events.jsonl")).unwrap();
    let events =
        events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter_map(|event| Some(event["sandbox"].as_str()?.to_owned())).collect()
}

#[test]
fn without_a_sandbox_nothing_is_told_and_the_record_says_so() {
    let space = undeclared("");
    let ended = space.run().ok();
    assert!(!ended.err.contains("warning"), "{}", ended.err);
    assert_eq!(in_force(&space), ["off"]);
}

#[test]
fn a_trace_tells_what_to_add() {
    let space = undeclared("sandbox: trace");
    let ended = space.run().ok();
    let force = in_force(&space);
    assert!(force[0].starts_with("trace: "), "{force:?}");
    if force == ["trace: no strace"] {
        assert!(ended.err.contains("needs strace"), "{}", ended.err);
        return;
    }
    let warnings: Vec<&str> =
        ended.err.lines().filter(|line| line.starts_with("warning")).collect();
    assert_eq!(
        warnings,
        [
            "warning model: read `params.json`, which it does not declare: add `from: { params: \
             ./params.json }`",
            "warning model: wrote `train.log`, which is no output: add `outputs: { train: \
             train.log }`, or write below $TMPDIR",
        ]
    );
    // With the lines added there is nothing to tell.
    let text = space.read("pipeline.yaml");
    let text = text.replace("./data.csv }", "./data.csv, params: ./params.json }");
    let text = text.replace("out/model.txt }", "out/model.txt, train: train.log }");
    space.write("pipeline.yaml", &text);
    let ended = space.run().ok();
    assert!(!ended.err.contains("warning"), "{}", ended.err);
}

#[test]
fn strict_refuses_what_is_not_declared() {
    let space = undeclared("sandbox: strict");
    let Ended { code, err, .. } = space.run();
    assert_eq!(code, 1, "{err}");
    assert!(!space.path("out/model.txt").exists());
    assert!(!space.path("train.log").exists());
    if err.contains("lacks") {
        return;
    }
    assert!(err.contains("cat: params.json: Permission denied"), "{err}");
    if err.contains("read `params.json`") {
        assert!(err.contains("from: { params: ./params.json }"), "{err}");
    }
    let text = space.read("pipeline.yaml");
    let text = text.replace("./data.csv }", "./data.csv, params: ./params.json }");
    let text = text.replace("out/model.txt }", "out/model.txt, train: train.log }");
    space.write("pipeline.yaml", &text);
    space.run().ok();
    assert_eq!(space.read("out/model.txt"), "1\n{}\n");
    assert_eq!(space.read("train.log"), "fitted\n");
}

#[test]
fn a_stage_has_its_own_sandbox() {
    let space = undeclared("sandbox: strict");
    let text = space.read("pipeline.yaml");
    space.write("pipeline.yaml", &text.replace("    uses:", "    sandbox: off\n    uses:"));
    space.run().ok();
    assert_eq!(in_force(&space), ["off"]);
}

#[test]
fn secrets_are_passed_on_and_never_written_down() {
    let space = Space::new(
        r#"
version: 1
stages:
  load:
    uses: command
    secrets: [API_TOKEN]
    env: [NOT_SET_ANYWHERE]
    with: { run: "echo token=$API_TOKEN; echo $${#API_TOKEN} > {out.n}", outputs: { n: out/n } }
"#,
    );
    let out = space.command(&["run"]).env("API_TOKEN", "hunter2-and-more").output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{err}");
    assert!(err.contains("token=***"), "{err}");
    assert!(err.contains("NOT_SET_ANYWHERE is declared and not set"), "{err}");
    assert_eq!(space.read("out/n"), "16\n");
    // No file of the whole state folder holds it.
    let mut folders = vec![space.path("")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs_err::read(&path).unwrap();
                let held = bytes.windows(16).any(|window| window == b"hunter2-and-more");
                assert!(!held, "{}", path.display());
            }
        }
    }
    // Another value is the same action; the command is not asked again.
    let out = space.command(&["run"]).env("API_TOKEN", "another-value").output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("0 ran"), "{out:?}");
}

#[test]
fn a_variable_that_is_used_and_not_declared_is_told() {
    let space = Space::new(
        r#"
version: 1
stages:
  load:
    uses: command
    with: { run: "echo \"[$REGION]\" > {out.n}", outputs: { n: out/n } }
"#,
    );
    let out = space.command(&["run"]).env("REGION", "eu").output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(err.contains("add `env: [REGION]`"), "{err}");
    assert_eq!(space.read("out/n"), "[]\n");
}

#[test]
fn a_stage_that_takes_too_long_is_stopped() {
    let space = Space::new(
        r#"
version: 1
stages:
  slow:
    uses: command
    timeout: 1s
    with: { run: "sleep 60; echo > {out.n}", outputs: { n: out/n } }
"#,
    );
    let begun = Instant::now();
    let ended = space.run();
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("took longer than 1s"), "{}", ended.err);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn each_item_is_an_action_of_its_own() {
    let space = Space::new(
        r#"
version: 1
inputs: { days: "days/**/*.txt" }
stages:
  clean:
    uses: command
    map: days
    with:
      run: "echo {item.name} >> log; tr a-z A-Z < {in.item} > {out.clean}"
      outputs: { clean: "clean/{stem}.csv" }
  all:
    uses: command
    from: { clean: clean }
    with: { run: "cat {in.clean}/*.csv {in.clean}/*/*.csv > {out.all}", outputs: { all: out/all } }
"#,
    );
    space.write("days/mon.txt", "a\n");
    space.write("days/x/tue.txt", "b\n");
    space.run().ok();
    assert_eq!(space.read("clean/mon.csv"), "A\n");
    assert_eq!(space.read("clean/x/tue.csv"), "B\n");
    assert_eq!(space.read("out/all"), "A\nB\n");
    assert_eq!(space.log(), ["mon.txt", "x/tue.txt"]);
    space.write("days/wed.txt", "c\n");
    space.run().ok();
    assert_eq!(space.log(), ["mon.txt", "wed.txt", "x/tue.txt"], "one new file is one action");
    assert_eq!(space.read("out/all"), "A\nC\nB\n");
    space.write("days/mon.log.txt", "d\n");
    space.write("pipeline.yaml", &space.read("pipeline.yaml").replace("*.txt", "mon*"));
    space.write("days/mon.csv", "e\n");
    let ended = space.run();
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("`mon.csv` and `mon.txt` both write `mon.csv`"), "{}", ended.err);
}

#[test]
fn a_killed_run_takes_its_commands_with_it() {
    let space = Space::new(
        r#"
version: 1
stages:
  slow:
    uses: command
    with:
      run: "setsid sh -c 'echo $$ > outside; sleep 60' & echo $$ > inside; sleep 60; echo > {out.n}"
      outputs: { n: out/n }
"#,
    );
    let mut run = space.command(&["run"]).spawn().unwrap();
    let begun = Instant::now();
    let pid = |name: &str| fs_err::read_to_string(space.path(name)).unwrap_or_default();
    while pid("outside").is_empty() || pid("inside").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the stage never began");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The guard comes after a tenth of a second.
    std::thread::sleep(Duration::from_millis(600));
    run.kill().unwrap();
    run.wait().unwrap();
    let lives = |name: &str| {
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid(name).trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while lives("inside") || lives("outside") {
        assert!(begun.elapsed() < Duration::from_secs(20), "its commands go on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
