//! Completions, packing, accumulation, validation on the way, and going on after a kill.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Value, json};

use super::logps::{backward, numbers};
use super::losses::cross_entropy;
use super::remat;
use super::samples::{Sample, Samples, Window};
use super::sft::Rows;
use super::stage::Train as Stage;
use super::steps::Gradients;
use crate::device::{Back, Train, cpu};
use crate::model::lora::Spec;
use crate::model::{Config, Llama, Normal};
use crate::testing::{self, Ran};
use crate::{Cancel, Context, Input, Job, Kind, Progress, Sink, StageError};

/// A model of two layers, of `file` written as lines of JSON.
fn arch() -> Value {
    json!({
        "hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 64, "vocab": 320,
        "context": 96
    })
}

fn lines(dir: &Path, name: &str, lines: impl Iterator<Item = Value>) -> PathBuf {
    let path = dir.join(name);
    let text: String = lines.map(|line| line.to_string() + "\n").collect();
    fs_err::write(&path, text).unwrap();
    path
}

fn completions(dir: &Path) -> PathBuf {
    let line = |i: usize| {
        let (state, answer) = [("calm", "buy limit 10"), ("wild", "sell market now")][i % 2];
        let prompt = format!("Spread {} bps, {state}. {}Decision:", i % 7, "Wait. ".repeat(i % 4));
        json!({ "prompt": prompt, "completion": format!(" {answer}") })
    };
    lines(dir, "completions.jsonl", (0..40).map(line))
}

fn logged(ran: &Ran, name: &str) -> Vec<f64> {
    let text = ran.text("log");
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap()[name].as_f64();
    text.lines().filter_map(read).collect()
}

fn small() -> Llama<Train> {
    let config = Config::llama(24, 16, 2, 2, 1, 24, 32);
    Llama::build(&config, &mut Normal::new(4), &cpu()).unwrap()
}

/// Samples of 3 to 12 tokens, of which the later half counts.
fn samples() -> Vec<Sample> {
    let sample = |n: usize| Sample {
        tokens: (0..n).map(|i| (7 * n + 5 * i) as u32 % 24).collect(),
        counts: (0..n).map(|i| i > 0 && 2 * i >= n).collect(),
        line: n as u64,
    };
    (3..=12).map(sample).collect()
}

/// The bytes of what a stage wrote, by name.
type Written = BTreeMap<String, Vec<u8>>;

/// The loss of windows, in parts of `at_once`, and the gradient of a matrix.
fn loss(model: &Llama<Train>, windows: &[Window], at_once: usize) -> (f64, Vec<f32>) {
    let count = windows.iter().map(|window| window.at.len()).sum();
    let (mut loss, mut gradients) = (0.0, Gradients::new());
    for part in windows.chunks(at_once) {
        let logp = Rows::of(part).log_probs(model).unwrap();
        let part = cross_entropy(&numbers(&logp), count);
        backward(logp, &part.grad, model, &mut gradients);
        loss += part.value;
    }
    let id = model.blocks[0].q.weight.id;
    let grads = gradients.grads();
    (loss, grads.get::<Back, 2>(id).unwrap().into_data().into_vec().unwrap())
}

fn near(a: &(f64, Vec<f32>), b: &(f64, Vec<f32>), bound: f64) {
    assert!((a.0 - b.0).abs() < bound, "{} {}", a.0, b.0);
    // Beside its own size: attention in a model of small random weights has small gradients.
    let size = a.1.iter().fold(0.0f32, |size, g| size.max(g.abs()));
    assert!(size > 0.0 && size.is_finite());
    for (a, b) in a.1.iter().zip(&b.1) {
        assert!((a - b).abs() < 1e-3 * size, "{a} {b} of {size}");
    }
}

#[test]
fn packed_records_give_the_loss_and_gradient_of_records_alone() {
    let model = small();
    let packed = Samples::new(samples(), 20, true, 0).all();
    let alone = Samples::new(samples(), 20, false, 0).all();
    assert!(packed.len() < 6 && alone.len() == 10);
    let expected = loss(&model, &alone, 1);
    near(&loss(&model, &packed, 2), &expected, 1e-5);
    near(&loss(&model, &packed, packed.len()), &expected, 1e-5);
    near(&loss(&model, &alone, 10), &expected, 1e-5);
}

#[test]
fn micro_batches_of_unequal_counts_give_the_loss_of_the_batch() {
    let model = small();
    let windows = Samples::new(samples(), 12, false, 0).all();
    let whole = loss(&model, &windows, 10);
    for at_once in [1, 3, 7] {
        near(&loss(&model, &windows, at_once), &whole, 1e-6);
    }
}

#[test]
fn blocks_that_are_computed_again_give_the_same_loss_and_gradient() {
    let spec = Spec {
        r: 3,
        alpha: 6.0,
        targets: vec!["all-linear".into()],
        dropout: 0.2,
        ..Spec::default()
    };
    let windows = Samples::new(samples(), 20, true, 0).all();
    let (rows, count) = (Rows::of(&windows), windows.iter().map(|w| w.at.len()).sum());
    for model in [small(), small().with_adapter(&spec, 1).unwrap()] {
        let grads = |gradients: &mut Gradients| {
            let grads = gradients.grads();
            let layer = &model.blocks[0].q;
            let first = match &layer.adapter {
                Some(adapter) => grads.get::<Back, 2>(adapter.b.id),
                None => grads.get::<Back, 2>(layer.weight.id),
            };
            let embed = grads.get::<Back, 2>(model.embed.id);
            assert_eq!(embed.is_some(), layer.adapter.is_none());
            let both = [first, embed].into_iter().flatten();
            both.flat_map(|grad| grad.into_data().into_vec::<f32>().unwrap()).collect::<Vec<_>>()
        };
        model.begin(5, 2);
        let mut plain = Gradients::new();
        let logp = rows.log_probs(&model).unwrap();
        let expected = cross_entropy(&numbers(&logp), count);
        backward(logp, &expected.grad, &model, &mut plain);
        let mut again = Gradients::new();
        let (value, _) = remat::backward(&model, &rows, count, (5, 2), 0.0, &mut again).unwrap();
        near(&(value, grads(&mut again)), &(expected.value, grads(&mut plain)), 1e-6);
    }
}

#[test]
fn a_completion_is_learned_and_its_prompt_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = completions(dir.path());
    let run = |sft: Value| {
        let params = json!({
            "method": "sft", "steps": 40, "batch": 2, "seq_len": 64, "learning_rate": 0.01,
            "model": arch(), "sft": sft
        });
        testing::run::<Stage>(params, &[("corpus", &file)]).unwrap()
    };
    let completion = run(json!({}));
    let (first, last) = (logged(&completion, "loss")[0], logged(&completion, "loss")[39]);
    assert!(first > 4.0 && last < 0.5, "{first} {last}");
    // The counted tokens alone: a few a record.
    let all = run(json!({ "learn": "all" }));
    assert!(4.0 * completion.metrics["tokens"] < 3.0 * all.metrics["tokens"]);
    // Packing puts several records into a window; padding puts one.
    let padded = run(json!({ "packing": "none" }));
    assert_eq!(padded.metrics["windows"], 38.0);
    assert!(completion.metrics["windows"] < 20.0);
    assert!(completion.warnings.is_empty(), "{:?}", completion.warnings);
}

#[test]
fn what_is_cut_off_or_left_out_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: usize| {
        let prompt = if i == 3 { "long ".repeat(60) } else { "short".into() };
        json!({ "prompt": prompt, "completion": "yes ".repeat(if i == 5 { 60 } else { 1 }) })
    };
    let file = lines(dir.path(), "c.jsonl", (0..20).map(line));
    let params = json!({
        "method": "sft", "steps": 2, "seq_len": 24, "model": arch(), "valid_share": 0
    });
    let ran = testing::run::<Stage>(params.clone(), &[("corpus", &file)]).unwrap();
    assert_eq!(ran.metrics["records_cut"], 2.0);
    assert_eq!(ran.metrics["records_left_out"], 1.0);
    assert!(ran.warnings[0].contains("2 of 20 records have more than 24 tokens"));
    assert!(ran.warnings[1].contains("1 of 20 records have no token left to learn"));
    for (sft, said) in [
        (json!({ "packing": "stream" }), "for records of `text`"),
        (json!({ "packing": "none" }), ""),
    ] {
        let mut params = params.clone();
        params["sft"] = sft;
        let ran = testing::run::<Stage>(params, &[("corpus", &file)]);
        assert_eq!(ran.is_err(), !said.is_empty());
        assert!(said.is_empty() || ran.err().unwrap().to_string().contains(said));
    }
}

const CHATML: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<|endoftext|>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

#[test]
fn conversations_go_through_the_template_of_the_base_which_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let params = |steps: usize| json!({ "method": "sft", "steps": steps, "seq_len": 64, "learning_rate": 0.01 });
    let mut fresh = params(2);
    fresh["model"] = arch();
    let base = testing::run::<Stage>(fresh, &[("corpus", &completions(dir.path()))]).unwrap();
    let base = &base.outputs["model"];
    let talk = |i: usize| {
        json!({ "messages": [
            { "role": "user", "content": format!("Spread {i} bps?") },
            { "role": "assistant", "content": "wait" },
            { "role": "user", "content": "And now?" },
            { "role": "assistant", "content": "buy limit 10" },
        ]})
    };
    let file = lines(dir.path(), "talk.jsonl", (0..20).map(talk));
    let inputs = [("corpus", file.as_path()), ("base", base.as_path())];
    let mut chat = params(30);
    chat["lora"] = json!({ "dora": true, "dropout": 0.05, "targets": ["all-linear"] });
    let e = testing::run::<Stage>(chat.clone(), &inputs).err().unwrap();
    assert!(e.help().unwrap().contains("chat_template.jinja"), "{e}");
    fs_err::write(base.join("chat_template.jinja"), CHATML).unwrap();
    let ran = testing::run::<Stage>(chat.clone(), &inputs).unwrap();
    let loss = logged(&ran, "loss");
    assert!(loss[29] < 0.7 * loss[0], "{loss:?}");
    let model = &ran.outputs["model"];
    let text = fs_err::read_to_string(model.join("chat_template.jinja")).unwrap();
    assert_eq!(text, CHATML);
    let adapter = fs_err::read_to_string(model.join("adapter_config.json")).unwrap();
    let adapter: Value = serde_json::from_str(&adapter).unwrap();
    assert_eq!(adapter["use_dora"], true);
    assert_eq!(adapter["lora_dropout"], 0.05);
    assert_eq!(adapter["target_modules"].as_array().unwrap().len(), 7);
    // The same bytes again, dropout and all.
    let again = testing::run::<Stage>(chat, &inputs).unwrap();
    let bytes =
        |ran: &Ran| fs_err::read(ran.outputs["model"].join("adapter_model.safetensors")).unwrap();
    assert!(bytes(&again) == bytes(&ran));
}

#[test]
fn a_base_in_four_bits_is_trained_on_and_written_as_it_was_held() {
    let dir = tempfile::tempdir().unwrap();
    let file = completions(dir.path());
    let mut params = json!({ "method": "sft", "steps": 30, "seq_len": 64, "learning_rate": 0.01 });
    let mut fresh = params.clone();
    fresh["model"] = arch();
    let base = testing::run::<Stage>(fresh, &[("corpus", &file)]).unwrap();
    params["lora"] = json!({ "qlora": true });
    assert!(testing::run::<Stage>(params.clone(), &[("corpus", &file)]).is_err());
    let load = |ran: &Ran| {
        let folder = crate::model::Folder::of_dir(&ran.outputs["model"]).unwrap();
        crate::model::load_folder::<Back>(&folder, &cpu()).unwrap().model
    };
    let inputs = [("corpus", file.as_path()), ("base", base.outputs["model"].as_path())];
    let ran = testing::run::<Stage>(params.clone(), &inputs).unwrap();
    let loss = logged(&ran, "loss");
    assert!(loss[29] < loss[0], "{loss:?}");
    // Its written base is the 4-bit one, and the loss of the files is that of the training.
    let (held, written) = (load(&base).pack(), load(&ran).without_adapter());
    let tokens = [5, 17, 33, 2, 9];
    let logits = |model: &Llama<Back>| {
        model.forward(&tokens, 1).unwrap().into_data().into_vec::<f32>().unwrap()
    };
    for (a, b) in logits(&held).iter().zip(logits(&written)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    assert!(logits(&held) != logits(&load(&base)));
    // An adapter of its own is merged before the base is packed.
    let again = [("corpus", file.as_path()), ("base", ran.outputs["model"].as_path())];
    let start = logged(&testing::run::<Stage>(params, &again).unwrap(), "loss")[0];
    assert!(start < loss[0], "{start} {loss:?}");
}

#[test]
fn validation_on_the_way_keeps_the_best_and_stops_early() {
    let dir = tempfile::tempdir().unwrap();
    // What is held out is unlike the rest: learning the rest makes it worse.
    let line = |i: usize| {
        let text = if i < 36 { "a b c d e f g h" } else { "h g q z f e x d c b a z" };
        json!({ "text": text.repeat(4) })
    };
    let file = lines(dir.path(), "text.jsonl", (0..40).map(line));
    let params = json!({
        "method": "sft", "steps": 60, "batch": 2, "seq_len": 24, "learning_rate": 0.01,
        "valid_share": 0.1, "eval_every": 2, "patience": 3, "model": arch()
    });
    let ran = testing::run::<Stage>(params, &[("corpus", &file)]).unwrap();
    let valid = logged(&ran, "valid_loss");
    let best = valid.iter().copied().fold(f64::INFINITY, f64::min);
    let at = valid.iter().position(|loss| *loss == best).unwrap();
    assert_eq!(valid.len(), at + 1 + 3, "three more after the best: {valid:?}");
    assert_eq!(ran.metrics["best_step"], 2.0 * (at + 1) as f64);
    assert_eq!(ran.metrics["stopped_at"], 2.0 * valid.len() as f64);
    assert!((ran.metrics["valid_loss"] - best).abs() < 1e-6, "the best weights are kept");
}

/// Hears nothing, and stops the stage after some steps.
struct Killer {
    after: u64,
    cancel: Cancel,
    steps: Mutex<Vec<u64>>,
}

impl Sink for Killer {
    fn progress(&self, progress: Progress) {
        if progress.unit == "steps" {
            self.steps.lock().unwrap().push(progress.done);
            if progress.done >= self.after {
                self.cancel.cancel();
            }
        }
    }
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

/// Runs with a folder to resume from until `after` steps are done. The bytes of all outputs, and at
/// what steps it was.
fn attempt(
    dir: &Path,
    params: &Value,
    inputs: &[(&str, &Path)],
    after: u64,
) -> (Result<Written, StageError>, Vec<u64>) {
    let kind = Kind::of::<Stage>();
    assert!(kind.resumes);
    let params = (kind.resolve)(params).unwrap();
    let resume = dir.join("resume");
    fs_err::create_dir_all(&resume).unwrap();
    let made = tempfile::tempdir().unwrap();
    let outputs: BTreeMap<String, PathBuf> =
        ["model", "log"].map(|name| (name.to_owned(), made.path().join(name))).into();
    fs_err::create_dir(&outputs["model"]).unwrap();
    let inputs: BTreeMap<String, Input> =
        inputs.iter().map(|(port, path)| (port.to_string(), testing::input(path))).collect();
    let job = Job {
        params,
        inputs,
        outputs: outputs.clone(),
        resume: Some(resume),
        dir: dir.to_owned(),
        scratch: dir.to_owned(),
        ..Job::default()
    };
    let cancel = Cancel::default();
    let killer = Killer { after, cancel: cancel.clone(), steps: Mutex::default() };
    let ran = (kind.run)(&job.params, &Context::new(&job, &killer, cancel));
    let mut bytes = BTreeMap::new();
    for path in outputs.values().filter(|path| path.exists()) {
        for (name, place) in &testing::input(path).files {
            bytes.insert(name.clone(), fs_err::read(place).unwrap());
        }
    }
    (ran.map(|()| bytes), killer.steps.into_inner().unwrap())
}

fn goes_on(mut params: Value, inputs: &[(&str, &Path)]) {
    params["checkpoint_every"] = json!(3);
    let whole = tempfile::tempdir().unwrap();
    let expected = attempt(whole.path(), &params, inputs, u64::MAX).0.unwrap();
    let dir = tempfile::tempdir().unwrap();
    for after in [2, 5, 8] {
        let (ran, _) = attempt(dir.path(), &params, inputs, after);
        assert!(matches!(ran, Err(StageError::Cancelled)));
    }
    // A kill while a checkpoint is written leaves the last one.
    fs_err::write(dir.path().join("resume/new"), "half").unwrap();
    let (ran, steps) = attempt(dir.path(), &params, inputs, u64::MAX);
    assert!(!steps.contains(&2) && steps.contains(&6), "{steps:?}");
    let got = ran.unwrap();
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(got[name] == *bytes, "{name} differs");
    }
}

#[test]
fn a_killed_sft_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = completions(dir.path());
    let params = json!({
        "method": "sft", "steps": 10, "batch": 2, "seq_len": 64, "learning_rate": 0.01,
        "model": arch(), "eval_every": 2, "valid_share": 0.2
    });
    goes_on(params.clone(), &[("corpus", &file)]);
    let mut full = params;
    full["sft"] = json!({ "learn": "all", "packing": "none" });
    goes_on(full, &[("corpus", &file)]);
}

#[test]
fn a_killed_adapter_with_dropout_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = completions(dir.path());
    let params = json!({
        "method": "sft", "steps": 10, "batch": 3, "micro_batch": 2, "seq_len": 64, "model": arch(),
        "lora": { "r": 4, "dora": true, "dropout": 0.1 }
    });
    goes_on(params.clone(), &[("corpus", &file)]);
    let mut again = params;
    again["gradient_checkpointing"] = json!(true);
    goes_on(again, &[("corpus", &file)]);
}

#[test]
fn a_killed_dpo_and_dapo_go_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let params = json!({
        "method": "sft", "steps": 30, "batch": 2, "seq_len": 64, "learning_rate": 0.01,
        "model": arch()
    });
    let base = testing::run::<Stage>(params, &[("corpus", &completions(dir.path()))]).unwrap();
    let base = base.outputs["model"].as_path();
    let pair = |i: usize| {
        json!({
            "prompt": format!("Spread {i} bps, calm. Decision:"), "chosen": " buy limit 10",
            "rejected": " sell market now", "reward_chosen": 0.5 + 0.01 * i as f64,
            "reward_rejected": 0.2
        })
    };
    let pairs = lines(dir.path(), "pairs.jsonl", (0..20).map(pair));
    let inputs = [("base", base), ("pairs", pairs.as_path())];
    let dpo = json!({
        "method": "dpo", "steps": 10, "batch": 2, "lora": { "r": 4, "rslora": true },
        "eval_every": 4, "valid_share": 0.2,
        "dpo": { "loss": "robust", "label_smoothing": 0.1, "reward_weighted": true }
    });
    goes_on(dpo, &inputs);
    // A program that prefers short answers.
    let script = dir.path().join("score.sh");
    fs_err::write(&script, "while IFS= read -r line; do echo ${#line}; done\n").unwrap();
    let inputs = [inputs[0], inputs[1], ("reward", script.as_path())];
    let dapo = json!({
        "method": "dapo", "steps": 10, "batch": 2, "lora": { "r": 4 },
        "dapo": { "group": 3, "max_tokens": 8, "reward": { "command": "sh {reward}" } }
    });
    goes_on(dapo, &inputs);
}

#[test]
fn a_checkpoint_that_cannot_be_used_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = completions(dir.path());
    let params = json!({
        "method": "sft", "steps": 4, "batch": 2, "seq_len": 64, "model": arch(),
        "checkpoint_every": 1
    });
    let inputs = [("corpus", file.as_path())];
    let expected = attempt(dir.path(), &params, &inputs, u64::MAX).0.unwrap();
    let path = dir.path().join("resume/checkpoint.safetensors");
    let whole = fs_err::read(&path).unwrap();
    for damaged in [&whole[..whole.len() / 2], &b"nonsense"[..], &[][..]] {
        fs_err::write(&path, damaged).unwrap();
        let (ran, steps) = attempt(dir.path(), &params, &inputs, u64::MAX);
        assert!(steps.contains(&1) && ran.unwrap() == expected);
    }
}
