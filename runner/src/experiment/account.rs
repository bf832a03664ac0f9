//! [`Account`]: one run as its record tells it, in a form that can be compared and made again.
//!
//! An account is read from `.quantmill/runs/<id>/` alone: the events say what happened, the lock
//! beside them what every stage was. It does not touch the pipeline or the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::event::{Event, Outcome, Setting, Summary, Survey};
use crate::lock::{self, Lockfile};
use crate::record::{self, EVENTS, LOCK, Line};

/// A run.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// The folder of its record.
    pub folder: PathBuf,
    /// When it began, in milliseconds since 1970.
    pub at: i64,
    /// What it was started with.
    pub setting: Setting,
    /// What it found where it ran; empty where it ran nothing.
    pub survey: Survey,
    /// How it ended; `None` where it was cut off, or still runs.
    pub summary: Option<Summary>,
    /// What it says of stages, by name. Hits without a number have no entry.
    pub told: BTreeMap<String, Told>,
    /// The last stage that reported numbers.
    pub headline: Option<String>,
    /// What a person said of it, at the start or since.
    pub note: Option<String>,
}

/// What a record says of a stage.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Told {
    /// How it ended; `None` where it did not end well.
    pub outcome: Option<Outcome>,
    /// Its numbers.
    pub metrics: BTreeMap<String, f64>,
    /// Milliseconds from start to end, where it ran.
    pub millis: u64,
    /// What went wrong, or which stage it waited for.
    pub failed: Option<String>,
}

/// How a run ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All stages are in place.
    Ok,
    /// Stages failed.
    Failed,
    /// Somebody stopped it.
    Interrupted,
    /// It was killed, or still runs.
    Unfinished,
}

impl Status {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Failed => "failed",
            Status::Interrupted => "interrupted",
            Status::Unfinished => "unfinished",
        }
    }
}

/// The file beside the events with what a person said of the run since.
pub const NOTE: &str = "note.txt";

/// Reads a run; `None` where there is no such record, or it is not one.
pub fn read(home: &Path, id: &str) -> Option<Account> {
    let folder = record::folder(home, id);
    let text = std::fs::read_to_string(folder.join(EVENTS)).ok()?;
    // A line that a kill cut off, or that another version wrote, says nothing.
    let mut lines = text.lines().filter_map(|l| serde_json::from_str::<Line<Event>>(l).ok());
    let first = lines.next()?;
    let Event::RunStarted(setting) = first.event else { return None };
    let note = std::fs::read_to_string(folder.join(NOTE)).ok().map(|n| n.trim().to_owned());
    let mut account = Account {
        id: id.to_owned(),
        folder,
        at: first.at,
        note: note.filter(|note| !note.is_empty()).or_else(|| setting.note.clone()),
        setting: *setting,
        survey: Survey::default(),
        summary: None,
        told: BTreeMap::new(),
        headline: None,
    };
    lines.for_each(|line| account.take(line.event));
    Some(account)
}

impl Account {
    fn take(&mut self, event: Event) {
        match event {
            Event::Surveyed(survey) => self.survey = survey,
            Event::StageFinished(done) => {
                let told = Told {
                    outcome: Some(done.outcome),
                    metrics: done.metrics,
                    millis: done.millis,
                    failed: None,
                };
                if !told.metrics.is_empty() {
                    self.headline = Some(done.stage.clone());
                }
                self.told.insert(done.stage, told);
            }
            Event::StageFailed { stage, item, message, .. } => {
                let item = item.map(|item| format!("[{item}] ")).unwrap_or_default();
                let failed = &mut self.told.entry(stage).or_default().failed;
                failed.get_or_insert(format!("{item}{message}"));
            }
            Event::StageSkipped { stage, because } => {
                let failed = Some(format!("skipped: {because} failed"));
                self.told.insert(stage, Told { failed, ..Told::default() });
            }
            Event::Hits { metrics, .. } => {
                for (stage, metrics) in metrics {
                    self.headline.get_or_insert(stage.clone());
                    let told = self.told.entry(stage).or_default();
                    (told.outcome, told.metrics) = (Some(Outcome::Hit), metrics);
                }
            }
            Event::RunFinished(summary) => self.summary = Some(summary),
            _ => {}
        }
    }

    /// How it ended.
    pub fn status(&self) -> Status {
        match self.summary {
            None => Status::Unfinished,
            Some(summary) if summary.interrupted => Status::Interrupted,
            Some(summary) if summary.failed > 0 => Status::Failed,
            Some(_) => Status::Ok,
        }
    }

    /// What every stage was: the lock that lies beside the events; of a run that was cut off, as far
    /// as it came.
    pub fn lock(&self) -> Lockfile {
        let place = self.folder.join(LOCK);
        if place.is_file() {
            return lock::read(&place);
        }
        let mut lock = Lockfile::default();
        let text = std::fs::read_to_string(self.folder.join(EVENTS)).unwrap_or_default();
        let lines = text.lines().filter_map(|l| serde_json::from_str::<Line<Event>>(l).ok());
        lines.for_each(|line| lock.note(&line.event));
        lock
    }

    /// The text of the pipeline and of what it includes: path relative to the pipeline's folder, and
    /// the place of the copy.
    pub fn texts(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        let texts = self.setting.texts.iter().enumerate();
        texts.map(|(n, path)| (path.as_str(), self.folder.join(record::text_name(n))))
    }

    /// The pipeline file.
    pub fn file(&self) -> PathBuf {
        self.setting.dir.join(self.setting.texts.first().map_or("", String::as_str))
    }

    /// Whether it is a trial of the sweep whose id begins so.
    pub fn is_trial_of(&self, sweep: &str) -> bool {
        self.setting.sweep.as_ref().is_some_and(|of| of.starts_with(sweep))
    }

    /// The name of the pipeline for people: its folder, and its file where that is not the usual.
    pub fn pipeline(&self) -> String {
        let folder = self.setting.dir.file_name().unwrap_or_default().to_string_lossy();
        match self.setting.texts.first().map(String::as_str) {
            None | Some(crate::PIPELINE) => folder.into_owned(),
            Some(file) => format!("{folder}/{file}"),
        }
    }
}
