//! How a command failed, in words: its status, its last lines, and what may help.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::StageError;

/// Signals by number, with what usually lies behind them.
const SIGNALS: [(i32, &str, &str); 8] = [
    (9, "KILL", "the kernel kills what takes the last of the memory: `dmesg` says so"),
    (11, "SEGV", "it crashed: the program, or a library of it, has a fault"),
    (6, "ABRT", "it gave up on itself: its last lines say why"),
    (15, "TERM", "somebody asked it to stop"),
    (7, "BUS", "it crashed; a full disk or a file that shrank while it was mapped looks like this"),
    (4, "ILL", "it was built for another processor"),
    (8, "FPE", "it divided by zero"),
    (24, "XCPU", "it used up the time that `ulimit -t` allows"),
];

/// A program that is seen not to start, before it is tried.
pub fn unstartable(program: &str, found: &Path, label: &str) -> Option<StageError> {
    let meta = fs_err::metadata(found);
    let path = program.contains('/');
    let (what, hint) = match meta {
        Err(_) if path => (
            format!("there is no file `{program}`"),
            "a path is looked for from the pipeline's folder".to_owned(),
        ),
        Err(_) => (
            format!("there is no program `{program}` on PATH"),
            format!("install it, or name its path; a script beside the pipeline is `./{program}`"),
        ),
        Ok(meta) if meta.is_dir() => (format!("`{program}` is a folder"), "name a program".into()),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => (
            format!("`{program}` is not executable"),
            format!("`chmod +x {program}`, or name its interpreter: `[python, {program}]`"),
        ),
        Ok(_) => return None,
    };
    Some(StageError::failed(format!("`{label}` did not start: {what}")).hint(hint))
}

/// The system refused to start it.
pub fn unstarted(label: &str, error: &std::io::Error) -> StageError {
    let failed = StageError::failed(format!("`{label}` did not start: {error}"));
    match error.kind() {
        ErrorKind::NotFound => failed.hint(
            "its first line (`#!`) may name an interpreter that is not installed, or end in a \
             carriage return",
        ),
        ErrorKind::ArgumentListTooLong => {
            failed.hint("give it a folder, `{in.NAME}`, rather than the names of all files")
        }
        _ if error.to_string().contains("Exec format") => {
            failed.hint("a script begins with the line that names its interpreter: `#!/bin/sh`")
        }
        _ => failed.hint("the program and its environment are as `env -i` would start it"),
    }
}

/// It ended badly.
pub fn failed(label: &str, code: Option<i32>, signal: Option<i32>, tail: &[String]) -> StageError {
    // A shell says in this way that what it ran was killed.
    let inner = code.filter(|code| (129..160).contains(code)).map(|code| code - 128);
    let named = |number: i32| {
        let known = SIGNALS.iter().find(|(signal, _, _)| *signal == number);
        known.map_or(number.to_string(), |(_, name, _)| format!("{number} ({name})"))
    };
    let what = match (code, signal, inner) {
        (Some(code), _, Some(inner)) => {
            format!(
                "exited with status {code}: a program in it was ended by signal {}",
                named(inner)
            )
        }
        (Some(code), _, None) => format!("exited with status {code}"),
        (None, Some(signal), _) => format!("was ended by signal {}", named(signal)),
        (None, None, _) => "failed".into(),
    };
    let mut message = format!("`{label}` {what}");
    if tail.is_empty() {
        message.push_str("; it printed nothing");
    } else {
        message.push_str("; its last lines:");
        for line in tail {
            message.push_str("\n  ");
            message.push_str(line);
        }
    }
    let known = SIGNALS.iter().find(|(number, _, _)| Some(*number) == signal.or(inner));
    StageError::failed(message).hint(match (code, known) {
        (_, Some((_, _, hint))) => hint,
        (Some(126), _) => "a file in it is not executable: `chmod +x` it, or name its interpreter",
        (Some(127), _) => "a program in it was not found: is it installed, and on PATH?",
        _ => {
            "it runs in the pipeline's folder and sees of the environment only PATH, HOME, LANG and \
             what `env` names"
        }
    })
}
