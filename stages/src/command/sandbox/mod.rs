//! Keeps a command to what it declares: not at all, by telling (`trace`), or by refusing (`strict`).
//!
//! `trace` runs it under strace, where that is installed, and tells of each file that it read or
//! wrote and did not declare, with the line of YAML to add. `strict` refuses by Landlock, TCP too;
//! strace then says what was refused, so that a command that shrugs off a refusal fails all the same.
//! What was really in force goes into the record of the run.

mod advice;
#[cfg(target_os = "linux")]
mod landlock;
mod log;
mod places;

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::process;
use crate::{Context, Result, Sandbox, StageError};
use advice::{Finding, findings};
use places::Places;

/// The sandbox of one command.
pub struct Confined {
    level: Sandbox,
    places: Option<Places>,
    /// strace's log.
    log: Option<PathBuf>,
}

impl Confined {
    /// Prepares the sandbox of a command that writes these outputs to their own paths.
    pub fn new(ctx: &Context, outputs: impl Iterator<Item = PathBuf>) -> Confined {
        let level = ctx.job().sandbox;
        if level == Sandbox::Off {
            return Confined { level, places: None, log: None };
        }
        let traced = strace().is_some();
        if !traced && level == Sandbox::Trace {
            static TOLD: AtomicBool = AtomicBool::new(false);
            if !TOLD.swap(true, Ordering::Relaxed) {
                ctx.warn("`sandbox: trace` needs strace, which is not installed or not allowed: nothing is watched");
            }
        }
        let log = traced.then(|| ctx.scratch().join(".strace"));
        Confined { level, places: Some(Places::new(ctx, outputs)), log }
    }

    /// The words that run these words.
    pub fn words(&self, words: Vec<String>) -> Vec<String> {
        let (Some((program, _)), Some(log)) = (strace(), &self.log) else { return words };
        let mut all: Vec<String> = vec![program.clone()];
        all.extend(FLAGS.map(str::to_owned));
        all.extend(["-e".into(), format!("trace={}", log::CALLS)]);
        all.extend(["-o".into(), log.to_string_lossy().into_owned(), "--".into()]);
        all.extend(words);
        all
    }

    /// Spawns the command and says what is in force.
    pub fn spawn(&self, command: &mut Command, ctx: &Context) -> Result<Child> {
        let traced = match (&self.log, strace()) {
            (Some(_), Some((_, version))) => format!("strace {version}"),
            _ => "no strace".into(),
        };
        match (self.level, &self.places) {
            (Sandbox::Strict, Some(places)) => {
                let (child, how) = refuse(command, places)?;
                ctx.sandbox(&format!("strict: {how}, {traced}"));
                Ok(child)
            }
            (Sandbox::Trace, _) => {
                ctx.sandbox(&format!("trace: {traced}"));
                Ok(command.spawn()?)
            }
            _ => {
                ctx.sandbox("off");
                Ok(command.spawn()?)
            }
        }
    }

    /// What the command did beside what it declares. In a strict sandbox that is an error, which
    /// says also how the command ended.
    pub fn judge(&self, ctx: &Context, ended: Result<()>) -> Result<()> {
        let (Some(places), Some(log)) = (&self.places, &self.log) else {
            return ended.map_err(|error| self.hint(error));
        };
        let file = match fs_err::File::open(log) {
            Ok(file) => BufReader::new(file),
            Err(error) => {
                ctx.warn(format!("strace left no log: {error}"));
                return ended;
            }
        };
        let accesses = log::read(file, &places.dir);
        let failed = ended.is_err() && self.level == Sandbox::Strict;
        let found = findings(&accesses, places, ctx.job(), failed);
        if self.level == Sandbox::Strict && !found.is_empty() {
            return Err(refused(&found, ended.err()));
        }
        for finding in found {
            ctx.warn(finding.text());
        }
        ended
    }

    /// A failure that may be the sandbox's doing, where nobody saw.
    fn hint(&self, error: StageError) -> StageError {
        match (self.level, error) {
            (Sandbox::Strict, StageError::Failed { message, help }) => {
                let why = "`sandbox: strict` may have refused a file: `sandbox: trace` tells which";
                StageError::failed(message).hint(match help {
                    Some(help) => format!("{help}; {why}"),
                    None => why.into(),
                })
            }
            (_, error) => error,
        }
    }
}

fn refused(found: &[Finding], ended: Option<StageError>) -> StageError {
    let mut text = String::from("`sandbox: strict` lets it do only what it declares, and it");
    for finding in found {
        text.push_str(&format!("\n  {}", finding.what()));
    }
    if let Some(error) = ended {
        // Its last lines complain of what was refused; they stand right above.
        let error = error.to_string();
        let first = error.lines().next().unwrap_or_default();
        text.push_str(&format!("\n{}", first.trim_end_matches("; its last lines:")));
    }
    StageError::failed(text).hint(Finding::advice(found))
}

#[cfg(target_os = "linux")]
fn refuse(command: &mut Command, places: &Places) -> Result<(Child, String)> {
    landlock::spawn(command, places)
}

#[cfg(not(target_os = "linux"))]
fn refuse(_: &mut Command, _: &Places) -> Result<(Child, String)> {
    Err(StageError::failed("`sandbox: strict` needs Landlock, which only Linux has")
        .hint("run it on Linux, or with `sandbox: off`"))
}

/// `-D`: the command stays our child, so that its end is seen and its status is its own. `-y`: the
/// paths behind descriptors. `--seccomp-bpf`: only the calls that are asked for cost anything.
const FLAGS: [&str; 7] = ["-D", "-f", "-y", "-qq", "--seccomp-bpf", "-e", "signal=none"];

/// strace and its version, where it is installed and the system lets it trace.
fn strace() -> Option<&'static (String, String)> {
    static FOUND: OnceLock<Option<(String, String)>> = OnceLock::new();
    let look = || {
        let path = std::env::var_os("PATH");
        let program = process::find("strace", std::path::Path::new("/"), path.as_deref());
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
        };
        let mut trial = FLAGS.to_vec();
        trial.extend(["-e", "trace=execve", "-o", "/dev/null", "--", "/bin/sh", "-c", ":"]);
        let version = run(&["-V"])?;
        run(&trial).filter(|trial| trial.status.success())?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.lines().next()?.rsplit(' ').next()?.to_owned();
        Some((program.to_str()?.to_owned(), version))
    };
    FOUND.get_or_init(look).as_ref()
}
