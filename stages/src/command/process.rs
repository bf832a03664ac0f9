//! Runs a child process in a group of its own: its lines as they come, and an end to all of it.
//!
//! Both of its streams are one pipe, so that lines keep the order in which they were written; one
//! `poll` waits for lines and for its end, without a thread and without looking again and again. When
//! the run is cancelled, the time is up, or the child has ended, what is left of its group is asked
//! to stop (TERM) and after two seconds made to (KILL): a process left behind could still write to
//! outputs that are hashed by then. Who leaves the group is the business of `strays`; what happens
//! when this process is killed, of `guard`.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::guard::Guard;
use super::strays;
use crate::{Context, Result, StageError};

/// The longest wait until the flag that cancels is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The same where the system cannot tell that a child ends.
const SHORT: Duration = Duration::from_millis(5);
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
    /// It was stopped because its time was up.
    pub late: bool,
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

/// Runs a command to its end, prints its lines through `ctx`, stops it when cancelled or late.
/// `start` spawns it; `mark` is a text of its environment that no other process has.
pub fn run(
    mut command: Command,
    mark: &str,
    start: impl FnOnce(&mut Command) -> Result<Child>,
    ctx: &Context,
) -> Result<Ended> {
    if ctx.cancel().is_cancelled() {
        return Err(StageError::Cancelled);
    }
    strays::adopt();
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = start(&mut command)?;
    // Its ends of the pipe must close, or the pipe never ends.
    drop(command);
    let Followed { tail, late, mut strays } = follow(&child, reader, mark, ctx);
    signal(&child, Signal::KILL);
    let status = child.wait()?;
    strays.extend(strays::end(child.id(), mark));
    for name in strays {
        ctx.warn(format!(
            "it left `{name}` running outside of its process group; that was ended, because it \
             could have written to the outputs later: let the command wait for what it starts"
        ));
    }
    if ctx.cancel().is_cancelled() {
        return Err(StageError::Cancelled);
    }
    Ok(Ended { status, tail: tail.into(), late })
}

struct Followed {
    tail: VecDeque<String>,
    late: bool,
    strays: Vec<String>,
}

/// Passes on lines until the child and its group have ended. The child is not reaped: until then its
/// number, which is the group's, cannot be given to another process.
fn follow(child: &Child, pipe: PipeReader, mark: &str, ctx: &Context) -> Followed {
    let begun = Instant::now();
    let limit = ctx.job().timeout.map(Duration::from_millis);
    let end = watch(child);
    let mut pipe = Some(pipe);
    let mut lines = Lines::default();
    let mut guard = None;
    let (mut ended, mut late) = (false, false);
    let mut asked: Option<Instant> = None;
    let mut killed = false;
    let mut told = (begun, 0);
    let mut strays = Vec::new();
    loop {
        let mut longest = if end.is_some() || ended { LOOK } else { SHORT };
        let left = limit.filter(|_| !late).map(|limit| limit.saturating_sub(begun.elapsed()));
        longest = longest.min(left.unwrap_or(longest));
        let (readable, over) = wait(pipe.as_ref(), end.as_ref().filter(|_| !ended), longest);
        if readable && !pipe.as_mut().is_some_and(|pipe| lines.read(pipe, ctx)) {
            lines.end(ctx);
            pipe = None;
        }
        ended = ended || over || (end.is_none() && has_ended(child));
        if ended && pipe.is_none() {
            return Followed { tail: lines.tail, late, strays };
        }
        let now = Instant::now();
        late = late || limit.is_some_and(|limit| !ended && now - begun >= limit);
        if ended {
            // They may be those who hold the pipe.
            strays.extend(strays::kill(child.id(), mark));
        }
        match asked {
            None if ended || late || ctx.cancel().is_cancelled() => {
                signal(child, Signal::TERM);
                asked = Some(now);
            }
            Some(since) if !killed && now - since >= GRACE => {
                signal(child, Signal::KILL);
                killed = true;
            }
            // Who still holds the pipe has left the group, and cannot be found either.
            Some(since) if ended && now - since >= GRACE + LOOK => {
                lines.end(ctx);
                return Followed { tail: lines.tail, late, strays };
            }
            _ => {}
        }
        if now - told.0 >= LOOK {
            // Commands of a moment need none: their group would be gone before it were ready.
            guard = guard.or_else(|| Guard::start(child.id(), mark));
            if lines.count > told.1 {
                // A cancelled run answers with an error here; the flag itself is looked at above.
                let _ = ctx.progress(lines.count, 0, "lines", "");
            }
            told = (now, lines.count);
        }
    }
}

/// Something that can be polled once the child has ended.
#[cfg(target_os = "linux")]
fn watch(child: &Child) -> Option<OwnedFd> {
    let pid = Pid::from_raw(child.id() as i32)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn watch(_: &Child) -> Option<OwnedFd> {
    None
}

/// Waits for lines or for the end. The flags say whether there is something to read, and whether the
/// child has ended.
fn wait(pipe: Option<&PipeReader>, end: Option<&OwnedFd>, longest: Duration) -> (bool, bool) {
    let mut fds: Vec<PollFd> = Vec::with_capacity(2);
    fds.extend(pipe.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    fds.extend(end.map(|end| PollFd::new(end, PollFlags::IN)));
    let longest =
        Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
    match poll(&mut fds, Some(&longest)) {
        Ok(_) => {
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            let behind = usize::from(pipe.is_some());
            (pipe.is_some() && ready[0], end.is_some() && ready[behind])
        }
        Err(Errno::INTR) => (false, false),
        // Without poll, a read waits for the next line.
        Err(_) => (pipe.is_some(), false),
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

/// A stream, cut into lines. Of a line that overwrites itself (a progress bar) the last state counts.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
    tail: VecDeque<String>,
    count: u64,
}

impl Lines {
    /// Passes on what there is; false at the end of the stream.
    fn read(&mut self, stream: &mut PipeReader, ctx: &Context) -> bool {
        let mut buffer = [0; 8 << 10];
        let read = match stream.read(&mut buffer) {
            Ok(read) => read,
            Err(e) => return e.kind() == std::io::ErrorKind::Interrupted,
        };
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.pending.len() >= LONGEST {
                self.end(ctx);
            }
        }
        read > 0
    }

    /// Ends the line.
    fn end(&mut self, ctx: &Context) {
        if self.pending.is_empty() {
            return;
        }
        let line = text(&self.pending);
        let line = ctx.mask(&line);
        self.pending.clear();
        self.count += 1;
        ctx.print(&line);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.into_owned());
    }
}

fn text(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end_matches(['\n', '\r']);
    line.rsplit('\r').next().unwrap_or_default().into()
}
