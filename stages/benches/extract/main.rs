//! Measures `extract` beside other PDF engines, on the papers that `pipelines/corpus/fetch.sh` gets.
//!
//! `cargo bench -p quantmill-stages --no-default-features --bench extract -- [OPTIONS]`
//!
//! | option | what it does |
//! | --- | --- |
//! | `--papers DIR` | the folder that `fetch.sh` filled (default: `pipelines/corpus`) |
//! | `--python EXE` | a Python with `pymupdf` and `pypdf` (default: `python3`) |
//! | `--only NAME,...` | these documents alone |
//! | `--documents` | a row for each document |
//! | `--lost NAME` | the 5-grams of a source that our text lacks |
//! | `--keep DIR` | leave the texts there |
//! | `--hostile` | damaged files in place of whole ones: [`hostile`] |
//!
//! pdftotext is taken from `PATH`. An engine that is not there has no row. The measures are defined
//! in [`measure`], what counts as prose of a source in [`source`].
//!
//! References for F1 and for signs are pdftotext, PyMuPDF and pypdf. An engine is never its own
//! reference for F1, and one that recalls less than half of a document's source is none for that
//! document. The references keep running heads and page numbers, so for F1 and for signs our text
//! is that with `headers: keep`; all else is measured on what the stage gives by itself.

mod engines;
mod hard;
mod hostile;
mod measure;
mod source;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use measure::Share;

type Failure = Box<dyn std::error::Error>;

/// A document of `papers.tsv`.
struct Paper {
    name: String,
    columns: u32,
    /// Runs of the source's prose.
    source: Option<Vec<Vec<String>>>,
    /// All words of the source, of code and commands too.
    words: HashSet<String>,
    pages: usize,
}

/// What an engine made of the documents.
struct Engine {
    name: &'static str,
    texts: BTreeMap<String, String>,
    /// With running heads, where `texts` is without.
    whole: BTreeMap<String, String>,
    cpu: f64,
    failed: Vec<String>,
    memory: u64,
}

struct Options {
    papers: PathBuf,
    python: String,
    only: Vec<String>,
    documents: bool,
    lost: Option<String>,
    keep: Option<PathBuf>,
    hostile: bool,
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options {
        papers: Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/corpus"),
        python: "python3".into(),
        only: Vec::new(),
        documents: false,
        lost: None,
        keep: None,
        hostile: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        match word.as_str() {
            "--papers" => options.papers = value()?.into(),
            "--python" => options.python = value()?,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--lost" => options.lost = Some(value()?),
            "--keep" => options.keep = Some(value()?.into()),
            "--documents" => options.documents = true,
            "--hostile" => options.hostile = true,
            // Cargo says so to every benchmark.
            "--bench" => {}
            other => return Err(format!("unknown option `{other}`").into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let first = words.next();
    if first.as_deref() == Some(engines::ONE) {
        let (Some(pdf), Some(out)) = (words.next(), words.next()) else { return ExitCode::FAILURE };
        let headers = words.next().unwrap_or("remove".into());
        return match engines::one(Path::new(&pdf), Path::new(&out), &headers) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}\n  hint: {}", error.help().unwrap_or_default());
                ExitCode::FAILURE
            }
        };
    }
    let done = options(first.into_iter().chain(words)).and_then(|options| {
        if options.hostile { hostile::compare(&options.papers) } else { compare(&options) }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn papers(options: &Options) -> Result<Vec<Paper>, Failure> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/corpus/papers.tsv");
    let list = fs_err::read_to_string(list)?;
    let mut out = Vec::new();
    for row in list.lines().skip(1) {
        let [name, columns, _, _, source] = row.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("papers.tsv: not five cells: {row}").into());
        };
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let pdf = options.papers.join("papers").join(format!("{name}.pdf"));
        if !pdf.exists() {
            return Err(
                format!("{}: not there; run pipelines/corpus/fetch.sh", pdf.display()).into()
            );
        }
        let kind = source.trim_end_matches(".gz").rsplit('.').next().unwrap_or_default();
        let source = (!source.is_empty()).then(|| {
            let path = options.papers.join("sources").join(format!("{name}.{kind}"));
            fs_err::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        });
        let pages = lopdf::Document::load(&pdf)?.page_iter().count();
        let source = source.transpose()?;
        out.push(Paper {
            name: name.into(),
            columns: columns.parse()?,
            words: source.as_deref().map(measure::words).unwrap_or_default().into_iter().collect(),
            source: source.as_deref().map(source::prose),
            pages,
        });
    }
    Ok(out)
}

/// Runs every engine over all papers; ours comes first.
fn run_all(options: &Options, papers: &[Paper], out: &Path) -> Result<Vec<Engine>, Failure> {
    let pdf = |name: &str| options.papers.join("papers").join(format!("{name}.pdf"));
    let limit = Duration::from_secs(120);
    let mut all = Vec::new();
    for name in ["quantmill", "pdftotext", "pymupdf", "pypdf"] {
        let out = out.join(name);
        fs_err::create_dir_all(&out)?;
        let mut engine = Engine {
            name,
            texts: BTreeMap::new(),
            whole: BTreeMap::new(),
            cpu: 0.0,
            failed: Vec::new(),
            memory: 0,
        };
        let mut costs = BTreeMap::new();
        if matches!(name, "quantmill" | "pdftotext") {
            for paper in papers {
                let to = out.join(format!("{}.txt", paper.name));
                let mut command = match name {
                    "quantmill" => engines::quantmill(&pdf(&paper.name), &to)?,
                    _ => engines::pdftotext(&pdf(&paper.name), &to),
                };
                let Ok(ran) = engines::run(&mut command, limit) else { break };
                let fine = ran.status.is_some_and(|status| status.success());
                if !fine && name == "quantmill" {
                    eprintln!("{}: {}", paper.name, ran.said.trim());
                }
                costs.insert(paper.name.clone(), fine.then_some(ran.cost.cpu));
                engine.memory = engine.memory.max(ran.cost.memory);
                if name == "quantmill" {
                    let to = out.join(format!("{}-whole.txt", paper.name));
                    engines::run(engines::quantmill(&pdf(&paper.name), &to)?.arg("keep"), limit)?;
                    let text = fs_err::read_to_string(&to).unwrap_or_default();
                    engine.whole.insert(paper.name.clone(), text);
                }
            }
        } else {
            let names: Vec<&str> = papers.iter().map(|paper| paper.name.as_str()).collect();
            let folder = options.papers.join("papers");
            let found = engines::python(&options.python, name, &names, &folder, &out)?;
            costs.extend(found.unwrap_or_default());
        }
        if costs.is_empty() {
            eprintln!("{name} is not installed");
            continue;
        }
        for (paper, cost) in costs {
            let bytes = fs_err::read(out.join(format!("{paper}.txt"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            match cost {
                Some(cpu) if text.chars().any(char::is_alphabetic) => engine.cpu += cpu,
                _ => engine.failed.push(paper.clone()),
            }
            engine.texts.insert(paper, text);
        }
        all.push(engine);
    }
    Ok(all)
}

/// The measures of one engine, over all documents or of one.
#[derive(Default)]
struct Row {
    /// By the number of columns.
    recall: [Share; 2],
    f1: Share,
    greek: Share,
    operators: Share,
    glued: Share,
    ligatures: Share,
}

impl Row {
    fn add(&mut self, other: Row) {
        self.recall[0].add(other.recall[0]);
        self.recall[1].add(other.recall[1]);
        self.f1.add(other.f1);
        self.greek.add(other.greek);
        self.operators.add(other.operators);
        self.glued.add(other.glued);
        self.ligatures.add(other.ligatures);
    }

    fn cells(&self) -> String {
        let ratio = |share: Share| share.ratio().map_or("    -".into(), |r| format!("{r:.4}"));
        let glued = self.glued.ratio().map_or("-".into(), |r| format!("{:.3}", r * 1000.0));
        format!(
            "{} | {} | {} | {} | {} | {glued} | {}",
            ratio(self.recall[0]),
            ratio(self.recall[1]),
            ratio(self.f1),
            ratio(self.greek),
            ratio(self.operators),
            ratio(self.ligatures)
        )
    }
}

fn measure(paper: &Paper, engine: &Engine, all: &[Engine]) -> Row {
    let text_of = |engine: &Engine| engine.texts.get(&paper.name).cloned().unwrap_or_default();
    let text = text_of(engine);
    let words = measure::words(&text);
    let whole = engine.whole.get(&paper.name).cloned().unwrap_or(text);
    let bag = measure::count(measure::words(&whole).into_iter());
    let mut row = Row::default();
    let (mut greek, mut operators) = (Vec::new(), Vec::new());
    let mut seen: HashMap<String, u32> = HashMap::new();
    for other in all.iter().filter(|other| other.name != "quantmill") {
        let text = text_of(other);
        let words = measure::words(&text);
        let bag_of_other = measure::count(words.iter().cloned());
        bag_of_other.keys().for_each(|word| *seen.entry(word.clone()).or_default() += 1);
        greek.push(measure::greek(&text));
        operators.push(measure::operators(&text));
        let recall = paper.source.as_ref().and_then(|s| measure::five_grams(s, &words).ratio());
        if other.name != engine.name && recall.is_none_or(|recall| recall >= 0.5) {
            row.f1.add(Share { part: measure::f1(&bag, &bag_of_other), whole: 1.0 });
        }
    }
    if greek.len() > 1 {
        row.greek = measure::kept(&measure::agreed(&greek), &measure::greek(&whole));
        row.operators = measure::kept(&measure::agreed(&operators), &measure::operators(&whole));
    }
    if let Some(source) = &paper.source {
        row.recall[usize::from(paper.columns > 1)] = measure::five_grams(source, &words);
        row.ligatures = measure::ligatures(source, &measure::count(words.iter().cloned()));
        row.glued = measure::glued(source, &known(paper, &seen), &words);
    }
    row
}

/// Words that are not taken for two glued ones.
fn known(paper: &Paper, seen: &HashMap<String, u32>) -> HashSet<String> {
    let said = seen.iter().filter(|(_, engines)| **engines > 1).map(|(word, _)| word.clone());
    said.chain(paper.words.iter().cloned()).collect()
}

fn compare(options: &Options) -> Result<(), Failure> {
    let papers = papers(options)?;
    let scratch = tempfile::tempdir()?;
    let out = options.keep.clone().unwrap_or_else(|| scratch.path().to_owned());
    let engines = run_all(options, &papers, &out)?;
    let pages: usize = papers.iter().map(|paper| paper.pages).sum();
    let sources = papers.iter().filter(|paper| paper.source.is_some()).count();
    let two = papers.iter().filter(|paper| paper.columns > 1).count();
    println!(
        "{} papers, {pages} pages, {two} in two columns, {sources} with their source\n",
        papers.len()
    );
    let head = "S5 one column | S5 two columns | F1 | Greek | operators | glued/1000 | fi, fl";
    let rule = " --- |".repeat(7);
    let mut totals = Vec::new();
    for engine in &engines {
        let mut total = Row::default();
        for paper in &papers {
            total.add(measure(paper, engine, &engines));
        }
        totals.push(total);
    }
    if options.documents {
        println!("| document | engine | {head} |\n| --- | --- |{rule}");
        for paper in &papers {
            for engine in &engines {
                let cells = measure(paper, engine, &engines).cells();
                println!("| {} | {} | {cells} |", paper.name, engine.name);
            }
        }
        println!();
    }
    println!(
        "| engine | pages/CPU s | failed | {head} | most MiB |\n| --- | --- | --- |{rule} --- |"
    );
    for (engine, total) in engines.iter().zip(&totals) {
        let memory = match engine.memory {
            0 => "-".into(),
            bytes => format!("{}", bytes >> 20),
        };
        println!(
            "| {} | {:.0} | {} | {} | {memory} |",
            engine.name,
            pages as f64 / engine.cpu.max(1e-9),
            engine.failed.len(),
            total.cells()
        );
    }
    for engine in engines.iter().filter(|engine| !engine.failed.is_empty()) {
        println!("{} failed: {}", engine.name, engine.failed.join(", "));
    }
    if let Some(name) = &options.lost {
        let paper = papers.iter().find(|paper| paper.name == *name).ok_or("no such document")?;
        let text = engines[0].texts.get(name).map(String::as_str).unwrap_or_default();
        for gram in
            measure::lost(paper.source.as_deref().unwrap_or_default(), &measure::words(text))
        {
            println!("{}", gram.join(" "));
        }
        let known = known(paper, &HashMap::new());
        let words = measure::words(text);
        for word in
            measure::glued_words(paper.source.as_deref().unwrap_or_default(), &known, &words)
        {
            println!("glued: {word}");
        }
    }
    Ok(())
}
