//! What a run says in a pipe.

use crate::space::Space;

fn many(stages: usize) -> String {
    let mut yaml = String::from("version: 1\nstages:\n");
    for i in 0..stages {
        yaml.push_str(&format!(
            "  s{i}: {{ uses: command, with: {{ run: \"echo {i} > {{out.x}}\", outputs: {{ x: out/{i} }} }} }}\n"
        ));
    }
    yaml
}

#[test]
fn many_hits_are_one_line_and_few_a_line_each() {
    let space = Space::new(&many(50));
    space.run().ok();
    let again = space.run().ok();
    assert_eq!(again.err.lines().count(), 1, "{}", again.err);
    assert!(again.summary().starts_with("finished: 0 ran, 50 cached in "), "{}", again.err);
    space.write("pipeline.yaml", &many(50).replace("echo 7 ", "echo seven "));
    fs_err::remove_file(space.path("out/9")).unwrap();
    let one = space.run().ok();
    let said: Vec<&str> = one.err.lines().collect();
    assert_eq!(said[..2], ["cached  48 stages", "restore 1 stage"], "{}", one.err);
    assert!(one.ran(&["s7"]) && said.len() == 5, "{}", one.err);
    assert!(
        one.summary().starts_with("finished: 1 ran, 49 cached (1 restored) in "),
        "{}",
        one.err
    );
    space.write("pipeline.yaml", &many(3));
    let few = space.run().ok();
    assert_eq!(few.err.matches("cached  s").count(), 3, "{}", few.err);
}

#[test]
fn what_a_failed_command_printed_stands_once_above_its_failure() {
    let space = Space::new(
        r#"
version: 1
stages:
  a: { uses: command, with: { run: "for i in 1 2 3; do echo mine $i; sleep 0.1; done; touch {out.x}; exit 3", outputs: { x: out/a } } }
  b: { uses: command, with: { run: "for i in 1 2 3; do echo other $i; sleep 0.1; done; touch {out.x}; exit 4", outputs: { x: out/b } } }
  c: { uses: command, from: { x: a }, with: { run: "cat {in.x} > {out.y}", outputs: { y: out/c } } }
"#,
    );
    let ended = space.quantmill(&["run", "-k", "-j", "2"]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.err.matches("mine 2").count(), 1, "{}", ended.err);
    let lines: Vec<&str> = ended.err.lines().collect();
    let last = lines.iter().position(|line| *line == "a | mine 3").unwrap();
    assert!(lines[last + 1].starts_with("failed  a: `for i in"), "{}", ended.err);
    assert!(lines[last + 1].ends_with("` exited with status 3"), "{}", ended.err);
    let end = lines.len() - 3;
    assert_eq!(
        lines[end..end + 2],
        ["skipped c: a failed", "failed  in all: a, b"],
        "{}",
        ended.err
    );
    assert!(ended.summary().starts_with("failed: 0 ran, 0 cached, 2 failed, 1 skipped in "));
}
