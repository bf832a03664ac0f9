//! How much worse a model's forecasts get when a feature is permuted: read from `forecast`'s output
//! `importance`, and kept to what the file says.
//!
//! A feature whose interval covers 0 is not shown to matter. Features that say the same share what they
//! are worth: each alone looks idle where another stands in for it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Result, StageError};

/// What a feature is worth to a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Importance {
    /// The feature.
    pub feature: String,
    /// Increase of the log loss out of fold when it is permuted; of several files their mean.
    pub loss_increase: f64,
    /// 95 % interval; of several files the mean of either end, which is as wide as that of one.
    pub interval: Option<(f64, f64)>,
}

#[derive(Deserialize)]
struct Line {
    feature: String,
    horizon: usize,
    loss_increase: f64,
    lo: Option<f64>,
    hi: Option<f64>,
}

/// Reads files of one model, over one horizon, the most important feature first.
///
/// # Errors
/// A file is no output `importance`, or has other horizons alone.
pub fn read(files: &[impl AsRef<Path>], horizon: usize) -> Result<Vec<Importance>> {
    let mut found: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for path in files {
        let path = path.as_ref();
        let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
        let header = reader.headers().map_err(|e| StageError::bad(path, e.to_string()))?.clone();
        let bad = |line: u64, message: String| {
            StageError::bad(path, message).at(line).hint("feed the output `importance` of a `forecast` stage: feature,horizon,loss_increase,lo,hi")
        };
        if let Some(name) = ["feature", "horizon", "loss_increase", "lo", "hi"]
            .into_iter()
            .find(|name| header.iter().all(|h| h != *name))
        {
            return Err(bad(1, format!("missing column `{name}`")));
        }
        let (mut record, mut others) = (csv::StringRecord::new(), Vec::new());
        let mut own = false;
        loop {
            let more = reader.read_record(&mut record);
            let number = record.position().map_or(0, csv::Position::line);
            if !more.map_err(|e| bad(number, e.to_string()))? {
                break;
            }
            let line: Line =
                record.deserialize(Some(&header)).map_err(|e| bad(number, e.to_string()))?;
            let numbers = [Some(line.loss_increase), line.lo, line.hi];
            let ordered = line.lo.zip(line.hi).is_none_or(|(low, high)| low <= high);
            if numbers.iter().flatten().any(|x| !x.is_finite()) || !ordered {
                return Err(bad(number, "`lo` and `hi` must be numbers in order".into()));
            }
            if line.horizon != horizon {
                others.push(line.horizon);
                continue;
            }
            own = true;
            found.entry(line.feature.clone()).or_default().push(line);
        }
        // A file without rows is that of a model that reads no features.
        if let (false, Some(other)) = (own, others.first()) {
            let message = format!("holds nothing over {horizon} bars, but over {other}");
            return Err(StageError::bad(path, message).hint(
                "the forecasts that are judged have another horizon: set `forecasts.horizon`",
            ));
        }
    }
    let mean = |lines: &[Line], of: fn(&Line) -> Option<f64>| -> Option<f64> {
        let all: Option<Vec<f64>> = lines.iter().map(of).collect();
        all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
    };
    let mut all: Vec<Importance> = found
        .into_iter()
        .map(|(feature, lines)| Importance {
            feature,
            loss_increase: mean(&lines, |l| Some(l.loss_increase)).unwrap_or(0.0),
            interval: mean(&lines, |l| l.lo).zip(mean(&lines, |l| l.hi)),
        })
        .collect();
    // Of equally important ones in the order of their names.
    all.sort_by(|a, b| b.loss_increase.total_cmp(&a.loss_increase));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("importance.csv");
        fs_err::write(&path, text).unwrap();
        (dir, path)
    }

    const HEAD: &str = "feature,horizon,loss_increase,lo,hi\n";

    #[test]
    fn the_most_important_stands_first() {
        let (_a, one) = file(&format!(
            "{HEAD}b,1,0.001,-0.001,0.003\na,1,0.02,0.01,0.03\na,5,9,8,10\nc,1,0.001,,\n"
        ));
        let found = read(&[&one], 1).unwrap();
        let names: Vec<&str> = found.iter().map(|i| i.feature.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(found[0].interval, Some((0.01, 0.03)));
        assert_eq!(found[2].interval, None);
        // Two seeds: the mean of both.
        let (_b, two) = file(&format!("{HEAD}a,1,0.04,0.03,0.07\n"));
        let found = read(&[&one, &two], 1).unwrap();
        assert_eq!(found[0].loss_increase, 0.03);
        assert_eq!(found[0].interval, Some((0.02, 0.05)));
        // A rule reads no features.
        let (_c, none) = file(HEAD);
        assert_eq!(read(&[&none], 1).unwrap(), []);
    }

    #[test]
    fn faults_name_their_line() {
        for (text, want) in [
            ("feature,horizon\n".to_string(), ":1: missing column `loss_increase`"),
            (format!("{HEAD}a,1,x,0,0\n"), ":2: "),
            (format!("{HEAD}a,1,0,1,0\n"), ":2: `lo` and `hi` must be numbers in order"),
            (format!("{HEAD}a,7,0,0,0\n"), "holds nothing over 1 bars, but over 7"),
        ] {
            let (_dir, path) = file(&text);
            let error = read(&[path], 1).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
