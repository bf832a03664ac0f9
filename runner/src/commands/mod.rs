//! The verbs, one file each, and what they share: finding the pipeline and opening its state.

pub mod cache;
pub mod check;
#[cfg(feature = "lm")]
pub mod decide;
pub mod explain;
#[cfg(feature = "lm")]
pub mod generate;
pub mod graph;
pub mod init;
pub mod metrics;
#[cfg(feature = "lm")]
mod models;
pub mod plan;
pub mod plots;
pub mod run;
pub mod runs;
pub mod schema;
#[cfg(feature = "lm")]
pub mod serve;
pub mod stages;
pub mod status;
pub mod sweep;
pub mod watch;

use std::path::{Path, PathBuf};

use clap::Args;
use quantmill_stages::{Device, Kind};

use crate::exit::Failure;
use crate::graph::Graph;
use crate::lock::{self, Lockfile};
use crate::plan::{Plan, Step, Verdict, Wish};
use crate::state::{self, State};
use crate::why::{self, Change};

/// Which pipeline, and with which values.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// The pipeline: a file, or a folder with a pipeline.yaml [default: .]
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// Stages to make, with all that they need [default: all]
    #[arg(value_name = "STAGE")]
    pub targets: Vec<String>,
    /// Override a variable or a parameter, as in `--set max_tokens=1200` or `--set sft.steps=50`
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Make a stage, all that depends on it, and what that needs; no others
    #[arg(long, value_name = "STAGE")]
    pub downstream_of: Vec<String>,
    /// Run a stage even where it is up to date; without a name all of them
    #[arg(long, value_name = "STAGE", num_args = 0..=1, default_missing_value = ALL)]
    pub force: Vec<String>,
    /// Where models compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
}

/// `--force` without a name: no stage can have this one.
const ALL: &str = "*";

impl Which {
    /// The pipeline file.
    pub fn find(&self) -> Result<PathBuf, Failure> {
        crate::find(self.split().0)
    }

    /// The pipeline and the stages. Where the first name is no path, but this folder has a pipeline,
    /// it is the name of a stage of that one.
    fn split(&self) -> (Option<&Path>, Vec<String>) {
        let first = self.pipeline.as_deref();
        let stage = first
            .and_then(Path::to_str)
            .filter(|name| !name.contains('/') && !name.ends_with(".yaml"))
            .filter(|name| !Path::new(name).join(crate::PIPELINE).is_file())
            .filter(|name| !Path::new(name).is_file() && Path::new(crate::PIPELINE).is_file());
        match stage {
            Some(stage) => (
                None,
                [stage]
                    .into_iter()
                    .map(str::to_owned)
                    .chain(self.targets.iter().cloned())
                    .collect(),
            ),
            None => (first, self.targets.clone()),
        }
    }

    /// The pipeline, where one is named.
    pub fn pipeline(&self) -> Option<&Path> {
        self.split().0
    }

    /// What it asks of a plan.
    pub fn wish(&self) -> Wish {
        let force_all = self.force.iter().any(|name| name == ALL);
        Wish {
            targets: self.split().1,
            downstream_of: self.downstream_of.clone(),
            force: self.force.iter().filter(|name| *name != ALL).cloned().collect(),
            force_all,
            device: self.device.into(),
        }
    }
}

/// How the stages of a pipeline are listed.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Name every stage, however many there are
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A pipeline file by itself, without stages or state.
#[derive(Args, Clone, Debug, Default)]
pub struct File {
    /// The pipeline: a file, or a folder with a pipeline.yaml [default: .]
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// Override a variable or a parameter, as in `--set max_tokens=1200` or `--set sft.steps=50`
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

impl File {
    /// Reads and checks it.
    pub fn load(&self, kinds: &[Kind]) -> Result<Graph, Failure> {
        one_each(&self.set)?;
        crate::load(&crate::find(self.pipeline.as_deref())?, &self.set, kinds)
    }
}

/// `--device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceName {
    /// The CPU; reproducible to the bit
    #[default]
    Cpu,
    /// A GPU through wgpu: Metal, Vulkan or DirectX 12
    Wgpu,
    /// An NVIDIA GPU through CUDA
    Cuda,
}

impl From<DeviceName> for Device {
    fn from(name: DeviceName) -> Device {
        match name {
            DeviceName::Cpu => Device::Cpu,
            DeviceName::Wgpu => Device::Wgpu,
            DeviceName::Cuda => Device::Cuda,
        }
    }
}

/// Refuses a list to go through: only `run` and `sweep` do that.
fn one_each(set: &[(String, String)]) -> Result<(), Failure> {
    let Some((name, value)) = set.iter().find(|(name, value)| sweep::is_list(name, value)) else {
        return Ok(());
    };
    let help = format!("write a list as [{value}], and quote a text: '{name}=\"{value}\"'");
    Err(Failure::usage(format!("`{name}={value}` is several values, as for a sweep"), Some(help)))
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it takes NAME=VALUE".into()),
    }
}

/// A pipeline that was read, with its lock and its state.
pub struct Opened {
    /// The pipeline.
    pub graph: Graph,
    /// The pipeline file.
    pub path: PathBuf,
    /// Its lock file, as it is now.
    pub lock: Lockfile,
    /// The state folder.
    pub state: State,
}

/// Reads the pipeline and opens its state.
pub fn open(which: &Which, kinds: &[Kind]) -> Result<Opened, Failure> {
    one_each(&which.set)?;
    let path = which.find()?;
    let graph = crate::load(&path, &which.set, kinds)?;
    let lock = lock::read(&lock::path(&path));
    let state = State::open(state::locate(&graph.dir))?;
    Ok(Opened { graph, path, lock, state })
}

impl Opened {
    /// What a run would do.
    pub fn plan(&self, which: &Which) -> Result<Plan, Failure> {
        crate::plan::plan(&self.graph, &self.state, &self.lock, &which.wish())
    }

    /// Why a stage runs, or, where it waits on others, what of its own has changed already.
    pub fn changes(&self, plan: &Plan, index: usize, step: &Step) -> Result<Vec<Change>, Failure> {
        Ok(match &step.verdict {
            Verdict::Hit(_) => Vec::new(),
            Verdict::Stale(changes) => changes.to_vec(),
            Verdict::Unknown(_) => {
                let known = plan.ready(&self.graph, &self.state, index)?;
                let stage = &self.graph.nodes[index].name;
                why::so_far(&self.state, &self.lock, stage, known)?
            }
        })
    }
}

/// The longest stage name, in characters.
pub fn name_width(graph: &Graph) -> usize {
    graph.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0)
}
