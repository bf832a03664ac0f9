//! What an incremental runner owes its users: 24 behaviours, a test each, on the real binary.
//!
//! Where it makes sense a behaviour is shown twice, on commands and on built-in stages ([`both`]).
//! No test looks at the time that something takes.

use std::process::Stdio;

use crate::space::{Ended, Space, skip, wait_for};

/// A pipeline of two stages in a row, with edits whose effect is known.
struct Case {
    pipeline: &'static str,
    /// The file to edit, and what stands in it.
    source: &'static str,
    text: &'static str,
    /// Of the same length as `text`, with another result.
    other: &'static str,
    /// Gives the first stage's output once more.
    quiet: &'static str,
    /// Makes the first stage fail.
    broken: &'static [u8],
    /// The stages.
    first: &'static str,
    second: &'static str,
    /// The second stage's output, and what it holds of `text` and of `other`.
    output: &'static str,
    holds: &'static str,
    holds_other: &'static str,
    /// An edit of the pipeline that concerns the second stage alone.
    change: (&'static str, &'static str),
}

const COMMANDS: Case = Case {
    pipeline: r#"
version: 1
inputs:
  text: data.txt
stages:
  upper:
    uses: command
    from: { text: text }
    with:
      run: "echo upper >> log; head -n 1 {in.text} | tr a-z A-Z > {out.upper}; ! grep BROKEN {out.upper}"
      outputs: { upper: out/upper.txt }
  greet:
    uses: command
    from: { upper: upper }
    with:
      run: "echo greet >> log; echo hello $(cat {in.upper}) > {out.greeting}"
      outputs: { greeting: out/greeting.txt }
"#,
    source: "data.txt",
    text: "world\nsecond line\n",
    other: "earth\nsecond line\n",
    quiet: "world\nanother line\n",
    broken: b"broken\n",
    first: "upper",
    second: "greet",
    output: "out/greeting.txt",
    holds: "hello WORLD\n",
    holds_other: "hello EARTH\n",
    change: ("echo hello", "echo  hello"),
};

const BUILT_IN: Case = Case {
    pipeline: r#"
version: 1
inputs:
  papers: papers/*
stages:
  text: { uses: extract, from: papers }
  chunks: { uses: chunk, from: text, with: { min_tokens: 1, max_tokens: 1000 } }
"#,
    source: "papers/a.md",
    text: "# One\n\nBonds fell.\n",
    other: "# Two\n\nBonds rose.\n",
    quiet: "# One  \n\n\n\nBonds fell.  \n",
    broken: b"\xff\xfe\n",
    first: "text",
    second: "chunks",
    output: "out/chunks/chunks.jsonl",
    holds: "{\"text\":\"# One\\n\\nBonds fell.\"}\n",
    holds_other: "{\"text\":\"# Two\\n\\nBonds rose.\"}\n",
    change: ("max_tokens: 1000", "max_tokens: 999"),
};

/// The same on commands and on built-in stages.
fn both(test: impl Fn(&Case)) {
    test(&COMMANDS);
    test(&BUILT_IN);
}

impl Case {
    /// A space in which the pipeline has run.
    fn made(&self) -> Space {
        let space = Space::new(self.pipeline);
        space.write(self.source, self.text);
        let ended = space.run().ok();
        assert!(ended.ran(&[self.first, self.second]), "{ended:?}");
        self.gives(&space, self.holds);
        space
    }

    /// The result is this.
    fn gives(&self, space: &Space, held: &str) {
        assert_eq!(space.read(self.output), held);
    }

    /// A run does nothing, and the result is this.
    fn idle(&self, space: &Space, held: &str) -> Ended {
        let ended = space.run().ok();
        assert!(ended.ran(&[]), "{ended:?}");
        self.gives(space, held);
        ended
    }
}

#[test]
fn b01_a_second_run_does_nothing() {
    both(|case| {
        let space = case.made();
        let ended = case.idle(&space, case.holds);
        assert!(ended.summary().starts_with("finished: 0 ran, 2 cached in"), "{ended:?}");
    });
    let space = COMMANDS.made();
    COMMANDS.idle(&space, COMMANDS.holds);
    assert_eq!(space.log(), ["greet", "upper"], "what is not said to run does not run");
}

#[test]
fn b02_a_touch_does_nothing() {
    both(|case| {
        let space = case.made();
        space.write(case.source, case.text);
        case.idle(&space, case.holds);
    });
}

#[test]
fn b03_an_edit_of_the_same_size_and_time_is_seen() {
    both(|case| {
        let space = case.made();
        // Until the file is old enough for its digest to be remembered.
        std::thread::sleep(std::time::Duration::from_millis(50));
        case.idle(&space, case.holds);
        let path = space.path(case.source);
        let time = fs_err::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(case.text.len(), case.other.len());
        space.write(case.source, case.other);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert!(space.run().ok().ran(&[case.first, case.second]));
        case.gives(&space, case.holds_other);
    });
}

#[test]
fn b04_equal_output_stops_there() {
    both(|case| {
        let space = case.made();
        space.write(case.source, case.quiet);
        let ended = space.run().ok();
        assert!(ended.ran(&[case.first]), "{ended:?}");
        case.gives(&space, case.holds);
    });
}

#[test]
fn b05_a_changed_command_or_parameter_reruns_its_stage_alone() {
    both(|case| {
        let space = case.made();
        let (from, to) = case.change;
        space.write("pipeline.yaml", &case.pipeline.replace(from, to));
        let ended = space.run().ok();
        assert!(ended.ran(&[case.second]), "{ended:?}");
    });
}

#[test]
fn b06_a_deleted_output_comes_back_without_running() {
    both(|case| {
        let space = case.made();
        fs_err::remove_file(space.path(case.output)).unwrap();
        let ended = case.idle(&space, case.holds);
        assert!(ended.summary().contains("2 cached (1 restored)"), "{ended:?}");
        fs_err::remove_dir_all(space.path("out")).unwrap();
        let ended = case.idle(&space, case.holds);
        assert!(ended.summary().contains("2 cached (2 restored)"), "{ended:?}");
    });
}

#[test]
fn b07_a_tampered_output_is_put_right() {
    both(|case| {
        let space = case.made();
        space.write(case.output, "tampered\n");
        let status = space.quantmill(&["status"]).ok();
        assert!(status.out.contains(&format!("edited  {}", case.second)), "{}", status.out);
        case.idle(&space, case.holds);
    });
}

#[test]
fn b08_an_input_that_is_as_it_was_needs_no_run() {
    both(|case| {
        let space = case.made();
        space.write(case.source, case.other);
        assert!(space.run().ok().ran(&[case.first, case.second]));
        case.gives(&space, case.holds_other);
        space.write(case.source, case.text);
        let ended = case.idle(&space, case.holds);
        assert!(ended.summary().contains("2 cached (2 restored)"), "{ended:?}");
    });
}

#[test]
fn b09_a_pipeline_that_is_as_it_was_needs_no_run() {
    both(|case| {
        let space = case.made();
        let (from, to) = case.change;
        space.write("pipeline.yaml", &case.pipeline.replace(from, to));
        assert!(space.run().ok().ran(&[case.second]));
        space.write("pipeline.yaml", case.pipeline);
        case.idle(&space, case.holds);
    });
}

#[test]
fn b10_what_a_failed_stage_wrote_is_not_believed() {
    both(|case| {
        let space = case.made();
        fs_err::write(space.path(case.source), case.broken).unwrap();
        for _ in 0..2 {
            let ended = space.run();
            assert_eq!(ended.code, 1, "{ended:?}");
            assert!(ended.err.contains(&format!("failed  {}", case.first)), "{ended:?}");
            let skipped = format!("skipped {}: {} failed", case.second, case.first);
            assert!(ended.err.contains(&skipped), "{ended:?}");
            case.gives(&space, case.holds);
        }
        space.write(case.source, case.text);
        case.idle(&space, case.holds);
    });
}

#[test]
fn b11_keep_going_makes_all_that_can_be_made() {
    let text = r#"
version: 1
inputs: { good: good.txt, bad: bad.txt }
stages:
  a: { uses: command, from: { x: bad }, with: { run: "cat {in.x} > {out.y}; false", outputs: { y: out/a } } }
  b: { uses: command, from: { x: a }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/b } } }
  c: { uses: extract, from: bad }
  d: { uses: extract, from: good }
  e: { uses: command, from: { x: d }, with: { run: "cat {in.x}/good.txt > {out.y}", outputs: { y: out/e } } }
"#;
    let space = Space::new(text);
    space.write("good.txt", "good\n");
    fs_err::write(space.path("bad.txt"), b"\xff\xff").unwrap();
    let ended = space.quantmill(&["run", "-j", "1", "--keep-going"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.ran(&["d", "e"]), "{ended:?}");
    assert!(ended.summary().starts_with("failed: 2 ran, 0 cached, 2 failed, 1 skipped"));
    assert_eq!(space.read("out/e"), "good\n");
}

#[test]
fn b12_stages_run_side_by_side() {
    let mut pipeline = String::from("version: 1\nstages:\n");
    for i in 0..4 {
        pipeline.push_str(&format!(
            "  s{i}: {{ uses: command, with: {{ run: \"touch {{out.x}}; echo in >> log; while [ $(wc -l < log) -lt 4 ]; do sleep 0.01; done\", outputs: {{ x: out/{i} }} }} }}\n"
        ));
    }
    let space = Space::new(&pipeline);
    // Each waits for all the others: one at a time would never end.
    let ended = space.quantmill(&["run", "-j", "4"]).ok();
    assert!(ended.ran(&["s0", "s1", "s2", "s3"]));
}

#[test]
fn b13_a_run_that_was_killed_leaves_nothing_to_clean_up() {
    let space = Space::new(SLOW);
    let mut run = space.command(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the stage to begin", || !space.log().is_empty());
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(!space.path("out/x").exists());
    space.write("go", "");
    assert!(space.run().ok().ran(&["slow", "after"]));
    assert_eq!(space.read("out/y"), "done\n");
}

/// Its first stage waits for a file `go`.
const SLOW: &str = r#"
version: 1
stages:
  slow:
    uses: command
    with: { run: "echo half > {out.x}; echo slow >> log; while ! [ -e go ]; do sleep 0.01; done; echo done > {out.x}", outputs: { x: out/x } }
  after:
    uses: command
    from: { x: slow }
    with: { run: "echo after >> log; cat {in.x} > {out.y}", outputs: { y: out/y } }
"#;

#[test]
fn b14_an_input_added_to_a_stage_is_seen() {
    let one = "from: { a: ./a }";
    let two = "from: { a: ./a, b: ./b }";
    let text = r#"
version: 1
stages:
  x: { uses: command, from: { a: ./a }, with: { run: "cat {in.a} [b] > {out.x}", outputs: { x: out/x } } }
"#;
    let space = Space::new("");
    space.write("a", "a");
    space.write("b", "b");
    space.write("pipeline.yaml", &text.replace(" [b]", ""));
    assert!(space.run().ok().ran(&["x"]));
    // It counts even where the command line does not name it.
    space.write("pipeline.yaml", &text.replace(" [b]", "").replace(one, two));
    assert!(space.run().ok().ran(&["x"]));
    space.write("pipeline.yaml", &text.replace("[b]", "{in.b}").replace(one, two));
    assert!(space.run().ok().ran(&["x"]));
    assert_eq!(space.read("out/x"), "ab");
    let space = BUILT_IN.made();
    space.write("more/b.txt", "Rates rose.\n");
    let wider = BUILT_IN.pipeline.replace("papers/*", "\"{papers,more}/*\"");
    space.write("pipeline.yaml", &wider);
    assert!(space.run().ok().ran(&["text", "chunks"]));
    assert_eq!(space.read(BUILT_IN.output).lines().count(), 2);
}

#[test]
fn b15_an_input_taken_from_a_stage_is_seen() {
    let space = Space::new(
        r#"
version: 1
stages:
  x: { uses: command, from: { d: ./d }, with: { run: "cat {in.d}/* > {out.x}", outputs: { x: out/x } } }
"#,
    );
    space.write("d/a", "a");
    space.write("d/b", "b");
    assert!(space.run().ok().ran(&["x"]));
    let text = space.read("pipeline.yaml");
    space.write("pipeline.yaml", &text.replace("./d }", "./d/a }").replace("{in.d}/*", "{in.d}"));
    assert!(space.run().ok().ran(&["x"]));
    assert_eq!(space.read("out/x"), "a");
    space.write("pipeline.yaml", &text);
    fs_err::remove_file(space.path("d/b")).unwrap();
    assert!(space.run().ok().ran(&["x"]));
    assert_eq!(space.read("out/x"), "a");
    let space = BUILT_IN.made();
    space.write("papers/b.txt", "Rates rose.\n");
    assert!(space.run().ok().ran(&["text", "chunks"]));
    fs_err::remove_file(space.path("papers/b.txt")).unwrap();
    // One paper alone was done before.
    BUILT_IN.idle(&space, BUILT_IN.holds);
    assert!(!space.path("out/text/text/b.txt").exists(), "its text is gone as well");
}

#[test]
fn b16_an_output_that_is_not_written_is_an_error() {
    let space = Space::new(
        r#"
version: 1
stages:
  forgets:
    uses: command
    with: { run: "echo x > {out.x}", outputs: { x: out/x, y: out/y } }
"#,
    );
    let ended = space.run();
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("did not write its output `y`"), "{}", ended.err);
    assert!(!space.path("out/x").exists());
}

#[test]
fn b17_an_output_of_two_stages_is_an_error() {
    let command = r#"{ uses: command, with: { run: "echo x > {out.x}", outputs: { x: out/x } } }"#;
    let inside = command.replace("out/x }", "out/x/y }");
    let built_in = "{ uses: extract, from: ./a.txt, to: out/x }";
    for (a, b) in [(command, command), (command, &*inside), (command, built_in)] {
        let space = Space::new(&format!("version: 1\nstages:\n  a: {a}\n  b: {b}\n"));
        space.write("a.txt", "text\n");
        let ended = space.run();
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains("pipeline.yaml:4:"), "{}", ended.err);
        assert!(!space.path("out").exists());
    }
}

#[test]
fn b18_a_cycle_is_an_error() {
    let space = Space::new(
        r#"
version: 1
stages:
  a: { uses: command, from: { x: c }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/a } } }
  b: { uses: extract, from: a }
  c: { uses: command, from: { x: b }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/c } } }
"#,
    );
    let ended = space.run();
    assert_eq!(ended.code, 2, "{ended:?}");
    for name in ["a", "b", "c"] {
        assert!(ended.err.contains(&format!("{name} -> ")), "{}", ended.err);
    }
}

#[test]
fn b19_a_deep_edit_in_a_folder_is_seen() {
    let space = Space::new(
        r#"
version: 1
stages:
  list: { uses: command, from: { d: ./d }, with: { run: "cat {in.d}/e/f/*.txt > {out.x}", outputs: { x: out/x } } }
  text: { uses: extract, from: ./d }
"#,
    );
    space.write("d/e/f/g.txt", "one\n");
    space.write("d/h.txt", "flat\n");
    assert!(space.run().ok().ran(&["list", "text"]));
    assert!(space.run().ok().ran(&[]));
    space.write("d/e/f/g.txt", "two\n");
    assert!(space.run().ok().ran(&["list", "text"]));
    assert_eq!(space.read("out/x"), "two\n");
    assert_eq!(space.read("out/text/text/e/f/g.txt"), "two\n");
    space.write("d/e/f/i.txt", "new\n");
    assert!(space.run().ok().ran(&["list", "text"]));
    assert_eq!(space.read("out/x"), "two\nnew\n");
    fs_err::rename(space.path("d/e/f/i.txt"), space.path("d/e/f/a.txt")).unwrap();
    assert!(space.run().ok().ran(&["list", "text"]), "a name is part of a folder");
    assert_eq!(space.read("out/x"), "new\ntwo\n");
}

#[test]
fn b20_the_workspace_copied_elsewhere_has_nothing_to_do() {
    both(|case| {
        let space = case.made();
        let other = Space::new("");
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(format!("{}/.", space.path("").display()))
            .arg(other.path(""))
            .status();
        assert!(copied.unwrap().success());
        case.idle(&other, case.holds);
    });
}

#[test]
fn b21_two_runs_at_once_do_each_stage_once() {
    let space = Space::new(SLOW);
    let run = || space.command(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    let mut first = run();
    wait_for("the stage to begin", || !space.log().is_empty());
    let mut second = run();
    wait_for("the second run to plan", || space.records().len() == 2);
    space.write("go", "");
    assert!(first.wait().unwrap().success());
    assert!(second.wait().unwrap().success());
    assert_eq!(space.log(), ["after", "slow"]);

    let space = Space::new(BUILT_IN.pipeline);
    for i in 0..20 {
        space.write(&format!("papers/{i}.txt"), &format!("Bond {i} fell.\n"));
    }
    let mut runs: Vec<_> = (0..2)
        .map(|_| space.command(&["run", "-j", "2"]).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    for run in &mut runs {
        assert!(run.wait().unwrap().success());
    }
    let mut ran = [0, 0];
    for event in space.records().into_iter().flatten() {
        if event["event"] == "stage_finished" {
            let stage = usize::from(event["stage"] == "chunks");
            ran[stage] += event["ran"].as_u64().unwrap();
        }
    }
    assert_eq!(ran, [20, 1]);
}

/// A stage with something that it does not declare, in a sandbox; and what the run says.
fn undeclared(run: &str) -> Option<[Ended; 2]> {
    let ran = |sandbox: &str, run: &str| {
        let space = Space::new(&format!(
            r#"
version: 1
sandbox: {sandbox}
stages:
  x: {{ uses: command, from: {{ a: ./a }}, with: {{ run: "{run}", outputs: {{ x: out/x }} }} }}
"#
        ));
        space.write("a", "a\n");
        space.write("b", "b\n");
        let out = space.command(&["run"]).env("QM_UNDECLARED", "1").output().unwrap();
        let ended = Ended {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        };
        (ended, space.records().concat())
    };
    for sandbox in ["trace", "strict"] {
        let (ended, events) = ran(sandbox, "cat {in.a} > {out.x}");
        let ended = ended.ok();
        assert!(!ended.err.contains("warning"), "all is declared: {ended:?}");
        let force = events.iter().find_map(|event| event["sandbox"].as_str());
        if !force.is_some_and(|force| force.starts_with(sandbox)) {
            skip(&format!("`sandbox: {sandbox}` has no means here: {force:?}"));
            return None;
        }
    }
    Some(["trace", "strict"].map(|sandbox| ran(sandbox, run).0))
}

/// A trace warns and a strict sandbox refuses, both with what to add to the pipeline.
fn told(run: &str, what: &str, add: &str) {
    let Some([trace, strict]) = undeclared(run) else { return };
    assert_eq!((trace.code, strict.code), (0, 1), "{trace:?}\n{strict:?}");
    for ended in [trace, strict] {
        assert!(ended.err.contains(what) && ended.err.contains(add), "{ended:?}");
    }
}

#[test]
fn b22_an_undeclared_input_is_noticed() {
    told("cat {in.a} b > {out.x}", "read `b`", "add `from: { b: ./b }`");
}

#[test]
fn b23_an_undeclared_output_is_noticed() {
    told("cat {in.a} > {out.x}; echo > stray", "wrote `stray`", "add `outputs: { stray: stray }`");
}

#[test]
fn b24_an_undeclared_variable_is_noticed() {
    told(
        "echo $QM_UNDECLARED > {out.x}",
        "the variable QM_UNDECLARED",
        "add `env: [QM_UNDECLARED]`",
    );
}

#[test]
fn a_result_that_was_not_confined_is_no_hit_under_strict() {
    let pipeline = r#"
version: 1
inputs: { a: data/* }
stages:
  peeks:
    uses: command
    map: a
    with: { run: "cat {in.item} secret.txt > {out.x}", outputs: { x: "out/{name}" } }
"#;
    let space = Space::new(pipeline);
    space.write("secret.txt", "s\n");
    space.write("data/a", "a\n");
    space.run().ok();
    space.write("pipeline.yaml", &pipeline.replace("version: 1", "version: 1\nsandbox: strict"));
    let ended = space.run();
    if ended.err.contains("Landlock") {
        return eprintln!("skipped: this kernel has no Landlock");
    }
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("not run under `sandbox: strict`"), "{ended:?}");
    let declared = pipeline.replace("map: a", "map: a\n    from: { s: ./secret.txt }");
    let strict = declared.replace("version: 1", "version: 1\nsandbox: strict");
    let strict = strict.replace(" secret.txt", " {in.s}");
    space.write("pipeline.yaml", &strict);
    space.run().ok();
    assert_eq!(space.read("out/a"), "a\ns\n");
    assert!(space.quantmill(&["run", "--force"]).ok().ran(&["peeks"]));
    space.write("pipeline.yaml", &strict.replace("strict", "off"));
    assert!(space.run().ok().ran(&[]));
}
