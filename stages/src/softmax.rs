//! Multinomial logistic regression with an L2 penalty: one objective, and the minimum of it.
//!
//! ```text
//! minimise  1/n sum_i -c_i ln p(y_i | x_i)  +  l2/2 |W|^2,    p(k | x) = softmax_k(W x + b)
//! ```
//!
//! where c counts a row by its class, and n is the sum of c. The intercepts b bear no penalty. The
//! objective is convex, so that what comes out depends neither on a seed nor on the number of threads.
//! A few weights are found by Newton's method (Bishop 2006, 4.3.4), many, such as those of hidden
//! states, by L-BFGS (Nocedal & Wright, Numerical Optimization, algorithm 7.4, with ten pairs and
//! backtracking, their 3.1). [`Softmax`] shifts and scales columns to mean 0 and deviation 1 before.

use rayon::prelude::*;

use crate::{Result, StageError};

/// Rows of numbers, one after another.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// `[n, width]`.
    pub values: &'a [f32],
    /// Numbers of a row, at least one.
    pub width: usize,
}

/// A fitted classifier.
#[derive(Clone, Debug)]
pub struct Softmax {
    mean: Vec<f64>,
    scale: Vec<f64>,
    /// `[classes, width + 1]`, the intercept last.
    weights: Vec<f64>,
}

/// Rows, their classes, and what each class counts for.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    /// `[n, width]`.
    pub inputs: &'a [f64],
    /// Numbers of a row.
    pub width: usize,
    /// `[n]`, each below the number of classes.
    pub labels: &'a [usize],
    /// `[classes]`: what a row counts for.
    pub counts: &'a [f64],
}

/// Where the objective is least.
#[derive(Clone, Debug)]
pub struct Minimum {
    /// `[classes, width + 1]`, the intercept last.
    pub weights: Vec<f64>,
    /// Iterations.
    pub steps: usize,
    /// The objective there.
    pub loss: f64,
}

/// Weights up to which Newton's method is taken: its equations take their cube.
const FEW: usize = 190;
/// Penalty on intercepts in Newton's equations: next to none, and they have one solution.
const INTERCEPT: f64 = 1e-9;
/// Rows of a block that is summed by itself, so that no bit depends on threads.
const BLOCK: usize = 4096;
/// The gradient is zero where no entry is larger.
const ZERO: f64 = 1e-7;
/// Iterations after which it is not found.
const MOST: usize = 5000;
/// Pairs that L-BFGS remembers.
const MEMORY: usize = 10;

impl Softmax {
    /// Fits `labels` (each below `classes`), one a row.
    ///
    /// # Errors
    /// A number is not finite, or no minimum is found.
    pub fn fit(rows: Rows, labels: &[usize], classes: usize, l2: f64) -> Result<Softmax> {
        if rows.values.iter().any(|x| !x.is_finite()) {
            return Err(StageError::failed("a hidden state is not finite")
                .hint("the model's weights may be damaged"));
        }
        let (mean, scale) = standard(rows, labels.len());
        let mut fitted = Softmax { mean, scale, weights: Vec::new() };
        let inputs: Vec<f64> =
            rows.values.chunks(rows.width).flat_map(|row| fitted.standardised(row)).collect();
        let counts = vec![1.0; classes];
        let table = Table { inputs: &inputs, width: rows.width, labels, counts: &counts };
        fitted.weights = fit(&table, l2)?.weights;
        Ok(fitted)
    }

    fn standardised<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        let each = row.iter().zip(&self.mean).zip(&self.scale);
        each.map(|((x, mean), scale)| (f64::from(*x) - mean) / scale)
    }

    /// The probability of each class.
    pub fn probabilities(&self, row: &[f32]) -> Vec<f64> {
        probabilities(&self.weights, &self.standardised(row).collect::<Vec<f64>>())
    }
}

/// Means and deviations of the columns; 1 for the deviation of a constant.
fn standard(rows: Rows, n: usize) -> (Vec<f64>, Vec<f64>) {
    let n = n.max(1) as f64;
    let each = || rows.values.chunks(rows.width);
    let mut mean = vec![0.0; rows.width];
    each().for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n));
    let mut scale = vec![0.0; rows.width];
    for row in each() {
        let off = row.iter().zip(&mean);
        scale.iter_mut().zip(off).for_each(|(s, (x, m))| *s += (f64::from(*x) - m).powi(2) / n);
    }
    scale.iter_mut().for_each(|s| *s = if *s > 0.0 { s.sqrt() } else { 1.0 });
    (mean, scale)
}

fn score(weights: &[f64], row: &[f64]) -> f64 {
    let (intercept, weights) = weights.split_last().unwrap_or((&0.0, &[]));
    dot(weights, row) + intercept
}

fn softmax(mut scores: Vec<f64>) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|s| *s = (*s - top).exp());
    let total: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= total);
    scores
}

/// The probability of each class for a row, by weights `[classes, width + 1]`.
pub fn probabilities(weights: &[f64], row: &[f64]) -> Vec<f64> {
    softmax(weights.chunks(row.len() + 1).map(|w| score(w, row)).collect())
}

/// Finds the minimum.
///
/// # Errors
/// There is none that is found.
pub fn fit(table: &Table, l2: f64) -> Result<Minimum> {
    let size = table.counts.len() * (table.width + 1);
    match size <= FEW {
        true => newton(table, l2),
        false => minimise(vec![0.0; size], |weights| objective(table, l2, weights)),
    }
}

/// The objective and its gradient.
fn objective(table: &Table, l2: f64, weights: &[f64]) -> (f64, Vec<f64>) {
    let Table { inputs, width, labels, counts } = *table;
    let n = labels.iter().map(|label| counts[*label]).sum::<f64>().max(f64::MIN_POSITIVE);
    let mut grad = vec![0.0; counts.len() * (width + 1)];
    let mut value = 0.0;
    for (at, &label) in labels.iter().enumerate() {
        let row = &inputs[at * width..(at + 1) * width];
        let chances = probabilities(weights, row);
        value -= counts[label] * chances[label].max(f64::MIN_POSITIVE).ln() / n;
        for (class, (grad, p)) in grad.chunks_mut(width + 1).zip(chances).enumerate() {
            let slope = counts[label] * (p - if class == label { 1.0 } else { 0.0 }) / n;
            grad.iter_mut().zip(row).for_each(|(g, x)| *g += slope * x);
            grad[width] += slope;
        }
    }
    for (grad, weights) in grad.chunks_mut(width + 1).zip(weights.chunks(width + 1)) {
        for (g, w) in grad.iter_mut().zip(weights).take(width) {
            value += 0.5 * l2 * w * w;
            *g += l2 * w;
        }
    }
    (value, grad)
}

/// The penalty of each weight in Newton's equations.
fn penalties(classes: usize, width: usize, l2: f64) -> Vec<f64> {
    (0..classes * (width + 1))
        .map(|at| if at % (width + 1) == width { INTERCEPT } else { l2 })
        .collect()
}

/// The minimum by Newton's method.
fn newton(table: &Table, l2: f64) -> Result<Minimum> {
    let penalties = penalties(table.counts.len(), table.width, l2);
    let mut weights = vec![0.0; penalties.len()];
    let mut here = derivatives(table, &weights, &penalties, true);
    for step in 1..=100 {
        if here.gradient.iter().all(|g| g.abs() < 1e-9) {
            return Ok(Minimum { weights, steps: step - 1, loss: here.value });
        }
        let Some(direction) = solve(&mut here.hessian, &here.gradient) else { break };
        // Halved until the loss falls: near the end a whole step always does.
        let mut length = 1.0;
        loop {
            let tried: Vec<f64> =
                weights.iter().zip(&direction).map(|(w, d)| w - length * d).collect();
            if derivatives(table, &tried, &penalties, false).value <= here.value + 1e-13 {
                weights = tried;
                break;
            }
            length /= 2.0;
            if length < 1e-6 {
                return Ok(Minimum { weights, steps: step, loss: here.value });
            }
        }
        here = derivatives(table, &weights, &penalties, true);
    }
    Err(StageError::failed("the logit does not converge")
        .hint("raise `l2`, or leave out features that say the same"))
}

/// The objective at some weights.
#[derive(Default)]
struct Derivatives {
    value: f64,
    gradient: Vec<f64>,
    /// The lower half counts.
    hessian: Vec<f64>,
}

/// The objective, with its gradient and Hessian where they are wanted (`whole`).
fn derivatives(table: &Table, weights: &[f64], penalties: &[f64], whole: bool) -> Derivatives {
    let (classes, size) = (table.counts.len(), penalties.len());
    let width = table.width + 1;
    let empty = || match whole {
        true => {
            Derivatives { value: 0.0, gradient: vec![0.0; size], hessian: vec![0.0; size * size] }
        }
        false => Derivatives::default(),
    };
    let block = |from: usize| {
        let (mut own, mut x) = (empty(), vec![1.0; width]);
        for row in from..(from + BLOCK).min(table.labels.len()) {
            let (label, cells) =
                (table.labels[row], &table.inputs[row * table.width..][..table.width]);
            let (p, count) = (probabilities(weights, cells), table.counts[label]);
            own.value -= count * p[label].max(f64::MIN_POSITIVE).ln();
            if !whole {
                continue;
            }
            x[..table.width].copy_from_slice(cells);
            for a in 0..classes {
                let away = count * (p[a] - f64::from(u8::from(a == label)));
                let slopes = &mut own.gradient[a * width..(a + 1) * width];
                slopes.iter_mut().zip(&x).for_each(|(g, x)| *g += away * x);
                for b in 0..=a {
                    let curve = count * p[a] * (f64::from(u8::from(a == b)) - p[b]);
                    for (i, xi) in x.iter().enumerate() {
                        let (row, upto) = (a * width + i, if a == b { i + 1 } else { width });
                        let cells = &mut own.hessian[row * size + b * width..][..upto];
                        let pull = curve * xi;
                        cells.iter_mut().zip(&x).for_each(|(h, x)| *h += pull * x);
                    }
                }
            }
        }
        own
    };
    let starts: Vec<usize> = (0..table.labels.len()).step_by(BLOCK).collect();
    let blocks: Vec<Derivatives> = starts.into_par_iter().map(block).collect();
    let mut all = empty();
    for own in &blocks {
        all.value += own.value;
        all.gradient.iter_mut().zip(&own.gradient).for_each(|(a, b)| *a += b);
        all.hessian.iter_mut().zip(&own.hessian).for_each(|(a, b)| *a += b);
    }
    let n =
        table.labels.iter().map(|label| table.counts[*label]).sum::<f64>().max(f64::MIN_POSITIVE);
    all.value /= n;
    all.gradient.iter_mut().for_each(|g| *g /= n);
    all.hessian.iter_mut().for_each(|h| *h /= n);
    for (at, (l2, w)) in penalties.iter().zip(weights).enumerate() {
        all.value += 0.5 * l2 * w * w;
        if whole {
            all.gradient[at] += l2 * w;
            all.hessian[at * size + at] += l2;
        }
    }
    all
}

/// Solves a x = b by Cholesky's decomposition of the lower half of a, which is overwritten. `None` where
/// a is not positive definite.
pub fn solve(a: &mut [f64], b: &[f64]) -> Option<Vec<f64>> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let sum = a[i * n + j] - dot(&a[i * n..i * n + j], &a[j * n..j * n + j]);
            a[i * n + j] = match i == j {
                true if sum > 0.0 => sum.sqrt(),
                true => return None,
                false => sum / a[j * n + j],
            };
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        x[i] = (x[i] - dot(&a[i * n..i * n + i], &x[..i])) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| a[k * n + i] * x[k]).sum();
        x[i] = (x[i] - sum) / a[i * n + i];
    }
    Some(x)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The minimum of a smooth convex function, from a start.
fn minimise(mut at: Vec<f64>, f: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Result<Minimum> {
    let (mut value, mut grad) = f(&at);
    // Steps, changes of the gradient, and one over their product.
    let mut memory: std::collections::VecDeque<(Vec<f64>, Vec<f64>, f64)> = Default::default();
    let mut steps = 0;
    while steps < MOST {
        if grad.iter().all(|g| g.abs() <= ZERO) {
            return Ok(Minimum { weights: at, steps, loss: value });
        }
        steps += 1;
        let step = direction(&grad, memory.make_contiguous());
        let slope = dot(&grad, &step);
        let mut length =
            if memory.is_empty() { 1.0 / dot(&grad, &grad).sqrt().max(1.0) } else { 1.0 };
        let found = loop {
            let next: Vec<f64> = at.iter().zip(&step).map(|(x, s)| x + length * s).collect();
            let (lower, slopes) = f(&next);
            if lower <= value + 1e-4 * length * slope {
                break Some((next, lower, slopes));
            }
            length *= 0.5;
            if length < 1e-12 {
                break None;
            }
        };
        // No lower value can be told from this one: the minimum, to the last digits.
        let Some((next, lower, slopes)) = found else { break };
        let moved: Vec<f64> = next.iter().zip(&at).map(|(a, b)| a - b).collect();
        let turned: Vec<f64> = slopes.iter().zip(&grad).map(|(a, b)| a - b).collect();
        let product = dot(&moved, &turned);
        if product > 0.0 {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back((moved, turned, 1.0 / product));
        }
        (at, value, grad) = (next, lower, slopes);
    }
    match grad.iter().all(|g| g.abs() <= ZERO.sqrt()) {
        true => Ok(Minimum { weights: at, steps, loss: value }),
        false => Err(StageError::failed("the classification head has no minimum that was found")
            .hint("raise its penalty, `head_l2` or `l2`")),
    }
}

/// Less the gradient times the inverse of the curvature, as far as it is remembered.
fn direction(grad: &[f64], memory: &[(Vec<f64>, Vec<f64>, f64)]) -> Vec<f64> {
    let mut step: Vec<f64> = grad.iter().map(|g| -g).collect();
    let add = |to: &mut Vec<f64>, by: f64, from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(x, y)| *x += by * y);
    };
    let mut shares = Vec::with_capacity(memory.len());
    for (moved, turned, inverse) in memory.iter().rev() {
        let share = inverse * dot(moved, &step);
        add(&mut step, -share, turned);
        shares.push(share);
    }
    if let Some((_, turned, inverse)) = memory.last() {
        let scale = 1.0 / (inverse * dot(turned, turned));
        step.iter_mut().for_each(|x| *x *= scale);
    }
    for ((moved, turned, inverse), share) in memory.iter().zip(shares.iter().rev()) {
        let back = inverse * dot(turned, &step);
        add(&mut step, share - back, moved);
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize) -> (Vec<f32>, Vec<usize>) {
        let value =
            |i: usize, j: usize| ((i * 7919 + j * 104_729) % 97) as f32 / 13.0 - 2.0 * j as f32;
        let values = (0..n).flat_map(|i| (0..4).map(move |j| value(i, j))).collect();
        let label = |i: usize| if i.is_multiple_of(4) { i % 3 } else { (i * 7919) % 97 / 33 };
        (values, (0..n).map(label).collect())
    }

    #[test]
    fn it_is_the_minimum_that_scikit_learn_finds() {
        let (values, labels) = rows(60);
        // scikit-learn 1.9.1: LogisticRegression(C=1/(60 l2), tol=1e-13) on StandardScaler's columns.
        let expected = [
            (
                1.0,
                [
                    [0.5666379833230123, 0.233086171945815, 0.2002758447311727],
                    [0.19732332155146148, 0.2774460429666989, 0.5252306354818397],
                    [0.2304588611981091, 0.2750794323333098, 0.4944617064685811],
                ],
            ),
            (
                0.01,
                [
                    [0.9593987436243664, 0.021643551705032266, 0.018957704670601542],
                    [0.032891116685730325, 0.15810984229591735, 0.8089990410183523],
                    [0.14923573117345945, 0.15206040447739377, 0.6987038643491469],
                ],
            ),
        ];
        for (l2, expected) in expected {
            let fitted = Softmax::fit(Rows { values: &values, width: 4 }, &labels, 3, l2).unwrap();
            for (row, expected) in [0, 17, 59].into_iter().zip(expected) {
                let got = fitted.probabilities(&values[row * 4..][..4]);
                for (got, expected) in got.iter().zip(expected) {
                    assert!((got - expected).abs() < 1e-6, "{got} {expected}");
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        let (values, labels) = rows(12);
        let inputs: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        let table = Table { inputs: &inputs, width: 4, labels: &labels, counts: &[0.5, 1.0, 2.0] };
        let f = |w: &[f64]| objective(&table, 0.3, w);
        let at: Vec<f64> = (0..15).map(|i| (i * 7 % 5) as f64 * 0.1 - 0.2).collect();
        let grad = f(&at).1;
        for i in 0..at.len() {
            let off = |by: f64| {
                let mut near = at.clone();
                near[i] += by;
                f(&near).0
            };
            let slope = (off(1e-6) - off(-1e-6)) / 2e-6;
            assert!((slope - grad[i]).abs() < 1e-7, "{i}: {slope} {}", grad[i]);
        }
    }

    #[test]
    fn both_methods_find_the_same() {
        let (values, labels) = rows(60);
        let inputs: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        let table = Table { inputs: &inputs, width: 4, labels: &labels, counts: &[0.5, 1.0, 2.0] };
        let one = newton(&table, 0.1).unwrap();
        let two = minimise(vec![0.0; 15], |weights| objective(&table, 0.1, weights)).unwrap();
        assert!((one.loss - two.loss).abs() < 1e-9, "{} {}", one.loss, two.loss);
        for row in inputs.chunks(4) {
            let (a, b) = (probabilities(&one.weights, row), probabilities(&two.weights, row));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
        }
    }

    #[test]
    fn more_columns_than_rows_and_a_constant_one_are_no_trouble() {
        let n = 9;
        let values: Vec<f32> =
            (0..n * 40).map(|i| if i % 40 == 3 { 7.0 } else { (i * i % 101) as f32 }).collect();
        let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
        let fitted = Softmax::fit(Rows { values: &values, width: 40 }, &labels, 3, 0.1).unwrap();
        for (row, label) in values.chunks(40).zip(labels) {
            let chances = fitted.probabilities(row);
            assert!((chances.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(chances.iter().all(|p| *p <= chances[label]));
        }
        let broken = Softmax::fit(Rows { values: &[f32::NAN], width: 1 }, &[0], 1, 1.0);
        assert!(broken.unwrap_err().to_string().contains("not finite"));
    }
}
