//! The weights of a mixture under which rows are likeliest: convex, and solved with a certificate.
//!
//! ```text
//! minimise  f(w) = -1/n sum_i ln(sum_k w_k p_ik) + sum_k w_k,    w >= 0
//! ```
//!
//! At the minimum the weights sum to 1 of themselves, since f scales (Kim, Carbonetto, Stephens and
//! Anitescu 2020, "A fast algorithm for maximum likelihood estimation of mixture proportions using
//! sequential quadratic programming", J. Comp. Graph. Stat. 29, 2). Each step minimises the quadratic
//! model of f over w >= 0 by an active set, and is halved until f falls.
//!
//! With D_k = 1/n sum_i p_ik / sum_j w_j p_ij, the mean log-likelihood of any other weights is at most
//! ln(max_k D_k) higher (Lindsay 1983): the search ends where that is below [`GAP`], and says it.
//! Sums are over fixed blocks of rows, added in order, so that no bit depends on threads.

use rayon::prelude::*;

/// Nats a row within which of the optimum the search ends.
pub const GAP: f64 = 1e-10;
/// Rows of a block.
const BLOCK: usize = 2048;
/// Steps after which it is not found.
const MOST: usize = 200;

/// What members gave to what came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Likelihoods {
    /// `[rows, members]`, above 0.
    pub values: Vec<f64>,
    /// Members.
    pub members: usize,
}

/// The likeliest weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// `[members]`: none below 0, and they sum to 1.
    pub weights: Vec<f64>,
    /// The mean log loss of the mixture.
    pub log_loss: f64,
    /// No mixture has a mean log loss that is lower by more.
    pub gap: f64,
}

impl Likelihoods {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.values.len() / self.members.max(1)
    }
}

/// Finds the likeliest weights. Of no rows they are equal.
pub fn weights(of: &Likelihoods) -> Found {
    let k = of.members;
    let mut w = vec![1.0 / k as f64; k];
    if of.values.is_empty() {
        return Found { weights: w, log_loss: 0.0, gap: 0.0 };
    }
    let mut here = Point::at(of, &w, true);
    for _ in 0..MOST {
        if here.gap() < GAP {
            break;
        }
        let aim = quadratic(&here, &w);
        let slope: f64 =
            here.slopes.iter().zip(aim.iter().zip(&w)).map(|(d, (a, w))| (1.0 - d) * (a - w)).sum();
        let mut length = 1.0;
        let next = loop {
            let tried: Vec<f64> = w.iter().zip(&aim).map(|(w, a)| w + length * (a - w)).collect();
            let sum: f64 = tried.iter().sum();
            // A whole step may leave a row without any weight: its loss is then no number.
            let loss = if sum > 0.0 { Point::at(of, &tried, false).loss } else { f64::NAN };
            if loss + sum <= here.loss + here.sum + 1e-4 * length * slope {
                break Some(tried.into_iter().map(|w| w / sum).collect::<Vec<f64>>());
            }
            length /= 2.0;
            if length < 1e-10 {
                break None;
            }
        };
        // Rounding hides what is left; EM never raises the loss and takes the last of it.
        w = next.unwrap_or_else(|| w.iter().zip(&here.slopes).map(|(w, d)| w * d).collect());
        here = Point::at(of, &w, true);
    }
    Found { gap: here.gap().max(0.0), log_loss: here.loss, weights: w }
}

/// The loss at some weights and its derivatives.
#[derive(Clone, Debug, Default)]
struct Point {
    loss: f64,
    sum: f64,
    /// D_k.
    slopes: Vec<f64>,
    /// `[members, members]`, symmetric.
    curves: Vec<f64>,
}

impl Point {
    fn at(of: &Likelihoods, w: &[f64], whole: bool) -> Point {
        let (k, n) = (of.members, of.rows() as f64);
        let block = |rows: &[f64]| {
            let mut own = Point::default();
            if whole {
                (own.slopes, own.curves) = (vec![0.0; k], vec![0.0; k * k]);
            }
            let mut share = vec![0.0; k];
            for row in rows.chunks_exact(k) {
                let mixed: f64 = row.iter().zip(w).map(|(p, w)| p * w).sum();
                own.loss -= mixed.ln();
                if !whole {
                    continue;
                }
                let inverse = 1.0 / mixed;
                share.iter_mut().zip(row).for_each(|(s, p)| *s = p * inverse);
                own.slopes.iter_mut().zip(&share).for_each(|(d, s)| *d += s);
                for (a, sa) in share.iter().enumerate() {
                    let cells = &mut own.curves[a * k..][..=a];
                    cells.iter_mut().zip(&share).for_each(|(c, sb)| *c += sa * sb);
                }
            }
            own
        };
        let blocks: Vec<Point> = of.values.par_chunks(BLOCK * k).map(block).collect();
        let mut all = Point { sum: w.iter().sum(), ..Point::default() };
        if whole {
            (all.slopes, all.curves) = (vec![0.0; k], vec![0.0; k * k]);
        }
        for own in &blocks {
            all.loss += own.loss;
            all.slopes.iter_mut().zip(&own.slopes).for_each(|(a, b)| *a += b);
            all.curves.iter_mut().zip(&own.curves).for_each(|(a, b)| *a += b);
        }
        all.loss /= n;
        all.slopes.iter_mut().for_each(|d| *d /= n);
        all.curves.iter_mut().for_each(|c| *c /= n);
        for a in 0..if whole { k } else { 0 } {
            for b in a + 1..k {
                all.curves[a * k + b] = all.curves[b * k + a];
            }
        }
        all
    }

    /// By how much no other weights are likelier; for weights that sum to 1.
    fn gap(&self) -> f64 {
        self.slopes.iter().copied().fold(f64::NEG_INFINITY, f64::max).ln()
    }
}

/// Where the quadratic model of f at `w` is least over weights of at least 0: the active set of Lawson
/// and Hanson (1974, ch. 23), begun at the members that have weight.
fn quadratic(here: &Point, w: &[f64]) -> Vec<f64> {
    let k = w.len();
    // Members that say the same leave the model flat: a ridge that is next to nothing picks one.
    let ridge = 1e-10 * (0..k).map(|a| here.curves[a * k + a]).sum::<f64>() / k as f64;
    let curve = |a: usize, b: usize| here.curves[a * k + b] + if a == b { ridge } else { 0.0 };
    // The gradient of the model at x is H x - target, with target = H w - g and g = 1 - D.
    let target: Vec<f64> = (0..k)
        .map(|a| (0..k).map(|b| curve(a, b) * w[b]).sum::<f64>() - (1.0 - here.slopes[a]))
        .collect();
    let mut x = w.to_vec();
    let mut free: Vec<bool> = w.iter().map(|w| *w > 0.0).collect();
    for _ in 0..10 * k + 10 {
        // Down to the least of the free ones; whoever would fall below 0 on the way is bound.
        loop {
            let members: Vec<usize> = (0..k).filter(|a| free[*a]).collect();
            let Some(aim) = solve(&members, &curve, &target) else { return x };
            let mut step = 1.0f64;
            for (&a, aim) in members.iter().zip(&aim) {
                if *aim < 0.0 && x[a] - aim > 0.0 {
                    step = step.min(x[a] / (x[a] - aim));
                }
            }
            for (&a, aim) in members.iter().zip(&aim) {
                x[a] += step * (aim - x[a]);
                if step < 1.0 && *aim < 0.0 && x[a] <= 1e-15 {
                    (x[a], free[a]) = (0.0, false);
                }
            }
            if step >= 1.0 {
                break;
            }
        }
        // The bound one that lowers it most is let go.
        let slope = |a: usize| (0..k).map(|b| curve(a, b) * x[b]).sum::<f64>() - target[a];
        let bound = (0..k).filter(|a| !free[*a]).map(|a| (slope(a), a));
        match bound.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((slope, a)) if slope < -1e-13 => free[a] = true,
            _ => return x,
        }
    }
    x
}

/// Solves for the free members by Cholesky's decomposition; `None` where rounding forbids it.
fn solve(
    members: &[usize],
    curve: &dyn Fn(usize, usize) -> f64,
    target: &[f64],
) -> Option<Vec<f64>> {
    let n = members.len();
    let mut a = vec![0.0; n * n];
    for (i, &row) in members.iter().enumerate() {
        for (j, &column) in members.iter().enumerate().take(i + 1) {
            a[i * n + j] = curve(row, column);
        }
    }
    let b: Vec<f64> = members.iter().map(|&at| target[at]).collect();
    crate::softmax::solve(&mut a, &b)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Members of which the first knows most; the last two are one and the same.
    fn rows(n: usize, members: usize, seed: u64) -> Likelihoods {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::new();
        for _ in 0..n {
            let luck: f64 = rng.random();
            let row: Vec<f64> = (0..members)
                .map(|k| {
                    let own: f64 = rng.random();
                    (0.02 + 0.9 * (luck + k as f64 * own) / (1 + k) as f64).min(1.0)
                })
                .collect();
            values.extend(&row[..members - 1]);
            values.push(row[members - 2]);
        }
        Likelihoods { values, members }
    }

    /// The plain EM of Dempster, Laird and Rubin (1977), for as long as it likes.
    fn em(of: &Likelihoods, rounds: usize) -> f64 {
        let (k, n) = (of.members, of.rows() as f64);
        let (mut w, mut loss) = (vec![1.0 / k as f64; k], 0.0);
        for _ in 0..rounds {
            let mut next = vec![0.0; k];
            loss = 0.0;
            for row in of.values.chunks_exact(k) {
                let mixed: f64 = row.iter().zip(&w).map(|(p, w)| p * w).sum();
                loss -= mixed.ln() / n;
                next.iter_mut()
                    .zip(row.iter().zip(&w))
                    .for_each(|(x, (p, w))| *x += p * w / mixed / n);
            }
            w = next;
        }
        loss
    }

    /// Karush, Kuhn and Tucker: D is 1 where there is weight, and nowhere more.
    #[test]
    fn the_weights_are_the_optimum() {
        for (n, members, seed) in
            [(400, 2, 1), (700, 5, 2), (5_000, 12, 3), (900, 23, 4), (9, 23, 5)]
        {
            let of = rows(n, members, seed);
            let found = weights(&of);
            assert!(found.gap < 1e-9, "{members}: {}", found.gap);
            assert!((found.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(found.weights.iter().all(|w| *w >= 0.0));
            let slopes = Point::at(&of, &found.weights, true).slopes;
            for (w, d) in found.weights.iter().zip(slopes) {
                assert!(d < 1.0 + 1e-9, "{d}");
                assert!(*w < 1e-6 || d > 1.0 - 1e-3, "{w} {d}");
            }
            let slow = em(&of, 2_000);
            assert!(found.log_loss <= slow + 1e-12, "{members}: {} {slow}", found.log_loss);
            assert!(found.log_loss >= slow - 1e-3);
        }
    }

    #[test]
    fn one_that_always_knows_takes_all_and_nothing_known_is_shared() {
        let mut values = Vec::new();
        for row in 0..50 {
            values.extend([0.9, 0.1 + 0.001 * f64::from(row), 1e-15]);
        }
        let found = weights(&Likelihoods { values, members: 3 });
        assert!((found.weights[0] - 1.0).abs() < 1e-9, "{:?}", found.weights);
        assert!((found.log_loss + 0.9f64.ln()).abs() < 1e-9);
        let none = weights(&Likelihoods { values: Vec::new(), members: 4 });
        assert_eq!(none.weights, [0.25; 4]);
        // Each knows what the other does not: half and half.
        let values = [[1.0, 1e-15], [1e-15, 1.0]].concat();
        let found = weights(&Likelihoods { values, members: 2 });
        assert!((found.weights[0] - 0.5).abs() < 1e-6, "{:?}", found.weights);
    }

    #[test]
    fn no_bit_depends_on_threads() {
        let of = rows(9_000, 7, 9);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| weights(&of))
        };
        assert_eq!(with(1), with(3));
    }
}
