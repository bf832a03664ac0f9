//! The files of a model: GGUF or a folder of HF's, whichever is there.

use crate::model::gguf::Value;
use crate::model::weights::{Raw, Tensors};
use crate::model::{Config, Folder, Gguf, Tokenizer};
use crate::{Result, StageError};

/// Weights, by their HF names.
pub(super) enum Files {
    Gguf(Box<Gguf>),
    Tensors(Tensors),
}

impl Files {
    /// Maps the files of a folder.
    pub fn open(folder: &Folder) -> Result<Files> {
        match folder.iter().find(|(name, _)| name.ends_with(".gguf")) {
            Some((_, path)) => Ok(Files::Gguf(Box::new(Gguf::open(path)?))),
            None => Ok(Files::Tensors(Tensors::open_model(folder)?)),
        }
    }

    /// The shape. What ends a text is what `generation_config.json` says, where it says so: the
    /// chat models of Llama 3 name the end of a turn only there.
    pub fn config(&self, folder: &Folder) -> Result<Config> {
        let mut config = match (self, folder.get("config.json")) {
            (Files::Gguf(gguf), None) => gguf.config()?,
            _ => Config::read(folder.need("config.json")?)?,
        };
        if let Some(path) = folder.get("generation_config.json") {
            let text = fs_err::read_to_string(path)?;
            let generation: Generation = serde_json::from_str(&text)
                .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))?;
            config.eos_token_id = generation.eos_token_id.or(config.eos_token_id);
        }
        Ok(config)
    }

    pub fn tokenizer(&self, folder: &Folder, config: &Config) -> Result<Tokenizer> {
        match (self, folder.get("tokenizer.json")) {
            (Files::Gguf(gguf), None) => gguf.tokenizer(config),
            _ => Tokenizer::read(folder.need("tokenizer.json")?, config),
        }
    }

    /// A tensor as it lies in its file.
    pub fn raw(&self, name: &str) -> Result<Raw> {
        match self {
            Files::Gguf(gguf) => gguf.raw(name),
            Files::Tensors(tensors) => tensors.raw(name),
        }
    }

    /// The pairs that rotary angles turn lie side by side in q and k: so GGUF keeps Llama's.
    pub fn interleaved(&self, config: &Config) -> bool {
        matches!(self, Files::Gguf(_)) && config.model_type == "llama"
    }

    /// What angles are divided by, where the weights say so.
    pub fn rope_factors(&self, config: &Config) -> Result<Option<Vec<f32>>> {
        match self {
            Files::Gguf(gguf) => gguf.rope_factors(config),
            Files::Tensors(_) => Ok(None),
        }
    }

    /// The chat template: `chat_template.jinja`, or that of `tokenizer_config.json` (the one called
    /// `default` of several), or that of the GGUF file.
    pub fn chat_template(&self, folder: &Folder) -> Result<Option<String>> {
        if let Some(path) = folder.get("chat_template.jinja") {
            return Ok(Some(fs_err::read_to_string(path)?));
        }
        if let Some(path) = folder.get("tokenizer_config.json") {
            let text = fs_err::read_to_string(path)?;
            let parsed: TokenizerConfig = serde_json::from_str(&text)
                .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))?;
            if let Some(template) = parsed.chat_template.and_then(Templates::default) {
                return Ok(Some(template));
            }
        }
        Ok(match self {
            Files::Gguf(gguf) => match gguf.get("tokenizer.chat_template") {
                Some(Value::Text(text)) => Some(text.clone()),
                _ => None,
            },
            Files::Tensors(_) => None,
        })
    }
}

#[derive(serde::Deserialize)]
struct Generation {
    #[serde(default)]
    eos_token_id: Option<crate::model::config::Ids>,
}

#[derive(serde::Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    chat_template: Option<Templates>,
}

/// One template or several with names, as HF writes them.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Many(Vec<Template>),
}

#[derive(serde::Deserialize)]
struct Template {
    name: String,
    template: String,
}

impl Templates {
    fn default(self) -> Option<String> {
        match self {
            Templates::One(text) => Some(text),
            Templates::Many(all) => {
                all.into_iter().find(|t| t.name == "default").map(|t| t.template)
            }
        }
    }
}
