//! The ledger: `.quantmill/ledger.jsonl`, a line for every action of a stage that tries a model out and
//! that really ran. It is only ever appended to, survives the runs that it names, and answers one
//! question honestly: how many configurations were tried on the same data?
//!
//! What a model was made of is part of the configuration, so that ten models judged on one data set
//! are ten trials. Which kinds of stages count is said by `Stage::TRIAL`; [`super::trials`] counts.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use quantmill_cache::{ActionKey, Artifact, Digest};
use quantmill_stages::{Format, Kind, Port};
use serde::{Deserialize, Serialize};

use crate::event::{Event, Finished, Outcome};
use crate::graph::{From, Graph};
use crate::plan::{self, Plan};

/// The BLAKE3 `derive_key` context of a configuration.
const CONTEXT: &str = "quantmill 2026 trial configuration v1";

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// When it ended, in milliseconds since 1970.
    pub at: i64,
    /// The run.
    pub run: String,
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// The stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The digest of parameters, seed, device and the models that went in.
    pub config: Digest,
    /// The data that went in, by port.
    pub data: BTreeMap<String, Artifact>,
    /// The source files that these data were made from, by path.
    #[serde(default)]
    pub sources: Sources,
    /// The models that went in, by port.
    pub given: BTreeMap<String, Artifact>,
    /// The models that came out, by port.
    pub made: BTreeMap<String, Artifact>,
    /// What it reported.
    pub metrics: BTreeMap<String, f64>,
}

/// Source files by absolute path or glob.
pub type Sources = BTreeMap<String, Artifact>;

/// Writes trials down as they happen.
pub struct Ledger {
    place: PathBuf,
    run: String,
    pipeline: PathBuf,
    kinds: Vec<Kind>,
    sources: BTreeMap<String, Sources>,
}

/// Where the ledger lies.
pub fn place(home: &Path) -> PathBuf {
    home.join("ledger.jsonl")
}

/// Whether a trial was added after a file was written.
pub fn grew_after(home: &Path, file: &Path) -> bool {
    let written = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    written(&place(home)).zip(written(file)).is_some_and(|(ledger, file)| ledger > file)
}

impl Ledger {
    /// The ledger of a run. `sources` are those of each stage that is a trial.
    pub fn new(
        home: &Path,
        run: &str,
        pipeline: &Path,
        kinds: &[Kind],
        sources: BTreeMap<String, Sources>,
    ) -> Ledger {
        let kinds = kinds.iter().filter(|kind| kind.trial).copied().collect();
        Ledger { place: place(home), run: run.into(), pipeline: pipeline.into(), kinds, sources }
    }

    /// Appends a line where the event is a trial. A line is one write, so that runs at the same time
    /// do not mix theirs.
    pub fn note(&self, event: &Event) -> io::Result<()> {
        let Event::StageFinished(done) = event else { return Ok(()) };
        let kind = self.kinds.iter().find(|kind| kind.name == done.key.stage);
        let (Some(kind), Outcome::Ran, 1..) = (kind, done.outcome, done.ran) else { return Ok(()) };
        let mut line = serde_json::to_vec(&self.trial(kind, done))?;
        line.push(b'\n');
        let mut options = fs_err::OpenOptions::new();
        let file = options.create(true).read(true).append(true).open(&self.place)?;
        let mut file = file.into_parts().0;
        // A line that a crash cut off must not take this one with it.
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            line.insert(0, b'\n');
        }
        file.write_all(&line)
    }

    fn trial(&self, kind: &Kind, done: &Finished) -> Trial {
        let outputs = formats((kind.outputs)(&done.key.params));
        let made = done.outputs.iter().filter(|(p, _)| outputs.get(*p) == Some(&Format::Model));
        let (config, given, data) = identity(kind, &done.key);
        Trial {
            at: chrono::Utc::now().timestamp_millis(),
            run: self.run.clone(),
            pipeline: self.pipeline.clone(),
            stage: done.stage.clone(),
            kind: kind.name.into(),
            config,
            data,
            sources: self.sources.get(&done.stage).cloned().unwrap_or_default(),
            given,
            made: made.map(|(port, artifact)| (port.clone(), *artifact)).collect(),
            metrics: done.metrics.clone(),
        }
    }
}

fn formats(ports: Vec<Port>) -> BTreeMap<String, Format> {
    ports.into_iter().map(|port| (port.name.into_owned(), port.format)).collect()
}

/// Whether what has this format is judged, and not a model or the log of its training.
fn is_data(format: Option<&Format>) -> bool {
    !matches!(format, Some(Format::Model | Format::Log))
}

/// What a trial is: the digest of its configuration, the models that go in, and the data.
pub fn identity(
    kind: &Kind,
    key: &ActionKey,
) -> (Digest, BTreeMap<String, Artifact>, BTreeMap<String, Artifact>) {
    let formats = formats((kind.inputs)(&key.params));
    let pick = |fits: &dyn Fn(Option<&Format>) -> bool| {
        let fitting = key.inputs.iter().filter(|(port, _)| fits(formats.get(*port)));
        fitting.map(|(port, artifact)| (port.clone(), *artifact)).collect::<BTreeMap<_, _>>()
    };
    let (given, data) = (pick(&|format| format == Some(&Format::Model)), pick(&is_data));
    let config = ActionKey { inputs: given.clone(), item: None, ..key.clone() };
    (Digest::derive(CONTEXT, config.json().as_bytes()), given, data)
}

/// The source files behind the data of each stage that is a trial: what feeds it directly or through
/// other stages, but not through a model.
pub fn sources(graph: &Graph, plan: &Plan) -> BTreeMap<String, Sources> {
    let mut all = BTreeMap::new();
    let trials = graph.nodes.iter().enumerate().filter(|(_, node)| node.kind.trial);
    for (index, node) in trials.filter(|(index, _)| plan.steps[*index].is_some()) {
        let (mut found, mut open, mut seen) = (Sources::new(), vec![index], vec![index]);
        while let Some(at) = open.pop() {
            let node = &graph.nodes[at];
            let formats = formats((node.kind.inputs)(&node.params()));
            for (port, from) in &node.inputs {
                if !is_data(formats.get(port)) {
                    continue;
                }
                found.extend(source(graph, plan, at, from));
                for before in
                    from.nodes().filter(|before| !seen.contains(before)).collect::<Vec<_>>()
                {
                    seen.push(before);
                    open.push(before);
                }
            }
        }
        all.insert(node.name.clone(), found);
    }
    all
}

fn source(graph: &Graph, plan: &Plan, at: usize, from: &From) -> Option<(String, Artifact)> {
    let node = &graph.nodes[at];
    let (pattern, _) = plan::pattern(graph, node, from)?;
    let artifact = plan.source(graph, node, from)?.artifact;
    let path = std::path::absolute(graph.dir.join(pattern)).ok()?;
    Some((path.display().to_string(), artifact))
}

/// All trials, in the order in which they ended. A line that a crash cut off is left out.
pub fn read(home: &Path) -> io::Result<Vec<Trial>> {
    let file = match std::fs::File::open(place(home)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = io::BufReader::new(file).lines();
    Ok(lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect())
}
