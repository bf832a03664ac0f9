//! Which tensors a model of a given shape has, by HF's names and in HF's order of axes.

use super::config::Config;

/// Name and shape of every tensor, in the order of the names.
pub fn tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (d, f, v) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let (q, kv) = (
        config.num_attention_heads * config.head_size(),
        config.kv_heads() * config.head_size(),
    );
    let mut out = vec![
        ("model.embed_tokens.weight".to_owned(), vec![v, d]),
        ("model.norm.weight".to_owned(), vec![d]),
    ];
    if !config.tie_word_embeddings {
        out.push(("lm_head.weight".into(), vec![v, d]));
    }
    let linears = [
        ("self_attn.q_proj", q, d, config.qkv_bias()),
        ("self_attn.k_proj", kv, d, config.qkv_bias()),
        ("self_attn.v_proj", kv, d, config.qkv_bias()),
        ("self_attn.o_proj", d, q, config.output_bias()),
        ("mlp.gate_proj", f, d, config.mlp_bias),
        ("mlp.up_proj", f, d, config.mlp_bias),
        ("mlp.down_proj", d, f, config.mlp_bias),
    ];
    for block in 0..config.num_hidden_layers {
        for norm in ["input", "post_attention"] {
            out.push((format!("model.layers.{block}.{norm}_layernorm.weight"), vec![d]));
        }
        for (name, rows, columns, bias) in linears {
            out.push((format!("model.layers.{block}.{name}.weight"), vec![rows, columns]));
            if bias {
                out.push((format!("model.layers.{block}.{name}.bias"), vec![rows]));
            }
        }
    }
    out.sort();
    out
}
