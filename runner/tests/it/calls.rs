//! A run that ends, or is refused, at its Nth system call of a kind, for every N: what the next finds.
//!
//! `strace` does it, so this needs one, and minutes: `QUANTMILL_TEST_LONG=1`. Of a run with several
//! threads and children it counts each by itself, so that one N hits several of them in turn.

use std::process::Command;

use crate::space::{Ended, Space, long, skip};

const PIPELINE: &str = r#"
version: 1
vars: { n: 1 }
stages:
  a: { uses: command, from: { x: ./x }, with: { run: "cat {in.x} > {out.y}; echo ${n} >> {out.y}", outputs: { y: out/a } } }
  b: { uses: command, from: { x: a }, with: { run: "for i in 1 2; do cat {in.x} > {out.y}/$i; done", outputs: { y: out/b/ } } }
  c: { uses: extract, from: ./docs }
"#;

/// What changes the file system, or tells it to keep what it has.
const CALLS: [&str; 11] = [
    "openat",
    "write",
    "pwrite64",
    "rename,renameat,renameat2",
    "mkdir,mkdirat",
    "unlink,unlinkat",
    "rmdir",
    "ftruncate",
    "chmod,fchmod,fchmodat",
    "fsync,fdatasync,syncfs",
    "fcntl",
];

fn traceable() -> bool {
    if !long() {
        skip("QUANTMILL_TEST_LONG is not set");
        return false;
    }
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        skip("there is no `strace` that may trace");
        return false;
    }
    true
}

fn new() -> Space {
    let space = Space::quick(PIPELINE);
    space.write("x", "text\n");
    space.write("docs/a.txt", "Bonds fell.\n");
    space.write("docs/b.txt", "Rates rose.\n");
    space
}

fn run(space: &Space, n: usize, fault: &str) -> Ended {
    let mut command = Command::new("strace");
    let calls = fault.split(['=', ':']).nth(1).unwrap_or_default();
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", fault]);
    command.args([env!("CARGO_BIN_EXE_quantmill"), "run", "-j", "2", "--set", &format!("n={n}")]);
    command.current_dir(space.path("")).env_remove("QUANTMILL_HOME").env("NO_COLOR", "1");
    let out = command.output().unwrap();
    Ended {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// The next run, which nothing disturbs, is right.
fn right(space: &Space, n: usize, after: &str) {
    let ended = space.quantmill(&["run", "--set", &format!("n={n}")]);
    assert_eq!(ended.code, 0, "after {after}: {ended:?}");
    let text = format!("text\n{n}\n");
    assert_eq!(space.read("out/a"), text, "after {after}: {ended:?}");
    for i in 1..=2 {
        assert_eq!(space.read(&format!("out/b/{i}")), text, "after {after}: {ended:?}");
    }
    assert_eq!(space.read("out/c/text/a.txt"), "Bonds fell.\n", "after {after}: {ended:?}");
    assert_eq!(space.read("out/c/text/b.txt"), "Rates rose.\n", "after {after}: {ended:?}");
    if !ended.ran(&[]) {
        assert_eq!(space.leftovers(), Vec::<String>::new(), "after {after}");
    }
}

/// For every call and every N, in a fresh space and in one that has run before.
fn sweep(fault: &str, check: impl Fn(&Ended, &str)) {
    let (mut tried, mut hit) = (0, 0);
    for calls in CALLS {
        for fresh in [true, false] {
            let mut space = new();
            for nth in 1..400 {
                if fresh {
                    space = new();
                }
                let inject = format!("inject={calls}:{fault}:when={nth}");
                let ended = run(&space, nth, &inject);
                check(&ended, &inject);
                right(&space, nth, &inject);
                tried += 1;
                hit += usize::from(ended.code != 0);
                // Beyond the last call of that kind nothing happens any more.
                if ended.code == 0 && nth > 20 {
                    break;
                }
            }
        }
    }
    eprintln!("{fault}: {tried} runs, of which {hit} did not end well");
    assert!(hit > 0);
}

#[test]
fn killed_at_any_call_the_next_run_is_right() {
    if traceable() {
        sweep("signal=KILL", |_, _| ());
    }
}

#[test]
fn refused_any_call_it_says_so_and_the_next_run_is_right() {
    if !traceable() {
        return;
    }
    for fault in ["error=ENOSPC", "error=EIO"] {
        sweep(fault, |ended, inject| {
            assert!([0, 1, 2, 70].contains(&ended.code), "{inject}: {ended:?}");
            // tokio wakes its threads by a `write` to an eventfd, which no disk refuses.
            let woken = ended.err.contains("failed to wake I/O driver");
            assert!(woken || !ended.err.contains("panicked"), "{inject}: {ended:?}");
        });
    }
}
