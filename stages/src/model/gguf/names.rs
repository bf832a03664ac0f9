//! Names: HF's for a tensor, GGUF's for the same, and of architectures.
//!
//! GGUF keeps the experts of a layer as one tensor of three dimensions, HF each as its own. The name of
//! all is here that of one without its number: `model.layers.0.mlp.experts.up_proj.weight`.

use crate::model::weights;

/// The GGUF name of an HF tensor, if it has one.
pub(super) fn name_of(hf: &str) -> Option<String> {
    match hf {
        "model.embed_tokens.weight" => return Some("token_embd.weight".into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        _ => {}
    }
    let (block, rest) = hf.strip_prefix("model.layers.")?.split_once('.')?;
    let (layer, kind) = rest.rsplit_once('.')?;
    let layer = match layer {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "mlp.gate" => "ffn_gate_inp",
        "mlp.experts.gate_proj" => "ffn_gate_exps",
        "mlp.experts.up_proj" => "ffn_up_exps",
        "mlp.experts.down_proj" => "ffn_down_exps",
        _ => return None,
    };
    Some(format!("blk.{block}.{layer}.{kind}"))
}

/// The GGUF name of the tensor that holds an expert's matrix, and the expert's place in it.
pub(super) fn expert_of(hf: &str) -> Option<(String, usize)> {
    let (at, expert, layer) = weights::expert_of(hf)?;
    Some((name_of(&format!("{at}.{layer}.weight"))?, expert))
}

/// GGUF's name of an architecture for HF's `model_type`.
pub(super) fn arch_of(model_type: &str) -> &str {
    match model_type {
        "qwen3_moe" => "qwen3moe",
        other => other,
    }
}

/// HF's `model_type` for GGUF's name of an architecture, and the class that HF loads it with.
pub(super) fn model_of(arch: &str) -> (&str, &'static str) {
    match arch {
        "qwen2" => ("qwen2", "Qwen2ForCausalLM"),
        "qwen3" => ("qwen3", "Qwen3ForCausalLM"),
        "qwen3moe" => ("qwen3_moe", "Qwen3MoeForCausalLM"),
        other => (other, "LlamaForCausalLM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_experts_have_their_ggml_names() {
        let name = |hf| name_of(hf).unwrap_or_default();
        assert_eq!(name("model.layers.3.self_attn.q_norm.weight"), "blk.3.attn_q_norm.weight");
        assert_eq!(name("model.layers.0.mlp.gate.weight"), "blk.0.ffn_gate_inp.weight");
        assert_eq!(name("model.layers.0.mlp.other.weight"), "");
        let expert = expert_of("model.layers.1.mlp.experts.12.down_proj.weight");
        assert_eq!(expert, Some(("blk.1.ffn_down_exps.weight".into(), 12)));
        assert_eq!(expert_of("model.layers.1.mlp.experts.x.down_proj.weight"), None);
        for model in ["llama", "qwen2", "qwen3", "qwen3_moe"] {
            assert_eq!(model_of(arch_of(model)).0, model);
        }
    }
}
