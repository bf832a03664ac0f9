//! Text from a model: a prompt is read once, then tokens are drawn one after another.
//!
//! All samples of a prompt go through the model as one batch that starts from one cache, and a
//! prompt can go on from another, so that what many prompts begin with is read once. Each sample
//! draws from a random stream of its own, so that it does not depend on how many others there are. A
//! sample that has ended is computed no further: the batch shrinks to those that go on.
//! There is no beam search, and no grammar: that is [`super::constrained`].

use burn::prelude::*;

use super::kernels::Kernels;
use super::llama::{Cache, Llama};
pub use crate::decode::Sampling;
use crate::decode::sampling::{draw, stream};
use crate::{Result, StageError};

/// What was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The tokens, with the one that stopped it.
    pub tokens: Vec<u32>,
    /// The log-probability of each, as [`draw`] gives it.
    pub log_probs: Vec<f32>,
    /// It ended by a stop token and not by `max_tokens`.
    pub stopped: bool,
}

/// A prompt that the model has read.
#[derive(Clone, Debug)]
pub struct Prompt<B: Backend> {
    pub(super) cache: Cache<B>,
    /// The different tokens that it has.
    tokens: Vec<u32>,
    /// Logits of the next token.
    logits: Vec<f32>,
}

impl<B: Kernels> Prompt<B> {
    /// Reads a prompt of at least one token, with room for `room` more.
    pub fn read(model: &Llama<B>, tokens: &[u32], room: usize) -> Result<Prompt<B>> {
        let capacity = (tokens.len() + room).min(model.config.context());
        let mut cache = model.cache(1, capacity.max(tokens.len()));
        let logits = step(model, tokens, &mut cache)?;
        Ok(Prompt { cache, tokens: different(tokens.to_vec()), logits })
    }

    /// This prompt and more tokens after it. What was read is not read again.
    pub fn then(&self, model: &Llama<B>, tokens: &[u32]) -> Result<Prompt<B>> {
        if tokens.is_empty() {
            return Ok(self.clone());
        }
        let mut cache = self.cache.clone();
        let logits = step(model, tokens, &mut cache)?;
        let all = [self.tokens.as_slice(), tokens].concat();
        Ok(Prompt { cache, tokens: different(all), logits })
    }

    /// Logits of the token after the prompt.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}

fn different(mut tokens: Vec<u32>) -> Vec<u32> {
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

/// Reads `[b, t]` tokens and gives the logits after the last of each sequence, `[b, vocab]`.
pub(super) fn step<B: Kernels>(
    model: &Llama<B>,
    tokens: &[u32],
    cache: &mut Cache<B>,
) -> Result<Vec<f32>> {
    let len = tokens.len() / cache.batch().max(1);
    let hidden = model.forward_cached(tokens, cache)?;
    let hidden = match len {
        1 => hidden,
        _ => {
            let last: Vec<i32> = (1..=cache.batch()).map(|i| (i * len - 1) as i32).collect();
            let rows = Tensor::<B, 1, Int>::from_data(last.as_slice(), &hidden.device());
            hidden.select(0, rows)
        }
    };
    let logits = model.logits(hidden).into_data().convert::<f32>();
    logits.into_vec().map_err(|e| StageError::failed(format!("logits: {e:?}")))
}

/// Drops the sequences of a cache that are not in `going`.
pub(super) fn shrink<B: Kernels>(cache: &mut Cache<B>, going: &[usize]) {
    if going.len() < cache.batch() {
        *cache = cache.keep(going);
    }
}

/// Draws `n` samples after a prompt. A sample also ends where the model's context does.
pub fn sample<B: Kernels>(
    model: &Llama<B>,
    prompt: &Prompt<B>,
    n: usize,
    sampling: &Sampling,
    seed: u64,
) -> Result<Vec<Sample>> {
    let mut samples = vec![Sample { tokens: vec![], log_probs: vec![], stopped: false }; n];
    let room = prompt.cache.capacity() - prompt.cache.len();
    let most = sampling.max_tokens.min(room + 1);
    if n == 0 || most == 0 {
        return Ok(samples);
    }
    let mut streams: Vec<_> = (0..n).map(|i| stream(seed, i as u64)).collect();
    // The different tokens so far of each sample, where the penalty asks for them.
    let penalised = sampling.repetition_penalty != 1.0;
    let mut seen = vec![if penalised { prompt.tokens.clone() } else { Vec::new() }; n];
    let mut cache = prompt.cache.repeat(n);
    let mut logits = prompt.logits.repeat(n);
    let vocab = prompt.logits.len();
    // Which samples the rows of the cache are.
    let mut open: Vec<usize> = (0..n).collect();
    for drawn in 1..=most {
        let (mut next, mut going) = (Vec::new(), Vec::new());
        for (row, (&i, logits)) in open.iter().zip(logits.chunks_exact(vocab)).enumerate() {
            let (sample, seen) = (&mut samples[i], &mut seen[i]);
            let (token, log_prob) = draw(logits, None, seen, sampling, &mut streams[i])?;
            if penalised && !seen.contains(&token) {
                seen.push(token);
            }
            sample.tokens.push(token);
            sample.log_probs.push(log_prob);
            sample.stopped = sampling.stop.contains(&token);
            if !sample.stopped {
                next.push(token);
                going.push(row);
            }
        }
        if drawn == most || going.is_empty() {
            break;
        }
        shrink(&mut cache, &going);
        open = going.into_iter().map(|row| open[row]).collect();
        logits = step(model, &next, &mut cache)?;
    }
    Ok(samples)
}

/// Draws `n` samples after the tokens of a prompt.
pub fn generate<B: Kernels>(
    model: &Llama<B>,
    prompt: &[u32],
    n: usize,
    sampling: &Sampling,
    seed: u64,
) -> Result<Vec<Sample>> {
    let prompt = Prompt::read(model, prompt, sampling.max_tokens)?;
    sample(model, &prompt, n, sampling, seed)
}
