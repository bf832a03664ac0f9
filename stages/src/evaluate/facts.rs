//! Where a result comes from and what may be claimed of it: digests of the inputs, the reach of the
//! model's knowledge, rows that splits share.

use quantmill_cache::Digest;

use super::anonymise::Anonymised;
use super::assessment::{Contamination, Source, Splits};
use super::causality::{Check, Outcome};
use super::forecasts::Forecast;
use super::input::{Table, day};
use super::leaks;
use super::numbers::{count, many};
use super::params::Params;
use crate::{Context, Result};

/// Digests of all inputs, by port.
///
/// # Errors
/// A file cannot be read.
pub fn sources(ctx: &Context) -> Result<Vec<Source>> {
    let source = |port: &String| -> Result<Source> {
        let mut lines = Vec::new();
        for (name, path) in ctx.files(port) {
            lines.push((Digest::of_file(path)?.to_string(), name));
        }
        let digest = match lines.as_slice() {
            [(digest, _)] => digest.clone(),
            several => {
                let all: String =
                    several.iter().map(|(digest, name)| format!("{digest}  {name}\n")).collect();
                Digest::of(all.as_bytes()).to_string()
            }
        };
        Ok(Source { port: port.clone(), files: lines.len(), digest })
    };
    ctx.job().inputs.keys().map(source).collect()
}

/// First and last date of the training span, over all tables.
pub fn trained(tables: &[(String, Table)]) -> Option<(String, String)> {
    let dates = || {
        tables.iter().flat_map(|(_, t)| {
            t.dates.iter().zip(&t.split).filter(|(_, s)| *s == "train").map(|(d, _)| d)
        })
    };
    dates().min().cloned().zip(dates().max().cloned())
}

/// What may be claimed, where the judged span begins on `first`; `language`: a model that has read
/// text decides.
pub fn contamination(params: &Params, first: &str, language: bool) -> Contamination {
    let known = params.knowledge_cutoff.as_deref();
    let (claimable, said) = match known.map(|cutoff| (cutoff, day(cutoff) >= day(first))) {
        _ if !language && known.is_none() => (
            true,
            "A numerical model that is fitted on the tables alone has read no text, so that it can know what came only from its rows: see causality and splits. Were it trained before on other data, set `knowledge_cutoff`.".to_string(),
        ),
        None => (
            false,
            "Not claimable: memory is not ruled out. Nothing here says where the text ends that the model was trained on; if it reaches into the test span, the model may recall these prices. Set `knowledge_cutoff` where the date is known.".to_string(),
        ),
        Some((cutoff, true)) => (
            false,
            format!("Not claimable: memory is not ruled out. The model was trained on text up to {cutoff}, which reaches into the test span that begins on {first}."),
        ),
        Some((cutoff, false)) => (
            true,
            format!("The model’s text is said to end on {cutoff}, before the test span that begins on {first}; that is taken on trust."),
        ),
    };
    Contamination { claimable, said }
}

impl Contamination {
    /// With what asking without names and dates found.
    pub fn and(self, anonymised: Option<&Anonymised>) -> Contamination {
        match anonymised.and_then(|a| a.change.as_ref()) {
            Some(change) if change.hints_at_memory() => Contamination {
                claimable: false,
                said: format!(
                    "Not claimable: the model earns less where it cannot tell what it is asked about, a hint at memory. {}",
                    self.said
                ),
            },
            _ => self,
        }
    }
}

/// Counts of the splits, with the labels and horizons that reach from one into the judged span.
pub fn splits(
    tables: &[(String, Table)],
    judged: &str,
    horizon: usize,
    folds: &[(usize, Forecast)],
) -> Splits {
    let number = |name: &str| -> usize {
        let of = |t: &Table| t.split.iter().filter(|s| *s == name).count();
        tables.iter().map(|(_, t)| of(t)).sum()
    };
    let rows =
        ["warmup", "train", "gap", "test", "holdout"].map(|name| (name.into(), number(name)));
    let found: Vec<(usize, &str)> =
        tables.iter().map(|(_, t)| leaks::overlap(t, judged, horizon)).collect();
    let starts: Vec<Option<&String>> = tables
        .iter()
        .map(|(_, t)| t.split.iter().position(|s| s == judged).and_then(|at| t.dates.get(at)))
        .collect();
    let reaches = |f: &Forecast| {
        let start = starts.get(f.asset).copied().flatten();
        f.until.as_ref().zip(start).is_some_and(|(until, start)| until >= start)
    };
    Splits {
        purged: number("gap"),
        overlap: found.iter().map(|(n, _)| n).sum(),
        from: found.first().map_or_else(String::new, |(_, from)| (*from).into()),
        out_of_fold: (folds.len(), folds.iter().map(|(k, _)| k + 1).max().unwrap_or(0)),
        fold_overlap: folds.iter().filter(|(_, f)| reaches(f)).count(),
        rows: rows.into(),
    }
}

/// Splits that share labels, as a test.
pub fn overlap_check(splits: &Splits) -> Check {
    const NAME: &str = "labels that reach into the judged span";
    let trained = splits.rows.iter().any(|(name, n)| name == "train" && *n > 0);
    match splits.overlap {
        _ if !trained => Check::new(NAME, Outcome::NotDone, "the tables have no training rows"),
        0 => {
            Check::new(NAME, Outcome::Clean, format!("none of a training row, by {}", splits.from))
        }
        n => Check::new(
            NAME,
            Outcome::Caught,
            format!(
                "{} of training have labels that end in the judged span, by {}: leave a longer gap ({} now)",
                many(n, "row"),
                splits.from,
                count(splits.purged)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_not_claimable() {
        let of = |cutoff: Option<&str>, language| {
            let params = Params { knowledge_cutoff: cutoff.map(String::from), ..Params::default() };
            contamination(&params, "2020-06-01", language)
        };
        assert!(!of(None, true).claimable && of(None, true).said.starts_with("Not claimable"));
        assert!(!of(Some("2020-06-01"), true).claimable);
        assert!(of(Some("2020-05-31"), true).claimable);
        // A numerical model has read nothing, unless somebody says so.
        assert!(of(None, false).claimable && !of(Some("2021-01-01"), false).claimable);
    }

    #[test]
    fn inputs_are_named_by_their_bytes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("f.csv");
        fs_err::write(&path, "abc").expect("written");
        let found = crate::testing::with(&[("features", &path)], sources).expect("digests");
        // b3sum of `abc`.
        let digest = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!((found[0].port.as_str(), found[0].files), ("features", 1));
        assert_eq!(found[0].digest, digest);
    }
}
