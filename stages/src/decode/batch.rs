//! Many samples at once: each step reads one token of every sample in a single pass of the model.
//!
//! A prompt is read in parts, one a step, so that the samples that are under way wait for no long
//! prompt. Samples of one prompt share its reading. Sessions of samples that have ended are kept: a
//! prompt that begins like an earlier one goes on from there, which makes the next turn of a
//! conversation, and a prompt with a constant beginning, cheap.
//!
//! Order among samples is that of their arrival; nothing here waits, blocks or knows a network.

use std::collections::HashMap;

use super::decoder::{Decoder, Finish, Next, Token, Wanted};
use super::grammar::Constraint;
use super::model::Model;
use crate::infer::{self, Session};
use crate::{Result, StageError};

/// Tokens of a prompt that are read in one step.
const PART: usize = 256;
/// Sessions have room for a multiple of this, so that they can be used again.
const ROOM: usize = 512;

/// What is asked.
pub struct Job {
    /// The tokens of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How many samples.
    pub n: usize,
    /// What they are to be; each is given its own number.
    pub wanted: Wanted,
    /// The grammar that they keep to.
    pub constraint: Option<Constraint>,
}

/// What is told of a sample after a step.
pub struct Told<'a> {
    /// Which sample of its job.
    pub sample: usize,
    /// New text, as far as it is whole.
    pub text: String,
    /// New tokens.
    pub tokens: &'a [Token],
    /// Why it ended, with the last text.
    pub finish: Option<Finish>,
    /// Tokens of the prompt that need not be read, because an earlier prompt began alike.
    pub cached: usize,
    /// Why no more comes, where something failed.
    pub error: Option<StageError>,
}

/// Hears of the samples of a job. It gives false once nobody listens: then they end.
pub type Hear = Box<dyn FnMut(Told) -> bool + Send>;

/// A session and the tokens that it has read.
struct Held {
    session: Session,
    room: usize,
    tokens: Vec<u32>,
}

/// A prompt that is being read, or a sample.
struct Slot {
    held: Held,
    /// Tokens to read next.
    pending: Vec<u32>,
    /// The samples that wait for the prompt; one, once it is read.
    decoders: Vec<(usize, Decoder)>,
    /// Tokens of the sample that were told.
    told: usize,
    cached: usize,
    job: usize,
}

/// Samples under way.
pub struct Batch {
    slots: Vec<Slot>,
    /// Who hears of each job, by its number, and how many of its samples are under way.
    hears: HashMap<usize, (Hear, usize)>,
    next: usize,
    /// Sessions of ended samples, the latest last.
    idle: Vec<Held>,
    /// Most idle sessions.
    keep: usize,
}

impl Batch {
    /// An empty batch that keeps so many sessions of ended samples.
    pub fn new(keep: usize) -> Batch {
        let (slots, idle, hears) = Default::default();
        Batch { slots, hears, next: 0, idle, keep }
    }

    /// Samples under way.
    pub fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.decoders.len()).sum()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a job. Where that fails, it is told.
    pub fn add(&mut self, model: &Model, job: Job, mut hear: Hear) {
        let (text, tokens, finish, error) = (String::new(), &[][..], None, None);
        // Who asked may have gone while it waited.
        if !hear(Told { sample: 0, text, tokens, finish, cached: 0, error }) {
            return;
        }
        self.next += 1;
        match self.begin(model, job, &mut hear) {
            Ok(None) => {}
            Ok(Some(slot)) => {
                self.hears.insert(slot.job, (hear, slot.decoders.len()));
                self.slots.push(slot);
            }
            Err(error) => {
                let (text, tokens, finish) = (String::new(), &[][..], None);
                hear(Told { sample: 0, text, tokens, finish, cached: 0, error: Some(error) });
            }
        }
    }

    /// The slot of a job; none where the grammar leaves it no choice at all.
    fn begin(&mut self, model: &Model, job: Job, hear: &mut Hear) -> Result<Option<Slot>> {
        let mut decoders = Vec::new();
        let mut opening = Vec::new();
        for sample in 0..job.n {
            let wanted = Wanted { sample: sample as u64, ..job.wanted.clone() };
            let constraint = job.constraint.clone();
            let (mut decoder, next) =
                Decoder::begin(model.vocabulary(), &job.prompt, wanted, constraint)?;
            match next {
                Next::Read(read) => {
                    opening = read;
                    decoders.push((sample, decoder));
                }
                Next::Done(finish) => {
                    let text = decoder.told();
                    let tokens = decoder.tokens();
                    let finish = Some(finish);
                    hear(Told { sample, text, tokens, finish, cached: 0, error: None });
                }
            }
        }
        if decoders.is_empty() {
            return Ok(None);
        }
        let mut pending = job.prompt;
        pending.extend(opening);
        let room = (pending.len() + job.wanted.sampling.max_tokens).min(model.context());
        if pending.len() > room {
            return Err(StageError::failed(
                "the prompt and what the grammar begins with fill the context",
            ));
        }
        let held = self.hold(model, &pending, room)?;
        let cached = held.tokens.len();
        pending.drain(..cached);
        Ok(Some(Slot { held, pending, decoders, told: 0, cached, job: self.next }))
    }

    /// A session with room for so many tokens that has read as much of a text as any.
    fn hold(&mut self, model: &Model, text: &[u32], room: usize) -> Result<Held> {
        let common = |held: &Held| {
            // The last token is read anew, for its logits.
            let same = held.tokens.iter().zip(text).take_while(|(a, b)| a == b).count();
            same.min(text.len().saturating_sub(1))
        };
        let fits = self.idle.iter().enumerate().filter(|(_, held)| held.room >= room);
        let best = fits.map(|(at, held)| (common(held), at)).max();
        if let Some((same, at)) = best
            && (same > 0 || self.idle.len() >= self.keep)
        {
            let mut held = self.idle.remove(at);
            held.session.truncate(same);
            held.tokens.truncate(same);
            return Ok(held);
        }
        let room = room.next_multiple_of(ROOM).min(model.context());
        let session = model.engine().session(room);
        Ok(Held { session, room, tokens: Vec::new() })
    }

    /// Goes one step on with every sample.
    pub fn step(&mut self, model: &Model) {
        let (one, many): (Vec<Slot>, Vec<Slot>) =
            std::mem::take(&mut self.slots).into_iter().partition(|slot| slot.pending.len() == 1);
        for mut slot in many {
            let rest = slot.pending.split_off(slot.pending.len().min(PART));
            let read = std::mem::replace(&mut slot.pending, rest);
            let logits = slot.held.session.read(model.engine(), &read);
            slot.held.tokens.extend(read);
            match logits {
                Err(error) => self.fail(slot, error),
                Ok(_) if !slot.pending.is_empty() => {
                    if self.heard(&slot) {
                        self.slots.push(slot);
                    } else {
                        self.end(slot);
                    }
                }
                Ok(logits) => {
                    let logits = logits.to_vec();
                    self.drawn(slot, &logits);
                }
            }
        }
        self.read_together(model, one);
    }

    fn read_together(&mut self, model: &Model, mut one: Vec<Slot>) {
        if one.is_empty() {
            return;
        }
        let tokens: Vec<u32> =
            one.iter().filter_map(|slot| slot.pending.first().copied()).collect();
        let mut sessions: Vec<&mut Session> =
            one.iter_mut().map(|slot| &mut slot.held.session).collect();
        let logits = infer::read_batch(model.engine(), &mut sessions, &tokens);
        match logits {
            Err(error) => {
                let message = error.to_string();
                for slot in one {
                    self.fail(slot, StageError::failed(message.clone()));
                }
            }
            Ok(all) => {
                for (mut slot, logits) in one.into_iter().zip(all) {
                    slot.held.tokens.append(&mut slot.pending);
                    self.drawn(slot, &logits);
                }
            }
        }
    }

    /// Whether anybody still listens, asked while a prompt is read.
    fn heard(&mut self, slot: &Slot) -> bool {
        let Some((hear, _)) = self.hears.get_mut(&slot.job) else { return false };
        let sample = slot.decoders.first().map_or(0, |(sample, _)| *sample);
        let (text, tokens, finish, cached) = (String::new(), &[][..], None, slot.cached);
        hear(Told { sample, text, tokens, finish, cached, error: None })
    }

    /// Draws the next token of each sample of a slot; a prompt that has been read becomes its samples.
    fn drawn(&mut self, slot: Slot, logits: &[f32]) {
        let Slot { held, decoders, told, cached, job, .. } = slot;
        let last = decoders.len() - 1;
        let mut base = Some(held);
        for (at, (sample, decoder)) in decoders.into_iter().enumerate() {
            let held = match (&base, at == last) {
                (_, true) => base.take(),
                (Some(base), false) => Some(Held {
                    session: base.session.fork(),
                    room: base.room,
                    tokens: base.tokens.clone(),
                }),
                (None, false) => None,
            };
            let Some(held) = held else { return };
            let decoders = vec![(sample, decoder)];
            let slot = Slot { held, pending: Vec::new(), decoders, told, cached, job };
            self.drawn_one(slot, logits);
        }
    }

    fn drawn_one(&mut self, mut slot: Slot, logits: &[f32]) {
        let Some((sample, decoder)) = slot.decoders.first_mut() else { return };
        let next = match decoder.step(logits) {
            Ok(next) => next,
            Err(error) => return self.fail(slot, error),
        };
        if let Next::Read(read) = next {
            if slot.held.tokens.len() + read.len() > slot.held.room {
                decoder.cut();
            }
            slot.pending = read;
        }
        let finish = decoder.finish();
        let text = decoder.told();
        let tokens = &decoder.tokens()[slot.told..];
        let heard = self.hears.get_mut(&slot.job).is_some_and(|(hear, _)| {
            hear(Told { sample: *sample, text, tokens, finish, cached: slot.cached, error: None })
        });
        slot.told = decoder.tokens().len();
        if finish.is_none() && heard {
            self.slots.push(slot);
        } else {
            self.end(slot);
        }
    }

    fn fail(&mut self, slot: Slot, error: StageError) {
        let sample = slot.decoders.first().map_or(0, |(sample, _)| *sample);
        if let Some((hear, _)) = self.hears.get_mut(&slot.job) {
            let (text, tokens, finish) = (String::new(), &[][..], None);
            hear(Told { sample, text, tokens, finish, cached: 0, error: Some(error) });
        }
        // Its session may be half read: it is dropped.
        self.forget(slot.job, slot.decoders.len());
    }

    fn end(&mut self, slot: Slot) {
        self.forget(slot.job, slot.decoders.len());
        self.retire(slot.held);
    }

    /// So many samples of a job have ended.
    fn forget(&mut self, job: usize, samples: usize) {
        if let Some((_, open)) = self.hears.get_mut(&job) {
            *open = open.saturating_sub(samples);
            if *open == 0 {
                self.hears.remove(&job);
            }
        }
    }

    fn retire(&mut self, held: Held) {
        if self.keep == 0 {
            return;
        }
        if self.idle.len() >= self.keep {
            self.idle.remove(0);
        }
        self.idle.push(held);
    }
}
