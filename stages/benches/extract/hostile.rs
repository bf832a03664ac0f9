//! `--hostile`: damaged and malicious files, one process each, beside pdftotext.
//!
//! Two hundred files are made from the papers of the list and from the quickstart's own by a seeded
//! program: a third is truncated, in a third one bit in some thousand is flipped, from a third a
//! piece in the middle is cut out. A file counts as recovered if its text has at least half of the
//! words that the same engine finds in the whole file. Then come the cases of [`super::hard`].

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::hard::{Want, cases};
use super::{Failure, engines, measure};

const FILES: usize = 200;
/// What a file may cost.
const SECONDS: f64 = 5.0;
const BYTES: u64 = 256 << 20;

/// How files fared with one engine.
#[derive(Default)]
struct Tally {
    recovered: usize,
    some: usize,
    refused: usize,
    empty: usize,
    /// Panics, aborts and signals.
    broken: usize,
    late: usize,
    seconds: f64,
    memory: u64,
    remarks: Vec<String>,
}

type Bag = HashMap<String, u32>;

fn bag(path: &Path) -> Bag {
    let bytes = fs_err::read(path).unwrap_or_default();
    measure::count(measure::words(&String::from_utf8_lossy(&bytes)).into_iter())
}

/// Damages a file in the `kind`-th way.
fn damage(mut bytes: Vec<u8>, kind: usize, random: &mut impl Rng) -> Vec<u8> {
    let len = bytes.len();
    match kind % 3 {
        0 => bytes.truncate(len / 20 + random.random_range(0..len * 9 / 10)),
        1 => {
            let flips = 1 + random.random_range(0..len / 1000);
            for _ in 0..flips {
                let at = random.random_range(0..len);
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
        _ => {
            let from = random.random_range(0..len * 9 / 10);
            let cut = 1 + random.random_range(0..len * 3 / 10);
            bytes.drain(from..(from + cut).min(len));
        }
    }
    bytes
}

impl Tally {
    fn run(
        &mut self,
        name: &str,
        mut command: Command,
        out: &Path,
        whole: &Bag,
    ) -> Result<(String, String), Failure> {
        let _ = fs_err::remove_file(out);
        let ran = engines::run(&mut command, Duration::from_secs(30))?;
        self.seconds = self.seconds.max(ran.cost.wall.min(ran.cost.cpu.max(ran.cost.wall / 4.0)));
        self.memory = self.memory.max(ran.cost.memory);
        let panicked =
            ran.said.contains("panicked at") || ran.said.contains("overflowed its stack");
        let found = bag(out);
        let words: u32 = found.values().sum();
        if ran.cost.cpu > SECONDS || ran.status.is_none() {
            self.late += 1;
            self.remarks.push(format!("{name}: {:.1} s", ran.cost.cpu));
        }
        if ran.cost.memory > BYTES {
            self.remarks.push(format!("{name}: {} MiB", ran.cost.memory >> 20));
        }
        match ran.status {
            Some(status) if panicked || status.signal().is_some() => {
                self.broken += 1;
                self.remarks.push(format!("{name}: {status} {}", ran.said.trim()));
            }
            Some(status) if !status.success() => {
                self.refused += 1;
                if ran.said.trim().is_empty() {
                    self.remarks.push(format!("{name}: refused without a reason"));
                }
            }
            _ if words == 0 => self.empty += 1,
            _ => {
                let kept = measure::kept(whole, &found).ratio().unwrap_or(1.0);
                self.recovered += usize::from(kept >= 0.5);
                self.some += usize::from(words >= 20);
            }
        }
        Ok((fs_err::read_to_string(out).unwrap_or_default(), ran.said))
    }

    fn row(&self, name: &str) -> String {
        format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {:.1} | {} |",
            self.recovered,
            self.some,
            self.refused,
            self.empty,
            self.broken,
            self.late,
            self.seconds,
            self.memory >> 20
        )
    }
}

/// Runs both engines over all files and prints what became of them.
pub fn compare(papers: &Path) -> Result<(), Failure> {
    let mut sources: Vec<PathBuf> = Vec::new();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/quickstart/papers");
    for folder in [papers.join("papers"), own] {
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "pdf") {
                sources.push(path);
            }
        }
    }
    sources.sort();
    let dir = tempfile::tempdir()?;
    let (file, out) = (dir.path().join("file.pdf"), dir.path().join("file.txt"));
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    let mut wholes: HashMap<PathBuf, [Bag; 2]> = HashMap::new();
    for at in 0..FILES {
        let source = &sources[random.random_range(0..sources.len())];
        if !wholes.contains_key(source) {
            let whole = |command: Command| {
                Tally::default().run("", command, &out, &Bag::new()).map(|_| bag(&out))
            };
            let both = [
                whole(engines::quantmill(source, &out)?)?,
                whole(engines::pdftotext(source, &out))?,
            ];
            wholes.insert(source.clone(), both);
        }
        let whole = &wholes[source];
        fs_err::write(&file, damage(fs_err::read(source)?, at, &mut random))?;
        let kind = ["truncated", "flipped", "cut"][at % 3];
        let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{at} {stem} {kind}");
        let before = (ours.recovered, theirs.recovered);
        let (_, said) = ours.run(&name, engines::quantmill(&file, &out)?, &out, &whole[0])?;
        theirs.run(&name, engines::pdftotext(&file, &out), &out, &whole[1])?;
        let said = said.lines().next().unwrap_or_default().replace(&*file.to_string_lossy(), "");
        println!(
            "{name}: ours {}, pdftotext {} {said}",
            ours.recovered - before.0,
            theirs.recovered - before.1
        );
    }
    println!(
        "\n| engine | recovered of {FILES} | some text | refused | empty | broken | over {SECONDS} s | most s | most MiB |"
    );
    println!("|{}", " --- |".repeat(9));
    println!("{}\n{}", ours.row("quantmill"), theirs.row("pdftotext"));
    let mut hard = Tally::default();
    let mut wrong = 0;
    println!("\n| hard case | as it must be | CPU s | MiB |\n| --- | --- | --- | --- |");
    for case in cases() {
        fs_err::write(&file, &case.bytes)?;
        let mut one = Tally::default();
        let (text, said) =
            one.run(case.name, engines::quantmill(&file, &out)?, &out, &Bag::new())?;
        let right = match case.want {
            Want::Text(words) => text.contains(words),
            Want::Reason(words) => text.is_empty() && said.contains(words),
            Want::Either => !text.is_empty() || !said.is_empty(),
        };
        let fine = right && one.broken == 0 && one.late == 0 && one.memory <= BYTES;
        wrong += usize::from(!fine);
        println!(
            "| {} | {} | {:.1} | {} |",
            case.name,
            if fine { "yes" } else { "no" },
            one.seconds,
            one.memory >> 20
        );
        if !fine {
            hard.remarks.push(format!(
                "{}: {} {:?}",
                case.name,
                said.trim(),
                text.get(..60).unwrap_or(&text)
            ));
        }
        hard.remarks.append(&mut one.remarks);
    }
    for remark in ours.remarks.iter().chain(&hard.remarks) {
        println!("{remark}");
    }
    if ours.broken + ours.late + ours.empty + wrong > 0 {
        return Err("files that were not met as they must be are named above".into());
    }
    Ok(())
}
