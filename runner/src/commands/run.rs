//! `quantmill run`: make what has changed.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use quantmill_cache::{Digest, Glance};
use quantmill_stages::{Cancel, Device, Kind};

use super::{Opened, Which, name_width, open};
use super::{metrics, sweep};
use crate::diagnostic::Problems;
use crate::event::{Event, Setting, Summary};
use crate::exit::Failure;
use crate::experiment::account;
use crate::experiment::ledger::{self, Ledger};
use crate::experiment::trials;
use crate::graph::Needs;
use crate::interrupt;
use crate::lock;
use crate::past::Past;
use crate::plan::{Plan, Step, Verdict};
use crate::record::{self, Record, Repeat};
use crate::report::progress::Display;
use crate::report::text::{colour, columns};
use crate::run::machine;
use crate::run::{self, Options};
use crate::state;
use crate::uptodate::{self, Look};

/// The lock file is at most this much behind the stages.
const LOCK: Duration = Duration::from_secs(2);
/// How many events may wait to be told and recorded.
const EVENTS: usize = 256;

/// Arguments of `run`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill run                              the pipeline.yaml of this folder
  quantmill run pipelines/quickstart         another folder's
  quantmill run . report                     one stage, and what it needs
  quantmill run --set sft.steps=50 -j 1      another value, one action at a time")]
pub struct Run {
    #[command(flatten)]
    pub(super) which: Which,
    /// Actions at a time [default: the number of processors]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// GPUs that stages may use at a time [default: those of the machine]
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// After a failure go on with what does not need the stage that failed
    #[arg(short, long)]
    keep_going: bool,
    /// Keep all source files in the store, so that the run can be made again whatever becomes of
    /// them; otherwise those of an input of at most 256 MiB and 1,000 files are kept
    #[arg(long)]
    keep_inputs: bool,
    /// What the run is about, for `runs list`
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    trial: Trial,
}

/// How another process of this program asks for one trial of a sweep.
#[derive(Args, Clone, Debug, Default)]
struct Trial {
    /// The sweep: outputs stay in the store, and the lock file as it is
    #[arg(long, hide = true, requires = "run_id")]
    sweep: Option<String>,
    /// The run's id
    #[arg(long, hide = true)]
    run_id: Option<String>,
}

/// Runs what has changed; every stage that ends well is kept whatever happens after it.
pub fn run(arguments: &Run, kinds: &[Kind]) -> Result<(), Failure> {
    let which = &arguments.which;
    if arguments.trial.sweep.is_none()
        && which.set.iter().any(|(name, value)| sweep::is_list(name, value))
    {
        return sweep::of_run(which, arguments.jobs, kinds);
    }
    let pipeline = which.find()?;
    let question = uptodate::question(&pipeline, &which.set, &which.wish(), kinds);
    let plain = arguments.trial.sweep.is_none() && !arguments.keep_inputs;
    let glances = if plain { look(arguments, &pipeline, &question) } else { Some(Vec::new()) };
    let Some(glances) = glances else { return Ok(()) };
    let opened = open(which, kinds)?;
    glances.into_iter().for_each(|glance| opened.state.index.glanced(glance));
    let plan = opened.plan(which)?;
    let detected = machine::detect();
    let cpus = detected.cpu as usize;
    let jobs = arguments.jobs.map_or(cpus, usize::from);
    let gpu = arguments.gpus.unwrap_or(detected.gpu);
    let machine = Needs { cpu: jobs as u32, gpu, ..detected };
    let lacking = machine::lacking(&opened.graph, &plan, &machine);
    if !lacking.is_empty() {
        return Err(Problems::new(opened.graph.sources.clone(), lacking).into());
    }
    let setting = setting(&opened, &plan, arguments, cpus, jobs);
    // Bounded, so that a listener that falls behind costs no memory.
    let (events, listen) = mpsc::sync_channel(EVENTS);
    let width = name_width(&opened.graph);
    let Opened { graph, path, lock, state } = opened;
    let mut record = Record::create(&state.home, &setting, &graph)?;
    let (lock_path, before) = (lock::path(&path), setting.clone());
    let file = setting.dir.join(setting.texts.first().map_or("", String::as_str));
    let sources = ledger::sources(&graph, &plan);
    let ledger = Ledger::new(&state.home, &setting.run, &file, kinds, sources);
    let (home, publish) = (state.home.clone(), setting.sweep.is_none());
    let lock_written = lock_path.clone();
    let names: Vec<String> = graph.nodes.iter().map(|node| node.name.clone()).collect();
    let steps = plan.steps.iter().zip(&graph.nodes);
    let open = |step: &Step| !matches!(step.verdict, Verdict::Hit(_));
    let open: Vec<String> = steps
        .filter(|(step, _)| step.as_ref().is_some_and(open))
        .map(|(_, node)| node.name.clone())
        .collect();
    let matrix = names.iter().any(|name| name.contains('@'));
    let (state_home, id) = (home.clone(), setting.run.clone());
    let cancel = Cancel::default();
    let _ = events.send(Event::RunStarted(Box::new(setting)));
    let listener = thread::spawn(move || {
        let mut lock = lock;
        lock.keep(names.iter().map(String::as_str));
        let terminal = std::io::stderr().is_terminal();
        let mut display = Display::new(terminal, colour(), width);
        if terminal && !open.is_empty() {
            display.expect(&Past::read(&home, &path), open.iter().map(String::as_str), jobs);
        }
        let mut kept = Ok(());
        let mut written = Instant::now();
        for event in listen {
            display.note(&event);
            let noted = record.note(&event).and(ledger.note(&event));
            lock.note(&event);
            kept = kept.and(noted);
            // The lock follows the stages, so that a run that is cut off is not forgotten.
            if publish && matches!(event, Event::StageFinished(_)) && written.elapsed() > LOCK {
                kept = kept.and(lock.write(&lock_written));
                written = Instant::now();
            }
        }
        let place = publish.then_some(lock_written.as_path());
        let locked = place.map_or(Ok(()), |place| lock.write(place));
        kept.and(locked).and_then(|()| record.finish(&home, lock, place))
    });
    let options = Options {
        machine,
        keep_going: arguments.keep_going,
        publish,
        keep_inputs: arguments.keep_inputs,
        cancel: cancel.clone(),
        events,
    };
    // A thread for each action, and some that judge and put in place what others wait for.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(jobs + cpus)
        .enable_all()
        .build()?;
    let ran = runtime.block_on(async {
        tokio::spawn(interrupt::cancel(cancel));
        run::run(graph, plan, state, options).await
    });
    drop(runtime);
    let kept = listener.join().map_err(|_| std::io::Error::other("the record's thread died"))?;
    let ran = ran?;
    let metrics = kept?;
    let summary = ran.summary;
    match trials::pages(&ran, publish) {
        Ok(told) => told.iter().for_each(|(stage, line)| eprintln!("{stage}: {line}")),
        Err(failure) => eprintln!("warning: trials are not counted: {failure}"),
    }
    if publish && summary.failed == 0 && !summary.interrupted {
        let again = Repeat { setting: before, metrics };
        // Without the note the next run takes the long way.
        if let Err(error) = uptodate::write(&ran, &lock_path, &question, &again) {
            tracing::debug!("no note that all is in place: {error}");
        }
    }
    if summary.ran > 0 && matrix {
        let width = columns(&std::io::stderr(), 100);
        let run = account::read(&state_home, &id);
        if let Some(table) = run.and_then(|run| metrics::cells(&run, width)) {
            eprint!("{table}");
        }
    }
    match (summary.interrupted, summary.failed) {
        (true, _) => Err(Failure::Interrupted),
        (false, 0) => Ok(()),
        (false, failed) => Err(Failure::Stages(failed)),
    }
}

/// Looks whether all is as the last run left it. That is then told and recorded, and `None` returned;
/// otherwise how the files of source folders look now.
fn look(arguments: &Run, pipeline: &Path, question: &Digest) -> Option<Vec<Glance>> {
    let started = Instant::now();
    let dir = pipeline.parent().filter(|dir| !dir.as_os_str().is_empty());
    let home = state::locate(dir.unwrap_or(Path::new(".")));
    // The pages that count trials beside the outputs are older than the last of them.
    if ledger::grew_after(&home, &uptodate::place(&home, question)) {
        return Some(Vec::new());
    }
    let (stages, again) = match uptodate::look(&home, question) {
        Look::UpToDate { stages, again } => (stages, again),
        Look::Changed(glances) => return Some(glances),
    };
    let millis = started.elapsed().as_millis() as u64;
    let summary = Summary { hits: stages, millis, ..Summary::default() };
    // Where the record of that run is gone, the long way writes one of its own.
    if record::repeat(&home, *again, arguments.note.clone(), summary).is_err() {
        return Some(Vec::new());
    }
    Display::new(false, colour(), 0).note(&Event::RunFinished(summary));
    None
}

fn setting(opened: &Opened, plan: &Plan, run: &Run, cpus: usize, jobs: usize) -> Setting {
    let which = &run.which;
    let (to_run, stages) = plan.counts();
    let mut setting = Setting {
        run: run.trial.run_id.clone().unwrap_or_else(record::id),
        pipeline: opened.path.display().to_string(),
        dir: PathBuf::new(),
        texts: Vec::new(),
        set: which.set.clone(),
        targets: which.wish().targets,
        downstream_of: which.downstream_of.clone(),
        force: which.force.clone(),
        keep_going: run.keep_going,
        sweep: run.trial.sweep.clone(),
        note: run.note.clone(),
        env: BTreeMap::new(),
        kinds: BTreeMap::new(),
        stages,
        to_run,
        version: env!("CARGO_PKG_VERSION").into(),
        commit: None,
        branch: None,
        host: String::new(),
        platform: String::new(),
        cpus,
        device: Device::from(which.device).name().into(),
        jobs,
    };
    record::place(&mut setting, &opened.graph);
    setting
}
