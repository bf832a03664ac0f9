//! DAPO under a grammar, against a plain reading of the definitions.

use burn::module::AutodiffModule;
use burn::prelude::*;

use super::super::logps::keep;
use super::*;
use crate::decode::sampling::allows;
use crate::decode::{Constraint, Grammar, Grammars, Vocabulary};
use crate::device::cpu;
use crate::model::{Config, Kernels, Normal, Sampling, Tokenizer, constrained};
use crate::pairs::decision::{Allowed, Decision, Form};

const HEAT: f64 = 1.3;

fn allowed() -> Allowed {
    Allowed { offsets_bps: vec![5, 10, 25, 100], max_size: 3, resting: false }
}

/// A model of random weights that has seen some of the answers as tokens, and a grammar.
fn world(form: Form) -> (Llama<Train>, Tokenizer, Constraint) {
    let texts: Vec<String> = allowed()
        .of_one_unit()
        .into_iter()
        .map(|decision| format!("Decision: {}\n", decision.write(form)))
        .collect();
    let tokenizer = Tokenizer::train(texts.iter().map(String::as_str), 300).unwrap();
    let mut config = Config::llama(tokenizer.size(), 16, 2, 2, 1, 24, 128);
    tokenizer.describe(&mut config);
    let model = Llama::build(&config, &mut Normal::new(4), &cpu()).unwrap();
    let grammars = Grammars::new(&Vocabulary::new(&tokenizer).unwrap(), config.vocab_size).unwrap();
    let constraint = grammars.compile(&Grammar::decision(&allowed(), form, " ")).unwrap();
    (model, tokenizer, constraint)
}

fn draw(
    model: &Llama<Train>,
    tokenizer: &Tokenizer,
    constraint: &Constraint,
    prompt: &[u32],
) -> Vec<Sample> {
    let sampling = Sampling { temperature: HEAT as f32, ..Sampling::greedy(96, tokenizer.eos()) };
    let drawn = constrained(&model.valid(), prompt, 6, &sampling, 9, constraint).unwrap();
    drawn
        .into_iter()
        .map(|one| Sample {
            logp: one.sample.log_probs.iter().map(|x| f64::from(*x)).collect(),
            ended: one.sample.stopped,
            tokens: one.sample.tokens,
            choices: one.choices,
        })
        .collect()
}

/// ln of a token's probability among those of a mask, by the definition.
fn plain(logits: &[f32], mask: &[u32], token: u32) -> f64 {
    let weight = |t: usize| (f64::from(logits[t]) / HEAT).exp();
    let total: f64 = (0..logits.len()).filter(|t| allows(Some(mask), *t)).map(weight).sum();
    (weight(token as usize) / total).ln()
}

#[test]
fn sampled_and_trained_probabilities_are_those_among_the_allowed() {
    for form in [Form::Words, Form::Json, Form::Code] {
        let (model, tokenizer, constraint) = world(form);
        let prompt = tokenizer.encode("Decision:").unwrap();
        let samples = draw(&model, &tokenizer, &constraint, &prompt);
        assert!(samples.iter().any(|s| s.tokens != samples[0].tokens), "{form:?}");
        let rewards = (0..samples.len()).map(|i| i as f64).collect();
        let settings = Dapo { temperature: HEAT, max_tokens: 96, ..Dapo::default() };
        let rollout = rollout(&prompt, 1, samples.clone(), rewards, &settings);
        let now = numbers(&group(&model, &rollout.group, HEAT as f32).unwrap());
        let mut at = 0;
        for sample in &samples {
            assert!(sample.ended);
            let text = tokenizer.decode(&sample.tokens).unwrap();
            let read = Decision::read(&text).unwrap_or_else(|| panic!("{form:?} {text:?}"));
            assert!(allowed().allows(read), "{text:?}");
            // The whole text in one pass, without a cache.
            let all = [prompt.clone(), sample.tokens.clone()].concat();
            let logits = model.forward(&all, 1).unwrap().into_data().into_vec::<f32>().unwrap();
            let each =
                logits.chunks(model.config.vocab_size).skip(prompt.len() - 1).zip(&sample.tokens);
            for ((logits, token), (choice, logp)) in
                each.zip(sample.choices.iter().zip(&sample.logp))
            {
                let Some(mask) = choice else {
                    assert_eq!(*logp, 0.0, "a forced token is certain");
                    continue;
                };
                let expected = plain(logits, mask, *token);
                assert!((expected - logp).abs() < 1e-4, "sampled {logp}, {expected}");
                assert!((expected - now[at]).abs() < 1e-4, "trained {}, {expected}", now[at]);
                at += 1;
            }
        }
        assert_eq!(at, now.len(), "one for each token that was chosen, and no other");
        let total: usize = samples.iter().map(|s| s.tokens.len()).sum();
        assert!(at > 0 && (form != Form::Json || at < total), "JSON has forced tokens");
    }
}

#[test]
fn the_first_update_has_ratio_one_and_the_loss_is_the_formula() {
    let (model, tokenizer, constraint) = world(Form::Json);
    let prompt = tokenizer.encode("Decision:").unwrap();
    let samples = draw(&model, &tokenizer, &constraint, &prompt);
    let rewards: Vec<f64> = (0..samples.len()).map(|i| (i * i % 5) as f64).collect();
    let settings = Dapo { temperature: HEAT, max_tokens: 96, overlong_cache: 0, ..Dapo::default() };
    let rollout = rollout(&prompt, 1, samples.clone(), rewards.clone(), &settings);
    let chosen: usize = samples.iter().map(Sample::chosen).sum();
    let weight = vec![1.0 / chosen as f64; chosen];
    let clip = Clip { low: 0.2, high: 0.28, dual: None };
    let advantages = advantages(&rewards, settings.advantage_std, settings.advantage_epsilon);
    let of_token: Vec<f64> = samples
        .iter()
        .zip(&advantages)
        .flat_map(|(sample, a)| std::iter::repeat_n(*a, sample.chosen()))
        .collect();
    // min(r A, clip(r) A), by the definition.
    let formula = |ratios: &[f64]| -> f64 {
        let each = ratios.iter().zip(&of_token);
        -each.map(|(r, a)| (r * a).min(r.clamp(0.8, 1.28) * a)).sum::<f64>() / chosen as f64
    };

    let now = numbers(&group(&model, &rollout.group, HEAT as f32).unwrap());
    let (first, grad) = rollout.loss(&now, &now, &weight, clip);
    assert_eq!(first.clipped, 0);
    for ((grad, a), w) in grad.iter().zip(&of_token).zip(&weight) {
        assert_eq!(*grad, -a * w, "the ratio is exactly 1");
    }
    assert!((first.loss.value - formula(&vec![1.0; chosen])).abs() < 1e-15);

    let old: Vec<f64> =
        now.iter().enumerate().map(|(i, x)| x + 0.1 * (i % 9) as f64 - 0.4).collect();
    let ratios: Vec<f64> = now.iter().zip(&old).map(|(now, old)| (now - old).exp()).collect();
    let (later, grad) = rollout.loss(&now, &old, &weight, clip);
    assert!((later.loss.value - formula(&ratios)).abs() < 1e-12);
    assert!(later.clipped > 0 && grad.contains(&0.0));
}

#[test]
fn what_is_not_allowed_gets_no_gradient() {
    let logits: Vec<f32> = (0..80).map(|i| ((i * 37 % 23) as f32 - 11.0) / 3.0).collect();
    let masks: [Vec<u32>; 2] = [vec![0b1010_0110, 0], vec![1 << 31, 0b101]];
    let targets = [5, 34];
    let weights = [0.7f32, -1.9];
    let leaf = Tensor::<Train, 2>::from_data(TensorData::new(logits.clone(), [2, 40]), &cpu());
    let leaf = leaf.require_grad();
    let kept = keep(leaf.clone(), &[&masks[0], &masks[1]]);
    let logp = <Train as Kernels>::log_probs(kept, &targets, HEAT as f32);
    for ((row, mask), (token, logp)) in
        logits.chunks(40).zip(&masks).zip(targets.iter().zip(numbers(&logp)))
    {
        assert!((plain(row, mask, *token) - logp).abs() < 1e-5);
    }
    let given = Tensor::<Train, 1>::from_data(weights.as_slice(), &cpu());
    let grads = (logp * given).sum().backward();
    let grad = leaf.grad(&grads).unwrap().into_data().into_vec::<f32>().unwrap();
    for (row, (mask, target)) in masks.iter().zip(targets).enumerate() {
        for token in 0..40 {
            let got = f64::from(grad[row * 40 + token]);
            if !allows(Some(mask), token) {
                assert_eq!(got, 0.0);
                continue;
            }
            let p = plain(&logits[row * 40..][..40], mask, token as u32).exp();
            let hit = if token as u32 == target { 1.0 } else { 0.0 };
            let expected = f64::from(weights[row]) * (hit - p) / HEAT;
            assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        }
    }
}
