//! Runs that are ended at any moment: what the next one finds and makes.
//!
//! A pipeline of six stages (files, folders, several outputs, an output at its own path, a built-in
//! one over items) is killed again and again, with and without its commands, and asked to stop. After
//! each the next run must end well, every output must be right, and nothing may be left behind. 12
//! rounds by default; 500 with `QUANTMILL_TEST_LONG=1`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::space::{Space, long, wait_for};

const PIPELINE: &str = r#"
version: 1
inputs:
  n: n
  docs: docs/*.txt
stages:
  a:
    uses: command
    from: { n: n }
    with: { run: "printf half > {out.x}; sleep 0.01; read n < {in.n}; echo $((n + 1)) > {out.x}", outputs: { x: out/a } }
  b:
    uses: command
    from: { a: a }
    with: { run: "read n < {in.a}; for i in 1 2 3 4 5; do echo $((n * i)) > {out.d}/$i; sleep 0.003; done", outputs: { d: out/b/ } }
  c:
    uses: command
    from: { a: a }
    with: { run: "printf half > out/c; sleep 0.01; read n < {in.a}; echo $((n * 100)) > out/c", outputs: { x: out/c } }
  d:
    uses: command
    from: { b: b, c: c }
    with: { run: "cat {in.b}/* > {out.x}; sleep 0.01; cat {in.c} > {out.y}", outputs: { x: out/dx, y: out/dy } }
  e: { uses: extract, from: docs }
  f:
    uses: command
    from: { x: d.x, y: d.y, e: e }
    with: { run: "cat {in.x} {in.y} {in.e}/*.txt > {out.f}", outputs: { f: out/f } }
"#;

/// The pipeline with a number in it, which decides what every stage must give.
struct World {
    space: Space,
    n: u64,
}

impl World {
    fn new() -> World {
        let space = Space::quick(PIPELINE);
        fs_err::create_dir(space.path("out")).unwrap();
        let mut world = World { space, n: 0 };
        world.next();
        world
    }

    /// Other inputs, so that everything must be made.
    fn next(&mut self) {
        self.n += 1;
        self.space.write("n", &format!("{}\n", self.n));
        for i in 0..5 {
            self.space.write(&format!("docs/{i}.txt"), &format!("paper {i} of {}\n", self.n));
        }
    }

    fn spawn(&self) -> Child {
        let mut command = self.space.command(&["run", "-j", "4"]);
        command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// A run from here on ends well, gives what it must, and, where it runs anything, clears away
    /// what was left behind.
    fn right(&self) {
        let ended = self.space.quantmill(&["run", "-j", "4"]).ok();
        let a = self.n + 1;
        let values: String = (1..=5).map(|i| format!("{}\n", a * i)).collect();
        assert_eq!(self.space.read("out/a"), format!("{a}\n"), "{ended:?}");
        for i in 1..=5 {
            assert_eq!(self.space.read(&format!("out/b/{i}")), format!("{}\n", a * i), "{ended:?}");
        }
        assert_eq!(self.space.read("out/c"), format!("{}\n", a * 100), "{ended:?}");
        assert_eq!(self.space.read("out/dx"), values, "{ended:?}");
        assert_eq!(self.space.read("out/dy"), format!("{}\n", a * 100), "{ended:?}");
        let papers: String = (0..5).map(|i| format!("paper {i} of {}\n", self.n)).collect();
        assert_eq!(self.space.read("out/f"), format!("{values}{}\n{papers}", a * 100), "{ended:?}");
        if !ended.ran(&[]) {
            assert_eq!(self.space.leftovers(), Vec::<String>::new());
        }
    }
}

fn send(pid: u32, signal: Signal) {
    // It may have ended already.
    let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, signal));
}

/// Whether a process has not ended, though nobody may have asked how it ended.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The processes below a process.
fn descendants(of: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        let above = found[next];
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| pid));
        next += 1;
    }
    found.split_off(1)
}

/// Numbers without a pattern, the same in each run of the test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

#[test]
fn killed_at_any_moment_the_next_run_is_right() {
    let mut world = World::new();
    world.right();
    world.next();
    let begun = Instant::now();
    world.right();
    let whole = begun.elapsed().as_micros() as u64;
    let mut dice = Dice(1);
    for round in 0..if long() { 500 } else { 12 } {
        world.next();
        for _ in 0..=dice.below(2) {
            let mut run = world.spawn();
            std::thread::sleep(Duration::from_micros(dice.below(whole)));
            match round % 3 {
                0 => send(run.id(), Signal::KILL),
                1 => {
                    let below = descendants(run.id());
                    send(run.id(), Signal::KILL);
                    below.into_iter().for_each(|pid| send(pid, Signal::KILL));
                }
                // The commands first: the run sees them fail.
                _ => {
                    descendants(run.id()).into_iter().for_each(|pid| send(pid, Signal::KILL));
                    send(run.id(), Signal::KILL);
                }
            }
            run.wait().unwrap();
        }
        world.right();
    }
    world.next();
    world.right();
}

#[test]
fn asked_to_stop_it_stops_its_commands_and_says_so() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut world = World::new();
        world.right();
        world.next();
        let slow = PIPELINE.replace("sleep 0.01; read n < {in.n}", "echo > began; sleep 60");
        world.space.write("pipeline.yaml", &slow);
        let mut run = world.spawn();
        wait_for("the stage to begin", || world.space.path("began").exists());
        let below = descendants(run.id());
        assert!(!below.is_empty());
        let begun = Instant::now();
        send(run.id(), signal);
        assert_eq!(run.wait().unwrap().code(), Some(130), "{signal:?}");
        assert!(begun.elapsed() < Duration::from_secs(50), "it waited for the command");
        wait_for("the commands to end", || !below.iter().any(|&pid| alive(pid)));
        assert_eq!(world.space.leftovers(), Vec::<String>::new());
        world.space.write("pipeline.yaml", PIPELINE);
        world.right();
    }
}
