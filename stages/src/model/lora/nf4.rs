//! Frozen weights in 4 bits, for QLoRA (Dettmers et al., arXiv 2305.14314): NF4 in blocks of 64.
//!
//! A weight is a place in a codebook of 16 quantiles of a normal distribution times the largest
//! absolute value of its block: 4.5 bits. It becomes a tensor again for each product, forward and
//! backward, and never has a gradient. Blocks run along HF's layout `[out, in]`, as those of
//! bitsandbytes do, with the first of two weights in the high half of a byte.

use std::sync::{Arc, OnceLock};

use burn::Dispatch;
use burn::prelude::*;
use burn::tensor::TensorData;
use rayon::prelude::*;

use crate::device::{Place, is_cpu};

/// Weights of a block.
const BLOCK: usize = 64;

/// The quantiles.
const CODES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A packed `[out, in]` matrix. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Nf4(Arc<Held>);

#[derive(Debug)]
struct Held {
    shape: [usize; 2],
    codes: Vec<u8>,
    scales: Vec<f32>,
    /// The same on a device that is not this process's memory, once it is asked for.
    away: OnceLock<(Tensor<Dispatch, 1, Int>, Tensor<Dispatch, 1>)>,
}

impl Nf4 {
    /// Packs an `[out, in]` matrix. None where it is not a whole number of blocks.
    pub fn of(values: &[f32], shape: [usize; 2]) -> Option<Nf4> {
        if values.is_empty() || !values.len().is_multiple_of(BLOCK) {
            return None;
        }
        let blocks = values.par_chunks_exact(BLOCK).map(|block| {
            let scale = block.iter().fold(0.0f32, |top, x| top.max(x.abs()));
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let pair = |pair: &[f32]| code(pair[0] * inverse) << 4 | code(pair[1] * inverse);
            (block.chunks_exact(2).map(pair).collect::<Vec<u8>>(), scale)
        });
        let (codes, scales): (Vec<Vec<u8>>, Vec<f32>) = blocks.unzip();
        let held = Held { shape, codes: codes.concat(), scales, away: OnceLock::new() };
        Some(Nf4(Arc::new(held)))
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.0.shape
    }

    /// The values, row by row.
    pub fn values(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.0.scales.len() * BLOCK];
        let given = self.0.codes.par_chunks_exact(BLOCK / 2).zip(&self.0.scales);
        out.par_chunks_exact_mut(BLOCK).zip(given).for_each(|(out, (codes, scale))| {
            for (pair, byte) in out.chunks_exact_mut(2).zip(codes) {
                pair[0] = CODES[usize::from(byte >> 4)] * scale;
                pair[1] = CODES[usize::from(byte & 15)] * scale;
            }
        });
        out
    }

    /// The matrix on a device.
    pub fn tensor(&self, place: &Place) -> Tensor<Dispatch, 2> {
        match is_cpu(place) {
            true => Tensor::from_data(TensorData::new(self.values(), self.0.shape), place),
            false => self.unpack(place),
        }
    }

    /// [`Nf4::tensor`] by operations of tensors, from codes that stay on the device.
    fn unpack(&self, place: &Place) -> Tensor<Dispatch, 2> {
        let held = &*self.0;
        let (words, scales) = held.away.get_or_init(|| {
            let word = |b: &[u8]| i32::from_be_bytes([b[0], b[1], b[2], b[3]]);
            let words: Vec<i32> = held.codes.chunks_exact(4).map(word).collect();
            let words = Tensor::from_data(words.as_slice(), place);
            (words, Tensor::from_data(held.scales.as_slice(), place))
        });
        let count = held.codes.len() / 4;
        let shifts: [i32; 8] = [28, 24, 20, 16, 12, 8, 4, 0];
        let shifts = Tensor::<Dispatch, 1, Int>::from_data(shifts, place);
        let wide = |t: Tensor<Dispatch, 2, Int>| t.expand([count, 8]);
        let words = wide(words.clone().reshape([count, 1]));
        let codes = words.bitwise_right_shift(wide(shifts.reshape([1, 8])));
        let codes = codes.bitwise_and_scalar(15).reshape([count * 8]);
        let book = Tensor::<Dispatch, 1>::from_data(CODES, place);
        let blocks = held.scales.len();
        let values = book.select(0, codes).reshape([blocks, BLOCK]);
        (values * scales.clone().reshape([blocks, 1])).reshape(held.shape)
    }
}

/// The nearest quantile, of two that are as near the lower.
fn code(x: f32) -> u8 {
    let above = |pair: &[f32]| x > (pair[0] + pair[1]) / 2.0;
    CODES.windows(2).filter(|pair| above(pair)).count() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu;

    #[test]
    fn codes_and_values_are_those_of_the_reference() {
        let text = include_str!("../../train/testdata/nf4.json");
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f32> {
            let flat = |v: &serde_json::Value| serde_json::from_value::<Vec<f32>>(v.clone());
            flat(value).unwrap_or_else(|_| {
                value.as_array().unwrap().iter().flat_map(|row| flat(row).unwrap()).collect()
            })
        };
        let (input, nf4) = (numbers(&all["input"]), &all["nf4"]);
        assert_eq!(CODES.to_vec(), numbers(&nf4["codebook"]));
        let packed = Nf4::of(&input, [2, input.len() / 2]).unwrap();
        let hex: String = packed.0.codes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, nf4["packed_hex"].as_str().unwrap());
        assert_eq!(packed.values(), numbers(&nf4["dequant"]));
        let tensor = packed.unpack(&cpu()).into_data().into_vec::<f32>().unwrap();
        assert_eq!(tensor, packed.values());
        assert!(Nf4::of(&input[..65], [5, 13]).is_none());
    }
}
