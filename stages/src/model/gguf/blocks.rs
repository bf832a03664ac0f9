//! Quantised blocks: the kinds, and what packed bytes stand for.
//!
//! A row is cut into blocks of 32 or 256 weights; each block holds small integers and one or two
//! scales in f16. Packing is `pack.rs`.

use half::f16;

/// How the weights of a tensor are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 4.5 bits: 16 levels around 0 in blocks of 32.
    Q4_0,
    /// 5 bits: 16 levels above a minimum in blocks of 32.
    Q4_1,
    /// 8.5 bits: 255 levels around 0 in blocks of 32.
    Q8_0,
    /// 4.5 bits: 16 levels above a minimum in blocks of 32, eight of which share two f16 scales.
    Q4K,
    /// 5.5 bits: as Q4_K with 32 levels.
    Q5K,
    /// 6.5625 bits: 64 levels around 0 in blocks of 16, sixteen of which share an f16 scale.
    Q6K,
}

use Packing::*;

impl Packing {
    /// The number of this kind in a GGUF file.
    pub fn code(self) -> u32 {
        match self {
            F32 => 0,
            F16 => 1,
            Q4_0 => 2,
            Q4_1 => 3,
            Q8_0 => 8,
            Q4K => 12,
            Q5K => 13,
            Q6K => 14,
            Bf16 => 30,
        }
    }
    /// The kind of a number, where it is known here.
    pub fn of_code(code: u32) -> Option<Packing> {
        [F32, F16, Q4_0, Q4_1, Q8_0, Q4K, Q5K, Q6K, Bf16]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
    /// Weights of a block; a row is a multiple of it.
    pub fn block(self) -> usize {
        match self {
            F32 | F16 | Bf16 => 1,
            Q4_0 | Q4_1 | Q8_0 => 32,
            Q4K | Q5K | Q6K => 256,
        }
    }
    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            F32 => 4,
            F16 | Bf16 => 2,
            Q4_0 => 18,
            Q4_1 => 20,
            Q8_0 => 34,
            Q4K => 144,
            Q5K => 176,
            Q6K => 210,
        }
    }

    /// Packs weights, a multiple of the block. `importance`, one number a column of the matrix (a
    /// multiple of the block), says how much an error of each counts (llama.cpp's imatrix: the mean square of what the weight is multiplied
    /// by); none packs byte for byte as ggml does. Floats and Q8_0 have nothing to choose.
    pub fn pack(self, weights: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
        super::pack::pack(self, weights, importance)
    }

    /// The weights of packed blocks.
    pub fn unpack(self, bytes: &[u8]) -> Vec<f32> {
        let mut out = Vec::with_capacity(bytes.len() / self.bytes() * self.block());
        for b in bytes.chunks_exact(self.bytes()) {
            match self {
                F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                F16 => out.push(half_at(b, 0)),
                Bf16 => out.push(half::bf16::from_le_bytes([b[0], b[1]]).to_f32()),
                Q4_0 => {
                    let d = half_at(b, 0);
                    out.extend(nibbles(&b[2..]).map(|q| d * (f32::from(q) - 8.0)));
                }
                Q4_1 => {
                    let (d, m) = (half_at(b, 0), half_at(b, 2));
                    out.extend(nibbles(&b[4..]).map(|q| d * f32::from(q) + m));
                }
                Q8_0 => {
                    let d = half_at(b, 0);
                    out.extend(b[2..].iter().map(|&q| d * f32::from(q as i8)));
                }
                Q4K => unpack_q4_k(b, &mut out),
                Q5K => unpack_q5_k(b, &mut out),
                Q6K => unpack_q6_k(b, &mut out),
            }
        }
        out
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The low nibbles of all bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4))
}

/// Scale and minimum number `j` of eight, of six bits each: four scales, four minima, and four pairs
/// of low halves whose high bits lie on top of the first eight bytes.
pub fn scale_and_min(s: &[u8], j: usize) -> (u8, u8) {
    match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4),
    }
}

fn unpack_q4_k(b: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    for j in 0..8 {
        let (scale, min) = scale_and_min(&b[4..16], j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let levels = b[16 + 32 * (j / 2)..][..32].iter().map(|b| b >> (4 * (j % 2)) & 15);
        out.extend(levels.map(|q| scale * f32::from(q) - min));
    }
}

fn unpack_q5_k(b: &[u8], out: &mut Vec<f32>) {
    let (d, dmin, high) = (half_at(b, 0), half_at(b, 2), &b[16..48]);
    for j in 0..8 {
        let (scale, min) = scale_and_min(&b[4..16], j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let low = b[48 + 32 * (j / 2)..][..32].iter().map(|b| b >> (4 * (j % 2)) & 15);
        let levels = low.zip(high).map(|(low, high)| low | (high >> j & 1) << 4);
        out.extend(levels.map(|q| scale * f32::from(q) - min));
    }
}

fn unpack_q6_k(b: &[u8], out: &mut Vec<f32>) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], half_at(b, 208));
    for i in 0..256 {
        let (part, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[64 * part + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
        let top = high[32 * part + l] >> (2 * quarter) & 3;
        let level = f32::from(nibble | top << 4) - 32.0;
        out.push(d * f32::from(scales[i / 16] as i8) * level);
    }
}
