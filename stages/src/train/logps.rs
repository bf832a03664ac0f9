//! Log-probabilities of completions, and what a loss on them sends back through the model.
//!
//! Completions are a few tokens and prompts are hundreds, so the completions of one prompt share
//! its forward and backward pass: the prompt runs once into a cache of keys and values, the
//! completions run as one batch behind it, and the gradients of all of them meet in the prompt. A
//! DPO pair thus costs about one sequence and not two, a DAPO group of eight one and not eight; a
//! test holds the result against separate sequences.

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

use crate::model::{Kernels, Llama};
use crate::{Result, StageError};

/// A prompt and completions of it, as tokens. Completions are not empty and hold their end-of-text
/// token where they have one.
#[derive(Clone, Debug)]
pub struct Group {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// At least one.
    pub completions: Vec<Vec<u32>>,
}

impl Group {
    /// Tokens of all completions.
    pub fn tokens(&self) -> usize {
        self.completions.iter().map(Vec::len).sum()
    }
}

/// Log-probability, at a temperature, of every token of every completion: `[tokens]`, completion
/// by completion.
pub fn group<B: Kernels>(
    model: &Llama<B>,
    group: &Group,
    temperature: f32,
) -> Result<Tensor<B, 1>> {
    let (prompt, completions) = (&group.prompt, &group.completions);
    let longest = completions.iter().map(Vec::len).max().unwrap_or(0);
    if prompt.is_empty() || longest == 0 {
        return Err(StageError::failed("an empty prompt or completion"));
    }
    // The last token of a completion is predicted but, having nothing after it, is no input.
    let width = longest - 1;
    let mut cache = model.cache(1, prompt.len() + width);
    let hidden = model.forward_cached(prompt, &mut cache)?;
    let mut hidden = hidden.narrow(0, prompt.len() - 1, 1);
    if width > 0 {
        let mut inputs = vec![0; completions.len() * width];
        for (row, tokens) in inputs.chunks_mut(width).zip(completions) {
            for (input, token) in row.iter_mut().zip(&tokens[..tokens.len() - 1]) {
                *input = *token;
            }
        }
        let behind = model.forward_cached(&inputs, &mut cache.repeat(completions.len()))?;
        hidden = Tensor::cat(vec![hidden, behind], 0);
    }
    // Row 0 predicts every first token; row 1 + c * width + i what follows input i of completion c.
    let mut places = Vec::with_capacity(group.tokens());
    for (c, tokens) in completions.iter().enumerate() {
        let later = (1..tokens.len()).map(|i| (c * width + i) as i32);
        places.extend(std::iter::once(0).take(tokens.len()).chain(later));
    }
    let places = Tensor::<B, 1, Int>::from_data(places.as_slice(), &hidden.device());
    let logits = model.logits(hidden.select(0, places));
    Ok(B::log_probs(logits, &completions.concat(), temperature))
}

/// The numbers of a tensor.
pub fn numbers<B: Backend>(tensor: &Tensor<B, 1>) -> Vec<f64> {
    tensor.to_data().iter::<f32>().map(f64::from).collect()
}

/// Sends the gradient of a loss with respect to log-probabilities back through the model, and adds
/// what arrives at its parameters to `sum`.
pub fn backward<B: AutodiffBackend, M: AutodiffModule<B>>(
    logp: Tensor<B, 1>,
    grad: &[f64],
    model: &M,
    sum: &mut GradientsAccumulator<M>,
) {
    let grad: Vec<f32> = grad.iter().map(|g| *g as f32).collect();
    let weights = Tensor::<B, 1>::from_data(grad.as_slice(), &logp.device());
    let grads = (logp * weights).sum().backward();
    sum.accumulate(model, GradientsParams::from_grads(grads, model));
}
