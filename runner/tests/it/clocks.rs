//! Clocks: files from the past and the future, edits within a tick of the file system's clock, edits
//! while a stage runs, and a machine whose clock jumps.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::space::{Space, long, skip, wait_for};

const COPY: &str = r#"
version: 1
stages:
  copy:
    uses: command
    from: { x: ./x }
    with: { run: "cat {in.x} > {out.y}", outputs: { y: out/y } }
"#;

fn set_time(space: &Space, name: &str, time: SystemTime) {
    std::fs::File::options()
        .write(true)
        .open(space.path(name))
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[test]
fn a_file_may_come_from_the_past_or_the_future() {
    let day = Duration::from_secs(86_400);
    let times = [SystemTime::UNIX_EPOCH + day, SystemTime::now() + 9000 * day];
    let space = Space::quick(COPY);
    for (i, &time) in times.iter().enumerate() {
        space.write("x", &format!("{i}one"));
        set_time(&space, "x", time);
        assert!(space.run().ok().ran(&["copy"]));
        // Long enough for the file's digest to be remembered.
        std::thread::sleep(Duration::from_millis(50));
        assert!(space.run().ok().ran(&[]));
        space.write("x", &format!("{i}two"));
        set_time(&space, "x", time);
        assert!(space.run().ok().ran(&["copy"]));
        assert_eq!(space.read("out/y"), format!("{i}two"));
        // Another file moves to its place, of the same size and time.
        space.write("other", &format!("{i}six"));
        set_time(&space, "other", time);
        fs_err::rename(space.path("other"), space.path("x")).unwrap();
        assert!(space.run().ok().ran(&["copy"]));
        assert_eq!(space.read("out/y"), format!("{i}six"));
        // So may an output.
        set_time(&space, "out/y", time);
        assert!(space.run().ok().ran(&[]));
        space.write("out/y", &format!("{i}bad"));
        set_time(&space, "out/y", time);
        assert!(space.run().ok().ran(&[]));
        assert_eq!(space.read("out/y"), format!("{i}six"));
    }
}

#[test]
fn an_edit_right_after_a_run_is_seen() {
    let space = Space::quick(COPY);
    for i in 0..if long() { 500 } else { 40 } {
        let text = format!("{i:03}");
        space.write("x", &text);
        space.run().ok();
        assert_eq!(space.read("out/y"), text);
        if i % 4 == 0 {
            space.write("out/y", "bad");
            assert!(space.run().ok().ran(&[]));
            assert_eq!(space.read("out/y"), text);
        }
    }
}

/// Its stages wait for a file `go`.
const WAITS: &str = r#"
version: 1
stages:
  first:
    uses: command
    with: { run: "echo first >> log; while ! [ -e go ]; do sleep 0.01; done; echo 1 > {out.y}", outputs: { y: out/a } }
  copy:
    uses: command
    from: { x: ./x, y: first }
    with: { run: "cat {in.x} > {out.y}", outputs: { y: out/y } }
"#;

#[test]
fn an_edit_while_the_run_goes_on_is_not_taken_for_what_was_hashed() {
    // Of the same size, and put back to the same time; and one that is undone before the end.
    for undo in [false, true] {
        let space = Space::quick(WAITS);
        space.write("x", "one");
        let time = fs_err::metadata(space.path("x")).unwrap().modified().unwrap();
        let mut command = space.command(&["run"]);
        let run = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the stage to begin", || !space.log().is_empty());
        space.write("x", "two");
        if undo {
            space.write("x", "one");
        }
        set_time(&space, "x", time);
        space.write("go", "");
        let ended = run.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{err}");
        assert!(err.contains("changed while"), "{err}");
        assert!(!space.path("out/y").exists());
        assert!(space.run().ok().ran(&["copy"]));
        assert_eq!(space.read("out/y"), if undo { "one" } else { "two" });
        // The other content was never believed to have been copied.
        space.write("x", if undo { "two" } else { "one" });
        assert!(space.run().ok().ran(&["copy"]));
        assert_eq!(space.read("out/y"), if undo { "two" } else { "one" });
    }
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let faketime = |by: &str| {
        let mut command = std::process::Command::new("faketime");
        command.args(["-f", by]);
        command
    };
    if !faketime("+1y").arg("true").status().is_ok_and(|status| status.success()) {
        return skip("there is no `faketime`");
    }
    let space = Space::quick(COPY);
    space.write("x", "abc");
    let mut last = String::new();
    for (i, by) in ["+0d", "-5y", "+7y", "+0d", "-1d", "+30y"].iter().enumerate() {
        let run = || {
            let mut command = faketime(by);
            command.arg(env!("CARGO_BIN_EXE_quantmill")).arg("run").current_dir(space.path(""));
            command.env_remove("QUANTMILL_HOME").env("NO_COLOR", "1");
            let out = command.output().unwrap();
            let err = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{by}: {err}");
            err.contains("done ")
        };
        assert_eq!(run(), i == 0, "nothing has changed but the time");
        let text = format!("{i:03}");
        space.write("x", &text);
        assert!(run(), "{by}");
        assert_eq!(space.read("out/y"), text, "{by}");
        assert!(!run(), "{by}");
        space.write("out/y", "bad");
        assert!(!run(), "{by}");
        assert_eq!(space.read("out/y"), text, "{by}");
        assert_ne!(text, last);
        last = text;
    }
    let names: std::collections::BTreeSet<_> = fs_err::read_dir(space.path(".quantmill/runs"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(names.len(), 24, "each run has a record of its own");
}
