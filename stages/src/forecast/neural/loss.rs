//! What a net is trained on, with its gradient: plain numbers, in f64.
//!
//! ```text
//! of each horizon: three logits z, mu = m, sigma = softplus(r) + 1e-3
//! L = CE(z), weighted by class                      (a weighted mean)
//!   + 0.5 [sigma^0.5] NLL of Student's t, nu = 5    ([.] without gradient: Seitzer et al. 2022, arXiv 2203.09168)
//!   + 0.25 Huber(y - mu)
//!   + 0.1 |p_up - p_down - (2 T(mu / sigma) - 1)|   (direction and distribution must agree)
//! ```
//! Weights of classes move what the logits mean: `softmax(z)` is proportional to `w p`. A forecast, and
//! the last term, use `p`, which is `softmax(z - ln w)`.

use std::f64::consts::PI;

use crate::forecast::series::{Forecast, Target};

/// Numbers a horizon: three logits, then, after those of all horizons, mu, and then r.
pub const HEADS: usize = 5;
/// Degrees of freedom.
const NU: f64 = 5.0;
/// The least scale.
const FLOOR: f64 = 1e-3;

/// Sums of the terms, so that those of several batches can be joined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Of weighted cross-entropies.
    pub entropy: f64,
    /// Of weights.
    pub weight: f64,
    /// Of all other terms.
    pub other: f64,
    /// Targets.
    pub count: usize,
}

impl Sums {
    /// The loss; none without targets.
    pub fn loss(&self) -> Option<f64> {
        let mean = self.entropy / self.weight + self.other / self.count as f64;
        (self.count > 0).then_some(mean)
    }

    /// Joins two.
    pub fn add(&mut self, other: Sums) {
        self.entropy += other.entropy;
        self.weight += other.weight;
        self.other += other.other;
        self.count += other.count;
    }
}

/// The loss of heads `[n, 5 horizons]` on targets `[n, horizons]`, and its gradient where one is
/// wanted. Rows without a target count for nothing.
pub fn loss(
    heads: &[f32],
    targets: &[Option<Target>],
    weights: &[[f32; 3]],
    mut grad: Option<&mut [f32]>,
) -> Sums {
    let horizons = weights.len();
    let mut sums = Sums::default();
    for (i, target) in targets.iter().enumerate() {
        if let Some(target) = target {
            sums.weight += f64::from(weights[i % horizons][usize::from(target.class)]);
            sums.count += 1;
        }
    }
    for (i, target) in targets.iter().enumerate() {
        let Some(target) = target else { continue };
        let (row, h) = (i / horizons, i % horizons);
        let heads = &heads[row * HEADS * horizons..][..HEADS * horizons];
        let at = |k: usize| if k < 3 { 3 * h + k } else { k * horizons + h };
        let head = std::array::from_fn(|k| f64::from(heads[at(k)]));
        let term = Term::of(head, target, &weights[h]);
        sums.entropy += term.entropy;
        sums.other += term.other;
        if let Some(grad) = grad.as_deref_mut() {
            let grad = &mut grad[row * HEADS * horizons..][..HEADS * horizons];
            for k in 0..HEADS {
                let entropy = if k < 3 { term.of_entropy[k] / sums.weight } else { 0.0 };
                grad[at(k)] = (entropy + term.of_other[k] / sums.count as f64) as f32;
            }
        }
    }
    sums
}

/// The terms of one target and their gradients.
struct Term {
    entropy: f64,
    of_entropy: [f64; 3],
    other: f64,
    of_other: [f64; HEADS],
}

impl Term {
    fn of(head: [f64; HEADS], target: &Target, weights: &[f32; 3]) -> Term {
        let [a, b, c, mu, r] = head;
        let (class, y) = (usize::from(target.class), f64::from(target.value));
        let weights = weights.map(f64::from);
        let q = softmax([a, b, c]);
        let hit = |k: usize| if k == class { 1.0 } else { 0.0 };
        let entropy = -weights[class] * q[class].max(1e-300).ln();
        let of_entropy = std::array::from_fn(|k| weights[class] * (q[k] - hit(k)));

        let sigma = softplus(r) + FLOOR;
        let z = (y - mu) / sigma;
        let tail = 1.0 + z * z / NU;
        let fixed = 0.5 * sigma.sqrt();
        let nll = constant() + sigma.ln() + 0.5 * (NU + 1.0) * tail.ln();
        let slope = (NU + 1.0) / NU * z / tail;
        let (mut dmu, mut dsigma) = (-fixed * slope / sigma, fixed * (1.0 - slope * z) / sigma);

        let miss = mu - y;
        let huber = if miss.abs() <= 1.0 { 0.5 * miss * miss } else { miss.abs() - 0.5 };
        dmu += 0.25 * miss.clamp(-1.0, 1.0);

        let p = unweighted([a, b, c], &weights);
        let t = mu / sigma;
        let gap = p[2] - p[0] - (2.0 * cumulative(t) - 1.0);
        let sign = if gap > 0.0 { 0.1 } else { -0.1 };
        let density = 2.0 * density(t);
        dmu -= sign * density / sigma;
        dsigma += sign * density * t / sigma;
        // d (p_up - p_down) / d z_k = p_k (side_k - (p_up - p_down))
        let lean = p[2] - p[0];
        let of_gap = |k: usize| sign * p[k] * (k as f64 - 1.0 - lean);
        let other = fixed * nll + 0.25 * huber + 0.1 * gap.abs();
        let of_other = [of_gap(0), of_gap(1), of_gap(2), dmu, dsigma * logistic(r)];
        Term { entropy, of_entropy, other, of_other }
    }
}

/// Forecasts of heads `[n, 5 horizons]`: `[n, horizons]`.
pub fn forecasts(heads: &[f32], weights: &[[f32; 3]]) -> Vec<Forecast> {
    let horizons = weights.len();
    let mut out = Vec::with_capacity(heads.len() / HEADS);
    for heads in heads.chunks_exact(HEADS * horizons) {
        for (h, weights) in weights.iter().enumerate() {
            let logits = [0, 1, 2].map(|k| f64::from(heads[3 * h + k]));
            let scale = softplus(f64::from(heads[4 * horizons + h])) + FLOOR;
            out.push(Forecast {
                p: unweighted(logits, &weights.map(f64::from)).map(|p| p as f32),
                mean: heads[3 * horizons + h],
                scale: Some(scale as f32),
            });
        }
    }
    out
}

fn softmax(z: [f64; 3]) -> [f64; 3] {
    let top = z.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let powers = z.map(|z| (z - top).exp());
    let all: f64 = powers.iter().sum();
    powers.map(|p| p / all)
}

/// `softmax(z - ln w)`.
fn unweighted(z: [f64; 3], weights: &[f64; 3]) -> [f64; 3] {
    softmax(std::array::from_fn(|k| z[k] - weights[k].ln()))
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Minus the log of the density of Student's t at 0: `Gamma(3) / (sqrt(5 pi) Gamma(5/2))` is its
/// value there.
fn constant() -> f64 {
    -density(0.0).ln()
}

/// The density of Student's t with five degrees of freedom.
fn density(t: f64) -> f64 {
    let tail = 1.0 + t * t / NU;
    8.0 / (3.0 * PI * NU.sqrt() * tail * tail * tail)
}

/// Its distribution function, in closed form for odd degrees of freedom (Abramowitz and Stegun
/// 26.7.3).
fn cumulative(t: f64) -> f64 {
    let angle = (t / NU.sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    0.5 + (angle + sin * cos * (1.0 + 2.0 / 3.0 * cos * cos)) / PI
}

#[cfg(test)]
mod tests {
    use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

    use super::*;

    #[test]
    fn the_distribution_is_students() {
        let student = StudentsT::new(0.0, 1.0, 5.0).unwrap();
        for i in -60..=60 {
            let t = f64::from(i) * 0.17;
            assert!((density(t) - student.pdf(t)).abs() < 1e-12, "{t}");
            assert!((cumulative(t) - student.cdf(t)).abs() < 1e-9, "{t}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_loss_with_the_factor_of_the_likelihood_held() {
        let weights = [[0.7f32, 1.4, 1.1]];
        let target = Target { class: 2, value: 0.8 };
        for head in [[0.3, -0.2, 0.9, 0.4, 0.1], [-1.0, 0.5, 0.2, -2.5, 1.4]] {
            let term = Term::of(head, &target, &weights[0]);
            let sigma = softplus(head[4]) + FLOOR;
            for k in 0..HEADS {
                let step = 1e-6;
                let side = |sign: f64| {
                    let mut moved = head;
                    moved[k] += sign * step;
                    let term = Term::of(moved, &target, &weights[0]);
                    // The factor sqrt(sigma) as it was.
                    let now = softplus(moved[4]) + FLOOR;
                    let z = (0.8f32 as f64 - moved[3]) / now;
                    let nll = constant() + now.ln() + 3.0 * (1.0 + z * z / NU).ln();
                    let held = 0.5 * (sigma.sqrt() - now.sqrt()) * nll;
                    [term.entropy, term.other + held]
                };
                let (up, down) = (side(1.0), side(-1.0));
                let slope = |i: usize| (up[i] - down[i]) / (2.0 * step);
                let entropy = if k < 3 { term.of_entropy[k] } else { 0.0 };
                assert!((slope(0) - entropy).abs() < 1e-6, "entropy {k}");
                assert!((slope(1) - term.of_other[k]).abs() < 1e-6, "other {k}");
            }
        }
    }

    #[test]
    fn weights_do_not_move_probabilities() {
        // Logits that are exact for weighted classes give the classes' own shares back.
        let weights = [[2.0f32, 0.5, 1.0]];
        let p = [0.2f64, 0.5, 0.3];
        let heads: Vec<f32> = (0..3)
            .map(|k| ((p[k] * f64::from(weights[0][k])).ln()) as f32)
            .chain([0.1, 0.2])
            .collect();
        let forecast = forecasts(&heads, &weights)[0];
        for (got, p) in forecast.p.into_iter().zip(p) {
            assert!((f64::from(got) - p).abs() < 1e-6);
        }
        assert_eq!(forecast.mean, 0.1);
    }
}
