//! Reads `forecasts.csv`: what a numerical model expected, row by row, and what came.
//!
//! One file is one model. Several files whose rows differ are one model in parts; several with the
//! same rows are one model with other seeds. Probabilities, dates and instruments are checked, and a
//! fault names its line. Whether the returns in the file are those of the prices is for `causality`
//! to say.

use std::collections::BTreeMap;
use std::path::Path;

use super::panel::Panel;
use crate::{Result, StageError};

/// What is expected from a date over the horizon.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The date in the panel at whose close it is made.
    pub at: usize,
    /// The instrument in the panel.
    pub asset: usize,
    /// The date at which the horizon ends, where it is known.
    pub until: Option<String>,
    /// Probabilities of down, flat and up.
    pub p: [f64; 3],
    /// The expected log return over the horizon.
    pub mean: f64,
    /// Scale of a Student t with 5 degrees of freedom, where the model has one.
    pub scale: Option<f64>,
    /// What happened: 0 down, 1 flat, 2 up.
    pub class: Option<usize>,
    /// What happened: the log return.
    pub came: Option<f64>,
}

/// The forecasts of one model with one seed, for one horizon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Name of the file.
    pub name: String,
    /// Bars that its forecasts look ahead.
    pub horizon: usize,
    /// Those of the span that is judged, by date, then instrument.
    pub judged: Vec<Forecast>,
    /// Those out of fold, with the number of the fold.
    pub folds: Vec<(usize, Forecast)>,
}

/// One line of the file.
#[derive(serde::Deserialize)]
struct Line {
    asset: String,
    t0: String,
    t1: Option<String>,
    span: String,
    fold: Option<usize>,
    horizon: usize,
    p_down: f64,
    p_flat: f64,
    p_up: f64,
    mean: f64,
    scale: Option<f64>,
    class: Option<i8>,
    #[serde(rename = "return")]
    came: Option<f64>,
}

/// The names of instruments in a file of forecasts: empty where it knows one without a name.
///
/// # Errors
/// The file is no CSV with a column `asset`.
pub fn assets(path: &Path) -> Result<Vec<String>> {
    let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
    let bad = |e: csv::Error| StageError::bad(path, e.to_string());
    let at = reader.headers().map_err(bad)?.iter().position(|name| name == "asset");
    let at = at.ok_or_else(|| {
        StageError::bad(path, "missing column `asset`")
            .at(1)
            .hint("feed the output of a `forecast` stage")
    })?;
    let mut names: Vec<String> = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(bad)? {
        let name = record.get(at).unwrap_or_default();
        // Rows come in order of the instrument.
        if names.last().is_none_or(|last| last != name) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Reads one file: the forecasts over `horizon` bars (0: the shortest there is) of `span`, and those
/// out of fold.
///
/// # Errors
/// A line is no forecast, or of a date or an instrument that the panel does not have.
pub fn read(path: &Path, name: &str, panel: &Panel, span: &str, horizon: usize) -> Result<Run> {
    let dates: BTreeMap<&str, usize> =
        panel.dates.iter().enumerate().map(|(i, d)| (d.as_str(), i)).collect();
    let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
    let bad = |line: u64, message: String| StageError::bad(path, message).at(line);
    let header = reader.headers().map_err(|e| bad(1, e.to_string()))?.clone();
    let (mut run, mut seen) = (Run { name: name.into(), ..Run::default() }, Vec::new());
    let mut found: BTreeMap<usize, Run> = BTreeMap::new();
    let mut record = csv::StringRecord::new();
    loop {
        let more = reader.read_record(&mut record);
        let number = record.position().map_or(0, csv::Position::line);
        if !more.map_err(|e| bad(number, e.to_string()))? {
            break;
        }
        let line: Line = record.deserialize(Some(&header)).map_err(|e| {
            bad(number, e.to_string()).hint("feed the output of a `forecast` stage")
        })?;
        seen.push(line.horizon);
        if horizon > 0 && line.horizon != horizon {
            continue;
        }
        let fold = line.fold.filter(|_| line.span == "fold");
        if line.span != span && fold.is_none() {
            continue;
        }
        let single = panel.width() == 1;
        let named = panel.assets.iter().position(|asset| *asset == line.asset);
        let asset = named.or_else(|| single.then_some(0)).ok_or_else(|| {
            bad(number, format!("no features of `{}`", line.asset))
                .hint(format!("the tables are those of {}", panel.assets.join(", ")))
        })?;
        let at = dates.get(line.t0.as_str()).copied();
        let at = at.filter(|at| !panel.row(*at)[asset].close.is_nan()).ok_or_else(|| {
            bad(number, format!("no features at {}", line.t0))
                .hint("features and forecasts must come from the same bars")
        })?;
        let p = [line.p_down, line.p_flat, line.p_up];
        let fair = p.iter().all(|p| (0.0..=1.0).contains(p));
        if !fair || (p.iter().sum::<f64>() - 1.0).abs() > 1e-4 {
            return Err(bad(number, format!("probabilities are {}, {} and {}", p[0], p[1], p[2]))
                .hint("they lie between 0 and 1 and sum to 1"));
        }
        if !line.mean.is_finite() || line.scale.is_some_and(|s| !(s.is_finite() && s > 0.0)) {
            return Err(bad(number, "mean and scale must be numbers, and scale above 0".into()));
        }
        let class = line.class.map(|class| usize::try_from(class + 1).unwrap_or(3));
        if class.is_some_and(|class| class > 2) {
            return Err(bad(number, "class is not -1, 0 or 1".into()));
        }
        let forecast = Forecast {
            at,
            asset,
            until: line.t1.filter(|t| !t.is_empty()),
            p,
            mean: line.mean,
            scale: line.scale,
            class,
            came: line.came,
        };
        let into = found.entry(line.horizon).or_default();
        match fold {
            Some(fold) => into.folds.push((fold, forecast)),
            None => into.judged.push(forecast),
        }
    }
    let shortest = found.into_iter().find(|(_, run)| !run.judged.is_empty());
    if let Some((horizon, best)) = shortest {
        run = Run { name: name.into(), horizon, ..best };
    }
    if run.judged.is_empty() {
        seen.sort_unstable();
        seen.dedup();
        let seen: Vec<String> = seen.iter().map(ToString::to_string).collect();
        return Err(StageError::bad(
            path,
            match horizon {
                0 => format!("no forecast of span `{span}`"),
                h => format!("no forecast of span `{span}` over {h} bars"),
            },
        )
        .hint(format!("horizons in the file: {}", seen.join(", "))));
    }
    run.judged.sort_by_key(|f| (f.at, f.asset));
    run.folds.sort_by_key(|(_, f)| (f.at, f.asset));
    if let Some(twice) = run.judged.windows(2).find(|w| key(&w[0]) == key(&w[1])) {
        let date = panel.dates.get(twice[0].at).cloned().unwrap_or_default();
        return Err(StageError::bad(path, format!("two forecasts at {date} over one horizon")));
    }
    Ok(run)
}

fn key(f: &Forecast) -> (usize, usize) {
    (f.at, f.asset)
}

/// Runs by seed: files without a row in common are one run in parts, all others a run each.
///
/// # Errors
/// Runs with other seeds have forecasts of other dates.
pub fn seeds(mut runs: Vec<Run>) -> Result<Vec<Run>> {
    let mut keys: Vec<(usize, usize)> =
        runs.iter().flat_map(|run| run.judged.iter().map(key)).collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() == all && runs.len() > 1 {
        let horizon = runs.first().map_or(0, |run| run.horizon);
        let mut whole = Run { name: "all files".into(), horizon, ..Run::default() };
        for run in runs {
            whole.judged.extend(run.judged);
            whole.folds.extend(run.folds);
        }
        whole.judged.sort_by_key(key);
        whole.folds.sort_by_key(|(_, f)| key(f));
        return Ok(vec![whole]);
    }
    runs.sort_by(|a, b| a.name.cmp(&b.name));
    let first: Vec<(usize, usize)> =
        runs.first().map(|run| run.judged.iter().map(key).collect()).unwrap_or_default();
    for run in &runs {
        if !run.judged.iter().map(key).eq(first.iter().copied()) {
            return Err(StageError::failed(format!(
                "`{}` has forecasts of other rows than `{}`",
                run.name, runs[0].name
            ))
            .hint("files of one model are seeds of it, with the same rows, or parts of it, with none in common"));
        }
    }
    Ok(runs)
}

/// The mean forecast of runs with the same rows: of probabilities and means; of scales where all have
/// one, so that the variance is that of the mixture.
pub fn mean(runs: &[Run]) -> Vec<Forecast> {
    let Some(first) = runs.first() else { return Vec::new() };
    let n = runs.len() as f64;
    let of = |at: usize| {
        let all = || runs.iter().filter_map(move |run| run.judged.get(at));
        let mut mean = first.judged[at].clone();
        mean.p = [0, 1, 2].map(|class| all().map(|f| f.p[class]).sum::<f64>() / n);
        mean.mean = all().map(|f| f.mean).sum::<f64>() / n;
        // A Student t with 5 degrees of freedom has a variance of 5/3 of the squared scale.
        let spread = |f: &Forecast| Some(f.scale?.powi(2) + 0.6 * (f.mean - mean.mean).powi(2));
        let squares: Option<Vec<f64>> = all().map(spread).collect();
        mean.scale = squares.map(|s| (s.iter().sum::<f64>() / n).sqrt());
        mean
    };
    (0..first.judged.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::backtest::Bar;
    use super::*;

    const HEAD: &str = "asset,t0,t1,span,fold,horizon,p_down,p_flat,p_up,mean,scale,class,return\n";

    fn panel(assets: &[&str]) -> Panel {
        let bar = Bar { open: 1.0, high: 1.0, low: 1.0, close: 1.0 };
        let dates = (1..=5).map(|d| format!("2020-01-0{d}")).collect();
        Panel {
            assets: assets.iter().map(ToString::to_string).collect(),
            dates,
            bars: vec![bar; 5 * assets.len()],
            queue: None,
        }
    }

    fn file(rows: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.csv");
        fs_err::write(&path, format!("{HEAD}{rows}")).unwrap();
        (dir, path)
    }

    const A: &str = "a,2020-01-02,2020-01-03,test,,1,0.2,0.3,0.5,0.001,0.01,1,0.02\n";

    #[test]
    fn rows_keep_their_numbers() {
        let fold = "a,2020-01-01,2020-01-02,fold,2,1,0.2,0.3,0.5,0.001,,,\n";
        let long = "a,2020-01-02,,test,,5,0.2,0.3,0.5,0.001,,,\n";
        let (_dir, path) = file(&format!("{fold}{A}{long}"));
        let run = read(&path, "f", &panel(&["a", "b"]), "test", 0).unwrap();
        assert_eq!(run.judged.len(), 1);
        let f = &run.judged[0];
        assert_eq!((f.at, f.asset, f.class, f.came), (1, 0, Some(2), Some(0.02)));
        assert_eq!((f.p, f.scale), ([0.2, 0.3, 0.5], Some(0.01)));
        assert_eq!((run.folds[0].0, run.folds[0].1.scale), (2, None));
        let run = read(&path, "f", &panel(&["a"]), "test", 5).unwrap();
        assert_eq!(run.judged[0].until, None);
        assert_eq!(assets(&path).unwrap(), ["a"]);
    }

    #[test]
    fn faults_name_their_line() {
        for (row, want) in [
            (A.replace("0.5,", "0.6,"), "probabilities are"),
            (A.replace("01-02,2020", "02-02,2020"), "no features at 2020-02-02"),
            (A.replace("a,", "c,"), "no features of `c`"),
            (A.replace(",1,0.02", ",7,0.02"), "class is not"),
            (A.replace("0.001,0.01", "x,0.01"), "invalid float"),
        ] {
            let (_dir, path) = file(&row);
            let error = read(&path, "f", &panel(&["a", "b"]), "test", 1).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains(":2: "), "{error}");
        }
        let (_dir, path) = file(A);
        let error = read(&path, "f", &panel(&["a"]), "test", 9).unwrap_err();
        assert!(error.to_string().contains("over 9 bars"), "{error}");
        assert_eq!(error.help(), Some("horizons in the file: 1"));
        let (_dir, path) = file(&format!("{A}{A}"));
        let error = read(&path, "f", &panel(&["a"]), "test", 1).unwrap_err().to_string();
        assert!(error.contains("two forecasts at 2020-01-02"), "{error}");
    }

    #[test]
    fn files_are_parts_or_seeds() {
        let (_dir, path) = file(A);
        let panel = panel(&["a", "b"]);
        let one = read(&path, "1", &panel, "test", 1).unwrap();
        let (_dir, path) = file(&A.replace("a,", "b,").replace("0.001", "0.003"));
        let two = read(&path, "2", &panel, "test", 1).unwrap();
        let parts = seeds(vec![one.clone(), two.clone()]).unwrap();
        assert_eq!((parts.len(), parts[0].judged.len()), (1, 2));
        let mut other = one.clone();
        other.judged[0].mean = 0.003;
        let both = seeds(vec![one.clone(), other]).unwrap();
        assert_eq!(both.len(), 2);
        let mean = mean(&both);
        assert!((mean[0].mean - 0.002).abs() < 1e-15);
        assert!((mean[0].scale.unwrap().powi(2) - (1e-4 + 0.6e-6)).abs() < 1e-15);
        assert!(seeds(vec![one.clone(), one, two]).is_err());
    }
}
