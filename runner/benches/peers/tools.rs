//! The tools: how each is installed and called, and how it wants a graph written down.
//!
//! Each gets the file that its manual would have one write, with its dependencies stated in full,
//! and as many jobs as the machine has processors.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::graph::Graph;

/// The tool that is compared with the others.
pub const OURS: &str = "quantmill";

/// The text of a build file for a graph.
type Write = fn(&Graph) -> String;

/// A tool that runs graphs.
pub struct Tool {
    /// Its name in the tables.
    pub name: &'static str,
    /// The program to look for.
    pub program: &'static str,
    /// How to come by it.
    pub install: &'static str,
    /// The build file's name, and its text for a graph; none for a tool that only starts up.
    pub file: Option<(&'static str, Write)>,
    /// The arguments of a run; `JOBS` stands for the number of processors.
    pub run: &'static [&'static str],
    /// Commands to prepare a folder with.
    pub before: &'static [&'static [&'static str]],
    /// What it keeps, beside the outputs: taken away before a cold run.
    pub state: &'static [&'static str],
}

/// All tools, ours first.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: OURS,
        program: "quantmill",
        install: "name it with --quantmill FILE",
        file: Some(("pipeline.yaml", quantmill)),
        run: &["run", "-j", "JOBS"],
        before: &[],
        state: &[".quantmill", "pipeline.lock"],
    },
    Tool {
        name: "ninja",
        program: "ninja",
        install: "pip install ninja",
        file: Some(("build.ninja", ninja)),
        run: &["-j", "JOBS", "--quiet"],
        before: &[],
        state: &[".ninja_log", ".ninja_deps"],
    },
    Tool {
        name: "n2",
        program: "n2",
        install: "cargo install --git https://github.com/evmar/n2",
        file: Some(("build.ninja", ninja)),
        run: &["-j", "JOBS"],
        before: &[],
        state: &[".n2_db"],
    },
    Tool {
        name: "make",
        program: "make",
        install: "apt install make",
        file: Some(("Makefile", make)),
        run: &["-s", "-j", "JOBS"],
        before: &[],
        state: &[],
    },
    Tool {
        name: "doit",
        program: "doit",
        install: "pip install doit",
        file: Some(("dodo.py", doit)),
        run: &["-v", "0"],
        before: &[],
        state: &[
            ".doit.db",
            ".doit.db.db",
            ".doit.db.dat",
            ".doit.db.dir",
            ".doit.db.bak",
            "__pycache__",
        ],
    },
    Tool {
        name: "go-task",
        program: "task",
        install: "pip install go-task-bin",
        file: Some(("Taskfile.yml", task)),
        run: &["--silent", "-C", "JOBS"],
        before: &[],
        state: &[".task"],
    },
    Tool {
        name: "Snakemake",
        program: "snakemake",
        install: "pip install snakemake",
        file: Some(("Snakefile", snakemake)),
        run: &["--quiet", "all", "--cores", "JOBS"],
        before: &[],
        state: &[".snakemake"],
    },
    Tool {
        name: "DVC",
        program: "dvc",
        install: "pip install dvc",
        file: Some(("dvc.yaml", dvc)),
        run: &["repro", "--quiet"],
        before: &[&["init", "--no-scm", "--quiet"]],
        state: &["dvc.lock", ".dvc/cache", ".dvc/tmp"],
    },
    Tool {
        name: "just",
        program: "just",
        install: "pip install rust-just",
        file: None,
        run: &[],
        before: &[],
        state: &[],
    },
];

/// The first program of that name on `PATH`.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

impl Tool {
    /// The arguments of a run.
    pub fn arguments(&self) -> Vec<String> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        self.run.iter().map(|word| word.replace("JOBS", &jobs)).collect()
    }

    /// Makes a folder in which the tool can run the graph.
    pub fn prepare(&self, program: &Path, graph: &Graph, dir: &Path) -> io::Result<()> {
        let Some((name, text)) = self.file else { return Ok(()) };
        fs::create_dir_all(dir)?;
        graph.sow(dir)?;
        fs::write(dir.join(name), text(graph))?;
        for arguments in self.before {
            Command::new(program).args(*arguments).current_dir(dir).output()?;
        }
        Ok(())
    }

    /// Moves all outputs, and whatever the tool keeps, out of the folder.
    pub fn forget(&self, dir: &Path, trash: &mut Trash) -> io::Result<()> {
        for name in self.state.iter().chain(&["made"]) {
            trash.take(&dir.join(name))?;
        }
        fs::create_dir(dir.join("made"))
    }
}

/// Where what is not wanted any more lies until the end: file systems are slower for a while after
/// many files were removed, and whoever comes next would pay for it.
pub struct Trash {
    folder: PathBuf,
    count: usize,
}

impl Trash {
    /// An empty one.
    pub fn new(folder: PathBuf) -> io::Result<Trash> {
        fs::create_dir(&folder)?;
        Ok(Trash { folder, count: 0 })
    }

    /// Takes a file or a folder, if it is there.
    pub fn take(&mut self, path: &Path) -> io::Result<()> {
        self.count += 1;
        match fs::rename(path, self.folder.join(self.count.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            taken => taken,
        }
    }
}

/// One text from a piece for each stage.
fn each(
    graph: &Graph,
    head: &str,
    piece: impl Fn(&mut String, &crate::graph::Stage) -> std::fmt::Result,
) -> String {
    let mut text = head.to_owned();
    for stage in &graph.stages {
        // Writing to a string does not fail.
        let _ = piece(&mut text, stage);
    }
    text
}

fn quantmill(graph: &Graph) -> String {
    each(graph, "version: 1\nstages:\n", |text, stage| {
        let from = match stage.after {
            Some(before) => graph.stages[before].name.clone(),
            None => format!("./{}", stage.input),
        };
        writeln!(text, "  {}:\n    uses: command\n    from: {{ file: {from} }}", stage.name)?;
        let line = graph.line("{in.file}", "{out.file}");
        writeln!(text, "    with: {{ run: \"{line}\", outputs: {{ file: {} }} }}", stage.output)
    })
}

fn ninja(graph: &Graph) -> String {
    let input = graph.folder.as_ref().map_or("$in", |(folder, _)| folder);
    let head = format!("rule do\n  command = {}\n", graph.line(input, "$out"));
    each(graph, &head, |text, stage| {
        writeln!(text, "build {}: do {}", stage.output, graph.sources(stage).join(" "))
    })
}

fn make(graph: &Graph) -> String {
    let all: Vec<&str> = graph.stages.iter().map(|stage| stage.output.as_str()).collect();
    let input = graph.folder.as_ref().map_or("$<", |(folder, _)| folder);
    each(graph, &format!("all: {}\n", all.join(" ")), |text, stage| {
        let line = graph.line(input, "$@");
        writeln!(text, "{}: {}\n\t{line}", stage.output, graph.sources(stage).join(" "))
    })
}

fn doit(graph: &Graph) -> String {
    let head = "STAGES = [\n";
    let mut text = each(graph, head, |text, stage| {
        let line = graph.line(&stage.input, &stage.output);
        writeln!(text, "  ({:?}, {:?}, {line:?}),", stage.input, stage.output)
    });
    let sources = match &graph.folder {
        Some((folder, _)) => format!("[str(p) for p in Path('{folder}').rglob('*.txt')]"),
        None => "[input]".into(),
    };
    let _ = write!(
        text,
        "]\n\nfrom pathlib import Path\n\ndef task_stage():\n    for input, output, line in STAGES:\n        \
         yield dict(name=output, file_dep={sources}, targets=[output], actions=[line])\n"
    );
    text
}

fn task(graph: &Graph) -> String {
    let all: Vec<&str> = graph.stages.iter().map(|stage| stage.name.as_str()).collect();
    let head = format!("version: '3'\ntasks:\n  default: {{ deps: [{}] }}\n", all.join(", "));
    each(graph, &head, |text, stage| {
        if let Some(before) = stage.after {
            writeln!(text, "  {}:\n    deps: [{}]", stage.name, graph.stages[before].name)?;
        } else {
            writeln!(text, "  {}:", stage.name)?;
        }
        let sources = match &graph.folder {
            Some((folder, _)) => format!("{folder}/**/*.txt"),
            None => stage.input.clone(),
        };
        writeln!(text, "    sources: ['{sources}']\n    generates: ['{}']", stage.output)?;
        writeln!(text, "    cmds: ['{}']", graph.line(&stage.input, &stage.output))
    })
}

fn snakemake(graph: &Graph) -> String {
    let all: Vec<String> = graph.stages.iter().map(|stage| format!("{:?}", stage.output)).collect();
    each(graph, &format!("rule all:\n    input: {}\n", all.join(", ")), |text, stage| {
        let input = graph.folder.as_ref().map_or("{input}", |(folder, _)| folder);
        let sources: Vec<String> =
            graph.sources(stage).iter().map(|source| format!("{source:?}")).collect();
        writeln!(text, "rule {}:\n    input: {}", stage.name, sources.join(", "))?;
        writeln!(
            text,
            "    output: {:?}\n    shell: {:?}",
            stage.output,
            graph.line(input, "{output}")
        )
    })
}

fn dvc(graph: &Graph) -> String {
    each(graph, "stages:\n", |text, stage| {
        let line = graph.line(&stage.input, &stage.output);
        writeln!(text, "  {}:\n    cmd: {line}", stage.name)?;
        writeln!(text, "    deps: [{}]\n    outs: [{}]", stage.input, stage.output)
    })
}
