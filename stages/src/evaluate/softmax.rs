//! Multinomial logistic regression with an L2 penalty, by L-BFGS.
//!
//! ```text
//! minimise  1/n sum_i -ln p(y_i | x_i)  +  l2/2 |W|^2,    p(k | x) = softmax_k(W z + b)
//! ```
//!
//! on columns z that are shifted and scaled to mean 0 and deviation 1 over the rows; the intercepts b
//! bear no penalty. The objective is strictly convex, so that what comes out depends neither on a seed
//! nor on the number of threads. L-BFGS as Nocedal & Wright, Numerical Optimization, algorithm 7.4,
//! with ten pairs and backtracking (their 3.1).

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
        let loss = |weights: &[f64]| objective(&inputs, rows.width, labels, classes, l2, weights);
        fitted.weights = minimise(vec![0.0; classes * (rows.width + 1)], loss)?;
        Ok(fitted)
    }

    fn standardised<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        let each = row.iter().zip(&self.mean).zip(&self.scale);
        each.map(|((x, mean), scale)| (f64::from(*x) - mean) / scale)
    }

    /// The probability of each class.
    pub fn probabilities(&self, row: &[f32]) -> Vec<f64> {
        let row: Vec<f64> = self.standardised(row).collect();
        let scores = self.weights.chunks(row.len() + 1).map(|w| score(w, &row));
        softmax(scores.collect())
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

/// The objective and its gradient.
fn objective(
    inputs: &[f64],
    width: usize,
    labels: &[usize],
    classes: usize,
    l2: f64,
    weights: &[f64],
) -> (f64, Vec<f64>) {
    let n = labels.len().max(1) as f64;
    let mut grad = vec![0.0; classes * (width + 1)];
    let mut value = 0.0;
    for (row, &label) in inputs.chunks(width).zip(labels) {
        let scores: Vec<f64> = weights.chunks(width + 1).map(|w| score(w, row)).collect();
        let chances = softmax(scores);
        value -= chances[label].max(f64::MIN_POSITIVE).ln() / n;
        for (class, (grad, p)) in grad.chunks_mut(width + 1).zip(chances).enumerate() {
            let slope = (p - if class == label { 1.0 } else { 0.0 }) / n;
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

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The minimum of a smooth convex function, from a start.
fn minimise(mut at: Vec<f64>, f: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Result<Vec<f64>> {
    let (mut value, mut grad) = f(&at);
    // Steps, changes of the gradient, and one over their product.
    let mut memory: std::collections::VecDeque<(Vec<f64>, Vec<f64>, f64)> = Default::default();
    for _ in 0..MOST {
        if grad.iter().all(|g| g.abs() <= ZERO) {
            return Ok(at);
        }
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
        true => Ok(at),
        false => Err(StageError::failed("the classification head has no minimum that was found")
            .hint("raise `head_l2`")),
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
        let f = |w: &[f64]| objective(&inputs, 4, &labels, 3, 0.3, w);
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
