//! The tokenizer of a model: HF's `tokenizer.json`, read, applied, or trained.
//!
//! Training is byte-level BPE with GPT-2's pre-tokenizer, which loses no byte and which GGUF
//! runtimes know by the name `gpt-2`. Chat templates are of [`super::chat`].

use std::path::Path;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, TokenizerImpl};

use super::config::{Config, Ids};
use crate::{Result, StageError};

/// The token that ends a text in tokenizers that are trained here. It also begins one, and pads.
pub const END: &str = "<|endoftext|>";

/// Names under which models know their end of text, most specific first.
const ENDS: [&str; 5] = [END, "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "</s>"];

/// Text to tokens and back.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Vec<u32>,
    /// A plain text begins with `bos`.
    begins: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. What begins and ends a text is what `config` says, or else the usual
    /// name for it.
    pub fn read(path: &Path, config: &Config) -> Result<Tokenizer> {
        Tokenizer::parse(&fs_err::read(path)?, config).map_err(|message| {
            StageError::bad(path, message)
                .hint("tokenizer.json is what HF's tokenizers library writes, of the same model")
        })
    }

    fn parse(json: &[u8], config: &Config) -> std::result::Result<Tokenizer, String> {
        let failed = |e: &dyn std::fmt::Display| format!("not a tokenizer: {e}");
        // The library panics at a decoder that is no JSON, so what is no JSON does not get there; and it
        // slices and unwraps in other places, whose panics end here.
        serde_json::from_slice::<Checked>(json).map_err(|e| failed(&e))?;
        let parsed = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(json));
        let parsed = parsed.map_err(|_| failed(&"the tokenizers library fails on it"))?;
        let mut inner = parsed.map_err(|e| failed(&e))?;
        // What a file says of these is for batches of a training; a text is told as it is.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| failed(&e))?;
        let limit = config.vocab_size;
        if let Some(id) = inner.get_vocab(true).into_values().find(|id| *id as usize >= limit) {
            return Err(format!("a token {id}, but the model has {limit}"));
        }
        Tokenizer::of(inner, config)
    }

    fn of(inner: tokenizers::Tokenizer, config: &Config) -> std::result::Result<Tokenizer, String> {
        let (size, limit) = (inner.get_vocab_size(true), config.vocab_size);
        if size > limit {
            return Err(format!("{size} tokens, but the model has {limit}"));
        }
        let mut eos = config.eos().to_vec();
        if eos.is_empty() {
            eos.extend(ENDS.iter().find_map(|name| inner.token_to_id(name)));
        }
        let bos = match &config.bos_token_id {
            Some(Ids::One(id)) => Some(*id),
            Some(Ids::Many(ids)) => ids.first().copied(),
            None => None,
        };
        // HF's files say by their post-processor whether a text begins with it: Llama 3's does, Qwen2's
        // and SmolLM2's do not, though they name one. Tokenizers that are trained here have none.
        let begins = match inner.get_post_processor() {
            None => true,
            Some(_) => {
                let first = inner.encode_fast("", true).ok();
                first.and_then(|text| text.get_ids().first().copied()) == bos
            }
        };
        Ok(Tokenizer { inner, bos, eos, begins })
    }

    /// Trains byte-level BPE of at most `vocab` tokens (at least 257). Depends on the texts and the
    /// size alone.
    pub fn train<'a>(
        texts: impl Iterator<Item = &'a str> + Send,
        vocab: usize,
    ) -> Result<Tokenizer> {
        let failed = |e| StageError::failed(format!("training the tokenizer: {e}"));
        if vocab < 257 {
            return Err(StageError::failed(format!("a vocabulary of {vocab} tokens is too small"))
                .hint("byte-level BPE needs 257: one a byte, and the end of text"));
        }
        let mut trainer = BpeTrainerBuilder::new()
            .vocab_size(vocab)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from(END, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut tokenizer: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> =
            TokenizerImpl::new(BPE::default());
        let bytes = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
        tokenizer.train(&mut trainer, texts).map_err(failed)?;
        let inner = tokenizers::Tokenizer::from(tokenizer);
        let end = inner.token_to_id(END).into_iter().collect::<Vec<_>>();
        Ok(Tokenizer { inner, bos: end.first().copied(), eos: end, begins: true })
    }

    /// Writes `tokenizer.json` into a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = self.json()?;
        Ok(fs_err::write(folder.join("tokenizer.json"), text)?)
    }

    /// The text of `tokenizer.json`.
    pub fn json(&self) -> Result<String> {
        let text = self.inner.to_string(true);
        text.map_err(|e| StageError::failed(format!("tokenizer.json: {e}")))
    }

    /// The tokens of a text, without any that begin or end it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|e| StageError::failed(format!("tokenizing: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of a prompt: of its text, after [`Tokenizer::opening`].
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens: Vec<u32> = self.opening().into_iter().collect();
        tokens.extend(self.encode(text)?);
        Ok(tokens)
    }

    /// The tokens of many texts, on all cores.
    pub fn encode_all(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let encodings = self.inner.encode_batch_fast(texts.to_vec(), false);
        let encodings = encodings.map_err(|e| StageError::failed(format!("tokenizing: {e}")))?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The text of tokens, without those that only mark its beginning or end.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let text = self.inner.decode(tokens, true);
        text.map_err(|e| StageError::failed(format!("decoding tokens: {e}")))
    }

    /// Tokens that end a text; perhaps none.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }
    /// The token that marks a beginning, where there is one: chat templates may write it. A plain text
    /// need not begin with it.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }
    /// The token that a plain text begins with, where the model wants one.
    pub fn opening(&self) -> Option<u32> {
        self.bos.filter(|_| self.begins)
    }
    /// Says whether a plain text begins with the token that marks a beginning.
    pub(super) fn set_begins(&mut self, begins: bool) {
        self.begins = begins;
    }
    /// A token to pad with. It never counts, so it need not be one of its own.
    pub fn pad(&self) -> u32 {
        self.eos.first().copied().unwrap_or(0)
    }
    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
    /// How a token is written, such as `<|im_end|>`; of other tokens in the tokenizer's own spelling.
    pub fn name(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// Whether the tokens of a text cut into pieces of bytes are those that [`Tokenizer::encode`] gives
    /// of these bytes: so with byte-level BPE, and not where a text is given a space in front.
    pub fn byte_level(&self) -> bool {
        let decoder = serde_json::to_string(&self.inner.get_decoder()).unwrap_or_default();
        decoder.contains("\"ByteLevel\"")
    }

    /// What each token stands for, by id.
    ///
    /// # Errors
    /// The tokenizer spells bytes neither as GPT-2 nor as SentencePiece does.
    pub fn pieces(&self) -> Result<Vec<Piece>> {
        let level = self.byte_level();
        let decoder = serde_json::to_string(&self.inner.get_decoder()).unwrap_or_default();
        if !level && !decoder.contains('\u{2581}') {
            return Err(StageError::failed(
                "the tokenizer is neither byte-level nor SentencePiece",
            )
            .hint("tokens of other kinds have no bytes that a grammar could judge"));
        }
        let added = self.inner.get_added_tokens_decoder();
        let spelled = spelling();
        let piece = |id: u32| {
            let name = self.inner.id_to_token(id).unwrap_or_default();
            if let Some(token) = added.get(&id) {
                return Piece { bytes: name.into_bytes(), special: token.special };
            }
            let bytes = match level {
                true => name.chars().filter_map(|c| spelled.get(&c).copied()).collect(),
                false => match name.strip_prefix("<0x").and_then(|x| x.strip_suffix('>')) {
                    Some(hex) if hex.len() == 2 => {
                        u8::from_str_radix(hex, 16).into_iter().collect()
                    }
                    _ => name.replace('\u{2581}', " ").into_bytes(),
                },
            };
            Piece { bytes, special: false }
        };
        Ok((0..self.size() as u32).map(piece).collect())
    }

    /// Notes in `config` what begins and ends a text, and how many tokens there are.
    pub fn describe(&self, config: &mut Config) {
        config.vocab_size = self.size();
        config.bos_token_id = self.bos.map(Ids::One);
        config.eos_token_id = match self.eos.as_slice() {
            [] => None,
            [id] => Some(Ids::One(*id)),
            ids => Some(Ids::Many(ids.to_vec())),
        };
    }

    /// Tokens in order of their ids, merges in order of their ranks, and which tokens are special:
    /// what a GGUF file wants. An error where the model is not BPE.
    pub fn bpe(&self) -> Result<Bpe> {
        let ModelWrapper::BPE(_) = self.inner.get_model() else {
            return Err(StageError::failed("the tokenizer is not BPE")
                .hint("GGUF export knows byte-level BPE only"));
        };
        let parsed: serde_json::Value = serde_json::from_str(&self.json()?)
            .map_err(|e| StageError::failed(format!("tokenizer.json: {e}")))?;
        let merges = parsed["model"]["merges"].as_array();
        let merges = merges.into_iter().flatten().filter_map(|merge| match merge {
            serde_json::Value::String(pair) => Some(pair.clone()),
            pair => Some(format!("{} {}", pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
        });
        let added = self.inner.get_added_tokens_decoder();
        let tokens = (0..self.size() as u32).map(|id| {
            let name = self.inner.id_to_token(id).unwrap_or_else(|| format!("[PAD{id}]"));
            (name, added.get(&id).is_some_and(|token| token.special))
        });
        let (tokens, special) = tokens.unzip();
        let pre = pre_name(&parsed["pre_tokenizer"].to_string()).into();
        Ok(Bpe { tokens, special, merges: merges.collect(), pre })
    }

    /// The tokenizer of the tables of a GGUF file, of a model of the given shape.
    pub fn of_bpe(bpe: &Bpe, config: &Config) -> Result<Tokenizer> {
        let failed = |e: String| StageError::failed(format!("the tokenizer's tables: {e}"));
        let bytes = |regex: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": regex})
        };
        let split = |regex: &str| {
            let split = json!({"type": "Split", "pattern": {"Regex": regex},
                "behavior": "Isolated", "invert": false});
            json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
        };
        let pre = match bpe.pre.as_str() {
            "gpt-2" => bytes(true),
            "smollm" => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]})
            }
            "qwen2" => split(&SPLIT.replace("{digits}", "")),
            "llama-bpe" => split(&SPLIT.replace("{digits}", "{1,3}")),
            other => {
                return Err(StageError::failed(format!("unknown pre-tokenizer `{other}`"))
                    .hint("put the model's tokenizer.json beside its GGUF file"));
            }
        };
        let pre: PreTokenizerWrapper =
            serde_json::from_value(pre).map_err(|e| failed(e.to_string()))?;
        // Built directly: through the text of tokenizer.json it takes several times longer.
        let vocab: Vocab = bpe.tokens.iter().cloned().zip(0..).collect();
        let longest = bpe.tokens.iter().map(String::len).max().unwrap_or(0);
        let pair = |merge: &String| match merge.split_once(' ') {
            // The library indexes past its buffer by a merge longer than every token.
            Some((a, b)) if a.len() + b.len() <= longest => Ok((a.to_owned(), b.to_owned())),
            _ => Err(failed(format!("the merge `{merge}` makes no token"))),
        };
        let merges = bpe.merges.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .ignore_merges(bpe.pre == "llama-bpe")
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(pre));
        inner.with_decoder(Some(ByteLevel::new(false, true, true)));
        let special = bpe.tokens.iter().zip(&bpe.special).filter(|(_, special)| **special);
        let special: Vec<_> =
            special.map(|(token, _)| AddedToken::from(token.clone(), true)).collect();
        inner.add_special_tokens(special).map_err(|e| failed(e.to_string()))?;
        Tokenizer::of(inner, config).map_err(StageError::failed)
    }
}

/// Any JSON, read to its last string and not kept. `IgnoredAny` looks at no string, `Value` keeps all.
struct Checked;

impl<'de> serde::Deserialize<'de> for Checked {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Checked, D::Error> {
        d.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;
    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> std::result::Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_i64<E>(self, _: i64) -> std::result::Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_u64<E>(self, _: u64) -> std::result::Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_f64<E>(self, _: f64) -> std::result::Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_str<E>(self, _: &str) -> std::result::Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_unit<E>(self) -> std::result::Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut a: A) -> std::result::Result<Checked, A::Error> {
        while a.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut a: A) -> std::result::Result<Checked, A::Error> {
        while a.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the text; of a special token its name.
    pub bytes: Vec<u8>,
    /// It is no text: it marks a beginning, an end, a role.
    pub special: bool,
}

/// GPT-2's spelling of bytes: those that print stand for themselves, the others for the characters from
/// 256 on.
fn spelling() -> std::collections::HashMap<char, u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 256u32;
    let mut spell = |byte: u8| {
        if prints(byte) {
            return (char::from(byte), byte);
        }
        next += 1;
        (char::from_u32(next - 1).unwrap_or_default(), byte)
    };
    (0..=255).map(&mut spell).collect()
}

/// The regular expression of Llama 3 and, with other digits, of Qwen2: contractions, words, numbers,
/// punctuation, line ends and spaces.
const SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{digits}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// llama.cpp's name for a pre-tokenizer, given as its JSON.
fn pre_name(json: &str) -> &'static str {
    match json {
        _ if json.contains("\"Digits\"") => "smollm",
        _ if json.contains("{1,3}") => "llama-bpe",
        _ if json.contains("\"Split\"") && json.contains(r"\p{N}|") => "qwen2",
        _ if json.contains("\"Split\"") => "default",
        _ => "gpt-2",
    }
}

/// The tables of byte-level BPE.
pub struct Bpe {
    /// Tokens by id, in GPT-2's spelling of bytes.
    pub tokens: Vec<String>,
    /// Whether each is a control token.
    pub special: Vec<bool>,
    /// Merges by rank, each `left right`.
    pub merges: Vec<String>,
    /// What splits text into words first, by llama.cpp's name for it.
    pub pre: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "The spread is 12 bps; the spread was 9 bps. Buy limit 10, sell limit 10.\n";

    #[test]
    fn a_trained_tokenizer_loses_nothing_and_is_the_same_each_time() {
        let texts = vec![TEXT.repeat(20), "naïve – σ² ≤ 3 €, 日本".into()];
        let train = || Tokenizer::train(texts.iter().map(String::as_str), 300).unwrap();
        let tokenizer = train();
        assert_eq!(tokenizer.size(), 300);
        for text in &texts {
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens.len() < text.len());
            assert_eq!(&tokenizer.decode(&tokens).unwrap(), text);
        }
        for _ in 0..3 {
            assert_eq!(train().json().unwrap(), tokenizer.json().unwrap());
        }
    }

    #[test]
    fn a_text_begins_as_the_file_says() {
        let tokenizer = Tokenizer::train([TEXT].into_iter(), 280).unwrap();
        let end = tokenizer.eos()[0];
        assert_eq!(tokenizer.prompt("a").unwrap()[0], end);
        let mut config = Config::llama(0, 8, 1, 1, 1, 8, 8);
        tokenizer.describe(&mut config);
        let with = |post: serde_json::Value| {
            let mut json: serde_json::Value =
                serde_json::from_str(&tokenizer.json().unwrap()).unwrap();
            json["post_processor"] = post;
            let read = Tokenizer::parse(json.to_string().as_bytes(), &config).unwrap();
            (read.opening(), read.prompt("a").unwrap() == read.encode("a").unwrap())
        };
        // As in Qwen2's file, and as in Llama 3's.
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
            "use_regex": false});
        assert_eq!(with(bytes), (None, true));
        let piece = |kind: &str, id: &str| json!({kind: {"id": id, "type_id": 0}});
        let template = json!({"type": "TemplateProcessing", "pair": [],
            "single": [piece("SpecialToken", END), piece("Sequence", "A")],
            "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}}});
        assert_eq!(with(template), (Some(end), false));
    }

    #[test]
    fn pieces_are_the_bytes_of_the_text() {
        let text = format!("{} naïve – σ² ≤ 3 €, 日本\t\u{1}\r\n", TEXT.repeat(4));
        let tokenizer = Tokenizer::train([text.as_str()].into_iter(), 300).unwrap();
        let pieces = tokenizer.pieces().unwrap();
        assert_eq!(pieces.len(), 300);
        let tokens = tokenizer.encode(&text).unwrap();
        let bytes: Vec<u8> =
            tokens.iter().flat_map(|&token| pieces[token as usize].bytes.clone()).collect();
        assert_eq!(bytes, text.as_bytes());
        let mut single: Vec<u8> =
            pieces.iter().filter(|p| p.bytes.len() == 1).map(|p| p.bytes[0]).collect();
        single.sort_unstable();
        assert_eq!(single, (0..=255).collect::<Vec<u8>>());
        let end = &pieces[tokenizer.eos()[0] as usize];
        assert_eq!((end.special, end.bytes.as_slice()), (true, END.as_bytes()));
    }

    #[test]
    fn it_survives_its_file_with_the_end_of_text() {
        let tokenizer = Tokenizer::train([TEXT].into_iter(), 280).unwrap();
        let folder = tempfile::tempdir().unwrap();
        tokenizer.write(folder.path()).unwrap();
        let mut config = Config::llama(0, 8, 1, 1, 1, 8, 8);
        tokenizer.describe(&mut config);
        let again = Tokenizer::read(&folder.path().join("tokenizer.json"), &config).unwrap();
        assert_eq!(again.eos(), tokenizer.eos());
        assert_eq!(again.bos(), Some(again.eos()[0]));
        assert_eq!(again.encode(TEXT).unwrap(), tokenizer.encode(TEXT).unwrap());
        assert_eq!(again.encode(END).unwrap(), again.eos());
        config.vocab_size = 100;
        assert!(Tokenizer::read(&folder.path().join("tokenizer.json"), &config).is_err());
    }
}
