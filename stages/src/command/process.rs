//! Runs a child process in a group of its own: its lines as they come, and an end to all of it.
//!
//! Both of its streams are one pipe, so that lines keep the order in which they were written. When
//! the run is cancelled, or when the child has ended, what is left of its group is asked to stop
//! (TERM) and after two seconds made to (KILL): a process left behind could still write to outputs
//! that are hashed by then. A process that leaves the group (`setsid`) is not followed.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::{Context, Result, StageError};

/// Between looks at the child and at the flag that cancels.
const LOOK: Duration = Duration::from_millis(20);
/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(2);
/// A line that is longer is passed on in parts.
const LONGEST: usize = 64 << 10;
/// Lines kept for the message of a failure.
const TAIL: usize = 12;

/// How a child ended.
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// The last lines that it wrote.
    pub tail: Vec<String>,
}

/// Where a program is: as it stands if it has a `/` (relative to `dir`), else in a folder of `path`.
/// One that is nowhere stays a bare name, for the system to refuse.
pub fn find(program: &str, dir: &Path, path: Option<&OsStr>) -> PathBuf {
    if program.contains('/') {
        return dir.join(program);
    }
    let runs = |file: &PathBuf| {
        let meta = fs_err::metadata(file);
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    let found = folders.map(|folder| dir.join(folder).join(program)).find(runs);
    found.unwrap_or_else(|| program.into())
}

/// Runs a command to its end, prints its lines through `ctx`, stops it when cancelled.
pub fn run(mut command: Command, ctx: &Context) -> Result<Ended> {
    if ctx.cancel().is_cancelled() {
        return Err(StageError::Cancelled);
    }
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn()?;
    // Its ends of the pipe must close, or the pipe never ends.
    drop(command);
    let (sender, lines) = sync_channel(256);
    std::thread::spawn(move || forward(reader, &sender));
    let tail = follow(&child, &lines, ctx);
    signal(&child, Signal::KILL);
    let status = child.wait()?;
    if ctx.cancel().is_cancelled() {
        return Err(StageError::Cancelled);
    }
    Ok(Ended { status, tail: tail.into() })
}

/// Passes on lines until the child and its group have ended. The child is not reaped: until then its
/// number, which is the group's, cannot be given to another process.
fn follow(child: &Child, lines: &Receiver<String>, ctx: &Context) -> VecDeque<String> {
    let mut tail = VecDeque::new();
    let mut count = 0;
    let mut open = true;
    let mut asked: Option<Instant> = None;
    let mut killed = false;
    let mut looked = Instant::now();
    let mut nap = Duration::from_micros(50);
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                ctx.print(&line);
                count += 1;
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                open = false;
                std::thread::sleep(nap);
                nap = (nap * 2).min(LOOK);
            }
        }
        if open && looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        let ended = has_ended(child);
        // A cancelled run answers with an error here; the flag itself is looked at below.
        let _ = ctx.progress(count, 0, "lines", "");
        if !open && ended {
            return tail;
        }
        match asked {
            None if ended || ctx.cancel().is_cancelled() => {
                signal(child, Signal::TERM);
                asked = Some(looked);
            }
            Some(since) if !killed && since.elapsed() >= GRACE => {
                signal(child, Signal::KILL);
                killed = true;
            }
            // Who still holds the pipe has left the group.
            Some(since) if ended && since.elapsed() >= GRACE + 10 * LOOK => return tail,
            _ => {}
        }
    }
}

fn has_ended(child: &Child) -> bool {
    let Some(pid) = Pid::from_raw(child.id() as i32) else { return true };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // An error means that there is no such child to wait for.
    !matches!(waitid(WaitId::Pid(pid), look), Ok(None))
}

fn signal(child: &Child, signal: Signal) {
    if let Some(group) = Pid::from_raw(child.id() as i32) {
        // It may have ended of itself: then there is nobody to hear.
        let _ = kill_process_group(group, signal);
    }
}

/// Cuts a stream into lines. Of a line that overwrites itself (a progress bar) the last state counts.
fn forward(mut stream: impl Read, lines: &SyncSender<String>) {
    let mut pending = Vec::new();
    let mut buffer = [0; 8 << 10];
    loop {
        let read = match stream.read(&mut buffer) {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") || pending.len() >= LONGEST {
                if lines.send(text(&pending)).is_err() {
                    return;
                }
                pending.clear();
            }
        }
        if read == 0 {
            if !pending.is_empty() {
                // The listener may have gone; then nobody misses the line.
                let _ = lines.send(text(&pending));
            }
            return;
        }
    }
}

fn text(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end_matches(['\n', '\r']);
    line.rsplit('\r').next().unwrap_or_default().into()
}
