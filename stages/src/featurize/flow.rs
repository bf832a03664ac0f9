//! Who traded, as far as bars can say: bulk volume classification, and VPIN on top of it.
//!
//! Bulk volume classification (Easley, Lopez de Prado and O'Hara 2012) calls the share
//! Phi(dp / sigma) of a bar's volume bought. It reads the sign off the price, so that everything
//! built on it moves with the return by construction; it is no substitute for signed trades.

use statrs::function::erf::erfc;

use super::rolling::Window;

/// The share of a bar's volume that was bought, 0 to 1; one half where `sigma` is zero.
pub fn bought(change: f64, sigma: f64) -> f64 {
    if sigma > 0.0 { 0.5 * erfc(-change / sigma / std::f64::consts::SQRT_2) } else { 0.5 }
}

/// VPIN: mean |V_b - V_s| / V over the last buckets of equal volume.
#[derive(Clone, Debug)]
pub struct Vpin {
    bucket: f64,
    buckets: usize,
    full: Window,
    volume: f64,
    signed: f64,
}

impl Vpin {
    /// VPIN over `buckets` buckets of `bucket` units of volume each.
    pub fn new(bucket: f64, buckets: usize) -> Vpin {
        Vpin { bucket, buckets, full: Window::new(buckets), volume: 0.0, signed: 0.0 }
    }

    /// Takes a bar's volume, of which the share `bought` was bought; the value, once there are
    /// enough buckets. A bar is split over the buckets that it fills.
    pub fn push(&mut self, volume: f64, bought: f64) -> Option<f64> {
        let tilt = 2.0 * bought - 1.0;
        let mut left = volume;
        let room = self.bucket - self.volume;
        if left >= room {
            self.full.push((self.signed + room * tilt).abs() / self.bucket);
            left -= room;
            (self.volume, self.signed) = (0.0, 0.0);
            let whole = (left / self.bucket).floor();
            // Buckets that would be pushed out again at once are not pushed.
            for _ in 0..whole.min(self.buckets as f64) as usize {
                self.full.push(tilt.abs());
            }
            left = (left - whole * self.bucket).max(0.0);
        }
        self.volume += left;
        self.signed += left * tilt;
        self.full.mean()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_split_a_bar() {
        let mut vpin = Vpin::new(10.0, 2);
        assert_eq!(vpin.push(6.0, 1.0), None);
        // 4 more fill the first bucket, 5 start the next: |6 - 4| / 10.
        assert_eq!(vpin.push(9.0, 0.0), None);
        // 5 sold and 5 bought fill the second.
        assert_eq!(vpin.push(5.0, 1.0), Some((0.2 + 0.0) / 2.0));
        // Two whole buckets, all bought.
        assert_eq!(vpin.push(20.0, 1.0), Some(1.0));
        assert_eq!(vpin.push(1e15, 0.75), Some(0.5));
    }

    #[test]
    fn no_variation_says_nothing() {
        assert_eq!(bought(0.0, 0.0), 0.5);
        let error = bought(1.0, 1.0) - 0.841_344_746_068_542_9;
        assert!(error.abs() < 1e-10, "{error}");
    }
}
