//! The losses against reference values (see `testdata/README.md`).

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Dapo {
    inputs: Inputs,
    advantages: Advantages,
    cases: Vec<Case>,
    grad_accumulation: Accumulation,
    soft_overlong: Vec<Overlong>,
    dynamic_sampling: Sampling,
}

#[derive(Deserialize)]
struct Inputs {
    rewards: Vec<Vec<f64>>,
    lengths: Vec<Vec<usize>>,
    mask: Vec<Vec<f64>>,
    old_logp: Vec<Vec<f64>>,
    logp: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Advantages {
    #[serde(rename = "verl_ddof1_eps1e-6")]
    verl: Vec<f64>,
    #[serde(rename = "trl_ddof1_eps1e-4")]
    trl: Vec<f64>,
    #[serde(rename = "population_ddof0_eps0")]
    population: Vec<f64>,
    #[serde(rename = "dr_grpo_no_std")]
    plain: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    agg: String,
    eps_low: f64,
    eps_high: f64,
    dual_clip_c: Option<f64>,
    loss: f64,
    per_token_loss: Vec<Vec<f64>>,
    clip_fraction: f64,
    grad_logp: Vec<Vec<f64>>,
    mask: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Accumulation {
    micro_losses_global_norm: Vec<f64>,
    sum: f64,
    global_tokens: f64,
}

#[derive(Deserialize)]
struct Overlong {
    len: usize,
    #[serde(rename = "L_max")]
    max: usize,
    #[serde(rename = "L_cache")]
    cache: usize,
    penalty: f64,
}

#[derive(Deserialize)]
struct Sampling {
    groups: Vec<Vec<f64>>,
    keep_tol_1e6: Vec<bool>,
}

fn reference() -> Dapo {
    serde_json::from_str(include_str!("testdata/dapo.json")).unwrap()
}

fn close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() < 1e-9, "{what}: {got} != {expected}");
}

fn group_advantages(reference: &Dapo, spread: Spread, eps: f64) -> Vec<f64> {
    reference.inputs.rewards.iter().flat_map(|group| advantages(group, spread, eps)).collect()
}

/// The tokens that `mask` leaves of rows `rows`: logp, old logp, advantage, and their places.
#[allow(clippy::type_complexity)]
fn tokens(
    inputs: &Inputs,
    mask: &[Vec<f64>],
    advantage: &[f64],
    rows: std::ops::Range<usize>,
) -> (Vec<f64>, Vec<f64>, Vec<f64>, Vec<(usize, usize)>) {
    let mut out = (vec![], vec![], vec![], vec![]);
    for row in rows {
        for (at, kept) in mask[row].iter().enumerate() {
            if *kept == 1.0 {
                out.0.push(inputs.logp[row][at]);
                out.1.push(inputs.old_logp[row][at]);
                out.2.push(advantage[row]);
                out.3.push((row, at));
            }
        }
    }
    out
}

#[test]
fn advantages_agree_with_verl_trl_and_dr_grpo() {
    let reference = reference();
    let cases = [
        (Spread::Sample, 1e-6, &reference.advantages.verl),
        (Spread::Sample, 1e-4, &reference.advantages.trl),
        (Spread::Population, 0.0, &reference.advantages.population),
        (Spread::None, 0.0, &reference.advantages.plain),
    ];
    for (spread, eps, expected) in cases {
        for (got, expected) in group_advantages(&reference, spread, eps).iter().zip(expected) {
            close(*got, *expected, "advantage");
        }
    }
    assert_eq!(advantages(&[0.3], Spread::Sample, 1e-6), [0.0]);
}

#[test]
fn dapo_agrees_with_every_case() {
    let reference = reference();
    assert_eq!(reference.cases.len(), 9);
    for case in &reference.cases {
        let (spread, eps) = match case.name.as_str() {
            name if name.contains("trl") => (Spread::Sample, 1e-4),
            "dapo_ddof0" => (Spread::Population, 0.0),
            "dr_grpo" => (Spread::None, 0.0),
            _ => (Spread::Sample, 1e-6),
        };
        let aggregate = match case.agg.as_str() {
            "token-mean" => Aggregate::Tokens,
            "per-prompt-token-mean" => Aggregate::Prompts,
            "seq-mean-token-mean" => Aggregate::Sequences,
            "dr_grpo" => Aggregate::Fixed,
            other => panic!("{other}"),
        };
        let counted = |row: &Vec<f64>| row.iter().sum::<f64>() as usize;
        let lengths: Vec<usize> = case.mask.iter().map(counted).collect();
        let groups: Vec<Vec<usize>> = lengths.chunks(4).map(<[usize]>::to_vec).collect();
        let weights = weights(&groups, aggregate, 5);
        let advantage = group_advantages(&reference, spread, eps);
        let (logp, old, adv, places) = tokens(&reference.inputs, &case.mask, &advantage, 0..8);
        let weight: Vec<f64> = places.iter().map(|(row, _)| weights[*row]).collect();
        let clip = Clip { low: case.eps_low, high: case.eps_high, dual: case.dual_clip_c };
        let got = dapo(&logp, &old, &adv, &weight, clip);
        close(got.loss.value, case.loss, &case.name);
        close(got.clipped as f64 / logp.len() as f64, case.clip_fraction, &case.name);
        for (i, (row, at)) in places.into_iter().enumerate() {
            close(got.loss.grad[i], case.grad_logp[row][at], &case.name);
            let one = dapo(&logp[i..=i], &old[i..=i], &adv[i..=i], &[1.0], clip);
            close(one.loss.value, case.per_token_loss[row][at], &case.name);
        }
    }
}

#[test]
fn parts_of_a_batch_add_up_to_the_batch() {
    let reference = reference();
    let advantage = group_advantages(&reference, Spread::Sample, 1e-6);
    let clip = Clip { low: 0.2, high: 0.28, dual: None };
    let all = reference.grad_accumulation.global_tokens as usize;
    assert_eq!(all, reference.inputs.lengths.iter().flatten().sum::<usize>());
    let share = weights(&reference.inputs.lengths, Aggregate::Tokens, 5)[0];
    let mut sum = 0.0;
    for (part, expected) in reference.grad_accumulation.micro_losses_global_norm.iter().enumerate()
    {
        let rows = part * 4..part * 4 + 4;
        let (logp, old, adv, _) =
            tokens(&reference.inputs, &reference.inputs.mask, &advantage, rows);
        let got = dapo(&logp, &old, &adv, &vec![share; logp.len()], clip).loss.value;
        close(got, *expected, "part");
        sum += got;
    }
    close(sum, reference.grad_accumulation.sum, "sum");
}

#[test]
fn a_ratio_that_explodes_stays_finite() {
    let clip = Clip { low: 0.2, high: 0.28, dual: None };
    let got = dapo(&[0.0], &[-1e4], &[-1.0], &[1.0], clip);
    assert!(got.loss.value.is_finite() && got.loss.grad[0].is_finite());
}

#[test]
fn overlong_agrees() {
    for case in reference().soft_overlong {
        close(soft_overlong(case.len, case.max, case.cache), case.penalty, "penalty");
    }
}

#[test]
fn groups_that_teach_nothing_are_known() {
    let sampling = reference().dynamic_sampling;
    let got: Vec<bool> = sampling.groups.iter().map(|group| informative(group, 1e-6)).collect();
    assert_eq!(got, sampling.keep_tol_1e6);
}

#[derive(Deserialize)]
struct Pairs {
    policy_chosen: Vec<f64>,
    policy_rejected: Vec<f64>,
    ref_chosen: Vec<f64>,
    ref_rejected: Vec<f64>,
    len_chosen: Vec<f64>,
    len_rejected: Vec<f64>,
    pair_weight: Vec<f64>,
    cases: std::collections::BTreeMap<String, PairCase>,
}

#[derive(Deserialize)]
struct PairCase {
    beta: f64,
    per_pair: Vec<f64>,
    loss: f64,
    grad_chosen: Vec<f64>,
    grad_rejected: Vec<f64>,
    margins: Vec<f64>,
}

fn plain(beta: f64, nll: f64) -> Dpo {
    Dpo { beta, nll, ..Dpo::default() }
}

#[test]
fn every_preference_loss_agrees_with_trl() {
    let all: serde_json::Value = serde_json::from_str(include_str!("testdata/dpo.json")).unwrap();
    let reference: Pairs = serde_json::from_value(all["dpo"].clone()).unwrap();
    assert_eq!(reference.cases.len(), 7);
    let n = reference.policy_chosen.len();
    for (name, expected) in &reference.cases {
        let (loss, label_smoothing, ipo_mean) = match name.as_str() {
            "cdpo_label_smoothing_0.1" => (Objective::Sigmoid, 0.1, true),
            "robust_label_smoothing_0.1" => (Objective::Robust, 0.1, true),
            "hinge" => (Objective::Hinge, 0.0, true),
            "ipo_trl_len_normalised" => (Objective::Ipo, 0.0, true),
            "ipo_paper_sum" => (Objective::Ipo, 0.0, false),
            _ => (Objective::Sigmoid, 0.0, true),
        };
        let weighted = name.starts_with("reward_weighted");
        let settings = Dpo { loss, label_smoothing, ipo_mean, ..plain(expected.beta, 0.0) };
        let mut sum = 0.0;
        for i in 0..n {
            let pair = Preference {
                chosen: reference.policy_chosen[i],
                rejected: reference.policy_rejected[i],
                ref_chosen: reference.ref_chosen[i],
                ref_rejected: reference.ref_rejected[i],
                chosen_tokens: reference.len_chosen[i] as usize,
                rejected_tokens: reference.len_rejected[i] as usize,
                weight: if weighted { reference.pair_weight[i] } else { 1.0 },
            };
            let got = dpo(&pair, &settings);
            close(got.value, expected.per_pair[i], name);
            close(got.margin, expected.margins[i], name);
            close(got.grad_chosen / n as f64, expected.grad_chosen[i], name);
            close(got.grad_rejected / n as f64, expected.grad_rejected[i], name);
            sum += got.value;
            let with = dpo(&pair, &Dpo { nll: 0.5, ..settings.clone() });
            let per_token = 0.5 / reference.len_chosen[i];
            close(with.value - got.value, -per_token * pair.chosen, "nll");
            close(with.grad_chosen - got.grad_chosen, -per_token, "nll gradient");
            assert_eq!(with.grad_rejected, got.grad_rejected);
        }
        close(sum / n as f64, expected.loss, name);
    }
}

#[test]
fn dpo_is_finite_far_out() {
    for chosen in [-1e5, 1e5] {
        let pair = Preference {
            chosen,
            rejected: 0.0,
            ref_chosen: 0.0,
            ref_rejected: 0.0,
            chosen_tokens: 1,
            rejected_tokens: 1,
            weight: 1.0,
        };
        let got = dpo(&pair, &plain(0.1, 0.0));
        assert!(got.value.is_finite() && got.grad_chosen.is_finite());
    }
}

#[test]
fn cross_entropy_is_the_mean() {
    let got = cross_entropy(&[-1.0, -3.0], 4);
    assert_eq!(got, TokenLoss { value: 1.0, grad: vec![-0.25, -0.25] });
}
