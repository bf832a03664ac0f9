//! `chunk` beside text-splitter (Rust) and LangChain (Python): speed, chunks in range, and where they
//! end. `cargo bench -p quantmill-stages --no-default-features --bench chunk -- FOLDER`
//!
//! FOLDER holds `.txt` files with the sidecars of `extract`; by default it is what
//! `pipelines/corpus` extracted. Each chunker cuts the same files to 800-2000 tokens of o200k_base, on
//! one thread. Speed is CPU time, the least of three rounds, vocabulary loaded before; for `chunk` it
//! is the whole stage, files read and written, for the others the splitting alone. All chunks are
//! judged by one judge, on their final text: tokens by a count with tiktoken-rs, and whether they end
//! with a sentence, before a heading or with their document.
//!
//! text-splitter is built from a workspace of its own beside this file, because it would weigh down
//! the project's; its target folder lies in this one's. LangChain runs where `python3` (or
//! `QUANTMILL_BENCH_PYTHON`) imports `langchain_text_splitters` and `tiktoken`. tiktoken's vocabulary
//! is written from tiktoken-rs, so nothing is downloaded. What is not there is named and left out.
// In a benchmark a panic is the report.
#![allow(clippy::unwrap_used)]

mod judge;
mod ours;

use std::path::{Path, PathBuf};
use std::process::Command;

use judge::Verdict;

/// What a chunker gave.
struct Given {
    /// Seconds of CPU time.
    seconds: f64,
    /// The chunks, each as its document's name and its text.
    chunks: Vec<(String, String)>,
}

fn main() {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/corpus/extracted")
    });
    let documents = judge::documents(&folder);
    if documents.is_empty() {
        eprintln!("no text in {}: run pipelines/corpus, or name a folder", folder.display());
        std::process::exit(2);
    }
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    println!("{} documents, {:.2} MB", documents.len(), bytes as f64 / 1e6);
    println!("{}", Verdict::HEAD);
    let scratch = tempfile::tempdir().unwrap();
    for (name, given) in [
        ("chunk", Ok(ours::run(&folder, scratch.path()))),
        ("text-splitter", text_splitter(&folder, scratch.path())),
        ("LangChain", langchain(&folder, scratch.path())),
    ] {
        match given {
            Ok(given) => println!("{}", Verdict::of(&documents, &given).row(name, bytes)),
            Err(why) => println!("| {name} | {why} |"),
        }
    }
}

fn text_splitter(folder: &Path, scratch: &Path) -> Result<Given, String> {
    let manifest =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/chunk/text-splitter/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("text-splitter");
    let out = scratch.join("text-splitter.jsonl");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--release", "--manifest-path"]).arg(manifest);
    cargo.arg("--target-dir").arg(target).arg("--").arg(folder).arg(&out);
    peer(cargo, &out)
}

fn langchain(folder: &Path, scratch: &Path) -> Result<Given, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/chunk/langchain.py");
    let out = scratch.join("langchain.jsonl");
    let python = std::env::var_os("QUANTMILL_BENCH_PYTHON").unwrap_or_else(|| "python3".into());
    // The name is that under which tiktoken looks for the file it would download.
    let vocabulary = scratch.join("fb374d419588a4632f3f557e76b4b70aebbca790");
    std::fs::write(vocabulary, vocabulary_file()).unwrap();
    let mut python = Command::new(python);
    python.env("TIKTOKEN_CACHE_DIR", scratch).arg(script).arg(folder).arg(&out);
    peer(python, &out)
}

/// The vocabulary of o200k_base as tiktoken reads it: a token in base 64 and its rank, line by line.
fn vocabulary_file() -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bpe = tiktoken_rs::o200k_base_singleton();
    let mut file = String::new();
    for rank in 0..199_998_u32 {
        for three in bpe.decode_bytes(&[rank]).unwrap().chunks(3) {
            let bits =
                (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(*three.get(i).unwrap_or(&0)));
            for i in 0..4 {
                let sign = char::from(SIGNS[(bits >> (18 - 6 * i)) as usize & 63]);
                file.push(if i <= three.len() { sign } else { '=' });
            }
        }
        file += &format!(" {rank}\n");
    }
    file
}

/// Runs a peer: its last line is the seconds, its file has a document and a text a line.
fn peer(mut command: Command, out: &Path) -> Result<Given, String> {
    let ran = command.output().map_err(|e| format!("does not start: {e}"))?;
    if !ran.status.success() {
        let errors = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("did not run: {}", errors.lines().last().unwrap_or_default()));
    }
    let printed = String::from_utf8_lossy(&ran.stdout);
    let seconds = printed.lines().last().and_then(|line| line.trim().parse().ok());
    let chunks = std::fs::read_to_string(out).unwrap();
    let chunks = chunks.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Ok(Given { seconds: seconds.ok_or("printed no seconds")?, chunks })
}
