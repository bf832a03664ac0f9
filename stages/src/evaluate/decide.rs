//! Asks a model for its decision at each prompt, and keeps the answer to the character.
//!
//! What all prompts begin with is read once; each then goes on alone, so that an answer depends on
//! its own prompt and on nothing else, neither on how many there are nor on the threads. Nothing
//! constrains the answer to the grammar: whether the model has learned it is part of what is
//! measured.

use burn::prelude::Backend;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::input::Prompt;
use super::numbers::count;
use super::params::Params;
use crate::device::{self, Back};
use crate::model::{self, Loaded, Sampling};
use crate::{Context, Device, Result, StageError};

/// Prompts between two reports of progress.
const BATCH: usize = 8;

/// A model's answers, and what it is.
pub struct Decided {
    /// The answers, one a prompt.
    pub answers: Vec<String>,
    /// The model in a line.
    pub about: String,
}

/// How far all models together are.
pub struct Count {
    /// Prompts answered before.
    pub done: usize,
    /// Prompts to answer in all.
    pub total: usize,
}

/// Answers every prompt with the model of a port.
///
/// # Errors
/// The folder is no model, or a prompt does not fit into the model's context.
pub fn decide(
    ctx: &Context,
    port: &str,
    prompts: &[Prompt],
    params: &Params,
    count: Count,
) -> Result<Decided> {
    let place = device::open(ctx.device())?;
    ctx.progress(count.done as u64, count.total as u64, "prompts", format!("loading {port}"))?;
    let loaded: Loaded<Back> = model::load(ctx, port, &place)?;
    let about = about(port, &loaded);
    let tokens = tokens(&loaded, prompts, params)?;
    let shared = shared(&tokens);
    let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
    let sampling = Sampling {
        temperature: params.temperature as f32,
        ..Sampling::greedy(params.max_new_tokens, loaded.tokenizer.eos())
    };
    let room = longest - shared + params.max_new_tokens;
    let start = match tokens.first().and_then(|t| t.get(..shared)) {
        Some(start) if shared > 0 => Some(model::Prompt::read(&loaded.model, start, room)?),
        _ => None,
    };
    let answer = |(at, tokens): (usize, &Vec<u32>)| -> Result<String> {
        let rest = tokens.get(shared..).unwrap_or_default();
        let prompt = match &start {
            Some(start) => start.then(&loaded.model, rest)?,
            None => model::Prompt::read(&loaded.model, rest, params.max_new_tokens)?,
        };
        let drawn = model::sample(&loaded.model, &prompt, 1, &sampling, seed(ctx.seed(), at))?;
        let written: Vec<u32> = drawn.into_iter().flat_map(|s| s.tokens).collect();
        loaded.tokenizer.decode(&written)
    };
    let numbered: Vec<(usize, &Vec<u32>)> = tokens.iter().enumerate().collect();
    let mut answers = Vec::with_capacity(prompts.len());
    for batch in numbered.chunks(BATCH) {
        let done = (count.done + answers.len()) as u64;
        ctx.progress(done, count.total as u64, "prompts", port)?;
        let more: Result<Vec<String>> = match ctx.device() {
            Device::Cpu => batch.par_iter().map(|item| answer(*item)).collect(),
            _ => batch.iter().map(|item| answer(*item)).collect(),
        };
        answers.extend(more?);
    }
    Ok(Decided { answers, about })
}

/// The seed of a prompt, where answers are sampled.
fn seed(seed: u64, at: usize) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(at as u64);
    rng.next_u64()
}

/// Tokens of every prompt.
fn tokens<B: Backend>(
    loaded: &Loaded<B>,
    prompts: &[Prompt],
    params: &Params,
) -> Result<Vec<Vec<u32>>> {
    let limit = loaded.model.config.max_position_embeddings;
    let of = |prompt: &Prompt| {
        let tokens = loaded.tokenizer.prompt(&prompt.text)?;
        if tokens.is_empty() || tokens.len() + params.max_new_tokens > limit {
            let message = format!(
                "a prompt has {} tokens; with {} for the answer it does not fit the model's context of {limit}",
                tokens.len(),
                params.max_new_tokens
            );
            return Err(StageError::failed(message)
                .hint("shorten the prompts in `encode`, or take a model with a longer context"));
        }
        Ok(tokens)
    };
    prompts.iter().map(of).collect()
}

/// How many tokens all prompts begin with, at least one left to each.
fn shared(prompts: &[Vec<u32>]) -> usize {
    let Some(first) = prompts.first() else { return 0 };
    let with = |other: &Vec<u32>| {
        let same = first.iter().zip(other).take_while(|(a, b)| a == b).count();
        same.min(other.len().saturating_sub(1))
    };
    prompts.iter().map(with).min().unwrap_or(0)
}

fn about<B: Backend>(port: &str, loaded: &Loaded<B>) -> String {
    let config = &loaded.model.config;
    format!(
        "{port}: {}, {} parameters, {} layers of {}, vocabulary of {}, context of {}",
        config.model_type,
        count(config.parameters()),
        config.num_hidden_layers,
        count(config.hidden_size),
        count(config.vocab_size),
        count(config.max_position_embeddings)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_leaves_each_prompt_a_token() {
        assert_eq!(shared(&[vec![1, 2, 3, 4], vec![1, 2, 5]]), 2);
        assert_eq!(shared(&[vec![1, 2], vec![1, 2]]), 1);
        assert_eq!(shared(&[vec![1], vec![2]]), 0);
        assert_eq!(shared(&[]), 0);
    }

    #[test]
    fn each_prompt_has_a_seed_of_its_own() {
        assert_ne!(seed(0, 0), seed(0, 1));
        assert_ne!(seed(0, 0), seed(1, 0));
        assert_eq!(seed(3, 9), seed(3, 9));
    }
}
