//! How much memory a large pipeline takes.

use std::process::Stdio;
use std::time::Duration;

use crate::space::{Space, long, skip};

const STAGES: usize = 10_000;
/// Bytes; models bring a larger program.
const MOST: u64 = if cfg!(feature = "models") { 80 << 20 } else { 64 << 20 };

fn space(chain: bool) -> Space {
    let mut text = String::from("version: 1\nstages:\n");
    for i in 0..STAGES {
        let from = if chain && i > 0 { format!("s{}", i - 1) } else { "./in.txt".into() };
        text.push_str(&format!(
            "  s{i}:\n    uses: command\n    from: {{ file: {from} }}\n    with: {{ run: \"cat \
             {{in.file}} > {{out.file}}\", outputs: {{ file: made/{i}.txt }} }}\n"
        ));
    }
    let space = Space::quick(&text);
    space.write("in.txt", "a line\n");
    space
}

/// The most memory that a process held, in bytes, as it was seen at any time. (What the system tells
/// at its end may be that of the process that started it.)
fn peak(space: &Space, arguments: &[&str]) -> u64 {
    let mut command = space.command(arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        most = most.max(kib.unwrap_or(0) * 1024);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success() && most > 0, "{arguments:?}: {ended}");
            return most;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn ten_thousand_stages_fit_in_64_mib() {
    let mut verbs = vec![vec!["check"], vec!["plan"]];
    if long() {
        verbs.extend([vec!["run", "-j", "2"], vec!["plan", "--force"]]);
    } else {
        skip("a run of 20,000 commands; QUANTMILL_TEST_LONG=1 runs them");
    }
    for chain in [true, false] {
        let space = space(chain);
        for verb in &verbs {
            let bytes = peak(&space, verb);
            assert!(bytes < MOST, "{verb:?}, chain {chain}: {} KiB", bytes / 1024);
        }
    }
}
