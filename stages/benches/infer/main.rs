//! Local inference beside llama.cpp on the same GGUF file.
//! `cargo bench -p quantmill-stages --no-default-features --features lm --bench infer -- MODEL.gguf`
//!
//! Prompts of 200 and 512 tokens, 64 tokens of decoding after 200, a decision (200 new tokens after
//! a cached prefix of 100, then 8 tokens out) and the first token of a fresh process, on two
//! threads (`--threads N`). Each is the least of five rounds (`--rounds N`). `--avx2` leaves AVX-512 alone,
//! which wheels of llama.cpp do not have.
//!
//! `--peer PYTHON` names an interpreter that imports xllamacpp, and runs llama.cpp in the same
//! rounds, ours and theirs by turns, so that what else the machine does meets both. Ratios are
//! tokens a second, ours by theirs, and CPU seconds, ours by theirs. Its decode is n - 1 tokens for
//! an answer of n, for the first comes from the prompt; its decision has no prefix to attend to.
//!
//! `--device wgpu` (or `cuda`, with `--features gpu`) runs ours on a GPU. Every token of decoding
//! reads all weights once: the bench says how many bytes that is and how many a second, and with
//! `--bandwidth GB/s` (what the memory can do, by its maker) the share of it. Keys and values, which
//! it reads too, are not counted.
// In a benchmark a panic is the report.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use quantmill_stages::Device;
use quantmill_stages::infer::{Engine, Options, Session};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let number = |name: &str, or: usize| after(name).map_or(or, |n| n.parse().unwrap());
    let Some(model) = args.iter().find(|arg| arg.ends_with(".gguf")) else {
        return eprintln!("skipped: name a GGUF file after `--`");
    };
    let avx2 = args.iter().any(|arg| arg == "--avx2");
    let (threads, rounds) = (number("--threads", 2), number("--rounds", 5));
    let device = match after("--device").as_deref() {
        None | Some("cpu") => Device::Cpu,
        Some("wgpu") => Device::Wgpu,
        Some("cuda") => Device::Cuda,
        Some(other) => return eprintln!("no device `{other}`: cpu, wgpu or cuda"),
    };
    let bandwidth: Option<f64> = after("--bandwidth").map(|gb| gb.parse().unwrap());
    let open = || {
        let options = Options { threads: Some(threads), context: None, device };
        let engine = Engine::open(Path::new(model), options).unwrap();
        if avx2 { engine.without_avx512() } else { engine }
    };
    if args.iter().any(|arg| arg == "--first") {
        let engine = open();
        let tokens = engine.tokenizer().encode("The capital of France is").unwrap();
        let mut session = engine.session(64);
        let token = greedy(session.read(&engine, &tokens).unwrap());
        println!("{:?}", engine.tokenizer().decode(&[token]).unwrap());
        return;
    }

    let engine = open();
    println!("{model}\n{:?}", engine.about());
    let mut peer = after("--peer").map(|python| Peer::start(&python, model, threads));
    let text: Vec<u32> = (0..512).map(|i| i * 7919 % 40000 + 100).collect();
    let prefix = prefix(&engine, &text);
    let mut ours = [Best::default(); 4];
    let mut theirs = [Best::default(); 4];
    let mut first = f64::INFINITY;
    for _ in 0..rounds {
        for (i, n) in [200, 512].into_iter().enumerate() {
            let mut session = engine.session(1024);
            ours[i].add(|| {
                session.read(&engine, &text[..n]).unwrap();
            });
            if let Some(peer) = &mut peer {
                let (prompt, _, cpu) = peer.run(n, 1);
                theirs[i].note(prompt, cpu);
            }
        }
        let mut session = engine.session(1024);
        let mut token = greedy(session.read(&engine, &text[..200]).unwrap());
        ours[2].add(|| {
            for _ in 0..64 {
                token = greedy(session.read(&engine, &[token]).unwrap());
            }
        });
        let mut session = prefix.fork();
        ours[3].add(|| {
            let mut token = greedy(session.read(&engine, &text[100..300]).unwrap());
            for _ in 0..7 {
                token = greedy(session.read(&engine, &[token]).unwrap());
            }
        });
        if let Some(peer) = &mut peer {
            let (_, _, before) = peer.run(200, 1);
            let (_, answer, cpu) = peer.run(200, 65);
            theirs[2].note(answer, cpu - before);
            let (prompt, answer, cpu) = peer.run(200, 8);
            theirs[3].note(prompt + answer, cpu);
        }
        let start = Instant::now();
        let exe = std::env::current_exe().unwrap();
        let threads = threads.to_string();
        let mut child = Command::new(exe);
        child.args([model, "--first", "--threads", &threads, "--device", device.name()]);
        let child = child.args(avx2.then_some("--avx2")).output();
        assert_eq!(String::from_utf8_lossy(&child.unwrap().stdout), "\" Paris\"\n");
        first = first.min(start.elapsed().as_secs_f64());
    }
    let rows = [("prompt 200", 200.0), ("prompt 512", 512.0), ("decode 64", 64.0)];
    for (i, (name, tokens)) in rows.into_iter().chain([("decision 200 + 8", 208.0)]).enumerate() {
        let Best { wall, cpu } = ours[i];
        print!("{name:17} {:7.1} ms {:7.0} tokens/s {cpu:6.3} CPU s", wall * 1e3, tokens / wall);
        if peer.is_some() {
            let their = theirs[i];
            print!(
                "   llama.cpp {:7.1} ms {:7.0} tokens/s {:6.3} CPU s   {:5.2}x tokens/s {:5.2}x CPU",
                their.wall * 1e3,
                tokens / their.wall,
                their.cpu,
                their.wall / wall,
                cpu / their.cpu
            );
        }
        println!();
    }
    println!("first token of a process {:.0} ms", first * 1e3);
    let bytes = engine.about().bytes as f64;
    let speed = bytes * 64.0 / ours[2].wall / 1e9;
    print!("a token of decoding reads {:.1} MB of weights: {speed:.2} GB/s", bytes / 1e6);
    match bandwidth {
        Some(most) => println!(", {:.0} % of {most} GB/s", 100.0 * speed / most),
        None => println!(),
    }
}

fn prefix(engine: &Engine, text: &[u32]) -> Session {
    let mut session = engine.session(1024);
    session.read(engine, &text[..100]).unwrap();
    session
}

fn greedy(logits: &[f32]) -> u32 {
    (0..logits.len() as u32)
        .max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize]))
        .unwrap()
}

/// The least of some rounds, in seconds.
#[derive(Clone, Copy)]
struct Best {
    wall: f64,
    cpu: f64,
}

impl Default for Best {
    fn default() -> Best {
        Best { wall: f64::INFINITY, cpu: f64::INFINITY }
    }
}

impl Best {
    fn add(&mut self, f: impl FnOnce()) {
        let (cpu, start) = (cpu_seconds(), Instant::now());
        f();
        self.note(start.elapsed().as_secs_f64() * 1e3, cpu_seconds() - cpu);
    }
    fn note(&mut self, ms: f64, cpu: f64) {
        self.wall = self.wall.min(ms / 1e3);
        self.cpu = self.cpu.min(cpu);
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// llama.cpp in a process of its own.
struct Peer {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Peer {
    fn start(python: &str, model: &str, threads: usize) -> Peer {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/infer/peer.py");
        let mut child = Command::new(python)
            .args([script.as_os_str(), model.as_ref(), threads.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut peer = Peer { child, lines };
        assert!(peer.lines.by_ref().map_while(Result::ok).any(|line| line == "ready"));
        peer
    }
    /// Milliseconds of the prompt and of the answer, CPU seconds of both.
    fn run(&mut self, prompt: usize, answer: usize) -> (f64, f64, f64) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{prompt} {answer}").unwrap();
        let line = self.lines.next().unwrap().unwrap();
        let numbers: Vec<f64> = line.split(' ').map(|x| x.parse().unwrap()).collect();
        (numbers[0], numbers[1], numbers[2])
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
