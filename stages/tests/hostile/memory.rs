//! An allocator that knows how much all threads hold, and says which try asked for too much.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A request that cannot be honest here, and would end the process if the system refused it.
const ABSURD: usize = 4 << 30;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(0);
static NOW: Mutex<String> = Mutex::new(String::new());

/// Begins to count; `what` is for the last words of the process.
pub fn begin(what: &str) {
    *NOW.lock().unwrap() = what.to_owned();
    BEFORE.store(HELD.load(Relaxed), Relaxed);
    MOST.store(HELD.load(Relaxed), Relaxed);
}

/// The most that was held at a time since [`begin`], beyond what was held then.
pub fn most() -> usize {
    MOST.load(Relaxed).saturating_sub(BEFORE.load(Relaxed))
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn add(size: usize) {
    if size > ABSURD {
        let what = NOW.try_lock().map(|now| now.clone()).unwrap_or_default();
        eprintln!("{what}: a request of {size} bytes");
        std::process::abort();
    }
    MOST.fetch_max(HELD.fetch_add(size, Relaxed) + size, Relaxed);
}

// SAFETY: the system's allocator, asked as the caller asked.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}
