//! The shape of a model, as `config.json` of a HF folder has it, for the Llama and Qwen2 layouts.
//!
//! A file comes from anywhere, so every number is checked before memory is asked for by it. What
//! would change the mathematics and is not implemented (scaled RoPE, sliding windows, other
//! activations) is an error and not a guess.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Result, StageError};

/// The shape of a model. Field names are those of HF's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The class that HF loads it with.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `llama` or `qwen2`.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves a group of query heads.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Tokens.
    pub vocab_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Added to the mean square in a norm.
    #[serde(default = "eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary angles.
    #[serde(default = "theta")]
    pub rope_theta: f64,
    /// The output matrix is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Biases on q, k, v and o (Llama); Qwen2 has them on q, k and v whatever this says.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the feed-forward layer.
    #[serde(default)]
    pub mlp_bias: bool,
    /// The activation: `silu`.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// First token of a text.
    #[serde(default)]
    pub bos_token_id: Option<Ids>,
    /// Tokens that end a text.
    #[serde(default)]
    pub eos_token_id: Option<Ids>,
    /// Scaling of the rotary angles; not implemented.
    #[serde(default, skip_serializing)]
    pub rope_scaling: Option<serde_json::Value>,
    /// Qwen2's sliding window; not implemented.
    #[serde(default, skip_serializing)]
    pub use_sliding_window: bool,
    /// Element type of the weights.
    #[serde(default = "float32")]
    pub torch_dtype: String,
}

/// One token id or several, as HF writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ids {
    /// One.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

fn eps() -> f64 {
    1e-6
}
fn theta() -> f64 {
    1e4
}
fn silu() -> String {
    "silu".into()
}
fn float32() -> String {
    "float32".into()
}

impl Config {
    /// A small Llama with tied embeddings: `vocab` tokens, `hidden` wide, `layers` blocks, `heads`
    /// query heads in groups that share `kv_heads` keys, `ffn` wide between, `context` tokens long.
    pub fn llama(
        vocab: usize,
        hidden: usize,
        layers: usize,
        heads: usize,
        kv_heads: usize,
        ffn: usize,
        context: usize,
    ) -> Config {
        Config {
            architectures: vec!["LlamaForCausalLM".into()],
            model_type: "llama".into(),
            hidden_size: hidden,
            intermediate_size: ffn,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: Some(kv_heads),
            head_dim: None,
            vocab_size: vocab,
            max_position_embeddings: context,
            rms_norm_eps: 1e-5,
            rope_theta: theta(),
            tie_word_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
            hidden_act: silu(),
            bos_token_id: None,
            eos_token_id: None,
            rope_scaling: None,
            use_sliding_window: false,
            torch_dtype: float32(),
        }
    }

    /// Reads and checks `config.json`.
    pub fn read(path: &Path) -> Result<Config> {
        let text = fs_err::read_to_string(path)?;
        let config: Config = serde_json::from_str(&text).map_err(|e| {
            StageError::bad(path, e.to_string())
                .at(e.line() as u64)
                .hint("a model folder has HF's config.json of a Llama or Qwen2 model")
        })?;
        config.check().map_err(|message| StageError::bad(path, message))?;
        Ok(config)
    }

    /// Writes `config.json` into a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| StageError::failed(format!("config.json: {e}")))?;
        text.push('\n');
        Ok(fs_err::write(folder.join("config.json"), text)?)
    }

    /// Says what does not hold, in lower case.
    pub fn check(&self) -> std::result::Result<(), String> {
        let limits = [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("num_key_value_heads", self.kv_heads(), 1 << 10),
            ("vocab_size", self.vocab_size, 1 << 20),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 20),
        ];
        for (name, value, limit) in limits {
            if value == 0 || value > limit {
                return Err(format!("`{name}` is {value}, not in 1..={limit}"));
            }
        }
        let (heads, kv) = (self.num_attention_heads, self.kv_heads());
        if !heads.is_multiple_of(kv) {
            return Err(format!("{heads} query heads are not a multiple of {kv} key heads"));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return Err(format!("`hidden_size` {} is not a multiple of {heads}", self.hidden_size));
        }
        let head = self.head_size();
        if head == 0 || !head.is_multiple_of(2) || head > 1 << 12 {
            return Err(format!("the width of a head is {head}, not an even number up to 4096"));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(format!("`rms_norm_eps` is {}, not in (0, 1)", self.rms_norm_eps));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return Err(format!("`rope_theta` is {}, not at least 1", self.rope_theta));
        }
        if !matches!(self.model_type.as_str(), "llama" | "qwen2") {
            return Err(format!("`model_type` `{}` is neither llama nor qwen2", self.model_type));
        }
        if self.hidden_act != "silu" {
            return Err(format!("`hidden_act` `{}` is not silu", self.hidden_act));
        }
        if self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null()) {
            return Err("`rope_scaling` is not supported".into());
        }
        if self.use_sliding_window {
            return Err("`use_sliding_window` is not supported".into());
        }
        Ok(())
    }

    /// Longest sequence that is computed: `max_position_embeddings`, and at most 32,768, so that a
    /// number in a file does not decide how much memory the rotary angles take.
    pub fn context(&self) -> usize {
        self.max_position_embeddings.min(1 << 15)
    }
    /// Key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }
    /// Width of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }
    /// Biases on q, k and v.
    pub fn qkv_bias(&self) -> bool {
        self.model_type == "qwen2" || self.attention_bias
    }
    /// A bias on o.
    pub fn output_bias(&self) -> bool {
        self.model_type != "qwen2" && self.attention_bias
    }
    /// Tokens that end a text.
    pub fn eos(&self) -> &[u32] {
        match &self.eos_token_id {
            Some(Ids::One(id)) => std::slice::from_ref(id),
            Some(Ids::Many(ids)) => ids,
            None => &[],
        }
    }
    /// Number of weights.
    pub fn parameters(&self) -> usize {
        let (d, f, v) = (self.hidden_size, self.intermediate_size, self.vocab_size);
        let (q, kv) =
            (self.num_attention_heads * self.head_size(), self.kv_heads() * self.head_size());
        let bias = usize::from(self.qkv_bias()) * (q + 2 * kv)
            + usize::from(self.output_bias()) * d
            + usize::from(self.mlp_bias) * (2 * f + d);
        let block = 2 * d * q + 2 * d * kv + 3 * d * f + 2 * d + bias;
        let embeddings = if self.tie_word_embeddings { v * d } else { 2 * v * d };
        embeddings + self.num_hidden_layers * block + d
    }
}
