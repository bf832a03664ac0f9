//! Runs the trials of a sweep: one process each, side by side as far as the machine can be divided.
//!
//! The first goes alone, with all there is: it makes what the trials have in common. Then as many go
//! at once as there are shares that hold the largest of their stages. GPUs and memory cannot be shared
//! out between processes, so where a stage needs some, one trial follows the other.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quantmill_stages::Device;

use crate::graph::Graph;
use crate::report::text::{Paint, colour, paint};

/// How many trials go at once, and how many actions each of them may run.
pub fn shares(graph: &Graph, jobs: u32, trials: usize, device: Device) -> (usize, u32) {
    let needs = || graph.nodes.iter().map(|node| node.needs);
    if device != Device::Cpu || needs().any(|needs| needs.gpu > 0 || needs.memory > 0) {
        return (1, jobs);
    }
    let largest = needs().map(|needs| needs.cpu).max().unwrap_or(1).max(1);
    // The first is done by then.
    let at_once = (jobs / largest).clamp(1, trials.saturating_sub(1).max(1) as u32);
    (at_once as usize, jobs / at_once)
}

/// A trial to run.
pub struct Trial<'a> {
    /// What is said of it at its start.
    pub head: String,
    /// The process, for a number of actions at a time.
    pub command: Box<dyn Fn(u32) -> std::io::Result<Command> + Sync + 'a>,
}

/// How far the trials are.
struct Progress {
    next: usize,
    interrupted: bool,
}

/// How it went.
pub struct Done {
    /// How many trials were begun: the first ones.
    pub begun: usize,
    /// One was interrupted, and no other began after that.
    pub interrupted: bool,
}

/// Runs trials until all are done, one is interrupted, or the time is up.
pub fn run(
    trials: &[Trial],
    (at_once, each): (usize, u32),
    jobs: u32,
    budget: Option<Duration>,
) -> std::io::Result<Done> {
    let started = Instant::now();
    let progress = Mutex::new(Progress { next: 0, interrupted: false });
    let lock =
        || -> MutexGuard<'_, Progress> { progress.lock().unwrap_or_else(PoisonError::into_inner) };
    let take = || -> Option<usize> {
        let mut progress = lock();
        let late = budget.is_some_and(|budget| started.elapsed() >= budget);
        let go = progress.next < trials.len() && !late && !progress.interrupted;
        progress.next += usize::from(go);
        go.then(|| progress.next - 1)
    };
    let note = |status: ExitStatus| lock().interrupted |= status.code() == Some(130);
    let alone = |at: usize, jobs: u32| -> std::io::Result<()> {
        eprintln!("{}", paint(colour(), Paint::Bold, &trials[at].head));
        note((trials[at].command)(jobs)?.status()?);
        Ok(())
    };
    if let Some(first) = take() {
        alone(first, jobs)?;
    }
    if at_once == 1 {
        while let Some(at) = take() {
            alone(at, jobs)?;
        }
    } else {
        let worker = || -> std::io::Result<()> {
            while let Some(at) = take() {
                let (status, said) = aside(&mut (trials[at].command)(each)?)?;
                // One write, so that those of two do not mix.
                eprint!("{}", paint(colour(), Paint::Bold, &trials[at].head) + "\n" + &said);
                note(status);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
            let died = |_| Err(std::io::Error::other("a trial's thread died"));
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(died))
        })?;
    }
    let progress = lock();
    Ok(Done { begun: progress.next, interrupted: progress.interrupted })
}

/// Runs a process that speaks when it has ended.
fn aside(command: &mut Command) -> std::io::Result<(ExitStatus, String)> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut said)?;
    }
    Ok((child.wait()?, String::from_utf8_lossy(&said).into_owned()))
}
