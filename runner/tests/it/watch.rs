//! `watch`: a save runs what it concerns, and nothing ends it but Ctrl-C.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::space::Space;

const PIPELINE: &str = r#"
version: 1
inputs: { days: "days/*.csv" }
stages:
  sum:
    uses: command
    from: { days: days, note: ./note.txt }
    with: { run: "cat {in.days}/* {in.note} > {out.sum}", outputs: { sum: out/sum } }
"#;

/// A watch that is on, and what it says.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn begin(space: &Space) -> Watching {
        let mut child = space.command(&["watch"]).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let said = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            said.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        Watching { child, lines }
    }

    /// Waits until it says this, and returns all that it said up to there.
    fn hears(&self, wanted: &str) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(60);
        let mut said = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            said.push(line.unwrap_or_else(|_| panic!("no `{wanted}` in {said:#?}")));
            if said.last().is_some_and(|line| line.contains(wanted)) {
                return said;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn saves_run_what_they_concern_until_it_is_interrupted() {
    let space = Space::new(PIPELINE);
    space.write("days/a.csv", "a\n");
    space.write("note.txt", "note\n");
    let mut watching = Watching::begin(&space);
    watching.hears("finished: 1 ran");
    watching.hears("waiting");

    // As editors save: a new file in place of the old one.
    space.write(".note.txt.swp", "better\n");
    fs_err::rename(space.path(".note.txt.swp"), space.path("note.txt")).unwrap();
    let said = watching.hears("finished: 1 ran");
    assert_eq!(said.iter().find(|line| line.starts_with("changed ")).unwrap(), "changed note.txt");
    assert!(said.iter().any(|line| line.contains("note.txt changed in line 1: note -> better")));
    watching.hears("waiting");

    space.write("days/b.csv", "b\n");
    watching.hears("b.csv is new");
    watching.hears("waiting");
    assert_eq!(space.read("out/sum"), "a\nb\nbetter\n");

    // What does not count, and then a pipeline that is wrong: the next line is about that.
    space.write("days/notes.txt", "-");
    space.write("other.txt", "-");
    space.write("pipeline.yaml", &PIPELINE.replace("uses: command", "uses: comand"));
    let said = watching.hears("did you mean `command`?");
    assert!(said.iter().any(|line| line == "changed pipeline.yaml"), "{said:#?}");
    watching.hears("waiting");
    space.write("pipeline.yaml", &PIPELINE.replace("cat {in.days}", "cat -n {in.days}"));
    watching.hears("finished: 1 ran");
    watching.hears("waiting");

    let interrupt = ["-INT".to_owned(), watching.child.id().to_string()];
    assert!(Command::new("kill").args(interrupt).status().unwrap().success());
    assert_eq!(watching.child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_change_during_a_run_is_picked_up_after_it() {
    let slow = PIPELINE.replace("> {out.sum}", "> {out.sum}; test -e slow && sleep 0.6; true");
    let space = Space::new(&slow);
    space.write("days/a.csv", "a\n");
    space.write("note.txt", "1\n");
    space.write("slow", "");
    let watching = Watching::begin(&space);
    watching.hears("run ");
    // It reads days/a.csv and not this one.
    space.write("days/b.csv", "b\n");
    let said = watching.hears("b.csv is new");
    assert!(said.iter().any(|line| line.starts_with("finished: 1 ran")), "{said:#?}");
    watching.hears("finished: 1 ran");
    assert_eq!(space.read("out/sum"), "a\nb\n1\n");
}
