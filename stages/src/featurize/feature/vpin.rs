//! VPIN: how one-sided the volume is, on a clock of volume.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::flow::bulk;
use super::parts::{Sigma, above_zero, length, priced};
use super::{Entry, Feature, Learner, Need, Settings, Shape, read};
use crate::featurize::window::{Moments, Rolling};
use crate::market::Sample;
use crate::{Invalid, Result, StageError};

/// Parameters of `vpin`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Buckets {
    /// Buckets in the mean.
    pub buckets: usize,
    /// A bucket, in mean samples of the training span.
    pub bucket_bars: f64,
    /// Returns in the deviation by which bulk volume classification signs.
    pub volatility: usize,
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets { buckets: 50, bucket_bars: 1.0, volatility: 20 }
    }
}

impl Settings for Buckets {
    fn check(&self) -> Result<(), Invalid> {
        length("buckets", self.buckets)?;
        length("volatility", self.volatility)?;
        above_zero("bucket_bars", self.bucket_bars)
    }
}

/// Volume-synchronised probability of informed trading.
pub const VPIN: Entry = Entry {
    name: "vpin",
    aliases: &[],
    suffix: None,
    formula: "mean abs(V_b - V_s) / V over buckets of equal volume V, V_b = V Phi(r / sigma)",
    unit: "0 to 1",
    source: "Easley, Lopez de Prado and O'Hara 2012",
    needs: &[Need::Volume],
    prefers: &[],
    params: Shape::of::<Buckets>(),
    make: |params, making| {
        let p: Buckets = read(params)?;
        let fit: Bucket = making.fitted()?;
        let vpin = Vpin::new(fit.bucket, p.buckets);
        Ok(Box::new(Informed { sigma: Sigma::new(p.volatility), vpin }))
    },
    fit: Some(|params, _| {
        let p: Buckets = read(params)?;
        Ok(Box::new(MeanVolume { bars: p.bucket_bars, mean: 0.0, seen: 0.0 }))
    }),
};

/// What is learnt for `vpin`.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Bucket {
    /// Units of volume in a bucket.
    bucket: f64,
}

struct MeanVolume {
    bars: f64,
    mean: f64,
    seen: f64,
}

impl Learner for MeanVolume {
    fn push(&mut self, sample: &Sample) {
        if sample.volume.is_finite() {
            self.seen += 1.0;
            self.mean += (sample.volume - self.mean) / self.seen;
        }
    }
    fn finish(self: Box<Self>, _: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Value> {
        if self.mean > 0.0 {
            return Ok(json!({ "bucket": self.mean * self.bars }));
        }
        Err(StageError::failed("volume is 0 throughout the training span")
            .hint("`vpin` needs it; use bars with traded volume, or leave `vpin` out"))
    }
}

struct Informed {
    sigma: Sigma,
    vpin: Vpin,
}

impl Feature for Informed {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        let (change, sigma) = self.sigma.push(sample.close);
        let share = bulk(change?, sigma?);
        if !sample.volume.is_finite() || !priced(sample.close) {
            return None;
        }
        self.vpin.push(sample.volume, share)
    }
}

/// VPIN: mean |V_b - V_s| / V over the last buckets of equal volume.
#[derive(Clone, Debug)]
pub struct Vpin {
    bucket: f64,
    full: Rolling<Moments>,
    volume: f64,
    signed: f64,
}

impl Vpin {
    /// VPIN over `buckets` buckets of `bucket` units of volume each.
    pub fn new(bucket: f64, buckets: usize) -> Vpin {
        Vpin { bucket, full: Rolling::new(buckets), volume: 0.0, signed: 0.0 }
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
            for _ in 0..whole.min(self.full.size() as f64) as usize {
                self.full.push(tilt.abs());
            }
            left = (left - whole * self.bucket).max(0.0);
        }
        self.volume += left;
        self.signed += left * tilt;
        self.full.get().map(|m| m.mean)
    }
}
