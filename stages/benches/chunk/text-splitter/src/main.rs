//! text-splitter on every `.txt` of a folder: `bench-text-splitter FOLDER OUT`. Writes a line
//! `[document, chunk]` for each chunk to OUT, and prints the least CPU seconds of three rounds.

use std::path::{Path, PathBuf};

use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};
use tiktoken_rs::CoreBPE;

struct Tokens(&'static CoreBPE);

impl ChunkSizer for Tokens {
    fn size(&self, chunk: &str) -> usize {
        self.0.encode_ordinary(chunk).len()
    }
}

fn main() {
    let paths: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let texts = texts(&paths[0]);
    let bpe = tiktoken_rs::o200k_base_singleton();
    let config = ChunkConfig::new(800..2000).with_sizer(Tokens(bpe));
    let splitter = TextSplitter::new(config);
    let mut least = f64::INFINITY;
    let mut lines = String::new();
    for _ in 0..3 {
        lines.clear();
        let begun = cpu_seconds();
        let split =
            texts.iter().map(|(name, text)| (name, splitter.chunks(text).collect::<Vec<_>>()));
        let split: Vec<_> = split.collect();
        least = least.min(cpu_seconds() - begun);
        for (name, chunks) in split {
            for chunk in chunks {
                lines += &format!("{}\n", serde_json::json!([name, chunk]));
            }
        }
    }
    std::fs::write(&paths[1], lines).expect("a file to write");
    println!("{least}");
}

/// The texts of a folder and all below it, by name.
fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(from) = folders.pop() {
        for entry in std::fs::read_dir(from).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "txt") {
                let name = path.with_extension("");
                let name = name.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
                texts.push((name, std::fs::read_to_string(path).expect("text")));
            }
        }
    }
    texts.sort();
    texts
}

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
