//! Text from a model: a prompt is read once, then tokens are drawn one after another.
//!
//! All samples of a prompt go through the model as one batch that starts from one cache, and a
//! prompt can go on from another, so that what many prompts begin with is read once. Each sample
//! draws from a random stream of its own, so that it does not depend on how many others there are.
//! There is no beam search, and no grammar: what is drawn is checked by whoever parses it.

use burn::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::kernels::Kernels;
use super::llama::{Cache, Llama};
use super::weights::uniform;
use crate::{Result, StageError};

/// How to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Draws among that many most likely tokens; 0 means all.
    pub top_k: usize,
    /// Draws among the most likely tokens that together have this probability; 1 means all.
    pub top_p: f32,
    /// Most tokens of a sample.
    pub max_tokens: usize,
    /// Tokens that end a sample; the one drawn is its last.
    pub stop: Vec<u32>,
}

impl Sampling {
    /// The most likely token each time.
    pub fn greedy(max_tokens: usize, stop: &[u32]) -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, max_tokens, stop: stop.to_vec() }
    }
}

/// What was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The tokens, with the one that stopped it.
    pub tokens: Vec<u32>,
    /// The log-probability of each at the temperature (at 1 where it is 0), among all tokens:
    /// `top_k` and `top_p` do not raise it.
    pub log_probs: Vec<f32>,
    /// It ended by a stop token and not by `max_tokens`.
    pub stopped: bool,
}

/// A prompt that the model has read.
#[derive(Clone, Debug)]
pub struct Prompt<B: Backend> {
    cache: Cache<B>,
    /// Logits of the next token.
    logits: Vec<f32>,
}

impl<B: Kernels> Prompt<B> {
    /// Reads a prompt of at least one token, with room for `room` more.
    pub fn read(model: &Llama<B>, tokens: &[u32], room: usize) -> Result<Prompt<B>> {
        let capacity = (tokens.len() + room).min(model.config.context());
        let mut cache = model.cache(1, capacity.max(tokens.len()));
        let logits = step(model, tokens, &mut cache)?;
        Ok(Prompt { cache, logits })
    }

    /// This prompt and more tokens after it. What was read is not read again.
    pub fn then(&self, model: &Llama<B>, tokens: &[u32]) -> Result<Prompt<B>> {
        if tokens.is_empty() {
            return Ok(self.clone());
        }
        let mut cache = self.cache.clone();
        let logits = step(model, tokens, &mut cache)?;
        Ok(Prompt { cache, logits })
    }

    /// Logits of the token after the prompt.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}

/// Reads `[b, t]` tokens and gives the logits after the last of each sequence, `[b, vocab]`.
fn step<B: Kernels>(model: &Llama<B>, tokens: &[u32], cache: &mut Cache<B>) -> Result<Vec<f32>> {
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
    let mut streams: Vec<ChaCha8Rng> = (0..n)
        .map(|i| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(i as u64);
            rng
        })
        .collect();
    let mut cache = prompt.cache.repeat(n);
    let mut logits = prompt.logits.repeat(n);
    let vocab = prompt.logits.len();
    let idle = sampling.stop.first().copied().unwrap_or(0);
    for drawn in 1..=most {
        let mut next = vec![idle; n];
        let rows = logits.chunks_exact(vocab).zip(&mut streams);
        for ((sample, next), (row, rng)) in samples.iter_mut().zip(&mut next).zip(rows) {
            if !sample.stopped {
                let (token, log_prob) = draw(row, sampling, rng);
                sample.tokens.push(token);
                sample.log_probs.push(log_prob);
                sample.stopped = sampling.stop.contains(&token);
                *next = token;
            }
        }
        if drawn == most || samples.iter().all(|sample| sample.stopped) {
            break;
        }
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

/// One token of a row of logits, and its log-probability.
fn draw(logits: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> (u32, f32) {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if x > logits[best] {
            best = i;
        }
    }
    let greedy = sampling.temperature <= 0.0;
    let heat = if greedy { 1.0 } else { f64::from(sampling.temperature) };
    let top = f64::from(logits[best]);
    let weight = |i: usize| ((f64::from(logits[i]) - top) / heat).exp();
    let weights: Vec<f64> = (0..logits.len()).map(weight).collect();
    let total: f64 = weights.iter().sum();
    let log_prob = |i: usize| ((f64::from(logits[i]) - top) / heat - total.ln()) as f32;
    if greedy {
        return (best as u32, log_prob(best));
    }
    let mut among: Vec<usize> = (0..logits.len()).collect();
    if sampling.top_k > 0 || sampling.top_p < 1.0 {
        among.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
        if sampling.top_k > 0 {
            among.truncate(sampling.top_k);
        }
        let mut held: f64 = among.iter().map(|&i| weights[i]).sum();
        let enough = held * f64::from(sampling.top_p);
        held = 0.0;
        let kept = among.iter().position(|&i| {
            held += weights[i];
            held >= enough
        });
        among.truncate(kept.map_or(among.len(), |last| last + 1));
    }
    let held: f64 = among.iter().map(|&i| weights[i]).sum();
    let mut left = uniform(rng) * held;
    let chosen = among.iter().find(|&&i| {
        left -= weights[i];
        left <= 0.0
    });
    let chosen = chosen.or(among.last()).copied().unwrap_or(best);
    (chosen as u32, log_prob(chosen))
}
