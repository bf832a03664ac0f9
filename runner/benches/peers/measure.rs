//! What one run of a program costs: CPU seconds of its whole process tree, wall seconds, memory.
//!
//! The system adds up what children used only for a process as a whole. Each program is therefore
//! started by a fresh process, this binary again, which waits for it and then asks for the sum. A
//! process that its parent never waits for is not seen; no tool here leaves one behind.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The first argument of the process that starts a program.
pub const HELPER: &str = "--measure-one";

/// What a run cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// CPU seconds, user and system, of the program and all that it started.
    pub cpu: f64,
    /// Seconds.
    pub wall: f64,
    /// The most memory that one of its processes held, bytes.
    pub memory: u64,
    /// Its exit status; none where a signal ended it.
    pub code: Option<i32>,
    /// Whether it was ended because it took too long.
    pub late: bool,
}

/// Runs a program in a folder, its output thrown away but for the last lines of stderr, which come
/// back beside the cost.
pub fn measure(
    program: &Path,
    arguments: &[String],
    dir: &Path,
    limit: Duration,
) -> io::Result<(Cost, String)> {
    let out = Command::new(std::env::current_exe()?)
        .arg(HELPER)
        .arg(limit.as_secs_f64().to_string())
        .arg(program)
        .args(arguments)
        .current_dir(dir)
        .env_remove("QUANTMILL_HOME")
        .env_remove("QUANTMILL_LOG")
        .env("NO_COLOR", "1")
        .env("DVC_NO_ANALYTICS", "1")
        .stdin(Stdio::null())
        .output()?;
    let cost = serde_json::from_slice(&out.stdout)?;
    let text = String::from_utf8_lossy(&out.stderr);
    let tail: Vec<&str> = text.lines().rev().take(3).collect();
    Ok((cost, tail.into_iter().rev().collect::<Vec<_>>().join("\n")))
}

/// The process that [`measure`] starts: the limit in seconds, a program, its arguments.
pub fn helper(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let limit = words.next().and_then(|word| word.to_str()?.parse().ok());
    let (Some(limit), Some(program)) = (limit, words.next()) else { return ExitCode::FAILURE };
    match one(Duration::from_secs_f64(limit), program, words) {
        Ok(cost) => {
            println!("{}", serde_json::json!(cost));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn one(
    limit: Duration,
    program: OsString,
    words: impl Iterator<Item = OsString>,
) -> io::Result<Cost> {
    let started = Instant::now();
    let mut child =
        Command::new(program).args(words).stdout(Stdio::null()).process_group(0).spawn()?;
    let group = child.id() as libc::pid_t;
    let (done, ended) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if late {
            // SAFETY: kill takes two numbers; the group is our child's, which is not yet waited for.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        late
    });
    let status = child.wait()?;
    let wall = started.elapsed().as_secs_f64();
    drop(done);
    let late = watch.join().unwrap_or(false) && status.signal().is_some();
    let (cpu, memory) = children()?;
    Ok(Cost { cpu, wall, memory, code: status.code(), late })
}

/// CPU seconds and the largest memory, in bytes, of all children that were waited for.
fn children() -> io::Result<(f64, u64)> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the structure that it is given, which is valid when all zero.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // Linux counts in KiB, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Ok((seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as u64 * unit))
}
