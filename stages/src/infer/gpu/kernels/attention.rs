//! Attention of some rows over what their session remembers.
//!
//! A cube is one head of one row. It goes through the positions in steps of 256: each unit scores
//! one position (keys of neighbours lie side by side), then each mixes one dimension of the values
//! over a share of the positions. The softmax is kept as it goes, by its largest score so far and
//! its sum (Milakov and Gimelshein, 2018), so that memory does not grow with the text. The positions
//! of one row are not shared among cubes.

use cubecl::prelude::*;

use super::rows::{largest, sum};

/// Units of a cube, and positions of a step.
pub const STEP: u32 = 256;

/// `out[row, head] = softmax(q k / sqrt(size)) v`, over positions up to the row's own.
#[cube(launch_unchecked)]
pub fn attention(
    qkv: &Array<f32>,
    keys: &Array<f32>,
    values: &Array<f32>,
    out: &mut Array<f32>,
    row: u32,
    start: u32,
    positions: u32,
    stride: u32,
    out_stride: u32,
    shared: u32,
    scale: f32,
    #[comptime] size: u32,
) {
    let splits = comptime!(STEP / size);
    let head = CUBE_POS_X;
    let at = row + CUBE_POS_Y;
    let sees = start + CUBE_POS_Y + 1;
    let kv = head / shared;
    let unit = UNIT_POS;

    let mut query = SharedMemory::<f32>::new(comptime!(size as usize));
    let mut scores = SharedMemory::<f32>::new(comptime!(STEP as usize));
    if unit < size {
        query[unit as usize] = qkv[(at * stride + head * size + unit) as usize] * scale;
    }
    sync_cube();

    let (dim, split) = (unit % size, unit / size);
    let key = kv * size * positions;
    let mut mixed = 0.0f32;
    let mut top = f32::new(-3.0e38);
    let mut total = 0.0f32;
    let mut base = 0u32;
    while base < sees {
        let p = base + unit;
        let mut score = f32::new(-3.0e38);
        if p < sees {
            score = 0.0;
            for d in 0..size {
                score += query[d as usize] * keys[(key + d * positions + p) as usize];
            }
        }
        let high = max(top, largest(score, STEP));
        let mut share = 0.0f32;
        if p < sees {
            share = f32::exp(score - high);
        }
        scores[unit as usize] = share;
        let more = sum(share, STEP);
        let keep = f32::exp(top - high);
        total = total * keep + more;
        mixed *= keep;
        if split < splits {
            let count = min(STEP, sees - base);
            let mut j = split;
            while j < count {
                let value = values[((kv * positions + base + j) * size + dim) as usize];
                mixed += scores[j as usize] * value;
                j += splits;
            }
        }
        top = high;
        base += STEP;
        sync_cube();
    }
    scores[unit as usize] = mixed;
    sync_cube();
    if unit < size {
        let mut all = 0.0f32;
        #[unroll]
        for s in 0..splits {
            all += scores[(comptime!(s * size) + unit) as usize];
        }
        out[(at * out_stride + head * size + unit) as usize] = all / total;
    }
}
