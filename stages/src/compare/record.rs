//! How long a record must be until what the best of several has is more than luck.

use statrs::distribution::{ContinuousCDF, Normal};

use crate::evaluate::inference::Moments;

/// Returns that it takes until a Sharpe ratio like this exceeds `against` (of a bar) at the
/// confidence asked for (Bailey and Lopez de Prado 2012, eq. 13). `None` where it does not lie above.
pub fn min_track_record(m: &Moments, against: f64, confidence: f64) -> Option<usize> {
    let z = Normal::standard().inverse_cdf(confidence);
    let spread = 1.0 - m.skewness * m.sharpe + (m.kurtosis - 1.0) / 4.0 * m.sharpe * m.sharpe;
    let returns = 1.0 + spread * (z / (m.sharpe - against)).powi(2);
    (m.sharpe > against && returns.is_finite() && spread > 0.0).then(|| returns.ceil() as usize)
}
