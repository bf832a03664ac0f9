//! Books out of Binance's stream lines, sampled: lines, levels and bytes a second.
//! `cargo bench -p quantmill-stages --no-default-features --bench book -- FILE...`
//!
//! FILEs are plain or packed, of one or several symbols, each `<symbol>_<day>...`: those with the same
//! name up to the last `_` are one series. Reads, rebuilds and samples each series every 100 ms, five
//! times, and prints the least CPU time (getrusage, all threads) and the least wall time; of one step alone
//! where QUANTMILL_BENCH_STEP names it. An event is
//! counted twice over: as a line of the stream, and as a change of a level, a quote or a trade.
// In a benchmark a panic is the report.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use quantmill_stages::market::Samples;
use quantmill_stages::market::binance::{Binance, Stream};
use quantmill_stages::market::clock::{Clock, Sampler, Sampling, Tells};
use quantmill_stages::market::file::{Lines, Plain};
use quantmill_stages::market::quality::{Quality, Tally};
use quantmill_stages::market::time::Span;
use quantmill_stages::market::{Feed, Sample};

fn main() {
    let files: Vec<PathBuf> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).map(PathBuf::from).collect();
    if files.is_empty() {
        eprintln!("name files of stream lines, plain or packed");
        std::process::exit(2);
    }
    let mut series: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let stem = name.rsplit_once('_').map_or(name.as_str(), |(stem, _)| stem).to_owned();
        series.entry(stem).or_default().push(file);
    }
    series.values_mut().for_each(|files| files.sort());

    let bytes: u64 = series.values().flatten().map(|file| length(file)).sum();
    let (mut lines, mut changes, mut samples) = (0, 0, 0);
    for (name, files) in &series {
        let counts = sample(files);
        println!("{name}: {}", serde_json::to_string(&counts).unwrap());
        lines += counts.lines;
        changes += counts.levels + counts.quotes + counts.trades;
        samples += counts.samples;
    }
    println!("{lines} lines, {changes} changes, {bytes} bytes of JSON, {samples} samples");
    println!("| step | CPU s | wall s | lines/s | changes/s | MB/s (by wall) |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let only = std::env::var("QUANTMILL_BENCH_STEP").ok();
    let row = |name: &str, work: &dyn Fn(&[PathBuf])| {
        if only.as_deref().is_some_and(|only| only != name) {
            return;
        }
        let (mut least_cpu, mut least_wall) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..5 {
            let (cpu, wall) = (cpu_seconds(), Instant::now());
            series.values().for_each(|files| work(files));
            least_cpu = least_cpu.min(cpu_seconds() - cpu);
            least_wall = least_wall.min(wall.elapsed().as_secs_f64());
        }
        println!(
            "| {name} | {least_cpu:.3} | {least_wall:.3} | {:.0} | {:.0} | {:.0} |",
            lines as f64 / least_wall,
            changes as f64 / least_wall,
            bytes as f64 / 1e6 / least_wall
        );
    };
    row("unpack", &|files| files.iter().for_each(|file| assert!(length(file) > 0)));
    row("lines", &|files| {
        let mut lines = Lines::new(files.to_vec());
        while lines.advance().unwrap() {}
    });
    row("events", &|files| {
        use quantmill_stages::market::event::Events;
        let mut tally = Tally::new(&Quality::default(), files.to_vec());
        let mut events = Stream::new(&Binance::default(), files.to_vec());
        while events.advance(&mut tally).unwrap() {}
    });
    row("samples", &|files| {
        sample(files);
    });
}

fn sample(files: &[PathBuf]) -> quantmill_stages::market::quality::Counts {
    let tally = Tally::new(&Quality::default(), files.to_vec());
    let events = Stream::new(&Binance::default(), files.to_vec());
    let sampling = Sampling { clock: Clock::Every(Span(100_000_000)), ..Sampling::default() };
    let mut sampler = Sampler::new(events, Tells::Both, &sampling, tally);
    let mut sample = Sample::default();
    while sampler.next(&mut sample).unwrap() {}
    sampler.counts()
}

/// Bytes of a file, unpacked.
fn length(file: &Path) -> u64 {
    let mut plain = Plain::open(file).unwrap();
    let mut buffer = vec![0; 1 << 18];
    let mut sum = 0;
    loop {
        match plain.read(&mut buffer).unwrap() {
            0 => return sum,
            count => sum += count as u64,
        }
    }
}

/// The CPU time of this process, all threads.
fn cpu_seconds() -> f64 {
    // SAFETY: the struct is plain data, and the call writes it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
