//! The engine on a GPU, by own kernels in cubecl: `wgpu` (Metal, Vulkan) and `cuda`.
//!
//! Weights are laid out once ([`weights`]) and uploaded in the bits that they are packed in; sessions
//! keep their keys and values there ([`memory`]); a pass ([`model`]) reads back logits alone. What
//! knows a runtime is generic over it, and [`open`] is the one place that chooses. Activations, sums
//! and memory are f32, where the CPU's are partly 8 and 16 bits: results differ from the CPU's by
//! what that rounds. Mixtures of experts, and measuring inputs (`Engine::watch`), stay on the CPU.

mod kernels;
mod linear;
mod memory;
mod model;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

use cubecl::Runtime;
use cubecl::server::Handle;
use cubecl::stream_id::StreamId;

pub use memory::Memory;

use super::engine::{Block, Embedding, Ffn};
use super::forward::{Part, Want};
use super::kernels::elementwise::angles;
use super::matrix::Matrix;
use super::pool::Pass;
use super::session::Cache;
use crate::model::Config;
use crate::probe::Found;
use crate::{Device, Result, StageError};
use linear::{Loader, bytes, padded};
use model::Model;

/// A model on some device.
pub trait Gpu: Send + Sync {
    /// Reads the rows of all parts and gives what is wanted, as `infer::forward` does.
    fn forward(&self, parts: &mut [Slice], input: &Input, want: Want) -> Result<Vec<f32>>;
    /// Most positions of a session.
    fn positions(&self) -> usize;
    /// New memory for `to` positions a layer, with the first `len` of those that had room for `from`.
    fn moved(
        &self,
        layers: &[(Handle, Handle)],
        from_to: (usize, usize),
        len: usize,
    ) -> Vec<(Handle, Handle)>;
}

/// Tokens that a session reads on: rows `row..row + len` of a pass, at positions from `start`.
pub struct Slice<'a> {
    pub memory: &'a mut Memory,
    pub row: usize,
    pub start: usize,
    pub len: usize,
    /// Positions that the session may have.
    pub most: usize,
}

/// What the host sends: embeddings in rows of a multiple of 32 floats, and angles `[rows, size / 2]`.
pub struct Input<'a> {
    pub rows: usize,
    pub x: &'a [f32],
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

/// What is put onto the device.
pub struct Weights<'a> {
    pub config: &'a Config,
    pub interleaved: bool,
    pub blocks: &'a [Block],
    pub norm: &'a [f32],
    pub head: &'a Matrix,
}

/// Uploads a model.
pub fn open(device: Device, found: &Found, weights: &Weights, pass: &Pass) -> Result<Arc<dyn Gpu>> {
    check(found, weights)?;
    match device {
        Device::Cpu => Err(StageError::failed("the CPU is no device of its own")),
        Device::Wgpu => load::<cubecl::wgpu::WgpuRuntime>(&Default::default(), weights, pass),
        Device::Cuda => load::<cubecl::cuda::CudaRuntime>(&Default::default(), weights, pass),
    }
}

fn load<R: Runtime>(device: &R::Device, weights: &Weights, pass: &Pass) -> Result<Arc<dyn Gpu>> {
    let load = || {
        let mut client = R::client(device);
        let most = client.properties().memory.max_page_size.min(u64::from(u32::MAX)) as usize;
        // SAFETY: a stream is a queue of the server, in which launches of several threads take turns;
        // what depends on each other (a session, the buffers of a pass) has one thread at a time.
        unsafe { client.set_stream(StreamId::current()) };
        let upload = client.clone();
        // Memory that is taken in pages of their own sizes, and stays.
        let model = client.memory_persistent_allocation((), |()| {
            Model::load(&Loader { client: &upload, pass, most }, weights)
        });
        let model = model.map_err(|error| failed(&format!("{error:?}")))??;
        model.settle()?;
        Ok(Arc::new(model) as Arc<dyn Gpu>)
    };
    caught(load)
}

fn failed(why: &str) -> StageError {
    StageError::failed(format!("the device failed: {why}"))
        .hint("run with `--device cpu`, or with a smaller context")
}

/// Where a device has no memory left, cubecl panics.
fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(failed(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it does not answer")))
    })
}

/// What the kernels cannot do, and what does not fit, before anything is uploaded.
fn check(found: &Found, weights: &Weights) -> Result<()> {
    let on_cpu = |message: String| Err(StageError::failed(message).hint("run with `--device cpu`"));
    if weights.blocks.iter().any(|block| matches!(block.ffn, Ffn::Experts(_))) {
        return on_cpu("a mixture of experts runs on the CPU alone".into());
    }
    let size = weights.config.head_size();
    if size > 256 || size % 2 == 1 {
        return on_cpu(format!("heads of {size} run on the CPU alone"));
    }
    let of = |block: &Block| {
        let ffn: usize = match &block.ffn {
            Ffn::Dense { gate, up, down } => [gate, up, down].into_iter().map(bytes).sum(),
            Ffn::Experts(_) => 0,
        };
        ffn + [&block.q, &block.k, &block.v, &block.o].into_iter().map(bytes).sum::<usize>()
    };
    let needed = weights.blocks.iter().map(of).sum::<usize>() + bytes(weights.head);
    match found.memory {
        Some(memory) if needed > memory => on_cpu(format!(
            "the weights take {} MB on the device, which has {}",
            needed >> 20,
            memory >> 20
        )),
        _ => Ok(()),
    }
}

/// A pass of the engine on its device.
pub fn forward(
    gpu: &dyn Gpu,
    (embed, frequencies, hidden): (&Embedding, &[f32], usize),
    parts: &mut [Part],
    tokens: &[u32],
    want: Want,
) -> Result<Vec<f32>> {
    let (stride, half) = (padded(hidden), frequencies.len());
    let mut x = vec![0.0; tokens.len() * stride];
    for (row, &token) in x.chunks_exact_mut(stride).zip(tokens) {
        embed.row(token as usize, &mut row[..hidden]);
    }
    let (mut cos, mut sin) = (vec![0.0; tokens.len() * half], vec![0.0; tokens.len() * half]);
    let positions = parts.iter().flat_map(|part| part.start..part.start + part.len);
    for ((position, cos), sin) in
        positions.zip(cos.chunks_exact_mut(half)).zip(sin.chunks_exact_mut(half))
    {
        angles(position, frequencies, cos, sin);
    }
    let mut row = 0;
    let mut slices = Vec::with_capacity(parts.len());
    for part in parts.iter_mut() {
        let (start, len, most) = (part.start, part.len, part.session.capacity());
        if let Cache::Device(memory, _) = &mut part.session.cache {
            slices.push(Slice { memory, row, start, len, most });
        }
        row += len;
    }
    let input = Input { rows: tokens.len(), x: &x, cos: &cos, sin: &sin };
    caught(|| gpu.forward(&mut slices, &input, want))
}
