//! Packing weights into blocks, byte for byte as ggml does it.
//!
//! Each search tries a few scales around the obvious one and keeps that with the least weighted
//! squared error, where the best scale for given levels is a weighted least squares. Sums run in the
//! order of ggml's reference code, because the searches compare errors that differ in the last bits.
//! With an importance (see [`Packing::pack`]) the same searches run with other weights; those bytes
//! are not ggml's.

use half::f16;
use rayon::prelude::*;

use super::blocks::Packing;

/// Below this a block is all zeros to ggml.
const NOTHING: f32 = 1e-15;

/// Packs weights, a multiple of the block; blocks are shared out over the threads.
pub fn pack(kind: Packing, weights: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let (block, bytes) = (kind.block(), kind.bytes());
    let count = weights.len() / block;
    let mut out = vec![0; count * bytes];
    let many = 1.max(4096 / block);
    out.par_chunks_mut(bytes * many).enumerate().for_each(|(at, out)| {
        for (i, out) in out.chunks_exact_mut(bytes).enumerate() {
            let from = (at * many + i) * block;
            // Every row of a matrix has the importance of its columns.
            let counts = importance.map(|row| &row[from % row.len()..][..block]);
            one(kind, &weights[from..from + block], counts, out);
        }
    });
    out
}

fn one(kind: Packing, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    match kind {
        Packing::F32 => out.copy_from_slice(&x[0].to_le_bytes()),
        Packing::F16 => put(out, x[0]),
        Packing::Bf16 => out.copy_from_slice(&half::bf16::from_f32(x[0]).to_le_bytes()),
        Packing::Q4_0 => q4_0(x, importance, out),
        Packing::Q4_1 => q4_1(x, importance, out),
        Packing::Q8_0 => q8_0(x, out),
        Packing::Q4K => {
            let fits = affine_blocks(x, 15, &counts(x, importance), out);
            for (pair, out) in fits.chunks_exact(2).zip(out[16..].chunks_exact_mut(32)) {
                nibbles(&pair[0].levels, &pair[1].levels, out);
            }
        }
        Packing::Q5K => {
            let fits = affine_blocks(x, 31, &counts(x, importance), out);
            let (high, low) = out[16..].split_at_mut(32);
            for (j, fit) in fits.iter().enumerate() {
                for (byte, level) in high.iter_mut().zip(&fit.levels) {
                    *byte |= (level >> 4) << j;
                }
            }
            for (pair, out) in fits.chunks_exact(2).zip(low.chunks_exact_mut(32)) {
                nibbles(&pair[0].levels, &pair[1].levels, out);
            }
        }
        Packing::Q6K => q6_k(x, importance, out),
    }
}

/// Low halves of bytes from `low`, high ones from `high`.
fn nibbles(low: &[u8], high: &[u8], out: &mut [u8]) {
    for (byte, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *byte = (low & 15) | high << 4;
    }
}

fn put(out: &mut [u8], x: f32) {
    out[..2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
}

fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The weight of largest magnitude, with its sign.
fn far(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |far, &x| if x.abs() > far.abs() { x } else { far })
}

/// How much the error of each weight of a block counts where `importance` is given: it, times the
/// root of twice the block's mean square and the weight's own (ggml's choice).
fn weighed(x: &[f32], importance: &[f32]) -> Vec<f32> {
    let twice = 2.0 * x.iter().fold(0.0, |sum, x| sum + x * x) / x.len() as f32;
    x.iter().zip(importance).map(|(x, i)| i * (twice + x * x).sqrt()).collect()
}

/// The same in blocks of 32; without an importance, a weight's size and that of its neighbours.
fn counts(x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    let plain = |x: &[f32]| {
        let norm = (x.iter().fold(0.0, |sum, x| sum + x * x) / 32.0).sqrt();
        x.iter().map(|x| norm + x.abs()).collect::<Vec<_>>()
    };
    match importance {
        Some(importance) => weighed(x, importance),
        None => x.chunks(32).flat_map(plain).collect(),
    }
}

fn q4_0(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let mut levels = [0u8; 32];
    let scale = match importance {
        Some(importance) => symmetric(x, 8, &weighed(x, importance), &mut levels),
        None => {
            // The weight farthest from 0 becomes level 0, which is -8 scales.
            let scale = far(x) / -8.0;
            let inverse = inverse(scale);
            for (level, x) in levels.iter_mut().zip(x) {
                *level = ((x * inverse + 8.5) as u8).min(15);
            }
            scale
        }
    };
    put(out, scale);
    nibbles(&levels[..16], &levels[16..], &mut out[2..]);
}

fn q4_1(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let (scale, min, levels) = match importance {
        Some(importance) => {
            let fit = affine(x, 15, &weighed(x, importance));
            (fit.scale, -fit.min, fit.levels)
        }
        None => {
            let lowest = x.iter().fold(f32::MAX, |low, &x| if x < low { x } else { low });
            let highest = x.iter().fold(f32::MIN, |high, &x| if x > high { x } else { high });
            let scale = (highest - lowest) / 15.0;
            let inverse = inverse(scale);
            let mut levels = [0u8; 32];
            for (level, x) in levels.iter_mut().zip(x) {
                *level = (((x - lowest) * inverse + 0.5) as u8).min(15);
            }
            (scale, lowest, levels)
        }
    };
    put(out, scale);
    put(&mut out[2..], min);
    nibbles(&levels[..16], &levels[16..], &mut out[4..]);
}

fn q8_0(x: &[f32], out: &mut [u8]) {
    let scale = x.iter().fold(0.0f32, |far, x| far.max(x.abs())) / 127.0;
    let inverse = inverse(scale);
    put(out, scale);
    for (byte, x) in out[2..].iter_mut().zip(x) {
        *byte = (x * inverse).round() as i8 as u8;
    }
}

/// A scale and a minimum (as a positive number to subtract), and the levels.
struct Fit {
    scale: f32,
    min: f32,
    levels: [u8; 32],
}

/// Searches the affine map of levels 0..=`most` for 32 weights: rounds with trial scales, and
/// solves the weighted least squares of each rounding.
fn affine(x: &[f32], most: u8, weights: &[f32]) -> Fit {
    let top = f32::from(most);
    // Where the trials begin, and how many follow, each a tenth of a level further.
    let (start, trials) = if most > 15 { (-0.5, 15) } else { (-1.0, 20) };
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
            *level = (inverse * (x - min)).round_ties_even().clamp(0.0, top) as u8;
        }
        levels
    };
    let error = |levels: &[u8; 32], scale: f32, min: f32| {
        levels.iter().zip(x).zip(weights).fold(0.0f32, |sum, ((&level, x), w)| {
            let off = scale * f32::from(level) + min - x;
            sum + w * (off * off)
        })
    };
    let first = top / (highest - lowest);
    let (mut scale, mut min, mut levels) = (1.0 / first, lowest, round(first, lowest));
    let mut least = error(&levels, scale, min);
    for trial in 0..=trials {
        // From the best minimum so far, as ggml does.
        let rounded = round((start + 0.1 * trial as f32 + top) / (highest - min), min);
        let (mut l, mut ll, mut xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((&level, x), w) in rounded.iter().zip(x).zip(weights) {
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

/// Eight affine blocks of 32 whose scales and minima share two f16 numbers: writes the first
/// sixteen bytes of Q4_K and Q5_K, and gives the levels.
fn affine_blocks(x: &[f32], most: u8, weights: &[f32], out: &mut [u8]) -> Vec<Fit> {
    let blocks = x.chunks_exact(32).zip(weights.chunks_exact(32));
    let mut fits: Vec<Fit> = blocks.map(|(x, weights)| affine(x, most, weights)).collect();
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
    for ((fit, x), &(s, m)) in fits.iter_mut().zip(x.chunks_exact(32)).zip(&parts) {
        let (d, m) = (d.to_f32() * f32::from(s), dmin.to_f32() * f32::from(m));
        if d != 0.0 {
            for (level, x) in fit.levels.iter_mut().zip(x) {
                *level = ((x + m) / d).round_ties_even().clamp(0.0, f32::from(most)) as u8;
            }
        }
    }
    put(out, scale / 63.0);
    put(&mut out[2..], min / 63.0);
    // As `scale_and_min` reads them.
    let packed = &mut out[4..16];
    for (j, &(s, m)) in parts.iter().enumerate() {
        if j < 4 {
            (packed[j], packed[j + 4]) = (s, m);
        } else {
            packed[j + 4] = (s & 15) | (m & 15) << 4;
            packed[j - 4] |= (s >> 4) << 6;
            packed[j] |= (m >> 4) << 6;
        }
    }
    fits
}

/// Searches the scale of levels -`most`..`most`, which are written from 0 on: rounds with trial
/// scales around that which puts the weight farthest from 0 on the lowest level.
fn symmetric(x: &[f32], most: i32, weights: &[f32], levels: &mut [u8]) -> f32 {
    let far = far(x);
    if far.abs() < NOTHING {
        levels.fill(0);
        return 0.0;
    }
    let level = |inverse: f32, x: f32| {
        (inverse * x).round_ties_even().clamp(-most as f32, (most - 1) as f32)
    };
    let sums = |inverse: f32| {
        let (mut xl, mut ll) = (0.0f32, 0.0f32);
        for (&x, w) in x.iter().zip(weights) {
            let level = level(inverse, x);
            xl += w * x * level;
            ll += w * level * level;
        }
        (xl, ll)
    };
    let mut chosen = -most as f32 / far;
    let (xl, ll) = sums(chosen);
    let mut scale = if ll > 0.0 { xl / ll } else { 0.0 };
    let mut best = scale * xl;
    for trial in (-9..=9).filter(|trial| *trial != 0) {
        let inverse = -(most as f32 + 0.1 * trial as f32) / far;
        let (xl, ll) = sums(inverse);
        if ll > 0.0 && xl * xl > best * ll {
            scale = xl / ll;
            best = scale * xl;
            chosen = inverse;
        }
    }
    for (out, &x) in levels.iter_mut().zip(x) {
        *out = (level(chosen, x) as i32 + most) as u8;
    }
    scale
}

fn q6_k(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let weights: Vec<f32> = match importance {
        Some(importance) => importance.to_vec(),
        None => x.iter().map(|x| x * x).collect(),
    };
    let mut levels = [0u8; 256];
    let blocks = x.chunks_exact(16).zip(weights.chunks_exact(16)).zip(levels.chunks_exact_mut(16));
    let scales: Vec<f32> =
        blocks.map(|((x, weights), levels)| symmetric(x, 32, weights, levels)).collect();
    let top = far(&scales);
    if top.abs() < NOTHING {
        return;
    }
    let inverse = -128.0 / top;
    let d = f16::from_f32(1.0 / inverse);
    out[208..].copy_from_slice(&d.to_le_bytes());
    for (j, (x, levels)) in x.chunks_exact(16).zip(levels.chunks_exact_mut(16)).enumerate() {
        let scale = (inverse * scales[j]).round_ties_even().min(127.0);
        out[192 + j] = scale as i8 as u8;
        let d = d.to_f32() * scale;
        if d != 0.0 {
            for (level, x) in levels.iter_mut().zip(x) {
                *level = ((x / d).round_ties_even().clamp(-32.0, 31.0) as i32 + 32) as u8;
            }
        }
    }
    let (low, high) = out[..192].split_at_mut(128);
    for (part, l) in levels.chunks_exact(128).enumerate() {
        for i in 0..32 {
            low[64 * part + i] = (l[i] & 15) | (l[i + 64] & 15) << 4;
            low[64 * part + i + 32] = (l[i + 32] & 15) | (l[i + 96] & 15) << 4;
            high[32 * part + i] =
                l[i] >> 4 | l[i + 32] >> 4 << 2 | l[i + 64] >> 4 << 4 | l[i + 96] >> 4 << 6;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value as Json;

    use super::*;

    const KINDS: [(&str, Packing); 6] = [
        ("q4_0", Packing::Q4_0),
        ("q4_1", Packing::Q4_1),
        ("q8_0", Packing::Q8_0),
        ("q4_K", Packing::Q4K),
        ("q5_K", Packing::Q5K),
        ("q6_K", Packing::Q6K),
    ];

    fn vectors() -> Json {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quant_vectors.json");
        serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
    }

    fn floats(row: &Json) -> Vec<f32> {
        row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    }

    fn bytes(hex: &Json) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn packed_bytes_are_those_of_ggml() {
        let vectors = vectors();
        for (name, kind) in KINDS {
            for row in 0..2 {
                let packed = kind.pack(&floats(&vectors["input"][row]), None);
                assert_eq!(packed, bytes(&vectors[name]["hex"][row]), "{name}, row {row}");
            }
        }
    }

    #[test]
    fn unpacked_values_are_those_of_ggml() {
        let vectors = vectors();
        for (name, kind) in KINDS {
            for row in 0..2 {
                let values = kind.unpack(&bytes(&vectors[name]["hex"][row]));
                let expected = floats(&vectors[name]["unpacked"][row]);
                assert_eq!(values.len(), expected.len());
                for (i, (a, b)) in values.iter().zip(expected).enumerate() {
                    assert!((a - b).abs() <= 1e-6 * b.abs(), "{name}, row {row}, {i}: {a} for {b}");
                }
            }
        }
    }

    /// What matters more is packed better, for every kind that has a choice.
    #[test]
    fn importance_moves_the_error_to_what_does_not_count() {
        let x = floats(&vectors()["input"][0]);
        // Every eighth weight counts a thousand times as much.
        let importance: Vec<f32> =
            (0..256).map(|i| if i % 8 == 3 { 1000.0 } else { 1.0 }).collect();
        for (name, kind) in KINDS.into_iter().filter(|(_, kind)| *kind != Packing::Q8_0) {
            let error = |importance: Option<&[f32]>| -> f32 {
                let back = kind.unpack(&kind.pack(&x, importance));
                (0..256).filter(|i| i % 8 == 3).map(|i| (x[i] - back[i]).powi(2)).sum()
            };
            assert!(error(Some(&importance)) < error(None), "{name}");
        }
    }

    #[test]
    fn zeros_pack_as_zeros() {
        for (name, kind) in KINDS {
            let back = kind.unpack(&kind.pack(&[0.0; 256], None));
            assert!(back.iter().all(|x| *x == 0.0), "{name}");
            let back = kind.unpack(&kind.pack(&[0.0; 256], Some(&[1.0; 256])));
            assert!(back.iter().all(|x| *x == 0.0), "{name}, with importance");
        }
    }
}
