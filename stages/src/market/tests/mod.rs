//! Tests of the whole way from files to samples.

mod bad;
mod bars;
mod book;
mod causal;
mod clock;
pub(crate) mod made;
mod mirror;
mod orders;
mod real;
mod table;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::clock::Sampling;
use super::quality::{Counts, Quality};
use super::{Sample, Series, Source, open};
use crate::{Result, StageError};

#[test]
fn parameters_are_written_as_they_are_read() {
    for source in ["bars", "quotes", "trades", "depth", "binance", "orders"] {
        let source: Source = serde_json::from_value(json!({ source: {} })).unwrap();
        source.check().unwrap();
        let again = serde_json::to_value(&source).unwrap();
        assert_eq!(serde_json::from_value::<Source>(again).unwrap(), source);
    }
    let sampling = Sampling::default();
    let written = serde_json::to_value(&sampling).unwrap();
    assert_eq!(written, json!({ "clock": { "every": "1s" }, "max_idle": "1m", "warm_up": "10s" }));
    for bad in [json!({ "events": 0 }), json!({ "volume": -1.0 })] {
        let sampling: Sampling = serde_json::from_value(json!({ "clock": bad })).unwrap();
        assert_eq!(sampling.check().unwrap_err().path, "clock");
    }
    let unknown = serde_json::from_value::<Quality>(json!({ "max_gap": 1 })).unwrap_err();
    assert!(unknown.to_string().starts_with("unknown field `max_gap`"), "{unknown}");
    let schema = serde_json::to_value(schemars::schema_for!(Source)).unwrap();
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), 6);
    serde_json::to_value(schemars::schema_for!(Sampling)).unwrap();
}

/// What a run over files gives.
struct Ran {
    samples: Vec<Sample>,
    counts: Counts,
}

fn run_at(source: &Value, paths: &[PathBuf], sampling: &Value, quality: &Value) -> Result<Ran> {
    let source: Source = serde_json::from_value(source.clone()).unwrap();
    source.check().unwrap();
    let sampling: Sampling = serde_json::from_value(sampling.clone()).unwrap();
    sampling.check().unwrap();
    let quality: Quality = serde_json::from_value(quality.clone()).unwrap();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let files = paths.iter().map(|path| (name(path), path.clone())).collect();
    let series = Series { files, ..Series::default() };
    let mut feed = open(&source, &series, &sampling, &quality)?;
    let mut samples = Vec::new();
    let mut sample = Sample::default();
    while feed.next(&mut sample)? {
        samples.push(sample.clone());
    }
    Ok(Ran { samples, counts: feed.counts() })
}

/// Runs over files of these names and contents.
fn run(source: &Value, files: &[(&str, &[u8])], sampling: &Value, quality: &Value) -> Result<Ran> {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| dir.path().join(name)).collect();
    for (path, (_, bytes)) in paths.iter().zip(files) {
        std::fs::write(path, bytes).unwrap();
    }
    run_at(source, &paths, sampling, quality).map_err(|error| relative(error, dir.path()))
}

/// The error with paths below `dir` alone.
fn relative(error: StageError, dir: &Path) -> StageError {
    match error {
        StageError::BadInput { path, line, message, help } => {
            let path = path.strip_prefix(dir).unwrap_or(&path).to_owned();
            StageError::BadInput { path, line, message, help }
        }
        other => other,
    }
}

/// The message and the hint.
fn said(error: &StageError) -> String {
    format!("{error}\n{}", error.help().unwrap_or("no hint"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}
