//! Whether one thing is better than another, or many things better than nothing: the test of Diebold
//! and Mariano, and Holm's correction.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::metrics::mean;

/// Two forecasts compared by the losses they made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Losses compared.
    pub count: usize,
    /// Mean loss of the first less that of the second: negative where the first is better.
    pub difference: f64,
    /// The test's statistic.
    pub statistic: f64,
    /// Its two-sided probability where both are equally good.
    pub p: f64,
}

/// The test of Diebold and Mariano (1995) on the differences of two series of losses `horizon` steps
/// ahead, with the small-sample correction of Harvey, Leybourne and Newbold (1997) and a t
/// distribution with n - 1 degrees of freedom. `None` where the differences do not vary, or their
/// long-run variance, from `horizon` - 1 covariances, is not above 0.
pub fn diebold_mariano(differences: &[f64], horizon: usize) -> Option<Comparison> {
    let n = differences.len();
    let (h, nf, m) = (horizon.max(1), n as f64, mean(differences)?);
    let dev: Vec<f64> = differences.iter().map(|d| d - m).collect();
    let cov = |k: usize| {
        dev.get(k..).unwrap_or_default().iter().zip(&dev).map(|(a, b)| a * b).sum::<f64>() / nf
    };
    let variance = cov(0) + 2.0 * (1..h).map(cov).sum::<f64>();
    let scale = differences.iter().fold(0.0f64, |a, d| a.max(d.abs()));
    if n < 3 || variance <= 1e-24 * scale * scale {
        return None;
    }
    let hf = h as f64;
    let correction = ((nf + 1.0 - 2.0 * hf + hf * (hf - 1.0) / nf) / nf).max(0.0).sqrt();
    let statistic = m / (variance / nf).sqrt() * correction;
    let t = StudentsT::new(0.0, 1.0, nf - 1.0).ok()?;
    let p = 2.0 * t.cdf(-statistic.abs());
    statistic.is_finite().then_some(Comparison { count: n, difference: m, statistic, p })
}

/// Probabilities corrected for their number (Holm 1979), in the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut corrected, mut most) = (vec![0.0; p.len()], 0.0f64);
    for (rank, at) in order.into_iter().enumerate() {
        most = most.max(p[at] * (p.len() - rank) as f64).min(1.0);
        corrected[at] = most;
    }
    corrected
}

/// One-sided probability of a value at least as large where it is normal.
pub fn above(z: f64) -> f64 {
    Normal::standard().cdf(-z)
}

#[cfg(test)]
mod tests {
    use super::super::testdata::{close, stats};
    use super::*;

    #[test]
    fn agrees_with_the_libraries() {
        // dieboldmariano 1.1.0 and orderflow-metrics 0.40.0 on testdata/stats.csv, squared errors.
        let s = stats();
        let loss = |f: f64, y: f64| (y - f).powi(2);
        let d: Vec<f64> =
            (0..600).map(|i| loss(s[1][i], s[0][i]) - loss(s[2][i], s[0][i])).collect();
        let one = diebold_mariano(&d, 1).unwrap();
        close(one.statistic, -3.736730116920489, 1e-9);
        close(one.p, 0.00020426945112987627, 1e-9);
        let five = diebold_mariano(&d, 5).unwrap();
        close(five.statistic, -4.087268335654359, 1e-9);
        close(five.p, 4.9600152808549356e-05, 1e-9);
        assert_eq!(diebold_mariano(&[0.1; 50], 1), None);
        assert_eq!(diebold_mariano(&[], 1), None);
    }

    #[test]
    fn holm_agrees_with_statsmodels() {
        let p = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216];
        let want = [0.01, 0.072, 0.312, 0.312, 0.312, 0.312, 0.312, 0.615, 0.615, 0.615];
        holm(&p).into_iter().zip(want).for_each(|(got, want)| close(got, want, 1e-12));
        assert_eq!(holm(&[0.9, 0.01]), [0.9, 0.02]);
    }
}
