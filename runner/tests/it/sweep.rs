//! Many runs of one pipeline: lists, draws, budgets, failures, and how they are compared.

use serde_json::Value;

use crate::space::{Ended, Space};

const PIPELINE: &str = r#"
version: 1
vars: { lr: 0.1, bias: 1 }
stages:
  data: { uses: command, with: { run: "echo data >> log; seq 1 5 > {out.d}", outputs: { d: out/d } } }
  train:
    uses: command
    from: { d: data }
    with:
      run: "test ${bias} -ne 9; awk 'BEGIN {printf \"{\\\"loss\\\": %f}\", (${lr} - 0.003) ^ 2 * 1000 + ${bias} / 100}' > {out.m}"
      outputs: { m: out/m.json }
      metrics: m
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The one sweep's folder, relative to the space.
fn sweep(space: &Space) -> String {
    let mut entries = fs_err::read_dir(space.path(".quantmill/sweeps")).unwrap();
    let name = entries.next().unwrap().unwrap().file_name().into_string().unwrap();
    format!(".quantmill/sweeps/{name}")
}

fn trials(space: &Space) -> Vec<Value> {
    let text = space.read(&format!("{}/sweep.json", sweep(space)));
    json(&text)["trials"].as_array().unwrap().clone()
}

fn grid(space: &Space) -> Ended {
    let set = ["--set", "lr=1e-4,1e-3,1e-2", "--set", "bias=1,2"];
    space.quantmill(&[&["sweep", "--metric", "loss", "--min"], &set[..]].concat())
}

#[test]
fn a_grid_shares_what_its_trials_have_in_common_and_leaves_the_outputs_alone() {
    let space = Space::new(PIPELINE);
    let ended = grid(&space).ok();
    assert_eq!(space.log(), ["data"], "six trials, one `data`");
    assert!(!space.path("out/m.json").exists() && !space.path("pipeline.lock").exists());
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!(lines.len(), 7, "{}", ended.out);
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(words(lines[0]), ["lr", "bias", "train.loss", "time", "run"]);
    assert_eq!(words(lines[1])[..4], ["*", "1e-3", "1", "0.014"]);
    assert_eq!(words(lines[6])[..3], ["1e-2", "2", "0.069"]);
    let best = "best    quantmill run --set lr=1e-3 --set bias=1";
    assert!(ended.err.contains(best), "{}", ended.err);
    for name in ["train.loss-by-lr.svg", "train.loss-by-bias.svg"] {
        let svg = space.read(&format!("{}/{name}", sweep(&space)));
        assert_eq!(svg.matches("<circle").count(), 6, "{name}");
        assert!(svg.contains("prefers-color-scheme: dark"));
    }
    space.quantmill(&["run", "--set", "lr=1e-3", "--set", "bias=1"]).ok().ran(&[]);
    assert!(space.read("out/m.json").contains("0.014"));
    let id = sweep(&space).rsplit('/').next().unwrap().to_owned();
    let rows = space.quantmill(&["runs", "list", "--sweep", &id, "--json"]).ok().out;
    assert_eq!(json(&rows).as_array().unwrap().len(), 6);
}

#[test]
fn draws_come_again_with_the_same_seed_and_stop_at_the_limits() {
    let draw = |more: &[&str]| {
        let space = Space::new(PIPELINE);
        let arguments = ["sweep", "--random", "4", "--set", "lr=1e-4..1e-2:log"];
        space.quantmill(&[&arguments[..], more].concat()).ok();
        let values = trials(&space).iter().map(|trial| trial["values"].clone()).collect::<Vec<_>>();
        (values, space)
    };
    let (first, space) = draw(&["--seed", "3"]);
    assert_eq!(first.len(), 4);
    // The one metric there is needs no name.
    assert!(trials(&space).iter().all(|trial| trial["metric"].is_f64()));
    assert_eq!(first, draw(&["--seed", "3"]).0);
    assert_ne!(first, draw(&["--seed", "4"]).0);
    assert_eq!(first[..2], draw(&["--seed", "3", "--max-runs", "2"]).0);
    assert_eq!(draw(&["--budget", "0s"]).0.len(), 0);
    let ended = space.quantmill(&["sweep", "--set", "lr=1e-4..1e-2:log"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("--random 20"), "{}", ended.err);
    assert_eq!(space.quantmill(&["sweep"]).code, 2);
    assert_eq!(space.quantmill(&["sweep", "--set", "rate=1,2"]).code, 2);
}

#[test]
fn a_failed_trial_is_told_and_the_others_go_on() {
    let space = Space::new(PIPELINE);
    let ended = space.quantmill(&["run", "--set", "bias=1,9,2"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("this is a sweep"), "{}", ended.err);
    let status: Vec<Value> = trials(&space).iter().map(|trial| trial["status"].clone()).collect();
    assert_eq!(status, ["ok", "failed", "ok"]);
    assert!(ended.out.lines().last().unwrap().contains("failed"), "{}", ended.out);
}

#[test]
fn brackets_and_quotes_are_one_value() {
    let space = Space::new(
        r#"
version: 1
vars: { list: [1], text: x }
stages:
  say:
    uses: command
    with: { run: [sh, -c, "echo \"$0\" > {out.x}", "${text}"], outputs: { x: out/x } }
"#,
    );
    space.quantmill(&["run", "--set", "list=[1,2]", "--set", "text=\"a, b\""]).ok();
    assert_eq!(space.read("out/x"), "a, b\n");
    assert!(!space.path(".quantmill/sweeps").exists());
    for verb in ["plan", "status", "check", "graph"] {
        let ended = space.quantmill(&[verb, "--set", "text=a,b"]);
        assert_eq!(ended.code, 2, "{verb}");
        assert!(ended.err.contains("hint: write a list as [a,b]"), "{}", ended.err);
    }
}

#[test]
fn runs_are_compared_in_tables_figures_and_side_by_side() {
    let space = Space::new(PIPELINE);
    for lr in ["0.001", "0.002", "0.004"] {
        space.quantmill(&["run", "--set", &format!("lr={lr}")]).ok();
    }
    let csv = space.quantmill(&["metrics", "--csv"]).ok().out;
    let lines: Vec<&str> = csv.lines().map(|line| line.split_once(',').unwrap().1).collect();
    assert_eq!(lines, ["lr,train.loss", "0.001,0.014", "0.002,0.011", "0.004,0.011"]);
    let text = space.quantmill(&["metrics", "latest", "--metric", "loss"]).ok().out;
    assert!(text.starts_with("run") && text.lines().count() == 2, "{text}");
    let told = json(&space.quantmill(&["metrics", "--json"]).ok().out);
    assert_eq!(told["rows"][2]["metrics"]["train.loss"], 0.011);
    let svg = space.quantmill(&["plots", "--x", "lr", "--y", "loss"]).ok().out;
    assert_eq!(svg.matches("<circle").count(), 3);
    assert!(svg.contains("train.loss") && svg.contains("<polyline"), "{svg}");
    let ended = space.quantmill(&["plots", "--x", "lr", "--y", "lost"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("did you mean"), "{}", ended.err);

    let diff = json(&space.quantmill(&["runs", "diff", "latest~2", "latest", "--json"]).ok().out);
    let line = |name: &str| {
        let mut lines = diff["lines"].as_array().unwrap().iter();
        lines.find(|line| line["name"] == name).cloned()
    };
    let loss = line("train.loss").unwrap();
    assert!((loss["change"].as_f64().unwrap() + 0.003).abs() < 1e-12, "{loss}");
    assert!((loss["percent"].as_f64().unwrap() + 300.0 / 14.0).abs() < 1e-9, "{loss}");
    assert_eq!(line("--set lr").unwrap()["b"], 0.004);
    assert!(line("train.m").is_some() && line("data.d").is_none());
    let all = space.quantmill(&["runs", "diff", "latest~2", "latest", "--all"]).ok().out;
    assert!(all.contains("data.d"), "{all}");
    let text = space.quantmill(&["runs", "diff", "latest~2"]).ok().out;
    assert!(text.contains("-0.003 (-21.4 %)"), "{text}");
}

#[test]
fn a_matrix_ends_with_a_table_of_its_cells() {
    let pipeline = PIPELINE.replace("${lr}", "${matrix.lr}");
    let pipeline = pipeline.replace(
        "    from: { d: data }\n",
        "    from: { d: data }\n    matrix: { lr: [0.001, 0.002] }\n",
    );
    let space = Space::new(&pipeline.replace("out/m.json", "\"out/m${matrix.lr}.json\""));
    let ended = space.run().ok();
    let table: Vec<&str> = ended.err.lines().rev().take(3).collect();
    let words: Vec<Vec<&str>> =
        table.iter().rev().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(words, [["lr", "train.loss"], ["0.001", "0.014"], ["0.002", "0.011"]]);
    let csv = space.quantmill(&["metrics", "--csv"]).ok().out;
    assert_eq!(csv.lines().count(), 3, "{csv}");
}

#[test]
fn metrics_of_a_command_have_to_be_json_of_an_output() {
    let space = Space::new(&PIPELINE.replace("metrics: m", "metrics: n"));
    let ended = space.quantmill(&["check"]);
    assert!(ended.code == 2 && ended.err.contains("name one of the outputs: `m`"), "{}", ended.err);
    let space = Space::new(&PIPELINE.replace("printf \\\"{", "printf \\\"no {"));
    let ended = space.run();
    assert!(ended.code == 1 && ended.err.contains("its output `m` is no JSON"), "{}", ended.err);
}

/// Trials but the first go on only once three more have begun.
const MEETING: &str = r#"
version: 1
vars: { n: 0 }
stages:
  data: { uses: command, with: { run: "echo data >> log; echo 1 > {out.d}", outputs: { d: out/d } } }
  meet:
    uses: command
    from: { d: data }
    timeout: 60s
    with:
      run: "touch began${n}; test ${n} = 1 || until test -e began2 -a -e began3 -a -e began4; do sleep 0.02; done; echo ${n} > {out.m}"
      outputs: { m: out/m }
"#;

#[test]
fn trials_go_side_by_side_and_make_what_they_share_once() {
    let space = Space::new(MEETING);
    let ended = space.quantmill(&["sweep", "-j3", "--set", "n=1,2,3,4"]).ok();
    assert_eq!(space.log(), ["data"]);
    let heads: Vec<&str> = ended.err.lines().filter(|line| line.starts_with("trial ")).collect();
    assert_eq!(heads.len(), 4, "{}", ended.err);
    assert!(heads[0].starts_with("trial 1/4"), "{}", ended.err);
    // What each says stands below its head, whole.
    let after = |head: &str| ended.err.split(head).nth(1).unwrap().to_owned();
    assert!(after(heads[1]).contains("finished: 1 ran, 1 cached"), "{}", ended.err);
    let values =
        trials(&space).iter().map(|trial| trial["values"][0][1].clone()).collect::<Vec<_>>();
    assert_eq!(values, ["1", "2", "3", "4"], "told in their order, however they ended");
}

#[test]
fn trials_of_what_cannot_be_divided_follow_each_other() {
    // A second one at the same time would find the folder there.
    let work = "mkdir busy; sleep 0.05; rmdir busy; echo ${n} > {out.m}";
    for (needs, jobs) in [("memory: 1MiB", "4"), ("cpu: 2", "3"), ("cpu: 1", "1")] {
        let space = Space::new(&format!(
            "version: 1\nvars: {{ n: 0 }}\nstages:\n  one:\n    uses: command\n    needs: {{ {needs} }}\n    \
             with: {{ run: \"set -e; {work}\", outputs: {{ m: out/m }} }}\n"
        ));
        let ended = space.quantmill(&["sweep", "-j", jobs, "--set", "n=1,2,3,4"]).ok();
        assert_eq!(ended.err.matches("finished: 1 ran").count(), 4, "{}", ended.err);
    }
}

#[test]
fn of_the_cells_of_a_matrix_the_mean_counts() {
    let space = Space::new(
        r#"
version: 1
vars: { lr: 1 }
stages:
  data:
    uses: command
    matrix: { part: [1, 2] }
    with: { run: "echo '{\"rows\": 3}' > {out.m}", outputs: { m: "out/d${matrix.part}" }, metrics: m }
  train:
    uses: command
    matrix: { seed: [1, 2] }
    with:
      run: "awk 'BEGIN {printf \"{\\\"loss\\\": %f}\", ${lr} + 0.1 * ${matrix.seed}}' > {out.m}"
      outputs: { m: "out/m${matrix.seed}.json" }
      metrics: m
"#,
    );
    let ended = space.quantmill(&["sweep", "--set", "lr=3,2", "--metric", "loss", "--min"]).ok();
    let first: Vec<&str> = ended.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(first[..3], ["*", "2", "2.15"], "{}", ended.out);
}
