//! GGUF, the file of llama.cpp and its kin: weights in quantised blocks, shape and tokenizer in one.
//!
//! [`Gguf`] reads one as a [`Source`] of weights by their HF names, unpacked to f32; [`write()`] makes
//! one. In files of the Llama architecture the rows of q and k lie in another order (the two halves
//! of a head interleaved); it is undone here. Every length of a file is checked against what is left
//! of it before memory is taken. Split files, and architectures other than llama, qwen2, qwen3 and
//! qwen3moe, are not read. Format: ggml's `docs/gguf.md`, version 3.

mod angles;
mod blocks;
mod names;
mod pack;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

pub use blocks::Packing;
#[cfg(feature = "gpu")]
pub(crate) use blocks::scale_and_min;
pub use write::{Entry, write};

use super::config::{Config, Ids};
use super::tokenizer::{Bpe, Tokenizer};
use super::weights::{Bytes, Raw, Source, map};
use crate::{Result, StageError};
use names::{expert_of, model_of, name_of};

/// A value of the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer.
    Int(i128),
    /// Either width of float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list of values of one type.
    List(Vec<Value>),
}

/// A GGUF file, mapped.
pub struct Gguf {
    path: PathBuf,
    bytes: Arc<Mmap>,
    meta: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Info>,
}

/// A tensor of the file: its shape in HF's order, packing, and range of bytes.
struct Info {
    shape: Vec<usize>,
    packing: Packing,
    range: std::ops::Range<usize>,
}

/// How many heads the rows of a tensor are interleaved by; none where they are not.
fn interleaved(hf: &str, config: &Config) -> Option<usize> {
    match hf.rsplit('.').nth(1) {
        _ if config.model_type != "llama" => None,
        Some("q_proj") => Some(config.num_attention_heads),
        Some("k_proj") => Some(config.kv_heads()),
        _ => None,
    }
}

/// Reorders the rows of each head: from halves one after the other to halves interleaved, or back.
pub(crate) fn reorder(values: &[f32], heads: usize, rows: usize, back: bool) -> Vec<f32> {
    let (width, half) = (values.len() / rows.max(1), rows / heads.max(1) / 2);
    let mut out = vec![0.0; values.len()];
    for row in 0..rows {
        let (head, j) = (row / (2 * half), row % (2 * half));
        let mixed = head * 2 * half + 2 * (j % half) + j / half;
        let (from, to) = if back { (mixed, row) } else { (row, mixed) };
        out[to * width..][..width].copy_from_slice(&values[from * width..][..width]);
    }
    out
}

impl Gguf {
    /// Reads a file and checks its header.
    pub fn open(path: &Path) -> Result<Gguf> {
        let bytes = map(path)?;
        let header = Header { bytes: &bytes, at: 0, values: 0 }.read();
        let (meta, tensors) = header.map_err(|message| {
            StageError::bad(path, format!("not a GGUF file that can be read: {message}"))
                .hint("the file is damaged or cut off, or newer than version 3")
        })?;
        Ok(Gguf { path: path.to_owned(), bytes, meta, tensors })
    }

    /// A value of the header.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.meta.get(key)
    }

    /// Bytes that all tensors take.
    pub fn tensor_bytes(&self) -> usize {
        self.tensors.values().map(|info| info.range.len()).sum()
    }

    /// The shape of the model, from the header.
    pub fn config(&self) -> Result<Config> {
        let missing = |key: &str| StageError::bad(&self.path, format!("no usable `{key}`"));
        let text = |key: &str| match self.get(key) {
            Some(Value::Text(text)) => Ok(text.clone()),
            _ => Err(missing(key)),
        };
        let arch = text("general.architecture")?;
        let int = |key: &str| match self.get(&format!("{arch}.{key}")) {
            Some(Value::Int(value)) => usize::try_from(*value).map_err(|_| missing(key)),
            _ => Err(missing(key)),
        };
        let float = |key: &str, or: f64| match self.get(&format!("{arch}.{key}")) {
            Some(Value::Float(value)) => *value,
            _ => or,
        };
        let id = |key: &str| match self.get(&format!("tokenizer.ggml.{key}")) {
            Some(Value::Int(id)) => u32::try_from(*id).ok().map(Ids::One),
            _ => None,
        };
        let Some(Info { shape, .. }) = self.tensors.get("token_embd.weight") else {
            return Err(missing("token_embd.weight"));
        };
        let vocab = shape.first().copied().unwrap_or(0);
        if !matches!(self.get("split.count"), None | Some(Value::Int(0 | 1))) {
            return Err(StageError::bad(&self.path, "it is one part of a split file")
                .hint("join the parts with llama.cpp's `llama-gguf-split --merge`"));
        }
        let scaling = self.get(&format!("{arch}.rope.scaling.type"));
        if !matches!(scaling, None | Some(Value::Text(_)))
            || matches!(scaling, Some(Value::Text(kind)) if kind != "none")
        {
            let message = "its rotary angles are scaled in a way that is not supported";
            return Err(StageError::bad(&self.path, message));
        }
        let experts = int("expert_count").ok().filter(|&experts| experts > 0);
        let mut config = Config::llama(
            vocab,
            int("embedding_length")?,
            int("block_count")?,
            int("attention.head_count")?,
            int("attention.head_count_kv").or(int("attention.head_count"))?,
            int("feed_forward_length").or(int("expert_feed_forward_length"))?,
            int("context_length")?,
        );
        let (model_type, class) = model_of(&arch);
        if experts.is_some() && model_type != "qwen3_moe" {
            let message = format!("experts in the architecture `{arch}` are not supported");
            return Err(StageError::bad(&self.path, message));
        }
        if let Some(experts) = experts {
            config.num_experts = Some(experts);
            config.num_experts_per_tok = Some(int("expert_used_count")?);
            config.moe_intermediate_size = Some(int("expert_feed_forward_length")?);
            config.norm_topk_prob = true;
        }
        config.architectures = vec![class.into()];
        config.attention_bias =
            model_type != "qwen2" && self.tensors.contains_key("blk.0.attn_q.bias");
        config.model_type = model_type.into();
        config.head_dim = int("attention.key_length").ok();
        config.rms_norm_eps = float("attention.layer_norm_rms_epsilon", 1e-5);
        config.rope_theta = float("rope.freq_base", 1e4);
        config.tie_word_embeddings = !self.tensors.contains_key("output.weight");
        config.bos_token_id = id("bos_token_id");
        config.eos_token_id = id("eos_token_id");
        config.check().map_err(|message| StageError::bad(&self.path, message))?;
        config.rope_scaling = self.scaling(&config)?;
        Ok(config)
    }

    /// The tokenizer, from the header.
    pub fn tokenizer(&self, config: &Config) -> Result<Tokenizer> {
        let list = |key: &str| match self.get(&format!("tokenizer.ggml.{key}")) {
            Some(Value::List(list)) => list.as_slice(),
            _ => &[],
        };
        let texts = |key: &str| -> Vec<String> {
            let text = |value: &Value| match value {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            };
            list(key).iter().filter_map(text).collect()
        };
        let pre = match self.get("tokenizer.ggml.pre") {
            Some(Value::Text(pre)) => pre.clone(),
            _ => "gpt-2".into(),
        };
        if self.get("tokenizer.ggml.model") != Some(&Value::Text("gpt2".into())) {
            return Err(StageError::bad(&self.path, "its tokenizer is not byte-level BPE")
                .hint("put the model's tokenizer.json beside it"));
        }
        // 3 is a control token, 4 one that a user defined.
        let special = list("token_type").iter().map(|kind| *kind == Value::Int(3)).collect();
        let bpe = Bpe { tokens: texts("tokens"), special, merges: texts("merges"), pre };
        let mut tokenizer = Tokenizer::of_bpe(&bpe, config)?;
        // Where the file does not say, as llama.cpp has it.
        tokenizer.set_begins(match self.get("tokenizer.ggml.add_bos_token") {
            Some(Value::Bool(begins)) => *begins,
            _ => bpe.pre == "llama-bpe",
        });
        Ok(tokenizer)
    }

    /// The tensor of an HF name as it lies in the file, which for q and k of the Llama architecture
    /// means rows in the other order. An expert's matrix is a part of the tensor of all experts.
    pub fn raw(&self, name: &str) -> Result<Raw> {
        let missing = || {
            StageError::bad(&self.path, format!("no tensor for `{name}`"))
                .hint("config.json and the weights must be of the same model")
        };
        if let Some((tensor, expert)) = expert_of(name) {
            let all = self.tensor(&tensor).ok_or_else(missing)?;
            let [experts, rows, columns] = all.shape[..] else { return Err(missing()) };
            let size = all.bytes.len() / experts.max(1);
            let bytes = all.bytes.part(expert * size..(expert + 1) * size);
            let bytes = bytes.filter(|_| expert < experts).ok_or_else(missing)?;
            return Ok(Raw { shape: vec![rows, columns], packing: all.packing, bytes });
        }
        name_of(name).and_then(|name| self.tensor(&name)).ok_or_else(missing)
    }

    /// A tensor by its GGUF name.
    fn tensor(&self, name: &str) -> Option<Raw> {
        let info = self.tensors.get(name)?;
        let bytes = Bytes::new(&self.bytes, info.range.clone())?;
        Some(Raw { shape: info.shape.clone(), packing: info.packing, bytes })
    }

    /// The weights, for a model of the given shape.
    pub fn source<'a>(&'a self, config: &'a Config) -> impl Source + 'a {
        Weights { file: self, config }
    }
}

struct Weights<'a> {
    file: &'a Gguf,
    config: &'a Config,
}

impl Source for Weights<'_> {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let raw = self.file.raw(name)?;
        if raw.shape != shape {
            let message = format!("tensor `{name}` is {:?}, not {shape:?}", raw.shape);
            return Err(StageError::bad(&self.file.path, message)
                .hint("config.json and the weights must be of the same model"));
        }
        let values = raw.packing.unpack(&raw.bytes);
        Ok(match interleaved(name, self.config) {
            Some(heads) => reorder(&values, heads, shape[0], true),
            None => values,
        })
    }
}

/// Reads the header from the front. Errors are words for a message.
struct Header<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Values of lists so far.
    values: u64,
}

/// Most values of lists in a header: a value of one byte takes 32 in memory, and a file of pieces that
/// are no tensor would take many times its size. Vocabularies have some 300,000 tokens, and as many
/// merges, scores and types.
const VALUES: u64 = 1 << 22;

type Parsed<T> = std::result::Result<T, String>;

impl Header<'_> {
    fn read(mut self) -> Parsed<(BTreeMap<String, Value>, BTreeMap<String, Info>)> {
        if self.take(4)? != b"GGUF" {
            return Err("it does not begin with GGUF".into());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("version {version}"));
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        let mut meta = BTreeMap::new();
        for _ in 0..pairs {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            meta.insert(key, value);
        }
        let mut infos = Vec::new();
        for _ in 0..tensors {
            infos.push(self.info()?);
        }
        let align = match meta.get("general.alignment") {
            None => 32,
            Some(Value::Int(n)) if (1..=1 << 20).contains(n) => *n as usize,
            Some(_) => return Err("a strange alignment".into()),
        };
        let data = self.at.next_multiple_of(align);
        let mut out = BTreeMap::new();
        for (name, shape, packing, offset) in infos {
            let end = || {
                let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
                let size = (elements / packing.block()).checked_mul(packing.bytes())?;
                let start = data.checked_add(usize::try_from(offset).ok()?)?;
                Some((start, start.checked_add(size)?))
            };
            let row = shape.last().copied().unwrap_or(0);
            match end() {
                Some((start, end)) if end <= self.bytes.len() && row % packing.block() == 0 => {
                    out.insert(name, Info { shape, packing, range: start..end });
                }
                _ => return Err(format!("tensor `{name}` does not lie within the file")),
            }
        }
        Ok((meta, out))
    }

    fn info(&mut self) -> Parsed<(String, Vec<usize>, Packing, u64)> {
        let name = self.text()?;
        let dims = self.u32()?;
        if dims == 0 || dims > 4 {
            return Err(format!("tensor `{name}` has {dims} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            let dim = usize::try_from(self.u64()?).map_err(|_| "a huge dimension".to_string())?;
            shape.push(dim);
        }
        shape.reverse();
        let code = self.u32()?;
        let packing = Packing::of_code(code);
        let packing = packing.ok_or_else(|| format!("tensor `{name}` is packed as type {code}"))?;
        Ok((name, shape, packing, self.u64()?))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Parsed<Value> {
        Ok(match kind {
            0 => Value::Int(self.array::<1>()?[0].into()),
            1 => Value::Int((self.array::<1>()?[0] as i8).into()),
            2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Int(self.u32()?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if depth < 4 => {
                let (kind, len) = (self.u32()?, self.u64()?);
                self.values = self.values.saturating_add(len);
                if self.values > VALUES {
                    return Err(format!("lists of {} values", self.values));
                }
                let mut list = Vec::new();
                for _ in 0..len {
                    list.push(self.value(kind, depth + 1)?);
                }
                Value::List(list)
            }
            10 => Value::Int(self.u64()?.into()),
            11 => Value::Int(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("a value of type {kind}")),
        })
    }

    fn take(&mut self, len: usize) -> Parsed<&[u8]> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("it ends within its header")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn text(&mut self) -> Parsed<String> {
        let len = usize::try_from(self.u64()?).map_err(|_| "a huge text".to_string())?;
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| "a text is not UTF-8".into())
    }
}
