//! Eigenvalues of a small symmetric matrix, by Jacobi's rotations.
//!
//! For covariances of a few dozen series: the cost grows with the cube of their number. It gives no
//! vectors.

/// The eigenvalues of a symmetric matrix of `n` rows, row by row, the largest first. Only what lies
/// on and above the diagonal is read.
pub fn eigenvalues(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut a = matrix.to_vec();
    for i in 0..n {
        for j in 0..i {
            a[i * n + j] = a[j * n + i];
        }
    }
    let whole: f64 = a.iter().map(|x| x * x).sum();
    // Each sweep squares what is left off the diagonal; ten are enough for any matrix.
    for _ in 0..30 {
        let off: f64 = (0..n)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| a[i * n + j].powi(2))
            .sum();
        if off <= whole * 1e-32 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, n, p, q);
            }
        }
    }
    let mut values: Vec<f64> = (0..n).map(|i| a[i * n + i]).collect();
    values.sort_by(|x, y| y.total_cmp(x));
    values
}

/// Turns the plane of `p` and `q` so that their entry off the diagonal is zero.
fn rotate(a: &mut [f64], n: usize, p: usize, q: usize) {
    let off = a[p * n + q];
    if off == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * off);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_matrices_that_are_known() {
        assert!(eigenvalues(&[], 0).is_empty());
        assert_eq!(eigenvalues(&[3.0], 1), [3.0]);
        assert_eq!(eigenvalues(&[1.0, 0.0, 0.0, 2.0], 2), [2.0, 1.0]);
        let two = eigenvalues(&[2.0, 1.0, 1.0, 2.0], 2);
        assert!((two[0] - 3.0).abs() < 1e-15 && (two[1] - 1.0).abs() < 1e-15, "{two:?}");
        // Of rank one: n and zeros.
        let ones = eigenvalues(&[1.0; 25], 5);
        assert!((ones[0] - 5.0).abs() < 1e-14 && ones[1..].iter().all(|x| x.abs() < 1e-14));
    }
}
