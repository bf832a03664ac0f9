//! `plan`: verdicts, reasons with old and new values, and estimates.

use serde_json::Value;

use crate::space::Space;

const PIPELINE: &str = r#"
version: 1
vars: { rate: 1 }
inputs: { days: "days/*.csv" }
stages:
  sum:
    uses: command
    from: { days: days, note: ./note.txt }
    env: [MOOD]
    with: { run: "cat {in.days}/* {in.note} > {out.sum}; echo rate=${rate} $MOOD >> {out.sum}", outputs: { sum: out/sum } }
  top:
    uses: command
    from: { sum: sum }
    with: { run: "head -1 {in.sum} > {out.top}", outputs: { top: out/top } }
"#;

fn space() -> Space {
    let space = Space::new(PIPELINE);
    for day in ["a", "b"] {
        space.write(&format!("days/{day}.csv"), day);
    }
    space.write("note.txt", "one\ntwo\n");
    space
}

fn plan(space: &Space, arguments: &[&str]) -> Value {
    let ended = space.quantmill(&[&["plan", "--json"], arguments].concat()).ok();
    serde_json::from_str(&ended.out).unwrap()
}

fn stage<'a>(plan: &'a Value, name: &str) -> &'a Value {
    plan["stages"].as_array().unwrap().iter().find(|stage| stage["name"] == name).unwrap()
}

#[test]
fn each_reason_has_what_it_was_and_what_it_is() {
    let space = space();
    let first = plan(&space, &[]);
    assert_eq!(stage(&first, "sum")["because"][0]["says"], "it has not run yet");
    assert_eq!(stage(&first, "top")["verdict"], "unknown");
    assert_eq!(stage(&first, "top")["waits_on"][0], "sum");
    assert_eq!(stage(&first, "sum")["estimate_ms"], Value::Null);
    space.run().ok();
    let none = plan(&space, &[]);
    assert_eq!((&none["hit"], &none["run"]), (&2.into(), &0.into()));

    space.write("days/c.csv", "c");
    space.write("days/b.csv", "B");
    fs_err::remove_file(space.path("days/a.csv")).unwrap();
    let mut command = space.command(&["plan", "--json", "--set", "rate=2"]);
    let out = command.env("MOOD", "good").output().unwrap().stdout;
    let plan: Value = serde_json::from_slice(&out).unwrap();
    let sum = stage(&plan, "sum");
    let says: Vec<&str> =
        sum["because"].as_array().unwrap().iter().map(|c| c["says"].as_str().unwrap()).collect();
    assert_eq!(
        says,
        [
            "run: …echo rate=1 $MOOD >>… -> …echo rate=2 $MOOD >>…",
            "a.csv is gone",
            "b.csv changed in line 1: b -> B",
            "c.csv is new",
            "environment variable MOOD: none -> good",
        ]
    );
    assert_eq!(sum["because"][0]["change"], "value");
    assert_eq!(sum["because"][3]["how"], "new");
    assert!(sum["estimate_ms"].as_u64().is_some_and(|ms| ms > 0), "{sum}");
    let (least, most) = (&plan["at_least_ms"], &plan["at_most_ms"]);
    assert!(least.as_u64().unwrap() < most.as_u64().unwrap(), "{plan}");
    let text = space.quantmill(&["plan", "-j", "3"]).ok().out;
    assert!(
        text.contains("sum command   a.csv is gone; b.csv changed in line 1: b -> B; c.csv is new"),
        "{text}"
    );
    assert!(text.contains("2 stages: 0 hit, 1 to run, 1 unknown\nat least "), "{text}");
    assert!(text.trim_end().ends_with("with -j 3"), "{text}");
}

#[test]
fn a_fresh_clone_goes_by_the_lock() {
    let space = space();
    space.run().ok();
    fs_err::remove_dir_all(space.path(".quantmill")).unwrap();
    fs_err::remove_dir_all(space.path("out")).unwrap();
    let same = plan(&space, &[]);
    assert_eq!(stage(&same, "sum")["because"][0]["says"], "it has not run here");
    let other = plan(&space, &["--set", "rate=2"]);
    let says = stage(&other, "sum")["because"][0]["says"].as_str().unwrap();
    assert!(says.starts_with("run: …echo rate=1"), "{says}");
}

#[test]
fn a_plan_is_what_the_same_run_would_do() {
    let space = space();
    space.run().ok();
    let forced = plan(&space, &["--force", "sum"]);
    assert_eq!(stage(&forced, "sum")["verdict"], "run");
    assert_eq!(stage(&forced, "top")["verdict"], "unknown");
    let one = space.quantmill(&["plan", "sum"]).ok().out;
    assert!(
        one.contains("hit     sum") && one.contains("1 stage: 1 hit"),
        "a stage's name alone: {one}"
    );
    assert_eq!(plan(&space, &[".", "sum"]), plan(&space, &["sum"]));
    let wrong = space.quantmill(&["plan", "sun"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("did you mean `sum`?"), "{}", wrong.err);
}

#[test]
fn many_hits_are_folded() {
    let mut yaml = String::from("version: 1\nstages:\n");
    for i in 0..60 {
        yaml.push_str(&format!(
            "  s{i}: {{ uses: command, with: {{ run: \"echo {i} > {{out.x}}\", outputs: {{ x: out/{i} }} }} }}\n"
        ));
    }
    let space = Space::new(&yaml);
    let cold = space.quantmill(&["plan"]).ok().out;
    assert!(cold.contains("\nrun     20 more stages (--all names them)\n"), "{cold}");
    space.run().ok();
    space.write("pipeline.yaml", &yaml.replace("echo 7 ", "echo seven "));
    let warm = space.quantmill(&["plan"]).ok().out;
    assert!(warm.starts_with("run     s7"), "{warm}");
    assert!(
        warm.contains("\nhit     59 stages (--all names them)\n60 stages: 59 hit, 1 to run"),
        "{warm}"
    );
    assert_eq!(space.quantmill(&["plan", "--all"]).ok().out.matches("hit     s").count(), 59);
}

#[test]
fn status_tells_what_is_out_of_date_and_what_is_astray() {
    let space = space();
    space.run().ok();
    let fresh = space.quantmill(&["status"]).ok().out;
    assert_eq!(fresh, "./pipeline.yaml: 2 stages, all up to date\n");
    fs_err::remove_file(space.path("out/top")).unwrap();
    space.write("note.txt", "one\n2\n");
    space.write("days/d.csv", "d");
    let told = space.quantmill(&["status"]).ok().out;
    assert_eq!(
        told,
        "./pipeline.yaml: 2 stages, 0 up to date\n\n\
         `quantmill run` would run:\n  \
         stale   sum d.csv is new; note.txt changed in line 2: two -> 2\n\n\
         and then, unless that gives the same as before:\n  unknown top\n"
    );
    space.write("note.txt", "one\ntwo\n");
    fs_err::remove_file(space.path("days/d.csv")).unwrap();
    space.write("out/sum", "mine");
    let json = space.quantmill(&["status", "--json"]).ok().out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&stage(&json, "sum")["status"], &json["fresh"]), (&"edited".into(), &0.into()));
    assert_eq!(stage(&json, "sum")["outputs"][0]["is"], "edited");
    assert_eq!(
        stage(&json, "top")["outputs"][0],
        serde_json::json!({ "path": "out/top", "is": "missing" })
    );
}
