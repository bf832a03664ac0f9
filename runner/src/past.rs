//! What recorded runs tell: how long actions took, which estimates go by, and which run made what.
//!
//! It reads the newest records only, so that a long history costs nothing, and takes them as they
//! are: a record that is damaged, or of another version, has less to say.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use quantmill_cache::{ActionKey, Digest};
use serde::Deserialize;

use crate::event::Outcome;

/// How many records are read: runs that did nothing, of which there are many, are short.
const RUNS: usize = 256;
/// How many bytes of them.
const BYTES: usize = 16 << 20;
/// How many actions of a stage count.
const ACTIONS: usize = 9;

/// What actions took, in milliseconds, by the stage's name; the newest first.
#[derive(Debug, Default)]
pub struct Past(HashMap<String, Vec<u64>>);

/// The part of an event that matters here.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    RunStarted {
        dir: PathBuf,
        texts: Vec<String>,
    },
    ActionFinished {
        stage: String,
        millis: u64,
    },
    #[serde(other)]
    Other,
}

impl Past {
    /// Reads the records of a pipeline's runs below the state folder.
    pub fn read(home: &Path, pipeline: &Path) -> Past {
        let pipeline = std::path::absolute(pipeline).unwrap_or_else(|_| pipeline.to_owned());
        let (mut past, mut left) = (Past::default(), BYTES);
        for run in runs(home).into_iter().take(RUNS) {
            if let Ok(file) = std::fs::File::open(run.join("events.jsonl")) {
                past.take(BufReader::new(file), &pipeline, &mut left);
            }
        }
        past
    }

    fn take(&mut self, record: impl BufRead, pipeline: &Path, left: &mut usize) {
        let mut here: HashMap<String, Vec<u64>> = HashMap::new();
        for line in record.lines() {
            let Ok(line) = line else { break };
            let Some(rest) = left.checked_sub(line.len()) else { break };
            *left = rest;
            let told = ["\"action_finished\"", "\"run_started\""];
            if !told.iter().any(|event| line.contains(event)) {
                continue;
            }
            match serde_json::from_str(&line) {
                Ok(Line::RunStarted { dir, texts })
                    if texts.first().is_some_and(|text| dir.join(text) != *pipeline) =>
                {
                    return;
                }
                // 0 is an action that another run did.
                Ok(Line::ActionFinished { stage, millis: millis @ 1.. }) => {
                    here.entry(stage).or_default().push(millis);
                }
                _ => {}
            }
        }
        for (stage, millis) in here {
            let all = self.0.entry(stage).or_default();
            all.extend(millis.into_iter().rev());
            all.truncate(ACTIONS);
        }
    }

    /// What an action of the stage takes, in milliseconds: the median of the last few.
    pub fn action(&self, stage: &str) -> Option<u64> {
        let mut millis = self.0.get(stage)?.clone();
        millis.sort_unstable();
        millis.get(millis.len() / 2).copied()
    }
}

/// The folders of all runs, the newest first.
fn runs(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.join("runs")).into_iter().flatten().flatten();
    let mut runs: Vec<_> = entries.map(|entry| entry.path()).collect();
    // Their names sort as time passed.
    runs.sort_unstable_by(|a, b| b.cmp(a));
    runs
}

/// The run in which a stage really ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The run's id.
    pub run: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// A stage that ended well.
#[derive(Deserialize)]
struct Ended {
    at: i64,
    stage: String,
    outcome: Outcome,
    key: ActionKey,
}

/// Which run last made the stages that have these keys, by name; those of which no record is left are
/// not in it.
pub fn made(home: &Path, mut wanted: BTreeMap<&str, Digest>) -> BTreeMap<String, Made> {
    let mut found = BTreeMap::new();
    for run in runs(home) {
        let Ok(file) = std::fs::File::open(run.join("events.jsonl")) else { continue };
        for line in BufReader::new(file).lines() {
            if wanted.is_empty() {
                return found;
            }
            let Ok(line) = line else { break };
            if !line.contains("\"stage_finished\"") || !line.contains("\"ran\"") {
                continue;
            }
            let Ok(ended) = serde_json::from_str::<Ended>(&line) else { continue };
            let this = wanted.get(&*ended.stage).is_some_and(|key| *key == ended.key.digest());
            if this && ended.outcome == Outcome::Ran {
                wanted.remove(&*ended.stage);
                let run = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.insert(ended.stage, Made { run, at: ended.at });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_last_runs_of_this_pipeline_counts() {
        let home = tempfile::tempdir().unwrap();
        let record = |run: &str, pipeline: &str, millis: &[u64]| {
            let folder = home.path().join("runs").join(run);
            fs_err::create_dir_all(&folder).unwrap();
            let mut text = format!(
                "{{\"event\":\"run_started\",\"dir\":\"{pipeline}\",\"texts\":[\"pipeline.yaml\"]}}\n"
            );
            for millis in millis {
                text.push_str(&format!(
                    "{{\"at\":1,\"event\":\"action_finished\",\"stage\":\"a\",\"millis\":{millis}}}\n"
                ));
            }
            text.push_str("{\"event\":\"action_fin");
            fs_err::write(folder.join("events.jsonl"), text).unwrap();
        };
        record("1", "/x/p", &[9_000; 20]);
        record("2", "/x/p", &[10, 20, 0, 30, 40, 50]);
        record("3", "/x/q", &[1; 20]);
        record("4", "/x/p", &[1_000, 2_000, 3_000, 4_000]);
        let past = Past::read(home.path(), Path::new("/x/p/pipeline.yaml"));
        assert_eq!(past.action("a"), Some(50), "4000 3000 2000 1000 | 50 40 30 20 10");
        assert_eq!(past.action("b"), None);
        assert_eq!(Past::read(&home.path().join("none"), Path::new("p")).action("a"), None);
    }
}
