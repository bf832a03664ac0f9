//! What `quantize` may be told, and what each tensor is packed as.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::model::Config;
use crate::model::gguf::Packing;

/// How weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// 4.5 bits a weight: 16 levels and one scale for 32 weights.
    #[serde(rename = "q4_0")]
    Q4_0,
    /// 5 bits a weight: 16 levels, a scale and a minimum for 32 weights.
    #[serde(rename = "q4_1")]
    Q4_1,
    /// 4.5 bits a weight: 16 levels, a scale and a minimum for 32 weights, searched for. About a
    /// sixth less error than q4_0. Rows must be multiples of 256; others are packed as q4_1.
    #[serde(rename = "q4_k")]
    Q4K,
    /// q4_k, and q6_k where an error costs most: half of the matrices `v` and `down`, the first and
    /// last eighth of the blocks among them (llama.cpp's Q4_K_M). About 4.8 bits a weight.
    #[serde(rename = "q4_k_m")]
    Q4KM,
    /// 5.5 bits a weight: q4_k with 32 levels. Rows that are no multiple of 256: q8_0.
    #[serde(rename = "q5_k")]
    Q5K,
    /// 6.6 bits a weight: 64 levels for 16 weights. Rows that are no multiple of 256: q8_0.
    #[serde(rename = "q6_k")]
    Q6K,
    /// 8.5 bits a weight.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// 16 bits a weight, IEEE half precision.
    #[serde(rename = "f16")]
    F16,
    /// 16 bits a weight, bfloat16.
    #[serde(rename = "bf16")]
    Bf16,
    /// 32 bits a weight.
    #[serde(rename = "f32")]
    F32,
}

impl Method {
    /// What a row of `len` weights is packed as.
    pub fn packing(self, len: usize) -> Packing {
        let (wanted, other) = match self {
            Method::Q4_0 => (Packing::Q4_0, Packing::F16),
            Method::Q4_1 => (Packing::Q4_1, Packing::F16),
            Method::Q4K | Method::Q4KM => (Packing::Q4K, Packing::Q4_1),
            Method::Q5K => (Packing::Q5K, Packing::Q8_0),
            Method::Q6K => (Packing::Q6K, Packing::Q8_0),
            Method::Q8_0 => (Packing::Q8_0, Packing::F16),
            Method::F16 => (Packing::F16, Packing::F16),
            Method::Bf16 => (Packing::Bf16, Packing::Bf16),
            Method::F32 => (Packing::F32, Packing::F32),
        };
        let fits = |packing: &Packing| len.is_multiple_of(packing.block());
        [wanted, other].into_iter().find(fits).unwrap_or(Packing::F16)
    }

    fn floats(self) -> bool {
        matches!(self, Method::F16 | Method::Bf16 | Method::F32)
    }
}

/// The file that holds the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// `model.gguf`, of llama.cpp and its kin.
    Gguf,
    /// `model.safetensors`, HF's; for f32, f16 and bf16.
    Safetensors,
}

/// [`Settings`] with every default filled in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Settings")]
pub struct Params {
    /// How matrices are packed.
    pub method: Method,
    /// How the embedding is packed.
    pub embeddings: Method,
    /// The file.
    pub format: Container,
    /// Chunks of `text` to measure the loss on, before and after.
    pub measure_chunks: usize,
    /// What the packing is fitted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance: Option<Importance>,
}

/// How the importance of weights is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Importance {
    /// Tokens of `text` to read, 1 or more.
    pub tokens: usize,
}

impl Default for Importance {
    fn default() -> Importance {
        Importance { tokens: 16_384 }
    }
}

/// Whether importance is measured, or how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, false, or a mapping such as { tokens: 16384 }")]
enum Wanted {
    /// With the defaults, or not at all.
    Whether(bool),
    /// With these.
    How(Importance),
}

/// The parameters of `quantize`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// How matrices are packed. Default: `q4_0`.
    method: Method,
    /// How the embedding (which is the output matrix too, where they are tied) is packed. It is
    /// read one row a token, so that its bits cost little time, and errors in it reach every logit.
    /// Default: `q8_0`; `q6_k` for `q4_k_m`, `q5_k` and `q6_k`; as the rest for floats.
    embeddings: Option<Method>,
    /// The file: `gguf`, or `safetensors` for a merged model in f32, f16 or bf16.
    format: Container,
    /// Chunks of `text` to measure the loss on, before and after.
    measure_chunks: usize,
    /// Fit the packing to what the model reads: errors count by the mean square of what a weight is
    /// multiplied by (llama.cpp's imatrix), over the chunks of `text` after those that the loss is
    /// measured on. `true`, or how many tokens of them: `{ tokens: 16384 }`, the default. For the
    /// matrices in q4_0, q4_1, q4_k, q5_k and q6_k; the embedding and the output matrix stay.
    importance: Option<Wanted>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            method: Method::Q4_0,
            embeddings: None,
            format: Container::Gguf,
            measure_chunks: 16,
            importance: None,
        }
    }
}

impl JsonSchema for Params {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantize".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Settings::json_schema(generator)
    }
}

impl From<Settings> for Params {
    fn from(given: Settings) -> Params {
        let embeddings = given.embeddings.unwrap_or(match given.method {
            method if method.floats() => method,
            Method::Q4KM | Method::Q5K | Method::Q6K => Method::Q6K,
            _ => Method::Q8_0,
        });
        Params {
            method: given.method,
            embeddings,
            format: given.format,
            measure_chunks: given.measure_chunks,
            importance: match given.importance {
                None | Some(Wanted::Whether(false)) => None,
                Some(Wanted::Whether(true)) => Some(Importance::default()),
                Some(Wanted::How(importance)) => Some(importance),
            },
        }
    }
}

impl Params {
    /// What the types cannot say.
    pub fn check(&self) -> Result<(), Invalid> {
        let whole = self.method.floats() && self.embeddings == self.method;
        if self.format == Container::Safetensors && !whole {
            return Err(Invalid::new("method", "safetensors holds f32, f16 or bf16")
                .help("write `method: bf16`, or leave `format` at `gguf`"));
        }
        let chooses = !self.method.floats() && self.method != Method::Q8_0;
        match &self.importance {
            Some(Importance { tokens: 0 }) => {
                Err(Invalid::new("importance.tokens", "no tokens say nothing"))
            }
            Some(_) if !chooses => {
                Err(Invalid::new("importance", "this `method` has nothing to choose by it")
                    .help("use it with q4_0, q4_1, q4_k, q4_k_m, q5_k or q6_k"))
            }
            _ => Ok(()),
        }
    }

    /// What a tensor of a model is packed as.
    pub fn packing(&self, name: &str, shape: &[usize], config: &Config) -> Packing {
        let row = shape.last().copied().unwrap_or(1);
        let kind = name.rsplit('.').nth(1).unwrap_or_default();
        match kind {
            // As llama.cpp has it: a router is small, and a token that goes elsewhere is another model.
            "gate" => Packing::F32,
            _ if shape.len() < 2 => Packing::F32,
            "embed_tokens" | "lm_head" => self.embeddings.packing(row),
            "v_proj" | "down_proj" if self.method == Method::Q4KM && careful(name, config) => {
                Method::Q6K.packing(row)
            }
            _ => self.method.packing(row),
        }
    }
}

/// llama.cpp's choice of blocks that get more bits: the first and the last eighth, and every third
/// between.
fn careful(name: &str, config: &Config) -> bool {
    let blocks = config.num_hidden_layers;
    let block = name.split('.').nth(2).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    block < blocks / 8 || block >= 7 * blocks / 8 || (block - blocks / 8) % 3 == 2
}
