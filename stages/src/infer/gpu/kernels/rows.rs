//! What happens to rows of floats between products: norms, the gate, the rotation of heads.

use cubecl::prelude::*;

/// Units of a cube that goes through a row.
pub const UNITS: u32 = 256;
/// Units of a cube that turns a head.
pub const TURN: u32 = 64;

/// The sum of what all units of a cube bring; `units` is a power of two.
#[cube]
pub fn sum(value: f32, #[comptime] units: u32) -> f32 {
    let mut shared = SharedMemory::<f32>::new(comptime!(units as usize));
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2()) {
        let half = comptime!((units >> (step + 1)) as usize);
        if unit < half {
            shared[unit] = shared[unit] + shared[unit + half];
        }
        sync_cube();
    }
    let total = shared[0];
    sync_cube();
    total
}

/// The largest of what all units of a cube bring.
#[cube]
pub fn largest(value: f32, #[comptime] units: u32) -> f32 {
    let mut shared = SharedMemory::<f32>::new(comptime!(units as usize));
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2()) {
        let half = comptime!((units >> (step + 1)) as usize);
        if unit < half {
            shared[unit] = max(shared[unit], shared[unit + half]);
        }
        sync_cube();
    }
    let top = shared[0];
    sync_cube();
    top
}

/// `out[i] = x[rows[i]] / rms * weight`, one cube a row; `x[i]` unless `gather`.
#[cube(launch_unchecked)]
pub fn norm(
    x: &Array<f32>,
    rows: &Array<u32>,
    weight: &Array<f32>,
    out: &mut Array<f32>,
    width: u32,
    stride: u32,
    eps: f32,
    #[comptime] gather: bool,
) {
    let mut row = CUBE_POS_X;
    if comptime!(gather) {
        row = rows[CUBE_POS_X as usize];
    }
    let (from, to) = ((row * stride) as usize, (CUBE_POS_X * stride) as usize);
    let mut squares = 0.0f32;
    let mut i = UNIT_POS;
    while i < width {
        let value = x[from + i as usize];
        squares += value * value;
        i += UNITS;
    }
    let scale = 1.0 / f32::sqrt(sum(squares, UNITS) / f32::cast_from(width) + eps);
    let mut i = UNIT_POS;
    while i < width {
        out[to + i as usize] = x[from + i as usize] * scale * weight[i as usize];
        i += UNITS;
    }
}

/// `out = silu(gate) up`, of rows that hold the gate at 0 and the other at `up_from`.
#[cube(launch_unchecked)]
pub fn swiglu(
    both: &Array<f32>,
    out: &mut Array<f32>,
    width: u32,
    stride: u32,
    up_from: u32,
    out_stride: u32,
) {
    let column = CUBE_POS_X * UNITS + UNIT_POS;
    if column < width {
        let from = (CUBE_POS_Y * stride + column) as usize;
        let gate = both[from];
        let up = both[from + up_from as usize];
        out[(CUBE_POS_Y * out_stride + column) as usize] = gate / (1.0 + f32::exp(-gate)) * up;
    }
}

/// Norms and turns the heads of q and k by their angles, keeps q where it is, and puts k and v into
/// the memory of a session: keys `[head, size, positions]`, values `[head, positions, size]`. One
/// cube a head and row; `row` is the first of the rows, at position `start`.
#[cube(launch_unchecked)]
pub fn turn(
    qkv: &mut Array<f32>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    q_norm: &Array<f32>,
    k_norm: &Array<f32>,
    keys: &mut Array<f32>,
    values: &mut Array<f32>,
    row: u32,
    start: u32,
    positions: u32,
    stride: u32,
    k_from: u32,
    v_from: u32,
    heads: u32,
    kv: u32,
    eps: f32,
    #[comptime] size: u32,
    #[comptime] normed: bool,
    #[comptime] interleaved: bool,
) {
    let half = comptime!(size / 2);
    let at = row + CUBE_POS_Y;
    let position = start + CUBE_POS_Y;
    let head = CUBE_POS_X;
    let line = at * stride;
    let is_q = head < heads;
    let is_v = head >= heads + kv;
    let mut from = line + head * size;
    let mut own = 0u32;
    if !is_q {
        own = head - heads;
        from = line + k_from + own * size;
    }
    if is_v {
        own = head - heads - kv;
        from = line + v_from + own * size;
    }
    let mut scale = 1.0f32;
    if comptime!(normed) {
        let mut squares = 0.0f32;
        let mut i = UNIT_POS;
        while i < size {
            let value = qkv[(from + i) as usize];
            squares += value * value;
            i += TURN;
        }
        let total = sum(squares, TURN);
        scale = 1.0 / f32::sqrt(total / f32::cast_from(size) + eps);
    }
    if is_v {
        let mut i = UNIT_POS;
        while i < size {
            values[((own * positions + position) * size + i) as usize] = qkv[(from + i) as usize];
            i += TURN;
        }
    } else {
        let mut j = UNIT_POS;
        while j < half {
            let mut i0 = j;
            let mut i1 = j + half;
            if comptime!(interleaved) {
                i0 = 2 * j;
                i1 = 2 * j + 1;
            }
            let mut a = qkv[(from + i0) as usize];
            let mut b = qkv[(from + i1) as usize];
            if comptime!(normed) {
                let mut w0 = k_norm[i0 as usize];
                let mut w1 = k_norm[i1 as usize];
                if is_q {
                    w0 = q_norm[i0 as usize];
                    w1 = q_norm[i1 as usize];
                }
                a = a * scale * w0;
                b = b * scale * w1;
            }
            let c = cos[(at * half + j) as usize];
            let s = sin[(at * half + j) as usize];
            let (x0, x1) = (a * c - b * s, b * c + a * s);
            if is_q {
                qkv[(from + i0) as usize] = x0;
                qkv[(from + i1) as usize] = x1;
            } else {
                keys[((own * size + i0) * positions + position) as usize] = x0;
                keys[((own * size + i1) * positions + position) as usize] = x1;
            }
            j += TURN;
        }
    }
}

/// Copies the first `count` floats of each row, from rows of one stride to rows of another.
#[cube(launch_unchecked)]
pub fn copy(from: &Array<f32>, to: &mut Array<f32>, count: u32, from_stride: u32, to_stride: u32) {
    let i = CUBE_POS_X * UNITS + UNIT_POS;
    if i < count {
        to[(CUBE_POS_Y * to_stride + i) as usize] = from[(CUBE_POS_Y * from_stride + i) as usize];
    }
}
