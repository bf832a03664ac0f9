//! A model that is ready to answer: the engine, the bytes of its tokens, its chat template, and the
//! trie for grammars once one is asked for.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::grammar::{Constraint, Grammar, Grammars};
use super::vocabulary::Vocabulary;
use crate::infer::{Engine, Options};
use crate::model::chat::{Message, render_at};
use crate::{Result, StageError};

/// What a model is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text that it goes on with.
    Text(String),
    /// A conversation that it answers, by its chat template.
    Chat(Vec<Message>),
}

/// A model, ready to answer.
pub struct Model {
    engine: Engine,
    vocabulary: Arc<Vocabulary>,
    grammars: OnceLock<Grammars>,
    now: Option<fn(&str) -> String>,
}

impl Model {
    /// Opens a folder or a GGUF file. `now` writes the time of now for chat templates that want it.
    ///
    /// # Errors
    /// The files are not those of a model that the engine runs.
    pub fn open(path: &Path, options: Options, now: Option<fn(&str) -> String>) -> Result<Model> {
        Model::of(Engine::open(path, options)?, now)
    }

    /// [`Model::open`] of an engine.
    ///
    /// # Errors
    /// Its tokens have no bytes of their own.
    pub fn of(engine: Engine, now: Option<fn(&str) -> String>) -> Result<Model> {
        let vocabulary = Arc::new(Vocabulary::new(engine.tokenizer())?);
        Ok(Model { engine, vocabulary, grammars: OnceLock::new(), now })
    }

    /// What computes.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The bytes of its tokens.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// The longest sequence, tokens.
    pub fn context(&self) -> usize {
        self.engine.about().context
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// It is empty, is longer than the context, or there is no chat template.
    pub fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let tokenizer = self.engine.tokenizer();
        let tokens = match prompt {
            Prompt::Text(text) => tokenizer.prompt(text)?,
            Prompt::Chat(messages) => tokenizer.encode(&self.render(messages)?)?,
        };
        let most = self.context();
        if tokens.is_empty() {
            return Err(StageError::failed("an empty prompt"));
        }
        if tokens.len() >= most {
            let message = format!(
                "a prompt of {} tokens leaves no room in a context of {most}",
                tokens.len()
            );
            return Err(StageError::failed(message).hint("shorten it, or raise the context"));
        }
        Ok(tokens)
    }

    /// The text of a conversation, up to where the answer begins.
    ///
    /// # Errors
    /// There is no chat template, or it refuses the conversation.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        let Some(template) = self.engine.chat_template() else {
            return Err(StageError::failed("the model has no chat template")
                .hint("it was not trained to chat: give it a plain prompt"));
        };
        let tokenizer = self.engine.tokenizer();
        let name = |id: Option<u32>| id.and_then(|id| tokenizer.name(id)).unwrap_or_default();
        let (bos, eos) = (name(tokenizer.bos()), name(tokenizer.eos().first().copied()));
        render_at(template, messages, true, (&bos, &eos), self.now)
    }

    /// Compiles a grammar. The first time, the trie of the vocabulary is built.
    ///
    /// # Errors
    /// As [`Grammars::compile`].
    pub fn constraint(&self, grammar: &Grammar) -> Result<Constraint> {
        if self.grammars.get().is_none() {
            let grammars = Grammars::new(&self.vocabulary, self.engine.config().vocab_size)?;
            let _ = self.grammars.set(grammars);
        }
        match self.grammars.get() {
            Some(grammars) => grammars.compile(grammar),
            None => Err(StageError::failed("no trie of the vocabulary")),
        }
    }
}
