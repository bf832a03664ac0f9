//! 159,000 preference pairs from market data, end to end: `featurize`, `encode` and `pairs` in this
//! process. `cargo bench -p quantmill-stages --no-default-features --bench pairs`
//!
//! Minute bars are simulated. With QUANTMILL_MIRROR, a folder with `btc-perp-1m` and `binance-l2`, they
//! are those of a bitcoin future instead, and a second round makes as many pairs from ten minutes of a
//! real book at 10 ms, with fills from its queues. The bar is 30 seconds of wall time on two cores and
//! 1 GiB; RAYON_NUM_THREADS=2 holds a larger machine to two.
// In a benchmark a panic is the report.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use quantmill_stages::{ALL, Cancel, Context, Input, Job, Progress, Sink};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const PAIRS: usize = 159_000;

fn main() {
    let mirror = std::env::var_os("QUANTMILL_MIRROR").map(PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    println!("| round | step | wall s | CPU s |");
    println!("| --- | --- | --- | --- |");
    let bars = match &mirror {
        Some(mirror) => only(&mirror.join("btc-perp-1m"), ""),
        None => vec![simulated(dir.path(), 45_000)],
    };
    let featurize = json!({ "splits": { "train_fraction": 0.97 } });
    let encode = json!({ "bar": "minute", "decimals": 2 });
    let pairs = json!({
        "per_prompt": 4, "max_pairs": PAIRS, "min_gap_bps": 0.5, "offsets_bps": [2, 5, 10, 20],
        "reward": { "horizon_bars": 5 }
    });
    round("minute bars", dir.path(), &bars, featurize, encode, pairs);
    let Some(mirror) = mirror else {
        println!("no book: QUANTMILL_MIRROR is not set");
        return;
    };
    let source = json!({ "binance": {} });
    let featurize = json!({
        "source": source, "sampling": { "clock": { "every": "10ms" } },
        // No `p_high_vol`: at 10 ms nearly all returns are 0, and there are no two lasting states.
        "features": [
            "spread_bps", "imbalance", "depth", "microprice_dev_bps", "momentum_1", "momentum_5",
            "realised_vol", "order_flow_imbalance", "trade_intensity", "vpin", "rsi_14"
        ],
        "splits": { "train_fraction": 0.95 }
    });
    let encode = json!({ "bar": "tick", "decimals": 4 });
    let pairs = json!({
        "fills": "queue", "source": source, "per_prompt": 8, "max_pairs": PAIRS,
        "min_gap_bps": 0.1, "offsets_bps": [1, 2, 3, 5],
        "reward": {
            "horizon_bars": 100, "markout_bars": 100, "sigma_window": 1000, "fill_distance": "bps"
        }
    });
    let book = only(&mirror.join("binance-l2"), "spot_btcusdt");
    round("book, 10 ms", dir.path(), &book, featurize, encode, pairs);
}

fn only(folder: &Path, begin: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(begin);
    let mut found: Vec<PathBuf> = entries.filter(named).collect();
    found.sort();
    found
}

fn round(name: &str, dir: &Path, files: &[PathBuf], featurize: Value, encode: Value, pairs: Value) {
    let (wall, cpu) = (Instant::now(), usage().0);
    let port = if featurize.get("source").is_some() { "events" } else { "bars" };
    let features = stage("featurize", featurize, &[(port, files)], dir, name);
    let own = [features["features"].clone()];
    let prompts = stage("encode", encode, &[("features", &own)], dir, name);
    let asked = [prompts["prompts"].clone()];
    let mut ports: Vec<(&str, &[PathBuf])> = vec![("features", &own), ("prompts", &asked)];
    if pairs.get("source").is_some() {
        ports.push(("events", files));
    }
    let made = stage("pairs", pairs, &ports, dir, name);
    let (seconds, (end, peak)) = (wall.elapsed().as_secs_f64(), usage());
    let lines = BufReader::new(File::open(&made["pairs"]).unwrap()).lines().count();
    let bytes = std::fs::metadata(&made["pairs"]).unwrap().len();
    println!("| {name} | all | {seconds:.2} | {:.2} |", end - cpu);
    println!(
        "{name}: {lines} pairs, {} MB, {:.0} pairs a second; peak memory {peak:.0} MiB so far",
        bytes / 1_000_000,
        lines as f64 / seconds
    );
    assert_eq!(lines, PAIRS, "give it more rows, or lower `min_gap_bps`");
}

/// Runs a stage of the table; its outputs by name.
fn stage(
    name: &str,
    params: Value,
    inputs: &[(&str, &[PathBuf])],
    dir: &Path,
    round: &str,
) -> BTreeMap<String, PathBuf> {
    let kind = ALL.iter().find(|kind| kind.name == name).unwrap();
    let params = (kind.resolve)(&params).unwrap();
    let folder = dir.join(format!("{name} {round}"));
    let scratch = folder.join("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    let outputs: BTreeMap<String, PathBuf> = (kind.outputs)(&params)
        .into_iter()
        .map(|port| (port.name.to_string(), folder.join(port.name.as_ref())))
        .collect();
    let input = |files: &[PathBuf]| {
        let named = |file: &PathBuf| {
            (file.file_name().unwrap().to_string_lossy().into_owned(), file.clone())
        };
        Input { files: files.iter().map(named).collect::<BTreeMap<_, _>>().into(), tree: false }
    };
    let job = Job {
        kind: name.into(),
        params,
        inputs: inputs.iter().map(|(port, files)| ((*port).to_owned(), input(files))).collect(),
        outputs: outputs.clone(),
        scratch,
        dir: folder,
        ..Job::default()
    };
    let said = Said::default();
    let (wall, cpu) = (Instant::now(), usage().0);
    (kind.run)(&job.params, &Context::new(&job, &said, Cancel::default())).unwrap();
    println!("| {round} | {name} | {:.2} | {:.2} |", wall.elapsed().as_secs_f64(), usage().0 - cpu);
    let metrics = said.0.into_inner().unwrap();
    let telling: Vec<String> = metrics
        .iter()
        .filter(|(name, _)| {
            [
                "rows_train",
                "prompts_train",
                "pairs",
                "fill_orders",
                "fill_fills",
                "fill_a",
                "fill_k",
            ]
            .contains(&&name[..])
                || name.starts_with("dropped")
        })
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    eprintln!("{}", telling.join(", "));
    outputs
}

#[derive(Default)]
struct Said(Mutex<BTreeMap<String, f64>>);

impl Sink for Said {
    fn progress(&self, _: Progress) {}
    fn metric(&self, name: &str, value: f64) {
        self.0.lock().unwrap().insert(name.into(), value);
    }
    fn warn(&self, message: &str) {
        eprintln!("warning: {message}");
    }
    fn output(&self, _: &str) {}
}

/// Bars of a minute with calm and volatile hours.
fn simulated(dir: &Path, rows: usize) -> PathBuf {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut normal = || (0..4).map(|_| rng.random::<f64>()).sum::<f64>() - 2.0;
    let mut text = String::from("timestamp,open,high,low,close,volume\n");
    let mut close = 40_000.0f64;
    for row in 0..rows {
        let sigma = if row / 240 % 3 == 0 { 15e-4 } else { 5e-4 };
        let open = close;
        close *= (sigma * normal()).exp();
        let high = open.max(close) * (0.4 * sigma * normal().abs()).exp();
        let low = open.min(close) * (-0.4 * sigma * normal().abs()).exp();
        let volume = 1e6 * (0.5 * normal()).exp();
        let time = 1_640_995_200 + 60 * row;
        writeln!(text, "{time},{open:.1},{high:.1},{low:.1},{close:.1},{volume:.4}").unwrap();
    }
    let path = dir.join("bars.csv");
    std::fs::write(&path, text).unwrap();
    path
}

/// CPU seconds of this process, all threads, and the most memory it held so far in MiB.
fn usage() -> (f64, f64) {
    // SAFETY: the struct is plain data, and the call writes it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // macOS counts in bytes, Linux in KiB.
    let unit = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };
    let peak = usage.ru_maxrss as f64 * unit / 1_048_576.0;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), peak)
}
