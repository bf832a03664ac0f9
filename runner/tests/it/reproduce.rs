//! A run made again from its record: the same, diverged, restored, gone, elsewhere.

use std::process::Command;

use serde_json::Value;

use crate::records;
use crate::space::{Ended, Space};

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap()
}

fn git(space: &Space, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    let mut command = Command::new("git");
    let out = command.args(identity).args(arguments).current_dir(space.path("")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_deterministic_run_is_the_same_to_the_bit_whatever_became_of_its_files() {
    let space = records::space();
    let mut command = space.command(&["run", "--set", "scale=3"]);
    assert!(command.env("UNIT", "m").output().unwrap().status.success());
    let lock = space.read("pipeline.lock");
    fs_err::remove_file(space.path("data/a.txt")).unwrap();
    space.write("data/b.txt", "77\n");
    space.write("data/new.txt", "77\n");
    space.write("pipeline.yaml", "version: 1\n");
    let ended = space.quantmill(&["runs", "reproduce", "latest"]).ok();
    assert!(ended.out.ends_with("reproduced: 2 stages, every artifact is the same to the bit\n"));
    assert!(ended.err.contains("inputs: 2 from the store"), "{}", ended.err);
    let ended = space.quantmill(&["runs", "reproduce", "latest", "--into", "again", "--json"]).ok();
    let told = json(&ended);
    assert_eq!((&told["reproduced"], &told["first"]), (&true.into(), &Value::Null));
    let name = space.path("").file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(space.read(&format!("again/{name}/pipeline.lock")), lock);
    assert_eq!(space.read(&format!("again/{name}/out/r")), "total:18\n");
    assert_eq!(space.quantmill(&["runs", "reproduce", "latest", "--into", "again"]).code, 2);
}

#[test]
fn the_first_stage_that_diverged_is_named_with_how() {
    let space = Space::new(
        r#"
version: 1
stages:
  steady: { uses: command, with: { run: "echo 1 > {out.x}", outputs: { x: out/x } } }
  noisy:
    uses: command
    from: { x: steady }
    with:
      run: "cat {in.x} > {out.y}; date +%s.%N >> {out.y}"
      outputs: { y: out/y }
  after:
    uses: command
    from: { y: noisy }
    with: { run: "cat {in.y} > {out.z}", outputs: { z: out/z } }
"#,
    );
    space.run().ok();
    let ended = space.quantmill(&["runs", "reproduce"]);
    assert_eq!(ended.code, 2, "a run has to be named");
    let ended = space.quantmill(&["runs", "reproduce", "latest"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("diverged first: noisy\n  out/y: "), "{}", ended.out);
    assert!(ended.out.contains("bytes, line 2: "), "{}", ended.out);
    let told = json(&space.quantmill(&["runs", "reproduce", "latest", "--json"]));
    let verdicts: Vec<&Value> =
        told["stages"].as_array().unwrap().iter().map(|stage| &stage["verdict"]).collect();
    assert_eq!(verdicts, ["same", "differs", "follows"]);
    assert_eq!((&told["first"], &told["reproduced"]), (&"noisy".into(), &false.into()));
}

#[test]
fn numbers_may_be_apart_as_far_as_is_said() {
    let space = Space::new(
        r#"
version: 1
stages:
  noisy:
    uses: command
    with:
      run: "date +%N | awk '{printf \"{\\\"loss\\\": 1.000%s}\\n\", $1}' > {out.y}"
      outputs: { y: out/y.json }
"#,
    );
    space.run().ok();
    let ended = space.quantmill(&["runs", "reproduce", "latest"]);
    assert_eq!(ended.code, 1, "on the CPU every bit counts");
    assert!(ended.out.contains("at /loss"), "{}", ended.out);
    let ended = space.quantmill(&["runs", "reproduce", "latest", "--tolerance", "0.01"]).ok();
    assert!(ended.out.ends_with("reproduced: 1 stage, 1 within 1e-2\n"), "{}", ended.out);
}

#[test]
fn what_the_store_lost_comes_from_git_and_what_is_gone_is_named() {
    let space = records::space();
    space.write("tool.sh", "sed s/^/total:/ \"$1\"\n");
    let pipeline = records::PIPELINE.replace("sed s/^/total:/ {in.n}", "sh tool.sh {in.n}");
    space.write("pipeline.yaml", &pipeline);
    space.write(".gitignore", ".quantmill/\nout/\n");
    git(&space, &["init", "-q"]);
    git(&space, &["add", "."]);
    git(&space, &["commit", "-qm", "one"]);
    space.run().ok();
    // The script is no declared input: only the commit has it as it was.
    space.write("tool.sh", "exit 1\n");
    space.write("data/extra.txt", "5\n");
    git(&space, &["add", "."]);
    git(&space, &["commit", "-qm", "two"]);
    fs_err::remove_file(space.path("data/a.txt")).unwrap();
    space.quantmill(&["runs", "reproduce", "latest"]).ok();
    let archive = space.quantmill(&["runs", "export"]).ok().out;

    // Without the store's copies.
    let digest = quantmill_cache::Digest::of(b"1\n2\n").to_string();
    let blob = space.path(&format!(".quantmill/store/{}/{}", &digest[..2], &digest[2..]));
    fs_err::remove_file(&blob).unwrap();
    let ended = space.quantmill(&["runs", "reproduce", "latest"]).ok();
    assert!(ended.err.contains("inputs: 1 from the store, 1 from the commit"), "{}", ended.err);

    // Without git as well.
    fs_err::remove_dir_all(space.path(".git")).unwrap();
    let ended = space.quantmill(&["runs", "reproduce", "latest"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains(&format!("data/a.txt ({})", &digest[..8])), "{}", ended.out);
    assert_eq!(space.quantmill(&["runs", "export"]).code, 1);

    // The archive has it all: in another folder, with another home and nothing of the first.
    let other = Space::new("");
    let archive = space.path(archive.trim());
    fs_err::copy(&archive, other.path("run.tar.gz")).unwrap();
    let dir = space.path("");
    fs_err::rename(&dir, dir.with_extension("moved")).unwrap();
    let ended =
        other.command(&["runs", "reproduce", "run.tar.gz"]).env("HOME", other.path("")).output();
    let ended = ended.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let id = other.quantmill(&["runs", "import", "run.tar.gz"]).ok().out;
    other.quantmill(&["runs", "reproduce", id.trim()]).ok();
    assert_eq!(other.quantmill(&["runs", "import", "run.tar.gz"]).code, 2);
    fs_err::rename(dir.with_extension("moved"), dir).unwrap();
}

#[test]
fn the_same_run_is_exported_to_the_same_bytes_and_damage_is_seen() {
    let space = records::space();
    space.run().ok();
    let export = |to: &str| {
        space.quantmill(&["runs", "export", "latest", "-o", to]).ok();
        fs_err::read(space.path(to)).unwrap()
    };
    let first = export("a.tar.gz");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(first, export("b.tar.gz"));
    fs_err::write(space.path("cut.tar.gz"), &first[..first.len() / 2]).unwrap();
    fs_err::write(space.path("text.tar.gz"), "not an archive").unwrap();
    for name in ["cut.tar.gz", "text.tar.gz"] {
        let ended = space.quantmill(&["runs", "reproduce", name]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains("no archive of a run"), "{}", ended.err);
    }
}

#[test]
fn paths_that_lead_out_of_the_folder_are_laid_out_again() {
    let space = Space::new("");
    space.write("data/x.csv", "1\n");
    space.write(
        "deep/er/pipeline.yaml",
        r#"
version: 1
inputs: { x: ../../data/x.csv }
stages:
  copy: { uses: command, from: { x: x }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/y } } }
"#,
    );
    space.quantmill(&["run", "deep/er"]).ok();
    space.write("data/x.csv", "2\n");
    let mut command = space.command(&["runs", "reproduce", "latest"]);
    let ended = command.current_dir(space.path("deep/er")).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}
