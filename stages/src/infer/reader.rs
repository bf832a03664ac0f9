//! Reads one text after another; what one begins with like that before is not read again.

use super::{Engine, Session};
use crate::Result;

/// A session that goes from text to text.
pub struct Reader<'e> {
    engine: &'e Engine,
    session: Session,
    read: Vec<u32>,
}

impl<'e> Reader<'e> {
    /// A reader that has read nothing.
    pub fn new(engine: &'e Engine) -> Reader<'e> {
        Reader { engine, session: engine.session(0), read: Vec::new() }
    }

    /// The state after the last token, normed, `[hidden]`. Errors as [`Session::read`].
    pub fn state(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let same = self.keep(tokens);
        let state = self.session.read_hidden(self.engine, &tokens[same..])?;
        self.read.extend_from_slice(&tokens[same..]);
        Ok(state)
    }

    /// The logits after the last token, `[vocab]`. Errors as [`Session::read`].
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let same = self.keep(tokens);
        self.read_on(&tokens[same..])
    }

    /// Reads on after the last text. Gives the logits, `[vocab]`. Errors as [`Session::read`].
    pub fn on(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        if self.session.capacity() < self.read.len() + tokens.len() {
            let whole = [&self.read[..], tokens].concat();
            return self.logits(&whole);
        }
        self.read_on(tokens)
    }

    /// Forgets the last tokens.
    pub fn back(&mut self, tokens: usize) {
        self.read.truncate(self.read.len().saturating_sub(tokens));
        self.session.truncate(self.read.len());
    }

    fn read_on(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let logits = self.session.read(self.engine, tokens)?.to_vec();
        self.read.extend_from_slice(tokens);
        Ok(logits)
    }

    /// Keeps what a text begins with, and makes room for the rest; the last token is read anew.
    fn keep(&mut self, tokens: &[u32]) -> usize {
        if self.session.capacity() < tokens.len() {
            let room = tokens.len().next_multiple_of(256);
            (self.session, self.read) = (self.engine.session(room), Vec::new());
        }
        let same = self.read.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let same = same.min(tokens.len().saturating_sub(1));
        self.session.truncate(same);
        self.read.truncate(same);
        same
    }
}
