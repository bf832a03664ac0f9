//! A few threads that share many short loops.
//!
//! One token of a small model is two hundred loops of a few microseconds: waking a thread for each
//! would cost more than the loop. While a pass runs the threads spin, and take units of work from a
//! counter; between passes they sleep. What a unit computes does not depend on who takes it. A
//! thread that the system has taken off its core delays a loop by one unit at the most.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Units of a loop, and turns of the ticket, at the most.
const UNITS: u64 = 1 << 20;

type Work = dyn Fn(usize, usize) + Sync;

/// The loop that runs: its number, its length and its next unit in one word, so that a thread that
/// comes late cannot take a unit of another loop.
#[derive(Default)]
struct Shared {
    ticket: AtomicU64,
    /// Points to the caller's reference to what a unit does.
    work: AtomicPtr<&'static Work>,
    done: AtomicUsize,
    failed: AtomicBool,
    awake: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Takes units of the loop until there are no more.
    fn help(&self, worker: usize) {
        loop {
            let seen = self.ticket.load(Acquire);
            if seen % UNITS >= seen / UNITS % UNITS {
                return;
            }
            let taken = self.ticket.fetch_add(1, AcqRel);
            if taken % UNITS >= taken / UNITS % UNITS {
                return;
            }
            // SAFETY: the loop of this unit does not return before the unit is done.
            let work = unsafe { *self.work.load(Relaxed) };
            let unit = (taken % UNITS) as usize;
            let run = std::panic::AssertUnwindSafe(|| work(unit, worker));
            if std::panic::catch_unwind(run).is_err() {
                self.failed.store(true, Relaxed);
            }
            self.done.fetch_add(1, Release);
        }
    }
}

/// Threads that wait for loops.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    pass: Mutex<()>,
}

/// The right to run loops: one pass at a time has it.
pub struct Pass<'a> {
    pool: &'a Pool,
    _one: MutexGuard<'a, ()>,
}

impl Pool {
    /// A pool of that many threads, the caller's among them.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared::default());
        let start = |worker: usize| {
            let shared = shared.clone();
            let name = format!("infer-{worker}");
            std::thread::Builder::new().name(name).spawn(move || wait(&shared, worker)).ok()
        };
        // A thread that cannot be had is done without.
        let threads = (1..threads).filter_map(start).collect();
        Pool { shared, threads, pass: Mutex::new(()) }
    }

    /// Threads, the caller's among them.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Waits for the pass before, and wakes the threads.
    pub fn pass(&self) -> Pass<'_> {
        let one = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.awake.store(true, SeqCst);
        self.threads.iter().map(JoinHandle::thread).for_each(Thread::unpark);
        Pass { pool: self, _one: one }
    }
}

impl Pass<'_> {
    /// Calls `work(unit, worker)` for each unit below `units`, on all threads; `worker` is below
    /// [`Pool::threads`] and no two calls at a time have the same.
    pub fn run(&self, units: usize, work: impl Fn(usize, usize) + Sync) {
        if units <= 1 || self.pool.threads.is_empty() {
            (0..units).for_each(|unit| work(unit, 0));
            return;
        }
        let shared = &self.pool.shared;
        let units = (units as u64).min(UNITS - UNITS / 2);
        let work: &(dyn Fn(usize, usize) + Sync) = &work;
        // SAFETY: the lifetime is given up, but this function returns only when nobody can call it.
        let mut work: &'static Work = unsafe { std::mem::transmute(work) };
        shared.work.store(&raw mut work, Relaxed);
        shared.done.store(0, Relaxed);
        let turn = shared.ticket.load(Relaxed) / UNITS / UNITS + 1;
        shared.ticket.store((turn * UNITS + units) * UNITS, Release);
        shared.help(0);
        let mut spins = 0;
        while shared.done.load(Acquire) < units as usize {
            relax(&mut spins);
        }
        assert!(!shared.failed.swap(false, Relaxed), "a kernel failed");
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.pool.shared.awake.store(false, Release);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // Nothing panics there: units are caught.
            let _ = thread.join();
        }
    }
}

fn wait(shared: &Shared, worker: usize) {
    let mut spins = 0;
    let mut last = 0;
    while !shared.stop.load(Acquire) {
        if !shared.awake.load(Acquire) {
            std::thread::park();
            continue;
        }
        let seen = shared.ticket.load(Acquire) / UNITS;
        if seen == last {
            relax(&mut spins);
            continue;
        }
        (last, spins) = (seen, 0);
        shared.help(worker);
    }
}

/// Spins for some microseconds, then lets others have the core between looks.
fn relax(spins: &mut u32) {
    *spins += 1;
    if *spins < 4000 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_every_loop_runs_once() {
        let pool = Pool::new(3);
        for round in 0..20 {
            let pass = pool.pass();
            for units in [0, 1, 2, 3, 17, 1000] {
                let counts: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                pass.run(units, |unit, worker| {
                    assert!(worker < 3);
                    counts[unit].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|n| n.load(Relaxed) == 1), "{round}: {units}");
            }
        }
    }

    #[test]
    fn a_failure_in_a_thread_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let fail = || pool.pass().run(8, |unit, _| assert!(unit != 5));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(fail)).is_err());
        let sum = AtomicUsize::new(0);
        pool.pass().run(8, |unit, _| {
            sum.fetch_add(unit, Relaxed);
        });
        assert_eq!(sum.into_inner(), 28);
    }
}
