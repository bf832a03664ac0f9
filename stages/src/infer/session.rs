//! What a model has read: keys and values of each position, in memory that is taken once.

use half::f16;

use super::Engine;
use super::forward::{Part, Want, forward};
#[cfg(feature = "gpu")]
use super::gpu;
use super::kernels::attention::{Cell, TILE};
use crate::model::Config;
use crate::{Result, StageError};

/// Tokens that go through the model at a time: more would not be faster, and cost memory.
const CHUNK: usize = 256;

/// A text that a model reads on from.
pub struct Session {
    pub(super) cache: Cache,
    len: usize,
    capacity: usize,
    logits: Vec<f32>,
}

/// Keys and values, as f16 or, where the weights are f32, as f32; or on a device.
pub(super) enum Cache {
    Single(Memory<f32>),
    Half(Memory<f16>),
    #[cfg(feature = "gpu")]
    Device(gpu::Memory, Shape),
}

/// Keys `[layer, head, tile, size, 16]` and values `[layer, head, position, wide]`.
#[derive(Clone)]
pub(super) struct Memory<C> {
    pub keys: Vec<C>,
    pub values: Vec<C>,
    pub shape: Shape,
}

/// Sizes of a cache.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub layers: usize,
    pub heads: usize,
    pub size: usize,
    /// Positions, a multiple of [`TILE`].
    pub positions: usize,
}

impl Shape {
    fn of(config: &Config, capacity: usize) -> Shape {
        Shape {
            layers: config.num_hidden_layers,
            heads: config.kv_heads(),
            size: config.head_size(),
            positions: capacity.next_multiple_of(TILE),
        }
    }
    pub fn wide(self) -> usize {
        self.size.next_multiple_of(16)
    }
    /// Where the keys of a head begin, and how many numbers they are.
    pub fn keys(self, layer: usize, head: usize) -> (usize, usize) {
        let len = self.positions * self.size;
        ((layer * self.heads + head) * len, len)
    }
    /// The same for its values.
    pub fn values(self, layer: usize, head: usize) -> (usize, usize) {
        let len = self.positions * self.wide();
        ((layer * self.heads + head) * len, len)
    }
}

impl<C: Cell> Memory<C> {
    fn new(shape: Shape) -> Memory<C> {
        let heads = shape.layers * shape.heads;
        // Zeros of the system: a page is taken when it is written.
        let zeros = |len: usize| vec![C::default(); len];
        Memory {
            keys: zeros(heads * shape.positions * shape.size),
            values: zeros(heads * shape.positions * shape.wide()),
            shape,
        }
    }

    /// The same memory with only the first `len` positions filled.
    fn prefix(&self, len: usize) -> Memory<C> {
        let (shape, mut copy) = (self.shape, Memory::new(self.shape));
        for (layer, head) in (0..shape.layers).flat_map(|l| (0..shape.heads).map(move |h| (l, h))) {
            let (at, n) = (shape.keys(layer, head).0, len.next_multiple_of(TILE) * shape.size);
            copy.keys[at..at + n].copy_from_slice(&self.keys[at..at + n]);
            let (at, n) = (shape.values(layer, head).0, len * shape.wide());
            copy.values[at..at + n].copy_from_slice(&self.values[at..at + n]);
        }
        copy
    }
}

impl Session {
    pub(super) fn new(config: &Config, capacity: usize, single: bool) -> Session {
        let shape = Shape::of(config, capacity);
        let cache = match single {
            true => Cache::Single(Memory::new(shape)),
            false => Cache::Half(Memory::new(shape)),
        };
        Session { cache, len: 0, capacity, logits: Vec::new() }
    }

    /// One whose memory is on a device.
    #[cfg(feature = "gpu")]
    pub(super) fn on(
        gpu: &std::sync::Arc<dyn gpu::Gpu>,
        config: &Config,
        capacity: usize,
    ) -> Session {
        let cache = Cache::Device(gpu::Memory::new(gpu), Shape::of(config, capacity));
        Session { cache, len: 0, capacity, logits: Vec::new() }
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.len
    }
    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Tokens that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    /// The logits that the last read gave; none before it.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
    /// Forgets all but the first `len` tokens; costs nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
    /// Another session that goes on from here. Copies what was read, some kilobytes a token.
    pub fn fork(&self) -> Session {
        let cache = match &self.cache {
            Cache::Single(memory) => Cache::Single(memory.prefix(self.len)),
            Cache::Half(memory) => Cache::Half(memory.prefix(self.len)),
            #[cfg(feature = "gpu")]
            Cache::Device(memory, shape) => Cache::Device(memory.prefix(self.len), *shape),
        };
        Session { cache, logits: self.logits.clone(), ..*self }
    }

    /// Reads on. Gives the logits of the token after the last, `[vocab]`. An error, with nothing
    /// read, where a token is not of the vocabulary, there are none, or there is no room for them.
    pub fn read(&mut self, engine: &Engine, tokens: &[u32]) -> Result<&[f32]> {
        self.check(engine, tokens)?;
        let mut chunks = tokens.chunks(CHUNK).peekable();
        while let Some(chunk) = chunks.next() {
            let want = if chunks.peek().is_some() { Want::None } else { Want::Last };
            self.logits = self.step(engine, chunk, want)?;
        }
        Ok(&self.logits)
    }

    /// Reads on. Gives the logits after each token, `[tokens, vocab]`. Errors as [`Session::read`].
    pub fn read_all(&mut self, engine: &Engine, tokens: &[u32]) -> Result<Vec<f32>> {
        self.check(engine, tokens)?;
        let mut all = Vec::with_capacity(tokens.len() * engine.config().vocab_size);
        for chunk in tokens.chunks(CHUNK) {
            all.extend(self.step(engine, chunk, Want::All)?);
        }
        let last = all.len().saturating_sub(engine.config().vocab_size);
        self.logits = all[last..].to_vec();
        Ok(all)
    }

    /// Reads on. Gives the state after the last token that its logits would be computed from, normed,
    /// `[hidden]`; the logits are not computed, and those from before are gone. Errors as
    /// [`Session::read`].
    pub fn read_hidden(&mut self, engine: &Engine, tokens: &[u32]) -> Result<Vec<f32>> {
        self.check(engine, tokens)?;
        self.logits.clear();
        let mut chunks = tokens.chunks(CHUNK).peekable();
        let mut state = Vec::new();
        while let Some(chunk) = chunks.next() {
            let want = if chunks.peek().is_some() { Want::None } else { Want::Hidden };
            state = self.step(engine, chunk, want)?;
        }
        Ok(state)
    }

    fn step(&mut self, engine: &Engine, tokens: &[u32], want: Want) -> Result<Vec<f32>> {
        let start = self.len;
        self.len += tokens.len();
        forward(engine, &mut [Part { session: self, start, len: tokens.len() }], tokens, want)
    }

    /// What must hold before tokens are read.
    fn check(&self, engine: &Engine, tokens: &[u32]) -> Result<()> {
        let (config, shape) = (engine.config(), self.shape());
        if shape != Shape::of(config, self.capacity) || !self.lies_with(engine) {
            return Err(StageError::failed("a session of another model"));
        }
        if tokens.is_empty() {
            return Err(StageError::failed("no tokens to read"));
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
            let message = format!("token {token} is not below {}", config.vocab_size);
            return Err(StageError::failed(message).hint("use the tokenizer of this model"));
        }
        let end = self.len + tokens.len();
        if end > self.capacity {
            let message = format!("{end} tokens do not fit a session of {}", self.capacity);
            return Err(StageError::failed(message).hint("shorten the text, or ask for more room"));
        }
        Ok(())
    }

    /// Its memory is where the engine computes.
    fn lies_with(&self, engine: &Engine) -> bool {
        #[cfg(feature = "gpu")]
        return match (&self.cache, &engine.gpu) {
            (Cache::Device(memory, _), Some(gpu)) => std::sync::Arc::ptr_eq(&memory.gpu, gpu),
            (Cache::Device(..), None) => false,
            (_, gpu) => gpu.is_none(),
        };
        #[cfg(not(feature = "gpu"))]
        {
            let _ = engine;
            true
        }
    }

    fn shape(&self) -> Shape {
        match &self.cache {
            Cache::Single(memory) => memory.shape,
            Cache::Half(memory) => memory.shape,
            #[cfg(feature = "gpu")]
            Cache::Device(_, shape) => *shape,
        }
    }
}

/// Reads one token in each of several sessions, in one pass over the weights. Gives the logits of
/// the token after it for each. Errors as [`Session::read`], with nothing read by any.
pub fn read_batch(
    engine: &Engine,
    sessions: &mut [&mut Session],
    tokens: &[u32],
) -> Result<Vec<Vec<f32>>> {
    if sessions.len() != tokens.len() {
        let message = format!("{} tokens for {} sessions", tokens.len(), sessions.len());
        return Err(StageError::failed(message));
    }
    for (session, token) in sessions.iter().zip(tokens) {
        session.check(engine, std::slice::from_ref(token))?;
    }
    let mut out = Vec::with_capacity(tokens.len());
    for (sessions, tokens) in sessions.chunks_mut(CHUNK).zip(tokens.chunks(CHUNK)) {
        let part = |session: &mut &mut Session| {
            let start = session.len;
            session.len += 1;
            start
        };
        let starts: Vec<usize> = sessions.iter_mut().map(part).collect();
        let mut parts: Vec<Part> = sessions
            .iter_mut()
            .zip(starts)
            .map(|(session, start)| Part { session, start, len: 1 })
            .collect();
        let logits = forward(engine, &mut parts, tokens, Want::Last)?;
        for (session, logits) in sessions.iter_mut().zip(logits.chunks(engine.config().vocab_size))
        {
            session.logits = logits.to_vec();
            out.push(session.logits.clone());
        }
    }
    Ok(out)
}
