//! A mixture of experts in training: the balance of its experts against transformers, blocks that are
//! computed again, and every method from end to end.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::samples::Window;
use super::sft::{Rows, whole};
use super::stage::Train as Stage;
use super::steps::Gradients;
use super::tests::{corpus, logged, pairs, reward};
use super::{Params, remat};
use crate::device::{Back, Train, cpu};
use crate::infer::{Engine, Options};
use crate::model::weights::{Source, Tensors};
use crate::model::{Config, Folder, Llama, tiny};
use crate::testing::{self, Ran};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-qwen3-moe")
}

/// The windows and labels of the reference, padded so that one is shorter than the other.
fn rows(reference: &Value) -> (Rows, usize) {
    let ids: Vec<Vec<u32>> = serde_json::from_value(reference["input_ids"].clone()).unwrap();
    let labels: Vec<Vec<i64>> = serde_json::from_value(reference["labels"].clone()).unwrap();
    let windows = ids.into_iter().zip(labels).map(|(tokens, labels)| {
        let at = (0..tokens.len() - 1).filter(|i| labels[i + 1] >= 0).collect();
        Window { at, ..Window::text(&tokens, Vec::new()) }
    });
    let windows: Vec<Window> = windows.collect();
    let count = windows.iter().map(|window| window.at.len()).sum();
    (Rows::of(&windows), count)
}

#[test]
fn the_balance_of_experts_and_its_gradient_are_those_of_transformers() {
    let text = fs_err::read_to_string(data().join("reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let config = Config::read(&data().join("config.json")).unwrap();
    let folder = Folder::of_dir(&data()).unwrap();
    let mut source = Tensors::open(folder.need("model.safetensors").unwrap()).unwrap();
    let model = Llama::<Train>::build(&config, &mut source, &cpu()).unwrap();
    let (rows, count) = rows(&reference);
    let weight = reference["aux_coef"].as_f64().unwrap();
    let mut expected = Tensors::open(&data().join("gradients.safetensors")).unwrap();
    for again in [false, true] {
        let mut gradients = Gradients::new();
        let (loss, balance) = match again {
            false => whole(&model, &rows, count, weight, &mut gradients),
            true => remat::backward(&model, &rows, count, (1, 0), weight, &mut gradients),
        }
        .unwrap();
        let near = |value: f64, expected: &Value| {
            assert!((value - expected.as_f64().unwrap()).abs() < 1e-5, "{value} for {expected}");
        };
        near(balance, &reference["aux"]["aux_loss"]);
        near(loss + weight * balance, &reference["aux"]["loss"]);
        let grads = gradients.grads();
        let mut compared = 0;
        for (name, layer) in model.linears() {
            let grad = grads.get::<Back, 2>(layer.weight.id).unwrap().transpose();
            let (shape, grad) = (grad.dims(), grad.into_data().into_vec::<f32>().unwrap());
            let theirs = expected.read(&format!("aux.{name}.weight"), &shape).unwrap();
            let off = grad.iter().zip(theirs).fold(0.0, |off: f32, (a, b)| off.max((a - b).abs()));
            assert!(off < 1e-5, "{name}: {off}");
            compared += 1;
        }
        assert_eq!(compared, 2 * (4 + 1 + 15));
    }
}

#[test]
fn padding_has_no_part_in_the_balance() {
    let window = |tokens: &[u32]| Window::text(tokens, Vec::new());
    let tensors = tiny::random(&tiny::config("qwen3_moe"));
    let folder = tiny::folder(&tiny::config("qwen3_moe"), &tensors);
    let config = tiny::config("qwen3_moe");
    let mut source = Tensors::open(&folder.path().join("model.safetensors")).unwrap();
    let model = Llama::<Train>::build(&config, &mut source, &cpu()).unwrap();
    let balance = |windows: &[Window]| {
        whole(&model, &Rows::of(windows), 10, 0.1, &mut Gradients::new()).unwrap().1
    };
    let (long, short) = (window(&[9, 8, 7, 6, 5, 4]), window(&[1, 2]));
    let together = balance(&[long.clone(), short.clone()]);
    // The same two records in one window, which needs no padding.
    let tokens = [long.tokens.clone(), short.tokens.clone()].concat();
    let packed = Window { starts: vec![0, 0, 0, 0, 0, 0, 6, 6], ..window(&tokens) };
    let packed = Window { at: vec![0, 1, 2, 3, 4, 6], ..packed };
    assert!((together - balance(&[packed])).abs() < 1e-6);
    let rows = Rows::of(&[long, short]);
    let real: Vec<bool> = rows.real();
    assert_eq!(real, [[true; 6].as_slice(), &[true, true, false, false, false, false]].concat());
}

fn run(params: Value, inputs: &[(&str, &Path)]) -> Ran {
    testing::run::<Stage>(params, inputs).unwrap()
}

/// The engine runs what training wrote, and thinks the same of it.
fn same_as_the_engine(folder: &Path) {
    let engine =
        Engine::open(folder, Options { threads: Some(1), context: None, ..Default::default() })
            .unwrap();
    let model =
        crate::model::load_folder::<Back>(&Folder::of_dir(folder).unwrap(), &cpu()).unwrap();
    let text = [5, 17, 33, 2, 90, 41];
    let ours: Vec<f32> = model.model.forward(&text, 1).unwrap().into_data().into_vec().unwrap();
    let theirs = engine.session(6).read_all(&engine, &text).unwrap();
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn every_method_trains_a_mixture_of_experts() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny::config("qwen3_moe");
    let base = tiny::folder(&config, &tiny::random(&config));
    let (corpus, pairs, reward) = (corpus(dir.path()), pairs(dir.path()), reward(dir.path()));
    let text = [("base", base.path()), ("corpus", corpus.as_path())];
    let full = json!({
        "method": "sft", "steps": 12, "batch": 4, "seq_len": 48, "micro_batch": 2,
        "learning_rate": 0.003, "router_aux_loss_coef": 0.01
    });
    let ran = run(full.clone(), &text);
    let loss = logged(&ran, "loss");
    assert!(loss[11] < 0.7 * loss[0], "{loss:?}");
    assert!(logged(&ran, "router_aux_loss").iter().all(|x| *x >= 1.9 && *x < 5.0));
    same_as_the_engine(&ran.outputs["model"]);

    let mut low = full.clone();
    low["gradient_checkpointing"] = json!(true);
    low["lora"] = json!({ "r": 4, "targets": ["all-linear"] });
    low["learning_rate"] = json!(0.01);
    let ran = run(low.clone(), &text);
    let loss = logged(&ran, "loss");
    assert!(loss[11] < 0.8 * loss[0], "{loss:?}");
    same_as_the_engine(&ran.outputs["model"]);
    low["lora"]["qlora"] = json!(true);
    let loss = logged(&run(low, &text), "loss");
    assert!(loss[11] < 0.8 * loss[0], "{loss:?}");

    let preferences = [("base", base.path()), ("pairs", pairs.as_path())];
    let dpo = json!({ "method": "dpo", "steps": 10, "batch": 4, "learning_rate": 0.01 });
    let margin = logged(&run(dpo, &preferences), "margin");
    assert!(margin[0].abs() < 1e-6, "{margin:?}");
    assert!(margin[9] > 0.1, "{margin:?}");

    let inputs = [preferences[0], preferences[1], ("reward", reward.as_path())];
    let dapo = json!({
        "method": "dapo", "steps": 2, "batch": 2,
        "dapo": { "group": 4, "form": "code", "temperature": 1.5 }
    });
    let ran = run(dapo, &inputs);
    assert!(logged(&ran, "logp_gap").iter().all(|gap| *gap < 1e-3));
    same_as_the_engine(&ran.outputs["model"]);
}

#[test]
fn a_balance_of_experts_needs_experts() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny::config("llama");
    let base = tiny::folder(&config, &tiny::random(&config));
    let params = json!({ "method": "sft", "steps": 1, "router_aux_loss_coef": 0.01 });
    let corpus = corpus(dir.path());
    let inputs = [("base", base.path()), ("corpus", corpus.as_path())];
    let error = testing::run::<Stage>(params, &inputs).err().unwrap();
    assert!(error.to_string().contains("no experts"), "{error}");
    let params: Params =
        serde_json::from_value(json!({ "method": "dpo", "router_aux_loss_coef": 0.01 })).unwrap();
    assert!(super::check::check(&params).is_err());
}
