//! Which tensors a model of a given shape has, by HF's names and in HF's order of axes.

use super::config::Config;
use super::weights::expert_of;

/// Name and shape of every tensor, in the order of the names.
pub fn tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (d, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let (q, kv) =
        (config.num_attention_heads * config.head_size(), config.kv_heads() * config.head_size());
    let mut out = vec![
        ("model.embed_tokens.weight".to_owned(), vec![v, d]),
        ("model.norm.weight".to_owned(), vec![d]),
    ];
    if !config.tie_word_embeddings {
        out.push(("lm_head.weight".into(), vec![v, d]));
    }
    let attention = [
        ("self_attn.q_proj", q, d, config.qkv_bias()),
        ("self_attn.k_proj", kv, d, config.qkv_bias()),
        ("self_attn.v_proj", kv, d, config.qkv_bias()),
        ("self_attn.o_proj", d, q, config.output_bias()),
    ];
    let experts = match (config.num_experts, config.moe_intermediate_size) {
        (Some(experts), Some(width)) => Some((experts, width)),
        _ => None,
    };
    for block in 0..config.num_hidden_layers {
        for norm in ["input", "post_attention"] {
            out.push((format!("model.layers.{block}.{norm}_layernorm.weight"), vec![d]));
        }
        if config.qk_norm() {
            for norm in ["q_norm", "k_norm"] {
                let name = format!("model.layers.{block}.self_attn.{norm}.weight");
                out.push((name, vec![config.head_size()]));
            }
        }
        let mut linear = |name: &str, rows: usize, columns: usize, bias: bool| {
            out.push((format!("model.layers.{block}.{name}.weight"), vec![rows, columns]));
            if bias {
                out.push((format!("model.layers.{block}.{name}.bias"), vec![rows]));
            }
        };
        for (name, rows, columns, bias) in attention {
            linear(name, rows, columns, bias);
        }
        let mut feed = |at: &str, width: usize| {
            linear(&format!("{at}.gate_proj"), width, d, config.mlp_bias);
            linear(&format!("{at}.up_proj"), width, d, config.mlp_bias);
            linear(&format!("{at}.down_proj"), d, width, config.mlp_bias);
        };
        match experts {
            Some((experts, width)) => {
                (0..experts).for_each(|i| feed(&format!("mlp.experts.{i}"), width));
                linear("mlp.gate", experts, d, false);
            }
            None => feed("mlp", f),
        }
    }
    out.sort();
    out
}

/// As [`tensors`], with a matrix of every expert of a layer as one tensor `[experts, rows, columns]`,
/// by the name of one without its number: as GGUF has them.
pub fn stacked(config: &Config) -> Vec<(String, Vec<usize>)> {
    let experts = config.num_experts.unwrap_or(0);
    let stack = |(name, shape): (String, Vec<usize>)| match expert_of(&name) {
        None => Some((name, shape)),
        Some((at, 0, layer)) => {
            Some((format!("{at}.{layer}.weight"), [vec![experts], shape].concat()))
        }
        Some(_) => None,
    };
    tensors(config).into_iter().filter_map(stack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tensors_hold_as_many_weights_as_the_shape_says() {
        let mut config = Config::llama(50, 16, 2, 4, 2, 24, 32);
        let count = |config: &Config| -> usize {
            tensors(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        assert_eq!(count(&config), config.parameters());
        config.tie_word_embeddings = false;
        config.model_type = "qwen2".into();
        assert_eq!(count(&config), config.parameters());
        config.model_type = "qwen3_moe".into();
        (config.num_experts, config.num_experts_per_tok) = (Some(3), Some(2));
        config.moe_intermediate_size = Some(8);
        assert_eq!(count(&config), config.parameters());
        let stacked = stacked(&config);
        let sum: usize = stacked.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(sum, config.parameters());
        let up = ("model.layers.0.mlp.experts.up_proj.weight".to_owned(), vec![3, 8, 16]);
        assert!(stacked.contains(&up), "{stacked:?}");
    }
}
