//! `explain`: the chain of causes, who made a hit, and the key to the byte.

use std::io::Write;
use std::process::{Command, Stdio};

use quantmill_cache::{Digest, KEY_CONTEXT};
use serde_json::Value;

use crate::space::Space;

const PIPELINE: &str = r#"
version: 1
vars: { n: 2, word: x }
stages:
  text:   { uses: command, from: { i: ./src.txt }, with: { run: "cat {in.i} > {out.t}", outputs: { t: out/text } } }
  chunks: { uses: command, from: { i: text }, with: { run: "head -${n} {in.i} > {out.c}", outputs: { c: out/chunks } } }
  side:   { uses: command, from: { i: text }, with: { run: "wc -l < {in.i} > {out.s}", outputs: { s: out/side } } }
  model:
    uses: command
    from: { c: chunks, s: side }
    with: { run: "cat {in.c} {in.s} > {out.m}; echo ${word} >> {out.m}", outputs: { m: out/model } }
"#;

fn space() -> Space {
    let space = Space::new(PIPELINE);
    space.write("src.txt", "1\n2\n3\n");
    space.run().ok();
    space
}

#[test]
fn causes_come_first_and_the_chain_follows() {
    let space = space();
    let told = space.quantmill(&["explain", "model", "--set", "n=1", "--set", "word=y"]).ok().out;
    let wanted = "\
model: unknown, waits on chunks, because
  chunks.run: head -2 {in.i} > {out.c} -> head -1 {in.i} > {out.c}
  model.run: …{out.m}; echo x >> {out.m} -> …{out.m}; echo y >> {out.m}

model  unknown: waits on chunks; run: …";
    assert!(told.starts_with(wanted), "{told}");
    let (chunks, side) =
        (told.find("├─ chunks  run: ").unwrap(), told.find("└─ side  hit: ").unwrap());
    assert!(chunks < side, "what runs is drawn first: {told}");
    assert!(
        told.contains("│  └─ text  hit: made 2") && told.contains("└─ text  (above)"),
        "{told}"
    );
    assert!(told.contains("└─ ./src.txt\n"), "{told}");
    let half = space.quantmill(&["explain", "model", "--set", "n=1"]).ok().out;
    assert!(half.starts_with("model: unknown, waits on chunks (equal output would"), "{half}");
    assert!(told.lines().all(|line| line.chars().count() <= 120), "{told}");
}

#[test]
fn a_hit_says_who_made_it_where_it_is_and_that_an_edit_was_taken_back() {
    let space = space();
    let first = space.quantmill(&["explain", "chunks"]).ok().out;
    let run = fs_err::read_dir(space.path(".quantmill/runs")).unwrap().next().unwrap().unwrap();
    let run = run.file_name().into_string().unwrap();
    assert!(first.contains(&format!("by run {run} in ")), "{first}");
    assert!(first.contains(&format!("file:{}  ", Digest::of(b"1\n2\n"))), "{first}");
    assert!(first.contains("out/chunks\n") && !first.contains("reverted"), "{first}");
    space.quantmill(&["run", "--set", "n=1"]).ok();
    let back = space.quantmill(&["explain", "chunks"]).ok().out;
    assert!(back.contains(&format!("by run {run} in ")), "the first run made it: {back}");
    assert!(back.contains("since the last run, to what was made before: run: head -1"), "{back}");
    let json = space.quantmill(&["explain", "model", "--json"]).ok().out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["chain"].as_array().unwrap().len(), 4);
    assert_eq!(json[0]["chain"][0]["made"]["run"], run.as_str());
    assert_eq!(space.quantmill(&["explain"]).code, 2);
}

#[test]
fn a_key_is_the_hash_of_what_explain_prints() {
    let space = space();
    let printed = space.quantmill(&["explain", "--key", "chunks"]).ok().out;
    let lock = quantmill::lock::read(&space.path("pipeline.lock"));
    let locked = lock.key("chunks").unwrap();
    assert_eq!(Digest::derive(KEY_CONTEXT, printed.as_bytes()), locked);
    assert!(space.quantmill(&["explain", "--help"]).ok().out.contains(KEY_CONTEXT));
    let waits = space.quantmill(&["explain", "--key", "model", "--set", "n=1"]);
    assert_eq!((waits.code, waits.out.as_str()), (2, ""));
    assert!(waits.err.contains("it waits on chunks"), "{}", waits.err);
    // Python's blake3, where it is installed, is not ours; the variable insists on it.
    let python = "import sys, blake3; data = sys.stdin.buffer.read(); \
                  print(blake3.blake3(data, derive_key_context=sys.argv[1]).hexdigest())";
    let mut tool = Command::new("python3");
    tool.args(["-c", python, KEY_CONTEXT]).stdin(Stdio::piped());
    let tool = tool.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let said = tool.ok().and_then(|mut tool| {
        // It may be gone already where it cannot import the package.
        let _ = tool.stdin.take()?.write_all(printed.as_bytes());
        tool.wait_with_output().ok().filter(|out| out.status.success())
    });
    match said {
        Some(said) => assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), locked.to_string()),
        None => {
            assert!(std::env::var_os("QUANTMILL_TEST_BLAKE3").is_none(), "no blake3 in python3")
        }
    }
}
