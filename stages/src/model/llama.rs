//! A whole decoder of the Llama, Qwen2, Qwen3 and Qwen3-MoE layouts, top to bottom: shape, weights,
//! cache, forward.
//!
//! Tokens go in as host integers, `[b, t]` row by row, because they come from a tokenizer or a
//! sampler and are checked against the vocabulary. Inside, a row is a token: `[b * t, d]`. A batch
//! needs sequences of one length: pad on the right, where a causal model cannot see it, or pack
//! several into one window ([`Packed`]), where none sees another.
//!
//! It holds no optimizer, no loss beyond [`Llama::log_probs`], and no sampling (`generate.rs`). The
//! feed-forward layer is in `ffn.rs`.

use std::sync::Arc;

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::DType;

use super::build::{Build, Held, Vector, angles};
use super::config::Config;
use super::ffn::{Ffn, Routed};
use super::kernels::{Kernels, Span};
use super::lora::Linear;
use super::weights::Source;
use crate::{Result, StageError};

/// A model.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    /// `[vocab, d]`.
    pub embed: Param<Tensor<B, 2>>,
    /// The blocks.
    pub blocks: Vec<Block<B>>,
    /// `[d]`, the last norm.
    pub norm: Param<Tensor<B, 1>>,
    /// `[d, vocab]`; none where the embedding serves.
    pub head: Option<Linear<B>>,
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    /// The shape.
    #[module(skip)]
    pub config: Config,
    /// The stream between the layers is bf16.
    #[module(skip)]
    pub(super) half: bool,
}

/// Attention and a feed-forward layer, each on a normed copy of the stream and added to it.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    /// `[d]`.
    pub input_norm: Param<Tensor<B, 1>>,
    /// `[d, heads * size]`.
    pub q: Linear<B>,
    /// `[d, kv_heads * size]`.
    pub k: Linear<B>,
    /// `[d, kv_heads * size]`.
    pub v: Linear<B>,
    /// `[heads * size, d]`.
    pub o: Linear<B>,
    /// `[size]`, over each query head (Qwen3).
    pub q_norm: Option<Param<Tensor<B, 1>>>,
    /// `[size]`, over each key head (Qwen3).
    pub k_norm: Option<Param<Tensor<B, 1>>>,
    /// `[d]`.
    pub post_norm: Param<Tensor<B, 1>>,
    /// `[n, d]` to `[n, d]`.
    pub ffn: Ffn<B>,
}

/// Windows of one length, each of several sequences after one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// `[b, t]`, window by window.
    pub tokens: Vec<u32>,
    /// Windows.
    pub batch: usize,
    /// `[b, t]`: where in its window the sequence of each token starts.
    pub starts: Arc<[u32]>,
}

impl Packed {
    fn len(&self) -> usize {
        self.tokens.len() / self.batch.max(1)
    }
    /// The position of each token in its own sequence.
    fn positions(&self) -> Vec<i32> {
        let len = self.len().max(1);
        let position = |(i, &start): (usize, &u32)| (i % len) as i32 - start as i32;
        self.starts.iter().enumerate().map(position).collect()
    }
}

/// Where the tokens of a forward pass stand.
#[derive(Clone, Debug)]
pub struct Frame<B: Backend> {
    span: Span,
    /// Cosines and sines.
    angles: [Tensor<B, 2>; 2],
    /// As in [`Packed`].
    starts: Option<Arc<[u32]>>,
}

/// Keys and values of the tokens that a model has seen: memory for `capacity` positions, taken once.
#[derive(Clone, Debug)]
pub struct Cache<B: Backend> {
    /// Keys and values of each block, `[b, kv_heads, capacity, size]`.
    layers: Vec<Option<(Tensor<B, 4>, Tensor<B, 4>)>>,
    batch: usize,
    len: usize,
    capacity: usize,
}

impl<B: Backend> Cache<B> {
    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.len
    }
    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }
    /// Tokens it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    /// Forgets all but the first `len` tokens; costs nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
    /// A cache of the sequences at `rows` alone, in that order.
    pub fn keep(&self, rows: &[usize]) -> Cache<B> {
        let ids: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let keep = |t: &Tensor<B, 4>| {
            let ids = Tensor::<B, 1, Int>::from_data(ids.as_slice(), &t.device());
            t.clone().select(0, ids)
        };
        let layers = self.layers.iter();
        let layers = layers.map(|layer| layer.as_ref().map(|(k, v)| (keep(k), keep(v))));
        Cache { layers: layers.collect(), batch: rows.len(), ..*self }
    }
    /// A cache of `batch` sequences that all begin as this one's only sequence does.
    pub fn repeat(&self, batch: usize) -> Cache<B> {
        let repeat = |t: &Tensor<B, 4>| t.clone().repeat_dim(0, batch);
        let layers = self.layers.iter();
        let layers = layers.map(|layer| layer.as_ref().map(|(k, v)| (repeat(k), repeat(v))));
        Cache { layers: layers.collect(), batch: self.batch * batch, ..*self }
    }
}

impl<B: Backend> Llama<B> {
    /// A model of the given shape with the weights of `source`, ready to be trained in full.
    pub fn build(config: &Config, source: &mut dyn Source, device: &B::Device) -> Result<Llama<B>> {
        Llama::build_as(config, source, device, Held::default())
    }

    /// [`Llama::build`] with the weights held as they are to be held, and never all of them in more.
    pub fn build_as(
        config: &Config,
        source: &mut dyn Source,
        device: &B::Device,
        held: Held,
    ) -> Result<Llama<B>> {
        config.check().map_err(StageError::failed)?;
        let (d, size) = (config.hidden_size, config.head_size());
        let (q, kv) = (config.num_attention_heads * size, config.kv_heads() * size);
        let mut build = Build { source, device, held };
        let embed = build.matrix("model.embed_tokens.weight", [config.vocab_size, d])?;
        let mut blocks = Vec::new();
        for i in 0..config.num_hidden_layers {
            let at = |name: &str| format!("model.layers.{i}.{name}");
            let (qkv_bias, o_bias) = (config.qkv_bias(), config.output_bias());
            blocks.push(Block {
                input_norm: build.vector(&at("input_layernorm.weight"), d)?,
                q: build.linear(&at("self_attn.q_proj"), d, q, qkv_bias)?,
                k: build.linear(&at("self_attn.k_proj"), d, kv, qkv_bias)?,
                v: build.linear(&at("self_attn.v_proj"), d, kv, qkv_bias)?,
                o: build.linear(&at("self_attn.o_proj"), q, d, o_bias)?,
                q_norm: build.maybe(config.qk_norm(), &at("self_attn.q_norm.weight"), size)?,
                k_norm: build.maybe(config.qk_norm(), &at("self_attn.k_norm.weight"), size)?,
                post_norm: build.vector(&at("post_attention_layernorm.weight"), d)?,
                ffn: build.ffn(&at("mlp"), config)?,
            });
        }
        let norm = build.vector("model.norm.weight", d)?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => {
                build.held.packed = false;
                Some(build.linear("lm_head", d, config.vocab_size, false)?)
            }
        };
        let (cos, sin) = angles(config, device);
        let (config, half) = (config.clone(), held.half);
        Ok(Llama { embed, blocks, norm, head, cos, sin, config, half })
    }

    /// The linear layers of the blocks with their HF names, such as `model.layers.0.self_attn.q_proj`;
    /// routers of experts are among them.
    pub fn linears(&self) -> impl Iterator<Item = (String, &Linear<B>)> {
        self.blocks.iter().enumerate().flat_map(|(i, block)| {
            let Block { q, k, v, o, ffn, .. } = block;
            let attention = [("q", q), ("k", k), ("v", v), ("o", o)];
            let attention =
                attention.map(|(name, layer)| (format!("self_attn.{name}_proj"), layer));
            let all = attention.into_iter().chain(ffn.linears());
            all.map(move |(name, layer)| (format!("model.layers.{i}.{name}"), layer))
        })
    }

    /// The same model with each of [`Llama::linears`] passed through `f`, with its HF name.
    pub fn map_linears<E>(
        mut self,
        mut f: impl FnMut(&str, Linear<B>) -> std::result::Result<Linear<B>, E>,
    ) -> std::result::Result<Llama<B>, E> {
        let blocks = std::mem::take(&mut self.blocks).into_iter().enumerate();
        for (i, mut block) in blocks {
            let mut f = |name: &str, layer| f(&format!("model.layers.{i}.{name}"), layer);
            block.q = f("self_attn.q_proj", block.q)?;
            block.k = f("self_attn.k_proj", block.k)?;
            block.v = f("self_attn.v_proj", block.v)?;
            block.o = f("self_attn.o_proj", block.o)?;
            block.ffn = block.ffn.map_linears(&mut f)?;
            self.blocks.push(block);
        }
        Ok(self)
    }

    /// The type of the stream.
    fn kind(&self) -> DType {
        if self.half { DType::BF16 } else { DType::F32 }
    }

    /// An empty cache for `batch` sequences of up to `capacity` tokens.
    pub fn cache(&self, batch: usize, capacity: usize) -> Cache<B> {
        let shape = [batch, self.config.kv_heads(), capacity, self.config.head_size()];
        let zeros = || Tensor::zeros(shape, (&self.embed.device(), self.kind()));
        let layers = self.blocks.iter().map(|_| Some((zeros(), zeros()))).collect();
        Cache { layers, batch, len: 0, capacity }
    }
}

impl<B: Kernels> Llama<B> {
    /// Logits of the next token at every position: `[b, t]` to `[b, t, vocab]`.
    pub fn forward(&self, tokens: &[u32], batch: usize) -> Result<Tensor<B, 3>> {
        let logits = self.logits(self.hidden(tokens, batch)?);
        let [rows, vocab] = logits.dims();
        Ok(logits.reshape([batch, rows / batch, vocab]))
    }

    /// The stream after the last norm: `[b, t]` to `[b * t, d]`. [`Llama::logits`] of chosen rows
    /// costs less than those of all.
    pub fn hidden(&self, tokens: &[u32], batch: usize) -> Result<Tensor<B, 2>> {
        let frame = self.frame(tokens, batch)?;
        Ok(self.stream(tokens, &frame, &mut Vec::new()))
    }

    /// Logits of the next token for rows of [`Llama::hidden`]: `[n, d]` to `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.head {
            Some(head) => head.forward(hidden),
            None => {
                let embed = self.embed.val().cast(hidden.dtype());
                hidden.matmul(embed.transpose())
            }
        }
    }

    /// Log-probability, at a temperature, of the token after each position in `at`. A position is
    /// an index into `tokens` (`[b, t]`), in any order, and never the last of its sequence.
    pub fn log_probs(
        &self,
        tokens: &[u32],
        batch: usize,
        at: &[usize],
        temperature: f32,
    ) -> Result<Tensor<B, 1>> {
        let frame = self.frame(tokens, batch)?;
        let targets = Llama::targets(&frame, tokens, at)?;
        let hidden = self.stream(tokens, &frame, &mut Vec::new());
        Ok(self.chosen(hidden, at, &targets, temperature))
    }

    /// [`Llama::log_probs`] for windows of several sequences, at temperature 1. A position in `at`
    /// is never the last of its sequence.
    pub fn packed_log_probs(&self, packed: &Packed, at: &[usize]) -> Result<Tensor<B, 1>> {
        let frame = self.packed_frame(packed)?;
        let targets = Llama::targets(&frame, &packed.tokens, at)?;
        let hidden = self.stream(&packed.tokens, &frame, &mut Vec::new());
        Ok(self.chosen(hidden, at, &targets, 1.0))
    }

    /// [`Llama::hidden`] for windows of several sequences, each at positions from 0. A window may
    /// be longer than the model's context, a sequence may not.
    pub fn packed_hidden(&self, packed: &Packed) -> Result<Tensor<B, 2>> {
        let frame = self.packed_frame(packed)?;
        Ok(self.stream(&packed.tokens, &frame, &mut Vec::new()))
    }

    /// Where the tokens of `[b, t]` stand, each sequence from position 0.
    pub fn frame(&self, tokens: &[u32], batch: usize) -> Result<Frame<B>> {
        self.frame_from(tokens, batch, 0)
    }

    /// Where the tokens of windows of several sequences stand.
    pub fn packed_frame(&self, packed: &Packed) -> Result<Frame<B>> {
        let (len, positions) = (packed.len(), packed.positions());
        let bound = self.config.context() as i32;
        if packed.starts.len() != packed.tokens.len()
            || positions.iter().any(|&at| at < 0 || at >= bound)
        {
            let message = format!("a sequence of a window does not fit the model's {bound} tokens");
            return Err(StageError::failed(message));
        }
        self.check(&packed.tokens, packed.batch)?;
        let span = Span { batch: packed.batch, len, start: 0 };
        let at = Tensor::<B, 1, Int>::from_data(positions.as_slice(), &self.embed.device());
        let angles = [self.cos.clone().select(0, at.clone()), self.sin.clone().select(0, at)];
        Ok(Frame { span, angles, starts: Some(packed.starts.clone()) })
    }

    /// The tokens after the positions in `at`: as in [`Llama::log_probs`] or, for windows of several
    /// sequences, [`Llama::packed_log_probs`].
    pub fn targets(frame: &Frame<B>, tokens: &[u32], at: &[usize]) -> Result<Vec<u32>> {
        let len = frame.span.len;
        let next = |&i: &usize| {
            let place = i % len + 1;
            let own = frame.starts.as_ref().is_none_or(|starts| {
                starts.get(i + 1).is_some_and(|&start| place > start as usize)
            });
            match tokens.get(i + 1) {
                Some(&token) if place < len && own => Ok(token),
                _ => Err(StageError::failed(format!("position {i} of {len} has no next token"))),
            }
        };
        at.iter().map(next).collect()
    }

    /// The stream before the first block: `[b * t, d]`.
    pub fn embedded(&self, tokens: &[u32]) -> Tensor<B, 2> {
        let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let ids = Tensor::<B, 1, Int>::from_data(ids.as_slice(), &self.embed.device());
        self.embed.val().select(0, ids).cast(self.kind())
    }

    /// The stream after a block, and where its router sent tokens, if it has one.
    pub fn through(
        &self,
        block: &Block<B>,
        x: Tensor<B, 2>,
        frame: &Frame<B>,
    ) -> (Tensor<B, 2>, Option<Routed<B>>) {
        block.forward(x, frame, None, &self.config)
    }

    /// The stream after the last norm, of tokens that stand as `frame` says: `[b * t, d]`. Where the
    /// routers sent tokens is added to `routed`, block by block.
    pub fn stream(
        &self,
        tokens: &[u32],
        frame: &Frame<B>,
        routed: &mut Vec<Routed<B>>,
    ) -> Tensor<B, 2> {
        self.run(tokens, frame, None, routed)
    }

    /// The stream after the last norm.
    pub fn normed(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        B::rms_norm(x, self.norm.val(), self.config.rms_norm_eps as f32)
    }

    /// Log-probabilities of `targets` at rows of the stream after the last norm.
    pub fn chosen(
        &self,
        hidden: Tensor<B, 2>,
        at: &[usize],
        targets: &[u32],
        temperature: f32,
    ) -> Tensor<B, 1> {
        let rows: Vec<i32> = at.iter().map(|&i| i as i32).collect();
        let rows = Tensor::<B, 1, Int>::from_data(rows.as_slice(), &hidden.device());
        B::log_probs(self.logits(hidden.select(0, rows)), targets, temperature)
    }

    /// The stream for tokens that follow those of the cache: `[b, t]` to `[b * t, d]`. The cache
    /// then holds them too.
    pub fn forward_cached(&self, tokens: &[u32], cache: &mut Cache<B>) -> Result<Tensor<B, 2>> {
        let frame = self.frame_from(tokens, cache.batch, cache.len)?;
        let span = frame.span;
        if span.start + span.len > cache.capacity {
            return Err(StageError::failed(format!(
                "{} tokens do not fit a cache of {}",
                span.start + span.len,
                cache.capacity
            )));
        }
        let out = self.run(tokens, &frame, Some(cache), &mut Vec::new());
        cache.len += span.len;
        Ok(out)
    }

    fn check(&self, tokens: &[u32], batch: usize) -> Result<()> {
        let vocab = self.config.vocab_size;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(StageError::failed(format!("token {token} is not below {vocab}"))
                .hint("use the tokenizer of this model"));
        }
        if batch == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(batch) {
            let n = tokens.len();
            return Err(StageError::failed(format!("{n} tokens are not {batch} sequences")));
        }
        Ok(())
    }

    fn frame_from(&self, tokens: &[u32], batch: usize, start: usize) -> Result<Frame<B>> {
        self.check(tokens, batch)?;
        let (len, limit) = (tokens.len() / batch, self.config.context());
        if start + len > limit {
            let message = format!("{} tokens are more than the model's {limit}", start + len);
            return Err(StageError::failed(message));
        }
        let angles = [&self.cos, &self.sin].map(|table| table.clone().narrow(0, start, len));
        Ok(Frame { span: Span { batch, len, start }, angles, starts: None })
    }

    fn run(
        &self,
        tokens: &[u32],
        frame: &Frame<B>,
        cache: Option<&mut Cache<B>>,
        routed: &mut Vec<Routed<B>>,
    ) -> Tensor<B, 2> {
        let mut x = self.embedded(tokens);
        let mut layers = cache.map(|cache| cache.layers.iter_mut());
        for block in &self.blocks {
            let layer = layers.as_mut().and_then(Iterator::next);
            let (out, sent) = block.forward(x, frame, layer, &self.config);
            routed.extend(sent);
            x = out;
        }
        self.normed(x)
    }
}

impl<B: Kernels> Block<B> {
    fn forward(
        &self,
        x: Tensor<B, 2>,
        frame: &Frame<B>,
        cache: Option<&mut Option<(Tensor<B, 4>, Tensor<B, 4>)>>,
        config: &Config,
    ) -> (Tensor<B, 2>, Option<Routed<B>>) {
        let (eps, size, groups) =
            (config.rms_norm_eps as f32, config.head_size(), config.kv_heads());
        let shared = config.num_attention_heads / groups;
        let Frame { span, angles: [cos, sin], starts } = frame;
        let span = *span;
        let Span { batch, len, .. } = span;

        let normed = B::rms_norm(x.clone(), self.input_norm.val(), eps);
        let heads = |x: Tensor<B, 2>, norm: &Option<Vector<B>>| {
            let [rows, width] = x.dims();
            let x = match norm {
                Some(norm) => {
                    let each = x.reshape([rows * width / size, size]);
                    B::rms_norm(each, norm.val(), eps).reshape([rows, width])
                }
                None => x,
            };
            B::rope(x, cos.clone(), sin.clone(), span)
        };
        let q = heads(self.q.forward(normed.clone()), &self.q_norm);
        let k = heads(self.k.forward(normed.clone()), &self.k_norm);
        let v = self.v.forward(normed).reshape([batch, len, groups, size]).swap_dims(1, 2);
        let (k, v) = match cache {
            Some(cache) => remember(cache, k, v, span),
            None => (k, v),
        };
        // The query heads of a group lie one after another: as rows of one product they share keys
        // and values without a copy of them.
        let q = q.reshape([batch, groups, shared * len, size]);
        let scores = q.matmul(k.swap_dims(2, 3));
        let scale = 1.0 / (size as f32).sqrt();
        let probs = match starts {
            Some(starts) => B::packed_softmax(scores, scale, span, starts),
            None => B::causal_softmax(scores, scale, span),
        };
        let mixed = probs.matmul(v).reshape([batch, groups * shared, len, size]);
        let mixed = mixed.swap_dims(1, 2).reshape([batch * len, groups * shared * size]);
        let x = x + self.o.forward(mixed);

        let normed = B::rms_norm(x.clone(), self.post_norm.val(), eps);
        let (out, routed) = self.ffn.forward(normed);
        (x + out, routed)
    }
}

/// Writes new keys and values into the cache and returns all so far.
fn remember<B: Backend>(
    cache: &mut Option<(Tensor<B, 4>, Tensor<B, 4>)>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    span: Span,
) -> (Tensor<B, 4>, Tensor<B, 4>) {
    // Taken out, so that the write finds a tensor that nobody shares and happens in place.
    let Some((keys, values)) = cache.take() else { return (k, v) };
    let [batch, groups, _, size] = k.dims();
    let end = span.start + span.len;
    let place = [0..batch, 0..groups, span.start..end, 0..size];
    let keys = keys.slice_assign(place.clone(), k);
    let values = values.slice_assign(place, v);
    let seen = (keys.clone().narrow(2, 0, end), values.clone().narrow(2, 0, end));
    *cache = Some((keys, values));
    seen
}
