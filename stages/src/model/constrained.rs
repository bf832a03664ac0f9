//! Samples that keep to a grammar, from a model in training.
//!
//! As [`super::generate`], but each token is drawn among those that a grammar allows, and where it
//! allows only one, that one is taken unasked. What the answers begin with is read with the prompt;
//! what is forced later is read in one pass where every sample has more to read. A sample that has ended
//! is computed no further. Beside each token
//! stands what it was chosen among, so that a loss can ask for its probability in the same terms.
//!
//! There is no repetition penalty here. Models that only answer run on [`crate::infer`].

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;

use super::generate::{Prompt, Sample, Sampling, shrink, step};
use super::kernels::Kernels;
use super::llama::Llama;
use crate::Result;
use crate::decode::Constraint;
use crate::decode::sampling::{draw, stream};

/// The tokens that one was chosen among, a bit each, as [`crate::decode::sampling::Mask`] has them;
/// none of a token that was forced.
pub type Choice = Option<Vec<u32>>;

/// A sample, and its choices.
#[derive(Clone, Debug, PartialEq)]
pub struct Constrained {
    /// The sample. A forced token has the log-probability 0, and an end that is forced is no token;
    /// `stopped` is true where the text is one of the grammar.
    pub sample: Sample,
    /// What each token was chosen among.
    pub choices: Vec<Choice>,
}

/// A sample on its way.
struct Way {
    constraint: Constraint,
    rng: ChaCha8Rng,
    out: Constrained,
    /// Tokens that the model has yet to read.
    queue: VecDeque<u32>,
    done: bool,
}

impl Way {
    fn push(&mut self, token: u32, log_prob: f32, choice: Choice) {
        self.out.sample.tokens.push(token);
        self.out.sample.log_probs.push(log_prob);
        self.out.choices.push(choice);
    }

    /// Takes what is forced, and ends where the grammar or the room does.
    fn force(&mut self, most: usize) -> Result<()> {
        for token in self.constraint.forced()? {
            self.push(token, 0.0, None);
            self.queue.push_back(token);
        }
        let len = self.out.sample.tokens.len();
        let ended = self.constraint.ended();
        self.done = ended || len >= most;
        self.out.sample.stopped = self.done && len <= most && self.constraint.complete();
        self.out.sample.tokens.truncate(most);
        self.out.sample.log_probs.truncate(most);
        self.out.choices.truncate(most);
        Ok(())
    }

    fn draw(&mut self, logits: &[f32], sampling: &Sampling, most: usize) -> Result<()> {
        let mask = self.constraint.mask();
        let choice = mask.map(<[u32]>::to_vec);
        let (token, log_prob) = draw(logits, mask, &[], sampling, &mut self.rng)?;
        self.push(token, log_prob, choice);
        if sampling.stop.contains(&token) {
            (self.done, self.out.sample.stopped) = (true, true);
            return Ok(());
        }
        self.constraint.accept(token)?;
        self.queue.push_back(token);
        self.force(most)
    }
}

/// Draws `n` samples after a prompt, each by a random stream of its own, at most
/// `sampling.max_tokens` long.
///
/// # Errors
/// The prompt is longer than the context, the logits are not numbers, or the grammar meets a limit.
pub fn constrained<B: Kernels>(
    model: &Llama<B>,
    prompt: &[u32],
    n: usize,
    sampling: &Sampling,
    seed: u64,
    constraint: &Constraint,
) -> Result<Vec<Constrained>> {
    let begin = |i: usize| {
        let sample = Sample { tokens: vec![], log_probs: vec![], stopped: false };
        let mut way = Way {
            constraint: constraint.clone(),
            rng: stream(seed, i as u64),
            out: Constrained { sample, choices: vec![] },
            queue: VecDeque::new(),
            done: false,
        };
        way.force(sampling.max_tokens)?;
        Ok(way)
    };
    let mut ways = (0..n).map(begin).collect::<Result<Vec<Way>>>()?;
    // All begin alike.
    let opening: Vec<u32> = ways.first().map(|way| way.queue.clone().into()).unwrap_or_default();
    if ways.iter().all(|way| way.done) {
        return Ok(ways.into_iter().map(|way| way.out).collect());
    }
    let read = Prompt::read(model, &[prompt, &opening].concat(), sampling.max_tokens)?;
    let room = read.cache.capacity() - read.cache.len();
    let most = sampling.max_tokens.min(opening.len() + room + 1);
    let vocab = read.logits().len();
    let (mut cache, mut logits) = (read.cache.repeat(n), read.logits().repeat(n));
    ways.iter_mut().for_each(|way| way.queue.clear());
    // Which samples the rows of the cache are: those that have ended leave it.
    let mut open: Vec<usize> = (0..n).collect();
    loop {
        let mut going = Vec::new();
        for (row, (&i, logits)) in open.iter().zip(logits.chunks_exact(vocab)).enumerate() {
            let way = &mut ways[i];
            if way.queue.is_empty() {
                way.draw(logits, sampling, most)?;
            }
            if !way.done {
                going.push(row);
            }
        }
        shrink(&mut cache, &going);
        open = going.into_iter().map(|row| open[row]).collect();
        let Some(len) = open.iter().map(|&i| ways[i].queue.len()).min() else { break };
        let mut next = Vec::with_capacity(open.len() * len);
        for &i in &open {
            next.extend(ways[i].queue.drain(..len));
        }
        logits = step(model, &next, &mut cache)?;
    }
    Ok(ways.into_iter().map(|way| way.out).collect())
}
