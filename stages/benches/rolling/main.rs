//! Rolling features beside polars and pandas: speed on one thread, and agreement.
//! `cargo bench -p quantmill-stages --no-default-features --bench rolling -- --python PYTHON`
//!
//! Six columns over the same 5,000,000 rows of two simulated prices: mean, standard deviation,
//! minimum, maximum, correlation and z-score, windows of 20 to 1000. Speed is CPU time, the least
//! of three rounds, series in memory before; polars runs with POLARS_MAX_THREADS=1. Differences are
//! to polars, largest of all rows, by the size of the value or of a usual one where it is smaller
//! (a correlation passes through zero). So that it can be told whose they are, both are also
//! compared with sums taken anew over the window at every 9,973rd row.
//!
//! PYTHON is an interpreter that imports polars and pandas; without it only this crate is timed.
//! `--rows N` takes fewer rows. Last comes the market state on as many bars, fifteen features at
//! once, which no peer has.
// In a benchmark a panic is the report.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use quantmill_stages::featurize::feature::{Feature, Fits, Source, default_features, parse};
use quantmill_stages::featurize::window::{Comoments, Max, Min, Moments, Rolling, Sum};
use quantmill_stages::market::Sample;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Names of the columns and their windows.
const COLUMNS: [(&str, usize); 6] =
    [("mean", 20), ("std", 60), ("min", 1000), ("max", 1000), ("corr", 250), ("zscore", 200)];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let rows = after("--rows").map_or(5_000_000, |rows| rows.parse().unwrap());
    let (x, y) = prices(rows);

    let mut ours = [f64::INFINITY; 6];
    let mut columns: [Vec<f64>; 6] = Default::default();
    for _ in 0..3 {
        for at in 0..6 {
            let begin = cpu_seconds();
            columns[at] = black_box(column(at, black_box(&x), black_box(&y)));
            ours[at] = ours[at].min(cpu_seconds() - begin);
        }
    }
    market_state(&x);
    println!("{rows} rows, CPU seconds on one thread, least of three rounds");
    let Some(python) = after("--python") else {
        println!("{ours:.3?}, {:.3} in all; no peers: give --python", ours.iter().sum::<f64>());
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    write(&scratch.path().join("x"), &x);
    write(&scratch.path().join("y"), &y);
    let polars = peer(&python, "polars", scratch.path());
    let pandas = peer(&python, "pandas", scratch.path());
    println!(
        "| column | window | quantmill | polars | pandas | polars / quantmill | difference | quantmill to plain sums | polars to plain sums |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut worst = 0f64;
    for (at, (name, window)) in COLUMNS.into_iter().enumerate() {
        let theirs = read(&scratch.path().join(name));
        let scale = usual(&columns[at]);
        let difference = away(&columns[at], &theirs, scale);
        worst = worst.max(difference);
        let plain = |values: &[f64]| {
            let rows = (window - 1..values.len()).step_by(9_973);
            rows.map(|row| gap(values[row], plainly(at, &x, &y, row), scale)).fold(0.0, f64::max)
        };
        println!(
            "| {name} | {window} | {:.3} | {:.3} | {:.3} | {:.2} | {difference:.1e} | {:.1e} | {:.1e} |",
            ours[at],
            polars[at],
            pandas[at],
            polars[at] / ours[at],
            plain(&columns[at]),
            plain(&theirs),
        );
    }
    let sum = |seconds: &[f64]| seconds.iter().sum::<f64>();
    let (own, polars, pandas) = (sum(&ours), sum(&polars), sum(&pandas));
    println!(
        "| all | | {own:.3} | {polars:.3} | {pandas:.3} | {:.2} | {worst:.1e} | | |",
        polars / own
    );
    println!("pandas / quantmill: {:.1}", pandas / own);
}

/// The fifteen features on bars, four prices to a bar; what is learnt is learnt from the first
/// 10,000.
fn market_state(x: &[f64]) {
    let bars: Vec<Sample> = x.chunks_exact(4).enumerate().map(bar).collect();
    let columns = parse(&default_features(&Source::BARS)).unwrap();
    let mut fits = Fits::new();
    let mut features: Vec<Box<dyn Feature>> = Vec::new();
    for column in &columns {
        if let Some(mut learner) = column.learner(252.0, &Source::BARS).unwrap() {
            bars.iter().take(10_000).for_each(|bar| learner.push(bar));
            fits.insert(column.name.clone(), learner.finish(&mut |_, _| Ok(())).unwrap());
        }
        features.push(column.make(252.0, &Source::BARS, &fits).unwrap());
    }
    let begin = cpu_seconds();
    let mut known = 0usize;
    for bar in &bars {
        known += features.iter_mut().filter_map(|f| black_box(f.push(bar))).count();
    }
    let seconds = cpu_seconds() - begin;
    let rows = bars.len() as f64;
    println!(
        "market state: {} features of {rows} bars in {seconds:.2} CPU seconds, {:.0} ns a row, {:.1} % known",
        columns.len(),
        1e9 * seconds / rows,
        100.0 * known as f64 / rows / columns.len() as f64,
    );
}

fn bar((row, prices): (usize, &[f64])) -> Sample {
    let least = prices.iter().copied().fold(f64::INFINITY, f64::min);
    let most = prices.iter().copied().fold(0.0, f64::max);
    let volume = 1e3 + (row % 97) as f64;
    Sample {
        time: row as i64 * 60_000_000_000,
        open: prices[0],
        high: most,
        low: least,
        close: prices[3],
        volume,
        turnover: prices[3] * volume,
        ..Sample::default()
    }
}

/// One column; NaN until its window is full.
fn column(at: usize, x: &[f64], y: &[f64]) -> Vec<f64> {
    let w = COLUMNS[at].1;
    match at {
        0 => {
            let mut window = Rolling::<Sum>::new(w);
            x.iter().map(|&v| window.push(v).map_or(f64::NAN, |s| s.0 / w as f64)).collect()
        }
        1 => {
            let mut window = Rolling::<Moments>::new(w);
            x.iter().map(|&v| window.push(v).map_or(f64::NAN, |m| m.deviation(w, 1))).collect()
        }
        2 => {
            let mut window = Rolling::<Min>::new(w);
            x.iter().map(|&v| window.push(v).map_or(f64::NAN, |m| m.0)).collect()
        }
        3 => {
            let mut window = Rolling::<Max>::new(w);
            x.iter().map(|&v| window.push(v).map_or(f64::NAN, |m| m.0)).collect()
        }
        4 => {
            let mut window = Rolling::<Comoments>::new(w);
            let pairs = x.iter().zip(y);
            pairs
                .map(|(&x, &y)| window.push([x, y]).map_or(f64::NAN, |c| c.correlation()))
                .collect()
        }
        _ => {
            let mut window = Rolling::<Moments>::new(w);
            let score = |v: f64, m: Moments| (v - m.mean) / m.deviation(w, 1);
            x.iter().map(|&v| window.push(v).map_or(f64::NAN, |m| score(v, m))).collect()
        }
    }
}

/// The same at one row, summed anew in two passes.
fn plainly(at: usize, x: &[f64], y: &[f64], row: usize) -> f64 {
    let w = COLUMNS[at].1;
    let (x, y) = (&x[row + 1 - w..=row], &y[row + 1 - w..=row]);
    let n = w as f64;
    // Differences to the first value are exact, or nearly so.
    let mean = |v: &[f64]| v[0] + v.iter().map(|a| a - v[0]).sum::<f64>() / n;
    let (mx, my) = (mean(x), mean(y));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| f(x - mx, y - my)).sum()
    };
    let deviation = (sum(&|x, _| x * x) / (n - 1.0)).sqrt();
    match at {
        0 => mx,
        1 => deviation,
        2 => x.iter().copied().fold(f64::INFINITY, f64::min),
        3 => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        4 => sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt(),
        _ => (x[w - 1] - mx) / deviation,
    }
}

/// Two prices that walk together in part.
fn prices(rows: usize) -> (Vec<f64>, Vec<f64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut normal = || (0..4).map(|_| rng.random::<f64>()).sum::<f64>() - 2.0;
    let (mut a, mut b) = (100f64.ln(), 2000f64.ln());
    let mut step = || {
        let common = normal();
        a += 2e-4 * (common + normal());
        b += 2e-4 * (common + normal());
        (a.exp(), b.exp())
    };
    (0..rows).map(|_| step()).unzip()
}

/// The root mean square of a column.
fn usual(values: &[f64]) -> f64 {
    let known = values.iter().filter(|v| v.is_finite());
    (known.clone().map(|v| v * v).sum::<f64>() / known.count() as f64).sqrt()
}

fn gap(a: f64, b: f64, scale: f64) -> f64 {
    (a - b).abs() / b.abs().max(scale)
}

fn away(ours: &[f64], theirs: &[f64], scale: f64) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs);
    let worst = pairs.map(|(&a, &b)| {
        assert_eq!(a.is_nan(), b.is_nan(), "warm-up");
        if a.is_nan() { 0.0 } else { gap(a, b, scale) }
    });
    worst.fold(0.0, f64::max)
}

/// Runs a peer; seconds by column. polars leaves its columns in `scratch`.
fn peer(python: &str, name: &str, scratch: &Path) -> Vec<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rolling/peers.py");
    let mut command = Command::new(python);
    for threads in ["POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMEXPR_NUM_THREADS"] {
        command.env(threads, "1");
    }
    command.arg(script).arg(name).arg(scratch);
    for (column, window) in COLUMNS {
        command.arg(format!("{column}={window}"));
    }
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let printed = String::from_utf8(ran.stdout).unwrap();
    let mut lines = printed.lines();
    println!("{}", lines.next().unwrap());
    lines.map(|line| line.parse().unwrap()).collect()
}

fn write(path: &Path, values: &[f64]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}

fn read(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn cpu_seconds() -> f64 {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a struct of the kind that is written.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
