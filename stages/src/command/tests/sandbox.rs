//! Commands that keep to what they declare, and others.

#![cfg(target_os = "linux")]

use std::path::Path;

use serde_json::json;

use super::{Heard, Space};
use crate::{Result, Sandbox, StageError};

#[test]
fn a_sandbox_that_is_off_says_so() {
    let space = Space::new(json!({ "run": "echo 1 > {out.y}", "outputs": { "y": "y.txt" } }));
    assert_eq!(*space.ran().sandbox.lock().unwrap(), "off");
}

/// A command in a sandbox, on files that it declares (`in.csv`, `data/`) and others that it does not.
fn confined(level: Sandbox, run: &str) -> (Space, Result<()>, Heard) {
    let params = json!({ "run": run, "outputs": { "y": "y.txt", "own": "made/own.txt" } });
    let mut space = Space::new(params)
        .feed("in", "in.csv", "pipeline/in.csv", "1\n")
        .feed("data", "a.csv", "pipeline/data/a.csv", "2\n")
        .feed("data", "b.csv", "pipeline/data/b.csv", "3\n");
    for name in ["params.json", "sub/1", "sub/2", "sub/3", "sub/4", "lib/__pycache__/x.pyc"] {
        let path = space.job.dir.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "x\n").unwrap();
    }
    space.job.sandbox = level;
    let (run, heard) = space.run();
    (space, run, heard)
}

/// strace may be missing or forbidden where the tests run; then there is nothing to test.
fn traced(heard: &Heard) -> bool {
    heard.sandbox.lock().unwrap().contains("strace ")
        && !heard.sandbox.lock().unwrap().contains("no strace")
}

const HONEST: &str = "cat {in.in} {in.data}/*.csv in.csv data/a.csv > {out.y}\n\
                      echo 1 > made/own.txt; echo 2 > $TMPDIR/x; cat $TMPDIR/x made/own.txt > /dev/null\n\
                      mkdir $TMPDIR/d; mv $TMPDIR/x $TMPDIR/d/y; ls . > /dev/null; (exit 0) & wait";

#[test]
fn a_command_that_declares_all_is_let_alone() {
    for level in [Sandbox::Trace, Sandbox::Strict] {
        let run = HONEST.replace("echo 1 > made", "mkdir -p made; echo 1 > made");
        let (space, run, heard) = confined(level, &run);
        run.unwrap();
        assert_eq!(*heard.warnings.lock().unwrap(), Vec::<String>::new(), "{level:?}");
        assert_eq!(space.text("y"), "1\n2\n3\n1\n2\n");
        assert_eq!(space.text("own"), "1\n");
    }
}

#[test]
fn a_trace_tells_of_each_undeclared_file_once() {
    let run = "mkdir made; echo 1 > made/own.txt; echo > {out.y}\n\
               cat params.json params.json lib/__pycache__/x.pyc > /dev/null\n\
               cd sub; cat 1 2 ../sub/3 4 ../none > /dev/null || true; cd ..\n\
               echo 3 > train.log; echo > t1; mv t1 t2; cat t2 > /dev/null; echo > gone; rm gone; rm sub/4";
    let (_, run, heard) = confined(Sandbox::Trace, run);
    run.unwrap();
    if !traced(&heard) {
        return;
    }
    assert_eq!(
        *heard.warnings.lock().unwrap(),
        [
            "read `params.json`, which it does not declare: add `from: { params: ./params.json }`",
            "read 4 files below `sub`, which it does not declare: add `from: { sub: ./sub }`",
            "wrote `t2`, which is no output: add `outputs: { t2: t2 }`, or write below $TMPDIR",
            "wrote `train.log`, which is no output: add `outputs: { train: train.log }`, or write \
             below $TMPDIR",
            "removed `sub/4`, which is none of its outputs: let it work on copies below $TMPDIR",
        ]
    );
}

#[test]
fn what_a_trace_watches_ends_as_it_would_alone() {
    let (_, run, heard) = confined(Sandbox::Trace, "echo out; sleep 60 & exit 7");
    let error = run.unwrap_err().to_string();
    assert!(error.ends_with("exited with status 7; its last lines:\n  out"), "{error}");
    let (_, run, _) = confined(Sandbox::Trace, "kill -9 $$");
    assert!(run.unwrap_err().to_string().contains("was ended by signal 9 (KILL)"));
    if traced(&heard) {
        // No line of the log may be lost, however short the command is.
        for _ in 0..20 {
            let (_, _, heard) = confined(Sandbox::Trace, "cat params.json");
            assert_eq!(heard.warnings.lock().unwrap().len(), 1);
        }
    }
}

/// Whether the kernel has Landlock; without it a strict command is refused.
fn strict(run: &str) -> Option<(Space, StageError)> {
    let (space, run, _) = confined(Sandbox::Strict, run);
    let error = run.unwrap_err();
    let lacks = error.to_string().contains("lacks");
    (!lacks).then_some((space, error))
}

#[test]
fn a_strict_sandbox_refuses_what_is_not_declared() {
    let declared = "mkdir -p made; echo 1 > made/own.txt; echo > {out.y}\n";
    let Some((space, error)) = strict(&format!("{declared}cat params.json")) else { return };
    let traced = error.to_string().contains("it\n  read `params.json`, which it does not declare");
    assert!(traced || error.help().unwrap().contains("sandbox: trace"), "{error:?}");
    assert!(error.to_string().contains("exited with status 1"), "{error}");
    let text = |path: &str| fs_err::read_to_string(space.job.dir.join(path));
    assert_eq!(text("made/own.txt").unwrap(), "1\n");
    let (space, error) = strict(&format!("{declared}echo 3 > train.log")).unwrap();
    assert!(error.to_string().contains("exited with status 2"), "{error}");
    assert!(!space.job.dir.join("train.log").exists());
    let (space, _) = strict("rm in.csv; exit 1").unwrap();
    assert!(space.job.dir.join("in.csv").exists());
    assert!(!space.job.dir.join("made/own.txt").exists(), "what was made for it is gone");
    let (space, _) = strict("echo > ../other; exit 1").unwrap();
    assert!(!space.root.path().join("other").exists());
    if traced {
        // It shrugs the refusal off, and fails all the same.
        let (_, error) =
            strict(&format!("{declared}cat params.json 2> /dev/null || true")).unwrap();
        assert_eq!(error.help(), Some("add `from: { params: ./params.json }`"));
        let (_, error) =
            strict(&format!("{declared}echo 3 > train.log || true; cat sub/1")).unwrap();
        assert_eq!(
            error.help(),
            Some(
                "add `from: { file_1: ./sub/1 }`; add `outputs: { train: train.log }`, or write below \
                 $TMPDIR"
            )
        );
    }
}

#[test]
fn a_strict_sandbox_has_no_network() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    // Of the interpreters at hand, bash is the one that connects by itself.
    if !Path::new("/bin/bash").exists() {
        return;
    }
    let run = format!(
        "mkdir -p made; echo > made/own.txt; echo > {{out.y}}\n\
         if bash -c 'echo > /dev/tcp/127.0.0.1/{port}'; then echo connected; fi"
    );
    let (_, run_, heard) = confined(Sandbox::Trace, &run);
    run_.unwrap();
    assert_eq!(*heard.lines.lock().unwrap(), ["connected"]);
    if traced(&heard) {
        let warnings = heard.warnings.lock().unwrap();
        assert!(
            warnings[0].starts_with(&format!("connected to 127.0.0.1:{port}: ")),
            "{warnings:?}"
        );
        if let Some((_, error)) = strict(&run) {
            assert!(
                error.to_string().contains(&format!("connected to 127.0.0.1:{port}")),
                "{error}"
            );
        }
    }
    let (_, _, heard) = confined(Sandbox::Strict, &run);
    assert!(!heard.lines.lock().unwrap().contains(&"connected".to_owned()));
}
