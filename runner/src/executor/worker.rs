//! The child's side of `super::local`: reads a job from stdin, says a JSON line on stdout for
//! whatever happens, and ends when its parent does.

use std::io::{BufRead, Read, Write};

use quantmill_stages::{Cancel, Context, Job, Kind, Progress, Sink, StageError};
use serde::{Deserialize, Serialize};

/// A line from the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// How far it is.
    Progress(Progress),
    /// A number.
    Metric(String, f64),
    /// A warning.
    Warning(String),
    /// A line of a program.
    Output(String),
    /// It ended well.
    Done,
    /// It ended badly.
    Failed {
        /// What happened.
        message: String,
        /// What to do.
        help: Option<String>,
    },
}

fn say(said: &Said) {
    if let Ok(mut line) = serde_json::to_string(said) {
        line.push('\n');
        // A parent that is gone is noticed on stdin.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }
}

struct Speaker;

impl Sink for Speaker {
    fn progress(&self, progress: Progress) {
        say(&Said::Progress(progress));
    }
    fn metric(&self, name: &str, value: f64) {
        say(&Said::Metric(name.into(), value));
    }
    fn warn(&self, message: &str) {
        say(&Said::Warning(message.into()));
    }
    fn output(&self, line: &str) {
        say(&Said::Output(line.into()));
    }
}

/// Runs the job on stdin. Always exits 0 once it has said how the job ended.
pub fn main(kinds: &[Kind]) -> std::io::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line)?;
    std::thread::spawn(|| {
        // Ends only when the parent closes its end.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let done = match kinds.iter().find(|kind| kind.name == job.kind) {
        Some(kind) => (kind.run)(&job.params, &Context::new(&job, &Speaker, Cancel::default())),
        None => Err(StageError::failed(format!("no stage `{}`", job.kind))),
    };
    say(&match done {
        Ok(()) => Said::Done,
        Err(error) => {
            Said::Failed { message: error.to_string(), help: error.help().map(str::to_owned) }
        }
    });
    Ok(())
}
