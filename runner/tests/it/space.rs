//! A folder with a pipeline, and the binary to run on it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until something is so. The limit is far beyond what a loaded machine needs.
pub fn wait_for(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the tests that take minutes are asked for.
pub fn long() -> bool {
    std::env::var_os("QUANTMILL_TEST_LONG").is_some()
}

/// Says that a test did not test anything, and why.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// A pipeline in a folder of its own.
pub struct Space {
    dir: tempfile::TempDir,
}

/// How the binary ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Of a process that has ended.
    pub fn of(out: std::process::Output) -> Ended {
        Ended {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }
    /// The last line of stderr: how a run sums itself up.
    pub fn summary(&self) -> &str {
        self.err.lines().last().unwrap_or("")
    }
    /// Panics unless it ended well.
    pub fn ok(self) -> Ended {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }
    /// Whether exactly these stages ran, in any order.
    pub fn ran(&self, stages: &[&str]) -> bool {
        let mut ran: Vec<&str> = self
            .err
            .lines()
            .filter_map(|line| line.strip_prefix("done "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        ran.sort_unstable();
        let mut wanted = stages.to_vec();
        wanted.sort_unstable();
        ran == wanted
    }
}

impl Space {
    pub fn new(pipeline: &str) -> Space {
        let space = Space { dir: tempfile::tempdir().unwrap() };
        space.write("pipeline.yaml", pipeline);
        space
    }
    /// The same in memory, where the system has such a folder: for tests of hundreds of runs, which
    /// would else wait for the disk.
    pub fn quick(pipeline: &str) -> Space {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let space = Space { dir: dir.unwrap() };
        space.write("pipeline.yaml", pipeline);
        space
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    pub fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }
    /// Lines of a log that commands append to: one for each time that a command really ran.
    pub fn log(&self) -> Vec<String> {
        let text = fs_err::read_to_string(self.path("log")).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }
    /// What a run should have cleaned away: scratch folders, and temporary files beside outputs.
    pub fn leftovers(&self) -> Vec<String> {
        let tmp = self.path(".quantmill/tmp");
        let mut found = Vec::new();
        let mut folders = vec![self.path("out"), self.path(""), tmp.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let hidden = path.file_name().unwrap().to_string_lossy().starts_with(".quantmill-");
                if hidden || folder == tmp && path.is_dir() {
                    found.push(path.display().to_string());
                } else if path.is_dir() && path.starts_with(self.path("out")) {
                    folders.push(path);
                }
            }
        }
        found
    }
    /// What the runs so far have written down, a list of events for each.
    pub fn records(&self) -> Vec<Vec<serde_json::Value>> {
        let Ok(runs) = fs_err::read_dir(self.path(".quantmill/runs")) else { return Vec::new() };
        let mut files: Vec<PathBuf> =
            runs.map(|run| run.unwrap().path().join("events.jsonl")).collect();
        files.sort();
        let read = |file| fs_err::read_to_string(file).unwrap_or_default();
        let parse = |text: String| text.lines().flat_map(serde_json::from_str).collect();
        files.into_iter().map(read).map(parse).collect()
    }
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quantmill"));
        command.args(arguments).current_dir(self.dir.path());
        command
            .env_remove("QUANTMILL_HOME")
            .env_remove("QUANTMILL_LOG")
            .env_remove("QUANTMILL_MIRROR")
            .env("NO_COLOR", "1");
        command
    }
    pub fn quantmill(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }
    pub fn run(&self) -> Ended {
        self.quantmill(&["run"])
    }
}
