//! Products of packed weights with rows of floats.
//!
//! A cube is a tile of 32 outputs, a unit one output and every eighth group of 32 inputs. The words
//! of 32 outputs lie side by side ([`super::super::weights`]), so that a plane reads whole lines and
//! the inputs, which all of them share, come from the cache. A unit unpacks a weight once for up to
//! eight rows of inputs; only the sums of the eight parts meet in shared memory, once an output.
//! No matrix units are used: what reads a long prompt is bound by arithmetic.

use cubecl::prelude::*;

use crate::model::gguf::Packing;

/// Outputs of a tile.
pub const ROWS: u32 = 32;
/// Units that share the inputs of an output.
pub const PARTS: u32 = 8;
/// Most rows of inputs that a cube takes.
pub const WIDE: usize = 8;

/// What a group needs beside its words: `a q + b` is a weight, by halves of the group; bits above
/// the low four.
#[derive(CubeType, Clone, Copy)]
struct Scale {
    a: f32,
    b: f32,
    a_high: f32,
    b_high: f32,
    bits: u32,
    bits_high: u32,
}

/// Vectors of four words that hold the levels of a group of one output.
pub const fn vectors(packing: Packing) -> usize {
    match packing {
        Packing::F32 => 8,
        Packing::F16 | Packing::Bf16 => 4,
        Packing::Q8_0 => 2,
        _ => 1,
    }
}

/// Groups whose scales make a record, and words of it, of one output.
pub const fn record(packing: Packing) -> (usize, usize) {
    match packing {
        Packing::F32 | Packing::F16 | Packing::Bf16 => (1, 0),
        Packing::Q4_0 | Packing::Q8_0 => (2, 1),
        Packing::Q4_1 => (1, 1),
        Packing::Q4K => (8, 5),
        Packing::Q5K => (8, 13),
        Packing::Q6K => (8, 21),
    }
}

/// A float of 16 bits, subnormal ones too, without a type that not every device has. The formats
/// hold no infinities.
#[cube]
fn half(bits: u32) -> f32 {
    let exponent = (bits >> 10) & 31;
    let fraction = bits & 1023;
    let normal = f32::reinterpret(((exponent + 112) << 23) | (fraction << 13));
    let small = f32::cast_from(fraction) * 5.960_464_5e-8;
    let size = select(exponent == 0, small, normal);
    select((bits & 0x8000) == 0, size, -size)
}

#[cube]
fn byte(word: u32, at: u32) -> f32 {
    f32::cast_from((word >> (at * 8)) & 255)
}

/// The scale of group `g`, whose record of this output begins at `base`.
#[cube]
fn scale(scales: &Array<u32>, base: usize, g: u32, #[comptime] packing: Packing) -> Scale {
    let step = 32usize;
    let mut s =
        Scale { a: 1.0f32, b: 0.0f32, a_high: 1.0f32, b_high: 0.0f32, bits: 0u32, bits_high: 0u32 };
    if comptime!(matches!(packing, Packing::Q4_0 | Packing::Q8_0)) {
        let d = half((scales[base] >> ((g & 1) * 16)) & 0xffff);
        s.a = d;
        s.b = d * comptime!(if packing == Packing::Q8_0 { -128.0f32 } else { -8.0f32 });
    }
    if comptime!(packing == Packing::Q4_1) {
        let word = scales[base];
        s.a = half(word & 0xffff);
        s.b = half(word >> 16);
    }
    if comptime!(matches!(packing, Packing::Q4K | Packing::Q5K)) {
        let word = scales[base];
        let j = g & 7;
        let (word_of, at) = ((j / 4) as usize, j & 3);
        s.a = half(word & 0xffff) * byte(scales[base + (1 + word_of) * step], at);
        s.b = -(half(word >> 16) * byte(scales[base + (3 + word_of) * step], at));
        if comptime!(packing == Packing::Q5K) {
            s.bits = scales[base + (5 + j as usize) * step];
        }
    }
    if comptime!(packing == Packing::Q6K) {
        let d = half(scales[base] & 0xffff);
        let j = g & 7;
        let word = scales[base + (1 + (j / 2) as usize) * step];
        let at = (j & 1) * 2;
        s.a = d * (byte(word, at) - 128.0);
        s.b = s.a * -32.0;
        s.a_high = d * (byte(word, at + 1) - 128.0);
        s.b_high = s.a_high * -32.0;
        s.bits = scales[base + (5 + 2 * j as usize) * step];
        s.bits_high = scales[base + (6 + 2 * j as usize) * step];
    }
    s
}

/// Weight `i` of quad `j` of vector `v` of a group.
#[cube]
fn weight(
    words: Vector<u32, Const<4>>,
    s: Scale,
    #[comptime] v: usize,
    #[comptime] j: usize,
    #[comptime] i: usize,
    #[comptime] packing: Packing,
) -> f32 {
    if comptime!(packing == Packing::F32) {
        f32::reinterpret(words[i])
    } else if comptime!(packing == Packing::Bf16) {
        let word = words[comptime!(2 * j + i / 2)];
        f32::reinterpret((word >> comptime!(16 * (i as u32 % 2))) << 16)
    } else if comptime!(packing == Packing::F16) {
        let word = words[comptime!(2 * j + i / 2)];
        half((word >> comptime!(16 * (i as u32 % 2))) & 0xffff)
    } else if comptime!(packing == Packing::Q8_0) {
        let _ = v;
        let level = (words[j] >> comptime!(8 * i as u32)) & 255;
        f32::cast_from(level) * s.a + s.b
    } else {
        let word = words[comptime!(j / 2)];
        let low = (word >> comptime!(4 * (4 * (j as u32 % 2) + i as u32))) & 15;
        if comptime!(packing == Packing::Q5K) {
            let level = low | (((s.bits >> comptime!(4 * j as u32 + i as u32)) & 1) << 4);
            f32::cast_from(level) * s.a + s.b
        } else if comptime!(packing == Packing::Q6K) {
            let shift = comptime!(2 * (4 * (j as u32 % 4) + i as u32));
            if comptime!(j < 4) {
                let level = low | (((s.bits >> shift) & 3) << 4);
                f32::cast_from(level) * s.a + s.b
            } else {
                let level = low | (((s.bits_high >> shift) & 3) << 4);
                f32::cast_from(level) * s.a_high + s.b_high
            }
        } else {
            f32::cast_from(low) * s.a + s.b
        }
    }
}

/// `out[t, r] = sum_c W[r, c] x[t, c]`, plus a bias, or added to what is there. `x` has `x_stride`
/// floats a row, of which the product begins at `x_from` (both multiples of 32, zeros after the
/// last input); the outputs of all tiles go to `out_from` of rows of `out_stride`.
#[cube(launch_unchecked)]
pub fn product(
    x: &Array<Vector<f32, Const<4>>>,
    words: &Array<Vector<u32, Const<4>>>,
    scales: &Array<u32>,
    bias: &Array<f32>,
    out: &mut Array<f32>,
    n: u32,
    groups: u32,
    x_stride: u32,
    x_from: u32,
    out_stride: u32,
    out_from: u32,
    #[comptime] packing: Packing,
    #[comptime] wide: usize,
    #[comptime] biased: bool,
    #[comptime] add: bool,
) {
    let vectors = comptime!(vectors(packing));
    let (per, size) = comptime!(record(packing));
    let (lane, part) = (UNIT_POS_X as usize, UNIT_POS_Y);
    let tile = CUBE_POS_X;
    let first = CUBE_POS_Y * comptime!(wide as u32);
    let records = groups.div_ceil(comptime!(per as u32));

    let mut sums = Array::<f32>::new(wide);
    #[unroll]
    for t in 0..wide {
        sums[t] = 0.0;
    }
    let mut g = part;
    while g < groups {
        let base =
            (tile * records + g / comptime!(per as u32)) as usize * comptime!(size * 32) + lane;
        let s = scale(scales, base, g, packing);
        let at = (tile * groups + g) as usize * comptime!(vectors * 32) + lane;
        let inputs = (x_from / 4 + g * 8) as usize;
        #[unroll]
        for v in 0..vectors {
            let group = words[at + v * 32];
            #[unroll]
            for j in 0..comptime!(8 / vectors) {
                let w0 = weight(group, s, v, j, 0usize, packing);
                let w1 = weight(group, s, v, j, 1usize, packing);
                let w2 = weight(group, s, v, j, 2usize, packing);
                let w3 = weight(group, s, v, j, 3usize, packing);
                #[unroll]
                for t in 0..wide {
                    let token = min(first + comptime!(t as u32), n - 1);
                    let row = (token * (x_stride / 4)) as usize + inputs;
                    let quad = x[row + comptime!(v * (8 / vectors) + j)];
                    sums[t] += w0 * quad[0] + w1 * quad[1] + w2 * quad[2] + w3 * quad[3];
                }
            }
        }
        g += PARTS;
    }

    let mut shared = SharedMemory::<f32>::new(comptime!(wide * 256));
    #[unroll]
    for t in 0..wide {
        shared[comptime!(t * 256) + part as usize * 32 + lane] = sums[t];
    }
    sync_cube();
    let row = tile * ROWS + lane as u32;
    let token = first + part;
    if part < comptime!(wide as u32) && token < n {
        let mut total = 0.0f32;
        #[unroll]
        for p in 0..8usize {
            total += shared[part as usize * 256 + p * 32 + lane];
        }
        let to = (token * out_stride + out_from + row) as usize;
        if comptime!(biased) {
            total += bias[(out_from + row) as usize];
        }
        if comptime!(add) {
            total += out[to];
        }
        out[to] = total;
    }
}
