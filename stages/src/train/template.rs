//! The chat template of a base, and which parts of a conversation's text the assistant said.
//!
//! The template comes from `chat_template.jinja`, from `tokenizer_config.json` or from the metadata
//! of a GGUF file, in this order. It is given no clock: what is trained must not depend on the day.

use std::path::Path;

use serde_json::Value;

use crate::model::chat::{Message, render};
use crate::model::{Folder, Gguf, Tokenizer, gguf};
use crate::{Result, StageError};

/// A template with the names of what begins and ends a text.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    bos: String,
    eos: String,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its text.
    pub text: String,
    /// The assistant said it.
    pub said: bool,
}

impl Template {
    /// The template of a model folder, if it has one.
    pub fn of(folder: &Folder, tokenizer: &Tokenizer) -> Result<Option<Template>> {
        let config = match folder.get("tokenizer_config.json") {
            Some(path) => json(path)?,
            None => Value::Null,
        };
        let Some(text) = text(folder, &config)? else { return Ok(None) };
        let names = names(tokenizer)?;
        let name = |key: &str, id: Option<u32>| {
            let given = &config[key];
            let given = given.as_str().or_else(|| given["content"].as_str()).map(str::to_owned);
            given.or_else(|| names.get(&id?).cloned()).unwrap_or_default()
        };
        let bos = name("bos_token", tokenizer.bos());
        let eos = name("eos_token", tokenizer.eos().first().copied());
        Ok(Some(Template { text, bos, eos }))
    }

    /// A template of which only the text is known.
    #[cfg(test)]
    pub fn new(text: &str) -> Template {
        Template { text: text.into(), bos: "<s>".into(), eos: "</s>".into() }
    }

    /// The text of the template.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn render(&self, messages: &[Message], open: bool) -> Result<String> {
        render(&self.text, messages, open, &self.bos, &self.eos)
    }

    /// The text of a conversation in parts. A part that the assistant said runs from where the
    /// template opens its turn, as it does before an answer is drawn, to the turn's end.
    ///
    /// # Errors
    /// The template refuses the conversation, or does not begin a longer one as it does a shorter.
    pub fn parts(&self, messages: &[Message]) -> Result<Vec<Part>> {
        let whole = self.render(messages, false)?;
        let (mut parts, mut done) = (Vec::new(), 0);
        for (i, _) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let from = self.render(&messages[..i], true)?;
            let to = match i + 1 == messages.len() {
                true => whole.clone(),
                false => self.render(&messages[..=i], false)?,
            };
            if !to.starts_with(&from) || !whole.starts_with(&to) || from.len() < done {
                return Err(StageError::failed(
                    "the chat template writes an earlier turn otherwise than a last one, so that \
                     what was said cannot be told",
                )
                .hint("make each answer a conversation of its own, or set `sft.learn: all`"));
            }
            parts.push(Part { text: whole[done..from.len()].into(), said: false });
            parts.push(Part { text: whole[from.len()..to.len()].into(), said: true });
            done = to.len();
        }
        parts.push(Part { text: whole[done..].into(), said: false });
        parts.retain(|part| !part.text.is_empty());
        Ok(parts)
    }

    /// The text of a conversation as one part.
    pub fn whole(&self, messages: &[Message]) -> Result<Vec<Part>> {
        Ok(vec![Part { text: self.render(messages, false)?, said: true }])
    }
}

fn json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&fs_err::read(path)?)
        .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))
}

fn text(folder: &Folder, config: &Value) -> Result<Option<String>> {
    if let Some(path) = folder.get("chat_template.jinja") {
        return Ok(Some(fs_err::read_to_string(path)?));
    }
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|one| one["name"] == "default");
        default.and_then(|one| one["template"].as_str()).map(str::to_owned)
    };
    match &config["chat_template"] {
        Value::String(text) => return Ok(Some(text.clone())),
        Value::Array(list) => return Ok(named(list)),
        _ => {}
    }
    let Some((_, path)) = folder.iter().find(|(name, _)| name.ends_with(".gguf")) else {
        return Ok(None);
    };
    match Gguf::open(path)?.get("tokenizer.chat_template") {
        Some(gguf::Value::Text(text)) => Ok(Some(text.clone())),
        _ => Ok(None),
    }
}

/// The added tokens of a tokenizer.
/// A `tokenizer_config.json` with what transformers cannot read off `tokenizer.json`: which tokens
/// begin, end and pad a text. Without it TRL and others stop for want of a padding token.
///
/// # Errors
/// The tokenizer cannot be written as JSON.
pub fn settings(tokenizer: &Tokenizer, context: usize) -> Result<String> {
    let names = names(tokenizer)?;
    let name = |id: Option<u32>| id.and_then(|id| names.get(&id)).cloned();
    let end = name(tokenizer.eos().first().copied());
    let config = serde_json::json!({
        "bos_token": name(tokenizer.bos()),
        "clean_up_tokenization_spaces": false,
        "eos_token": end,
        "model_max_length": context,
        "pad_token": end,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    Ok(format!("{config:#}\n"))
}

fn names(tokenizer: &Tokenizer) -> Result<std::collections::BTreeMap<u32, String>> {
    let parsed: Value = serde_json::from_str(&tokenizer.json()?)
        .map_err(|e| StageError::failed(format!("tokenizer.json: {e}")))?;
    let added = parsed["added_tokens"].as_array().into_iter().flatten();
    let named =
        |token: &Value| Some((token["id"].as_u64()? as u32, token["content"].as_str()?.to_owned()));
    Ok(added.filter_map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn talk() -> Vec<Message> {
        [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")]
            .map(|(role, content)| Message::new(role, content))
            .into()
    }

    #[test]
    fn what_the_assistant_said_is_told_from_the_rest() {
        let parts = Template::new(CHATML).parts(&talk()).unwrap();
        let got: Vec<_> = parts.iter().map(|p| (p.text.as_str(), p.said)).collect();
        assert_eq!(
            got,
            [
                ("<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n", false),
                ("a1<|im_end|>\n", true),
                ("<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n", false),
                ("a2<|im_end|>\n", true),
            ]
        );
        let whole = Template::new(CHATML).whole(&talk()).unwrap();
        assert_eq!(whole[0].text, parts.iter().map(|p| p.text.as_str()).collect::<String>());
    }

    #[test]
    fn a_template_that_rewrites_earlier_turns_is_an_error() {
        // As templates of reasoning models, which drop the thoughts of earlier turns.
        let thinks = "{% for m in messages %}{{ m.role }}: {% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
        let e = Template::new(thinks).parts(&talk()).unwrap_err();
        assert!(e.help().unwrap().contains("sft.learn: all"), "{e}");
        assert_eq!(Template::new(thinks).parts(&talk()[..2]).unwrap().len(), 2);
        let refuses = "{{ raise_exception('no') }}";
        assert!(Template::new(refuses).parts(&talk()).is_err());
    }

    #[test]
    fn a_template_is_found_where_models_keep_it() {
        let tokenizer = Tokenizer::train(["a b c"].into_iter(), 257).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let find = || Template::of(&Folder::of_dir(dir.path()).unwrap(), &tokenizer).unwrap();
        assert!(find().is_none());
        let list = r#"{"chat_template": [{"name": "tool", "template": "T"},
            {"name": "default", "template": "{{ bos_token }}D{{ eos_token }}"}],
            "bos_token": {"content": "<begin>"}}"#;
        fs_err::write(dir.path().join("tokenizer_config.json"), list).unwrap();
        let message = [Message::new("assistant", "a")];
        let found = find().unwrap();
        assert_eq!(found.whole(&message).unwrap()[0].text, "<begin>D<|endoftext|>");
        fs_err::write(dir.path().join("chat_template.jinja"), "J").unwrap();
        assert_eq!(find().unwrap().text(), "J");
    }
}
