//! The shape of a model, as `config.json` of a HF folder has it, for the Llama, Qwen2, Qwen3 and
//! Qwen3-MoE layouts.
//!
//! A file comes from anywhere, so every number is checked before memory is asked for by it. What
//! would change the mathematics and is not implemented (RoPE scaled otherwise than in Llama 3,
//! sliding windows, other activations) is an error and not a guess.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Result, StageError};

/// The shape of a model. Field names are those of HF's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The class that HF loads it with.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `llama`, `qwen2`, `qwen3` or `qwen3_moe`.
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
    /// Scaling of the rotary angles: Llama 3's, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Scaling>,
    /// Where newer files keep `rope_theta` and the scaling; read into those two.
    #[serde(default, skip_serializing)]
    pub rope_parameters: Option<serde_json::Value>,
    /// Experts of a layer (Qwen3-MoE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_experts: Option<usize>,
    /// The same by the name that newer files have; read into `num_experts`.
    #[serde(default, skip_serializing)]
    pub num_local_experts: Option<usize>,
    /// Experts that a token goes through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_experts_per_tok: Option<usize>,
    /// Width of an expert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe_intermediate_size: Option<usize>,
    /// The weights of a token's experts are made to sum to 1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub norm_topk_prob: bool,
    /// Every how many layers one has experts; 1 is implemented.
    #[serde(default, skip_serializing)]
    pub decoder_sparse_step: Option<usize>,
    /// Layers without experts; none is implemented.
    #[serde(default, skip_serializing)]
    pub mlp_only_layers: Vec<usize>,
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

/// How the rotary angles are scaled, by HF's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// `llama3`, or `default` for none.
    #[serde(alias = "type")]
    pub rope_type: String,
    /// How many times slower the slow angles turn.
    #[serde(default = "one")]
    pub factor: f64,
    /// Angles that turn fewer times than this in the original context are slowed.
    #[serde(default = "one")]
    pub low_freq_factor: f64,
    /// Angles that turn more often than this are left alone.
    #[serde(default = "four")]
    pub high_freq_factor: f64,
    /// The context before scaling.
    #[serde(default = "original")]
    pub original_max_position_embeddings: usize,
}

fn one() -> f64 {
    1.0
}
fn four() -> f64 {
    4.0
}
fn original() -> usize {
    8192
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
            rope_parameters: None,
            num_experts: None,
            num_local_experts: None,
            num_experts_per_tok: None,
            moe_intermediate_size: None,
            norm_topk_prob: false,
            decoder_sparse_step: None,
            mlp_only_layers: vec![],
            use_sliding_window: false,
            torch_dtype: float32(),
        }
    }

    /// Reads and checks `config.json`.
    pub fn read(path: &Path) -> Result<Config> {
        let text = fs_err::read_to_string(path)?;
        let mut config: Config = serde_json::from_str(&text).map_err(|e| {
            StageError::bad(path, e.to_string())
                .at(e.line() as u64)
                .hint("a model folder has HF's config.json of a Llama, Qwen2 or Qwen3 model")
        })?;
        config.settle().map_err(|message| StageError::bad(path, message))?;
        config.check().map_err(|message| StageError::bad(path, message))?;
        Ok(config)
    }

    /// Takes the number of experts and the angles from where newer files keep them.
    fn settle(&mut self) -> std::result::Result<(), String> {
        self.num_experts = self.num_experts.or(self.num_local_experts.take());
        let Some(parameters) = self.rope_parameters.take().filter(|value| !value.is_null()) else {
            return Ok(());
        };
        if let Some(theta) = parameters.get("rope_theta") {
            self.rope_theta = theta.as_f64().ok_or("`rope_theta` is not a number")?;
        }
        let scaling = serde_json::from_value(parameters);
        self.rope_scaling = Some(scaling.map_err(|e| format!("`rope_parameters`: {e}"))?);
        Ok(())
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
        if !matches!(self.model_type.as_str(), "llama" | "qwen2" | "qwen3" | "qwen3_moe") {
            let message = "is none of llama, qwen2, qwen3 and qwen3_moe";
            return Err(format!("`model_type` `{}` {message}", self.model_type));
        }
        self.check_experts()?;
        if self.hidden_act != "silu" {
            return Err(format!("`hidden_act` `{}` is not silu", self.hidden_act));
        }
        if let Some(scaling) = &self.rope_scaling {
            scaling.check()?;
        }
        if self.use_sliding_window {
            return Err("`use_sliding_window` is not supported".into());
        }
        Ok(())
    }

    fn check_experts(&self) -> std::result::Result<(), String> {
        if self.model_type != "qwen3_moe" {
            return match self.num_experts {
                None => Ok(()),
                Some(_) => Err(format!("experts in a model of type `{}`", self.model_type)),
            };
        }
        let (Some(experts), Some(used), Some(width)) =
            (self.num_experts, self.num_experts_per_tok, self.moe_intermediate_size)
        else {
            return Err("a model of experts needs `num_experts`, `num_experts_per_tok` and \
                        `moe_intermediate_size`"
                .into());
        };
        if experts == 0 || experts > 1 << 10 || used == 0 || used > experts {
            return Err(format!("{used} of {experts} experts is not possible"));
        }
        if experts * self.num_hidden_layers > 1 << 16 {
            let layers = self.num_hidden_layers;
            return Err(format!("{experts} experts in each of {layers} layers are too many"));
        }
        if width == 0 || width > 1 << 18 {
            return Err(format!("`moe_intermediate_size` is {width}, not in 1..={}", 1 << 18));
        }
        if self.decoder_sparse_step.unwrap_or(1) != 1 || !self.mlp_only_layers.is_empty() {
            return Err("layers without experts among layers with them are not supported".into());
        }
        Ok(())
    }

    /// What the angle of each pair of a head is divided by: 1 but where they are scaled (Llama 3.1,
    /// section 3.1; as HF computes it).
    pub fn rope_factors(&self) -> Vec<f32> {
        let half = self.head_size() / 2;
        let Some(scaling) = self.rope_scaling.as_ref().filter(|scaling| scaling.scales()) else {
            return vec![1.0; half];
        };
        let factor = |j: usize| {
            let length = std::f64::consts::TAU * self.rope_theta.powf(j as f64 / half as f64);
            let turns = scaling.original_max_position_embeddings as f64 / length;
            let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / scaling.factor + smooth)) as f32
        };
        (0..half).map(factor).collect()
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
    /// Norms on each head of q and k.
    pub fn qk_norm(&self) -> bool {
        matches!(self.model_type.as_str(), "qwen3" | "qwen3_moe")
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
        let ffn = match (self.num_experts, self.moe_intermediate_size) {
            (Some(experts), Some(width)) => experts * (3 * d * width + d),
            _ => 3 * d * f,
        };
        let norms = 2 * d + usize::from(self.qk_norm()) * 2 * self.head_size();
        let block = 2 * d * q + 2 * d * kv + ffn + norms + bias;
        let embeddings = if self.tie_word_embeddings { v * d } else { 2 * v * d };
        embeddings + self.num_hidden_layers * block + d
    }
}

impl Scaling {
    /// It changes the angles.
    pub fn scales(&self) -> bool {
        self.rope_type != "default"
    }
    fn check(&self) -> std::result::Result<(), String> {
        if !matches!(self.rope_type.as_str(), "llama3" | "default") {
            return Err(format!("`rope_scaling` of type `{}` is not supported", self.rope_type));
        }
        let numbers = [self.factor, self.low_freq_factor, self.high_freq_factor];
        let finite = numbers.iter().all(|x| x.is_finite() && *x > 0.0);
        if !finite || self.high_freq_factor <= self.low_freq_factor {
            return Err("`rope_scaling` has strange factors".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &str) -> Result<Config> {
        let text = format!(
            r#"{{"model_type": "llama", "hidden_size": 128, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8,
            "max_position_embeddings": 131072{extra}}}"#
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    /// Computed by hand from the formula of transformers' `_compute_llama3_parameters`.
    #[test]
    fn llama_3_slows_the_slow_angles_and_leaves_the_fast_ones() {
        let scaling = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192"#;
        let old = format!(
            r#", "rope_theta": 500000.0, "rope_scaling": {{"rope_type": "llama3", {scaling}}}"#
        );
        let new = format!(
            r#", "rope_parameters": {{"rope_theta": 500000.0, "rope_type": "llama3", {scaling}}}"#
        );
        for text in [old, new] {
            let config = parse(&text).unwrap();
            let factors = config.rope_factors();
            assert_eq!((factors[0], factors[63]), (1.0, 8.0));
            // Pair 32: wave length 2 pi sqrt(500000) = 4442.9, 1.8438 turns, smooth 0.28128.
            assert!((factors[32] - 2.694_53).abs() < 1e-4, "{}", factors[32]);
        }
    }

    #[test]
    fn what_is_not_implemented_is_an_error() {
        for (text, word) in [
            (r#", "rope_scaling": {"type": "yarn", "factor": 4.0}"#, "yarn"),
            (r#", "rope_parameters": {"rope_type": "dynamic"}"#, "dynamic"),
            (r#", "use_sliding_window": true"#, "sliding"),
            (r#", "num_key_value_heads": 0"#, "num_key_value_heads"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(parse(r#", "rope_scaling": null"#).is_ok());
    }
}
