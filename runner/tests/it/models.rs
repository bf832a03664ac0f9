//! A tiny model for the commands that use one: random weights, a tokenizer trained on a few lines, a
//! chat template. What it says is noise; that it says the same again, within a grammar, is not.

use std::path::Path;

use quantmill_stages::model::weights::{Named, write};
use quantmill_stages::model::{Config, Normal, Source, Tokenizer};

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' and not loop.first %}{{ raise_exception('the system comes first') }}{% endif %}<{{ message.role }}>{{ message.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// Writes one into a folder.
pub fn tiny(folder: &Path) {
    fs_err::create_dir_all(folder).unwrap();
    let texts: Vec<String> = (1..40)
        .map(|n| {
            format!(
                "Spread is wide at {n} bps. Decision: buy limit {n}\n{{\"action\":\"limit\",\"side\":\"sell\",\"offset_bps\":{n},\"size\":1}}\n"
            )
        })
        .collect();
    let tokenizer = Tokenizer::train(texts.iter().map(String::as_str), 320).unwrap();
    tokenizer.write(folder).unwrap();
    let mut config = Config::llama(320, 32, 2, 4, 2, 64, 1024);
    tokenizer.describe(&mut config);
    config.write(folder).unwrap();
    let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (hidden, config.kv_heads() * config.head_size());
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..config.num_hidden_layers {
        for (name, shape) in [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![q, hidden]),
            ("self_attn.k_proj", vec![kv, hidden]),
            ("self_attn.v_proj", vec![kv, hidden]),
            ("self_attn.o_proj", vec![hidden, q]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let mut source = Normal::new(5);
    let tensors: Vec<Named> = shapes
        .into_iter()
        .map(|(name, shape)| {
            // Larger than at the start of a training, so that no two tokens are nearly as likely.
            let scale = if name.contains("norm") { 1.0 } else { 12.0 };
            let mut values = source.read(&name, &shape).unwrap();
            values.iter_mut().for_each(|x| *x *= scale);
            Named { name, shape, values }
        })
        .collect();
    write(&folder.join("model.safetensors"), &tensors).unwrap();
    let settings = serde_json::json!({ "chat_template": TEMPLATE });
    fs_err::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
}
