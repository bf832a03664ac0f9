//! What the types of the parameters cannot say: ranges, and what excludes what.

use super::options::{Arch, Dapo, Dpo, Lora, Objective, TARGETS};
use super::params::{Method, Params};
use crate::Invalid;
use crate::pairs::decision::Allowed;

/// What the types cannot say.
pub fn check(p: &Params) -> Result<(), Invalid> {
    let belongs = [
        ("model", p.model.is_some(), Method::Sft),
        ("seq_len", p.seq_len.is_some(), Method::Sft),
        ("micro_batch", p.micro_batch.is_some(), Method::Sft),
        ("gradient_checkpointing", p.gradient_checkpointing, Method::Sft),
        ("router_aux_loss_coef", p.router_aux_loss_coef.is_some(), Method::Sft),
        ("sft", p.sft.is_some(), Method::Sft),
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
    if let Some(preset) = p.preset {
        let method = format!("{:?}", preset.method()).to_lowercase();
        return Err(Invalid::new("preset", format!("it is for method `{method}`"))
            .help("remove it, or change `method`"));
    }
    let held = [
        ("valid_share", p.valid_share.is_some()),
        ("eval_every", p.eval_every.is_some()),
        ("patience", p.patience.is_some()),
    ];
    if let (Method::Dapo, Some((name, _))) = (p.method, held.iter().find(|(_, given)| *given)) {
        return Err(Invalid::new(*name, "`dapo` holds nothing out").help("remove it"));
    }
    if p.eval_every.is_some() && p.valid_share == Some(0.0) {
        return Err(Invalid::new("eval_every", "nothing is held out to validate on")
            .help("raise `valid_share`"));
    }
    if p.patience.is_some() && p.eval_every.is_none() {
        return Err(Invalid::new("patience", "it counts validations, and there is one at the end")
            .help("set `eval_every` too"));
    }
    at_least("eval_every", p.eval_every.unwrap_or(1), 1)?;
    at_least("patience", p.patience.unwrap_or(1), 1)?;
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
    within("router_aux_loss_coef", p.router_aux_loss_coef.unwrap_or(0.0), 0.0, 1.0)?;
    if p.warmup_steps > p.steps {
        return Err(Invalid::new("warmup_steps", "more steps of warm-up than steps in all"));
    }
    if let Some(seq_len) = p.seq_len {
        at_least("seq_len", seq_len, 2)?;
    }
    if let Some(share) = p.valid_share {
        within("valid_share", share, 0.0, 0.5)?;
    }
    if p.full && p.lora.is_some() {
        return Err(Invalid::new("full", "all weights are trained, or a `lora`")
            .help("remove one of the two"));
    }
    p.model.as_ref().map_or(Ok(()), check_arch)?;
    p.lora.as_ref().map_or(Ok(()), check_lora)?;
    if let (Method::Dapo, Some(lora)) = (p.method, &p.lora)
        && lora.dropout > 0.0
    {
        return Err(Invalid::new(
            "lora.dropout",
            "the probabilities would not be those of sampling",
        )
        .help("leave it out for `dapo`"));
    }
    p.dpo.as_ref().map_or(Ok(()), check_dpo)?;
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
    within("lora.dropout", lora.dropout, 0.0, 0.99)?;
    // What a glob or a longer name matches only the model can tell.
    let plain = |name: &&String| !name.contains(['*', '?', '.']) && *name != "all-linear";
    for target in lora.targets.iter().filter(plain) {
        // `gate` is the router of experts.
        if !TARGETS.contains(&target.as_str()) && target != "gate" {
            return Err(Invalid::new("lora.targets", format!("no projection `{target}`"))
                .help(format!("one of {}; a glob; or all-linear", TARGETS.join(", "))));
        }
    }
    Ok(())
}

fn check_dpo(dpo: &Dpo) -> Result<(), Invalid> {
    above("dpo.beta", dpo.beta, 0.0)?;
    within("dpo.nll", dpo.nll, 0.0, f64::MAX)?;
    within("dpo.label_smoothing", dpo.label_smoothing, 0.0, 0.499)?;
    if dpo.label_smoothing > 0.0 && matches!(dpo.loss, Objective::Ipo | Objective::Hinge) {
        return Err(Invalid::new("dpo.label_smoothing", "only `sigmoid` and `robust` know it"));
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
    if let Some(offsets) = &dapo.offsets_bps {
        if dapo.form.form().is_none() {
            return Err(Invalid::new("dapo.offsets_bps", "without a `form` nothing keeps to them")
                .help("set `dapo.form`, or remove it"));
        }
        allowed(offsets, 1, false).check().map_err(|e| Invalid::new("dapo.offsets_bps", e))?;
    }
    within("dapo.advantage_epsilon", dapo.advantage_epsilon, 0.0, 1.0)?;
    if dapo.reward.as_ref().is_some_and(|reward| reward.command.trim().is_empty()) {
        return Err(Invalid::new("dapo.reward.command", "empty"));
    }
    if let Some(c) = dapo.dual_clip {
        above("dapo.dual_clip", c, 1.0)?;
    }
    Ok(())
}

/// What a grammar lets a completion say.
pub fn allowed(offsets_bps: &[u32], max_size: u32, resting: bool) -> Allowed {
    Allowed { offsets_bps: offsets_bps.to_vec(), max_size, resting }
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
        let shown = serde_json::to_value(&lora).unwrap();
        assert_eq!(shown["lora"].as_object().unwrap().len(), 3, "keys stay as they were: {shown}");
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
            (json!({ "method": "dpo", "dpo": { "label_smoothing": 0.5 } }), "dpo.label_smoothing"),
            (
                json!({ "method": "dpo", "dpo": { "loss": "ipo", "label_smoothing": 0.1 } }),
                "dpo.label_smoothing",
            ),
            (json!({ "method": "dapo", "eval_every": 5 }), "eval_every"),
            (json!({ "method": "dpo", "full": true, "lora": {} }), "full"),
            (json!({ "method": "dapo", "router_aux_loss_coef": 0.1 }), "router_aux_loss_coef"),
            (json!({ "method": "sft", "router_aux_loss_coef": -1 }), "router_aux_loss_coef"),
            (json!({ "method": "sft", "patience": 2 }), "patience"),
            (json!({ "method": "sft", "eval_every": 2, "valid_share": 0 }), "eval_every"),
            (json!({ "method": "sft", "preset": "dapo-paper" }), "preset"),
            (json!({ "method": "dapo", "lora": { "dropout": 0.1 } }), "lora.dropout"),
            (
                json!({ "method": "dapo", "dapo": { "reward": { "command": " " } } }),
                "dapo.reward.command",
            ),
            (json!({ "method": "dapo", "dapo": { "group": 1 } }), "dapo.group"),
            (json!({ "method": "dapo", "dapo": { "updates": 9 } }), "dapo.updates"),
            (json!({ "method": "dapo", "dapo": { "overlong_cache": 99 } }), "dapo.overlong_cache"),
        ];
        for (params, path) in bad {
            assert_eq!(check(&read(params)).unwrap_err().path, path);
        }
    }

    #[test]
    fn a_preset_is_the_defaults_under_what_is_written() {
        let paper = read(json!({
            "method": "dapo", "preset": "dapo-paper", "steps": 100, "dapo": { "group": 4 }
        }));
        check(&paper).unwrap();
        let dapo = paper.dapo.as_ref().unwrap();
        assert_eq!((dapo.group, dapo.updates, dapo.max_tokens), (4, 16, 20480));
        assert_eq!((dapo.overlong_cache, dapo.clip_low, dapo.clip_high), (4096, 0.2, 0.28));
        assert_eq!((paper.batch, paper.learning_rate, paper.warmup_steps), (512, 1e-6, 20));
        assert!(paper.full && paper.lora.is_none() && !dapo.overlong_filter);
        assert_eq!(read(serde_json::to_value(&paper).unwrap()), paper);
        // An adapter where one is asked for.
        let low = read(json!({ "method": "dapo", "preset": "dapo-paper", "lora": {} }));
        assert!(!low.full && low.lora.is_some());
        assert_eq!(read(serde_json::to_value(&low).unwrap()), low);
        let lora = read(json!({ "method": "sft", "preset": "lora-sft", "learning_rate": 1e-5 }));
        check(&lora).unwrap();
        assert_eq!((lora.learning_rate, lora.warmup_steps, lora.seq_len), (1e-5, 5, Some(2048)));
        let (spec, rows) = (lora.lora.unwrap(), (lora.batch, lora.micro_batch));
        assert_eq!((spec.r, spec.alpha, spec.dropout, rows), (16, 32.0, 0.05, (16, Some(2))));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let e = serde_json::from_value::<Params>(json!({ "method": "sft", "lr": 1 })).unwrap_err();
        assert!(e.to_string().contains("unknown field `lr`"), "{e}");
    }
}
