//! The engines that are compared, and what a run of one costs.
//!
//! Quantmill and pdftotext are started once a document, and their CPU seconds are those of the
//! process, user and system, its start included. PyMuPDF and pypdf read all documents in one
//! Python process and time themselves from the opening of a document to its text, so that the
//! start of Python is not held against them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use quantmill_stages::{ALL, Cancel, Context, Input, Job, Progress, Sink, StageError};

/// The first argument of the process that extracts one document.
pub const ONE: &str = "--one";

/// What a process cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// CPU seconds.
    pub cpu: f64,
    /// Seconds.
    pub wall: f64,
    /// The most memory it held, bytes.
    pub memory: u64,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its cost.
    pub cost: Cost,
    /// Its status; none if it took too long and was ended.
    pub status: Option<ExitStatus>,
    /// What it said on stderr.
    pub said: String,
}

/// Runs `command` for at most `limit`.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Ran> {
    let said = tempfile::NamedTempFile::new()?;
    let start = Instant::now();
    #[allow(clippy::zombie_processes)] // `wait4` below waits for it and tells its cost.
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen()?).spawn()?;
    let pid = child.id() as libc::pid_t;
    let mut status = 0;
    let mut late = false;
    // SAFETY: plain old data, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `pid` is our child, not waited for yet; both pointers are to live variables.
        let done = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) };
        match done {
            0 if !late && start.elapsed() > limit => {
                late = true;
                // SAFETY: the child has not been waited for, so the id is still its own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            0 => std::thread::sleep(Duration::from_micros(500)),
            -1 => return Err(io::Error::last_os_error()),
            _ => break,
        }
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Ran {
        cost: Cost {
            cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            wall: start.elapsed().as_secs_f64(),
            memory: usage.ru_maxrss as u64 * 1024,
        },
        status: (!late).then(|| ExitStatus::from_raw(status)),
        said: fs_err::read_to_string(said.path()).unwrap_or_default(),
    })
}

/// The command that extracts `pdf` into the file `out` with this program's own extractor.
pub fn quantmill(pdf: &Path, out: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ONE).arg(pdf).arg(out);
    Ok(command)
}

/// The command that extracts `pdf` into the file `out` with poppler's pdftotext.
pub fn pdftotext(pdf: &Path, out: &Path) -> Command {
    let mut command = Command::new("pdftotext");
    command.arg(pdf).arg(out);
    command
}

struct Silent;

impl Sink for Silent {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

/// Runs the stage `extract` on one file; the text goes to `out`.
pub fn one(pdf: &Path, out: &Path, headers: &str) -> Result<(), StageError> {
    let kind = ALL.iter().find(|kind| kind.name == "extract");
    let kind = kind.ok_or_else(|| StageError::failed("there is no stage `extract`"))?;
    let params = (kind.resolve)(&serde_json::json!({ "headers": headers }))
        .map_err(|error| StageError::failed(error.to_string()))?;
    let name = pdf.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let input = Input { files: [(name, pdf.to_owned())].into_iter().collect(), tree: false };
    let folder = tempfile::tempdir()?;
    let text = folder.path().join("text");
    fs_err::create_dir(&text)?;
    let job = Job {
        kind: kind.name.into(),
        params,
        inputs: BTreeMap::from([("documents".to_owned(), input)]),
        outputs: BTreeMap::from([("text".to_owned(), text.clone())]),
        scratch: folder.path().to_owned(),
        dir: folder.path().to_owned(),
        ..Job::default()
    };
    (kind.run)(&job.params, &Context::new(&job, &Silent, Cancel::default()))?;
    let name = Path::new(pdf.file_name().unwrap_or_default());
    fs_err::copy(text.join(name.with_extension("txt")), out)?;
    fs_err::copy(text.join(name.with_extension("json")), out.with_extension("json"))?;
    Ok(())
}

const PYMUPDF: &str = "
import pymupdf
pymupdf.TOOLS.mupdf_display_errors(False)
def text(path):
    with pymupdf.open(path) as doc:
        return '\\n'.join(page.get_text() for page in doc)
";

const PYPDF: &str = "
import logging, pypdf
logging.disable(logging.CRITICAL)
def text(path):
    return '\\n'.join(page.extract_text() for page in pypdf.PdfReader(path).pages)
";

const LOOP: &str = "
import sys, time
for name in sys.stdin.read().split():
    start = time.process_time()
    try:
        found = text(f'{sys.argv[1]}/{name}.pdf')
    except Exception as error:
        print(name, -1)
        continue
    print(name, time.process_time() - start)
    with open(f'{sys.argv[2]}/{name}.txt', 'w', encoding='utf-8', errors='replace') as out:
        out.write(found)
";

/// Runs a Python engine over all documents; CPU seconds by document, none where it failed. `None`
/// where Python lacks the package.
pub fn python(
    python: &str,
    engine: &str,
    names: &[&str],
    papers: &Path,
    out: &Path,
) -> io::Result<Option<BTreeMap<String, Option<f64>>>> {
    let program = if engine == "pymupdf" { PYMUPDF } else { PYPDF };
    let list: PathBuf = out.join("names");
    fs_err::write(&list, names.join("\n"))?;
    let done = Command::new(python)
        .args(["-c", &format!("{program}{LOOP}")])
        .args([papers, out])
        .stdin(std::fs::File::open(&list)?)
        .stderr(Stdio::null())
        .output();
    let Ok(done) = done else { return Ok(None) };
    if !done.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&done.stdout);
    let read = |line: &str| {
        let (name, seconds) = line.split_once(' ')?;
        let seconds: f64 = seconds.parse().ok()?;
        Some((name.to_owned(), (seconds >= 0.0).then_some(seconds)))
    };
    Ok(Some(said.lines().filter_map(read).collect()))
}
