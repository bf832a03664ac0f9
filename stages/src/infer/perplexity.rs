//! How surprised a model is by a text.

use super::Engine;
use crate::{Result, StageError};

/// Tokens whose logits are held at a time.
const CHUNK: usize = 64;

/// The mean loss a token, in nats, and over how many; perplexity is its exponential.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Nats a token.
    pub mean: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
}

impl Loss {
    /// `e^mean`.
    pub fn perplexity(self) -> f64 {
        self.mean.exp()
    }
}

/// The loss of a text that is cut into windows of `window` tokens (at least 2), each read afresh;
/// the first token of a window is given and not predicted. An error where no token is predicted or
/// a token is not of the vocabulary.
pub fn perplexity(engine: &Engine, tokens: &[u32], window: usize) -> Result<Loss> {
    let window = window.clamp(2, engine.about().context.max(2));
    let vocab = engine.config().vocab_size;
    let (mut sum, mut count) = (0.0, 0);
    let mut session = engine.session(window);
    for window in tokens.chunks(window).filter(|window| window.len() > 1) {
        session.truncate(0);
        let (given, next) = (&window[..window.len() - 1], &window[1..]);
        for (given, next) in given.chunks(CHUNK).zip(next.chunks(CHUNK)) {
            let logits = session.read_all(engine, given)?;
            for (logits, &token) in logits.chunks_exact(vocab).zip(next) {
                sum -= log_prob(logits, token)?;
            }
            count += next.len();
        }
    }
    if count == 0 {
        return Err(StageError::failed("a text of fewer than two tokens has no loss"));
    }
    Ok(Loss { mean: sum / count as f64, tokens: count })
}

/// The log-probability of a token, by logits.
fn log_prob(logits: &[f32], token: u32) -> Result<f64> {
    let Some(&logit) = logits.get(token as usize) else {
        return Err(StageError::failed(format!("token {token} is not below {}", logits.len())));
    };
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from((x - top).exp())).sum();
    Ok(f64::from(logit - top) - sum.ln())
}
