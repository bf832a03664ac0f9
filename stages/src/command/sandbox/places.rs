//! What a command may read and write without saying so: what belongs to the system, to interpreters,
//! and to the action.
//!
//! Below the pipeline's folder everything counts, whatever else may lie there, but for what
//! interpreters keep for themselves.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::super::files::own_place;
use crate::{Context, Job};

/// Where programs and their libraries lie, and what the kernel shows.
pub const SYSTEM: [&str; 18] = [
    "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc", "/opt", "/nix", "/gnu",
    "/snap", "/proc", "/sys", "/dev", "/run", "/var", "/System",
];

/// Where interpreters keep themselves, their packages and what they compiled, below HOME.
const INTERPRETERS: [&str; 30] = [
    ".local/bin",
    ".local/lib",
    ".local/share",
    ".pyenv",
    ".rye",
    ".conda",
    "miniconda3",
    "anaconda3",
    "miniforge3",
    "micromamba",
    ".cargo",
    ".rustup",
    ".julia",
    ".juliaup",
    ".npm",
    ".nvm",
    ".volta",
    ".bun",
    ".deno",
    ".rbenv",
    ".rvm",
    ".gem",
    ".sdkman",
    ".asdf",
    ".R",
    "R",
    ".nix-profile",
    ".cache/uv",
    ".cache/pip",
    ".nv",
];

/// What programs keep for themselves: neither an input nor an output, wherever it lies.
const QUIET: [&str; 4] = ["__pycache__", ".pytest_cache", ".ipynb_checkpoints", ".mypy_cache"];

/// Where programs share memory: they make files there, and remove them.
pub const SHARED: &str = "/dev/shm";

/// Device files and the like that any program may write.
pub const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// The places of one action. All are as the system names them, without links.
pub struct Places {
    /// The pipeline's folder.
    pub dir: PathBuf,
    home: Option<PathBuf>,
    /// Folders of interpreters.
    pub programs: Vec<PathBuf>,
    /// Files that are inputs.
    pub files: HashSet<PathBuf>,
    /// Folders that are inputs, whole.
    pub folders: Vec<PathBuf>,
    /// Folders that belong to the action alone.
    pub own: Vec<PathBuf>,
    /// Outputs in the workspace.
    pub outputs: Vec<PathBuf>,
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

impl Places {
    /// The places of an action whose command writes these outputs to their own paths.
    pub fn new(ctx: &Context, outputs: impl Iterator<Item = PathBuf>) -> Places {
        let job = ctx.job();
        let dir = real(&job.dir);
        let home = std::env::var_os("HOME").map(|home| real(Path::new(&home)));
        let programs = programs(std::env::var_os("PATH").as_deref(), home.as_deref(), &dir);
        let (files, folders) = inputs(job);
        let made = job.outputs.values().filter_map(|path| match path.is_dir() {
            true => Some(path.as_path()),
            false => path.parent(),
        });
        let own = made.chain([ctx.scratch()]).map(real).collect();
        let outputs = outputs.map(|path| dir.join(path.strip_prefix(&job.dir).unwrap_or(&path)));
        let outputs = outputs.collect();
        Places { dir, home, programs, files, folders, own, outputs }
    }

    /// Whether it may be read.
    pub fn readable(&self, path: &Path) -> bool {
        let below = |folders: &[PathBuf]| folders.iter().any(|folder| path.starts_with(folder));
        let system = || SYSTEM.iter().any(|system| path.starts_with(system));
        self.files.contains(path)
            || below(&self.folders)
            || self.writable(path)
            || below(&self.programs)
            || (!path.starts_with(&self.dir) && system())
    }

    /// Whether it may be written.
    pub fn writable(&self, path: &Path) -> bool {
        let below = |folders: &[PathBuf]| folders.iter().any(|folder| path.starts_with(folder));
        below(&self.own)
            || self.outputs.iter().any(|output| path == output)
            || (!path.starts_with(&self.dir) && path.starts_with("/dev"))
            || (path.starts_with("/proc"))
    }

    /// Whether it is something that a program keeps for itself, and nobody's input or output.
    pub fn quiet(&self, path: &Path) -> bool {
        path.iter().any(|part| QUIET.iter().any(|quiet| part == *quiet))
    }

    /// Whether it is where programs write down what they like to keep, below HOME.
    pub fn settings(&self, path: &Path) -> bool {
        let below = self.home.as_ref().and_then(|home| path.strip_prefix(home).ok());
        let first = below.and_then(|path| path.components().next());
        let hidden = first.is_some_and(|first| first.as_os_str().as_encoded_bytes()[0] == b'.');
        hidden && !path.starts_with(&self.dir)
    }
}

/// Files and whole folders of all inputs.
fn inputs(job: &Job) -> (HashSet<PathBuf>, Vec<PathBuf>) {
    let (mut files, mut folders) = (HashSet::new(), Vec::new());
    for input in job.inputs.values() {
        match own_place(input).filter(|_| input.tree) {
            Some(folder) => folders.push(real(&folder)),
            None => files.extend(input.files.values().map(|path| real(path))),
        }
    }
    (files, folders)
}

/// The folders of what PATH and HOME hold of interpreters: `~/x` for `~/x/bin`.
fn programs(path: Option<&OsStr>, home: Option<&Path>, dir: &Path) -> Vec<PathBuf> {
    let prefix = |entry: PathBuf| {
        let entry = real(&entry);
        let bin = ["bin", "sbin", "shims", "Scripts"].iter().any(|bin| entry.ends_with(bin));
        match entry.parent().filter(|_| bin) {
            Some(above) if Some(above) != home && !dir.starts_with(above) => above.to_owned(),
            _ => entry,
        }
    };
    let entries = path.map(std::env::split_paths).into_iter().flatten();
    let entries = entries.filter(|entry| entry.is_absolute()).map(prefix);
    let entries = entries.filter(|entry| !dir.starts_with(entry));
    let home = home.into_iter().flat_map(|home| INTERPRETERS.map(|name| home.join(name)));
    let mut programs: Vec<PathBuf> = entries.chain(home.filter(|path| path.exists())).collect();
    programs.sort();
    programs.dedup();
    programs
}
