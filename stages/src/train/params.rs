//! What can be written below `with:`, and what it means once the defaults of the method are in.
//!
//! [`Settings`] is what a pipeline may say; [`Params`] is what the loops read and what the cache
//! key holds. Some defaults differ by method (a learning rate that suits a fresh model ruins a
//! LoRA), so they are filled in while reading, not by the loops.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::Curve;
use crate::Invalid;

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

/// Parameters of `train`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the model learns: `sft`, `dpo` or `dapo`.
    method: Method,
    /// Optimizer steps; for `dapo`, rollout steps. Default: 160 (`sft`), 120 (`dpo`), 40 (`dapo`).
    steps: Option<usize>,
    /// What one step sees: windows (`sft`), pairs (`dpo`) or prompts (`dapo`). Default: 4, 4, 8.
    batch: Option<usize>,
    /// `sft`: windows that go through the model at once; less memory, the same gradient. Default:
    /// all of a step.
    micro_batch: Option<usize>,
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
    /// `sft`: the architecture of a new model, where no `base` is given.
    model: Option<Arch>,
    /// Train a low-rank adapter and leave the base weights alone. `dpo` and `dapo` always do.
    lora: Option<Lora>,
    /// `dpo`: the loss.
    dpo: Option<Dpo>,
    /// `dapo`: sampling and the loss.
    dapo: Option<Dapo>,
}

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

/// A low-rank adapter (Hu et al., arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank.
    pub r: usize,
    /// The adapter's output is scaled by `alpha / r`.
    pub alpha: f64,
    /// The projections that get one.
    pub targets: Vec<String>,
}

/// The projections of a Llama block, by their names in `transformers`.
pub const TARGETS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

impl Default for Lora {
    fn default() -> Lora {
        Lora { r: 16, alpha: 32.0, targets: TARGETS.map(String::from).into() }
    }
}

/// The DPO loss (Rafailov et al., arXiv 2305.18290).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// How strongly the policy is held to the reference.
    pub beta: f64,
    /// Weight of the mean negative log-probability of the chosen completion's tokens (Pang et al.,
    /// arXiv 2404.19733). Above 0 where the base does not yet know the form of an answer.
    pub nll: f64,
}

impl Default for Dpo {
    fn default() -> Dpo {
        Dpo { beta: 0.1, nll: 1.0 }
    }
}

/// Sampling and loss of DAPO (Yu et al., arXiv 2503.14476).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dapo {
    /// Completions sampled for each prompt (G).
    pub group: usize,
    /// Optimizer steps on each rollout, each on its own part of the prompts. With 1 the ratio is
    /// always 1 and nothing is ever clipped.
    pub updates: usize,
    /// Temperature of sampling, and of the log-probabilities in the loss.
    pub temperature: f64,
    /// Most tokens of a completion (L_max).
    pub max_tokens: usize,
    /// Tokens before `max_tokens` from which on length is punished (L_cache); 0 never punishes.
    pub overlong_cache: usize,
    /// Leave completions that were cut off at `max_tokens` out of the loss.
    pub overlong_filter: bool,
    /// How far below 1 the probability ratio counts.
    pub clip_low: f64,
    /// How far above 1 the probability ratio counts.
    pub clip_high: f64,
    /// Bound of the loss for bad answers, as a multiple of their advantage (verl's dual clip);
    /// not in the paper, off by default.
    pub dual_clip: Option<f64>,
    /// Sample again in place of groups whose rewards are all equal, at most this many rounds a
    /// step.
    pub max_rounds: usize,
}

impl Default for Dapo {
    fn default() -> Dapo {
        Dapo {
            group: 8,
            updates: 2,
            temperature: 1.0,
            max_tokens: 12,
            overlong_cache: 4,
            overlong_filter: false,
            clip_low: 0.2,
            clip_high: 0.28,
            dual_clip: None,
            max_rounds: 4,
        }
    }
}

/// `Settings` with every default filled in. The sections of other methods are kept where they
/// were given, so that `check` can refuse them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Settings")]
#[allow(missing_docs)]
pub struct Params {
    pub method: Method,
    pub steps: usize,
    pub batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
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
    pub model: Option<Arch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
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
        use Method::{Dapo as Rl, Dpo as Preference, Sft};
        let method = given.method;
        let steps = given.steps.unwrap_or(match method {
            Sft => 160,
            Preference => 120,
            Rl => 40,
        });
        let lora = given.lora.or((method != Sft).then(Lora::default));
        Params {
            method,
            steps,
            batch: given.batch.unwrap_or(if method == Rl { 8 } else { 4 }),
            micro_batch: given.micro_batch,
            learning_rate: given.learning_rate.unwrap_or(match (method, &lora) {
                (Sft, None) => 3e-3,
                (Sft, Some(_)) => 3e-4,
                (Preference, _) => 5e-3,
                (Rl, _) => 5e-4,
            }),
            warmup_steps: given.warmup_steps.unwrap_or(steps / 10),
            schedule: given.schedule.unwrap_or(match method {
                Rl => Curve::Constant,
                Sft | Preference => Curve::Cosine,
            }),
            weight_decay: given.weight_decay.unwrap_or(match (method, &lora) {
                (Sft, None) => 0.1,
                _ => 0.0,
            }),
            betas: given.betas.unwrap_or([0.9, 0.999]),
            epsilon: given.epsilon.unwrap_or(1e-8),
            max_grad_norm: given.max_grad_norm.unwrap_or(1.0),
            seq_len: given.seq_len.or((method == Sft).then_some(256)),
            valid_share: given.valid_share.or((method != Rl).then_some(0.05)),
            model: given.model,
            lora,
            dpo: given.dpo.or((method == Preference).then(Dpo::default)),
            dapo: given.dapo.or((method == Rl).then(Dapo::default)),
        }
    }
}

/// What the types cannot say.
pub fn check(p: &Params) -> Result<(), Invalid> {
    let belongs = [
        ("model", p.model.is_some(), Method::Sft),
        ("seq_len", p.seq_len.is_some(), Method::Sft),
        ("micro_batch", p.micro_batch.is_some(), Method::Sft),
        ("dpo", p.dpo.is_some(), Method::Dpo),
        ("dapo", p.dapo.is_some(), Method::Dapo),
    ];
    for (name, given, method) in belongs {
        if given && p.method != method {
            let method = format!("{method:?}").to_lowercase();
            return Err(Invalid::new(name, format!("`{name}` belongs to method `{method}`"))
                .help("remove it, or change `method`"));
        }
    }
    if p.valid_share.is_some() && p.method == Method::Dapo {
        return Err(Invalid::new("valid_share", "`dapo` holds nothing out").help("remove it"));
    }
    at_least("steps", p.steps, 1)?;
    at_least("batch", p.batch, 1)?;
    at_least("micro_batch", p.micro_batch.unwrap_or(1), 1)?;
    above("learning_rate", p.learning_rate, 0.0)?;
    within("weight_decay", p.weight_decay, 0.0, 1.0)?;
    for beta in p.betas {
        within("betas", beta, 0.0, 0.999_999)?;
    }
    above("epsilon", p.epsilon, 0.0)?;
    within("max_grad_norm", p.max_grad_norm, 0.0, f64::MAX)?;
    if p.warmup_steps > p.steps {
        return Err(Invalid::new("warmup_steps", "more steps of warm-up than steps in all"));
    }
    if let Some(seq_len) = p.seq_len {
        at_least("seq_len", seq_len, 2)?;
    }
    if let Some(share) = p.valid_share {
        within("valid_share", share, 0.0, 0.5)?;
    }
    p.model.as_ref().map_or(Ok(()), check_arch)?;
    p.lora.as_ref().map_or(Ok(()), check_lora)?;
    if let Some(dpo) = &p.dpo {
        above("dpo.beta", dpo.beta, 0.0)?;
        within("dpo.nll", dpo.nll, 0.0, f64::MAX)?;
    }
    p.dapo.as_ref().map_or(Ok(()), |dapo| check_dapo(dapo, p.batch))
}

fn check_arch(arch: &Arch) -> Result<(), Invalid> {
    let sizes = [
        ("model.hidden", arch.hidden, 4),
        ("model.layers", arch.layers, 1),
        ("model.heads", arch.heads, 1),
        ("model.kv_heads", arch.kv_heads, 1),
        ("model.ffn", arch.ffn, 1),
        ("model.vocab", arch.vocab, 257),
        ("model.context", arch.context, 8),
    ];
    for (name, size, least) in sizes {
        at_least(name, size, least)?;
    }
    if !arch.hidden.is_multiple_of(2 * arch.heads) {
        return Err(Invalid::new("model.hidden", "must be an even multiple of `heads`"));
    }
    if !arch.heads.is_multiple_of(arch.kv_heads) {
        return Err(Invalid::new("model.heads", "must be a multiple of `kv_heads`"));
    }
    Ok(())
}

fn check_lora(lora: &Lora) -> Result<(), Invalid> {
    at_least("lora.r", lora.r, 1)?;
    above("lora.alpha", lora.alpha, 0.0)?;
    if lora.targets.is_empty() {
        return Err(Invalid::new("lora.targets", "empty: nothing would be trained"));
    }
    for target in &lora.targets {
        if !TARGETS.contains(&target.as_str()) {
            return Err(Invalid::new("lora.targets", format!("no projection `{target}`"))
                .help(format!("one of {}", TARGETS.join(", "))));
        }
    }
    Ok(())
}

fn check_dapo(dapo: &Dapo, batch: usize) -> Result<(), Invalid> {
    at_least("dapo.group", dapo.group, 2)?;
    at_least("dapo.updates", dapo.updates, 1)?;
    at_least("dapo.max_tokens", dapo.max_tokens, 1)?;
    at_least("dapo.max_rounds", dapo.max_rounds, 1)?;
    above("dapo.temperature", dapo.temperature, 0.0)?;
    within("dapo.clip_low", dapo.clip_low, 0.0, 1.0)?;
    within("dapo.clip_high", dapo.clip_high, 0.0, f64::MAX)?;
    if dapo.updates > batch {
        return Err(Invalid::new("dapo.updates", format!("more updates than the {batch} prompts"))
            .help("each update takes its own part of the prompts: raise `batch`"));
    }
    if dapo.overlong_cache > dapo.max_tokens {
        return Err(Invalid::new("dapo.overlong_cache", "longer than `max_tokens`"));
    }
    if let Some(c) = dapo.dual_clip {
        above("dapo.dual_clip", c, 1.0)?;
    }
    Ok(())
}

fn at_least(name: &str, value: usize, least: usize) -> Result<(), Invalid> {
    if value >= least {
        return Ok(());
    }
    Err(Invalid::new(name, format!("must be at least {least}, not {value}")))
}

fn above(name: &str, value: f64, bound: f64) -> Result<(), Invalid> {
    if value > bound && value.is_finite() {
        return Ok(());
    }
    Err(Invalid::new(name, format!("must be above {bound}, not {value}")))
}

fn within(name: &str, value: f64, low: f64, high: f64) -> Result<(), Invalid> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let upper = if high == f64::MAX { String::new() } else { format!(" and at most {high}") };
    Err(Invalid::new(name, format!("must be at least {low}{upper}, not {value}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Params {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_method_and_survive_a_round_trip() {
        for method in ["sft", "dpo", "dapo"] {
            let params = read(json!({ "method": method }));
            check(&params).unwrap();
            assert_eq!(params.lora.is_some(), method != "sft");
            assert_eq!(params.dpo.is_some(), method == "dpo");
            let written = serde_json::to_value(&params).unwrap();
            assert_eq!(read(written), params);
        }
        let lora = read(json!({ "method": "sft", "lora": {} }));
        assert_eq!((lora.learning_rate, lora.weight_decay), (3e-4, 0.0));
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let bad = [
            (json!({ "method": "sft", "dpo": {} }), "dpo"),
            (json!({ "method": "dapo", "model": {} }), "model"),
            (json!({ "method": "dapo", "valid_share": 0.1 }), "valid_share"),
            (json!({ "method": "sft", "steps": 0 }), "steps"),
            (json!({ "method": "sft", "learning_rate": -1.0 }), "learning_rate"),
            (json!({ "method": "sft", "steps": 5, "warmup_steps": 6 }), "warmup_steps"),
            (json!({ "method": "sft", "model": { "hidden": 30 } }), "model.hidden"),
            (json!({ "method": "sft", "model": { "heads": 4, "kv_heads": 3 } }), "model.heads"),
            (json!({ "method": "sft", "model": { "vocab": 100 } }), "model.vocab"),
            (json!({ "method": "dpo", "lora": { "targets": ["query"] } }), "lora.targets"),
            (json!({ "method": "dpo", "dpo": { "beta": 0 } }), "dpo.beta"),
            (json!({ "method": "dapo", "dapo": { "group": 1 } }), "dapo.group"),
            (json!({ "method": "dapo", "dapo": { "updates": 9 } }), "dapo.updates"),
            (json!({ "method": "dapo", "dapo": { "overlong_cache": 99 } }), "dapo.overlong_cache"),
        ];
        for (params, path) in bad {
            assert_eq!(check(&read(params)).unwrap_err().path, path);
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let e = serde_json::from_value::<Params>(json!({ "method": "sft", "lr": 1 })).unwrap_err();
        assert!(e.to_string().contains("unknown field `lr`"), "{e}");
    }
}
