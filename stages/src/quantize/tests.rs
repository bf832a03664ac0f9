use std::path::Path;

use serde_json::json;

use super::*;
use crate::device::{Back, cpu};
use crate::infer::{Engine, Options};
use crate::model::lora::{self, Spec};
use crate::model::{Config, Ffn, Llama, Normal, load_folder, save, tiny};
use crate::testing;

/// Writes a model folder with an adapter that does something.
fn model(folder: &Path) -> Llama<Back> {
    let tokenizer = Tokenizer::train(["some text and some more text"].into_iter(), 265).unwrap();
    let mut config = Config::llama(0, 64, 1, 4, 2, 96, 64);
    tokenizer.describe(&mut config);
    let base: Llama<Back> = Llama::build(&config, &mut Normal::new(2), &cpu()).unwrap();
    save::save(&base, folder).unwrap();
    tokenizer.write(folder).unwrap();
    let targets = vec!["up_proj".into()];
    let spec = Spec { r: 2, alpha: 8.0, targets, ..Default::default() };
    let mut model = base.with_adapter(&spec, 1).unwrap();
    for block in &mut model.blocks {
        let Ffn::Dense(layer) = &mut block.ffn else { unreachable!("a Llama has no experts") };
        let adapter = layer.up.adapter.as_mut().unwrap();
        adapter.b = adapter.b.clone().map(|b| b + 0.1);
    }
    lora::write(&model, &spec, folder).unwrap();
    model
}

fn logits(model: &Llama<Back>) -> Vec<f32> {
    model.forward(&[3, 40, 50, 60], 1).unwrap().into_data().to_vec().unwrap()
}

#[test]
fn the_output_is_the_merged_model_to_the_precision_of_the_method() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let corpus = folder.path().join("chunks.jsonl");
    fs_err::write(&corpus, "{\"text\": \"some text and some more text\"}\n").unwrap();
    let mut last = f64::INFINITY;
    for (method, error) in
        [("q4_0", 0.2), ("q4_1", 0.18), ("q8_0", 0.02), ("bf16", 0.01), ("f16", 0.001)]
    {
        let format = if method == "bf16" { "safetensors" } else { "gguf" };
        let ran = testing::run::<Quantize>(
            json!({ "method": method, "embeddings": method, "format": format }),
            &[("model", folder.path()), ("text", &corpus)],
        )
        .unwrap();
        let out = Folder::of_dir(&ran.outputs["model"]).unwrap();
        let again = load_folder::<Back>(&out, &cpu()).unwrap();
        let (a, b) = (logits(&model), logits(&again.model));
        let size = a.iter().map(|x| x * x).sum::<f32>();
        let off = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        assert!(f64::from((off / size).sqrt()) < error, "{method}: {}", (off / size).sqrt());
        assert!(ran.metrics["weight_error"] < last, "{method}");
        last = ran.metrics["weight_error"];
        let (before, after) = (ran.metrics["loss_before"], ran.metrics["loss_after"]);
        assert!((before - after).abs() < error, "{method}: {before} and {after}");
        assert!(ran.warnings.is_empty());
    }
}

#[test]
fn four_bits_take_four_bits_and_the_same_bytes_each_time() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path());
    let run = || testing::run::<Quantize>(json!({}), &[("model", folder.path())]).unwrap();
    let (a, b) = (run(), run());
    let bits = a.metrics["bits_per_weight"];
    assert!(bits > 4.5 && bits < 7.0, "{bits}");
    let read = |ran: &testing::Ran| fs_err::read(ran.outputs["model"].join("model.gguf")).unwrap();
    assert_eq!(read(&a), read(&b));
}

#[test]
fn k_m_gives_more_bits_to_what_needs_them_and_rows_that_do_not_fit_fall_back() {
    let params: Params = serde_json::from_value(json!({ "method": "q4_k_m" })).unwrap();
    let config = Config::llama(512, 512, 16, 4, 2, 768, 64);
    let packing = |name: &str, shape: &[usize]| {
        params.packing(&format!("model.layers.{name}.weight"), shape, &config)
    };
    // Of sixteen blocks: the first two, the last two, and every third between.
    let careful: Vec<usize> = (0..16)
        .filter(|i| packing(&format!("{i}.mlp.down_proj"), &[512, 768]) == Packing::Q6K)
        .collect();
    assert_eq!(careful, [0, 1, 4, 7, 10, 13, 14, 15]);
    assert_eq!(packing("0.self_attn.v_proj", &[256, 512]), Packing::Q6K);
    assert_eq!(packing("0.self_attn.q_proj", &[512, 512]), Packing::Q4K);
    assert_eq!(packing("0.self_attn.q_proj", &[576, 576]), Packing::Q4_1);
    assert_eq!(packing("0.self_attn.v_proj", &[192, 576]), Packing::Q8_0);
    assert_eq!(packing("0.input_layernorm", &[512]), Packing::F32);
    assert_eq!(params.packing("model.embed_tokens.weight", &[512, 512], &config), Packing::Q6K);
}

#[test]
fn safetensors_hold_floats_alone() {
    for (params, fits) in [
        (json!({ "format": "safetensors", "method": "bf16" }), true),
        (json!({ "format": "safetensors" }), false),
        (json!({ "format": "safetensors", "method": "f16", "embeddings": "q8_0" }), false),
    ] {
        let params: Params = serde_json::from_value(params).unwrap();
        assert_eq!(params.check().is_ok(), fits);
    }
}

#[test]
fn what_belongs_to_the_model_comes_along() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path());
    let config = r#"{"chat_template": "{{ messages[0].content }}"}"#;
    fs_err::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let ran = testing::run::<Quantize>(json!({}), &[("model", folder.path())]).unwrap();
    let out = &ran.outputs["model"];
    assert_eq!(fs_err::read_to_string(out.join("tokenizer_config.json")).unwrap(), config);
    let template = gguf::Value::Text("{{ messages[0].content }}".into());
    let file = Gguf::open(&out.join("model.gguf")).unwrap();
    assert_eq!(file.get("tokenizer.chat_template"), Some(&template));
    assert!(matches!(file.get("tokenizer.ggml.eos_token_id"), Some(gguf::Value::Int(_))));
}

/// With an adapter on an expert, merged on the way.
#[test]
fn experts_are_stacked_and_the_engine_reads_them() {
    let config = tiny::config("qwen3_moe");
    let tensors = tiny::random(&config);
    let folder = tiny::folder(&config, &tensors);
    let corpus = folder.path().join("chunks.jsonl");
    fs_err::write(&corpus, "{\"text\": \"a small text, and another small text\"}\n").unwrap();
    let targets = vec!["experts.2.up_proj".into()];
    let spec = Spec { r: 2, alpha: 8.0, targets, ..Default::default() };
    let base = load_folder::<Back>(&Folder::of_dir(folder.path()).unwrap(), &cpu()).unwrap().model;
    let mut model = base.with_adapter(&spec, 1).unwrap();
    for block in &mut model.blocks {
        let Ffn::Experts(layer) = &mut block.ffn else { unreachable!("it is a mixture") };
        let adapter = layer.experts[2].up.adapter.as_mut().unwrap();
        adapter.b = adapter.b.clone().map(|b| b + 0.3);
    }
    lora::write(&model, &spec, folder.path()).unwrap();
    let mut last = f32::INFINITY;
    for (method, bound) in [("q4_0", 0.3), ("q8_0", 0.03), ("f32", 1e-5)] {
        let inputs = [("model", folder.path()), ("text", corpus.as_path())];
        let ran = testing::run::<Quantize>(json!({ "method": method }), &inputs).unwrap();
        let out = &ran.outputs["model"];
        // From the file alone, as llama.cpp has it.
        let file = out.join("model.gguf");
        let gguf = Gguf::open(&file).unwrap();
        assert_eq!(gguf.get("qwen3moe.expert_count"), Some(&gguf::Value::Int(5)));
        assert_eq!(gguf.get("qwen3moe.expert_used_count"), Some(&gguf::Value::Int(2)));
        assert_eq!(gguf.get("qwen3moe.expert_feed_forward_length"), Some(&gguf::Value::Int(32)));
        assert_eq!(gguf.raw("model.layers.1.mlp.gate.weight").unwrap().packing, Packing::F32);
        let engine =
            Engine::open(&file, Options { threads: Some(1), context: None, ..Default::default() })
                .unwrap();
        let text = [3, 40, 50, 60];
        let got = engine.session(4).read_all(&engine, &text).unwrap();
        let expected = logits(&model);
        let size = expected.iter().map(|x| x * x).sum::<f32>();
        let off = got.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let off = (off / size).sqrt();
        assert!(off < bound && off < last, "{method}: {off}");
        last = off;
    }
}

#[test]
fn a_mixture_that_gguf_cannot_describe_is_refused() {
    let mut config = tiny::config("qwen3_moe");
    config.norm_topk_prob = false;
    let folder = tiny::folder(&config, &tiny::random(&config));
    let error = testing::run::<Quantize>(json!({}), &[("model", folder.path())]).err().unwrap();
    assert!(error.to_string().contains("norm_topk_prob"), "{error}");
    assert!(error.help().unwrap().contains("safetensors"));
    let params = json!({ "method": "f32", "format": "safetensors" });
    testing::run::<Quantize>(params, &[("model", folder.path())]).unwrap();
}

/// Opt-in: `QUANTMILL_TEST_LLAMA_CPP` names a Python that imports xllamacpp.
#[test]
fn llama_cpp_thinks_the_same_of_a_mixture() {
    let Some(python) = std::env::var_os("QUANTMILL_TEST_LLAMA_CPP") else {
        return eprintln!("skipped: set QUANTMILL_TEST_LLAMA_CPP to a Python with xllamacpp");
    };
    let mut config = tiny::config("qwen3_moe");
    config.head_dim = Some(32);
    let folder = tiny::folder(&config, &tiny::random(&config));
    let prompts: Vec<Vec<u32>> =
        (1..=20).map(|n| (0..n + 3).map(|i| (i * 37 + n * 11) % 256 + 3).collect()).collect();
    // Its cache is f16, and so is what it multiplies by matrices in 8 bits.
    for (method, bound) in [("f32", 0.02), ("q8_0", 0.2), ("q4_0", 0.3)] {
        let inputs = [("model", folder.path())];
        let written = testing::run::<Quantize>(json!({ "method": method }), &inputs).unwrap();
        let file = written.outputs["model"].join("model.gguf");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/quantize/llama_cpp.py");
        let asked = serde_json::to_string(&prompts).unwrap();
        let ran = std::process::Command::new(&python).arg(script).arg(&file).arg(asked).output();
        let text = String::from_utf8(ran.unwrap().stdout).unwrap();
        let reply = text.lines().find_map(|line| line.strip_prefix("reply ")).expect(&text);
        let theirs: Vec<Vec<(usize, f32)>> = serde_json::from_str(reply).unwrap();
        assert_eq!(theirs.len(), prompts.len());
        let engine =
            Engine::open(&file, Options { threads: Some(1), context: None, ..Default::default() })
                .unwrap();
        let (mut off, mut same) = (0.0f32, 0);
        for (prompt, top) in prompts.iter().zip(&theirs) {
            let logits = engine.session(32).read(&engine, prompt).unwrap().to_vec();
            let total = logits.iter().map(|x| x.exp()).sum::<f32>().ln();
            for &(token, logprob) in top {
                off = off.max((logits[token] - total - logprob).abs());
            }
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            same += usize::from(top.first().is_some_and(|first| best == Some(first.0)));
        }
        let told = theirs.iter().filter(|top| !top.is_empty()).count();
        eprintln!("{method}: {same} of {told} likeliest alike, log-probabilities within {off}");
        assert!(off < bound && told >= 12 && same + 2 > told, "{method}: {same}, {off}");
    }
}
