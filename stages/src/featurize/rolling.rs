//! A window over the last values of a series.
//!
//! Sums are taken anew over the window at each step rather than kept up by adding and subtracting:
//! windows are short, and so a value depends on the window alone, with no error that builds up
//! over the file.

use std::collections::VecDeque;

/// The last `size` values.
#[derive(Clone, Debug)]
pub struct Window {
    size: usize,
    values: VecDeque<f64>,
}

impl Window {
    /// An empty window that will hold `size` values.
    pub fn new(size: usize) -> Window {
        Window { size, values: VecDeque::with_capacity(size + 1) }
    }
    /// Adds a value; the oldest leaves a full window.
    pub fn push(&mut self, value: f64) {
        self.values.push_back(value);
        if self.values.len() > self.size {
            self.values.pop_front();
        }
    }
    /// Whether `size` values came.
    pub fn is_full(&self) -> bool {
        self.values.len() == self.size
    }
    /// The value `back` steps before the last one.
    pub fn back(&self, back: usize) -> Option<f64> {
        let index = self.values.len().checked_sub(back + 1)?;
        self.values.get(index).copied()
    }
    /// The values, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().copied()
    }
    /// The sum of a full window.
    pub fn sum(&self) -> Option<f64> {
        self.is_full().then(|| self.iter().sum())
    }
    /// The mean of a full window.
    pub fn mean(&self) -> Option<f64> {
        Some(self.sum()? / self.size as f64)
    }
    /// The variance of a full window of two or more, with one degree of freedom gone.
    pub fn variance(&self) -> Option<f64> {
        let mean = self.mean()?;
        let squares: f64 = self.iter().map(|x| (x - mean) * (x - mean)).sum();
        (self.size > 1).then(|| squares / (self.size - 1) as f64)
    }
    /// The square root of [`Window::variance`].
    pub fn deviation(&self) -> Option<f64> {
        Some(self.variance()?.sqrt())
    }
}

/// Covariance of `x` and `y` and variance of `x`, both divided by n.
pub fn moments(x: &Window, y: &Window) -> Option<(f64, f64)> {
    let (mx, my) = (x.mean()?, y.mean()?);
    let n = x.size as f64;
    let cov: f64 = x.iter().zip(y.iter()).map(|(a, b)| (a - mx) * (b - my)).sum();
    let var: f64 = x.iter().map(|a| (a - mx) * (a - mx)).sum();
    Some((cov / n, var / n))
}

/// The slope of an ordinary least-squares line of `y` on `x` with an intercept; 0 where `x` does
/// not vary.
pub fn slope(x: &Window, y: &Window) -> Option<f64> {
    let (cov, var) = moments(x, y)?;
    Some(if var > 0.0 { cov / var } else { 0.0 })
}

/// Pearson's correlation; 0 where either does not vary.
pub fn correlation(x: &Window, y: &Window) -> Option<f64> {
    let (cov, vx) = moments(x, y)?;
    let (_, vy) = moments(y, x)?;
    Some(if vx > 0.0 && vy > 0.0 { (cov / (vx * vy).sqrt()).clamp(-1.0, 1.0) } else { 0.0 })
}
