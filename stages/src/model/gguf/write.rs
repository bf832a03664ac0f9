//! Writing a GGUF file, version 3.

use std::path::Path;

use super::names::{arch_of, name_of};
use super::{Packing, Value, interleaved, reorder};
use crate::model::config::Config;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Named;
use crate::{Result, StageError};

const ALIGN: usize = 32;

/// Writes a model: `tensors` by their HF names and in HF's layout, each packed as `packing` says of
/// it. A tensor that cannot be packed so (a row that is no multiple of the block) is an error.
pub fn write(
    path: &Path,
    config: &Config,
    tokenizer: &Tokenizer,
    tensors: &[Named],
    packing: impl Fn(&Named) -> Packing,
) -> Result<()> {
    let mut infos = Vec::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let kind = packing(tensor);
        let name = name_of(&tensor.name)
            .ok_or_else(|| StageError::failed(format!("`{}` has no GGUF name", tensor.name)))?;
        let row = tensor.shape.last().copied().unwrap_or(0);
        let packed =
            row.is_multiple_of(kind.block()).then(|| match interleaved(&tensor.name, config) {
                Some(heads) => {
                    kind.pack(&reorder(&tensor.values, heads, tensor.shape[0], false), None)
                }
                None => kind.pack(&tensor.values, None),
            });
        let Some(packed) = packed else {
            let message = format!("`{}` with rows of {row} cannot be {kind:?}", tensor.name);
            return Err(StageError::failed(message));
        };
        data.resize(data.len().next_multiple_of(ALIGN), 0);
        infos.push((name, &tensor.shape, kind, data.len()));
        data.extend(packed);
    }
    let meta = metadata(config, tokenizer, tensors.iter().map(&packing))?;
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((infos.len() as u64).to_le_bytes());
    out.extend((meta.len() as u64).to_le_bytes());
    for (key, value) in &meta {
        text(&mut out, key);
        out.extend(code(value).to_le_bytes());
        put(&mut out, value);
    }
    for (name, shape, kind, offset) in infos {
        text(&mut out, &name);
        out.extend((shape.len() as u32).to_le_bytes());
        for &dim in shape.iter().rev() {
            out.extend((dim as u64).to_le_bytes());
        }
        out.extend(kind.code().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    out.extend(data);
    Ok(fs_err::write(path, out)?)
}

/// What llama.cpp wants to know besides the weights.
fn metadata(
    config: &Config,
    tokenizer: &Tokenizer,
    packings: impl Iterator<Item = Packing>,
) -> Result<Vec<(String, Value)>> {
    let int = |x: usize| Value::Int(x as i128);
    let word = |x: &str| Value::Text(x.into());
    let arch = arch_of(&config.model_type);
    let mut meta = vec![
        ("general.architecture".to_owned(), word(arch)),
        ("general.alignment".into(), int(ALIGN)),
        ("general.quantization_version".into(), int(2)),
        ("general.file_type".into(), int(file_type(packings))),
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
    // The pipelines train and ask without a token in front.
    meta.push((key("add_bos_token"), Value::Bool(false)));
    Ok(meta)
}

/// llama.cpp's number for what most weights are packed as; it shows it and computes nothing by it.
fn file_type(packings: impl Iterator<Item = Packing>) -> usize {
    let all: Vec<Packing> = packings.collect();
    let known = [(Packing::Q4K, 14), (Packing::Q4_0, 2), (Packing::Q8_0, 7), (Packing::F16, 1)];
    known.iter().find(|(kind, _)| all.contains(kind)).map_or(0, |&(_, code)| code)
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
