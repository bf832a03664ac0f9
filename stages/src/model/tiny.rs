//! Small random models and their files, for tests.

use std::path::Path;

use super::gguf::{self, Entry, Packing};
use super::weights::{self, Named, Normal, Source};
use super::{Config, Tokenizer, layout};
use crate::Result;

/// A tokenizer of 270 tokens.
pub fn tokenizer() -> Tokenizer {
    Tokenizer::train(["a small text, and another small text"].into_iter(), 270).unwrap()
}

/// The shape of a model of any layout for [`tokenizer`].
pub fn config(model_type: &str) -> Config {
    let mut config = Config::llama(0, 64, 2, 4, 2, 96, 400);
    tokenizer().describe(&mut config);
    config.model_type = model_type.into();
    config.tie_word_embeddings = model_type == "llama";
    if model_type.starts_with("qwen3") {
        config.head_dim = Some(24);
    }
    if model_type == "qwen3_moe" {
        config.num_experts = Some(5);
        config.num_experts_per_tok = Some(2);
        config.moe_intermediate_size = Some(32);
        config.norm_topk_prob = true;
    }
    config
}

/// Random tensors of a size at which attention, gates and routers have something to choose.
pub fn random(config: &Config) -> Vec<Named> {
    let mut normal = Normal::new(3);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut values = normal.read("", &shape).unwrap();
        let norm = name.ends_with("norm.weight");
        values.iter_mut().for_each(|x| *x = if norm { 1.0 + 10.0 * *x } else { 10.0 * *x });
        Named { name, shape, values }
    };
    layout::tensors(config).into_iter().map(tensor).collect()
}

/// A folder of safetensors.
pub fn folder(config: &Config, tensors: &[Named]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    weights::write(&folder.path().join("model.safetensors"), tensors).unwrap();
    config.write(folder.path()).unwrap();
    tokenizer().write(folder.path()).unwrap();
    folder
}

/// A GGUF file with [`tokenizer`], matrices packed as `packing`, vectors and routers as they are.
pub fn write_gguf(path: &Path, config: &Config, tensors: &[Named], packing: Packing) -> Result<()> {
    let entry = |(name, shape): (String, Vec<usize>)| {
        let vector = shape.len() < 2 || name.ends_with("mlp.gate.weight");
        Entry { name, packing: if vector { Packing::F32 } else { packing }, shape }
    };
    let entries: Vec<Entry> = layout::stacked(config).into_iter().map(entry).collect();
    gguf::write(path, config, &tokenizer(), Some("{{ messages }}"), &entries, |entry| {
        let find = |name: &String| tensors.iter().find(|t| t.name == *name).unwrap();
        let parts = entry.parts().0;
        let pack = |name| entry.packing.pack(&find(name).values, None);
        Ok(parts.iter().flat_map(pack).collect())
    })
}

/// A folder of the GGUF file of a random model.
pub fn packed(config: &Config, packing: Packing) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_gguf(&folder.path().join("model.gguf"), config, &random(config), packing).unwrap();
    folder
}
