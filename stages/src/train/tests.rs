//! The methods end to end on a model of two layers, and gradients through the model against
//! reference values.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::AutodiffModule;
use burn::prelude::*;
use serde_json::{Value, json};

use super::dapo::{self, Sample, Scored, World};
use super::logps::{Group, group, numbers};
use super::options::Dpo;
use super::stage::Train as Stage;
use super::steps::{Gradients, Run};
use super::{Params, losses};
use crate::device::{Back, Train, cpu};
use crate::model::lora::Spec;
use crate::model::{Config, Kernels, Llama, Normal, Sampling, generate};
use crate::testing::{self, Ran};
use crate::{Cancel, Context, Job, Progress, Result, Sink, StageError};

pub(super) fn corpus(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("chunks.jsonl");
    let line = |i: usize| {
        let (volatility, answer) = [("low", "buy limit 10"), ("high", "sell market")][i % 2];
        let spread = i % 7 + 2;
        let text = format!(
            "The spread is {spread} basis points and volatility is {volatility}.\nDecision: {answer}"
        );
        json!({ "text": text }).to_string() + "\n"
    };
    fs_err::write(&path, (0..40).map(line).collect::<String>()).unwrap();
    path
}

fn sft_params() -> Value {
    json!({
        "method": "sft", "steps": 20, "batch": 4, "seq_len": 32, "learning_rate": 0.01,
        "model": {
            "hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 64, "vocab": 320,
            "context": 96
        }
    })
}

fn sft(dir: &Path) -> Ran {
    testing::run::<Stage>(sft_params(), &[("corpus", &corpus(dir))]).unwrap()
}

/// A model that knows the form of an answer.
fn base(dir: &Path) -> Ran {
    let mut params = sft_params();
    params["steps"] = json!(60);
    testing::run::<Stage>(params, &[("corpus", &corpus(dir))]).unwrap()
}

/// The bytes of every output file by name.
fn bytes(ran: &Ran) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in ran.outputs.values() {
        for (name, place) in &testing::input(path).files {
            all.insert(name.clone(), fs_err::read(place).unwrap());
        }
    }
    all
}

/// Column `name` of the log.
pub(super) fn logged(ran: &Ran, name: &str) -> Vec<f64> {
    let lines = ran.text("log");
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()[name].as_f64().unwrap();
    lines.lines().map(line).collect()
}

fn with_threads<T: Send>(count: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap().install(f)
}

#[test]
fn sft_learns_and_gives_the_same_bytes_with_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let ran = sft(dir.path());
    let loss = logged(&ran, "loss");
    assert_eq!(loss.len(), 20);
    assert!(loss[0] > 5.0 && loss[19] < 0.6 * loss[0], "{loss:?}");
    assert!((ran.metrics["perplexity"].ln() - ran.metrics["valid_loss"]).abs() < 1e-9);
    assert!(ran.metrics["valid_loss"] < loss[0]);
    let files = bytes(&ran);
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    let events = "events.out.tfevents.0.quantmill";
    let model = ["model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names, [&["config.json", "curve.svg", events, "log"][..], &model].concat());
    for threads in [1, 2] {
        let again = with_threads(threads, || sft(dir.path()));
        for (name, bytes) in bytes(&again) {
            assert!(files[&name] == bytes, "{name} differs with {threads} threads");
        }
    }
}

#[test]
fn micro_batches_leave_the_gradient_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let whole = logged(&sft(dir.path()), "loss");
    let mut params = sft_params();
    params["micro_batch"] = json!(1);
    let parts = testing::run::<Stage>(params, &[("corpus", &corpus(dir.path()))]).unwrap();
    for (a, b) in whole.iter().zip(logged(&parts, "loss")) {
        assert!((a - b).abs() < 2e-3, "{a} {b}");
    }
}

pub(super) fn pairs(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("pairs.jsonl");
    let line = |i: usize| {
        let row = json!({
            "id": format!("row-{i}"),
            "prompt": format!("The spread is {} basis points.\nDecision:", i + 2),
            "chosen": ([" buy limit 10", " sell market"][i % 2]),
            "rejected": " flat",
            "outcome": {
                "close": 100.0, "half_spread_bps": 1.0, "sigma_bps": 80.0,
                "horizon_bars": 1, "markout_bars": 1, "markout_bps": 20.0, "ask_bps": 20.0,
                "bid_bps": 20.0, "end_bps": 50.0, "falls": [[-60.0, 50.0]], "rises": [[40.0, 50.0]]
            }
        });
        row.to_string() + "\n"
    };
    fs_err::write(&path, (0..24).map(line).collect::<String>()).unwrap();
    path
}

fn dpo_params() -> Value {
    json!({
        "method": "dpo", "steps": 40, "batch": 4, "learning_rate": 0.01, "lora": { "r": 4 },
        "valid_share": 0.25
    })
}

#[test]
fn dpo_parts_the_pairs_and_leaves_the_base_alone() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let pairs = pairs(dir.path());
    let inputs = [("base", base.outputs["model"].as_path()), ("pairs", pairs.as_path())];
    let ran = testing::run::<Stage>(dpo_params(), &inputs).unwrap();
    let margin = logged(&ran, "margin");
    assert_eq!(margin[0], 0.0, "the adapter starts as the reference");
    assert!(margin[39] > 0.2, "{margin:?}");
    assert!(logged(&ran, "chosen_logp")[39] > logged(&ran, "chosen_logp")[0]);
    assert_eq!(ran.metrics["valid_accuracy"], 1.0);
    let (before, after) = (bytes(&base), bytes(&ran));
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        assert!(before[name] == after[name], "{name}");
    }
    assert!(after.contains_key("adapter_config.json"));
    let again = with_threads(1, || testing::run::<Stage>(dpo_params(), &inputs).unwrap());
    assert!(bytes(&again) == after);
}

pub(super) fn reward(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("reward.json");
    let spec = json!({
        "maker_fee_bps": 1.0, "taker_fee_bps": 3.0, "adverse_weight": 0.5, "scale": 1.0,
        "horizon_bars": 1, "markout_bars": 1, "fill": { "a": 0.7, "k": 0.05 }
    });
    fs_err::write(&path, spec.to_string()).unwrap();
    path
}

#[test]
fn dapo_runs_on_the_market_and_merges_the_adapter_of_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let pairs = pairs(dir.path());
    let inputs = [("base", base.outputs["model"].as_path()), ("pairs", pairs.as_path())];
    let warm = testing::run::<Stage>(dpo_params(), &inputs).unwrap();
    let reward = reward(dir.path());
    let inputs = [
        ("base", warm.outputs["model"].as_path()),
        ("pairs", pairs.as_path()),
        ("reward", reward.as_path()),
    ];
    let params = json!({
        "method": "dapo", "steps": 3, "batch": 2, "lora": { "r": 4 },
        "dapo": { "group": 4, "max_tokens": 16, "temperature": 1.2 }
    });
    let ran = testing::run::<Stage>(params.clone(), &inputs).unwrap();
    for name in ["reward_mean", "reward_std", "parse_failures", "groups_dropped"] {
        assert_eq!(logged(&ran, name).len(), 3);
    }
    let gap = logged(&ran, "logp_gap").into_iter().fold(0.0, f64::max);
    assert!(gap < 1e-3, "rollout and trainer disagree by {gap}");
    let (before, after) = (bytes(&warm), bytes(&ran));
    assert!(before["model.safetensors"] != after["model.safetensors"], "merged");
    let again = with_threads(1, || testing::run::<Stage>(params, &inputs).unwrap());
    assert!(bytes(&again) == after);
}

#[test]
fn dapo_under_a_grammar_always_reads() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let pairs = pairs(dir.path());
    let reward = reward(dir.path());
    let inputs = [
        ("base", base.outputs["model"].as_path()),
        ("pairs", pairs.as_path()),
        ("reward", reward.as_path()),
    ];
    for form in ["words", "json", "code"] {
        let params = json!({
            "method": "dapo", "steps": 3, "batch": 2, "lora": { "r": 4 },
            "dapo": { "group": 4, "form": form, "offsets_bps": [10, 40] }
        });
        let ran = testing::run::<Stage>(params.clone(), &inputs).unwrap();
        assert_eq!(logged(&ran, "parse_failures"), [0.0; 3], "{form}");
        assert_eq!(logged(&ran, "truncated"), [0.0; 3], "{form}");
        let gap = logged(&ran, "logp_gap").into_iter().fold(0.0, f64::max);
        assert!(gap < 1e-3, "{form}: rollout and trainer disagree by {gap}");
        assert!(logged(&ran, "grad_norm").into_iter().all(|norm| norm > 0.0), "{form}");
        let again = with_threads(1, || testing::run::<Stage>(params, &inputs).unwrap());
        assert!(bytes(&again) == bytes(&ran), "{form}");
    }
}

fn small(seed: u64) -> Llama<Train> {
    let config = Config::llama(24, 16, 2, 2, 1, 24, 32);
    Llama::build(&config, &mut Normal::new(seed), &cpu()).unwrap()
}

fn adapter() -> Spec {
    Spec {
        r: 4,
        alpha: 8.0,
        targets: vec!["q_proj".into(), "down_proj".into()],
        ..Default::default()
    }
}

/// Every answer is worth the share of its tokens that are 7.
struct Sevens {
    prompt: Vec<u32>,
    drawn: u64,
}

impl World for Sevens {
    fn prompt(&self, _: usize) -> &[u32] {
        &self.prompt
    }
    fn questions(&self) -> usize {
        1
    }
    fn sample(&mut self, model: &Llama<Train>, _: usize, count: usize) -> Result<Vec<Sample>> {
        self.drawn += 1;
        let sampling = Sampling {
            temperature: 1.0,
            max_tokens: 6,
            stop: vec![0],
            ..Sampling::greedy(6, &[0])
        };
        let drawn = generate(&model.valid(), &self.prompt, count, &sampling, self.drawn)?;
        let sample = |s: crate::model::Sample| Sample {
            logp: s.log_probs.iter().map(|x| f64::from(*x)).collect(),
            ended: s.stopped,
            tokens: s.tokens,
            choices: Vec::new(),
        };
        Ok(drawn.into_iter().map(sample).collect())
    }
    fn score(&mut self, _: usize, sample: &Sample) -> Result<Scored> {
        let sevens = sample.tokens.iter().filter(|t| **t == 7).count() as f64;
        Ok(Scored { reward: sevens / sample.tokens.len() as f64, parsed: true })
    }
    fn line(&self, at: usize) -> u64 {
        at as u64 + 1
    }
    fn skip(&mut self, groups: usize) {
        self.drawn = groups as u64;
    }
}

struct Silent;

impl Sink for Silent {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

fn rigged(world: &mut dyn World, cancel: Cancel) -> Result<Vec<f64>> {
    let dir = tempfile::tempdir().unwrap();
    let params: Params = serde_json::from_value(json!({
        "method": "dapo", "steps": 25, "batch": 4, "learning_rate": 0.02,
        "dapo": { "group": 8, "max_tokens": 6, "overlong_cache": 0, "max_rounds": 2 }
    }))
    .unwrap();
    let job = Job::default();
    let ctx = Context::new(&job, &Silent, cancel);
    let path = dir.path().join("log");
    let log = super::log::Log::create(&path)?;
    let mut run = Run { ctx: &ctx, params: &params, log, on_cpu: true };
    dapo::run(small(1), world, params.dapo.as_ref().unwrap(), &mut run)?;
    let text = fs_err::read_to_string(&path)?;
    let reward = |line: &str| serde_json::from_str::<Value>(line).unwrap()["reward_mean"].as_f64();
    Ok(text.lines().map(|line| reward(line).unwrap()).collect())
}

#[test]
fn dapo_raises_a_rigged_reward() {
    let rewards =
        rigged(&mut Sevens { prompt: vec![1, 2, 3], drawn: 0 }, Cancel::default()).unwrap();
    let (first, last) = (rewards[0], rewards[rewards.len() - 1]);
    assert!(first < 0.2 && last > 0.6, "{rewards:?}");
}

/// Every answer is worth the same.
struct Dull(Sevens);

impl World for Dull {
    fn prompt(&self, at: usize) -> &[u32] {
        self.0.prompt(at)
    }
    fn questions(&self) -> usize {
        1
    }
    fn sample(&mut self, model: &Llama<Train>, at: usize, count: usize) -> Result<Vec<Sample>> {
        self.0.sample(model, at, count)
    }
    fn score(&mut self, _: usize, _: &Sample) -> Result<Scored> {
        Ok(Scored { reward: 0.5, parsed: true })
    }
    fn line(&self, at: usize) -> u64 {
        self.0.line(at)
    }
    fn skip(&mut self, groups: usize) {
        self.0.skip(groups);
    }
}

#[test]
fn rewards_that_are_all_equal_are_an_error_and_sampling_is_bounded() {
    let mut world = Dull(Sevens { prompt: vec![1], drawn: 0 });
    let e = rigged(&mut world, Cancel::default()).unwrap_err();
    assert_eq!(e.to_string(), "all 8 groups have equal rewards");
    assert!(e.help().unwrap().contains("temperature"));
    assert_eq!(world.0.drawn, 8, "two rounds of four");
}

#[test]
fn a_cancelled_run_stops() {
    let cancel = Cancel::default();
    cancel.cancel();
    let mut world = Sevens { prompt: vec![1], drawn: 0 };
    assert!(matches!(rigged(&mut world, cancel), Err(StageError::Cancelled)));
}

#[test]
fn completions_that_share_a_prompt_are_as_if_alone() {
    let model = small(3);
    let prompt = vec![3, 1, 4, 1, 5];
    let completions = vec![vec![9, 2, 6, 0], vec![5, 0], vec![3]];
    let together = Group::free(prompt.clone(), completions.clone());
    let got = numbers(&group(&model, &together, 0.7).unwrap());
    let mut expected = Vec::new();
    for completion in &completions {
        let tokens = [prompt.clone(), completion.clone()].concat();
        let at: Vec<usize> = (prompt.len() - 1..tokens.len() - 1).collect();
        expected.extend(numbers(&model.log_probs(&tokens, 1, &at, 0.7).unwrap()));
    }
    assert_eq!(got.len(), 7);
    for (got, expected) in got.iter().zip(&expected) {
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    }
}

#[test]
fn gradients_of_a_shared_prompt_are_the_sum_of_those_alone() {
    let model = small(3).with_adapter(&adapter(), 2).unwrap();
    let grads = |groups: &[Group], weights: &[Vec<f64>]| {
        let mut sum = Gradients::new();
        for (one, weights) in groups.iter().zip(weights) {
            let logp = group(&model, one, 1.0).unwrap();
            super::logps::backward(logp, weights, &model, &mut sum);
        }
        let b = &model.blocks[0].q.adapter.as_ref().unwrap().b;
        let grads = sum.grads();
        grads.get::<Back, 2>(b.id).unwrap().into_data().into_vec::<f32>().unwrap()
    };
    let prompt = vec![3, 1, 4, 1, 5];
    let one = |c: &[Vec<u32>]| Group::free(prompt.clone(), c.to_vec());
    let all = [vec![9, 2, 6, 0], vec![5, 0]];
    let together = grads(&[one(&all)], &[vec![0.5, -1.0, 2.0, 0.1, 0.3, -0.7]]);
    let alone =
        grads(&[one(&all[..1]), one(&all[1..])], &[vec![0.5, -1.0, 2.0, 0.1], vec![0.3, -0.7]]);
    assert!(together.iter().any(|g| g.abs() > 1e-4));
    for (a, b) in together.iter().zip(&alone) {
        assert!((a - b).abs() < 1e-6 + 1e-3 * b.abs(), "{a} {b}");
    }
}

/// Gradient of `loss` at `logits` (rows, with the token each predicts), by way of [`losses`].
fn through(
    logits: &[Vec<f32>],
    targets: &[u32],
    temperature: f32,
    loss: impl Fn(&[f64]) -> (f64, Vec<f64>),
) -> (f64, Vec<f32>) {
    let width = logits[0].len();
    let data = burn::tensor::TensorData::new(logits.concat(), [logits.len(), width]);
    let logits = Tensor::<Train, 2>::from_data(data, &cpu()).require_grad();
    let logp = <Train as Kernels>::log_probs(logits.clone(), targets, temperature);
    let (value, grad) = loss(&numbers(&logp));
    let grad: Vec<f32> = grad.iter().map(|g| *g as f32).collect();
    let weights = Tensor::<Train, 1>::from_data(grad.as_slice(), &cpu());
    let grads = (logp * weights).sum().backward();
    (value, logits.grad(&grads).unwrap().into_data().into_vec().unwrap())
}

fn read(value: &Value) -> Vec<Vec<f32>> {
    let rows = serde_json::from_value::<Vec<Vec<Vec<f32>>>>(value.clone()).unwrap();
    rows.concat()
}

fn flat<T: serde::de::DeserializeOwned + Clone>(value: &Value) -> Vec<T> {
    serde_json::from_value::<Vec<Vec<T>>>(value.clone()).unwrap().concat()
}

fn agree(got: (f64, Vec<f32>), loss: &Value, grad: &Value) {
    assert!((got.0 - loss.as_f64().unwrap()).abs() < 1e-6, "{} {loss}", got.0);
    let expected = read(grad).concat();
    assert_eq!(got.1.len(), expected.len());
    for (got, expected) in got.1.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
}

#[test]
fn dapo_agrees_down_to_the_logits() {
    let all: Value = serde_json::from_str(include_str!("testdata/dapo.json")).unwrap();
    let case = &all["logits_level"];
    let old: Vec<f64> = flat(&case["old_logp"]);
    let mask: Vec<f64> = flat(&case["mask"]);
    let advantages: Vec<f64> = serde_json::from_value(case["advantages"].clone()).unwrap();
    let kept: Vec<usize> = (0..mask.len()).filter(|i| mask[*i] == 1.0).collect();
    let pick = |values: &[f64]| kept.iter().map(|i| values[*i]).collect::<Vec<_>>();
    let got = through(&read(&case["logits"]), &flat::<u32>(&case["tokens"]), 0.7, |logp| {
        for (got, expected) in logp.iter().zip(flat::<f64>(&case["logp"])) {
            assert!((got - expected).abs() < 1e-5);
        }
        let spread: Vec<f64> = (0..mask.len()).map(|i| advantages[i / 3]).collect();
        let clip = losses::Clip { low: 0.2, high: 0.28, dual: None };
        let weight = vec![1.0 / kept.len() as f64; kept.len()];
        let loss = losses::dapo(&pick(logp), &pick(&old), &pick(&spread), &weight, clip).loss;
        let mut grad = vec![0.0; mask.len()];
        kept.iter().zip(&loss.grad).for_each(|(i, g)| grad[*i] = *g);
        (loss.value, grad)
    });
    agree(got, &case["loss"], &case["grad_logits"]);
}

#[test]
fn cross_entropy_agrees_down_to_the_logits() {
    let all: Value = serde_json::from_str(include_str!("testdata/dpo.json")).unwrap();
    let case = &all["sft_ce"];
    let labels: Vec<i64> = flat(&case["labels_already_shifted"]);
    let targets: Vec<u32> = labels.iter().map(|l| (*l).max(0) as u32).collect();
    let got = through(&read(&case["logits"]), &targets, 1.0, |logp| {
        let kept: Vec<usize> = (0..labels.len()).filter(|i| labels[*i] >= 0).collect();
        let picked: Vec<f64> = kept.iter().map(|i| logp[*i]).collect();
        let loss = losses::cross_entropy(&picked, kept.len());
        let mut grad = vec![0.0; labels.len()];
        kept.iter().zip(&loss.grad).for_each(|(i, g)| grad[*i] = *g);
        (loss.value, grad)
    });
    agree(got, &case["loss"], &case["grad"]);
}

#[test]
fn dpo_agrees_down_to_the_logits() {
    let all: Value = serde_json::from_str(include_str!("testdata/dpo.json")).unwrap();
    let case = &all["dpo_logits_level"];
    let ids: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
    let mask: Vec<Vec<f64>> = serde_json::from_value(case["completion_mask"].clone()).unwrap();
    let reference: Vec<f64> = serde_json::from_value(case["ref_seq_logps"].clone()).unwrap();
    let targets: Vec<u32> = ids.iter().flat_map(|row| row[1..].to_vec()).collect();
    let mask: Vec<f64> = mask.iter().flat_map(|row| row[1..].to_vec()).collect();
    let logits = read(&case["policy_logits_predicting_ids_1_to_end"]);
    let got = through(&logits, &targets, 1.0, |logp| {
        let half = logp.len() / 2;
        let sum = |rows: std::ops::Range<usize>| rows.map(|i| logp[i] * mask[i]).sum::<f64>();
        let pair = losses::Preference {
            chosen: sum(0..half),
            rejected: sum(half..2 * half),
            ref_chosen: reference[0],
            ref_rejected: reference[1],
            chosen_tokens: 3,
            rejected_tokens: 2,
            weight: 1.0,
        };
        let loss = losses::dpo(&pair, &Dpo { beta: 0.1, nll: 0.0, ..Dpo::default() });
        let slope = |i: usize| if i < half { loss.grad_chosen } else { loss.grad_rejected };
        (loss.value, (0..2 * half).map(|i| slope(i) * mask[i]).collect())
    });
    agree(got, &case["loss"], &case["grad_policy_logits"]);
}

#[test]
fn what_cannot_be_trained_on_is_an_error_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let fails =
        |params: Value, inputs: &[(&str, &Path)]| match testing::run::<Stage>(params, inputs) {
            Err(e) => (e.to_string(), e.help().unwrap_or_default().to_owned()),
            Ok(_) => panic!("it ran"),
        };
    let text = corpus(dir.path());
    let mut params = sft_params();
    params["seq_len"] = json!(97);
    assert!(fails(params, &[("corpus", &text)]).1.contains("model.context"));
    let mut params = sft_params();
    params["learning_rate"] = json!(1e30);
    let (said, hint) = fails(params, &[("corpus", &text)]);
    assert!(said.contains("not finite at update") && hint.contains("learning_rate"), "{said}");
    let mut params = sft_params();
    params.as_object_mut().unwrap().remove("model");
    assert!(fails(params, &[("corpus", &text)]).1.contains("model: {}"));

    let base = sft(dir.path());
    let model = base.outputs["model"].as_path();
    assert!(fails(sft_params(), &[("corpus", &text), ("base", model)]).0.contains("both"));
    let long = dir.path().join("long.jsonl");
    let row = |prompt: String| json!({ "prompt": prompt, "chosen": " a", "rejected": " b" });
    let rows = format!("{}\n{}\n", row("short".into()), row("long ".repeat(200)));
    fs_err::write(&long, rows).unwrap();
    let (said, _) = fails(dpo_params(), &[("base", model), ("pairs", &long)]);
    assert!(said.contains("long.jsonl:2: ") && said.contains("more than the model's 96"), "{said}");
}
