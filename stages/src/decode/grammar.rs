//! Which tokens a grammar allows next, by llguidance.
//!
//! [`Grammars`] holds the trie of a vocabulary, which takes longest and is built once; a [`Grammar`] is
//! compiled with it to a [`Constraint`], which is cloned for each sample. JSON is kept to one line
//! without white space between its tokens: a model that may write blanks may write them for ever. What
//! a schema asks and llguidance cannot hold is an error, and never left out.
//!
//! A token that is the only one allowed need not be asked of the model: [`Constraint::forced`] gives as
//! many as there are, so that they are read in one pass.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenizerEnv,
};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::sampling::Mask;
use super::vocabulary::Vocabulary;
use crate::model::Tokenizer;
use crate::pairs::decision::{Allowed, Form};
use crate::{Result, StageError};

/// A grammar.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON of a schema, after a text.
    Json {
        /// Comes first; mostly empty, or a space.
        lead: String,
        /// The JSON Schema.
        schema: Value,
    },
    /// A regular expression, after a text.
    Regex {
        /// Comes first.
        lead: String,
        /// In the syntax of Rust's regex crate, without anchors.
        regex: String,
    },
}

impl Grammar {
    /// JSON of a schema.
    pub fn json(schema: Value) -> Grammar {
        Grammar::Json { lead: String::new(), schema }
    }

    /// A decision of a form, after `lead`.
    pub fn decision(allowed: &Allowed, form: Form, lead: &str) -> Grammar {
        let lead = lead.to_owned();
        match allowed.regex(form) {
            Some(regex) => Grammar::Regex { lead, regex },
            None => {
                let mut schema = allowed.json_schema();
                // The three kinds exclude each other by their `action`; llguidance must be told.
                if let Some(any) = schema.as_object_mut().and_then(|s| s.remove("oneOf")) {
                    schema["anyOf"] = any;
                }
                Grammar::Json { lead, schema }
            }
        }
    }

    /// In llguidance's dialect of Lark.
    fn lark(&self) -> Result<String> {
        match self {
            Grammar::Json { lead, schema } => {
                let Value::Object(mut schema) = schema.clone() else {
                    return Err(StageError::failed("a JSON schema must be an object")
                        .hint("such as {\"type\": \"object\", \"properties\": {...}}"));
                };
                // Nobody but us says how JSON is written.
                schema.insert("x-guidance".into(), json!({ "whitespace_flexible": false }));
                Ok(format!("start: {}json\njson: %json {}\n", led(lead), Value::Object(schema)))
            }
            Grammar::Regex { lead, regex } => {
                let regex = regex.replace('/', "\\/");
                Ok(format!("start: {}body\nbody: /{regex}/\n", led(lead)))
            }
        }
    }
}

fn led(lead: &str) -> String {
    if lead.is_empty() { String::new() } else { format!("{} ", Value::from(lead)) }
}

/// What compiles grammars for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// Builds the trie of a vocabulary, for a model of so many logits. Of 49,000 tokens it takes some
    /// tens of milliseconds: once, at load.
    ///
    /// # Errors
    /// The vocabulary has no token that ends a text.
    pub fn new(vocabulary: &Vocabulary, logits: usize) -> Result<Grammars> {
        let tokenizer = vocabulary.tokenizer();
        let ends: Vec<u32> =
            tokenizer.eos().iter().copied().filter(|&end| (end as usize) < logits).collect();
        let Some(&end) = ends.first() else {
            return Err(StageError::failed("the model knows no token that ends a text")
                .hint("set `eos_token_id` in its config.json"));
        };
        let mut words: Vec<Vec<u8>> = vocabulary
            .pieces()
            .iter()
            .map(|piece| match piece.special {
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], piece.bytes.as_slice()].concat(),
                false => piece.bytes.clone(),
            })
            .collect();
        // A matrix of logits is often larger than the vocabulary, for the sake of round numbers.
        words.resize(logits, Vec::new());
        let trie =
            TokTrie::from(&TokRxInfo::new(logits as u32, end), &words).with_eos_tokens(&ends);
        let canonical = tokenizer.byte_level();
        let env: TokEnv = Arc::new(Tokens { trie, tokenizer: tokenizer.clone(), canonical });
        let can = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, can, &slices).map_err(failed)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars { factory })
    }

    /// Compiles a grammar.
    ///
    /// # Errors
    /// Its schema is wrong, or asks for what cannot be held.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint> {
        let wrong = |message: String| {
            let json = matches!(grammar, Grammar::Json { .. });
            let what = if json { "JSON schema" } else { "grammar" };
            let message = message.lines().next().unwrap_or_default().to_owned();
            StageError::failed(format!("{what}: {message}")).hint(
                "what a decoder cannot hold is refused: leave it out of the schema, and check it afterwards",
            )
        };
        let top = TopLevelGrammar::from_lark(grammar.lark()?);
        let mut matcher = Matcher::new(self.factory.create_parser(top));
        if let Some(message) = matcher.get_error() {
            return Err(wrong(message));
        }
        if let Some(message) = matcher.grammar_warnings().into_iter().next() {
            return Err(wrong(message));
        }
        Ok(Constraint { matcher, mask: None, ended: false })
    }
}

fn failed(error: impl std::fmt::Display) -> StageError {
    let message = error.to_string();
    StageError::failed(format!("grammar: {}", message.lines().next().unwrap_or_default()))
}

/// The trie and the tokenizer, for llguidance.
struct Tokens {
    trie: TokTrie,
    tokenizer: Tokenizer,
    canonical: bool,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        // Bytes that are no text, and a text that cannot be tokenized, are cut by the longest token.
        let text = |text: &str| {
            self.tokenizer
                .encode(text)
                .unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        };
        self.trie.tokenize_with_greedy_fallback(bytes, text)
    }
    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}

/// A grammar at some point of a text.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    mask: Option<SimpleVob>,
    ended: bool,
}

impl Constraint {
    /// Goes on as far as there is no choice, and gives the tokens on the way. Afterwards it has ended,
    /// or [`Constraint::mask`] has two tokens at least.
    ///
    /// # Errors
    /// llguidance met a limit of its own.
    pub fn forced(&mut self) -> Result<Vec<u32>> {
        let mut forced = Vec::new();
        self.mask = None;
        loop {
            if self.matcher.is_stopped() {
                if !self.matcher.stop_reason().is_ok() {
                    let why = self.matcher.get_error();
                    return Err(failed(why.as_deref().unwrap_or("stopped without a reason")));
                }
                self.ended = true;
                return Ok(forced);
            }
            let ahead = self.matcher.compute_ff_tokens();
            if !ahead.is_empty() {
                self.matcher.consume_tokens(&ahead).map_err(failed)?;
                forced.extend(ahead);
                continue;
            }
            let mask = self.matcher.compute_mask().map_err(failed)?;
            match mask.num_set() {
                0 => return Err(failed("no token of the vocabulary goes on")),
                1 => {
                    let only = mask.first_bit_set().unwrap_or_default() as u32;
                    self.matcher.consume_token(only).map_err(failed)?;
                    // The end is not part of the text, and need not be read.
                    if !self.matcher.is_stopped() || !self.is_end(only) {
                        forced.push(only);
                    }
                }
                _ => {
                    self.mask = Some(mask);
                    return Ok(forced);
                }
            }
        }
    }

    fn is_end(&self, token: u32) -> bool {
        self.matcher.tok_env().is_ok_and(|env| env.tok_trie().eos_tokens().contains(&token))
    }

    /// The tokens that may come next. After [`Constraint::forced`].
    pub fn mask(&self) -> Mask<'_> {
        self.mask.as_ref().map(SimpleVob::as_slice)
    }

    /// Goes on by a token that the mask has.
    ///
    /// # Errors
    /// The mask does not have it.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        self.mask = None;
        self.matcher.consume_token(token).map_err(failed)
    }

    /// The text so far is one of the grammar, though more may follow.
    pub fn complete(&mut self) -> bool {
        self.ended || self.matcher.is_accepting().unwrap_or(false)
    }

    /// Nothing can follow.
    pub fn ended(&self) -> bool {
        self.ended
    }
}
