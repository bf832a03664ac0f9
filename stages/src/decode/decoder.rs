//! One sample, step by step: logits in, tokens to read out, until it ends.
//!
//! It knows no model. Whoever has one reads what [`Decoder::begin`] and [`Decoder::step`] give and
//! brings the logits that follow; so one loop drives a single sample, another a batch of many, and a
//! test drives it with random numbers. Tokens that a grammar forces come out together with the drawn
//! one before them, so that a model reads them in one pass.
//!
//! Text comes out as far as it is whole: characters are not cut, and what may be the beginning of a
//! stop text is held back.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::grammar::Constraint;
use super::sampling::{self, Sampling, draw};
use super::vocabulary::Vocabulary;
use crate::Result;

/// What a sample is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How tokens are drawn, how many at most, and which end it.
    pub sampling: Sampling,
    /// Texts that end it; they are not part of it.
    pub stop: Vec<String>,
    /// The seed of all samples of a prompt.
    pub seed: u64,
    /// Which of them it is.
    pub sample: u64,
    /// How many of the likeliest tokens are noted at each step; none at all costs nothing.
    pub likeliest: Option<usize>,
}

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A token or a text that ends it, or the end of the grammar.
    Stop,
    /// It has as many tokens as it may, or the context is full.
    Length,
}

/// A token of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// Its log-probability among those allowed, at the temperature; 0 of a forced one.
    pub log_prob: f32,
    /// The grammar left no choice.
    pub forced: bool,
    /// Where [`Wanted::likeliest`] asks: what the model alone says here.
    pub model: Option<Opinion>,
}

/// What a model says of the next token, at temperature 1 and without a grammar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opinion {
    /// The log-probability of the token that was drawn.
    pub log_prob: f64,
    /// The likeliest tokens and their log-probabilities, the likeliest first.
    pub likeliest: Vec<(u32, f64)>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The model is to read these.
    Read(Vec<u32>),
    /// The sample has ended.
    Done(Finish),
}

/// A sample on its way.
pub struct Decoder {
    vocabulary: Arc<Vocabulary>,
    wanted: Wanted,
    constraint: Option<Constraint>,
    rng: ChaCha8Rng,
    /// The different tokens so far, where the penalty asks for them.
    seen: Vec<u32>,
    tokens: Vec<Token>,
    bytes: Vec<u8>,
    told: usize,
    finish: Option<Finish>,
}

impl Decoder {
    /// Begins a sample after a prompt. What is to be read after the prompt, before the first logits are
    /// asked for, comes with it: the tokens that the grammar begins with.
    ///
    /// # Errors
    /// The grammar meets a limit.
    pub fn begin(
        vocabulary: &Arc<Vocabulary>,
        prompt: &[u32],
        wanted: Wanted,
        constraint: Option<Constraint>,
    ) -> Result<(Decoder, Next)> {
        let rng = sampling::stream(wanted.seed, wanted.sample);
        let mut seen = Vec::new();
        if wanted.sampling.repetition_penalty != 1.0 {
            seen.extend_from_slice(prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        let vocabulary = vocabulary.clone();
        let (tokens, bytes, told, finish) = (Vec::new(), Vec::new(), 0, None);
        let mut decoder =
            Decoder { vocabulary, wanted, constraint, rng, seen, tokens, bytes, told, finish };
        if decoder.wanted.sampling.max_tokens == 0 {
            return Ok((decoder, Next::Done(Finish::Length)));
        }
        let mut read = Vec::new();
        decoder.forced(&mut read)?;
        let next = decoder.next(read);
        Ok((decoder, next))
    }

    /// Draws the next token by the logits after all that was read.
    ///
    /// # Errors
    /// The logits are not numbers, or the grammar meets a limit.
    pub fn step(&mut self, logits: &[f32]) -> Result<Next> {
        if let Some(finish) = self.finish {
            return Ok(Next::Done(finish));
        }
        let mask = self.constraint.as_ref().and_then(Constraint::mask);
        let sampling = &self.wanted.sampling;
        let (id, log_prob) = draw(logits, mask, &self.seen, sampling, &mut self.rng)?;
        let model = match self.wanted.likeliest {
            None => None,
            Some(n) => Some(Opinion {
                log_prob: sampling::log_probs(logits, [id].into_iter())?.into_iter().sum(),
                likeliest: sampling::likeliest(logits, n)?,
            }),
        };
        let ends = sampling.stop.contains(&id);
        if ends {
            self.tokens.push(Token { id, log_prob, forced: false, model });
            self.finish = Some(Finish::Stop);
            return Ok(Next::Done(Finish::Stop));
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id)?;
        }
        self.push(Token { id, log_prob, forced: false, model });
        self.whole();
        let mut read = vec![id];
        if self.finish.is_none() {
            self.forced(&mut read)?;
        }
        Ok(self.next(read))
    }

    /// The model's context is full: the sample ends here.
    pub fn cut(&mut self) {
        self.finish.get_or_insert(Finish::Length);
    }

    fn next(&self, read: Vec<u32>) -> Next {
        self.finish.map_or(Next::Read(read), Next::Done)
    }

    /// Takes what the grammar forces.
    fn forced(&mut self, read: &mut Vec<u32>) -> Result<()> {
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        let forced = constraint.forced()?;
        let ended = constraint.ended();
        let count = forced.len();
        for (at, id) in (1..).zip(forced) {
            read.push(id);
            self.push(Token { id, log_prob: 0.0, forced: true, model: None });
            if self.finish.is_some() {
                if at == count {
                    self.whole();
                }
                return Ok(());
            }
        }
        if ended {
            self.finish = Some(Finish::Stop);
        }
        Ok(())
    }

    fn push(&mut self, token: Token) {
        let id = token.id;
        let before = self.bytes.len();
        self.bytes.extend_from_slice(self.vocabulary.bytes(id));
        self.tokens.push(token);
        if self.wanted.sampling.repetition_penalty != 1.0 && !self.seen.contains(&id) {
            self.seen.push(id);
        }
        let stops = self.wanted.stop.iter().map(String::as_bytes).filter(|stop| !stop.is_empty());
        let found = stops
            .filter_map(|stop| {
                let from = (before + 1).saturating_sub(stop.len());
                memchr::memmem::find(&self.bytes[from..], stop).map(|at| from + at)
            })
            .min();
        if let Some(at) = found {
            self.bytes.truncate(at);
            self.finish = Some(Finish::Stop);
        } else if self.tokens.len() >= self.wanted.sampling.max_tokens {
            self.finish = Some(Finish::Length);
        }
    }

    /// A text of the grammar that is whole has not been cut, though it has as many tokens as it may.
    fn whole(&mut self) {
        let whole = |constraint: &mut Constraint| constraint.complete();
        if self.finish == Some(Finish::Length) && self.constraint.as_mut().is_some_and(whole) {
            self.finish = Some(Finish::Stop);
        }
    }

    /// Why it ended, once it has.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The tokens so far, with the one that ended it.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The whole text so far; bytes that are no text become the replacement character.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The text since the last call, as far as it is whole.
    pub fn told(&mut self) -> String {
        let mut until = self.bytes.len();
        if self.finish.is_none() {
            let new = &self.bytes[self.told..];
            until -= unfinished(new).max(self.held(new));
        }
        let text = String::from_utf8_lossy(&self.bytes[self.told..until]).into_owned();
        self.told = until;
        text
    }

    /// How many bytes at the end may be the beginning of a stop text.
    fn held(&self, bytes: &[u8]) -> usize {
        let begins = |stop: &String| {
            let most = stop.len().saturating_sub(1).min(bytes.len());
            (1..=most).rev().find(|&n| stop.as_bytes().starts_with(&bytes[bytes.len() - n..]))
        };
        self.wanted.stop.iter().filter_map(begins).max().unwrap_or(0)
    }
}

/// How many bytes at the end are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let needs = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if needs > back { back } else { 0 };
    }
    0
}
