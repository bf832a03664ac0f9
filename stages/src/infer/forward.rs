//! The model, top to bottom: tokens in, logits out.
//!
//! Rows are tokens. They belong to parts, each some tokens that one session reads on; a prompt is
//! one part of many rows, a batch of answers many parts of one. Products do not care; attention
//! looks at its own session only. Each loop over rows, tiles or heads is shared by the threads.

use super::Engine;
use super::engine::{Block, Buffers, Ffn};
use super::experts::experts;
use super::kernels::Out;
use super::kernels::attention::{Attention, Cell, QUERIES, Query, Store, TILE};
use super::kernels::elementwise::{Add, Norm, SwiGlu, angles, norm_in_place, rope};
use super::kernels::inputs::{Inputs, Shrink};
use super::kernels::product::Product;
use super::matrix::Matrix;
use super::pool::Pass;
use super::session::{Cache, Memory, Session};
use super::simd::Isa;
use crate::Result;

/// Tokens that a session reads on.
pub(super) struct Part<'a> {
    pub session: &'a mut Session,
    /// Position of the first.
    pub start: usize,
    pub len: usize,
}

/// Which logits to compute.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Want {
    None,
    /// Those after the last token of each part.
    Last,
    /// Those after every token.
    All,
    /// None, but the state that they would be computed from, after the last token of each part.
    Hidden,
}

/// What the loops of a pass share.
pub(super) struct Run<'a> {
    pub engine: &'a Engine,
    pub pass: &'a Pass<'a>,
    pub isa: Isa,
    pub n: usize,
}

/// A part of the queries for one thread: over one key head of one session.
struct Unit {
    part: usize,
    head: usize,
    queries: std::ops::Range<usize>,
}

/// Reads the tokens of all parts, whose sessions have room for them, and gives the logits wanted,
/// `[rows, vocab]`, or the states, `[rows, hidden]`. Fails where a device does.
pub(super) fn forward(
    engine: &Engine,
    parts: &mut [Part],
    tokens: &[u32],
    want: Want,
) -> Result<Vec<f32>> {
    #[cfg(feature = "gpu")]
    if let Some(gpu) = &engine.gpu {
        let host = (&engine.embed, &engine.frequencies[..], engine.config.hidden_size);
        return super::gpu::forward(&**gpu, host, parts, tokens, want);
    }
    let pass = engine.pool.pass();
    let run = Run { engine, pass: &pass, isa: engine.isa, n: tokens.len() };
    let mut buffers = engine.buffers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let b = &mut *buffers;
    let (config, n) = (&engine.config, tokens.len());
    let (d, half) = (config.hidden_size, config.head_size() / 2);
    b.fit(config, n);

    for (row, &token) in b.x.chunks_exact_mut(d).zip(tokens) {
        engine.embed.row(token as usize, row);
    }
    let positions = parts.iter().flat_map(|part| part.start..part.start + part.len);
    let turns = b.cos.chunks_exact_mut(half).zip(b.sin.chunks_exact_mut(half));
    for (position, (cos, sin)) in positions.zip(turns) {
        angles(position, &engine.frequencies, cos, sin);
    }
    let (units, queries) = plan(engine, parts);

    for (layer, block) in engine.blocks.iter().enumerate() {
        run.norm(&mut b.x, &block.input_norm, &mut b.normed, None);
        let (q, k, v) = (Out::of(&mut b.q), Out::of(&mut b.k), Out::of(&mut b.v));
        run.products(&[(&block.q, q), (&block.k, k), (&block.v, v)], &b.normed, &mut b.low);
        attend(&run, parts, layer, block, b, &units, &queries);
        run.inputs(&mut b.mixed, |_, _| {});
        run.products(&[(&block.o, Out::of(&mut b.delta))], &b.mixed, &mut b.low);

        run.norm(&mut b.x, &block.post_norm, &mut b.normed, Some(&b.delta));
        match &block.ffn {
            Ffn::Dense { gate, up, down } => {
                let (g, u) = (Out::of(&mut b.gate), Out::of(&mut b.up));
                run.products(&[(gate, g), (up, u)], &b.normed, &mut b.low);
                run.gated(&b.gate, &b.up, gate.rows, &mut b.inner);
                run.products(&[(down, Out::of(&mut b.delta))], &b.inner, &mut b.low);
            }
            Ffn::Experts(layer) => experts(&run, layer, b),
        }
        run.isa.run(Add(&mut b.x[..n * d], &b.delta[..n * d]));
    }
    Ok(head(&run, parts, b, want))
}

/// The last norm and the output matrix, for the rows wanted.
fn head(run: &Run, parts: &[Part], b: &mut Buffers, want: Want) -> Vec<f32> {
    let mut end = 0;
    let rows: Vec<usize> = match want {
        Want::None => return Vec::new(),
        Want::All => (0..run.n).collect(),
        Want::Last | Want::Hidden => parts
            .iter()
            .map(|part| {
                end += part.len;
                end - 1
            })
            .collect(),
    };
    let engine = run.engine;
    let (d, eps) = (engine.config.hidden_size, engine.config.rms_norm_eps as f32);
    let run = Run { n: rows.len(), ..*run };
    b.normed.fit(run.n, d);
    let x = &b.x;
    run.inputs(&mut b.normed, |i, out| {
        let x = &x[rows[i] * d..][..d];
        run.isa.run(Norm { x, weight: &engine.norm, eps, out });
    });
    if want == Want::Hidden {
        return b.normed.floats[..run.n * d].to_vec();
    }
    let mut logits = vec![0.0; run.n * engine.head.rows];
    run.products(&[(&engine.head, Out::of(&mut logits))], &b.normed, &mut b.low);
    logits
}

/// The queries of all parts and heads, and how they are shared among threads.
fn plan(engine: &Engine, parts: &[Part]) -> (Vec<Unit>, Vec<Query>) {
    let config = &engine.config;
    let (heads, size) = (config.num_attention_heads, config.head_size());
    let shared = heads / config.kv_heads();
    let (mut units, mut queries, mut first) = (Vec::new(), Vec::new(), 0);
    for (i, part) in parts.iter().enumerate() {
        for head in 0..config.kv_heads() {
            let from = queries.len();
            for t in 0..part.len {
                for h in head * shared..(head + 1) * shared {
                    let at = ((first + t) * heads + h) * size;
                    queries.push(Query { from: at, to: at, sees: part.start + t + 1 });
                }
            }
            let starts = (from..queries.len()).step_by(QUERIES);
            units.extend(starts.map(|start| Unit {
                part: i,
                head,
                queries: start..queries.len().min(start + QUERIES),
            }));
        }
        first += part.len;
    }
    // Those that see most first, so that none is left for the end.
    units.reverse();
    (units, queries)
}

/// Turns queries and keys, remembers keys and values, and mixes the values that each query sees.
fn attend(
    run: &Run,
    parts: &mut [Part],
    layer: usize,
    block: &Block,
    b: &mut Buffers,
    units: &[Unit],
    queries: &[Query],
) {
    let Buffers { q, k, v, cos, sin, mixed, scratch, .. } = b;
    let (q, out) = (&mut q[..], Out::of(&mut mixed.floats));
    let (qs, ks) = (Out::of(q), Out::of(k));
    // The parts of a pass have caches of one kind: f32 or f16 by the weights of the engine.
    let mut row = 0;
    for part in parts.iter_mut() {
        let keep = Keep { run, layer, block, q: qs, k: ks, v, cos, sin, row, start: part.start };
        match &mut part.session.cache {
            Cache::Single(memory) => keep.rows(memory, part.len),
            Cache::Half(memory) => keep.rows(memory, part.len),
            // `Session::check` refuses a session of a device.
            #[cfg(feature = "gpu")]
            Cache::Device(..) => {}
        }
        row += part.len;
    }
    let parts = &*parts;
    run.pass.run(units.len(), |i, worker| {
        let unit = &units[i];
        let queries = &queries[unit.queries.clone()];
        let mut scratch = scratch[worker].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &parts[unit.part].session.cache {
            Cache::Single(memory) => {
                attention(run.isa, q, queries, memory, layer, unit.head, out, &mut scratch);
            }
            Cache::Half(memory) => {
                attention(run.isa, q, queries, memory, layer, unit.head, out, &mut scratch);
            }
            #[cfg(feature = "gpu")]
            Cache::Device(..) => {}
        }
    });
}

#[allow(clippy::too_many_arguments)]
fn attention<C: Cell>(
    isa: Isa,
    q: &[f32],
    queries: &[Query],
    memory: &Memory<C>,
    layer: usize,
    head: usize,
    out: Out,
    scratch: &mut Vec<f32>,
) {
    let (keys, values) = (memory.shape.keys(layer, head), memory.shape.values(layer, head));
    isa.run(Attention {
        q,
        queries,
        keys: &memory.keys[keys.0..keys.0 + keys.1],
        values: &memory.values[values.0..values.0 + values.1],
        size: memory.shape.size,
        out,
        scratch,
    });
}

/// What happens to the rows of a part before attention.
struct Keep<'a> {
    run: &'a Run<'a>,
    layer: usize,
    block: &'a Block,
    q: Out,
    k: Out,
    v: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    /// The first row of the part.
    row: usize,
    /// The position of that row.
    start: usize,
}

/// Numbers that threads write different ones of.
struct Shared<C>(*mut C);
// SAFETY: each row of a part writes to its own position.
unsafe impl<C> Sync for Shared<C> {}

impl Keep<'_> {
    fn rows<C: Cell>(&self, memory: &mut Memory<C>, len: usize) {
        let shape = memory.shape;
        assert!(self.start + len <= shape.positions);
        let (keys, values) = (Shared(memory.keys.as_mut_ptr()), Shared(memory.values.as_mut_ptr()));
        let config = &self.run.engine.config;
        let (heads, size) = (config.num_attention_heads, shape.size);
        let half = size / 2;
        let interleaved = self.run.engine.interleaved;
        let (keys, values) = (&keys, &values);
        self.run.each_row(len, |t| {
            let (row, position) = (self.row + t, self.start + t);
            let (cos, sin) = (&self.cos[row * half..][..half], &self.sin[row * half..][..half]);
            // SAFETY: a row of q and k belongs to one unit.
            let (q, k) = unsafe {
                let kv = shape.heads * size;
                (self.q.part(row * heads * size, heads * size), self.k.part(row * kv, kv))
            };
            let turn = |head: &mut [f32], norm: &Option<Vec<f32>>| {
                if let Some(weight) = norm {
                    norm_in_place(head, weight, config.rms_norm_eps as f32);
                }
                rope(head, cos, sin, interleaved);
            };
            q.chunks_exact_mut(size).for_each(|head| turn(head, &self.block.q_norm));
            for (h, head) in k.chunks_exact_mut(size).enumerate() {
                turn(head, &self.block.k_norm);
                let at = shape.keys(self.layer, h).0 + position / TILE * size * TILE;
                let v = &self.v[(row * shape.heads + h) * size..][..size];
                let to = shape.values(self.layer, h).0 + position * shape.wide();
                // SAFETY: the position is one of the cache (checked above), and of this unit.
                unsafe {
                    let keys = keys.0.add(at + position % TILE);
                    self.run.isa.run(Store { from: head, to: keys, stride: TILE });
                    self.run.isa.run(Store { from: v, to: values.0.add(to), stride: 1 });
                }
            }
        });
    }
}

impl Run<'_> {
    /// Calls `f` for each of `n` rows, in units of some rows.
    pub fn each_row(&self, n: usize, f: impl Fn(usize) + Sync) {
        const UNIT: usize = 16;
        if n <= 2 {
            return (0..n).for_each(f);
        }
        let unit = n.div_ceil(4 * self.engine.pool.threads()).min(UNIT);
        self.pass.run(n.div_ceil(unit), |i, _| {
            (i * unit..n.min((i + 1) * unit)).for_each(&f);
        });
    }

    /// Fills inputs row by row, and their small integers where the model is quantised. The inputs
    /// have room for the rows.
    pub fn inputs(&self, inputs: &mut Inputs, f: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = inputs.rows();
        let small = self.engine.quantized && inputs.width.is_multiple_of(32);
        self.each_row(self.n, |i| {
            // SAFETY: a row belongs to one unit.
            let row = unsafe { rows.row(i) };
            f(i, row.floats);
            if small {
                self.isa.run(Shrink(row));
            }
        });
    }

    /// Adds `delta` to `x` and puts the norm of the sum into `out`.
    pub fn norm(&self, x: &mut [f32], weight: &[f32], out: &mut Inputs, delta: Option<&[f32]>) {
        let (d, eps) = (weight.len(), self.engine.config.rms_norm_eps as f32);
        out.fit(self.n, d);
        let x = Out::of(x);
        self.inputs(out, |i, out| {
            // SAFETY: a row belongs to one unit.
            let x = unsafe { x.part(i * d, d) };
            if let Some(delta) = delta {
                self.isa.run(Add(x, &delta[i * d..][..d]));
            }
            self.isa.run(Norm { x, weight, eps, out });
        });
    }

    /// `silu(gate) up`, `[n, width]`.
    pub fn gated(&self, gate: &[f32], up: &[f32], width: usize, out: &mut Inputs) {
        out.fit(self.n, width);
        self.inputs(out, |i, out| {
            let row = i * width..(i + 1) * width;
            self.isa.run(SwiGlu { gate: &gate[row.clone()], up: &up[row], out });
        });
    }

    /// Products of several matrices with the same inputs, `[n, rows]` each, in one loop; then what
    /// their adapters add.
    pub fn products(&self, products: &[(&Matrix, Out)], inputs: &Inputs, low: &mut Inputs) {
        let n = self.n;
        let total: usize = products.iter().map(|(matrix, _)| matrix.tiles()).sum();
        // A tile of one row of inputs takes less time than to ask for the next.
        let per = if n < 8 { total.div_ceil(8 * self.engine.pool.threads()) } else { 1 };
        self.pass.run(total.div_ceil(per), |unit, _| {
            for i in unit * per..total.min((unit + 1) * per) {
                let mut tile = i;
                for &(matrix, out) in products {
                    if tile < matrix.tiles() {
                        self.isa.run(Product { matrix, tile, inputs, n, out, add: false });
                        break;
                    }
                    tile -= matrix.tiles();
                }
            }
        });
        for (matrix, _) in products {
            if let Some(squares) = &matrix.squares {
                squares.add(&inputs.floats[..n * inputs.width]);
            }
        }
        for &(matrix, out) in products {
            let Some(adapter) = &matrix.adapter else { continue };
            low.fit(n, adapter.a.rows);
            let inner = Out::of(&mut low.floats);
            self.pass.run(adapter.a.tiles(), |tile, _| {
                let matrix = &adapter.a;
                self.isa.run(Product { matrix, tile, inputs, n, out: inner, add: false });
            });
            let inputs = &*low;
            self.pass.run(adapter.b.tiles(), |tile, _| {
                self.isa.run(Product { matrix: &adapter.b, tile, inputs, n, out, add: true });
            });
        }
    }
}
