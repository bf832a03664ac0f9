//! Writing a GGUF file, version 3: the header first, from shapes alone, then a tensor at a time, so
//! that a model of any size takes the memory of its largest tensor.

use std::io::{BufWriter, Write};
use std::path::Path;

use super::names::{arch_of, name_of};
use super::{Packing, Value, interleaved};
use crate::model::config::{Config, Scaling};
use crate::model::tokenizer::Tokenizer;
use crate::{Result, StageError};

const ALIGN: usize = 32;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its HF name; of the matrices of all experts of a layer that of one without its number.
    pub name: String,
    /// Its shape, in HF's order; experts are the first axis.
    pub shape: Vec<usize>,
    /// How it is packed; a row is a multiple of the block.
    pub packing: Packing,
}

impl Entry {
    /// Bytes of a row, and of the tensor; `None` where a row cannot be packed so.
    fn bytes(&self) -> Option<(usize, usize)> {
        let row = self.shape.last().copied()?;
        let (block, rows) =
            (self.packing.block(), self.shape.iter().rev().skip(1).product::<usize>());
        let bytes = row / block * self.packing.bytes();
        row.is_multiple_of(block).then_some((bytes, bytes * rows))
    }

    /// The HF tensors that it is made of, one after another, and their shape: one, or that of each
    /// expert.
    pub fn parts(&self) -> (Vec<String>, &[usize]) {
        match (self.name.split_once(".mlp.experts."), self.shape.split_first()) {
            (Some((at, layer)), Some((&experts, shape))) if shape.len() == 2 => {
                let name = |i| format!("{at}.mlp.experts.{i}.{layer}");
                ((0..experts).map(name).collect(), shape)
            }
            _ => (vec![self.name.clone()], &self.shape),
        }
    }
}

/// Writes a model. `packed` gives the bytes of a tensor, its rows in HF's order; it is asked once
/// for each entry, in order.
pub fn write(
    path: &Path,
    config: &Config,
    tokenizer: &Tokenizer,
    chat_template: Option<&str>,
    entries: &[Entry],
    mut packed: impl FnMut(&Entry) -> Result<Vec<u8>>,
) -> Result<()> {
    let meta = metadata(config, tokenizer, chat_template, entries)?;
    // Llama 3's angles are a tensor: what each pair's is divided by.
    let factors = match config.rope_scaling.as_ref().is_some_and(Scaling::scales) {
        true => config.rope_factors(),
        false => Vec::new(),
    };
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    let count = entries.len() + usize::from(!factors.is_empty());
    head.extend((count as u64).to_le_bytes());
    head.extend((meta.len() as u64).to_le_bytes());
    for (key, value) in &meta {
        text(&mut head, key);
        head.extend(code(value).to_le_bytes());
        put(&mut head, value);
    }
    let mut offset = 0usize;
    for entry in entries {
        let Entry { name, shape, packing } = entry;
        let known = name_of(name)
            .ok_or_else(|| StageError::failed(format!("`{name}` has no GGUF name")))?;
        let (_, bytes) = entry.bytes().ok_or_else(|| {
            let row = shape.last().copied().unwrap_or(0);
            StageError::failed(format!("`{name}` with rows of {row} cannot be {packing:?}"))
        })?;
        describe(&mut head, &known, shape, *packing, offset);
        offset = (offset + bytes).next_multiple_of(ALIGN);
    }
    if !factors.is_empty() {
        describe(&mut head, "rope_freqs.weight", &[factors.len()], Packing::F32, offset);
    }
    head.resize(head.len().next_multiple_of(ALIGN), 0);
    let mut file = BufWriter::new(fs_err::File::create(path)?);
    file.write_all(&head)?;
    for entry in entries {
        let mut bytes = packed(entry)?;
        if let (Some(heads), Some((row, _))) = (interleaved(&entry.name, config), entry.bytes()) {
            bytes = interleave(&bytes, heads, row);
        }
        let padding = bytes.len().next_multiple_of(ALIGN) - bytes.len();
        file.write_all(&bytes)?;
        file.write_all(&[0; ALIGN][..padding])?;
    }
    file.write_all(&Packing::F32.pack(&factors, None))?;
    Ok(file.flush()?)
}

/// A tensor's place in the header.
fn describe(head: &mut Vec<u8>, name: &str, shape: &[usize], packing: Packing, offset: usize) {
    text(head, name);
    head.extend((shape.len() as u32).to_le_bytes());
    for &dim in shape.iter().rev() {
        head.extend((dim as u64).to_le_bytes());
    }
    head.extend(packing.code().to_le_bytes());
    head.extend((offset as u64).to_le_bytes());
}

/// Reorders packed rows of `width` bytes as llama.cpp wants those of q and k: in each head, the
/// halves row by row in turn.
pub(super) fn interleave(bytes: &[u8], heads: usize, width: usize) -> Vec<u8> {
    let size = bytes.len() / (width * heads).max(1);
    let row = |head: usize, j: usize| &bytes[(head * size + j) * width..][..width];
    (0..heads)
        .flat_map(|head| (0..size).map(move |i| row(head, i % 2 * (size / 2) + i / 2)))
        .flatten()
        .copied()
        .collect()
}

/// What llama.cpp wants to know besides the weights.
fn metadata(
    config: &Config,
    tokenizer: &Tokenizer,
    chat_template: Option<&str>,
    entries: &[Entry],
) -> Result<Vec<(String, Value)>> {
    let int = |x: usize| Value::Int(x as i128);
    let word = |x: &str| Value::Text(x.into());
    let arch = arch_of(&config.model_type);
    let mut meta = vec![
        ("general.architecture".to_owned(), word(arch)),
        ("general.alignment".into(), int(ALIGN)),
        ("general.quantization_version".into(), int(2)),
        ("general.file_type".into(), int(file_type(entries))),
    ];
    let size = config.head_size();
    let shape = [
        ("block_count", int(config.num_hidden_layers)),
        ("context_length", int(config.max_position_embeddings)),
        ("embedding_length", int(config.hidden_size)),
        ("feed_forward_length", int(config.intermediate_size)),
        ("attention.head_count", int(config.num_attention_heads)),
        ("attention.head_count_kv", int(config.kv_heads())),
        ("attention.key_length", int(size)),
        ("attention.value_length", int(size)),
        ("attention.layer_norm_rms_epsilon", Value::Float(config.rms_norm_eps)),
        ("rope.dimension_count", int(size)),
        ("rope.freq_base", Value::Float(config.rope_theta)),
        ("vocab_size", int(config.vocab_size)),
    ];
    meta.extend(shape.map(|(key, value)| (format!("{arch}.{key}"), value)));
    let experts = [
        ("expert_count", config.num_experts),
        ("expert_used_count", config.num_experts_per_tok),
        ("expert_feed_forward_length", config.moe_intermediate_size),
    ];
    let experts = experts.iter().filter_map(|(key, value)| Some((key, (*value)?)));
    meta.extend(experts.map(|(key, value)| (format!("{arch}.{key}"), int(value))));

    let mut bpe = tokenizer.bpe()?;
    // A model may have more rows than its tokenizer has tokens.
    for id in bpe.tokens.len()..config.vocab_size {
        bpe.tokens.push(format!("[PAD{id}]"));
        bpe.special.push(true);
    }
    // 1 is a normal token, 3 a control token.
    let kinds = bpe.special.iter().map(|&special| Value::Int(if special { 3 } else { 1 }));
    let lists = [
        ("tokens", bpe.tokens.iter().map(|token| word(token)).collect()),
        ("token_type", kinds.collect()),
        ("merges", bpe.merges.iter().map(|merge| word(merge)).collect()),
    ];
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    meta.push((key("model"), word("gpt2")));
    meta.push((key("pre"), word(&bpe.pre)));
    meta.extend(lists.map(|(name, list)| (key(name), Value::List(list))));
    if let Some(bos) = tokenizer.bos() {
        meta.push((key("bos_token_id"), int(bos as usize)));
    }
    if let Some(&eos) = tokenizer.eos().first() {
        meta.push((key("eos_token_id"), int(eos as usize)));
        meta.push((key("padding_token_id"), int(eos as usize)));
    }
    meta.push((key("add_bos_token"), Value::Bool(tokenizer.opening().is_some())));
    if let Some(template) = chat_template {
        meta.push(("tokenizer.chat_template".into(), word(template)));
    }
    Ok(meta)
}

/// llama.cpp's number for what most weights are packed as; it shows it and computes nothing by it.
fn file_type(entries: &[Entry]) -> usize {
    let holds = |kind: Packing| entries.iter().any(|entry| entry.packing == kind);
    let known = [
        (Packing::Q4K, 15),
        (Packing::Q5K, 17),
        (Packing::Q4_0, 2),
        (Packing::Q4_1, 3),
        (Packing::Q6K, 18),
        (Packing::Q8_0, 7),
        (Packing::Bf16, 32),
        (Packing::F16, 1),
    ];
    known.iter().find(|(kind, _)| holds(*kind)).map_or(0, |&(_, code)| code)
}

/// Integers are written as u32 and floats as f32, which is what readers of these keys expect; the
/// kinds of tokens are i32.
fn code(value: &Value) -> u32 {
    match value {
        Value::Int(_) => 4,
        Value::Float(_) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::List(_) => 9,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Int(x) => out.extend((*x as u32).to_le_bytes()),
        Value::Float(x) => out.extend((*x as f32).to_le_bytes()),
        Value::Bool(x) => out.push(u8::from(*x)),
        Value::Text(x) => text(out, x),
        Value::List(list) => {
            let kind = match list.first() {
                Some(Value::Int(_)) => 5,
                Some(first) => code(first),
                None => 8,
            };
            out.extend(kind.to_le_bytes());
            out.extend((list.len() as u64).to_le_bytes());
            list.iter().for_each(|item| put(out, item));
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
