//! What the machine has to give, shared out so that it is never oversubscribed.
//!
//! Requests are served in order. One that does not fit holds back later ones only in what it is short
//! of: a stage that waits for a GPU lets stages that need none pass, and a stage that waits for
//! processors is not starved by a stream of small ones.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::diagnostic::Problem;
use crate::graph::{Graph, Needs};
use crate::plan::{Plan, Verdict};
use crate::report::text::count;

/// A machine's free resources and who waits for them.
#[derive(Debug)]
pub struct Machine {
    all: Needs,
    shares: Mutex<Shares>,
}

#[derive(Debug)]
struct Shares {
    free: Needs,
    queue: VecDeque<(Needs, oneshot::Sender<()>)>,
}

/// Resources in use; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    machine: Arc<Machine>,
    held: Needs,
}

impl Machine {
    /// A machine with this much to give.
    pub fn new(all: Needs) -> Arc<Machine> {
        let shares = Shares { free: all, queue: VecDeque::new() };
        Arc::new(Machine { all, shares: Mutex::new(shares) })
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the needs fit. What asks for more than there is gets all there is: it runs alone.
    pub async fn acquire(self: &Arc<Machine>, needs: Needs) -> Permit {
        let held = Needs {
            cpu: needs.cpu.min(self.all.cpu),
            gpu: needs.gpu.min(self.all.gpu),
            memory: needs.memory.min(self.all.memory),
        };
        let turn = {
            let mut shares = self.lock();
            let (sender, turn) = oneshot::channel();
            shares.queue.push_back((held, sender));
            shares.serve();
            turn
        };
        // The queue drops no one before its turn.
        let _ = turn.await;
        Permit { machine: Arc::clone(self), held }
    }
}

impl Shares {
    fn serve(&mut self) {
        let mut open = self.free;
        let mut at = 0;
        while at < self.queue.len() && open.cpu > 0 {
            let needs = self.queue[at].0;
            let short = (needs.cpu > open.cpu, needs.gpu > open.gpu, needs.memory > open.memory);
            if short == (false, false, false) {
                if let Some((_, turn)) = self.queue.remove(at) {
                    // Who no longer waits leaves its share where it is.
                    if turn.send(()).is_ok() {
                        open = less(open, needs);
                        self.free = less(self.free, needs);
                    }
                }
                continue;
            }
            // What it is short of is kept for it.
            open.cpu = if short.0 { 0 } else { open.cpu };
            open.gpu = if short.1 { 0 } else { open.gpu };
            open.memory = if short.2 { 0 } else { open.memory };
            at += 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shares = self.machine.lock();
        let (free, held) = (&mut shares.free, self.held);
        free.cpu += held.cpu;
        free.gpu += held.gpu;
        free.memory += held.memory;
        shares.serve();
    }
}

fn less(a: Needs, b: Needs) -> Needs {
    Needs { cpu: a.cpu - b.cpu, gpu: a.gpu - b.gpu, memory: a.memory - b.memory }
}

/// What this machine has: the processors that this process may use, NVIDIA's GPUs (on macOS one), and
/// the memory that there is or that its control group allows.
pub fn detect() -> Needs {
    let cpu = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let gpu = match cfg!(target_os = "macos") {
        true => 1,
        false => (0..64).filter(|n| Path::new(&format!("/dev/nvidia{n}")).exists()).count() as u32,
    };
    Needs { cpu, gpu, memory: memory().unwrap_or(u64::MAX) }
}

/// Bytes; `None` where the system does not say.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse().ok());
    Some(limit.map_or(total, |limit: u64| limit.min(total)))
}

/// The stages that may run and need what the machine does not have. Too few processors only make a
/// stage run alone.
pub fn lacking(graph: &Graph, plan: &Plan, machine: &Needs) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (node, step) in graph.nodes.iter().zip(&plan.steps) {
        if step.as_ref().is_none_or(|step| matches!(step.verdict, Verdict::Hit(_))) {
            continue;
        }
        let mut lacks = |what: String, has: String| {
            let message = format!("`{}` needs {what}; this machine has {has}", node.name);
            let problem = Problem::new("plan::needs", node.span, message);
            problems.push(problem.help("run it elsewhere, or ask for less below `needs`"));
        };
        if node.needs.gpu > machine.gpu {
            lacks(count(node.needs.gpu as usize, "GPU"), machine.gpu.to_string());
        }
        if node.needs.memory > machine.memory {
            let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
            lacks(format!("{} of memory", gib(node.needs.memory)), gib(machine.memory));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn needs(cpu: u32, gpu: u32, memory: u64) -> Needs {
        Needs { cpu, gpu, memory }
    }

    #[tokio::test]
    async fn nothing_is_given_twice_and_who_waits_for_a_gpu_lets_others_pass() {
        let machine = Machine::new(needs(4, 1, 100));
        let gpu = machine.acquire(needs(1, 1, 0)).await;
        let mut second = Box::pin(machine.acquire(needs(1, 1, 0)));
        assert!(futures_pending(&mut second).await);
        let cpu = machine.acquire(needs(2, 0, 0)).await;
        let mut large = Box::pin(machine.acquire(needs(4, 0, 0)));
        assert!(futures_pending(&mut large).await);
        // A processor is free, but the large one waits for it.
        let mut small = Box::pin(machine.acquire(needs(1, 0, 0)));
        assert!(futures_pending(&mut small).await);
        drop(gpu);
        drop(second.await);
        drop(cpu);
        drop(large.await);
        drop(small.await);
        drop(machine.acquire(needs(64, 0, 500)).await);
    }

    async fn futures_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
        let short = std::time::Duration::from_millis(1);
        tokio::time::timeout(short, future).await.is_err()
    }
}
