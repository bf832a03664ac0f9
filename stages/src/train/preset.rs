//! Settings that people know by a name: defaults under what a pipeline writes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::options::{Dapo, Lora, Short};
use super::params::Method;
use super::schedule::Curve;

/// A set of defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The published hyper-parameters of DAPO (arXiv 2503.14476, section 4.1): all weights are trained,
    /// 512 prompts of 16 completions, 16 updates a rollout, a constant rate of 1e-6 after 20 rollouts of
    /// warm-up, 16384 + 4096 tokens, clips 0.2 and 0.28, the token-level loss, soft overlong punishment,
    /// and an error where dynamic sampling does not fill the batch in ten rounds. Of overlong completions
    /// the paper's table has the filter as its first step and the punishment as a later one; the filter
    /// is off, since its authors (verl's notes on the recipe) ran the best model without it, the two
    /// overlapping. Weight decay is not in the paper: 0. Meant for a model of 32 billion parameters;
    /// write `lora: {}` for an adapter, and then a rate a hundred times as high.
    DapoPaper,
    /// Supervised LoRA of a model of 1 to 10 billion parameters: rank 16, alpha 32 on every linear
    /// layer, dropout 0.05, rate 2e-4 on a cosine after 3 % of warm-up, 16 windows of 2048 tokens
    /// a step, two at once.
    LoraSft,
}

/// What a preset says; none where it leaves the method's default.
#[derive(Default)]
pub struct Defaults {
    pub steps: Option<usize>,
    pub batch: Option<usize>,
    pub micro_batch: Option<usize>,
    pub learning_rate: Option<f64>,
    /// Steps of warm-up, of the steps in all.
    pub warmup: Option<fn(usize) -> usize>,
    pub schedule: Option<Curve>,
    pub seq_len: Option<usize>,
    pub lora: Option<Lora>,
    /// All weights are trained.
    pub full: bool,
    pub dapo: Option<Dapo>,
}

impl Preset {
    /// The method that it is for.
    pub fn method(self) -> Method {
        match self {
            Preset::DapoPaper => Method::Dapo,
            Preset::LoraSft => Method::Sft,
        }
    }

    /// What it says.
    pub fn defaults(self) -> Defaults {
        match self {
            Preset::DapoPaper => Defaults {
                batch: Some(512),
                learning_rate: Some(1e-6),
                warmup: Some(|steps| steps.min(20)),
                schedule: Some(Curve::Constant),
                full: true,
                dapo: Some(Dapo {
                    group: 16,
                    updates: 16,
                    max_tokens: 20480,
                    overlong_cache: 4096,
                    max_rounds: 10,
                    short: Short::Fail,
                    ..Dapo::default()
                }),
                ..Defaults::default()
            },
            Preset::LoraSft => Defaults {
                batch: Some(16),
                micro_batch: Some(2),
                learning_rate: Some(2e-4),
                warmup: Some(|steps| (steps * 3).div_ceil(100)),
                schedule: Some(Curve::Cosine),
                seq_len: Some(2048),
                lora: Some(Lora {
                    targets: vec!["all-linear".into()],
                    dropout: 0.05,
                    ..Lora::default()
                }),
                ..Defaults::default()
            },
        }
    }
}
