//! Quantised blocks, byte for byte as ggml packs them.
//!
//! A row is cut into blocks of 32 or 256 weights; each block holds small integers and one or two
//! scales in f16. Sums run in the order of ggml's reference code, because the search of Q4_K
//! compares errors that differ in the last bits. Kinds that only the reader knows are there for
//! foreign files.

use half::f16;

/// How the weights of a tensor are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 4.5 bits: 16 levels around 0 in blocks of 32.
    Q4_0,
    /// 5 bits: 16 levels above a minimum in blocks of 32. Read only.
    Q4_1,
    /// 8.5 bits: 255 levels around 0 in blocks of 32.
    Q8_0,
    /// 4.5 bits: 16 levels above a minimum in blocks of 32, eight of which share two f16 scales.
    Q4K,
    /// 6.5625 bits: 64 levels around 0 in blocks of 16, sixteen of which share an f16 scale. Read
    /// only.
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
            Q6K => 14,
            Bf16 => 30,
        }
    }
    /// The kind of a number, where it is known here.
    pub fn of_code(code: u32) -> Option<Packing> {
        [F32, F16, Q4_0, Q4_1, Q8_0, Q4K, Q6K, Bf16].into_iter().find(|kind| kind.code() == code)
    }
    /// Weights of a block; a row is a multiple of it.
    pub fn block(self) -> usize {
        match self {
            F32 | F16 | Bf16 => 1,
            Q4_0 | Q4_1 | Q8_0 => 32,
            Q4K | Q6K => 256,
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
            Q6K => 210,
        }
    }

    /// Packs weights, a multiple of the block. Kinds that are only read pack as `None`.
    pub fn pack(self, weights: &[f32]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(weights.len() / self.block() * self.bytes());
        for block in weights.chunks_exact(self.block()) {
            match self {
                F32 => out.extend(block[0].to_le_bytes()),
                F16 => half_bytes(&mut out, block[0]),
                Q4_0 => pack_q4_0(block, &mut out),
                Q8_0 => pack_q8_0(block, &mut out),
                Q4K => pack_q4_k(block, &mut out),
                Bf16 | Q4_1 | Q6K => return None,
            }
        }
        Some(out)
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
                Q6K => unpack_q6_k(b, &mut out),
            }
        }
        out
    }
}

fn half_bytes(out: &mut Vec<u8>, x: f32) {
    out.extend(f16::from_f32(x).to_le_bytes());
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The low nibbles of all bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4))
}

fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

fn pack_q4_0(block: &[f32], out: &mut Vec<u8>) {
    // The weight of largest magnitude, with its sign, becomes level 0, which is -8 scales.
    let far = block.iter().fold(0.0f32, |far, &x| if x.abs() > far.abs() { x } else { far });
    let scale = far / -8.0;
    let inverse = inverse(scale);
    half_bytes(out, scale);
    let level = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let (low, high) = block.split_at(16);
    out.extend(low.iter().zip(high).map(|(&a, &b)| level(a) | level(b) << 4));
}

fn pack_q8_0(block: &[f32], out: &mut Vec<u8>) {
    let far = block.iter().fold(0.0f32, |far, x| far.max(x.abs()));
    let scale = far / 127.0;
    let inverse = inverse(scale);
    half_bytes(out, scale);
    out.extend(block.iter().map(|&x| (x * inverse).round() as i8 as u8));
}

/// A scale and a minimum (as a positive number to subtract) for levels 0..=15, and the levels.
struct Fit {
    scale: f32,
    min: f32,
    levels: [u8; 32],
}

/// Searches the affine map of 16 levels that has the least weighted squared error: rounds with 21
/// trial scales, and solves the weighted least squares of each rounding.
fn fit(x: &[f32]) -> Fit {
    let norm = (x.iter().fold(0.0, |sum, x| sum + x * x) / 32.0).sqrt();
    let weights: Vec<f32> = x.iter().map(|x| norm + x.abs()).collect();
    let lowest = x.iter().fold(0.0f32, |low, &x| if x < low { x } else { low });
    let highest = x.iter().fold(x[0], |high, &x| if x > high { x } else { high });
    let (mut total, mut moment) = (0.0f32, 0.0f32);
    for (w, x) in weights.iter().zip(x) {
        total += w;
        moment += w * x;
    }
    if highest == lowest {
        return Fit { scale: 0.0, min: -lowest, levels: [0; 32] };
    }
    let round = |inverse: f32, min: f32| {
        let mut levels = [0u8; 32];
        for (level, x) in levels.iter_mut().zip(x) {
            *level = (inverse * (x - min)).round_ties_even().clamp(0.0, 15.0) as u8;
        }
        levels
    };
    let error = |levels: &[u8; 32], scale: f32, min: f32| {
        levels.iter().zip(x).zip(&weights).fold(0.0f32, |sum, ((&level, x), w)| {
            let off = scale * f32::from(level) + min - x;
            sum + w * (off * off)
        })
    };
    let first = 15.0 / (highest - lowest);
    let (mut scale, mut min, mut levels) = (1.0 / first, lowest, round(first, lowest));
    let mut least = error(&levels, scale, min);
    for trial in 0..=20 {
        // From the best minimum so far, as ggml does.
        let rounded = round((-1.0 + 0.1 * trial as f32 + 15.0) / (highest - min), min);
        let (mut l, mut ll, mut xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((&level, x), w) in rounded.iter().zip(x).zip(&weights) {
            let level = f32::from(level);
            l += w * level;
            ll += w * level * level;
            xl += w * level * x;
        }
        let determinant = total * ll - l * l;
        if determinant <= 0.0 {
            continue;
        }
        let mut trial_scale = (total * xl - moment * l) / determinant;
        let mut trial_min = (ll * moment - l * xl) / determinant;
        if trial_min > 0.0 {
            (trial_scale, trial_min) = (xl / ll, 0.0);
        }
        let off = error(&rounded, trial_scale, trial_min);
        if off < least {
            (least, levels, scale, min) = (off, rounded, trial_scale, trial_min);
        }
    }
    Fit { scale, min: -min, levels }
}

fn pack_q4_k(block: &[f32], out: &mut Vec<u8>) {
    let mut fits: Vec<Fit> = block.chunks_exact(32).map(fit).collect();
    let top =
        |f: fn(&Fit) -> f32| fits.iter().map(f).fold(0.0f32, |a, b| if b > a { b } else { a });
    let (scale, min) = (top(|fit| fit.scale), top(|fit| fit.min));
    let part = |x: f32, top: f32| {
        let inverse = if top > 0.0 { 63.0 / top } else { 0.0 };
        (inverse * x).round_ties_even().clamp(0.0, 63.0) as u8
    };
    let parts: Vec<(u8, u8)> =
        fits.iter().map(|fit| (part(fit.scale, scale), part(fit.min, min))).collect();
    let (d, dmin) = (f16::from_f32(scale / 63.0), f16::from_f32(min / 63.0));
    for ((fit, x), &(s, m)) in fits.iter_mut().zip(block.chunks_exact(32)).zip(&parts) {
        let (d, m) = (d.to_f32() * f32::from(s), dmin.to_f32() * f32::from(m));
        if d != 0.0 {
            for (level, x) in fit.levels.iter_mut().zip(x) {
                *level = ((x + m) / d).round_ties_even().clamp(0.0, 15.0) as u8;
            }
        }
    }
    out.extend(d.to_le_bytes());
    out.extend(dmin.to_le_bytes());
    // Twelve bytes for eight pairs of six bits: four scales, four minima, four pairs of low halves;
    // the high bits of the last four pairs go on top of the first eight bytes.
    let mut packed = [0u8; 12];
    for (j, &(s, m)) in parts.iter().enumerate() {
        if j < 4 {
            (packed[j], packed[j + 4]) = (s, m);
        } else {
            packed[j + 4] = (s & 15) | (m & 15) << 4;
            packed[j - 4] |= (s >> 4) << 6;
            packed[j] |= (m >> 4) << 6;
        }
    }
    out.extend(packed);
    for pair in fits.chunks_exact(2) {
        let levels = pair[0].levels.iter().zip(&pair[1].levels);
        out.extend(levels.map(|(low, high)| low | high << 4));
    }
}

fn unpack_q4_k(b: &[u8], out: &mut Vec<f32>) {
    let (d, dmin, s) = (half_at(b, 0), half_at(b, 2), &b[4..16]);
    for (pair, bytes) in b[16..].chunks_exact(32).enumerate() {
        for (half, j) in [2 * pair, 2 * pair + 1].into_iter().enumerate() {
            let (scale, min) = match j {
                0..4 => (s[j] & 63, s[j + 4] & 63),
                _ => ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4),
            };
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            let levels = bytes.iter().map(|b| if half == 0 { b & 15 } else { b >> 4 });
            out.extend(levels.map(|q| scale * f32::from(q) - min));
        }
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
