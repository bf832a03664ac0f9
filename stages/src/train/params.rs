//! What can be written below `with:`, and what it means once the defaults of the method are in.
//!
//! [`Settings`] is what a pipeline may say; [`Params`] is what the loops read and what the cache
//! key holds. Some defaults differ by method (a learning rate that suits a fresh model ruins a
//! LoRA) and by preset, so they are filled in while reading, not by the loops.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::options::{Arch, Dapo, DapoSettings, Dpo, Lora, Sft};
use super::preset::Preset;
use super::schedule::Curve;

/// How the model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Next-token prediction on a corpus.
    Sft,
    /// Direct preference optimisation on pairs.
    Dpo,
    /// Reinforcement learning from the reward of sampled answers (DAPO).
    Dapo,
}

/// What a training computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits throughout.
    #[default]
    F32,
    /// bfloat16 for what is frozen, for activations and for products; f32 for what is trained, its
    /// gradient and moments, and inside norms, softmax, rotary angles and losses.
    Bf16,
}

impl Precision {
    fn single(&self) -> bool {
        *self == Precision::F32
    }
}

/// Parameters of `train`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the model learns: `sft`, `dpo` or `dapo`.
    method: Method,
    /// A named set of defaults, under what else is written here.
    preset: Option<Preset>,
    /// Optimizer steps; for `dapo`, rollout steps. Default: 160 (`sft`), 120 (`dpo`), 40 (`dapo`).
    steps: Option<usize>,
    /// What one step sees: windows (`sft`), pairs (`dpo`) or prompts (`dapo`). Default: 4, 4, 8.
    batch: Option<usize>,
    /// `sft`: windows that go through the model at once; less memory, the same loss and gradient.
    /// `dpo` and `dapo` always take one pair or group at a time. Default: all of a step.
    micro_batch: Option<usize>,
    /// `sft`: keep only what passes between blocks for the backward pass, and compute the inside of a
    /// block again: much less memory for about a third more time, the same gradient.
    gradient_checkpointing: Option<bool>,
    /// What is computed in: `f32`, or `bf16` for half the memory of a frozen base and of activations, and
    /// the speed of tensor cores; on `cuda`, and slowly on `cpu`. A base that is trained by an adapter is
    /// written as it was held. Default: `f32`.
    precision: Option<Precision>,
    /// `sft` of a mixture of experts: the weight of the loss that keeps the experts busy alike, as
    /// transformers defines it; 0.001 where models of this kind are made. Default: 0, as in transformers,
    /// whose trainers leave it out unless the model's config has `output_router_logits`: the routers of a
    /// finished model are balanced, and a small corpus should not move them for balance's sake.
    router_aux_loss_coef: Option<f64>,
    /// Peak learning rate. Default: 3e-3 (`sft`), 3e-4 (`sft` of a LoRA), 5e-3 (`dpo`), 5e-4
    /// (`dapo`). These suit models of a few million parameters; for billions take a hundredth.
    learning_rate: Option<f64>,
    /// Steps over which the learning rate rises from zero. Default: a tenth of the steps.
    warmup_steps: Option<usize>,
    /// What the learning rate does afterwards. Default: `cosine`; `constant` for `dapo`.
    schedule: Option<Curve>,
    /// Decoupled weight decay of AdamW, on matrices only. Default: 0.1 (`sft` without a LoRA), 0.
    weight_decay: Option<f64>,
    /// Decay rates of AdamW's two moments. Default: 0.9 and 0.999.
    betas: Option<[f64; 2]>,
    /// AdamW's epsilon. Default: 1e-8.
    epsilon: Option<f64>,
    /// The gradient is scaled down to this norm over all parameters; 0 leaves it. Default: 1.
    max_grad_norm: Option<f64>,
    /// `sft`: tokens of a window. Default: 256, or the model's context where that is shorter.
    seq_len: Option<usize>,
    /// `sft`, `dpo`: share of the corpus or of the pairs, at its end, that is held out to validate
    /// on. Default: 0.05.
    valid_share: Option<f64>,
    /// `sft`, `dpo`: validate every this many steps, and keep the weights of the best validation.
    /// Without it there is one validation, at the end.
    eval_every: Option<usize>,
    /// Stop after this many validations in a row without a new best; needs `eval_every`.
    patience: Option<usize>,
    /// Steps between checkpoints, from which a run that was killed goes on as if it had not been.
    /// They lie in the state folder and go when the stage is done. 0 writes none. Default: 50.
    checkpoint_every: Option<usize>,
    /// `sft`: the architecture of a new model, where no `base` is given.
    model: Option<Arch>,
    /// Train a low-rank adapter and leave the base weights alone. Default: for `dpo` and `dapo`, unless
    /// `full`.
    lora: Option<Lora>,
    /// `dpo`, `dapo`: train all weights and no adapter. `dpo` then holds the model twice. Default: false;
    /// true for the preset `dapo-paper` without a `lora`.
    full: Option<bool>,
    /// `sft`: how the corpus is read.
    sft: Option<Sft>,
    /// `dpo`: the loss.
    dpo: Option<Dpo>,
    /// `dapo`: sampling and the loss.
    dapo: Option<DapoSettings>,
}

/// `Settings` with every default filled in. The sections of other methods are kept where they
/// were given, so that `check` can refuse them; a preset only where it is of another method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Settings")]
#[allow(missing_docs)]
pub struct Params {
    pub method: Method,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    pub steps: usize,
    pub batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    #[serde(skip_serializing_if = "Precision::single")]
    pub precision: Precision,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_aux_loss_coef: Option<f64>,
    pub learning_rate: f64,
    pub warmup_steps: usize,
    pub schedule: Curve,
    pub weight_decay: f64,
    pub betas: [f64; 2],
    pub epsilon: f64,
    pub max_grad_norm: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq_len: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    pub checkpoint_every: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Arch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sft: Option<Sft>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpo: Option<Dpo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dapo: Option<Dapo>,
}

impl JsonSchema for Params {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Train".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Settings::json_schema(generator)
    }
}

impl From<Settings> for Params {
    fn from(given: Settings) -> Params {
        use Method::{Dapo as Rl, Dpo as Preference, Sft as Corpus};
        let method = given.method;
        let fits = given.preset.filter(|preset| preset.method() == method);
        let preset = fits.map(Preset::defaults).unwrap_or_default();
        let steps = given.steps.or(preset.steps).unwrap_or(match method {
            Corpus => 160,
            Preference => 120,
            Rl => 40,
        });
        let warmup = preset.warmup.map_or(steps / 10, |warmup| warmup(steps));
        let full = given.full.unwrap_or(preset.full && given.lora.is_none());
        let usual = preset.lora.or((method != Corpus).then(Lora::default));
        let lora = given.lora.or(usual.filter(|_| !full));
        let dapo = match (given.dapo, method == Rl) {
            (None, false) => None,
            (dapo, _) => Some(dapo.unwrap_or_default().over(preset.dapo.unwrap_or_default())),
        };
        let rate = given.learning_rate.or(preset.learning_rate);
        let schedule = given.schedule.or(preset.schedule);
        Params {
            method,
            preset: given.preset.filter(|_| fits.is_none()),
            steps,
            batch: given.batch.or(preset.batch).unwrap_or(if method == Rl { 8 } else { 4 }),
            micro_batch: given.micro_batch.or(preset.micro_batch),
            gradient_checkpointing: given.gradient_checkpointing.unwrap_or(false),
            precision: given.precision.unwrap_or_default(),
            router_aux_loss_coef: given.router_aux_loss_coef.filter(|&weight| weight != 0.0),
            learning_rate: rate.unwrap_or(match (method, &lora) {
                (Corpus, None) => 3e-3,
                (Corpus, Some(_)) => 3e-4,
                (Preference, _) => 5e-3,
                (Rl, _) => 5e-4,
            }),
            warmup_steps: given.warmup_steps.unwrap_or(warmup),
            schedule: schedule.unwrap_or(match method {
                Rl => Curve::Constant,
                Corpus | Preference => Curve::Cosine,
            }),
            weight_decay: given.weight_decay.unwrap_or(match (method, &lora) {
                (Corpus, None) => 0.1,
                _ => 0.0,
            }),
            betas: given.betas.unwrap_or([0.9, 0.999]),
            epsilon: given.epsilon.unwrap_or(1e-8),
            max_grad_norm: given.max_grad_norm.unwrap_or(1.0),
            seq_len: given.seq_len.or(preset.seq_len).or((method == Corpus).then_some(256)),
            valid_share: given.valid_share.or((method != Rl).then_some(0.05)),
            eval_every: given.eval_every,
            patience: given.patience,
            checkpoint_every: given.checkpoint_every.unwrap_or(50),
            model: given.model,
            lora,
            full: full && method != Corpus,
            sft: given.sft.or((method == Corpus).then(Sft::default)),
            dpo: given.dpo.or((method == Preference).then(Dpo::default)),
            dapo,
        }
    }
}
