//! Runs a job on this machine: in this process, or, where it computes on a device, in a child of the
//! same binary. A driver that aborts then takes down one action and not the run.

use std::io::{BufRead, BufReader, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quantmill_stages::{Cancel, Context, Job, Kind, Result, Sink, StageError};

use super::worker::Said;

/// Lines of a dead child's stderr that its error quotes.
const TAIL: usize = 12;
/// A child that is late stops itself where it can; by then it is made to.
const GRACE: Duration = Duration::from_secs(2);
/// The longest nap between looks at a child.
const LONGEST: Duration = Duration::from_millis(50);

/// Runs the job and passes on what it says.
pub fn run(kind: &Kind, job: &Job, sink: &dyn Sink, cancel: &Cancel) -> Result<()> {
    if kind.device { child(job, sink, cancel) } else { here(kind, job, sink, cancel) }
}

fn here(kind: &Kind, job: &Job, sink: &dyn Sink, cancel: &Cancel) -> Result<()> {
    let context = Context::new(job, sink, cancel.clone());
    let done = catch_unwind(AssertUnwindSafe(|| (kind.run)(&job.params, &context)));
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(StageError::failed(format!("`{}` panicked: {text}", kind.name))
            .hint("this is a fault of quantmill: please report it with the input"))
    })
}

fn child(job: &Job, sink: &dyn Sink, cancel: &Cancel) -> Result<()> {
    let binary = std::env::current_exe()?;
    let mut child = Command::new(binary)
        .arg("worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let done = std::thread::scope(|scope| {
        // Kept open until the end: the child stops when it closes, so that it never outlives us.
        let mut stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        if let Some(pipe) = &mut stdin {
            let mut line = serde_json::to_string(job).map_err(std::io::Error::from)?;
            line.push('\n');
            pipe.write_all(line.as_bytes())?;
        }
        let tail = scope.spawn(move || last_lines(stderr));
        let ended = scope.spawn(move || listen(stdout, sink));
        let limit = job.timeout.map(|limit| Duration::from_millis(limit) + GRACE);
        let (status, late) = wait(&mut child, limit, cancel)?;
        drop(stdin);
        let said = ended.join().unwrap_or(None);
        let tail = tail.join().unwrap_or_default();
        match said {
            _ if cancel.is_cancelled() => Err(StageError::Cancelled),
            Some(outcome) => outcome,
            None if late => Err(Context::new(job, sink, cancel.clone()).late()),
            None => Err(StageError::failed(format!("its process died ({status})\n{tail}"))
                .hint("out of memory and a GPU driver's abort look like this")),
        }
    });
    if done.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    done
}

/// Waits for the child's end. The flag says that it was ended because it was late.
fn wait(
    child: &mut Child,
    limit: Option<Duration>,
    cancel: &Cancel,
) -> Result<(std::process::ExitStatus, bool)> {
    let begun = Instant::now();
    let mut nap = Duration::from_millis(1);
    let mut late = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, late));
        }
        late = late || limit.is_some_and(|limit| begun.elapsed() >= limit);
        if late || cancel.is_cancelled() {
            child.kill()?;
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(LONGEST);
    }
}

/// Passes on what the child says; its last word is how it ended.
fn listen(stdout: Option<impl Read>, sink: &dyn Sink) -> Option<Result<()>> {
    let mut end = None;
    for line in BufReader::new(stdout?).lines().map_while(std::result::Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Said::Progress(progress)) => sink.progress(progress),
            Ok(Said::Metric(name, value)) => sink.metric(&name, value),
            Ok(Said::Warning(message)) => sink.warn(&message),
            Ok(Said::Output(line)) => sink.output(&line),
            Ok(Said::Done) => end = Some(Ok(())),
            Ok(Said::Failed { message, help }) => {
                end = Some(Err(StageError::Failed { message, help }));
            }
            // A library that prints to stdout.
            Err(_) => sink.output(&line),
        }
    }
    end
}

fn last_lines(stderr: Option<impl Read>) -> String {
    let mut lines = std::collections::VecDeque::new();
    let Some(stderr) = stderr else { return String::new() };
    for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
        tracing::debug!(target: "quantmill::worker", "{line}");
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    Vec::from(lines).join("\n")
}
