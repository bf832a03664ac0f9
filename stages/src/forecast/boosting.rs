//! Gradient boosting of trees, in the manner of XGBoost: one ensemble a class against the others, whose
//! probabilities are made to sum to 1.
//!
//! Classes and horizons are fitted side by side, each on one thread, so that bytes do not depend on the
//! number of threads.

use std::ops::Range;
use std::path::Path;

use forust_ml::Matrix;
use forust_ml::gradientbooster::GradientBooster;
use forust_ml::metric::Metric;
use forust_ml::objective::ObjectiveType;
use forust_ml::sampler::SampleMethod;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::expect::Expected;
use super::fit::{Data, known, write};
use super::series::{Forecast, Forecaster, Series, Slice, Target};
use crate::{Invalid, Result, StageError};

/// Gradient boosting of trees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Boosting {
    /// Trees of a class at the most.
    pub trees: usize,
    /// What a tree adds of its answer.
    pub learning_rate: f32,
    /// Splits from the root to a leaf at the most.
    pub depth: usize,
    /// Penalty on squared leaves.
    pub l2: f32,
    /// The least weight of rows in a leaf, as the sum of p (1 - p).
    pub min_leaf_weight: f32,
    /// Share of the rows that a tree sees, drawn by the seed.
    pub subsample: f32,
    /// Share of the features that a tree sees, drawn by the seed.
    pub features: f64,
    /// Bins of a feature.
    pub bins: u16,
    /// Trees without a lower log loss on the stopping rows after which a class ends; the best number is
    /// kept.
    pub patience: usize,
}

impl Default for Boosting {
    fn default() -> Boosting {
        Boosting {
            trees: 200,
            learning_rate: 0.05,
            depth: 3,
            l2: 1.0,
            min_leaf_weight: 20.0,
            subsample: 1.0,
            features: 1.0,
            bins: 64,
            patience: 20,
        }
    }
}

impl Boosting {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn check(&self) -> Result<(), Invalid> {
        let share = |x: f64| x > 0.0 && x <= 1.0;
        let rows = [
            ("trees", (1..=100_000).contains(&self.trees), "must lie between 1 and 100000"),
            (
                "learning_rate",
                share(self.learning_rate.into()),
                "must lie above 0 and at most at 1",
            ),
            ("depth", (1..=16).contains(&self.depth), "must lie between 1 and 16"),
            ("l2", self.l2 >= 0.0 && self.l2.is_finite(), "must be 0 or more"),
            ("min_leaf_weight", self.min_leaf_weight >= 0.0, "must be 0 or more"),
            ("subsample", share(self.subsample.into()), "must lie above 0 and at most at 1"),
            ("features", share(self.features), "must lie above 0 and at most at 1"),
            ("bins", (2..=1024).contains(&self.bins), "must lie between 2 and 1024"),
            ("patience", self.patience > 0, "must be above 0"),
        ];
        let wrong = rows.into_iter().filter(|(_, holds, _)| !holds);
        match Invalid::all(wrong.map(|(name, _, why)| Invalid::new(name, why))) {
            Some(invalid) => Err(invalid),
            None => Ok(()),
        }
    }
}

/// The ensembles.
#[derive(Serialize)]
pub struct Boosted {
    /// By horizon: one a class.
    classes: Vec<Vec<GradientBooster>>,
    expected: Vec<Expected>,
}

/// Rows by feature, as the library wants them.
struct Columns {
    x: Vec<f64>,
    targets: Vec<Target>,
}

impl Columns {
    fn of(slices: &[Slice], horizon: usize) -> Columns {
        let rows: Vec<(&[f32], Target)> = known(slices, horizon).collect();
        let width = rows.first().map_or(0, |(cells, _)| cells.len());
        let column = |at: usize| rows.iter().map(move |(cells, _)| f64::from(cells[at]));
        let x = (0..width).flat_map(column).collect();
        Columns { x, targets: rows.iter().map(|(_, target)| *target).collect() }
    }

    fn matrix(&self) -> Matrix<'_, f64> {
        let rows = self.targets.len();
        Matrix::new(&self.x, rows, self.x.len() / rows.max(1))
    }

    /// Whether each row is of a class.
    fn is(&self, class: u8) -> Vec<f64> {
        self.targets.iter().map(|target| f64::from(u8::from(target.class == class))).collect()
    }

    fn counts(&self, weights: &[f32; 3]) -> Vec<f64> {
        self.targets.iter().map(|target| f64::from(weights[usize::from(target.class)])).collect()
    }
}

/// Fits the ensembles, a horizon and a class at a time.
///
/// # Errors
/// The library refuses the rows.
pub fn fit(
    params: &Boosting,
    data: &Data,
    seed: u64,
    log: &mut dyn FnMut(Value) -> Result<()>,
) -> Result<Boosted> {
    let horizons = data.class_weights.len();
    let train: Vec<Columns> = (0..horizons).map(|h| Columns::of(data.train, h)).collect();
    let valid: Vec<Columns> = (0..horizons).map(|h| Columns::of(data.valid, h)).collect();
    let jobs: Vec<(usize, u8)> = (0..horizons).flat_map(|h| (0..3).map(move |c| (h, c))).collect();
    let one = |&(horizon, class): &(usize, u8)| {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(3 * horizon as u64 + u64::from(class));
        let weights = &data.class_weights[horizon];
        ensemble(params, &train[horizon], &valid[horizon], class, weights, seed)
    };
    let found: Vec<Result<GradientBooster>> = jobs.par_iter().map(one).collect();
    let mut boosted = Boosted { classes: Vec::new(), expected: Vec::new() };
    let mut found = found.into_iter();
    for (horizon, train) in train.iter().enumerate() {
        let classes = found.by_ref().take(3).collect::<Result<Vec<_>>>()?;
        let trees: Vec<usize> = classes
            .iter()
            .map(|booster| booster.prediction_iteration.unwrap_or(booster.trees.len()))
            .collect();
        log(json!({ "horizon": horizon, "rows": train.targets.len(), "trees": trees }))?;
        let p = probabilities(&classes, &train.matrix());
        let rows = p.into_iter().zip(train.targets.iter().copied());
        let counts = data.class_weights[horizon].map(f64::from);
        boosted.expected.push(Expected::of(rows, &counts));
        boosted.classes.push(classes);
    }
    Ok(boosted)
}

fn ensemble(
    params: &Boosting,
    train: &Columns,
    valid: &Columns,
    class: u8,
    weights: &[f32; 3],
    seed: u64,
) -> Result<GradientBooster> {
    let stops = !valid.targets.is_empty();
    let sample = if params.subsample < 1.0 { SampleMethod::Random } else { SampleMethod::None };
    let mut booster = GradientBooster::default()
        .set_objective_type(ObjectiveType::LogLoss)
        .set_iterations(params.trees)
        .set_learning_rate(params.learning_rate)
        .set_max_depth(params.depth)
        .set_l2(params.l2)
        .set_min_leaf_weight(params.min_leaf_weight)
        .set_subsample(params.subsample)
        .set_sample_method(sample)
        .set_colsample_bytree(params.features)
        .set_nbins(params.bins)
        .set_seed(seed)
        .set_parallel(false)
        .set_initialize_base_score(true)
        .set_evaluation_metric(Some(Metric::LogLoss))
        .set_early_stopping_rounds(stops.then_some(params.patience));
    let (y, counts) = (train.is(class), train.counts(weights));
    let (valid_y, valid_counts) = (valid.is(class), valid.counts(weights));
    // Of a class that never was, or always, the library's first guess is infinite.
    if y.iter().all(|is| *is == y[0]) {
        return Err(StageError::failed("a class has no training rows, or all of them")
            .hint("change `threshold`, or take fewer `folds`"));
    }
    let stop = stops.then(|| vec![(valid.matrix(), valid_y.as_slice(), valid_counts.as_slice())]);
    booster
        .fit(&train.matrix(), &y, &counts, stop)
        .map_err(|e| StageError::failed(format!("gradient boosting failed: {e}")))?;
    Ok(booster)
}

fn probabilities(classes: &[GradientBooster], rows: &Matrix<f64>) -> Vec<[f64; 3]> {
    let scores: Vec<Vec<f64>> = classes.iter().map(|one| one.predict(rows, false)).collect();
    let of = |row: usize| {
        let p: [f64; 3] = std::array::from_fn(|class| 1.0 / (1.0 + (-scores[class][row]).exp()));
        let sum: f64 = p.iter().sum();
        p.map(|p| p / sum)
    };
    (0..rows.rows).map(of).collect()
}

impl Forecaster for Boosted {
    fn predict(&self, series: &Series, rows: Range<usize>) -> Result<Vec<Forecast>> {
        let width = series.features;
        let column = |at: usize| rows.clone().map(move |row| f64::from(series.x[row * width + at]));
        let x: Vec<f64> = (0..width).flat_map(column).collect();
        let matrix = Matrix::new(&x, rows.len(), width);
        let by_horizon: Vec<Vec<[f64; 3]>> =
            self.classes.iter().map(|classes| probabilities(classes, &matrix)).collect();
        let of = |row: usize| {
            let pairs = by_horizon.iter().zip(&self.expected);
            pairs.map(move |(p, expected)| expected.forecast(p[row])).collect::<Vec<_>>()
        };
        Ok((0..rows.len()).flat_map(of).collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write(folder, self)
    }
}
