//! One decision of a model: asked by a prompt, kept to the grammar, read and checked again.
//!
//! A model is asked about one state after another, and what their prompts begin with is the same. The
//! session goes on from there: only what follows the first difference is read, so what changes should
//! come last.
//!
//! [`Asker::probabilities`] gives the probability of each whole decision, which the likeliest token at
//! each step need not lead to: a decision that begins like many others has them on its side.

use super::decoder::{Decoder, Finish, Next, Wanted};
use super::grammar::{Constraint, Grammar};
use super::model::Model;
use super::sampling::{self, Sampling};
use crate::infer::Session;
use crate::pairs::decision::{Allowed, Decision, Form};
use crate::{Result, StageError};

/// More tokens than any answer has.
const MOST: usize = 128;
/// Decisions whose probabilities are asked for at most.
const EXPLAINED: usize = 64;

/// How decisions are asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What may be answered.
    pub allowed: Allowed,
    /// How the answer is written.
    pub form: Form,
    /// What comes between the prompt and the answer: a space after `Decision:`.
    pub lead: String,
    /// 0 takes the likeliest token at each step.
    pub temperature: f32,
    /// The seed.
    pub seed: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The decision.
    pub decision: Decision,
    /// As the model wrote it.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Those that the grammar forced.
    pub forced: usize,
    /// Tokens of the prompt, and how many of them were known from the prompt before.
    pub prompt: usize,
    /// See `prompt`.
    pub cached: usize,
    /// The log-probability of the answer among those allowed, at the temperature.
    pub log_prob: f64,
}

/// What asks a model for decisions, one after another.
pub struct Asker<'m> {
    model: &'m Model,
    asked: Asked,
    constraint: Constraint,
    session: Session,
    read: Vec<u32>,
    count: u64,
}

impl<'m> Asker<'m> {
    /// Compiles the grammar and makes the session.
    ///
    /// # Errors
    /// What may be answered is out of range.
    pub fn new(model: &'m Model, asked: Asked) -> Result<Asker<'m>> {
        asked.allowed.check().map_err(StageError::failed)?;
        let grammar = Grammar::decision(&asked.allowed, asked.form, &asked.lead);
        let constraint = model.constraint(&grammar)?;
        let session = model.engine().session(model.context().min(4096));
        Ok(Asker { model, asked, constraint, session, read: Vec::new(), count: 0 })
    }

    /// Asks for a decision.
    ///
    /// # Errors
    /// The prompt is too long, or the answer does not read, which a grammar rules out.
    pub fn ask(&mut self, prompt: &[u32]) -> Result<Answer> {
        let ends = self.model.engine().tokenizer().eos();
        let sampling =
            Sampling { temperature: self.asked.temperature, ..Sampling::greedy(MOST, ends) };
        let (seed, sample) = (self.asked.seed, self.count);
        self.count += 1;
        let wanted = Wanted { sampling, stop: Vec::new(), seed, sample, likeliest: None };
        let constraint = Some(self.constraint.clone());
        let (mut decoder, mut next) =
            Decoder::begin(self.model.vocabulary(), prompt, wanted, constraint)?;
        let mut cached = 0;
        let mut begun = false;
        while let Next::Read(read) = next {
            let logits = if begun {
                self.read.extend_from_slice(&read);
                self.session.read(self.model.engine(), &read)?
            } else {
                let all = [prompt, read.as_slice()].concat();
                cached = self.go_to(&all)?.min(prompt.len());
                self.session.logits()
            };
            begun = true;
            next = decoder.step(logits)?;
        }
        let text = decoder.text();
        let said = text.strip_prefix(&self.asked.lead).unwrap_or(&text);
        let decision = Decision::read(said).filter(|d| self.asked.allowed.allows(*d));
        let whole = decoder.finish() == Some(Finish::Stop);
        let Some(decision) = decision.filter(|_| whole) else {
            return Err(StageError::failed(format!("the answer `{said}` is no decision")));
        };
        let tokens = decoder.tokens();
        Ok(Answer {
            decision,
            text: said.to_owned(),
            tokens: tokens.len(),
            forced: tokens.iter().filter(|token| token.forced).count(),
            prompt: prompt.len(),
            cached,
            log_prob: tokens.iter().map(|token| f64::from(token.log_prob)).sum(),
        })
    }

    /// Has the session at the end of a text; gives how many tokens were known.
    fn go_to(&mut self, text: &[u32]) -> Result<usize> {
        let same = self.read.iter().zip(text).take_while(|(a, b)| a == b).count();
        let same = same.min(text.len().saturating_sub(1));
        self.session.truncate(same);
        self.read.truncate(same);
        if text.len() + MOST > self.model.context() {
            let message = format!("a prompt of {} tokens leaves no room for an answer", text.len());
            return Err(StageError::failed(message).hint("shorten it"));
        }
        if text.len() + MOST > self.session.capacity() {
            self.session = self.model.engine().session(self.model.context());
            self.read.clear();
            return self.go_to(text);
        }
        self.session.read(self.model.engine(), &text[same..])?;
        self.read.extend_from_slice(&text[same..]);
        Ok(same)
    }

    /// The probability of each allowed decision of one unit after a prompt, among them, the likeliest
    /// first: of its whole text and an end, at temperature 1.
    ///
    /// # Errors
    /// There are too many of them.
    pub fn probabilities(&mut self, prompt: &[u32]) -> Result<Vec<(Decision, f64)>> {
        let all = self.asked.allowed.of_one_unit();
        if all.len() > EXPLAINED {
            let message = format!("{} decisions are too many to explain", all.len());
            return Err(StageError::failed(message).hint("name a few offsets"));
        }
        let tokenizer = self.model.engine().tokenizer();
        let mut texts = Vec::new();
        for decision in &all {
            let text = format!("{}{}", self.asked.lead, decision.write(self.asked.form));
            texts.push(tokenizer.encode(&text)?);
        }
        self.go_to(prompt)?;
        let mut log_probs = vec![0.0; all.len()];
        let of: Vec<usize> = (0..all.len()).collect();
        self.walk(&texts, &of, 0, &mut log_probs)?;
        let top = log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = log_probs.iter().map(|x| (x - top).exp()).sum();
        let mut each: Vec<(Decision, f64)> =
            all.into_iter().zip(log_probs).map(|(d, x)| (d, (x - top).exp() / total)).collect();
        each.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(each)
    }

    /// Adds the log-probabilities of what follows the first `depth` tokens, of the texts `of`, which
    /// have these in common: a tree whose every branch is read once.
    fn walk(
        &mut self,
        texts: &[Vec<u32>],
        of: &[usize],
        depth: usize,
        log_probs: &mut [f64],
    ) -> Result<()> {
        let mut branches: Vec<u32> =
            of.iter().filter_map(|i| texts[*i].get(depth).copied()).collect();
        branches.sort_unstable();
        branches.dedup();
        let ends = self.model.engine().tokenizer().eos().to_vec();
        let logits = self.session.logits();
        let steps = sampling::log_probs(logits, branches.iter().copied())?;
        let end: f64 =
            sampling::log_probs(logits, ends.into_iter())?.into_iter().map(f64::exp).sum();
        for i in of.iter().filter(|i| texts[**i].len() == depth) {
            log_probs[*i] += end.ln();
        }
        for (token, step) in branches.into_iter().zip(steps) {
            let on: Vec<usize> =
                of.iter().copied().filter(|i| texts[*i].get(depth) == Some(&token)).collect();
            on.iter().for_each(|i| log_probs[*i] += step);
            let back = self.session.len();
            self.session.read(self.model.engine(), &[token])?;
            self.walk(texts, &on, depth + 1, log_probs)?;
            self.session.truncate(back);
        }
        Ok(())
    }
}
