//! Log-probabilities of completions, and what a loss on them sends back through the model.
//!
//! Completions are a few tokens and prompts are hundreds, so the completions of one prompt share
//! its forward and backward pass: the prompt runs once into a cache of keys and values, the
//! completions run as one batch behind it, and the gradients of all of them meet in the prompt. A
//! DPO pair thus costs about one sequence and not two, a DAPO group of eight one and not eight; a
//! test holds the result against separate sequences.
//!
//! Of completions that were sampled under a grammar, a token's probability is that among the tokens
//! that the grammar allowed there; a token that was the only one has none, and none is computed.

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

use crate::decode::sampling::allows;
use crate::model::{Choice, Kernels, Llama};
use crate::{Result, StageError};

/// A prompt and completions of it, as tokens. Completions are not empty and hold their end-of-text
/// token where they have one.
#[derive(Clone, Debug)]
pub struct Group {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// At least one.
    pub completions: Vec<Vec<u32>>,
    /// Under a grammar: what each token of each completion was chosen among. Empty without one.
    pub choices: Vec<Vec<Choice>>,
}

impl Group {
    /// Completions that nothing bound.
    pub fn free(prompt: Vec<u32>, completions: Vec<Vec<u32>>) -> Group {
        Group { prompt, completions, choices: Vec::new() }
    }
    /// Tokens of all completions.
    pub fn tokens(&self) -> usize {
        self.completions.iter().map(Vec::len).sum()
    }
    /// How many tokens of each completion were chosen and not forced.
    pub fn chosen(&self) -> Vec<usize> {
        match self.choices.is_empty() {
            true => self.completions.iter().map(Vec::len).collect(),
            false => self.choices.iter().map(|all| all.iter().flatten().count()).collect(),
        }
    }
}

/// Low enough that no probability is left of it, and a number on every device.
const NEVER: f32 = -1e30;

/// Logits `[n, vocab]` of which only those in the mask of their row count: the others get no
/// probability and no gradient. No masks leave them as they are.
pub fn keep<B: Backend>(logits: Tensor<B, 2>, masks: &[&[u32]]) -> Tensor<B, 2> {
    if masks.is_empty() {
        return logits;
    }
    let [rows, vocab] = logits.dims();
    let rows_and_tokens = masks.iter().flat_map(|mask| (0..vocab).map(move |token| (*mask, token)));
    let refused: Vec<bool> =
        rows_and_tokens.map(|(mask, token)| !allows(Some(mask), token)).collect();
    let refused = TensorData::new(refused, [rows, vocab]);
    let refused = Tensor::<B, 2, Bool>::from_data(refused, &logits.device());
    logits.mask_fill(refused, NEVER)
}

/// Log-probability, at a temperature, of every token of every completion that was not forced:
/// `[tokens]`, completion by completion.
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
    let (mut places, mut targets, mut masks) = (Vec::new(), Vec::new(), Vec::new());
    for (c, tokens) in completions.iter().enumerate() {
        for (i, token) in tokens.iter().enumerate() {
            if let Some(choices) = group.choices.get(c) {
                let Some(Some(mask)) = choices.get(i) else { continue };
                masks.push(mask.as_slice());
            }
            places.push(if i == 0 { 0 } else { (c * width + i) as i32 });
            targets.push(*token);
        }
    }
    if places.is_empty() {
        return Err(StageError::failed("a grammar that leaves no choice"));
    }
    let places = Tensor::<B, 1, Int>::from_data(places.as_slice(), &hidden.device());
    let logits = keep(model.logits(hidden.select(0, places)), &masks);
    Ok(B::log_probs(logits, &targets, temperature))
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
    backward_with(logp, grad, Vec::new(), model, sum);
}

/// [`backward`] of a loss with more terms, `[1]` each.
pub fn backward_with<B: AutodiffBackend, M: AutodiffModule<B>>(
    logp: Tensor<B, 1>,
    grad: &[f64],
    terms: Vec<Tensor<B, 1>>,
    model: &M,
    sum: &mut GradientsAccumulator<M>,
) {
    let grad: Vec<f32> = grad.iter().map(|g| *g as f32).collect();
    let weights = Tensor::<B, 1>::from_data(grad.as_slice(), &logp.device());
    let loss = terms.into_iter().fold((logp * weights).sum(), |loss, term| loss + term);
    sum.accumulate(model, GradientsParams::from_grads(loss.backward(), model));
}
