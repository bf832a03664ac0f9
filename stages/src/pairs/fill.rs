//! How likely a resting order is to fill: lambda(d) = A e^(-k d) a bar, P = 1 - exp(-lambda H)
//! (Avellaneda and Stoikov 2008).
//!
//! Orders are watched until they fill or their time is up, so that the data are censored waits of
//! an exponential, whose likelihood is that of a Poisson regression of fills on distance with
//! offset ln exposure. [`poisson`] solves it by Newton's method.
//!
//! Bars say in which bar an order filled and not when. [`fit_bars`] treats that as what it is, a
//! wait known to a bar: EM puts the expected wait within the bar, 1/lambda - 1/(e^lambda - 1), in
//! the place of the unknown one, and each step is a Poisson regression. Counting whole bars
//! instead would bound the intensity by 1 and understate near orders.
//!
//! Over years, one k a basis point does not do: 50 bps are far in calm times and near in volatile
//! ones. [`Distance::Sigma`] measures the distance in volatilities over the horizon instead, which
//! on daily bars of a stock index is far likelier (log-likelihood higher by hundreds), and makes
//! the best offset move with volatility. Sizes and gaps at the open are not modelled; what is known of
//! queues comes with the waits ([`super::follow`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::featurize::fit::short;

/// What the distance of an order is measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Volatilities over the horizon.
    #[default]
    Sigma,
    /// Basis points.
    Bps,
}

impl Distance {
    /// The distance of an order `offset_bps` away.
    pub fn of(self, offset_bps: f64, sigma_bps: f64) -> f64 {
        match self {
            Distance::Sigma => offset_bps / sigma_bps,
            Distance::Bps => offset_bps,
        }
    }
}

/// The intensity of fills as a function of the distance from the mid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillModel {
    /// A: fills a unit of time at distance 0.
    pub a: f64,
    /// k: decay with each unit of distance.
    pub k: f64,
}

impl FillModel {
    /// The intensity at distance `d`.
    pub fn intensity(&self, d: f64) -> f64 {
        self.a * (-self.k * d).exp()
    }
    /// The probability of a fill within `horizon` units of time.
    pub fn p_fill(&self, d: f64, horizon: f64) -> f64 {
        -(-self.intensity(d) * horizon).exp_m1()
    }
}

/// Orders at one distance: how many filled, and for how long they were watched in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// Distance from the mid.
    pub distance: f64,
    /// Orders that filled.
    pub fills: f64,
    /// Time watched, up to the fill or the end.
    pub exposure: f64,
}

/// Fits A and k to waits by maximum likelihood. `None` where they do not determine both: no fills,
/// no exposure, or a single distance.
pub fn poisson(waits: &[Waits]) -> Option<FillModel> {
    let fills: f64 = waits.iter().map(|w| w.fills).sum();
    let exposure: f64 = waits.iter().map(|w| w.exposure).sum();
    if fills <= 0.0 || exposure <= 0.0 {
        return None;
    }
    // Distances in units of their mean keep the Hessian well scaled.
    let unit = waits.iter().map(|w| w.distance.abs()).sum::<f64>() / waits.len() as f64;
    if unit <= 0.0 {
        return None;
    }
    let (mut intercept, mut decay) = ((fills / exposure).ln(), 0.0);
    let objective = |intercept: f64, decay: f64| -> f64 {
        let term = |w: &Waits| {
            let log_rate = intercept - decay * w.distance / unit;
            w.fills * log_rate - w.exposure * log_rate.exp()
        };
        waits.iter().map(term).sum()
    };
    let mut value = objective(intercept, decay);
    for _ in 0..100 {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for w in waits {
            let x = -w.distance / unit;
            let expected = w.exposure * (intercept + decay * x).exp();
            g0 += w.fills - expected;
            g1 += (w.fills - expected) * x;
            h00 += expected;
            h01 += expected * x;
            h11 += expected * x * x;
        }
        let determinant = h00 * h11 - h01 * h01;
        if determinant <= 1e-12 * h00 * h11 {
            return None;
        }
        let step0 = (g0 * h11 - g1 * h01) / determinant;
        let step1 = (g1 * h00 - g0 * h01) / determinant;
        // The likelihood is concave; halving keeps a far first step from overshooting.
        let mut share = 1.0;
        let better = loop {
            let next = objective(intercept + share * step0, decay + share * step1);
            if next >= value || share < 1e-6 {
                break next;
            }
            share *= 0.5;
        };
        intercept += share * step0;
        decay += share * step1;
        value = better;
        if (share * step0).abs() + (share * step1).abs() < 1e-12 {
            break;
        }
    }
    let model = FillModel { a: intercept.exp(), k: decay / unit };
    (model.a.is_finite() && model.k.is_finite()).then_some(model)
}

/// The log-likelihood of waits whose times are known, up to what the data alone decide.
pub fn log_likelihood_exact(model: &FillModel, waits: &[Waits]) -> f64 {
    let term = |w: &Waits| {
        // The logarithm of an intensity that is too small for a number is one all the same.
        let log = model.a.ln() - model.k * w.distance;
        w.fills * log - w.exposure * log.exp()
    };
    waits.iter().map(term).sum()
}

/// Standard errors of A and k at the maximum: of the inverse of the observed information in ln A and
/// k, whose terms for waits of known times are sums of the expected fills; that of A by the delta
/// method. `None` where they are not determined.
pub fn errors(model: &FillModel, waits: &[Waits]) -> Option<[f64; 2]> {
    let (mut h00, mut h01, mut h11) = (0.0, 0.0, 0.0);
    for w in waits {
        let expected = w.exposure * model.intensity(w.distance);
        h00 += expected;
        h01 -= expected * w.distance;
        h11 += expected * w.distance * w.distance;
    }
    let determinant = h00 * h11 - h01 * h01;
    let found = [model.a * (h11 / determinant).sqrt(), (h00 / determinant).sqrt()];
    found.iter().all(|x| x.is_finite()).then_some(found)
}

/// Orders at one distance, watched bar by bar.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BarWaits {
    /// Distance from the mid.
    pub distance: f64,
    /// Orders that filled within some bar.
    pub fills: f64,
    /// Bars that passed without a fill, over all orders.
    pub bars_without: f64,
}

/// The log-likelihood of waits known to a bar.
pub fn log_likelihood(model: &FillModel, waits: &[BarWaits]) -> f64 {
    let term = |w: &BarWaits| {
        let intensity = model.intensity(w.distance);
        w.fills * (-(-intensity).exp_m1()).ln() - w.bars_without * intensity
    };
    waits.iter().map(term).sum()
}

/// Fits A and k to waits whose times are known, rounded as a file holds them.
pub fn fit_exact(waits: &[Waits]) -> Option<FillModel> {
    poisson(waits).map(|model| FillModel { a: short(model.a), k: short(model.k) })
}

/// Fits A and k, for a unit of time of one bar, to waits known to a bar.
pub fn fit_bars(waits: &[BarWaits]) -> Option<FillModel> {
    let as_waits = |within: &dyn Fn(&BarWaits) -> f64| -> Option<FillModel> {
        let at = |w: &BarWaits| Waits {
            distance: w.distance,
            fills: w.fills,
            exposure: w.bars_without + w.fills * within(w),
        };
        poisson(&waits.iter().map(at).collect::<Vec<_>>())
    };
    let mut model = as_waits(&|_| 0.5)?;
    for _ in 0..1000 {
        let next = as_waits(&|w| within_bar(model.intensity(w.distance)))?;
        let moved = (next.a / model.a - 1.0).abs() + ((next.k - model.k) / next.k).abs();
        model = next;
        if moved < 1e-10 {
            break;
        }
    }
    Some(FillModel { a: short(model.a), k: short(model.k) })
}

/// The expected wait of an order that fills within one bar, in bars.
fn within_bar(intensity: f64) -> f64 {
    if intensity < 1e-4 {
        0.5 - intensity / 12.0
    } else {
        1.0 / intensity - 1.0 / intensity.exp_m1()
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn agrees_with_the_reference() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pairs/testdata/fill.json");
        let expected: serde_json::Value =
            serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
        let waits: Vec<Waits> = expected["waits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| Waits {
                distance: w[0].as_f64().unwrap(),
                exposure: w[1].as_f64().unwrap(),
                fills: w[2].as_f64().unwrap(),
            })
            .collect();
        let model = poisson(&waits).unwrap();
        let of = |name: &str| expected[name].as_f64().unwrap();
        assert!((model.a / of("a") - 1.0).abs() < 1e-6, "{model:?}");
        assert!((model.k / of("k") - 1.0).abs() < 1e-6, "{model:?}");
        let model = FillModel { a: of("a"), k: of("k") };
        for point in expected["p_fill"].as_array().unwrap() {
            let [d, t, p] = [0, 1, 2].map(|i| point[i].as_f64().unwrap());
            assert!((model.p_fill(d, t) - p).abs() < 1e-12);
        }
    }

    #[test]
    fn waits_known_to_a_bar_give_back_the_intensity() {
        // Expected counts of the truth itself: 1000 orders a distance, each watched for 3 bars.
        let truth = FillModel { a: 2.5, k: 0.03 };
        let waits: Vec<BarWaits> = [5.0, 10.0, 25.0, 50.0, 80.0]
            .into_iter()
            .map(|distance| {
                let stay = (-truth.intensity(distance)).exp();
                let (mut alive, mut fills, mut bars_without) = (1000.0, 0.0, 0.0);
                for _ in 0..3 {
                    fills += alive * (1.0 - stay);
                    alive *= stay;
                    bars_without += alive;
                }
                BarWaits { distance, fills, bars_without }
            })
            .collect();
        let model = fit_bars(&waits).unwrap();
        assert!((model.a - truth.a).abs() < 1e-6, "{model:?}");
        assert!((model.k - truth.k).abs() < 1e-8, "{model:?}");
    }

    /// Orders of a known truth, each watched for 5 units: 95 % of the fits lie within two standard
    /// errors of it, for each number.
    #[test]
    fn simulated_waits_give_back_the_truth_within_its_error() {
        let truth = FillModel { a: 0.8, k: 0.05 };
        let (mut within, rounds) = ([0, 0], 200);
        for seed in 0..rounds {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let waits: Vec<Waits> = (0..600)
                .map(|at| {
                    let distance = [5.0, 10.0, 25.0, 50.0][at % 4];
                    let wait = -rng.random::<f64>().ln() / truth.intensity(distance);
                    let fills = f64::from(u8::from(wait < 5.0));
                    Waits { distance, fills, exposure: wait.min(5.0) }
                })
                .collect();
            let model = poisson(&waits).unwrap();
            let [a, k] = errors(&model, &waits).unwrap();
            within[0] += u32::from((model.a - truth.a).abs() < 2.0 * a);
            within[1] += u32::from((model.k - truth.k).abs() < 2.0 * k);
            // The maximum is one.
            let best = log_likelihood_exact(&model, &waits);
            for (a, k) in [(0.99, 1.0), (1.01, 1.0), (1.0, 0.99), (1.0, 1.01)] {
                let other = FillModel { a: a * model.a, k: k * model.k };
                assert!(log_likelihood_exact(&other, &waits) < best);
            }
        }
        // Binomial: 190.9 of 200 expected, 2.9 deviations of 2.95.
        assert!(within.iter().all(|n| (182..=199).contains(n)), "{within:?}");
    }

    #[test]
    fn what_does_not_determine_a_model_gives_none() {
        let at = |distance, fills, exposure| Waits { distance, fills, exposure };
        assert_eq!(poisson(&[]), None);
        assert_eq!(poisson(&[at(5.0, 0.0, 10.0), at(9.0, 0.0, 10.0)]), None);
        assert_eq!(poisson(&[at(5.0, 3.0, 10.0), at(5.0, 4.0, 10.0)]), None);
    }
}
