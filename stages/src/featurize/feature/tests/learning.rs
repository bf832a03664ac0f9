//! What is learnt from the training span.

use serde_json::json;

use super::super::regime::{self, Fitted, Regime};
use super::*;
use crate::StageError;

fn learnt(spec: Value, samples: &[Sample]) -> Result<Value> {
    let mut learner = column(spec).learner(252.0, &ALL).unwrap().unwrap();
    samples.iter().for_each(|sample| learner.push(sample));
    learner.finish(&mut |_, _| Ok(()))
}

#[test]
fn two_regimes_agree_with_statsmodels() {
    let expected = reference("regime.json");
    let closes = numbers(&expected["close"]);
    let returns: Vec<f64> = closes.windows(2).map(|w| 100.0 * (w[1] / w[0]).ln()).collect();
    let how = Regime { stickiness: 0.0, ..Regime::default() };
    let fitted = regime::fit(&returns, &how, |_| Ok(())).unwrap().unwrap();
    let of = |name: &str| expected["statsmodels"][name].as_f64().unwrap();
    let close = |a: f64, b: f64| assert!((a - b).abs() < 2e-3, "{a}, not {b}");
    close(fitted.hmm.transition[0][0], of("p[0->0]"));
    close(fitted.hmm.transition[1][0], of("p[1->0]"));
    for (i, state) in ["0", "1"].iter().enumerate() {
        close(fitted.hmm.mean[i], of(&format!("const[{state}]")));
        close(fitted.hmm.variance[i], of(&format!("sigma2[{state}]")));
    }
    let ll = expected["statsmodels_log_likelihood"].as_f64().unwrap();
    assert!((fitted.log_likelihood - ll).abs() < 0.05, "{} {ll}", fitted.log_likelihood);
}

/// hmmlearn's three states of the daily returns hold one that is left at once (it stays with
/// probability 0.005). Ours last, in order of variance.
#[test]
fn three_regimes_last() {
    let samples = closes();
    let fit = learnt(json!({ "p_high_vol": { "states": 3 } }), &samples[..1501]).unwrap();
    let fitted: Fitted = serde_json::from_value(fit.clone()).unwrap();
    let hmm = &fitted.hmm;
    assert_eq!(hmm.variance.len(), 3);
    assert!(hmm.variance.is_sorted());
    for (i, row) in hmm.transition.iter().enumerate() {
        assert!(row[i] >= 0.5, "{row:?}");
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-10);
    }
    // More states are more likely than two.
    let two: Fitted =
        serde_json::from_value(learnt(json!("p_high_vol"), &samples[..1501]).unwrap()).unwrap();
    assert!(fitted.log_likelihood > two.log_likelihood);
    // The start is stationary.
    for j in 0..3 {
        let ahead: f64 = (0..3).map(|i| hmm.start[i] * hmm.transition[i][j]).sum();
        assert!((ahead - hmm.start[j]).abs() < 1e-9);
    }
    let none = json!({ "p_high_vol": { "states": 3, "stickiness": 0, "min_stay": 0.999 } });
    let error = learnt(none, &samples[..1501]).unwrap_err();
    assert!(error.to_string().contains("no 3 lasting states in 1500 training returns"), "{error}");
    assert!(error.help().unwrap().contains("stickiness"));
}

/// Starts that are tried on a part come to the same model of the whole.
#[test]
fn a_long_series_is_begun_on_its_end() {
    let returns: Vec<f64> =
        market(3000, 11).windows(2).map(|w| 100.0 * (w[1].close / w[0].close).ln()).collect();
    let how = Regime::default();
    let whole = regime::fit_from(&returns, &how, usize::MAX, |_| Ok(())).unwrap().unwrap();
    let mut starts = std::collections::BTreeSet::new();
    let begun = regime::fit_from(&returns, &how, 800, |start| {
        starts.insert(start);
        Ok(())
    });
    let begun = begun.unwrap().unwrap();
    assert_eq!((begun.returns, starts.len()), (returns.len(), how.restarts + 1));
    close_to("likelihood", begun.log_likelihood, whole.log_likelihood, 1e-6);
    for i in 0..2 {
        close_to("variance", begun.hmm.variance[i], whole.hmm.variance[i], 1e-2);
        close_to("stay", begun.hmm.transition[i][i], whole.hmm.transition[i][i], 1e-2);
    }
}

#[test]
fn outliers_are_no_regime() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let returns: Vec<f64> = (0..800)
        .map(|t| (rng.random::<f64>() - 0.5) * if t % 40 == 7 { 40.0 } else { 1.0 })
        .collect();
    for states in [2, 3] {
        let how = Regime { stickiness: 0.0, states, ..Regime::default() };
        assert_eq!(regime::fit(&returns, &how, |_| Ok(())).unwrap(), None);
        assert_eq!(regime::fit(&[0.0; 500], &how, |_| Ok(())).unwrap(), None);
    }
}

#[test]
fn learning_can_be_stopped() {
    for name in ["p_high_vol", "garch_vol"] {
        let mut learner = column(json!(name)).learner(252.0, &ALL).unwrap().unwrap();
        market(300, 1).iter().for_each(|sample| learner.push(sample));
        let mut left = 3;
        let stopped = learner.finish(&mut |_, _| {
            left -= 1;
            if left == 0 { Err(StageError::Cancelled) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(StageError::Cancelled)), "{name}");
    }
}

#[test]
fn what_is_learnt_reads_back_as_it_is() {
    let samples = market(600, 8);
    for entry in FEATURES.iter().filter(|entry| entry.fit.is_some()) {
        let fit = learnt(json!(entry.name), &samples).unwrap();
        let text = serde_json::to_string(&fit).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), fit, "{}", entry.name);
        // Twelve digits at most.
        let longest = text.split(|c: char| !c.is_ascii_digit() && c != '.');
        let longest = longest.map(|n| n.trim_start_matches(['0', '.']).len()).max();
        assert!(longest.unwrap() <= 13, "{text}");
    }
}

#[test]
fn a_span_without_volume_gives_no_buckets() {
    let mut samples = market(100, 9);
    samples.iter_mut().for_each(|s| s.volume = 0.0);
    let error = learnt(json!("vpin"), &samples).unwrap_err();
    assert_eq!(error.to_string(), "volume is 0 throughout the training span");
}

#[test]
fn the_last_returns_are_kept_and_no_more() {
    let spec = json!({ "p_high_vol": { "restarts": 1, "max_steps": 1, "min_stay": 0 } });
    let mut learner = column(spec).learner(252.0, &ALL).unwrap().unwrap();
    // The far past is a wild market; it must be forgotten.
    let wild = (0..500u32).map(|row| f64::from(row % 2) * 99.0 + 1.0);
    let calm = (0..=regime::KEPT as u32).map(|row| 1.0 + f64::from(row % 3) * 1e-3);
    wild.chain(calm).for_each(|close| learner.push(&flat(close)));
    let fit: Fitted = serde_json::from_value(learner.finish(&mut |_, _| Ok(())).unwrap()).unwrap();
    assert_eq!(fit.returns, regime::KEPT);
    assert!(fit.hmm.variance[1] < 1.0, "{:?}", fit.hmm);
}
