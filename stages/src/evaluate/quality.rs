//! How good forecasts are as forecasts, before any money: classes, probabilities, whole
//! distributions, ranks.
//!
//! A forecast can be right and lose to costs, and wrong and earn with the market; the report keeps
//! the two apart. Whether one model is better than another is for `significance`.

use std::collections::BTreeMap;

use serde::Serialize;
use statrs::distribution::{Continuous, ContinuousCDF, Normal, StudentsT};
use statrs::function::beta::beta;

use super::answers::mcc;
use super::forecasts::Forecast;
use super::metrics::{deviation, finite, mean};

/// Bins of the calibration error.
pub const BINS: usize = 10;
/// Instruments at a date from which an information coefficient across them is taken.
pub const ACROSS: usize = 5;
/// Degrees of freedom of the forecasts' distribution.
const FREEDOM: f64 = 5.0;
/// A probability below this counts as it, so that one surprise does not make a loss infinite.
const LEAST: f64 = 1e-15;

/// Guessed classes against those that came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Classes {
    /// Rows what came, columns what was guessed: down, flat, up.
    pub confusion: Vec<Vec<usize>>,
    /// Share of guesses that were right.
    pub accuracy: f64,
    /// Share that always guessing the most frequent class would get right.
    pub majority: f64,
    /// Mean over the classes of the share of each that was guessed.
    pub balanced_accuracy: Option<f64>,
    /// Mean over the classes of the harmonic mean of precision and recall.
    pub macro_f1: f64,
    /// Matthews correlation; 0 is no better than chance.
    pub mcc: Option<f64>,
}

impl Classes {
    /// Of a confusion matrix; `None` of an empty one.
    pub fn of(confusion: Vec<Vec<usize>>) -> Option<Classes> {
        let n = confusion.len();
        let total: usize = confusion.iter().flatten().sum();
        if total == 0 {
            return None;
        }
        let came = |c: usize| confusion[c].iter().sum::<usize>();
        let guessed = |c: usize| confusion.iter().map(|row| row[c]).sum::<usize>();
        let right: usize = (0..n).map(|c| confusion[c][c]).sum();
        let recalls: Vec<f64> = (0..n)
            .filter(|c| came(*c) > 0)
            .map(|c| confusion[c][c] as f64 / came(c) as f64)
            .collect();
        let f1 = |c: usize| match came(c) + guessed(c) {
            0 => None,
            all => Some(2.0 * confusion[c][c] as f64 / all as f64),
        };
        let f1s: Vec<f64> = (0..n).filter_map(f1).collect();
        Some(Classes {
            accuracy: right as f64 / total as f64,
            majority: (0..n).map(came).max().unwrap_or(0) as f64 / total as f64,
            balanced_accuracy: mean(&recalls),
            macro_f1: mean(&f1s).unwrap_or(0.0),
            mcc: mcc(&confusion),
            confusion,
        })
    }
}

/// A bin of probabilities: what was said and how often it came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Forecasts in it.
    pub count: usize,
    /// Mean probability.
    pub said: f64,
    /// Share of them that came.
    pub came: f64,
}

/// Ten bins of equal width of (probability, whether it came); empty ones are left out.
pub fn bins(pairs: &[(f64, bool)]) -> Vec<Bin> {
    let mut sums = [(0usize, 0.0, 0usize); BINS];
    for (p, came) in pairs {
        let bin = ((p * BINS as f64) as usize).min(BINS - 1);
        sums[bin].0 += 1;
        sums[bin].1 += p;
        sums[bin].2 += usize::from(*came);
    }
    let bin = |(count, said, came): (usize, f64, usize)| Bin {
        count,
        said: said / count as f64,
        came: came as f64 / count as f64,
    };
    sums.into_iter().filter(|s| s.0 > 0).map(bin).collect()
}

/// Expected calibration error: the mean distance of what was said from what came, by bin (Naeini et
/// al. 2015).
pub fn calibration_error(bins: &[Bin]) -> Option<f64> {
    let total: usize = bins.iter().map(|b| b.count).sum();
    let sum: f64 = bins.iter().map(|b| b.count as f64 * (b.said - b.came).abs()).sum();
    (total > 0).then(|| sum / total as f64)
}

/// Brier score of one event: the mean squared distance of its probability from what came.
pub fn brier(pairs: &[(f64, bool)]) -> Option<f64> {
    let each: Vec<f64> =
        pairs.iter().map(|(p, came)| (p - f64::from(u8::from(*came))).powi(2)).collect();
    mean(&each)
}

/// Mean of -ln of the probability of what came.
pub fn log_loss(of_what_came: impl Iterator<Item = f64>) -> Option<f64> {
    let each: Vec<f64> = of_what_came.map(|p| -p.max(LEAST).ln()).collect();
    mean(&each)
}

/// Continuous ranked probability score of a normal distribution (Gneiting and Raftery 2007, eq. 21).
pub fn crps_normal(mean: f64, deviation: f64, came: f64) -> f64 {
    let (z, normal) = ((came - mean) / deviation, Normal::standard());
    let root = std::f64::consts::PI.sqrt();
    deviation * (z * (2.0 * normal.cdf(z) - 1.0) + 2.0 * normal.pdf(z) - 1.0 / root)
}

/// Continuous ranked probability score of a Student t with 5 degrees of freedom, by location and
/// scale (Jordan, Krueger and Lerch 2019, appendix A). `None` where the scale is not above 0.
pub fn crps_student(mean: f64, scale: f64, came: f64) -> Option<f64> {
    let t = StudentsT::new(0.0, 1.0, FREEDOM).ok().filter(|_| scale > 0.0)?;
    let z = (came - mean) / scale;
    let (nu, half) = (FREEDOM, 0.5);
    let constant =
        2.0 * nu.sqrt() / (nu - 1.0) * beta(half, nu - half) / beta(half, nu / 2.0).powi(2);
    let spread = 2.0 * t.pdf(z) * (nu + z * z) / (nu - 1.0);
    Some(scale * (z * (2.0 * t.cdf(z) - 1.0) + spread - constant))
}

/// Correlation of Pearson; `None` where one side does not vary.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let (mx, my) = (mean(x)?, mean(y)?);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xx += (a - mx).powi(2);
        yy += (b - my).powi(2);
        xy += (a - mx) * (b - my);
    }
    let scale = |m: f64| 1e-24 * x.len() as f64 * m * m;
    let varies = x.len() > 1 && xx > scale(mx) && yy > scale(my);
    varies.then(|| xy / (xx * yy).sqrt()).and_then(finite)
}

/// Correlation of Spearman: that of ranks, ties at their mean rank.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

/// Ranks from 1, ties at their mean.
pub fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let mut ranks = vec![0.0; x.len()];
    let mut below = 0;
    for tied in order.chunk_by(|a, b| x[*a] == x[*b]) {
        let rank = below as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|at| ranks[*at] = rank);
        below += tied.len();
    }
    ranks
}

/// How forecasts rank with what came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Information {
    /// Rank correlation of the expected return with the return that came, over all rows.
    pub whole: Option<f64>,
    /// The same without ranks.
    pub linear: Option<f64>,
    /// Dates with at least five instruments.
    pub dates: usize,
    /// Mean over them of the rank correlation across instruments.
    pub mean: Option<f64>,
    /// That mean over the deviation from date to date.
    pub ratio: Option<f64>,
    /// Its t-value: the ratio times the root of the dates, of which horizons that overlap leave one
    /// in as many as there are bars.
    pub t: Option<f64>,
}

/// Everything that is measured of one model's forecasts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// The model.
    pub name: String,
    /// Forecasts.
    pub rows: usize,
    /// Those of which it is known what came.
    pub known: usize,
    /// Guesses: the likeliest class.
    pub classes: Option<Classes>,
    /// Brier score over the three classes: 0 is best, 2 worst.
    pub brier: Option<f64>,
    /// That of always saying the shares that came, which no one knew before.
    pub brier_shares: Option<f64>,
    /// Mean of -ln of the probability of the class that came.
    pub log_loss: Option<f64>,
    /// That of always saying the shares that came.
    pub log_loss_shares: Option<f64>,
    /// Calibration error of the probability of a rise, ten bins.
    pub ece10: Option<f64>,
    /// The bins.
    pub calibration: Vec<Bin>,
    /// Mean ranked probability score of the whole distribution, in log return.
    pub crps: Option<f64>,
    /// Ranks.
    pub information: Information,
}

/// Measures forecasts over `horizon` bars.
pub fn quality(name: &str, forecasts: &[Forecast], horizon: usize) -> Quality {
    let classed: Vec<(&Forecast, usize)> =
        forecasts.iter().filter_map(|f| Some((f, f.class?))).collect();
    let came: Vec<(&Forecast, f64)> = forecasts.iter().filter_map(|f| Some((f, f.came?))).collect();
    let mut confusion = vec![vec![0; 3]; 3];
    for (f, class) in &classed {
        confusion[*class][guess(f)] += 1;
    }
    let classes = Classes::of(confusion);
    let squares: Vec<f64> = classed.iter().map(|(f, class)| squared(&f.p, *class)).collect();
    let n = classed.len() as f64;
    let shares = [0, 1, 2].map(|c| classed.iter().filter(|(_, k)| *k == c).count() as f64 / n);
    let flat: Vec<f64> = classed.iter().map(|(_, class)| squared(&shares, *class)).collect();
    let rises: Vec<(f64, bool)> = classed.iter().map(|(f, class)| (f.p[2], *class == 2)).collect();
    let calibration = bins(&rises);
    let scores: Option<Vec<f64>> =
        came.iter().map(|(f, r)| crps_student(f.mean, f.scale?, *r)).collect();
    Quality {
        name: name.into(),
        rows: forecasts.len(),
        known: classed.len().max(came.len()),
        classes,
        brier: mean(&squares),
        brier_shares: mean(&flat),
        log_loss: log_loss(classed.iter().map(|(f, class)| f.p[*class])),
        log_loss_shares: log_loss(classed.iter().map(|(_, class)| shares[*class])),
        ece10: calibration_error(&calibration),
        calibration,
        crps: scores.and_then(|s| mean(&s)),
        information: information(&came, horizon),
    }
}

fn squared(p: &[f64; 3], class: usize) -> f64 {
    (0..3).map(|c| (p[c] - f64::from(u8::from(c == class))).powi(2)).sum()
}

/// The likeliest class; of equally likely ones flat, else the first.
pub fn guess(f: &Forecast) -> usize {
    let most = f.p.iter().copied().fold(f64::MIN, f64::max);
    if f.p[1] == most { 1 } else { f.p.iter().position(|p| *p == most).unwrap_or(1) }
}

fn information(came: &[(&Forecast, f64)], horizon: usize) -> Information {
    let columns = |rows: &[(&Forecast, f64)]| -> (Vec<f64>, Vec<f64>) {
        rows.iter().map(|(f, r)| (f.mean, *r)).unzip()
    };
    let (said, got) = columns(came);
    let mut days: BTreeMap<usize, Vec<(&Forecast, f64)>> = BTreeMap::new();
    came.iter().for_each(|(f, r)| days.entry(f.at).or_default().push((f, *r)));
    let across = |day: &Vec<(&Forecast, f64)>| {
        let (said, got) = columns(day);
        spearman(&said, &got)
    };
    let each: Vec<f64> = days.values().filter(|d| d.len() >= ACROSS).filter_map(across).collect();
    let ratio = mean(&each).zip(deviation(&each)).and_then(|(m, d)| finite(m / d));
    Information {
        whole: spearman(&said, &got),
        linear: pearson(&said, &got),
        dates: each.len(),
        mean: mean(&each),
        ratio,
        t: ratio.map(|r| r * (each.len() as f64 / horizon.max(1) as f64).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testdata::{close, stats};
    use super::*;

    // scikit-learn 1.9.1, SciPy 1.17.1 and scoringrules 0.10.0 on testdata/stats.csv.
    #[test]
    fn agrees_with_the_libraries() {
        let s = stats();
        let (y, f1, sigma, p_up) = (&s[0], &s[1], &s[3], &s[4]);
        let mut confusion = vec![vec![0; 3]; 3];
        s[5].iter().zip(&s[6]).for_each(|(y, p)| confusion[*y as usize][*p as usize] += 1);
        let three = Classes::of(confusion).unwrap();
        close(three.mcc, 0.09470278935242916, 1e-12);
        close(three.balanced_accuracy, 0.395174666603238, 1e-12);
        close(three.macro_f1, 0.3918869526535847, 1e-12);
        let mut confusion = vec![vec![0; 2]; 2];
        y.iter()
            .zip(f1)
            .for_each(|(y, f)| confusion[usize::from(*y > 0.0)][usize::from(*f > 0.0)] += 1);
        let two = Classes::of(confusion).unwrap();
        close(two.accuracy, 0.5633333333333334, 1e-12);
        close(two.mcc, 0.12843718920167443, 1e-12);
        close(two.balanced_accuracy, 0.5641071249902725, 1e-12);
        let pairs: Vec<(f64, bool)> = p_up.iter().zip(y).map(|(p, y)| (*p, *y > 0.0)).collect();
        close(brier(&pairs), 0.3036083428194675, 1e-12);
        let of_what_came = pairs.iter().map(|(p, up)| if *up { *p } else { 1.0 - p });
        close(log_loss(of_what_came), 0.9381819457062536, 1e-12);
        close(calibration_error(&bins(&pairs)), 0.20219471973006992, 1e-12);
        close(pearson(f1, y), 0.20311407608840232, 1e-12);
        close(spearman(f1, y), 0.19384798291106362, 1e-12);
        let crps: Vec<f64> = (0..600).map(|i| crps_normal(f1[i], sigma[i], y[i])).collect();
        close(crps[0], 0.003923954803761651, 1e-12);
        close(mean(&crps), 0.0073709798056852925, 1e-12);
    }

    #[test]
    fn the_score_of_a_student_t_is_its_integral() {
        // Of the squared distance of the distribution from the step at what came.
        let t = StudentsT::new(0.0, 1.0, 5.0).unwrap();
        for (mean, scale, came) in [(0.0, 1.0, 0.3), (0.01, 0.02, -0.05), (1.0, 3.0, 1.0)] {
            let step = scale / 2000.0;
            let whole: f64 = (-400_000..400_000)
                .map(|i| mean + (f64::from(i) + 0.5) * step)
                .map(|x| {
                    let f = t.cdf((x - mean) / scale);
                    (if x >= came { 1.0 - f } else { f }).powi(2) * step
                })
                .sum();
            close(crps_student(mean, scale, came), whole, 1e-4 * scale);
        }
        assert_eq!(crps_student(0.0, 0.0, 1.0), None);
    }

    #[test]
    fn ties_share_a_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    fn forecast(at: usize, asset: usize, mean: f64, came: f64) -> Forecast {
        let p = if mean > 0.0 { [0.1, 0.2, 0.7] } else { [0.6, 0.3, 0.1] };
        let class = Some(if came > 0.0 { 2 } else { 0 });
        Forecast { at, asset, until: None, p, mean, scale: None, class, came: Some(came) }
    }

    #[test]
    fn perfect_ranks_are_seen_date_by_date() {
        let rows: Vec<Forecast> = (0..10)
            .flat_map(|at| {
                (0..6).map(move |asset| {
                    let came = (asset as f64 - 2.5) * 0.01 + 0.1 * f64::from(at % 2 == 0);
                    forecast(at, asset, (asset as f64 - 2.5) * 0.001, came)
                })
            })
            .collect();
        let q = quality("m", &rows, 1);
        assert_eq!((q.rows, q.known, q.information.dates), (60, 60, 10));
        assert_eq!(q.information.mean, Some(1.0));
        // Every date alike: there is no deviation to divide by.
        assert_eq!(q.information.ratio, None);
        assert!(q.information.whole.unwrap() < 0.9);
        assert_eq!(q.crps, None);
        let shares = q.classes.unwrap();
        assert_eq!(shares.confusion, [[15, 0, 0], [0, 0, 0], [15, 0, 30]]);
        assert_eq!(q.calibration.len(), 2);
    }
}
