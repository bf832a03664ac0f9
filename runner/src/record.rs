//! The run record: `.quantmill/runs/<id>/events.jsonl`, one [`Event`] a line with the time it
//! happened, written as it happens and never changed.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::event::{Event, Setting};

/// An open record.
pub struct Record {
    file: fs_err::File,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since 1970.
    at: i64,
    #[serde(flatten)]
    event: &'a Event,
}

impl Record {
    /// Begins the record of a run below the state folder.
    pub fn create(home: &Path, run: &str) -> io::Result<Record> {
        let folder = home.join("runs").join(run);
        fs_err::create_dir_all(&folder)?;
        Ok(Record { file: fs_err::File::create(folder.join("events.jsonl"))? })
    }

    /// Writes an event down. Progress is not worth keeping.
    pub fn note(&mut self, event: &Event) -> io::Result<()> {
        if matches!(event, Event::Progress { .. }) {
            return Ok(());
        }
        let mut line =
            serde_json::to_vec(&Line { at: chrono::Utc::now().timestamp_millis(), event })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// A new run id: the time, readable and sorting as it passed, and this process.
pub fn id() -> String {
    let time = chrono::Utc::now().format("%Y%m%d-%H%M%S-%3f");
    format!("{time}-{}", std::process::id())
}

/// Where and in which state of the repository a run happens.
pub fn place(setting: &mut Setting, dir: &Path) {
    let git = |arguments: &[&str]| {
        let out = Command::new("git").arg("-C").arg(dir).args(arguments).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    setting.commit = git(&["rev-parse", "HEAD"]);
    setting.dirty = git(&["status", "--porcelain", "--untracked-files=no"]).map(|s| !s.is_empty());
    setting.host = host();
    setting.platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
}

fn host() -> String {
    let named = |path: &str| std::fs::read_to_string(path).ok();
    let name = named("/proc/sys/kernel/hostname").or_else(|| {
        let out = Command::new("hostname").output().ok()?;
        String::from_utf8(out.stdout).ok()
    });
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
