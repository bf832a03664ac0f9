//! What a server counts, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the buckets of times, seconds.
const BUCKETS: [f64; 10] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

/// A histogram of times.
#[derive(Debug, Default)]
struct Times {
    counts: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Times {
    fn add(&self, time: Duration) {
        let at = BUCKETS.partition_point(|end| *end < time.as_secs_f64());
        self.counts[at].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(0), Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, about: &str) {
        let _ = writeln!(out, "# HELP {name} {about}\n# TYPE {name} histogram");
        let mut sum = 0;
        for (at, count) in self.counts.iter().enumerate() {
            sum += count.load(Relaxed);
            let end = BUCKETS.get(at).map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{le=\"{end}\"}} {sum}");
        }
        let seconds = self.micros.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum {seconds}\n{name}_count {sum}");
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    prompt: AtomicU64,
    cached: AtomicU64,
    generated: AtomicU64,
    forced: AtomicU64,
    running: AtomicU64,
    first: Times,
    whole: Times,
}

impl Metrics {
    /// A request has been answered, with a status.
    pub fn request(&self, path: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((path, status)).or_default() += 1;
    }

    /// A prompt of so many tokens, of which so many were known.
    pub fn prompt(&self, tokens: usize, cached: usize) {
        self.prompt.fetch_add(tokens as u64, Relaxed);
        self.cached.fetch_add(cached as u64, Relaxed);
    }

    /// Tokens came out, of which so many were forced.
    pub fn tokens(&self, tokens: usize, forced: usize) {
        self.generated.fetch_add(tokens as u64, Relaxed);
        self.forced.fetch_add(forced as u64, Relaxed);
    }

    /// So many samples are under way.
    pub fn running(&self, samples: usize) {
        self.running.store(samples as u64, Relaxed);
    }

    /// The first token of a request came after so long.
    pub fn first(&self, time: Duration) {
        self.first.add(time);
    }

    /// A request was answered after so long.
    pub fn whole(&self, time: Duration) {
        self.whole.add(time);
    }

    /// All of it. `taken` requests run or wait.
    pub fn text(&self, taken: usize) -> String {
        let mut out = String::new();
        let name = "quantmill_requests_total";
        let _ = writeln!(out, "# HELP {name} Requests by path and status.\n# TYPE {name} counter");
        for ((path, status), n) in
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let _ = writeln!(out, "{name}{{path=\"{path}\",status=\"{status}\"}} {n}");
        }
        for (name, about, value) in [
            ("prompt_tokens_total", "Tokens of prompts.", &self.prompt),
            (
                "cached_tokens_total",
                "Tokens of prompts that earlier ones began with.",
                &self.cached,
            ),
            ("generated_tokens_total", "Tokens of answers.", &self.generated),
            ("forced_tokens_total", "Tokens of answers that a grammar forced.", &self.forced),
        ] {
            let value = value.load(Relaxed);
            let _ = writeln!(
                out,
                "# HELP quantmill_{name} {about}\n# TYPE quantmill_{name} counter\nquantmill_{name} {value}"
            );
        }
        for (name, about, value) in [
            ("samples_running", "Samples under way.", self.running.load(Relaxed)),
            ("requests_taken", "Requests that run or wait.", taken as u64),
        ] {
            let _ = writeln!(
                out,
                "# HELP quantmill_{name} {about}\n# TYPE quantmill_{name} gauge\nquantmill_{name} {value}"
            );
        }
        let about = "Seconds until the first token.";
        self.first.write(&mut out, "quantmill_first_token_seconds", about);
        self.whole.write(&mut out, "quantmill_request_seconds", "Seconds of a whole answer.");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_add_up() {
        let metrics = Metrics::default();
        for millis in [5, 10, 11, 2_000, 1_000_000] {
            metrics.first(Duration::from_millis(millis));
        }
        metrics.request("/health", 200);
        metrics.request("/health", 200);
        let text = metrics.text(3);
        for line in [
            "quantmill_requests_total{path=\"/health\",status=\"200\"} 2",
            "quantmill_first_token_seconds_bucket{le=\"0.01\"} 2",
            "quantmill_first_token_seconds_bucket{le=\"0.03\"} 3",
            "quantmill_first_token_seconds_bucket{le=\"3\"} 4",
            "quantmill_first_token_seconds_bucket{le=\"+Inf\"} 5",
            "quantmill_first_token_seconds_sum 1002.026",
            "quantmill_requests_taken 3",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
    }
}
