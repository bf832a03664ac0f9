//! Dropout whose masks are a function of seed, layer, step and place: a run that is resumed at a
//! step draws the masks that it would have drawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::prelude::*;
use burn::tensor::TensorData;
use rayon::prelude::*;

/// Forward passes of a step: far more than there are micro-batches.
const PASSES: u64 = 1 << 24;
/// Elements of one task.
const CHUNK: usize = 16 * 1024;

/// The dropout of one layer.
#[derive(Clone, Debug)]
pub struct Noise {
    /// The share that is left out.
    pub share: f64,
    seed: u64,
    /// The next forward pass. Clones of a model share it.
    pass: Arc<AtomicU64>,
}

impl Noise {
    /// Leaves `share` out, in `0..1`.
    pub fn new(share: f64, seed: u64) -> Noise {
        Noise { share, seed: mix(seed), pass: Arc::default() }
    }

    /// The noise of a layer, independent of that of others.
    pub fn of(&self, layer: &str) -> Noise {
        let seed = layer.bytes().fold(self.seed, |seed, byte| mix(seed ^ u64::from(byte)));
        Noise { share: self.share, seed, pass: Arc::default() }
    }

    /// Forward pass `pass` of step `step` begins.
    pub fn begin(&self, step: usize, pass: usize) {
        self.pass.store(step as u64 * PASSES + pass as u64, Ordering::Relaxed);
    }

    /// `x` with a share of its elements zero and the others scaled up, so that sums keep their mean.
    pub fn drop<B: Backend>(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let pass = mix(self.seed ^ self.pass.fetch_add(1, Ordering::Relaxed));
        let shape = x.dims();
        let mut mask = vec![0.0f32; shape[0] * shape[1]];
        let kept = (1.0 / (1.0 - self.share)) as f32;
        let bound = (self.share * 2f64.powi(32)) as u64;
        mask.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
            for (j, value) in chunk.iter_mut().enumerate() {
                let drawn = mix(pass.wrapping_add((i * CHUNK + j) as u64)) >> 32;
                *value = if drawn < bound { 0.0 } else { kept };
            }
        });
        let mask = TensorData::new(mask, shape);
        x.clone() * Tensor::<B, 2>::from_data(mask, &x.device()).cast(x.dtype())
    }
}

/// A step of SplitMix64 (Steele et al. 2014): every bit of the input moves every bit of the output.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
