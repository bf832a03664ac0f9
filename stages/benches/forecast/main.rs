//! Training steps of the hybrid on the CPU beside the same model in PyTorch.
//! `cargo bench --workspace --bench forecast -- [--python PYTHON] [--rounds N] [--steps N] [--threads N]`
//!
//! Two layers, 20 features, 3 horizons, windows of 64 rows in batches of 64, AdamW, f32, dropout 0.1.
//! Ours is `fit` in a process of its own, the peer is `peer.py`; both time each step themselves, and
//! rounds alternate between them. The least mean of a round counts, without its first steps. PYTHON
//! needs torch; without one only ours is measured. On a busy machine compare CPU seconds with
//! `--threads 1`: waiting threads of the peer spin.
// In a benchmark a panic is the report.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use quantmill_stages::device::cpu;
use quantmill_stages::forecast::neural::{Data, Hybrid, Net, Training, fit};
use quantmill_stages::forecast::series::{Series, Slice, Target};
use serde_json::{Value, json};

const BATCH: usize = 64;
const WINDOW: usize = 64;
const FEATURES: usize = 20;
const HORIZONS: usize = 3;
/// Steps that warm up.
const FEW: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [child, steps] = arguments.as_slice()
        && child == "child"
    {
        return train(steps.parse().unwrap());
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, usual: usize| value(name).map_or(usual, |n| n.parse().unwrap());
    let (rounds, steps, threads) =
        (number("--rounds", 5), number("--steps", 40), number("--threads", 2));
    let python = value("--python");
    let mut least: [Option<[f64; 3]>; 2] = [None, None];
    for _ in 0..rounds {
        let mut ours = Command::new(std::env::current_exe().unwrap());
        ours.arg("child").arg((FEW + steps).to_string());
        keep(&mut least[0], measure(ours, steps, threads));
        if let Some(python) = &python {
            let mut peer = Command::new(python);
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/forecast/peer.py");
            peer.arg(script).args([BATCH, FEW + steps, threads].map(|n| n.to_string()));
            keep(&mut least[1], measure(peer, steps, threads));
        }
    }
    println!("| threads: {threads} | ms a step | CPU ms a step | peak MiB |");
    println!("| --- | ---: | ---: | ---: |");
    for (who, least) in ["Quantmill", "PyTorch"].iter().zip(&least) {
        if let Some([wall, cpu, peak]) = least {
            println!("| {who} | {:.1} | {:.1} | {peak:.0} |", wall * 1e3, cpu * 1e3);
        }
    }
    if let [Some(ours), Some(theirs)] = least {
        let ratio = |i: usize| ours[i] / theirs[i];
        println!("| ratio | {:.2} | {:.2} | {:.2} |", ratio(0), ratio(1), ratio(2));
    }
}

fn keep(least: &mut Option<[f64; 3]>, new: [f64; 3]) {
    let least = least.get_or_insert(new);
    least.iter_mut().zip(new).for_each(|(least, new)| *least = least.min(new));
}

/// Seconds and CPU seconds of a step, and the peak of the process in MiB.
fn measure(mut command: Command, steps: usize, threads: usize) -> [f64; 3] {
    let threads = threads.to_string();
    command.env("RAYON_NUM_THREADS", &threads).env("OMP_NUM_THREADS", &threads);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    let mean = |name: &str| {
        let all = said[name].as_array().unwrap().iter().skip(FEW);
        all.map(|x| x.as_f64().unwrap()).sum::<f64>() / steps as f64
    };
    [mean("seconds"), mean("cpu"), said["peak_mib"].as_f64().unwrap()]
}

/// As many steps on random rows; prints what `peer.py` prints.
fn train(steps: usize) {
    let rows = BATCH * WINDOW;
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let x = (0..rows * FEATURES).map(|_| random()).collect();
    let dt = (0..rows).map(|_| 1.0 + 0.5 * random()).collect();
    let target = |i: usize| Some(Target { class: (i % 3) as u8, value: random() });
    let targets = (0..rows * HORIZONS).map(target).collect();
    let series =
        Series { features: FEATURES, x, dt, targets, horizons: HORIZONS, ..Series::default() };
    // A slice a window: all steps are of one size.
    let slice = |i: usize| Slice {
        series: &series,
        rows: i * WINDOW..(i + 1) * WINDOW,
        counts: vec![true; WINDOW],
    };
    let slices: Vec<Slice> = (0..BATCH).map(slice).collect();
    let training = Training {
        window: WINDOW,
        batch: BATCH,
        epochs: 100_000,
        steps: Some(steps),
        ..Training::default()
    };
    let net = Net::Hybrid(Hybrid { training, ..Hybrid::default() });
    let data = Data { train: &slices, valid: &[], class_weights: &[[1.0; 3]; HORIZONS] };
    let (mut seconds, mut spent) = (Vec::new(), Vec::new());
    let mut last = (Instant::now(), busy());
    let mut tell = |_: usize, _: usize, _: &str| {
        let now = (Instant::now(), busy());
        seconds.push((now.0 - last.0).as_secs_f64());
        spent.push(now.1 - last.1);
        last = now;
        Ok(())
    };
    fit(&net, &data, 1, &cpu(), &mut tell, &mut |_| {}).unwrap();
    // macOS counts in bytes, Linux in KiB.
    let unit = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };
    let peak = usage().ru_maxrss as f64 * unit / 1_048_576.0;
    println!("{}", json!({ "seconds": seconds, "cpu": spent, "peak_mib": peak }));
}

/// CPU seconds of this process.
fn busy() -> f64 {
    let usage = usage();
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn usage() -> libc::rusage {
    // SAFETY: the struct is plain data, and the call writes it.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}
