//! The sections of `with:`: a new model, an adapter, and what each method has of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pairs::decision::Form;

/// A Llama to be made from nothing, with a byte-level BPE tokenizer trained on the corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Arch {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, which groups of query heads share.
    pub kv_heads: usize,
    /// Width of the feed-forward block.
    pub ffn: usize,
    /// Most tokens in the vocabulary, the end-of-text token included. A small corpus may give fewer.
    pub vocab: usize,
    /// Most tokens that the model can see.
    pub context: usize,
}

impl Default for Arch {
    fn default() -> Arch {
        Arch { hidden: 256, layers: 4, heads: 4, kv_heads: 2, ffn: 704, vocab: 2048, context: 512 }
    }
}

/// A low-rank adapter (Hu et al., arXiv 2106.09685), written in PEFT's format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank.
    pub r: usize,
    /// The adapter's output is scaled by `alpha / r`.
    pub alpha: f64,
    /// The layers that get one: names (`q_proj`), ends of names (`self_attn.q_proj`), globs
    /// (`*.layers.0.mlp.*`), or `all-linear`. A pattern that matches no layer is an error. Experts have
    /// names such as `mlp.experts.3.up_proj`; their router, `mlp.gate`, is not in `all-linear`.
    pub targets: Vec<String>,
    /// Scale by `alpha / sqrt(r)` instead (rsLoRA, arXiv 2312.03732), for high ranks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rslora: bool,
    /// Learn the magnitude of each output's weights beside their direction (DoRA, arXiv
    /// 2402.09353). A little slower, often better at low ranks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dora: bool,
    /// Hold the frozen base in 4 bits (QLoRA, arXiv 2305.14314: NF4 in blocks of 64), an eighth of
    /// its memory. The model that is written is this base and the adapter on it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub qlora: bool,
    /// Share of the adapter's input that is left out in training. 0 for `dapo`, whose
    /// probabilities must be those of sampling.
    #[serde(skip_serializing_if = "none")]
    pub dropout: f64,
}

fn none(x: &f64) -> bool {
    *x == 0.0
}

/// The projections of a Llama block, by their names in `transformers`.
pub const TARGETS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

impl Default for Lora {
    fn default() -> Lora {
        Lora {
            r: 16,
            alpha: 32.0,
            targets: TARGETS.map(String::from).into(),
            rslora: false,
            dora: false,
            qlora: false,
            dropout: 0.0,
        }
    }
}

/// How records become windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// All text as one stream, cut into windows: a token may see the document before its own, as in
    /// GPT's pre-training. For `text` records alone.
    Stream,
    /// As many whole records in a window as fit; none sees another, and each starts at position 0.
    Records,
    /// One record a window, padded to the longest of its batch.
    None,
}

/// Which tokens the loss counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Learn {
    /// Those of completions, or of the assistant's turns, with their ends.
    Completion,
    /// All.
    All,
}

/// How a corpus is read. Every line is a JSON object: `{"text"}`, `{"prompt", "completion"}`, or
/// `{"messages": [{"role", "content"}]}`, which goes through the base's chat template. All lines of
/// a file are of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// How records become windows. Default: `stream` for `text`, else `records`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packing: Option<Packing>,
    /// Which tokens the loss counts. Default: `completion` where there are completions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn: Option<Learn>,
}

/// What a preference pair costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// `-log sigma(m)` of the margin `m` (DPO, arXiv 2305.18290, eq. 7); with `label_smoothing` the
    /// conservative form.
    #[default]
    Sigmoid,
    /// `(h - 1 / (2 beta))^2` of the difference `h` of log-ratios (IPO, arXiv 2310.12036, eq. 17):
    /// does not run away where a pair is clear.
    Ipo,
    /// Unbiased where a share `label_smoothing` of the pairs is the wrong way round (rDPO, arXiv
    /// 2403.00409, eq. 9).
    Robust,
    /// `max(0, 1 - m)` (SLiC, arXiv 2305.10425).
    Hinge,
}

/// The DPO loss (Rafailov et al., arXiv 2305.18290).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// What a pair costs.
    pub loss: Objective,
    /// How strongly the policy is held to the reference.
    pub beta: f64,
    /// Share of pairs that are thought to be the wrong way round, for `sigmoid` and `robust`.
    pub label_smoothing: f64,
    /// `ipo`: take means over tokens rather than sums, as TRL does, so that long completions weigh
    /// no more than short ones.
    pub ipo_mean: bool,
    /// Weigh each pair by `reward_chosen - reward_rejected`.
    pub reward_weighted: bool,
    /// Weight of the mean negative log-probability of the chosen completion's tokens (Pang et al.,
    /// arXiv 2404.19733). Above 0 where the base does not yet know the form of an answer.
    pub nll: f64,
}

impl Default for Dpo {
    fn default() -> Dpo {
        Dpo {
            loss: Objective::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            ipo_mean: true,
            reward_weighted: false,
            nll: 1.0,
        }
    }
}

/// How the tokens of a batch are weighed against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// All alike (verl and TRL).
    #[default]
    Tokens,
    /// All tokens of a prompt's group alike, all prompts alike (DAPO's eq. 8 to the letter).
    Prompts,
    /// All tokens of a completion alike, all completions alike (GRPO).
    Sequences,
    /// Each by one over `max_tokens` times the completions (Dr. GRPO, arXiv 2503.20783).
    Fixed,
}

/// What a group's advantages are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// The standard deviation with `G - 1` below.
    #[default]
    Sample,
    /// The standard deviation with `G` below.
    Population,
    /// Nothing (Dr. GRPO).
    None,
}

/// What happens where too few groups teach something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Short {
    /// A smaller batch trains as long as one group is left.
    #[default]
    Train,
    /// It is an error, as in verl.
    Fail,
}

/// What sampled answers are kept to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Nothing: an answer that does not read earns nothing.
    #[default]
    Free,
    /// `buy limit 10`.
    Words,
    /// `{"action":"limit","side":"buy","offset_bps":10,"size":1}`.
    Json,
    /// `B10`.
    Code,
}

impl Kept {
    /// The form of the grammar, where there is one.
    pub fn form(self) -> Option<Form> {
        match self {
            Kept::Free => None,
            Kept::Words => Some(Form::Words),
            Kept::Json => Some(Form::Json),
            Kept::Code => Some(Form::Code),
        }
    }
    fn free(&self) -> bool {
        *self == Kept::Free
    }
}

/// A program that scores completions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scorer {
    /// Run by `sh` in the pipeline's folder, once. For each completion it reads a line of JSON with
    /// `prompt`, `completion` and `record` (the line of `pairs`) and writes a line with a number.
    /// `{reward}` is the path of input `reward`: feed the script there, so that a change of it
    /// counts.
    pub command: String,
}

/// Sampling and loss of DAPO (Yu et al., arXiv 2503.14476).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DapoSettings {
    /// Completions sampled for each prompt (G). Default: 8.
    group: Option<usize>,
    /// Optimizer steps on each rollout, each on its own part of the prompts. With 1 the ratio is
    /// always 1 and nothing is ever clipped. Default: 2.
    updates: Option<usize>,
    /// Temperature of sampling, and of the log-probabilities in the loss. Default: 1.
    temperature: Option<f64>,
    /// The grammar of decisions that completions are sampled under; their probabilities, in the loss
    /// too, are then those among the tokens that it allows. As `answers` of `pairs`. Default: `free`.
    form: Option<Kept>,
    /// Offsets of limit orders that a `form` allows, basis points; an empty list allows 1 to 500. As
    /// `offsets_bps` of `pairs`. Default: 10, 25, 50 and 100.
    offsets_bps: Option<Vec<u32>>,
    /// Most tokens of a completion (L_max). Default: 12; 64 with a `form`, which bounds it itself.
    max_tokens: Option<usize>,
    /// Tokens before `max_tokens` from which on length is punished (L_cache); 0 never punishes.
    /// Default: 4; 0 with a `form`.
    overlong_cache: Option<usize>,
    /// Leave completions that were cut off at `max_tokens` out of the loss. Default: false.
    overlong_filter: Option<bool>,
    /// How far below 1 the probability ratio counts. Default: 0.2.
    clip_low: Option<f64>,
    /// How far above 1 the probability ratio counts. Default: 0.28.
    clip_high: Option<f64>,
    /// Bound of the loss for bad answers, as a multiple of their advantage (verl's dual clip);
    /// not in the paper, off by default.
    dual_clip: Option<f64>,
    /// How the tokens of a batch are weighed against each other. Default: `tokens`.
    aggregate: Option<Aggregate>,
    /// What a group's advantages are divided by. Default: `sample`.
    advantage_std: Option<Spread>,
    /// Added to that standard deviation. Default: 1e-6 (verl; TRL has 1e-4).
    advantage_epsilon: Option<f64>,
    /// Sample again in place of groups whose rewards are all equal, at most this many batches a
    /// step. Default: 4.
    max_rounds: Option<usize>,
    /// What happens where the batch is not full by then. Default: `train`.
    short: Option<Short>,
    /// Score completions by a program instead of the reward of `pairs`.
    reward: Option<Scorer>,
}

/// [`DapoSettings`] with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Dapo {
    pub group: usize,
    pub updates: usize,
    pub temperature: f64,
    #[serde(skip_serializing_if = "Kept::free")]
    pub form: Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets_bps: Option<Vec<u32>>,
    pub max_tokens: usize,
    pub overlong_cache: usize,
    pub overlong_filter: bool,
    pub clip_low: f64,
    pub clip_high: f64,
    pub dual_clip: Option<f64>,
    pub aggregate: Aggregate,
    pub advantage_std: Spread,
    pub advantage_epsilon: f64,
    pub max_rounds: usize,
    pub short: Short,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<Scorer>,
}

impl Default for Dapo {
    fn default() -> Dapo {
        Dapo {
            group: 8,
            updates: 2,
            temperature: 1.0,
            form: Kept::Free,
            offsets_bps: None,
            max_tokens: 12,
            overlong_cache: 4,
            overlong_filter: false,
            clip_low: 0.2,
            clip_high: 0.28,
            dual_clip: None,
            aggregate: Aggregate::Tokens,
            advantage_std: Spread::Sample,
            advantage_epsilon: 1e-6,
            max_rounds: 4,
            short: Short::Train,
            reward: None,
        }
    }
}

impl DapoSettings {
    /// What was given, over `base`.
    pub fn over(self, base: Dapo) -> Dapo {
        let form = self.form.unwrap_or(base.form);
        let bound = form.form().is_some();
        let (max_tokens, overlong_cache) =
            if bound { (64, 0) } else { (base.max_tokens, base.overlong_cache) };
        let offsets = || bound.then(|| vec![10, 25, 50, 100]);
        Dapo {
            group: self.group.unwrap_or(base.group),
            updates: self.updates.unwrap_or(base.updates),
            temperature: self.temperature.unwrap_or(base.temperature),
            form,
            offsets_bps: self.offsets_bps.or(base.offsets_bps).or_else(offsets),
            max_tokens: self.max_tokens.unwrap_or(max_tokens),
            overlong_cache: self.overlong_cache.unwrap_or(overlong_cache),
            overlong_filter: self.overlong_filter.unwrap_or(base.overlong_filter),
            clip_low: self.clip_low.unwrap_or(base.clip_low),
            clip_high: self.clip_high.unwrap_or(base.clip_high),
            dual_clip: self.dual_clip.or(base.dual_clip),
            aggregate: self.aggregate.unwrap_or(base.aggregate),
            advantage_std: self.advantage_std.unwrap_or(base.advantage_std),
            advantage_epsilon: self.advantage_epsilon.unwrap_or(base.advantage_epsilon),
            max_rounds: self.max_rounds.unwrap_or(base.max_rounds),
            short: self.short.unwrap_or(base.short),
            reward: self.reward.or(base.reward),
        }
    }
}
