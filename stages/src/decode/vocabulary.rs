//! What tokens stand for: bytes for the text that grows token by token, and a trie for grammars.
//!
//! A token may end within a character, so text is put together from bytes and not from the decoded
//! texts of single tokens.

use crate::Result;
use crate::model::Tokenizer;
use crate::model::tokenizer::Piece;

/// A tokenizer and the bytes of its tokens.
#[derive(Clone)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    pieces: Vec<Piece>,
}

impl Vocabulary {
    /// Of a tokenizer.
    ///
    /// # Errors
    /// Its tokens have no bytes of their own.
    pub fn new(tokenizer: &Tokenizer) -> Result<Vocabulary> {
        Ok(Vocabulary { tokenizer: tokenizer.clone(), pieces: tokenizer.pieces()? })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What tokens stand for, by id.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The bytes that a token adds to a text; none of one that is special or unknown.
    pub fn bytes(&self, token: u32) -> &[u8] {
        match self.pieces.get(token as usize) {
            Some(Piece { bytes, special: false }) => bytes,
            _ => &[],
        }
    }
}
