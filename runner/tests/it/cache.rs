//! `cache stats`, `verify` and `gc`, and what a run finds after them.

use std::path::PathBuf;

use crate::space::Space;

const TWO: &str = "
version: 1
inputs: { a: a.txt, b: b.txt }
stages:
  one: { uses: command, from: { x: a }, with: { run: 'echo one >> log; cat {in.x} > {out.text}', outputs: { text: one.txt } } }
  two: { uses: command, from: { x: b }, with: { run: 'echo two >> log; cat {in.x} > {out.text}', outputs: { text: two.txt } } }
";

fn space() -> Space {
    let space = Space::new(TWO);
    space.write("a.txt", "alpha, the first of them\n");
    space.write("b.txt", "beta, the second of them\n");
    space.run().ok();
    space
}

/// The blobs whose content holds a text.
fn blobs(space: &Space, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in fs_err::read_dir(space.path(".quantmill/store")).unwrap() {
        for blob in fs_err::read_dir(shard.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            if String::from_utf8_lossy(&fs_err::read(&path).unwrap()).contains(text) {
                found.push(path);
            }
        }
    }
    found
}

/// Changes a bit of a blob and nothing else that one could see.
fn flip(path: &PathBuf) {
    let mut bytes = fs_err::read(path).unwrap();
    bytes[3] ^= 1;
    fs_err::remove_file(path).unwrap();
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_is_found_and_its_producer_makes_it_again() {
    let space = space();
    assert!(space.quantmill(&["cache", "verify"]).ok().err.contains("all whole"));
    let blob = blobs(&space, "alpha").remove(0);
    flip(&blob);
    fs_err::remove_file(space.path("one.txt")).unwrap();
    let found = space.quantmill(&["cache", "verify"]);
    assert_eq!(found.code, 1, "{}", found.err);
    assert!(found.out.contains("pipeline.yaml: stage one, output text"), "{}", found.out);
    assert!(found.err.contains("hint: `quantmill run pipeline.yaml one` makes it again"));
    assert!(space.run().ok().ran(&["one"]));
    assert_eq!(space.read("one.txt"), "alpha, the first of them\n");
    assert_eq!(space.log(), ["one", "one", "two"]);
    assert!(space.quantmill(&["cache", "verify"]).ok().err.contains("all whole"));
}

#[test]
fn what_the_workspace_still_has_is_put_back() {
    let space = space();
    for blob in blobs(&space, "alpha") {
        flip(&blob);
    }
    let found = space.quantmill(&["cache", "verify"]);
    assert_eq!(found.code, 1);
    assert!(found.out.contains("put back from one.txt"), "{}", found.out);
    space.quantmill(&["cache", "verify"]).ok();
    fs_err::remove_file(space.path("one.txt")).unwrap();
    space.run().ok();
    assert_eq!(space.log(), ["one", "two"], "nothing ran again");
}

#[test]
fn gc_keeps_what_locks_and_runs_name_and_frees_the_rest() {
    let space = space();
    space.write("a.txt", "gamma, which came later\n");
    space.run().ok();
    // The first run names alpha still, and no lock does.
    space.quantmill(&["cache", "gc"]).ok();
    assert!(!blobs(&space, "alpha").is_empty() && !blobs(&space, "gamma").is_empty());
    let would = space.quantmill(&["cache", "gc", "--dry-run", "--keep-runs", "1"]).ok();
    assert!(would.err.contains("would free"), "{}", would.err);
    assert!(!blobs(&space, "alpha").is_empty(), "a dry run frees nothing");
    let freed = space.quantmill(&["cache", "gc", "--keep-runs", "0"]).ok();
    assert!(freed.out.contains("command"), "{}", freed.out);
    assert!(blobs(&space, "alpha").is_empty());
    assert!(!blobs(&space, "gamma").is_empty() && !blobs(&space, "beta").is_empty());
    fs_err::remove_file(space.path("two.txt")).unwrap();
    space.run().ok();
    assert_eq!(space.log(), ["one", "one", "two"], "what a lock names is a hit");
    space.write("a.txt", "alpha, the first of them\n");
    space.run().ok();
    assert_eq!(space.read("one.txt"), "alpha, the first of them\n");
    assert_eq!(space.log(), ["one", "one", "one", "two"], "what was freed is made again");
}

#[test]
fn gc_beside_a_run_loses_nothing() {
    let slow =
        TWO.replace("echo two >> log;", "echo two >> log; while [ ! -e go ]; do sleep 0.02; done;");
    let space = Space::new(&slow);
    space.write("a.txt", "alpha\n");
    space.write("b.txt", "beta\n");
    let mut run = space.command(&["run", "-j2"]).spawn().unwrap();
    while space.log().len() < 2 || !space.path("one.txt").exists() {
        assert!(run.try_wait().unwrap().is_none(), "the run ended early");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // No run counts, and no lock is there yet: only the run itself guards what it made.
    let _ = fs_err::remove_file(space.path("pipeline.lock"));
    let freed = space.quantmill(&["cache", "gc", "--keep-runs", "0"]).ok();
    assert!(freed.err.contains("a run is on"), "{}", freed.err);
    space.write("go", "");
    assert!(run.wait().unwrap().success());
    assert!(!blobs(&space, "alpha").is_empty() && !blobs(&space, "beta").is_empty());
    fs_err::remove_file(space.path("one.txt")).unwrap();
    space.run().ok();
    assert_eq!(space.log(), ["one", "two"]);
}

#[test]
fn stats_say_what_there_is() {
    let space = space();
    let told = space.quantmill(&["cache", "stats", "--json"]).ok().out;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["actions"], 2);
    assert_eq!(told["kinds"]["command"]["actions"], 2);
    assert_eq!(told["runs"], 1);
    assert_eq!(told["free"]["records"], 0);
    assert_eq!(told["largest"].as_array().unwrap().len(), 2);
    let text = space.quantmill(&["cache", "stats"]).ok().out;
    assert!(text.contains("one.text") && text.contains("2 actions"), "{text}");
    let nowhere = Space::new(TWO);
    assert_eq!(nowhere.quantmill(&["cache", "gc"]).code, 2);
}
