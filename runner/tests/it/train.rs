//! Training that is killed: the next run goes on from the last checkpoint, and what comes out is, to
//! the bit, what comes out of a run that nobody disturbed.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::space::{Space, wait_for};

const PIPELINE: &str = r#"
version: 1
seed: 3
inputs:
  corpus: corpus.jsonl
  prompts: prompts.jsonl
stages:
  base:
    uses: train
    from: { corpus: corpus }
    with:
      method: sft
      steps: 120
      seq_len: 48
      checkpoint_every: 4
      eval_every: 30
      learning_rate: 0.01
      model: { hidden: 48, layers: 2, heads: 4, kv_heads: 2, ffn: 96, vocab: 320, context: 128 }
  tuned:
    uses: train
    from: { base: base, pairs: prompts }
    with:
      method: dapo
      steps: 24
      batch: 2
      checkpoint_every: 2
      lora: { r: 4 }
      dapo:
        group: 4
        form: code
        reward: { command: 'while read line; do case "$line" in *"completion\":\" B"*) echo 1;; *"completion\":\" S"*) echo 0.2;; *) echo 0;; esac; done' }
"#;

fn space() -> Space {
    let space = Space::new(PIPELINE);
    let orders = ["BM", "S10", "B25", "FL", "SM", "B100"];
    let text = |i: usize| format!("The spread is {} basis points.\\nDecision:", i % 9 + 2);
    let line = |i: usize| format!("{{\"text\": \"{} {}\"}}\n", text(i), orders[i % orders.len()]);
    space.write("corpus.jsonl", &(0..60).map(line).collect::<String>());
    let prompt = |i: usize| format!("{{\"prompt\": \"{}\"}}\n", text(i));
    space.write("prompts.jsonl", &(0..9).map(prompt).collect::<String>());
    space
}

/// The step of the checkpoint that is there.
fn step(space: &Space) -> Option<usize> {
    let mut folders = vec![space.path(".quantmill")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("checkpoint.safetensors") {
                // It is renamed into place whole, and may be gone again.
                let bytes = std::fs::read(path).ok()?;
                let text = String::from_utf8_lossy(&bytes);
                let (_, rest) = text.split_once("{\"step\":")?;
                return rest.split_once(',')?.0.parse().ok();
            }
        }
    }
    None
}

fn kill(mut run: Child) {
    // What computes may be a process of its own, and may end first.
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let children = std::fs::read_to_string(children).unwrap_or_default();
    run.kill().unwrap();
    for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
    }
    run.wait().unwrap();
}

#[test]
fn killed_in_training_it_goes_on_to_the_same_bits() {
    let (calm, killed) = (space(), space());
    calm.run().ok();
    for stage in ["base", "tuned"] {
        let mut last = 0;
        for _ in 0..2 {
            let mut command = killed.command(&["run", stage]);
            let run = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            wait_for("a checkpoint further on", || {
                let step = step(&killed);
                // One that began anew would write its first steps over it.
                assert!(step.is_none_or(|step| step >= last), "{step:?} after {last}");
                step.is_some_and(|step| step > last)
            });
            kill(run);
            assert!(
                !killed.path(&format!("out/{stage}")).exists(),
                "it ended before it was killed"
            );
            last = step(&killed).unwrap();
        }
        let ended = killed.quantmill(&["run", stage]).ok();
        assert!(ended.ran(&[stage]), "{}", ended.err);
    }
    let mut compared = 0;
    for stage in ["base", "tuned"] {
        let (calm, killed) = (calm.path("out").join(stage), killed.path("out").join(stage));
        let mut folders = vec![calm.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let other = killed.join(path.strip_prefix(&calm).unwrap());
                let same = fs_err::read(&path).unwrap() == fs_err::read(&other).unwrap();
                assert!(same, "{} differs", other.display());
                compared += usize::from(path.extension().is_some_and(|e| e == "safetensors"));
            }
        }
    }
    // Two models and an adapter.
    assert_eq!(compared, 3);
}
