//! Lock files and `git merge`: a conflict is confined to the stages that really differ, and costs
//! nothing that is known.

use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quantmill::lock::{self, Lockfile};
use quantmill_cache::{ActionKey, Artifact, Digest};

use crate::space::Space;

const PIPELINE: &str = r#"
version: 1
stages:
  a: { uses: command, from: { x: ./a.txt }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/a } } }
  b: { uses: command, from: { x: ./b.txt }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/b } } }
  c: { uses: command, from: { x: ./c.txt }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/c } } }
"#;

fn git(space: &Space, arguments: &[&str]) -> bool {
    let mut git = Command::new("git");
    git.current_dir(space.path("")).args(["-c", "user.name=n", "-c", "user.email=e"]);
    git.args(arguments).output().unwrap().status.success()
}

/// A repository whose branch `topic` has edited `topic`, and whose checked-out branch has edited
/// `main`; each has run and committed its lock.
fn branches(main: &str, topic: &str) -> Space {
    let space = Space::new(PIPELINE);
    space.write(".gitignore", "out/\n.quantmill/\n");
    let edit = |file: &str, text: &str| {
        space.write(file, text);
        space.run().ok();
        assert!(git(&space, &["add", "."]) && git(&space, &["commit", "-qm", "edit"]));
    };
    assert!(git(&space, &["init", "-q", "-b", "main"]));
    for file in ["a.txt", "b.txt"] {
        space.write(file, "base\n");
    }
    edit("c.txt", "base\n");
    assert!(git(&space, &["checkout", "-qb", "topic"]));
    edit(topic, "topic\n");
    assert!(git(&space, &["checkout", "-q", "main"]));
    edit(main, "main\n");
    space
}

#[test]
fn branches_that_change_neighbours_merge() {
    for (main, topic) in [("a.txt", "b.txt"), ("c.txt", "b.txt"), ("a.txt", "c.txt")] {
        let space = branches(main, topic);
        assert!(git(&space, &["merge", "-q", "topic"]), "{main} {topic}");
        let merged = space.read("pipeline.lock");
        assert!(space.run().ok().ran(&[]), "both are known");
        assert_eq!(space.read("pipeline.lock"), merged, "the merge is what a run writes");
    }
}

#[test]
fn branches_that_change_the_same_stage_conflict_there_alone() {
    let space = branches("b.txt", "b.txt");
    assert!(!git(&space, &["merge", "-q", "topic"]));
    let marked = space.read("pipeline.lock");
    let conflict = marked.split("<<<<<<<").skip(1).collect::<String>();
    let conflict = conflict.rsplit_once(">>>>>>>").unwrap().0;
    assert!(marked.contains("  \"a\":") && marked.contains("  \"c\":"), "{marked}");
    assert!(!conflict.contains("  \"a\":") && !conflict.contains("  \"c\":"), "{marked}");
    let lock = lock::read(&space.path("pipeline.lock"));
    assert_eq!(["a", "b", "c"].map(|stage| lock.sides(stage).len()), [1, 2, 1]);
    // Resolved by taking theirs: what that branch made is still there.
    space.write("b.txt", "topic\n");
    assert!(space.run().ok().ran(&[]));
    let clean = space.read("pipeline.lock");
    assert!(!clean.contains("<<<<<<<"), "{clean}");
    assert_eq!(lock::read(&space.path("pipeline.lock")).sides("b"), lock.sides("b")[1..]);
}

fn record(lock: &mut Lockfile, stage: usize, value: usize) {
    let key = ActionKey {
        stage: "command".into(),
        version: 1,
        params: serde_json::json!({ "run": format!("echo {value}"), "outputs": { "x": "x" } }),
        ..ActionKey::default()
    };
    let digest = Digest::of(&value.to_le_bytes());
    lock.set(&format!("stage{stage:02}"), &key, &[("x".into(), Artifact::File(digest))].into());
}

/// One side changes or leaves each stage, or the other does; one of them removes a stage and one
/// adds one. Of neighbours that are removed and added on different sides git makes a conflict.
#[test]
fn any_changes_of_different_stages_merge() {
    const STAGES: usize = 6;
    const LEFT: usize = 1;
    const RIGHT: usize = 2;
    const WANTED: usize = 3;
    let side = || LEFT..=RIGHT;
    let edits = prop::collection::vec((any::<bool>(), side()), STAGES);
    let strategy = (edits, (0..STAGES, side()), (0..=STAGES, side()));
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let merges = |(edits, removed, added): (Vec<(bool, usize)>, _, (usize, usize))| {
        let mut locks = [(); 4].map(|()| Lockfile::default());
        for (i, (change, side)) in edits.into_iter().enumerate() {
            let gone = removed == (i, side) && (side == added.1 || added.0.abs_diff(i) > 1);
            for (j, lock) in locks.iter_mut().enumerate() {
                match j == side || j == WANTED {
                    true if gone => {}
                    true if change => record(lock, 2 * i + 1, 100 + i),
                    _ => record(lock, 2 * i + 1, i),
                }
            }
        }
        record(&mut locks[added.1], 2 * added.0, 7);
        record(&mut locks[WANTED], 2 * added.0, 7);
        let dir = tempfile::tempdir().unwrap();
        let files = [0, LEFT, RIGHT, WANTED].map(|i| dir.path().join(i.to_string()));
        for (lock, file) in locks.iter().zip(&files) {
            lock.write(file).unwrap();
        }
        let [base, left, right, wanted] = &files;
        // As `git merge` does; by itself merge-file takes a cruder algorithm.
        let git = Command::new("git")
            .args(["merge-file", "-p", "--diff-algorithm=histogram"])
            .args([left, base, right])
            .output();
        let text = String::from_utf8(git.as_ref().unwrap().stdout.clone()).unwrap();
        prop_assert!(git.unwrap().status.success(), "{}", text);
        prop_assert_eq!(text, fs_err::read_to_string(wanted).unwrap());
        Ok(())
    };
    TestRunner::new(config).run(&strategy, merges).unwrap();
}
