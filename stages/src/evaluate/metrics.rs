//! What a sequence of returns amounts to, in the numbers that a quant expects.
//!
//! Conventions: returns are simple and per bar, the risk-free rate is zero, standard deviations
//! have n - 1, P is the number of bars a year, and drawdown counts the starting 1 as a peak. A
//! number that is not defined (no variance, no trade) is `None`, never 0 or infinity.
//!
//! How sure one may be of these numbers is the business of `inference`.

use serde::Serialize;

use super::backtest::Path;
use super::inference::psr;

/// Lags of the autocorrelations in Lo's annualisation and in HAC errors.
pub const LAGS: usize = 5;

/// Arithmetic mean; `None` of nothing.
pub fn mean(x: &[f64]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().sum::<f64>() / x.len() as f64)
}

/// Sample standard deviation (n - 1); `None` below two values.
pub fn deviation(x: &[f64]) -> Option<f64> {
    let m = mean(x)?;
    let sum: f64 = x.iter().map(|v| (v - m).powi(2)).sum();
    (x.len() > 1).then(|| (sum / (x.len() - 1) as f64).sqrt())
}

/// `Some` of a number that is one.
pub fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// Mean over standard deviation of one bar. `None` where nothing varies.
pub fn sharpe_per_bar(returns: &[f64]) -> Option<f64> {
    let deviation = deviation(returns)?;
    // Rounding leaves a constant series with a deviation of some 1e-17 of its size.
    let scale = returns.iter().fold(0.0f64, |a, r| a.max(r.abs()));
    (deviation > 1e-12 * scale).then(|| mean(returns).map(|m| m / deviation))?
}

/// Sharpe ratio a year: sqrt(P) times that of a bar.
pub fn sharpe(returns: &[f64], per_year: f64) -> Option<f64> {
    sharpe_per_bar(returns).map(|s| s * per_year.sqrt())
}

/// Sharpe ratio a year where returns are autocorrelated: that of a bar times
/// q / sqrt(q + 2 sum over k of (q - k) rho_k), with q = P (Lo 2002, eq. 20), from `lags` lags.
pub fn sharpe_lo(returns: &[f64], per_year: f64, lags: usize) -> Option<f64> {
    let m = mean(returns)?;
    let dev: Vec<f64> = returns.iter().map(|r| r - m).collect();
    let variance: f64 = dev.iter().map(|d| d * d).sum();
    let sum: f64 = (1..=lags.min(dev.len().saturating_sub(1)))
        .map(|k| {
            let cov: f64 = dev.iter().zip(&dev[k..]).map(|(a, b)| a * b).sum();
            (per_year - k as f64) * cov / variance
        })
        .sum();
    let under = per_year + 2.0 * sum;
    let eta = (under > 0.0).then(|| per_year / under.sqrt())?;
    finite(sharpe_per_bar(returns)? * eta)
}

/// Mean over the root mean square of the losses, a year (Sortino with a target of 0).
pub fn sortino(returns: &[f64], per_year: f64) -> Option<f64> {
    let below: f64 = returns.iter().map(|r| r.min(0.0).powi(2)).sum();
    let downside = (below / returns.len() as f64).sqrt();
    finite(mean(returns)? / downside * per_year.sqrt()).filter(|_| downside > 0.0)
}

/// The deepest fall of the compounded returns from a peak, as a negative share; the starting 1 is
/// a peak. 0 where there is none.
pub fn max_drawdown(returns: &[f64]) -> f64 {
    let (mut value, mut peak, mut worst) = (1.0f64, 1.0f64, 0.0f64);
    for r in returns {
        value *= 1.0 + r;
        peak = peak.max(value);
        worst = worst.min(value / peak - 1.0);
    }
    worst
}

/// The fall from the peak so far at each point of an equity curve.
pub fn drawdowns(equity: &[f64]) -> Vec<f64> {
    let mut peak = 1.0f64;
    let fall = |e: &f64| {
        peak = peak.max(*e);
        e / peak - 1.0
    };
    equity.iter().map(fall).collect()
}

/// Compound growth a year. -1 where everything is lost.
pub fn cagr(returns: &[f64], per_year: f64) -> Option<f64> {
    let end: f64 = returns.iter().map(|r| 1.0 + r).product();
    let years = returns.len() as f64 / per_year;
    (years > 0.0).then(|| end.max(0.0).powf(1.0 / years) - 1.0)
}

/// How gains and losses divide, of trades or of bars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hits {
    /// Values that are not zero.
    pub count: usize,
    /// Share of gains among them.
    pub rate: f64,
    /// Mean gain over mean loss.
    pub payoff: Option<f64>,
    /// Mean of all of them.
    pub expectancy: f64,
    /// Sum of gains over sum of losses.
    pub profit_factor: Option<f64>,
}

/// Counts gains and losses; values of exactly zero are neither. `None` without any.
pub fn hits(values: &[f64]) -> Option<Hits> {
    let gains: Vec<f64> = values.iter().copied().filter(|v| *v > 0.0).collect();
    let losses: Vec<f64> = values.iter().copied().filter(|v| *v < 0.0).collect();
    let count = gains.len() + losses.len();
    let (won, lost) = (gains.iter().sum::<f64>(), -losses.iter().sum::<f64>());
    (count > 0).then(|| Hits {
        count,
        rate: gains.len() as f64 / count as f64,
        payoff: mean(&gains).zip(mean(&losses)).map(|(g, l)| g / -l),
        expectancy: (won - lost) / count as f64,
        profit_factor: (lost > 0.0).then(|| won / lost),
    })
}

/// The line r = alpha + beta x, with errors robust to heteroscedasticity and autocorrelation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Intercept, per bar.
    pub alpha: f64,
    /// Slope.
    pub beta: f64,
    /// Newey-West t-value of alpha.
    pub alpha_t: Option<f64>,
    /// Newey-West t-value of beta.
    pub beta_t: Option<f64>,
    /// Correlation of r and x.
    pub correlation: Option<f64>,
}

/// Ordinary least squares of `returns` on `index` with Newey-West errors (Bartlett weights, `lags`
/// lags, variances times n / (n - 2)). `None` where the index does not vary or lengths differ.
pub fn regress(returns: &[f64], index: &[f64], lags: usize) -> Option<Line> {
    let n = returns.len();
    if n != index.len() || n < 3 {
        return None;
    }
    let (my, mx) = (mean(returns)?, mean(index)?);
    let xs: Vec<f64> = index.iter().map(|x| x - mx).collect();
    let sxx: f64 = xs.iter().map(|x| x * x).sum();
    let syy: f64 = returns.iter().map(|y| (y - my).powi(2)).sum();
    let sxy: f64 = xs.iter().zip(returns).map(|(x, y)| x * (y - my)).sum();
    // Rounding leaves a constant index with a sum of squares of some 1e-32 of its size.
    if sxx <= 1e-24 * n as f64 * mx * mx {
        return None;
    }
    let beta = sxy / sxx;
    let alpha = my - beta * mx;
    // Scores u (1, x - mean): the cross term of (X'X)^-1 is zero for the centred regressor.
    let u: Vec<f64> = index.iter().zip(returns).map(|(x, y)| y - alpha - beta * x).collect();
    let score: Vec<[f64; 2]> = u.iter().zip(&xs).map(|(u, x)| [*u, u * x]).collect();
    let mut s = [0.0; 3];
    for lag in 0..=lags.min(n - 1) {
        // Lag 0 meets itself in the symmetric sum below, hence its half.
        let weight = if lag == 0 { 0.5 } else { 1.0 - lag as f64 / (lags as f64 + 1.0) };
        for (a, b) in score.iter().zip(&score[lag..]) {
            s[0] += weight * 2.0 * a[0] * b[0];
            s[1] += weight * (a[0] * b[1] + a[1] * b[0]);
            s[2] += weight * 2.0 * a[1] * b[1];
        }
    }
    let nf = n as f64;
    s = s.map(|v| v * nf / (nf - 2.0));
    // Variance of the mean of u, of beta, and their covariance; alpha = mean part - mx beta part.
    let (v0, v1, c) = (s[0] / (nf * nf), s[2] / (sxx * sxx), s[1] / (nf * sxx));
    let alpha_var = v0 - 2.0 * mx * c + mx * mx * v1;
    Some(Line {
        alpha,
        beta,
        alpha_t: finite(alpha / alpha_var.sqrt()),
        beta_t: finite(beta / v1.sqrt()),
        correlation: finite(sxy / (sxx * syy).sqrt()),
    })
}

/// Everything that is measured of one replay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Returns, one fewer than bars.
    pub returns: usize,
    /// Whole return after costs.
    pub total_return: f64,
    /// Compound growth a year.
    pub cagr: Option<f64>,
    /// Standard deviation a year.
    pub volatility: Option<f64>,
    /// Sharpe ratio a year.
    pub sharpe: Option<f64>,
    /// Sharpe ratio a year, corrected for autocorrelation.
    pub sharpe_lo: Option<f64>,
    /// Sortino ratio a year.
    pub sortino: Option<f64>,
    /// Growth a year over the deepest fall.
    pub calmar: Option<f64>,
    /// Deepest fall from a peak; negative.
    pub max_drawdown: f64,
    /// Round trips, one that is still open included.
    pub trades: usize,
    /// How the round trips ended.
    pub hits: Option<Hits>,
    /// Units of position traded in a year; a round trip is 2.
    pub turnover: f64,
    /// Share of closes with a position.
    pub exposure: f64,
    /// Mean position: +1 always long.
    pub net_exposure: f64,
    /// Costs paid, as a share of the initial equity.
    pub costs: f64,
    /// Probability that the true Sharpe ratio is above 0.
    pub psr: Option<f64>,
    /// Excess growth a year over beta times the index.
    pub alpha: Option<f64>,
    /// Against the index, per bar.
    pub index: Option<Line>,
    /// Limit orders sent and filled.
    pub limits: (usize, usize),
}

/// Measures a replay against the returns of the index (buy and hold) over the same bars.
pub fn measure(path: &Path, index: &[f64], per_year: f64) -> Metrics {
    let returns = path.returns();
    let nets: Vec<f64> = path.trades.iter().map(|t| t.net).collect();
    let years = returns.len() as f64 / per_year;
    let exposed = |gross: &dyn Fn(usize) -> f64, net: &dyn Fn(usize) -> f64, closes: usize| {
        let all = closes.max(1) as f64;
        let held = (0..closes).filter(|t| gross(*t) != 0.0).count() as f64 / all;
        (held, (0..closes).map(net).sum::<f64>() / all)
    };
    let units = |t: usize| f64::from(path.position[t]);
    let (exposure, net_exposure) = match path.weights.len() {
        0 => exposed(&units, &units, path.position.len()),
        n => exposed(&|t| path.weights[t][0], &|t| path.weights[t][1], n),
    };
    let line = regress(&returns, index, LAGS);
    let (cagr, deepest) = (cagr(&returns, per_year), max_drawdown(&returns));
    Metrics {
        returns: returns.len(),
        total_return: path.equity.last().map_or(0.0, |e| e - 1.0),
        cagr,
        volatility: deviation(&returns).map(|d| d * per_year.sqrt()),
        sharpe: sharpe(&returns, per_year),
        sharpe_lo: sharpe_lo(&returns, per_year, LAGS),
        sortino: sortino(&returns, per_year),
        calmar: cagr.filter(|_| deepest < 0.0).map(|c| c / -deepest),
        max_drawdown: deepest,
        trades: nets.len(),
        hits: hits(&nets),
        turnover: if years > 0.0 { path.traded.iter().sum::<f64>() / years } else { 0.0 },
        exposure,
        net_exposure,
        costs: path.costs,
        psr: psr(&returns, 0.0),
        alpha: line.map(|l| l.alpha * per_year),
        index: line,
        limits: (path.limits_sent, path.limits_filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testdata::{close, perf};

    // empyrical-reloaded 0.7.1, quantstats 0.0.86 and statsmodels 0.15.0 on testdata/perf.csv.
    #[test]
    fn agrees_with_the_libraries() {
        let (strategy, index) = perf();
        close(sharpe(&strategy, 252.0), 0.508137289677167, 1e-12);
        close(sortino(&strategy, 252.0), 0.7008023701532127, 1e-12);
        close(max_drawdown(&strategy), -0.19339047506753348, 1e-12);
        close(cagr(&strategy, 252.0), 0.048294157290532436, 1e-12);
        close(deviation(&strategy).map(|d| d * 252f64.sqrt()), 0.10335609259580111, 1e-12);
        close(sharpe_lo(&strategy, 252.0, 5), 0.5413737479766759, 1e-12);
        let hits = hits(&strategy).unwrap();
        close(hits.rate, 0.5370370370370371, 1e-12);
        close(hits.payoff, 0.9580905524451382, 1e-12);
        close(hits.profit_factor, 1.1113850408363604, 1e-12);
        let line = regress(&strategy, &index, 5).unwrap();
        close(line.alpha, -2.0122329946396886e-06, 1e-15);
        close(line.beta, 0.40045504139755705, 1e-12);
        close(line.alpha_t, -0.019923137345795556, 1e-9);
        close(line.beta_t, 11.286485025982758, 1e-9);
        close(line.correlation, 0.6662254919358825, 1e-12);
    }

    #[test]
    fn what_is_not_defined_is_not_a_number() {
        assert_eq!(sharpe(&[], 252.0), None);
        assert_eq!(sharpe(&[0.0; 10], 252.0), None);
        assert_eq!(sharpe(&[0.1; 10], 252.0), None);
        assert_eq!(sharpe_lo(&[0.0; 10], 252.0, 5), None);
        assert_eq!(sortino(&[0.01, 0.02], 252.0), None);
        assert_eq!(hits(&[0.0, 0.0]), None);
        assert_eq!(hits(&[0.1]).unwrap().profit_factor, None);
        assert_eq!(cagr(&[], 252.0), None);
        assert_eq!(regress(&[0.1, 0.2, 0.3], &[0.1, 0.1, 0.1], 5), None);
    }

    #[test]
    fn the_starting_one_is_a_peak() {
        close(max_drawdown(&[-0.1, 0.2]), -0.1, 1e-15);
        assert_eq!(max_drawdown(&[0.1, 0.2]), 0.0);
        assert_eq!(cagr(&[0.5, -1.0, 0.0], 252.0), Some(-1.0));
        let falls = drawdowns(&[0.9, 1.2, 0.6]);
        close(falls[0], -0.1, 1e-15);
        assert_eq!((falls[1], falls[2]), (0.0, -0.5));
    }

    #[test]
    fn seventy_percent_hits_can_lose() {
        // Seven gains of 0.4 against three losses of 1: below the break-even payoff of 0.43.
        let values: Vec<f64> = [[0.4; 7].as_slice(), &[-1.0; 3]].concat();
        let hits = hits(&values).unwrap();
        close(hits.rate, 0.7, 1e-15);
        assert!(hits.expectancy < 0.0);
    }
}
