//! The mixture of several forecasts that was likeliest out of fold.
//!
//! The weights of a horizon, none below 0 and all summing to 1, minimise the log loss of the mixture of
//! probabilities over rows that are out of fold in all members; EM finds the minimum, which is the only
//! one since the loss is convex (Dempster, Laird and Rubin 1977). Rows of other spans are not looked at.
//! Out of fold the mixture itself is honest, too: the weights of a fold come from labels that ended
//! before it begins, and are equal where there are none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::lines::{self, Line, Span};
use crate::{Context, Result, StageError};

/// One member: its name and its lines.
pub struct Member {
    /// What it is called.
    pub name: String,
    /// Where it was read from.
    pub path: PathBuf,
    /// Its forecasts.
    pub lines: Vec<Line>,
}

/// The weights of a horizon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Weights {
    /// Bars ahead.
    pub horizon: usize,
    /// By the name of the member.
    pub weights: BTreeMap<String, f64>,
    /// The mean log loss of the mixture, out of fold, where the weights come from.
    pub log_loss: f64,
    /// Rows out of fold.
    pub rows: usize,
}

/// Reads the members from all ports.
///
/// # Errors
/// A file is no forecasts, or there are fewer than two.
pub fn members(ctx: &Context) -> Result<Vec<Member>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (port, input) in &ctx.job().inputs {
        for (file, path) in &input.files {
            let own = file.strip_suffix("/forecasts.csv").unwrap_or(file);
            let own = own.strip_suffix(".csv").unwrap_or(own);
            let name = match (input.tree, port.as_str()) {
                (false, "forecasts") => own.to_owned(),
                (false, port) => port.to_owned(),
                (true, "forecasts") => own.to_owned(),
                (true, port) => format!("{port}/{own}"),
            };
            found.insert(name, path.clone());
        }
    }
    if found.len() < 2 {
        return Err(StageError::failed(format!("an ensemble of {} forecasts", found.len()))
            .hint("feed several: `forecasts: model@*`, or each under a name of its own"));
    }
    let all = found.len() as u64;
    let one = |(at, (name, path)): (usize, (String, PathBuf))| {
        ctx.progress(at as u64, all, "members", &name)?;
        Ok(Member { name, lines: lines::read(&path)?, path })
    };
    found.into_iter().enumerate().map(one).collect()
}

/// What a row is known by.
type Key<'a> = (&'a str, &'a str, usize);

/// The lines of all members for one row.
type Rows<'a> = BTreeMap<Key<'a>, Vec<&'a Line>>;

/// The mixture of the members, and its weights.
///
/// # Errors
/// The members do not tell of the same rows, or have none out of fold.
pub fn mix(members: &[Member]) -> Result<(Vec<Line>, Vec<Weights>)> {
    let mut rows: Rows = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        for line in &member.lines {
            let of = rows.entry((&line.asset, &line.t0, line.horizon)).or_default();
            // Of a row that a member lacks there are too few lines; it is left out below.
            if of.len() == at {
                of.push(line);
            }
        }
    }
    rows.retain(|_, of| of.len() == members.len());
    for of in rows.values() {
        let differs = of.iter().zip(members).find(|(line, _)| {
            (line.span, line.class) != (of[0].span, of[0].class) || line.t1 != of[0].t1
        });
        if let Some((line, member)) = differs {
            let message = format!(
                "{} at {} is another row than in `{}`: other span, class or end",
                line.asset, line.t0, members[0].name
            );
            return Err(StageError::bad(&member.path, message)
                .hint("members need the same features, horizons, threshold and volatility"));
        }
    }
    let horizons: std::collections::BTreeSet<usize> = rows.keys().map(|key| key.2).collect();
    let (mut mixed, mut told) = (Vec::with_capacity(rows.len()), Vec::new());
    for horizon in horizons {
        let own: Vec<&Vec<&Line>> =
            rows.iter().filter(|(key, _)| key.2 == horizon).map(|(_, of)| of).collect();
        told.push(horizon_of(&own, members, horizon, &mut mixed)?);
    }
    if told.is_empty() {
        let paths = members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(StageError::failed(format!("no row has a forecast of all of {paths}")));
    }
    mixed.sort_by(|a, b| (&a.asset, &a.t0, a.horizon).cmp(&(&b.asset, &b.t0, b.horizon)));
    Ok((mixed, told))
}

fn horizon_of(
    rows: &[&Vec<&Line>],
    members: &[Member],
    horizon: usize,
    mixed: &mut Vec<Line>,
) -> Result<Weights> {
    // Rows of other spans end here.
    let folds: Vec<&Vec<&Line>> = rows
        .iter()
        .copied()
        .filter(|of| of[0].span == Span::Fold && of[0].class.is_some())
        .collect();
    let came: Vec<Vec<f64>> = folds.iter().map(|of| likelihoods(of)).collect();
    if came.is_empty() {
        return Err(StageError::failed(format!("no row is out of fold over {horizon} bars"))
            .hint("the weights come from such rows alone; give the members `folds`"));
    }
    let (last, log_loss) = weights(&came, members.len());
    let mut begins: BTreeMap<usize, &str> = BTreeMap::new();
    for of in rows {
        if let (Span::Fold, Some(fold)) = (of[0].span, of[0].fold) {
            let slot = begins.entry(fold).or_insert(&of[0].t0);
            *slot = (*slot).min(of[0].t0.as_str());
        }
    }
    let before = |begin: &str| {
        let ended = |of: &Vec<&Line>| of[0].t1.as_deref().is_some_and(|end| end < begin);
        let known: Vec<Vec<f64>> = folds
            .iter()
            .zip(&came)
            .filter(|(of, _)| ended(of))
            .map(|(_, came)| came.clone())
            .collect();
        match known.is_empty() {
            true => vec![1.0 / members.len() as f64; members.len()],
            false => weights(&known, members.len()).0,
        }
    };
    let by_fold: BTreeMap<usize, Vec<f64>> =
        begins.into_iter().map(|(fold, begin)| (fold, before(begin))).collect();
    for of in rows {
        let own = match (of[0].span, of[0].fold) {
            (Span::Fold, Some(fold)) => by_fold.get(&fold).unwrap_or(&last),
            _ => &last,
        };
        mixed.push(blend(of, own));
    }
    let named = members.iter().map(|member| member.name.clone()).zip(last).collect();
    Ok(Weights { horizon, weights: named, log_loss, rows: came.len() })
}

/// What each member gave the class that came.
fn likelihoods(of: &[&Line]) -> Vec<f64> {
    let class = of[0].index().unwrap_or(1);
    of.iter().map(|line| line.p()[class].max(1e-15)).collect()
}

/// The weights under which rows are likeliest, and the log loss with them.
pub fn weights(rows: &[Vec<f64>], members: usize) -> (Vec<f64>, f64) {
    let mut weights = vec![1.0 / members as f64; members];
    let n = rows.len() as f64;
    let mut loss = f64::INFINITY;
    for _ in 0..5_000 {
        let (mut next, mut sum) = (vec![0.0; members], 0.0);
        for row in rows {
            let mixed: f64 = row.iter().zip(&weights).map(|(p, w)| p * w).sum();
            sum -= mixed.ln();
            next.iter_mut()
                .zip(row.iter().zip(&weights))
                .for_each(|(n, (p, w))| *n += p * w / mixed);
        }
        let fell = loss - sum / n;
        loss = sum / n;
        weights = next.into_iter().map(|w| w / n).collect();
        if fell < 1e-10 {
            break;
        }
    }
    (weights, loss)
}

/// A line of the mixture: its probabilities, its mean, and the scale that gives it its variance, since a
/// t with 5 degrees of freedom and scale s varies by 5/3 s^2.
fn blend(of: &[&Line], weights: &[f64]) -> Line {
    let sum = |value: &dyn Fn(&Line) -> f64| {
        of.iter().zip(weights).map(|(line, weight)| weight * value(line)).sum::<f64>()
    };
    let mean = sum(&|line| f64::from(line.mean));
    let known = of.iter().zip(weights).all(|(line, weight)| line.scale.is_some() || *weight < 1e-9);
    let second = sum(&|line| {
        let scale = f64::from(line.scale.unwrap_or_default());
        5.0 / 3.0 * scale * scale + f64::from(line.mean).powi(2)
    });
    let scale = ((second - mean * mean).max(0.0) * 0.6).sqrt() as f32;
    Line {
        p_down: sum(&|line| line.p_down.into()) as f32,
        p_flat: sum(&|line| line.p_flat.into()) as f32,
        p_up: sum(&|line| line.p_up.into()) as f32,
        mean: mean as f32,
        scale: (known && scale > 0.0).then_some(scale),
        ..of[0].clone()
    }
}

/// Writes `model.json`.
///
/// # Errors
/// It cannot be written.
pub fn save(weights: &[Weights], folder: &Path) -> Result<()> {
    super::fit::write(folder, &weights)
}
