//! The model on a device, top to bottom: tokens in, logits out.
//!
//! All of a pass stays there: the host sends the rows of the embedding and the angles, and reads
//! back the logits that are wanted. A layer is nine launches (a few more where its matrices are
//! packed differently, or have adapters), and for each session of a batch two of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cubecl::prelude::*;
use cubecl::server::Handle;

use super::kernels::attention::attention;
use super::kernels::rows::{TURN, UNITS, copy, norm, swiglu, turn};
use super::linear::{Linear, Loader, Rows, padded};
use super::{Gpu, Input, Slice, Weights, failed};
use crate::infer::engine::Ffn;
use crate::infer::forward::Want;
use crate::{Result, StageError};

/// A model whose weights are on a device.
pub struct Model<R: Runtime> {
    client: ComputeClient<R>,
    sizes: Sizes,
    layers: Vec<Layer>,
    norm: Handle,
    head: Linear,
    /// Bytes of a buffer that a kernel can be given.
    most: usize,
    /// One pass at a time.
    buffers: Mutex<Buffers>,
}

/// Numbers of the model.
#[derive(Clone, Copy)]
struct Sizes {
    hidden: usize,
    ffn: usize,
    vocab: usize,
    heads: usize,
    kv: usize,
    size: usize,
    eps: f32,
    interleaved: bool,
}

struct Layer {
    input_norm: Handle,
    qkv: Linear,
    q_norm: Option<Handle>,
    k_norm: Option<Handle>,
    o: Linear,
    post_norm: Handle,
    both: Linear,
    down: Linear,
}

/// Memory of a pass: taken once, for the most rows so far. What fills rows up to a multiple of 32 is
/// zeros, and nobody writes there.
#[derive(Default)]
struct Buffers {
    rows: usize,
    held: Option<Held>,
}

struct Held {
    normed: Rows,
    qkv: Rows,
    mixed: Rows,
    both: Rows,
    inner: Rows,
    low: Handle,
}

fn floats<R: Runtime>(handle: &Handle, len: usize) -> ArrayArg<R> {
    // SAFETY: kernels are launched with sizes that the buffers have.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), len) }
}

fn grid(x: usize, y: usize) -> CubeCount {
    CubeCount::Static(x as u32, y as u32, 1)
}

impl<R: Runtime> Model<R> {
    /// Uploads the weights.
    pub fn load(
        loader: &Loader<R>,
        Weights { config, interleaved, blocks, norm, head }: &Weights,
    ) -> Result<Model<R>> {
        let mut layers = Vec::new();
        for block in *blocks {
            let Ffn::Dense { gate, up, down } = &block.ffn else {
                return Err(StageError::failed("a mixture of experts runs on the CPU alone")
                    .hint("run with `--device cpu`"));
            };
            let head_norm = |norm: &Option<Vec<f32>>| norm.as_ref().map(|w| loader.floats(w));
            layers.push(Layer {
                input_norm: loader.floats(&block.input_norm),
                qkv: loader.linear(&[&block.q, &block.k, &block.v])?,
                q_norm: head_norm(&block.q_norm),
                k_norm: head_norm(&block.k_norm),
                o: loader.linear(&[&block.o])?,
                post_norm: loader.floats(&block.post_norm),
                both: loader.linear(&[gate, up])?,
                down: loader.linear(&[down])?,
            });
        }
        let sizes = Sizes {
            hidden: config.hidden_size,
            ffn: config.intermediate_size,
            vocab: config.vocab_size,
            heads: config.num_attention_heads,
            kv: config.kv_heads(),
            size: config.head_size(),
            eps: config.rms_norm_eps as f32,
            interleaved: *interleaved,
        };
        Ok(Model {
            client: loader.client.clone(),
            sizes,
            layers,
            norm: loader.floats(norm),
            head: loader.linear(&[*head])?,
            most: loader.most,
            buffers: Mutex::default(),
        })
    }

    /// Waits until all weights have arrived.
    pub fn settle(&self) -> Result<()> {
        let arrived = self.client.read_one(self.norm.clone());
        arrived.map(drop).map_err(|error| failed(&format!("{error:?}")))
    }

    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn zeros(&self, rows: usize, width: usize) -> Rows {
        let stride = padded(width);
        let handle = self.client.create_from_slice(&vec![0; rows.max(1) * stride.max(1) * 4]);
        Rows { handle, stride }
    }

    fn hold<'a>(&self, buffers: &'a mut Buffers, n: usize) -> &'a Held {
        let Sizes { hidden, ffn, heads, size, .. } = self.sizes;
        if buffers.rows < n {
            // A batch grows by one now and then: not each time anew.
            buffers.rows = if n == 1 { 1 } else { n.next_power_of_two() };
            buffers.held = None;
        }
        let rows = buffers.rows;
        buffers.held.get_or_insert_with(|| {
            let widest = |width: fn(&Layer) -> usize| self.layers.iter().map(width).max();
            let low = |layer: &Layer| {
                let Layer { qkv, o, both, down, .. } = layer;
                [qkv, o, both, down].map(Linear::low).into_iter().max().unwrap_or(0)
            };
            Held {
                normed: self.zeros(rows, hidden),
                qkv: self.zeros(rows, widest(|layer| layer.qkv.width).unwrap_or(0)),
                mixed: self.zeros(rows, heads * size),
                both: self.zeros(rows, widest(|layer| layer.both.width).unwrap_or(0)),
                inner: self.zeros(rows, ffn),
                low: self.zeros(rows, widest(low).unwrap_or(0)).handle,
            }
        })
    }

    /// `out[i] = norm(x[which[i]])`, or of each row.
    fn norm(&self, x: &Rows, which: Option<&[u32]>, weight: &Handle, out: &Rows, n: usize) {
        let indices = which.map(|which| self.client.create_from_slice(u32::as_bytes(which)));
        let indices = indices.as_ref().unwrap_or(weight);
        // SAFETY: x and out have n rows of one stride; indices are rows of x.
        unsafe {
            norm::launch_unchecked::<R>(
                &self.client,
                grid(n, 1),
                CubeDim::new_1d(UNITS),
                floats(&x.handle, n * x.stride),
                floats(indices, n),
                floats(weight, self.sizes.hidden),
                floats(&out.handle, n * out.stride),
                self.sizes.hidden as u32,
                x.stride as u32,
                self.sizes.eps,
                which.is_some(),
            );
        }
    }

    /// Turns the heads of a part, remembers its keys and values, and mixes what each row sees.
    fn attend(&self, layer: usize, part: &Slice, held: &Held, cos: &Handle, sin: &Handle) {
        let Sizes { heads, kv, size, eps, interleaved, .. } = self.sizes;
        let Layer { qkv, q_norm, k_norm, input_norm, .. } = &self.layers[layer];
        let (keys, values) = &part.memory.layers[layer];
        let cells = kv * size * part.memory.positions;
        let all = (part.row + part.len) * held.qkv.stride;
        let angles = (part.row + part.len) * size / 2;
        // SAFETY: the memory has room for the rows (`Memory::fit`), the buffers hold them.
        unsafe {
            turn::launch_unchecked::<R>(
                &self.client,
                grid(heads + 2 * kv, part.len),
                CubeDim::new_1d(TURN),
                floats(&held.qkv.handle, all),
                floats(cos, angles),
                floats(sin, angles),
                floats(q_norm.as_ref().unwrap_or(input_norm), size),
                floats(k_norm.as_ref().unwrap_or(input_norm), size),
                floats(keys, cells),
                floats(values, cells),
                part.row as u32,
                part.start as u32,
                part.memory.positions as u32,
                held.qkv.stride as u32,
                qkv.from[1] as u32,
                qkv.from[2] as u32,
                heads as u32,
                kv as u32,
                eps,
                size as u32,
                q_norm.is_some(),
                interleaved,
            );
            attention::launch_unchecked::<R>(
                &self.client,
                grid(heads, part.len),
                CubeDim::new_1d(super::kernels::attention::STEP),
                floats(&held.qkv.handle, all),
                floats(keys, cells),
                floats(values, cells),
                floats(&held.mixed.handle, (part.row + part.len) * held.mixed.stride),
                part.row as u32,
                part.start as u32,
                part.memory.positions as u32,
                held.qkv.stride as u32,
                held.mixed.stride as u32,
                (heads / kv) as u32,
                1.0 / (size as f32).sqrt(),
                size as u32,
            );
        }
    }

    fn gated(&self, layer: &Layer, held: &Held, n: usize) {
        // SAFETY: both buffers hold n rows.
        unsafe {
            swiglu::launch_unchecked::<R>(
                &self.client,
                grid(self.sizes.ffn.div_ceil(UNITS as usize), n),
                CubeDim::new_1d(UNITS),
                floats(&held.both.handle, n * held.both.stride),
                floats(&held.inner.handle, n * held.inner.stride),
                self.sizes.ffn as u32,
                held.both.stride as u32,
                layer.both.from[1] as u32,
                held.inner.stride as u32,
            );
        }
    }

    /// Reads rows of `width` floats back.
    fn fetch(&self, rows: Rows, n: usize, width: usize) -> Result<Vec<f32>> {
        let bytes = self.client.read_one(rows.handle);
        let bytes = bytes.map_err(|error| failed(&format!("{error:?}")))?;
        let all = f32::from_bytes(&bytes);
        let rows = all.chunks_exact(rows.stride).take(n);
        Ok(rows.flat_map(|row| &row[..width]).copied().collect())
    }
}

impl<R: Runtime> Gpu for Model<R> {
    fn forward(&self, parts: &mut [Slice], input: &Input, want: Want) -> Result<Vec<f32>> {
        let mut buffers = self.lock();
        let (client, n, hidden) = (&self.client, input.rows, self.sizes.hidden);
        let held = self.hold(&mut buffers, n);
        let upload = |values: &[f32]| client.create_from_slice(f32::as_bytes(values));
        let x = Rows { handle: upload(input.x), stride: padded(hidden) };
        let (cos, sin) = (upload(input.cos), upload(input.sin));
        for part in parts.iter_mut() {
            part.memory.fit(part.start, part.start + part.len, part.most);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            self.norm(&x, None, &layer.input_norm, &held.normed, n);
            layer.qkv.run(client, &held.normed, &held.qkv, &held.low, n, false);
            for part in parts.iter() {
                self.attend(i, part, held, &cos, &sin);
            }
            layer.o.run(client, &held.mixed, &x, &held.low, n, true);
            self.norm(&x, None, &layer.post_norm, &held.normed, n);
            layer.both.run(client, &held.normed, &held.both, &held.low, n, false);
            self.gated(layer, held, n);
            layer.down.run(client, &held.inner, &x, &held.low, n, true);
        }
        let which: Vec<u32> = match want {
            Want::None => return Ok(Vec::new()),
            Want::All => (0..n as u32).collect(),
            Want::Last | Want::Hidden => {
                parts.iter().map(|part| (part.row + part.len - 1) as u32).collect()
            }
        };
        let stride = self.head.width;
        let mut out = Vec::new();
        // The logits of some rows can be more than a kernel can be given.
        for which in which.chunks((self.most / (stride * 4)).max(1)) {
            let n = which.len();
            self.norm(&x, Some(which), &self.norm, &held.normed, n);
            if want == Want::Hidden {
                out.extend(self.fetch(held.normed.clone(), n, hidden)?);
                continue;
            }
            let logits = Rows { handle: client.empty(n * stride * 4), stride };
            self.head.run(client, &held.normed, &logits, &held.low, n, false);
            out.extend(self.fetch(logits, n, self.sizes.vocab)?);
        }
        Ok(out)
    }

    fn positions(&self) -> usize {
        self.most / (self.sizes.kv * self.sizes.size * 4)
    }

    fn moved(
        &self,
        layers: &[(Handle, Handle)],
        (from, to): (usize, usize),
        len: usize,
    ) -> Vec<(Handle, Handle)> {
        let Sizes { kv, size, .. } = self.sizes;
        let new = || self.client.empty(kv * size * to * 4);
        let copied = |old: &Handle, rows: usize, count: usize, strides: (usize, usize)| {
            let handle = new();
            // SAFETY: both have `rows` rows of their strides, which are not below count.
            unsafe {
                copy::launch_unchecked::<R>(
                    &self.client,
                    grid(count.div_ceil(UNITS as usize), rows),
                    CubeDim::new_1d(UNITS),
                    floats(old, rows * strides.0),
                    floats(&handle, rows * strides.1),
                    count as u32,
                    strides.0 as u32,
                    strides.1 as u32,
                );
            }
            handle
        };
        if len == 0 {
            return self.layers.iter().map(|_| (new(), new())).collect();
        }
        layers
            .iter()
            .map(|(keys, values)| {
                let keys = copied(keys, kv * size, len, (from, to));
                (keys, copied(values, kv, len * size, (from * size, to * size)))
            })
            .collect()
    }
}
