//! A LoRA training step on the CPU beside PyTorch and PEFT, on the same model folder and shapes.
//! `cargo bench -p quantmill-stages --bench lora -- [MODEL ...] [--python PYTHON] [--rounds N]`
//!
//! MODEL is a HF folder; a random model of five million weights comes first. Ours is the whole stage
//! `train` in a process of its own with few and with more steps, so that what is left between them is
//! the steps alone; the peer is `peer.py`, which times its steps itself. Both use two threads, batches
//! of 2 x 256 tokens, rank 16 on all seven projections, AdamW, f32. The least of the rounds counts.
//! PYTHON needs torch, transformers and peft; without one only ours is measured.
// In a benchmark a panic is the report.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use quantmill_stages::device::{Back, cpu};
use quantmill_stages::model::{Config, Llama, Normal, Tokenizer, save};
use quantmill_stages::{ALL, Cancel, Context, Input, Job, Port, Progress, Sink};
use serde_json::{Value, json};

const BATCH: usize = 2;
const LENGTH: usize = 256;
const FEW: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [child, model, dir, steps] = arguments.as_slice()
        && child == "child"
    {
        return train(Path::new(model), Path::new(dir), steps.parse().unwrap());
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1).cloned()
    };
    let python = value("--python");
    let rounds = value("--rounds").map_or(3, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("5M");
    random(&small);
    let options = ["--python", "--rounds"];
    let given = arguments.iter().enumerate().filter(|(i, a)| {
        let after = i.checked_sub(1).is_some_and(|i| options.contains(&&*arguments[i]));
        !after && !a.starts_with("--")
    });
    let mut models = vec![(small, 40)];
    models.extend(given.map(|(_, model)| (PathBuf::from(model), 6)));
    println!("| model | | s a step | CPU s a step | peak MiB |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for (model, steps) in models {
        let mut least: [Option<[f64; 3]>; 2] = [None, None];
        for round in 0..rounds {
            let out = dir.path().join(format!("{round}"));
            keep(&mut least[0], ours(&model, &out, steps));
            if let Some(python) = &python {
                keep(&mut least[1], peer(python, &model, steps));
            }
        }
        let name = model.file_name().unwrap().to_string_lossy().into_owned();
        for (who, least) in ["Quantmill", "PyTorch + PEFT"].iter().zip(&least) {
            if let Some([wall, cpu, peak]) = least {
                println!("| {name} | {who} | {wall:.3} | {cpu:.3} | {peak:.0} |");
            }
        }
        if let [Some(ours), Some(theirs)] = least {
            let ratio = |i: usize| ours[i] / theirs[i];
            let (wall, cpu, peak) = (ratio(0), ratio(1), ratio(2));
            println!("| {name} | ratio | {wall:.2} | {cpu:.2} | {peak:.2} |");
        }
    }
}

fn keep(least: &mut Option<[f64; 3]>, new: [f64; 3]) {
    let least = least.get_or_insert(new);
    least.iter_mut().zip(new).for_each(|(least, new)| *least = least.min(new));
}

/// Seconds and CPU seconds of a step, and the peak, of two runs of this program.
fn ours(model: &Path, dir: &Path, steps: usize) -> [f64; 3] {
    let run = |steps: usize| {
        let dir = dir.join(format!("{steps}"));
        let before = children();
        let start = Instant::now();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("child").arg(model).arg(&dir).arg(steps.to_string());
        let out = command.env("RAYON_NUM_THREADS", "2").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let peak: f64 = String::from_utf8(out.stdout).unwrap().trim().parse().unwrap();
        [start.elapsed().as_secs_f64(), children() - before, peak]
    };
    let (few, many) = (run(FEW), run(FEW + steps));
    let a_step = |i: usize| (many[i] - few[i]) / steps as f64;
    [a_step(0), a_step(1), many[2]]
}

fn peer(python: &str, model: &Path, steps: usize) -> [f64; 3] {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/lora/peer.py");
    let mut command = Command::new(python);
    command.arg(script).arg(model).args([BATCH, LENGTH, FEW + steps].map(|n| n.to_string()));
    let out = command.env("OMP_NUM_THREADS", "2").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    let mean = |name: &str| {
        let all = said[name].as_array().unwrap().iter().skip(FEW);
        all.map(|x| x.as_f64().unwrap()).sum::<f64>() / steps as f64
    };
    [mean("seconds"), mean("cpu"), said["peak_mib"].as_f64().unwrap()]
}

/// The stage, with as many steps on random words; prints the process's peak.
fn train(model: &Path, dir: &Path, steps: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let corpus = dir.join("corpus.jsonl");
    let words = ["spread", "narrow", "desk", "buys", "at", "the", "bid", "of", "12.5", "bps"];
    let text = |from: usize| -> Vec<&str> {
        (0..LENGTH * 2).map(|i| words[(i * i + from * 7 + i / 3) % words.len()]).collect()
    };
    let lines = (0..2 * steps + 8).map(|i| {
        let text = text(i).join(" ");
        json!({ "id": format!("{i}"), "doc": format!("{i}"), "text": text }).to_string() + "\n"
    });
    std::fs::write(&corpus, lines.collect::<String>()).unwrap();
    let kind = ALL.iter().find(|kind| kind.name == "train").unwrap();
    let params = json!({
        "method": "sft", "steps": steps, "batch": BATCH, "seq_len": LENGTH, "valid_share": 0,
        "learning_rate": 2e-4, "lora": { "r": 16, "alpha": 32 }
    });
    let params = (kind.resolve)(&params).unwrap();
    // The runner makes the folder of an output that is one, and of no other.
    let place = |port: Port| {
        let path = dir.join(port.name.as_ref());
        if port.tree {
            std::fs::create_dir_all(&path).unwrap();
        }
        (port.name.to_string(), path)
    };
    let outputs: BTreeMap<String, PathBuf> =
        (kind.outputs)(&params).into_iter().map(place).collect();
    let scratch = dir.join("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    let named = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), path);
    let files = std::fs::read_dir(model).unwrap().map(|entry| named(entry.unwrap().path()));
    let base = Input { files: files.collect::<BTreeMap<_, _>>().into(), tree: true };
    let corpus = [named(corpus)].into_iter().collect::<BTreeMap<_, _>>();
    let corpus = Input { files: corpus.into(), tree: false };
    let job = Job {
        kind: "train".into(),
        params,
        inputs: [("base".to_owned(), base), ("corpus".to_owned(), corpus)].into_iter().collect(),
        outputs,
        scratch,
        dir: dir.to_owned(),
        ..Job::default()
    };
    (kind.run)(&job.params, &Context::new(&job, &Silent, Cancel::default())).unwrap();
    let usage = usage(libc::RUSAGE_SELF);
    // macOS counts in bytes, Linux in KiB.
    let unit = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };
    println!("{}", usage.ru_maxrss as f64 * unit / 1_048_576.0);
}

/// A model folder of five million random weights.
fn random(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let text = "the spread is narrow and the desk buys at the bid of 12.5 bps ".repeat(40);
    let tokenizer = Tokenizer::train([&*text].into_iter(), 300).unwrap();
    let mut config = Config::llama(4096, 256, 6, 4, 2, 704, 512);
    tokenizer.describe(&mut config);
    config.vocab_size = 4096;
    let model: Llama<Back> = Llama::build(&config, &mut Normal::new(1), &cpu()).unwrap();
    save::save(&model, folder).unwrap();
    tokenizer.write(folder).unwrap();
}

struct Silent;

impl Sink for Silent {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, message: &str) {
        eprintln!("warning: {message}");
    }
    fn output(&self, _: &str) {}
}

/// CPU seconds of the children that have ended.
fn children() -> f64 {
    let usage = usage(libc::RUSAGE_CHILDREN);
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn usage(whose: libc::c_int) -> libc::rusage {
    // SAFETY: the struct is plain data, and the call writes it.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(whose, &raw mut usage);
        usage
    }
}
