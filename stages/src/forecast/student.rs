//! Student's t with 5 degrees of freedom, by which forecasts say how wrong they may be.

/// Degrees of freedom.
const NU: f64 = 5.0;

/// The least scale, in units of volatility.
const FLOOR: f64 = 1e-3;

/// The likeliest scale of residuals around 0, by the EM algorithm (Lange, Little and Taylor 1989):
/// s^2 <- mean of (nu + 1) r^2 / (nu + r^2 / s^2). `None` of nothing.
pub fn scale(residuals: &[f64]) -> Option<f64> {
    let n = residuals.len() as f64;
    let mut squared = residuals.iter().map(|r| r * r).sum::<f64>() / n;
    if residuals.is_empty() {
        return None;
    }
    for _ in 0..200 {
        if squared <= FLOOR * FLOOR {
            return Some(FLOOR);
        }
        let weigh = |r: &f64| (NU + 1.0) * r * r / (NU + r * r / squared);
        let next = residuals.iter().map(weigh).sum::<f64>() / n;
        let moved = (next / squared - 1.0).abs();
        squared = next;
        if moved < 1e-10 {
            break;
        }
    }
    Some(squared.sqrt().max(FLOOR))
}

/// The distribution function of the standard t with 5 degrees of freedom, in closed form:
/// 1/2 + (a + sin a cos a + 2/3 sin a cos^3 a) / pi with a = atan(x / sqrt 5).
pub fn cdf(x: f64) -> f64 {
    let a = (x / NU.sqrt()).atan();
    let (sin, cos) = a.sin_cos();
    0.5 + (a + sin * cos + 2.0 / 3.0 * sin * cos.powi(3)) / std::f64::consts::PI
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17: `t.cdf(x, 5)`, and the least of `-t.logpdf(r, 5, 0, s).sum()` over s.
    #[test]
    fn agrees_with_scipy() {
        for (x, p) in [
            (-2.5, 0.02724504967118813),
            (0.0, 0.5),
            (0.43, 0.6574511602742024),
            (3.0, 0.9849503760512687),
        ] {
            assert!((cdf(x) - p).abs() < 1e-14, "{x}: {}", cdf(x));
        }
        let found = scale(&[0.3, -1.2, 0.7, 2.5, -0.1, 0.4, -0.8]).unwrap();
        assert!((found - 0.905_778_23).abs() < 1e-6, "{found}");
        assert_eq!(scale(&[0.0; 4]), Some(FLOOR));
        assert_eq!(scale(&[]), None);
    }
}
